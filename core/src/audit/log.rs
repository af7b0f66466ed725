//! Checks the logs: each is a whole chain, and every reference of it has its value.

use std::collections::BTreeSet;

use super::{Audit, Rule};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::member::Member;
use crate::pages::PAGE_ENTRIES;
use crate::storage::{Entry, Key, ReadError};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::log::{chain, chain_start, digest_check, split_row};
use crate::stored::{Cause, Digest, Head, LogEntry, Pruned, Reference, ValueRef, digest, record};
use crate::syncable::Syncable;

impl Audit<'_> {
    pub(super) async fn check_log(&mut self, replica: ReplicaId, head: Head) -> Result<(), ReadError> {
        self.check_clock(head.stamp, || format!("the head of {replica}"));
        // The beginning of a stream is made of its group, so a group that has changed is noticed here.
        let start = self.group.filter(|_| head.floor == 0).map(|group| chain_start(group, replica));
        if start.is_some_and(|start| start != head.floor_digest) {
            self.report(Rule::Chain, format!("{replica}: the stream begins with the digest of another one"));
        }
        let mut pages = self.pages(keys::logs(replica));
        let mut at = (head.floor, head.floor_digest, None::<Hlc>);
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                let Some(StoredKey::Log(_, seq)) = StoredKey::parse(key) else { continue };
                if seq > head.seq && self.is_arriving() {
                    // The tail of a snapshot stands behind the head until the switch.
                    continue;
                }
                if at.0.checked_add(1) != Some(seq) || seq > head.seq {
                    let (first, last) = (head.floor + 1, head.seq);
                    let detail =
                        format!("{replica}: commit {seq} follows {}, the log is {first}..={last}", at.0);
                    self.report(Rule::LogIsWhole, detail);
                }
                let row = split_row(value)
                    .and_then(|(previous, entry)| Ok((previous, entry, LogEntry::parse(replica, entry)?)));
                let row = self.note(row, format_args!("log entry {seq} of {replica}"));
                let digest = match &row {
                    Some((previous, entry, _)) => {
                        if *previous != at.1 {
                            let detail = format!("{replica}: commit {seq} follows another digest");
                            self.report(Rule::Chain, detail);
                        }
                        chain(previous, entry)
                    }
                    None => at.1,
                };
                let entry = row.map(|(_, _, entry)| entry);
                if let Some(entry) = &entry {
                    if at.2.is_some_and(|before| entry.stamp <= before) {
                        self.report(
                            Rule::LogIsWhole,
                            format!("{replica}: the stamp of commit {seq} does not rise"),
                        );
                    }
                    self.check_clock(entry.stamp, || format!("commit {seq} of {replica}"));
                    self.check_device(replica, entry.device, format_args!("commit {seq}"));
                    self.check_causes(replica, seq, entry).await?;
                    if seq <= head.seq && !self.is_folding() {
                        self.check_references(seq, entry).await?;
                    }
                }
                at = (seq, digest, entry.map(|entry| entry.stamp).or(at.2));
            }
        }
        let (seq, digest, stamp) = at;
        if seq < head.seq {
            let detail = format!("{replica}: the log ends at commit {seq}, its head is {}", head.seq);
            self.report(Rule::LogIsWhole, detail);
        } else if digest != head.digest {
            self.report(
                Rule::Chain,
                format!("{replica}: the log does not hash to the digest of its head {}", head.seq),
            );
        } else if stamp.is_some_and(|stamp| stamp != head.stamp) {
            self.report(
                Rule::Chain,
                format!("{replica}: the head has another stamp than commit {}", head.seq),
            );
        }
        Ok(())
    }

    /// Checks that what a commit rests on is here, and in the history that its author had seen.
    async fn check_causes(
        &mut self,
        replica: ReplicaId,
        seq: u64,
        entry: &LogEntry,
    ) -> Result<(), ReadError> {
        for Cause { stream, seq: cause, check } in &entry.after {
            let digest = match self.heads.get(stream) {
                Some(head) if head.seq == *cause => Some(head.digest),
                Some(head) if head.seq > *cause => {
                    let row = self.get(keys::log(*stream, cause + 1)).await?;
                    row.and_then(|row| Some(split_row(&row).ok()?.0))
                }
                _ => {
                    let detail = format!("commit {seq} of {replica} rests on commit {cause} of {stream}");
                    self.report(Rule::CausesAreHere, detail);
                    None
                }
            };
            if digest.is_some_and(|digest| digest_check(&digest) != *check) {
                let detail =
                    format!("commit {seq} of {replica} rests on another history of {stream} at {cause}");
                self.report(Rule::CausesAreHere, detail);
            }
        }
        Ok(())
    }

    /// Checks that every reference of a log entry finds its value, in the record or in a kept row.
    pub(super) async fn check_references(&mut self, seq: u64, entry: &LogEntry) -> Result<(), ReadError> {
        let distinct: BTreeSet<_> = entry.changes.iter().map(|change| &change.record).collect();
        if distinct.len() < entry.changes.len() {
            let detail = format!("commit {seq} of {} names a record twice", entry.stamp.replica());
            self.report(Rule::LogIsWhole, detail);
        }
        for references in entry.changes.chunks(PAGE_ENTRIES) {
            let keys: Vec<Key> =
                references.iter().map(|reference| reference.record.as_bytes().to_vec()).collect();
            let records = self.storage.get_many(&keys).await?;
            for (reference, stored) in references.iter().zip(records) {
                self.check_reference(seq, entry.stamp, reference, stored).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn check_reference(
        &mut self,
        seq: u64,
        stamp: Hlc,
        reference: &Reference,
        stored: Option<Vec<u8>>,
    ) -> Result<(), ReadError> {
        let Reference { record: key, value, epoch } = reference;
        let what = || format!("record {key} of commit {seq} of {}", stamp.replica());
        let Some(stored) = stored else {
            if !self.may_be_forgotten(key, *epoch, stamp) {
                self.report(Rule::RecordFollowsLog, format!("{} is missing", what()));
            } else if let Some(ValueRef { digest: expected, .. }) = value {
                let kept = self.get(keys::kept(stamp.replica(), seq, key)).await?;
                self.check_kept_value(kept, expected, what);
            }
            return Ok(());
        };
        // `check_keys` has already reported a record that cannot be read.
        let Ok((header, held)) = record::parse(&stored) else { return Ok(()) };
        let same_dot = header.seq == seq && header.stamp.replica() == stamp.replica();
        if header.rank() < (*epoch, stamp) {
            let beside = self.get(keys::beside(key, stamp.replica(), seq)).await?;
            if beside.is_none() && !self.is_mixed_beside(key, (*epoch, stamp)).await? {
                self.report(Rule::RecordFollowsLog, format!("{} is older, of {}", what(), header.stamp));
            }
        }
        if same_dot {
            *self.named.entry(stamp.replica()).or_default() += 1;
            if header.stamp != stamp {
                self.report(
                    Rule::LogExplainsRecord,
                    format!("{} has another stamp, {}", what(), header.stamp),
                );
            }
            if header.rank().0 != *epoch {
                self.report(Rule::LogExplainsRecord, format!("{} is of another epoch", what()));
            }
        }
        if header.holds(stamp.replica(), seq) {
            let same = match value {
                None => header.tombstone,
                Some(ValueRef { schema, len, digest: expected }) => {
                    let same_len = u32::try_from(held.len()) == Ok(*len);
                    !header.tombstone && header.schema == *schema && same_len && digest(held) == *expected
                }
            };
            if !same {
                self.report(Rule::LogResolves, format!("{} has another value", what()));
            }
        } else if let Some(ValueRef { digest: expected, .. }) = value {
            let kept = self.get(keys::kept(stamp.replica(), seq, key)).await?;
            self.check_kept_value(kept, expected, what);
        }
        Ok(())
    }

    /// Whether a value that was merged, of this commit or later ones, lies beside a record: a snapshot may bring what another
    /// app has merged, and this one cannot.
    async fn is_mixed_beside(&self, key: &RecordKey, rank: (Option<Hlc>, Hlc)) -> Result<bool, ReadError> {
        let mut pages = self.pages(keys::besides_of(key));
        while let Some(page) = pages.next().await? {
            let headers = page.iter().filter_map(|entry| Some(record::parse(&entry.value).ok()?.0));
            let mut mixed = headers.filter(|header| header.merge.is_some_and(|merge| merge.mixed));
            if mixed.any(|header| header.rank() >= rank) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a record that a commit changed may be absent: it was deleted by a commit whose log is gone, and the tombstone was
    /// dropped. A member never goes. Of a model with its own merge, what was dropped is known.
    fn may_be_forgotten(&self, key: &RecordKey, epoch: Option<Hlc>, stamp: Hlc) -> bool {
        let dropped =
            epoch.is_none_or(|epoch| self.forgotten.get(key.model()).is_some_and(|last| *last > epoch));
        let lacks = Pruned::of(&self.heads).may_lack(stamp, epoch);
        key.model() != Member::SYNC_MODEL && lacks && dropped
    }

    pub(super) fn check_kept_value(
        &mut self,
        kept: Option<Vec<u8>>,
        expected: &Digest,
        what: impl Fn() -> String,
    ) {
        match kept {
            None => {
                self.report(Rule::LogResolves, format!("the overwritten value of {} is not kept", what()));
            }
            Some(kept) if digest(&kept) != *expected => {
                self.report(Rule::LogResolves, format!("the kept value of {} is another one", what()));
            }
            Some(_) => {}
        }
    }
}

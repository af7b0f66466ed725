//! Checks the records, the values kept of them, and the values beside them.

use std::collections::BTreeMap;

use super::{Audit, Rule};
use crate::ids::ReplicaId;
use crate::pages::is_empty;
use crate::storage::{Entry, ReadError, Storage};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::log::split_row;
use crate::stored::{Digest, LogEntry, digest, record};

impl Audit<'_> {
    pub(super) async fn check_records(&mut self) -> Result<(), ReadError> {
        // How many records claim to be of a commit that the log still has.
        let mut claimed = BTreeMap::<ReplicaId, u64>::new();
        let mut pages = self.pages(keys::records());
        while let Some(page) = pages.next().await? {
            for (record, header) in parsed(&page) {
                let beside = header.merge.is_some_and(|merge| merge.beside);
                if beside && is_empty(self.storage, keys::besides_of(&record)).await? {
                    let detail = format!("record {record} says that values lie beside it, and none do");
                    self.report(Rule::BesideBelongs, detail);
                }
                if self.check_record(&record, &header) {
                    *claimed.entry(header.stamp.replica()).or_default() += 1;
                }
            }
        }
        // The log names each such record once. So if the counts are equal, the log names every one of them. Look each
        // up in the log only if the counts differ, since that reads the log once more.
        if claimed != self.named {
            self.check_claims().await?;
        }
        Ok(())
    }

    /// Checks a record against the head of its stream; returns whether the log must still have the record's commit.
    pub(super) fn check_record(&mut self, record: &RecordKey, header: &record::Header) -> bool {
        let (replica, seq) = (header.stamp.replica(), header.seq);
        self.check_clock(header.stamp, || format!("record {record}"));
        if let Some(owner) = record.owner() {
            self.check_device(replica, owner, format_args!("record {record}"));
        }
        let (at, floor) = self.heads.get(&replica).map_or((0, 0), |head| (head.seq, head.floor));
        if self.heads.get(&replica).is_some_and(|head| header.stamp > head.stamp) {
            let detail = format!("record {record} is of {}, after the head of its stream", header.stamp);
            self.report(Rule::LogExplainsRecord, detail);
        }
        if seq > at {
            let detail = format!("record {record} is of commit {seq} of {replica}, whose head is {at}");
            self.report(Rule::LogExplainsRecord, detail);
        }
        seq <= at && seq > floor
    }

    pub(super) async fn check_claims(&mut self) -> Result<(), ReadError> {
        let mut log = LastEntry::default();
        let mut pages = self.pages(keys::records());
        while let Some(page) = pages.next().await? {
            for (record, header) in parsed(&page) {
                let (replica, seq) = (header.stamp.replica(), header.seq);
                let expected =
                    self.heads.get(&replica).is_some_and(|head| seq > head.floor && seq <= head.seq);
                if expected && log.change(self.storage, replica, seq, &record).await?.is_none() {
                    let detail = format!("commit {seq} of {replica} does not name record {record}");
                    self.report(Rule::LogExplainsRecord, detail);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn check_kept(&mut self) -> Result<(), ReadError> {
        let mut log = LastEntry::default();
        let mut pages = self.pages(keys::all_kept());
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                let Some(StoredKey::Kept(replica, seq, record)) = StoredKey::parse(key) else { continue };
                // Only a put has a value to keep. A delete has none, nor a commit that does not name the record. A record may
                // still hold the value: those of a large commit are kept in writes before it, which may not have come.
                let put = log.change(self.storage, replica, seq, &record).await?.and_then(|Put(value)| value);
                if put != Some(digest(value)) {
                    let detail = format!(
                        "record {record} of commit {seq} of {replica} is kept for nothing, or is not its value"
                    );
                    self.report(Rule::KeptIsNeeded, detail);
                }
            }
        }
        Ok(())
    }

    pub(super) async fn check_besides(&mut self) -> Result<(), ReadError> {
        let mut pages = self.pages(keys::besides());
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                let Some(StoredKey::Beside(record, replica, seq)) = StoredKey::parse(key) else { continue };
                let Ok((beside, _)) = record::parse(value) else { continue };
                self.check_clock(beside.stamp, || format!("a value beside record {record}"));
                let stored = self.get(record.as_bytes().to_vec()).await?;
                let header = stored.as_deref().and_then(|stored| record::parse(stored).ok());
                let merge = header.and_then(|(header, _)| header.merge);
                let named = beside.seq == seq && beside.stamp.replica() == replica && !beside.tombstone;
                let epoch = beside.merge.map(|merge| merge.epoch);
                if !named || !merge.is_some_and(|merge| merge.beside && Some(merge.epoch) == epoch) {
                    let detail = format!("commit {seq} of {replica} lies beside record {record} for nothing");
                    self.report(Rule::BesideBelongs, detail);
                }
            }
        }
        Ok(())
    }
}

/// The records of a page that can be read; `check_keys` has reported the others.
fn parsed(page: &[Entry]) -> impl Iterator<Item = (RecordKey, record::Header)> {
    page.iter().filter_map(|entry| match (StoredKey::parse(&entry.key), record::parse(&entry.value)) {
        (Some(StoredKey::Record(record)), Ok((header, _))) => Some((record, header)),
        _ => None,
    })
}

/// The log entry that was read last: neighbouring records are often of the same commit, and its entry may be large.
#[derive(Default)]
struct LastEntry(Option<((ReplicaId, u64), BTreeMap<RecordKey, Put>)>);

/// A change of the log: the digest of the value that it puts; none if it deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Put(Option<Digest>);

impl LastEntry {
    /// Returns the change that the commit made to the record; `None` if the commit does not name it.
    async fn change(
        &mut self,
        storage: &dyn Storage,
        replica: ReplicaId,
        seq: u64,
        record: &RecordKey,
    ) -> Result<Option<Put>, ReadError> {
        let at = (replica, seq);
        let named = match self.0.take() {
            Some((last, named)) if last == at => named,
            _ => {
                let entry = storage.get_many(&[keys::log(replica, seq)]).await?.into_iter().next().flatten();
                let entry = entry.and_then(|row| LogEntry::parse(replica, split_row(&row).ok()?.1).ok());
                let changes = entry.map(|entry| entry.changes).unwrap_or_default();
                changes
                    .into_iter()
                    .map(|change| (change.record, Put(change.value.map(|value| value.digest))))
                    .collect()
            }
        };
        Ok(self.0.insert((at, named)).1.get(record).copied())
    }
}

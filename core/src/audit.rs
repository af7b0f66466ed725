//! The check of a whole store: record, log, head, clock and kept values agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::member::Member;
use crate::model;
use crate::pages::{PAGE_ENTRIES, Pages};
use crate::storage::{Entry, Key, KeyRange, ReadError, Storage};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::log::{chain, split_row};
use crate::stored::{
    Digest, Head, Identity, LogEntry, ModelSeen, ProjectionRow, Reference, ValueRef, clock_from_value,
    digest, fork_from_value, introducer_from_value, peer_from_value, record,
};

/// Something in a store that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which rule is broken.
    pub rule: Rule,
    /// Where, in words for a person.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// What [`audit`] checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The store can be read.
    Readable,
    /// Every key and every value has a known format.
    Format,
    /// There is one identity, a clock and a head of the own stream, or nothing at all.
    Complete,
    /// Identity, member records, log and the owners of records agree about which replica is on which device.
    Devices,
    /// The clock stands at or above every stamp.
    Clock,
    /// The log of a stream holds every commit above the floor up to the head, in rising stamps, and nothing else.
    LogIsWhole,
    /// The digests of the log lead from the one at the floor to the one of the head.
    Chain,
    /// What a commit of the log rests on is here too.
    CausesAreHere,
    /// A record stands at or above every commit of the log that changes it.
    RecordFollowsLog,
    /// A record whose commit is still in the log is what that commit made it.
    LogExplainsRecord,
    /// Every value that the log refers to is here, with exactly the bytes of its digest.
    LogResolves,
    /// A value is kept only if the log refers to it and no record holds it.
    KeptIsNeeded,
    /// A value lies beside a record only if that says so and is of the same epoch.
    BesideBelongs,
}

/// Checks a whole store and returns what is wrong with it: nothing, if it is as it must be.
///
/// Works on damaged stores, reports instead of failing, and never panics. Run it while no driver writes to the
/// store: it reads in pages, and a write in between looks like a violation. Memory holds a page, a log entry and the
/// heads; a record is read once for itself and once for each log entry that refers to it.
pub async fn audit(storage: &dyn Storage) -> Vec<Violation> {
    let mut audit = Audit {
        storage,
        heads: BTreeMap::new(),
        clock: None,
        named: BTreeMap::new(),
        devices: BTreeMap::new(),
        violations: Vec::new(),
    };
    if let Err(error) = audit.run().await {
        audit.report(Rule::Readable, error.to_string());
    }
    audit.violations
}

struct Audit<'a> {
    storage: &'a dyn Storage,
    heads: BTreeMap<ReplicaId, Head>,
    clock: Option<Hlc>,
    /// For each stream, how many changes of its log are what their record holds.
    named: BTreeMap<ReplicaId, u64>,
    /// The device of each member.
    devices: BTreeMap<ReplicaId, DeviceId>,
    violations: Vec<Violation>,
}

impl<'a> Audit<'a> {
    async fn run(&mut self) -> Result<(), ReadError> {
        if self.storage.scan(KeyRange::all(), 1).await?.is_empty() {
            return Ok(());
        }
        self.check_meta().await?;
        self.check_keys().await?;
        for (replica, head) in self.heads.clone() {
            self.check_log(replica, head).await?;
        }
        self.check_records().await?;
        self.check_kept().await?;
        self.check_besides().await
    }

    fn report(&mut self, rule: Rule, detail: impl Into<String>) {
        self.violations.push(Violation { rule, detail: detail.into() });
    }

    async fn get(&self, key: Key) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.storage.get_many(&[key]).await?.into_iter().next().flatten())
    }

    fn pages(&self, range: KeyRange) -> Pages<'a, dyn Storage> {
        Pages::new(self.storage, range)
    }

    async fn check_meta(&mut self) -> Result<(), ReadError> {
        let identity = match self.get(keys::identity()).await? {
            None => {
                self.report(Rule::Complete, "the identity is missing");
                None
            }
            Some(value) => self.note(Identity::parse(&value), "the identity"),
        };
        let Some(identity) = identity else { return Ok(()) };
        match self.get(keys::clock()).await? {
            None => self.report(Rule::Complete, "the clock is missing"),
            Some(value) => self.clock = self.note(clock_from_value(identity.replica, &value), "the clock"),
        }
        if self.get(keys::head(identity.replica)).await?.is_none() {
            self.report(Rule::Complete, "the head of the own stream is missing");
        }
        self.check_members(identity).await
    }

    async fn check_members(&mut self, identity: Identity) -> Result<(), ReadError> {
        let mut pages = self.pages(RecordKey::range_of_model::<Member>());
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                let Ok((header, value)) = record::parse(value) else { continue };
                if header.tombstone {
                    continue;
                }
                match model::decode_bytes::<Member>(value) {
                    Ok(member) if RecordKey::id_in::<Member>(key) == Some(member.replica) => {
                        self.devices.insert(member.replica, member.device);
                    }
                    Ok(member) => {
                        self.report(Rule::Format, format!("{} is under another key", member.replica));
                    }
                    Err(error) => self.report(Rule::Format, format!("member record {key:02x?}: {error}")),
                }
            }
        }
        let joining = self.get(keys::introducer()).await?.is_some();
        match self.devices.get(&identity.replica) {
            None if joining => {}
            None => self.report(Rule::Complete, "the own member record is missing"),
            Some(device) if *device != identity.device => {
                let detail = format!("the store is of {}, its member record of {device}", identity.device);
                self.report(Rule::Devices, detail);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Reports a device that a replica is not on.
    fn check_device(&mut self, replica: ReplicaId, device: DeviceId, what: impl fmt::Display) {
        if let Some(known) = self.devices.get(&replica).filter(|known| **known != device) {
            let detail = format!("{what} is of device {device}, replica {replica} is on {known}");
            self.report(Rule::Devices, detail);
        }
    }

    /// Reports what cannot be read.
    fn note<T>(&mut self, parsed: Result<T, crate::FormatError>, what: impl fmt::Display) -> Option<T> {
        parsed.map_err(|error| self.report(Rule::Format, format!("{what}: {error}"))).ok()
    }

    /// Every key is known, every value can be read; the heads are collected on the way.
    async fn check_keys(&mut self) -> Result<(), ReadError> {
        let mut pages = self.pages(KeyRange::all());
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                match StoredKey::parse(key) {
                    None => self.report(Rule::Format, format!("an unknown key {key:02x?}")),
                    Some(StoredKey::Model(name)) => {
                        self.note(ModelSeen::parse(value), format_args!("model {name}"));
                    }
                    Some(StoredKey::Projection(name)) => {
                        self.note(ProjectionRow::parse(value), format_args!("projection {name}"));
                    }
                    Some(StoredKey::Head(replica)) => {
                        if let Some(head) =
                            self.note(Head::parse(replica, value), format_args!("the head of {replica}"))
                        {
                            self.heads.insert(replica, head);
                        }
                    }
                    Some(StoredKey::Record(record)) => {
                        self.note(record::parse(value), format_args!("record {record}"));
                    }
                    // All heads come before them.
                    Some(StoredKey::Log(replica, seq) | StoredKey::Kept(replica, seq, _)) => {
                        if !self.heads.contains_key(&replica) {
                            let detail = format!("commit {seq} is of {replica}, which has no head");
                            self.report(Rule::LogIsWhole, detail);
                        }
                    }
                    Some(StoredKey::Introducer) => {
                        self.note(introducer_from_value(value), "the introducer");
                    }
                    Some(StoredKey::Fork(replica)) => {
                        self.note(fork_from_value(value), format_args!("the fork of {replica}"));
                    }
                    Some(StoredKey::Peer(replica)) => {
                        self.note(peer_from_value(value), format_args!("the row of peer {replica}"));
                    }
                    Some(StoredKey::Beside(record, ..)) => {
                        self.note(record::parse(value), format_args!("a value beside record {record}"));
                    }
                    // They have been read before.
                    Some(StoredKey::Identity | StoredKey::Clock) => {}
                }
            }
        }
        Ok(())
    }

    async fn check_log(&mut self, replica: ReplicaId, head: Head) -> Result<(), ReadError> {
        self.check_clock(head.stamp, || format!("the head of {replica}"));
        let mut pages = self.pages(keys::logs(replica));
        let mut at = (head.floor, head.floor_digest, None::<Hlc>);
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                let Some(StoredKey::Log(_, seq)) = StoredKey::parse(key) else { continue };
                if at.0.checked_add(1) != Some(seq) || seq > head.seq {
                    let (first, last) = (head.floor + 1, head.seq);
                    let detail =
                        format!("{replica}: commit {seq} follows {}, the log is {first}..={last}", at.0);
                    self.report(Rule::LogIsWhole, detail);
                }
                let row = split_row(value)
                    .and_then(|(previous, entry)| Ok((previous, entry, LogEntry::parse(replica, entry)?)));
                let row = self.note(row, format_args!("log entry {seq} of {replica}"));
                if value.len() > usize::try_from(head.row_bytes_max).unwrap_or(usize::MAX) {
                    let detail = format!("{replica}: commit {seq} is longer than its head says rows are");
                    self.report(Rule::LogIsWhole, detail);
                }
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
                    for (cause, cause_seq) in &entry.after {
                        if self.heads.get(cause).is_none_or(|head| head.seq < *cause_seq) {
                            let detail =
                                format!("commit {seq} of {replica} rests on commit {cause_seq} of {cause}");
                            self.report(Rule::CausesAreHere, detail);
                        }
                    }
                    if seq <= head.seq {
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

    /// Every reference of a log entry resolves, to its record or to a kept value.
    async fn check_references(&mut self, seq: u64, entry: &LogEntry) -> Result<(), ReadError> {
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

    async fn check_reference(
        &mut self,
        seq: u64,
        stamp: Hlc,
        reference: &Reference,
        stored: Option<Vec<u8>>,
    ) -> Result<(), ReadError> {
        let Reference { record: key, value, epoch } = reference;
        let what = || format!("record {key} of commit {seq} of {}", stamp.replica());
        let Some(stored) = stored else {
            self.report(Rule::RecordFollowsLog, format!("{} is missing", what()));
            return Ok(());
        };
        // What cannot be read has been reported already.
        let Ok((header, held)) = record::parse(&stored) else { return Ok(()) };
        let same_dot = header.seq == seq && header.stamp.replica() == stamp.replica();
        if header.rank() < (*epoch, stamp) {
            let beside = self.get(keys::beside(key, stamp.replica(), seq)).await?;
            if beside.is_none() {
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

    fn check_kept_value(&mut self, kept: Option<Vec<u8>>, expected: &Digest, what: impl Fn() -> String) {
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

    async fn check_records(&mut self) -> Result<(), ReadError> {
        // How many records claim to be of a commit that the log still has.
        let mut claimed = BTreeMap::<ReplicaId, u64>::new();
        let mut pages = self.pages(keys::records());
        while let Some(page) = pages.next().await? {
            for (record, header) in parsed(&page) {
                let beside = header.merge.is_some_and(|merge| merge.beside);
                if beside && self.storage.scan(keys::besides_of(&record), 1).await?.is_empty() {
                    let detail = format!("record {record} says that values lie beside it, and none do");
                    self.report(Rule::BesideBelongs, detail);
                }
                if self.check_record(&record, &header) {
                    *claimed.entry(header.stamp.replica()).or_default() += 1;
                }
            }
        }
        // The log names each of them once. So if there are as many as the log names, it names every one; only if
        // there are not is it worth to look for each.
        if claimed != self.named {
            self.check_claims().await?;
        }
        Ok(())
    }

    /// Whether the log must still have the record's commit.
    fn check_record(&mut self, record: &RecordKey, header: &record::Header) -> bool {
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

    async fn check_claims(&mut self) -> Result<(), ReadError> {
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

    async fn check_kept(&mut self) -> Result<(), ReadError> {
        let mut log = LastEntry::default();
        let mut pages = self.pages(keys::all_kept());
        while let Some(page) = pages.next().await? {
            for Entry { key, .. } in &page {
                let Some(StoredKey::Kept(replica, seq, record)) = StoredKey::parse(key) else { continue };
                let held = match self.get(record.as_bytes().to_vec()).await?.as_deref().map(record::parse) {
                    Some(Ok((header, _))) => header.holds(replica, seq),
                    _ => false,
                };
                // Only a value that the commit put can be missed.
                let put = log.change(self.storage, replica, seq, &record).await? == Some(Put(true));
                if held || !put {
                    let detail = format!("record {record} of commit {seq} of {replica} is kept for nothing");
                    self.report(Rule::KeptIsNeeded, detail);
                }
            }
        }
        Ok(())
    }

    async fn check_besides(&mut self) -> Result<(), ReadError> {
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

    fn check_clock(&mut self, stamp: Hlc, what: impl Fn() -> String) {
        let behind = |clock: Hlc| (clock.wall(), clock.counter()) < (stamp.wall(), stamp.counter());
        if let Some(clock) = self.clock.filter(|clock| behind(*clock)) {
            self.report(Rule::Clock, format!("the clock {clock} is behind {} of {stamp}", what()));
        }
    }
}

/// The records of a page that can be read; the others have been reported already.
fn parsed(page: &[Entry]) -> impl Iterator<Item = (RecordKey, record::Header)> {
    page.iter().filter_map(|entry| match (StoredKey::parse(&entry.key), record::parse(&entry.value)) {
        (Some(StoredKey::Record(record)), Ok((header, _))) => Some((record, header)),
        _ => None,
    })
}

/// The log entry that was looked at last: neighbours often ask for the same, and it may be large.
#[derive(Default)]
struct LastEntry(Option<((ReplicaId, u64), BTreeMap<RecordKey, Put>)>);

/// Whether a change puts a value, or deletes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Put(bool);

impl LastEntry {
    /// What the commit did to the record, if it names it.
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
                changes.into_iter().map(|change| (change.record, Put(change.value.is_some()))).collect()
            }
        };
        Ok(self.0.insert((at, named)).1.get(record).copied())
    }
}

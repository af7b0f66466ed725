//! The check of a whole store: record, log, head, clock and kept values agree.

mod log;
mod records;

use std::collections::BTreeMap;
use std::fmt;

use crate::hlc::Hlc;
use crate::ids::{DeviceId, GroupId, ReplicaId};
use crate::member::Member;
use crate::model;
use crate::pages::{Pages, is_empty};
use crate::storage::{Entry, Key, KeyRange, ReadError, Storage};
use crate::stored::keys::{self, RecordKey, StoredKey};
use crate::stored::{
    ForkRow, Head, Identity, InstallRow, ModelSeen, Phase, ProjectionRow, clock_from_value, debt_from_value,
    forgotten_from_value, introducer_from_value, peer_from_value, record,
};

/// A rule that a store breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The rule that is broken.
    pub rule: Rule,
    /// The place and the fault, in words for a person.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.detail)
    }
}

/// A rule that [`audit`] checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The store can be read.
    Readable,
    /// Every key and every value has a known format.
    Format,
    /// The store has one identity, a clock, a head of the own stream and, unless it is joining, its own member
    /// record; or nothing at all.
    Complete,
    /// Identity, member records, log and the owners of records agree about which replica is on which device.
    Devices,
    /// The clock stands at or above every stamp.
    Clock,
    /// The log of a stream holds every commit above the floor up to the head, in rising stamps, and nothing else.
    LogIsWhole,
    /// The digests of the log lead from the one at the floor to the one of the head.
    Chain,
    /// The causes of every commit of the log are here too.
    CausesAreHere,
    /// A record stands at or above every commit of the log that changes it. It may be absent if another stream, whose log is gone,
    /// may have deleted it.
    RecordFollowsLog,
    /// A record whose commit is still in the log is named by that commit, with the same stamp and epoch.
    LogExplainsRecord,
    /// Every value that the log refers to is here, in its record or kept, with exactly the bytes of its digest.
    LogResolves,
    /// A value is kept only if the log refers to it.
    KeptIsNeeded,
    /// A value lies beside a record only if the record says so and is of the same epoch.
    BesideBelongs,
}

/// Checks a whole store and returns the rules that it breaks: none, if the store is sound.
///
/// Works on damaged stores, reports instead of failing, and never panics. Run it while no driver writes to the
/// store: it reads in pages, and a write in between looks like a violation. Memory holds a page, a log entry and the
/// heads; a record is read once for itself and once for each log entry that refers to it.
pub async fn audit(storage: &dyn Storage) -> Vec<Violation> {
    let mut audit = Audit {
        storage,
        heads: BTreeMap::new(),
        group: None,
        clock: None,
        forgotten: BTreeMap::new(),
        named: BTreeMap::new(),
        members: BTreeMap::new(),
        install: None,
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
    group: Option<GroupId>,
    clock: Option<Hlc>,
    /// The highest stamp or epoch that was forgotten of each model with its own merge.
    forgotten: BTreeMap<String, Hlc>,
    /// For each stream, how many changes of its log wrote the record that is stored now.
    named: BTreeMap<ReplicaId, u64>,
    /// The record of each member.
    members: BTreeMap<ReplicaId, Member>,
    /// The snapshot that is being installed, if one is. What it has brought already is checked once all of it is folded.
    install: Option<InstallRow>,
    violations: Vec<Violation>,
}

impl<'a> Audit<'a> {
    async fn run(&mut self) -> Result<(), ReadError> {
        if is_empty(self.storage, KeyRange::all()).await? {
            return Ok(());
        }
        let install = self.get(keys::install()).await?;
        self.install = install.and_then(|row| self.note(InstallRow::parse(&row), "the row of an install"));
        self.check_meta().await?;
        self.check_keys().await?;
        for (replica, head) in self.heads.clone() {
            self.check_log(replica, head).await?;
        }
        let in_place = self.install.as_ref().is_some_and(|install| install.in_place);
        if self.is_folding() || self.is_arriving() && in_place {
            return Ok(());
        }
        self.check_records().await?;
        if !self.is_arriving() {
            self.check_kept().await?;
        }
        self.check_besides().await
    }

    /// Whether a snapshot arrives, of which nothing counts yet.
    fn is_arriving(&self) -> bool {
        self.install.as_ref().is_some_and(|install| install.phase.is_before_switch())
    }

    /// Whether a snapshot counts, and is being folded.
    fn is_folding(&self) -> bool {
        self.install.as_ref().is_some_and(|install| install.phase == Phase::Fold)
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
        self.group = Some(identity.group);
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
                        self.members.insert(member.replica, member);
                    }
                    Ok(member) => {
                        self.report(Rule::Format, format!("{} is under another key", member.replica));
                    }
                    Err(error) => self.report(Rule::Format, format!("member record {key:02x?}: {error}")),
                }
            }
        }
        let joining = self.get(keys::introducer()).await?.is_some();
        match self.members.get(&identity.replica) {
            // A joiner that was added on a wrong device waits until that is put right.
            _ if joining => {}
            None => self.report(Rule::Complete, "the own member record is missing"),
            Some(member) if !member.was_on(identity.device) => {
                let (own, device) = (identity.device, member.device);
                let detail = format!("the store is of {own}, its member record of {device}");
                self.report(Rule::Devices, detail);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Reports `device` if the member record of `replica` names others alone.
    fn check_device(&mut self, replica: ReplicaId, device: DeviceId, what: impl fmt::Display) {
        if let Some(known) = self.members.get(&replica).filter(|known| !known.was_on(device)) {
            let known = known.device;
            let detail = format!("{what} is of device {device}, replica {replica} is on {known}");
            self.report(Rule::Devices, detail);
        }
    }

    /// Reports a row that cannot be read.
    fn note<T>(&mut self, parsed: Result<T, crate::FormatError>, what: impl fmt::Display) -> Option<T> {
        parsed.map_err(|error| self.report(Rule::Format, format!("{what}: {error}"))).ok()
    }

    /// Checks that every key is known and every value can be read; collects the heads on the way.
    async fn check_keys(&mut self) -> Result<(), ReadError> {
        let mut pages = self.pages(KeyRange::all());
        while let Some(page) = pages.next().await? {
            for Entry { key, value } in &page {
                match StoredKey::parse(key) {
                    None => self.report(Rule::Format, format!("an unknown key {key:02x?}")),
                    Some(StoredKey::Model(name)) => {
                        self.note(ModelSeen::parse(value), format_args!("model {name}"));
                    }
                    Some(StoredKey::Forgotten(name)) => {
                        let what = format!("the forgotten stamp of {name}");
                        if let Some(stamp) = self.note(forgotten_from_value(value), &what) {
                            self.check_clock(stamp, || what.clone());
                            self.forgotten.insert(name, stamp);
                        }
                    }
                    Some(StoredKey::Projection(name)) => {
                        self.note(ProjectionRow::parse(value), format_args!("projection {name}"));
                    }
                    Some(StoredKey::Debt(name, record)) => {
                        self.note(debt_from_value(value), format_args!("the debt of {name} for {record}"));
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
                    // All heads come before the log in the order of keys, so a missing one is known here.
                    Some(StoredKey::Log(replica, seq) | StoredKey::Kept(replica, seq, _)) => {
                        if !self.heads.contains_key(&replica) {
                            let detail = format!("commit {seq} is of {replica}, which has no head");
                            self.report(Rule::LogIsWhole, detail);
                        }
                    }
                    Some(StoredKey::Staged(key)) => match StoredKey::parse(&key) {
                        Some(StoredKey::Head(replica)) => {
                            self.note(
                                Head::parse(replica, value),
                                format_args!("the staged head of {replica}"),
                            );
                        }
                        Some(StoredKey::Record(record) | StoredKey::Beside(record, ..)) => {
                            self.note(record::parse(value), format_args!("the staged record {record}"));
                        }
                        _ => {}
                    },
                    Some(StoredKey::Introducer) => {
                        self.note(introducer_from_value(value), "the introducer");
                    }
                    Some(StoredKey::Fork(replica)) => {
                        self.note(ForkRow::parse(value), format_args!("the fork of {replica}"));
                    }
                    Some(StoredKey::Peer(replica)) => {
                        self.note(peer_from_value(value), format_args!("the row of peer {replica}"));
                    }
                    Some(StoredKey::Beside(record, ..)) => {
                        self.note(record::parse(value), format_args!("a value beside record {record}"));
                    }
                    // These were read before.
                    Some(StoredKey::Identity | StoredKey::Clock | StoredKey::Install) => {}
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

//! Judges the deletes of the apps. A delete puts no value that could carry a serial number, so it is known by its
//! caller, its record, and the commits that the caller's replica had when it was called.

use std::collections::{BTreeMap, BTreeSet};

use syncline::internals::history::{Logged, StoredRecord};
use syncline::{DeviceId, RecordKey, ReplicaId};

use super::models::{Note, Place, Set};
use super::oracle::Outcome;
use super::{Failure, fail};

/// The record of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Note(u32),
    Place(DeviceId, u32),
    Set(u32),
}

impl Name {
    fn of(record: &RecordKey) -> Option<Self> {
        let note = || record.id::<Note>().map(Self::Note);
        let place = || record.id::<Place>().map(|(device, id)| Self::Place(device, id));
        note().or_else(place).or_else(|| record.id::<Set>().map(Self::Set))
    }
}

/// The deletes that apps have asked for.
#[derive(Default)]
pub(super) struct Deletes {
    requests: BTreeMap<u64, Request>,
    last_serial: u64,
    counts: BTreeMap<(ReplicaId, Name), Count>,
}

/// A delete that an app has asked for.
struct Request {
    replica: ReplicaId,
    name: Name,
    /// How many commits the replica had when the delete was called.
    since: u64,
    /// Whether the replica has made a delete of the record since, or has not had the record for a moment.
    holds: bool,
    outcome: Outcome,
}

/// The deletes of one record by one replica.
#[derive(Default)]
struct Count {
    asked: u64,
    failed: u64,
    made: u64,
}

impl Deletes {
    /// Takes note that the app of `replica`, which has `since` commits and these `records`, deletes a record. Returns
    /// the serial number of the delete.
    pub(super) fn ask(
        &mut self,
        replica: ReplicaId,
        name: Name,
        since: u64,
        records: &[StoredRecord],
    ) -> u64 {
        self.counts.entry((replica, name)).or_default().asked += 1;
        let holds = !is_there(records, name);
        self.last_serial += 1;
        self.requests
            .insert(self.last_serial, Request { replica, name, since, holds, outcome: Outcome::Open });
        self.last_serial
    }

    /// Takes note of what the app was told of a delete.
    pub(super) fn tell(&mut self, serial: u64, outcome: Outcome) {
        let Some(request) = self.requests.get_mut(&serial) else { return };
        request.outcome = outcome;
        if outcome == Outcome::Failed {
            self.counts.entry((request.replica, request.name)).or_default().failed += 1;
        }
    }

    /// Takes a commit that was found in its author's store.
    pub(super) fn learn(&mut self, commit: &Logged) {
        for change in commit.changes.iter().filter(|change| change.delete) {
            let Some(name) = Name::of(&change.record) else { continue };
            self.counts.entry((commit.stream, name)).or_default().made += 1;
            let open = self.requests.values_mut().filter(|request| {
                request.replica == commit.stream && request.name == name && commit.seq > request.since
            });
            open.for_each(|request| request.holds = true);
        }
    }

    /// Takes a commit of another that has reached `replica`: for a moment the replica may not have had the records that it
    /// deletes, also if they are there again when the store is looked at.
    pub(super) fn reached(&mut self, replica: ReplicaId, commit: &Logged) {
        let names: BTreeSet<_> =
            commit.changes.iter().filter(|one| one.delete).filter_map(|one| Name::of(&one.record)).collect();
        let open = self.requests.values_mut();
        let open = open.filter(|request| request.replica == replica && names.contains(&request.name));
        open.for_each(|request| request.holds = true);
    }

    /// Takes the records of a replica.
    pub(super) fn see(&mut self, replica: ReplicaId, records: &[StoredRecord]) {
        let open = self.requests.values_mut().filter(|request| request.replica == replica && !request.holds);
        open.for_each(|request| request.holds = !is_there(records, request.name));
    }

    /// A delete of which the app was told that it is made was made, or had nothing to delete (C1). One that failed is
    /// nowhere (C12): no replica makes more deletes of a record than its app asked for. A replica whose store is not judged
    /// as it is now is left out.
    pub(super) fn judge(&mut self, is_judged: impl Fn(ReplicaId) -> bool) -> Result<(), Failure> {
        let told = |one: &&Request| one.outcome == Outcome::Committed && is_judged(one.replica);
        let lost = self.requests.values().filter(told).find(|one| !one.holds);
        if let Some(Request { replica, name, since, .. }) = lost {
            let detail =
                format!("{replica} said that {name:?} is deleted, which it was not since commit {since}");
            return fail("C1 a delete that is told is made", detail);
        }
        let excess = self.counts.iter().find(|(_, count)| count.made + count.failed > count.asked);
        if let Some(((replica, name), Count { asked, failed, made })) = excess {
            let detail = format!("{replica} made {made} deletes of {name:?}; {failed} of {asked} failed");
            return fail("C12 a failed commit is nowhere", detail);
        }
        self.requests
            .retain(|_, one| one.outcome == Outcome::Open || one.outcome == Outcome::Committed && !one.holds);
        Ok(())
    }
}

fn is_there(records: &[StoredRecord], name: Name) -> bool {
    records.iter().any(|record| record.value.is_some() && Name::of(&record.record) == Some(name))
}

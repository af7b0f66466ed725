//! Judges the app's own rows: each is there with the commit that was made beside it, or neither is.

use std::collections::{BTreeMap, BTreeSet};

use syncline::ReplicaId;

use super::oracle::Outcome;
use super::tables::{Rows, Table};

/// The rows that apps have asked for, by replica and serial number.
#[derive(Default)]
pub(super) struct JoinedWrites(BTreeMap<(ReplicaId, u64), JoinedWrite>);

/// A row that an app has asked for.
struct JoinedWrite {
    /// Whether a change of a record was committed with it.
    commits: bool,
    outcome: Outcome,
}

impl JoinedWrites {
    /// Takes note that an app writes the row of this number, and perhaps commits a change with it.
    pub(super) fn ask(&mut self, replica: ReplicaId, serial: u64, commits: bool) {
        self.0.insert((replica, serial), JoinedWrite { commits, outcome: Outcome::Open });
    }

    /// Takes note of what the app was told.
    pub(super) fn tell(&mut self, replica: ReplicaId, serial: u64, outcome: Outcome) {
        if let Some(write) = self.0.get_mut(&(replica, serial)) {
            write.outcome = outcome;
        }
    }

    /// Takes note that the store of a replica was put back: of what its app was told, the store may have nothing any more. It
    /// has no row without its commit all the same.
    pub(super) fn put_back(&mut self, replica: ReplicaId) {
        let of_replica = self.0.range_mut((replica, 0)..=(replica, u64::MAX));
        let told = of_replica.map(|(_, write)| write).filter(|write| write.outcome == Outcome::Committed);
        told.for_each(|write| write.outcome = Outcome::Open);
    }

    /// The app's rows of a replica whose own commits put these `serials` are those that belong to them, those that it was
    /// told are written, and none that failed.
    pub(super) fn check(
        &self,
        replica: ReplicaId,
        rows: &Rows,
        serials: &BTreeSet<u64>,
    ) -> Result<(), String> {
        let of_replica = self.0.range((replica, 0)..=(replica, u64::MAX));
        for ((_, serial), JoinedWrite { commits, outcome }) in of_replica {
            let (row, commit) = (rows.contains_key(&(Table::Own, *serial)), serials.contains(serial));
            let is_right = match outcome {
                Outcome::Committed => row && commit == *commits,
                Outcome::Failed => !row && !commit,
                Outcome::Open => !commits || row == commit,
            };
            if !is_right {
                return Err(format!(
                    "joined write {serial}, told {outcome:?}: the row is there: {row}, its commit: {commit}"
                ));
            }
        }
        let known = |serial: u64| self.0.contains_key(&(replica, serial));
        match rows.keys().find(|(table, serial)| *table == Table::Own && !known(*serial)) {
            Some((_, serial)) => Err(format!("nobody has asked for row {serial}")),
            None => Ok(()),
        }
    }
}

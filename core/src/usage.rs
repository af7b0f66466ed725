//! The use of a store: how much of it is records, and how much replication needs beside them.

use std::ops::ControlFlow;

use crate::error::Error;
use crate::manager::{TransactionManager, give_way};
use crate::pages::PAGE;
use crate::storage::{Key, KeyRange, Storage};
use crate::stored::{keys, record};

/// A number of rows, and how long they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amount {
    /// How many rows.
    pub rows: u64,
    /// The bytes of their keys and values, as they were given to the store: what a file takes for them may be more or less.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes = self.bytes.saturating_add(bytes.try_into().unwrap_or(u64::MAX));
    }
}

/// What a store holds, by kind. See [`usage`](TransactionManager::usage).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The records, of all models.
    pub records: Amount,
    /// The tombstones: deleted records, which are remembered so that they do not come back.
    pub tombstones: Amount,
    /// The log entries of all streams, one row for a commit: what a peer may still need to hear.
    pub log: Amount,
    /// The values that a log entry needs and that no record holds any more.
    pub kept: Amount,
    /// All other rows: heads, acknowledgements, the clock, values beside records, debts of projections.
    pub other: Amount,
}

impl Usage {
    /// Returns the sum of all kinds.
    #[must_use]
    pub fn total(&self) -> Amount {
        let Self { records, tombstones, log, kept, other } = *self;
        [records, tombstones, log, kept, other].into_iter().fold(Amount::default(), |sum, next| Amount {
            rows: sum.rows.saturating_add(next.rows),
            bytes: sum.bytes.saturating_add(next.bytes),
        })
    }

    /// Counts a row.
    fn count(&mut self, key: &[u8], value: &[u8]) {
        let kind = if keys::is_log(key) {
            &mut self.log
        } else if keys::is_kept(key) {
            &mut self.kept
        } else if !keys::is_record(key) {
            &mut self.other
        } else if record::parse(value).is_ok_and(|(header, _)| header.tombstone) {
            &mut self.tombstones
        } else {
            &mut self.records
        };
        kind.add(key.len().saturating_add(value.len()));
    }
}

impl<S: Storage> TransactionManager<S> {
    /// Counts what the store holds, by kind: how much is records, and how much replication needs beside them.
    ///
    /// The call reads the whole store, a page at a time, so it takes as long as that takes, and memory for one page.
    /// Commits go on meanwhile, and may be counted or not. Rows of the app's own, which a store with transactions may
    /// have beside these, are not counted.
    ///
    /// # Errors
    /// [`Error::Read`] if the store could not be read, [`Error::Stopped`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn usage(&self) -> Result<Usage, Error> {
        let (mut usage, mut last, mut rest) = (Usage::default(), Key::new(), KeyRange::all());
        loop {
            last.clear();
            // Hold the store for one page only: the driver may stop, and then the app opens the store again.
            let open = self.inner.store().await?;
            let mut each = |key: &[u8], value: &[u8]| {
                last.clear();
                last.extend_from_slice(key);
                usage.count(key, value);
                ControlFlow::Continue(())
            };
            let more = open.store.visit(rest.clone(), PAGE, &mut each).await?;
            drop(open);
            if !more || last.is_empty() {
                return Ok(usage);
            }
            rest = rest.after(&last);
            give_way().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReplicaId;
    use crate::stored::keys::RecordKey;

    #[test]
    fn each_row_is_counted_under_its_kind() {
        let (replica, record) = (ReplicaId::from_bytes([1; 16]), RecordKey::from_parts("note", None, b"1"));
        let mut usage = Usage::default();
        let rows = [
            (keys::log(replica, 1), 10),
            (keys::log(replica, 2), 20),
            (keys::kept(replica, 1, &record), 30),
            (keys::head(replica), 40),
            (keys::clock(), 50),
            (keys::beside(&record, replica, 1), 60),
            // What cannot be read is a record all the same.
            (record.as_bytes().to_vec(), 70),
        ];
        for (key, bytes) in &rows {
            usage.count(key, &vec![0xFF; *bytes]);
        }
        let rows_of = [usage.records, usage.tombstones, usage.log, usage.kept, usage.other];
        assert_eq!(rows_of.map(|amount| amount.rows), [1, 0, 2, 1, 3]);
        let bytes = rows.iter().map(|(key, bytes)| key.len() + bytes).sum::<usize>();
        assert_eq!(usage.total(), Amount { rows: 7, bytes: bytes as u64 });
    }
}

//! Hand-written redb: three tables with keys of fixed width.

use std::fmt;
use std::ops::Bound;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use syncline::Uuid;
use syncline_backends::RedbStorage;

use super::{Bars, Decode, HandWritten, HandWrittenJoin, MoreBars, ReadBars, Row};
use crate::Result;
use crate::item::{self, Item};

/// By id. A key of fixed width saves its offset in the page.
const RECORDS: TableDefinition<'static, &[u8; 16], &[u8]> = TableDefinition::new("records");
/// By sequence number: the clock, then the value.
const LOG: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("log");
/// Sequence number and clock of the last commit.
const HEAD: TableDefinition<'static, (), (u64, u64)> = TableDefinition::new("head");
/// The app's own.
const NOTES: TableDefinition<'static, u64, &str> = TableDefinition::new("notes");

/// A hand-written store in one redb file.
#[derive(Debug)]
pub struct Redb {
    database: Database,
    commit: RedbCommit,
    seq: u64,
    clock: u64,
    log_value: Vec<u8>,
}

/// How redb commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedbCommit {
    /// Two flushes: the pages, then what makes them current.
    #[default]
    TwoPhase,
    /// One flush, with a checksum that tells a torn commit.
    OnePhase,
}

impl fmt::Display for RedbCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoPhase => "two-phase",
            Self::OnePhase => "one-phase",
        })
    }
}

impl HandWritten for Redb {
    const ENGINE: &'static str = "redb";

    type Commit = RedbCommit;

    const COMMITS: &'static [RedbCommit] = &[RedbCommit::TwoPhase, RedbCommit::OnePhase];

    const BARS: Bars = Bars {
        one: 0.85,
        batch: 0.9,
        reads: Some(ReadBars { get: 0.5, get_many: 0.8, list: 0.85 }),
        more: Some(MoreBars { beside_one: 8., size: 1.25 }),
    };

    type Storage = RedbStorage;

    fn storage(path: &Path, commit: RedbCommit, cache_bytes: usize) -> Result<RedbStorage> {
        let builder = RedbStorage::builder().cache_bytes(cache_bytes);
        Ok(builder.two_phase_commit(commit == RedbCommit::TwoPhase).open(path)?)
    }

    fn open(path: &Path, commit: RedbCommit, cache_bytes: usize) -> Result<Self> {
        let database = Database::builder().set_cache_size(cache_bytes).create(path)?;
        let transaction = database.begin_write()?;
        transaction.open_table(RECORDS)?;
        transaction.open_table(LOG)?;
        let (seq, clock) = transaction.open_table(HEAD)?.get(())?.map_or((0, 0), |head| head.value());
        transaction.commit()?;
        Ok(Self { database, commit, seq, clock, log_value: Vec::new() })
    }

    fn compact(path: &Path) -> Result<bool> {
        RedbStorage::compact(path)?;
        Ok(true)
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        self.join(rows, |_| Ok(()))
    }

    fn commit_rows_alone(&mut self, rows: &[Row]) -> Result<()> {
        let transaction = self.begin()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for Row { id, value } in rows {
                records.insert(id.as_bytes(), value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, id: Uuid, decode: Decode) -> Result<Option<Item>> {
        let records = self.database.begin_read()?.open_table(RECORDS)?;
        records.get(id.as_bytes())?.map(|value| decode(value.value())).transpose()
    }

    fn get_many(&self, ids: &[Uuid], decode: Decode) -> Result<Vec<Option<Item>>> {
        let records = self.database.begin_read()?.open_table(RECORDS)?;
        let get = |id: &Uuid| records.get(id.as_bytes())?.map(|value| decode(value.value())).transpose();
        ids.iter().map(get).collect()
    }

    fn page(&self, after: Uuid, records: usize) -> Result<Vec<Item>> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let mut page = Vec::with_capacity(records);
        let behind = (Bound::Excluded(after.as_bytes()), Bound::Unbounded);
        for row in table.range::<&[u8; 16]>(behind)?.take(records) {
            page.push(item::decode_in_place(row?.1.value())?);
        }
        Ok(page)
    }

    fn scan(&self, mut each: impl FnMut(Item)) -> Result<()> {
        let records = self.database.begin_read()?.open_table(RECORDS)?;
        for row in records.iter()? {
            each(item::decode_in_place(row?.1.value())?);
        }
        Ok(())
    }

    fn log(&self) -> Result<Vec<(u64, Item)>> {
        let log = self.database.begin_read()?.open_table(LOG)?;
        log.iter()?
            .map(|row| {
                let (seq, value) = row?;
                let value = value.value().get(size_of::<u64>()..).unwrap_or_default();
                Ok((seq.value(), item::decode_in_place(value)?))
            })
            .collect()
    }

    fn head(&self) -> Result<u64> {
        let head = self.database.begin_read()?.open_table(HEAD)?;
        Ok(head.get(())?.map_or(0, |head| head.value().0))
    }
}

impl HandWrittenJoin for Redb {
    fn create_notes(tx: &WriteTransaction) -> Result<()> {
        tx.open_table(NOTES)?;
        Ok(())
    }

    fn add_note(tx: &WriteTransaction, note: u64) -> Result<()> {
        tx.open_table(NOTES)?.insert(note, "a note")?;
        Ok(())
    }

    fn join(&mut self, rows: &[Row], job: impl FnOnce(&WriteTransaction) -> Result<()>) -> Result<()> {
        let transaction = self.begin()?;
        let (mut seq, mut clock) = (self.seq, self.clock);
        job(&transaction)?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut log = transaction.open_table(LOG)?;
            for Row { id, value } in rows {
                seq += 1;
                clock += 1;
                self.log_value.clear();
                self.log_value.extend_from_slice(&clock.to_be_bytes());
                self.log_value.extend_from_slice(value);
                records.insert(id.as_bytes(), value.as_slice())?;
                log.insert(seq, self.log_value.as_slice())?;
            }
            transaction.open_table(HEAD)?.insert((), (seq, clock))?;
        }
        transaction.commit()?;
        (self.seq, self.clock) = (seq, clock);
        Ok(())
    }
}

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_two_phase_commit(self.commit == RedbCommit::TwoPhase);
        Ok(transaction)
    }
}

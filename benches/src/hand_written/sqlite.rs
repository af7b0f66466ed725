//! Hand-written SQLite: a rowid table with a unique index for the records, which with random ids takes several times
//! the rows a second that a table clustered by id does; the log by its sequence number.

use std::fmt;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use syncline::Uuid;
use syncline_backends::SqliteStorage;

use super::{Bars, Decode, HandWritten, HandWrittenJoin, ReadBars, Row};
use crate::Result;
use crate::item::{self, Item};

/// A hand-written store in one SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    connection: Connection,
    // As SQLite counts.
    seq: i64,
    clock: i64,
}

/// How SQLite commits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalFull;

impl fmt::Display for WalFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WAL, FULL")
    }
}

const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS records (id BLOB NOT NULL UNIQUE, value BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, clock INTEGER NOT NULL, value BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS head (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, clock INTEGER NOT NULL);
";
const PUT: &str =
    "INSERT INTO records (id, value) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET value = excluded.value";
const PUT_LOG: &str = "INSERT INTO log (seq, clock, value) VALUES (?1, ?2, ?3)";
const PUT_HEAD: &str = "INSERT OR REPLACE INTO head (id, seq, clock) VALUES (0, ?1, ?2)";
const PAGE: &str = "SELECT value FROM records WHERE id > ?1 ORDER BY id LIMIT ?2";
const GET: &str = "SELECT value FROM records WHERE id = ?1";

impl HandWritten for Sqlite {
    const ENGINE: &'static str = "sqlite";

    type Commit = WalFull;

    const COMMITS: &'static [WalFull] = &[WalFull];

    const BARS: Bars = Bars {
        one: 0.75,
        batch: 0.85,
        reads: Some(ReadBars { get: 0.5, get_many: 0.8, list: 0.85 }),
        more: None,
    };

    type Storage = SqliteStorage;

    fn storage(path: &Path, _: WalFull, cache_bytes: usize) -> Result<SqliteStorage> {
        Ok(SqliteStorage::builder().cache_bytes(cache_bytes).open(path)?)
    }

    fn open(path: &Path, _: WalFull, cache_bytes: usize) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Negative: in KiB instead of pages.
        connection.pragma_update(None, "cache_size", -i64::try_from(cache_bytes / 1024)?)?;
        connection.execute_batch(CREATE)?;
        let head =
            connection.query_row("SELECT seq, clock FROM head", (), |row| Ok((row.get(0)?, row.get(1)?)));
        let (seq, clock) = head.optional()?.unwrap_or_default();
        Ok(Self { connection, seq, clock })
    }

    fn compact(path: &Path) -> Result<bool> {
        Connection::open(path)?.execute_batch("VACUUM")?;
        Ok(true)
    }

    fn commit(&mut self, rows: &[Row]) -> Result<()> {
        self.join(rows, |_| Ok(()))
    }

    fn commit_rows_alone(&mut self, rows: &[Row]) -> Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            for Row { id, value } in rows {
                put.execute(params![&id.as_bytes()[..], value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, id: Uuid, decode: Decode) -> Result<Option<Item>> {
        let mut get = self.connection.prepare_cached(GET)?;
        let mut rows = get.query([&id.as_bytes()[..]])?;
        rows.next()?.map(|row| decode(row.get_ref(0)?.as_blob()?)).transpose()
    }

    fn get_many(&self, ids: &[Uuid], decode: Decode) -> Result<Vec<Option<Item>>> {
        let transaction = self.connection.unchecked_transaction()?;
        let found = ids.iter().map(|id| self.get(*id, decode)).collect();
        transaction.commit()?;
        found
    }

    fn page(&self, after: Uuid, records: usize) -> Result<Vec<Item>> {
        let mut behind = self.connection.prepare_cached(PAGE)?;
        let mut rows = behind.query(params![&after.as_bytes()[..], i64::try_from(records)?])?;
        let mut page = Vec::with_capacity(records);
        while let Some(row) = rows.next()? {
            page.push(item::decode_in_place(row.get_ref(0)?.as_blob()?)?);
        }
        Ok(page)
    }

    fn scan(&self, mut each: impl FnMut(Item)) -> Result<()> {
        let mut all = self.connection.prepare_cached("SELECT value FROM records ORDER BY id")?;
        let mut rows = all.query(())?;
        while let Some(row) = rows.next()? {
            each(item::decode_in_place(row.get_ref(0)?.as_blob()?)?);
        }
        Ok(())
    }

    fn log(&self) -> Result<Vec<(u64, Item)>> {
        let mut log = self.connection.prepare("SELECT seq, value FROM log ORDER BY seq")?;
        let rows = log.query_map((), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        rows.map(|row| {
            let (seq, value) = row?;
            Ok((u64::try_from(seq)?, item::decode_in_place(&value)?))
        })
        .collect()
    }

    fn head(&self) -> Result<u64> {
        let head = self.connection.query_row("SELECT seq FROM head", (), |row| row.get::<_, i64>(0));
        Ok(u64::try_from(head.optional()?.unwrap_or_default())?)
    }
}

impl HandWrittenJoin for Sqlite {
    fn create_notes(tx: &Transaction<'_>) -> Result<()> {
        Ok(tx.execute_batch("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")?)
    }

    fn add_note(tx: &Transaction<'_>, note: u64) -> Result<()> {
        let mut add = tx.prepare_cached("INSERT INTO note (id, text) VALUES (?1, 'a note')")?;
        add.execute([i64::try_from(note)?])?;
        Ok(())
    }

    fn join(&mut self, rows: &[Row], job: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let (mut seq, mut clock) = (self.seq, self.clock);
        job(&transaction)?;
        {
            let mut put = transaction.prepare_cached(PUT)?;
            let mut put_log = transaction.prepare_cached(PUT_LOG)?;
            for Row { id, value } in rows {
                seq += 1;
                clock += 1;
                put.execute(params![&id.as_bytes()[..], value])?;
                put_log.execute(params![seq, clock, value])?;
            }
            transaction.prepare_cached(PUT_HEAD)?.execute([seq, clock])?;
        }
        transaction.commit()?;
        (self.seq, self.clock) = (seq, clock);
        Ok(())
    }
}

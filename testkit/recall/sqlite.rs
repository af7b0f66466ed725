//! SQLite, with one connection, in some of its settings.

#[path = "lists.rs"]
mod lists;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lists::Engine;
use rusqlite::{Connection, OptionalExtension as _, params};
use syncline::{BoxError, Key, KeyRange, Value, WriteBatch, WriteOp};

lists!(wal_full, |path| open(path, "WAL", "FULL"));
lists!(wal_normal, |path| open(path, "WAL", "NORMAL"));
lists!(delete_full, |path| open(path, "DELETE", "FULL"));
lists!(truncate_normal, |path| open(path, "TRUNCATE", "NORMAL"));
lists!(wal_off, |path| open(path, "WAL", "OFF"));
lists!(memory_full, |path| open(path, "MEMORY", "FULL"));
lists!(off_full, |path| open(path, "OFF", "FULL"));

struct Sqlite {
    writer: Mutex<Connection>,
    /// A connection of its own, so that a read does not wait for a write.
    reader: Mutex<Connection>,
}

fn open(path: &Path, journal: &str, synchronous: &str) -> Result<Sqlite, BoxError> {
    let file = path.join("sqlite");
    let writer = Connection::open(&file)?;
    writer.execute_batch(&format!(
        "PRAGMA journal_mode = {journal}; PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = 100;
        CREATE TABLE IF NOT EXISTS entry (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
    ))?;
    Ok(Sqlite { writer: Mutex::new(writer), reader: Mutex::new(Connection::open(&file)?) })
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine for Sqlite {
    fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, BoxError> {
        let mut connection = lock(&self.reader);
        let transaction = connection.transaction()?;
        let mut row = transaction.prepare_cached("SELECT value FROM entry WHERE key = ?")?;
        keys.iter().map(|key| Ok(row.query_row([key], |row| row.get(0)).optional()?)).collect()
    }

    fn scan(&self, range: &KeyRange, most: usize) -> Result<Vec<(Key, Value)>, BoxError> {
        let connection = lock(&self.reader);
        let mut rows = connection.prepare_cached(
            "SELECT key, value FROM entry WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key LIMIT ?3",
        )?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows =
            rows.query_map(params![range.start, range.end, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), BoxError> {
        let mut connection = lock(&self.writer);
        let transaction = connection.transaction()?;
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => transaction
                    .prepare_cached("INSERT OR REPLACE INTO entry VALUES (?, ?)")?
                    .execute(params![key, value])?,
                WriteOp::Delete { key } => {
                    transaction.prepare_cached("DELETE FROM entry WHERE key = ?")?.execute([key])?
                }
                WriteOp::DeleteRange { range } => transaction
                    .prepare_cached("DELETE FROM entry WHERE key >= ?1 AND (?2 IS NULL OR key < ?2)")?
                    .execute(params![range.start, range.end])?,
            };
        }
        Ok(transaction.commit()?)
    }
}

//! `Storage` for redb: what reads and writes do with a redb database.

use ::redb::{Database, Error, ReadableDatabase, WriteTransaction};
use async_trait::async_trait;
use syncline::{Entry, Key, KeyRange, ReadError, Storage, Value, WriteBatch, WriteError};

use super::errors::in_doubt;
use super::layout::{self, SIZES};
use crate::shared::closing::Closing;
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::OpenStore;

/// A store in one redb file.
///
/// The app may keep tables of its own in the file. The names of the store's tables begin with `syncline/`.
///
/// # Errors
/// A write that is too large for redb is [`WriteError::TooLarge`]; every other failure of redb is
/// [`WriteError::Unknown`]. After such a failure, and after a read that failed, the store refuses every call until it
/// is dropped and opened again: redb may hold wrong pages in memory. What it wrote to the file before stays valid.
///
/// # Cancel safety
/// A write whose future is dropped runs to its end, and the next write comes after it.
///
/// # Drop
/// Dropping the store releases the file before it returns, so that the path can be opened again at once. For that it
/// blocks until the writes that were sent have ended, and until a scan whose future was dropped has stopped.
#[derive(Debug)]
pub struct RedbStorage {
    pub(super) store: OpenStore<Engine>,
}

/// An open redb database, and the options of its commits.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) database: Database,
    pub(super) commit: CommitOptions,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct CommitOptions {
    pub(super) two_phase: bool,
    pub(super) quick_repair: bool,
}

#[async_trait]
impl Storage for RedbStorage {
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ReadError> {
        self.store.read(|engine| Ok(layout::get_many(&engine.database.begin_read()?, keys)?))
    }

    async fn scan(&self, range: KeyRange, limit: usize) -> Result<Vec<Entry>, ReadError> {
        self.store
            .scan(limit, move |store| store.read(|engine| engine.scan(&range, limit, store.closing())))
            .await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Checked before the write begins, so that a size that does not fit is certainly rejected.
        SIZES.check(&batch).map_err(WriteError::too_large)?;
        self.store.write(move |store| store.write(|engine| engine.write(&batch))).await
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

impl Engine {
    fn scan(&self, range: &KeyRange, limit: usize, closing: &Closing) -> Result<Vec<Entry>, NotRead> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        layout::scan(&self.database.begin_read()?, range, limit, closing)
    }

    fn write(&self, batch: &WriteBatch) -> Result<(), NotWritten> {
        if batch.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        match layout::apply(&transaction, batch) {
            Ok(()) => transaction.commit().map_err(in_doubt),
            Err(error @ Error::ValueTooLarge(_)) => {
                transaction.abort().map_err(in_doubt)?;
                Err(NotWritten::rejected(error))
            }
            Err(error) => Err(in_doubt(error)),
        }
    }

    pub(super) fn begin(&self) -> Result<WriteTransaction, NotWritten> {
        // Fails instead of waiting for another write transaction. Only this thread writes, so that another one can only
        // be left over from a job that leaked a table: waiting for it would never end.
        let mut transaction = self.database.try_begin_write().map_err(in_doubt)?;
        transaction.set_two_phase_commit(self.commit.two_phase);
        transaction.set_quick_repair(self.commit.quick_repair);
        Ok(transaction)
    }
}

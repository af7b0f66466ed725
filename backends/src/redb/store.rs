//! `Storage` for redb: what reads and writes do with a redb database.

use ::redb::{Database, Error, ReadableDatabase, WriteTransaction};
use async_trait::async_trait;
use syncline::{
    Key, KeyRange, ReadError, ScanLimit, ScanPage, Storage, StoreLimits, Value, Visitor, WriteBatch,
    WriteError,
};

use super::errors::in_doubt;
use super::layout::{self, SIZES};
use crate::shared::closing::Closing;
use crate::shared::errors::{NotRead, NotWritten};
use crate::shared::open_store::{OpenStore, Shared};
use crate::shared::show::{self, Show};

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

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, ReadError> {
        let scan = move |store: &Shared<Engine>| {
            store.read(|engine| show::page(limit, |show| engine.visit(&range, show, store.closing())))
        };
        self.store.scan(limit, scan).await
    }

    async fn visit(&self, range: KeyRange, limit: ScanLimit, each: Visitor<'_>) -> Result<bool, ReadError> {
        self.store.visit(limit, each, |engine, show, closing| engine.visit(&range, show, closing))
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), WriteError> {
        // Checked before the write begins, so that a size that does not fit is certainly rejected.
        SIZES.check(&batch).map_err(WriteError::too_large)?;
        self.store.write(move |store| store.write(|engine| engine.write(&batch))).await
    }

    fn limits(&self) -> StoreLimits {
        StoreLimits::NONE
    }

    fn location(&self) -> String {
        self.store.location()
    }
}

impl Engine {
    fn visit(&self, range: &KeyRange, show: &mut Show<'_>, closing: &Closing) -> Result<bool, NotRead> {
        if range.is_empty() {
            return Ok(false);
        }
        layout::visit(&self.database.begin_read()?, range, show, closing)
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

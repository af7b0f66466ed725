//! Opening a SQLite store, and its options.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::files::Owner;
use super::store::{Engine, Writes};
use super::writer::Writer;
use super::{SqliteStorage, connection};
use crate::OpenStoreError;
use crate::shared::directory::{parent, sync_directory};
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain_open;

/// Opens a [`SqliteStorage`] with options.
#[derive(Clone, Debug)]
pub struct SqliteBuilder {
    options: Options,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) cache_bytes: usize,
    pub(super) busy_timeout: Duration,
    pub(super) wal_bytes_max: u64,
    pub(super) checkpoint_after: Duration,
    pub(super) verify: bool,
}

/// The cache of each connection. A larger one hardly helps: a connection that reads drops its cache after each write of
/// another connection.
const CACHE_BYTES_DEFAULT: usize = 16 << 20;

/// The log is copied into the database at a quarter of this length, which is four times SQLite's default. Writes with
/// random ids change the same pages of the index again and again, so that copying these pages less often makes such
/// writes a quarter faster.
const WAL_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// How long no write must have come before the log is copied into the database. Writes that come one after the other are
/// closer together, so that none of them waits for the copy.
const CHECKPOINT_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// How long a connection waits for a lock that another connection holds.
const BUSY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

impl SqliteStorage {
    /// Opens the store at `path`, or creates it, with the defaults of [`SqliteBuilder`].
    ///
    /// # Errors
    /// As [`SqliteBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenStoreError> {
        Self::builder().open(path)
    }

    /// Returns a builder with the defaults.
    #[must_use]
    pub const fn builder() -> SqliteBuilder {
        SqliteBuilder {
            options: Options {
                cache_bytes: CACHE_BYTES_DEFAULT,
                busy_timeout: BUSY_TIMEOUT_DEFAULT,
                wal_bytes_max: WAL_BYTES_MAX_DEFAULT,
                checkpoint_after: CHECKPOINT_AFTER_DEFAULT,
                verify: false,
            },
        }
    }
}

impl SqliteBuilder {
    /// Sets how many bytes each connection may cache. There is one connection that writes, and one for each read that
    /// runs at the same time. Default 16 MiB.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.options.cache_bytes = bytes;
        self
    }

    /// Sets how long a write waits while another connection writes the same file, before it is rejected. Default 1 s.
    #[must_use]
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options.busy_timeout = timeout;
        self
    }

    /// Sets about how long the log may be after a write. Default 64 MiB.
    ///
    /// A single write may make the log longer than this. One of the next writes then copies the log into the database
    /// and cuts it off, and waits a moment for readers to do so. While a read transaction of the app stays open, the
    /// log keeps growing; it is cut off by the writes after that transaction has ended.
    #[must_use]
    pub const fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.options.wal_bytes_max = bytes;
        self
    }

    /// Sets after how long without a write the log is copied into the database. Default 1 s.
    ///
    /// A copy of the database file alone, without its log, then has everything up to there: such a copy is an old backup,
    /// which peers recognise. The copying goes on beside reads; a write that comes meanwhile waits for it.
    #[must_use]
    pub const fn checkpoint_after(mut self, idle: Duration) -> Self {
        self.options.checkpoint_after = idle;
        self
    }

    /// Sets whether opening checks that the whole file is well-formed, and that index and table agree. Default false.
    ///
    /// True reads the whole file. Otherwise damage is an error of the read that meets it.
    #[must_use]
    pub const fn verify(mut self, enabled: bool) -> Self {
        self.options.verify = enabled;
        self
    }

    /// Opens the store at `path`, or creates it: the file, or the store's tables in a database that exists.
    ///
    /// Does not wait for another store that has the database open. Blocks; after a crash it reads the log.
    ///
    /// # Errors
    /// [`OpenStoreError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SqliteStorage, OpenStoreError> {
        let path = path.as_ref();
        connection::check_version(path, rusqlite::version_number())?;
        let owner = Owner::claim(path)?;
        let connection::Opened { connection, guard, is_empty } =
            contain_open(path, || connection::writer(&owner.database, path, &self.options))?;
        // SQLite syncs the directory itself once it has created a file, and ignores an error of that. Without the name of
        // the log, a loss of power would take away every commit in it.
        sync_directory(parent(&owner.database)).map_err(|error| OpenStoreError::io_of_engine(path, error))?;
        let engine = Engine {
            readers: Mutex::new(Vec::new()),
            writer: Mutex::new(Writer::new(connection, guard, owner.wal(), self.options.clone(), is_empty)),
            owner,
            options: self.options.clone(),
        };
        let (thread, after) = ("syncline-sqlite", self.options.checkpoint_after);
        let store = OpenStore::start_idling(thread, path, engine, after, Engine::checkpoint)?;
        Ok(SqliteStorage { store, writes: Writes::default() })
    }
}

impl Default for SqliteBuilder {
    fn default() -> Self {
        SqliteStorage::builder()
    }
}

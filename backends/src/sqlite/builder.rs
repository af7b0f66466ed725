//! How a store is opened: its options, and a database with an engine on it.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use super::files::{Owner, beside};
use super::store::{Engine, Writes};
use super::writer::Writer;
use super::{SqliteStorage, connection};
use crate::OpenError;
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain_open;

/// How a [`SqliteStorage`] is opened.
#[derive(Clone, Debug)]
pub struct SqliteBuilder {
    options: Options,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) cache_bytes: usize,
    pub(super) busy_timeout: Duration,
    pub(super) wal_bytes_max: u64,
    pub(super) verify: bool,
}

/// For each connection: more hardly helps, since whoever reads drops its cache after each write of another.
const CACHE_BYTES_DEFAULT: usize = 16 << 20;

/// The log is copied into the database at a quarter of it, four times as late as by SQLite's default: writes with
/// random ids touch the same pages of the index again and again, so copying them less often is a quarter faster.
const WAL_BYTES_MAX_DEFAULT: u64 = 64 << 20;

/// How long a connection waits for a lock that somebody else holds.
const BUSY_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

impl SqliteStorage {
    /// Opens the store at `path`, or creates it, with the defaults of [`SqliteBuilder`].
    ///
    /// # Errors
    /// As [`SqliteBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path)
    }

    /// Begins to describe how a store is opened.
    #[must_use]
    pub const fn builder() -> SqliteBuilder {
        SqliteBuilder {
            options: Options {
                cache_bytes: CACHE_BYTES_DEFAULT,
                busy_timeout: BUSY_TIMEOUT_DEFAULT,
                wal_bytes_max: WAL_BYTES_MAX_DEFAULT,
                verify: false,
            },
        }
    }
}

impl SqliteBuilder {
    /// How many bytes each connection may cache: the one that writes, and as many as read at once. Default 16 MiB.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.options.cache_bytes = bytes;
        self
    }

    /// How long a write waits while another connection writes the same file, before it is rejected. Default 1 s.
    #[must_use]
    pub const fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.options.busy_timeout = timeout;
        self
    }

    /// About how long the log may be after a write, unless somebody reads for long. Default 64 MiB.
    ///
    /// A single write may pass it by what it writes; one of the writes after it cuts the log off.
    /// A log beyond it is copied into the database and cut off, for which the writer waits a moment for readers. A
    /// read transaction of the app that stays open all the time makes the log grow on; it shrinks again with the
    /// writes after that one has ended.
    #[must_use]
    pub const fn wal_bytes_max(mut self, bytes: u64) -> Self {
        self.options.wal_bytes_max = bytes;
        self
    }

    /// Whether opening checks that the whole file is well-formed and that index and table agree. Default false.
    ///
    /// True takes as long as reading the file. Otherwise such damage shows when it is read.
    #[must_use]
    pub const fn verify(mut self, enabled: bool) -> Self {
        self.options.verify = enabled;
        self
    }

    /// Opens the store at `path`, or creates it: the file, or its table in a database that is there.
    ///
    /// Does not wait for another store that holds it. Blocks, after a crash for as long as reading the log takes.
    ///
    /// # Errors
    /// [`OpenError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SqliteStorage, OpenError> {
        let path = path.as_ref();
        connection::check_version(path, rusqlite::version_number())?;
        let owner = Owner::claim(path)?;
        let (connection, guard) =
            contain_open(path, || connection::writer(&owner.database, path, &self.options))?;
        let engine = Engine {
            readers: Mutex::new(Vec::new()),
            writer: Mutex::new(Writer {
                connection,
                guard,
                wal: beside(&owner.database, "-wal"),
                options: self.options.clone(),
                checkpoint_from: self.options.wal_bytes_max,
                unseen_bytes: 0,
                is_in_doubt: false,
            }),
            owner,
            options: self.options.clone(),
        };
        let store = OpenStore::start("syncline-sqlite", path, engine)?;
        Ok(SqliteStorage { store, writes: Writes::default() })
    }
}

impl Default for SqliteBuilder {
    fn default() -> Self {
        SqliteStorage::builder()
    }
}

//! How a store is opened: its options, and a database with an engine on it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ::sled::Config;

use super::SledStorage;
use super::errors::{is_locked, open_error, row_error};
use super::files::{Directory, Log};
use super::layout::{RowError, Rows, SEGMENT_BYTES};
use super::store::Engine;
use crate::OpenError;
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain_open;

/// How a [`SledStorage`] is opened.
#[derive(Clone, Debug)]
pub struct SledBuilder {
    cache_bytes: usize,
}

/// Enough for the hot part of a large store, small enough for a phone.
const CACHE_BYTES_DEFAULT: usize = 128 << 20;

impl SledStorage {
    /// Opens the store in the directory at `path`, or creates it, with the defaults of [`SledBuilder`].
    ///
    /// # Errors
    /// As [`SledBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder().open(path)
    }

    /// Begins to describe how a store is opened.
    #[must_use]
    pub const fn builder() -> SledBuilder {
        SledBuilder { cache_bytes: CACHE_BYTES_DEFAULT }
    }
}

impl SledBuilder {
    /// How many bytes of pages sled may keep in memory. Default 128 MiB; less than 1 MiB counts as that.
    ///
    /// The table of all pages, and a log buffer of 8 MiB or a few of them, come on top.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Opens the store in the directory at `path`, or creates it. The directory above must be there.
    ///
    /// Blocks, for as long as reading what was written since it was last opened takes.
    ///
    /// # Errors
    /// [`OpenError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SledStorage, OpenError> {
        self.open_with(path.as_ref(), File::sync_data)
    }

    pub(super) fn open_with(
        &self,
        path: &Path,
        sync: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<SledStorage, OpenError> {
        let failed = |error| OpenError::io_of_engine(path, error);
        let mut directory = Directory::claim(path, SEGMENT_BYTES)?;
        // sled's thread that flushes twice a second is of no use: every write flushes.
        let config = Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(self.cache_bytes.max(CACHE_BYTES_MIN) as u64)
            .flush_every_ms(None);
        // Declared after the directory, so that on a way out the database goes first.
        let rows = open_rows(&config, &mut directory)?;
        directory.complete().map_err(failed)?;
        let log = directory.open_log().map_err(failed)?;
        let engine = Engine { rows, log: Log::new(log, sync), _directory: directory };
        Ok(SledStorage { store: OpenStore::start("syncline-sled", path, engine)?, gate: Arc::default() })
    }
}

/// Below this some of sled's shares of its cache would be empty, which it does not allow.
const CACHE_BYTES_MIN: usize = 1 << 20;

impl Default for SledBuilder {
    fn default() -> Self {
        SledStorage::builder()
    }
}

/// Opens sled on files that are not trusted: it may panic over damaged ones.
fn open_rows(config: &Config, directory: &mut Directory) -> Result<Rows, OpenError> {
    let opened = contain_open(directory.path(), || {
        let path = directory.path();
        let database = match config.open() {
            Err(error) if is_locked(&error) => return Err(OpenError::already_open(path)),
            outcome => outcome.map_err(|error| open_error(path, error))?,
        };
        let rows = Rows::new(database).map_err(|error| row_error(path, error))?;
        if !directory.is_complete() {
            rows.begin().map_err(|error| row_error(path, error))?;
        }
        match rows.are_ours() {
            Ok(true) => Ok(rows),
            // sled has lost what every store begins with, and perhaps all the rest.
            outcome => Err(row_error(path, outcome.err().unwrap_or(RowError::Damaged))),
        }
    });
    if !matches!(opened, Err(OpenError::AlreadyOpen { .. })) {
        directory.note_use();
    }
    opened
}

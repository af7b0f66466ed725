//! Opening a sled store, and its options.

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
use crate::OpenStoreError;
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain_open;

/// Opens a [`SledStorage`] with options.
#[derive(Clone, Debug)]
pub struct SledBuilder {
    cache_bytes: usize,
}

/// Holds the pages that a large store uses often, and is small enough for a phone.
const CACHE_BYTES_DEFAULT: usize = 128 << 20;

impl SledStorage {
    /// Opens the store in the directory at `path`, or creates it, with the defaults of [`SledBuilder`].
    ///
    /// # Errors
    /// As [`SledBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenStoreError> {
        Self::builder().open(path)
    }

    /// Returns a builder with the defaults.
    #[must_use]
    pub const fn builder() -> SledBuilder {
        SledBuilder { cache_bytes: CACHE_BYTES_DEFAULT }
    }
}

impl SledBuilder {
    /// Sets how many bytes of pages sled may keep in memory. Default 128 MiB; less than 1 MiB counts as 1 MiB.
    ///
    /// Beside these pages sled keeps a table of all pages, and one or a few log buffers of 8 MiB each.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Opens the store in the directory at `path`, or creates it. The directory above must exist.
    ///
    /// Blocks, and reads everything that was written since the store was last opened.
    ///
    /// # Errors
    /// [`OpenStoreError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SledStorage, OpenStoreError> {
        self.open_with(path.as_ref(), File::sync_data)
    }

    pub(super) fn open_with(
        &self,
        path: &Path,
        sync: impl Fn(&File) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<SledStorage, OpenStoreError> {
        let failed = |error| OpenStoreError::io_of_engine(path, error);
        let mut directory = Directory::claim(path, SEGMENT_BYTES)?;
        // Every write flushes, so that sled's own thread, which flushes twice a second, has nothing to do.
        let config = Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(self.cache_bytes.max(CACHE_BYTES_MIN) as u64)
            .flush_every_ms(None);
        // Declared after `directory`, so that on an error the database is dropped first, and the lock last.
        let rows = open_rows(&config, &mut directory)?;
        directory.complete().map_err(failed)?;
        let log = directory.open_log().map_err(failed)?;
        let engine = Engine { rows, log: Log::new(log, sync), _directory: directory };
        Ok(SledStorage { store: OpenStore::start("syncline-sled", path, engine)?, gate: Arc::default() })
    }
}

/// sled splits its cache, and does not allow a part of it to be empty, as one would be below this size.
const CACHE_BYTES_MIN: usize = 1 << 20;

impl Default for SledBuilder {
    fn default() -> Self {
        SledStorage::builder()
    }
}

/// Opens sled on the files in `directory`, which may be damaged.
fn open_rows(config: &Config, directory: &mut Directory) -> Result<Rows, OpenStoreError> {
    let opened = contain_open(directory.path(), || {
        let path = directory.path();
        let database = match config.open() {
            Err(error) if is_locked(&error) => return Err(OpenStoreError::already_open(path)),
            outcome => outcome.map_err(|error| open_error(path, error))?,
        };
        let rows = Rows::new(database).map_err(|error| row_error(path, error))?;
        if !directory.is_complete() {
            rows.begin().map_err(|error| row_error(path, error))?;
        }
        match rows.are_ours() {
            Ok(true) => Ok(rows),
            // sled has lost the row that every store begins with, and perhaps other rows.
            outcome => Err(row_error(path, outcome.err().unwrap_or(RowError::Damaged))),
        }
    });
    // If another process holds sled's lock, dropping `directory` must not wait for it.
    if !matches!(opened, Err(OpenStoreError::AlreadyOpen { .. })) {
        directory.note_use();
    }
    opened
}

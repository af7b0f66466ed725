//! Opening a redb store, and its options.

use std::path::Path;

use ::redb::{Database, StorageBackend};

use super::errors::open_error;
use super::medium::Medium;
use super::store::{CommitOptions, Engine};
use super::{RedbStorage, files, layout};
use crate::OpenStoreError;
use crate::shared::open_store::OpenStore;
use crate::shared::panics::contain_open;

/// Opens a [`RedbStorage`] with options.
#[derive(Clone, Debug)]
pub struct RedbBuilder {
    commit: CommitOptions,
    cache_bytes: usize,
    verify: bool,
}

/// Holds the pages that a large store uses often, and is small enough for a phone.
pub(super) const CACHE_BYTES_DEFAULT: usize = 128 << 20;

impl RedbStorage {
    /// Opens the store at `path`, or creates it, with the defaults of [`RedbBuilder`].
    ///
    /// # Errors
    /// As [`RedbBuilder::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenStoreError> {
        Self::builder().open(path)
    }

    /// Returns a builder with the defaults.
    #[must_use]
    pub const fn builder() -> RedbBuilder {
        RedbBuilder {
            commit: CommitOptions { two_phase: true, quick_repair: false },
            cache_bytes: CACHE_BYTES_DEFAULT,
            verify: false,
        }
    }
}

impl RedbBuilder {
    /// Sets whether a commit flushes its pages before it makes them current. Default true.
    ///
    /// False saves one of two flushes per write. After a loss of power redb then tells a whole commit from a torn one
    /// by a checksum that is not cryptographic. An attacker who chooses values, as a peer can, and who can make the
    /// power fail could make redb accept a torn commit.
    #[must_use]
    pub const fn two_phase_commit(mut self, enabled: bool) -> Self {
        self.commit.two_phase = enabled;
        self
    }

    /// Sets whether every commit also stores which pages are free. Default false.
    ///
    /// True makes writes slower, and opening after a crash fast: otherwise that opening reads the whole file. True
    /// implies [`two_phase_commit`](Self::two_phase_commit).
    #[must_use]
    pub const fn quick_repair(mut self, enabled: bool) -> Self {
        self.commit.quick_repair = enabled;
        self
    }

    /// Sets how many bytes redb may cache. Default 128 MiB.
    #[must_use]
    pub const fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// Sets whether opening checks the whole file against its checksums. Default false.
    ///
    /// True finds every byte that has changed since it was written, but reads the whole file. Otherwise a damaged value
    /// can go unnoticed, and other damage is an error of the read that meets it.
    #[must_use]
    pub const fn verify(mut self, enabled: bool) -> Self {
        self.verify = enabled;
        self
    }

    /// Opens the store at `path`, or creates it.
    ///
    /// Blocks. After a crash it reads the whole file, unless [`quick_repair`](Self::quick_repair) was set.
    ///
    /// # Errors
    /// [`OpenStoreError`], whose variants say what to do.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<RedbStorage, OpenStoreError> {
        let path = path.as_ref();
        let storage = self.open_at(path, files::open_or_create(path)?)?;
        files::sync_name(path)?;
        Ok(storage)
    }

    /// Opens the store on `backend`, or creates it if the backend is empty.
    ///
    /// Two stores must not share a backend. A backend without locks does not keep the second store out.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_backend(&self, backend: impl StorageBackend) -> Result<RedbStorage, OpenStoreError> {
        self.open_at(Path::new("the given backend"), backend)
    }

    fn open_at(&self, path: &Path, backend: impl StorageBackend) -> Result<RedbStorage, OpenStoreError> {
        let mut options = Database::builder();
        options.set_cache_size(self.cache_bytes).set_check_integrity_on_open(self.verify);
        let database = contain_open(path, || {
            let database = create(&options, backend, path)?;
            layout::check_tables(&database).map_err(|error| OpenStoreError::corrupt(path, error))?;
            Ok(database)
        })?;
        let engine = Engine { database, commit: self.commit };
        Ok(RedbStorage { store: OpenStore::start("syncline-redb", path, engine)? })
    }
}

impl Default for RedbBuilder {
    fn default() -> Self {
        RedbStorage::builder()
    }
}

pub(super) fn create(
    options: &::redb::Builder,
    backend: impl StorageBackend,
    path: &Path,
) -> Result<Database, OpenStoreError> {
    options.create_with_backend(Medium::new(backend)).map_err(|error| open_error(path, error))
}

#[cfg(all(unix, test))]
mod tests {
    use super::*;
    use crate::shared::directory::SYNCED;

    /// Without this a loss of power could take away the name of a new file, and every write with it.
    #[test]
    fn the_name_of_a_new_store_is_made_durable() {
        let directory = tempfile::tempdir().unwrap();
        RedbStorage::open(directory.path().join("store.redb")).unwrap();
        assert_eq!(SYNCED.take(), [directory.path()]);
    }
}

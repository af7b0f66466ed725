//! The file of a redb store.

use std::fs::OpenOptions;
use std::path::Path;

use ::redb::backends::FileBackend;

use super::errors::open_error;
use crate::OpenStoreError;
use crate::shared::directory::{parent, sync_directory};

/// Opens the file at `path`, which must exist.
pub(super) fn open(path: &Path) -> Result<FileBackend, OpenStoreError> {
    open_with(path, OpenOptions::new().read(true).write(true))
}

/// Opens the file at `path`, or creates it.
pub(super) fn open_or_create(path: &Path) -> Result<FileBackend, OpenStoreError> {
    open_with(path, OpenOptions::new().read(true).write(true).create(true).truncate(false))
}

fn open_with(path: &Path, options: &OpenOptions) -> Result<FileBackend, OpenStoreError> {
    let file = options.open(path).map_err(|error| OpenStoreError::io_of_engine(path, error))?;
    FileBackend::new(file).map_err(|error| open_error(path, error))
}

/// Makes the name of the file at `path` durable, which may be new.
pub(super) fn sync_name(path: &Path) -> Result<(), OpenStoreError> {
    sync_directory(parent(path)).map_err(|error| OpenStoreError::io_of_engine(path, error))
}

//! Panics of an engine, turned into errors. Engines trust their files, and may panic over a damaged one: a panic on a
//! thread of the app would end more than this store.

use std::path::Path;

use syncline::Panicked;

use crate::OpenStoreError;

/// Runs `work`, which opens an engine on files that nobody has checked. A panic means that the files are damaged.
pub(crate) fn contain_open<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, OpenStoreError>,
) -> Result<T, OpenStoreError> {
    Panicked::catch(work).unwrap_or_else(|panicked| Err(OpenStoreError::corrupt(path, panicked)))
}

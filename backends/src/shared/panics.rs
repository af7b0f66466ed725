//! Panics of an engine, turned into errors. Engines trust their files, and may panic over a damaged one: a panic on a
//! thread of the app would end more than this store.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::OpenStoreError;

/// Work that panicked, or that did not run because the thread of its worker has ended.
#[derive(Debug, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub(crate) struct Panicked(pub(crate) String);

/// Runs `work` and turns a panic into an error.
///
/// The caller must not use what `work` was changing when it panicked.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(payload.as_ref())))
}

/// Runs `work`, which opens an engine on files that nobody has checked. A panic means that the files are damaged.
pub(crate) fn contain_open<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, OpenStoreError>,
) -> Result<T, OpenStoreError> {
    contain(work).unwrap_or_else(|panicked| Err(OpenStoreError::corrupt(path, panicked)))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

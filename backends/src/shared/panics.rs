//! Panics of an engine, turned into errors: engines trust their files, and may panic over a damaged one.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::OpenError;

/// Work that panicked, or that never ran because the thread of its worker is gone.
#[derive(Debug, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub(crate) struct Panicked(pub(crate) String);

/// Runs `work` and turns a panic into an error.
///
/// The caller must not trust what `work` was changing when it panicked.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked(message(payload.as_ref())))
}

/// Runs `work`, which opens the engine on files that are not trusted: a panic means that they are damaged.
pub(crate) fn contain_open<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    contain(work).unwrap_or_else(|panicked| Err(OpenError::corrupt(path, panicked)))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

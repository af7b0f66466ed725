//! Whether a store may go on: a failure that leaves its engine in doubt ends it until it is opened again.

use std::path::Path;
use std::sync::OnceLock;

/// What stands in the way of using a store, if anything does.
#[derive(Debug)]
pub(crate) struct Health {
    location: String,
    /// Why the store refuses to go on. The first reason is the one that is told.
    failure: OnceLock<String>,
}

/// A failure of the engine, after which only opening again helps.
#[derive(Debug, thiserror::Error)]
#[error("{location} failed: {cause}: drop this store and open it again")]
pub(crate) struct Failed {
    location: String,
    cause: String,
}

impl Health {
    pub(crate) fn new(path: &Path) -> Self {
        Self { location: path.display().to_string(), failure: OnceLock::new() }
    }

    /// Where the store lies.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// Refuses if an earlier failure forbids using the store.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        self.failure.get().map_or(Ok(()), |cause| Err(self.failed(cause)))
    }

    /// A failure that says nothing of the store's future.
    pub(crate) fn failed(&self, cause: &str) -> Failed {
        Failed { location: self.location.clone(), cause: cause.to_owned() }
    }

    /// Refuses everything from now on, because of `error`, the first time it is called.
    pub(crate) fn fail(&self, error: &dyn ToString) -> Failed {
        self.failed(self.failure.get_or_init(|| error.to_string()))
    }

    /// A write begins, whose outcome nobody knows until the doubt is lifted: a panic leaves it, even though nobody may
    /// be waiting for this write any more.
    pub(crate) const fn doubt(&self) -> Doubt<'_> {
        Doubt(self)
    }
}

/// A write that has begun and whose outcome nobody knows yet.
pub(crate) struct Doubt<'a>(&'a Health);

impl Doubt<'_> {
    /// The outcome is known, whatever it is.
    pub(crate) fn lift(self) {
        std::mem::forget(self);
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.fail(&"a write panicked");
    }
}

//! Whether a store may go on. After a failure that leaves the engine in doubt, the store refuses every call until it is
//! opened again: the engine may hold pages in memory that never reached the disk.

use std::path::Path;
use std::sync::OnceLock;

/// The failure that keeps a store from going on, if there was one.
#[derive(Debug)]
pub(crate) struct Health {
    location: String,
    /// Set once, by the first failure: later ones only follow from it, and would hide the cause.
    failure: OnceLock<String>,
}

/// A call that the store refuses. Opening the store again is all that helps.
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

    /// Says where the store lies.
    pub(crate) fn location(&self) -> &str {
        &self.location
    }

    /// Refuses if the store has failed.
    pub(crate) fn check(&self) -> Result<(), Failed> {
        self.failure.get().map_or(Ok(()), |cause| Err(self.failed(cause)))
    }

    /// Builds the refusal of one call. The store itself goes on.
    pub(crate) fn failed(&self, cause: &str) -> Failed {
        Failed { location: self.location.clone(), cause: cause.to_owned() }
    }

    /// Ends the store because of `error`: from now on [`check`](Self::check) refuses.
    pub(crate) fn fail(&self, error: &dyn ToString) -> Failed {
        self.failed(self.failure.get_or_init(|| error.to_string()))
    }

    /// Begins a write whose outcome is unknown until the doubt is lifted. A panic drops the doubt instead, which ends
    /// the store even if nobody waits for this write any more.
    pub(crate) const fn doubt(&self) -> Doubt<'_> {
        Doubt(self)
    }
}

/// A write that has begun and whose outcome is not known yet.
pub(crate) struct Doubt<'a>(&'a Health);

impl Doubt<'_> {
    /// Notes that the outcome is known. A failure among the outcomes ends the store by [`Health::fail`].
    pub(crate) fn lift(self) {
        std::mem::forget(self);
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        self.0.fail(&"a write panicked");
    }
}

//! How a child opens the store under test.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use futures::executor::block_on;
use syncline::{BoxError, JoinStorage, Storage};

use super::serve::JoinHooks;
use crate::JoinFixture;

/// A store on files, as the processes of one test open it. The macros make one for each test.
pub struct Opener<S> {
    /// The name of the test, as the test binary knows it.
    pub(super) test: String,
    pub(super) open: Box<OpenAt<S>>,
    pub(super) patience: Duration,
    pub(crate) without: Vec<String>,
    pub(super) join: Option<JoinHooks<S>>,
}

type OpenAt<S> = dyn Fn(&Path) -> Result<S, BoxError> + Send + Sync;

/// Longer than any write of the lists takes, also on a busy machine.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(60);

impl<S: Storage> Opener<S> {
    /// Makes the opener for a test.
    ///
    /// The test is named by its module path and its function: `concat!(module_path!(), "::my_test")`. The store may use
    /// the path as a file or as a directory; neither exists when it is first opened, and the directory above it is the
    /// store's alone.
    pub fn new<E: Into<BoxError>>(
        test: &str,
        open: impl Fn(&Path) -> Result<S, E> + Send + Sync + 'static,
    ) -> Self {
        let test = name_in_binary(test).to_owned();
        let open = Box::new(move |path: &Path| open(path).map_err(Into::into));
        Self { test, open, patience: PATIENCE_DEFAULT, without: Vec::new(), join: None }
    }

    /// Makes the opener for a test of a store that lends its native transaction: the fixture of a path opens it.
    pub fn joining<F: JoinFixture<Store = S>>(
        test: &str,
        fixture: impl Fn(&Path) -> F + Send + Sync + 'static,
    ) -> Self
    where
        S: JoinStorage,
    {
        let open = move |path: &Path| block_on(fixture(path).open());
        Self { join: Some(JoinHooks::of::<F>()), ..Self::new(test, open) }
    }

    /// Sets how long the test waits for one answer of a child before it says that the store hangs. Default 60 s. A second
    /// opener is given ten seconds at most.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Names the files that the store does without after a loss of power, by the ends of their names, such as `-shm`.
    /// [`power_tests!`](crate::power_tests) does not ask whether they were synced; it removes them and looks whether the
    /// store still has everything.
    #[must_use]
    pub fn without<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        Self { without: names.into_iter().map(Into::into).collect(), ..self }
    }
}

/// The test binary names its tests without the crate.
pub(super) fn name_in_binary(test: &str) -> &str {
    test.split_once("::").map_or(test, |(_, name)| name)
}

impl<S> fmt::Debug for Opener<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opener").field(&self.test).finish()
    }
}

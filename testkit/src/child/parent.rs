//! The parent: starts children for a test, and says what they found.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use syncline::Storage;
use tempfile::TempDir;

use super::process::{Child, Wrapper};
use super::serve::serve;
use super::{Opener, Script, Size};

/// Set in a child, to the name of its test.
pub(super) const CHILD: &str = "SYNCLINE_TEST_CHILD";
/// Set in a child with a story of its own, to the path that the story is about.
pub(super) const CHILD_PATH: &str = "SYNCLINE_TEST_CHILD_PATH";

/// The parent's side of one test.
pub(crate) struct Parent {
    test: String,
    patience: Duration,
    seed: u64,
    directory: TempDir,
}

/// Runs `story` in the parent. In a child this serves the parent instead, and ends the process.
///
/// # Panics
/// If the story fails, with the name of the property.
pub(crate) fn run<S: Storage>(
    property: &str,
    opener: &Opener<S>,
    story: impl FnOnce(&Parent) -> Result<(), String>,
) {
    if std::env::var_os(CHILD).is_some_and(|test| *test == *opener.test) {
        serve(opener);
    }
    let seed = crate::seed();
    let parent = Parent {
        test: opener.test.clone(),
        patience: opener.patience,
        seed,
        directory: tempfile::tempdir().expect("a test has a directory of its own"),
    };
    std::fs::create_dir(parent.place()).expect("the directory is empty");
    if let Err(what) = story(&parent) {
        panic!("{property}: {what} (seed {seed:#x})");
    }
}

impl Parent {
    /// Removes the store.
    pub(crate) fn begin_again(&self) -> Result<(), String> {
        let again = std::fs::remove_dir_all(self.place()).and_then(|()| std::fs::create_dir(self.place()));
        again.map_err(|error| format!("the directory of the test cannot be emptied: {error}"))
    }

    /// The directory that is the store's alone.
    pub(crate) fn place(&self) -> PathBuf {
        self.directory.path().join("place")
    }

    /// The path at which the store is opened.
    pub(crate) fn path(&self) -> PathBuf {
        self.place().join("store")
    }

    /// A directory for what is not the store's.
    pub(crate) fn aside(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn rng(&self) -> Rng {
        Rng::with_seed(self.seed)
    }

    pub(crate) const fn script(&self, size: Size) -> Script {
        Script::new(self.seed, size)
    }

    pub(crate) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Starts a child.
    pub(crate) fn child(&self, script: Script) -> Result<Child, String> {
        self.child_under(script, &Wrapper::default())
    }

    /// Starts a child inside of another program.
    pub(crate) fn child_under(&self, script: Script, wrapper: &Wrapper) -> Result<Child, String> {
        Child::start(&self.test, script, wrapper, self.patience)
    }

    /// Starts a child that has opened the store.
    pub(crate) fn opened(&self, script: Script) -> Result<Child, String> {
        let mut child = self.child(script)?;
        child.must_open(&self.path())?;
        Ok(child)
    }
}

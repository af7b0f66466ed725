//! The parts that the tests of stores in files share: a filled store, refusals, and a second process.

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;

use syncline::{Storage, WriteBatch};
use syncline_backends::OpenStoreError;

use super::{Model, put, states, write};

/// Four batches of forty keys each.
pub(crate) fn batches() -> Vec<WriteBatch> {
    (0_u8..4)
        .map(|n| {
            let mut batch = WriteBatch::new();
            for key in 0..40 {
                batch.put([key, n], vec![key; 100 + usize::from(key)]);
            }
            batch
        })
        .collect()
}

/// Writes [`batches`], closes the store, and returns what it holds.
pub(crate) fn fill(store: impl Storage) -> Model {
    for batch in batches() {
        write(&store, &batch).unwrap();
    }
    drop(store);
    states(&batches()).pop().unwrap()
}

pub(crate) const fn is_corrupt(error: &OpenStoreError) -> bool {
    matches!(error, OpenStoreError::Corrupt { .. })
}

/// Asserts that opening `path` was refused because another store holds it, and that the error names the path.
pub(crate) fn assert_already_open(opened: Result<impl Debug, OpenStoreError>, path: &Path) {
    let error = opened.unwrap_err();
    assert!(matches!(error, OpenStoreError::AlreadyOpen { .. }), "{error}");
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
}

/// Asserts that a file of these bytes is refused by `open` as `expected` says, and not changed by it.
pub(crate) fn assert_left_alone<S: Debug>(
    open: impl Fn(&Path) -> Result<S, OpenStoreError>,
    path: &Path,
    bytes: &[u8],
    expected: fn(&OpenStoreError) -> bool,
) {
    fs::write(path, bytes).unwrap();
    let error = open(path).expect_err("a file that is no store was opened");
    assert!(expected(&error), "{error}");
    assert!(fs::read(path).unwrap() == bytes, "the file was changed: {error}");
}

/// The environment variable that tells a test binary to be the other process, and the path of the store.
const OTHER_PROCESS: &str = "SYNCLINE_OTHER_PROCESS";
/// The exit code of the other process if the store was refused.
pub(crate) const REFUSED: i32 = 17;
/// The exit code of the other process if it wrote.
pub(crate) const WROTE: i32 = 18;

/// Runs the test of this name as another process, on the store at `path`. Returns the exit code.
pub(crate) fn other_process(test: &str, path: &Path) -> Option<i32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env(OTHER_PROCESS, path).output().unwrap().status.code()
}

/// Returns at once, unless this is the other process. The other process opens the store, writes, and ends without
/// closing the store. If the store is refused, it ends after `when_refused`.
pub(crate) fn be_the_other_process<S: Storage>(
    open: impl Fn(&Path) -> Result<S, OpenStoreError>,
    when_refused: impl FnOnce(&Path),
) {
    let Some(path) = std::env::var_os(OTHER_PROCESS) else { return };
    let path = Path::new(&path);
    match open(path) {
        Ok(store) => {
            write(&store, &put("other", "process")).unwrap();
            std::process::exit(WROTE)
        }
        Err(OpenStoreError::AlreadyOpen { .. }) => {
            when_refused(path);
            std::process::exit(REFUSED)
        }
        Err(error) => panic!("{error}"),
    }
}

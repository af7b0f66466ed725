//! Goal: what could not be read is never taken for deleted. Method: a tree that fails where a test says, and the run
//! of the program on a store in memory. Permissions would not do: some who run tests may read everything.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use futures::TryStreamExt;
use syncline::{DeviceId, GroupId, TransactionManager, Uuid};
use syncline_backends::{MemoryDisk, MemoryStorage};
use syncline_demo::kinds::Form;
use syncline_demo::progress::Progress;
use syncline_demo::run::{Counts, Job, run};
use syncline_demo::survey::Survey;
use syncline_demo::walk::{About, Tree, Walk};
use syncline_demo::{Entry, Result, Tag};

/// Files by their paths, and what reading some of them says.
#[derive(Clone, Default)]
struct Fake {
    files: BTreeSet<PathBuf>,
    names_fail: BTreeMap<PathBuf, ErrorKind>,
    look_fails: BTreeMap<PathBuf, ErrorKind>,
    panics_at: Option<PathBuf>,
}

const ROOT: &str = "/walked";
const DEVICE: DeviceId = DeviceId(Uuid::from_u128(1));

impl Fake {
    fn of(files: &[&str]) -> Self {
        Self { files: files.iter().map(|file| Path::new(ROOT).join(file)).collect(), ..Self::default() }
    }

    fn without(mut self, file: &str) -> Self {
        self.files.remove(&Path::new(ROOT).join(file));
        self
    }

    fn names_fail(mut self, path: &str, error: ErrorKind) -> Self {
        self.names_fail.insert(Path::new(ROOT).join(path), error);
        self
    }

    fn look_fails(mut self, path: &str, error: ErrorKind) -> Self {
        self.look_fails.insert(Path::new(ROOT).join(path), error);
        self
    }
}

impl Tree for Fake {
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        if let Some(error) = self.names_fail.get(directory) {
            return Err((*error).into());
        }
        let below = self.files.iter().filter_map(|file| file.strip_prefix(directory).ok());
        // As often as there are files below it, and in reverse: the walk must sort, and say each once.
        Ok(below.rev().filter_map(|rest| rest.iter().next()).map(Into::into).collect())
    }

    fn look(&self, path: &Path) -> io::Result<About> {
        assert_ne!(self.panics_at.as_deref(), Some(path), "as a test asked for");
        if let Some(error) = self.look_fails.get(path) {
            return Err((*error).into());
        }
        let form = if self.files.contains(path) { Form::File } else { Form::Directory };
        Ok(About { form, size: 0, modified_ms: None })
    }
}

/// Runs on the store of `disk`; the store must be whole afterwards.
fn go(disk: &MemoryDisk, tree: Fake) -> Result<Counts> {
    let dir = tempfile::tempdir()?;
    let (root, skip) = (Path::new(ROOT), Path::new("/nowhere"));
    let job = Job { tree, root, skip, device: DEVICE, group: GroupId(Uuid::from_u128(2)) };
    let open = || Ok::<_, Infallible>(MemoryStorage::open(disk));
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let mut progress = Progress::new("memory", 0);
    let outcome =
        catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(open, dir.path(), &job, &mut progress))));
    let outcome = outcome.map_err(|_| "the run broke off")??;
    assert_eq!(outcome.audit.unwrap(), []);
    outcome.counts
}

/// The paths in the store of `disk`.
fn stored(disk: &MemoryDisk) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    runtime.block_on(async {
        let builder = TransactionManager::builder(MemoryStorage::open(disk));
        let (library, driver) = builder.model::<Entry>().model::<Tag>().open().await.unwrap();
        tokio::spawn(driver.run());
        let entries: Vec<Entry> = library.list().into_stream().try_collect().await.unwrap();
        library.shutdown().await.unwrap();
        let path = |entry: Entry| String::from_utf8_lossy(entry.path.as_bytes()).replace('\0', "/");
        entries.into_iter().map(path).collect()
    })
}

const FILES: [&str; 6] = ["a", "dir/b", "dir/sub/c", "dir.d", "dirt/e", "z"];
const ENTRIES: [&str; 9] = ["a", "dir", "dir/b", "dir/sub", "dir/sub/c", "dir.d", "dirt", "dirt/e", "z"];

fn filled() -> MemoryDisk {
    let disk = MemoryDisk::default();
    go(&disk, Fake::of(&FILES)).unwrap();
    assert_eq!(stored(&disk), ENTRIES);
    disk
}

#[test]
fn an_unreadable_directory_keeps_what_is_known_of_it() {
    let disk = filled();
    let tree = Fake::of(&FILES).without("a").names_fail("dir", ErrorKind::PermissionDenied);
    let counts = go(&disk, tree).unwrap();
    assert_eq!((counts.added, counts.changed, counts.deleted, counts.kept), (0, 0, 1, 3));
    assert_eq!((counts.files, counts.directories), (5, 3));
    assert_eq!(stored(&disk), ENTRIES[1..]);
}

#[test]
fn an_unreadable_entry_keeps_what_is_known_of_it_and_below() {
    let disk = filled();
    let tree = Fake::of(&FILES)
        .without("dirt/e")
        .look_fails("dir", ErrorKind::PermissionDenied)
        .look_fails("z", ErrorKind::Other);
    let counts = go(&disk, tree).unwrap();
    assert_eq!((counts.deleted, counts.kept), (2, 5));
    assert_eq!(stored(&disk), ["a", "dir", "dir/b", "dir/sub", "dir/sub/c", "dir.d", "z"]);
}

#[test]
fn a_walked_directory_that_is_gone_in_the_middle_deletes_nothing() {
    for error in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
        let disk = filled();
        let counts = go(&disk, Fake::of(&[]).names_fail("", error)).unwrap();
        assert_eq!((counts.deleted, counts.kept), (0, 9));
        assert_eq!(stored(&disk), ENTRIES);
    }
}

#[test]
fn what_vanishes_during_the_walk_is_deleted() {
    let disk = filled();
    let tree = Fake::of(&FILES)
        .look_fails("a", ErrorKind::NotFound)
        .names_fail("dir", ErrorKind::NotFound)
        .names_fail("dirt", ErrorKind::NotADirectory);
    assert_eq!(go(&disk, tree).unwrap().deleted, 7);
    assert_eq!(stored(&disk), ["dir.d", "z"]);
}

#[test]
fn a_walk_that_breaks_off_deletes_nothing_behind_it() {
    let disk = filled();
    let tree = Fake { panics_at: Some(Path::new(ROOT).join("dir")), ..Fake::of(&FILES).without("z") };
    assert!(go(&disk, tree).is_err());
    assert_eq!(stored(&disk), ENTRIES);
}

#[test]
fn a_run_that_broke_off_is_continued() {
    let disk = MemoryDisk::default();
    let names: Vec<_> = (0..2_500).map(|n| format!("file-{n:04}")).collect();
    let tree = Fake::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let breaks_off = Fake { panics_at: Some(Path::new(ROOT).join("file-2400")), ..tree.clone() };
    assert!(go(&disk, breaks_off).is_err());
    // Two full commits, one change in them the tag of the kind.
    assert_eq!(stored(&disk).len(), 1_999);
    let rest = go(&disk, tree).unwrap();
    assert_eq!((rest.added, rest.changed, rest.deleted, rest.commits), (501, 0, 0, 1));
    assert_eq!(stored(&disk), names);
}

#[test]
fn an_unreadable_walked_directory_is_an_error_before_anything_is_done() {
    let walk = |tree| Walk::new(tree, Path::new(ROOT), Path::new("/nowhere"), DEVICE);
    let error = Survey::of(walk(Fake::of(&FILES).names_fail("", ErrorKind::PermissionDenied))).unwrap_err();
    assert!(error.to_string().contains("allow reading it"), "{error}");
    let survey = Survey::of(walk(Fake::of(&FILES).names_fail("dir", ErrorKind::PermissionDenied))).unwrap();
    assert_eq!((survey.files, survey.directories, survey.unreadable), (4, 2, 1));
    assert_eq!(survey.examples.len(), 1);
}

#[test]
fn a_path_beyond_the_limit_is_skipped() {
    let disk = MemoryDisk::default();
    let long = ["n".repeat(1500), "n".repeat(1500), "n".repeat(1500)].join("/");
    let counts = go(&disk, Fake::of(&["a", &long, "z"])).unwrap();
    assert_eq!((counts.files, counts.directories), (2, 2));
}

//! Goal: the program does what it says, on real files. Method: it is run as a person runs it, and what it printed and
//! what lies in the store afterwards are compared with the files, by a walk of the test's own.

// Elsewhere the time of a directory cannot be set.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use futures::TryStreamExt;
use futures::executor::block_on;
use syncline::{Storage, TransactionManager, WriteBatch};
use syncline_backends::RedbStorage;
use syncline_demo::stores::Store;
use syncline_demo::{Entry, PathId, Tag};
use tempfile::TempDir;

/// A directory to walk and one for the stores.
struct World(TempDir);

/// What a run left.
struct Run {
    code: Option<i32>,
    out: String,
    error: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("walked")).unwrap();
        Self(dir)
    }

    fn walked(&self) -> PathBuf {
        self.0.path().join("walked")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.walked().join(name.as_ref())
    }

    /// Writes a file that was modified at second `at`, and says the same of its directories, so that no test
    /// depends on when it runs.
    fn write(&self, name: impl AsRef<OsStr>, content: &str, at: u64) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.settle(&path, at);
    }

    fn settle(&self, path: &Path, at: u64) {
        for path in path.ancestors().take_while(|path| path.starts_with(self.walked())) {
            if path.exists() {
                File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(at)).unwrap();
            }
        }
    }

    fn run(&self) -> Run {
        run(&[self.walked().as_os_str(), OsStr::new("--data"), self.data().as_os_str()])
    }

    fn store(&self) -> RedbStorage {
        let stores: Vec<_> = fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let path = stores.iter().find(|path| path.is_dir()).unwrap();
        RedbStorage::open(path.join("redb/store.redb")).unwrap()
    }

    fn stored(&self) -> (BTreeMap<PathId, Entry>, Vec<Tag>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        runtime.block_on(async {
            let builder = TransactionManager::builder(self.store());
            let (library, driver) = builder.model::<Entry>().model::<Tag>().open().await.unwrap();
            let driver = tokio::spawn(driver.run());
            let entries: Vec<Entry> = library.list().into_stream().try_collect().await.unwrap();
            let tags = library.list().into_stream().try_collect().await.unwrap();
            library.shutdown().await.unwrap();
            driver.await.unwrap().unwrap();
            (entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect(), tags)
        })
    }

    /// Claims that the redb store holds what is on disk and nothing else, and a tag for each kind.
    fn assert_mirrored(&self) {
        let (entries, tags) = self.stored();
        let mut expected = BTreeMap::new();
        list(&self.walked(), &PathId::ROOT, &mut expected);
        let found: BTreeMap<_, _> =
            entries.iter().map(|(path, entry)| (path.clone(), (entry.size, entry.modified_ms))).collect();
        assert_eq!(found, expected);
        for entry in entries.values() {
            assert!(tags.iter().any(|tag| tag.id == entry.kind), "no tag for {entry:?}");
            assert!(entry.parent.as_ref().is_none_or(|parent| entries[parent].kind == "directory"));
            assert!(entry.path.is_within(entry.parent.as_ref().unwrap_or(&PathId::ROOT)));
        }
    }
}

/// What lies in `directory`, in no order.
fn list(directory: &Path, id: &PathId, found: &mut BTreeMap<PathId, (u64, Option<i64>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (metadata, id) = (entry.metadata().unwrap(), id.child(&entry.file_name()));
        let modified = metadata.modified().unwrap().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let size = if metadata.is_dir() { 0 } else { metadata.len() };
        found.insert(id.clone(), (size, Some(i64::try_from(modified).unwrap())));
        if metadata.is_dir() {
            list(&entry.path(), &id, found);
        }
    }
}

fn run(arguments: &[&OsStr]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_syncline-demo")).args(arguments).output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Run {
    /// Claims that all went well and that every store was changed like this.
    #[track_caller]
    fn assert_did(&self, what: &str) {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.error);
        for store in Store::ALL {
            assert!(self.out.contains(&format!("{}: {what}", store.name())), "{}", self.out);
        }
    }
}

#[test]
fn a_second_run_finds_nothing_to_commit() {
    let world = World::new();
    world.write("holiday/beach.jpg", "sand", 100);
    world.write("holiday/notes.txt", "sun", 100);
    world.write("main.rs", "fn main() {}", 100);
    // Four entries, four kinds.
    world.run().assert_did("8 added, 0 changed, 0 deleted");
    world.assert_mirrored();
    world.run().assert_did("0 added, 0 changed, 0 deleted, 0 kept unseen; commits: 0");
    world.assert_mirrored();
}

#[test]
fn a_run_commits_what_changed_and_nothing_else() {
    let world = World::new();
    for name in ["same.txt", "longer.txt", "newer.txt", "gone.txt", "dir/deep/er/file.txt", "dir/stays.txt"] {
        world.write(name, "text", 100);
    }
    world.run().assert_did("11 added, 0 changed, 0 deleted");

    world.write("longer.txt", "longer text", 100);
    world.write("newer.txt", "TEXT", 101);
    world.write("new.txt", "text", 100);
    fs::remove_file(world.path("gone.txt")).unwrap();
    fs::remove_dir_all(world.path("dir/deep")).unwrap();
    world.settle(&world.path("dir"), 100);
    world.run().assert_did("1 added, 2 changed, 4 deleted");
    world.assert_mirrored();
    world.run().assert_did("0 added, 0 changed, 0 deleted");
}

#[test]
fn a_directory_may_become_a_file_and_a_file_a_directory() {
    let world = World::new();
    world.write("a/b/c", "", 100);
    world.write("x", "", 100);
    world.run().assert_did("6 added, 0 changed, 0 deleted");

    fs::remove_dir_all(world.path("a")).unwrap();
    world.write("a", "", 100);
    fs::remove_file(world.path("x")).unwrap();
    world.write("x/y/z", "", 100);
    world.run().assert_did("2 added, 2 changed, 2 deleted");
    world.assert_mirrored();
}

#[test]
fn names_that_sort_around_a_separator_stay_apart() {
    let world = World::new();
    for name in ["a/b", "a b/b", "a.b", "a-", "a0", "A/b", "é", "a/b.c"] {
        world.write(name, "", 100);
    }
    // Eleven entries, three kinds.
    world.run().assert_did("14 added, 0 changed, 0 deleted");
    world.assert_mirrored();
    fs::remove_dir_all(world.path("a")).unwrap();
    world.settle(&world.path("a.b"), 100);
    world.run().assert_did("0 added, 0 changed, 3 deleted");
    world.assert_mirrored();
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_utf_8_are_kept_apart_by_their_bytes() {
    use std::os::unix::ffi::OsStringExt;
    let world = World::new();
    let [a, b] = [b"beach-\xff.jpg", b"beach-\xfe.jpg"].map(|bytes| OsString::from_vec(bytes.to_vec()));
    world.write(&a, "", 100);
    world.write(&b, "", 100);
    world.run().assert_did("3 added, 0 changed, 0 deleted");
    world.assert_mirrored();
    let (entries, _) = world.stored();
    assert!(entries.values().all(|entry| entry.name == "beach-\u{fffd}.jpg" && entry.kind == "image"));
    fs::remove_file(world.path(&a)).unwrap();
    world.run().assert_did("0 added, 0 changed, 1 deleted");
    world.assert_mirrored();
}

#[test]
fn links_are_kept_and_not_followed() {
    let world = World::new();
    world.write("dir/file", "", 100);
    std::os::unix::fs::symlink(world.walked(), world.path("dir/back")).unwrap();
    std::os::unix::fs::symlink("/nowhere", world.path("broken")).unwrap();
    let all_new = world.run();
    // Four entries, three kinds.
    all_new.assert_did("7 added, 0 changed, 0 deleted");
    world.assert_mirrored();
}

#[test]
fn an_old_file_has_a_time_before_1970() {
    let world = World::new();
    let file = File::create(world.path("old")).unwrap();
    file.set_modified(UNIX_EPOCH - Duration::from_millis(1500)).unwrap();
    world.run().assert_did("2 added, 0 changed, 0 deleted");
    assert!(world.stored().0.values().all(|entry| entry.modified_ms == Some(-1500)));
}

#[test]
fn more_than_a_batch_is_committed_in_several() {
    let world = World::new();
    for n in 0..2_100 {
        File::create(world.path(format!("file-{n:04}"))).unwrap();
    }
    world.run().assert_did("2,101 added, 0 changed, 0 deleted, 0 kept unseen; commits: 3");
    fs::remove_dir_all(world.walked()).unwrap();
    fs::create_dir(world.walked()).unwrap();
    world.run().assert_did("0 added, 0 changed, 2,100 deleted, 0 kept unseen; commits: 3");
    world.assert_mirrored();
}

#[test]
fn the_table_has_a_row_for_each_store_and_no_control_characters() {
    let world = World::new();
    world.write("file", "", 100);
    let Run { out, error, .. } = world.run();
    let head: Vec<_> = out.lines().find(|line| line.starts_with("| store")).unwrap().split('|').collect();
    let head: Vec<_> = head.into_iter().map(str::trim).filter(|cell| !cell.is_empty()).collect();
    let columns = ["store", "files", "commits", "changes/s", "bytes on disk", "bytes per record", "audit"];
    assert_eq!(head, columns);
    for store in Store::ALL {
        let begin = format!("| {} ", store.name());
        let row: Vec<_> = out.lines().find(|line| line.starts_with(&begin)).unwrap().split('|').collect();
        assert_eq!([row[2].trim(), row[3].trim(), row[7].trim()], ["1", "1", "ok"]);
    }
    assert!(out.contains(&*world.data().canonicalize().unwrap().to_string_lossy()), "it says where: {out}");
    let control = |text: &str| text.chars().any(|letter| letter.is_control() && letter != '\n');
    assert!(!control(&out) && !control(&error), "{out}{error}");
}

#[test]
fn each_walked_directory_has_its_own_stores() {
    let world = World::new();
    world.write("file", "", 100);
    world.write("sub/file", "", 100);
    let data = world.data();
    let below = |dir: &Path| run(&[dir.as_os_str(), OsStr::new("--data"), data.as_os_str()]);
    below(&world.walked()).assert_did("5 added, 0 changed, 0 deleted");
    below(&world.path("sub")).assert_did("2 added, 0 changed, 0 deleted");
    below(&world.walked()).assert_did("0 added, 0 changed, 0 deleted");
    // Another way to say the same directory.
    below(&world.path("sub/..")).assert_did("0 added, 0 changed, 0 deleted");
}

#[test]
fn the_stores_are_not_walked() {
    let world = World::new();
    world.write("file", "", 100);
    let data = world.path("data");
    let inside = || run(&[world.walked().as_os_str(), OsStr::new("--data"), data.as_os_str()]);
    inside().assert_did("2 added, 0 changed, 0 deleted");
    inside().assert_did("0 added, 0 changed, 0 deleted");
    let only_stores = run(&[data.as_os_str(), OsStr::new("--data"), data.as_os_str()]);
    assert_eq!(only_stores.code, Some(2));
    assert!(only_stores.error.contains("name another with --data"), "{}", only_stores.error);
}

#[test]
fn a_directory_that_is_not_there_is_reported_and_nothing_is_created() {
    let world = World::new();
    world.write("file", "", 100);
    for (name, words) in [("missing", "name a directory that is there"), ("file", "not a directory")] {
        let path = world.path(name);
        let failed = run(&[path.as_os_str(), OsStr::new("--data"), world.data().as_os_str()]);
        assert_eq!(failed.code, Some(2));
        assert!(failed.error.contains(words) && failed.error.contains(name), "{}", failed.error);
    }
    assert!(!world.data().exists());
}

#[test]
fn a_violation_is_shown_and_makes_the_exit_code_1() {
    let world = World::new();
    world.write("file", "", 100);
    world.run().assert_did("2 added, 0 changed, 0 deleted");
    let mut nonsense = WriteBatch::default();
    nonsense.put([0xff, 0xff], [0]);
    block_on(world.store().write(nonsense)).unwrap();
    let damaged = world.run();
    assert_eq!(damaged.code, Some(1), "{}{}", damaged.out, damaged.error);
    assert!(damaged.out.contains("redb: Format: ") && damaged.out.contains("1 VIOLATION"), "{}", damaged.out);
}

#[test]
fn a_store_that_cannot_be_opened_makes_the_exit_code_2() {
    let world = World::new();
    world.write("file", "", 100);
    world.run().assert_did("2 added, 0 changed, 0 deleted");
    let held = world.store();
    let failed = world.run();
    assert_eq!(failed.code, Some(2), "{}{}", failed.out, failed.error);
    assert!(failed.out.contains("already open") && failed.out.contains("NOT OPENED"), "{}", failed.out);
    drop(held);
    world.run().assert_did("0 added, 0 changed, 0 deleted");
}

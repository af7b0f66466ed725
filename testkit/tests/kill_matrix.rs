//! Goal: the lists find the flaws that they are for. Method: every broken store must fail the property that names its
//! flaw, every property must fail for some broken store, and the correct store must pass them all.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of a test, not themselves marked as one"
)]

#[path = "kill_matrix/lsm.rs"]
mod lsm;
#[path = "kill_matrix/over.rs"]
mod over;

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once};
use std::thread;

use async_trait::async_trait;
use lsm::LsmDisk;
use over::{LAYERS, Over};
use syncline::{BoxError, Storage};
use syncline_backends::{RedbStorage, SqliteStorage};
use syncline_testkit::storage::Property;
use syncline_testkit::{
    BrokenDisk, BrokenJoinsDisk, Disk, FileStore, Fixture, Flaw, JoinFlaw, be_patient_for, join, storage,
    storage_tests,
};
use tempfile::TempDir;

/// The threads of these tests. Panics on other threads are expected, since their stores are broken.
const MATRICES: [&str; 4] = [
    "every_broken_store_is_caught",
    "every_broken_join_is_caught",
    "every_layer_over_a_tree_is_caught",
    "every_layer_over_files_is_caught",
];

storage_tests!(tree, LsmDisk::default);

#[test]
fn every_broken_store_is_caught() {
    only_news_is_printed();
    let matrix = Matrix {
        properties: storage::properties(),
        flaws: Flaw::ALL,
        named_by: Flaw::named_by,
        disk: BrokenDisk::new,
    };
    matrix.check(&storage::properties());
}

#[test]
fn every_broken_join_is_caught() {
    only_news_is_printed();
    let matrix = Matrix {
        properties: join::properties(),
        flaws: JoinFlaw::ALL,
        named_by: JoinFlaw::named_by,
        disk: BrokenJoinsDisk::new,
    };
    matrix.check(&join::properties());
}

/// The flaws that are layers over a store are caught over any: here over one like a log-structured merge tree.
#[test]
fn every_layer_over_a_tree_is_caught() {
    only_news_is_printed();
    layers_are_caught(LsmDisk::default);
}

/// The same over stores on files. `.ci/nightly matrix` runs it.
#[test]
#[ignore = "takes minutes; .ci/nightly matrix runs it"]
fn every_layer_over_files_is_caught() {
    only_news_is_printed();
    layers_are_caught(|| Files::new(|path| FileStore::open(path)));
    layers_are_caught(|| Files::new(|path| Ok(RedbStorage::open(path)?)));
    layers_are_caught(|| Files::new(|path| Ok(SqliteStorage::open(path)?)));
}

fn layers_are_caught<F: Fixture>(place: fn() -> F) {
    let survivors: Vec<_> = LAYERS
        .iter()
        .filter(|(flaw, change)| {
            let properties = storage::properties();
            let property = properties.iter().find(|property| property.name == flaw.named_by());
            !fails(property.unwrap(), &|| Over { place: place(), change: *change })
        })
        .map(|(flaw, _)| format!("{flaw} passes {}", flaw.named_by()))
        .collect();
    assert!(survivors.is_empty(), "{}: {survivors:#?}", std::any::type_name::<F::Store>());
}

/// A place for a store on files.
struct Files<S> {
    directory: TempDir,
    open: fn(&Path) -> Result<S, BoxError>,
}

impl<S> Files<S> {
    fn new(open: fn(&Path) -> Result<S, BoxError>) -> Self {
        Self { directory: TempDir::new().unwrap(), open }
    }
}

#[async_trait]
impl<S: Storage> Fixture for Files<S> {
    type Store = S;

    async fn open(&self) -> Result<S, BoxError> {
        (self.open)(&self.directory.path().join("store"))
    }
}

/// Set, it lets every flaw meet every property; otherwise it meets the one that names it.
const ALL: &str = "SYNCLINE_WHOLE_MATRIX";

/// The page lists what the matrices above prove, since each of them fails if one flaw passes the property that names it.
#[test]
fn the_page_lists_every_flaw() {
    const UPDATE: &str = "SYNCLINE_UPDATE_DOCS";
    let mut page = format!(
        "# What the lists kill\n\nThe kit holds {} stores with one flaw each. Each flaw stands below the property that must fail for it. \
         The test `kill_matrix` runs them, and makes this page: `{UPDATE}=1 cargo test -p syncline-testkit --test kill_matrix`. With \
         `{ALL}=1` every flaw meets every property, and the test prints which of them catch it.\n",
        Flaw::ALL.len() + JoinFlaw::ALL.len()
    );
    let storage: Vec<_> = storage::properties::<Disk>().iter().map(|property| property.name).collect();
    let join: Vec<_> = join::properties::<Disk>().iter().map(|property| property.name).collect();
    section(&mut page, "`storage_tests!`", &storage, Flaw::ALL, Flaw::named_by, Flaw::what);
    section(&mut page, "`join_tests!`", &join, JoinFlaw::ALL, JoinFlaw::named_by, JoinFlaw::what);

    of_other_stores(&mut page);

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/kill-matrix.md");
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(there == page, "docs/kill-matrix.md is not what the flaws make: {UPDATE}=1 makes it anew");
}

/// The stores over which the layers are caught, since the tests of them fail if one is not.
fn of_other_stores(page: &mut String) {
    write!(
        page,
        "\n## Over other stores\n\nThe stores above are one in memory, a sorted map, with a flaw. {} of the flaws can be told as a layer over any \
         store, and are found over these too: a log-structured merge tree in memory (`cargo test -p syncline-testkit --test kill_matrix`), \
         and `FileStore`, redb and SQLite on files (`.ci/nightly matrix`). The others need the inside of the store, or its medium.\n\n\
         | flaw | found by | map | tree | `FileStore` | redb | SQLite |\n|---|---|---|---|---|---|---|\n",
        LAYERS.len()
    )
    .unwrap();
    for (flaw, _) in LAYERS {
        writeln!(page, "| {flaw} | `{}` | x | x | x | x | x |", flaw.named_by()).unwrap();
    }
}

/// One list of the page: its properties, each with its flaws.
fn section<W: Copy + Display>(
    page: &mut String,
    list: &str,
    properties: &[&str],
    flaws: &[W],
    named_by: fn(W) -> &'static str,
    what: fn(W) -> String,
) {
    write!(page, "\n## {list}\n").unwrap();
    for property in properties {
        write!(page, "\n### `{property}`\n\n").unwrap();
        for flaw in flaws.iter().filter(|flaw| named_by(**flaw) == *property) {
            writeln!(page, "- {flaw}: {}", what(*flaw)).unwrap();
        }
    }
}

/// A list, and the flaws that it must find.
struct Matrix<F, W: 'static> {
    properties: Vec<Property<F>>,
    flaws: &'static [W],
    named_by: fn(W) -> &'static str,
    disk: fn(W) -> F,
}

impl<F: Fixture, W: Copy + Display + Sync> Matrix<F, W> {
    /// Checks that each flaw is found by the property that names it, that each property names a flaw, and that the
    /// correct store has none.
    fn check(&self, of_correct: &[Property<Disk>]) {
        for disk in [Disk::new, Disk::fencing] {
            for property in of_correct {
                assert!(!fails(property, &disk), "the correct store fails {}", property.name);
            }
        }
        let killed_by = self.run_all();
        self.print(&killed_by);

        let mut survivors = Vec::new();
        for (flaw, killers) in self.flaws.iter().zip(&killed_by) {
            let name = (self.named_by)(*flaw);
            assert!(
                self.properties.iter().any(|property| property.name == name),
                "{flaw} is named by no property of the list"
            );
            if !killers.contains(name) {
                survivors.push(format!("{flaw} passes {name}"));
            }
        }
        assert!(survivors.is_empty(), "{survivors:#?}");
        for property in &self.properties {
            assert!(
                self.flaws.iter().any(|flaw| (self.named_by)(*flaw) == property.name),
                "{} names no flaw: nothing shows that it can fail",
                property.name
            );
        }
    }

    /// Returns for each flaw the properties that it fails, of those that are checked.
    fn run_all(&self) -> Vec<BTreeSet<&'static str>> {
        let killed_by: Vec<_> = self.flaws.iter().map(|_| Mutex::new(BTreeSet::new())).collect();
        let next = AtomicUsize::new(0);
        let all = std::env::var_os(ALL).is_some();
        let workers = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let cell = next.fetch_add(1, Ordering::Relaxed);
                        let Some(flaw) = self.flaws.get(cell / self.properties.len()) else { break };
                        let property = &self.properties[cell % self.properties.len()];
                        if !all && property.name != (self.named_by)(*flaw) {
                            continue;
                        }
                        if fails(property, &|| (self.disk)(*flaw)) {
                            killed_by[cell / self.properties.len()].lock().unwrap().insert(property.name);
                        }
                    }
                });
            }
        });
        killed_by.into_iter().map(|killers| killers.into_inner().unwrap()).collect()
    }

    /// Prints a line for each flaw and a column for each property: `X` where the property that names the flaw has
    /// caught it, `x` where another has.
    fn print(&self, killed_by: &[BTreeSet<&'static str>]) {
        for (column, property) in self.properties.iter().enumerate() {
            println!("{:26}{}{}", "", "| ".repeat(column), property.name);
        }
        for (flaw, killers) in self.flaws.iter().zip(killed_by) {
            let cells: String = self
                .properties
                .iter()
                .map(|property| match killers.contains(property.name) {
                    true if property.name == (self.named_by)(*flaw) => "X ",
                    true => "x ",
                    false => ". ",
                })
                .collect();
            println!("{:26}{cells}", flaw.to_string());
        }
    }
}

fn fails<F: Fixture>(property: &Property<F>, fresh: &dyn Fn() -> F) -> bool {
    catch_unwind(AssertUnwindSafe(|| property.check(fresh))).is_err()
}

fn only_news_is_printed() {
    // Some of the stores wait for ever, and none of them has to wait for long.
    be_patient_for(2);
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if thread::current().name().is_some_and(|name| MATRICES.contains(&name)) {
                print(panic);
            }
        }));
    });
}

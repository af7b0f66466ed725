//! Goal: kill -9 at any moment loses no acknowledged commit of a whole replica, on a real file. Method: a child process
//! commits and tells every acknowledgement; the parent kills it after a number of them that is drawn from a printed seed,
//! opens the store, audits it and looks for every commit that was told; then the next child goes on from there.
//!
//! The stores themselves are in `processes.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    reason = "a test fails by panicking"
)]
#![cfg(any(feature = "redb", feature = "sled", feature = "sqlite"))]

use std::path::Path;

use futures::executor::block_on;
use futures::future::{join, join_all};
use serde::{Deserialize, Serialize};
use syncline::{DeviceId, GroupId, Storage, Syncable, TransactionManager, Uuid, audit};
use syncline_backends::OpenStoreError;
use syncline_testkit::child;

const CYCLES: u64 = 25;
const CALLERS: u32 = 4;

/// The count that a caller has reached.
#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "counter")]
struct Counter {
    #[sync(id)]
    id: u32,
    count: u64,
}

/// Opens one of the stores at a path.
type Open = fn(&Path) -> Result<Box<dyn Storage>, OpenStoreError>;

/// One test for each store.
macro_rules! stores {
    ($($feature:literal $store:ident: $storage:ident;)*) => {$(
        #[cfg(feature = $feature)]
        mod $store {
            use super::*;

            #[test]
            fn kill_9_loses_nothing_acknowledged() {
                let open: Open = |path| Ok(Box::new(syncline_backends::$storage::open(path)?));
                let test = concat!(module_path!(), "::kill_9_loses_nothing_acknowledged");
                child::play(test, |path| block_on(commit_for_ever(path, open)));
                kill_again_and_again(test, |path, told| block_on(check(path, open, told)));
            }
        }
    )*};
}

stores! {
    "redb" redb: RedbStorage;
    "sled" sled: SledStorage;
    "sqlite" sqlite: SqliteStorage;
}

async fn open(
    path: &Path,
    store: Open,
) -> (TransactionManager<Box<dyn Storage>>, syncline::Driver<Box<dyn Storage>>) {
    TransactionManager::builder(store(path).unwrap())
        .device(DeviceId(Uuid::from_u128(1)))
        .found(GroupId(Uuid::from_u128(2)))
        .model::<Counter>()
        .open()
        .await
        .unwrap()
}

/// Counts in pairs of records, each pair in one batch, and prints each acknowledged count.
async fn commit_for_ever(path: &Path, store: Open) {
    let (library, driver) = open(path, store).await;
    let caller = async |caller: u32| {
        let mut count = counts(&library, caller).await[0];
        loop {
            count += 1;
            let pair = [Counter { id: caller, count }, Counter { id: caller + CALLERS, count }];
            library.commit_batch(|batch| Ok(pair.iter().try_for_each(|c| batch.put(c))?)).await.unwrap();
            tell(caller, count);
        }
    };
    let callers = join_all((0..CALLERS).map(caller));
    let _ = join(driver.run(), callers).await;
}

/// Tells the parent of an acknowledged count.
fn tell(caller: u32, count: u64) {
    child::tell(&format!("{caller} {count}"));
}

/// The two records that a caller keeps equal.
async fn counts<S: Storage>(library: &TransactionManager<S>, caller: u32) -> [u64; 2] {
    let pair = library.get_many::<Counter>(&[caller, caller + CALLERS]).await.unwrap();
    [0, 1].map(|at| pair[at].as_ref().map_or(0, |counter| counter.count))
}

/// `check` checks that the acknowledged counts are in the store, and returns the counts that are.
fn kill_again_and_again(test: &str, check: impl Fn(&Path, &[u64]) -> Result<Vec<u64>, String>) {
    let seed = syncline_testkit::seed();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut acknowledged = vec![0; CALLERS as usize];
    for cycle in 0..CYCLES {
        // Between 0 and 63: from before the first commit to well after it.
        let kill_after = seed.wrapping_add(cycle).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
        let lines = child::kill_after(test, &path, usize::try_from(kill_after).unwrap());
        for line in lines.unwrap_or_else(|what| panic!("cycle {cycle}, seed {seed:#x}: {what}")) {
            let (caller, count) = line.split_once(' ').expect("a line has two numbers");
            acknowledged[caller.parse::<usize>().unwrap()] = count.parse().unwrap();
        }
        // The next child goes on from the counts in the store, told or not.
        acknowledged = check(&path, &acknowledged)
            .unwrap_or_else(|what| panic!("cycle {cycle}, seed {seed:#x}: {what}"));
    }
    assert!(acknowledged.iter().sum::<u64>() >= CYCLES, "the children hardly committed anything");
}

/// Checks that the acknowledged counts are in the store, and returns the counts that are.
async fn check(path: &Path, store: Open, acknowledged: &[u64]) -> Result<Vec<u64>, String> {
    let violations = audit(&store(path).map_err(|error| error.to_string())?).await;
    if !violations.is_empty() {
        return Err(format!("the store is not whole: {violations:?}"));
    }
    let (library, driver) = open(path, store).await;
    let look = async {
        let library = library;
        let mut found = Vec::new();
        for (caller, told) in (0..).zip(acknowledged) {
            let [one, other] = counts(&library, caller).await;
            if one != other {
                return Err(format!("caller {caller}: half of a batch is there, {one} and {other}"));
            }
            expect(caller, *told, one)?;
            found.push(one);
        }
        Ok(found)
    };
    join(driver.run(), look).await.1
}

fn expect(caller: u32, told: u64, found: u64) -> Result<(), String> {
    // The child may have been killed between a commit and its line.
    if found == told || found == told + 1 {
        return Ok(());
    }
    Err(format!("caller {caller} was told {told} and finds {found}"))
}

/// The same story with joined writes: each commit also writes a row of the app's own, and a projection writes another.
#[cfg(any(feature = "redb", feature = "sqlite"))]
mod joined {
    use std::sync::mpsc;

    use syncline::{BoxError, Driver, JoinStorage, JoinTx, Native, Projection, ProjectionState};

    use super::*;

    /// A store with tables of the app's own.
    pub(crate) trait Tables: JoinStorage {
        fn open(path: &Path) -> Self;
        fn create(tx: &Native<'_, Self>, table: &str) -> Result<(), BoxError>;
        fn put(tx: &Native<'_, Self>, table: &str, id: u32, count: u64) -> Result<(), BoxError>;
        fn count(tx: &Native<'_, Self>, table: &str, id: u32) -> Result<u64, BoxError>;
        /// Removes all rows of the table.
        fn clear(tx: &Native<'_, Self>, table: &str) -> Result<(), BoxError>;
    }

    const WRITTEN: &str = "written";
    const PROJECTED: &str = "projected";

    struct Projected;

    impl<S: Tables> Projection<S> for Projected {
        type Model = Counter;
        const NAME: &'static str = PROJECTED;
        const VERSION: u32 = 1;

        fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError> {
            S::create(tx, PROJECTED)
        }

        fn put(&self, tx: &Native<'_, S>, counter: &Counter) -> Result<(), BoxError> {
            S::put(tx, PROJECTED, counter.id, counter.count)
        }

        fn delete(&self, _: &Native<'_, S>, _: &u32) -> Result<(), BoxError> {
            unreachable!("nothing is deleted")
        }
    }

    /// The tests of one store.
    macro_rules! stories {
        ($storage:ty) => {
            #[test]
            fn kill_9_keeps_the_apps_row_the_record_and_the_projection_in_step() {
                let test = concat!(
                    module_path!(),
                    "::kill_9_keeps_the_apps_row_the_record_and_the_projection_in_step"
                );
                child::play(test, |path| block_on(commit_for_ever::<$storage>(path)));
                kill_again_and_again(test, |path, told| block_on(check::<$storage>(path, told)));
            }

            #[test]
            fn kill_9_keeps_a_projection_in_step_with_its_debts() {
                let test = concat!(module_path!(), "::kill_9_keeps_a_projection_in_step_with_its_debts");
                child::play(test, |path| block_on(owing::commit_for_ever::<$storage>(path)));
                kill_again_and_again(test, |path, told| block_on(owing::check::<$storage>(path, told)));
            }
        };
    }

    /// A projection that cannot take some counts: it owes these records, and its table has all others. Each child
    /// makes its table anew, so that it is killed while that is filled, or while it owes.
    mod owing {
        use super::*;

        /// Records beside those of the callers, so that filling takes a while. Their counts stay.
        const OTHERS: u32 = 2_000;
        const FIRST_OTHER: u32 = 1_000;
        /// How often a check looks whether the projection has got where it must: minutes, before it is called a failure.
        const POLLS_MAX: u64 = 10_000_000;

        struct Owing<const VERSION: u32>;

        /// Whether the projection takes a record with this count. A page of the fill has few that it does not take: where a
        /// call cannot be undone alone, many would make a debt of every record of the page, each of which is paid alone.
        const fn takes(count: u64) -> bool {
            !count.is_multiple_of(37)
        }

        impl<const VERSION: u32, S: Tables> Projection<S> for Owing<VERSION> {
            type Model = Counter;
            const NAME: &'static str = "owing";
            const VERSION: u32 = VERSION;

            fn reset(&self, tx: &Native<'_, S>) -> Result<(), BoxError> {
                S::create(tx, table(VERSION))?;
                S::clear(tx, table(VERSION))
            }

            fn put(&self, tx: &Native<'_, S>, counter: &Counter) -> Result<(), BoxError> {
                S::put(tx, table(VERSION), counter.id, counter.count)?;
                if takes(counter.count) { Ok(()) } else { Err("the count is too much".into()) }
            }

            fn delete(&self, _: &Native<'_, S>, _: &u32) -> Result<(), BoxError> {
                unreachable!("nothing is deleted")
            }
        }

        const fn table(version: u32) -> &'static str {
            if version == 1 { "owing_1" } else { "owing_2" }
        }

        /// The version of the last child.
        fn version(path: &Path) -> u32 {
            if path.with_extension("second").exists() { 2 } else { 1 }
        }

        async fn open<S: Tables>(path: &Path) -> (TransactionManager<S>, Driver<S>) {
            let builder = TransactionManager::builder(S::open(path))
                .device(DeviceId(Uuid::from_u128(1)))
                .found(GroupId(Uuid::from_u128(2)));
            let builder = match version(path) {
                1 => builder.project(Owing::<1>),
                _ => builder.project(Owing::<2>),
            };
            builder.open().await.unwrap()
        }

        /// Counts, and prints each acknowledged count. Once the table is filled, a count that it does not take is refused.
        pub(super) async fn commit_for_ever<S: Tables>(path: &Path) {
            if !path.with_extension("second").exists() {
                fill::<S>(path).await;
            }
            let second = path.with_extension("second");
            match version(path) {
                1 => std::fs::write(&second, "").unwrap(),
                _ => std::fs::remove_file(&second).unwrap(),
            }
            let (library, driver) = open::<S>(path).await;
            let caller = async |caller: u32| {
                let mut count = library.get::<Counter>(caller).await.unwrap().map_or(0, |one| one.count);
                loop {
                    count += 1;
                    match library.commit(Counter { id: caller, count }).await {
                        Ok(_) => tell(caller, count),
                        Err(syncline::Error::Projection { .. }) if !takes(count) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            let callers = join_all((0..CALLERS).map(caller));
            let _ = join(driver.run(), callers).await;
        }

        /// Commits the other records, before any projection could refuse one of them.
        async fn fill<S: Tables>(path: &Path) {
            let builder = TransactionManager::builder(S::open(path))
                .device(DeviceId(Uuid::from_u128(1)))
                .found(GroupId(Uuid::from_u128(2)));
            let (library, driver) = builder.model::<Counter>().open().await.unwrap();
            let other = |id| Counter { id: FIRST_OTHER + id, count: u64::from(id) };
            let commit = async {
                if library.get::<Counter>(FIRST_OTHER).await.unwrap().is_none() {
                    let all = library
                        .commit_batch(|batch| Ok((0..OTHERS).try_for_each(|id| batch.put(&other(id)))?));
                    all.await.unwrap();
                }
                library.shutdown().await.unwrap();
            };
            join(driver.run(), commit).await.0.unwrap();
        }

        pub(super) async fn check<S: Tables>(path: &Path, acknowledged: &[u64]) -> Result<Vec<u64>, String> {
            let violations = audit(&S::open(path)).await;
            if !violations.is_empty() {
                return Err(format!("the store is not whole: {violations:?}"));
            }
            let version = version(path);
            let (library, driver) = open::<S>(path).await;
            let look = async {
                let library = library;
                let (mut records, mut list) = (Vec::new(), library.list::<Counter>());
                while let Some(page) = list.next_page().await.unwrap() {
                    records.extend(page);
                }
                let debts = records.iter().filter(|record| !takes(record.count)).count() as u64;
                // The same version goes on where the child was killed. It may owe more until it has tried that again.
                for polls in 0.. {
                    let status = library.status().await.unwrap().projections.remove(0);
                    if status.state == ProjectionState::Complete && status.debts == debts {
                        break;
                    }
                    if polls == POLLS_MAX {
                        return Err(format!("it does not come to {debts} debts: {status:?}"));
                    }
                }
                let (found, rows) = mpsc::channel();
                let ids: Vec<_> = records.iter().map(|record| record.id).collect();
                let read = library.with_tx(move |tx| {
                    S::create(tx.native(), table(version))?;
                    ids.iter().try_for_each(|id| {
                        found.send(S::count(tx.native(), table(version), *id)?).map_err(BoxError::from)
                    })
                });
                read.await.unwrap();
                let mut projected = records.iter().zip(rows.iter());
                if let Some((record, row)) =
                    projected.find(|(record, row)| takes(record.count) && *row != record.count)
                {
                    return Err(format!("{record:?} has the row {row}"));
                }
                let count =
                    |caller: u32| records.iter().find(|one| one.id == caller).map_or(0, |one| one.count);
                let mut found = Vec::new();
                for (caller, told) in (0..).zip(acknowledged) {
                    // The child may have been killed between a commit and its line; a count may have been refused.
                    let counted = count(caller);
                    if counted != *told && !(*told + 1..=*told + 2).contains(&counted) {
                        return Err(format!("caller {caller} was told {told} and finds {counted}"));
                    }
                    found.push(counted);
                }
                Ok(found)
            };
            join(driver.run(), look).await.1
        }
    }

    async fn open<S: Tables>(path: &Path) -> (TransactionManager<S>, Driver<S>) {
        TransactionManager::builder(S::open(path))
            .device(DeviceId(Uuid::from_u128(1)))
            .found(GroupId(Uuid::from_u128(2)))
            .project(Projected)
            .open()
            .await
            .unwrap()
    }

    /// Counts in rows and records, each pair in one transaction, and prints each acknowledged count.
    async fn commit_for_ever<S: Tables>(path: &Path) {
        let (library, driver) = open::<S>(path).await;
        let caller = async |caller: u32| {
            // While the projection is rebuilt, a record may be committed that the projection does not have yet.
            while library.status().await.unwrap().projections[0].state != ProjectionState::Complete {}
            loop {
                let count = library.with_tx(move |tx| {
                    S::create(tx.native(), WRITTEN)?;
                    let count = tx.get::<Counter>(caller)?.map_or(0, |counter| counter.count) + 1;
                    S::put(tx.native(), WRITTEN, caller, count)?;
                    tx.put(&Counter { id: caller, count })?;
                    Ok(count)
                });
                tell(caller, count.await.unwrap());
            }
        };
        let callers = join_all((0..CALLERS).map(caller));
        let _ = join(driver.run(), callers).await;
    }

    async fn check<S: Tables>(path: &Path, acknowledged: &[u64]) -> Result<Vec<u64>, String> {
        let store = S::open(path);
        let violations = audit(&store).await;
        if !violations.is_empty() {
            return Err(format!("the store is not whole: {violations:?}"));
        }
        // Reads the rows as they lie, before opening the replica could rebuild the projection.
        let (found, rows) = mpsc::channel();
        let look = Box::new(move |tx: &S::Tx<'_>| {
            [WRITTEN, PROJECTED].into_iter().try_for_each(|table| S::create(tx.native(), table))?;
            for caller in 0..CALLERS {
                let count = |table| S::count(tx.native(), table, caller);
                found.send((count(WRITTEN)?, count(PROJECTED)?))?;
            }
            Ok(())
        });
        store.join(look).await.map_err(|error| error.to_string())?;
        drop(store);
        let rows: Vec<_> = rows.iter().collect();

        let (library, driver) = open::<S>(path).await;
        let look = async {
            let library = library;
            let mut found = Vec::new();
            for ((caller, told), (written, projected)) in (0..).zip(acknowledged).zip(rows) {
                let record = library.get::<Counter>(caller).await.unwrap().map_or(0, |counter| counter.count);
                if (written, projected) != (record, record) {
                    return Err(format!(
                        "caller {caller}: row {written}, projection {projected}, record {record}"
                    ));
                }
                expect(caller, *told, record)?;
                found.push(record);
            }
            Ok(found)
        };
        join(driver.run(), look).await.1
    }

    #[cfg(feature = "redb")]
    mod in_redb {
        use syncline_backends::RedbStorage;
        use syncline_backends::redb::redb::{ReadableTable as _, TableDefinition, WriteTransaction};

        use super::*;

        stories!(RedbStorage);

        impl Tables for RedbStorage {
            fn open(path: &Path) -> Self {
                Self::open(path).unwrap()
            }

            fn create(tx: &WriteTransaction, table: &str) -> Result<(), BoxError> {
                tx.open_table(TableDefinition::<u32, u64>::new(table))?;
                Ok(())
            }

            fn put(tx: &WriteTransaction, table: &str, id: u32, count: u64) -> Result<(), BoxError> {
                tx.open_table(TableDefinition::<u32, u64>::new(table))?.insert(id, count)?;
                Ok(())
            }

            fn count(tx: &WriteTransaction, table: &str, id: u32) -> Result<u64, BoxError> {
                let table = tx.open_table(TableDefinition::<u32, u64>::new(table))?;
                Ok(table.get(id)?.map_or(0, |count| count.value()))
            }

            fn clear(tx: &WriteTransaction, table: &str) -> Result<(), BoxError> {
                Ok(tx.open_table(TableDefinition::<u32, u64>::new(table))?.retain(|_, _| false)?)
            }
        }
    }

    #[cfg(feature = "sqlite")]
    mod in_sqlite {
        use syncline_backends::SqliteStorage;
        use syncline_backends::sqlite::rusqlite::{OptionalExtension as _, Transaction};

        use super::*;

        stories!(SqliteStorage);

        impl Tables for SqliteStorage {
            fn open(path: &Path) -> Self {
                Self::open(path).unwrap()
            }

            fn create(tx: &Transaction<'_>, table: &str) -> Result<(), BoxError> {
                Ok(tx.execute_batch(&format!(
                    "CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, count INTEGER NOT NULL)"
                ))?)
            }

            fn put(tx: &Transaction<'_>, table: &str, id: u32, count: u64) -> Result<(), BoxError> {
                let sql = format!("INSERT OR REPLACE INTO {table} VALUES (?, ?)");
                tx.execute(&sql, (id, count.cast_signed()))?;
                Ok(())
            }

            fn count(tx: &Transaction<'_>, table: &str, id: u32) -> Result<u64, BoxError> {
                let sql = format!("SELECT count FROM {table} WHERE id = ?");
                let count = tx.query_row(&sql, [id], |row| row.get::<_, i64>(0)).optional()?;
                Ok(count.unwrap_or(0).cast_unsigned())
            }

            fn clear(tx: &Transaction<'_>, table: &str) -> Result<(), BoxError> {
                Ok(tx.execute_batch(&format!("DELETE FROM {table}"))?)
            }
        }
    }
}

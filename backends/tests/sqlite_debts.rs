//! Goal: C18, I14: constraints between projected tables, locks and statements that end the transaction hold up no record.
//! A record that a projection cannot take is a debt, and is paid when it can be. Method: albums and photos in SQLite, whose
//! tables refer to each other in all the ways that SQL has, on one device and on two.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use syncline::{
    BoxError, Builder, DeviceId, Error, Event, GroupId, Projection, ProjectionState, ProjectionStatus,
    Storage, Syncable, TransactionManager, Uuid,
};
use syncline_backends::sqlite::rusqlite::{Connection, Transaction, params};
use syncline_backends::{MemoryNetwork, MemoryStorage, SqliteStorage};
use syncline_testkit::StepClock;
use tempfile::TempDir;
use tokio::task::JoinHandle;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "album")]
struct Album {
    #[sync(id)]
    id: u32,
    title: String,
}

/// Its key comes before the one of its album.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "photo")]
struct Photo {
    #[sync(id)]
    id: u32,
    album: u32,
    name: String,
}

/// The next version of [`Album`], whose author forgot to raise the schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "album")]
struct AlbumWithColour {
    #[sync(id)]
    id: u32,
    title: String,
    colour: u32,
}

fn album(id: u32, title: &str) -> Album {
    Album { id, title: title.into() }
}

fn photo(id: u32, album: u32, name: &str) -> Photo {
    Photo { id, album, name: name.into() }
}

/// Albums in a table of that name.
struct Albums<const VERSION: u32 = 1>;

impl<const VERSION: u32> Projection<SqliteStorage> for Albums<VERSION> {
    type Model = Album;
    const NAME: &'static str = "albums";
    const VERSION: u32 = VERSION;

    fn reset(&self, tx: &Transaction<'_>) -> Result<(), BoxError> {
        let create = "DROP TABLE IF EXISTS album; CREATE TABLE album (id INTEGER PRIMARY KEY, title TEXT)";
        Ok(tx.execute_batch(create)?)
    }

    fn put(&self, tx: &Transaction<'_>, album: &Album) -> Result<(), BoxError> {
        let put = "INSERT INTO album VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET title = excluded.title";
        tx.prepare_cached(put)?.execute(params![album.id, album.title])?;
        Ok(())
    }

    fn delete(&self, tx: &Transaction<'_>, id: &u32) -> Result<(), BoxError> {
        tx.prepare_cached("DELETE FROM album WHERE id = ?1")?.execute([id])?;
        Ok(())
    }
}

/// Photos in a table of that name, whose column `album` has this constraint. A photo whose name is SQL runs it.
struct Photos(&'static str);

impl Projection<SqliteStorage> for Photos {
    type Model = Photo;
    const NAME: &'static str = "photos";
    const VERSION: u32 = 1;

    fn reset(&self, tx: &Transaction<'_>) -> Result<(), BoxError> {
        let constraint = self.0;
        Ok(tx.execute_batch(&format!(
            "DROP TABLE IF EXISTS photo;
             CREATE TABLE photo (id INTEGER PRIMARY KEY, album INTEGER {constraint}, name TEXT UNIQUE)"
        ))?)
    }

    fn put(&self, tx: &Transaction<'_>, photo: &Photo) -> Result<(), BoxError> {
        let put = "INSERT INTO photo VALUES (?1, ?2, ?3)
                   ON CONFLICT (id) DO UPDATE SET album = excluded.album, name = excluded.name";
        tx.prepare_cached(put)?.execute(params![photo.id, photo.album, photo.name])?;
        if photo.name.contains(' ') {
            tx.execute_batch(&photo.name)?;
        }
        Ok(())
    }

    fn delete(&self, tx: &Transaction<'_>, id: &u32) -> Result<(), BoxError> {
        tx.prepare_cached("DELETE FROM photo WHERE id = ?1")?.execute([id])?;
        Ok(())
    }
}

const PLAIN: &str = "REFERENCES album (id)";
const CASCADE: &str = "REFERENCES album (id) ON DELETE CASCADE";
const SET_NULL: &str = "REFERENCES album (id) ON DELETE SET NULL";
const DEFERRED: &str = "REFERENCES album (id) DEFERRABLE INITIALLY DEFERRED";
const WAYS: [&str; 4] = [PLAIN, CASCADE, SET_NULL, DEFERRED];

struct Node<S: Storage> {
    library: TransactionManager<S>,
    running: JoinHandle<Result<(), syncline::StopReason>>,
}

impl<S: Storage> Node<S> {
    async fn open(builder: Builder<S>) -> Self {
        let (library, driver) = builder.open().await.unwrap();
        Self { library, running: tokio::spawn(driver.run()) }
    }

    async fn close(self) {
        self.library.shutdown().await.unwrap();
        self.running.await.unwrap().unwrap();
    }

    /// Waits until the status fulfils the condition; looks again at every event.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let mut events = self.library.events();
        let waiting = async {
            while !holds(self).await {
                events.next().await.expect("the driver runs").ok();
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), waiting).await.is_err() {
            panic!("{what}: {:#?}", self.library.status().await.unwrap());
        }
    }

    async fn projections(&self) -> Vec<ProjectionStatus> {
        self.library.status().await.unwrap().projections
    }

    async fn complete(&self) {
        let complete = async |node: &Self| {
            node.projections().await.iter().all(|one| one.state == ProjectionState::Complete)
        };
        self.until("the projections are complete", complete).await;
    }

    /// Waits until these are the debts of albums and photos.
    async fn owes(&self, debts: [u64; 2]) {
        let owes = async |node: &Self| {
            let found: Vec<_> = node.projections().await.iter().map(|one| one.debts).collect();
            found == debts
        };
        self.until(&format!("the debts are {debts:?}"), owes).await;
    }

    async fn nothing_is_stopped(&self) {
        let streams = self.library.status().await.unwrap().streams;
        assert!(streams.iter().all(|stream| stream.stopped.is_none()), "{streams:#?}");
    }
}

fn path(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("app.sqlite")
}

fn alone(directory: &TempDir) -> Builder<SqliteStorage> {
    TransactionManager::builder(SqliteStorage::open(path(directory)).unwrap())
        .device(DeviceId(Uuid::from_u128(1)))
        .found(GroupId(Uuid::from_u128(2)))
}

/// The photos as the table has them: id, album, name.
fn photos(path: &Path) -> Vec<(u32, Option<u32>, String)> {
    let app = Connection::open(path).unwrap();
    let mut rows = app.prepare("SELECT id, album, name FROM photo ORDER BY id").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn albums(path: &Path) -> Vec<u32> {
    let app = Connection::open(path).unwrap();
    let mut rows = app.prepare("SELECT id FROM album ORDER BY id").unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// Two devices that know each other, with projections on the second: its constraint on albums is `constraint`.
async fn pair(
    network: &MemoryNetwork,
    directory: &TempDir,
    constraint: &'static str,
) -> (Node<MemoryStorage>, Node<SqliteStorage>) {
    let group = GroupId::new();
    let a = TransactionManager::builder(MemoryStorage::new()).device(DeviceId::new()).found(group);
    let a = Node::open(a.transport(network.transport()).model::<Album>().model::<Photo>()).await;
    let b = join(network, &a, directory, constraint).await;
    (a, b)
}

async fn join<S: Storage>(
    network: &MemoryNetwork,
    introducer: &Node<S>,
    directory: &TempDir,
    constraint: &'static str,
) -> Node<SqliteStorage> {
    let status = introducer.library.status().await.unwrap();
    let b = TransactionManager::builder(SqliteStorage::open(path(directory)).unwrap());
    let b = b.device(DeviceId::new()).join(status.group, status.replica).transport(network.transport());
    let b = Node::open(b.project(Albums::<1>).project(Photos(constraint))).await;
    let me = b.library.status().await.unwrap();
    introducer.library.add_member(me.replica).await.unwrap();
    b.until("it has joined", async |b| b.library.status().await.unwrap().joining.is_none()).await;
    b.complete().await;
    b
}

/// Waits until `b` has every commit of `a`.
async fn level<A: Storage, B: Storage>(a: &Node<A>, b: &Node<B>) {
    let of = a.library.status().await.unwrap();
    let has_all = async |b: &Node<B>| {
        let streams = b.library.status().await.unwrap().streams;
        streams.iter().any(|stream| stream.replica == of.replica && stream.commits >= of.commits)
    };
    b.until("it is level", has_all).await;
}

#[tokio::test]
async fn tables_are_there_when_open_has_returned() {
    let directory = tempfile::tempdir().unwrap();
    let (library, driver) =
        alone(&directory).project(Albums::<1>).project(Photos(PLAIN)).open().await.unwrap();
    assert_eq!((albums(&path(&directory)), photos(&path(&directory))), (vec![], vec![]));
    drop((library, driver));
}

/// One device deletes an album while the other puts a photo into it.
#[tokio::test]
async fn a_foreign_key_stops_no_stream() {
    for constraint in WAYS {
        let (network, directories) = (MemoryNetwork::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
        let (hub, a) = pair(&network, &directories[0], constraint).await;
        let b = join(&network, &a, &directories[1], constraint).await;
        a.library.commit(album(1, "Rome")).await.unwrap();
        level(&a, &b).await;
        // The hub would pass on what one of them commits.
        let (ra, rb, rh) = (a.library.replica(), b.library.replica(), hub.library.replica());
        for (one, other) in [(ra, rb), (ra, rh), (rb, rh)] {
            network.disconnect(one, other);
        }
        a.library.delete::<Album>(1).await.unwrap();
        b.library.commit(photo(1, 1, "dome")).await.unwrap();
        // More commits behind them.
        a.library.commit(album(2, "Oslo")).await.unwrap();
        b.library.commit(photo(2, 2, "fjord")).await.unwrap_err();
        network.heal();
        level(&a, &b).await;
        level(&b, &a).await;
        a.nothing_is_stopped().await;
        b.nothing_is_stopped().await;
        // `a` cannot put the photo, and `b` can drop the album only if its photo may go.
        a.owes([0, 1]).await;
        let may_drop = [CASCADE, SET_NULL].contains(&constraint);
        b.owes([u64::from(!may_drop), 0]).await;
        let debt = a.projections().await[1].first_debt.clone().unwrap();
        assert!(debt.error.contains("FOREIGN KEY"), "{debt:?}");
        assert_eq!(debt.record.id::<Photo>(), Some(1));
        assert_eq!(a.library.get::<Photo>(1).await.unwrap(), Some(photo(1, 1, "dome")));
        assert_eq!(b.library.get::<Album>(1).await.unwrap(), None);
        // The album comes back.
        b.library.commit(album(1, "Roma")).await.unwrap();
        level(&b, &a).await;
        a.owes([0, 0]).await;
        b.owes([0, 0]).await;
        assert_eq!(photos(&path(&directories[0])), [(1, Some(1), "dome".into())], "{constraint}");
        a.close().await;
        b.close().await;
    }
}

/// Rows come in the order of their keys, and projections in that of their registration: neither is that of a schema.
#[tokio::test]
async fn a_child_may_come_before_its_parent() {
    for constraint in WAYS {
        let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
        let (a, b) = pair(&network, &directory, constraint).await;
        for node in [true, false] {
            let first = if node { 1 } else { 11 };
            let stage = move |batch: &mut syncline::Batch<'_>| {
                batch.put(&photo(first, first, &format!("in_{first}")))?;
                Ok(batch.put(&album(first, "late"))?)
            };
            let done =
                if node { a.library.commit_batch(stage).await } else { b.library.commit_batch(stage).await };
            done.unwrap();
        }
        level(&a, &b).await;
        b.owes([0, 0]).await;
        assert_eq!(photos(&path(&directory)).len(), 2, "{constraint}");
        b.close().await;
    }
}

/// A chain of rows that refer to each other, in the worst order.
#[tokio::test]
async fn a_chain_may_come_in_any_order() {
    const CHAIN: u32 = 20;
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let (a, b) = pair(&network, &directory, "REFERENCES photo (id)").await;
    for (node, first) in [(true, 0), (false, 100)] {
        let stage = move |batch: &mut syncline::Batch<'_>| {
            let last = first + CHAIN;
            (first..=last).try_for_each(|id| batch.put(&photo(id, last.min(id + 1), &format!("{id}"))))?;
            Ok(())
        };
        let done =
            if node { a.library.commit_batch(stage).await } else { b.library.commit_batch(stage).await };
        done.unwrap();
    }
    level(&a, &b).await;
    assert_eq!(b.projections().await[1].debts, 0);
    assert_eq!(photos(&path(&directory)).len(), 2 * CHAIN as usize + 2);
    b.close().await;
}

/// More debts than one page has are counted, and paid, after another opening too.
#[tokio::test]
async fn many_debts_are_counted_again_when_the_store_is_opened() {
    const MANY: u32 = 700;
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let (a, b) = pair(&network, &directory, PLAIN).await;
    let orphans = a.library.commit_batch(|batch| {
        (0..MANY).try_for_each(|id| batch.put(&photo(id, 1, &format!("{id}")))).map_err(Into::into)
    });
    orphans.await.unwrap();
    level(&a, &b).await;
    b.owes([0, MANY.into()]).await;
    b.close().await;
    let b = TransactionManager::builder(SqliteStorage::open(path(&directory)).unwrap());
    let b = Node::open(b.transport(network.transport()).project(Albums::<1>).project(Photos(PLAIN))).await;
    assert_eq!(b.projections().await[1].debts, MANY.into());
    // Whichever are paid, another one is shown.
    a.library.commit(album(2, "of some")).await.unwrap();
    let some = a.library.commit_batch(|batch| {
        (0..20).try_for_each(|id| batch.put(&photo(id, 2, &format!("{id}")))).map_err(Into::into)
    });
    some.await.unwrap();
    level(&a, &b).await;
    b.owes([0, u64::from(MANY) - 20]).await;
    b.until("a debt is shown", async |b| b.projections().await[1].first_debt.is_some()).await;
    a.library.commit(album(1, "late")).await.unwrap();
    b.owes([0, 0]).await;
    assert_eq!(photos(&path(&directory)).len(), MANY as usize);
    b.close().await;
}

/// A debt that cannot be paid keeps nobody from paying another one, of another projection.
#[tokio::test]
async fn a_debt_that_stays_holds_up_no_other() {
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let (a, b) = pair(&network, &directory, PLAIN).await;
    a.library.commit(album(1, "Rome")).await.unwrap();
    a.library.commit(photo(1, 1, "dome")).await.unwrap();
    level(&a, &b).await;
    a.library.delete::<Album>(1).await.unwrap();
    level(&a, &b).await;
    b.owes([1, 0]).await;
    a.library.commit(photo(2, 2, "fjord")).await.unwrap();
    level(&a, &b).await;
    b.owes([1, 1]).await;
    a.library.commit(album(2, "Oslo")).await.unwrap();
    level(&a, &b).await;
    b.owes([1, 0]).await;
    assert_eq!(photos(&path(&directory)).len(), 2);
    b.close().await;
}

/// A page of debts that cannot be paid keeps none behind it from being paid.
#[tokio::test]
async fn a_debt_behind_many_that_stay_is_paid() {
    const MANY: u32 = 200;
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let (a, b) = pair(&network, &directory, PLAIN).await;
    let orphans = a.library.commit_batch(|batch| {
        (0..MANY).try_for_each(|id| batch.put(&photo(id, 1, &format!("{id}"))))?;
        Ok(batch.put(&photo(MANY, 2, "last"))?)
    });
    orphans.await.unwrap();
    level(&a, &b).await;
    b.owes([0, u64::from(MANY) + 1]).await;
    a.library.commit(album(2, "late")).await.unwrap();
    b.owes([0, MANY.into()]).await;
    assert_eq!(photos(&path(&directory)), [(MANY, Some(2), "last".into())]);
    b.close().await;
}

#[tokio::test]
async fn a_parent_is_made_anew_and_its_children_stay() {
    for constraint in WAYS {
        for child_first in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let node = Node::open(alone(&directory).project(Albums::<1>).project(Photos(constraint))).await;
            node.complete().await;
            let filled = node.library.commit_batch(|batch| {
                (0..300).try_for_each(|id| batch.put(&album(id, "old")))?;
                Ok((0..300).try_for_each(|id| batch.put(&photo(id, id, &format!("{id}"))))?)
            });
            filled.await.unwrap();
            let before = photos(&path(&directory));
            assert_eq!(before.len(), 300);
            node.close().await;
            let builder = alone(&directory);
            let node = Node::open(match child_first {
                true => builder.project(Photos(constraint)).project(Albums::<2>),
                false => builder.project(Albums::<2>).project(Photos(constraint)),
            });
            let node = node.await;
            // A commit that needs a row which is not there yet is no mistake of the app.
            node.library.commit(photo(1_000, 299, "meanwhile")).await.unwrap();
            node.complete().await;
            node.owes([0, 0]).await;
            let mut after = photos(&path(&directory));
            assert_eq!(after.pop().unwrap(), (1_000, Some(299), "meanwhile".into()));
            assert_eq!(
                (after, albums(&path(&directory)).len()),
                (before, 300),
                "{constraint}, {child_first}"
            );
            // Foreign keys are enforced again.
            let refused = node.library.commit(photo(1_001, 7_777, "nowhere")).await;
            assert!(refused.is_err(), "{constraint}");
            node.close().await;
        }
    }
}

/// Albums but for number 7, in the next version of their table.
struct Short;
impl Projection<SqliteStorage> for Short {
    type Model = Album;
    const NAME: &'static str = "albums";
    const VERSION: u32 = 2;

    fn reset(&self, tx: &Transaction<'_>) -> Result<(), BoxError> {
        Albums::<1>.reset(tx)
    }

    fn put(&self, tx: &Transaction<'_>, album: &Album) -> Result<(), BoxError> {
        if album.id == 7 { Err("it is too short".into()) } else { Albums::<1>.put(tx, album) }
    }

    fn delete(&self, tx: &Transaction<'_>, id: &u32) -> Result<(), BoxError> {
        Albums::<1>.delete(tx, id)
    }
}

/// A store with twenty albums and a photo in each, which is closed.
async fn twenty_albums() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::open(alone(&directory).project(Albums::<1>).project(Photos(PLAIN))).await;
    node.complete().await;
    let filled = node.library.commit_batch(|batch| {
        (0..20).try_for_each(|id| batch.put(&album(id, "old")))?;
        Ok((0..20).try_for_each(|id| batch.put(&photo(id, id, &format!("{id}"))))?)
    });
    filled.await.unwrap();
    node.close().await;
    directory
}

/// A parent that leaves out a record in its new version takes the record's children with it: their rows would refer to
/// nothing.
#[tokio::test]
async fn foreign_keys_are_checked_once_all_is_filled() {
    let directory = twenty_albums().await;
    let node = Node::open(alone(&directory).project(Short).project(Photos(PLAIN))).await;
    node.owes([1, 1]).await;
    node.complete().await;
    assert_eq!(photos(&path(&directory)).len(), 19);
    let app = Connection::open(path(&directory)).unwrap();
    assert!(!app.prepare("PRAGMA foreign_key_check").unwrap().exists([]).unwrap());
    node.close().await;
}

/// An opening that made tables and ended before it filled them has checked nothing. The next one does.
#[tokio::test]
async fn foreign_keys_are_checked_after_an_opening_that_was_cut_short() {
    let directory = twenty_albums().await;
    let open = || alone(&directory).project(Short).project(Photos(PLAIN));
    // The tables are made in the opening, and filled once the driver is run.
    drop(open().open().await.unwrap());
    assert_eq!(albums(&path(&directory)), []);
    let node = Node::open(open()).await;
    node.owes([1, 1]).await;
    node.complete().await;
    assert_eq!(photos(&path(&directory)).len(), 19);
    node.close().await;
}

/// Rows of the app's own tables may break foreign keys. That is for the app to mend: tables of projections are made anew
/// for them once, and not for ever.
#[tokio::test]
async fn rows_of_the_app_that_break_foreign_keys_do_not_make_tables_anew_for_ever() {
    /// Counts how often its table is made.
    struct Counted(Arc<Mutex<u32>>);
    impl Projection<SqliteStorage> for Counted {
        type Model = Album;
        const NAME: &'static str = "albums";
        const VERSION: u32 = 1;

        fn reset(&self, tx: &Transaction<'_>) -> Result<(), BoxError> {
            *self.0.lock().unwrap() += 1;
            Albums::<1>.reset(tx)
        }

        fn put(&self, tx: &Transaction<'_>, album: &Album) -> Result<(), BoxError> {
            Albums::<1>.put(tx, album)
        }

        fn delete(&self, tx: &Transaction<'_>, id: &u32) -> Result<(), BoxError> {
            Albums::<1>.delete(tx, id)
        }
    }
    let (directory, made) = (tempfile::tempdir().unwrap(), Arc::<Mutex<u32>>::default());
    Node::open(alone(&directory).model::<Album>()).await.close().await;
    let app = Connection::open(path(&directory)).unwrap();
    let broken = "PRAGMA foreign_keys = OFF;
                  CREATE TABLE mother (id INTEGER PRIMARY KEY);
                  CREATE TABLE child (id INTEGER REFERENCES mother (id));
                  INSERT INTO child VALUES (7)";
    app.execute_batch(broken).unwrap();
    drop(app);
    let node = Node::open(alone(&directory).project(Counted(Arc::clone(&made))).project(Photos(PLAIN))).await;
    // Of calls that come one by one, the upkeep has its turn before the third at the latest.
    for id in 0..60 {
        node.library.commit(album(id, "new")).await.unwrap();
    }
    node.complete().await;
    assert_eq!(*made.lock().unwrap(), 2, "when the store was opened, and once for the broken row");
    node.close().await;
}

#[tokio::test]
async fn a_name_that_two_devices_give_is_owed_by_one_and_paid_once_it_is_changed() {
    let (network, directories) = (MemoryNetwork::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let (hub, a) = pair(&network, &directories[0], "").await;
    let b = join(&network, &a, &directories[1], "").await;
    let (ra, rb, rh) = (a.library.replica(), b.library.replica(), hub.library.replica());
    for (one, other) in [(ra, rb), (ra, rh), (rb, rh)] {
        network.disconnect(one, other);
    }
    a.library.commit(photo(1, 0, "same")).await.unwrap();
    b.library.commit(photo(2, 0, "same")).await.unwrap();
    network.heal();
    level(&a, &b).await;
    level(&b, &a).await;
    a.owes([0, 1]).await;
    b.owes([0, 1]).await;
    a.library.commit(photo(1, 0, "other")).await.unwrap();
    level(&a, &b).await;
    a.owes([0, 0]).await;
    b.owes([0, 0]).await;
    assert_eq!(photos(&path(&directories[0])), photos(&path(&directories[1])));
    a.close().await;
    b.close().await;
}

/// Each record is one debt, whatever it fails with; the status shows the latest error.
#[tokio::test]
async fn a_debt_that_fails_in_another_way_is_no_other_debt() {
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let (a, b) = pair(&network, &directory, "").await;
    let first_debt = async |id, name, error: &str| {
        a.library.commit(photo(id, 0, name)).await.unwrap();
        level(&a, &b).await;
        let photos = b.projections().await[1].clone();
        assert_eq!(photos.debts, 1, "{name}");
        let debt = photos.first_debt.unwrap();
        assert_eq!(debt.record.id::<Photo>(), Some(2), "{name}");
        assert!(debt.error.contains(error), "{debt:?}");
    };
    a.library.commit(photo(1, 0, "same")).await.unwrap();
    first_debt(2, "same", "UNIQUE").await;
    // A change of the record that fails with the same error changes no debt, and is no news.
    let mut events = b.library.events();
    a.library.commit(photo(2, 7, "same")).await.unwrap();
    level(&a, &b).await;
    while let Some(Some(event)) = events.next().now_or_never() {
        assert!(!matches!(event, Ok(Event::Projection(_))), "{event:?}");
    }
    first_debt(2, "SELECT no_such_function()", "no_such_function").await;
    a.library.commit(photo(2, 0, "other")).await.unwrap();
    b.owes([0, 0]).await;
    assert_eq!(b.projections().await[1].first_debt, None);
    b.close().await;
}

/// A refused commit shares its write with others, and only those are there.
#[tokio::test]
async fn a_commit_that_is_refused_pays_no_debt() {
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let (a, b) = pair(&network, &directory, "").await;
    for id in [1, 2] {
        a.library.commit(photo(id, 0, "same")).await.unwrap();
    }
    level(&a, &b).await;
    b.owes([0, 1]).await;
    let refused = b.library.commit_batch(|batch| {
        batch.put(&photo(2, 0, "cured"))?;
        Ok(batch.put(&photo(3, 0, "SELECT no_such_function()"))?)
    });
    let taken = |id| b.library.commit_batch(move |batch| Ok(batch.put(&photo(id, 0, &format!("{id}")))?));
    let (first, refused, last) = futures::future::join3(taken(4), refused, taken(5)).await;
    assert!(matches!(refused, Err(Error::Projection { .. })), "{refused:?}");
    assert!(first.is_ok() && last.is_ok(), "{first:?}, {last:?}");
    assert_eq!(b.projections().await[1].debts, 1);
    let ids: Vec<_> = photos(&path(&directory)).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, [1, 4, 5]);
    b.close().await;
}

/// While tables are filled, a commit may owe a record that the next commit of the same write brings in another state.
#[tokio::test]
async fn what_the_last_commit_of_a_write_says_of_a_record_is_what_is_owed() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::open(alone(&directory).project(Albums::<1>).project(Photos(""))).await;
    node.complete().await;
    let filled = node.library.commit_batch(|batch| {
        (0..1_000).try_for_each(|id| batch.put(&album(id, "old")))?;
        Ok(batch.put(&photo(1, 0, "same"))?)
    });
    filled.await.unwrap();
    node.close().await;
    let node = Node::open(alone(&directory).project(Albums::<2>).project(Photos(""))).await;
    let mut events = node.library.events();
    let calls = [photo(2, 0, "same"), photo(2, 0, "other")].map(|photo| node.library.commit(photo));
    let results = join_all(calls).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    node.complete().await;
    while let Some(Some(event)) = events.next().now_or_never() {
        let owes = matches!(&event, Ok(Event::Projection(status)) if status.debts > 0);
        assert!(!owes, "{event:?}");
    }
    assert_eq!(photos(&path(&directory)).len(), 2);
    node.close().await;
}

#[tokio::test]
async fn a_value_that_cannot_be_decoded_is_left_out_and_counted() {
    let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
    let group = GroupId::new();
    let a = TransactionManager::builder(MemoryStorage::new()).device(DeviceId::new()).found(group);
    let a = Node::open(a.transport(network.transport()).model::<AlbumWithColour>().model::<Photo>()).await;
    let b = join(&network, &a, &directory, "").await;
    b.library.commit(album(1, "readable")).await.unwrap();
    level(&b, &a).await;
    a.library.commit(AlbumWithColour { id: 1, title: "new".into(), colour: 7 }).await.unwrap();
    a.library.commit(photo(1, 1, "behind")).await.unwrap();
    level(&a, &b).await;
    b.owes([1, 0]).await;
    b.nothing_is_stopped().await;
    assert_eq!(albums(&path(&directory)), [], "an old row would show what the record is no more");
    assert_eq!(photos(&path(&directory)).len(), 1);
    b.library.commit(album(1, "readable again")).await.unwrap();
    b.owes([0, 0]).await;
    b.close().await;
}

/// Statements with which a projection ends or undoes the transaction, or meddles with our savepoint.
#[tokio::test]
async fn a_projection_that_ends_the_transaction_stops_nothing() {
    for statement in [
        "ROLLBACK ",
        "COMMIT ",
        "RELEASE syncline ",
        "ROLLBACK TO syncline ",
        "INSERT OR ROLLBACK INTO photo SELECT id, album, name FROM photo",
        "SAVEPOINT mine; INSERT INTO photo VALUES (77, 1, 'left'); SELECT raise_nothing()",
        // To SQLite this is the name of ours: going back to it would keep what was done before.
        "SAVEPOINT Syncline; SELECT raise_nothing()",
    ] {
        let (network, directory) = (MemoryNetwork::new(), tempfile::tempdir().unwrap());
        let (a, b) = pair(&network, &directory, "").await;
        let batch = a.library.commit_batch(|batch| {
            batch.put(&photo(1, 1, "before"))?;
            batch.put(&photo(2, 1, statement))?;
            Ok(batch.put(&photo(3, 1, "behind"))?)
        });
        batch.await.unwrap();
        a.library.commit(photo(4, 1, "after")).await.unwrap();
        level(&a, &b).await;
        b.nothing_is_stopped().await;
        b.owes([0, 1]).await;
        let names: Vec<_> = photos(&path(&directory)).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(names, [1, 3, 4], "{statement}");
        // A commit of this device is refused, and the next one works.
        let refused = b.library.commit(photo(5, 1, statement)).await;
        assert!(refused.is_err(), "{statement}: {refused:?}");
        b.library.commit(photo(6, 1, "own")).await.unwrap();
        assert_eq!(b.library.get::<Photo>(5).await.unwrap(), None);
        b.close().await;
    }
}

/// A constraint that is checked at the end of the transaction fails the one commit that broke it.
#[tokio::test]
async fn a_deferred_constraint_refuses_one_commit_of_a_round() {
    for constraint in [PLAIN, DEFERRED] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::open(alone(&directory).project(Albums::<1>).project(Photos(constraint))).await;
        node.complete().await;
        node.library.commit(album(1, "there")).await.unwrap();
        let commits = node.library.status().await.unwrap().commits;
        let calls = (0..16).map(|id| {
            let of = if id == 5 { 404 } else { 1 };
            node.library.commit(photo(id, of, &format!("{id}")))
        });
        let results = join_all(calls).await;
        for (id, result) in results.iter().enumerate() {
            match result {
                Err(Error::Projection { .. } | Error::Statement(_)) if id == 5 => {}
                Ok(_) if id != 5 => {}
                other => panic!("{constraint}: commit {id}: {other:?}"),
            }
        }
        assert_eq!(node.library.status().await.unwrap().commits, commits + 15);
        assert_eq!(photos(&path(&directory)).len(), 15, "{constraint}");
        node.close().await;
    }
}

/// Another program holds the database while a projection is filled.
#[tokio::test]
async fn a_rebuild_waits_for_a_database_that_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::open(alone(&directory).model::<Album>()).await;
    node.library.commit(album(1, "old")).await.unwrap();
    node.close().await;
    let storage = SqliteStorage::builder().busy_timeout(Duration::ZERO).open(path(&directory)).unwrap();
    let clock = StepClock::at(1_700_000_000_000);
    let builder = TransactionManager::builder(storage).clock(clock.clone()).project(Albums::<1>);
    let (library, driver) = builder.open().await.unwrap();
    let other = Connection::open(path(&directory)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let node = Node { library, running: tokio::spawn(driver.run()) };
    for _ in 0..6 {
        let state = node.projections().await[0].state.clone();
        assert_eq!(state, ProjectionState::Rebuilding { records: 0 });
        clock.advance(500);
    }
    other.execute_batch("COMMIT").unwrap();
    let mut tries = 0;
    while node.projections().await[0].state != ProjectionState::Complete {
        clock.advance(1_000);
        tries += 1;
        assert!(tries < 1_000, "{:?}", node.projections().await);
        tokio::task::yield_now().await;
    }
    assert_eq!(albums(&path(&directory)), [1]);
    node.close().await;
}

/// The tables of one projection cannot be made: the others are filled, and their debts are paid.
#[tokio::test]
async fn a_projection_that_cannot_be_made_holds_up_no_other() {
    struct Never;
    impl Projection<SqliteStorage> for Never {
        type Model = Album;
        const NAME: &'static str = "never";
        const VERSION: u32 = 1;

        fn reset(&self, _: &Transaction<'_>) -> Result<(), BoxError> {
            Err("no such module: fts5".into())
        }

        fn put(&self, _: &Transaction<'_>, _: &Album) -> Result<(), BoxError> {
            Ok(())
        }

        fn delete(&self, _: &Transaction<'_>, _: &u32) -> Result<(), BoxError> {
            Ok(())
        }
    }
    for never_first in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::open(alone(&directory).model::<Album>().model::<Photo>()).await;
        node.library.commit(album(1, "old")).await.unwrap();
        node.library.commit(photo(1, 2, "debt")).await.unwrap();
        node.close().await;
        let builder = alone(&directory);
        let node = Node::open(match never_first {
            true => builder.project(Never).project(Albums::<1>).project(Photos(PLAIN)),
            false => builder.project(Albums::<1>).project(Photos(PLAIN)).project(Never),
        });
        let node = node.await;
        let filled = async |node: &Node<_>| {
            let all = node.projections().await;
            all.iter().filter(|one| one.state == ProjectionState::Complete).count() == 2
        };
        node.until("the others are filled", filled).await;
        assert_eq!(albums(&path(&directory)), [1]);
        // The album comes for which a photo waits.
        node.library.commit(album(2, "new")).await.unwrap();
        let paid = async |node: &Node<_>| node.projections().await.iter().all(|one| one.debts == 0);
        node.until("the debt is paid", paid).await;
        assert_eq!(photos(&path(&directory)).len(), 1);
        node.close().await;
    }
}

/// A foreign-key check that could not read says nothing: it is made again until it can, and only then are broken rows
/// found. Here a table of the app, whose key refers to no unique column, makes every check fail.
#[tokio::test]
async fn a_foreign_key_check_that_fails_is_made_again() {
    let directory = twenty_albums().await;
    let app = Connection::open(path(&directory)).unwrap();
    app.busy_timeout(Duration::from_secs(60)).unwrap();
    let extra = "CREATE TABLE mother (name TEXT); CREATE TABLE child (name TEXT REFERENCES mother (name))";
    app.execute_batch(extra).unwrap();
    let check = || app.prepare("PRAGMA foreign_key_check").and_then(|mut check| check.exists([]));

    let node = Node::open(alone(&directory).project(Short).project(Photos(PLAIN))).await;
    node.complete().await;
    // Of calls that come one by one, the upkeep has its turn before the third at the latest: the check has failed then.
    for id in 100..103 {
        node.library.commit(album(id, "new")).await.unwrap();
    }
    assert!(check().is_err());
    app.execute_batch("DROP TABLE child").unwrap();
    node.owes([1, 1]).await;
    assert!(!check().unwrap());
    node.close().await;
}

/// While one table cannot be filled, it takes turns with the others: none of them waits until it can.
#[tokio::test]
async fn a_table_that_cannot_be_filled_keeps_no_turn() {
    /// Notes each call. The one with this flag takes no record.
    struct Calls<const LOCKED: bool>(Arc<Mutex<Vec<bool>>>);
    impl<const LOCKED: bool> Projection<SqliteStorage> for Calls<LOCKED> {
        type Model = Album;
        const NAME: &'static str = if LOCKED { "locked" } else { "free" };
        const VERSION: u32 = 1;

        fn reset(&self, _: &Transaction<'_>) -> Result<(), BoxError> {
            Ok(())
        }

        fn put(&self, _: &Transaction<'_>, _: &Album) -> Result<(), BoxError> {
            self.0.lock().unwrap().push(LOCKED);
            if LOCKED { Err("the table is locked".into()) } else { Ok(()) }
        }

        fn delete(&self, _: &Transaction<'_>, _: &u32) -> Result<(), BoxError> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let node = Node::open(alone(&directory).model::<Album>()).await;
    let albums = node.library.commit_batch(|batch| Ok((0..20).try_for_each(|id| batch.put(&album(id, "")))?));
    albums.await.unwrap();
    node.close().await;
    let calls = Arc::<Mutex<Vec<bool>>>::default();
    // The projection whose tables are made last is filled first.
    let builder = alone(&directory).project(Calls::<false>(Arc::clone(&calls)));
    let node = Node::open(builder.project(Calls::<true>(Arc::clone(&calls)))).await;
    node.until("the free one is filled", async |node| {
        node.projections().await[0].state == ProjectionState::Complete
    })
    .await;
    let before = calls.lock().unwrap().iter().take_while(|locked| **locked).count();
    assert_eq!(before, 20, "one page of the locked one, and then the turn of the other");
    node.until("all is owed", async |node| node.projections().await[1].debts == 20).await;
    let tries = calls.lock().unwrap().iter().filter(|locked| **locked).count() / 20;
    assert!(tries >= 4, "a page of which nothing is taken is taken back three times: {tries} tries");
    node.close().await;
}

//! Goal: a bad call or a bad clock is a typed error that says what to do, and nothing is written. Method: one call
//! after the other on a memory store, whose content is compared before and after.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use syncline::{
    BoxError, ClockError, DeviceId, Entry, Error, GroupId, KeyRange, Limits, OpenError, ScanLimit, ScanPage,
    Storage, Syncable, TransactionManager, Uuid, WallMs, WriteBatch,
};
use syncline_backends::MemoryStorage;
use syncline_testkit::ManualClock;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "location")]
struct Location {
    #[sync(id)]
    id: Uuid,
    device_id: DeviceId,
}

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "stranger")]
struct Stranger {
    #[sync(id)]
    id: u32,
}

/// A record that fails to encode.
#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "stubborn")]
struct Stubborn {
    #[sync(id)]
    id: u32,
    #[serde(serialize_with = "refuse")]
    value: u32,
}

fn refuse<S: Serializer>(_: &u32, _: S) -> Result<S::Ok, S::Error> {
    Err(serde::ser::Error::custom("no"))
}

/// `Tag` in a later version of the app, with another field and a higher schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "tag", schema = 2, migrate = TagV2::from_v1)]
struct TagV2 {
    #[sync(id)]
    id: String,
    name: String,
    color: u32,
}

impl TagV2 {
    fn from_v1(schema: u16, value: &[u8]) -> Result<Self, BoxError> {
        assert_eq!(schema, 1);
        let (id, name) = syncline::decode(value)?;
        Ok(Self { id, name, color: 7 })
    }
}

const DEVICE: DeviceId = DeviceId(Uuid::from_u128(1));

fn tag(id: impl Into<String>, name: impl Into<String>) -> Tag {
    Tag { id: id.into(), name: name.into() }
}

fn limits() -> Limits {
    Limits {
        id_bytes_max: 16,
        value_bytes_max: 100,
        commit_changes_max: 3,
        commit_bytes_max: 200,
        queue_bytes_max: 10_000,
        ..Limits::default()
    }
}

struct World {
    store: Arc<MemoryStorage>,
    clock: ManualClock,
    library: TransactionManager<Arc<MemoryStorage>>,
}

async fn world() -> World {
    let (store, clock) = (Arc::new(MemoryStorage::new()), ManualClock::at(1_700_000_000_000));
    let (library, driver) = TransactionManager::builder(Arc::clone(&store))
        .device(DEVICE)
        .found(GroupId(Uuid::from_u128(2)))
        .model::<Tag>()
        .model::<Location>()
        .model::<Stubborn>()
        .limits(limits())
        .clock(clock.clone())
        .open()
        .await
        .unwrap();
    tokio::spawn(driver.run());
    library.commit(tag("a", "first")).await.unwrap();
    World { store, clock, library }
}

async fn content(store: &MemoryStorage) -> Vec<Entry> {
    store.scan(KeyRange::all(), ScanLimit::NONE).await.unwrap().entries
}

#[tokio::test]
async fn bad_calls_are_typed_errors_and_write_nothing() {
    let World { store, library, .. } = world().await;
    let before = content(&store).await;

    let foreign = Location { id: Uuid::nil(), device_id: DeviceId(Uuid::from_u128(9)) };
    let error = library.commit_device_owned(foreign.clone()).await.unwrap_err();
    assert!(matches!(error, Error::NotOwner { device: DEVICE, .. }));
    assert!(
        error.to_string().contains(&foreign.device_id.to_string())
            && error.to_string().contains(&DEVICE.to_string())
    );
    assert!(matches!(library.delete::<Location>(foreign.sync_id()).await, Err(Error::NotOwner { .. })));
    let update = library.update::<Location, _>(foreign.sync_id(), |old| old.ok_or_else(|| "none".into()));
    assert!(matches!(update.await, Err(Error::NotOwner { .. })));

    let error = library.commit(Stranger { id: 1 }).await.unwrap_err();
    assert!(matches!(error, Error::UnregisteredModel { model: "stranger", .. }));
    assert!(error.to_string().contains("location, stubborn, tag"), "{error}");
    assert!(matches!(library.get::<Stranger>(1).await, Err(Error::UnregisteredModel { .. })));
    assert!(matches!(library.list::<Stranger>().next_page().await, Err(Error::UnregisteredModel { .. })));
    assert!(matches!(library.get::<TagV2>("a".into()).await, Err(Error::OtherModel { .. })));

    let members = library.list::<syncline::Member>().next_page().await.unwrap().expect("members can be read");
    let member = members.first().expect("the founder").clone();
    assert!(matches!(library.commit(member.clone()).await, Err(Error::ReservedModel { .. })));
    assert!(matches!(
        library.delete::<syncline::Member>(member.replica).await,
        Err(Error::ReservedModel { .. })
    ));

    let error = library.commit(Stubborn { id: 1, value: 1 }).await.unwrap_err();
    assert!(matches!(error, Error::Encode { model: "stubborn", .. }));

    assert_eq!(content(&store).await, before);
}

#[tokio::test]
async fn whatever_is_too_large_is_named_with_its_limit() {
    let World { store, library, .. } = world().await;
    let before = content(&store).await;
    let error = library.commit(tag("x".repeat(17), "")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 17, limit } if limit == 16), "{error}");
    // The value is two length bytes, one byte of id and 98 bytes of name.
    let error = library.commit(tag("x", "n".repeat(98))).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 101, limit } if limit == 100), "{error}");
    let update = library.update::<Tag, _>("a".into(), |_| Ok(tag("a", "n".repeat(98))));
    assert!(matches!(update.await, Err(Error::TooLarge { size: 101, .. })));
    let staged =
        library.commit_batch(|batch| Ok((0..4).try_for_each(|n| batch.put(&tag(n.to_string(), "")))?));
    let error = staged.await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 4, limit } if limit == 3), "{error}");
    assert!(error.to_string().contains("commit_changes_max"), "{error}");
    let staged = library
        .commit_batch(|batch| Ok((0..3).try_for_each(|n| batch.put(&tag(n.to_string(), "n".repeat(70))))?));
    let error = staged.await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 222, limit } if limit == 200), "{error}");
    assert_eq!(content(&store).await, before);

    // A value of exactly the limit fits. A change that replaces a staged change counts once.
    library.commit(tag("x", "n".repeat(97))).await.unwrap();
    let staged = library.commit_batch(|batch| {
        for n in 0..9 {
            batch.put(&tag((n % 3).to_string(), "n".repeat(40)))?;
        }
        assert_eq!(batch.len(), 3);
        Ok(())
    });
    staged.await.unwrap();
}

#[tokio::test]
async fn a_closure_that_fails_or_panics_takes_its_commit_back() {
    let World { store, library, .. } = world().await;
    let before = content(&store).await;

    #[derive(Debug, thiserror::Error)]
    #[error("the app says no")]
    struct AppError;

    let staged = library.commit_batch(|batch| {
        batch.put(&tag("b", "b"))?;
        Err::<(), _>(AppError.into())
    });
    assert!(matches!(staged.await, Err(Error::Aborted(error)) if error.is::<AppError>()));
    let staged = library.commit_batch(|batch| {
        batch.put(&tag("b", "b"))?;
        if batch.len() == 1 {
            panic!("boom {}", 1);
        }
        Ok(())
    });
    assert!(matches!(staged.await, Err(Error::Panicked { message }) if message == "boom 1"));
    let update = library.update::<Tag, _>("a".into(), |_| Err(AppError.into()));
    assert!(matches!(update.await, Err(Error::Aborted(error)) if error.is::<AppError>()));
    let update = library.update::<Tag, _>("a".into(), |_| panic!("bang"));
    assert!(matches!(update.await, Err(Error::Panicked { message }) if message == "bang"));
    let update = library.update::<Tag, _>("a".into(), |_| Ok(tag("b", "moved")));
    assert!(matches!(update.await, Err(Error::IdChanged { model: "tag" })));
    assert_eq!(content(&store).await, before);
    library.commit(tag("b", "b")).await.unwrap();
}

/// `Tag` in a later version of the app. Its migration panics, and so does its encoding for one name.
#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "tag", schema = 2, migrate = Explosive::from_v1)]
struct Explosive {
    #[sync(id)]
    id: String,
    #[serde(serialize_with = "explode")]
    name: String,
}

impl Explosive {
    fn from_v1(_: u16, _: &[u8]) -> Result<Self, BoxError> {
        panic!("migration")
    }
}

fn explode<S: Serializer>(name: &str, to: S) -> Result<S::Ok, S::Error> {
    assert!(name != "explode", "encoding");
    to.serialize_str(name)
}

#[tokio::test]
async fn a_panic_anywhere_in_an_update_leaves_the_replica_running() {
    let World { store, library, .. } = world().await;
    library.shutdown().await.unwrap();
    let (library, driver) = TransactionManager::builder(store).model::<Explosive>().open().await.unwrap();
    let running = tokio::spawn(driver.run());
    let update = library.update::<Explosive, _>("a".into(), |old| old.ok_or_else(|| "none".into()));
    assert!(matches!(update.await, Err(Error::Panicked { message }) if message == "migration"));
    let explode = |_| Ok(Explosive { id: "b".into(), name: "explode".into() });
    let update = library.update::<Explosive, _>("b".into(), explode);
    assert!(matches!(update.await, Err(Error::Panicked { message }) if message == "encoding"));
    library.commit(Explosive { id: "b".into(), name: "fine".into() }).await.unwrap();
    library.shutdown().await.unwrap();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_of_another_replica_is_not_taken_for_this_ones() {
    let World { library: other, .. } = world().await;
    let World { library, .. } = world().await;
    other.shutdown().await.unwrap();
    let stopped = other.get::<Tag>("a".into()).await.unwrap_err();
    assert!(matches!(stopped, Error::Stopped(_)));
    let update = library.update::<Tag, _>("a".into(), move |_| Err(stopped.into()));
    assert!(matches!(update.await, Err(Error::Aborted(error)) if error.is::<Error>()));
    let stopped = other.get::<Tag>("a".into()).await.unwrap_err();
    let staged = library.commit_batch(move |_| Err::<(), _>(stopped.into()));
    assert!(matches!(staged.await, Err(Error::Aborted(_))));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_does_not_hide_the_others_of_its_list() {
    let World { store, library, .. } = world().await;
    for id in ["b", "c", "d"] {
        library.commit(tag(id, "x")).await.unwrap();
    }
    library.shutdown().await.unwrap();
    let (newer, driver) =
        TransactionManager::builder(Arc::clone(&store)).model::<TagV2>().open().await.unwrap();
    tokio::spawn(driver.run());
    newer.commit(TagV2 { id: "c".into(), name: "n".into(), color: 1 }).await.unwrap();
    newer.shutdown().await.unwrap();

    let (library, driver) = TransactionManager::builder(store).model::<Tag>().open().await.unwrap();
    tokio::spawn(driver.run());
    for page_size in [1, 2, 3, 4, 100] {
        let mut list = library.list::<Tag>().page_size(page_size);
        let (mut ids, mut bad) = (Vec::new(), Vec::new());
        while let Some(page) = list.next_page().await.unwrap() {
            ids.extend(page.into_iter().map(|tag| tag.id));
        }
        for error in &list.unreadable().errors {
            let Error::NewerSchema { record, .. } = error else { panic!("{error}") };
            bad.extend(record.id::<Tag>());
        }
        assert_eq!(
            (ids, bad),
            (vec!["a".into(), "b".into(), "d".into()], vec!["c".to_owned()]),
            "{page_size}"
        );
    }
}

/// A user looks at some of the errors; how many there are is a number.
#[tokio::test]
async fn a_list_keeps_the_errors_of_a_hundred_records_and_counts_all() {
    let World { store, library, .. } = world().await;
    library.shutdown().await.unwrap();
    let builder = TransactionManager::builder(Arc::clone(&store)).model::<TagV2>();
    let (newer, driver) = builder.open().await.unwrap();
    tokio::spawn(driver.run());
    let stage = |batch: &mut syncline::Batch<'_>| {
        let newer = |n: u32| TagV2 { id: format!("{n}"), name: "n".into(), color: 1 };
        Ok((0..150).try_for_each(|n| batch.put(&newer(n)))?)
    };
    newer.commit_batch(stage).await.unwrap();
    newer.shutdown().await.unwrap();

    let (library, driver) = TransactionManager::builder(store).model::<Tag>().open().await.unwrap();
    tokio::spawn(driver.run());
    let mut list = library.list::<Tag>().page_size(40);
    while list.next_page().await.unwrap().is_some() {}
    let unreadable = list.unreadable();
    assert_eq!((unreadable.records, unreadable.errors.len()), (150, 100));
}

#[tokio::test]
async fn a_clock_that_fails_writes_nothing_and_stamps_never_go_back() {
    let World { store, clock, library } = world().await;
    let before = content(&store).await;
    let highest = library.status().await.unwrap().clock;
    for error in [ClockError::Before1970, ClockError::failed("no clock"), WallMs::new(1 << 48).unwrap_err()] {
        clock.set_wall(Err(error));
        assert!(matches!(library.commit(tag("b", "b")).await, Err(Error::Clock(_))));
    }
    assert_eq!(content(&store).await, before);
    clock.set_wall(WallMs::new(0));
    library.commit(tag("b", "b")).await.unwrap();
    assert!(library.status().await.unwrap().clock > highest);
}

#[tokio::test]
async fn older_schemas_are_migrated_and_newer_ones_refused() {
    let World { store, library, .. } = world().await;
    library.shutdown().await.unwrap();
    let (library, driver) =
        TransactionManager::builder(Arc::clone(&store)).model::<TagV2>().open().await.unwrap();
    tokio::spawn(driver.run());
    let migrated = TagV2 { id: "a".into(), name: "first".into(), color: 7 };
    assert_eq!(library.get::<TagV2>("a".into()).await.unwrap(), Some(migrated.clone()));
    assert_eq!(library.list::<TagV2>().next_page().await.unwrap(), Some(vec![migrated.clone()]));
    let update =
        library.update::<TagV2, _>("a".into(), |old| Ok(TagV2 { color: 8, ..old.ok_or("it is there")? }));
    assert_eq!(update.await.unwrap(), TagV2 { color: 8, ..migrated });
    library.shutdown().await.unwrap();

    // The older app finds a record that it cannot read. It must not overwrite the record.
    let (library, driver) =
        TransactionManager::builder(Arc::clone(&store)).model::<Tag>().open().await.unwrap();
    tokio::spawn(driver.run());
    let newer =
        |error: Error| assert!(matches!(error, Error::NewerSchema { stored: 2, known: 1, .. }), "{error}");
    newer(library.get::<Tag>("a".into()).await.unwrap_err());
    newer(library.commit(tag("a", "older")).await.unwrap_err());
    newer(library.update::<Tag, _>("a".into(), |old| old.ok_or_else(|| "none".into())).await.unwrap_err());
    library.delete::<Tag>("a".into()).await.unwrap();
    library.commit(tag("a", "older")).await.unwrap();
}

#[tokio::test]
async fn a_value_under_another_records_key_is_not_returned() {
    let World { store, library, .. } = world().await;
    let first = content(&store).await.into_iter().find(|entry| entry.key.ends_with(b"\x03taga")).unwrap();
    let mut batch = WriteBatch::new();
    batch.put([&first.key[..first.key.len() - 1], b"b"].concat(), first.value);
    store.write(batch).await.unwrap();
    assert_eq!(library.get::<Tag>("a".into()).await.unwrap(), Some(tag("a", "first")));
    assert!(matches!(library.get::<Tag>("b".into()).await, Err(Error::Decode { .. })));
    let mut list = library.list::<Tag>();
    assert_eq!(list.next_page().await.unwrap(), Some(vec![tag("a", "first")]));
    assert_eq!(list.next_page().await.unwrap(), None);
    assert!(matches!(list.unreadable().errors[..], [Error::Decode { .. }]), "{}", list.unreadable());
}

#[tokio::test]
async fn two_models_with_one_name_and_bad_names_are_refused() {
    let ask = || TransactionManager::builder(MemoryStorage::new()).device(DEVICE).found(GroupId::new());
    let error = ask().model::<Tag>().model::<TagV2>().open().await.map(drop).unwrap_err();
    assert!(matches!(error, OpenError::DuplicateModel { model: "tag", .. }));
    assert!(error.to_string().contains("::Tag`") && error.to_string().contains("::TagV2`"), "{error}");
    ask().model::<Tag>().model::<Tag>().open().await.map(drop).unwrap();

    for limits in [
        Limits { queue_bytes_max: 10, ..limits() },
        Limits { value_bytes_max: 201, ..limits() },
        Limits { id_bytes_max: 70_000, ..limits() },
        Limits { round_commits_max: 0, ..limits() },
        Limits { event_commits_max: 0, ..limits() },
        Limits { event_commits_max: usize::MAX / 4, ..limits() },
    ] {
        let error = ask().limits(limits.clone()).open().await.map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Limits { .. }), "{limits:?}");
    }
}

#[tokio::test]
async fn open_errors_name_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let named = Arc::new(Named(MemoryStorage::new(), directory.path().display().to_string()));
    let error = TransactionManager::builder(named).open().await.map(drop).unwrap_err();
    assert!(error.to_string().starts_with(&directory.path().display().to_string()), "{error}");
}

/// A store that says it lies at a path.
struct Named(MemoryStorage, String);

#[async_trait::async_trait]
impl Storage for Named {
    async fn get_many(
        &self,
        keys: &[syncline::Key],
    ) -> Result<Vec<Option<syncline::Value>>, syncline::ReadError> {
        self.0.get_many(keys).await
    }

    async fn scan(&self, range: KeyRange, limit: ScanLimit) -> Result<ScanPage, syncline::ReadError> {
        self.0.scan(range, limit).await
    }

    async fn write(&self, batch: WriteBatch) -> Result<(), syncline::WriteError> {
        self.0.write(batch).await
    }

    fn location(&self) -> String {
        self.1.clone()
    }
}

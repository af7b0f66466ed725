//! Opening again: the identity of a replica comes from its store.

use futures::future::join;
use syncline::{
    ClockError, DeviceId, Entry, GroupId, KeyRange, OpenError, ReplicaId, ScanLimit, Storage as _,
    TransactionManager, Uuid,
};

use super::app::{DEVICE, GROUP, START_MS, ask, assert_whole, open_store, run, run_on};
use crate::models::{Note, note};
use crate::{Fixture, ManualClock};

/// Device, group, replica and sequence number come from the store. An opening may name them again or leave them out.
pub async fn identity_comes_from_the_store<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let founded = run_on(fixture, async |library| {
        library.commit(note(1, "a")).await.unwrap();
        library.status().await.unwrap()
    })
    .await;
    assert_eq!((founded.device, founded.group, founded.commits), (DEVICE, GROUP, 2));
    assert_eq!(founded.members, [founded.replica]);
    let other = ReplicaId(Uuid::from_u128(7));
    let bare = TransactionManager::builder(open_store(fixture).await).model::<Note>().replica(other);
    let reopened = run(bare, async |library| library.status().await.unwrap()).await.unwrap();
    assert_eq!(reopened, founded);
    let again = run_on(fixture, async |library| library.status().await.unwrap()).await;
    assert_eq!(again, founded);
}

/// A program that founds a group is started again on its store: the group and the device are drawn by the first start
/// alone, and every other one finds them. The manager tells them before its driver is run.
pub async fn a_second_start_of_the_same_program_works<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut first = None;
    for start in 1..=3 {
        let program = TransactionManager::builder(open_store(fixture).await).found_new().model::<Note>();
        let (library, driver) = program.clock(ManualClock::at(START_MS)).open().await.unwrap();
        let ids = (library.group(), library.device(), library.replica());
        assert_eq!(ids, *first.get_or_insert(ids), "start {start}");
        let app = async move {
            library.commit(note(start, "started")).await.unwrap();
            let status = library.status().await.unwrap();
            assert_eq!((status.group, status.device, status.replica), ids, "start {start}");
            assert_eq!(status.commits, u64::from(start) + 1, "start {start}");
        };
        join(driver.run(), app).await.0.unwrap();
    }
    let (group, device, _) = first.unwrap();
    assert_ne!(group.0, device.0);
    // Naming what the store has is no contradiction.
    let named = TransactionManager::builder(open_store(fixture).await).device(device).found(group);
    named.open().await.map(drop).unwrap();
    assert_whole(fixture, "after three starts").await;
}

/// An opening that is refused returns the reason and changes nothing.
pub async fn a_contradiction_leaves_the_store_untouched<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    // On an empty store, the error names what is missing, and the store stays empty.
    let broken = ManualClock::at(0);
    broken.set_wall(Err(ClockError::Before1970));
    let store = async || open_store(fixture).await;
    let bare = async || TransactionManager::builder(store().await);
    assert!(matches!(bare().await.open().await, Err(OpenError::NoGroup { .. })));
    assert!(matches!(ask(store().await).clock(broken).open().await, Err(OpenError::Clock(_))));
    assert_eq!(content(fixture).await, []);

    run_on(fixture, async |library| drop(library.commit(note(1, "a")).await.unwrap())).await;
    let before = content(fixture).await;
    let other = Uuid::from_u128(7);
    assert!(matches!(
        ask(store().await).found(GroupId(other)).open().await,
        Err(OpenError::OtherGroup { stored: GROUP, .. })
    ));
    assert!(matches!(
        ask(store().await).device(DeviceId(other)).open().await,
        Err(OpenError::OtherDevice { stored: DEVICE, .. })
    ));
    assert!(matches!(bare().await.model::<Turned>().open().await, Err(OpenError::OwnershipChanged { .. })));
    assert!(matches!(ask(store().await).model::<Twin>().open().await, Err(OpenError::DuplicateModel { .. })));
    assert_eq!(content(fixture).await, before);

    // A newer format in any of the rows that an opening reads is refused.
    for Entry { key, value } in before.iter().filter(|entry| entry.key.starts_with(&[1])) {
        let set = async |value: Vec<u8>| {
            let mut batch = syncline::WriteBatch::new();
            batch.put(key.clone(), value);
            store().await.write(batch).await.unwrap();
        };
        set([&[9], &value[1..]].concat()).await;
        let newer = content(fixture).await;
        let refused = ask(store().await).open().await.map(drop);
        assert!(matches!(refused, Err(OpenError::Format { .. })), "{refused:?}");
        assert_eq!(content(fixture).await, newer);
        set(value.clone()).await;
    }
    assert_whole(fixture, "after refused openings").await;
}

async fn content<F: Fixture>(fixture: &F) -> Vec<Entry> {
    open_store(fixture).await.scan(KeyRange::all(), ScanLimit::NONE).await.unwrap().entries
}

/// The model of `Place`, which is device-owned, as a shared one.
#[derive(Clone, serde::Serialize, serde::Deserialize, syncline::Syncable)]
#[sync(model = "place")]
struct Turned {
    #[sync(id)]
    id: u32,
}

/// Another type with the model name of `Note`.
#[derive(Clone, serde::Serialize, serde::Deserialize, syncline::Syncable)]
#[sync(model = "note")]
struct Twin {
    #[sync(id)]
    id: u32,
}

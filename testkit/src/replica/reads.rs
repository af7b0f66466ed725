//! Reads find what was committed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::{join, join_all};
use futures::{StreamExt as _, TryStreamExt as _};
use syncline::{DeviceId, Error, Storage, TransactionManager, Uuid, audit};

use super::app::{DEVICE, START_MS, UNPRUNED, ask, assert_whole, open_store, place, run, run_on};
use crate::models::{Note, Place, note};
use crate::poll::give_way;
use crate::{Fault, FaultKind, Faults, Faulty, Fixture, ManualClock, seed};

/// Reads find exactly what a map would have, after random commits, batches, deletes, updates and restarts.
pub async fn committed_is_read_back<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model: BTreeMap<u32, String> = BTreeMap::new();
    for restart in 0..8 {
        let when = format!("seed {seed:#x}, restart {restart}");
        run_on(fixture, async |library| {
            check(&library, &model, &when).await;
            for _ in 0..24 {
                step(&library, &mut model, &mut random).await;
            }
            check(&library, &model, &when).await;
        })
        .await;
        assert_whole(fixture, &when).await;
    }
}

async fn step<S: Storage>(
    library: &TransactionManager<S>,
    model: &mut BTreeMap<u32, String>,
    random: &mut fastrand::Rng,
) {
    let (id, text) = (random.u32(0..6), "x".repeat(random.usize(0..3)));
    match random.u8(0..4) {
        0 => {
            let saved = library.commit_shared(note(id, &*text)).await.unwrap();
            assert_eq!(saved, note(id, &*text));
            model.insert(id, text);
        }
        1 => {
            library.delete::<Note>(id).await.unwrap();
            model.remove(&id);
        }
        2 => {
            let appended = library.update::<Note, _>(id, move |old| {
                Ok(note(id, old.map_or_else(String::new, |old| old.text) + &text))
            });
            model.insert(id, appended.await.unwrap().text);
        }
        _ => {
            let mut staged = model.clone();
            let changes: Vec<_> =
                (0..random.usize(0..5)).map(|n| (random.u32(0..6), random.bool(), n)).collect();
            let batch = library.commit_batch(|batch| {
                for (id, put, n) in changes {
                    // A batch may change a record twice: the last change counts.
                    if put {
                        batch.put(&note(id, n.to_string()))?;
                        staged.insert(id, n.to_string());
                    } else {
                        batch.delete::<Note>(id)?;
                        staged.remove(&id);
                    }
                }
                Ok(())
            });
            batch.await.unwrap();
            *model = staged;
        }
    }
}

async fn check<S: Storage>(library: &TransactionManager<S>, model: &BTreeMap<u32, String>, when: &str) {
    let listed: Vec<Note> = library.list::<Note>().page_size(2).into_stream().try_collect().await.unwrap();
    let listed: BTreeMap<_, _> = listed.into_iter().map(|note| (note.id, note.text)).collect();
    assert_eq!(&listed, model, "{when}: listed");
    for id in 0..6 {
        let read = library.get::<Note>(id).await.unwrap().map(|note| note.text);
        assert_eq!(read.as_ref(), model.get(&id), "{when}: note {id}");
    }
}

/// A value that a log entry still needs is kept when its record is overwritten or deleted: the audit finds all of them.
pub async fn overwritten_values_are_kept<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    for round in 0..3 {
        let unpruned = ask(open_store(fixture).await).rules(UNPRUNED);
        run(unpruned, async |library| {
            for n in 0..3 {
                let text = format!("{round} {n}");
                library.commit(note(1, &*text)).await.unwrap();
                library.commit(place(1, &*text)).await.unwrap();
                // Commits that share a write overwrite each other.
                join_all((0..3).map(|m| library.commit(note(2, format!("{text} {m}"))))).await;
                library.delete::<Note>(1).await.unwrap();
            }
        })
        .await
        .unwrap();
        assert_whole(fixture, "unpruned").await;
    }
    // A replica that is alone in its group prunes its log, and with it the kept values.
    run_on(fixture, async |library| {
        library.commit(note(3, "prune")).await.unwrap();
        let status = library.status().await.unwrap();
        assert_eq!(status.pruned, status.commits - 1);
    })
    .await;
    assert_whole(fixture, "pruned").await;
}

/// S9, I1: no update of many callers is lost, and each runs once.
pub async fn updates_are_not_lost<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const CALLERS: u32 = 16;
    const UPDATES: u32 = 4;
    run_on(fixture, async |library| {
        let caller = async |caller: u32| {
            for n in 0..UPDATES {
                let update = library.update::<Note, _>(1, move |old| {
                    let text = old.map_or_else(String::new, |old| old.text);
                    Ok(note(1, format!("{text}{caller}.{n} ")))
                });
                update.await.unwrap();
            }
        };
        join_all((0..CALLERS).map(caller)).await;
        let text = library.get::<Note>(1).await.unwrap().unwrap().text;
        let mut seen: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
        seen.sort();
        let mut expected: Vec<_> =
            (0..CALLERS).flat_map(|c| (0..UPDATES).map(move |n| format!("{c}.{n}"))).collect();
        expected.sort();
        assert_eq!(seen, expected);
    })
    .await;
}

/// I2, C13: a reader that reads in a loop sees all of a batch or nothing of it.
pub async fn batches_are_seen_whole<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const NOTES: u32 = 40;
    run_on(fixture, async |library| {
        let done = AtomicBool::new(false);
        let writer = async {
            for n in 0..20 {
                let staged = library.commit_batch(|batch| {
                    Ok((0..NOTES).try_for_each(|id| batch.put(&note(id, n.to_string())))?)
                });
                staged.await.unwrap();
            }
            done.store(true, Ordering::Relaxed);
        };
        let reader = async {
            let ids: Vec<u32> = (0..NOTES).collect();
            while !done.load(Ordering::Relaxed) {
                let many = library.get_many::<Note>(&ids).await.unwrap();
                assert!(
                    many.windows(2).all(|pair| text(&pair[0]) == text(&pair[1])),
                    "a torn batch: {many:?}"
                );
                let page = library.list::<Note>().next_page().await.unwrap().unwrap_or_default();
                assert!(page.is_empty() || page.len() == NOTES as usize, "{} notes are listed", page.len());
                assert!(page.windows(2).all(|pair| pair[0].text == pair[1].text), "a torn page: {page:?}");
                give_way().await;
            }
        };
        join(writer, reader).await;
    })
    .await;
}

fn text(note: &Option<Note>) -> Option<&str> {
    note.as_ref().map(|note| note.text.as_str())
}

/// A list has all records that are not deleted, in the order of their ids, with any page size; also the list of one
/// device.
pub async fn lists_are_paged_in_order<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    run_on(fixture, async |library| {
        let filled = library.commit_batch(|batch| {
            for id in (0..40).rev() {
                batch.put(&note(id, "n"))?;
                batch.put(&place(id, "p"))?;
            }
            Ok(())
        });
        filled.await.unwrap();
        // Delete more records in a row than a page has.
        let deleted = library.commit_batch(|batch| Ok((5..30).try_for_each(|id| batch.delete::<Note>(id))?));
        deleted.await.unwrap();
        let expected: Vec<u32> = (0..5).chain(30..40).collect();
        for page_size in [0, 1, 2, 7, 40, 1000] {
            let mut list = library.list::<Note>().page_size(page_size);
            let mut ids = Vec::new();
            while let Some(page) = list.next_page().await.unwrap() {
                assert!(!page.is_empty() && page.len() <= page_size.max(1));
                ids.extend(page.into_iter().map(|note| note.id));
            }
            assert_eq!(ids, expected, "page size {page_size}");
            assert_eq!(list.next_page().await.unwrap(), None, "the end stays the end");
        }
        let rest: Vec<Note> = library.list::<Note>().after(&3).into_stream().try_collect().await.unwrap();
        assert_eq!(rest.iter().map(|note| note.id).collect::<Vec<_>>(), expected[4..]);

        let mine: Vec<Place> =
            library.list_of::<Place>(DEVICE).page_size(9).into_stream().try_collect().await.unwrap();
        assert_eq!(mine.iter().map(|place| place.id).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        let all: Vec<Place> = library.list::<Place>().into_stream().try_collect().await.unwrap();
        assert_eq!(all, mine);
        let other = DeviceId(Uuid::from_u128(1));
        assert_eq!(library.list_of::<Place>(other).next_page().await.unwrap(), None);
        assert_eq!(library.get::<Place>((other, 1)).await.unwrap(), None);
        assert!(matches!(library.delete::<Place>((other, 1)).await, Err(Error::NotOwner { .. })));
    })
    .await;
    let store = open_store(fixture).await;
    assert_eq!(audit(&store).await, []);
}

/// C20: a record of a newer version of the app hides no other one: lists leave it out and count it, `get_each` has the
/// others, and the reason in its place.
pub async fn one_record_of_a_newer_app_hides_no_other<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    const NOTES: u32 = 12;
    run_on(fixture, async |library| {
        let put = library.commit_batch(|batch| Ok((0..NOTES).try_for_each(|id| batch.put(&note(id, "n")))?));
        put.await.unwrap();
    })
    .await;
    // Two side by side, so that a page may have none that can be read; and the last one.
    let newer = [0, 5, 6, NOTES - 1];
    let app = TransactionManager::builder(open_store(fixture).await).clock(ManualClock::at(START_MS));
    run(app.model::<NewerNote>(), async |library| {
        for id in newer {
            library.commit(NewerNote { id, text: "n".into(), mark: 1 }).await.unwrap();
        }
    })
    .await
    .unwrap();
    run_on(fixture, async |library| {
        let expected: Vec<u32> = (0..NOTES).filter(|id| !newer.contains(id)).collect();
        let is_newer = |error: &Error, id: u32| {
            matches!(error, Error::NewerSchema { record, stored: 2, known: 1 } if record.id::<Note>() == Some(id))
        };
        for page_size in [1, 2, 3, 7, 100] {
            let mut list = library.list::<Note>().page_size(page_size);
            let mut ids = Vec::new();
            while let Some(page) = list.next_page().await.unwrap() {
                ids.extend(page.into_iter().map(|note| note.id));
            }
            assert_eq!(ids, expected, "page size {page_size}");
            let unreadable = list.unreadable();
            assert_eq!(unreadable.records, newer.len() as u64, "page size {page_size}: {unreadable}");
            let named = unreadable.errors.iter().zip(newer).all(|(error, id)| is_newer(error, id));
            assert!(named, "page size {page_size}: {unreadable:?}");
            let stream = library.list::<Note>().page_size(page_size).into_stream();
            let streamed: Vec<_> = stream.collect().await;
            assert_eq!(streamed.len(), NOTES as usize, "page size {page_size}");
            for (id, record) in (0..).zip(&streamed) {
                match record {
                    Ok(note) => assert!(note.id == id && !newer.contains(&id), "{note:?} in the place of {id}"),
                    Err(error) => assert!(is_newer(error, id), "{error} in the place of {id}"),
                }
            }
        }
        let ids = [4, 5, 99];
        let each = library.get_each::<Note>(&ids).await.unwrap();
        let [Ok(Some(readable)), Err(error), Ok(None)] = &each[..] else { panic!("{each:?}") };
        assert!(readable.id == 4 && is_newer(error, 5), "{each:?}");
        let many = library.get_many::<Note>(&ids).await;
        assert!(matches!(&many, Err(error) if is_newer(error, 5)), "{many:?}");
    })
    .await;
    // A store that cannot read is another matter: it ends the stream.
    let faults = Faults::new();
    run(ask(Faulty::new(open_store(fixture).await, faults.clone())), async |library| {
        faults.arm(Fault::sticky(0, FaultKind::ReadError));
        let streamed: Vec<_> = library.list::<Note>().page_size(2).into_stream().take(5).collect().await;
        faults.disarm();
        assert!(matches!(&streamed[..], [Err(Error::Read(_))]), "{streamed:?}");
    })
    .await
    .unwrap();
    assert_whole(fixture, "after a newer app").await;
}

/// The model of notes in the next version of the app.
#[derive(Clone, serde::Serialize, serde::Deserialize, syncline::Syncable)]
#[sync(model = "note", schema = 2)]
struct NewerNote {
    #[sync(id)]
    id: u32,
    text: String,
    mark: u8,
}

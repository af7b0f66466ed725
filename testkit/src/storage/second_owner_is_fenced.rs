//! Two owners never both write.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Barrier, Mutex};
use std::thread;

use futures::FutureExt as _;
use futures::executor::block_on;
use syncline::{BoxError, Storage, WriteBatch};

use super::subject::{Outcome, Subject};
use crate::poll::patience;
use crate::sorted_map::SortedMap;
use crate::{Fixture, threads, watchdog};

const RACES: u32 = 8;

/// Goal: one writer at a time. Method: open a second store beside the first and let both write, one opening after the
/// other, then both at once from two threads. Owners in two processes are a matter of each store's own tests.
///
/// # Panics
/// If the store breaks the property.
pub async fn second_owner_is_fenced<F: Fixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut first = Subject::open("second_owner_is_fenced", fixture).await;
    first.write("the only owner writes", put(b"first")).await;
    second_opener(&mut first).await;
    for race in 0..RACES {
        opening_race(&mut first, race).await;
    }
}

fn put(key: &[u8]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(key, *b"");
    batch
}

async fn second_opener<F: Fixture>(first: &mut Subject<'_, F>) {
    let mut expected = first.state("before a second opener").await;
    // A refusal must leave the lock as it is: the next opener is refused too.
    for opener in 0_u8..3 {
        match second_opening(first) {
            Err(_) => {
                let step = format!("opener {opener} beside the first was refused");
                first.write(&step, put(&[b'f', opener])).await;
                expected.insert(vec![b'f', opener], Vec::new());
                first.expect(&step, &expected).await;
            }
            Ok(second) => {
                taken_over(first, second, &mut expected).await;
                break;
            }
        }
    }
    first.reopen("after both owners").await;
    first.expect("after both owners, reopened", &expected).await;
}

async fn taken_over<F: Fixture>(first: &mut Subject<'_, F>, second: F::Store, expected: &mut SortedMap) {
    let step = "a second opener took over";
    for attempt in [&b"fenced"[..], b"fenced again"] {
        match first.try_write(put(attempt)).await {
            Outcome::Fenced => {}
            other => first.fail(step, format_args!("a write of the first ended with {other}, not Fenced")),
        }
    }
    if let Err(error) = second.write(put(b"second")).await {
        first.fail(step, format_args!("its write failed: {error}"));
    }
    expected.insert(b"second".to_vec(), Vec::new());
    // The second store stays open while the first one is dropped, which must not release the second one's
    // place.
    first.close();
    if let Err(error) = second.write(put(b"second again")).await {
        first.fail(step, format_args!("its write failed after the first was dropped: {error}"));
    }
    expected.insert(b"second again".to_vec(), Vec::new());
}

/// Opens the store a second time. An opener that waits for the first one may block its thread, so it has one of its own;
/// if it waits for too long, the first one goes, so that the thread can end.
fn second_opening<F: Fixture>(first: &mut Subject<'_, F>) -> Result<F::Store, BoxError> {
    watchdog::step("a second opener");
    let fixture = first.fixture();
    let opened = thread::scope(|scope| {
        let (send, opened) = channel();
        let open = move || send.send(block_on(fixture.open()));
        let opener = thread::Builder::new().name("a second opener".into());
        opener.spawn_scoped(scope, open).expect("a thread starts");
        let opened = opened.recv_timeout(patience());
        if opened.is_err() {
            first.close();
        }
        opened
    });
    match opened {
        Ok(opened) => opened,
        Err(RecvTimeoutError::Timeout) => first.fail(
            "a second opener",
            format_args!("it has waited for {} s: it must be refused, or take over", patience().as_secs()),
        ),
        Err(RecvTimeoutError::Disconnected) => first.fail("a second opener", "it panicked"),
    }
}

async fn opening_race<F: Fixture>(subject: &mut Subject<'_, F>, race: u32) {
    let step = format!("race {race} of two openers");
    subject.close();
    let fixture = subject.fixture();
    let opened = Mutex::new(Vec::new());
    let start = Barrier::new(2);
    let opening = || {
        async {
            start.wait();
            if let Ok(store) = fixture.open().await {
                opened.lock().expect("no opener panics while it holds the list").push(store);
            }
        }
        .boxed()
    };
    threads::run_all(vec![opening(), opening()]);

    let stores = opened.into_inner().expect("no opener panics while it holds the list");
    let mut wrote = vec![false; stores.len()];
    // Every store writes twice: one that is fenced must not have written before that.
    for _ in 0..2 {
        for (store, wrote) in stores.iter().zip(&mut wrote) {
            match Outcome::of(&store.write(put(b"race")).await) {
                Outcome::Ok => *wrote = true,
                Outcome::Fenced => {}
                other => subject.fail(&step, format_args!("a write ended with {other}, not Ok or Fenced")),
            }
        }
    }
    match wrote.iter().filter(|wrote| **wrote).count() {
        0 if stores.is_empty() => {}
        1 => {}
        writers => subject.fail(&step, format_args!("{writers} of {} owners could write", stores.len())),
    }
    drop(stores);
    subject.reopen(step).await;
}

//! A job sees the writes before it and the batches that it has applied itself. Nobody else sees those before it ends.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use syncline::{JoinJob, JoinStorage as _, JoinTx, Key, KeyRange, Storage as _, Value, WriteBatch};

use super::subject::Both;
use super::work::Work;
use crate::sorted_map::{self, SortedMap, bytes};
use crate::storage::samples::{NASTY_KEYS, nasty_state, numbered_batch, replacing};
use crate::storage::subject::Subject;
use crate::{JoinFixture, block_on};

/// Goal: a job reads its own transaction. Method: nasty keys, twice each and out of order, before and after each of
/// several batches that a job applies, against a sorted map, with writes between the joins; then a reader outside, for
/// which the job waits.
///
/// # Panics
/// If the store breaks the property.
pub async fn join_sees_its_own_writes<F: JoinFixture>(fresh: &impl Fn() -> F) {
    let fixture = &fresh();
    let mut subject = Subject::open("join_sees_its_own_writes", fixture).await;
    subject.write("filling the store", replacing(&nasty_state())).await;
    let mut state = Both { entries: nasty_state(), ..Both::default() };
    for number in 0..4 {
        let step = format!("join {number}");
        let seen = Seen::default();
        let (job, after) = looking::<F>(state.clone(), number, &seen);
        subject.join(&step, job).await;
        if let Some(difference) = seen.take() {
            subject.fail(step, difference);
        }
        state = after;
        subject.expect_both(&step, &state).await;
        // The next job must see this write too.
        let batch = numbered_batch(100 + number);
        sorted_map::apply(&mut state.entries, batch.ops());
        subject.write(format_args!("a write after {step}"), batch).await;
        if number == 1 {
            subject.reopen(&step).await;
        }
    }
    drop(subject);
    hidden_from_outside(fixture, state).await;
}

/// The first difference that a job has seen. The job itself goes on: how its store treats an error is another property.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Option<String>>>);

impl Seen {
    fn note(&self, difference: Option<String>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none() {
            *seen = difference;
        }
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A job that applies batches and changes rows, and compares everything after each step. Returns also the state after
/// it.
fn looking<F: JoinFixture>(mut state: Both, number: u32, seen: &Seen) -> (JoinJob<F::Store>, Both) {
    let mut replace = WriteBatch::new();
    replace.put(*b"a", number.to_string());
    replace.put(*b"", *b"");
    replace.delete(*b"ab");
    let mut range = WriteBatch::new();
    range.delete_range(KeyRange::new(*b"\x00", *b"a\x00"));
    range.put(*b"\x00\x00", *b"again");
    let batches = [WriteBatch::new(), replace, range, numbered_batch(number)];
    let mut expected = Vec::new();
    for (key, batch) in (0..).zip(&batches) {
        sorted_map::apply(&mut state.entries, batch.ops());
        state.rows.insert(key, format!("{number}"));
        if key == 2 {
            state.rows.remove(&1);
        }
        expected.push(state.clone());
    }
    let seen = seen.clone();
    let job = move |tx: &<F::Store as syncline::JoinStorage>::Tx<'_>| {
        for ((key, batch), expected) in (0..).zip(&batches).zip(&expected) {
            tx.apply(batch)?;
            F::put_row(tx.native(), key, &format!("{number}"))?;
            if key == 2 {
                F::delete_row(tx.native(), 1)?;
            }
            seen.note(differs(tx, &expected.entries)?.map(|what| format!("after batch {key}: {what}")));
            let rows = F::rows(tx.native())?;
            if !rows.iter().map(|(key, text)| (key, text)).eq(&expected.rows) {
                seen.note(Some(format!("after row {key}: rows {rows:?} instead of {:?}", expected.rows)));
            }
        }
        Ok(())
    };
    (Box::new(job), state)
}

/// Reads every key twice, out of order, and returns the first difference.
fn differs(tx: &impl JoinTx, expected: &SortedMap) -> Result<Option<String>, syncline::BoxError> {
    let more = [&b"first"[..], b"last", b"odd", b"even", b"absent"];
    let keys: Vec<Key> =
        NASTY_KEYS.iter().rev().chain(&more).chain(&NASTY_KEYS).map(|key| key.to_vec()).collect();
    let values = tx.get_many(&keys)?;
    if values.len() != keys.len() {
        return Ok(Some(format!("`get_many` answered {} keys with {} values", keys.len(), values.len())));
    }
    let show = |value: Option<&Value>| value.map_or_else(|| "nothing".into(), |value| bytes(value));
    let wrong = keys.iter().zip(&values).find(|(key, value)| expected.get(*key) != value.as_ref());
    Ok(wrong.map(|(key, value)| {
        let (found, expected) = (show(value.as_ref()), show(expected.get(key)));
        format!("`get_many` found {found} for {}, expected {expected}", bytes(key))
    }))
}

/// While a job waits, a reader on another thread sees the state before the job.
///
/// The job does not wait for ever: in some stores reads wait until a write has ended. Such a store shows nothing early
/// either.
async fn hidden_from_outside<F: JoinFixture>(fixture: &F, before: Both) {
    const TURNS_MAX: u32 = 100_000;
    let store = Arc::new(fixture.open().await.expect("the store opens"));
    let work = Work::new(1_000);
    let (applied, go) = mpsc::channel::<()>();
    let (answer, answered) = mpsc::channel::<SortedMap>();
    let reader = Arc::clone(&store);
    let keys: Vec<Key> =
        work.after(&before).entries.into_keys().chain(before.entries.keys().cloned()).collect();
    let outside = thread::spawn(move || {
        if go.recv().is_ok() {
            let values = block_on(reader.get_many(&keys)).unwrap_or_default();
            let found = keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?)));
            drop(answer.send(found.collect()));
        }
    });
    let seen = Arc::new(Mutex::new(None));
    let (keep, inner) = (Arc::clone(&seen), work.job::<F>());
    let job: JoinJob<F::Store> = Box::new(move |tx| {
        inner(tx)?;
        // The reader waits for this, so the send cannot fail.
        let _ = applied.send(());
        for _ in 0..TURNS_MAX {
            if let Ok(found) = answered.try_recv() {
                *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                break;
            }
            thread::yield_now();
        }
        Ok(())
    });
    let joined = store.join(job).await;
    outside.join().expect("the reader ends");
    assert!(joined.is_ok(), "join_sees_its_own_writes: a join with a reader beside it: {joined:?}");
    if let Some(found) = seen.lock().unwrap_or_else(PoisonError::into_inner).take() {
        assert!(
            found == before.entries,
            "join_sees_its_own_writes: a reader beside a join saw it before it had ended: {}",
            sorted_map::difference(&found, &before.entries)
        );
    }
}

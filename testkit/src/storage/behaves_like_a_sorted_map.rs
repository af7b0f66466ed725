//! Every sequence of calls has the answers that a sorted map would give.

use std::fmt;

use fastrand::Rng;
use syncline::{Key, KeyRange, ScanLimit, Storage as _, Value, WriteBatch, WriteOp};

use super::samples::{NASTY_KEYS, pattern, replacing};
use super::subject::Subject;
use crate::sorted_map::{self, SortedMap, bytes, show};
use crate::{Fixture, seed};

const RUNS: u64 = 24;
const STEPS: usize = 40;
const OPS_MAX: usize = 6;
const WRITES_OF_A_LIFE: u32 = 1_100;

/// The nasty keys that are used: few, so that operations meet.
const KEYS: [usize; 8] = [0, 1, 4, 5, 7, 10, 12, 14];

/// Goal: no sequence of calls can tell the store from a sorted map. Method: random batches, reads, scans and reopenings
/// over few nasty keys, the same ones every time unless `SYNCLINE_SEED` is set; a sequence that fails is cut down to
/// the steps that it needs. Then a long life, of more than a thousand writes and reads.
///
/// # Panics
/// If the store breaks the property.
pub async fn behaves_like_a_sorted_map<F: Fixture>(fixture: &F) {
    let mut subject = Subject::open("behaves_like_a_sorted_map", fixture).await;
    let seed = seed();
    for run in 0..RUNS {
        let mut random = Rng::with_seed(seed.wrapping_add(run));
        let steps: Vec<_> = (0..STEPS).map(|_| Step::random(&mut random)).collect();
        if let Err(difference) = play(&mut subject, &steps).await {
            let (steps, difference) = shrink(&mut subject, steps, difference).await;
            let rust: Vec<_> = steps.iter().map(Step::to_rust).collect();
            let rust = rust.join(", ");
            let steps: Vec<_> =
                steps.iter().enumerate().map(|(index, step)| format!("\n  {index}: {step}")).collect();
            subject.fail(
                format_args!("SYNCLINE_SEED={seed}, run {run}"),
                format_args!(
                    "{difference}, after these steps on an empty store:{}\n\
                     To play them again: syncline_testkit::storage::replay(&fixture, &[{rust}])",
                    steps.concat()
                ),
            );
        }
    }
    long_life(&mut subject).await;
}

/// What is wrong may show at the hundredth or thousandth write or read only. Each write is read back, and all of them
/// are looked for at the end.
async fn long_life<F: Fixture>(subject: &mut Subject<'_, F>) {
    let mut state = SortedMap::new();
    subject.write("before a long life", replacing(&state)).await;
    for number in 1..=WRITES_OF_A_LIFE {
        let (key, value) = ([&b"life/"[..], &number.to_be_bytes()].concat(), number.to_be_bytes().to_vec());
        let mut batch = WriteBatch::new();
        batch.put(key.clone(), value.clone());
        let step = format!("write {number} of a long life");
        subject.write(&step, batch).await;
        if subject.get(format_args!("{step}, read back"), &key).await.as_ref() != Some(&value) {
            subject.fail(step, "it returned Ok, but a read did not find it");
        }
        state.insert(key, value);
    }
    subject.expect("the end of a long life", &state).await;
    subject.reopen("the end of a long life").await;
    subject.expect("the end of a long life, reopened", &state).await;
}

/// One step of a history that [`replay`] plays.
#[derive(Clone, Debug)]
pub enum Step {
    /// Writes a batch.
    Write(Vec<WriteOp>),
    /// Reads keys.
    GetMany(Vec<Key>),
    /// Scans a range, for so many entries at most.
    Scan(KeyRange, usize),
    /// Drops the store and opens it again.
    Reopen,
}

/// Plays a history on the store of a fixture, after emptying it, and compares every answer with that of a sorted map. A
/// failure of [`behaves_like_a_sorted_map`] prints the call.
///
/// # Panics
/// If an answer differs.
pub fn replay<F: Fixture>(fixture: &F, steps: &[Step]) {
    futures::executor::block_on(async {
        let mut subject = Subject::open("replay", fixture).await;
        if let Err(difference) = play(&mut subject, steps).await {
            subject.fail("the steps", difference);
        }
    });
}

impl Step {
    /// The step as an expression of Rust.
    fn to_rust(&self) -> String {
        let bytes = |bytes: &[u8]| format!("b\"{}\".to_vec()", bytes.escape_ascii());
        let range = |range: &KeyRange| {
            let end =
                range.end.as_deref().map_or_else(|| "None".into(), |end| format!("Some({})", bytes(end)));
            format!("KeyRange {{ start: {}, end: {end} }}", bytes(&range.start))
        };
        let op = |op: &WriteOp| match op {
            WriteOp::Put { key, value } => {
                format!("WriteOp::Put {{ key: {}, value: {} }}", bytes(key), bytes(value))
            }
            WriteOp::Delete { key } => format!("WriteOp::Delete {{ key: {} }}", bytes(key)),
            WriteOp::DeleteRange { range: deleted } => {
                format!("WriteOp::DeleteRange {{ range: {} }}", range(deleted))
            }
        };
        match self {
            Self::Write(ops) => {
                format!("Step::Write(vec![{}])", ops.iter().map(op).collect::<Vec<_>>().join(", "))
            }
            Self::GetMany(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| bytes(key)).collect();
                format!("Step::GetMany(vec![{}])", keys.join(", "))
            }
            Self::Scan(scanned, usize::MAX) => format!("Step::Scan({}, usize::MAX)", range(scanned)),
            Self::Scan(scanned, limit) => format!("Step::Scan({}, {limit})", range(scanned)),
            Self::Reopen => "Step::Reopen".into(),
        }
    }

    fn random(random: &mut Rng) -> Self {
        match random.u8(0..16) {
            0..8 => Self::Write((0..random.usize(0..=OPS_MAX)).map(|_| op(random)).collect()),
            8..11 => Self::GetMany((0..random.usize(0..=OPS_MAX)).map(|_| key(random)).collect()),
            11..15 => {
                let limit = if random.bool() { random.usize(0..=KEYS.len()) } else { usize::MAX };
                Self::Scan(range(random), limit)
            }
            _ => Self::Reopen,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(ops) => write!(f, "write [{}]", sorted_map::show_ops(ops)),
            Self::GetMany(keys) => {
                let keys: Vec<_> = keys.iter().map(|key| bytes(key)).collect();
                write!(f, "get [{}]", keys.join(", "))
            }
            Self::Scan(range, usize::MAX) => write!(f, "scan {}", sorted_map::show_range(range)),
            Self::Scan(range, limit) => write!(f, "scan {}, at most {limit}", sorted_map::show_range(range)),
            Self::Reopen => f.write_str("reopen"),
        }
    }
}

fn key(random: &mut Rng) -> Key {
    NASTY_KEYS[KEYS[random.usize(0..KEYS.len())]].to_vec()
}

fn range(random: &mut Rng) -> KeyRange {
    match random.u8(0..4) {
        0 => KeyRange { start: key(random), end: None },
        1 => KeyRange::prefix(key(random)),
        // Backward ranges come as often as forward ones.
        _ => KeyRange::new(key(random), key(random)),
    }
}

fn op(random: &mut Rng) -> WriteOp {
    match random.u8(0..8) {
        0..5 => {
            let len = [0, 0, 1, 8, 200, 5_000][random.usize(0..6)];
            WriteOp::Put { key: key(random), value: pattern(len, random.u8(..)) }
        }
        5..7 => WriteOp::Delete { key: key(random) },
        _ => WriteOp::DeleteRange { range: range(random) },
    }
}

/// Plays `steps` on an emptied store and returns the first difference.
async fn play<F: Fixture>(subject: &mut Subject<'_, F>, steps: &[Step]) -> Result<(), String> {
    let mut model = SortedMap::new();
    let emptied = subject.store().write(replacing(&model)).await;
    emptied.map_err(|error| format!("emptying the store: {error}"))?;
    compare(subject, &model).await.map_err(|what| format!("emptying the store: {what}"))?;
    for (index, step) in steps.iter().enumerate() {
        take(subject, &mut model, step).await.map_err(|what| format!("step {index}: {what}"))?;
    }
    compare(subject, &model).await.map_err(|what| format!("after the last step: {what}"))
}

async fn take<F: Fixture>(
    subject: &mut Subject<'_, F>,
    model: &mut SortedMap,
    step: &Step,
) -> Result<(), String> {
    match step {
        Step::Write(ops) => {
            let written = subject.store().write(ops.clone().into()).await;
            written.map_err(|error| error.to_string())?;
            sorted_map::apply(model, ops);
        }
        Step::GetMany(keys) => {
            let found = subject.store().get_many(keys).await.map_err(|error| error.to_string())?;
            let expected: Vec<_> = keys.iter().map(|key| model.get(key).cloned()).collect();
            if found != expected {
                return Err(format!("found {}, expected {}", show_values(&found), show_values(&expected)));
            }
        }
        Step::Scan(range, limit) => {
            let page = subject.store().scan(range.clone(), ScanLimit::entries(*limit)).await;
            let page = page.map_err(|error| error.to_string())?;
            let (found, expected) = (page.entries, sorted_map::scan(model, range, *limit));
            let is_right = if page.more { expected.starts_with(&found) } else { found == expected };
            if !is_right {
                return Err(format!("found {}, expected {}", show(&found), show(&expected)));
            }
        }
        Step::Reopen => {
            subject.try_reopen().await?;
            compare(subject, model).await?;
        }
    }
    Ok(())
}

async fn compare<F: Fixture>(subject: &Subject<'_, F>, model: &SortedMap) -> Result<(), String> {
    let found = subject.store().scan(KeyRange::all(), ScanLimit::NONE).await;
    let found = sorted_map::from_entries(found.map_err(|error| error.to_string())?.entries);
    if found == *model {
        return Ok(());
    }
    Err(format!("the state differs: {}", sorted_map::difference(&found, model)))
}

/// Leaves out steps, and then operations of batches, as long as what remains still fails.
async fn shrink<F: Fixture>(
    subject: &mut Subject<'_, F>,
    mut steps: Vec<Step>,
    mut difference: String,
) -> (Vec<Step>, String) {
    // Leave out halves first and single steps last.
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(start..(start + size).min(steps.len()));
            match replay_reopened(subject, &fewer).await {
                Some(still) => (steps, difference) = (fewer, still),
                None => start += size,
            }
        }
        size /= 2;
    }
    for index in 0..steps.len() {
        let mut op = 0;
        while matches!(&steps[index], Step::Write(ops) if op < ops.len()) {
            let mut fewer = steps.clone();
            if let Step::Write(ops) = &mut fewer[index] {
                ops.remove(op);
            }
            match replay_reopened(subject, &fewer).await {
                Some(still) => (steps, difference) = (fewer, still),
                None => op += 1,
            }
        }
    }
    shrink_values(subject, steps, difference).await
}

/// Makes values shorter, as long as what remains still fails.
async fn shrink_values<F: Fixture>(
    subject: &mut Subject<'_, F>,
    mut steps: Vec<Step>,
    mut difference: String,
) -> (Vec<Step>, String) {
    for index in 0..steps.len() {
        let ops = if let Step::Write(ops) = &steps[index] { ops.len() } else { 0 };
        for op in 0..ops {
            for len in [0, 1, 8, 200] {
                let mut shorter = steps.clone();
                match &mut shorter[index] {
                    Step::Write(ops) => match &mut ops[op] {
                        WriteOp::Put { value, .. } if value.len() > len => value.truncate(len),
                        _ => break,
                    },
                    _ => break,
                }
                if let Some(still) = replay_reopened(subject, &shorter).await {
                    (steps, difference) = (shorter, still);
                    break;
                }
            }
        }
    }
    (steps, difference)
}

/// Plays `steps` on a reopened store and returns the first difference; `None` also if the store does not open any more.
async fn replay_reopened<F: Fixture>(subject: &mut Subject<'_, F>, steps: &[Step]) -> Option<String> {
    subject.try_reopen().await.ok()?;
    play(subject, steps).await.err()
}

fn show_values(values: &[Option<Value>]) -> String {
    let values: Vec<_> =
        values.iter().map(|value| value.as_deref().map_or_else(|| "nothing".into(), bytes)).collect();
    format!("[{}]", values.join(", "))
}

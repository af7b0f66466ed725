//! Every sequence of calls has the answers that a sorted map would give.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fastrand::Rng;
use syncline::{Key, KeyRange, ScanLimit, Storage as _, Value, WriteBatch, WriteOp};

use super::samples::{NASTY_KEYS, pattern, replacing};
use super::subject::Subject;
use crate::sorted_map::{self, SortedMap, bytes, show};
use crate::{Fixture, seed, watchdog};

const PROPERTY: &str = "behaves_like_a_sorted_map";
const RUNS: u64 = 24;
const STEPS: usize = 40;
const OPS_MAX: usize = 6;
const WRITES_OF_A_LIFE: u32 = 1_100;

/// The nasty keys that are used: few, so that operations meet.
const KEYS: [usize; 9] = [0, 1, 6, 7, 8, 11, 14, 16, 18];

/// Goal: no sequence of calls can tell the store from a sorted map. Method: random batches, reads, scans and reopenings
/// over few nasty keys, each at a place of its own, the same ones every time unless `SYNCLINE_SEED` is set; a sequence that
/// fails is cut down to the steps, keys and values that it needs. Then a long life, of more than a thousand writes and reads.
///
/// # Panics
/// If the store breaks the property.
pub async fn behaves_like_a_sorted_map<F: Fixture>(fresh: &impl Fn() -> F) {
    let seed = seed();
    for run in 0..RUNS {
        let mut random = Rng::with_seed(seed.wrapping_add(run));
        let steps: Vec<_> = (0..STEPS).map(|_| Step::random(&mut random)).collect();
        watchdog::step(format_args!("run {run} of seed {seed}"));
        if let Err(difference) = play_afresh(fresh, &steps).await {
            let (steps, difference) = shrink(fresh, steps, difference).await;
            let rust: Vec<_> = steps.iter().map(Step::to_rust).collect();
            let rust = rust.join(", ");
            let steps: Vec<_> =
                steps.iter().enumerate().map(|(index, step)| format!("\n  {index}: {step}")).collect();
            panic!(
                "{PROPERTY}: SYNCLINE_SEED={seed}, run {run}: {difference}, after these steps on an empty store:{}\n\
                 To play them again: syncline_testkit::storage::replay(&fixture, &[{rust}])",
                steps.concat()
            );
        }
    }
    long_life(&mut Subject::open(PROPERTY, &fresh()).await).await;
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

    /// Shows all keys of the step, and the bounds of its ranges.
    fn each_key(&mut self, each: &mut impl FnMut(&mut Key)) {
        let of_range = |range: &mut KeyRange, each: &mut dyn FnMut(&mut Key)| {
            each(&mut range.start);
            range.end.as_mut().map(each);
        };
        match self {
            Self::Write(ops) => {
                for op in ops {
                    match op {
                        WriteOp::Put { key, .. } | WriteOp::Delete { key } => each(key),
                        WriteOp::DeleteRange { range } => of_range(range, each),
                    }
                }
            }
            Self::GetMany(keys) => keys.iter_mut().for_each(each),
            Self::Scan(range, _) => of_range(range, each),
            Self::Reopen => {}
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

/// Plays `steps` at a place of their own and returns the first difference.
async fn play_afresh<F: Fixture>(fresh: &impl Fn() -> F, steps: &[Step]) -> Result<(), String> {
    let fixture = fresh();
    let mut subject = Subject::closed(PROPERTY, &fixture);
    subject.try_reopen().await.map_err(|error| format!("the store could not be opened: {error}"))?;
    play(&mut subject, steps).await
}

/// A history that fails, while it is cut down.
struct Shrinking<'f, M> {
    fresh: &'f M,
    steps: Vec<Step>,
    /// How it fails.
    difference: String,
    tries: u32,
}

/// A try opens a store at a place of its own. More of them would make a message clearer, but not sooner.
const TRIES_MAX: u32 = 1_000;

/// Leaves out steps and operations of batches, and makes keys and values shorter, as long as what remains still fails.
async fn shrink<F: Fixture>(
    fresh: &impl Fn() -> F,
    steps: Vec<Step>,
    difference: String,
) -> (Vec<Step>, String) {
    let mut shrinking = Shrinking { fresh, steps, difference, tries: 0 };
    shrinking.leave_out_steps().await;
    shrinking.leave_out_ops().await;
    shrinking.shorten_keys().await;
    shrinking.shorten_values().await;
    (shrinking.steps, shrinking.difference)
}

impl<F: Fixture, M: Fn() -> F> Shrinking<'_, M> {
    /// Goes on with `steps` if they fail too; returns whether they do.
    async fn keep(&mut self, steps: Vec<Step>) -> bool {
        if self.tries == TRIES_MAX {
            return false;
        }
        self.tries += 1;
        let played = play_afresh(self.fresh, &steps).await;
        if let Err(difference) = played {
            (self.steps, self.difference) = (steps, difference);
            return true;
        }
        false
    }

    /// Leaves out halves first and single steps last.
    async fn leave_out_steps(&mut self) {
        let mut size = self.steps.len() / 2;
        while size > 0 {
            let mut start = 0;
            while start < self.steps.len() {
                let mut fewer = self.steps.clone();
                fewer.drain(start..(start + size).min(fewer.len()));
                if !self.keep(fewer).await {
                    start += size;
                }
            }
            size /= 2;
        }
    }

    async fn leave_out_ops(&mut self) {
        for index in 0..self.steps.len() {
            let mut op = 0;
            loop {
                let mut fewer = self.steps.clone();
                match &mut fewer[index] {
                    Step::Write(ops) if op < ops.len() => drop(ops.remove(op)),
                    _ => break,
                }
                if !self.keep(fewer).await {
                    op += 1;
                }
            }
        }
    }

    /// Gives keys and bounds short names, all at once if that fails too, or one by one. Their order may be what fails, and
    /// so may their bytes: then they stay as they are.
    async fn shorten_keys(&mut self) {
        let names = |steps: &[Step]| {
            let mut names = BTreeSet::new();
            for step in steps {
                step.clone().each_key(&mut |key| {
                    names.insert(key.clone());
                });
            }
            names.remove(&Key::new());
            names
        };
        let old = names(&self.steps);
        let short: BTreeMap<_, _> = old.iter().cloned().zip((b'a'..=b'z').map(|name| vec![name])).collect();
        if self.keep(renamed(&self.steps, &short)).await {
            return;
        }
        for (key, name) in short {
            let is_shorter = name != key && !names(&self.steps).contains(&name);
            if is_shorter && !(key.len() == 1 && key[0].is_ascii_alphanumeric()) {
                let one = BTreeMap::from([(key, name)]);
                self.keep(renamed(&self.steps, &one)).await;
            }
        }
    }

    async fn shorten_values(&mut self) {
        for index in 0..self.steps.len() {
            let ops = if let Step::Write(ops) = &self.steps[index] { ops.len() } else { 0 };
            for op in 0..ops {
                for short in [Value::new(), b"v".to_vec(), vec![b'v'; 8], vec![b'v'; 200], vec![b'v'; 5_000]]
                {
                    let mut shorter = self.steps.clone();
                    let Step::Write(ops) = &mut shorter[index] else { break };
                    match &mut ops[op] {
                        WriteOp::Put { value, .. } if value.len() >= short.len() && *value != short => {
                            *value = short;
                        }
                        _ => break,
                    }
                    if self.keep(shorter).await {
                        break;
                    }
                }
            }
        }
    }
}

fn renamed(steps: &[Step], names: &BTreeMap<Key, Key>) -> Vec<Step> {
    let mut steps = steps.to_vec();
    for step in &mut steps {
        step.each_key(&mut |key| {
            if let Some(name) = names.get(key) {
                key.clone_from(name);
            }
        });
    }
    steps
}

fn show_values(values: &[Option<Value>]) -> String {
    let values: Vec<_> =
        values.iter().map(|value| value.as_deref().map_or_else(|| "nothing".into(), bytes)).collect();
    format!("[{}]", values.join(", "))
}

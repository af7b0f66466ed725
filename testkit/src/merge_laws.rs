//! The laws of a model's own merge, checked for an app's model.
//!
//! An app names the model and how a value of it is drawn; all values must be of one record, so of one id:
//!
//! ```
//! use std::collections::BTreeSet;
//!
//! use serde::{Deserialize, Serialize};
//! use syncline::Syncable;
//!
//! #[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
//! #[sync(model = "basket", merge = Basket::united)]
//! struct Basket {
//!     #[sync(id)]
//!     id: u32,
//!     items: BTreeSet<u8>,
//! }
//!
//! impl Basket {
//!     fn united(mut self, other: Self) -> Self {
//!         self.items.extend(other.items);
//!         self
//!     }
//! }
//!
//! syncline_testkit::merge_laws!(basket, Basket, |random| Basket {
//!     id: 7,
//!     items: (0..random.usize(..4)).map(|_| random.u8(..8)).collect(),
//! });
//! # // The tests of a documentation example do not run, so the list runs by hand.
//! # for law in syncline_testkit::merge_laws::laws::<Basket>() {
//! #     law.check(|random| Basket { id: 7, items: (0..random.usize(..4)).map(|_| random.u8(..8)).collect() });
//! # }
//! ```
//!
//! `cargo test` then prints `basket::merge_is_commutative ... ok` and five more lines. The values are drawn from the
//! [seed], together with what merging makes of them. Draw small values: ties and overlaps find faults. A
//! failure prints the shortest values that break the law, as Rust prints them:
//!
//! ```text
//! merge_is_commutative: the model `list` (app::List): a.merge(b) is not b.merge(a)
//!   a = List { id: 7, items: [1] }
//!   b = List { id: 7, items: [2] }
//!   a.merge(b) = List { id: 7, items: [1, 2] }
//!   b.merge(a) = List { id: 7, items: [2, 1] }
//! the shortest of 11 found; the values are drawn from SYNCLINE_SEED=24301
//! ```
//!
//! Values are compared by their [encoding](syncline::encode), since that is what replicas compare.

use std::any::type_name;
use std::fmt::{self, Debug, Write as _};

use syncline::Syncable;

use crate::quiet::{catch_quietly, text_of};
use crate::seed;

pub use fastrand::Rng;

/// How many values are drawn, and how many more are made by merging two of them.
const DRAWN: usize = 200;
const MERGED: usize = 100;
/// How many values are taken in pairs, and how many in threes.
const IN_PAIRS: usize = 60;
const IN_THREES: usize = 20;
/// How many damaged encodings are tried of each value.
const DAMAGED: usize = 40;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all laws.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_merge_law {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            merge_is_commutative
            merge_is_associative
            merge_is_idempotent
            merge_is_deterministic
            merge_never_panics
            merge_keeps_the_id
        }
    };
}

/// Makes a module of the given name with one test for each law that a model's own merge must keep.
///
/// The function gets a generator of random numbers and draws a value; see the [laws](mod@crate::merge_laws).
#[macro_export]
macro_rules! merge_laws {
    ($module:ident, $model:ty, $draw:expr $(,)?) => {
        $crate::for_each_merge_law! { [$crate::merge_law_tests] $module, $model, $draw }
    };
}

/// Makes a module with one test for each law.
#[doc(hidden)]
#[macro_export]
macro_rules! merge_law_tests {
    ([$module:ident, $model:ty, $draw:expr] $($law:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the model may need nothing from outside")]
            use super::*;

            $(
                #[test]
                fn $law() {
                    const {
                        assert!(
                            <$model as ::syncline::Syncable>::OWN_MERGE,
                            "the model has no merge of its own: the higher stamp wins, and there is nothing to check"
                        );
                    }
                    let draw: fn(&mut $crate::merge_laws::Rng) -> $model = $draw;
                    $crate::merge_laws::$law::<$model>(draw);
                }
            )*
        }
    };
}

/// One law, for callers that choose models or laws at run time.
pub struct Law<M> {
    /// The name of the law.
    pub name: &'static str,
    check: fn(fn(&mut Rng) -> M),
}

impl<M> Law<M> {
    /// Checks the law for the values that `draw` draws.
    ///
    /// # Panics
    /// If the model breaks the law.
    pub fn check(&self, draw: fn(&mut Rng) -> M) {
        (self.check)(draw);
    }
}

impl<M> Debug for Law<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Law").field(&self.name).finish()
    }
}

/// Returns all laws.
#[must_use]
pub fn laws<M: Syncable + Debug>() -> Vec<Law<M>> {
    macro_rules! list {
        ([] $($law:ident)*) => { vec![$(Law { name: stringify!($law), check: $law::<M> }),*] };
    }
    for_each_merge_law!([list])
}

/// Goal: C8, `a.merge(b)` is `b.merge(a)`: two devices that hear of two commits in different orders agree. Method: pairs,
/// the shortest first.
///
/// # Panics
/// If the model breaks the law.
pub fn merge_is_commutative<M: Syncable + Debug>(draw: fn(&mut Rng) -> M) {
    let values = Values::drawn("merge_is_commutative", draw);
    values.pairs("a.merge(b) is not b.merge(a)", |[a, b]| {
        let (one, other) = (merged(a, b)?, merged(b, a)?);
        Ok((bytes(&one) != bytes(&other)).then(|| shown([("a.merge(b)", &one), ("b.merge(a)", &other)])))
    });
}

/// Goal: C8, `a.merge(b).merge(c)` is `a.merge(b.merge(c))`: it does not matter who merged what before. Method: threes, the
/// shortest first.
///
/// # Panics
/// If the model breaks the law.
pub fn merge_is_associative<M: Syncable + Debug>(draw: fn(&mut Rng) -> M) {
    let values = Values::drawn("merge_is_associative", draw);
    values.threes("a.merge(b).merge(c) is not a.merge(b.merge(c))", |[a, b, c]| {
        let (left, right) = (merged(&merged(a, b)?, c)?, merged(a, &merged(b, c)?)?);
        let differ = bytes(&left) != bytes(&right);
        Ok(differ.then(|| shown([("a.merge(b).merge(c)", &left), ("a.merge(b.merge(c))", &right)])))
    });
}

/// Goal: C8, a value that is merged again changes nothing: a commit may come twice, or again inside a value that was merged
/// elsewhere. Method: `a.merge(a)` is `a`, and `a.merge(b).merge(b)` is `a.merge(b)`.
///
/// # Panics
/// If the model breaks the law.
pub fn merge_is_idempotent<M: Syncable + Debug>(draw: fn(&mut Rng) -> M) {
    let values = Values::drawn("merge_is_idempotent", draw);
    values.singles("a.merge(a) is not a", |[a]| {
        let twice = merged(a, a)?;
        Ok((bytes(&twice) != bytes(a)).then(|| shown([("a.merge(a)", &twice)])))
    });
    values.pairs("a.merge(b).merge(b) is not a.merge(b)", |[a, b]| {
        let once = merged(a, b)?;
        let twice = merged(&once, b)?;
        Ok((bytes(&twice) != bytes(&once))
            .then(|| shown([("a.merge(b)", &once), ("a.merge(b).merge(b)", &twice)])))
    });
}

/// Goal: C8, the same input gives the same bytes, on every device and at any time. Method: each value is encoded, read and
/// encoded again; each pair is merged twice, the second time from values that were read.
///
/// # Panics
/// If the model breaks the law.
pub fn merge_is_deterministic<M: Syncable + Debug>(draw: fn(&mut Rng) -> M) {
    let values = Values::drawn("merge_is_deterministic", draw);
    values.singles("a has other bytes after it was encoded and read", |[a]| {
        let read = reread(a)?;
        Ok((bytes(&read) != bytes(a)).then(|| shown([("a, read", &read)])))
    });
    values.pairs("a.merge(b) has other bytes the second time", |[a, b]| {
        let (one, other) = (merged(a, b)?, merged(&reread(a)?, &reread(b)?)?);
        Ok((bytes(&one) != bytes(&other))
            .then(|| shown([("a.merge(b)", &one), ("a.merge(b), again", &other)])))
    });
}

/// Goal: C8, any two values of a record can be merged: a panic leaves both of them on every device until the app is mended.
/// Method: pairs of drawn values, and pairs with whatever can be read from their encodings with bytes changed.
///
/// # Panics
/// If the model breaks the law.
pub fn merge_never_panics<M: Syncable + Debug>(draw: fn(&mut Rng) -> M) {
    let values = Values::drawn("merge_never_panics", draw);
    let merges = |[a, b]: [&M; 2]| Ok(merged(a, b).and_then(|both| merged(&both, a)).err());
    values.pairs("a.merge(b) fails", merges);
    let odd = values.with_damaged();
    odd.pairs("a.merge(b) fails, of values that nobody drew and that can be read all the same", merges);
}

/// Goal: C8, the record that two values of a record are merged to is the same record. Method: pairs.
///
/// # Panics
/// If the model breaks the law.
pub fn merge_keeps_the_id<M: Syncable + Debug>(draw: fn(&mut Rng) -> M) {
    let values = Values::drawn("merge_keeps_the_id", draw);
    values.pairs("a.merge(b) has another id", |[a, b]| {
        let both = merged(a, b)?;
        Ok((both.sync_id() != a.sync_id()).then(|| shown([("a.merge(b)", &both)])))
    });
}

/// Values of one record, the shortest first.
struct Values<M> {
    law: &'static str,
    seed: u64,
    values: Vec<M>,
}

impl<M: Syncable + Debug> Values<M> {
    fn drawn(law: &'static str, draw: fn(&mut Rng) -> M) -> Self {
        let seed = seed();
        let mut random = Rng::with_seed(seed);
        let mut values: Vec<M> = (0..DRAWN).map(|_| draw(&mut random)).collect();
        if let Some(other) = values.iter().find(|value| value.sync_id() != values[0].sync_id()) {
            panic!(
                "{law}: the values that are drawn must be of one record: draw the same id every time\n  {:?}\n  {other:?}",
                values[0]
            );
        }
        for _ in 0..MERGED {
            let (a, b) = (random.usize(..values.len()), random.usize(..values.len()));
            // A merge that fails is the matter of a law of its own.
            values.extend(merged(&values[a], &values[b]).ok());
        }
        Self { law, seed, values }.sorted()
    }

    fn sorted(mut self) -> Self {
        self.values.sort_by_cached_key(|value| {
            let bytes = bytes(value);
            (bytes.len(), bytes)
        });
        self.values.dedup_by_key(|value| bytes(value));
        self
    }

    /// Values that can be read from the encodings of these with some bytes changed, beside these.
    fn with_damaged(&self) -> Self {
        let mut random = Rng::with_seed(self.seed);
        let mut values = Vec::new();
        let id = self.values[0].sync_id();
        for value in self.some(IN_PAIRS) {
            for _ in 0..DAMAGED {
                let mut bytes = bytes(value);
                for _ in 0..random.usize(1..4) {
                    let at = random.usize(..bytes.len().max(1));
                    match (bytes.get_mut(at), random.u8(..4)) {
                        (Some(byte), 0) => *byte = random.u8(..),
                        (Some(byte), 1) => *byte ^= 1 << random.u8(..8),
                        (Some(byte), 2) => *byte = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
                        _ => bytes.insert(at.min(bytes.len()), [0, 1, 0x7f, 0xff][random.usize(..4)]),
                    }
                }
                let read = catch_quietly(|| syncline::decode::<M>(&bytes).ok()).ok().flatten();
                values.extend(read.filter(|value| value.sync_id() == id));
            }
        }
        Self { law: self.law, seed: self.seed, values }.sorted()
    }

    /// So many values: the shortest, and some of the rest.
    fn some(&self, count: usize) -> Vec<&M> {
        let (short, rest) = self.values.split_at(self.values.len().min(count / 2));
        let step = rest.len().div_ceil(count.div_ceil(2)).max(1);
        short.iter().chain(rest.iter().step_by(step)).collect()
    }

    fn singles(&self, what: &str, broken: impl Fn([&M; 1]) -> Result<Option<String>, String>) {
        self.check(what, self.values.iter().map(|a| [a]), broken);
    }

    fn pairs(&self, what: &str, broken: impl Fn([&M; 2]) -> Result<Option<String>, String>) {
        let some = self.some(IN_PAIRS);
        self.check(what, some.iter().flat_map(|a| some.iter().map(|b| [*a, *b])), broken);
    }

    fn threes(&self, what: &str, broken: impl Fn([&M; 3]) -> Result<Option<String>, String>) {
        let some = &self.some(IN_THREES);
        let pairs = some.iter().flat_map(|a| some.iter().map(move |b| [*a, *b]));
        self.check(what, pairs.flat_map(|[a, b]| some.iter().map(move |c| [a, b, *c])), broken);
    }

    /// Fails with the shortest values that `broken` finds: it returns what they make. Values whose merge fails are left to
    /// `merge_never_panics`, unless that asks.
    fn check<'v, const N: usize>(
        &'v self,
        what: &str,
        values: impl Iterator<Item = [&'v M; N]>,
        broken: impl Fn([&M; N]) -> Result<Option<String>, String>,
    ) where
        M: 'v,
    {
        let mut found: Vec<([&M; N], String)> = Vec::new();
        for values in values {
            if let Ok(Some(makes)) = broken(values) {
                found.push((values, makes));
            }
        }
        let count = found.len();
        let len = |values: &[&M; N]| values.iter().map(|value| bytes::<M>(value).len()).sum::<usize>();
        let Some((values, makes)) = found.into_iter().min_by_key(|(values, _)| len(values)) else { return };
        let mut text = format!("{}: the model `{}` ({}): {what}", self.law, M::SYNC_MODEL, type_name::<M>());
        for (name, value) in ["a", "b", "c"].iter().zip(values) {
            let _ = write!(text, "\n  {name} = {value:?}");
        }
        let _ = write!(text, "\n  {}", makes.trim_start());
        panic!(
            "{text}\nthe shortest of {count} found; the values are drawn from SYNCLINE_SEED={}",
            self.seed
        );
    }
}

/// The result of a merge, or why there is none.
fn merged<M: Syncable>(a: &M, b: &M) -> Result<M, String> {
    let merge = || {
        let both = a.clone().merge(b.clone());
        syncline::encode(&both).map(|_| both).map_err(|error| format!("it cannot be encoded: {error}"))
    };
    catch_quietly(merge).unwrap_or_else(|panic| Err(format!("it panics: {}", text_of(&*panic))))
}

fn reread<M: Syncable>(value: &M) -> Result<M, String> {
    syncline::decode(&bytes(value)).map_err(|error| error.to_string())
}

/// The encoding of a value; nothing if it has none, which the library says to whoever puts the value.
fn bytes<M: Syncable>(value: &M) -> Vec<u8> {
    syncline::encode(value).unwrap_or_default()
}

fn shown<M: Debug, const N: usize>(values: [(&str, &M); N]) -> String {
    values.iter().fold(String::new(), |text, (name, value)| format!("{text}\n  {name} = {value:?}"))
}

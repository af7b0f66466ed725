//! The laws of merges.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Display};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use syncline::{Shared, Syncable};
use syncline_testkit::merge_laws;
use syncline_testkit::merge_laws::{Rng, laws};

use crate::matrix::every_flaw_is_caught;

/// What the models merge: a set, a counter for each device, a text that the later edit wins, a flag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Basket<const FLAW: usize> {
    id: u32,
    items: BTreeSet<u8>,
    counts: BTreeMap<u8, u64>,
    title: (u8, String),
    list: Vec<u8>,
}

macro_rules! flaws {
    ($($law:ident { $($(#[doc = $doc:literal])+ $flaw:ident,)+ })+) => {
        /// What is wrong with a merge.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum MergeFlaw { $($($(#[doc = $doc])+ $flaw,)+)+ Nothing }

        impl MergeFlaw {
            const ALL: &[Self] = &[$($(Self::$flaw,)+)+];

            fn named_by(self) -> &'static str {
                match self {
                    $($(Self::$flaw)|+ => stringify!($law),)+
                    Self::Nothing => "nothing",
                }
            }
        }

        /// Checks the model of each flaw.
        fn check(law: &'static str, flaw: MergeFlaw) {
            match flaw {
                $($(MergeFlaw::$flaw => check_model::<{ MergeFlaw::$flaw as usize }>(law),)+)+
                MergeFlaw::Nothing => check_model::<{ MergeFlaw::Nothing as usize }>(law),
            }
        }
    };
}

flaws! {
    merge_is_commutative {
        /// The value that is there stays.
        KeepsMine,
        /// Lists are appended.
        Appends,
        /// Of two edits at the same time, the one that is merged last wins.
        TiesByArrival,
    }
    merge_is_associative {
        /// The average of two numbers.
        Averages,
        /// The sum of floats that are rounded.
        KeepsTheTwoHighest,
    }
    merge_is_idempotent {
        /// Counts of one device are added.
        Adds,
        /// The number of merges is counted.
        CountsMerges,
    }
    merge_is_deterministic {
        /// The items go through a hash set.
        HashOrder,
        /// The merge reads a counter of its process.
        ReadsAGlobal,
    }
    merge_never_panics {
        /// A merge asserts that there is room.
        AssertsRoom,
        /// A merge asserts what only this version of the app promises of a value.
        BelievesTheBytes,
    }
    merge_keeps_the_id {
        /// The id is that of the content.
        IdOfContent,
    }
}

static GLOBAL: AtomicU64 = AtomicU64::new(0);

impl<const FLAW: usize> Syncable for Basket<FLAW> {
    const SYNC_MODEL: &'static str = "basket";
    const OWN_MERGE: bool = true;
    type Id = u32;
    type Ownership = Shared;

    fn sync_id(&self) -> u32 {
        self.id
    }

    fn merge(mut self, other: Self) -> Self {
        let is = |flaw: MergeFlaw| FLAW == flaw as usize;
        if is(MergeFlaw::KeepsMine) {
            return self;
        }
        if is(MergeFlaw::AssertsRoom) {
            assert!(self.items.union(&other.items).count() < 6, "the basket is full");
        }
        if is(MergeFlaw::BelievesTheBytes) {
            assert!(self.counts.keys().all(|device| *device < 3), "there are three devices");
        }
        let (mine, theirs) = (self.counts.get(&0).copied(), other.counts.get(&0).copied());
        self.items.extend(&other.items);
        for (device, count) in other.counts {
            let mine = self.counts.entry(device).or_default();
            *mine = (*mine).max(count);
            if is(MergeFlaw::Adds) {
                *mine = mine.saturating_add(count);
            }
        }
        if is(MergeFlaw::Averages)
            && let (Some(mine), Some(theirs)) = (mine, theirs)
        {
            self.counts.insert(0, mine.midpoint(theirs));
        }
        if is(MergeFlaw::KeepsTheTwoHighest) {
            // The title depends on what was dropped before.
            let dropped: Vec<_> = self.items.iter().copied().rev().skip(2).collect();
            let lost = dropped.iter().map(|item| u64::from(*item)).sum::<u64>();
            self.items.retain(|item| !dropped.contains(item));
            *self.counts.entry(9).or_default() |= u64::from(lost > 7);
        }
        if is(MergeFlaw::CountsMerges) {
            *self.counts.entry(9).or_default() += 1;
        }
        if is(MergeFlaw::TiesByArrival) {
            if other.title.0 >= self.title.0 {
                self.title = other.title;
            }
        } else {
            self.title = self.title.max(other.title);
        }
        if is(MergeFlaw::Appends) {
            self.list.extend(other.list);
        } else {
            let both: BTreeSet<u8> = self.list.into_iter().chain(other.list).collect();
            self.list = both.into_iter().collect();
        }
        if is(MergeFlaw::HashOrder) {
            let both: HashSet<u8> = self.list.into_iter().collect();
            self.list = both.into_iter().collect();
        }
        if is(MergeFlaw::ReadsAGlobal) {
            self.counts.insert(9, GLOBAL.fetch_add(1, Ordering::Relaxed));
        }
        if is(MergeFlaw::IdOfContent) {
            self.id = u32::try_from(self.items.len()).unwrap();
        }
        self
    }
}

fn draw<const FLAW: usize>(random: &mut Rng) -> Basket<FLAW> {
    let few = |random: &mut Rng| (0..random.usize(..4)).map(|_| random.u8(..8)).collect::<BTreeSet<u8>>();
    Basket {
        id: 7,
        items: few(random),
        counts: few(random).into_iter().map(|device| (device % 3, random.u64(..5))).collect(),
        title: (random.u8(..3), ["", "a", "b", "ab"][random.usize(..4)].to_owned()),
        list: few(random).into_iter().collect(),
    }
}

fn check_model<const FLAW: usize>(name: &'static str) {
    let law = laws::<Basket<FLAW>>().into_iter().find(|law| law.name == name).unwrap();
    law.check(draw::<FLAW>);
}

impl Display for MergeFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

type Sound = Basket<{ MergeFlaw::Nothing as usize }>;

merge_laws!(basket, Sound, draw);

#[test]
fn every_broken_merge_is_caught() {
    let names: Vec<_> = laws::<Sound>().iter().map(|law| law.name).collect();
    every_flaw_is_caught(&names, MergeFlaw::ALL, MergeFlaw::named_by, check);
}

/// Goal: a failure shows the shortest values, as Rust prints them. Method: lists that are appended.
#[test]
fn a_broken_law_is_shown_by_its_shortest_values() {
    let found = std::panic::catch_unwind(|| check("merge_is_commutative", MergeFlaw::Appends));
    let text = found.unwrap_err().downcast::<String>().unwrap();
    assert!(text.starts_with("merge_is_commutative: the model `basket` ("), "{text}");
    assert!(text.contains("a.merge(b) is not b.merge(a)\n  a = Basket { id: 7, items: {}"), "{text}");
    let [mine, theirs] = ["a = ", "b = "].map(|name| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_once("list: [").unwrap().1.split(']').next().unwrap().to_owned()
    });
    assert!(mine.len() == 1 && theirs.len() == 1 && mine != theirs, "one item each is enough: {text}");
}

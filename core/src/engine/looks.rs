//! Looks at the logs here: one row of a stream, which the chain vouches for, and on demand the chain from there to the head.
//!
//! A damaged row must not be taken for a second history. So nothing is concluded from a row that was not looked at here.
//!
//! Purposes take turns, and the comparisons of a peer have one turn together: a peer whose hellos name many places starves
//! nobody.
//!
//! Owns: the looks that wait, each for its purpose, and the one under way. Holds always: one look at a time; a purpose
//! waits once, and its last place counts; no more than [`COMPARISONS_MAX`] places of a peer wait.

use std::collections::{BTreeMap, VecDeque};

use crate::ids::ReplicaId;
use crate::storage::ScanLimit;
use crate::stored::{Digest, Head, keys};

use super::Machine;
use super::chain::{ChainReader, ChainRow};
use super::io::{Answer, Query};
use super::ledger::Ledger;
use super::reads::{READ, READ_ROWS_MAX};

/// The most places of one peer that wait to be compared. A hello has one for each stream of which the peer has less; those
/// that find no room come with a later hello.
pub(super) const COMPARISONS_MAX: usize = 256;

/// The purpose of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// A comparison of a place with the word of a peer.
    Compare { peer: ReplicaId, stream: ReplicaId },
    /// A peer wants to see the row.
    Show { to: ReplicaId },
    /// The search for the place at which two histories part.
    Search,
    /// A check of what a peer once acknowledged, before it is told so.
    Acked { peer: ReplicaId },
}

/// The place to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) stream: ReplicaId,
    pub(super) seq: u64,
    /// Whether the chain is followed from there to the head.
    pub(super) walks: bool,
    /// The digest to compare with.
    pub(super) digest: Digest,
}

/// A row as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookedRow {
    pub(super) previous: Digest,
    pub(super) entry: Vec<u8>,
    /// The digest of the stream at the row.
    pub(super) digest: Digest,
}

/// The result of a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) purpose: Purpose,
    pub(super) place: Place,
    /// The row, if it is here and the chain vouches for it.
    pub(super) row: Option<LookedRow>,
    /// The place of the first damage that was met.
    pub(super) damaged: Option<u64>,
    /// The head when the look began: as far as the chain was followed.
    pub(super) head: u64,
}

impl Looked {
    /// The row, if the chain was found whole as far as it was looked at.
    pub(super) fn sound(&self) -> Option<&LookedRow> {
        self.row.as_ref().filter(|_| self.damaged.is_none())
    }
}

/// A look that is under way.
#[derive(Debug)]
struct Look {
    purpose: Purpose,
    place: Place,
    chain: ChainReader,
    row: Option<LookedRow>,
    damaged: Option<u64>,
}

impl Look {
    fn new(purpose: Purpose, place: Place, head: &Head) -> Self {
        // A row that is not here, or was pruned, is not looked for.
        let next = if place.seq > head.floor { place.seq } else { u64::MAX };
        let chain = ChainReader::new(place.stream, head.point(), next, true);
        Self { purpose, place, chain, row: None, damaged: None }
    }

    fn step(&self) -> Option<Query> {
        let (next, head) = (self.chain.next(), self.chain.head().seq);
        if self.damaged.is_some() || next > head || self.is_proven() {
            return None;
        }
        let left = usize::try_from(head - next + 1).unwrap_or(usize::MAX);
        let most = if self.place.walks { READ_ROWS_MAX } else { 2 };
        let limit = ScanLimit { entries: left.min(most), ..READ };
        Some(Query::Scan(keys::logs_from(self.place.stream, next), limit))
    }

    fn take(&mut self, answer: Answer) {
        let Answer::Page(page) = answer else { return debug_assert!(false, "{answer:?} are no rows") };
        let damaged = page.entries.iter().find_map(|row| self.add(&row.key, &row.value).err());
        let ends = || !page.more && self.chain.next() <= self.chain.head().seq;
        self.damaged = damaged.or_else(|| ends().then(|| self.chain.damaged()));
        if self.damaged.is_some_and(|seq| seq <= self.place.seq) {
            self.row = None;
        }
    }

    /// Takes the next row; fails with the place that is damaged.
    fn add(&mut self, key: &[u8], row: &[u8]) -> Result<(), u64> {
        let ChainRow { seq, previous, entry, digest, by_head } = self.chain.take(key, row)?;
        if seq == self.place.seq {
            self.row = Some(LookedRow { previous, entry: entry.to_vec(), digest });
        }
        if by_head == Some(false) { Err(seq) } else { Ok(()) }
    }

    /// Whether the row was vouched for, and no more was asked for.
    fn is_proven(&self) -> bool {
        !self.place.walks && self.chain.next() > self.place.seq.saturating_add(1)
    }

    fn finish(self) -> Looked {
        let Self { purpose, place, chain, row, damaged, .. } = self;
        Looked { purpose, place, row, damaged, head: chain.head().seq }
    }
}

/// A turn in the order of the looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    For(Purpose),
    /// One of the comparisons of this peer.
    Comparison(ReplicaId),
}

/// The looks that wait, and the one under way.
#[derive(Debug, Default)]
pub(super) struct Looks {
    waiting: BTreeMap<Purpose, Place>,
    /// The places to compare, by peer and stream.
    comparisons: BTreeMap<ReplicaId, BTreeMap<ReplicaId, Place>>,
    turns: VecDeque<Turn>,
    under_way: Option<Look>,
}

impl Looks {
    /// Takes a look that is wanted. A later one for the same purpose takes its place.
    pub(super) fn want(&mut self, purpose: Purpose, place: Place) {
        if let Purpose::Compare { peer, stream } = purpose {
            let places = self.comparisons.entry(peer).or_default();
            if places.is_empty() {
                self.turns.push_back(Turn::Comparison(peer));
            }
            places.insert(stream, place);
        } else if self.waiting.insert(purpose, place).is_none() {
            self.turns.push_back(Turn::For(purpose));
        }
    }

    /// Whether a place of a peer in a stream may wait to be compared.
    pub(super) fn has_room_for(&self, peer: ReplicaId, stream: ReplicaId) -> bool {
        let places = self.comparisons.get(&peer);
        places.is_none_or(|places| places.len() < COMPARISONS_MAX || places.contains_key(&stream))
    }

    /// Whether places of a peer are still to be compared.
    pub(super) fn compares_with(&self, peer: ReplicaId) -> bool {
        let is_of =
            |look: &Look| matches!(look.purpose, Purpose::Compare { peer: other, .. } if other == peer);
        self.comparisons.contains_key(&peer) || self.under_way.as_ref().is_some_and(is_of)
    }

    /// Begins the next look, if none is under way.
    pub(super) fn begin(&mut self, ledger: &Ledger) -> bool {
        if self.under_way.is_none()
            && let Some((purpose, place)) = self.next()
        {
            self.under_way = Some(Look::new(purpose, place, &ledger.head(place.stream)));
            return true;
        }
        false
    }

    fn next(&mut self) -> Option<(Purpose, Place)> {
        match self.turns.pop_front()? {
            Turn::For(purpose) => self.waiting.remove(&purpose).map(|place| (purpose, place)),
            Turn::Comparison(peer) => {
                let places = self.comparisons.get_mut(&peer)?;
                let place = places.pop_first();
                if places.is_empty() {
                    self.comparisons.remove(&peer);
                } else {
                    self.turns.push_back(Turn::Comparison(peer));
                }
                place.map(|(stream, place)| (Purpose::Compare { peer, stream }, place))
            }
        }
    }

    /// The next read of the look under way; or its result, which ends it.
    pub(super) fn step(&mut self) -> Option<Result<Query, Box<Looked>>> {
        let query = self.under_way.as_ref()?.step();
        match query {
            Some(query) => Some(Ok(query)),
            None => self.under_way.take().map(|look| Err(Box::new(look.finish()))),
        }
    }

    /// Takes the answer to the read.
    pub(super) fn take(&mut self, answer: Answer) {
        if let Some(look) = &mut self.under_way {
            look.take(answer);
        }
    }

    /// Gives up the look under way, since the store could not be read.
    pub(super) fn fail(&mut self) -> Option<(Purpose, Place)> {
        self.under_way.take().map(|look| (look.purpose, look.place))
    }

    #[cfg(test)]
    pub(super) fn comparisons(&self) -> usize {
        self.comparisons.values().map(BTreeMap::len).sum()
    }
}

impl Machine for Looks {
    fn check(&self) {
        assert_eq!(self.waiting.len() + self.comparisons.len(), self.turns.len(), "{self:?}");
        let waits = |turn: &Turn| match turn {
            Turn::For(purpose) => self.waiting.contains_key(purpose),
            Turn::Comparison(peer) => self.comparisons.contains_key(peer),
        };
        assert!(self.turns.iter().all(waits), "{self:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{Author, B, C, ledger};
    use super::*;
    use crate::storage::{ScanPage, Value};
    use crate::stored::log;

    /// A log of `B` with these commits, and its head.
    fn log_of(commits: usize) -> (BTreeMap<Vec<u8>, Value>, Head) {
        let mut b = Author::new(B);
        let made: Vec<_> = (0..commits).map(|_| b.note(1, "a")).collect();
        (made.into_iter().map(|made| (keys::log(B, made.seq), made.row)).collect(), b.head)
    }

    fn place(seq: u64, walks: bool) -> Place {
        Place { stream: B, seq, walks, digest: [0; 32] }
    }

    /// The result of a look, and how many rows it read.
    fn look(rows: &BTreeMap<Vec<u8>, Value>, head: &Head, place: Place) -> (Looked, usize) {
        let (mut looks, mut read) = (Looks::default(), 0);
        looks.want(Purpose::Search, place);
        let ledger = ledger([(B, *head)]);
        assert!(looks.begin(&ledger));
        loop {
            match looks.step().unwrap() {
                Err(looked) => return (*looked, read),
                Ok(Query::Scan(range, limit)) => {
                    let page = ScanPage::of(rows.iter().filter(|(key, _)| range.contains(key)), limit);
                    read += page.entries.len();
                    looks.take(Answer::Page(page));
                }
                Ok(query) => panic!("{query:?} reads no rows"),
            }
        }
    }

    #[test]
    fn a_row_is_given_if_the_chain_vouches_for_it() {
        let (rows, head) = log_of(600);
        for (seq, walks, read) in
            [(1, false, 2), (599, false, 2), (600, false, 1), (1, true, 600), (600, true, 1)]
        {
            let (looked, count) = look(&rows, &head, place(seq, walks));
            let row = looked.sound().expect("it is whole");
            assert_eq!(log::row(&row.previous, &row.entry), rows[&keys::log(B, seq)], "{seq}");
            assert_eq!((row.digest, count), (log::chain(&row.previous, &row.entry), read), "{seq}");
        }
        for nowhere in [601, 900] {
            assert_eq!(look(&rows, &head, place(nowhere, true)).0.row, None);
        }
        let pruned = Head { floor: 5, ..head };
        let (looked, count) = look(&rows, &pruned, place(5, true));
        assert_eq!((looked.row, looked.damaged, count), (None, None, 0));
    }

    #[test]
    fn every_flipped_bit_of_a_row_is_found() {
        let (rows, head) = log_of(5);
        for seq in 1..=5 {
            for at in 0..rows[&keys::log(B, seq)].len() {
                for bit in 0..8 {
                    let mut rows = rows.clone();
                    rows.get_mut(&keys::log(B, seq)).unwrap()[at] ^= 1 << bit;
                    let damaged = look(&rows, &head, place(1, true)).0.damaged;
                    // A damaged digest before a commit is found at the commit before it.
                    let before = at < 32 && seq > 1;
                    assert_eq!(damaged, Some(seq - u64::from(before)), "bit {bit} of byte {at} of {seq}");
                    let (looked, _) = look(&rows, &head, place(seq, false));
                    assert_eq!(
                        (looked.row, looked.damaged),
                        (None, Some(seq)),
                        "bit {bit} of byte {at} of {seq}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_missing_row_is_damage() {
        let (rows, head) = log_of(5);
        for (missing, found) in [(1, 1), (3, 2), (5, 4)] {
            let mut rows = rows.clone();
            rows.remove(&keys::log(B, missing));
            assert_eq!(look(&rows, &head, place(1, true)).0.damaged, Some(found), "{missing}");
        }
    }

    #[test]
    fn a_read_of_a_walk_has_as_many_rows_as_fit() {
        let (_, head) = log_of(300);
        let ledger = ledger([(B, head)]);
        for (walks, limit) in [(true, READ), (false, ScanLimit { entries: 2, ..READ })] {
            let mut looks = Looks::default();
            looks.want(Purpose::Search, place(1, walks));
            assert!(looks.begin(&ledger));
            assert_eq!(looks.step(), Some(Ok(Query::Scan(keys::logs_from(B, 1), limit))));
        }
    }

    /// A store may cut any read short. What comes then is read on, and is no damage.
    #[test]
    fn a_read_that_is_cut_short_is_read_on() {
        let (rows, head) = log_of(9);
        for (seq, walks) in [(1, true), (4, false), (9, true)] {
            let (mut looks, ledger) = (Looks::default(), ledger([(B, head)]));
            looks.want(Purpose::Search, place(seq, walks));
            assert!(looks.begin(&ledger));
            let looked = loop {
                match looks.step().unwrap() {
                    Err(looked) => break looked,
                    Ok(Query::Scan(range, _)) => {
                        let rows = rows.iter().filter(|(key, _)| range.contains(key));
                        looks.take(Answer::Page(ScanPage::of(rows, ScanLimit::entries(1))));
                    }
                    Ok(query) => panic!("{query:?} reads no rows"),
                }
            };
            assert!(looked.sound().is_some(), "{seq}");
        }
    }

    #[test]
    fn a_purpose_waits_once_and_the_last_place_counts() {
        let mut looks = Looks::default();
        let compare = Purpose::Compare { peer: C, stream: B };
        for (purpose, seq) in [(compare, 1), (Purpose::Search, 2), (compare, 3), (Purpose::Show { to: C }, 4)]
        {
            looks.want(purpose, place(seq, false));
            looks.check();
        }
        assert_eq!(looks.comparisons(), 1);
        let mut done = Vec::new();
        let ledger = ledger([]);
        while looks.begin(&ledger) {
            assert!(!looks.begin(&ledger), "one at a time");
            if let Some(Err(looked)) = looks.step() {
                done.push((looked.purpose, looked.place.seq));
            }
        }
        assert_eq!(done, [(compare, 3), (Purpose::Search, 2), (Purpose::Show { to: C }, 4)]);
    }

    /// However many hellos a peer sends, and whatever it says in them, it takes no more than its turn.
    #[test]
    fn the_hellos_of_one_peer_starve_nobody() {
        let mut looks = Looks::default();
        for hello in 1..=3 {
            for stream in (0..400).map(super::super::made::replica) {
                if looks.has_room_for(B, stream) {
                    looks.want(Purpose::Compare { peer: B, stream }, place(hello, false));
                }
            }
            looks.check();
            assert_eq!(looks.comparisons(), COMPARISONS_MAX);
        }
        looks.want(Purpose::Compare { peer: C, stream: B }, place(1, false));
        looks.want(Purpose::Search, place(1, false));
        let mut turns = Vec::new();
        let ledger = ledger([]);
        for _ in 0..4 {
            assert!(looks.begin(&ledger));
            match looks.step() {
                Some(Err(looked)) => turns.push(looked.purpose),
                other => panic!("{other:?}"),
            }
        }
        let peer = |purpose: &Purpose| match purpose {
            Purpose::Compare { peer, .. } => Some(*peer),
            _ => None,
        };
        assert_eq!(turns.iter().map(peer).collect::<Vec<_>>(), [Some(B), Some(C), None, Some(B)]);
    }
}

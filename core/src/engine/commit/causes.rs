//! Comparing causes: a commit is applied on the very commits that its author had seen, and on no other history of their
//! streams.
//!
//! A stream that was written on after a restore has two histories, and each replica has one of them. What rests on the
//! other one may name records that are not here, or undo what its author never saw. So it is refused, and its stream stops.
//!
//! A cause names the beginning of a digest. The digest here is at hand if the cause is the head of its stream, its floor,
//! or in the same write; otherwise it stands in the log row behind the cause, which is read before the records, and so is the
//! row of the cause, which must have that digest: a damaged row shows no other history.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ReplicaId;
use crate::pages;
use crate::storage::{Entry, KeyRange, ScanPage};
use crate::stored::keys::{self, StoredKey};
use crate::stored::log::{self, digest_check};
use crate::stored::{Cause, Digest};

use super::super::context::Context;
use super::super::ledger::Ledger;
use super::Received;

/// A received commit that rests on another history than the one here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    /// The place of the commit among those of its write.
    pub(crate) at: usize,
    /// The peer that sent the commit.
    pub(crate) from: ReplicaId,
    pub(crate) stream: ReplicaId,
    pub(crate) seq: u64,
    pub(crate) reason: String,
}

/// Where the digest of a cause stands.
enum Place {
    Known(Digest),
    /// In the log row behind the cause.
    Row,
    /// In the write itself, or nowhere.
    InWrite,
    /// Nowhere: its log was pruned.
    Pruned,
}

fn place(ledger: &Ledger, cause: &Cause) -> Place {
    let head = ledger.head(cause.stream);
    match cause.seq {
        seq if seq > head.seq => Place::InWrite,
        seq if seq == head.seq => Place::Known(head.digest),
        seq if seq == head.floor => Place::Known(head.floor_digest),
        seq if seq < head.floor => Place::Pruned,
        _ => Place::Row,
    }
}

/// The digests that commits have here, as far as causes name these commits.
pub(in crate::engine) type Digests = BTreeMap<(ReplicaId, u64), Digest>;

/// Reads the digests of causes from the log rows. It keeps no row: the rows of a single commit may be of any length.
#[derive(Debug, Default)]
pub(in crate::engine) struct Causes {
    /// The causes that are not looked for yet.
    wanted: BTreeSet<(ReplicaId, u64)>,
    /// The rows of neighbouring causes that were not read yet, and of the commit behind them.
    rest: Option<KeyRange>,
    /// The place and the digest of the row that was read last.
    last: Option<((ReplicaId, u64), Digest)>,
    digests: Digests,
}

impl Causes {
    /// Begins to look for the causes of `commits` whose digests stand in rows.
    pub(in crate::engine) fn new(context: &Context, ledger: &Ledger, commits: &[Received]) -> Self {
        let compared = if context.rules.causes_are_compared { commits } else { &[] };
        let causes = compared.iter().flat_map(|commit| &commit.entry.after);
        let in_rows = causes.filter(|cause| matches!(place(ledger, cause), Place::Row));
        Self { wanted: in_rows.map(|cause| (cause.stream, cause.seq)).collect(), ..Self::default() }
    }

    /// The rows to read next; `None` once all are read.
    pub(in crate::engine) fn step(&mut self) -> Option<KeyRange> {
        if self.rest.is_none() {
            let (stream, first) = self.wanted.pop_first()?;
            let mut behind = first.saturating_add(1);
            while self.wanted.remove(&(stream, behind)) {
                behind = behind.saturating_add(1);
            }
            let [rows, _] = keys::log_and_kept(stream, first, behind);
            self.rest = Some(rows);
        }
        self.rest.clone()
    }

    /// Takes rows that were read.
    pub(in crate::engine) fn take(&mut self, page: ScanPage) {
        self.rest = self.rest.take().and_then(|range| pages::rest(range, &page));
        for Entry { key, value } in page.entries {
            let before = self.last.take();
            let Some(StoredKey::Log(stream, seq)) = StoredKey::parse(&key) else { continue };
            let Ok((previous, entry)) = log::split_row(&value) else { continue };
            if let Some((place, digest)) = before
                && place == (stream, seq.saturating_sub(1))
                && digest == previous
            {
                self.digests.insert(place, digest);
            }
            self.last = Some(((stream, seq), log::chain(&previous, entry)));
        }
    }

    /// The digests that were found. Of a row that is missing or damaged there is none.
    pub(in crate::engine) fn digests(self) -> Digests {
        self.digests
    }
}

/// The first of `commits` that rests on another history, given the digests that [`Causes`] found.
pub(super) fn first_elsewhere(
    context: &Context,
    ledger: &Ledger,
    commits: &[Received],
    digests: &Digests,
) -> Option<Elsewhere> {
    if !context.rules.causes_are_compared {
        return None;
    }
    let causes = commits.iter().flat_map(|commit| &commit.entry.after);
    let any_in_write = causes.into_iter().any(|cause| matches!(place(ledger, cause), Place::InWrite));
    let mut in_write = BTreeMap::new();
    for (at, commit) in commits.iter().enumerate() {
        for cause in &commit.entry.after {
            let digest = match place(ledger, cause) {
                Place::Known(digest) => Some(digest),
                Place::InWrite => in_write.get(&(cause.stream, cause.seq)).copied(),
                Place::Row => digests.get(&(cause.stream, cause.seq)).copied(),
                Place::Pruned => None,
            };
            if digest.is_some_and(|digest| digest_check(&digest) != cause.check) {
                let Received { from, stream, seq, .. } = *commit;
                let reason =
                    format!("it rests on commit {} of {} in another history", cause.seq, cause.stream);
                return Some(Elsewhere { at, from, stream, seq, reason });
            }
        }
        if any_in_write {
            in_write.insert((commit.stream, commit.seq), commit.digest);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{Author, B, C, ME, context, head, ledger};
    use super::*;
    use crate::storage::ScanLimit;
    use crate::stored::Head;

    /// A commit of `C` that rests on a commit of `B` with the digest `digest`.
    fn rests(seq: u64, digest: Digest) -> Received {
        let mut commit = Author::new(C).note(1, "c").received();
        commit.entry.after = vec![Cause { stream: B, seq, check: digest_check(&digest) }];
        commit
    }

    /// Where each cause is looked for, and that one which differs is found there. `B` has nine commits here, of which
    /// four were pruned.
    #[test]
    fn a_cause_is_compared_wherever_its_digest_is() {
        let ledger = ledger([(ME, head(ME, 3)), (B, Head { floor: 4, floor_digest: [4; 32], ..head(B, 9) })]);
        let context = context();
        let (row, here) = (log::row(&[6; 32], b"entry"), log::chain(&[6; 32], b"entry"));
        let behind = log::row(&here, b"next");
        let rows_of = |row: &[u8], behind: &[u8]| Some([Some(row.to_vec()), Some(behind.to_vec())]);
        let whole = || rows_of(&row, &behind);
        let cases = [
            ("the head", rests(9, [9; 32]), None, true),
            ("the head, another one", rests(9, [8; 32]), None, false),
            ("the floor", rests(4, [4; 32]), None, true),
            ("the floor, another one", rests(4, [5; 32]), None, false),
            ("below the floor, where nothing is known", rests(3, [5; 32]), None, true),
            ("inside the log", rests(7, here), whole(), true),
            ("inside the log, another one", rests(7, [8; 32]), whole(), false),
            ("rows that are gone", rests(7, [8; 32]), Some([None, None]), true),
            ("a row that is cut short", rests(7, [8; 32]), rows_of(&row, &behind[..31]), true),
            (
                "a row with a flipped bit",
                rests(7, here),
                rows_of(&log::row(&[6; 32], b"eotry"), &behind),
                true,
            ),
            ("a flipped bit behind it", rests(7, here), rows_of(&row, &log::row(&[1; 32], b"next")), true),
            ("what is nowhere", rests(10, [8; 32]), None, true),
        ];
        for (case, commit, read, same) in cases {
            let commits = [commit];
            let mut causes = Causes::new(&context, &ledger, &commits);
            let asked = read.as_ref().map(|_| KeyRange::new(keys::log(B, 7), keys::log(B, 9)));
            assert_eq!(causes.step(), asked, "{case}");
            let rows = [7, 8].map(|seq| keys::log(B, seq)).into_iter().zip(read.into_iter().flatten());
            let rows = rows.filter_map(|(key, row)| Some((key, row?)));
            causes.take(ScanPage::of(rows, ScanLimit::NONE));
            assert_eq!(causes.step(), None, "{case}");
            let found = first_elsewhere(&context, &ledger, &commits, &causes.digests());
            assert_eq!(found.is_none(), same, "{case}: {found:?}");
        }
    }

    /// The first one ends the write: those behind it may rest on it.
    #[test]
    fn a_cause_in_the_same_write_is_compared_with_the_commit_there() {
        let (ledger, context) = (ledger([(ME, head(ME, 3))]), context());
        let mut b = Author::new(B);
        let (one, two) = (b.note(1, "one").received(), b.note(1, "two").received());
        let (same, other) = (rests(1, one.digest), rests(2, [8; 32]));
        let commits = [one, same, two, other];
        assert_eq!(Causes::new(&context, &ledger, &commits).step(), None);
        let none = Digests::new();
        let found = first_elsewhere(&context, &ledger, &commits, &none).unwrap();
        assert_eq!((found.at, found.stream, found.from, found.seq), (3, C, C, 1));
        assert!(found.reason.contains("commit 2 of"), "{}", found.reason);
        assert_eq!(first_elsewhere(&context, &ledger, &commits[..3], &none), None);
        let mut context = context;
        context.rules.causes_are_compared = false;
        assert_eq!(first_elsewhere(&context, &ledger, &commits, &none), None);
    }

    /// The rows of neighbouring causes are read together, each once, and may come in any pieces.
    #[test]
    fn neighbouring_causes_are_read_together() {
        let (ledger, context) = (ledger([(B, head(B, 9))]), context());
        let mut rows = BTreeMap::new();
        let mut digest = [1; 32];
        let mut digests = Digests::new();
        for seq in 1..=9 {
            let row = log::row(&digest, &[seq]);
            digest = log::chain(&digest, &[seq]);
            digests.insert((B, u64::from(seq)), digest);
            rows.insert(keys::log(B, u64::from(seq)), row);
        }
        let commits = [7, 2, 3, 3].map(|seq| rests(seq, digests[&(B, seq)]));
        for at_once in [1, 2, 9] {
            let (mut causes, mut reads) = (Causes::new(&context, &ledger, &commits), 0);
            while let Some(range) = causes.step() {
                let found = rows.iter().filter(|(key, _)| range.contains(key));
                causes.take(ScanPage::of(found, ScanLimit::entries(at_once)));
                reads += 1;
            }
            let found: Vec<_> = causes.digests().into_iter().collect();
            let expected = [2, 3, 7].map(|seq| ((B, seq), digests[&(B, seq)]));
            assert_eq!((found, reads), (expected.to_vec(), [5, 3, 2][at_once.min(3) - 1]), "{at_once}");
        }
    }
}

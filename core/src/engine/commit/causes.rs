//! Comparing causes: a commit is applied on the very commits that its author had seen, and on no other history of their
//! streams.
//!
//! A stream that was written on after a restore has two histories, and each replica has one of them. What rests on the
//! other one may name records that are not here, or undo what its author never saw. So it is refused, and its stream stops.
//!
//! A cause names the beginning of a digest. The digest here is at hand if the cause is the head of its stream, its floor,
//! or in the same write; otherwise it stands in the log row behind the cause, which is read with the records, and so is the
//! row of the cause, which must have that digest: a damaged row shows no other history.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::ReplicaId;
use crate::storage::{Key, Value};
use crate::stored::log::digest_check;
use crate::stored::{Cause, Digest, keys, log};

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

/// The places of the log rows that say which digests the causes of a commit have here.
fn rows_of(ledger: &Ledger, commit: &Received) -> impl Iterator<Item = (ReplicaId, u64)> {
    let causes = commit.entry.after.iter().filter(|cause| matches!(place(ledger, cause), Place::Row));
    causes.flat_map(|cause| [0, 1].map(|behind| (cause.stream, cause.seq.saturating_add(behind))))
}

fn all_rows(context: &Context, ledger: &Ledger, commits: &[Received]) -> BTreeSet<(ReplicaId, u64)> {
    let compared = if context.rules.causes_are_compared { commits } else { &[] };
    compared.iter().flat_map(|commit| rows_of(ledger, commit)).collect()
}

/// The keys of the log rows that say which digests the causes of `commits` have here, each once.
pub(in crate::engine) fn rows(context: &Context, ledger: &Ledger, commits: &[Received]) -> Vec<Key> {
    all_rows(context, ledger, commits).into_iter().map(|(stream, seq)| keys::log(stream, seq)).collect()
}

/// How many of `commits` may share a write, so that these rows have no more than `bytes`; at least one.
pub(in crate::engine) fn fitting(ledger: &Ledger, commits: &[Received], bytes: usize) -> usize {
    let (mut known, mut read) = (BTreeSet::new(), 0_usize);
    let fits = |commit: &&Received| {
        let rows = rows_of(ledger, commit).filter(|row| known.insert(*row));
        read = rows.map(|(stream, seq)| ledger.row_bytes(stream, seq)).fold(read, usize::saturating_add);
        read <= bytes
    };
    commits.iter().take_while(fits).count().max(1)
}

/// The first of `commits` that rests on another history, given the rows at the keys of [`rows`].
pub(super) fn first_elsewhere(
    context: &Context,
    ledger: &Ledger,
    commits: &[Received],
    rows: Vec<Option<Value>>,
) -> Option<Elsewhere> {
    if !context.rules.causes_are_compared {
        return None;
    }
    let rows: BTreeMap<_, _> = all_rows(context, ledger, commits).into_iter().zip(rows).collect();
    let causes = commits.iter().flat_map(|commit| &commit.entry.after);
    let any_in_write = causes.into_iter().any(|cause| matches!(place(ledger, cause), Place::InWrite));
    let mut in_write = BTreeMap::new();
    for (at, commit) in commits.iter().enumerate() {
        for cause in &commit.entry.after {
            let digest = match place(ledger, cause) {
                Place::Known(digest) => Some(digest),
                Place::InWrite => in_write.get(&(cause.stream, cause.seq)).copied(),
                Place::Row => {
                    let row = |seq: u64| rows.get(&(cause.stream, seq)).and_then(Option::as_deref);
                    digest_between(row(cause.seq), row(cause.seq.saturating_add(1)))
                }
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

/// The digest of the row of a commit, if the row behind it vouches for it. A row that is missing or damaged shows nothing.
fn digest_between(row: Option<&[u8]>, behind: Option<&[u8]>) -> Option<Digest> {
    let (previous, entry) = log::split_row(row?).ok()?;
    let digest = log::chain(&previous, entry);
    (log::split_row(behind?).ok()?.0 == digest).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::super::super::made::{Author, B, C, ME, context, head, ledger};
    use super::*;
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
            let keys = rows(&context, &ledger, &commits);
            let asked = if read.is_some() { vec![keys::log(B, 7), keys::log(B, 8)] } else { vec![] };
            assert_eq!(keys, asked, "{case}");
            let read: Vec<_> = read.into_iter().flatten().collect();
            let found = first_elsewhere(&context, &ledger, &commits, read);
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
        assert_eq!(rows(&context, &ledger, &commits), Vec::<Key>::new());
        let found = first_elsewhere(&context, &ledger, &commits, vec![]).unwrap();
        assert_eq!((found.at, found.stream, found.from, found.seq), (3, C, C, 1));
        assert!(found.reason.contains("commit 2 of"), "{}", found.reason);
        assert_eq!(first_elsewhere(&context, &ledger, &commits[..3], vec![]), None);
        let mut context = context;
        context.rules.causes_are_compared = false;
        assert_eq!(first_elsewhere(&context, &ledger, &commits, vec![]), None);
    }
}

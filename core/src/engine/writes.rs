//! The write lane: every write to the store passes through it, one at a time.
//!
//! Owns: the calls of the app that wait, the write under way, and whose turn it was. Holds always: at most one write is
//! under way; the app and the peers each wait for at most one write of the other; the upkeep waits for the calls that
//! were there when it had its last turn, and for no more.

use std::collections::VecDeque;

use crate::events::RecordKey;
use crate::ids::ReplicaId;
use crate::limits::Limits;
use crate::storage::Value;

use super::Machine;
use super::commit::{Causes, Commit, Decision, Digests, Places, Received};
use super::installing::Installing;
use super::io::{JobId, Ticket};

/// A call of the app.
#[derive(Debug)]
pub(super) enum Call {
    Commit(Commit),
    Join,
}

/// The job of the write lane.
#[derive(Debug, Default)]
pub(super) enum Doing {
    #[default]
    Nothing,
    /// Reading the records of a round.
    ReadingRound(Vec<(Ticket, Commit)>, Places),
    /// Writing a decision.
    Writing(Box<Decision>, Source),
    /// A joined write of the app.
    Joining(Ticket),
    /// A joined write of a round whose records are projected: its calls, and its commits if the round has several. If
    /// the write fails, they are tried again, each alone.
    JoiningRound(Vec<Ticket>, Vec<(Ticket, Commit)>),
    /// Reading the digests of the causes of commits of others.
    ReadingCauses(Vec<Received>, Causes),
    /// Reading the records of commits of others, with these digests of their causes.
    ReadingReceived(Vec<Received>, Places, Digests),
    /// Applying commits of others in a native transaction: the place of the first of them, and their count.
    Receiving { stream: ReplicaId, seq: u64, count: usize },
    /// Reading the values beside records, or the records of a page.
    ReadingBesides,
    /// Writing a folded page together with its projections.
    FoldingProjected,
    /// Reading what a mended commit touches; and then, with that, what says whether its records are whole.
    ReadingMend(Vec<Option<Value>>),
    /// Writing the values of a mended commit together with their projections.
    MendingProjected,
    /// Reading rows or records of which some may be dropped.
    Pruning,
    /// Making or filling a projection, or paying debts of one.
    Mending,
    /// Reading or writing for a snapshot that is being installed.
    Installing(Installing),
}

/// Where a write comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    App,
    /// Commits of others: how many.
    Peers(usize),
    /// Rows of peers and forks alone, since there was no other write for them to ride on.
    Rows,
    /// Values that lay beside records.
    Fold,
    /// Rows and values that mend the log.
    Mend,
    /// Logs and tombstones that are dropped.
    Prune,
}

/// The parties that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Rows,
    App,
    Peers,
    Upkeep,
}

/// The parties that wait for a write.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Whether there are urgent rows, which wait for no other write to ride on.
    pub(super) rows: bool,
    pub(super) app: bool,
    pub(super) peers: bool,
    pub(super) upkeep: bool,
    /// Whether a call waits for the upkeep.
    pub(super) urgent: bool,
}

/// The write lane.
#[derive(Debug)]
pub(super) struct Writes {
    calls: VecDeque<(Ticket, Call)>,
    doing: Doing,
    /// The party that wrote last.
    last: Turn,
    /// How many calls come before the next turn of the upkeep, so that it does not separate calls that came together.
    before_upkeep: usize,
    /// How many of the next commits have a write to themselves, since their round failed.
    alone: usize,
    job: u64,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            calls: VecDeque::new(),
            doing: Doing::Nothing,
            last: Turn::Upkeep,
            before_upkeep: 0,
            alone: 0,
            job: 0,
        }
    }
}

impl Writes {
    /// Takes a call of the app.
    pub(super) fn call(&mut self, ticket: Ticket, call: Call) {
        self.calls.push_back((ticket, call));
    }

    /// Puts back a round that could not be decided yet: its commits form the next round.
    pub(super) fn put_back(&mut self, round: Vec<(Ticket, Commit)>) {
        for (ticket, commit) in round.into_iter().rev() {
            self.calls.push_front((ticket, Call::Commit(commit)));
        }
    }

    /// Puts back a round that failed: each of its commits has a write to itself.
    pub(super) fn put_back_alone(&mut self, round: Vec<(Ticket, Commit)>) {
        self.alone += round.len();
        self.put_back(round);
    }

    pub(super) fn has_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Whether the next call of the app is a joined write.
    pub(super) fn next_is_join(&self, is_projected: impl Fn(&RecordKey) -> bool) -> bool {
        match self.calls.front() {
            Some((_, Call::Commit(commit))) => projects(commit, &is_projected),
            Some((_, Call::Join)) => true,
            None => false,
        }
    }

    /// Puts back a joined write that was not begun.
    pub(super) fn put_back_join(&mut self, ticket: Ticket) {
        self.calls.push_front((ticket, Call::Join));
    }

    /// Takes the commits that wait, and leaves the joined writes.
    pub(super) fn take_commits(&mut self) -> Vec<Ticket> {
        let is_join = |(_, call): &(Ticket, Call)| matches!(call, Call::Join);
        let (joins, commits): (VecDeque<_>, VecDeque<_>) = self.calls.drain(..).partition(is_join);
        (self.calls, self.alone) = (joins, 0);
        self.before_upkeep = self.before_upkeep.min(self.calls.len());
        commits.into_iter().map(|(ticket, _)| ticket).collect()
    }

    /// Takes all calls that wait.
    pub(super) fn take_calls(&mut self) -> Vec<Ticket> {
        (self.before_upkeep, self.alone) = (0, 0);
        self.calls.drain(..).map(|(ticket, _)| ticket).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.doing, Doing::Nothing)
    }

    /// How many jobs have begun.
    pub(super) fn begun(&self) -> u64 {
        self.job
    }

    pub(super) fn doing(&self) -> &Doing {
        &self.doing
    }

    /// The party whose turn it is, if any waits and no write is under way. After the party that wrote last comes the
    /// next of the three.
    pub(super) fn turn(&mut self, waiting: Waiting) -> Option<Turn> {
        let Waiting { rows, app, peers, upkeep, urgent } = waiting;
        if !self.is_idle() {
            return None;
        }
        if rows {
            return Some(Turn::Rows);
        }
        let upkeep = upkeep && (urgent || self.before_upkeep == 0 || !app && !peers);
        let (app, peers, upkeep) = ((Turn::App, app), (Turn::Peers, peers), (Turn::Upkeep, upkeep));
        let order = match self.last {
            Turn::App => [peers, upkeep, app],
            Turn::Peers => [upkeep, app, peers],
            Turn::Upkeep | Turn::Rows => [app, peers, upkeep],
        };
        let (turn, _) = order.into_iter().find(|(_, waits)| *waits)?;
        self.last = turn;
        if turn == Turn::Upkeep {
            self.before_upkeep = self.calls.len();
        }
        Some(turn)
    }

    /// Takes the commits at the front of the queue that share one write: as many as fit, of which the first always
    /// does, and none behind a joined write.
    ///
    /// A round whose records are projected may have to be decided again without one of its commits, so no commit with
    /// an update shares it. Returns whether records of the round are projected too.
    pub(super) fn take_round(
        &mut self,
        limits: &Limits,
        is_projected: impl Fn(&RecordKey) -> bool,
    ) -> (Vec<(Ticket, Commit)>, bool) {
        let (mut round, mut changes, mut bytes) = (Vec::new(), 0, 0);
        let (mut projected, mut updates) = (false, false);
        while let Some((_, Call::Commit(next))) = self.calls.front() {
            bytes += next.bytes;
            changes += next.changes.len();
            projected |= projects(next, &is_projected);
            updates |= next.has_update();
            let full = bytes > limits.commit_bytes_max
                || changes > limits.commit_changes_max
                || round.len() >= limits.round_commits_max
                || self.alone > 0
                || projected && updates;
            if full && !round.is_empty() {
                break;
            }
            if let Some((ticket, Call::Commit(commit))) = self.calls.pop_front() {
                round.push((ticket, commit));
            }
        }
        self.before_upkeep = self.before_upkeep.saturating_sub(round.len());
        self.alone = self.alone.saturating_sub(round.len());
        let projected = round.iter().any(|(_, commit)| projects(commit, &is_projected));
        (round, projected)
    }

    /// Takes the joined write at the front of the queue, if one is there.
    pub(super) fn take_join(&mut self) -> Option<Ticket> {
        let (ticket, _) = self.calls.front().filter(|(_, call)| matches!(call, Call::Join))?;
        let ticket = *ticket;
        self.calls.pop_front();
        self.before_upkeep = self.before_upkeep.saturating_sub(1);
        Some(ticket)
    }

    /// Begins a job; returns the id under which its end is told.
    pub(super) fn begin(&mut self, doing: Doing) -> JobId {
        debug_assert!(self.is_idle(), "{doing:?} would begin during {:?}", self.doing);
        self.doing = doing;
        self.job += 1;
        JobId(self.job)
    }

    /// Ends the job under way and returns it: the lane is free for the next one.
    pub(super) fn end(&mut self, job: JobId) -> Doing {
        debug_assert_eq!(job, JobId(self.job), "another step ended than the one under way, {:?}", self.doing);
        std::mem::take(&mut self.doing)
    }

    /// Gives up the job under way, without its result.
    pub(super) fn give_up(&mut self) -> Doing {
        std::mem::take(&mut self.doing)
    }
}

fn projects(commit: &Commit, is_projected: impl Fn(&RecordKey) -> bool) -> bool {
    commit.changes.iter().any(|change| is_projected(&change.record))
}

impl Machine for Writes {}

#[cfg(test)]
mod tests {
    use super::super::commit::{Action, Staged, Updated};
    use super::*;

    fn turn_after(last: Turn, app: bool, peers: bool, upkeep: bool) -> Option<Turn> {
        Writes { last, ..Writes::default() }.turn(Waiting { app, peers, upkeep, ..Waiting::default() })
    }

    #[test]
    fn whoever_waits_takes_turns() {
        use Turn::{App, Peers, Upkeep};
        for (last, (app, peers, upkeep), turn) in [
            (App, (true, true, true), Some(Peers)),
            (Peers, (true, true, true), Some(Upkeep)),
            (Upkeep, (true, true, true), Some(App)),
            (App, (true, false, true), Some(Upkeep)),
            (App, (true, false, false), Some(App)),
            (Peers, (true, true, false), Some(App)),
            (Peers, (false, true, false), Some(Peers)),
            (Upkeep, (false, true, true), Some(Peers)),
            (Upkeep, (false, false, true), Some(Upkeep)),
            (App, (false, false, false), None),
        ] {
            assert_eq!(turn_after(last, app, peers, upkeep), turn, "after {last:?}: {app} {peers} {upkeep}");
        }
    }

    #[test]
    fn the_upkeep_waits_for_the_calls_that_came_before_its_turn_and_for_no_more() {
        let mut writes = Writes::default();
        let waits = |writes: &mut Writes| {
            let app = writes.has_calls();
            writes.turn(Waiting { app, upkeep: true, ..Waiting::default() })
        };
        writes.call(Ticket(0), Call::Join);
        writes.last = Turn::App;
        assert_eq!(waits(&mut writes), Some(Turn::Upkeep));
        writes.call(Ticket(1), Call::Join);
        assert_eq!(waits(&mut writes), Some(Turn::App));
        writes.take_join();
        // Ever more calls do not keep the upkeep waiting.
        writes.call(Ticket(2), Call::Join);
        assert_eq!(waits(&mut writes), Some(Turn::Upkeep), "one call was there at its last turn");
        assert_eq!(waits(&mut writes), Some(Turn::App));
    }

    #[test]
    fn the_upkeep_waits_for_no_call_of_a_round_that_was_taken() {
        let mut writes = Writes { last: Turn::App, ..Writes::default() };
        (0..3).for_each(|n| writes.call(Ticket(n), Call::Commit(Commit { changes: Vec::new(), bytes: 1 })));
        let both = Waiting { app: true, upkeep: true, ..Waiting::default() };
        assert_eq!(writes.turn(both), Some(Turn::Upkeep));
        assert_eq!(writes.turn(both), Some(Turn::App));
        assert_eq!(writes.take_round(&Limits::default(), |_| false).0.len(), 3);
        writes.call(Ticket(3), Call::Join);
        assert_eq!(writes.turn(both), Some(Turn::Upkeep));
    }

    #[test]
    fn rows_go_first_and_take_no_turn_from_anybody() {
        let mut writes = Writes::default();
        let all = Waiting { rows: true, app: true, peers: true, upkeep: true, urgent: false };
        assert_eq!(writes.turn(all), Some(Turn::Rows));
        assert_eq!(writes.turn(Waiting { rows: false, ..all }), Some(Turn::App));
    }

    #[test]
    fn one_write_is_under_way_at_a_time() {
        let mut writes = Writes::default();
        let all = Waiting { rows: true, app: true, peers: true, upkeep: true, urgent: false };
        let job = writes.begin(Doing::Mending);
        assert_eq!(writes.turn(all), None);
        assert!(matches!(writes.end(job), Doing::Mending));
        assert!(writes.turn(all).is_some());
    }

    #[test]
    fn a_round_ends_before_a_joined_write_and_at_the_limits() {
        let commit = |bytes| Call::Commit(Commit { changes: Vec::new(), bytes });
        let limits = Limits { round_commits_max: 3, commit_bytes_max: 100, ..Limits::default() };
        let mut writes = Writes::default();
        let calls = [
            commit(60),
            commit(40),
            commit(1),
            Call::Join,
            commit(0),
            commit(0),
            commit(0),
            commit(0),
            commit(500),
        ];
        for (n, call) in calls.into_iter().enumerate() {
            writes.call(Ticket(n as u64), call);
        }
        let mut tickets = || -> Vec<u64> {
            let (round, _) = writes.take_round(&limits, |_| false);
            if round.is_empty() {
                return writes.take_join().into_iter().map(|ticket| ticket.0).collect();
            }
            round.into_iter().map(|(ticket, _)| ticket.0).collect()
        };
        assert_eq!(tickets(), [0, 1], "its bytes");
        assert_eq!(tickets(), [2], "a joined write is next");
        assert_eq!(tickets(), [3]);
        assert_eq!(tickets(), [4, 5, 6], "its commits");
        assert_eq!(tickets(), [7]);
        assert_eq!(tickets(), [8], "one fits always");
        assert!(tickets().is_empty());
    }

    #[test]
    fn joined_writes_stay_when_commits_are_taken() {
        let mut writes = Writes::default();
        let commit = || Call::Commit(Commit { changes: Vec::new(), bytes: 1 });
        for (n, call) in [commit(), Call::Join, commit(), Call::Join].into_iter().enumerate() {
            writes.call(Ticket(n as u64), call);
        }
        let both = Waiting { app: true, upkeep: true, ..Waiting::default() };
        writes.last = Turn::App;
        assert_eq!(writes.turn(both), Some(Turn::Upkeep), "four calls were there at its turn");
        assert_eq!(writes.take_commits(), [Ticket(0), Ticket(2)]);
        assert_eq!(writes.take_join(), Some(Ticket(1)));
        writes.put_back_join(Ticket(1));
        assert_eq!((writes.take_join(), writes.take_join()), (Some(Ticket(1)), Some(Ticket(3))));
        writes.call(Ticket(4), commit());
        writes.last = Turn::App;
        assert_eq!(writes.turn(both), Some(Turn::Upkeep), "it waits for no call that was taken");
    }

    #[test]
    fn the_commits_of_a_round_that_failed_are_tried_alone_in_their_order() {
        let limits = Limits { round_commits_max: 3, ..Limits::default() };
        let mut writes = Writes::default();
        let call = |writes: &mut Writes, n| {
            writes.call(Ticket(n), Call::Commit(Commit { changes: Vec::new(), bytes: 1 }));
        };
        let next = |writes: &mut Writes| -> Vec<u64> {
            let (round, _) = writes.take_round(&limits, |_| false);
            round.into_iter().map(|(ticket, _)| ticket.0).collect()
        };
        (0..5).for_each(|n| call(&mut writes, n));
        let (round, _) = writes.take_round(&limits, |_| false);
        writes.put_back_alone(round);
        let rounds = [(); 4].map(|()| next(&mut writes));
        assert_eq!(rounds, [vec![0], vec![1], vec![2], vec![3, 4]]);
        // Commits that are refused instead leave the next ones nothing to make up for.
        for take in [Writes::take_commits, Writes::take_calls] {
            (0..3).for_each(|n| call(&mut writes, n));
            let (round, _) = writes.take_round(&limits, |_| false);
            writes.put_back_alone(round);
            assert_eq!(take(&mut writes).len(), 3);
            (0..3).for_each(|n| call(&mut writes, n));
            assert_eq!(next(&mut writes), [0, 1, 2]);
        }
    }

    #[test]
    fn a_projected_commit_with_an_update_shares_its_write_with_no_other() {
        let key = RecordKey::from_parts("note", None, b"1");
        let commit = |action: Option<Action>| {
            let staged = |action| Staged { record: key.clone(), action, own_merge: false };
            Call::Commit(Commit { changes: action.map(staged).into_iter().collect(), bytes: 1 })
        };
        let update = || Some(Action::Update(Box::new(|_| Ok(Updated::Keep))));
        for (projected, rounds) in [(true, vec![1, 1, 2, 1]), (false, vec![5])] {
            let mut writes = Writes::default();
            let actions = [Some(Action::Delete), update(), None, Some(Action::Delete), update()];
            for (n, action) in actions.into_iter().enumerate() {
                writes.call(Ticket(n as u64), commit(action));
            }
            let mut found = Vec::new();
            while writes.has_calls() {
                let (round, projects) = writes.take_round(&Limits::default(), |_| projected);
                assert_eq!(projects, projected && round.iter().any(|(_, commit)| !commit.changes.is_empty()));
                found.push(round.len());
            }
            assert_eq!(found, rounds, "projected: {projected}");
        }
    }

    #[test]
    fn a_round_that_is_put_back_is_the_next_one() {
        let commit = || Call::Commit(Commit { changes: Vec::new(), bytes: 1 });
        let mut writes = Writes::default();
        (0..4).for_each(|n| writes.call(Ticket(n), commit()));
        let limits = Limits { round_commits_max: 2, ..Limits::default() };
        let (round, _) = writes.take_round(&limits, |_| false);
        writes.put_back(round);
        let tickets: Vec<_> =
            writes.take_round(&limits, |_| false).0.into_iter().map(|(ticket, _)| ticket.0).collect();
        assert_eq!(tickets, [0, 1]);
    }
}

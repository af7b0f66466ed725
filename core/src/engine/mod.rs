//! The engine: what a replica decides, without any I/O.
//!
//! It is pure: no async, no clock, no randomness, no storage calls. Time comes in with every input, reads and
//! writes go out as effects and come back as inputs, so durability is something the engine is told. Everything
//! that depends on it (replies, events) becomes an effect only after [`Input::Written`] said `Ok`; "nothing is
//! said before it is durable" holds by construction.
//!
//! At most one write is in flight. Commits that arrive meanwhile form the next group and share its write: group
//! commit without a timer. A group takes three steps: read the records it touches ([`Effect::Read`]), decide
//! ([`group`]), write ([`Effect::Write`]).
//!
//! A joined write is one step instead ([`Effect::Join`]): reading, deciding and writing happen in one native
//! transaction of the store, with the [`Pen`] that the engine lends for it.

mod group;
mod opening;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::clock::{Mono, Now, WallMs};
use crate::error::{Error, SharedError, StopReason};
use crate::events::{Event, Notice};
use crate::hlc::Hlc;
use crate::ids::ReplicaId;
use crate::limits::Limits;
use crate::member::MemberState;
use crate::storage::{Key, ReadError, Value, WriteBatch};
use crate::stored::{Head, Identity};

pub(crate) use group::{Action, Commit, Current, Decision, NewValue, Pen, Staged};
pub(crate) use opening::{Ask, Found, open, read_projections};

/// Names a call that waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(pub(crate) u64);

/// What happens to an engine.
#[derive(Debug)]
pub(crate) enum Input {
    /// The app wants this committed.
    Commit(Ticket, Commit),
    /// The app wants a joined write; the driver has the work that belongs to the ticket.
    Join(Ticket),
    /// The keys of the last [`Effect::Read`], and their values in the same order.
    Read(Vec<Key>, Result<Vec<Option<Value>>, ReadError>),
    /// The last [`Effect::Write`] is durable, or certainly not applied. Any other outcome is no input: the
    /// driver drops the engine, and the app reopens the store.
    Written(Result<(), SharedError>),
    /// The last [`Effect::Join`] is durable, with the pen as it left it and what it decided; or certainly undone.
    Joined(Result<Box<(Pen, Decision)>, Error>),
}

/// What an engine wants done, in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Read these keys, then tell [`Input::Read`], with the keys: they are lent, not copied.
    Read(Vec<Key>),
    /// Write this, then tell [`Input::Written`].
    Write(WriteBatch),
    /// Do the work of this ticket in one native transaction, then tell [`Input::Joined`].
    Join(Ticket, Box<Pen>),
    /// Answer a call.
    Reply(Ticket, Result<(), Error>),
    /// Tell the subscribers.
    Notify(Notice),
}

/// Rules that tests switch off to see that something fails without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Log entries that every member has acknowledged are pruned.
    pub prune: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { prune: true }
    }
}

/// One replica: everything it knows beside its store.
#[derive(Debug)]
pub(crate) struct Engine {
    pen: Pen,
    limits: Limits,
    rules: Rules,
    /// The clock's high-water that is stored: the only one that may be shown.
    durable_clock: Hlc,
    members: BTreeMap<ReplicaId, MemberState>,
    /// The last reading of both clocks that did not fail, from which a jump is measured.
    last_reading: Option<(WallMs, Mono)>,
    pending: VecDeque<(Ticket, Request)>,
    step: Step,
    effects: VecDeque<Effect>,
}

/// What a caller waits for.
#[derive(Debug)]
enum Request {
    Commit(Commit),
    Join,
}

/// Where the current group stands.
#[derive(Debug)]
enum Step {
    Idle,
    Reading(Vec<(Ticket, Commit)>),
    Writing(Box<Decision>),
    Joining(Ticket),
}

/// What a replica says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) identity: Identity,
    pub(crate) head: Head,
    pub(crate) high_water: Hlc,
    pub(crate) members: Vec<ReplicaId>,
}

impl Engine {
    /// What the engine knows of itself.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            identity: self.pen.identity,
            head: self.pen.head(),
            high_water: self.durable_clock,
            members: self.members.keys().copied().collect(),
        }
    }

    /// Whether this replica is the only member, so that what it has is what everybody has.
    fn is_alone(&self) -> bool {
        self.members.len() == 1 && self.members.contains_key(&self.pen.identity.replica)
    }

    /// The own commits that every member has. Alone, that is every durable one.
    fn stable(&self) -> u64 {
        let head = self.pen.head();
        if self.rules.prune && self.is_alone() { head.seq } else { head.floor }
    }

    /// Takes what has happened.
    pub(crate) fn handle(&mut self, now: Now, input: Input) {
        self.pass_time(now);
        match input {
            Input::Commit(ticket, commit) => self.pending.push_back((ticket, Request::Commit(commit))),
            Input::Join(ticket) => self.pending.push_back((ticket, Request::Join)),
            Input::Read(keys, values) => self.handle_read(keys, values),
            Input::Written(result) => self.handle_written(result),
            Input::Joined(result) => self.handle_joined(result),
        }
    }

    /// Gives the next thing to do; `None` until something happens.
    ///
    /// A group is formed only when nothing else is left to do, so that it takes everything that has arrived.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.begin_next();
        }
        self.effects.pop_front()
    }

    /// Ends the engine: answers every call that is still open, truthfully. What was being written is unknown,
    /// unless the store was fenced: then it was not written.
    pub(crate) fn stop(&mut self, reason: &StopReason) -> Vec<(Ticket, Error)> {
        let mut open = Vec::new();
        let written = if matches!(reason, StopReason::Fenced) { Error::Stopped } else { Error::Unknown };
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Idle => {}
            Step::Reading(commits) => {
                open.extend(commits.into_iter().map(|(ticket, _)| (ticket, Error::Stopped(reason.clone()))));
            }
            Step::Joining(ticket) => open.push((ticket, written(reason.clone()))),
            Step::Writing(decision) => {
                open.extend(decision.waiting.into_iter().map(|(ticket, result)| {
                    let error = if result.is_ok() { written } else { Error::Stopped };
                    (ticket, error(reason.clone()))
                }));
            }
        }
        open.extend(self.pending.drain(..).map(|(ticket, _)| (ticket, Error::Stopped(reason.clone()))));
        open
    }

    fn pass_time(&mut self, now: Now) {
        if let Ok(wall) = now.wall
            && let Some(before) = self.last_reading.replace((wall, now.mono))
        {
            let by_ms = jump(before, (wall, now.mono));
            if by_ms.unsigned_abs() > self.limits.max_jump_ms {
                self.effects.push_back(Effect::Notify(Notice::new(vec![Event::ClockJumped { by_ms }])));
            }
        }
        self.pen.wall = now.wall;
    }

    fn begin_next(&mut self) {
        if !matches!(self.step, Step::Idle) {
            return;
        }
        self.pen.stable = self.stable();
        match self.pending.front() {
            None => {}
            Some((_, Request::Commit(_))) => self.form_group(),
            Some(&(ticket, Request::Join)) => {
                self.pending.pop_front();
                self.step = Step::Joining(ticket);
                self.effects.push_back(Effect::Join(ticket, Box::new(self.pen.clone())));
            }
        }
    }

    /// Takes the commits at the front of the queue, as many as fit, and none behind a joined write.
    fn form_group(&mut self) {
        let (mut commits, mut keys, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((_, Request::Commit(next))) = self.pending.front() {
            bytes += next.bytes;
            let full = bytes > self.limits.commit_bytes_max
                || keys.len() + next.changes.len() > self.limits.commit_changes_max
                || commits.len() >= self.limits.group_commits_max;
            if full && !commits.is_empty() {
                break;
            }
            if let Some((ticket, Request::Commit(mut commit))) = self.pending.pop_front() {
                keys.extend(commit.changes.iter_mut().map(|change| change.record.lend()));
                commits.push((ticket, commit));
            }
        }
        if !commits.is_empty() {
            self.step = Step::Reading(commits);
            self.effects.push_back(Effect::Read(keys));
        }
    }

    fn handle_read(&mut self, keys: Vec<Key>, values: Result<Vec<Option<Value>>, ReadError>) {
        let Step::Reading(mut commits) = std::mem::replace(&mut self.step, Step::Idle) else {
            return;
        };
        let asked: usize = commits.iter().map(|(_, commit)| commit.changes.len()).sum();
        let values = values.and_then(|values| {
            let got = values.len();
            if got == asked {
                Ok(values)
            } else {
                Err(ReadError(format!("{got} values for {asked} keys").into()))
            }
        });
        let changes = commits.iter_mut().flat_map(|(_, commit)| &mut commit.changes);
        changes.zip(keys).for_each(|(change, key)| change.record.take_back(key));
        match values {
            Ok(values) => {
                let decision = self.pen.decide(commits, values);
                self.perform(decision);
            }
            Err(error) => {
                let error: SharedError = Arc::from(error.0);
                for (ticket, _) in commits {
                    self.effects.push_back(Effect::Reply(ticket, Err(Error::Read(Arc::clone(&error)))));
                }
            }
        }
    }

    fn perform(&mut self, mut decision: Decision) {
        for (ticket, result) in decision.settled.drain(..) {
            self.effects.push_back(Effect::Reply(ticket, result));
        }
        let batch = std::mem::take(&mut decision.batch);
        if !batch.is_empty() {
            self.step = Step::Writing(Box::new(decision));
            self.effects.push_back(Effect::Write(batch));
        }
    }

    fn handle_written(&mut self, result: Result<(), SharedError>) {
        let Step::Writing(decision) = std::mem::replace(&mut self.step, Step::Idle) else {
            return;
        };
        match result {
            Ok(()) => self.announce(*decision),
            // Head and log are as before. The clock is not set back: a stamp is never drawn twice.
            Err(error) => {
                for (ticket, _) in decision.waiting {
                    self.effects.push_back(Effect::Reply(ticket, Err(Error::Rejected(Arc::clone(&error)))));
                }
            }
        }
    }

    fn handle_joined(&mut self, result: Result<Box<(Pen, Decision)>, Error>) {
        let Step::Joining(ticket) = std::mem::replace(&mut self.step, Step::Idle) else {
            return;
        };
        match result {
            Ok(joined) => {
                let (pen, mut decision) = *joined;
                // Without a commit nothing was stored, also not the clock.
                if decision.head.seq == self.pen.head().seq {
                    decision.clock = self.durable_clock;
                }
                self.pen = Pen { wall: self.pen.wall.clone(), ..pen };
                self.announce(decision);
            }
            Err(error) => self.effects.push_back(Effect::Reply(ticket, Err(error))),
        }
    }

    /// A decision has become durable: everybody may hear of it.
    fn announce(&mut self, decision: Decision) {
        self.pen.heads.insert(self.pen.identity.replica, decision.head);
        self.durable_clock = decision.clock;
        // Events first: whoever gets a reply finds them, and whoever subscribes after it hears none of them.
        self.effects.extend(decision.notices.into_iter().map(Effect::Notify));
        let replies = decision.waiting.into_iter();
        self.effects.extend(replies.map(|(ticket, result)| Effect::Reply(ticket, result)));
    }
}

/// By how much the wall clock moved more than the timer did.
fn jump(before: (WallMs, Mono), after: (WallMs, Mono)) -> i64 {
    let wall = i128::from(after.0.get()) - i128::from(before.0.get());
    let mono = i128::from(after.1.since(before.1));
    i64::try_from(wall - mono).unwrap_or(if wall < mono { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;

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
//!
//! Commits of other replicas take the same three steps, many of them in one write, in turn with the app's own. Beside
//! the writes the engine answers what peers ask for, from what the store holds ([`Effect::Scan`], [`Effect::Peek`]).
//!
//! | what | where |
//! |---|---|
//! | what the app's commits decide | [`group`] |
//! | what others' commits do to the records here | [`merge`] |
//! | the rows of one write | [`draft`] |
//! | peers, hello, acknowledgements, timers, streams that stop | [`sync`] |
//! | which commits of a frame are taken | [`inbox`] |
//! | how they get from there into the store | [`receiving`] |
//! | who is asked for what is missing | [`pull`] |
//! | what answers a pull | [`serve`] |
//! | bytes | [`wire`] |

mod draft;
mod group;
mod inbox;
mod merge;
mod opening;
mod pull;
mod receiving;
#[cfg_attr(
    not(feature = "internals-for-tests"),
    allow(unreachable_pub, reason = "what is public in it is so through `internals` alone")
)]
pub(crate) mod rules;
mod serve;
mod stops;
mod sync;
pub(crate) mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Mono, Now, WallMs};
use crate::error::{Error, SharedError, StopReason};
use crate::events::{Event, Notice, RecordKey, Restored, StreamStop};
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::limits::Limits;
use crate::member::Member;
use crate::storage::{Entry, Key, KeyRange, ReadError, Value, WriteBatch};
use crate::stored::{FormatError, Head, Identity};

pub(crate) use group::{Action, Commit, Current, Decision, NewValue, Pen, Staged};
pub(crate) use merge::{Received, lend_keys, take_keys_back};
pub(crate) use opening::{Ask, Found, open, read_projections};
pub(crate) use rules::{Mark, Rules};
use stops::Check;
use sync::{Replication, Side};

/// The most streams of a group.
pub(crate) const STREAMS_MAX: usize = wire::STREAMS_MAX;
/// The most effects that may be left to do when a frame is taken.
const EFFECTS_MAX: usize = 64;

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
    /// The last [`Effect::Join`] or [`Effect::Receive`] is durable, with the pen as it left it and what it decided; or
    /// certainly undone.
    Joined(Result<Box<(Pen, Decision)>, Error>),
    /// What the last [`Effect::Scan`] found.
    Scanned(Result<Vec<Entry>, ReadError>),
    /// The values of the last [`Effect::Peek`], in the order of its keys.
    Peeked(Result<Vec<Option<Value>>, ReadError>),
    /// A peer can be reached.
    Up(ReplicaId),
    /// A peer cannot be reached any more.
    Down(ReplicaId),
    /// A peer sent this.
    Frame(ReplicaId, Bytes),
    /// No peer can be reached any more.
    Offline,
    /// Time has passed.
    Tick,
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
    /// Apply these commits of others in one native transaction, then tell [`Input::Joined`].
    Receive(Vec<Received>, Box<Pen>),
    /// Read the first entries of a range, then tell [`Input::Scanned`].
    Scan(KeyRange, usize),
    /// Read these keys, then tell [`Input::Peeked`].
    Peek(Vec<Key>),
    /// Send this to a peer.
    Send(ReplicaId, Bytes),
    /// Send this to these peers.
    Broadcast(Vec<ReplicaId>, Bytes),
    /// Answer a call.
    Reply(Ticket, Result<(), Error>),
    /// Tell the subscribers.
    Notify(Notice),
}

/// One replica: everything it knows beside its store.
#[derive(Debug)]
pub(crate) struct Engine {
    pen: Pen,
    limits: Arc<Limits>,
    rules: Rules,
    /// The clock's high-water that is stored: the only one that may be shown.
    durable_clock: Hlc,
    members: BTreeMap<ReplicaId, Member>,
    /// The records that projections derive from: what changes them is a joined write.
    projected: Vec<KeyRange>,
    sync: Replication,
    /// The timer, as last read.
    mono: Mono,
    /// Whether the last write was the app's: the next one is a peer's, if any waits.
    was_local: bool,
    /// Whether only what the app asked for is still done.
    closing: bool,
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
    Writing(Box<Decision>, Source),
    Joining(Ticket),
    /// Commits of others whose records are being read.
    ReadingReceived(Vec<Received>),
    /// Commits of others that are applied in a native transaction, and the first of them.
    Receiving {
        stream: ReplicaId,
        seq: u64,
    },
}

/// Where a write comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    App,
    Peers,
    /// What the engine itself must not forget.
    Own,
}

/// What a replica says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) identity: Identity,
    pub(crate) head: Head,
    pub(crate) high_water: Hlc,
    pub(crate) members: Vec<ReplicaId>,
    pub(crate) joining: bool,
    pub(crate) restored: Option<Restored>,
    pub(crate) streams: Vec<StreamView>,
    pub(crate) peers: Vec<PeerView>,
    pub(crate) waiting: usize,
    #[cfg(feature = "internals-for-tests")]
    pub(crate) marks: u32,
}

/// What a replica says of a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamView {
    pub(crate) replica: ReplicaId,
    pub(crate) device: Option<DeviceId>,
    pub(crate) seq: u64,
    pub(crate) floor: u64,
    pub(crate) stop: Option<StreamStop>,
}

/// What a replica says of another one.
#[derive(Clone, Debug)]
pub(crate) struct PeerView {
    pub(crate) replica: ReplicaId,
    pub(crate) up: bool,
    pub(crate) acked: u64,
    pub(crate) missing: u64,
    pub(crate) restored: bool,
    pub(crate) stranger: bool,
    pub(crate) pruned: bool,
    pub(crate) rejected: u64,
}

impl Engine {
    /// What the engine knows of itself.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let members = self.members.keys();
        let streams: std::collections::BTreeSet<_> =
            members.chain(self.pen.heads.keys()).chain(self.sync.stops.keys()).copied().collect();
        let streams = streams.into_iter().map(|replica| {
            let head = self.pen.heads.get(&replica).copied().unwrap_or_else(|| Head::start(replica));
            StreamView {
                replica,
                device: self.members.get(&replica).map(|member| member.device),
                seq: head.seq,
                floor: head.floor,
                stop: self.sync.stops.get(&replica).map(|stop| stop.reason.clone()),
            }
        });
        let me = self.me();
        let peers = self.sync.peers.iter().map(|(replica, peer)| PeerView {
            replica: *replica,
            up: peer.up,
            acked: peer.acked.get(&me).map_or(0, |point| point.seq),
            missing: self.missing(*replica),
            restored: peer.restored,
            stranger: peer.stranger,
            pruned: peer.pruned,
            rejected: peer.rejected,
        });
        Snapshot {
            identity: self.pen.identity,
            head: self.pen.head(),
            high_water: self.durable_clock,
            members: self.members.keys().copied().collect(),
            joining: self.is_joining(),
            restored: self.sync.restored,
            streams: streams.collect(),
            peers: peers.collect(),
            waiting: self.sync.inbox.commits.len(),
            #[cfg(feature = "internals-for-tests")]
            marks: self.pen.marks,
        }
    }

    /// Whether this replica is the only member, so that what it has is what everybody has.
    fn is_alone(&self) -> bool {
        self.members.len() == 1 && self.members.contains_key(&self.me())
    }

    /// The own commits that every member has. Alone, that is every durable one; but whoever has a transport may get
    /// company, which then needs the log.
    fn stable(&self) -> u64 {
        let head = self.pen.head();
        if self.rules.prune && self.is_alone() && !self.sync.networked { head.seq } else { head.floor }
    }

    /// Does only what the app has asked for from here on.
    pub(crate) fn close(&mut self) {
        self.closing = true;
    }

    /// Whether there is room for what peers send: for their commits, and for what is said to them.
    pub(crate) fn has_room(&self) -> bool {
        let room = self.sync.inbox.bytes <= self.limits.frame_bytes_max;
        room && self.effects.len() < EFFECTS_MAX && !self.closing
    }

    /// Whether this app knows how to merge values of the record's model.
    pub(crate) fn can_merge(&self, record: &RecordKey) -> bool {
        self.pen.models.merge_of(record.model()).is_some()
    }

    /// Merges what lies beside a record into it; says what to write.
    pub(crate) fn fold(
        &mut self,
        record: &RecordKey,
        stored: Value,
        besides: Vec<(Key, Value)>,
    ) -> Result<WriteBatch, FormatError> {
        self.pen.fold(record, stored, besides)
    }

    /// Takes note that something happened, for tests.
    fn mark(&mut self, mark: Mark) {
        self.pen.marks |= mark.bit();
    }

    /// Lets the held commits of a stream through; `false` if none are held.
    pub(crate) fn release_held(&mut self, stream: ReplicaId) -> bool {
        self.release(stream)
    }

    /// Takes what has happened.
    pub(crate) fn handle(&mut self, now: Now, input: Input) {
        self.pass_time(now);
        match input {
            Input::Commit(ticket, commit) => self.take(ticket, Request::Commit(commit)),
            Input::Join(ticket) => self.take(ticket, Request::Join),
            Input::Read(keys, values) => self.handle_read(keys, values),
            Input::Written(result) => self.handle_written(result),
            Input::Joined(result) => self.handle_joined(result),
            Input::Scanned(rows) => self.handle_scanned(rows),
            Input::Peeked(values) => self.handle_peeked(values),
            Input::Up(peer) => self.handle_up(peer),
            Input::Down(peer) => self.handle_down(peer),
            Input::Frame(from, frame) => self.handle_frame(from, frame),
            Input::Offline => self.handle_offline(),
            Input::Tick => self.handle_tick(),
        }
    }

    /// Takes a call, unless this replica may not commit.
    fn take(&mut self, ticket: Ticket, request: Request) {
        match self.refusal() {
            Some(error) => self.effects.push_back(Effect::Reply(ticket, Err(error))),
            None => self.pending.push_back((ticket, request)),
        }
    }

    fn refusal(&self) -> Option<Error> {
        if let Some(restored) = self.sync.restored {
            return Some(Error::Restored(restored));
        }
        let waits = self.is_joining() && self.rules.joiner_waits;
        waits.then(|| Error::Joining { replica: self.me() })
    }

    /// Answers the calls that are not being written, since this replica may not commit any more.
    fn refuse_pending(&mut self) {
        let mut refused: Vec<_> =
            std::mem::take(&mut self.pending).into_iter().map(|(ticket, _)| ticket).collect();
        // What was begun and not handed to the store yet.
        let begun = self.effects.iter().position(|effect| match self.step {
            Step::Writing(_, Source::App) => matches!(effect, Effect::Write(_)),
            Step::Joining(_) => matches!(effect, Effect::Join(..)),
            _ => false,
        });
        if let Some(at) = begun {
            self.effects.remove(at);
            match std::mem::replace(&mut self.step, Step::Idle) {
                Step::Writing(decision, _) => {
                    self.sync.put_rows_back();
                    refused.extend(decision.waiting.into_iter().map(|(ticket, _)| ticket));
                }
                Step::Joining(ticket) => refused.push(ticket),
                other => self.step = other,
            }
        }
        self.refuse(refused);
    }

    fn refuse(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            if let Some(error) = self.refusal() {
                self.effects.push_back(Effect::Reply(ticket, Err(error)));
            }
        }
    }

    /// Whether nothing is left to do of what has happened: the moment to hand over what peers sent.
    pub(crate) fn is_between_effects(&self) -> bool {
        self.effects.is_empty()
    }

    /// Whether no write is under way either: the moment to hand over what the app wants, and to let others run.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_between_effects() && matches!(self.step, Step::Idle)
    }

    /// Whether calls of the app wait for their turn.
    pub(crate) fn has_calls(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives the next thing to do; `None` until something happens.
    ///
    /// A group is formed only when nothing else is left to do, so that it takes everything that has arrived.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.say_what_is_owed();
            self.begin_next();
            self.begin_beside();
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
            // Nobody waits for what others committed.
            Step::ReadingReceived(_) | Step::Receiving { .. } => {}
            Step::Joining(ticket) => open.push((ticket, written(reason.clone()))),
            Step::Writing(decision, _) => {
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
                self.effects.push_back(Effect::Notify(Notice::from([Event::ClockJumped { by_ms }])));
            }
        }
        if let Ok(wall) = &now.wall {
            self.pen.clock.see(*wall);
        }
        self.pen.wall = now.wall;
        self.mono = now.mono;
    }

    /// Begins a write: the app's and the peers' take turns.
    fn begin_next(&mut self) {
        if !matches!(self.step, Step::Idle) {
            return;
        }
        if self.sync.has_urgent_rows(self.mono) {
            let mut batch = WriteBatch::new();
            self.sync.take_rows(&mut batch);
            if !batch.is_empty() {
                let decision = Decision::nothing(self.durable_clock);
                self.step = Step::Writing(Box::new(decision), Source::Own);
                self.effects.push_back(Effect::Write(batch));
                return;
            }
        }
        let peers_turn = self.was_local || self.pending.is_empty();
        if peers_turn && !self.closing && !self.sync.inbox.commits.is_empty() {
            self.was_local = false;
            return self.form_received();
        }
        self.was_local = true;
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

    /// Begins to read what peers want to know.
    fn begin_beside(&mut self) {
        if !matches!(self.sync.side, Side::Idle) || self.closing {
            return;
        }
        if let Some(((peer, stream), point)) = self.sync.checks.pop_first() {
            self.begin_check(Check { peer, stream, point });
        } else if let Some((to, pull)) = self.sync.pulls.pop_front() {
            self.begin_serving(to, pull);
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
        let asked = keys.len();
        let values = values.and_then(|values| {
            let got = values.len();
            if got == asked {
                Ok(values)
            } else {
                Err(ReadError(format!("{got} values for {asked} keys").into()))
            }
        });
        let mut commits = match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Reading(commits) => commits,
            Step::ReadingReceived(commits) => return self.receive(commits, keys, values),
            other => {
                self.step = other;
                return;
            }
        };
        let changes = commits.iter_mut().flat_map(|(_, commit)| &mut commit.changes);
        changes.zip(keys).for_each(|(change, key)| change.record.take_back(key));
        match values {
            // It was found out meanwhile.
            Ok(_) if self.refusal().is_some() => {
                self.refuse(commits.into_iter().map(|(ticket, _)| ticket).collect());
            }
            Ok(values) => {
                let decision = self.pen.decide(commits, values);
                self.perform(decision, Source::App);
            }
            Err(error) => {
                let error: SharedError = Arc::from(error.0);
                for (ticket, _) in commits {
                    self.effects.push_back(Effect::Reply(ticket, Err(Error::Read(Arc::clone(&error)))));
                }
            }
        }
    }

    fn perform(&mut self, mut decision: Decision, source: Source) {
        for (ticket, result) in decision.settled.drain(..) {
            self.effects.push_back(Effect::Reply(ticket, result));
        }
        let mut batch = std::mem::take(&mut decision.batch);
        if !batch.is_empty() {
            self.sync.take_rows(&mut batch);
            self.step = Step::Writing(Box::new(decision), source);
            self.effects.push_back(Effect::Write(batch));
        }
    }

    fn handle_written(&mut self, result: Result<(), SharedError>) {
        let (decision, source) = match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Writing(decision, source) => (decision, source),
            other => {
                self.step = other;
                return;
            }
        };
        match &result {
            Ok(()) => self.sync.rows_written(),
            Err(_) => self.sync.put_rows_back(),
        }
        match (result, source) {
            (Ok(()), Source::App) => self.announce(*decision),
            (Ok(()), Source::Peers) => self.announce_received(*decision),
            (Ok(()), Source::Own) => {}
            // Head and log are as before. The clock is not set back: a stamp is never drawn twice.
            (Err(error), Source::App) => {
                for (ticket, _) in decision.waiting {
                    self.effects.push_back(Effect::Reply(ticket, Err(Error::Rejected(Arc::clone(&error)))));
                }
            }
            (Err(error), Source::Peers) => {
                let first = decision.heads.first().map(|(stream, head)| (*stream, head.seq));
                self.receive_failed(first, &error);
            }
            (Err(_), Source::Own) => self.sync.rows_failing.again(self.mono, &mut self.sync.rng),
        }
    }

    fn handle_joined(&mut self, result: Result<Box<(Pen, Decision)>, Error>) {
        match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Joining(ticket) => match result {
                Ok(joined) => {
                    let (pen, mut decision) = *joined;
                    // Without a commit nothing was stored, also not the clock.
                    if decision.heads.is_empty() {
                        decision.clock = self.durable_clock;
                    }
                    self.take_back(pen);
                    self.announce(decision);
                }
                Err(error) => self.effects.push_back(Effect::Reply(ticket, Err(error))),
            },
            Step::Receiving { stream, seq } => match result {
                Ok(joined) => {
                    let (pen, decision) = *joined;
                    self.take_back(pen);
                    self.announce_received(decision);
                }
                Err(error @ (Error::Rejected(_) | Error::Read(_) | Error::Stopped(_))) => {
                    self.receive_failed(Some((stream, seq)), &error);
                }
                // The app's code, for one of them: they come again, one by one.
                Err(_) if self.sync.inbox.in_write > 1 => {
                    self.forget_received();
                    self.maybe_pull();
                }
                Err(error) => {
                    self.put_off(stream, StreamStop::Projection { seq, error: error.to_string() });
                }
            },
            other => self.step = other,
        }
    }

    /// Goes on with the pen that was lent. What has happened meanwhile is known here.
    fn take_back(&mut self, pen: Pen) {
        let (wall, connected) = (self.pen.wall.clone(), self.pen.connected);
        let marks = self.pen.marks | pen.marks;
        self.pen = Pen { wall, connected, marks, ..pen };
    }

    /// A decision has become durable: everybody may hear of it.
    fn announce(&mut self, decision: Decision) {
        if !decision.heads.is_empty() {
            self.pen.moved.clear();
            if decision.frame.is_none() && self.pen.connected {
                // Too long for a frame: they hear that there is something to pull.
                self.acknowledge_later([self.me()]);
            }
        }
        self.pen.heads.extend(decision.heads);
        self.durable_clock = decision.clock;
        // Events first: whoever gets a reply finds them, and whoever subscribes after it hears none of them.
        self.effects.extend(decision.notices.into_iter().map(Effect::Notify));
        let replies = decision.waiting.into_iter();
        self.effects.extend(replies.map(|(ticket, result)| Effect::Reply(ticket, result)));
        // It may have been found out while this was written.
        if let Some(frame) = decision.frame.filter(|_| !self.has_two_histories()) {
            self.broadcast(frame);
        }
        self.take_members(decision.members);
    }

    /// Members that were added or changed.
    fn take_members(&mut self, members: Vec<Member>) {
        if members.is_empty() {
            return;
        }
        self.members.extend(members.into_iter().map(|member| (member.replica, member)));
        self.forget_introducer();
        // Those who were strangers until now may wait for it.
        self.say_hello_to_all();
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

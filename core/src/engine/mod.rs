//! The engine: the decisions of one replica, without any I/O.
//!
//! The engine is pure: no async, no clock, no randomness of its own, no storage calls. Time comes in with every input;
//! reads and writes go out as effects and come back as inputs, so the engine is told when a write is durable. Replies,
//! events and frames become effects only after [`Input::Written`] said `Ok`: nothing can be said before it is durable.
//!
//! The engine is a set of **machines**: structs with private fields, each in a file of its own, that are told facts and
//! return values. No machine sees an effect, a frame or another machine. Only the engine knows them all: this file says
//! which machine hears of an input, and which one is asked for the next effect. The other chapters of `impl Engine` are
//! [`lane`] (jobs for the store and their results), [`hear`] (frames of peers), [`asking`] (pulls), [`answer`] (reads for
//! peers), [`checking`] (the logs here, on demand), [`relaying`] (how far others have acknowledged), [`joining`] (replicas
//! that want to become members), [`sources`] and [`installing`] (a snapshot: whom it is asked of, and what becomes of
//! it), [`pruning`] (logs and tombstones that every member has), [`waiting`] (calls that wait for peers), [`asked`] (what
//! the driver asks between two inputs) and [`report`] (the status for the app).
//!
//! | machine | owns |
//! |---|---|
//! | [`context::Context`] | identity, limits, rules and models of this replica: immutable |
//! | [`ledger::Ledger`] | the durable heads of all streams, the clock |
//! | [`members::Members`] | the member records, the introducer |
//! | [`peer::Peers`] | the link of each peer, what it has, acknowledged and is owed; which peers are ahead |
//! | [`stream::Streams`] | the tip of each stream, and what stops it |
//! | [`stream::inbox::Inbox`] | received commits that wait for the store |
//! | [`portion::Portion`] | how much of the inbox one write takes |
//! | [`pull::Puller`] | the pages on their way |
//! | [`live::Live`] | how far back the commits reach that a peer may lack and still get the next ones live |
//! | [`acks::Acks`], [`acks::Hellos`] | when to acknowledge, when to say hello |
//! | [`relays::Relays`] | what peers ask about other members, and what was told of them |
//! | [`adding::Adding`] | calls that wait for a replica to knock |
//! | [`waits::Waits`] | calls that wait for peers to have what is here |
//! | [`writes::Writes`] | the calls of the app, the one write under way, whose turn it is |
//! | [`upkeep::Upkeep`] | values beside records to fold into them, projections to rebuild |
//! | [`reads::Reads`] | the reads for peers |
//! | [`doubts::Doubts`] | the words of peers that contradict what is here, and the search for who is right |
//! | [`looks::Looks`] | the looks at the logs here: rows that the chain vouches for |
//! | [`damages::Damages`] | the damaged places of the logs here, and at peers |
//! | [`checks::Checks`] | the checks of the logs here, and what mends them |
//! | [`serve::Serving`] | pulls to answer, places to compare |
//! | [`install::Install`] | a snapshot that is being installed: its stage, and how far it is |
//! | [`pins::Pins`] | how far back the log is needed by the snapshots that are served |
//! | [`quorum::Quorum`] | how far each member has acknowledged each stream, as far as that lets anything be pruned |
//! | [`pruner::Pruner`] | which logs are pruned next, and how much of them at once |
//! | [`retention::Retention`] | how much of the logs is kept at most |
//! | [`tombstones::Tombstones`] | the walk that drops the tombstones that no member needs |
//! | [`rows::Rows`] | rows of peers and forks that ride on any write |
//!
//! A fact that can be derived is asked for, not pushed: whenever no effect is left, [`Engine::next_effect`] asks in one
//! fixed order what is owed, due or missing. So there is one place that decides to pull, and one that decides to
//! acknowledge.
//!
//! A write takes three steps: read the records that it touches ([`Effect::Read`]), decide ([`commit`]), write
//! ([`Effect::Write`]). Commits that arrive meanwhile form the next round and share its write, so that no timer is
//! needed to gather them. A joined write is one step instead ([`Effect::Join`]): reading, deciding and writing happen
//! in one native transaction of the store, with the [`Pen`] that the engine lends for it.

mod acks;
mod adding;
#[cfg(feature = "internals-for-tests")]
pub mod alone;
mod answer;
mod asked;
mod asking;
mod backoff;
mod chain;
mod checking;
mod checks;
mod commit;
mod context;
mod damages;
mod doubting;
mod doubts;
mod ends;
mod hear;
mod install;
mod installing;
mod io;
mod joining;
mod judge;
mod lane;
mod ledger;
mod live;
mod looks;
mod members;
mod mender;
mod opening;
mod peer;
mod pins;
mod portion;
mod pruner;
mod pruning;
mod pull;
mod quorum;
mod reads;
mod relaying;
mod relays;
mod report;
mod retention;
mod ring;
mod rows;
#[cfg_attr(
    not(feature = "internals-for-tests"),
    allow(unreachable_pub, reason = "what is public in it is so through `internals` alone")
)]
pub(crate) mod rules;
mod serve;
mod sources;
mod stream;
mod tombstones;
mod upkeep;
mod waiting;
mod waits;
pub(crate) mod wire;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::{Mono, Now, WallMs};
use crate::events::{Event, Notice};
use crate::ids::ReplicaId;
use crate::stored::Point;

use acks::{Acks, HelloReason, Hellos};
use adding::Adding;
use checks::Checks;
pub(crate) use commit::{
    Action, Commit, Current, Decision, Joined, NewValue, Pen, Places, Received, Refusal, Staged, Update,
    Updated, join, lend_keys, take_keys_back,
};
use context::Context;
use damages::Damages;
use doubts::Doubts;
pub(crate) use ends::LogEnd;
use install::Install;
pub(crate) use io::{Answer, Effect, Input, JobId, Overlay, Query, Ticket, Unwritten};
use ledger::Ledger;
use live::Live;
use looks::Looks;
use members::Members;
pub(crate) use opening::{Ask, Contents, open, read_projections};
use peer::{Owed, Peer, Peers};
use pins::Pins;
use portion::Portion;
use pruner::Pruner;
use pull::Puller;
use quorum::Quorum;
use reads::Reads;
use relaying::others;
use relays::Relays;
use retention::Retention;
use ring::Ring;
use rows::Rows;

pub(crate) use rules::Rules;
use rules::{Mark, Marks};
use serve::Serving;
use stream::admission::Admitting;
use stream::inbox::Inbox;
use stream::{Streams, Told};
use tombstones::Tombstones;
use upkeep::Upkeep;
use waits::Waits;
pub(crate) use waits::Wanted;
use wire::{Capped, Heads, Hello, Stopped, WireClock, WireHead};
use writes::{Call, Writes};

/// The most streams of a group.
pub(crate) const STREAMS_MAX: usize = wire::STREAMS_MAX;
/// The longest frame on which an acknowledgement rides. What limit a peer has is not known, so no frame that it takes may
/// become too long for it.
const RIDE_BYTES_MAX: usize = 4 * 1024;
/// The most effects that may wait when a frame is taken: memory stays bounded while the store is busy.
const EFFECTS_MAX: usize = 64;

/// The questions that the engine asks of every machine.
trait Machine {
    /// The next moment at which time alone changes something. A moment that has come is never named: the driver would
    /// wake up for it again and again.
    fn next_timeout(&self) -> Option<Mono> {
        None
    }

    /// Marks what is due by `now`. The engine finds it when it asks the machine next.
    fn expire(&mut self, _now: Mono) {}

    /// Asserts the invariants of the machine.
    fn check(&self) {}
}

/// One replica: all of its state that is not in the store.
#[derive(Debug)]
pub(crate) struct Engine {
    context: Arc<Context>,
    ledger: Arc<Ledger>,
    members: Members,
    peers: Peers,
    streams: Streams,
    inbox: Inbox,
    portion: Portion,
    puller: Puller,
    live: Live,
    acks: Acks,
    hellos: Hellos,
    relays: Relays,
    adding: Adding,
    waits: Waits,
    writes: Writes,
    upkeep: Upkeep,
    reads: Reads,
    serving: Serving,
    damages: Damages,
    doubts: Doubts,
    looks: Looks,
    checks: Checks,
    install: Install,
    pins: Pins,
    quorum: Quorum,
    pruner: Pruner,
    tombstones: Tombstones,
    retention: Retention,
    rows: Rows,
    /// Both clocks, as read for the last input.
    now: Now,
    /// The last reading of both clocks at which the wall clock did not fail: a jump is measured from it.
    last_reading: Option<(WallMs, Mono)>,
    rng: fastrand::Rng,
    /// Whether only calls of the app are still served, since its manager closes.
    closing: bool,
    marks: Marks,
    effects: VecDeque<Effect>,
}

impl Engine {
    /// Takes an input.
    pub(crate) fn handle(&mut self, now: Now, input: Input) {
        self.pass_time(now);
        match input {
            Input::Commit(ticket, commit) => self.take_call(ticket, Call::Commit(commit)),
            Input::Join(ticket) => self.take_call(ticket, Call::Join),
            Input::Read(job, keys, values) => self.records_read(job, keys, values),
            Input::Scanned(job, page) => self.rows_read(job, page),
            Input::Written(job, result) => self.written(job, result),
            Input::Joined(job, result) => self.joined(job, result),
            Input::Projected(job, result) => self.projected(job, result),
            Input::Mended(job, mended) => self.mended(job, mended),
            Input::Found(job, answer) => self.found(job, answer),
            Input::Up(peer) => self.came_up(peer),
            Input::Down(peer) => self.went_down(peer),
            Input::Frame(from, frame) => self.hear(from, frame),
            Input::CheckLog(ticket) => self.check_log(ticket),
            Input::AwaitKnock(ticket, replica) => self.await_knock(ticket, replica),
            Input::WaitSynced(ticket, ms) => self.wait_synced(ticket, ms),
            Input::WaitDurable(ticket, wanted, ms) => self.wait_durable(ticket, wanted, ms),
            Input::Forget(ticket) => self.waits.forget(ticket),
            Input::Offline => {
                let up: Vec<_> = self.peers.iter().map(|(replica, _)| replica).collect();
                up.into_iter().for_each(|replica| self.went_down(replica));
            }
            Input::Tick => {}
        }
        if self.context.checked {
            self.check();
        }
    }

    /// Gives the next effect to perform; `None` until there is another input.
    ///
    /// The order matters. Owed hellos go out before the pull: a peer can detect that our store was rolled back only
    /// while our heads are still low. A write begins only when no effect is left, so that its round takes all calls
    /// that have arrived. The pull comes after the write, since a write makes room in the inbox: the next page arrives
    /// while this write runs. A check comes before hellos and writes, since it may find that one of them is due.
    pub(crate) fn next_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.answer_waits();
            self.resume_streams();
            self.tell_of_joining();
            self.go_on_with_check();
            self.say_hellos();
            self.pay_what_is_owed();
            self.acknowledge();
            self.relay();
            self.go_on_with_held_page();
            self.begin_write();
            self.pull();
            self.serve();
        }
        self.effects.pop_front()
    }

    /// The next moment at which time alone changes something: the driver sends [`Input::Tick`] then.
    pub(crate) fn next_timeout(&mut self) -> Option<Mono> {
        self.machines().into_iter().filter_map(|machine| machine.next_timeout()).min()
    }

    /// All machines that depend on time or assert invariants. One list serves timeouts, expiry and checks, so that no
    /// machine is forgotten in one of them.
    fn machines(&mut self) -> [&mut dyn Machine; 24] {
        [
            &mut self.peers,
            &mut self.streams,
            &mut self.inbox,
            &mut self.portion,
            &mut self.puller,
            &mut self.live,
            &mut self.acks,
            &mut self.hellos,
            &mut self.relays,
            &mut self.adding,
            &mut self.waits,
            &mut self.writes,
            &mut self.upkeep,
            &mut self.reads,
            &mut self.serving,
            &mut self.doubts,
            &mut self.looks,
            &mut self.checks,
            &mut self.install,
            &mut self.pins,
            &mut self.quorum,
            &mut self.pruner,
            &mut self.tombstones,
            &mut self.rows,
        ]
    }

    /// Asserts the invariants of each machine, and those between machines.
    fn check(&mut self) {
        for machine in self.machines() {
            machine.check();
        }
        self.ledger.check(&self.context);
        self.members.check();
        self.streams.check_against(&self.ledger, &self.context);
        self.peers.check_index(self.context.me(), |stream| self.streams.tip(stream).seq);
        let now = self.now.mono;
        assert!(
            self.next_timeout().is_none_or(|at| at > now),
            "what is due at {now:?} is no moment to wait for"
        );
    }

    fn pass_time(&mut self, now: Now) {
        if let Ok(wall) = now.wall
            && let Some(before) = self.last_reading.replace((wall, now.mono))
        {
            let by_ms = crate::clock::jump_ms(before, (wall, now.mono));
            if by_ms.unsigned_abs() > self.context.limits.max_jump_ms {
                self.tell(Event::ClockJumped { by_ms });
            }
        }
        let mono = now.mono;
        self.now = now;
        for machine in self.machines() {
            machine.expire(mono);
        }
        if let Some(peer) = self.puller.poll_silent() {
            self.peers.rests(peer, mono, &mut self.rng);
            self.peers.was_silent(peer);
            self.peers.paced(peer, peer::Pace::timed_out);
            self.marks.note(Mark::TimedOut);
        }
        if let Some((peer, stream)) = self.doubts.poll_silent() {
            self.peers.compares_again(peer, stream);
        }
        self.end_late_witness();
        self.end_silent_calls();
        self.end_late_waits();
    }

    // --- what is asked of the machines ------------------------------------------------------------------------------

    /// Tries the streams again whose stop has ended by time.
    fn resume_streams(&mut self) {
        let told = self.streams.resume_due(&self.now, &self.ledger, &self.context);
        self.tell_of_streams(told);
    }

    /// Tells the app how streams have changed. The commits of a stream that goes on may be at peers that rest, so all
    /// peers may be asked again.
    fn tell_of_streams(&mut self, told: impl IntoIterator<Item = Told>) {
        for told in told {
            match told {
                Told::Stopped(stream, reason) => {
                    self.peers.owe(stream, |owed| owed.stop = true);
                    self.tell(Event::Stopped { stream, reason });
                }
                Told::Resumed(stream) => {
                    self.marks.note(Mark::Resumed);
                    self.peers.all_are_useful();
                    self.tell(Event::Resumed { stream });
                }
            }
        }
    }

    /// Owes a hello to every trusted peer that is up, if a hello is due.
    fn say_hellos(&mut self) {
        let Some(due) = self.hellos.due().filter(|_| self.peers.any_up()) else { return };
        if due == HelloReason::Time {
            // Store the acknowledgements of peers in this rhythm too: a write for each of them would cost too much.
            self.rows.flush();
            // A log may wait for what no message tells, such as the end of a doubt.
            let streams: Vec<_> = self.ledger.heads().keys().copied().collect();
            self.floors_may_rise(streams);
        }
        self.relays.names_anew();
        for replica in self.members_up() {
            self.peers.owe(replica, |owed| owed.hello = true);
        }
        self.hellos.later(self.members.awaits_membership(), self.now.mono, &mut self.rng);
    }

    /// Sends peers the messages that they are owed.
    fn pay_what_is_owed(&mut self) {
        let group = self.context.group();
        let wall = self.now.wall.as_ref().ok().copied();
        let mut unheard = None;
        while let Some((to, Owed { hello, stranger, other_group, regressed, stop, word })) = self.peers.pay()
        {
            if hello {
                let restored = self.streams.restored().is_some();
                let clock = WireClock {
                    wall: wall.map(WallMs::get),
                    sent: self.now.mono.0,
                    heard: self.peers.says_hello(to, self.now.mono),
                };
                let unheard = unheard.get_or_insert_with(|| self.unheard());
                self.relays.names(unheard);
                let hello = Hello {
                    session: self.context.session,
                    features: wire::FEATURES,
                    restored,
                    clock,
                    knocks: self.knocks(),
                    unheard: others(unheard, to),
                    relayed: self.relayed(to, true),
                    heads: self.heads(),
                };
                self.send(to, wire::hello(group, &hello));
                self.peers.is_told(to, self.ledger.own().seq, self.now.mono);
            } else if word {
                self.send_word(to);
            }
            if stranger {
                self.send(to, wire::stranger(group));
            }
            if let Some(group) = other_group {
                self.send(to, wire::other_group(group));
            }
            if let Some(head) = regressed {
                self.send(to, wire::regressed(group, &head));
            }
            // Repeat the word of a stop with every hello: a frame may be lost, and the author may be in a new session.
            if (hello || stop)
                && self.members.trusts(to, &self.context)
                && let Some(stop) = self.streams.stop_of(to)
            {
                self.send(to, wire::stopped(group, &Stopped::new(stop, wall)));
            }
        }
    }

    /// Acknowledges the streams that have moved, if it is time. No other place acknowledges, but acknowledgements ride on
    /// other frames too.
    fn acknowledge(&mut self) {
        let Some(moved) = self.acks.poll() else { return };
        for (peers, ack) in self.acks_of(&moved) {
            self.effects.push_back(Effect::Broadcast(peers, ack));
        }
    }

    /// The acknowledgements of streams, with those whom the [ring](ring) names. Most peers are told the same, so one
    /// frame serves them all.
    fn acks_of(&self, moved: &BTreeSet<ReplicaId>) -> Vec<(Vec<ReplicaId>, Bytes)> {
        let up = self.members_up();
        let ring = Ring::new(self.context.me(), &up, &self.relays);
        let mut streams_of: BTreeMap<ReplicaId, Vec<ReplicaId>> = BTreeMap::new();
        for stream in moved.iter().copied().filter(|stream| self.ack_of(*stream).seq > 0) {
            for peer in ring.told_of(stream, self.hears(stream)) {
                streams_of.entry(peer).or_default().push(stream);
            }
        }
        let mut told: BTreeMap<Vec<ReplicaId>, Vec<ReplicaId>> = BTreeMap::new();
        for (peer, streams) in streams_of {
            told.entry(streams).or_default().push(peer);
        }
        let frame = |streams: Vec<_>| {
            let heads = streams.into_iter().map(|stream| self.ack_of(stream)).collect();
            wire::ack(self.context.group(), &Capped(heads))
        };
        told.into_iter().map(|(streams, peers)| (peers, frame(streams))).collect()
    }

    /// The frames that bring `frame` to all of `to`. The acknowledgement that waits rides on it, if these are all whom it
    /// tells: so nobody gets another frame for it.
    fn with_acks(&mut self, to: Vec<ReplicaId>, frame: Bytes) -> Vec<(Vec<ReplicaId>, Bytes)> {
        let acks = self.acks.riding(self.now.mono).map(|moved| self.acks_of(moved)).unwrap_or_default();
        let room = RIDE_BYTES_MAX.min(self.context.limits.frame_bytes_max).saturating_sub(frame.len());
        let ride =
            |(peers, ack): &(Vec<_>, Bytes)| ack.len() <= room && peers.iter().all(|peer| to.contains(peer));
        if acks.is_empty() || !acks.iter().all(ride) {
            return vec![(to, frame)];
        }
        self.acks.rode();
        let told: BTreeSet<_> = acks.iter().flat_map(|(peers, _)| peers.iter().copied()).collect();
        let others: Vec<_> = to.into_iter().filter(|peer| !told.contains(peer)).collect();
        let with = |ack: Bytes| [frame.as_ref(), ack.as_ref()].concat().into();
        let mut frames: Vec<_> = acks.into_iter().map(|(peers, ack)| (peers, with(ack))).collect();
        if !others.is_empty() {
            frames.push((others, frame));
        }
        frames
    }

    /// How far a stream may be acknowledged: not at all if its head is damaged here, or if it is the own one and has two
    /// histories.
    fn ack_of(&self, stream: ReplicaId) -> WireHead {
        let durable = self.context.rules.acks_are_durable || stream == self.context.me();
        if !self.damages.head_is_whole(stream) || self.hidden() == Some(stream) {
            return WireHead { stream, seq: 0, digest: [0; 32] };
        }
        let point = if durable { self.ledger.head(stream).point() } else { self.streams.tip(stream).point() };
        WireHead { stream, seq: point.seq, digest: point.digest }
    }

    // --- what is said -----------------------------------------------------------------------------------------------

    fn send(&mut self, to: ReplicaId, frame: Bytes) {
        for (_, frame) in self.with_acks(vec![to], frame) {
            self.effects.push_back(Effect::Send(to, frame));
        }
    }

    /// Sends own commits, those behind `before`, to the peers that have all that comes before, or were sent it. The others
    /// are told that there is something to pull.
    fn send_live(&mut self, before: u64, frame: Bytes) {
        let (upto, mut members) = (self.ledger.own().seq, self.members_up());
        self.live.sent(before, frame.len(), self.context.limits.page_bytes_max);
        if self.context.rules.live_follows {
            let floor = self.live.floor();
            let (peers, now) = (&mut self.peers, self.now.mono);
            members.retain(|to| {
                let level = peers.is_level(*to, before, floor);
                if level {
                    peers.is_sent_live(*to, before, upto);
                } else {
                    peers.owe_word(*to, now);
                }
                level
            });
        }
        if !members.is_empty() {
            for (members, frame) in self.with_acks(members, frame) {
                self.effects.push_back(Effect::Broadcast(members, frame));
            }
        }
    }

    /// Tells a member how far the own stream is.
    fn send_word(&mut self, to: ReplicaId) {
        if self.hidden().is_some()
            || !self.damages.head_is_whole(self.context.me())
            || !self.members.trusts(to, &self.context)
        {
            return;
        }
        let Point { seq, digest } = self.ledger.own().point();
        let head = WireHead { stream: self.context.me(), seq, digest };
        self.send(to, wire::ack(self.context.group(), &Capped(vec![head])));
        self.peers.is_told(to, seq, self.now.mono);
    }

    /// The trusted peers that are up. A stranger must not hear of commits.
    fn members_up(&self) -> Vec<ReplicaId> {
        let up = self.peers.iter().filter(|(_, peer)| peer.is_up()).map(|(replica, _)| replica);
        up.filter(|replica| self.members.trusts(*replica, &self.context)).collect()
    }

    fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Notify(Notice::from([event])));
    }

    /// The durable heads of all streams, as a hello names them.
    fn heads(&self) -> Heads {
        let hidden = self.hidden();
        let heads = self.ledger.heads().iter();
        let known = heads.filter(|(stream, head)| {
            head.seq > 0 && Some(**stream) != hidden && self.damages.head_is_whole(**stream)
        });
        let heads =
            known.map(|(stream, head)| WireHead { stream: *stream, seq: head.seq, digest: head.digest });
        Capped(heads.collect())
    }

    /// The own stream after a restore: a peer that took this second history could never take the first.
    fn hidden(&self) -> Option<ReplicaId> {
        let me = self.context.me();
        self.streams.has_two_histories(me).then_some(me)
    }

    /// The machines that admission reads.
    fn admitting(&self) -> Admitting<'_> {
        Admitting {
            context: &self.context,
            now: &self.now,
            ledger: &self.ledger,
            members: &self.members,
            streams: &self.streams,
            inbox: &self.inbox,
            damages: &self.damages,
            doubts: &self.doubts,
        }
    }
}

#[cfg(test)]
pub(crate) mod made;
#[cfg(test)]
mod tests;

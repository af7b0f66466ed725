//! What a replica knows of its peers: who they are, what they have, what they acknowledged, and when to talk to them.
//!
//! A replica says [`Hello`] when a peer comes up and then now and then, with its heads. Whoever is behind
//! [pulls](super::pull); what was just committed is [broadcast](super::group); what was received is acknowledged once
//! it is durable, which also tells those who were not reached directly that there is something to pull.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::inbox::Inbox;
use super::pull::Pulling;
use super::serve::Serving;
use super::stops::{Check, Stop};
use super::wire::{self, Capped, Heads, Hello, Message, Messages, Pull, STREAMS_MAX, WireError, WireHead};
use super::{Effect, Engine, Mark};
use crate::clock::Mono;
use crate::events::{Event, Notice, Restored, StreamStop};
use crate::ids::ReplicaId;
use crate::storage::WriteBatch;
use crate::stored::{Identity, Point, fork_value, keys, peer_value};

/// How often a replica says hello to those it is connected with: what was lost is noticed by then.
const HELLO_EVERY_MS: u64 = 30_000;
/// How often a joiner asks whether it has been added.
const JOIN_EVERY_MS: u64 = 2_000;
/// What is applied within this time is acknowledged together.
const ACK_AFTER_MS: u64 = 20;
/// The first pause after a peer was of no use, doubled every time up to the longest.
const BACKOFF_MS: u64 = 250;
const BACKOFF_MS_MAX: u64 = 60_000;
/// The most messages of one frame. This version sends one.
const MESSAGES_MAX: usize = 16;
/// Peers that are remembered beyond the members: strangers, mostly.
const STRANGERS_MAX: usize = 64;

/// Everything that an engine knows of other replicas beside what is stored.
#[derive(Debug)]
pub(super) struct Replication {
    /// Whether this replica was opened with a transport, so that others may need its log.
    pub(super) networked: bool,
    /// Drawn at the opening: tells peers that what they remember of this replica may be wrong.
    pub(super) session: u64,
    pub(super) rng: fastrand::Rng,
    /// From whom this replica learns the group, until its own member record is here.
    pub(super) introducer: Option<ReplicaId>,
    pub(super) peers: BTreeMap<ReplicaId, Peer>,
    pub(super) inbox: Inbox,
    /// The streams that go no further here.
    pub(super) stops: BTreeMap<ReplicaId, Stop>,
    /// Streams whose next commit a projection or the store refused: when it is tried again.
    pub(super) refusing: BTreeMap<ReplicaId, Backoff>,
    /// Streams whose held commits the operator has let through.
    pub(super) released: BTreeSet<ReplicaId>,
    pub(super) restored: Option<Restored>,
    pub(super) pull: Option<Pulling>,
    pub(super) last_pull_id: u32,
    /// The pulls of peers that wait to be answered, one a peer.
    pub(super) pulls: VecDeque<(ReplicaId, Pull)>,
    /// Places in streams to compare with what a peer says of them, one a peer and stream.
    pub(super) checks: BTreeMap<(ReplicaId, ReplicaId), Point>,
    /// Who is to hear hello, or that it is a stranger, once what was begun is done: one answer, however often it asked.
    owed: BTreeMap<ReplicaId, Owed>,
    /// The peer whose last page or silence was of no use.
    pub(super) useless: Option<ReplicaId>,
    /// The length of the frame that is being read.
    pub(super) frame_bytes: usize,
    pub(super) side: Side,
    hello_at: Option<Mono>,
    ack_at: Option<Mono>,
    /// What moved since the last acknowledgement.
    unacked: BTreeSet<ReplicaId>,
    /// Peers whose row is not what is known of them; written with the next write.
    stale_rows: BTreeSet<ReplicaId>,
    /// Forks that are not stored yet.
    pub(super) unstored_forks: BTreeSet<ReplicaId>,
    /// What the write under way stores of both, until it is durable.
    writing: (BTreeSet<ReplicaId>, BTreeSet<ReplicaId>),
    /// Whether stale rows are to be written even if nothing else is.
    flush: bool,
    /// Since such a write failed.
    pub(super) rows_failing: Backoff,
    /// Since the store failed to take what was received: when to go on, and how often it has failed.
    pub(super) failing: Backoff,
}

/// What the engine reads beside its writes.
#[derive(Debug)]
pub(super) enum Side {
    Idle,
    Checking(Check),
    Serving(Box<Serving>),
}

/// What a peer is owed.
#[derive(Clone, Copy, Debug, Default)]
struct Owed {
    hello: bool,
    /// That it is no member.
    stranger: bool,
    /// That it once acknowledged this.
    regressed: Option<WireHead>,
}

/// Another replica.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) up: bool,
    pub(super) session: Option<u64>,
    /// The highest that it is known to have, of each stream.
    pub(super) heads: BTreeMap<ReplicaId, u64>,
    /// Its last page was full: there is more, whatever its heads were.
    pub(super) more: bool,
    /// What it acknowledged, ever.
    pub(super) acked: BTreeMap<ReplicaId, Point>,
    /// It says that it was restored: nothing that it acknowledges counts.
    pub(super) restored: bool,
    /// It says that this replica is no member.
    pub(super) stranger: bool,
    /// Its log begins behind what is here.
    pub(super) pruned: bool,
    pub(super) rejected: u64,
    pub(super) backoff: Backoff,
    /// The place in each stream that was compared last.
    pub(super) checked: BTreeMap<ReplicaId, u64>,
}

/// When to try again after failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pub(super) until: Option<Mono>,
    tries: u32,
}

impl Backoff {
    /// Waits twice as long as the last time, give or take a quarter so that peers do not try in step.
    pub(super) fn again(&mut self, now: Mono, rng: &mut fastrand::Rng) {
        let ms = (BACKOFF_MS << self.tries.min(16)).min(BACKOFF_MS_MAX);
        self.tries = self.tries.saturating_add(1);
        self.until = Some(Mono(now.0.saturating_add(jittered(ms, rng))));
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_over(&self, now: Mono) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
}

fn jittered(ms: u64, rng: &mut fastrand::Rng) -> u64 {
    ms - ms / 4 + rng.u64(0..=ms / 2)
}

impl Replication {
    pub(super) fn new(networked: bool, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            networked,
            session: rng.u64(..),
            rng,
            introducer: None,
            peers: BTreeMap::new(),
            inbox: Inbox::default(),
            stops: BTreeMap::new(),
            refusing: BTreeMap::new(),
            released: BTreeSet::new(),
            restored: None,
            pull: None,
            last_pull_id: 0,
            pulls: VecDeque::new(),
            checks: BTreeMap::new(),
            owed: BTreeMap::new(),
            useless: None,
            frame_bytes: 0,
            side: Side::Idle,
            hello_at: None,
            ack_at: None,
            unacked: BTreeSet::new(),
            stale_rows: BTreeSet::new(),
            unstored_forks: BTreeSet::new(),
            writing: Default::default(),
            flush: false,
            rows_failing: Backoff::default(),
            failing: Backoff::default(),
        }
    }

    /// The rows that are due: what peers acknowledged now and then, since every commit would pay for it; that a stream
    /// has two histories at once.
    pub(super) fn take_rows(&mut self, batch: &mut WriteBatch) {
        let stale = if self.flush { std::mem::take(&mut self.stale_rows) } else { BTreeSet::new() };
        let forks = std::mem::take(&mut self.unstored_forks);
        for replica in &stale {
            if let Some(peer) = self.peers.get(replica) {
                batch.put(keys::peer(*replica), peer_value(&peer.acked));
            }
        }
        for replica in &forks {
            let stop = self.stops.get(replica).map(|stop| &stop.reason);
            let (stream, seq) = match (stop, self.restored) {
                (Some(StreamStop::Forked { seq }), _) => (*replica, *seq),
                (_, Some(Restored { stream, seq })) => (stream, seq),
                _ => continue,
            };
            batch.put(keys::fork(*replica), fork_value(stream, seq));
        }
        self.writing = (stale, forks);
        self.flush = false;
    }

    /// The rows that were taken are durable.
    pub(super) fn rows_written(&mut self) {
        self.writing = Default::default();
        self.rows_failing.reset();
    }

    /// The rows that were taken are not stored.
    pub(super) fn put_rows_back(&mut self) {
        let (stale, forks) = std::mem::take(&mut self.writing);
        self.stale_rows.extend(stale);
        self.unstored_forks.extend(forks);
    }

    /// Whether there are rows that do not wait for another write.
    pub(super) fn has_urgent_rows(&self, now: Mono) -> bool {
        let due = !self.unstored_forks.is_empty() || self.flush && !self.stale_rows.is_empty();
        due && self.rows_failing.is_over(now)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.peers.values().any(|peer| peer.up)
    }
}

impl Engine {
    pub(super) fn me(&self) -> ReplicaId {
        self.pen.identity.replica
    }

    /// Whether this replica waits for its own member record.
    pub(super) fn is_joining(&self) -> bool {
        self.sync.introducer.is_some() && !self.is_member()
    }

    /// Whether the group knows this replica, on this device: commits that name another one are taken by nobody.
    pub(super) fn is_member(&self) -> bool {
        let Identity { replica, device, .. } = self.pen.identity;
        self.members.get(&replica).is_some_and(|member| member.device == device)
    }

    /// Whether frames of this replica are listened to.
    pub(super) fn is_trusted(&self, peer: ReplicaId) -> bool {
        if !self.rules.peers_are_members {
            return true;
        }
        if self.is_joining() {
            return self.sync.introducer == Some(peer);
        }
        self.members.contains_key(&peer)
    }

    pub(super) fn send(&mut self, to: ReplicaId, frame: Bytes) {
        self.effects.push_back(Effect::Send(to, frame));
    }

    /// Sends this to all members that are connected, and to nobody else.
    pub(super) fn broadcast(&mut self, frame: Bytes) {
        let members = self.members_up();
        if !members.is_empty() {
            self.effects.push_back(Effect::Broadcast(members, frame));
        }
    }

    /// Those whom this replica listens to and is connected with.
    fn members_up(&self) -> Vec<ReplicaId> {
        let up = self.sync.peers.iter().filter(|(_, peer)| peer.up).map(|(replica, _)| *replica);
        up.filter(|replica| self.is_trusted(*replica)).collect()
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.effects.push_back(Effect::Notify(Notice::from([event])));
    }

    /// The durable heads of all streams, as peers hear of them.
    fn heads(&self) -> Heads {
        // Nobody is to take the second history of a stream from here.
        let hidden = self.has_two_histories().then(|| self.me());
        let known = self.pen.heads.iter().filter(|(stream, head)| head.seq > 0 && Some(**stream) != hidden);
        let heads =
            known.map(|(stream, head)| WireHead { stream: *stream, seq: head.seq, digest: head.digest });
        Capped(heads.collect())
    }

    pub(super) fn say_hello(&mut self, to: ReplicaId) {
        self.sync.owed.entry(to).or_default().hello = true;
    }

    /// Answers those who are owed an answer.
    pub(super) fn say_what_is_owed(&mut self) {
        let group = self.pen.identity.group;
        for (to, Owed { hello, stranger, regressed }) in std::mem::take(&mut self.sync.owed) {
            if hello {
                self.send_hello(to);
            }
            if stranger {
                self.send(to, wire::stranger(group));
            }
            if let Some(head) = regressed {
                self.send(to, wire::regressed(group, &head));
            }
        }
    }

    /// Says hello to a peer now, if that is owed to it.
    pub(super) fn say_owed_hello(&mut self, to: ReplicaId) {
        let owed = self.sync.owed.get_mut(&to).is_some_and(|owed| std::mem::take(&mut owed.hello));
        if owed {
            self.send_hello(to);
        }
    }

    fn send_hello(&mut self, to: ReplicaId) {
        let hello =
            Hello { session: self.sync.session, restored: self.sync.restored.is_some(), heads: self.heads() };
        let frame = wire::hello(self.pen.identity.group, &hello);
        self.send(to, frame);
    }

    /// Says hello to everybody whom this replica listens to and is connected with.
    pub(super) fn say_hello_to_all(&mut self) {
        self.members_up().into_iter().for_each(|replica| self.say_hello(replica));
        self.say_hello_later();
    }

    // --- what the transport brings -----------------------------------------------------------------------------

    pub(super) fn handle_up(&mut self, replica: ReplicaId) {
        let strangers = self.limits.members_max.saturating_add(STRANGERS_MAX);
        if replica == self.me() || self.sync.peers.len() >= strangers && !self.is_trusted(replica) {
            return;
        }
        let peer = self.sync.peers.entry(replica).or_default();
        peer.up = true;
        peer.session = None;
        peer.backoff.reset();
        self.pen.connected = true;
        if self.is_trusted(replica) {
            self.say_hello(replica);
        }
        if self.sync.hello_at.is_none() {
            self.say_hello_later();
        }
    }

    fn say_hello_later(&mut self) {
        let every = if self.is_joining() { JOIN_EVERY_MS } else { HELLO_EVERY_MS };
        self.sync.hello_at = Some(Mono(self.mono.0.saturating_add(jittered(every, &mut self.sync.rng))));
    }

    pub(super) fn handle_down(&mut self, replica: ReplicaId) {
        if let Some(peer) = self.sync.peers.get_mut(&replica) {
            peer.up = false;
            if peer.acked.is_empty() && !peer.restored {
                self.sync.peers.remove(&replica);
            }
        }
        self.sync.pulls.retain(|(peer, _)| *peer != replica);
        if self.sync.pull.as_ref().is_some_and(|pull| pull.peer == replica) {
            self.sync.pull = None;
        }
        self.pen.connected = self.sync.is_connected();
        self.maybe_pull();
    }

    /// The transport has ended.
    pub(super) fn handle_offline(&mut self) {
        let peers: Vec<_> = self.sync.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.handle_down(peer));
    }

    pub(super) fn handle_frame(&mut self, from: ReplicaId, frame: Bytes) {
        self.sync.frame_bytes = frame.len();
        if !self.is_listened_to(from, &frame) {
            return;
        }
        let group = self.rules.groups_are_checked.then_some(self.pen.identity.group);
        let messages = Messages::new(frame, group, self.limits.frame_bytes_max);
        match messages {
            Err(error) => self.reject(from, &error),
            // All of it is read before any of it counts.
            Ok(messages) => match messages.take(MESSAGES_MAX + 1).collect::<Result<Vec<_>, _>>() {
                Err(error) => self.reject(from, &error),
                Ok(messages) if messages.len() > MESSAGES_MAX => {
                    self.reject_because(from, "it has too many messages".into());
                }
                Ok(messages) => {
                    messages.into_iter().for_each(|message| self.handle_message(from, message));
                }
            },
        }
    }

    /// Whether the frames of `from` are read at all. Of others only a hello is answered.
    fn is_listened_to(&mut self, from: ReplicaId, frame: &Bytes) -> bool {
        if self.is_trusted(from) {
            // A peer that was a stranger when the transport said that it is up, and was one too many.
            if !self.sync.peers.contains_key(&from) {
                self.handle_up(from);
            }
            // A transport says that a peer is up before its first frame.
            return self.sync.peers.get(&from).is_some_and(|peer| peer.up);
        }
        match wire::is_hello(frame, self.pen.identity.group, self.limits.frame_bytes_max) {
            // Who else is in the group, a joiner learns later.
            Ok(_) if self.is_joining() => {}
            Ok(true) => self.sync.owed.entry(from).or_default().stranger = true,
            Ok(false) => self.reject_because(from, "its sender is no member".into()),
            Err(error) => self.reject(from, &error),
        }
        false
    }

    fn reject(&mut self, from: ReplicaId, error: &WireError) {
        self.reject_because(from, error.to_string());
    }

    /// Counts a frame that was refused; tells of the first of a peer, and then ever more rarely.
    pub(super) fn reject_because(&mut self, from: ReplicaId, reason: String) {
        self.mark(Mark::Rejected);
        let Some(peer) = self.sync.peers.get_mut(&from) else { return };
        peer.rejected += 1;
        let count = peer.rejected;
        if count.is_power_of_two() {
            self.tell(Event::FrameRejected { from, reason, count });
        }
    }

    fn handle_message(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Hello(hello) => self.handle_hello(from, &hello),
            Message::Stranger => {
                if let Some(peer) = self.sync.peers.get_mut(&from) {
                    peer.stranger = true;
                }
            }
            Message::Pull(pull) => self.handle_pull(from, pull),
            Message::Page(head, commits) => self.handle_page(from, &head, commits),
            Message::Live(commits) => self.handle_live(from, commits),
            Message::Ack(heads) => {
                self.take_heads(from, &heads);
                self.maybe_pull();
            }
            Message::Regressed(head) => self.handle_regressed(&head),
        }
    }

    fn handle_hello(&mut self, from: ReplicaId, hello: &Hello) {
        let Some(peer) = self.sync.peers.get_mut(&from) else { return };
        peer.stranger = false;
        if peer.session != Some(hello.session) {
            peer.session = Some(hello.session);
            // What it said in an earlier session it may have lost since.
            peer.heads.clear();
            peer.pruned = false;
            peer.backoff.reset();
            self.say_hello(from);
        }
        self.note_regressions(from, hello);
        if let Some(peer) = self.sync.peers.get_mut(&from) {
            // A hello may be late, and a store does not become whole again.
            let found_out = hello.restored && !peer.restored;
            peer.restored |= hello.restored;
            if hello.restored {
                // Of its own stream it has what it says now, if anything.
                peer.heads.remove(&from);
            }
            if found_out && self.rules.acks_of_restored_are_void {
                // Nor does what it acknowledged before, also once this store was opened again.
                peer.acked.clear();
                self.sync.stale_rows.insert(from);
                self.sync.flush = true;
            }
        }
        self.take_heads(from, &hello.heads);
        self.check_places(from, &hello.heads);
        self.maybe_pull();
    }

    /// Tells a peer that says it has less of a stream than it once acknowledged. It alone can judge: what came may be a
    /// hello of an earlier session that was late.
    fn note_regressions(&mut self, from: ReplicaId, hello: &Hello) {
        if hello.restored || !self.rules.restores_are_noticed {
            return;
        }
        let said: BTreeMap<_, _> = hello.heads.0.iter().map(|head| (head.stream, head.seq)).collect();
        let Some(peer) = self.sync.peers.get(&from) else { return };
        let less =
            peer.acked.iter().find(|(stream, point)| said.get(stream).copied().unwrap_or(0) < point.seq);
        if let Some((stream, Point { seq, digest })) = less {
            let head = WireHead { stream: *stream, seq: *seq, digest: *digest };
            self.sync.owed.entry(from).or_default().regressed = Some(head);
        }
    }

    fn handle_regressed(&mut self, head: &WireHead) {
        // Acknowledgements cover only what is durable, so having less now is proof.
        if self.pen.heads.get(&head.stream).map_or(0, |ours| ours.seq) < head.seq {
            self.note_restored(head.stream, head.seq);
        }
    }

    /// Takes note of what a peer has, and compares it with what is here where that costs nothing.
    fn take_heads(&mut self, from: ReplicaId, heads: &Heads) {
        for head in &heads.0 {
            let ours = self.pen.heads.get(&head.stream).copied();
            let same_place = ours.filter(|ours| ours.seq == head.seq && ours.seq > 0);
            let differs = same_place.is_some_and(|ours| ours.digest != head.digest);
            let behind = head.stream == self.me() && head.seq > self.pen.head().seq;
            if behind || differs {
                self.note_two_histories(head.stream, head.seq);
                continue;
            }
            if head.seq == 0 {
                continue;
            }
            self.note_has(from, head.stream, head.seq);
            if !self.is_known_stream(head.stream) {
                continue;
            }
            let Some(peer) = self.sync.peers.get_mut(&from) else { return };
            // It never moves back, and counts only while the peer's store is the one that acknowledged.
            let rises = peer.acked.get(&head.stream).is_none_or(|point| point.seq < head.seq);
            // Whether it is that store, its hello says.
            let counts = !peer.restored && peer.session.is_some() || !self.rules.acks_of_restored_are_void;
            if rises && counts && peer.acked.len() < STREAMS_MAX {
                peer.acked.insert(head.stream, head.point());
                self.sync.stale_rows.insert(from);
            }
        }
    }

    /// Takes note of how much of a stream a peer has.
    pub(super) fn note_has(&mut self, from: ReplicaId, stream: ReplicaId, seq: u64) {
        let Some(peer) = self.sync.peers.get_mut(&from) else { return };
        if peer.heads.len() < STREAMS_MAX || peer.heads.contains_key(&stream) {
            let known = peer.heads.entry(stream).or_insert(0);
            *known = seq.max(*known);
        }
    }

    // --- time ----------------------------------------------------------------------------------------------------

    /// Does what is due.
    pub(super) fn handle_tick(&mut self) {
        let now = self.mono;
        let expire = |backoff: &mut Backoff| {
            backoff.until.take_if(|until| *until <= now);
        };
        self.sync.peers.values_mut().for_each(|peer| expire(&mut peer.backoff));
        expire(&mut self.sync.failing);
        expire(&mut self.sync.rows_failing);
        if self.sync.hello_at.is_some_and(|at| at <= now) {
            self.sync.flush = true;
            self.say_hello_to_all();
        }
        if self.sync.ack_at.is_some_and(|at| at <= now) {
            self.acknowledge();
        }
        if self.sync.pull.as_ref().is_some_and(|pull| pull.deadline <= now)
            && let Some(pull) = self.sync.pull.take()
            && let Some(peer) = self.sync.peers.get_mut(&pull.peer)
        {
            peer.backoff.again(now, &mut self.sync.rng);
            self.sync.useless = Some(pull.peer);
            self.mark(Mark::TimedOut);
        }
        for stream in self.streams_to_retry() {
            self.resume(stream);
        }
        self.maybe_pull();
    }

    /// When time alone changes something.
    pub(crate) fn next_timeout(&self) -> Option<Mono> {
        let sync = &self.sync;
        let connected = sync.is_connected();
        let hello = sync.hello_at.filter(|_| connected);
        let ack = sync.ack_at.filter(|_| connected);
        let pull = sync.pull.as_ref().map(|pull| pull.deadline);
        let peers = sync.peers.values().filter(|peer| peer.up && sync.pull.is_none());
        let backoffs = peers.filter_map(|peer| peer.backoff.until).min();
        let failing = [sync.failing.until, sync.rows_failing.until].into_iter().flatten().min();
        let stops = sync.stops.iter().filter_map(|(stream, stop)| self.retry_at(*stream, stop));
        [hello, ack, pull, backoffs, failing, stops.min()].into_iter().flatten().min()
    }

    // --- acknowledging -------------------------------------------------------------------------------------------

    /// Streams of others have moved: they are acknowledged soon.
    pub(super) fn acknowledge_later(&mut self, streams: impl IntoIterator<Item = ReplicaId>) {
        self.sync.unacked.extend(streams);
        if self.sync.ack_at.is_none() {
            self.sync.ack_at = Some(Mono(self.mono.0.saturating_add(ACK_AFTER_MS)));
        }
    }

    fn acknowledge(&mut self) {
        self.sync.ack_at = None;
        let moved = std::mem::take(&mut self.sync.unacked);
        let heads = moved.into_iter().filter_map(|stream| {
            let Point { seq, digest } = if self.rules.acks_are_durable {
                self.pen.heads.get(&stream).map(|head| Point { seq: head.seq, digest: head.digest })?
            } else {
                self.tip(stream).point()
            };
            Some(WireHead { stream, seq, digest })
        });
        let heads = Capped(heads.collect());
        if self.sync.is_connected() {
            let frame = wire::ack(self.pen.identity.group, &heads);
            self.broadcast(frame);
        }
    }

    /// Once its own member record is here, a joiner listens to every member.
    pub(super) fn forget_introducer(&mut self) {
        if self.is_member() && self.sync.introducer.take().is_some() {
            self.mark(Mark::Joined);
            self.say_hello_to_all();
        }
    }
}

//! A network in memory, for replicas of one process and for tests: its links lose, repeat, reorder, delay and damage
//! frames as they are told to, and the same seed does it in the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fastrand::Rng;
use syncline::{Clock, Incoming, Mono, ReplicaId, SystemClock, Transport, TransportError};
use tokio::sync::Notify;

/// A network in memory. Clones share it.
///
/// Each replica gets an end of its own with [`transport`](Self::transport). Links start perfect; a test makes them
/// worse while replicas talk, and [`heals`](Self::heal) them:
///
/// ```
/// use bytes::Bytes;
/// use syncline::{Incoming, ReplicaId, Transport};
/// use syncline_backends::{Link, MemoryNetwork};
///
/// # futures::executor::block_on(async {
/// let network = MemoryNetwork::new();
/// let (phone, laptop) = (ReplicaId::new(), ReplicaId::new());
/// let (at_phone, at_laptop) = (network.transport(), network.transport());
/// // A store does this with its own id when it is opened.
/// at_phone.attach(phone).await?;
/// at_laptop.attach(laptop).await?;
/// assert_eq!(at_laptop.receive().await?, Incoming::Up(phone));
///
/// network.set(phone, laptop, Link { loss: 1.0, ..Link::default() });
/// at_phone.send(laptop, Bytes::from_static(b"lost")).await?;
/// network.heal();
/// at_phone.send(laptop, Bytes::from_static(b"found")).await?;
///
/// let bytes = Bytes::from_static(b"found");
/// assert_eq!(at_laptop.receive().await?, Incoming::Frame { from: phone, bytes });
/// assert_eq!(network.traffic(phone, laptop).dropped_frames, 1);
/// # Ok::<(), syncline::TransportError>(())
/// # }).unwrap();
/// ```
///
/// # Repeating a run
/// The same seed, ids, calls and clock readings bring the same frames in the same order. Each link draws from a
/// generator of its own, made from the seed and the two ids, so that what passes on one link changes nothing on
/// another. Ids that differ from run to run make other runs.
///
/// # Time
/// The clock is first asked when a link that delays has been [set](Self::set).
///
/// # Bounds
/// What is under way to a replica, delayed or not yet received, is held to a number of frames and of bytes (see
/// [`queue_frames_max`](MemoryNetworkBuilder::queue_frames_max)); what comes on top is dropped and counted. Besides,
/// a replica is owed at most one `Down` and one `Up` of each peer: an `Up` that was not received is taken back by the
/// `Down` that follows it, and neither is told.
#[derive(Clone)]
pub struct MemoryNetwork {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

impl MemoryNetwork {
    /// A network of perfect links, where every replica reaches every other.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// A network to be set up.
    #[must_use]
    pub fn builder() -> MemoryNetworkBuilder {
        MemoryNetworkBuilder {
            seed: SEED,
            clock: Arc::new(SystemClock::new()),
            queue_frames_max: QUEUE_FRAMES_MAX,
            queue_bytes_max: QUEUE_BYTES_MAX,
            mesh: true,
        }
    }

    /// A new end, for the replica that attaches it.
    #[must_use]
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport { network: self.clone(), owner: OnceLock::new() }
    }

    /// Sets how `from` reaches `to`, from the next frame on. Neither has to be attached yet.
    pub fn set(&self, from: ReplicaId, to: ReplicaId, link: Link) {
        self.with(|state| {
            state.timed |= link.delays();
            state.wire(from, to).link = link;
        });
    }

    /// Sets every link, also those to and from replicas that come later.
    pub fn set_all(&self, link: Link) {
        self.with(|state| state.set_all(link));
    }

    /// How `from` reaches `to`.
    #[must_use]
    pub fn link(&self, from: ReplicaId, to: ReplicaId) -> Link {
        self.with(|state| state.wires.get(&(from, to)).map_or(&state.link, |wire| &wire.link).clone())
    }

    /// Blocks every link between the two sides, in both directions, and tells nobody.
    ///
    /// What is under way still arrives. One direction alone: [`Link::blocked`]. With `Down` at both ends:
    /// [`disconnect`](Self::disconnect).
    pub fn partition(&self, one: &[ReplicaId], other: &[ReplicaId]) {
        self.with(|state| {
            for &a in one {
                for &b in other {
                    state.wire(a, b).link.blocked = true;
                    state.wire(b, a).link.blocked = true;
                }
            }
        });
    }

    /// Ends every partition and makes every link perfect, also those of replicas that come later; connects again
    /// whoever was [disconnected](Self::disconnect).
    ///
    /// What is under way with a delay keeps it. A network built [`unconnected`](MemoryNetworkBuilder::unconnected)
    /// keeps its shape: who was never connected is not connected now.
    pub fn heal(&self) {
        self.with(|state| {
            state.set_all(Link::default());
            for (a, b) in mem::take(&mut state.cut) {
                if state.reaches(a, b) {
                    state.tell_up(a, b);
                }
            }
        });
    }

    /// Takes the connection of two replicas away: `Down` at both ends, and what is under way between them is lost.
    ///
    /// Later sends return [`TransportError::Unreachable`]. It holds for ends that are attached later, too.
    pub fn disconnect(&self, a: ReplicaId, b: ReplicaId) {
        self.with(|state| {
            let reached = state.reaches(a, b);
            state.cut.insert(pair(a, b));
            if reached {
                state.tell_down(a, b);
            }
        });
    }

    /// Gives two replicas a connection: `Up` at both ends, now or when both are attached.
    pub fn connect(&self, a: ReplicaId, b: ReplicaId) {
        self.with(|state| {
            let reached = state.reaches(a, b);
            state.cut.remove(&pair(a, b));
            state.connected.insert(pair(a, b));
            if !reached && state.reaches(a, b) {
                state.tell_up(a, b);
            }
        });
    }

    /// Brings `bytes` to `to` as if `from` had sent them: what a hostile peer could say.
    ///
    /// No link is in between and `from` need be neither attached nor connected; only the bounds of the queue hold. It
    /// is counted as a frame of that link.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] if `to` is not attached.
    pub fn inject(&self, from: ReplicaId, to: ReplicaId, bytes: Bytes) -> Result<(), TransportError> {
        self.with(|state| {
            if !state.ends.contains_key(&to) {
                return Err(TransportError::Unreachable(to));
            }
            state.wire(from, to).traffic.sent(&bytes);
            let due = state.now();
            state.enqueue(due, from, to, bytes);
            Ok(())
        })
    }

    /// What has passed from `from` to `to` since the start, or since [`reset_traffic`](Self::reset_traffic).
    #[must_use]
    pub fn traffic(&self, from: ReplicaId, to: ReplicaId) -> Traffic {
        self.with(|state| state.wires.get(&(from, to)).map_or_else(Traffic::default, |wire| wire.traffic))
    }

    /// What has passed on all links together.
    #[must_use]
    pub fn total(&self) -> Traffic {
        self.with(|state| state.wires.values().fold(Traffic::default(), |sum, wire| sum.plus(wire.traffic)))
    }

    /// Counts from zero again. What is under way is counted when it arrives or is dropped.
    pub fn reset_traffic(&self) {
        self.with(|state| {
            for wire in state.wires.values_mut() {
                wire.traffic = Traffic::default();
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A poisoned lock is taken as it is: the code under it does not panic, and a panic of the app's clock leaves
        // nothing half done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = act(&mut state);
        let woken = mem::take(&mut state.woken);
        // Waking may drop a task, and with it an end of this network, which takes the lock.
        drop(state);
        for changed in woken {
            changed.notify_waiters();
        }
        answer
    }
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork").finish_non_exhaustive()
    }
}

/// Sets up a [`MemoryNetwork`].
pub struct MemoryNetworkBuilder {
    seed: u64,
    clock: Arc<dyn Clock>,
    queue_frames_max: usize,
    queue_bytes_max: usize,
    mesh: bool,
}

impl MemoryNetworkBuilder {
    /// Draws the fate of frames from this seed instead of a fixed one.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Delays by this clock instead of the platform's.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Holds at most so many frames that are under way to one replica; 1024 unless set.
    #[must_use]
    pub const fn queue_frames_max(mut self, frames: usize) -> Self {
        self.queue_frames_max = frames;
        self
    }

    /// Holds at most so many bytes that are under way to one replica; 64 MiB unless set. A frame that is longer than
    /// that never arrives.
    #[must_use]
    pub const fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// Lets only those replicas reach each other that are [connected](MemoryNetwork::connect): a line, a star, a ring.
    #[must_use]
    pub const fn unconnected(mut self) -> Self {
        self.mesh = false;
        self
    }

    /// The network.
    #[must_use]
    pub fn build(self) -> MemoryNetwork {
        let Self { seed, clock, queue_frames_max, queue_bytes_max, mesh } = self;
        let state = State {
            seed,
            clock: Arc::clone(&clock),
            queue_frames_max,
            queue_bytes_max,
            mesh,
            timed: false,
            link: Link::default(),
            ends: BTreeMap::new(),
            wires: BTreeMap::new(),
            connected: BTreeSet::new(),
            cut: BTreeSet::new(),
            order: 0,
            generation: 0,
            woken: Vec::new(),
        };
        MemoryNetwork { clock, state: Arc::new(Mutex::new(state)) }
    }
}

impl fmt::Debug for MemoryNetworkBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetworkBuilder")
            .field("seed", &self.seed)
            .field("queue_frames_max", &self.queue_frames_max)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

/// How one replica reaches another: one direction. The default is perfect.
///
/// Chances lie between 0, never, and 1, always. A range that ends before it starts is its start.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// The chance that a frame is lost.
    pub loss: f64,
    /// The chance that a frame comes twice.
    pub duplicate: f64,
    /// How much later than usual the second copy comes: far beyond what is still remembered, for instance.
    pub duplicate_delay_ms: RangeInclusive<u64>,
    /// The chance that a frame changes places with another one that is still under way on this link.
    ///
    /// There is one as long as the peer does not read, or if the link delays.
    pub reorder: f64,
    /// The chance that what arrives is cut off or has a wrong byte. An empty frame has nothing to damage.
    pub corrupt: f64,
    /// How long frames take. Those that draw different delays overtake each other.
    pub delay_ms: RangeInclusive<u64>,
    /// Whether everything is lost, and nobody told.
    pub blocked: bool,
}

impl Link {
    fn delays(&self) -> bool {
        [&self.delay_ms, &self.duplicate_delay_ms].into_iter().any(|ms| (*ms.start()).max(*ms.end()) > 0)
    }
}

impl Default for Link {
    fn default() -> Self {
        Self {
            loss: 0.0,
            duplicate: 0.0,
            duplicate_delay_ms: 0..=0,
            reorder: 0.0,
            corrupt: 0.0,
            delay_ms: 0..=0,
            blocked: false,
        }
    }
}

/// What passed on a link, or on all of them.
///
/// A frame that comes twice is sent once; each copy is delivered or dropped for itself. What is neither is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames handed over, without those that were refused as [`TransportError::Unreachable`].
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that [`receive`](Transport::receive) returned.
    pub delivered_frames: u64,
    /// Their bytes, as they arrived.
    pub delivered_bytes: u64,
    /// Frames that will never arrive: lost, blocked, cut off with their connection or too many for the queue.
    pub dropped_frames: u64,
}

impl Traffic {
    fn sent(&mut self, bytes: &Bytes) {
        self.sent_frames += 1;
        self.sent_bytes += bytes.len() as u64;
    }

    fn delivered(&mut self, bytes: &Bytes) {
        self.delivered_frames += 1;
        self.delivered_bytes += bytes.len() as u64;
    }

    fn plus(self, other: Self) -> Self {
        Self {
            sent_frames: self.sent_frames + other.sent_frames,
            sent_bytes: self.sent_bytes + other.sent_bytes,
            delivered_frames: self.delivered_frames + other.delivered_frames,
            delivered_bytes: self.delivered_bytes + other.delivered_bytes,
            dropped_frames: self.dropped_frames + other.dropped_frames,
        }
    }
}

/// One replica's end of a [`MemoryNetwork`].
///
/// A newer end that the same replica attaches takes over: what was under way to and from the older one is gone, peers
/// see the replica go `Down` and `Up`, and the older end is closed. Dropping an end is a `Down` at its peers.
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    owner: OnceLock<Owner>,
}

/// What an end learns when it is attached.
#[derive(Debug)]
struct Owner {
    me: ReplicaId,
    generation: u64,
    changed: Arc<Notify>,
}

impl MemoryTransport {
    fn owner(&self) -> Result<&Owner, TransportError> {
        self.owner.get().ok_or_else(|| TransportError::closed("no replica has attached this end"))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.network.with(|state| {
            // Under the lock: of two calls at once, the second must not take over from the first.
            if self.owner.get().is_some() {
                return Err(TransportError::closed("a replica has attached this end already"));
            }
            let owner = state.attach(me);
            self.owner.get_or_init(|| owner);
            Ok(())
        })
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        let owner = self.owner()?;
        self.network.with(|state| {
            state.own(owner)?;
            if !state.reaches(owner.me, to) {
                return Err(TransportError::Unreachable(to));
            }
            state.transmit(owner.me, to, &frame);
            Ok(())
        })
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        let owner = self.owner()?;
        loop {
            // Before the look at the queue: what arrives between the look and the wait must end the wait.
            let mut arrival = pin!(owner.changed.notified());
            // What is taken is returned at once: no wait lies in between in which it could be dropped.
            let wait_ms = match self.network.with(|state| state.take(owner))? {
                Next::Ready(incoming) => return Ok(incoming),
                Next::Due { wait_ms } => wait_ms,
                Next::Nothing => {
                    arrival.await;
                    continue;
                }
            };
            let mut due = self.network.clock.sleep(Duration::from_millis(wait_ms));
            poll_fn(|context| {
                if arrival.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                due.as_mut().poll(context)
            })
            .await;
        }
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let Some(owner) = self.owner.get() else { return };
        self.network.with(|state| {
            if state.own(owner).is_ok() {
                state.detach(owner.me);
            }
        });
    }
}

const SEED: u64 = 0x5EED;

/// More than a replica that reads lets pile up; one that stopped reading costs no more than this.
const QUEUE_FRAMES_MAX: usize = 1024;

const QUEUE_BYTES_MAX: usize = 64 << 20;

struct State {
    seed: u64,
    clock: Arc<dyn Clock>,
    queue_frames_max: usize,
    queue_bytes_max: usize,
    /// Whether replicas reach each other without being connected by hand.
    mesh: bool,
    /// Whether any link has ever delayed. From then on every frame is due at a time: one that is not delayed must not
    /// overtake those that have become due.
    timed: bool,
    /// What links are that were not set by name.
    link: Link,
    ends: BTreeMap<ReplicaId, End>,
    /// By sender and receiver.
    wires: BTreeMap<(ReplicaId, ReplicaId), Wire>,
    /// Pairs connected by hand.
    connected: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Pairs disconnected by hand.
    cut: BTreeSet<(ReplicaId, ReplicaId)>,
    /// Counts frames: those that are due at the same time come in this order.
    order: u64,
    /// Counts attached ends: the newest of a replica owns its queue.
    generation: u64,
    /// Ends that have something new, to be woken after the lock is given back.
    woken: Vec<Arc<Notify>>,
}

/// One direction between two replicas.
struct Wire {
    link: Link,
    random: Rng,
    traffic: Traffic,
}

/// What is under way to an attached replica.
struct End {
    generation: u64,
    /// `Up` and `Down`, which come before every frame: the frames of a peer that went down are gone.
    news: VecDeque<Incoming>,
    queue: BTreeMap<Slot, Frame>,
    queue_bytes: usize,
    changed: Arc<Notify>,
}

/// When a frame is due, and the tie-break.
type Slot = (Mono, u64);

struct Frame {
    from: ReplicaId,
    bytes: Bytes,
}

enum Next {
    Ready(Incoming),
    Due { wait_ms: u64 },
    Nothing,
}

impl State {
    fn attach(&mut self, me: ReplicaId) -> Owner {
        self.detach(me);
        self.generation += 1;
        let end = End {
            generation: self.generation,
            news: VecDeque::new(),
            queue: BTreeMap::new(),
            queue_bytes: 0,
            changed: Arc::new(Notify::new()),
        };
        let owner = Owner { me, generation: end.generation, changed: Arc::clone(&end.changed) };
        self.ends.insert(me, end);
        for peer in self.peers(me) {
            self.tell_up(me, peer);
        }
        owner
    }

    fn detach(&mut self, me: ReplicaId) {
        for peer in self.peers(me) {
            self.tell_down(me, peer);
        }
        let Some(end) = self.ends.remove(&me) else { return };
        // What is left was injected for replicas that are no peers.
        for frame in end.queue.into_values() {
            self.wire(frame.from, me).traffic.dropped_frames += 1;
        }
        self.woken.push(end.changed);
    }

    fn own(&mut self, owner: &Owner) -> Result<&mut End, TransportError> {
        self.ends
            .get_mut(&owner.me)
            .filter(|end| end.generation == owner.generation)
            .ok_or_else(|| TransportError::closed("a newer end of the same replica took over"))
    }

    fn reaches(&self, a: ReplicaId, b: ReplicaId) -> bool {
        let pair = pair(a, b);
        a != b
            && self.ends.contains_key(&a)
            && self.ends.contains_key(&b)
            && (self.mesh || self.connected.contains(&pair))
            && !self.cut.contains(&pair)
    }

    fn peers(&self, me: ReplicaId) -> Vec<ReplicaId> {
        self.ends.keys().copied().filter(|peer| self.reaches(me, *peer)).collect()
    }

    fn tell_up(&mut self, a: ReplicaId, b: ReplicaId) {
        for (me, peer) in [(a, b), (b, a)] {
            let Some(end) = self.ends.get_mut(&me) else { continue };
            end.news.push_back(Incoming::Up(peer));
            self.woken.push(Arc::clone(&end.changed));
        }
    }

    fn tell_down(&mut self, a: ReplicaId, b: ReplicaId) {
        for (me, peer) in [(a, b), (b, a)] {
            let Some(end) = self.ends.get_mut(&me) else { continue };
            let dropped_frames = end.hear_down(peer);
            self.woken.push(Arc::clone(&end.changed));
            self.wire(peer, me).traffic.dropped_frames += dropped_frames;
        }
    }

    fn set_all(&mut self, link: Link) {
        self.timed |= link.delays();
        for wire in self.wires.values_mut() {
            wire.link = link.clone();
        }
        self.link = link;
    }

    fn wire(&mut self, from: ReplicaId, to: ReplicaId) -> &mut Wire {
        self.wires.entry((from, to)).or_insert_with(|| Wire {
            link: self.link.clone(),
            random: generator(self.seed, from, to),
            traffic: Traffic::default(),
        })
    }

    /// The time, or the start of it as long as nothing was ever delayed: then the order alone counts.
    fn now(&self) -> Mono {
        if self.timed { self.clock.mono() } else { Mono(0) }
    }

    fn transmit(&mut self, from: ReplicaId, to: ReplicaId, bytes: &Bytes) {
        let now = self.now();
        let wire = self.wire(from, to);
        wire.traffic.sent(bytes);
        // Each frame draws from a generator of its own: a link that is set otherwise for a while draws the same as
        // before afterwards.
        let mut random = wire.random.fork();
        let link = wire.link.clone();
        if link.blocked || chance(&mut random, link.loss) {
            wire.traffic.dropped_frames += 1;
            return;
        }
        let twice = chance(&mut random, link.duplicate);
        let extra_ms = within(&mut random, &link.duplicate_delay_ms);
        self.deliver(now, from, to, bytes, &link, &mut random);
        if twice {
            let later = Mono(now.0.saturating_add(extra_ms));
            self.deliver(later, from, to, bytes, &link, &mut random);
        }
    }

    /// Sends one copy on its way.
    fn deliver(
        &mut self,
        now: Mono,
        from: ReplicaId,
        to: ReplicaId,
        bytes: &Bytes,
        link: &Link,
        random: &mut Rng,
    ) {
        let due = Mono(now.0.saturating_add(within(random, &link.delay_ms)));
        let corrupt = chance(random, link.corrupt);
        let bytes = if corrupt { damaged(bytes, random) } else { bytes.clone() };
        let reorder = chance(random, link.reorder);
        let Some(slot) = self.enqueue(due, from, to, bytes) else { return };
        if reorder && let Some(end) = self.ends.get_mut(&to) {
            end.exchange(slot, from, random);
        }
    }

    /// Puts a frame into the queue of `to`, if there is room.
    fn enqueue(&mut self, due: Mono, from: ReplicaId, to: ReplicaId, bytes: Bytes) -> Option<Slot> {
        let (frames_max, bytes_max) = (self.queue_frames_max, self.queue_bytes_max);
        let room = |end: &&mut End| {
            end.queue.len() < frames_max
                && end.queue_bytes.checked_add(bytes.len()).is_some_and(|sum| sum <= bytes_max)
        };
        let Some(end) = self.ends.get_mut(&to).filter(room) else {
            self.wire(from, to).traffic.dropped_frames += 1;
            return None;
        };
        self.order += 1;
        let slot = (due, self.order);
        end.queue_bytes += bytes.len();
        end.queue.insert(slot, Frame { from, bytes });
        self.woken.push(Arc::clone(&end.changed));
        Some(slot)
    }

    /// What `owner` receives next. Taken out of the queue only if it is ready.
    fn take(&mut self, owner: &Owner) -> Result<Next, TransportError> {
        let clock = Arc::clone(&self.clock);
        let end = self.own(owner)?;
        if let Some(news) = end.news.pop_front() {
            return Ok(Next::Ready(news));
        }
        let Some(first) = end.queue.first_entry() else { return Ok(Next::Nothing) };
        let &(due, _) = first.key();
        if due > Mono(0) {
            let now = clock.mono();
            if due > now {
                return Ok(Next::Due { wait_ms: due.since(now) });
            }
        }
        let Frame { from, bytes } = first.remove();
        end.queue_bytes -= bytes.len();
        self.wire(from, owner.me).traffic.delivered(&bytes);
        Ok(Next::Ready(Incoming::Frame { from, bytes }))
    }
}

impl End {
    /// Forgets what is under way from `peer` and owes the news. Returns how many frames that were.
    fn hear_down(&mut self, peer: ReplicaId) -> u64 {
        let mut dropped_frames = 0;
        self.queue.retain(|_, frame| {
            let kept = frame.from != peer;
            if !kept {
                dropped_frames += 1;
                self.queue_bytes -= frame.bytes.len();
            }
            kept
        });
        // A peer that comes and goes must not fill the memory of one that does not read.
        match self.news.iter().position(|news| *news == Incoming::Up(peer)) {
            Some(unheard) => drop(self.news.remove(unheard)),
            None => self.news.push_back(Incoming::Down(peer)),
        }
        dropped_frames
    }

    /// Lets the frame at `slot` change places with another one of the same sender.
    fn exchange(&mut self, slot: Slot, from: ReplicaId, random: &mut Rng) {
        let others: Vec<Slot> = self
            .queue
            .iter()
            .filter(|(at, frame)| **at != slot && frame.from == from)
            .map(|(at, _)| *at)
            .collect();
        let Some(other) = random.choice(others) else { return };
        if let (Some(mine), Some(theirs)) = (self.queue.remove(&slot), self.queue.remove(&other)) {
            self.queue.insert(slot, theirs);
            self.queue.insert(other, mine);
        }
    }
}

/// A pair in the one order that both directions share.
fn pair(a: ReplicaId, b: ReplicaId) -> (ReplicaId, ReplicaId) {
    if a <= b { (a, b) } else { (b, a) }
}

fn generator(seed: u64, from: ReplicaId, to: ReplicaId) -> Rng {
    let (from, to) = (from.0.as_u64_pair(), to.0.as_u64_pair());
    let seed =
        [from.0, from.1, to.0, to.1].into_iter().fold(seed, |seed, half| Rng::with_seed(seed ^ half).u64(..));
    Rng::with_seed(seed)
}

fn chance(random: &mut Rng, chance: f64) -> bool {
    random.f64() < chance
}

fn within(random: &mut Rng, ms: &RangeInclusive<u64>) -> u64 {
    ms.start().saturating_add(random.u64(0..=ms.end().saturating_sub(*ms.start())))
}

/// A copy that is cut off or has one wrong byte.
fn damaged(bytes: &Bytes, random: &mut Rng) -> Bytes {
    if bytes.is_empty() {
        return bytes.clone();
    }
    let at = random.usize(..bytes.len());
    if random.bool() {
        return bytes.slice(..at);
    }
    let mut copy = bytes.to_vec();
    if let Some(byte) = copy.get_mut(at) {
        *byte ^= random.u8(1..);
    }
    copy.into()
}

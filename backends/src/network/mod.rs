//! A network in memory, for replicas of one process and for tests. Its links lose, repeat, reorder, delay and damage
//! frames as a test sets them, and the same seed does it in the same way.

mod builder;
mod end;
mod link;
mod links;
mod state;
mod topology;
mod traffic;
mod transport;
mod wire;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use syncline::{Clock, ReplicaId, TransportError};

pub use builder::MemoryNetworkBuilder;
pub use link::Link;
use state::State;
pub use traffic::Traffic;
pub use transport::MemoryTransport;

/// A network in memory. Clones share it.
///
/// Each replica gets an end of its own by [`transport`](Self::transport). Links start perfect; a test makes them worse
/// while replicas talk, and [`heals`](Self::heal) them:
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
/// generator of its own, made from the seed and the two ids, so that frames on one link change nothing on another link.
/// With other ids a run is another one.
///
/// # Time
/// The clock is not read before a link that delays or has a rate has been [set](Self::set).
///
/// # Bounds
/// The frames under way to a replica, delayed or not yet received, are limited in number and in bytes (see
/// [`queue_frames_max`](MemoryNetworkBuilder::queue_frames_max)); frames beyond that are dropped and counted:
/// those of the sender that has most there, so that a peer that floods a replica keeps no other from it. A replica
/// that does not read has at most one `Down` and one `Up` of each peer before it: a `Down` takes back an `Up` that was
/// not received, and neither is received then.
#[derive(Clone)]
pub struct MemoryNetwork {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
}

impl MemoryNetwork {
    /// Returns a network of perfect links, where every replica reaches every other.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder with the defaults.
    #[must_use]
    pub fn builder() -> MemoryNetworkBuilder {
        MemoryNetworkBuilder::new()
    }

    /// Returns a new end, for the replica that attaches it.
    #[must_use]
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport::new(self.clone())
    }

    /// Sets how `from` reaches `to`, from the next frame on. Neither has to be attached yet.
    pub fn set(&self, from: ReplicaId, to: ReplicaId, link: Link) {
        self.with(|state| state.links.set(from, to, link));
    }

    /// Sets every link, also those of replicas that are attached later.
    pub fn set_all(&self, link: Link) {
        self.with(|state| state.links.set_all(link));
    }

    /// Returns how `from` reaches `to`.
    #[must_use]
    pub fn link(&self, from: ReplicaId, to: ReplicaId) -> Link {
        self.with(|state| state.links.link(from, to).clone())
    }

    /// Blocks every link between the two sides, in both directions, and tells neither side.
    ///
    /// Frames under way still arrive. [`Link::blocked`] blocks one direction alone; [`disconnect`](Self::disconnect)
    /// tells both ends `Down`.
    pub fn partition(&self, one: &[ReplicaId], other: &[ReplicaId]) {
        self.with(|state| {
            for &a in one {
                for &b in other {
                    state.links.get(a, b).link.blocked = true;
                    state.links.get(b, a).link.blocked = true;
                }
            }
        });
    }

    /// Ends every partition and makes every link perfect, also those of replicas that are attached later. Connects
    /// again the replicas that were [disconnected](Self::disconnect).
    ///
    /// Frames under way keep their delay, so what is sent now overtakes frames that wait on a link that had a rate. A
    /// network built [`unconnected`](MemoryNetworkBuilder::unconnected) keeps its shape: replicas that were never
    /// connected stay so.
    pub fn heal(&self) {
        self.with(State::heal);
    }

    /// Takes the connection of two replicas away: `Down` at both ends, and the frames under way between them are lost.
    ///
    /// Later sends return [`TransportError::Unreachable`], also at ends that are attached later.
    pub fn disconnect(&self, a: ReplicaId, b: ReplicaId) {
        self.with(|state| state.disconnect(a, b));
    }

    /// Gives two replicas a connection: `Up` at both ends, now or when both are attached.
    pub fn connect(&self, a: ReplicaId, b: ReplicaId) {
        self.with(|state| state.connect(a, b));
    }

    /// Brings `bytes` to `to` as if `from` had sent them: any frame that a hostile peer could send.
    ///
    /// The frame passes no link, and `from` need be neither attached nor connected; only the limits of the queue hold.
    /// The frame is counted on the link.
    ///
    /// # Errors
    /// [`TransportError::Unreachable`] if `to` is not attached.
    pub fn inject(&self, from: ReplicaId, to: ReplicaId, bytes: Bytes) -> Result<(), TransportError> {
        self.with(|state| {
            if !state.is_attached(to) {
                return Err(TransportError::Unreachable(to));
            }
            state.inject(from, to, bytes);
            Ok(())
        })
    }

    /// Returns what passed from `from` to `to` since the start, or since [`reset_traffic`](Self::reset_traffic).
    #[must_use]
    pub fn traffic(&self, from: ReplicaId, to: ReplicaId) -> Traffic {
        self.with(|state| state.links.traffic(from, to))
    }

    /// Returns what passed on all links together.
    #[must_use]
    pub fn total(&self) -> Traffic {
        self.with(|state| state.links.total())
    }

    /// Sets all counters to zero. Frames under way are counted when they arrive or are dropped.
    pub fn reset_traffic(&self) {
        self.with(|state| state.links.reset_traffic());
    }

    fn new_on(clock: Arc<dyn Clock>, state: State) -> Self {
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Poison is ignored: the code under this lock does not panic, and the app's clock, which may, is called where
        // nothing is half done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = act(&mut state);
        let woken = state.take_woken();
        // The lock is released first: waking may drop a task, and with it an end of this network, which takes the lock.
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

//! A network in memory, for replicas of one process and for tests: its links lose, repeat, reorder, delay and damage
//! frames as they are told to, and the same seed does it in the same way.

mod builder;
mod end;
mod link;
mod links;
mod state;
mod topology;
mod traffic;
mod transport;

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
        MemoryNetworkBuilder::new()
    }

    fn new_on(clock: Arc<dyn Clock>, state: State) -> Self {
        Self { clock, state: Arc::new(Mutex::new(state)) }
    }

    /// A new end, for the replica that attaches it.
    #[must_use]
    pub fn transport(&self) -> MemoryTransport {
        MemoryTransport::new(self.clone())
    }

    /// Sets how `from` reaches `to`, from the next frame on. Neither has to be attached yet.
    pub fn set(&self, from: ReplicaId, to: ReplicaId, link: Link) {
        self.with(|state| state.links.set(from, to, link));
    }

    /// Sets every link, also those to and from replicas that come later.
    pub fn set_all(&self, link: Link) {
        self.with(|state| state.links.set_all(link));
    }

    /// How `from` reaches `to`.
    #[must_use]
    pub fn link(&self, from: ReplicaId, to: ReplicaId) -> Link {
        self.with(|state| state.links.link(from, to).clone())
    }

    /// Blocks every link between the two sides, in both directions, and tells nobody.
    ///
    /// What is under way still arrives. One direction alone: [`Link::blocked`]. With `Down` at both ends:
    /// [`disconnect`](Self::disconnect).
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

    /// Ends every partition and makes every link perfect, also those of replicas that come later; connects again
    /// whoever was [disconnected](Self::disconnect).
    ///
    /// What is under way with a delay keeps it. A network built [`unconnected`](MemoryNetworkBuilder::unconnected)
    /// keeps its shape: who was never connected is not connected now.
    pub fn heal(&self) {
        self.with(State::heal);
    }

    /// Takes the connection of two replicas away: `Down` at both ends, and what is under way between them is lost.
    ///
    /// Later sends return [`TransportError::Unreachable`]. It holds for ends that are attached later, too.
    pub fn disconnect(&self, a: ReplicaId, b: ReplicaId) {
        self.with(|state| state.disconnect(a, b));
    }

    /// Gives two replicas a connection: `Up` at both ends, now or when both are attached.
    pub fn connect(&self, a: ReplicaId, b: ReplicaId) {
        self.with(|state| state.connect(a, b));
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
            if !state.is_attached(to) {
                return Err(TransportError::Unreachable(to));
            }
            state.inject(from, to, bytes);
            Ok(())
        })
    }

    /// What has passed from `from` to `to` since the start, or since [`reset_traffic`](Self::reset_traffic).
    #[must_use]
    pub fn traffic(&self, from: ReplicaId, to: ReplicaId) -> Traffic {
        self.with(|state| state.links.traffic(from, to))
    }

    /// What has passed on all links together.
    #[must_use]
    pub fn total(&self) -> Traffic {
        self.with(|state| state.links.total())
    }

    /// Counts from zero again. What is under way is counted when it arrives or is dropped.
    pub fn reset_traffic(&self) {
        self.with(|state| state.links.reset_traffic());
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // A poisoned lock is taken as it is: the code under it does not panic, and a panic of the app's clock leaves
        // nothing half done.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = act(&mut state);
        let woken = state.take_woken();
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

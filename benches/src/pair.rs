//! Two replicas of one group over a network in memory: A founds it, B joins it.

use syncline::{Builder, DeviceId, Event, Events, ReplicaId, Storage, TransactionManager, Uuid};
use syncline_backends::{Link, MemoryNetwork};

use crate::Result;
use crate::holding::Hold;
use crate::ours::{FOUNDER, GROUP, Ours};

/// The replica A.
pub const A: ReplicaId = FOUNDER.0;
/// The replica B.
pub const B: ReplicaId = JOINER.0;
const JOINER: (ReplicaId, DeviceId) = (ReplicaId(Uuid::from_u128(5)), DeviceId(Uuid::from_u128(4)));

/// Two open replicas.
#[derive(Debug)]
pub struct Pair<SA: Storage, SB: Storage> {
    /// What is between them.
    pub network: MemoryNetwork,
    /// Keeps back what comes for B.
    pub to_b: Hold,
    /// Who commits.
    pub a: Ours<SA>,
    /// Who receives.
    pub b: Ours<SB>,
}

impl<SA: Storage, SB: Storage> Pair<SA, SB> {
    /// Opens both stores, connected, and waits until both replicas are members: new stores, or those of an earlier pair.
    ///
    /// # Errors
    /// The commits of the opening, and the one that adds B.
    pub async fn open(a: SA, b: SB) -> Result<Self> {
        Self::open_with(a, b, |builder| builder).await
    }

    /// As [`open`](Pair::open); of B, `also` says more.
    ///
    /// # Errors
    /// The commits of the opening, and the one that adds B.
    pub(crate) async fn open_with(
        a: SA,
        b: SB,
        also: impl FnOnce(Builder<SB>) -> Builder<SB>,
    ) -> Result<Self> {
        let pair = Self::open_on(network(), a, b, also).await?;
        if pair.b.manager.status().await?.joining.is_some() {
            let mut events = pair.b.manager.events();
            pair.a.manager.add_member(JOINER.0).await?;
            while pair.b.manager.status().await?.joining.is_some() {
                let _ = events.next().await.ok_or(STOPPED)?;
            }
        }
        Ok(pair)
    }

    /// Opens the stores of an earlier pair, while they cannot reach each other.
    ///
    /// # Errors
    /// Those of opening.
    pub async fn open_apart(a: SA, b: SB) -> Result<Self> {
        let network = network();
        network.disconnect(A, B);
        Self::open_on(network, a, b, |builder| builder).await
    }

    async fn open_on(
        network: MemoryNetwork,
        a: SA,
        b: SB,
        also: impl FnOnce(Builder<SB>) -> Builder<SB>,
    ) -> Result<Self> {
        let (at_a, (to_b, at_b)) = (network.transport(), Hold::on(network.transport()));
        let a = Ours::start(a, FOUNDER, |builder| builder.found(GROUP).transport(at_a)).await?;
        let b = Ours::start(b, JOINER, |builder| also(builder.join(GROUP, A).transport(at_b))).await?;
        Ok(Self { network, to_b, a, b })
    }

    /// Lets each frame and its answer be on their way for so long from now on.
    pub fn is_far(&self, round_trip_ms: u64) {
        let delay_ms = round_trip_ms / 2;
        self.network.set_all(Link { delay_ms: delay_ms..=delay_ms, ..Link::default() });
    }

    /// Releases both stores.
    ///
    /// # Errors
    /// Why one of the drivers had stopped before, if it had.
    pub async fn close(self) -> Result<()> {
        self.a.close().await?;
        self.b.close().await
    }
}

/// A network in which small frames wait for a slow replica, as long as they fit in 64 MiB: what is dropped would be
/// pulled, and that is another measurement.
pub(crate) fn network() -> MemoryNetwork {
    MemoryNetwork::builder().queue_frames_max(1 << 20).build()
}

/// Waits until B has the first `commits` commits of A, as its `events` tell.
///
/// # Errors
/// If its driver has stopped.
pub async fn until_received<S: Storage>(
    b: &TransactionManager<S>,
    events: &mut Events,
    commits: u64,
) -> Result<()> {
    loop {
        match events.next().await.ok_or(STOPPED)? {
            Ok(Event::Changed(change)) if change.stamp.replica() == A && change.seq >= commits => {
                return Ok(());
            }
            Ok(_) => {}
            // Some were missed, perhaps the one that is waited for.
            Err(_) => {
                let streams = b.status().await?.streams;
                if streams.iter().any(|stream| stream.replica == A && stream.commits >= commits) {
                    return Ok(());
                }
            }
        }
    }
}

pub(crate) const STOPPED: &str = "the driver has stopped";

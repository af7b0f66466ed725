//! A group of as many replicas as a case needs, over a network in memory.

use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};
use syncline::{
    Builder, Clock, DeviceId, Event, Events, ReplicaId, Status, Storage, SystemClock, TransactionManager,
    Uuid,
};
use syncline_backends::MemoryNetwork;

use crate::Result;
use crate::item::Item;
use crate::ours::{FOUNDER, GROUP, Ours, commit_batch};
use crate::pair::{STOPPED, network};

/// Between two looks at what no event tells.
const LOOK: Duration = Duration::from_millis(2);
/// So many looks are made before something counts as not happening.
const LOOKS_MAX: u32 = 20_000;

/// The network of a group, whose replicas have numbers: 0 is the founder.
#[derive(Debug)]
pub struct Group {
    /// The network between them.
    pub network: MemoryNetwork,
}

impl Default for Group {
    fn default() -> Self {
        Self { network: network() }
    }
}

impl Group {
    /// The id of a replica.
    #[must_use]
    pub fn id(number: u8) -> ReplicaId {
        Self::ids(number).0
    }

    fn ids(number: u8) -> (ReplicaId, DeviceId) {
        if number == 0 {
            return FOUNDER;
        }
        let id = |kind: u128| Uuid::from_u128(kind << 64 | u128::from(number));
        (ReplicaId(id(1)), DeviceId(id(2)))
    }

    /// Opens the founder with the network, of which `also` says more. It may have worked alone before.
    ///
    /// # Errors
    /// The errors of opening.
    pub async fn founder<S: Storage>(
        &self,
        storage: S,
        also: impl FnOnce(Builder<S>) -> Builder<S>,
    ) -> Result<Ours<S>> {
        let transport = self.network.transport();
        Ours::start(storage, FOUNDER, |builder| also(builder.found(GROUP).transport(transport))).await
    }

    /// Opens a replica that joins through another one, or has joined.
    ///
    /// # Errors
    /// The errors of opening.
    pub async fn joiner<S: Storage>(&self, storage: S, number: u8, through: u8) -> Result<Ours<S>> {
        let (transport, introducer) = (self.network.transport(), Self::id(through));
        let open = |builder: Builder<S>| builder.join(GROUP, introducer).transport(transport);
        Ours::start(storage, Self::ids(number), open).await
    }

    /// Opens a replica that joins through `by`, and waits until it is a member.
    ///
    /// # Errors
    /// The errors of opening, and of the commit that adds it.
    pub async fn joins<S: Storage, I: Storage>(
        &self,
        storage: S,
        number: u8,
        (by, through): (&Ours<I>, u8),
    ) -> Result<Ours<S>> {
        let ours = self.joiner(storage, number, through).await?;
        by.manager.add_member(Self::id(number)).await?;
        until(&ours.manager, "it is a member", |status| status.joining.is_none()).await?;
        Ok(ours)
    }

    /// Disconnects two replicas, or lets neither find the other.
    pub fn disconnect(&self, one: u8, other: u8) {
        self.network.disconnect(Self::id(one), Self::id(other));
    }

    /// Connects two replicas.
    pub fn connect(&self, one: u8, other: u8) {
        self.network.connect(Self::id(one), Self::id(other));
    }

    /// The bytes that a replica sent to another one since the traffic was reset.
    #[must_use]
    pub fn sent_bytes(&self, from: u8, to: u8) -> u64 {
        self.network.traffic(Self::id(from), Self::id(to)).sent_bytes
    }
}

/// Lets a founder work alone, without a network: it commits the items in batches, and keeps no log of them.
///
/// # Errors
/// The errors of the store.
pub async fn works_alone<S: Storage>(
    storage: S,
    batches: impl Iterator<Item = Vec<Item>> + Send,
) -> Result<()> {
    let ours = Ours::open(storage).await?;
    for batch in batches {
        commit_batch(&ours.manager, &batch).await?;
    }
    ours.close().await
}

/// Waits until a status `is` what is waited for, which no event tells.
///
/// # Errors
/// If that takes some minutes, or the driver has stopped.
pub async fn until<S: Storage>(
    manager: &TransactionManager<S>,
    what: &str,
    is: impl Fn(&Status) -> bool,
) -> Result<()> {
    let clock = SystemClock::new();
    for _ in 0..LOOKS_MAX {
        if is(&manager.status().await?) {
            return Ok(());
        }
        clock.sleep(LOOK).await;
    }
    Err(format!("some minutes passed, and not yet {what}: {:?}", manager.status().await?).into())
}

/// Waits until a snapshot counts, as `events` tell; returns the bytes of its records, keys included.
///
/// # Errors
/// If that takes some minutes, the driver has stopped, or the snapshot was one of other records than `records`, and the few
/// of the group itself.
pub async fn until_installed<S: Storage>(
    manager: &TransactionManager<S>,
    events: &mut Events,
    records: usize,
) -> Result<u64> {
    let clock = SystemClock::new();
    let mut too_long = clock.sleep(LOOK * LOOKS_MAX);
    loop {
        let event = match select(events.next().boxed(), &mut too_long).await {
            Either::Left((event, _)) => event.ok_or(STOPPED)??,
            Either::Right(_) => {
                let status = manager.status().await?;
                return Err(format!("some minutes passed, and no snapshot: {status:?}").into());
            }
        };
        if let Event::Installed { records: brought, bytes } = event {
            let (records, few) = (records as u64, 16);
            if !(records..records + few).contains(&brought) {
                return Err(format!("a snapshot of {brought} records instead of {records}").into());
            }
            return Ok(bytes);
        }
    }
}

/// How far the stream of a replica is here, and how far its log is pruned here.
#[must_use]
pub fn stream(status: &Status, number: u8) -> (u64, u64) {
    let stream = status.streams.iter().find(|stream| stream.replica == Group::id(number));
    stream.map_or((0, 0), |stream| (stream.commits, stream.pruned))
}

//! Syncline over one engine, as an app opens it.

use std::sync::{Arc, Mutex};

use syncline::{
    Builder, DeviceId, Driver, DriverThread, GroupId, ReplicaId, StopReason, Storage, TransactionManager,
    Uuid,
};
use tokio::task::JoinHandle;

use crate::Result;
use crate::item::Item;

/// The group of every store here.
pub const GROUP: GroupId = GroupId(Uuid::from_u128(2));
/// The replica that founds the group, and its device.
pub const FOUNDER: (ReplicaId, DeviceId) = (ReplicaId(Uuid::from_u128(3)), DeviceId(Uuid::from_u128(1)));

/// An open store whose driver runs.
#[derive(Debug)]
pub struct Ours<S: Storage> {
    /// The app's handle.
    pub manager: TransactionManager<S>,
    driver: Running,
}

/// Where a driver runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// As a task of the runtime.
    AsTask,
    /// On a thread of its own, where the store writes in place.
    OnThread,
}

#[derive(Debug)]
enum Running {
    AsTask(JoinHandle<std::result::Result<(), StopReason>>),
    OnThread(DriverThread),
}

impl<S: Storage> Ours<S> {
    /// Opens `storage` as the only replica of a group.
    ///
    /// # Errors
    /// The errors of opening.
    pub async fn open(storage: S) -> Result<Self> {
        Self::start(storage, FOUNDER, |builder| builder.found(GROUP)).await
    }

    /// As [`open`](Self::open), with a driver that runs there.
    ///
    /// # Errors
    /// The errors of opening.
    pub async fn open_as(storage: S, runs: Runs) -> Result<Self> {
        Self::start_as(storage, FOUNDER, runs, |builder| builder.found(GROUP)).await
    }

    /// Opens `storage` as a replica that `also` says more of, and runs its driver.
    ///
    /// # Errors
    /// The errors of opening.
    pub(crate) async fn start(
        storage: S,
        ids: (ReplicaId, DeviceId),
        also: impl FnOnce(Builder<S>) -> Builder<S>,
    ) -> Result<Self> {
        Self::start_as(storage, ids, Runs::AsTask, also).await
    }

    async fn start_as(
        storage: S,
        (replica, device): (ReplicaId, DeviceId),
        runs: Runs,
        also: impl FnOnce(Builder<S>) -> Builder<S>,
    ) -> Result<Self> {
        let builder = TransactionManager::builder(storage).device(device).replica(replica).model::<Item>();
        let (manager, driver): (_, Driver<S>) = also(builder).open().await?;
        let driver = match runs {
            Runs::AsTask => Running::AsTask(tokio::spawn(driver.run())),
            Runs::OnThread => Running::OnThread(driver.run_on_thread()?),
        };
        Ok(Self { manager, driver })
    }

    /// Releases the store.
    ///
    /// # Errors
    /// Why the driver had stopped before, if it had.
    pub async fn close(self) -> Result<()> {
        self.manager.shutdown().await?;
        match self.driver {
            Running::AsTask(driver) => Ok(driver.await??),
            Running::OnThread(driver) => Ok(driver.await?),
        }
    }
}

/// Commits `items` together.
///
/// # Errors
/// Those of the commit.
pub async fn commit_batch<S: Storage>(manager: &TransactionManager<S>, items: &[Item]) -> Result<()> {
    Ok(manager.commit_batch(|batch| Ok(items.iter().try_for_each(|item| batch.put(item))?)).await?)
}

/// Commits `items` one by one, so many of them at a time that they share writes: `callers` take them in their order.
///
/// # Errors
/// Those of the commits.
pub async fn commit_each<S: Storage>(
    manager: &TransactionManager<S>,
    items: Vec<Item>,
    callers: usize,
) -> Result<()> {
    let items = Arc::new(Mutex::new(items.into_iter()));
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let (manager, items) = (manager.clone(), Arc::clone(&items));
            tokio::spawn(async move {
                loop {
                    let next = items.lock().map_err(|_| "another caller panicked")?.next();
                    match next {
                        Some(item) => manager.commit_shared(item).await?,
                        None => return Ok(()),
                    };
                }
            })
        })
        .collect();
    for caller in callers {
        let outcome: Result<()> = caller.await?;
        outcome?;
    }
    Ok(())
}

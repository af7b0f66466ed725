//! Syncline over one engine, as an app opens it.

use syncline::{DeviceId, Driver, GroupId, ReplicaId, StopReason, Storage, TransactionManager, Uuid};
use tokio::task::JoinHandle;

use crate::Result;
use crate::item::Item;

/// An open store whose driver runs on the runtime.
#[derive(Debug)]
pub struct Ours<S: Storage> {
    /// The app's handle.
    pub manager: TransactionManager<S>,
    driver: JoinHandle<std::result::Result<(), StopReason>>,
}

impl<S: Storage> Ours<S> {
    /// Opens `storage` as the only replica of a group.
    ///
    /// # Errors
    /// Those of opening.
    pub async fn open(storage: S) -> Result<Self> {
        let (manager, driver): (_, Driver<S>) = TransactionManager::builder(storage)
            .device(DeviceId(Uuid::from_u128(1)))
            .found(GroupId(Uuid::from_u128(2)))
            .replica(ReplicaId(Uuid::from_u128(3)))
            .model::<Item>()
            .open()
            .await?;
        Ok(Self { manager, driver: tokio::spawn(driver.run()) })
    }

    /// Releases the store.
    ///
    /// # Errors
    /// Why the driver had stopped before, if it had.
    pub async fn close(self) -> Result<()> {
        self.manager.shutdown().await?;
        Ok(self.driver.await??)
    }
}

/// Commits `items` together.
///
/// # Errors
/// Those of the commit.
pub async fn commit_batch<S: Storage>(manager: &TransactionManager<S>, items: &[Item]) -> Result<()> {
    Ok(manager.commit_batch(|batch| Ok(items.iter().try_for_each(|item| batch.put(item))?)).await?)
}

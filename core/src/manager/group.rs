//! The calls about the group and this replica: adding members, releasing held streams, status and shutdown.

use tokio::sync::oneshot;

use crate::driver::Control;
use crate::engine::{Commit, Staged};
use crate::error::{Error, StopReason};
use crate::events::RecordKey;
use crate::ids::{DeviceId, ReplicaId};
use crate::limits::Limit;
use crate::member::{Member, MemberState};
use crate::status::Status;
use crate::storage::Storage;
use crate::syncable::Syncable;
use crate::update::update;

use super::TransactionManager;

impl<S: Storage> TransactionManager<S> {
    /// Adds a replica to the group.
    ///
    /// Open the new store with [`join`](crate::Builder::join); its [`status`](TransactionManager::status) tells the
    /// replica and the device to add. Any member may add another one. Each replica takes the joiner as a member from
    /// the moment this commit arrives there. The joiner itself has by then received all that came before, and may
    /// commit.
    ///
    /// # Errors
    /// [`Error::MemberOnOtherDevice`] if it is a member already, on another device; [`Error::TooLarge`] if the group
    /// has [`members_max`](crate::Limits::members_max) members; otherwise as [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn add_member(&self, replica: ReplicaId, device: DeviceId) -> Result<(), Error> {
        let max = self.inner.limits.members_max;
        let size = self.status().await?.members.len() + 1;
        if size > max {
            return Err(Error::TooLarge { size, limit: Limit { name: "members_max", max } });
        }
        let member = Member { replica, device, state: MemberState::Active };
        let record = RecordKey::new::<Member>(&replica);
        let bytes = record.id_bytes().len();
        let change = move |known: Option<&Member>| match known {
            Some(known) if known.device != device => {
                Err(Error::MemberOnOtherDevice { replica, stored: known.device, asked: device })
            }
            _ => Ok(member),
        };
        let action = update(replica, self.inner.limits.value_bytes_max, change, drop);
        let change = Staged { record, action, own_merge: Member::OWN_MERGE };
        self.submit(Commit { changes: vec![change], bytes }).await
    }

    /// Lets the commits of a held stream through, until its stamps are within the drift bound again.
    ///
    /// A stream is held while its stamps stand too far ahead of physical time. This replica's clock follows the
    /// released stamps, so its own commits are as far ahead from then on, and other replicas hold those in turn:
    /// release on every device, or on none. Waiting until time has caught up helps too.
    ///
    /// # Errors
    /// [`Error::NotHeld`] if the stream is not held, [`Error::Stopped`], [`Error::DriverNotRun`],
    /// [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn release_held(&self, stream: ReplicaId) -> Result<(), Error> {
        self.inner.ready().await?;
        let (reply, answer) = oneshot::channel();
        let _ = self.inner.control.send(Control::Release(stream, reply));
        match self.answer(answer).await {
            Some(true) => Ok(()),
            Some(false) => Err(Error::NotHeld { stream }),
            None => Err(Error::Stopped(self.inner.stopped().await)),
        }
    }

    /// Returns the status of this replica: how far its streams and its peers are.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::DriverNotRun`], [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn status(&self) -> Result<Status, Error> {
        self.inner.ready().await?;
        let (reply, answer) = oneshot::channel();
        // A request that cannot be sent drops its reply, which is answer enough: the driver has stopped.
        let _ = self.inner.control.send(Control::Status(reply));
        let Some(mut status) = self.answer(answer).await else {
            return Err(Error::Stopped(self.inner.stopped().await));
        };
        let queue = self.inner.queue.available_permits();
        status.queued_bytes = self.inner.limits.queue_bytes_max.saturating_sub(queue);
        status.projections = self.inner.projections.as_ref().map_or_else(Vec::new, |all| all.status());
        Ok(status)
    }

    /// Serves the commits that were sent before, stops the driver and closes the store. Callers that still wait
    /// for room in the queue get [`Error::Stopped`].
    ///
    /// # Errors
    /// [`Error::Stopped`] if the driver had stopped for another reason before; [`Error::DriverNotRun`] if nobody runs it:
    /// drop it instead. [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.inner.ready().await?;
        // Sending fails only if the driver has stopped already, and then there is nothing to do.
        let _ = self.inner.control.send(Control::Shutdown);
        match self.inner.stopped().await {
            StopReason::Shutdown => Ok(()),
            reason => Err(Error::Stopped(reason)),
        }
    }
}

//! The calls about the group and this replica: adding members, releasing held streams, status and shutdown.

use tokio::sync::oneshot;

use crate::check::LogCheck;
use crate::driver::Control;
use crate::engine::{Commit, Staged};
use crate::error::{Error, StopReason};
use crate::events::RecordKey;
use crate::hlc::Hlc;
use crate::ids::{DeviceId, ReplicaId};
use crate::limits::Limit;
use crate::member::Member;
use crate::status::{PeerStatus, Status, StreamStatus};
use crate::storage::Storage;
use crate::syncable::Syncable;
use crate::update::update_stamped;

use super::TransactionManager;

impl<S: Storage> TransactionManager<S> {
    /// Adds a replica to the group that knocks: one that was opened with [`join`](crate::Builder::join) and names this
    /// replica.
    ///
    /// [`Event::Knocks`](crate::Event::Knocks) and [`PeerStatus::knocks`](crate::PeerStatus::knocks) say who knocks, and
    /// on which device. If `replica` does not knock yet, the call waits some seconds for it. Each replica takes the
    /// joiner as a member from the moment this commit arrives there. The joiner itself has by then received all that came
    /// before, and may commit.
    ///
    /// A replica that was added on a wrong device knocks on: added again, it is put right. One that is a member and does
    /// not knock is left as it is.
    ///
    /// # Errors
    /// [`Error::NotKnocking`] if it does not knock; [`Error::DeviceOfMember`] if its device is that of another member:
    /// see [`take_over`](TransactionManager::take_over); [`Error::MemberOnOtherDevice`] if it is at work on another
    /// device; [`Error::TooLarge`] if the group has [`members_max`](crate::Limits::members_max) members; otherwise as
    /// [`commit`](TransactionManager::commit).
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn add_member(&self, replica: ReplicaId) -> Result<(), Error> {
        self.inner.ready().await?;
        let (reply, answer) = oneshot::channel();
        let _ = self.inner.control.send(Control::Knock(replica, reply));
        let Some(device) = self.answer(answer).await else {
            return Err(Error::Stopped(self.inner.stopped().await));
        };
        self.add(replica, device?, false).await
    }

    /// Adds a replica to the group on a device that the app learned in another way, for instance from a code that the
    /// joiner shows: the joiner need not reach this replica.
    ///
    /// If `device` is not the joiner's own, the joiner waits, and a second call with the right one puts that right.
    ///
    /// # Errors
    /// As [`add_member`](TransactionManager::add_member), but for [`Error::NotKnocking`];
    /// [`Error::KnocksOnOtherDevice`] if the replica knocks here and says that it is on another device.
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn add_member_on(&self, replica: ReplicaId, device: DeviceId) -> Result<(), Error> {
        self.add(replica, device, false).await
    }

    /// Adds a replica to the group on a device that may be a member's already: a phone that was wiped, or whose store was
    /// lost, joins with a new replica and its old device.
    ///
    /// From then on the replica may change all records that the device owns. So never call this for what a knock says
    /// alone: let the person who owns the device confirm it.
    ///
    /// # Errors
    /// As [`add_member_on`](TransactionManager::add_member_on), but for [`Error::DeviceOfMember`].
    ///
    /// # Cancel safety
    /// Before the first poll nothing happens; after it, the commit is made whole or not at all.
    pub async fn take_over(&self, replica: ReplicaId, device: DeviceId) -> Result<(), Error> {
        self.add(replica, device, true).await
    }

    /// Adds a replica, or puts its device right as long as it waits.
    async fn add(&self, replica: ReplicaId, device: DeviceId, takes_over: bool) -> Result<(), Error> {
        let _adding = self.inner.adding.lock().await;
        let Status { members, streams, peers, .. } = self.status().await?;
        let (size, max) = (members.len() + 1, self.inner.limits.members_max);
        if size > max && !members.contains(&replica) {
            return Err(Error::TooLarge { size, limit: Limit { name: "members_max", max } });
        }
        let other = |stream: &&StreamStatus| stream.device == Some(device) && stream.replica != replica;
        if let Some(&StreamStatus { replica: member, .. }) =
            streams.iter().find(other).filter(|_| !takes_over)
        {
            return Err(Error::DeviceOfMember { replica, device, member });
        }
        let knocks = peers.iter().find(|peer| peer.replica == replica).and_then(|peer| peer.knocks);
        if let Some(knocks) = knocks.filter(|knocks| *knocks != device) {
            return Err(Error::KnocksOnOtherDevice { replica, knocks, asked: device });
        }
        // Move no replica that is at work: its commits name the device that they were made on.
        let wrote = streams.iter().any(|stream| stream.replica == replica && stream.commits > 0);
        let settled = |peer: &PeerStatus| peer.connected && peer.heard.is_some() && peer.knocks.is_none();
        // One that knocks on this device says itself where it is at work.
        let works =
            knocks.is_none() && (wrote || peers.iter().any(|peer| peer.replica == replica && settled(peer)));
        let record = RecordKey::new::<Member>(&replica);
        let bytes = record.id_bytes().len();
        let change = move |known: Option<&Member>, stamp: Hlc| match known {
            None => Ok(Member::new(replica, device).at(stamp)),
            Some(known) if known.device == device => Ok(known.clone()),
            Some(known) if works => {
                Err(Error::MemberOnOtherDevice { replica, stored: known.device, asked: device })
            }
            Some(known) => Ok(known.corrected(device).at(stamp)),
        };
        let action = update_stamped(replica, self.inner.limits.value_bytes_max, change);
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

    /// Checks the log of this store, and mends what is damaged with what the peers have.
    ///
    /// Every stream is read from its head down to its floor, in reads of about 1 MiB: each row of the log against the digest
    /// that the row behind it names, or the head, and each value against the digest in its row. The check runs beside commits
    /// and peers, and delays none of them. What is damaged is asked of the peers that are connected, one after the other, also
    /// what this replica has written itself. What a peer sends is taken only if it has the digest that the log here names.
    ///
    /// The call returns when all has been read, and no connected peer is left to be asked; a peer that does not answer delays
    /// it by 60 s once. What is not mended by then is in
    /// [`LogCheck::damaged`](crate::LogCheck::damaged), and is asked for again whenever a peer says hello, until the store
    /// is closed. [`Event::Damaged`](crate::Event::Damaged) and [`Event::Mended`](crate::Event::Mended) name each place;
    /// [`StreamStatus::damaged`](crate::StreamStatus::damaged) says nothing of a mended place any more, and it is served again.
    ///
    /// A record that a commit wrote last is checked with the value of that commit, and made again if it is damaged; its
    /// projections follow. Whether all records and the log agree is the question of [`audit`](crate::audit), which runs on a
    /// store that nobody has open: a check does not notice a damaged record that was merged of several values.
    ///
    /// # Errors
    /// [`Error::Read`] if the store could not be read, [`Error::Stopped`], [`Error::DriverNotRun`], [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future does not take the request back: the check goes on.
    pub async fn check_log(&self) -> Result<LogCheck, Error> {
        self.inner.ready().await?;
        let (reply, answer) = oneshot::channel();
        let _ = self.inner.control.send(Control::CheckLog(reply));
        match self.answer(answer).await {
            Some(result) => result,
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

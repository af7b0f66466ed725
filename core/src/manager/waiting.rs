//! The calls that ask how far commits have come in the group, and those that wait for that.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::driver::Control;
use crate::engine::{Ticket, Wanted};
use crate::error::Error;
use crate::storage::Storage;
use crate::synced::{CommitId, DurableOn, Synced};

use super::TransactionManager;

impl<S: Storage> TransactionManager<S> {
    /// Returns the last commit of this replica that is durable here; `None` if it has made none.
    ///
    /// Once [`commit`](TransactionManager::commit) or another such call has returned, this is its commit, or a later one if
    /// other tasks commit too. Either serves to ask where the commit has arrived, since whoever has a commit has all that
    /// its author made before. A call that changed nothing, since the same value was there already, has made no commit.
    #[must_use]
    pub fn last_commit(&self) -> Option<CommitId> {
        let seq = self.inner.own_commits.load(Acquire);
        (seq > 0).then(|| CommitId { replica: self.replica(), seq })
    }

    /// Returns the members that have a commit durably, as far as this replica knows: "is it on my laptop yet?"
    ///
    /// The commit may be one of this replica or of another. Of a commit of another replica this one hears the
    /// acknowledgements of a few members at once, and those of all that are connected to it within 40 s. No member counts
    /// for the own commits of a store that is known to be [restored](crate::Status::restored): they may mean the commits
    /// that it has lost.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::DriverNotRun`], [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn durable_on(&self, commit: CommitId) -> Result<DurableOn, Error> {
        self.inner.ready().await?;
        let (reply, answer) = oneshot::channel();
        // A request that cannot be sent drops its reply, which is answer enough: the driver has stopped.
        let _ = self.inner.control.send(Control::DurableOn(commit, reply));
        match self.answer(answer).await {
            Some(durable) => Ok(durable),
            None => Err(Error::Stopped(self.inner.stopped().await)),
        }
    }

    /// Waits until a commit is durable on `members` members, of which this replica is one, or until the time runs out; then
    /// returns which members have it, as [`durable_on`](TransactionManager::durable_on) does.
    ///
    /// A member counts once it has acknowledged the commit to this replica, or once another member says that it has: so a
    /// phone that meets the hub alone learns of the laptop. The answer tells the two apart, for who wants to rely on the
    /// first kind alone. If the time runs out, [`count`](DurableOn::count) is less than `members`:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use syncline::{Error, Storage, Syncable, TransactionManager};
    /// # async fn example<Tag: Syncable, S: Storage>(library: TransactionManager<S>, tag: Tag) -> Result<(), Error> {
    /// library.commit(tag).await?;
    /// if let Some(commit) = library.last_commit() {
    ///     let durable = library.wait_durable_on(2, commit, Duration::from_secs(10)).await?;
    ///     println!("{commit} is on {} devices", durable.count());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// More members than the group has are waited for too: one may be added meanwhile. A wait longer than a year ends
    /// after a year.
    ///
    /// # Errors
    /// [`Error::Restored`] for a commit of this replica if its store was restored from a backup or cloned;
    /// [`Error::Stopped`], [`Error::DriverNotRun`], [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and does nothing else.
    pub async fn wait_durable_on(
        &self,
        members: usize,
        commit: CommitId,
        timeout: Duration,
    ) -> Result<DurableOn, Error> {
        let wanted = Wanted { commit, on: members };
        self.wait(|ticket, reply| Control::WaitDurable(ticket, wanted, ms(timeout), reply)).await
    }

    /// Waits until this replica is level with every member that it reaches, or until the time runs out.
    ///
    /// It is level with a member that is connected and was heard, if
    ///
    /// - the member has acknowledged all commits that this replica had made when the call came, and
    /// - all commits that the member was known to have when the call came, or when it was heard first after that, are
    ///   durable here. Streams that are stopped here are left out, and named in the answer.
    ///
    /// What is committed after the call, here or there, is not waited for: a call returns also beside a writer that never
    /// stops. A commit that a member has made is known here as soon as it was received, or if its message was lost, with
    /// the member's next hello, within 40 s.
    ///
    /// The answer comes at once, as [`Synced::Alone`], if no other member is connected, also if the last one goes away
    /// meanwhile. So it does right after the opening, as long as the transport has not found anybody. A joiner waits until
    /// it is a member, and then until it is level. [`Synced::NotYet`] says what still differs when the time has run out. A
    /// wait longer than a year ends after a year.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use syncline::{Error, Storage, Synced, TransactionManager};
    /// # async fn example<S: Storage>(library: TransactionManager<S>) -> Result<(), Error> {
    /// match library.wait_synced(Duration::from_secs(10)).await? {
    ///     Synced::Level { away, .. } => println!("synced, but for {} that cannot be reached", away.len()),
    ///     Synced::Alone { .. } => println!("offline"),
    ///     Synced::NotYet(unsynced) => {
    ///         for peer in unsynced.peers {
    ///             println!("{} lacks {} commits", peer.replica, peer.missing_there);
    ///         }
    ///     }
    ///     _ => {}
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Restored`] if this store was restored from a backup or cloned, so that it is level with nobody any more;
    /// [`Error::Stopped`], [`Error::DriverNotRun`], [`Error::InsideClosure`].
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait and does nothing else.
    pub async fn wait_synced(&self, timeout: Duration) -> Result<Synced, Error> {
        self.wait(|ticket, reply| Control::WaitSynced(ticket, ms(timeout), reply)).await
    }

    /// Waits for the answer to a call that waits for members, and takes the call back if nobody waits any more.
    async fn wait<T>(
        &self,
        control: impl FnOnce(Ticket, oneshot::Sender<Result<T, Error>>) -> Control,
    ) -> Result<T, Error> {
        self.inner.ready().await?;
        let ticket = Ticket(self.inner.waits.fetch_add(1, Relaxed));
        let (reply, answer) = oneshot::channel();
        let mut call = Call { ticket, control: &self.inner.control, waits: true };
        let _ = self.inner.control.send(control(ticket, reply));
        let answer = self.answer(answer).await;
        call.waits = false;
        match answer {
            Some(answer) => answer,
            None => Err(Error::Stopped(self.inner.stopped().await)),
        }
    }
}

/// A call that waits for members. If it is dropped before its answer, the driver is told: otherwise calls that an app gives
/// up would pile up until their time is over.
struct Call<'a> {
    ticket: Ticket,
    control: &'a mpsc::UnboundedSender<Control>,
    waits: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.waits {
            let _ = self.control.send(Control::Forget(self.ticket));
        }
    }
}

/// The milliseconds of a wait, none of it cut off.
fn ms(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_wait_is_cut_off() {
        for (timeout, expected) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(7), 7),
            (Duration::from_micros(7_001), 8),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(ms(timeout), expected, "{timeout:?}");
        }
    }
}

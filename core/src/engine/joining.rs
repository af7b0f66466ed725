//! A chapter of the engine: replicas that want to become members, this one or another.

use crate::error::Error;
use crate::events::Event;
use crate::ids::{DeviceId, ReplicaId};
use crate::join_wait::JoinWait;

use super::io::{Effect, Ticket};
use super::{Engine, Peer};

impl Engine {
    // --- this replica is a joiner -----------------------------------------------------------------------------------

    /// Why this replica waits for its own member record; `None` while it is a member.
    pub(super) fn join_wait(&self) -> Option<JoinWait> {
        if let Some(added) = self.members.moved_to() {
            return Some(JoinWait::OtherDevice { added, device: self.context.identity.device });
        }
        let introducer = self.members.introducer()?;
        if !self.context.networked {
            return Some(JoinWait::NoTransport);
        }
        Some(match self.peers.get(introducer).filter(|peer| peer.is_up()) {
            None => JoinWait::NoAnswer { introducer, connected: false },
            Some(peer) if peer.is_of_other_group() => JoinWait::OtherGroup { introducer },
            Some(peer) if peer.calls_us_stranger() => JoinWait::NotAdded { introducer },
            Some(peer) if peer.is_greeted() => JoinWait::Receiving { introducer },
            Some(_) => JoinWait::NoAnswer { introducer, connected: true },
        })
    }

    /// Tells the app if this replica waits for another reason than it was told.
    pub(super) fn tell_of_joining(&mut self) {
        let wait = self.join_wait();
        if self.members.waits_for(wait, self.now.mono)
            && let Some(wait) = wait
        {
            self.tell(Event::Joining(wait));
        }
    }

    /// The device that the hello of a joiner names, and that of a member which was moved to another device while it was
    /// at work: two members may have added it at once.
    pub(super) fn knocks(&self) -> Option<DeviceId> {
        let knocks = self.members.awaits_membership() || self.members.moved_to().is_some();
        knocks.then_some(self.context.identity.device)
    }

    // --- another replica is one -------------------------------------------------------------------------------------

    /// The device on which a peer waits to be added. A member that has not heard of its record yet does not wait for
    /// anything of this replica.
    pub(super) fn knock_of(&self, replica: ReplicaId) -> Option<DeviceId> {
        let device = self.peers.get(replica).and_then(Peer::knock)?;
        (self.members.device_of(replica) != Some(device)).then_some(device)
    }

    /// Takes note of whether a peer knocks, and answers the calls that wait for that.
    pub(super) fn hear_knock(&mut self, from: ReplicaId, device: Option<DeviceId>) {
        let news = self.peers.knocks(from, device);
        let Some(device) = self.knock_of(from).filter(|_| !self.members.awaits_membership()) else { return };
        if news {
            self.tell(Event::Knocks { replica: from, device });
        }
        for ticket in self.adding.knocked(from) {
            self.effects.push_back(Effect::Knocked(ticket, Ok(device)));
        }
    }

    /// Answers a call with the device of the replica that it wants to add, now or when the replica knocks.
    pub(super) fn await_knock(&mut self, ticket: Ticket, replica: ReplicaId) {
        let device = match self.refusal() {
            Some(refusal) => Err(refusal.error(self.context.me())),
            None => match self.knock_of(replica).or_else(|| self.members.device_of(replica)) {
                Some(device) => Ok(device),
                None => return self.adding.wait(ticket, replica, self.now.mono),
            },
        };
        self.effects.push_back(Effect::Knocked(ticket, device));
    }

    /// Answers the calls whose replicas have not knocked in time.
    pub(super) fn end_silent_calls(&mut self) {
        let me = self.context.me();
        for (ticket, replica) in self.adding.take_silent() {
            self.effects.push_back(Effect::Knocked(ticket, Err(Error::NotKnocking { replica, me })));
        }
    }
}

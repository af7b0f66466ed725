//! The members of the group whose records are here: this replica listens to them, and they may write.
//!
//! Owns: the member records, and the introducer of a joiner. Holds always: a member never goes, and its state only
//! rises; a replica whose own member record is here has no introducer.

use std::collections::BTreeMap;

use crate::ids::{DeviceId, ReplicaId};
use crate::member::Member;

use super::context::Context;

/// The members of the group.
#[derive(Debug)]
pub(super) struct Members {
    members: BTreeMap<ReplicaId, Member>,
    /// The replica from which this one learns the group, until its own member record is here.
    introducer: Option<ReplicaId>,
    me: ReplicaId,
    device: DeviceId,
}

impl Members {
    /// The members that a store knows. `introducer` counts only until the own member record is among them.
    pub(super) fn new(
        context: &Context,
        members: BTreeMap<ReplicaId, Member>,
        introducer: Option<ReplicaId>,
    ) -> Self {
        let (me, device) = (context.me(), context.identity.device);
        let mut all = Self { members, introducer, me, device };
        if all.is_member() {
            all.introducer = None;
        }
        all
    }

    /// Whether the group knows this replica on this device. A commit that names another device is refused by every
    /// other replica.
    pub(super) fn is_member(&self) -> bool {
        self.members.get(&self.me).is_some_and(|member| member.device == self.device)
    }

    /// Whether this replica waits for its own member record.
    pub(super) fn awaits_membership(&self) -> bool {
        self.introducer.is_some()
    }

    /// Whether this replica is the only member: then no other one needs its log.
    pub(super) fn is_alone(&self) -> bool {
        self.members.len() == 1 && self.members.contains_key(&self.me)
    }

    /// Whether this replica listens to `peer`. A member listens to members; a joiner, which knows none, to its
    /// introducer alone.
    pub(super) fn trusts(&self, peer: ReplicaId, context: &Context) -> bool {
        if !context.rules.peers_are_members {
            return true;
        }
        match self.introducer {
            Some(introducer) => introducer == peer,
            None => self.members.contains_key(&peer),
        }
    }

    /// The device on which the author of a stream is a member.
    pub(super) fn device_of(&self, stream: ReplicaId) -> Option<DeviceId> {
        self.members.get(&stream).map(|member| member.device)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ReplicaId> {
        self.members.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Takes member records that became durable; returns whether this replica became a member by them.
    pub(super) fn apply(&mut self, records: Vec<Member>) -> bool {
        for member in records {
            let before = self.members.insert(member.replica, member.clone());
            debug_assert!(
                before.is_none_or(|before| before.state <= member.state),
                "a state rises: {member:?}"
            );
        }
        self.is_member() && self.introducer.take().is_some()
    }

    /// Asserts the invariants.
    pub(super) fn check(&self) {
        assert!(!(self.is_member() && self.introducer.is_some()), "a member needs no introducer");
        for (replica, member) in &self.members {
            assert_eq!(*replica, member.replica, "a member stands under its own name");
        }
    }
}

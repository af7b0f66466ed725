//! The members of the group whose records are here: this replica listens to them, and they may write.
//!
//! Owns: the member records, and the introducer of a joiner. Holds always: a member never goes, and its state only
//! rises; a replica whose own member record is here has no introducer.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::ids::{DeviceId, ReplicaId};
use crate::join_wait::JoinWait;
use crate::member::Member;

use super::context::Context;

/// The most changes of a wait that are told within [`TELLS_MS`].
const TELLS_MAX: u32 = 16;
const TELLS_MS: u64 = 10_000;

/// The members of the group.
#[derive(Debug)]
pub(super) struct Members {
    members: BTreeMap<ReplicaId, Member>,
    /// The replica from which this one learns the group, until its own member record is here.
    introducer: Option<ReplicaId>,
    /// The wait of this replica as its app knows it: whether it waits, and for what. `None` at the opening.
    told: Option<Option<JoinWait>>,
    /// When the app heard of the first of the last changes, and how many these were.
    tells: (Mono, u32),
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
        let mut all = Self { members, introducer, told: None, tells: (Mono(0), 0), me, device };
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

    /// The replica from which a joiner learns the group.
    pub(super) fn introducer(&self) -> Option<ReplicaId> {
        self.introducer
    }

    /// The device of the own member record, if that is another one than this replica is on: two members added it at once,
    /// and the other add counts.
    pub(super) fn moved_to(&self) -> Option<DeviceId> {
        self.device_of(self.me).filter(|device| *device != self.device)
    }

    /// Takes note of what this replica waits for, if it does; returns whether the app is to hear of that. At the opening
    /// nothing has happened yet, so there is nothing to tell.
    ///
    /// The introducer may say now this and now that: what it says after some changes within a short time is told later.
    pub(super) fn waits_for(&mut self, wait: Option<JoinWait>, now: Mono) -> bool {
        let Some(before) = self.told else {
            self.told = Some(wait);
            return false;
        };
        let is_news = before != wait && wait.is_some();
        if is_news {
            match &mut self.tells {
                (since, count) if now.since(*since) < TELLS_MS => {
                    if *count >= TELLS_MAX {
                        return false;
                    }
                    *count += 1;
                }
                tells => *tells = (now, 1),
            }
        }
        self.told = Some(wait);
        is_news
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

    /// The record of a member.
    pub(super) fn get(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.get(&replica)
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
        let waited = self.introducer.is_some() || self.moved_to().is_some();
        for member in records {
            let before = self.members.insert(member.replica, member.clone());
            debug_assert!(
                before.is_none_or(|before| before.state <= member.state),
                "a state rises: {member:?}"
            );
        }
        if self.is_member() {
            self.introducer = None;
        }
        self.is_member() && waited
    }

    /// Asserts the invariants.
    pub(super) fn check(&self) {
        assert!(!(self.is_member() && self.introducer.is_some()), "a member needs no introducer");
        for (replica, member) in &self.members {
            assert_eq!(*replica, member.replica, "a member stands under its own name");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C, ME, complaint, context, device, member};
    use super::*;

    fn members(records: &[Member], introducer: Option<ReplicaId>) -> Members {
        let records = records.iter().map(|member| (member.replica, member.clone()));
        Members::new(&context(), records.collect(), introducer)
    }

    /// Whom of `ME`, `B` and `C` this replica listens to.
    fn trusted(members: &Members) -> Vec<ReplicaId> {
        [ME, B, C].into_iter().filter(|peer| members.trusts(*peer, &context())).collect()
    }

    #[test]
    fn a_joiner_listens_to_its_introducer_alone_until_its_own_record_is_here() {
        let mut joiner = members(&[], Some(B));
        assert_eq!(
            (trusted(&joiner), joiner.awaits_membership(), joiner.is_member()),
            (vec![B], true, false)
        );
        assert!(!joiner.apply(vec![member(B), member(C)]));
        assert_eq!(
            (trusted(&joiner), joiner.awaits_membership()),
            (vec![B], true),
            "also if it knows others"
        );
        assert!(joiner.apply(vec![member(ME)]));
        assert_eq!((trusted(&joiner), joiner.awaits_membership()), (vec![ME, B, C], false));
        assert!(!joiner.apply(vec![member(ME)]), "it becomes a member once");
        joiner.check();
    }

    #[test]
    fn a_member_needs_no_introducer() {
        let members = members(&[member(ME), member(C)], Some(B));
        assert!(members.is_member() && !members.awaits_membership());
        assert_eq!(trusted(&members), [ME, C]);
        members.check();
    }

    /// Commits that name this device would be taken by nobody.
    #[test]
    fn a_record_that_names_another_device_makes_nobody_a_member() {
        let other = Member { device: device(C), ..member(ME) };
        let mut joiner = members(&[], Some(B));
        assert!(!joiner.apply(vec![other.clone()]));
        assert!(!joiner.is_member() && joiner.awaits_membership());
        assert!(members(&[other], Some(B)).awaits_membership(), "nor at an opening");
    }

    /// Another add counts, which came first: this replica commits no more until that is put right.
    #[test]
    fn a_member_may_turn_out_to_be_on_a_wrong_device() {
        let other = Member { device: device(C), ..member(ME) };
        let mut members = members(&[member(ME), member(B)], None);
        assert_eq!(members.moved_to(), None);
        assert!(!members.apply(vec![other.clone()]));
        assert_eq!((members.moved_to(), members.is_member()), (Some(device(C)), false));
        assert_eq!(trusted(&members), [ME, B], "it is no joiner: it listens to all");
        assert!(members.apply(vec![member(ME)]) && members.moved_to().is_none());
        members.check();
    }

    #[test]
    fn the_app_is_told_of_a_wait_when_it_changes() {
        let mut members = members(&[member(ME)], None);
        let waits = [
            None,
            Some(JoinWait::NoTransport),
            Some(JoinWait::NoTransport),
            None,
            Some(JoinWait::NoTransport),
        ];
        let told: Vec<_> = waits.into_iter().map(|wait| members.waits_for(wait, Mono(0))).collect();
        assert_eq!(told, [false, true, false, false, true]);
    }

    #[test]
    fn a_member_stays_and_has_the_device_of_its_record() {
        let mut members = members(&[member(ME), member(B)], None);
        assert_eq!((members.device_of(B), members.device_of(C)), (Some(device(B)), None));
        members.apply(vec![member(C)]);
        members.apply(vec![Member { device: device(ME), ..member(B) }]);
        assert_eq!((members.ids().collect::<Vec<_>>(), members.len()), (vec![B, C, ME], 3));
        assert_eq!(members.device_of(B), Some(device(ME)), "as its record says last");
    }

    #[test]
    fn only_the_single_member_is_alone() {
        for (records, alone) in [
            (vec![], false),
            (vec![member(ME)], true),
            (vec![member(B)], false),
            (vec![member(ME), member(B)], false),
        ] {
            assert_eq!(members(&records, None).is_alone(), alone, "{records:?}");
        }
    }

    #[test]
    fn everybody_is_listened_to_where_peers_need_not_be_members() {
        let mut context = context();
        context.rules.peers_are_members = false;
        assert!(members(&[member(ME)], None).trusts(C, &context));
        assert!(members(&[], Some(B)).trusts(C, &context));
    }

    #[test]
    fn the_check_finds_what_must_never_be() {
        let mut introduced = members(&[member(ME)], None);
        introduced.introducer = Some(B);
        let complaint_of = |members: &Members| complaint(|| members.check()).unwrap_or_default();
        assert!(complaint_of(&introduced).contains("needs no introducer"));
        let mut misnamed = members(&[member(ME)], None);
        misnamed.members.insert(B, member(C));
        assert!(complaint_of(&misnamed).contains("under its own name"));
    }
}

//! The peers: which replicas can be reached, what each has and acknowledged, and which messages it is owed.
//!
//! Owns: a [`Peer`] for every replica that was heard of, the count of those that are up, and the [index](ahead) of
//! those that are ahead. Holds always: a peer that is down is owed nothing; an acknowledgement only rises, and only
//! while the session that gave it is known; the index says exactly what a comparison of all peers and streams would
//! say.

mod ahead;
mod clock;
mod following;
mod pace;
mod passed;
mod session;

use std::collections::{BTreeMap, BTreeSet};

use ahead::Ahead;
pub(super) use pace::Pace;
use passed::Passed;
pub(super) use session::{Owed, Peer};

use crate::clock::Mono;
use crate::events::Refusal;
use crate::ids::{DeviceId, ReplicaId};
use crate::stored::Point;

use super::Machine;
use super::wire::{Reach, STREAMS_MAX, WireClock};

/// The most replicas that are remembered beyond the members. Most of them are strangers.
const STRANGERS_MAX: usize = 64;

/// The peers.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<ReplicaId, Peer>,
    /// How many peers are up. Every commit asks for it, so it is counted and not searched.
    up: usize,
    /// The peers that are owed a message.
    owing: BTreeSet<ReplicaId>,
    /// The peers that rest: they are not asked for a while.
    resting: BTreeSet<ReplicaId>,
    /// The peers that may have to be told once more that there is more of the own stream.
    behind: BTreeSet<ReplicaId>,
    /// The peers whose last page said that there is more.
    with_more: BTreeSet<ReplicaId>,
    /// The peers whose pages passed over streams in which they are ahead.
    passing: BTreeSet<ReplicaId>,
    ahead: Ahead,
}

impl Peers {
    /// Takes a peer from the store, with all that it once acknowledged.
    pub(super) fn remember(&mut self, peer: ReplicaId, acked: BTreeMap<ReplicaId, Point>) {
        self.peers.entry(peer).or_default().acked = acked;
    }

    pub(super) fn get(&self, peer: ReplicaId) -> Option<&Peer> {
        self.peers.get(&peer)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Peer)> {
        self.peers.iter().map(|(replica, peer)| (*replica, peer))
    }

    /// Whether any peer is up.
    pub(super) fn any_up(&self) -> bool {
        self.up > 0
    }

    /// How many peers are up.
    pub(super) fn up(&self) -> usize {
        self.up
    }

    pub(super) fn is_up(&self, peer: ReplicaId) -> bool {
        self.peers.get(&peer).is_some_and(Peer::is_up)
    }

    /// Whether there is room for one more stranger.
    pub(super) fn has_room_for_strangers(&self, members_max: usize) -> bool {
        self.peers.len() < members_max.saturating_add(STRANGERS_MAX)
    }

    // --- the connection -------------------------------------------------------------------------------------------

    /// Takes note that a peer is up. Its words so far may be of an earlier session, so that its session counts as
    /// unknown.
    pub(super) fn came_up(&mut self, replica: ReplicaId) {
        let peer = self.peers.entry(replica).or_default();
        self.up += usize::from(!peer.is_up());
        peer.came_up();
        self.resting.remove(&replica);
        self.passing.remove(&replica);
    }

    /// Takes note that a peer is down. A peer that never acknowledged anything is forgotten.
    pub(super) fn went_down(&mut self, replica: ReplicaId) {
        let Some(peer) = self.peers.get_mut(&replica) else { return };
        self.up -= usize::from(peer.is_up());
        peer.went_down();
        self.owing.remove(&replica);
        if peer.is_forgettable() {
            self.peers.remove(&replica);
            self.ahead.forget(replica);
            self.resting.remove(&replica);
            self.with_more.remove(&replica);
            self.passing.remove(&replica);
        }
    }

    /// Takes note of a hello; returns whether it begins a new session. The store of a new session may have lost what
    /// the one before had, so this is forgotten.
    pub(super) fn greeted(&mut self, replica: ReplicaId, session: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&replica) else { return false };
        let new = peer.greeted(session);
        if new {
            self.ahead.forget(replica);
            self.resting.remove(&replica);
            self.passing.remove(&replica);
        }
        new
    }

    /// Takes note that the store of a peer was restored; returns whether that is news.
    pub(super) fn was_restored(&mut self, replica: ReplicaId, now: Mono, forget_acks: bool) -> bool {
        let Some(peer) = self.peers.get_mut(&replica) else { return false };
        // Forget how much the peer had of its own stream: it has what it says now, if anything.
        peer.has.remove(&replica);
        self.ahead.forget_stream(replica, replica);
        peer.was_restored(now, forget_acks)
    }

    /// Takes note that a peer says that its store was not restored, in a hello that was sent after this moment.
    pub(super) fn was_not_restored(&mut self, replica: ReplicaId, after: Mono) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.was_not_restored(after);
        }
    }

    /// Takes note that a hello goes to a peer; returns the timer of the peer to echo in it.
    pub(super) fn says_hello(&mut self, replica: ReplicaId, now: Mono) -> Option<u64> {
        self.peers.get_mut(&replica).and_then(|peer| peer.clock.says_hello(now))
    }

    /// Takes what a hello of a peer says of time; returns the moment after which it was sent, if it proves one.
    pub(super) fn heard_clock(&mut self, replica: ReplicaId, clock: &WireClock, now: Mono) -> Option<Mono> {
        self.peers.get_mut(&replica).and_then(|peer| peer.clock.heard(clock, now))
    }

    /// Takes the word of a peer that it takes no more of the stream of this replica; returns whether it is news.
    pub(super) fn refuses(&mut self, replica: ReplicaId, refusal: Refusal) -> bool {
        self.peers.get_mut(&replica).is_some_and(|peer| peer.refuses(refusal))
    }

    /// Takes note that a peer has the stream of this replica up to `seq`; returns whether it takes it again.
    pub(super) fn takes(&mut self, replica: ReplicaId, seq: u64) -> bool {
        self.peers.get_mut(&replica).is_some_and(|peer| peer.takes(seq))
    }

    /// Takes note of whether a peer calls this replica a stranger.
    pub(super) fn calls_us_stranger(&mut self, replica: ReplicaId, stranger: bool) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.stranger = stranger;
        }
    }

    /// Takes note that a frame of a peer was read.
    pub(super) fn hears(&mut self, replica: ReplicaId, now: Mono) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.heard = Some(now);
        }
    }

    /// Takes note that a peer says that it is of another group.
    pub(super) fn is_of_other_group(&mut self, replica: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.other_group = true;
        }
    }

    /// Takes note of the device of a peer that waits to be added, or that it does not wait; returns whether the app is to
    /// hear of it: at the first, and if the device changes ever more rarely.
    pub(super) fn knocks(&mut self, replica: ReplicaId, device: Option<DeviceId>) -> bool {
        let Some(peer) = self.peers.get_mut(&replica) else { return false };
        let news = device.is_some() && peer.knock != device;
        peer.knock = device;
        peer.knocks += u64::from(news);
        news && peer.knocks.is_power_of_two()
    }

    /// Counts a refused frame; returns the count if the app is to hear of it: at the first, then ever more rarely.
    pub(super) fn reject(&mut self, replica: ReplicaId) -> Option<u64> {
        let peer = self.peers.get_mut(&replica)?;
        peer.rejected += 1;
        Some(peer.rejected).filter(|count| count.is_power_of_two())
    }

    // --- what a peer has ------------------------------------------------------------------------------------------

    /// Takes note of how much of a stream a peer has, where the tip here is `tip`.
    pub(super) fn has(&mut self, replica: ReplicaId, stream: ReplicaId, seq: u64, tip: u64) {
        let Some(peer) = self.peers.get_mut(&replica) else { return };
        if peer.has.len() < STREAMS_MAX || peer.has.contains_key(&stream) {
            let known = peer.has.entry(stream).or_insert(0);
            if seq > *known {
                *known = seq;
                self.ahead.note(replica, stream, seq, tip);
            }
        }
    }

    /// Takes note that the tip of a stream rose. A peer that passed the stream over may have what comes next.
    pub(super) fn tip_rose(&mut self, stream: ReplicaId, tip: u64) {
        self.ahead.tip_rose(stream, tip);
        let Self { peers, passing, .. } = self;
        passing.retain(|replica| peers.get_mut(replica).is_some_and(|peer| peer.passed.takes_up(stream)));
    }

    /// Takes note that the tip of a stream fell, since the inbox was let go: peers that have more are ahead again.
    pub(super) fn tip_fell(&mut self, stream: ReplicaId, tip: u64) {
        for (replica, peer) in &self.peers {
            self.ahead.note(*replica, stream, peer.has.get(&stream).copied().unwrap_or(0), tip);
        }
    }

    /// Takes note of an acknowledgement; returns whether it is more than before.
    pub(super) fn acked(&mut self, replica: ReplicaId, stream: ReplicaId, point: Point, any: bool) -> bool {
        self.peers.get_mut(&replica).is_some_and(|peer| peer.acks(stream, point, any))
    }

    /// Forgets what a peer is said to have acknowledged of a stream, since the stream never was like that.
    pub(super) fn forget_ack(&mut self, replica: ReplicaId, stream: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.acked.remove(&stream);
        }
    }

    /// Takes note of a place that is to be compared with the own log; returns whether it is not the last one that was.
    pub(super) fn compares(&mut self, replica: ReplicaId, stream: ReplicaId, seq: u64) -> bool {
        self.peers.get_mut(&replica).is_some_and(|peer| peer.compared.insert(stream, seq) != Some(seq))
    }

    /// Forgets a comparison that failed, so that the next hello makes it again.
    pub(super) fn compares_again(&mut self, replica: ReplicaId, stream: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.compared.remove(&stream);
        }
    }

    /// The peers that have something that is `wanted` of them, have not passed it over, are up and do not rest.
    pub(super) fn with_missing(&self, wanted: impl Fn(ReplicaId, ReplicaId) -> bool) -> Vec<ReplicaId> {
        let mut peers =
            self.ahead.peers(|stream, peer| wanted(stream, peer) && !self.passes_over(peer, stream));
        peers.extend(&self.with_more);
        peers.retain(|replica| self.is_up(*replica) && !self.resting.contains(replica));
        peers.into_iter().collect()
    }

    /// The streams in which a peer is ahead, and how much of each it has.
    pub(super) fn ahead(&self, replica: ReplicaId) -> impl Iterator<Item = (ReplicaId, u64)> {
        self.ahead.streams(replica)
    }

    /// The same, but for the streams that its pages passed over.
    pub(super) fn missing(&self, replica: ReplicaId) -> impl Iterator<Item = ReplicaId> {
        self.ahead(replica)
            .map(|(stream, _)| stream)
            .filter(move |stream| !self.passes_over(replica, *stream))
    }

    /// Whether a peer is left alone about a stream for a while, since its page passed that over.
    pub(super) fn passes_over(&self, replica: ReplicaId, stream: ReplicaId) -> bool {
        self.passing.contains(&replica)
            && self.peers.get(&replica).is_some_and(|peer| peer.passed.contains(stream))
    }

    /// Whether the peer said that its last page did not have everything.
    pub(super) fn said_more(&self, replica: ReplicaId) -> bool {
        self.with_more.contains(&replica)
    }

    /// Whether a peer is not asked for a while.
    pub(super) fn rests_now(&self, replica: ReplicaId) -> bool {
        self.resting.contains(&replica)
    }

    // --- pages ----------------------------------------------------------------------------------------------------

    /// Takes note that a peer is asked for a page: the word of its last page does not count any more.
    pub(super) fn is_asked(&mut self, replica: ReplicaId) {
        self.with_more.remove(&replica);
    }

    /// Takes note of the head of a page.
    pub(super) fn sent_page(&mut self, replica: ReplicaId, more: bool, reach: Reach) {
        let Some(peer) = self.peers.get_mut(&replica) else { return };
        peer.reach = reach;
        if more {
            self.with_more.insert(replica);
        } else {
            self.with_more.remove(&replica);
        }
    }

    /// Lets a peer that was of no use rest, longer every time.
    pub(super) fn rests(&mut self, replica: ReplicaId, now: Mono, rng: &mut fastrand::Rng) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.backoff.again(now, rng);
            self.resting.insert(replica);
        }
    }

    /// Leaves a peer alone for a while about streams that its page passed over, longer every time: these rest on a
    /// stream that is stopped here, or the peer cannot send them. It is asked for all others.
    pub(super) fn passed_over(
        &mut self,
        replica: ReplicaId,
        streams: Vec<ReplicaId>,
        now: Mono,
        rng: &mut fastrand::Rng,
    ) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.passed.again(streams, now, rng);
            self.passing.insert(replica);
        }
    }

    /// Takes note that a stream goes on again: whatever was passed over may have rested on it.
    pub(super) fn nothing_is_passed_over(&mut self) {
        for replica in std::mem::take(&mut self.passing) {
            if let Some(peer) = self.peers.get_mut(&replica) {
                peer.passed = Passed::default();
            }
        }
    }

    /// Ends the rest of a peer that was of use.
    pub(super) fn is_useful(&mut self, replica: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.silent = false;
            peer.backoff.reset();
            self.resting.remove(&replica);
        }
    }

    /// Takes note that a peer did not answer a pull in time.
    pub(super) fn was_silent(&mut self, replica: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.silent = true;
        }
    }

    /// Takes note that frames pass in both directions. A peer that rests since it was silent may be asked again: it was
    /// the link that was silent.
    pub(super) fn is_reached(&mut self, replica: ReplicaId) {
        if self.peers.get(&replica).is_some_and(|peer| peer.silent) {
            self.is_useful(replica);
        }
    }

    /// Ends the rest of all peers, since there is something new to ask for.
    pub(super) fn all_are_useful(&mut self) {
        for replica in std::mem::take(&mut self.resting) {
            self.is_useful(replica);
        }
        self.nothing_is_passed_over();
    }

    /// Takes note that a snapshot was installed: the logs of peers may reach back to what is here now.
    pub(super) fn all_logs_may_reach(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.reach = Reach::Whole);
    }

    /// The pace of a peer.
    pub(super) fn pace(&self, replica: ReplicaId) -> Pace {
        self.peers.get(&replica).map(|peer| peer.pace).unwrap_or_default()
    }

    /// Takes what a page, or its absence, tells about the pace of a peer.
    pub(super) fn paced(&mut self, replica: ReplicaId, what: impl FnOnce(&mut Pace)) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            what(&mut peer.pace);
        }
    }

    // --- the own stream -------------------------------------------------------------------------------------------

    /// Takes the word of a peer that it has the own stream up to `seq`.
    pub(super) fn follows_up_to(&mut self, replica: ReplicaId, seq: u64) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.following.has(seq);
        }
    }

    /// Takes the pull of a peer, which has the own stream up to `seq` and no further.
    pub(super) fn lacks_behind(&mut self, replica: ReplicaId, seq: u64) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.following.lacks_behind(seq);
        }
    }

    /// Takes note that a page goes to a peer, which has the own stream up to `upto`, if it is known how far.
    pub(super) fn is_sent_page(&mut self, replica: ReplicaId, upto: Option<u64>, more: bool) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            match upto {
                Some(upto) => peer.following.page(upto, more),
                None => peer.following.page_failed(),
            }
        }
    }

    /// Whether own commits behind `before` may go to a peer live, where a peer that lacks commits up to `floor` is too
    /// far behind.
    pub(super) fn is_level(&self, replica: ReplicaId, before: u64, floor: u64) -> bool {
        self.peers.get(&replica).is_some_and(|peer| peer.following.is_level(before, floor))
    }

    /// Takes note that own commits go to a peer live.
    pub(super) fn is_sent_live(&mut self, replica: ReplicaId, before: u64, upto: u64) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.following.live(before, upto);
        }
    }

    /// Owes a peer the word that there is more of the own stream, unless it knows.
    pub(super) fn owe_word(&mut self, replica: ReplicaId, now: Mono) {
        let Some(peer) = self.peers.get_mut(&replica) else { return };
        if peer.following.wants_word(now) {
            return self.owe(replica, |owed| owed.word = true);
        }
        // The word that was said may be lost, and there may be no other commit for long.
        peer.following.tell_again();
        self.behind.insert(replica);
    }

    /// Takes note that a peer is told that the own stream goes up to `seq`.
    pub(super) fn is_told(&mut self, replica: ReplicaId, seq: u64, now: Mono) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.following.tell(seq, now);
        }
    }

    // --- what is owed ---------------------------------------------------------------------------------------------

    /// Takes note that a peer is owed something. It gets one answer, however often it asks.
    pub(super) fn owe(&mut self, replica: ReplicaId, what: impl FnOnce(&mut Owed)) {
        if let Some(peer) = self.peers.get_mut(&replica).filter(|peer| peer.is_up()) {
            what(&mut peer.owed);
            self.owing.insert(replica);
        }
    }

    /// The next peer that is owed something, and what; `None` if no peer is.
    pub(super) fn pay(&mut self) -> Option<(ReplicaId, Owed)> {
        let replica = self.owing.pop_first()?;
        let owed = self.peers.get_mut(&replica).map(|peer| std::mem::take(&mut peer.owed));
        Some((replica, owed.unwrap_or_default()))
    }
}

impl Machine for Peers {
    fn next_timeout(&self) -> Option<Mono> {
        let rests = self.resting.iter().filter_map(|replica| self.peers.get(replica)?.backoff.until());
        let passes = self.passing.iter().filter_map(|replica| self.peers.get(replica)?.passed.until());
        let behind =
            self.behind.iter().filter_map(|replica| self.peers.get(replica)?.following.tells_again_at());
        rests.chain(passes).chain(behind).min()
    }

    fn expire(&mut self, now: Mono) {
        let Self { peers, resting, passing, behind, owing, .. } = self;
        resting.retain(|replica| peers.get_mut(replica).is_some_and(|peer| !peer.backoff.expire(now)));
        passing.retain(|replica| peers.get_mut(replica).is_some_and(|peer| !peer.passed.expire(now)));
        behind.retain(|replica| {
            let Some(peer) = peers.get_mut(replica).filter(|peer| peer.is_up()) else { return false };
            let at = peer.following.tells_again_at();
            let is_due = at.is_some_and(|at| at <= now);
            if is_due {
                peer.owed.word = true;
                owing.insert(*replica);
            }
            at.is_some() && !is_due
        });
    }

    fn check(&self) {
        assert_eq!(self.up, self.peers.values().filter(|peer| peer.is_up()).count());
        let all = |set: &BTreeSet<ReplicaId>| set.iter().all(|replica| self.peers.contains_key(replica));
        assert!(all(&self.owing) && all(&self.resting) && all(&self.with_more), "{self:?}");
        assert!(all(&self.passing), "{self:?}");
        for (replica, peer) in &self.peers {
            assert!(peer.is_up() || !peer.owed.is_anything(), "{replica} is down and owed {:?}", peer.owed);
            assert_eq!(peer.owed.is_anything(), self.owing.contains(replica), "{replica}");
            assert_eq!(!peer.backoff.is_over(), self.resting.contains(replica), "{replica}");
            assert_eq!(peer.passed.until().is_some(), self.passing.contains(replica), "{replica}");
            peer.passed.check();
            peer.clock.check();
        }
    }
}

impl Peers {
    /// Asserts that the index says what a comparison of all peers and streams says. `tip` gives the tip of a stream.
    pub(super) fn check_index(&self, me: ReplicaId, tip: impl Fn(ReplicaId) -> u64) {
        let mut compared = Ahead::default();
        for (replica, peer) in &self.peers {
            for (stream, seq) in peer.has.iter().filter(|(stream, _)| **stream != me) {
                compared.note(*replica, *stream, *seq, tip(*stream));
            }
        }
        assert_eq!(self.ahead, compared);
    }
}

#[cfg(test)]
mod tests;

//! A chapter of the engine: pulls, which ask peers for the commits that are missing here.

use std::collections::BTreeSet;

use crate::ids::ReplicaId;
use crate::stored::Point;

use super::Engine;
use super::peer::{Pace, Peer};
use super::pull::{Answers, Kind};
use super::serve::PULLS_MAX;
use super::wire::{self, Capped, Pull, PullOn, Reach, STREAMS_MAX, WireHead};

impl Engine {
    /// Asks one peer for missing commits, unless a page is on its way. No other place pulls.
    ///
    /// A commit that the store here refused is asked for first, and alone: its pauses make that rare, and whatever comes
    /// behind it would have to be let go if the store refuses it again.
    pub(super) fn pull(&mut self) {
        if self.closing {
            return;
        }
        self.pull_on();
        if !self.puller.is_free() {
            return;
        }
        // A snapshot and the logs of the streams that go on take turns.
        let install = self.install_pull();
        let pulls = (install.is_none() || !self.install.has_turn()) && self.pull_log();
        if pulls {
            return self.install.log_had_turn();
        }
        if let Some((peer, wanted)) = install {
            self.send_install_pull(peer, &wanted);
        }
    }

    /// Asks one peer for missing commits; returns whether it did.
    fn pull_log(&mut self) -> bool {
        if self.install.is_in_place() || !self.inbox.has_room_for_a_page(&self.context.limits) {
            return false;
        }
        if let Some((peer, stream)) = self.commit_to_try_again() {
            let excluded = self.all_streams_but(stream, peer);
            self.send_pull(peer, Kind::One, excluded, None);
            return true;
        }
        let admitting = self.admitting();
        let mut able = self.able_peers(|stream, peer| admitting.wants(stream, peer), true);
        if self.install.is_arriving() {
            // The records that arrive spare the longer way.
            let longer = |peer: ReplicaId| self.peers.get(peer).map(Peer::reach) == Some(Reach::Longer);
            able.retain(|peer| !longer(*peer));
        }
        let Some(peer) = self.puller.choose(able, &mut self.rng) else { return false };
        // Exclude the own stream: this replica is its only author, so a commit of it would bring nothing new.
        let mut excluded = vec![self.context.me()];
        if self.context.rules.pulls_exclude {
            excluded.extend(self.streams.left_out_for(peer));
            excluded.extend(self.doubts.of(peer));
            excluded.extend(self.damages.heads());
            excluded.extend(self.damages.ended(peer, |stream| self.streams.tip(stream).seq));
        }
        self.send_pull(peer, Kind::Page, excluded, None);
        true
    }

    /// Takes note that a peer is asked; returns the id of the pull, and the bytes that its page may have.
    pub(super) fn asks(&mut self, peer: ReplicaId, kind: Kind) -> (u32, u32) {
        let pace = self.pace(peer);
        // A single commit always fits, so a page without a budget has one.
        let budget = if kind == Kind::One { 0 } else { pace.page_bytes(self.context.limits.page_bytes_max) };
        let silent = self.peers.get(peer).is_some_and(Peer::was_silent);
        let (id, _) = self.puller.asks(peer, kind, budget, self.now.mono, pace.wait_ms(), silent);
        (id, crate::stored::length(budget))
    }

    /// Asks for the page behind those that are on their way, if the link to their peer holds more.
    fn pull_on(&mut self) {
        let Some((peer, pages, bytes)) = self.puller.goes_on() else { return };
        let pace = self.pace(peer);
        let room = self.inbox.has_room_for_pages(pages + 1, &self.context.limits);
        if bytes > pace.bytes_on_the_way() || pages >= PULLS_MAX || !room {
            return;
        }
        let budget = pace.page_bytes(self.context.limits.page_bytes_max);
        let (id, behind) = self.puller.asks(peer, Kind::On, budget, self.now.mono, pace.wait_ms(), false);
        let pull = PullOn { id, behind, budget: crate::stored::length(budget) };
        self.send(peer, wire::pull_on(self.context.group(), &pull));
    }

    /// Follows the pages that go on from each other: takes note of what one of them says of those behind it. `more` is the
    /// word of its peer, `progress` how many of its commits were new.
    pub(super) fn follow_run(
        &mut self,
        from: ReplicaId,
        answers: Answers,
        more: bool,
        progress: usize,
        all_new: bool,
    ) {
        if more && matches!(answers, Answers::Asked | Answers::AskedOn) {
            self.page_was_full(from);
        }
        if matches!(answers, Answers::Asked | Answers::AskedOn | Answers::AskedForOne) {
            self.puller.run(from, more && all_new);
        }
        // A page that answers no pull, such as one that comes twice, says nothing about those on their way.
        let Some(budget) = self.puller.next_budget(from).filter(|_| answers != Answers::Nothing) else {
            return;
        };
        if answers != Answers::Late && (!more || progress == 0) {
            return self.puller.ends_run(from);
        }
        let pace = self.peers.pace(from);
        let transfer_ms = pace.transfer_ms(crate::stored::length(budget));
        self.puller.waits_anew(self.now.mono, pace.wait_ms().saturating_add(transfer_ms));
    }

    /// Takes note that a page of a peer had no room for all that is left: the next ones may be longer.
    pub(super) fn page_was_full(&mut self, from: ReplicaId) {
        self.peers.paced(from, |pace| pace.filled(self.context.limits.page_bytes_max));
    }

    /// The pace of a peer, or one that follows no link.
    fn pace(&self, peer: ReplicaId) -> Pace {
        if self.context.rules.pages_follow_the_link { self.peers.pace(peer) } else { Pace::FIXED }
    }

    /// The trusted peers that can be asked for something that is `wanted` of them, or, with `more`, whose last page said
    /// that there is more.
    fn able_peers(&self, wanted: impl Fn(ReplicaId, ReplicaId) -> bool, more: bool) -> Vec<ReplicaId> {
        let mut able = self.peers.with_missing(&wanted);
        able.retain(|peer| {
            let has = more || self.peers.missing(*peer).any(|stream| wanted(stream, *peer));
            has && self.members.trusts(*peer, &self.context)
        });
        able
    }

    /// A stream whose next commit the store refused and is to be tried again, and the peer to ask for it.
    fn commit_to_try_again(&mut self) -> Option<(ReplicaId, ReplicaId)> {
        if !self.streams.any_tried_again() {
            return None;
        }
        let turn = self.rng.usize(..);
        let admitting = self.admitting();
        let wanted = |stream, peer| admitting.wants_one(stream, peer);
        let able = self.able_peers(wanted, false);
        let streams =
            able.iter().flat_map(|peer| self.peers.missing(*peer).filter(|stream| wanted(*stream, *peer)));
        let streams: Vec<_> = streams.collect::<BTreeSet<_>>().into_iter().collect();
        // Any of the streams may be next: in another history than the one that was refused, the commit of one may rest on that
        // of another one, without which no peer sends it.
        let stream = *streams.get(turn % streams.len().max(1))?;
        // Take the peers of one stream alone: the puller chooses among them.
        let able = able.iter().copied().filter(|peer| {
            wanted(stream, *peer) && self.peers.missing(*peer).any(|missing| missing == stream)
        });
        let able = able.collect();
        Some((self.puller.choose(able, &mut self.rng)?, stream))
    }

    /// All streams of which `peer` may have commits that are missing here, but for `stream`.
    pub(super) fn all_streams_but(&self, stream: ReplicaId, peer: ReplicaId) -> Vec<ReplicaId> {
        let ahead = self.peers.ahead(peer).map(|(stream, _)| stream);
        let all: BTreeSet<_> =
            ahead.chain(self.streams.ids()).chain(self.members.ids()).chain([self.context.me()]).collect();
        all.into_iter().filter(|other| *other != stream).take(STREAMS_MAX).collect()
    }

    /// Asks a peer for a page, or for one commit alone; returns the id of the pull. A stream that is asked for again `from`
    /// a place is named as if no more of it were here.
    pub(super) fn send_pull(
        &mut self,
        peer: ReplicaId,
        kind: Kind,
        excluded: Vec<ReplicaId>,
        from: Option<(ReplicaId, Point)>,
    ) -> u32 {
        let own = self.ledger.own().point();
        let tips = self.streams.tips().map(|(stream, tip)| (stream, tip.point()));
        let again = |stream: ReplicaId| from.is_some_and(|(other, _)| other == stream);
        let tips = tips
            .chain([(self.context.me(), own)])
            .filter(|(stream, _)| !again(*stream) && self.damages.head_is_whole(*stream));
        let tips = tips.chain(from).filter(|(_, point)| point.seq > 0);
        let mut heads: Vec<_> =
            tips.map(|(stream, point)| WireHead { stream, seq: point.seq, digest: point.digest }).collect();
        heads.sort_unstable_by_key(|head| head.stream);
        let (id, budget) = self.asks(peer, kind);
        let pull = Pull {
            id,
            budget,
            frame_bytes: crate::stored::length(self.context.limits.frame_bytes_max),
            heads: Capped(heads),
            excluded: Capped(excluded),
        };
        if kind != Kind::One {
            self.peers.is_asked(peer);
        }
        self.send(peer, wire::pull(self.context.group(), &pull));
        id
    }
}

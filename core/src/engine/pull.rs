//! Catching up: who is asked for what is missing, and when.
//!
//! The puller drives. One page is on its way at a time, so what a replica takes in is bounded by what it asked for, and
//! nothing comes twice because two peers sent it. The next page is asked for as soon as one has arrived and nothing else
//! waits, while that one is being written: asking and writing overlap, and there are never more than two pages in
//! memory, and what is in the write. A peer that does not answer, or not with what it said it has, is left alone for a
//! while, longer every time, and another one is asked.

use super::Engine;
use super::inbox::Admission;
use super::merge::Received;
use super::wire::{self, Capped, PageHead, Pull, TooLong, WireCommit, WireHead};
use crate::clock::Mono;
use crate::events::StreamStop;
use crate::ids::ReplicaId;
use crate::limits::Limit;

/// How long a page may take.
const PULL_TIMEOUT_MS: u64 = 10_000;

/// A page that is on its way.
#[derive(Debug)]
pub(super) struct Pulling {
    pub(super) peer: ReplicaId,
    id: u32,
    pub(super) deadline: Mono,
    /// What it rests on is not here any more: it is waited for, and its sender is not to blame for what it brings.
    pub(super) void: bool,
}

impl Engine {
    /// Asks somebody for what is missing, if anything is and nobody was asked yet.
    pub(super) fn maybe_pull(&mut self) {
        let sync = &self.sync;
        // In memory a page weighs more than in its frame.
        let page = sync.inbox.last_page.max(self.limits.page_bytes_max);
        let room = sync.inbox.bytes <= page.min(self.limits.frame_bytes_max / 2);
        if sync.pull.is_some() || !room || self.closing || !sync.failing.is_over(self.mono) {
            return;
        }
        let able = sync.peers.iter().filter(|(_, peer)| peer.up && peer.backoff.is_over(self.mono));
        let able = able.filter(|(replica, _)| self.is_trusted(**replica));
        let missing = able.map(|(replica, _)| *replica).filter(|replica| self.has_more(*replica));
        let mut missing: Vec<_> = missing.collect();
        // Not the one that was of no use, if there is another: what a peer says it has need not be so.
        if missing.len() > 1 {
            missing.retain(|replica| Some(*replica) != sync.useless);
        }
        if let Some(peer) = self.sync.rng.choice(&missing).copied() {
            self.pull_from(peer);
        }
    }

    /// Whether the peer has something to ask for.
    fn has_more(&self, peer: ReplicaId) -> bool {
        self.sync.peers.get(&peer).is_some_and(|peer| peer.more) || self.missing(peer) > 0
    }

    /// How many commits the peer says it has that are neither here nor left out on purpose.
    pub(super) fn missing(&self, peer: ReplicaId) -> u64 {
        let Some(known) = self.sync.peers.get(&peer) else { return 0 };
        let wanted = known.heads.iter().filter(|(stream, _)| {
            **stream != self.me() && !self.is_stopped_for(**stream, peer) && self.is_known_stream(**stream)
        });
        wanted.map(|(stream, seq)| seq.saturating_sub(self.tip(*stream).seq)).fold(0, u64::saturating_add)
    }

    fn pull_from(&mut self, peer: ReplicaId) {
        if let Some(peer) = self.sync.peers.get_mut(&peer) {
            peer.more = false;
        }
        let heads =
            self.tips().map(|(stream, point)| WireHead { stream, seq: point.seq, digest: point.digest });
        let heads = Capped(heads.collect());
        // The own stream is nobody else's to tell.
        let mut excluded = vec![self.me()];
        if self.rules.pulls_exclude {
            excluded.extend(self.sync.stops.keys().filter(|stream| self.is_stopped_for(**stream, peer)));
        }
        // What is here is said first: the peer may know that there was more once, and that shows only until it is here
        // again.
        self.say_owed_hello(peer);
        let id = self.sync.last_pull_id.wrapping_add(1);
        self.sync.last_pull_id = id;
        let budget = u32::try_from(self.limits.page_bytes_max).unwrap_or(u32::MAX);
        let frame_bytes = u32::try_from(self.limits.frame_bytes_max).unwrap_or(u32::MAX);
        let pull = Pull { id, budget, frame_bytes, heads, excluded: Capped(excluded) };
        let frame = wire::pull(self.pen.identity.group, &pull);
        self.send(peer, frame);
        let deadline = Mono(self.mono.0.saturating_add(PULL_TIMEOUT_MS));
        self.sync.pull = Some(Pulling { peer, id, deadline, void: false });
    }

    pub(super) fn handle_page(&mut self, from: ReplicaId, head: &PageHead, commits: Vec<WireCommit>) {
        let asked = self.sync.pull.take_if(|pull| pull.peer == from && pull.id == head.id);
        let before = self.sync.inbox.bytes;
        let progress = self.take_commits(from, commits);
        self.sync.inbox.last_page = self.sync.inbox.bytes.saturating_sub(before);
        if asked.is_none_or(|pull| pull.void) {
            // Of an earlier session, or too late: what it brought is as good.
            return self.maybe_pull();
        }
        let now = self.mono;
        let refused = head.too_long.is_some_and(|too_long| self.refuse_too_long(from, &too_long));
        if let Some(peer) = self.sync.peers.get_mut(&from) {
            peer.pruned = head.pruned;
            peer.more = head.more && progress > 0;
        }
        // A page that brings nothing new, from a peer that said it has more, would be the same again at once.
        let useless = progress == 0 && !refused && self.has_more(from);
        self.sync.useless = useless.then_some(from);
        if let Some(peer) = self.sync.peers.get_mut(&from) {
            if useless {
                peer.backoff.again(now, &mut self.sync.rng);
            } else {
                peer.backoff.reset();
            }
        }
        self.maybe_pull();
    }

    /// The peer cannot send the next commit of a stream: the stream stops, and the others go on. Says whether it does.
    fn refuse_too_long(&mut self, from: ReplicaId, &TooLong { stream, seq, bytes }: &TooLong) -> bool {
        let next = stream != self.me() && self.is_known_stream(stream) && self.tip(stream).seq + 1 == seq;
        if next && !self.is_stopped_for(stream, from) {
            let limit = Limit { name: "frame_bytes_max", max: self.limits.frame_bytes_max };
            let reason =
                format!("it takes {bytes} bytes on its way, more than the limit {limit} here; raise it");
            self.stop_stream(stream, from, StreamStop::Refused { seq, reason });
        }
        next
    }

    pub(super) fn handle_live(&mut self, from: ReplicaId, commits: Vec<WireCommit>) {
        self.take_commits(from, commits);
        self.maybe_pull();
    }

    /// Takes commits in their order; says how many were new.
    fn take_commits(&mut self, from: ReplicaId, commits: Vec<WireCommit>) -> usize {
        let mut progress = 0;
        let mut bytes = 0;
        for commit in commits {
            match self.admit(from, &commit) {
                Admission::Queued => {
                    progress += 1;
                    bytes += commit.entry.len() + commit.values.len();
                }
                Admission::Duplicate | Admission::Left | Admission::TooEarly => {}
                // What follows may rest on it.
                Admission::Full => break,
                Admission::Wrong(reason) => {
                    self.reject_because(from, reason.into());
                    break;
                }
            }
        }
        // What is taken keeps its frame in memory, so it must be most of it.
        if bytes < self.sync.frame_bytes / 2 {
            self.sync.inbox.commits.iter_mut().rev().take(progress).for_each(Received::detach);
        }
        progress
    }
}

//! A chapter of the engine: what peers say, and what the transport says of them.

use bytes::Bytes;

use crate::events::{Event, Restored, StreamStop};
use crate::ids::ReplicaId;
use crate::limits::Limit;
use crate::stored::Point;

use super::pull::Answers;
use super::stream::Tip;
use super::stream::admission::Admission;
use super::wire::{self, Heads, Hello, Message, Messages, PageHead, TooLong, WireCommit, WireHead};
use super::{Engine, Mark};

/// The most messages of one frame. This version sends one.
const MESSAGES_MAX: usize = 16;

impl Engine {
    // --- the transport ----------------------------------------------------------------------------------------------

    pub(super) fn came_up(&mut self, replica: ReplicaId) {
        let trusted = self.members.trusts(replica, &self.context);
        let room = trusted || self.peers.has_room_for_strangers(self.context.limits.members_max);
        if replica == self.context.me() || !room {
            return;
        }
        self.peers.came_up(replica);
        if trusted {
            self.peers.owe(replica, |owed| owed.hello = true);
        }
        self.hellos.begin(self.members.awaits_membership(), self.now.mono, &mut self.rng);
    }

    pub(super) fn went_down(&mut self, replica: ReplicaId) {
        self.peers.went_down(replica);
        self.serving.forget(replica);
        self.puller.went_down(replica);
    }

    // --- frames -----------------------------------------------------------------------------------------------------

    pub(super) fn hear(&mut self, from: ReplicaId, frame: Bytes) {
        if !self.is_listened_to(from, &frame) {
            return;
        }
        let group = self.context.rules.groups_are_checked.then_some(self.context.group());
        let frame_bytes = frame.len();
        let messages = Messages::new(frame, group, self.context.limits.frame_bytes_max);
        match messages {
            Err(error) => self.reject(from, error.to_string()),
            // All of it is read before any of it counts.
            Ok(messages) => match messages.take(MESSAGES_MAX + 1).collect::<Result<Vec<_>, _>>() {
                Err(error) => self.reject(from, error.to_string()),
                Ok(messages) if messages.len() > MESSAGES_MAX => {
                    self.reject(from, "it has too many messages".into());
                }
                Ok(messages) => {
                    messages.into_iter().for_each(|message| self.hear_message(from, message, frame_bytes));
                }
            },
        }
    }

    /// Whether the frames of `from` are read at all. Of others only a hello is answered.
    fn is_listened_to(&mut self, from: ReplicaId, frame: &Bytes) -> bool {
        if self.members.trusts(from, &self.context) {
            // A peer that was a stranger when the transport said that it is up, and was one too many.
            if self.peers.get(from).is_none() {
                self.came_up(from);
            }
            // A transport says that a peer is up before its first frame.
            return self.peers.is_up(from);
        }
        match wire::is_hello(frame, self.context.group(), self.context.limits.frame_bytes_max) {
            // Who else is in the group, a joiner learns later.
            Ok(_) if self.members.awaits_membership() => {}
            Ok(true) => self.peers.owe(from, |owed| owed.stranger = true),
            Ok(false) => self.reject(from, "its sender is no member".into()),
            Err(error) => self.reject(from, error.to_string()),
        }
        false
    }

    /// Counts a frame that was refused; tells of the first of a peer, and then ever more rarely.
    fn reject(&mut self, from: ReplicaId, reason: String) {
        self.marks.note(Mark::Rejected);
        if let Some(count) = self.peers.reject(from) {
            self.tell(Event::FrameRejected { from, reason, count });
        }
    }

    fn hear_message(&mut self, from: ReplicaId, message: Message, frame_bytes: usize) {
        match message {
            Message::Hello(hello) => self.hear_hello(from, &hello),
            Message::Stranger => self.peers.calls_us_stranger(from, true),
            // A joiner may not have what it needs to tell others about it.
            Message::Pull(_) if self.members.awaits_membership() && self.context.rules.joiner_waits => {}
            Message::Pull(pull) => self.serving.pulled(from, pull),
            Message::Page(head, commits) => self.hear_page(from, &head, commits, frame_bytes),
            Message::Live(commits) => {
                self.take_commits(from, commits, frame_bytes);
            }
            Message::Ack(heads) => self.hear_heads(from, &heads),
            Message::Regressed(head) => self.hear_regressed(&head),
        }
    }

    // --- what a peer has --------------------------------------------------------------------------------------------

    fn hear_hello(&mut self, from: ReplicaId, hello: &Hello) {
        self.peers.calls_us_stranger(from, false);
        if self.peers.greeted(from, hello.session) {
            self.peers.owe(from, |owed| owed.hello = true);
        }
        self.note_regression(from, hello);
        if hello.restored {
            // What it acknowledged before does not count either, also once this store was opened again.
            let void = self.context.rules.acks_of_restored_are_void;
            if self.peers.was_restored(from, void) && void {
                self.rows.peer(from);
                self.rows.flush();
            }
        }
        self.hear_heads(from, &hello.heads);
        self.compare_places(from, &hello.heads);
    }

    /// Tells a peer that says it has less of a stream than it once acknowledged. It alone can judge: what came may be a
    /// hello of an earlier session that was late.
    fn note_regression(&mut self, from: ReplicaId, hello: &Hello) {
        if hello.restored || !self.context.rules.restores_are_noticed {
            return;
        }
        let Some(peer) = self.peers.get(from) else { return };
        let said =
            |stream| hello.heads.0.iter().find(|head| head.stream == stream).map_or(0, |head| head.seq);
        let less = peer.acked_points().iter().find(|(stream, point)| said(**stream) < point.seq);
        if let Some((stream, Point { seq, digest })) = less {
            let head = WireHead { stream: *stream, seq: *seq, digest: *digest };
            self.peers.owe(from, |owed| owed.regressed = Some(head));
        }
    }

    fn hear_regressed(&mut self, head: &WireHead) {
        // Acknowledgements cover only what is durable, so having less now is proof.
        if self.ledger.head(head.stream).seq < head.seq {
            self.note_restored(head.stream, head.seq);
        }
    }

    /// Takes note of what a peer has, and compares it with what is here where that costs nothing.
    fn hear_heads(&mut self, from: ReplicaId, heads: &Heads) {
        let me = self.context.me();
        for head in heads.0.iter().filter(|head| head.seq > 0) {
            let ours = self.ledger.head(head.stream);
            let differs = ours.seq == head.seq && ours.digest != head.digest;
            let behind = head.stream == me && head.seq > ours.seq;
            if behind || differs {
                self.note_two_histories(head.stream, head.seq);
                continue;
            }
            self.note_has(from, head.stream, head.seq);
            let any = !self.context.rules.acks_of_restored_are_void;
            if self.admitting().is_known_stream(head.stream)
                && self.peers.acked(from, head.stream, head.point(), any)
            {
                self.rows.peer(from);
            }
        }
    }

    /// Takes note of how much of a stream a peer has. What it has of the own stream is here.
    fn note_has(&mut self, from: ReplicaId, stream: ReplicaId, seq: u64) {
        if stream != self.context.me() {
            self.peers.has(from, stream, seq, self.streams.tip(stream).seq);
        }
    }

    /// Compares what a peer has of streams with what is here, where that is more.
    fn compare_places(&mut self, from: ReplicaId, heads: &Heads) {
        for head in &heads.0 {
            let ours = self.ledger.head(head.stream);
            let inside = head.seq > 0 && head.seq >= ours.floor && head.seq < ours.seq;
            if inside
                && self.admitting().is_known_stream(head.stream)
                && self.peers.compares(from, head.stream, head.seq)
            {
                self.serving.compare(from, head.stream, head.point());
            }
        }
    }

    // --- commits ----------------------------------------------------------------------------------------------------

    fn hear_page(&mut self, from: ReplicaId, head: &PageHead, commits: Vec<WireCommit>, frame_bytes: usize) {
        let answers = self.puller.arrived(from, head.id);
        let before = self.inbox.filled();
        let progress = self.take_commits(from, commits, frame_bytes);
        self.inbox.end_of_page(before);
        if answers == Answers::Nothing {
            return;
        }
        let refused = head.too_long.is_some_and(|too_long| self.refuse_too_long(from, &too_long));
        self.peers.sent_page(from, head.more && progress > 0, head.pruned);
        // A page that brings nothing new, from a peer that said it has more, would be the same again at once.
        let useless = progress == 0 && !refused && self.has_more(from);
        self.puller.judged(from, useless);
        if useless {
            self.peers.rests(from, self.now.mono, &mut self.rng);
        } else {
            self.peers.is_useful(from);
        }
    }

    /// Whether a peer has something to ask for.
    fn has_more(&self, peer: ReplicaId) -> bool {
        let admitting = self.admitting();
        self.peers.said_more(peer) || self.peers.ahead(peer).any(|(stream, _)| admitting.wants(stream, peer))
    }

    /// The peer cannot send the next commit of a stream: the stream stops, and the others go on. Says whether it does.
    fn refuse_too_long(&mut self, from: ReplicaId, &TooLong { stream, seq, bytes }: &TooLong) -> bool {
        let next = stream != self.context.me()
            && self.admitting().is_known_stream(stream)
            && self.streams.tip(stream).seq + 1 == seq;
        if next && !self.streams.is_stopped_for(stream, from) {
            let limit = Limit { name: "frame_bytes_max", max: self.context.limits.frame_bytes_max };
            let reason =
                format!("it takes {bytes} bytes on its way, more than the limit {limit} here; raise it");
            self.stop_stream(stream, from, StreamStop::Refused { seq, reason });
        }
        next
    }

    /// Takes commits in their order; says how many were new.
    fn take_commits(&mut self, from: ReplicaId, commits: Vec<WireCommit>, frame_bytes: usize) -> usize {
        let before = self.inbox.filled();
        let mut progress = 0;
        for commit in commits {
            let admission = self.admitting().admit(from, &commit);
            match self.admitted(from, &commit, admission) {
                Taken::Queued => progress += 1,
                Taken::Not => {}
                // What follows may rest on it.
                Taken::NoneAfter => break,
            }
        }
        self.inbox.end_of_frame(before, frame_bytes);
        progress
    }

    /// Does what was judged of a commit.
    fn admitted(&mut self, from: ReplicaId, commit: &WireCommit, admission: Admission) -> Taken {
        let (stream, seq) = (commit.stream, commit.seq);
        // Whoever sends a commit has it, whatever becomes of it here.
        self.note_has(from, stream, seq);
        match admission {
            Admission::Next { commit, members, beyond_bound } => {
                if !beyond_bound {
                    self.streams.is_within_bound(stream);
                }
                let tip = Tip { seq, stamp: commit.entry.stamp, digest: commit.digest };
                let told = self.streams.advance(stream, tip);
                self.peers.tip_rose(stream, seq);
                self.inbox.push(*commit, members);
                self.tell_of_streams(told);
                return Taken::Queued;
            }
            Admission::Duplicate => self.marks.note(Mark::Duplicate),
            Admission::Left => {}
            Admission::TooEarly(missing) => {
                self.marks.note(Mark::TooEarly);
                if let Some((cause, seq)) = missing {
                    self.note_has(from, cause, seq);
                }
            }
            Admission::Full => {
                self.marks.note(Mark::Full);
                return Taken::NoneAfter;
            }
            Admission::Wrong(reason) => {
                self.reject(from, reason.into());
                return Taken::NoneAfter;
            }
            Admission::Stops(reason) => self.stop_stream(stream, from, reason),
            Admission::OtherHistory(seq) => self.note_fork(stream, seq),
            Admission::Restored(seq, then) => {
                self.note_restored(self.context.me(), seq);
                return self.admitted(from, commit, *then);
            }
        }
        Taken::Not
    }

    /// A commit that `from` sent stops its stream.
    fn stop_stream(&mut self, stream: ReplicaId, from: ReplicaId, reason: StreamStop) {
        if matches!(reason, StreamStop::Held { .. }) {
            self.marks.note(Mark::Held);
        }
        let told = self.streams.stop(stream, from, reason, &self.now, &self.context);
        self.tell_of_streams(told);
    }

    // --- two histories of one stream --------------------------------------------------------------------------------

    /// A stream has another history elsewhere: the own one, since this store was restored or cloned.
    pub(super) fn note_two_histories(&mut self, stream: ReplicaId, seq: u64) {
        if stream == self.context.me() {
            self.note_restored(stream, seq);
        } else {
            self.note_fork(stream, seq);
        }
    }

    /// A stream has two histories. It stops here, and whoever is asked says why.
    fn note_fork(&mut self, stream: ReplicaId, seq: u64) {
        if self.streams.is_forked(stream) || !self.context.rules.chains_are_checked {
            return;
        }
        self.marks.note(Mark::Forked);
        self.stop_stream(stream, stream, StreamStop::Forked { seq });
        self.rows.fork(stream);
        // Its writer learns of it from the digest here.
        self.peers.owe(stream, |owed| owed.hello = true);
    }

    /// This store was restored or cloned: it must not go on writing a stream that another store may have written.
    fn note_restored(&mut self, stream: ReplicaId, seq: u64) {
        let restored = Restored { stream, seq };
        let rules = &self.context.rules;
        if !rules.restores_are_noticed || !self.streams.take_proof(restored, self.context.me()) {
            return;
        }
        self.marks.note(Mark::Restored);
        self.rows.fork(self.context.me());
        self.tell(Event::Restored(restored));
        self.refuse_calls();
        self.hellos.now();
    }
}

/// Whether a commit was taken.
enum Taken {
    Queued,
    Not,
    /// It was not, nor is what comes behind it in its frame.
    NoneAfter,
}

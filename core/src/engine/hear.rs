//! A chapter of the engine: frames of peers, and the transport's word on which peers are up.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::events::{Event, Refusal, Restored, StreamStop};
use crate::ids::{DeviceId, ReplicaId};
use crate::limits::Limit;
use crate::stored::log::digest_check;
use crate::stored::{Digest, ForkRow, Point};

use super::looks::{Place, Purpose};
use super::pull::{Answers, Timing};
use super::stream::Tip;
use super::stream::admission::Admission;
use super::wire::{
    self, Before, Coming, Heads, Hello, Message, Messages, Packed, PageHead, Pull, Rebuilt, Run, Stopped,
    TooLong, WireError, WireHead,
};
use super::{Engine, Mark};

/// The most messages of one frame; this version sends one. Without a bound a frame of many small messages could cause
/// too much work.
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
        if self.puller.waits_for(replica) {
            self.peers.paced(replica, |pace| pace.cut_off(self.context.limits.page_bytes_max));
        }
        self.peers.went_down(replica);
        self.doubts.forget(replica, false);
        self.end_late_witness();
        self.relays.forget(replica);
        self.serving.forget(replica);
        self.checks.went_down(replica);
        self.puller.went_down(replica);
        self.install.went_down(replica);
    }

    // --- frames -----------------------------------------------------------------------------------------------------

    pub(super) fn hear(&mut self, from: ReplicaId, frame: Bytes) {
        if !self.is_listened_to(from) {
            if !self.members.trusts(from, &self.context) {
                self.hear_stranger(from, &frame);
            }
            return;
        }
        let group = self.context.rules.groups_are_checked.then_some(self.context.group());
        let messages = Messages::new(frame, group, self.context.limits.frame_bytes_max);
        match messages {
            Err(error) => self.reject(from, error.to_string()),
            // Read the whole frame before any message counts: a damaged frame must change nothing.
            Ok(messages) => match messages.take(MESSAGES_MAX + 1).collect::<Result<Vec<_>, _>>() {
                Err(error) => {
                    if matches!(error, WireError::Group(_)) {
                        self.peers.is_of_other_group(from);
                    }
                    self.reject(from, error.to_string());
                }
                Ok(messages) if messages.len() > MESSAGES_MAX => {
                    self.reject(from, "it has too many messages".into());
                }
                Ok(messages) => {
                    self.peers.hears(from, self.now.mono);
                    messages.into_iter().for_each(|message| self.hear_message(from, message));
                }
            },
        }
    }

    /// Whether the messages of `from` are read.
    fn is_listened_to(&mut self, from: ReplicaId) -> bool {
        if !self.members.trusts(from, &self.context) {
            return false;
        }
        // The peer may have come up as a stranger for whom there was no room: take it now.
        if self.peers.get(from).is_none() {
            self.came_up(from);
        }
        // A transport must say `Up` before the first frame of a peer. A frame that comes without it is ignored.
        self.peers.is_up(from)
    }

    /// Hears a stranger, of whom only a hello is answered. The answer is shorter than the hello, and one is enough for
    /// all that came since the last one: a flood of hellos gets no flood of answers.
    fn hear_stranger(&mut self, from: ReplicaId, frame: &Bytes) {
        match wire::greeting(frame, self.context.limits.frame_bytes_max) {
            // A joiner does not know the members yet, so it calls no peer a stranger.
            Ok(_) if self.members.awaits_membership() => {}
            Ok(Some((group, hello))) if group == self.context.group() => {
                self.peers.owe(from, |owed| owed.stranger = true);
                self.peers.hears(from, self.now.mono);
                self.hear_knock(from, hello.knocks);
            }
            Ok(Some((group, _))) => {
                self.peers.owe(from, |owed| owed.other_group = Some(group));
                self.reject(from, WireError::Group(group).to_string());
            }
            Ok(None) => self.reject(from, "its sender is no member".into()),
            Err(error) => self.reject(from, error.to_string()),
        }
    }

    /// Counts a refused frame. The app hears of the first one of a peer, and then ever more rarely: a flood of frames
    /// must not become a flood of events.
    pub(super) fn reject(&mut self, from: ReplicaId, reason: String) {
        self.marks.note(Mark::Rejected);
        if let Some(count) = self.peers.reject(from) {
            self.tell(Event::FrameRejected { from, reason, count });
        }
    }

    fn hear_message(&mut self, from: ReplicaId, message: Message) {
        match message {
            Message::Hello(hello) => self.hear_hello(from, &hello),
            Message::Stranger => self.peers.calls_us_stranger(from, true),
            Message::OtherGroup => self.peers.is_of_other_group(from),
            // A joiner answers no pull: it cannot tell yet which streams are of members, and others would leave its
            // pages.
            Message::Pull(_) | Message::PullOn(_)
                if self.members.awaits_membership() && self.context.rules.joiner_waits => {}
            Message::Pull(pull) => self.hear_pull(from, pull),
            Message::PullOn(pull) => self.serving.pulled_on(from, pull),
            Message::Coming(coming) => self.hear_coming(from, coming),
            Message::Page(head, commits) => self.hear_page(from, &head, &commits),
            Message::Live(commits) => {
                self.take_commits(from, &commits);
            }
            Message::Ack(heads) => self.hear_heads(from, &heads),
            Message::Relayed(words) => self.hear_relayed(&words),
            Message::Regressed(head) => self.hear_regressed(from, &head),
            Message::Stopped(stopped) => self.hear_stopped(from, &stopped),
            Message::Show(_) if self.members.awaits_membership() => {}
            Message::Show(show) => self.hear_show(from, &show),
            Message::Shown(shown) => self.hear_shown(from, shown),
            Message::SnapshotPull(_) if self.members.awaits_membership() => {}
            Message::SnapshotPull(pull) => {
                self.pins.asks(from, self.now.mono);
                self.serving.pulled_records(from, pull);
            }
            Message::SnapshotPage(head, rows) => self.hear_records(from, head, rows),
            Message::Damaged(places) => self.hear_damaged(from, &places),
        }
    }

    // --- heads of peers ---------------------------------------------------------------------------------------------

    fn hear_hello(&mut self, from: ReplicaId, hello: &Hello) {
        self.peers.calls_us_stranger(from, false);
        // Ask again now and then for what the peer could not serve: its log may have been mended.
        self.damages.forget_ends(from);
        if self.peers.greeted(from, hello.session) {
            self.quorum.greets(from);
            self.doubts.forget(from, true);
            self.end_late_witness();
            self.peers.owe(from, |owed| owed.hello = true);
            if self.relays.is_named(from) {
                self.hellos.correct(self.peers.up(), self.now.mono);
            }
        }
        let sent_after = self.peers.heard_clock(from, &hello.clock, self.now.mono);
        if let Some(after) = sent_after {
            self.hear_round_trip(from, self.now.mono.since(after));
        }
        self.peers.follows_up_to(from, 0);
        self.hear_knock(from, hello.knocks);
        self.note_regression(from, hello);
        // A peer that has installed acknowledges what it began with.
        let peers = &self.peers;
        self.pins.end(|peer, stream| peers.get(peer).map_or(0, |peer| peer.acked_of(stream)));
        if hello.restored {
            // Earlier acknowledgements of a restored store are void. Flush its row, so that they stay void when this
            // store is opened again.
            let void = self.context.rules.acks_of_restored_are_void;
            if self.peers.was_restored(from, self.now.mono, void) && void {
                self.quorum.was_restored(from);
                self.rows.peer(from);
                self.rows.flush();
            }
            self.relays.was_restored(from, self.now.mono);
        } else if let Some(after) = sent_after {
            self.peers.was_not_restored(from, after);
        }
        self.hear_relayed(&hello.relayed);
        self.hear_unheard(from, hello);
        self.hear_heads(from, &hello.heads);
        self.note_hello(from, hello);
        self.compare_places(from, &hello.heads);
        self.checks.greeted(from);
    }

    /// Looks at what a peer once acknowledged, if its hello names less: if the stream was like that, the peer is told so.
    /// Only the peer itself can conclude that its store was restored: the hello may be a late one of an earlier session.
    fn note_regression(&mut self, from: ReplicaId, hello: &Hello) {
        if hello.restored || !self.context.rules.restores_are_noticed {
            return;
        }
        let Some(peer) = self.peers.get(from) else { return };
        let said: BTreeMap<_, _> = hello.heads.0.iter().map(|head| (head.stream, head.seq)).collect();
        let less = |stream: &ReplicaId, point: &Point| said.get(stream).copied().unwrap_or(0) < point.seq;
        if !self.context.rules.accusers_show {
            let less = peer.acked_points().iter().find(|(stream, point)| less(stream, point));
            if let Some((stream, Point { seq, digest })) = less {
                let head = WireHead { stream: *stream, seq: *seq, digest: *digest };
                self.peers.owe(from, |owed| owed.regressed = Some(head));
            }
            return;
        }
        // The log up to the floor is gone, and the floor itself says what its last commit was.
        let is_floor = |stream: &ReplicaId, point: &Point| {
            let head = self.ledger.head(*stream);
            (head.floor, head.floor_digest) == (point.seq, point.digest)
        };
        let floor =
            peer.acked_points().iter().find(|(stream, point)| less(stream, point) && is_floor(stream, point));
        if let Some((stream, Point { seq, digest })) = floor {
            let head = WireHead { stream: *stream, seq: *seq, digest: *digest };
            return self.peers.owe(from, |owed| owed.regressed = Some(head));
        }
        // A place that is not here cannot be checked, and others have it.
        let is_here = |stream: &ReplicaId, point: &Point| {
            let head = self.ledger.head(*stream);
            (head.floor + 1..=head.seq).contains(&point.seq)
        };
        let less = |(stream, point): &(&ReplicaId, &Point)| less(stream, point) && is_here(stream, point);
        if let Some((stream, Point { seq, digest })) = peer.acked_points().iter().find(less) {
            let place = Place { stream: *stream, seq: *seq, walks: true, digest: *digest };
            self.looks.want(Purpose::Acked { peer: from }, place);
        }
    }

    fn hear_regressed(&mut self, from: ReplicaId, head: &WireHead) {
        // An acknowledgement covers only durable commits, so a head below it proves a restore. The peer has checked that the
        // stream was like that.
        if self.ledger.head(head.stream).seq < head.seq && self.damages.head_is_whole(head.stream) {
            let WireHead { stream, seq, digest } = *head;
            self.note_restored(ForkRow { stream, seq, by: from, here: None, there: digest });
        }
    }

    /// Takes the word of a peer that it takes no more of the own stream.
    ///
    /// A peer stops a stream at a commit that it has been sent, and does not have. So a word of any other commit is a
    /// late one, or is about a commit that somebody made up: it ends when the real one comes.
    fn hear_stopped(&mut self, from: ReplicaId, stopped: &Stopped) {
        let refusal = Refusal { stop: stopped.stop(self.context.me()), clock: stopped.clock() };
        let acked = self.peers.get(from).map_or(0, |peer| peer.acked_of(self.context.me()));
        let forked = matches!(refusal.stop, StreamStop::Forked { .. });
        let is_here = (1..=self.ledger.own().seq).contains(&stopped.seq);
        if is_here && (forked || stopped.seq > acked) && self.peers.refuses(from, refusal.clone()) {
            self.marks.note(Mark::Refused);
            self.tell(Event::Refused { by: from, refusal });
        }
    }

    /// Takes note of what a peer has, and compares it with the heads here, which needs no read.
    fn hear_heads(&mut self, from: ReplicaId, heads: &Heads) {
        let me = self.context.me();
        for head in heads.0.iter().filter(|head| head.seq > 0) {
            let ours = self.ledger.head(head.stream);
            let differs = ours.seq == head.seq && ours.digest != head.digest;
            let behind = head.stream == me && head.seq > ours.seq;
            if behind || differs {
                self.doubt(from, head.stream, head.seq);
                if !self.damages.head_is_whole(head.stream) {
                    // The head here is the wrong one. Once it is mended, the peer has more than the log here.
                    self.note_has(from, head.stream, head.seq);
                }
                continue;
            }
            self.note_has(from, head.stream, head.seq);
            if head.stream == me {
                self.peers.follows_up_to(from, head.seq);
            }
            if self.doubts.any(from, head.stream) {
                // Its history is another one, though the place may be one that is here.
                continue;
            }
            if head.stream == me && self.peers.takes(from, head.seq) {
                self.tell(Event::Accepted { by: from });
            }
            let any = !self.context.rules.acks_of_restored_are_void;
            if self.admitting().is_known_stream(head.stream)
                && self.peers.acked(from, head.stream, head.point(), any)
            {
                self.rows.peer(from);
                self.note_acked(from, head.stream, head.point());
                self.relays.moved(head.stream, from, self.now.mono);
            }
        }
    }

    /// Takes note of how much of a stream a peer has. Nothing is noted of the own stream, since all of it is here.
    fn note_has(&mut self, from: ReplicaId, stream: ReplicaId, seq: u64) {
        if stream != self.context.me() {
            self.peers.has(from, stream, seq, self.streams.tip(stream).seq);
        }
    }

    /// Asks for a comparison of the streams of which a peer has less than is here: the digest at its place stands in
    /// the log.
    pub(super) fn compare_places(&mut self, from: ReplicaId, heads: &Heads) {
        // Begin anywhere: if not all places find room, none of them is left out for ever.
        let begin = if heads.0.len() > 1 { self.rng.usize(0..heads.0.len()) } else { 0 };
        let (behind, first) = heads.0.split_at(begin);
        for head in first.iter().chain(behind) {
            let ours = self.ledger.head(head.stream);
            let inside = head.seq > 0 && head.seq >= ours.floor && head.seq < ours.seq;
            if inside
                && self.admitting().is_known_stream(head.stream)
                && self.looks.has_room_for(from, head.stream)
                && self.peers.compares(from, head.stream, head.seq)
            {
                // The digest at the place stands in the row behind it.
                let (stream, seq) = (head.stream, head.seq + 1);
                let place = Place { stream, seq, walks: false, digest: head.digest };
                self.looks.want(Purpose::Compare { peer: from, stream }, place);
            }
        }
    }

    // --- commits ----------------------------------------------------------------------------------------------------

    fn hear_pull(&mut self, from: ReplicaId, pull: Pull) {
        let own = pull.heads.0.iter().find(|head| head.stream == self.context.me());
        self.peers.lacks_behind(from, own.map_or(0, |head| head.seq));
        self.pins.asks(from, self.now.mono);
        self.serving.pulled(from, pull);
    }

    /// Takes note of a round trip to a peer, which took no longer than this.
    fn hear_round_trip(&mut self, from: ReplicaId, ms: u64) {
        self.peers.paced(from, |pace| pace.took_at_most(ms));
        let wait_ms = self.peers.pace(from).wait_ms();
        self.puller.waits_at_most(from, self.now.mono, wait_ms);
        self.peers.is_reached(from);
    }

    fn hear_coming(&mut self, from: ReplicaId, coming: Coming) {
        if !self.context.rules.pages_follow_the_link {
            return;
        }
        let bytes = u64::from(coming.bytes);
        let Some(timing) = self.puller.coming(from, coming.id, bytes, self.now.mono) else { return };
        self.hear_timing(from, timing);
        let pace = self.peers.pace(from);
        self.puller.waits(from, self.now.mono, pace.wait_ms().saturating_add(pace.transfer_ms(bytes)));
    }

    fn hear_timing(&mut self, from: ReplicaId, Timing { round_trip_ms, transfer }: Timing) {
        self.peers.paced(from, |pace| {
            round_trip_ms.into_iter().for_each(|ms| pace.answered_in(ms));
            transfer.into_iter().for_each(|(bytes, ms)| pace.brought(bytes, ms));
        });
    }

    /// Takes note that a page has come; returns the pull that it answers.
    pub(super) fn hear_answer(&mut self, from: ReplicaId, id: u32) -> Answers {
        let (answers, timing) = self.puller.arrived(from, id, self.now.mono);
        self.hear_timing(from, timing);
        answers
    }

    fn hear_page(&mut self, from: ReplicaId, head: &PageHead, commits: &Packed) {
        let answers = self.hear_answer(from, head.id);
        if answers == Answers::Tail {
            return self.hear_tail(from, head, commits);
        }
        if self.hear_values(from, head.id, commits) {
            return;
        }
        if answers == Answers::Asked {
            self.peers.sent_page(from, false, head.reach);
            if self.prefers_snapshot(head) {
                return self.follow_run(from, answers, false, 0, false);
            }
        }
        let before = self.inbox.filled();
        let (progress, all_new) = self.take_commits(from, commits);
        self.inbox.end_of_page(before);
        self.follow_run(from, answers, head.more, progress, all_new);
        if matches!(answers, Answers::Nothing | Answers::Void) {
            return;
        }
        let refused = head.too_long.is_some_and(|too_long| self.refuse_too_long(from, &too_long));
        // A page of one commit says nothing of the streams that it left out.
        let more = match answers {
            Answers::AskedForOne => self.peers.said_more(from),
            _ => head.more && progress > 0,
        };
        self.peers.sent_page(from, more, head.reach);
        // A page that brings nothing new, from a peer that said it has more, would be the same again: without a rest,
        // pulls would come in an endless loop.
        let useless = progress == 0 && !refused && self.has_more(from);
        if useless && matches!(answers, Answers::AskedOn | Answers::Late) {
            // The peer is not to blame: the page that this one goes on from was lost, or came otherwise.
            return;
        }
        self.puller.rated(from, useless);
        if !useless {
            return self.peers.is_useful(from);
        }
        // A page that does not even say that there is more has all that the peer can send: what it has not is passed over.
        // A stream that goes on is asked for again.
        let is_whole = answers == Answers::Asked && !head.more;
        let passed_over = if is_whole { self.asked_for(from) } else { Vec::new() };
        if passed_over.is_empty() {
            self.peers.rests(from, self.now.mono, &mut self.rng);
        } else {
            self.peers.passed_over(from, passed_over, self.now.mono, &mut self.rng);
        }
    }

    /// The streams that a pull asks of a peer.
    fn asked_for(&self, peer: ReplicaId) -> Vec<ReplicaId> {
        let admitting = self.admitting();
        self.peers.missing(peer).filter(|stream| admitting.wants(*stream, peer)).collect()
    }

    /// Whether a peer has commits to ask for.
    fn has_more(&self, peer: ReplicaId) -> bool {
        let admitting = self.admitting();
        let wanted = |stream| admitting.wants(stream, peer) || admitting.wants_one(stream, peer);
        self.peers.said_more(peer) || self.peers.missing(peer).any(wanted)
    }

    /// Stops a stream whose next commit the peer cannot send in a frame; other streams go on. Returns whether the
    /// commit is the next one.
    fn refuse_too_long(&mut self, from: ReplicaId, &TooLong { stream, seq, bytes }: &TooLong) -> bool {
        // Believe only what the limit here would refuse: otherwise a peer could stop any stream with a word.
        let fits = usize::try_from(bytes)
            .is_ok_and(|bytes| bytes <= wire::commit_max(self.context.limits.frame_bytes_max));
        let next = !fits
            && stream != self.context.me()
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

    /// Takes commits in their order; returns how many were new, and whether all were.
    fn take_commits(&mut self, from: ReplicaId, packed: &Packed) -> (usize, bool) {
        if self.install.is_in_place() {
            // Its tail brings them.
            return (0, false);
        }
        let before = self.inbox.filled();
        let (checked, most) = (self.context.rules.ends_are_checked, self.context.limits.frame_bytes_max);
        let commits = match packed.rebuild(from, most, checked, |run, stream| self.base_of(run, stream)) {
            Ok(commits) => commits,
            Err(error) => {
                self.reject(from, error.to_string());
                return (0, false);
            }
        };
        let (mut progress, count) = (0, commits.len());
        let mut damaged = BTreeSet::new();
        for commit in commits {
            let (stream, seq, admission) = match commit {
                Rebuilt::Commit(commit) => (commit.stream, commit.seq, self.admitting().admit(from, &commit)),
                Rebuilt::Unreadable(stream, seq) => {
                    (stream, seq, self.admitting().admit_unreadable(from, stream, seq))
                }
                Rebuilt::Damaged(stream, seq) => {
                    if damaged.insert(stream) {
                        self.reject(from, format!("what it has of {stream} is not what it says it is"));
                    }
                    (stream, seq, Admission::Ignored)
                }
            };
            match self.admitted(from, stream, seq, admission) {
                Taken::Queued => progress += 1,
                Taken::Skipped => {}
                // The commits behind this one may rest on it.
                Taken::RestSkipped => break,
            }
        }
        self.inbox.end_of_frame(before, packed.bytes());
        (progress, progress == count)
    }

    /// The device of a run, and the digest of its stream before it, as far as they are known here.
    ///
    /// The digest before a run in a live message is the one of the tip here. If that is another one than its sender says,
    /// the commits are pulled: a page shows another history by whole digests.
    pub(super) fn base_of(&self, run: &Run, stream: ReplicaId) -> Option<(DeviceId, Digest)> {
        let device = run.device.or_else(|| self.admitting().device_of(stream))?;
        let digest = match run.before {
            Before::Full(digest) => digest,
            Before::Check(check) => {
                let tip = self.streams.tip(stream);
                let is_next = stream != self.context.me() && tip.seq + 1 == run.first;
                Some(tip.digest).filter(|digest| is_next && digest_check(digest) == check)?
            }
        };
        Some((device, digest))
    }

    /// Carries out what admission says of a commit.
    fn admitted(&mut self, from: ReplicaId, stream: ReplicaId, seq: u64, admission: Admission) -> Taken {
        // The sender has the commit, whatever admission says of it.
        self.note_has(from, stream, seq);
        match admission {
            Admission::Next { commit, members, beyond_bound } => {
                if !beyond_bound {
                    self.streams.is_within_bound(stream);
                }
                let tip = Tip { seq, stamp: commit.entry.stamp, digest: commit.digest };
                let told = self.streams.advance(stream, tip);
                self.peers.tip_rose(stream, seq);
                if self.streams.is_tried_again(stream) {
                    self.inbox.push_alone(*commit, members);
                } else {
                    self.inbox.push(*commit, members);
                }
                self.tell_of_streams(told);
                return Taken::Queued;
            }
            Admission::Duplicate => self.marks.note(Mark::Duplicate),
            Admission::Ignored => {}
            Admission::TooEarly(missing) => {
                self.marks.note(Mark::TooEarly);
                if let Some((cause, seq)) = missing {
                    self.note_has(from, cause, seq);
                }
            }
            Admission::Full => {
                self.marks.note(Mark::Full);
                return Taken::RestSkipped;
            }
            Admission::Wrong(reason) => {
                self.reject(from, reason.into());
                return Taken::RestSkipped;
            }
            Admission::Stops(reason) => self.stop_stream(stream, from, reason),
            Admission::OtherHistory(seq) => self.doubt(from, stream, seq),
            Admission::Restored(proof, then) => {
                self.doubt(from, self.context.me(), proof);
                return self.admitted(from, stream, seq, *then);
            }
        }
        Taken::Skipped
    }

    /// Stops the stream of a commit that `from` sent.
    pub(super) fn stop_stream(&mut self, stream: ReplicaId, from: ReplicaId, reason: StreamStop) {
        if matches!(reason, StreamStop::Held { .. }) {
            self.marks.note(Mark::Held);
        }
        let told = self.streams.stop(stream, from, reason, &self.now, &self.context);
        self.tell_of_streams(told);
    }

    // --- two histories of one stream --------------------------------------------------------------------------------

    /// Stops a stream that has two histories, for good. The status says why.
    pub(super) fn note_fork(&mut self, fork: ForkRow) {
        let ForkRow { stream, seq, .. } = fork;
        if self.streams.is_forked(stream) || !self.context.rules.chains_are_checked {
            return;
        }
        self.marks.note(Mark::Forked);
        self.streams.prove(stream, fork);
        self.stop_stream(stream, stream, StreamStop::Forked { seq });
        self.rows.fork(stream);
        // Owe its author a hello, which learns of the fork from the digest of the head here.
        self.peers.owe(stream, |owed| owed.hello = true);
    }

    /// Takes note that this store was restored or cloned. It must not go on writing a stream that another store may
    /// have written.
    pub(super) fn note_restored(&mut self, proof: ForkRow) {
        let (restored, me) = (Restored { stream: proof.stream, seq: proof.seq }, self.context.me());
        let rules = &self.context.rules;
        if !rules.restores_are_noticed || !self.streams.take_proof(restored, me) {
            return;
        }
        self.marks.note(Mark::Restored);
        self.streams.prove(me, proof);
        self.rows.fork(me);
        self.tell(Event::Restored(restored));
        self.refuse_calls();
        self.hellos.now();
    }
}

/// The fate of a commit in a frame.
enum Taken {
    /// The commit waits in the inbox.
    Queued,
    /// The commit is left out. Those behind it may still be taken.
    Skipped,
    /// The commit is left out, and so are those behind it in its frame.
    RestSkipped,
}

//! A chapter of the engine: doubts about the histories of streams, and the looks at the logs here that decide them.

use crate::events::{Damage, DamagedPart, Event};
use crate::ids::ReplicaId;
use crate::stored::{Digest, ForkRow, Point};

use super::doubts::{Compared, Ready, ShownRow, Stage, may_be_a_copy};
use super::looks::{Looked, LookedRow, Place, Purpose};
use super::wire::{self, Show, Shown, WireHead, WireRow};
use super::{Engine, Mark, Peer};

/// The verdict on a doubt.
enum Verdict {
    /// The stream has two histories: the row of the peer, and the digest here, if the commit is here.
    Fork(LookedRow, Option<Digest>),
    /// The peer could not show what it said, or others contradict it.
    SetAside,
}

impl Engine {
    /// Takes note that a peer has another history of a stream at `seq`, or more of the own one. Nothing is concluded before
    /// the peer has shown it.
    pub(super) fn doubt(&mut self, peer: ReplicaId, stream: ReplicaId, seq: u64) {
        let own = stream == self.context.me();
        let rules = &self.context.rules;
        let known = if own { self.streams.has_two_histories(stream) } else { self.streams.is_forked(stream) };
        let off = if own { !rules.restores_are_noticed } else { !rules.chains_are_checked };
        // A damaged head here contradicts everybody.
        if known || off || !self.damages.head_is_whole(stream) {
            return;
        }
        if !rules.accusers_show {
            let there = [0; 32];
            return self.note_two_histories(ForkRow { stream, seq, by: peer, here: None, there });
        }
        if self.doubts.doubt(peer, stream, seq, own, self.now.mono) {
            self.marks.note(Mark::Doubted);
        }
    }

    /// Begins the search for the next doubt, and asks its peer.
    pub(super) fn search(&mut self) {
        for (peer, show) in self.doubts.poll_shows(self.context.me()) {
            self.hear_show(peer, &show);
        }
        let Self { doubts, streams, ledger, peers, context, .. } = self;
        let me = context.me();
        let ready = |peer: ReplicaId, stream: ReplicaId, seq: u64| {
            let head = ledger.head(stream);
            let tip = if stream == me { head.seq } else { streams.tip(stream).seq };
            let gone = !peers.is_up(peer) || stream != me && seq > tip;
            match seq {
                _ if gone => Ready::Never,
                // The place waits for the store.
                _ if stream != me && seq > head.seq => Ready::Later,
                // Otherwise the commit would be asked for again at once, and refused again.
                _ if seq.min(head.seq.saturating_add(1)) <= head.floor && stream != me => Ready::Unprovable,
                _ if seq.min(head.seq.saturating_add(1)) <= head.floor => Ready::Never,
                _ => Ready::At { floor: head.floor, hi: seq.min(head.seq.saturating_add(1)) },
            }
        };
        if doubts.begin(me, self.now.mono, ready).is_some() {
            self.ask_to_show();
        }
        for (peer, stream, seq) in self.doubts.take_unprovable() {
            self.tell(Event::Disputed { peer, stream, seq });
        }
    }

    /// Asks the peer of the search for its row at the place.
    fn ask_to_show(&mut self) {
        let Some(search) = self.doubts.search_mut() else { return };
        search.go_on(Stage::Asking, self.now.mono);
        let (to, show) =
            (search.peer, Show { stream: search.stream, seq: search.place, checked: search.checked });
        self.send(to, wire::show(self.context.group(), &show));
    }

    /// Shows a peer a row of the log here, once it was looked at.
    pub(super) fn hear_show(&mut self, from: ReplicaId, show: &Show) {
        let Show { stream, seq, checked } = *show;
        if stream == self.context.me() && self.doubts.is_open(stream) {
            return self.doubts.defer(from, *show);
        }
        self.looks.want(Purpose::Show { to: from }, Place { stream, seq, walks: checked, digest: [0; 32] });
    }

    /// Takes the row that a peer shows.
    pub(super) fn hear_shown(&mut self, from: ReplicaId, shown: Shown) {
        let row = shown.row.as_ref().map(|row| (row.previous, row.entry.as_slice()));
        self.checks.shown(from, (shown.stream, shown.seq), row);
        let Some(search) = self.doubts.search() else { return };
        if (search.stream, search.place) != (shown.stream, shown.seq) {
            return;
        }
        let Shown { stream, seq, head, row } = shown;
        let row = row.map(|row| {
            let digest = crate::stored::log::chain(&row.previous, &row.entry);
            LookedRow { previous: row.previous, entry: row.entry, digest }
        });
        match &search.stage {
            Stage::Asking if search.peer == from => match row {
                Some(row) => self.compare_shown(stream, seq, ShownRow { row, head }),
                None => self.decide(Verdict::SetAside),
            },
            Stage::Witness { witness, shown, ours } if *witness == from => {
                // A witness that has the commit as it is here contradicts the accuser, whose copy may be damaged.
                let contradicts = row.is_some_and(|row| row.digest == *ours);
                let fork = Verdict::Fork(shown.row.clone(), Some(*ours));
                self.decide(if contradicts { Verdict::SetAside } else { fork });
            }
            _ => {}
        }
    }

    /// Compares the row that a peer showed with the log here.
    fn compare_shown(&mut self, stream: ReplicaId, seq: u64, shown: ShownRow) {
        let head = self.ledger.head(stream);
        if seq > head.seq {
            return self.compared(shown, head.point(), None);
        }
        if let Some(search) = self.doubts.search_mut() {
            search.go_on(Stage::Comparing(shown), self.now.mono);
        }
        self.looks.want(Purpose::Search, Place { stream, seq, walks: false, digest: [0; 32] });
    }

    /// Goes on with the search: `before` is the place before the one that is compared, and `at` the row there, if it is
    /// here.
    fn compared(&mut self, shown: ShownRow, before: Point, at: Option<&LookedRow>) {
        let Some(search) = self.doubts.search_mut() else { return };
        match search.compare(&shown.row, before.digest, at.map(|row| row.digest)) {
            Compared::Next => self.ask_to_show(),
            Compared::Nonsense => self.decide(Verdict::SetAside),
            Compared::Part if !search.checked => {
                // The place is found: now the peer is to check its chain from there on.
                search.checked = true;
                self.ask_to_show();
            }
            Compared::Part if shown.head < search.place => self.decide(Verdict::SetAside),
            // The peer goes on where the own stream ends. No damage makes such a row.
            Compared::Part if at.is_none() => self.decide(Verdict::Fork(shown.row, None)),
            Compared::Part => {
                let (stream, seq) = (search.stream, search.place);
                search.go_on(Stage::Proving(shown), self.now.mono);
                self.looks.want(Purpose::Search, Place { stream, seq, walks: true, digest: [0; 32] });
            }
        }
    }

    /// Takes the row here for the search.
    fn looked_for_search(&mut self, looked: &Looked) {
        let Some(search) = self.doubts.search() else { return };
        if (search.stream, search.place) != (looked.place.stream, looked.place.seq) {
            return;
        }
        let stage = search.stage.clone();
        let Some(ours) = looked.sound() else {
            // The log here is damaged: that is no second history.
            return self.decide(Verdict::SetAside);
        };
        let place = search.place;
        match stage {
            Stage::Comparing(shown) => {
                let before = Point { seq: place - 1, digest: ours.previous };
                self.compared(shown, before, Some(ours));
            }
            Stage::Proving(shown) => self.call_witness(shown, ours, looked.head),
            Stage::Asking | Stage::Witness { .. } => {}
        }
    }

    /// Both have checked their rows, which differ. If one of them may be a damaged copy of the other, another member is
    /// asked too: no commit follows a damaged copy, since the next one names the digest of the real one.
    fn call_witness(&mut self, shown: ShownRow, ours: &LookedRow, head: u64) {
        let Some(search) = self.doubts.search() else { return };
        let (stream, place, accuser) = (search.stream, search.place, search.peer);
        let is_last = shown.head == place || head == place && stream != self.context.me();
        let doubtful = is_last && may_be_a_copy(stream, &ours.entry, &shown.row.entry);
        let witness = if doubtful { self.witness(stream, place, accuser) } else { None };
        let Some(witness) = witness else {
            return self.decide(Verdict::Fork(shown.row, Some(ours.digest)));
        };
        if let Some(search) = self.doubts.search_mut() {
            search.go_on(Stage::Witness { witness, shown, ours: ours.digest }, self.now.mono);
        }
        let show = Show { stream, seq: place, checked: true };
        self.send(witness, wire::show(self.context.group(), &show));
    }

    /// A member that can be heard and has a place of a stream; its author if it can be.
    fn witness(&self, stream: ReplicaId, seq: u64, accuser: ReplicaId) -> Option<ReplicaId> {
        let able = self.peers.iter().filter(|(replica, peer)| {
            let has = *replica == stream || peer.acked_of(stream).max(peer.has_of(stream)) >= seq;
            *replica != accuser && has && peer.is_greeted() && self.members.trusts(*replica, &self.context)
        });
        able.map(|(replica, _)| replica).max_by_key(|replica| *replica == stream)
    }

    /// Ends the search with the accuser's word if its witness is silent.
    pub(super) fn end_late_witness(&mut self) {
        if self.doubts.is_witness_late(self.now.mono)
            && let Some(Stage::Witness { shown, ours, .. }) = self.doubts.search().map(|search| &search.stage)
        {
            let fork = Verdict::Fork(shown.row.clone(), Some(*ours));
            self.decide(fork);
        }
    }

    /// Ends the search.
    fn decide(&mut self, verdict: Verdict) {
        let Some(search) = self.doubts.search() else { return };
        let (peer, stream, seq) = (search.peer, search.stream, search.place);
        match verdict {
            Verdict::Fork(row, here) => {
                self.doubts.end_all(stream);
                self.note_two_histories(ForkRow { stream, seq, by: peer, here, there: row.digest });
            }
            // A store that was restored shows nothing of its second history: there is nothing to dispute.
            Verdict::SetAside if stream == peer && self.peers.get(peer).is_some_and(Peer::is_restored) => {
                self.doubts.end(peer, stream);
            }
            Verdict::SetAside => {
                self.doubts.set_aside(peer, stream);
                self.tell(Event::Disputed { peer, stream, seq });
            }
        }
    }

    // --- looks --------------------------------------------------------------------------------------------------------

    /// Takes the result of a look at the log here.
    pub(super) fn looked(&mut self, looked: &Looked) {
        let Place { stream, seq, digest, .. } = looked.place;
        if let Some(damaged) = looked.damaged.filter(|seq| *seq > self.ledger.head(stream).floor) {
            self.note_damage(Damage { stream, seq: damaged, part: DamagedPart::Row });
        }
        match looked.purpose {
            Purpose::Compare { peer, stream } => {
                if looked.row.as_ref().is_some_and(|row| row.previous != digest) {
                    self.doubt(peer, stream, seq - 1);
                }
            }
            Purpose::Show { to } => {
                let hidden = self.hidden() == Some(stream);
                let row = looked.sound().filter(|_| !hidden);
                let head = if row.is_some() && looked.place.walks { looked.head } else { 0 };
                let row = row.map(|row| WireRow { previous: row.previous, entry: row.entry.clone() });
                let shown = Shown { stream, seq, head, row };
                self.send(to, wire::shown(self.context.group(), &shown));
            }
            Purpose::Search => self.looked_for_search(looked),
            Purpose::Acked { peer } => {
                if looked.sound().is_some_and(|row| row.digest == digest) {
                    let head = WireHead { stream, seq, digest };
                    self.peers.owe(peer, |owed| owed.regressed = Some(head));
                } else if looked.damaged.is_none() {
                    // The row of the peer is damaged here: the stream never had this digest.
                    self.peers.forget_ack(peer, stream);
                    self.quorum.forget_open(peer, stream);
                }
            }
        }
    }

    /// Takes note that a look could not be made, since the store could not be read.
    pub(super) fn look_failed(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Compare { peer, stream } => self.peers.compares_again(peer, stream),
            // The next hello of the peer begins again.
            Purpose::Search => {
                if let Some(search) = self.doubts.search() {
                    let (peer, stream) = (search.peer, search.stream);
                    self.doubts.end(peer, stream);
                    self.peers.compares_again(peer, stream);
                }
            }
            Purpose::Show { .. } | Purpose::Acked { .. } => {}
        }
    }

    /// Takes note that a stream has another history elsewhere. For the own stream this proves that the store was restored
    /// or cloned.
    fn note_two_histories(&mut self, fork: ForkRow) {
        if fork.stream == self.context.me() { self.note_restored(fork) } else { self.note_fork(fork) }
    }
}

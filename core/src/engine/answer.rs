//! A chapter of the engine: reads for peers, and the pages that answer their pulls.

use crate::events::{Damage, Event};
use crate::ids::ReplicaId;
use crate::storage::ReadError;

use super::io::{Answer, Effect, JobId};
use super::reads::Reader;
use super::serve::Next;
use super::serve::page::{Finished, Page};
use super::serve::records::RecordsPage;
use super::wire::{
    self, Capped, Coming, CommitsWriter, PageHead, Reach, STREAMS_MAX, SnapshotRefusal, WirePlace,
};
use super::{Engine, Mark};

/// A frame of a page that is longer than this is announced: on a slow link it takes its time.
const COMING_BYTES: usize = 2 << 10;

impl Engine {
    /// Begins the look and the page that wait, and the next read for one of them.
    pub(super) fn serve(&mut self) {
        if !self.closing {
            self.search();
            if self.looks.begin(&self.ledger) {
                self.go_on_with_look();
            }
            match self.serving.next_pull() {
                Some((to, Next::Page(ask))) => {
                    let weighs = self.refuses_snapshots().is_none() && self.serving.weighs_for(to);
                    let weighs = (weighs, self.serving.weight());
                    let here = (&*self.ledger, &self.damages, &*self.context);
                    let page = Page::new(to, ask, self.hidden(), weighs, here);
                    self.go_on_with_page(Box::new(page));
                }
                // The puller learns from an empty page that it has to ask from its heads on.
                Some((to, Next::Records(pull))) => {
                    let page = RecordsPage::new(to, pull, self.refuses_snapshots(), &self.ledger);
                    if let Some((to, as_of)) = page.begins_at() {
                        self.pins.pin(to, as_of, self.now.mono);
                    }
                    self.go_on_with_records(Box::new(page));
                }
                Some((to, Next::Unknown(id))) => {
                    let head = PageHead { id, more: false, reach: Reach::Whole, too_long: None };
                    let page = CommitsWriter::page(self.context.group(), self.context.me(), &head, 0);
                    self.send(to, page.finish());
                }
                None => {}
            }
            let (begun, idle) = (self.writes.begun(), self.writes.is_idle());
            if let Some(page) = self.serving.take_settled(begun, idle) {
                self.send_records(*page);
            }
        }
        if let Some((job, query)) = self.reads.poll() {
            self.effects.push_back(Effect::Find(job, query));
        }
    }

    /// Goes on with a page: asks for its next read, or sends it.
    pub(super) fn go_on_with_page(&mut self, mut page: Box<Page>) {
        if let Some(query) = page.step() {
            self.reads.want(Reader::Page, query);
            return self.serving.page_reads(page);
        }
        // A restore may have been proven since the page began.
        let Finished { to, id, frame, end, forked, damaged, more, weighed, relayed } =
            page.finish(self.hidden(), &self.context);
        self.serving.weighed(to, weighed);
        let mut ends = Vec::new();
        for (stream, seq, part) in damaged {
            // A row that was pruned meanwhile is not damaged.
            if seq > self.ledger.head(stream).floor {
                self.note_damage(Damage { stream, seq, part });
                ends.push(WirePlace { stream, seq });
            }
        }
        if !ends.is_empty() {
            // Send this before the page: the puller must not take the page, which lacks these streams, for a broken word.
            self.send(to, wire::damaged_places(self.context.group(), &Capped(ends)));
        }
        for (stream, seq) in forked {
            self.doubt(to, stream, seq);
        }
        if relayed {
            self.marks.note(Mark::Relayed);
        }
        if more {
            self.marks.note(Mark::MorePages);
        }
        if frame.len() > COMING_BYTES {
            let coming = Coming { id, bytes: crate::stored::length(frame.len()) };
            self.send(to, wire::coming(self.context.group(), &coming));
        }
        // No acknowledgement rides on a page: it could make the frame longer than the puller takes.
        self.effects.push_back(Effect::Send(to, frame));
        let me = self.context.me();
        let own = end.as_ref().filter(|end| !end.leaves_out(me)).map(|end| end.seq_of(me));
        self.peers.is_sent_page(to, own, more);
        // Own commits that became durable since the page began were not sent live, and the page does not promise them.
        if !more && own.is_some_and(|own| own < self.ledger.own().seq) {
            self.peers.owe(to, |owed| owed.word = true);
        }
        self.serving.ended(to, id, end.filter(|_| more));
    }

    /// Why no snapshot is served now; `None` if one is.
    fn refuses_snapshots(&self) -> Option<SnapshotRefusal> {
        let whole = self.hidden().is_none() && self.damages.heads().next().is_none();
        // A merge of values into their record between two rows of a page would lose them: it is no commit.
        let folds = self.install.is_folding() || self.upkeep.folded().is_some();
        (!whole || folds).then_some(SnapshotRefusal::NotNow)
    }

    /// Goes on with a page of a snapshot: asks for its next read, or waits for the write that is under way.
    fn go_on_with_records(&mut self, page: Box<RecordsPage>) {
        if let Some(query) = page.step() {
            self.reads.want(Reader::Records, query);
            return self.serving.records_read(page, None);
        }
        if self.writes.is_idle() {
            return self.send_records(*page);
        }
        self.serving.records_read(page, Some(self.writes.begun()));
    }

    fn send_records(&mut self, mut page: RecordsPage) {
        if self.refuses_snapshots().is_some() {
            page.fail();
        }
        self.marks.note(Mark::ServedRecords);
        let (to, id, frame) = page.finish(&self.ledger, &self.context);
        if frame.len() > COMING_BYTES {
            let coming = Coming { id, bytes: crate::stored::length(frame.len()) };
            self.send(to, wire::coming(self.context.group(), &coming));
        }
        self.effects.push_back(Effect::Send(to, frame));
    }

    /// Goes on with a look at the log: asks for its next read, or takes its result and begins the next one.
    fn go_on_with_look(&mut self) {
        while let Some(step) = self.looks.step() {
            match step {
                Ok(query) => return self.reads.want(Reader::Look, query),
                Err(looked) => self.looked(&looked),
            }
            self.looks.begin(&self.ledger);
        }
    }

    /// Takes note of a damaged place here. The app hears of it once.
    pub(super) fn note_damage(&mut self, damage: Damage) {
        // A look may have found the damage behind a head that was mended meanwhile.
        if damage.seq <= self.ledger.head(damage.stream).seq && self.damages.note(damage) {
            self.marks.note(Mark::Damaged);
            self.tell(Event::Damaged(damage));
        }
    }

    /// Takes the word of a peer that it cannot serve streams from some places on.
    pub(super) fn hear_damaged(&mut self, from: ReplicaId, places: &Capped<WirePlace, STREAMS_MAX>) {
        for place in &places.0 {
            if self.admitting().is_known_stream(place.stream) {
                self.damages.ends_at(from, place.stream, place.seq);
            }
        }
    }

    /// Takes the answer to a read for a peer.
    pub(super) fn found(&mut self, job: JobId, answer: Result<Answer, ReadError>) {
        match self.reads.end(job) {
            Some(Reader::Page) => {
                let Some(mut page) = self.serving.take_page() else { return };
                match answer {
                    Ok(answer) => page.take(answer),
                    Err(_) => page.fail(),
                }
                self.go_on_with_page(page);
            }
            Some(Reader::Records) => {
                let Some(mut page) = self.serving.take_records() else { return };
                let room = RecordsPage::room(page.pull(), &self.ledger);
                match answer {
                    Ok(answer) => page.take(answer, room),
                    Err(_) => page.fail(),
                }
                self.go_on_with_records(page);
            }
            Some(Reader::Look) => match answer {
                Ok(answer) => {
                    self.looks.take(answer);
                    self.go_on_with_look();
                }
                Err(_) => {
                    if let Some((purpose, _)) = self.looks.fail() {
                        self.look_failed(purpose);
                    }
                }
            },
            Some(Reader::Check) => self.check_read(answer),
            None => {}
        }
    }
}

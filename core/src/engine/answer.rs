//! A chapter of the engine: reads for peers, and the pages that answer their pulls.

use crate::storage::ReadError;

use super::io::{Answer, Effect, JobId};
use super::reads::Reader;
use super::serve::Next;
use super::serve::page::{Finished, Page};
use super::wire::{self, Coming, CommitsWriter, PageHead};
use super::{Engine, Mark};

/// A frame of a page that is longer than this is announced: on a slow link it takes its time.
const COMING_BYTES: usize = 2 << 10;

impl Engine {
    /// Begins the comparison and the page that wait, and the next read for one of them.
    pub(super) fn serve(&mut self) {
        if !self.closing {
            if let Some(check) = self.serving.next_place() {
                self.reads.want(Reader::Check, check.query());
                self.serving.check_reads(check);
            }
            match self.serving.next_pull() {
                Some((to, Next::Page(ask))) => {
                    let page = Page::new(to, ask, self.hidden(), &self.ledger, &self.context);
                    self.go_on_with_page(Box::new(page));
                }
                // The puller learns from an empty page that it has to ask from its heads on.
                Some((to, Next::Unknown(id))) => {
                    let head = PageHead { id, more: false, pruned: false, too_long: None };
                    let (group, me) = (self.context.group(), self.context.me());
                    self.send(to, CommitsWriter::page(group, me, &head, 0).finish());
                }
                None => {}
            }
        }
        if let Some((job, query)) = self.reads.poll() {
            self.effects.push_back(Effect::Find(job, query));
        }
    }

    /// Goes on with a page: asks for its next read, or sends it.
    pub(super) fn go_on_with_page(&mut self, mut page: Box<Page>) {
        if let Some(query) = page.step(&self.ledger) {
            self.reads.want(Reader::Page, query);
            return self.serving.page_reads(page);
        }
        // A restore may have been proven since the page began.
        let Finished { to, id, frame, end, forked, more, relayed } =
            page.finish(self.hidden(), &self.context);
        for (stream, seq) in forked {
            self.note_two_histories(stream, seq);
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
        self.send(to, frame);
        let me = self.context.me();
        let own = end.as_ref().filter(|end| !end.leaves_out(me)).map(|end| end.seq_of(me));
        self.peers.is_sent_page(to, own, more);
        // Own commits that became durable since the page began were not sent live, and the page does not promise them.
        if !more && own.is_some_and(|own| own < self.ledger.own().seq) {
            self.peers.owe(to, |owed| owed.word = true);
        }
        self.serving.ended(to, id, end.filter(|_| more));
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
            Some(Reader::Check) => {
                let Some(check) = self.serving.take_check() else { return };
                match answer {
                    Ok(answer) if check.differs(&answer) => {
                        self.note_two_histories(check.stream, check.point.seq);
                    }
                    Ok(_) => {}
                    Err(_) => self.peers.compares_again(check.peer, check.stream),
                }
            }
            None => {}
        }
    }
}

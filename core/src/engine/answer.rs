//! A chapter of the engine: what is read for peers, and the pages that answer them.

use crate::storage::ReadError;

use super::io::{Answer, Effect, JobId};
use super::reads::Reader;
use super::serve::page::{Finished, Page};
use super::{Engine, Mark};

impl Engine {
    /// Begins to read what peers want to know.
    pub(super) fn serve(&mut self) {
        if !self.closing {
            if let Some(check) = self.serving.next_place() {
                self.reads.want(Reader::Check, check.query());
                self.serving.check_reads(check);
            }
            if let Some((to, pull)) = self.serving.next_pull() {
                // Whoever took the second history of our stream could not take what others have of it.
                let me = self.context.me();
                let hidden = self.streams.has_two_histories(me).then_some(me);
                let page = Page::new(to, pull, hidden, &self.ledger, &self.context);
                self.go_on_with_page(Box::new(page));
            }
        }
        if let Some((job, query)) = self.reads.poll() {
            self.effects.push_back(Effect::Find(job, query));
        }
    }

    /// Goes on with a page: asks for what is missing, or sends it.
    pub(super) fn go_on_with_page(&mut self, mut page: Box<Page>) {
        if let Some(query) = page.step() {
            self.reads.want(Reader::Page, query);
            return self.serving.page_reads(page);
        }
        let Finished { to, frame, forked, more, relayed } = page.finish(&self.context);
        for (stream, seq) in forked {
            self.note_two_histories(stream, seq);
        }
        if relayed {
            self.marks.note(Mark::Relayed);
        }
        if more {
            self.marks.note(Mark::MorePages);
        }
        self.send(to, frame);
    }

    /// A read for a peer has ended.
    pub(super) fn found(&mut self, job: JobId, answer: Result<Answer, ReadError>) {
        match self.reads.found(job) {
            Some(Reader::Page) => {
                let Some(mut page) = self.serving.take_page() else { return };
                match answer {
                    Ok(answer) => page.found(answer),
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

//! How far a store is: a bar on a terminal, a plain line now and then elsewhere. Both on the error stream.

use std::fmt;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Often enough to see that it goes on, rarely enough for a log.
const LINE_ENTRIES: u64 = 20_000;

/// How far one store is.
pub struct Progress {
    store: String,
    bar: ProgressBar,
    done: u64,
}

impl Progress {
    /// Begins with the expectation of `entries`.
    #[must_use]
    pub fn new(store: &str, entries: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(entries), ProgressDrawTarget::stderr());
        let template = "{prefix:6} {wide_bar} {human_pos}/{human_len} {msg}";
        // A template that does not parse would show the bar in the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(store.to_owned());
        Self { store: store.to_owned(), bar, done: 0 }
    }

    /// Counts one entry that was walked over.
    pub fn advance(&mut self) {
        self.done += 1;
        self.bar.inc(1);
        if self.bar.is_hidden() && self.done.is_multiple_of(LINE_ENTRIES) {
            let (done, all) = (HumanCount(self.done), HumanCount(self.bar.length().unwrap_or(0)));
            eprintln!("{}: {done} of {all} entries", self.store);
        }
    }

    /// Says what is being done now.
    pub fn say(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        if self.bar.is_hidden() {
            eprintln!("{}: {what}", self.store);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("store", &self.store)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}

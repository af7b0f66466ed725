//! The child: opens the store and does as it is told.

use std::io::{BufRead as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use futures::executor::block_on;
use syncline::{JoinStorage, JoinTx as _, Key, KeyRange, ScanLimit, Storage, WriteBatch, WriteError};

use super::commands::ANSWER;
use super::{Answer, Command, Numbers, Opener, Question, Script, Size};
use crate::JoinFixture;
use crate::sorted_map::{self, SortedMap};
use crate::storage::samples::mark;
use crate::storage::subject::Outcome;

/// The work of a child with the rows of an app, for a store that lends its transaction.
pub(super) struct JoinHooks<S> {
    write: fn(&S, u32, WriteBatch) -> Result<(), WriteError>,
    rows: fn(&S) -> Result<Vec<u64>, String>,
}

impl<S: JoinStorage> JoinHooks<S> {
    pub(super) fn of<F: JoinFixture<Store = S>>() -> Self {
        Self { write: write_joined::<F>, rows: read_rows::<F> }
    }
}

/// Writes the row `number` of the app and the batch in one transaction.
fn write_joined<F: JoinFixture>(store: &F::Store, number: u32, batch: WriteBatch) -> Result<(), WriteError> {
    block_on(store.join(Box::new(move |tx| {
        F::put_row(tx.native(), u64::from(number), &format!("row {number}"))?;
        tx.apply(&batch)
    })))
}

fn read_rows<F: JoinFixture>(store: &F::Store) -> Result<Vec<u64>, String> {
    let (send, rows) = mpsc::channel();
    let read = store.join(Box::new(move |tx| {
        for (key, _) in F::rows(tx.native())? {
            send.send(key)?;
        }
        Ok(())
    }));
    block_on(read).map_err(|error| error.to_string())?;
    Ok(rows.iter().collect())
}

/// Everything in the store. The only place in which the lists of child processes read a whole store.
async fn everything<S: Storage>(store: &S) -> Result<SortedMap, String> {
    let (mut found, mut rest) = (SortedMap::new(), KeyRange::all());
    loop {
        let page = store.scan(rest.clone(), PAGE).await.map_err(|error| error.to_string())?;
        let last = page.entries.last().map(|entry| entry.key.clone());
        found.extend(sorted_map::from_entries(page.entries));
        match last {
            Some(last) if page.more => rest = rest.after(&last),
            None if page.more => return Err("a scan found nothing and said that there is more".into()),
            _ => return Ok(found),
        }
    }
}

/// Thousands of entries, and less memory than the contents have.
const PAGE: ScanLimit = ScanLimit { entries: 10_000, bytes: 4 << 20 };

async fn has<S: Storage>(store: &S, key: Key) -> bool {
    matches!(store.get_many(&[key]).await.as_deref(), Ok([Some(_)]))
}

/// Does what the parent says until it is killed, or until the parent has closed the pipe. Then the process ends, without
/// dropping the store.
pub(super) fn serve<S: Storage>(opener: &Opener<S>) -> ! {
    answer(&Answer::Hello(std::process::id()));
    let mut server = Server { opener, store: None, script: Script::new(0, Size::Small) };
    for line in std::io::stdin().lock().lines() {
        let Some(command) = line.ok().as_deref().and_then(Command::parse) else { exit(3) };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| server.run(command))) {
            answer(&Answer::Panicked(text_of(&*panic)));
        }
    }
    exit(0)
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a text").to_owned()
}

fn opened<S: Storage>(store: &S) -> Answer {
    Answer::Opened(u32::try_from(store.limits().batch_ops).unwrap_or(u32::MAX))
}

/// Writes one line with one call, so that it is whole in the pipe, and in a trace of the calls.
pub(super) fn answer(answer: &Answer) {
    let line = format!("\n{ANSWER}{}\n", answer.line());
    // If the parent is gone, there is nobody to tell.
    drop(std::io::stderr().write_all(line.as_bytes()));
}

struct Server<'a, S> {
    opener: &'a Opener<S>,
    store: Option<S>,
    script: Script,
}

impl<S: Storage> Server<'_, S> {
    fn run(&mut self, command: Command) {
        match command {
            Command::Script(script) => {
                let limits = self.store.as_ref().map(Storage::limits);
                self.script = limits.map_or(script, |limits| script.within(limits));
            }
            Command::Open(path) => self.open(&path),
            Command::OpenBeside(path) => answer(&match (self.opener.open)(&path) {
                Ok(second) => opened(&second),
                Err(error) => Answer::Refused(error.to_string()),
            }),
            Command::Close => {
                self.store = None;
                answer(&Answer::Done);
            }
            Command::Write(numbers) => {
                self.write(&numbers, |batch, _| block_on(self.store().write(batch)));
                answer(&Answer::Done);
            }
            Command::Join(numbers) => {
                let hooks = self.opener.join.as_ref().expect("a list with joins has them");
                self.write(&numbers, |batch, number| (hooks.write)(self.store(), number, batch));
                answer(&Answer::Done);
            }
            Command::Watch(numbers) => self.watch(&numbers),
            Command::Judge(question) => answer(&self.judge(&question).unwrap_or_else(Answer::Unreadable)),
        }
    }

    fn open(&mut self, path: &Path) {
        self.store = None;
        match (self.opener.open)(path) {
            Ok(store) => {
                self.script = self.script.within(store.limits());
                let opened = opened(&store);
                self.store = Some(store);
                answer(&opened);
            }
            Err(error) => answer(&Answer::Refused(error.to_string())),
        }
    }

    fn store(&self) -> &S {
        self.store.as_ref().expect("the parent has the store opened first")
    }

    /// Writes until an outcome is not `Ok`.
    fn write(&self, numbers: &Numbers, write: impl Fn(WriteBatch, u32) -> Result<(), WriteError>) {
        for &number in &numbers.0 {
            let batch = self.script.batch(number);
            answer(&Answer::Calls(number));
            let outcome = match catch_unwind(AssertUnwindSafe(|| write(batch, number))) {
                Ok(result) => {
                    let error = result.as_ref().err().map_or_else(String::new, ToString::to_string);
                    Answer::Outcome(number, Outcome::of(&result), error)
                }
                Err(panic) => Answer::Outcome(number, Outcome::Panicked, text_of(&*panic)),
            };
            answer(&outcome);
            if !matches!(outcome, Answer::Outcome(_, Outcome::Ok, _)) {
                break;
            }
        }
    }

    /// Writes one batch after the other. Before the next one begins, the reader has seen the last.
    fn watch(&self, numbers: &Numbers) {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (seen, wait) = mpsc::channel();
            let read = || {
                let seen = seen;
                for &number in &numbers.0 {
                    while !block_on(has(self.store(), mark(number))) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        thread::yield_now();
                    }
                    answer(&Answer::Seen(number));
                    let _ = seen.send(());
                }
            };
            let reader = thread::Builder::new().name("the reader".into()).spawn_scoped(scope, read);
            let reader = reader.expect("a thread starts");
            self.write(numbers, |batch, _| {
                let outcome = block_on(self.store().write(batch));
                // If the reader has panicked, there is nothing to wait for.
                let _ = outcome.is_ok().then(|| wait.recv());
                outcome
            });
            stop.store(true, Ordering::Relaxed);
            let _ = reader.join();
        });
        answer(&Answer::Done);
    }

    /// Compares what is there. An error is that of a read.
    fn judge(&self, question: &Question) -> Result<Answer, String> {
        let found = block_on(everything(self.store()))?;
        let index = match question.judge(&self.script, &found) {
            Ok(index) => index,
            Err(what) => return Ok(Answer::Differs(what)),
        };
        if let Some(hooks) = &self.opener.join {
            let batches = &question.candidates[index];
            let rows = (hooks.rows)(self.store())?;
            if !rows.iter().copied().eq(batches.0.iter().copied().map(u64::from)) {
                let (len, last) = (rows.len(), rows.last());
                return Ok(Answer::Differs(format!(
                    "the batches {batches} are there, and {len} rows of the app, the last of them {last:?}"
                )));
            }
        }
        Ok(Answer::Holds(index))
    }
}

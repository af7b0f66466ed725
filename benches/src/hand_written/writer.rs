//! The thread behind a hand-written store that is awaited from tasks: it commits all that waits together.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::{HandWritten, Row};
use crate::Result;

/// A hand-written store on a thread of its own.
#[derive(Debug)]
pub struct Writer<H> {
    jobs: mpsc::Sender<Job<H>>,
    thread: JoinHandle<H>,
}

struct Job<H> {
    work: Work<H>,
    done: oneshot::Sender<std::result::Result<(), String>>,
}

type Alone<H> = Box<dyn FnOnce(&mut H) -> Result<()> + Send>;

enum Work<H> {
    /// Rows that share a transaction with what else waits.
    Commit(Vec<Row>),
    /// Something in a transaction of its own.
    Alone(Alone<H>),
}

impl<H: HandWritten> Writer<H> {
    /// Moves `store` to a thread.
    ///
    /// Whatever waits when a transaction begins shares it, up to 1,024 jobs. With one caller that is one job.
    #[must_use]
    pub fn start(mut store: H) -> Self {
        let (jobs, received) = mpsc::channel::<Job<H>>();
        let thread = thread::spawn(move || {
            let (mut rows, mut waiting) = (Vec::new(), Vec::new());
            while let Ok(first) = received.recv() {
                let mut alone = None;
                for job in std::iter::once(first).chain(received.try_iter()).take(GROUP_JOBS_MAX) {
                    match job.work {
                        Work::Commit(more) => {
                            rows.extend(more);
                            waiting.push(job.done);
                        }
                        Work::Alone(work) => {
                            alone = Some((work, job.done));
                            break;
                        }
                    }
                }
                if !rows.is_empty() {
                    let outcome = store.commit(&rows).map_err(|error| error.to_string());
                    let count = rows.len();
                    rows.clear();
                    for done in waiting.drain(..) {
                        // Nobody may wait any more; the rows are committed all the same.
                        let _ = done.send(outcome.clone());
                    }
                    store.tidy(count);
                }
                if let Some((work, done)) = alone {
                    let _ = done.send(work(&mut store).map_err(|error| error.to_string()));
                }
            }
            store
        });
        Self { jobs, thread }
    }

    /// Commits `rows` and waits until they are durable.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn commit(&self, rows: Vec<Row>) -> Result<()> {
        self.send(Work::Commit(rows)).await
    }

    /// Does `work` between two transactions and waits for it.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn run(&self, work: impl FnOnce(&mut H) -> Result<()> + Send + 'static) -> Result<()> {
        self.send(Work::Alone(Box::new(work))).await
    }

    async fn send(&self, work: Work<H>) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job { work, done }).map_err(|_| "the writer is gone")?;
        Ok(outcome.await??)
    }

    /// Ends the thread and takes the store back.
    ///
    /// # Errors
    /// If the thread panicked.
    pub fn stop(self) -> Result<H> {
        drop(self.jobs);
        self.thread.join().map_err(|_| "the writer panicked".into())
    }
}

/// As many as share a write of syncline.
const GROUP_JOBS_MAX: usize = 1024;

//! The thread behind a hand-written store that is awaited from tasks: it commits all that waits together.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::{HandWritten, Row};
use crate::Result;

/// A hand-written store on a thread of its own.
#[derive(Debug)]
pub struct Writer<H> {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<H>,
}

struct Job {
    rows: Vec<Row>,
    done: oneshot::Sender<std::result::Result<(), String>>,
}

impl<H: HandWritten> Writer<H> {
    /// Moves `store` to a thread.
    ///
    /// Whatever waits when a transaction begins shares it, up to 1,024 jobs. With one caller that is one job.
    #[must_use]
    pub fn start(mut store: H) -> Self {
        let (jobs, received) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || {
            let (mut rows, mut waiting) = (Vec::new(), Vec::new());
            while let Ok(first) = received.recv() {
                for job in std::iter::once(first).chain(received.try_iter()).take(GROUP_JOBS_MAX) {
                    rows.extend(job.rows);
                    waiting.push(job.done);
                }
                let outcome = store.commit(&rows).map_err(|error| error.to_string());
                rows.clear();
                for done in waiting.drain(..) {
                    // Nobody may wait any more; the rows are committed all the same.
                    let _ = done.send(outcome.clone());
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
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job { rows, done })?;
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

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

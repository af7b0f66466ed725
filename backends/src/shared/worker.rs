//! One thread per store that runs its writes, strictly in order.
//!
//! Embedded engines block while they write, which would block an async thread. A job that was sent runs to its end even
//! if its future is dropped: so a dropped write is all or nothing, and the next write comes after it.

use std::cell::Cell;
use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use super::panics::{Panicked, contain};

/// A thread that runs jobs in the order in which they were sent.
///
/// Dropping it blocks until the jobs that were sent have ended.
#[derive(Debug)]
pub(crate) struct Worker {
    // Fields are dropped in this order: the thread ends once `jobs` is dropped, and only then can be joined.
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
}

type Job = Box<dyn FnOnce() + Send>;

/// Work for a thread that has had no job for a while.
pub(crate) struct Idle {
    /// How long no job must have come.
    pub(crate) after: Duration,
    /// The work, done once after each run of jobs.
    pub(crate) work: Box<dyn FnMut() + Send>,
}

impl Worker {
    /// Starts a thread named `name`.
    ///
    /// # Errors
    ///
    /// The error of the system if it cannot start a thread.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        Self::spawn(name, |jobs| jobs.into_iter().for_each(|job| job()))
    }

    /// As [`start`](Self::start); the thread does `idle` when it has nothing else to do.
    pub(crate) fn start_with(name: &str, mut idle: Idle) -> io::Result<Self> {
        Self::spawn(name, move |jobs| {
            while let Ok(job) = jobs.recv() {
                job();
                loop {
                    match jobs.recv_timeout(idle.after) {
                        Ok(job) => job(),
                        Err(mpsc::RecvTimeoutError::Timeout) => {
                            // A panic here has harmed no job, and must not end the thread.
                            drop(contain(&mut idle.work));
                            break;
                        }
                        Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        })
    }

    fn spawn(name: &str, serve: impl FnOnce(mpsc::Receiver<Job>) + Send + 'static) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel();
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            ON_WORKER.set(true);
            serve(received);
        })?;
        Ok(Self { jobs, _thread: Joined(Some(thread)) })
    }

    /// Sends `job` at once, not at the first poll. The future returns what the job returned.
    ///
    /// # Errors
    /// [`Panicked`] if the job panicked. The thread goes on with the next job.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the job.
    pub(crate) fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, Panicked>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (reply, outcome) = oneshot::channel();
        let job = Box::new(move || {
            // Sending fails if the future was dropped. What the job did stands.
            drop(reply.send(contain(job)));
        });
        // Sending fails if the thread has ended. `reply` is dropped with the job then, and the future returns an error.
        drop(self.jobs.send(job));
        async { outcome.await.unwrap_or_else(|_| Err(Panicked("its thread has ended".into()))) }
    }
}

thread_local! {
    /// Whether this is the thread of a worker. A job can hold the last handle of a store. Dropping that handle on the
    /// worker's thread must not wait for the thread: it would wait for itself.
    static ON_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller runs on the thread of a worker.
pub(super) fn is_this_thread() -> bool {
    ON_WORKER.get()
}

#[derive(Debug)]
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take().filter(|_| !is_this_thread()) {
            // Every job is contained, so that there is no panic to pass on.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::executor::block_on;

    use super::super::closing::AwaitClosed;
    use super::*;

    #[test]
    fn jobs_run_in_order_even_if_nobody_waits() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let worker = Worker::start("test").unwrap();
        for n in 0..100 {
            let seen = Arc::clone(&seen);
            drop(worker.run(move || seen.lock().unwrap().push(n)));
        }
        drop(worker);
        assert_eq!(*seen.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    /// Goal: what an idle thread does comes once, after the jobs, and not while they keep coming. Method: a wait of no
    /// time, so that the thread is idle once the channel is empty; a wait that never ends.
    #[test]
    fn an_idle_worker_does_its_work_once_after_the_jobs() {
        let (done, was_done) = mpsc::channel();
        let (after, work) = (Duration::ZERO, Box::new(move || done.send("idle").unwrap()));
        let worker = Worker::start_with("test", Idle { after, work }).unwrap();
        for _ in 0..3 {
            block_on(worker.run(|| ())).unwrap();
            assert_eq!(was_done.recv(), Ok("idle"));
            assert_eq!(was_done.try_recv(), Err(mpsc::TryRecvError::Empty), "once");
        }
        drop(worker);
        assert_eq!(was_done.recv(), Err(mpsc::RecvError));

        let (after, work) = (Duration::MAX, Box::new(|| panic!("it was never idle")));
        let worker = Worker::start_with("test", Idle { after, work }).unwrap();
        assert_eq!(block_on(worker.run(|| 8)).unwrap(), 8);
        assert_eq!(block_on(worker.run(|| 9)).unwrap(), 9);
    }

    #[test]
    fn a_worker_that_goes_with_its_own_job_waits_for_nobody() {
        let worker = Arc::new(Mutex::new(None::<Worker>));
        let (open, closed) = AwaitClosed::new();
        let (done, is_done) = mpsc::channel();
        *worker.lock().unwrap() = Some(Worker::start("test").unwrap());
        let held = Arc::clone(&worker);
        let job = worker.lock().unwrap().as_ref().unwrap().run(move || {
            drop(held.lock().unwrap().take());
            drop(closed);
            done.send(()).unwrap();
        });
        drop(job);
        is_done.recv().unwrap();
        drop(open);
    }

    #[test]
    fn a_job_that_panics_is_an_error_and_the_thread_lives_on() {
        let worker = Worker::start("test").unwrap();
        let error = block_on(worker.run(|| panic!("seven"))).unwrap_err();
        assert!(error.to_string().contains("seven"));
        assert_eq!(block_on(worker.run(|| 8)).unwrap(), 8);
    }
}

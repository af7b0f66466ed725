//! One thread per store that runs its writes, strictly in order: for authors of stores on engines that block.
//!
//! Embedded engines block while they write, which would block an async thread. A job that was sent runs to its end even
//! if its future is dropped: so a dropped write is all or nothing, and the next write comes after it.
//!
//! On a thread that may block, a job runs in place if no other waits: that spares two changes of threads.

use std::cell::Cell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::driver::may_block;
use crate::error::panic_message;

/// A thread that runs jobs in the order in which they were sent, so that a store on a blocking engine keeps the order of its
/// writes, also of those that are dropped.
///
/// Where the caller [may block](crate::may_block) and no other job waits, a job runs in place. Dropping the worker blocks
/// until the jobs that were sent have ended, unless it is dropped [inside of a job](Worker::is_this_thread).
///
/// ```
/// use syncline::Worker;
///
/// # futures::executor::block_on(async {
/// let worker = Worker::start("writes of my store")?;
/// let first = worker.run(|| "written");
/// assert_eq!(first.await?, "written");
/// let failed = worker.run(|| -> u32 { panic!("the engine trusts its files") });
/// assert_eq!(failed.await.unwrap_err().to_string(), "the engine panicked: the engine trusts its files");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Worker {
    // Fields are dropped in this order: the thread ends once `jobs` is dropped, and only then can be joined.
    jobs: mpsc::Sender<Job>,
    _thread: Joined,
    line: Arc<Line>,
}

/// Work that panicked, or that did not run because the thread of its worker has ended.
#[derive(Debug, thiserror::Error)]
#[error("the engine panicked: {0}")]
pub struct Panicked(String);

impl Panicked {
    /// Runs `work`, and turns a panic into an error. The caller must not use what `work` was changing when it panicked.
    ///
    /// # Errors
    /// The panic of `work`.
    pub fn catch<T>(work: impl FnOnce() -> T) -> Result<T, Self> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Self(panic_message(panic.as_ref())))
    }

    /// Returns the message of the panic.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0
    }

    fn thread_has_ended() -> Self {
        Self("its thread has ended".into())
    }
}

/// A job that has run in place, or was sent.
enum Started<T> {
    Done(Result<T, Panicked>),
    Sent(oneshot::Receiver<Result<T, Panicked>>),
}

/// The jobs of a worker that have not ended.
#[derive(Debug, Default)]
struct Line {
    /// How many were sent to the thread and have not ended there.
    sent: AtomicUsize,
    /// Held by whoever runs a job.
    turn: Mutex<()>,
    /// How many jobs ran in place.
    in_place: AtomicUsize,
    /// Whether the thread sleeps until a job is sent, and does some work once it is idle.
    sleeps: AtomicBool,
}

impl Line {
    /// The turn of a job in place, if no other runs or waits.
    fn take_turn(&self) -> Option<MutexGuard<'_, ()>> {
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        // A job that is sent from now on waits for the turn.
        (self.sent.load(SeqCst) == 0).then_some(turn)
    }

    /// Runs a job that was sent.
    fn run(&self, job: Job) {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        job();
        self.sent.fetch_sub(1, SeqCst);
        drop(turn);
    }

    /// Takes note of a job that ran in place; returns whether the thread must be woken, so that it is idle again later.
    fn ran_in_place(&self) -> bool {
        self.in_place.fetch_add(1, SeqCst);
        let wakes = self.sleeps.load(SeqCst) && self.sleeps.swap(false, SeqCst);
        if wakes {
            self.sent.fetch_add(1, SeqCst);
        }
        wakes
    }
}

type Job = Box<dyn FnOnce() + Send>;

impl Worker {
    /// Starts a thread named `name`.
    ///
    /// # Errors
    /// The error of the system if it cannot start a thread.
    pub fn start(name: &str) -> io::Result<Self> {
        Self::spawn(name, false, |jobs, line| jobs.into_iter().for_each(|job| line.run(job)))
    }

    /// As [`start`](Self::start); the thread does `idle` once after each run of jobs, when no job has come for so long.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_idling(
        name: &str,
        after: Duration,
        mut idle: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        Self::spawn(name, true, move |jobs, line| {
            while let Ok(job) = jobs.recv() {
                line.sleeps.store(false, SeqCst);
                line.run(job);
                loop {
                    let in_place = line.in_place.load(SeqCst);
                    match jobs.recv_timeout(after) {
                        Ok(job) => line.run(job),
                        Err(mpsc::RecvTimeoutError::Timeout) if line.in_place.load(SeqCst) != in_place => {}
                        Err(mpsc::RecvTimeoutError::Timeout) => {
                            let turn = line.turn.lock().unwrap_or_else(PoisonError::into_inner);
                            // A panic here has harmed no job, and must not end the thread.
                            drop(Panicked::catch(&mut idle));
                            // While nobody has the turn: the next job in place wakes this thread.
                            line.sleeps.store(true, SeqCst);
                            drop(turn);
                            break;
                        }
                        Err(mpsc::RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        })
    }

    fn spawn(
        name: &str,
        sleeps: bool,
        serve: impl FnOnce(mpsc::Receiver<Job>, &Line) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, received) = mpsc::channel();
        let line = Arc::new(Line { sleeps: AtomicBool::new(sleeps), ..Line::default() });
        let of_thread = Arc::clone(&line);
        let thread = Builder::new().name(name.to_owned()).spawn(move || {
            ON_WORKER.set(true);
            serve(received, &of_thread);
        })?;
        Ok(Self { jobs, _thread: Joined(Some(thread)), line })
    }

    /// Sends `job` at once, not at the first poll. The future returns what the job returned.
    ///
    /// # Errors
    /// [`Panicked`] if the job panicked. The thread goes on with the next job.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the job.
    pub fn run<T, F>(&self, job: F) -> impl Future<Output = Result<T, Panicked>> + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let started = self.begin(job);
        async {
            match started {
                Started::Done(done) => done,
                Started::Sent(outcome) => outcome.await.unwrap_or_else(|_| Err(Panicked::thread_has_ended())),
            }
        }
    }

    /// Returns whether the caller runs on the thread of a worker. What waits for such a thread must not wait there: a job
    /// may hold the last handle of its store.
    #[must_use]
    pub fn is_this_thread() -> bool {
        ON_WORKER.get()
    }

    fn begin<T, F>(&self, job: F) -> Started<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if may_block()
            && let Some(turn) = self.line.take_turn()
        {
            let done = Panicked::catch(job);
            drop(turn);
            if self.line.ran_in_place() {
                drop(self.jobs.send(Box::new(|| ())));
            }
            return Started::Done(done);
        }
        let (reply, outcome) = oneshot::channel();
        let job = Box::new(move || {
            // Sending fails if the future was dropped. What the job did stands.
            drop(reply.send(Panicked::catch(job)));
        });
        // Sending fails if the thread has ended. `reply` is dropped with the job then, and the future returns an error.
        self.line.sent.fetch_add(1, SeqCst);
        drop(self.jobs.send(job));
        Started::Sent(outcome)
    }
}

thread_local! {
    /// Whether this is the thread of a worker. A job can hold the last handle of a store. Dropping that handle on the
    /// worker's thread must not wait for the thread: it would wait for itself.
    static ON_WORKER: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug)]
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take().filter(|_| !Worker::is_this_thread()) {
            // Every job is contained, so that there is no panic to pass on.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::executor::block_on;

    use super::*;
    use crate::driver::blocking;

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
        let worker = Worker::start_idling("test", after, work).unwrap();
        for _ in 0..3 {
            block_on(worker.run(|| ())).unwrap();
            assert_eq!(was_done.recv(), Ok("idle"));
            assert_eq!(was_done.try_recv(), Err(mpsc::TryRecvError::Empty), "once");
        }
        drop(worker);
        assert_eq!(was_done.recv(), Err(mpsc::RecvError));

        // A job in place is one, too.
        let (done, was_done) = mpsc::channel();
        let (after, work) = (Duration::ZERO, Box::new(move || done.send("idle").unwrap()));
        let worker = Worker::start_idling("test", after, work).unwrap();
        for _ in 0..3 {
            blocking(|| block_on(worker.run(|| ()))).unwrap();
            assert_eq!(was_done.recv_timeout(Duration::from_secs(60)), Ok("idle"));
        }
        drop(worker);

        let (after, work) = (Duration::MAX, Box::new(|| panic!("it was never idle")));
        let worker = Worker::start_idling("test", after, work).unwrap();
        assert_eq!(block_on(worker.run(|| 8)).unwrap(), 8);
        assert_eq!(block_on(worker.run(|| 9)).unwrap(), 9);
    }

    /// Goal: a job runs in place where the thread may block, and never before one that was sent. Method: the threads on
    /// which jobs run, with the worker idle and with one that waits.
    #[test]
    fn a_job_runs_in_place_where_it_may_block_and_keeps_its_order() {
        let worker = Worker::start("test").unwrap();
        let here = std::thread::current().id();
        let id = || std::thread::current().id();
        assert_ne!(block_on(worker.run(id)).unwrap(), here);
        // The answer of a job comes shortly before its end.
        while worker.line.take_turn().is_none() {
            std::thread::yield_now();
        }
        blocking(|| {
            assert_eq!(block_on(worker.run(id)).unwrap(), here);
            let error = block_on(worker.run(|| panic!("seven"))).unwrap_err();
            assert!(error.to_string().contains("seven"));
            assert_eq!(block_on(worker.run(id)).unwrap(), here, "after a panic");
        });
        let (goes, go) = mpsc::channel::<()>();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = |n| {
            let seen = Arc::clone(&seen);
            move || seen.lock().unwrap().push(n)
        };
        let first = note(1);
        let waits = worker.run(move || {
            go.recv().unwrap();
            first();
        });
        let behind = blocking(|| worker.run(note(2)));
        goes.send(()).unwrap();
        block_on(waits).unwrap();
        block_on(behind).unwrap();
        assert_eq!(*seen.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn a_worker_that_goes_with_its_own_job_waits_for_nobody() {
        let worker = Arc::new(Mutex::new(None::<Worker>));
        let (done, is_done) = mpsc::channel();
        *worker.lock().unwrap() = Some(Worker::start("test").unwrap());
        let held = Arc::clone(&worker);
        let job = worker.lock().unwrap().as_ref().unwrap().run(move || {
            drop(held.lock().unwrap().take());
            done.send(Worker::is_this_thread()).unwrap();
        });
        drop(job);
        assert!(is_done.recv().unwrap() && !Worker::is_this_thread());
    }

    #[test]
    fn a_job_that_panics_is_an_error_and_the_thread_lives_on() {
        let worker = Worker::start("test").unwrap();
        let error = block_on(worker.run(|| panic!("seven"))).unwrap_err();
        assert!(error.to_string().contains("seven"));
        assert_eq!(block_on(worker.run(|| 8)).unwrap(), 8);
    }
}

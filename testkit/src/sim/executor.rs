//! Runs tasks on one thread, one poll at a time, in an order drawn from the seed.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};

/// The tasks of a run.
#[derive(Default)]
pub(super) struct Executor {
    tasks: Vec<Task>,
    next: u64,
}

/// A task of a process, which is its owner.
struct Task {
    number: u64,
    owner: Option<usize>,
    future: Pin<Box<dyn Future<Output = ()>>>,
    woken: Arc<Woken>,
    /// How many polls are left before it is dropped; no bound, if this is `None`.
    polls_left: Option<u8>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// A poll of a task.
pub(super) struct Polled {
    /// The number of the task.
    pub(super) number: u64,
    /// The message, if the task panicked.
    pub(super) panic: Option<String>,
}

impl Executor {
    pub(super) fn spawn(&mut self, owner: Option<usize>, future: impl Future<Output = ()> + 'static) {
        self.spawn_for(owner, None, future);
    }

    /// Spawns a task that is dropped after `polls` polls.
    pub(super) fn spawn_for(
        &mut self,
        owner: Option<usize>,
        polls: Option<u8>,
        future: impl Future<Output = ()> + 'static,
    ) {
        self.next += 1;
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let future = Box::pin(future);
        self.tasks.push(Task { number: self.next, owner, future, woken, polls_left: polls });
    }

    /// Drops every task of `owner` where it stands.
    pub(super) fn kill(&mut self, owner: usize) {
        self.tasks.retain(|task| task.owner != Some(owner));
    }

    /// Polls one of the tasks that were woken and whose owner is not `paused`; `None` if there is no such task.
    pub(super) fn step(&mut self, rng: &mut fastrand::Rng, paused: impl Fn(usize) -> bool) -> Option<Polled> {
        let can_go_on = |task: &Task| task.woken.0.load(SeqCst) && !task.owner.is_some_and(&paused);
        let ready: Vec<usize> =
            self.tasks.iter().enumerate().filter(|(_, task)| can_go_on(task)).map(|(at, _)| at).collect();
        let at = *rng.choice(&ready)?;
        let task = &mut self.tasks[at];
        task.woken.0.store(false, SeqCst);
        let number = task.number;
        let waker = Waker::from(Arc::clone(&task.woken));
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| task.future.as_mut().poll(&mut context)));
        let mut done = false;
        let mut panic = None;
        match polled {
            Ok(Poll::Ready(())) => done = true,
            Ok(Poll::Pending) => {
                if let Some(left) = &mut task.polls_left {
                    *left -= 1;
                    done = *left == 0;
                }
            }
            Err(payload) => {
                let text = payload.downcast_ref::<&str>().map(ToString::to_string);
                let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                panic = Some(text.unwrap_or_else(|| "a panic without a message".into()));
                done = true;
            }
        }
        if done {
            drop(self.tasks.remove(at));
        }
        Some(Polled { number, panic })
    }
}

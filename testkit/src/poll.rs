//! Polling by hand, by which a test decides where a future stops.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Polls `future` at most `polls` times, then drops it. Returns `None` if it had not finished.
///
/// Between polls this waits for the waker, since the future may be waiting for another thread; it neither spins nor
/// sleeps. After the last poll it does not wait: the future is dropped while its work is still under way.
pub fn poll_at_most<Fut: Future>(polls: usize, future: Fut) -> Option<Fut::Output> {
    poll_then_drop(polls, future, false)
}

/// As [`poll_at_most`], but waits for the waker after the last poll too: the future is dropped when its work has ended
/// and it could have gone on.
pub fn poll_at_most_until_woken<Fut: Future>(polls: usize, future: Fut) -> Option<Fut::Output> {
    poll_then_drop(polls, future, true)
}

fn poll_then_drop<Fut: Future>(polls: usize, future: Fut, wait_at_the_end: bool) -> Option<Fut::Output> {
    let mut future = pin!(future);
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    for poll in 1..=polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if poll < polls || wait_at_the_end {
            signal.wait();
        }
    }
    None
}

static PATIENCE_SECONDS: AtomicU64 = AtomicU64::new(10);

/// How long a call may take that must not wait for something else. No call of a list takes a tenth of it.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(PATIENCE_SECONDS.load(Ordering::Relaxed))
}

/// Sets that time for this process: for tests of stores that are known to wait.
#[doc(hidden)]
pub fn be_patient_for(seconds: u64) {
    PATIENCE_SECONDS.store(seconds, Ordering::Relaxed);
}

/// Polls `future` until it has finished; `None` if nothing has woken it for so long that it must be waiting.
pub(crate) fn block_on_patiently<Fut: Future>(future: Fut) -> Option<Fut::Output> {
    let mut future = pin!(future);
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        if !signal.wait_for(patience()) {
            return None;
        }
    }
}

/// Polls `first` at most `lead` times, then both in turn until both have finished. Returns both outputs, and whether
/// `first` was still running when `second` started.
pub fn interleave<A: Future, B: Future>(lead: usize, first: A, second: B) -> (A::Output, B::Output, bool) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut first_output, mut second_output) = (None, None);
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let context = &mut Context::from_waker(&waker);

    for poll in 1..=lead {
        advance(first.as_mut(), &mut first_output, context);
        if first_output.is_some() {
            break;
        }
        if poll < lead {
            signal.wait();
        }
    }
    let overlapped = first_output.is_none();
    loop {
        advance(second.as_mut(), &mut second_output, context);
        advance(first.as_mut(), &mut first_output, context);
        match (first_output.take(), second_output.take()) {
            (Some(first), Some(second)) => return (first, second, overlapped),
            outputs => (first_output, second_output) = outputs,
        }
        signal.wait();
    }
}

fn advance<Fut: Future>(future: Pin<&mut Fut>, output: &mut Option<Fut::Output>, context: &mut Context<'_>) {
    if output.is_none()
        && let Poll::Ready(ready) = future.poll(context)
    {
        *output = Some(ready);
    }
}

/// Gives way once: pending at the first poll, ready at the second. Makes a place where a future can be dropped, and
/// where other futures run.
pub(crate) async fn give_way() {
    let mut gave_way = false;
    std::future::poll_fn(|context| {
        if gave_way {
            return Poll::Ready(());
        }
        gave_way = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A waker that a thread can wait for.
#[derive(Default)]
struct Signal {
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*woken {
            woken = self.changed.wait(woken).unwrap_or_else(PoisonError::into_inner);
        }
        *woken = false;
    }

    /// Waits so long at most; returns whether it was woken.
    fn wait_for(&self, time_max: Duration) -> bool {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(woken, time_max, |woken| !*woken);
        let (mut woken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *woken)
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_future_is_polled_so_often_and_no_oftener() {
        let reached = Cell::new(0);
        let steps = || async {
            for step in 1..=3 {
                reached.set(step);
                give_way().await;
            }
        };
        for (polls, expected) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
            reached.set(0);
            assert_eq!(poll_at_most(polls, steps()), None);
            assert_eq!(reached.get(), expected);
        }
        assert_eq!(poll_at_most(4, steps()), Some(()));
        assert_eq!(poll_at_most_until_woken(2, steps()), None);
    }

    #[test]
    fn a_poll_waits_for_another_thread() {
        let (sender, receiver) = futures::channel::oneshot::channel();
        std::thread::spawn(move || sender.send(7));
        assert_eq!(poll_at_most(2, receiver), Some(Ok(7)));
    }

    /// Goal: the work of another thread is waited for before the future is dropped. Method: a thread that begins at the last
    /// poll.
    #[test]
    fn a_future_may_be_dropped_when_it_could_have_gone_on() {
        let worked = Arc::new(AtomicU64::new(0));
        let by_thread = Arc::clone(&worked);
        let future = std::future::poll_fn(move |context| {
            let (waker, worked) = (context.waker().clone(), Arc::clone(&by_thread));
            std::thread::spawn(move || {
                worked.fetch_add(1, Ordering::SeqCst);
                waker.wake();
            });
            Poll::<()>::Pending
        });
        assert_eq!(poll_at_most_until_woken(1, future), None);
        assert_eq!(worked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn two_futures_take_turns_after_the_lead() {
        let trace = std::cell::RefCell::new(String::new());
        let letters = |letter| {
            let trace = &trace;
            async move {
                for _ in 0..3 {
                    trace.borrow_mut().push(letter);
                    give_way().await;
                }
            }
        };
        let (.., overlapped) = interleave(2, letters('a'), letters('b'));
        assert!(overlapped);
        assert_eq!(*trace.borrow(), "aababb");
        assert!(!interleave(4, letters('a'), letters('b')).2);
    }
}

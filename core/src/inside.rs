//! Marks the threads that run code of the app for a replica: such code must not wait for that replica.
//!
//! A closure of `update` runs in the driver's task, one of `with_tx` where the store writes. A commit that the closure
//! waits for would come after the closure itself: both would wait for ever. The mark lies in the thread, so that the
//! call from inside is refused at once.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;

use crate::error::Error;
use crate::ids::ReplicaId;

thread_local! {
    /// The replicas whose code this thread runs, the innermost last; `None` stands for any replica.
    static INSIDE: RefCell<Vec<Option<ReplicaId>>> = const { RefCell::new(Vec::new()) };
}

/// This thread runs code for a replica until this is dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Mark(PhantomData<*const ()>);

/// Marks this thread: it runs code for the replica `me`, or for one that is not known here.
pub(crate) fn enter(me: impl Into<Option<ReplicaId>>) -> Mark {
    let me = me.into();
    INSIDE.with_borrow_mut(|inside| inside.push(me));
    // Not `Send`: the mark belongs to this thread.
    Mark(PhantomData)
}

impl Drop for Mark {
    fn drop(&mut self) {
        INSIDE.with_borrow_mut(Vec::pop);
    }
}

/// Whether this thread runs code for the replica `me`.
pub(crate) fn is_inside(me: ReplicaId) -> bool {
    INSIDE.with_borrow(|inside| inside.iter().any(|entered| entered.is_none_or(|entered| entered == me)))
}

/// Fails if this thread runs code for the replica `me`, so that waiting for `me` would never end.
pub(crate) fn check(me: ReplicaId) -> Result<(), Error> {
    if is_inside(me) { Err(Error::InsideClosure) } else { Ok(()) }
}

/// Runs `future`; whoever polls it is inside of `me` meanwhile.
pub(crate) async fn while_polled<T>(me: ReplicaId, mut future: Pin<&mut impl Future<Output = T>>) -> T {
    poll_fn(|context| {
        let _inside = enter(me);
        future.as_mut().poll(context)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;
    use std::pin::pin;

    use futures::FutureExt;
    use uuid::Uuid;

    use super::*;

    const A: ReplicaId = ReplicaId(Uuid::from_u128(1));
    const B: ReplicaId = ReplicaId(Uuid::from_u128(2));

    /// Goal: a thread is inside exactly while it runs code of that replica. Method: marks within marks, a panic, a
    /// future between two polls.
    #[test]
    fn a_thread_is_inside_while_it_runs_the_code() {
        let seen = || (is_inside(A), is_inside(B));
        assert_eq!(seen(), (false, false));
        let a = enter(A);
        assert_eq!(seen(), (true, false));
        let b = enter(B);
        assert_eq!(seen(), (true, true), "the outer code waits too");
        drop(b);
        assert!(
            catch_unwind(|| {
                let _inside = enter(B);
                panic!("in the closure");
            })
            .is_err()
        );
        assert_eq!(seen(), (true, false));
        drop(a);
        let any = enter(None);
        assert_eq!(seen(), (true, true));
        drop(any);
        let mut polled = Vec::new();
        let waits = pin!(poll_fn(|_| {
            polled.push(seen());
            std::task::Poll::<()>::Pending
        }));
        assert!(while_polled(A, waits).now_or_never().is_none());
        assert_eq!(seen(), (false, false), "between two polls");
        assert_eq!(polled, [(true, false)]);
    }
}

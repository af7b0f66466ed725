//! Adding: calls of the app that wait for a replica to say on which device it wants to be added.
//!
//! Owns: the calls, each with the moment until which it waits. Holds always: a call is answered once, by the knock or by
//! the end of its time.

use crate::clock::Mono;
use crate::ids::ReplicaId;

use super::Machine;
use super::backoff::after;
use super::io::Ticket;

/// How long a call waits for a knock: a joiner says hello about every two seconds.
const KNOCK_WAIT_MS: u64 = 5_000;

/// A call that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    until: Mono,
    replica: ReplicaId,
    ticket: Ticket,
}

/// The calls that wait for a knock.
#[derive(Debug, Default)]
pub(super) struct Adding {
    waiting: Vec<Waiting>,
    /// The calls whose time has passed.
    silent: Vec<(Ticket, ReplicaId)>,
}

impl Adding {
    /// Takes a call that waits for `replica`.
    pub(super) fn wait(&mut self, ticket: Ticket, replica: ReplicaId, now: Mono) {
        self.waiting.push(Waiting { until: after(now, KNOCK_WAIT_MS), replica, ticket });
    }

    /// The calls that waited for `replica`, which has knocked.
    pub(super) fn knocked(&mut self, replica: ReplicaId) -> Vec<Ticket> {
        let (answered, waiting) = self.waiting.drain(..).partition(|waiting| waiting.replica == replica);
        self.waiting = waiting;
        answered.into_iter().map(|waiting: Waiting| waiting.ticket).collect()
    }

    /// The calls that waited in vain, each with the replica that has not knocked.
    pub(super) fn take_silent(&mut self) -> Vec<(Ticket, ReplicaId)> {
        std::mem::take(&mut self.silent)
    }
}

impl Machine for Adding {
    fn next_timeout(&self) -> Option<Mono> {
        self.waiting.iter().map(|waiting| waiting.until).min()
    }

    fn expire(&mut self, now: Mono) {
        let Self { waiting, silent } = self;
        waiting.retain(|call| {
            let waits = call.until > now;
            if !waits {
                silent.push((call.ticket, call.replica));
            }
            waits
        });
    }

    fn check(&self) {
        assert!(self.silent.is_empty(), "who waited in vain was not answered: {:?}", self.silent);
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::{B, C};
    use super::*;

    #[test]
    fn a_call_is_answered_by_the_knock_or_by_the_end_of_its_time() {
        let mut adding = Adding::default();
        adding.wait(Ticket(1), B, Mono(100));
        adding.wait(Ticket(2), C, Mono(200));
        adding.wait(Ticket(3), B, Mono(300));
        assert_eq!(adding.next_timeout(), Some(Mono(100 + KNOCK_WAIT_MS)));
        assert_eq!(adding.knocked(B), [Ticket(1), Ticket(3)]);
        assert_eq!((adding.knocked(B), adding.next_timeout()), (vec![], Some(Mono(200 + KNOCK_WAIT_MS))));
        adding.expire(Mono(199 + KNOCK_WAIT_MS));
        assert_eq!(adding.take_silent(), []);
        adding.expire(Mono(200 + KNOCK_WAIT_MS));
        assert_eq!(adding.next_timeout(), None, "what is due is no moment to wait for");
        assert_eq!((adding.take_silent(), adding.take_silent()), (vec![(Ticket(2), C)], vec![]));
        assert_eq!(adding.knocked(C), [], "it was answered");
        adding.check();
    }
}

//! Goal: a joined write is a write of its own, and counts only if its transaction does. Method: the transaction is
//! committed, or undone, by hand.

use super::*;
use crate::joined::Undone;
use crate::projection::{Mended, Next};
use crate::storage::BoxError;

#[test]
fn a_joined_write_is_a_write_of_its_own_in_the_order_of_the_calls() {
    let mut world = World::new(Rules::default());
    world.submit(vec![tag(1, "a")]);
    let first = world.up_to_write().unwrap();
    world.submit(vec![tag(2, "b")]);
    world.submit_joined(vec![rename(2, "+")]);
    world.submit(vec![rename(2, "+")]);
    world.submit(vec![rename(2, "+")]);
    world.written(first);
    world.settle();
    assert_eq!(world.writes.len(), 4, "alone, before, joined, behind");
    assert_eq!(world.changes().iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert_eq!(world.stored_tags()[&2], "b+++");
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_that_was_undone_leaves_the_pen_as_it_was() {
    let mut world = World::new(Rules::default());
    let (before, stamped) = (world.head(), world.drawn());
    world.submit_joined(vec![tag(1, "a")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.settle();
    assert!(matches!(world.replies[..], [(1, Err(Error::Rejected(_)))]));
    assert_eq!(world.drawn(), stamped, "no stamp was shown");
    assert_eq!(world.head(), before);
    world.submit_joined(vec![tag(1, "a")]);
    world.settle();
    assert_eq!(world.changes(), [(2, ChangeKind::Insert)]);
    assert_eq!(world.audit(), []);
}

#[test]
fn a_joined_write_that_changes_nothing_is_answered_without_an_event() {
    let mut world = World::new(Rules::default());
    world.commit(vec![tag(1, "a")]).unwrap();
    world.notices.clear();
    let ticket = world.submit_joined(vec![tag(1, "a")]);
    world.settle();
    assert!(matches!(world.replies[..], [(replied, Ok(()))] if replied == ticket));
    assert!(world.notices.is_empty() && world.writes.len() == 1);
}

#[test]
fn a_joined_write_that_stores_no_clock_shows_none() {
    let mut world = World::new(Rules::default());
    let shown = world.engine.report().clock;
    world.submit(vec![tag(1, "a")]);
    world.up_to_write().unwrap();
    world.rejected();
    world.submit_joined(Vec::new());
    world.settle();
    assert!(world.drawn() > shown, "a stamp was drawn");
    assert_eq!(world.engine.report().clock, shown, "and never stored");
}

/// A replica that may not commit keeps the app's own statements, and no change of a record; also those that waited when
/// it learnt that its store was restored.
#[test]
fn a_joined_write_without_changes_needs_no_right_to_commit() {
    let joiner = World::asking(Ask { introducer: Some(B), ..networked(Rules::ALL) });
    let mut restored = World::connected(Rules::ALL);
    let waited = [restored.submit_joined(Vec::new()), restored.submit_joined(vec![tag(1, "a")])];
    restored.feed(B, wire::regressed(GROUP, &WireHead { stream: C, seq: 3, digest: [7; 32] }));
    restored.settle();
    assert_answers(&restored, waited, |error| matches!(error, Error::Restored(_)));
    for (mut world, refused) in [
        (joiner, (|error| matches!(error, Error::Joining { replica: REPLICA, .. })) as fn(&Error) -> bool),
        (restored, |error| matches!(error, Error::Restored(_))),
    ] {
        let before = world.head();
        let calls = [world.submit_joined(Vec::new()), world.submit_joined(vec![tag(1, "a")])];
        world.settle();
        assert_answers(&world, calls, refused);
        assert_eq!((world.head(), world.changes().len()), (before, 0));
        assert_eq!(world.audit(), []);
    }
}

/// The first call was done, the second one refused.
fn assert_answers(world: &World, [own, changes]: [u64; 2], refused: impl Fn(&Error) -> bool) {
    let answer =
        |call: u64| world.replies.iter().find(|(ticket, _)| *ticket == call).map(|(_, answer)| answer);
    assert!(matches!(answer(own), Some(Ok(()))), "{:?}", answer(own));
    assert!(matches!(answer(changes), Some(Err(error)) if refused(error)), "{:?}", answer(changes));
}

impl World {
    /// Performs effects up to the next round of projected commits.
    fn next_round(&mut self) -> Option<Effect> {
        while let Some(effect) = self.engine.next_effect() {
            match effect {
                Effect::Reply(Ticket(ticket), result) => self.replies.push((ticket, result)),
                Effect::Mend(job) => self.handle(Input::Mended(job, Mended { told: None, next: Next::Done })),
                round @ Effect::Round(..) => return Some(round),
                _ => {}
            }
        }
        None
    }

    fn assert_rejected(&self, calls: &[u64]) {
        for call in calls {
            let answers: Vec<_> = self.replies.iter().filter(|(ticket, _)| ticket == call).collect();
            assert!(matches!(answers[..], [(_, Err(Error::Rejected(_)))]), "{call}: {answers:?}");
        }
    }
}

/// A round of projected commits that failed as a whole, since the store was busy for instance, is answered at once. If one
/// of its commits failed, each is tried alone, in their order.
#[test]
fn a_round_that_failed_is_answered_or_tried_one_by_one() {
    let projected = || vec![RecordKey::range_of_model::<Tag>()];
    let rejected = || Error::Rejected(Arc::from(BoxError::from("busy")));
    let begin = || {
        let mut world = World::asking(Ask { projected: projected(), ..networked(Rules::ALL) });
        // The first commit has a round to itself: the others come while it is under way.
        let first = world.submit(vec![tag(0, "a")]);
        let Some(Effect::Round(job, round, _)) = world.next_round() else { panic!("it begins a round") };
        assert_eq!(round.len(), 1);
        let tickets: Vec<_> = (1..4).map(|id| world.submit(vec![tag(id, "a")])).collect();
        world.handle(Input::Joined(job, Err(Undone::All(rejected()))));
        let Some(Effect::Round(job, round, _)) = world.next_round() else { panic!("the others follow") };
        let found: Vec<_> = round.iter().map(|(ticket, _)| ticket.0).collect();
        assert_eq!(found, tickets);
        world.assert_rejected(&[first]);
        (world, tickets, job)
    };
    let (mut world, tickets, job) = begin();
    world.handle(Input::Joined(job, Err(Undone::All(rejected()))));
    assert!(world.next_round().is_none());
    world.assert_rejected(&tickets);

    let (mut world, tickets, mut job) = begin();
    for (at, ticket) in tickets.iter().enumerate() {
        let failed = if at == 0 { Undone::OneOf(rejected()) } else { Undone::All(rejected()) };
        world.handle(Input::Joined(job, Err(failed)));
        let Some(Effect::Round(next, round, _)) = world.next_round() else {
            panic!("{ticket} is tried alone")
        };
        assert_eq!(round.iter().map(|(ticket, _)| ticket.0).collect::<Vec<_>>(), [*ticket]);
        job = next;
    }
    world.handle(Input::Joined(job, Err(Undone::OneOf(rejected()))));
    assert!(world.next_round().is_none(), "alone is alone");
    world.assert_rejected(&tickets);
}

/// A proof may come while a round of projected commits is in the store's hands. If that round then fails, its callers hear
/// why no other one is made: told that it failed, an app would try again for ever.
#[test]
fn a_projected_round_that_fails_on_a_restored_store_is_refused() {
    let projected = vec![RecordKey::range_of_model::<Tag>()];
    let mut world = World::connected(Rules::ALL);
    world.reopen(Ask { projected, ..networked(Rules::ALL) });
    world.handle(Input::Up(B));
    let ticket = world.submit(vec![tag(0, "a")]);
    let Some(Effect::Round(job, ..)) = world.next_round() else { panic!("it begins a round") };
    let head = WireHead { stream: C, seq: 3, digest: [7; 32] };
    world.handle(Input::Frame(B, wire::regressed(GROUP, &head)));
    let busy = Error::Rejected(Arc::from(BoxError::from("busy")));
    world.handle(Input::Joined(job, Err(Undone::All(busy))));
    assert!(world.next_round().is_none());
    let answer = world.replies.last();
    assert!(matches!(answer, Some((answered, Err(Error::Restored(_)))) if *answered == ticket), "{answer:?}");
}

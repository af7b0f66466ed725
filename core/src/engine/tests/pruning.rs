//! Goal: the log and the tombstones that every member has are dropped, and nothing that is still needed. Method: members
//! acknowledge and stay away as a test says; a rule that is switched off makes its history go wrong.

use super::*;
use crate::stored::{FormatError, forgotten_value};

/// A change that puts a bag.
fn bag(id: u32, items: &[u32]) -> Staged {
    let bag = Bag { id, items: items.iter().copied().collect() };
    Staged { own_merge: true, ..put(&bag) }
}

fn epoch_of(world: &World, id: u32) -> Hlc {
    let stored = world.get(RecordKey::new::<Bag>(&id).into_bytes()).unwrap();
    record::parse(&stored).unwrap().0.merge.unwrap().epoch
}

// --- forgotten stamps -------------------------------------------------------------------------------------------------

/// The tombstone is gone, and a put that it beat may still come: it must not mix with the new value.
#[test]
fn a_record_begins_in_the_epoch_that_was_forgotten_of_its_model() {
    let mut world = World::connected(Rules::ALL);
    let forgotten = Hlc::new(WallMs::new(900_000).unwrap(), 3, B);
    let mut batch = WriteBatch::new();
    batch.put(keys::forgotten(Bag::SYNC_MODEL), forgotten_value(forgotten));
    block_on(world.store.write(batch)).unwrap();
    world.reopen(networked(Rules::ALL));
    assert!(
        world.drawn() > forgotten || world.drawn().wall() == forgotten.wall(),
        "the clock is not below it"
    );
    world.commit(vec![bag(1, &[1]), tag(1, "red")]).unwrap();
    assert_eq!(epoch_of(&world, 1), forgotten);
    let joined = world.submit_joined(vec![bag(2, &[2])]);
    world.settle();
    assert!(world.replies.iter().any(|(ticket, reply)| *ticket == joined && reply.is_ok()));
    assert_eq!(epoch_of(&world, 2), forgotten, "a joined write too");
    assert_eq!(world.audit(), []);

    // A put from before the delete is beaten, and one of the new epoch is merged.
    let mut b = Author::new(B, B_DEVICE);
    world.feed(B, live(&[&b.commit(&[], vec![bagged(1, &[7], Hlc::NEVER)])]));
    assert_eq!(world.bag(1).unwrap(), [1]);
    b.wall = 950_000;
    world.now = now(950_000);
    world.feed(B, live(&[&b.commit(&[], vec![bagged(1, &[8], forgotten)])]));
    assert_eq!(world.bag(1).unwrap(), [1, 8]);
}

/// A stamp of nobody would put every new record of its model into an epoch of its own.
#[test]
fn a_damaged_forgotten_stamp_is_an_error_at_the_opening() {
    let world = World::connected(Rules::ALL);
    let mut row = forgotten_value(Hlc::new(WallMs::new(1000).unwrap(), 0, B));
    row[3] ^= 1;
    let mut batch = WriteBatch::new();
    batch.put(keys::forgotten(Bag::SYNC_MODEL), row);
    block_on(world.store.write(batch)).unwrap();
    let opened = open_engine(&world.store, networked(Rules::ALL), now(2000));
    assert!(matches!(opened, Err(OpenError::Format { source: FormatError::Damaged { .. }, .. })));
    assert_eq!(world.audit(), [Rule::Format]);
}

//! Goal: an engine opens only the store that was meant, and no damaged one makes it panic. Method: stores that differ from
//! a whole one in one point.

use super::*;

#[test]
fn the_founder_is_the_first_member_and_the_first_commit() {
    let world = World::new(Rules::default());
    let head = world.head();
    assert_eq!((head.seq, head.floor), (1, 0));
    assert_eq!(world.engine.report().members, [REPLICA]);
    let entry = world.logged(1);
    assert_eq!(entry.changes[0].record.model(), "syncline.member");
    assert_eq!(world.audit(), []);
}

#[test]
fn opening_checks_the_store_against_what_was_asked_for() {
    let world = World::new(Rules::default());
    let other_group = Ask { group: Some(GroupId(Uuid::from_u128(1))), ..ask(Rules::default()) };
    let other_device = Ask { device: Some(DeviceId(Uuid::from_u128(1))), ..ask(Rules::default()) };
    let nothing = || Ask { group: None, device: None, ..ask(Rules::default()) };
    assert!(matches!(open_engine(&world.store, other_group, now(1)), Err(OpenError::OtherGroup { .. })));
    assert!(matches!(open_engine(&world.store, other_device, now(1)), Err(OpenError::OtherDevice { .. })));
    let reopened = open_engine(&world.store, nothing(), now(1)).unwrap();
    assert_eq!(reopened.identity(), world.engine.identity());

    let empty = Map::default();
    assert!(matches!(open_engine(&empty, nothing(), now(1)), Err(OpenError::NoGroup { .. })));
    let broken_clock = Now { wall: Err(ClockError::Before1970), mono: Mono(0) };
    assert!(matches!(open_engine(&empty, ask(Rules::default()), broken_clock), Err(OpenError::Clock(_))));
    assert!(empty.0.lock().unwrap().is_empty(), "nothing was written");
    let no_device = Ask { device: None, ..ask(Rules::default()) };
    let drawn = open_engine(&Map::default(), no_device, now(1)).unwrap();
    assert_eq!(drawn.identity().device, ask(Rules::default()).new_device, "a new store draws its device");
    empty.0.lock().unwrap().insert(b"other".to_vec(), vec![]);
    assert!(matches!(open_engine(&empty, ask(Rules::default()), now(1)), Err(OpenError::NotAStore { .. })));
}

#[test]
fn opening_a_damaged_store_is_an_error() {
    let world = World::new(Rules::default());
    let whole = world.store.0.lock().unwrap().clone();
    for key in whole.keys() {
        for damage in [None, Some(vec![]), Some(vec![1]), Some(vec![2; 60])] {
            let mut map = whole.clone();
            match damage.clone() {
                None => drop(map.remove(key)),
                Some(value) => drop(map.insert(key.clone(), value)),
            }
            let damaged = Map(Mutex::new(map));
            // An engine opens without some of these rows, but the audit sees the damage in every one of them.
            let _ = open_engine(&damaged, ask(Rules::default()), now(1));
            let missing_model =
                damage.is_none() && matches!(StoredKey::parse(key), Some(StoredKey::Model(_)));
            assert_eq!(block_on(audit(&damaged)).is_empty(), missing_model, "{key:02x?} {damage:?}");
        }
    }
}

//! Goal: `audit` sees all damage, so that the other tests may rely on it. Method: every bit of a store is flipped, and rows
//! are added that belong to nothing.

use super::*;
use crate::stored::clock_value;

#[test]
fn the_audit_notices_every_byte_that_matters() {
    let mut world = World::unpruned();
    let spot = |name: &str| put(&Spot { id: 1, device_id: DEVICE, name: name.into() });
    for changes in
        [vec![tag(1, "a"), tag(2, "b"), spot("c")], vec![tag(1, "d"), spot("e")], vec![untag(2), tag(3, "f")]]
    {
        world.commit(changes).unwrap();
    }
    assert_eq!(world.audit(), []);
    let whole = world.store.0.lock().unwrap().clone();
    let mut unnoticed = Vec::new();
    for (key, value) in &whole {
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut map = whole.clone();
                map.get_mut(key).unwrap()[at] ^= 1 << bit;
                if block_on(audit(&Map(Mutex::new(map)))).is_empty() {
                    unnoticed.push((StoredKey::parse(key).unwrap(), at));
                }
            }
        }
    }
    // No other row of a store says the schemas that its apps had; and a clock may stand above every stamp. So a change
    // of these bytes cannot be noticed.
    unnoticed.retain(|(key, at)| match key {
        StoredKey::Clock | StoredKey::Model(_) => *at == 0,
        // A head may name a longer row than its log has.
        StoredKey::Head(_) => *at < 89,
        _ => true,
    });
    assert_eq!(unnoticed, []);
}

#[test]
fn the_audit_notices_rows_that_belong_to_nothing() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap();
    world.commit(vec![untag(1), put(&Spot { id: 1, device_id: DEVICE, name: "c".into() })]).unwrap();
    let stranger = ReplicaId(Uuid::from_u128(0x77));
    let tag_key = RecordKey::new::<Tag>(&1);
    let spot_key = RecordKey::new::<Spot>(&(DEVICE, 1));
    let foreign = RecordKey::new::<Spot>(&(DeviceId(Uuid::from_u128(0x78)), 1));
    let record = world.get(spot_key.clone().into_bytes()).unwrap();
    for (key, value, rule) in [
        (keys::log(stranger, 1), b"garbage".to_vec(), Rule::LogIsWhole),
        (keys::log(REPLICA, u64::MAX), vec![], Rule::LogIsWhole),
        (keys::kept(stranger, 1, &tag_key), vec![], Rule::LogIsWhole),
        (keys::kept(REPLICA, 3, &tag_key), vec![], Rule::KeptIsNeeded),
        (keys::kept(REPLICA, 3, &spot_key), vec![], Rule::KeptIsNeeded),
        (keys::kept(REPLICA, 9, &tag_key), vec![], Rule::KeptIsNeeded),
        (foreign.into_bytes(), record.clone(), Rule::Devices),
        (RecordKey::new::<Tag>(&9).into_bytes(), record, Rule::LogExplainsRecord),
        (vec![0xff], vec![], Rule::Format),
    ] {
        let mut map = world.store.0.lock().unwrap().clone();
        map.insert(key.clone(), value);
        let found: Vec<_> =
            block_on(audit(&Map(Mutex::new(map)))).into_iter().map(|found| found.rule).collect();
        assert!(found.contains(&rule), "{:?}: {found:?}", StoredKey::parse(&key));
    }
}

/// The rules that a store breaks once `change` has been made to its rows.
fn broken_by(world: &World, change: impl FnOnce(&mut BTreeMap<Key, Value>)) -> Vec<Rule> {
    let mut map = world.store.0.lock().unwrap().clone();
    change(&mut map);
    block_on(audit(&Map(Mutex::new(map)))).into_iter().map(|found| found.rule).collect()
}

/// The stamps of one millisecond differ in their counters alone.
#[test]
fn the_audit_notices_a_clock_behind_a_stamp_of_the_same_millisecond() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap();
    world.commit(vec![tag(1, "b")]).unwrap();
    let last = world.head().stamp;
    let with_clock = |counter| {
        let clock = clock_value(Hlc::new(last.wall(), counter, REPLICA));
        broken_by(&world, |map| drop(map.insert(keys::clock(), clock)))
    };
    assert_eq!(with_clock(last.counter()), []);
    assert!(with_clock(last.counter() - 1).contains(&Rule::Clock));
}

/// A clock that stands far above all stamps does not hide a head with a stamp that no commit has.
#[test]
fn the_audit_compares_the_stamp_of_a_head_with_the_one_of_its_commit() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap();
    let head = world.head();
    let later = |ms: u64| Hlc::new(WallMs::new(head.stamp.wall().get() + ms).unwrap(), 0, REPLICA);
    let with_stamp = |stamp| {
        broken_by(&world, |map| {
            map.insert(keys::clock(), clock_value(later(9)));
            map.insert(keys::head(REPLICA), Head { stamp, ..head }.to_value());
        })
    };
    assert_eq!(with_stamp(head.stamp), []);
    assert_eq!(with_stamp(later(1)), [Rule::Chain]);
}

/// A snapshot may bring a value that another app has merged of several commits, and that this one can only put beside the record:
/// it stands for all of them. A value of one commit stands for that one alone.
#[test]
fn the_audit_takes_a_merged_value_beside_a_record_for_the_commits_before_it() {
    let mut world = World::unpruned();
    let bag = |item: u32| put(&Bag { id: 1, items: BTreeSet::from([item]) });
    let key = RecordKey::new::<Bag>(&1);
    let record_of = |world: &World| world.get(key.as_bytes().to_vec()).unwrap();
    world.commit(vec![Staged { own_merge: true, ..bag(1) }]).unwrap();
    let first = record_of(&world);
    world.commit(vec![Staged { own_merge: true, ..bag(2) }]).unwrap();
    let seq = world.head().seq;
    world.commit(vec![Staged { own_merge: true, ..bag(3) }]).unwrap();
    let last = record_of(&world);
    let found = |mixed: bool| {
        broken_by(&world, |map| {
            let (old, value) = record::parse(&first).unwrap();
            let merge = old.merge.map(|merge| record::Merged { beside: true, ..merge });
            map.insert(key.as_bytes().to_vec(), record::of(&record::Header { merge, ..old }, value));
            let (new, value) = record::parse(&last).unwrap();
            let merge = new.merge.map(|merge| record::Merged { mixed, ..merge });
            let beside = record::of(&record::Header { merge, ..new }, value);
            map.insert(keys::beside(&key, REPLICA, seq + 1), beside);
        })
    };
    assert!(!found(true).contains(&Rule::RecordFollowsLog), "{:?}", found(true));
    assert!(found(false).contains(&Rule::RecordFollowsLog), "{:?}", found(false));
}

/// A delete that is missing is told by nothing else: it has no value that could be looked for.
#[test]
fn the_audit_notices_a_record_that_a_delete_did_not_reach() {
    let mut world = World::unpruned();
    world.commit(vec![tag(1, "a")]).unwrap();
    let (key, seq) = (RecordKey::new::<Tag>(&1), world.head().seq);
    let before = world.get(key.as_bytes().to_vec()).unwrap();
    world.commit(vec![untag(1)]).unwrap();
    let found = broken_by(&world, |map| {
        map.insert(key.as_bytes().to_vec(), before);
        map.remove(&keys::kept(REPLICA, seq, &key));
    });
    assert_eq!(found, [Rule::RecordFollowsLog]);
}

//! Goal: what a check mends is right also where more than the log is damaged: the records that hold its values, and the
//! tables that are derived from them. Method: bits of a replica's store are flipped under its engine, and made-up peers show
//! what they have.

use super::checking::{commits_of, flip, relay, remove};
use super::*;
use crate::projection::Settled;

/// A record of a value, one of a model with its own merge, and one that is deleted; each with the commit that wrote it.
fn records() -> (World, [(u64, Key); 3]) {
    let mut world = relay();
    let mut b = Author { seq: 4, digest: world.head_of(B).digest, wall: 5000, ..Author::new(B, B_DEVICE) };
    let made = [
        b.tag(20, "a"),
        b.commit(&[], vec![bagged(21, &[1], Hlc::NEVER)]),
        b.commit(&[], vec![(RecordKey::new::<Tag>(&3), None, None)]),
    ];
    world.now = now(10_000);
    made.iter().for_each(|made| world.feed(B, live(&[made])));
    assert_eq!((world.audit(), world.seq_of(B)), (vec![], 7));
    world.events();
    world.said();
    let (tag, bag, gone) = (20, 21, 3);
    let [tag, gone] = [tag, gone].map(|id: u32| RecordKey::new::<Tag>(&id).into_bytes());
    (world, [(5, tag), (6, RecordKey::new::<Bag>(&bag).into_bytes()), (7, gone)])
}

/// C19: each bit of a record, and the whole of it: the log is not all that a damaged record harms.
#[test]
fn a_damaged_record_is_made_again() {
    let (whole, of) = records();
    let commits = commits_of(&whole, B);
    for (seq, key) in of {
        let len = whole.get(key.clone()).unwrap().len();
        for at in 0..=len {
            // A later commit of another replica may have made a record what it is: that is a question of the audit.
            if seq == 7 && (12..28).contains(&at) {
                continue;
            }
            let (mut world, _) = records();
            let before = world.content();
            if at < len {
                flip(&world, &key, at);
            } else {
                remove(&world, &key);
            }
            world.feed(C, hello(1, &[world.head_of(B)]));
            world.checks();
            world.answers(C, &commits);
            assert!(world.content() == before, "byte {at} of the record of {seq}");
            let result = world.checked().unwrap();
            assert_eq!((result.mended, result.damaged), (1, vec![]), "byte {at} of the record of {seq}");
            assert_eq!(world.audit(), []);
        }
    }
}

/// A value that was kept for the log alone is kept again: the record is of a later commit, and stays.
#[test]
fn a_record_of_another_commit_stays() {
    let mut world = relay();
    let (before, commits) = (world.content(), commits_of(&world, B));
    remove(&world, &keys::kept(B, 1, &RecordKey::new::<Tag>(&1)));
    world.feed(C, hello(1, &[world.head_of(B)]));
    world.checks();
    assert_eq!(world.answers(C, &commits), 1);
    assert!(world.content() == before);
}

/// A row that a projection made of a damaged value is made again of the right one, in the same transaction.
#[test]
fn projections_follow_what_is_mended() {
    let mut world = relay();
    let (before, commits) = (world.content(), commits_of(&world, B));
    let key = RecordKey::new::<Tag>(&4).into_bytes();
    flip(&world, &key, before[&key].len() - 1);
    let projected = vec![RecordKey::range_of_model::<Tag>()];
    world.reopen(Ask { projected, ..networked(Rules::ALL) });
    world.handle(Input::Up(C));
    world.handle(Input::Frame(C, hello(1, &[world.head_of(B)])));
    world.handle(Input::CheckLog(Ticket(900)));
    let (mut projected, mut undone) = (Vec::new(), 0);
    while let Some(effect) = world.engine.next_effect() {
        let input = match effect {
            Effect::Find(job, query) => Input::Found(job, world.find(query)),
            Effect::Read(job, keys) => {
                let values = block_on(world.store.get_many(&keys));
                Input::Read(job, keys, values)
            }
            Effect::WriteProjected(job, _) if undone == 0 => {
                undone += 1;
                let error = Error::Panicked { message: "it cannot".into() };
                world.handle(Input::Projected(job, Err(error)));
                // A place that was not mended is asked for again at the next hello.
                Input::Frame(C, hello(2, &[world.head_of(B)]))
            }
            Effect::WriteProjected(job, batch) => {
                projected.extend(batch.puts().map(|(key, _)| key.to_vec()));
                block_on(world.store.write(batch)).unwrap();
                Input::Projected(job, Ok(Settled::default()))
            }
            Effect::Write(_, batch) => panic!("{batch:?} is written without the projections"),
            Effect::Send(to, frame) => {
                world.sent.push((Some(to), frame));
                let [pull] = &world.pulls_to(C)[..] else { continue };
                let commit = commits.iter().find(|made| made.seq == 4).unwrap();
                Input::Frame(C, page_of(answer(pull, true), &[commit]))
            }
            Effect::Mend(job) => {
                let (told, next) = (None, crate::projection::Next::Done);
                Input::Mended(job, crate::projection::Mended { told, next })
            }
            Effect::Checked(Ticket(ticket), result) => {
                world.checked.push((ticket, result));
                continue;
            }
            _ => continue,
        };
        world.handle(input);
    }
    assert_eq!((projected, undone), (vec![key.clone()], 1));
    assert_eq!(world.get(key.clone()).as_ref(), before.get(&key));
}

/// The fields of a stored head that say where the log begins.
const FLOOR: usize = 49;
const FLOOR_DIGEST: usize = 57;

/// A floor that is too high hides a part of the log from all who need it. The log itself says where it begins.
#[test]
fn a_damaged_floor_is_put_right() {
    for at in [(FLOOR + 7, 0), (FLOOR + 7, 1), (FLOOR + 7, 2), (FLOOR_DIGEST, 3), (FLOOR_DIGEST + 31, 7)] {
        let mut world = relay();
        let before = world.content();
        let edit = |world: &World| {
            world.store.0.lock().unwrap().get_mut(&keys::head(B)).unwrap()[at.0] ^= 1 << at.1;
        };
        edit(&world);
        world.reopen(networked(Rules::ALL));
        world.handle(Input::Up(C));
        world.settle();
        world.checks();
        let result = world.checked().unwrap();
        assert!(world.content() == before && result.damaged.is_empty(), "{at:?}");
        assert_eq!(result.commits, world.own().seq + 5, "{at:?}");
        let (head, page) = world.page(C, &[], 1 << 20);
        assert_eq!((head.reach, page.len() as u64), (Reach::Whole, world.own().seq + 5), "{at:?}");
        assert_eq!(world.audit(), []);
    }
}

/// The same of a log of which all but the end was pruned; also if the floor seems to be the head.
#[test]
fn a_damaged_floor_of_a_pruned_log_is_put_right() {
    let pruned = || {
        let mut world = World::new(Rules::ALL);
        (0..5).for_each(|n| world.commit(vec![tag(n, "a")]).unwrap());
        let head = world.head();
        assert_eq!((head.seq, head.floor), (6, 5));
        world
    };
    // 5 is 0b101.
    for (at, bit) in
        [(FLOOR + 7, 0), (FLOOR + 7, 1), (FLOOR + 7, 2), (FLOOR_DIGEST, 3), (FLOOR_DIGEST + 31, 7)]
    {
        let mut world = pruned();
        let before = world.content();
        world.store.0.lock().unwrap().get_mut(&keys::head(REPLICA)).unwrap()[at] ^= 1 << bit;
        if Head::parse(REPLICA, &world.get(keys::head(REPLICA)).unwrap()).is_err() {
            continue;
        }
        world.reopen(ask(Rules::ALL));
        world.settle();
        world.checks();
        assert_eq!(world.checked().map(|check| check.damaged), Some(vec![]), "{at} {bit}");
        assert!(world.content() == before, "{at} {bit}");
        world.commit(vec![tag(9, "a")]).unwrap();
        assert_eq!(world.audit(), []);
    }
}

//! Goal: a store is whole after every write and every crash, and holds what the app was told. Method: random histories
//! of one replica, `audit` and a model of the app's belief after every act.

use super::*;

/// One act of a random history.
#[derive(Clone, Debug)]
enum Act {
    Put(u32, u8),
    Delete(u32),
    Append(u32),
    Batch(Vec<(u32, Option<u8>)>),
    Settle,
    Reject,
    /// The process dies with the last write applied or not.
    Crash {
        applied: bool,
    },
    Wall(u64),
}

fn any_act() -> impl Strategy<Value = Act> {
    let id = 0..4u32;
    prop_oneof![
        4 => (id.clone(), 0..3u8).prop_map(|(id, name)| Act::Put(id, name)),
        2 => id.clone().prop_map(Act::Delete),
        2 => id.clone().prop_map(Act::Append),
        2 => prop::collection::btree_map(id, prop::option::of(0..3u8), 0..4)
            .prop_map(|changes| Act::Batch(changes.into_iter().collect())),
        4 => Just(Act::Settle),
        1 => Just(Act::Reject),
        1 => any::<bool>().prop_map(|applied| Act::Crash { applied }),
        1 => prop_oneof![Just(0), Just(1000), 0..5000u64, Just(1_000_000)].prop_map(Act::Wall),
    ]
}

/// The records that the app believes to be stored, given what it was told.
#[derive(Default)]
struct Belief {
    tags: BTreeMap<u32, String>,
    open: BTreeMap<u64, Act>,
}

impl Belief {
    fn commit(&mut self, ticket: u64) {
        let mut set = |id: u32, name: Option<String>| match name {
            Some(name) => drop(self.tags.insert(id, name)),
            None => drop(self.tags.remove(&id)),
        };
        match self.open.remove(&ticket).unwrap() {
            Act::Put(id, name) => set(id, Some(name.to_string())),
            Act::Delete(id) => set(id, None),
            Act::Append(id) => self.tags.entry(id).or_default().push('+'),
            Act::Batch(changes) => {
                changes.into_iter().for_each(|(id, name)| set(id, name.map(|name| name.to_string())));
            }
            other => panic!("{other:?} is no commit"),
        }
    }
}

impl World {
    fn stage(step: &Act) -> Vec<Staged> {
        let set =
            |id: u32, name: Option<u8>| name.map_or_else(|| untag(id), |name| tag(id, &name.to_string()));
        match step {
            Act::Put(id, name) => vec![set(*id, Some(*name))],
            Act::Delete(id) => vec![set(*id, None)],
            Act::Append(id) => vec![rename(*id, "+")],
            Act::Batch(changes) => changes.iter().map(|(id, name)| set(*id, *name)).collect(),
            other => panic!("{other:?} is no commit"),
        }
    }
}

proptest! {
    /// C1, C5, H2, H12, I1, I3 to I5: whatever happens, a store is whole after every write and every crash, holds
    /// exactly what its app was told, has no holes in its stream, and its stamps rise for ever.
    #[test]
    fn every_history_leaves_a_whole_store(
        steps in prop::collection::vec((any_act(), prop::bool::weighted(0.3)), 1..60),
        prune: bool,
    ) {
        let rules = Rules { prune, ..Rules::ALL };
        let mut world = World::new(rules);
        let mut belief = Belief::default();
        let mut told = (1, world.engine.report().clock);
        for (step, joined) in steps {
            match step {
                Act::Settle => world.settle(),
                Act::Reject => {
                    if world.up_to_write().is_some() {
                        world.rejected();
                        world.settle();
                    }
                }
                Act::Crash { applied } => {
                    let batch = world.up_to_write();
                    for (ticket, result) in world.replies.drain(..) {
                        if result.is_ok() {
                            belief.commit(ticket);
                        }
                    }
                    if let Some(batch) = batch.filter(|_| applied) {
                        block_on(world.store.write(batch)).unwrap();
                        for (Ticket(ticket), error) in world.engine.stop(&StopReason::DriverDropped) {
                            if matches!(error, Error::Unknown(_)) {
                                belief.commit(ticket);
                            }
                        }
                    }
                    // The wall clock may have stepped back meanwhile: the stored clock alone must prevent old stamps.
                    world.reopen_at(ask(rules), now(500));
                }
                Act::Wall(ms) => world.now = Now { wall: WallMs::new(ms), mono: Mono(ms) },
                commit => {
                    let staged = World::stage(&commit);
                    let ticket = if joined { world.submit_joined(staged) } else { world.submit(staged) };
                    belief.open.insert(ticket, commit);
                }
            }
            for (ticket, result) in world.replies.drain(..) {
                if result.is_ok() {
                    belief.commit(ticket);
                }
            }
            prop_assert_eq!(world.audit(), []);
            prop_assert_eq!(world.stored_tags(), belief.tags.clone());
            for notice in world.notices.drain(..) {
                for event in notice.iter() {
                    let Event::Changed(change) = event else { continue };
                    // The event is of the same commit as the last one, or of a later one with a higher stamp.
                    prop_assert!((change.seq, change.stamp) == told || change.seq > told.0 && change.stamp > told.1);
                    told = (change.seq, change.stamp);
                }
            }
            prop_assert!(world.head().seq >= told.0);
        }
    }
}

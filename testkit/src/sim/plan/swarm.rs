//! Draws a plan: first the kinds of faults that it has at all and how often each comes, then its steps.

use super::crowd::CROWD_EVERY;
use super::{Action, Edit, FAR_MS, Plan, REPLICAS_MAX, Rate, Sizes, Step, apps, snapshots};
use crate::sim::store::StoreFault;
use crate::sim::time::Wall;

impl Plan {
    /// Draws the plan of a seed.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        if seed.is_multiple_of(CROWD_EVERY) {
            return Self::crowd(seed);
        }
        let mut rng = fastrand::Rng::with_seed(seed);
        let replicas = *rng.choice(&[2, 2, 3, 3, 3, 4, 5]).unwrap_or(&3);
        let ids = *rng.choice(&[1, 2, 4, 16, 500]).unwrap_or(&4);
        let big = rng.u8(..) < BIG;
        let swarm = Swarm::draw(&mut rng, big);
        // A few runs last long: what is bad stays bad for minutes, while the rest has time to agree.
        let is_long = rng.u8(0..5) == 0;
        let (count, pauses) = if big {
            (rng.usize(10..30), [0, 3, 20, 200, 200, 3_000, 3_000])
        } else if is_long {
            (rng.usize(20..50), [0, 0, 3, 200, 3_000, 60_000, 200_000])
        } else {
            (rng.usize(20..140), [0, 0, 1, 3, 20, 200, 3_000])
        };
        let mut steps = Vec::with_capacity(count);
        for _ in 0..count {
            let after_ms = *rng.choice(&pauses).unwrap_or(&1);
            let action = swarm.action(&mut rng, replicas, ids);
            steps.push(Step { after_ms, action });
        }
        let page_bytes = *rng.choice(&[1, 400, 3_000, 1_000_000]).unwrap_or(&3_000);
        let page_bytes = if big { 1_000_000 } else { page_bytes };
        if swarm.has_fork && replicas > 2 {
            let at = rng.usize(0..=steps.len());
            steps.splice(at..at, fork(&mut rng, replicas));
        }
        apps::add_steps(seed, replicas, ids, &mut steps);
        snapshots::add_steps(seed, replicas, ids, &mut steps);
        let older_apps = if rng.u8(0..4) == 0 { rng.u8(..) } else { 0 };
        let tight = match rng.u8(0..6) {
            0 | 1 => u8::MAX,
            2 => rng.u8(..),
            _ => 0,
        };
        Self { seed: rng.u64(..), replicas, ids, page_bytes, tight, older_apps, steps }
    }
}

/// Of 256 plans so many have streams of thousands of commits, which takes long to judge.
const BIG: u8 = 3;

/// A rare kind of step is in one of so many plans.
const RARE: u8 = 6;

/// Steps that give a stream two histories, and bring each to another replica: chance alone does that rarely.
fn fork(rng: &mut fastrand::Rng, replicas: u8) -> Vec<Step> {
    let at = rng.u8(0..replicas);
    let other = (at + rng.u8(1..replicas)) % replicas;
    let commit = || Action::Commit { at, edits: vec![Edit::Note(0, true)], cancelled: None };
    let steps = [
        (3_000, Action::Heal),
        (3_000, Action::Backup { at }),
        (0, Action::Partition { mask: 1 << other }),
        (200, commit()),
        (3_000, Action::Revive { at, mask: 1 << at | 1 << other }),
        (3_000, commit()),
        (3_000, commit()),
        (3_000, Action::Heal),
    ];
    steps.into_iter().map(|(after_ms, action)| Step { after_ms, action }).collect()
}

/// How often each kind of step comes. A plan has a random subset of the kinds, since faults
/// of one kind hide others: while a link is blocked, nothing can be damaged on it.
struct Swarm {
    weights: Vec<(u32, Kind)>,
    /// Whether a store that was put back goes on writing.
    has_fork: bool,
    skew_ms: i64,
}

#[derive(Clone, Copy)]
enum Kind {
    Commit,
    Batch,
    Cancelled,
    Pair,
    Crash,
    Lose,
    Stop,
    Fault,
    Full,
    Slow,
    Backup,
    Restore,
    Link,
    Block,
    Partition,
    Disconnect,
    Heal,
    Clock,
    Pause,
    Join,
    Death,
    Flap,
    Noise,
    SlowReads,
    Late,
    SlowSubscriber,
    Rate,
    Large,
    Many,
    Flip,
    LoseAny,
    JoinThrough,
    Revive,
    Limits,
}

impl Swarm {
    fn draw(rng: &mut fastrand::Rng, big: bool) -> Self {
        let faults = [
            (Kind::Cancelled, 3),
            (Kind::Crash, 5),
            (Kind::Lose, 1),
            (Kind::Stop, 2),
            (Kind::Fault, 5),
            (Kind::Full, 3),
            (Kind::Slow, 3),
            (Kind::Backup, 3),
            (Kind::Restore, 1),
            (Kind::Link, 8),
            (Kind::Block, 3),
            (Kind::Partition, 3),
            (Kind::Disconnect, 4),
            (Kind::Heal, 3),
            (Kind::Clock, 4),
            (Kind::Pause, 3),
            (Kind::Join, 3),
            (Kind::Death, 6),
            (Kind::Flap, 3),
            (Kind::Noise, 4),
            (Kind::SlowReads, 4),
            (Kind::Late, 4),
            (Kind::SlowSubscriber, 2),
            (Kind::Rate, 6),
        ];
        let mut weights = vec![(20, Kind::Commit), (8, Kind::Batch), (4, Kind::Pair)];
        weights.extend(faults.into_iter().filter(|_| rng.bool()).map(|(kind, weight)| (weight, kind)));
        let rare = [
            (Kind::Large, 2),
            (Kind::Flip, 1),
            (Kind::LoseAny, 1),
            (Kind::JoinThrough, 3),
            (Kind::Revive, 4),
            (Kind::Limits, 4),
        ];
        weights
            .extend(rare.into_iter().filter(|_| rng.u8(0..RARE) == 0).map(|(kind, weight)| (weight, kind)));
        let has_fork = weights.iter().any(|(_, kind)| matches!(kind, Kind::Revive));
        if has_fork {
            weights.push((4, Kind::Backup));
        }
        if big {
            weights.push((6, Kind::Many));
        }
        Self { weights, has_fork, skew_ms: *rng.choice(&[0, 50, 60_000, 1_200_000]).unwrap_or(&0) }
    }

    fn action(&self, rng: &mut fastrand::Rng, replicas: u8, ids: u32) -> Action {
        let total: u32 = self.weights.iter().map(|(weight, _)| weight).sum();
        let mut left = rng.u32(0..total);
        let kind = self.weights.iter().find(|(weight, _)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        // Two places more than there are replicas, for those that join later.
        let at = rng.u8(0..(replicas + 2).min(REPLICAS_MAX));
        let other = (at + rng.u8(1..replicas)) % replicas;
        let edit = |rng: &mut fastrand::Rng| {
            let (id, put) = (rng.u32(0..ids), rng.u8(0..10) < 7);
            match rng.u8(0..5) {
                0 | 1 => Edit::Note(id, put),
                2 => Edit::Place(id, put),
                _ => Edit::Set(id, put),
            }
        };
        let down_ms = *rng.choice(&[1, 50, 2_000, 40_000]).unwrap_or(&50);
        match kind.map_or(Kind::Commit, |(_, kind)| *kind) {
            Kind::Commit => Action::Commit { at, edits: vec![edit(rng)], cancelled: None },
            Kind::Batch => {
                let count = rng.usize(2..6);
                Action::Commit { at, edits: (0..count).map(|_| edit(rng)).collect(), cancelled: None }
            }
            Kind::Cancelled => Action::Commit { at, edits: vec![edit(rng)], cancelled: Some(rng.u8(1..4)) },
            Kind::Pair => Action::Pair { at },
            Kind::Crash => Action::Crash { at, applied: rng.bool(), down_ms: Some(down_ms) },
            // Never the founder: it introduces the others.
            Kind::Lose => Action::Crash { at: at.max(1), applied: rng.bool(), down_ms: None },
            Kind::Stop => Action::Stop { at, down_ms },
            Kind::Fault => {
                let applied = rng.bool();
                let faults =
                    [StoreFault::Error, StoreFault::Unknown { applied }, StoreFault::Panic { applied }];
                let fault = *rng.choice(&faults).unwrap_or(&StoreFault::Error);
                Action::Fault { at, after: rng.u8(0..12), fault }
            }
            Kind::Full => Action::Full { at, full: rng.bool() },
            Kind::Slow => Action::Slow { at, write_ms: *rng.choice(&[0, 1, 5, 300]).unwrap_or(&1) },
            Kind::Backup => Action::Backup { at },
            Kind::Restore => Action::Restore { at: at.max(1) },
            Kind::Link => {
                let mut percent = || *rng.choice(&[0, 0, 5, 30]).unwrap_or(&0);
                let percent = [percent(), percent(), percent(), percent()];
                let delay_ms = *rng.choice(&[0, 2, 100, 4_000]).unwrap_or(&0);
                Action::Link { from: at, to: other, percent, delay_ms, blocked: false }
            }
            Kind::Block => Action::Link { from: at, to: other, percent: [0; 4], delay_ms: 0, blocked: true },
            Kind::Partition => Action::Partition { mask: rng.u8(..) },
            Kind::Disconnect => Action::Disconnect { one: at, other },
            Kind::Heal => Action::Heal,
            Kind::Clock => {
                let off = rng.i64(-self.skew_ms..=self.skew_ms);
                // Milliseconds a second. The fastest clock passes the bound of the drift rule within a run.
                let drift = *rng.choice(&[200, 2_000, 20_000]).unwrap_or(&200);
                let walls = [
                    Wall::Off(off),
                    Wall::Off(off),
                    Wall::Off(0),
                    Wall::Frozen(rng.u64(0..10_000)),
                    Wall::Before1970,
                    Wall::Fails,
                    Wall::Drifts(rng.i16(-drift..=drift)),
                    Wall::Off(FAR_MS),
                ];
                Action::Clock { at, wall: *rng.choice(&walls).unwrap_or(&Wall::Off(0)) }
            }
            Kind::Pause => Action::Pause { at, ms: down_ms },
            Kind::Join => Action::Join { introducer: 0 },
            Kind::Death => {
                let again = *rng.choice(&[0, 0, 0, 1, 4]).unwrap_or(&0);
                let fault = StoreFault::Death { applied: rng.bool(), again, every: rng.u8(0..40) };
                Action::Fault { at, after: rng.u8(0..40), fault }
            }
            Kind::SlowReads => Action::SlowReads { at, read_ms: *rng.choice(&[0, 1, 5, 40]).unwrap_or(&1) },
            Kind::SlowSubscriber => {
                Action::SlowSubscriber { at, event_ms: *rng.choice(&[0, 10, 2_000]).unwrap_or(&10) }
            }
            Kind::Late => Action::Late { from: other, to: at, ago: rng.u8(..) },
            Kind::Large => Action::Large {
                at,
                id: rng.u32(0..ids.min(4)),
                kib: *rng.choice(&[1, 20, 60, 300, 1_000]).unwrap_or(&20),
            },
            Kind::Many => Action::Many { at, count: *rng.choice(&[100, 400, 1_500]).unwrap_or(&400) },
            Kind::Flip => Action::Flip { at, row: rng.u32(..), bit: rng.u32(..) },
            Kind::Revive => Action::Revive { at, mask: if rng.bool() { rng.u8(..) } else { 0 } },
            Kind::Limits => {
                let sizes = [Sizes::Usual, Sizes::Small, Sizes::SmallValues, Sizes::FewMembers, Sizes::Wrong];
                Action::Limits { at, sizes: *rng.choice(&sizes).unwrap_or(&Sizes::Usual) }
            }
            Kind::LoseAny => Action::Lose { at },
            Kind::JoinThrough => {
                let device_of = rng.bool().then_some(other);
                Action::JoinThrough { introducer: at, device_of }
            }
            Kind::Rate => Action::Rate { one: at, other, rate: Rate::draw(rng) },
            Kind::Flap => Action::Flap { one: at, other, times: rng.u8(1..6) },
            Kind::Noise => {
                let kind = rng.bool().then(|| rng.u8(0..14));
                Action::Noise {
                    from: other,
                    to: at,
                    kind,
                    len: *rng.choice(&[0, 1, 40, 2_000]).unwrap_or(&40),
                }
            }
        }
    }
}

//! What happens in a run: drawn from a seed, kept as data, so that it can be shortened, printed and kept.

use serde::{Deserialize, Serialize};

use super::store::StoreFault;
use super::time::Wall;

/// A whole run: who takes part, and what happens to them, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What everything that the steps leave open is drawn from: orders, losses, delays.
    pub seed: u64,
    /// How many replicas there are at first.
    pub replicas: u8,
    /// How many different ids of each model are used: few, so that ties happen.
    pub ids: u32,
    /// The bytes of a page of commits.
    pub page_bytes: u32,
    /// The replicas whose other limits are as small as they may be: one bit each.
    pub tight: u8,
    /// The replicas whose app does not know sets until the faults end: one bit each.
    pub older_apps: u8,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// How long after the step before it.
    pub after_ms: u32,
    /// What.
    pub action: Action,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// An app commits.
    Commit {
        /// Where.
        at: u8,
        /// What, as one commit.
        edits: Vec<Edit>,
        /// After so many polls it loses interest.
        cancelled: Option<u8>,
    },
    /// An app commits both notes of the pair, which must always be seen equal.
    Pair {
        /// Where.
        at: u8,
    },
    /// A process dies, and comes back.
    Crash {
        /// Whose.
        at: u8,
        /// Whether a write that it cuts off is there afterwards.
        applied: bool,
        /// How long it is away; for ever, if that is nothing.
        down_ms: Option<u32>,
    },
    /// A process is stopped as it should be, and started again.
    Stop {
        /// Whose.
        at: u8,
        /// How long it is away.
        down_ms: u32,
    },
    /// A store fails.
    Fault {
        /// Whose.
        at: u8,
        /// After how many operations.
        after: u8,
        /// How.
        fault: StoreFault,
    },
    /// A disk is full, for a while.
    Full {
        /// Whose.
        at: u8,
        /// Whether it is.
        full: bool,
    },
    /// How long writes take from here on.
    Slow {
        /// Whose.
        at: u8,
        /// How long.
        write_ms: u16,
    },
    /// A copy of a disk is put aside.
    Backup {
        /// Whose.
        at: u8,
    },
    /// A process dies and comes back with the disk that was put aside. From here on its app only reads.
    Restore {
        /// Whose.
        at: u8,
    },
    /// The links between two replicas become what they are told to be.
    Link {
        /// From whom.
        from: u8,
        /// To whom.
        to: u8,
        /// Of a hundred frames, so many are lost, come twice, come later, come damaged.
        percent: [u8; 4],
        /// How long they take at most.
        delay_ms: u16,
        /// Whether nothing passes.
        blocked: bool,
    },
    /// The replicas of the mask are cut off from the others.
    Partition {
        /// One bit each.
        mask: u8,
    },
    /// Two replicas lose each other, and hear of it.
    Disconnect {
        /// One.
        one: u8,
        /// And the other.
        other: u8,
    },
    /// The network is as new.
    Heal,
    /// A wall clock shows something else from here on.
    Clock {
        /// Whose.
        at: u8,
        /// What.
        wall: Wall,
    },
    /// A process is not run for a while.
    Pause {
        /// Whose.
        at: u8,
        /// For how long.
        ms: u32,
    },
    /// Another replica joins.
    Join {
        /// Who introduces it.
        introducer: u8,
    },
    /// Two replicas lose each other and find each other again, several times at once.
    Flap {
        /// One.
        one: u8,
        /// And the other.
        other: u8,
        /// How often.
        times: u8,
    },
    /// A peer says something that is none of the protocol.
    Noise {
        /// Who.
        from: u8,
        /// To whom.
        to: u8,
        /// Of a message, whose length and checksum fit; none, if the frame is noise altogether.
        kind: Option<u8>,
        /// How many bytes.
        len: u16,
    },
    /// A frame that was sent long ago comes once more, whatever has happened since.
    Late {
        /// Who sent it.
        from: u8,
        /// To whom.
        to: u8,
        /// How many frames ago.
        ago: u8,
    },
    /// How long reads take from here on.
    SlowReads {
        /// Whose.
        at: u8,
        /// How long.
        read_ms: u16,
    },
}

/// A change that an app makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edit {
    /// A shared record is put, or deleted.
    Note(u32, bool),
    /// A record of the device.
    Place(u32, bool),
    /// A shared record with its own merge.
    Set(u32, bool),
}

/// Further ahead than anybody waits for.
pub(super) const FAR_MS: i64 = 10 * 365 * 24 * 3600 * 1000;

/// The most replicas of a run.
pub(super) const REPLICAS_MAX: u8 = 7;

impl Plan {
    /// Draws a plan: which kinds of faults there are in it at all, and how often, and then the steps.
    #[must_use]
    pub fn generate(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let replicas = *rng.choice(&[2, 2, 3, 3, 3, 4, 5]).unwrap_or(&3);
        let ids = *rng.choice(&[1, 2, 4, 16, 500]).unwrap_or(&4);
        let swarm = Swarm::draw(&mut rng);
        let count = rng.usize(20..140);
        let mut steps = Vec::with_capacity(count);
        for _ in 0..count {
            let after_ms = *rng.choice(&[0, 0, 1, 3, 20, 200, 3_000]).unwrap_or(&1);
            let action = swarm.action(&mut rng, replicas, ids);
            steps.push(Step { after_ms, action });
        }
        let page_bytes = *rng.choice(&[1, 400, 3_000, 1_000_000]).unwrap_or(&3_000);
        let older_apps = if rng.u8(0..4) == 0 { rng.u8(..) } else { 0 };
        let tight = match rng.u8(0..6) {
            0 | 1 => u8::MAX,
            2 => rng.u8(..),
            _ => 0,
        };
        Self { seed: rng.u64(..), replicas, ids, page_bytes, tight, older_apps, steps }
    }

    /// The plan in one line, for [`Plan::parse`].
    #[must_use]
    pub fn to_line(&self) -> String {
        let bytes = postcard::to_allocvec(self).expect("a plan can be encoded");
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The plan of a line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let digits = line.trim();
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
        postcard::from_bytes(&bytes?).ok()
    }
}

/// How often each kind of step comes: a random subset of them, so that runs differ in kind.
struct Swarm {
    weights: Vec<(u32, Kind)>,
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
}

impl Swarm {
    fn draw(rng: &mut fastrand::Rng) -> Self {
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
        ];
        let mut weights = vec![(20, Kind::Commit), (8, Kind::Batch), (4, Kind::Pair)];
        weights.extend(faults.into_iter().filter(|_| rng.bool()).map(|(kind, weight)| (weight, kind)));
        Self { weights, skew_ms: *rng.choice(&[0, 50, 60_000, 1_200_000]).unwrap_or(&0) }
    }

    fn action(&self, rng: &mut fastrand::Rng, replicas: u8, ids: u32) -> Action {
        let total: u32 = self.weights.iter().map(|(weight, _)| weight).sum();
        let mut left = rng.u32(0..total);
        let kind = self.weights.iter().find(|(weight, _)| {
            let hit = left < *weight;
            left = left.saturating_sub(*weight);
            hit
        });
        // Joiners count too, though there may be none.
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
            // The founder introduces the others, so it is not the one that is lost.
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
                // In a second. The fastest passes the bound of the drift rule within a run.
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
            Kind::Late => Action::Late { from: other, to: at, ago: rng.u8(..) },
            Kind::Flap => Action::Flap { one: at, other, times: rng.u8(1..6) },
            Kind::Noise => {
                let kind = rng.bool().then(|| rng.u8(0..10));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_comes_back_from_its_line() {
        for seed in 0..50 {
            let plan = Plan::generate(seed);
            assert_eq!(Plan::generate(seed), plan);
            assert_eq!(Plan::parse(&plan.to_line()), Some(plan));
        }
        assert_eq!(Plan::parse("zz"), None);
        assert_eq!(Plan::parse("0"), None);
    }
}

//! Disks on which what the clock rests on is wrong after a restart.

use std::sync::Mutex;

use async_trait::async_trait;
use syncline::{BoxError, Hlc, ReplicaId, Uuid, WallMs};

use super::flaw::flaws;
use super::lock;
use crate::replica::app::START_MS;
use crate::{Disk, Fixture, MediumFault, Reference};

flaws! {
    /// The harm that a [`BrokenClockDisk`] does to the clock between two openings. The library stores no such clock: each of these
    /// is how a store would leave it that loses, mixes up or rolls back rows.
    RiseFlaw

    stamps_rise_across_restarts {
        /// The clock begins anew.
        StartsAnew,
        /// The clock goes back by an hour, as the wall does: a step back that is believed.
        BelievesAStepBack,
        /// The clock is that of the opening before the last one.
        OlderRow,
    }
    stamps_rise_after_a_crash_anywhere {
        /// The clock is what it was before the last commit.
        CountsOneBack,
    }
    stamps_rise_after_a_future {
        /// A clock that stands far ahead is taken for damaged.
        DropsTheFuture,
    }
    stamps_rise_above_a_peers {
        /// The clock is read from the own stream, not from its row.
        ReadsItsOwnStreamAlone,
    }
}

/// A disk for the [`Reference`] store. Between two openings the clock changes as the flaw says.
#[derive(Debug)]
pub struct BrokenClockDisk {
    flaw: RiseFlaw,
    disk: Disk,
    /// The clock at the end of the openings before the last one, the newest last.
    seen: Mutex<Vec<Time>>,
}

/// Wall time and counter, as rows have them.
type Time = [u8; 8];

impl BrokenClockDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(flaw: RiseFlaw) -> Self {
        Self { flaw, disk: Disk::new(), seen: Mutex::default() }
    }

    /// The key of the row that says whose store it is.
    const IDENTITY: &[u8] = b"\x01store";
    /// The key of the clock's row, whose value is a byte of format and the [`Time`].
    const CLOCK: &[u8] = b"\x01clock";
    /// The first byte of the keys of heads. Their values have a byte of format, eight of the number, the [`Time`], 32 of the
    /// digest, eight of the floor and its digest.
    const HEAD: u8 = 2;
    /// The first byte of the keys of log rows.
    const LOG: u8 = 6;

    /// Sets the clock to `time`, and every head that stands above it. The log is pruned: it would prove the heads, and the
    /// library would put them right.
    fn turn_back(&self, change: impl FnOnce(Time) -> Time) {
        self.disk.edit(|entries| {
            let Some(clock) = entries.get_mut(Self::CLOCK).and_then(|row| row.get_mut(1..9)) else { return };
            let now: Time = clock.try_into().expect("eight bytes");
            let time = change(now);
            if time == now {
                return;
            }
            clock.copy_from_slice(&time);
            entries.retain(|key, _| key.first() != Some(&Self::LOG));
            for (_, head) in entries.iter_mut().filter(|(key, _)| key.first() == Some(&Self::HEAD)) {
                if let Some(stamp) = head.get_mut(9..17).filter(|stamp| **stamp > time[..]) {
                    stamp.copy_from_slice(&time);
                }
                // The floor and its digest are those of the last commit.
                head.copy_within(1..9, 49);
                head.copy_within(17..49, 57);
            }
        });
    }

    /// The stamp of the own head. In the row of the identity, the replica stands behind the format, the group and the device.
    fn own_head(&self) -> Option<Time> {
        self.disk.edit(|entries| {
            let identity = entries.get(Self::IDENTITY)?;
            let replica = identity.get(33..49)?;
            entries.get(&[&[Self::HEAD], replica].concat())?.get(9..17)?.try_into().ok()
        })
    }

    fn recover(&self) {
        let mut seen = lock(&self.seen);
        let older = seen.last().copied();
        let mut ended_at = None;
        self.turn_back(|now| {
            ended_at = Some(now);
            let stamp = Hlc::from_bytes(&[&now[..], &[0; 16]].concat()).expect("24 bytes");
            let back = |ms: u64| WallMs::new(stamp.wall().get().saturating_sub(ms)).unwrap_or(WallMs::MIN);
            let time = |wall, counter| {
                let stamp = Hlc::new(wall, counter, ReplicaId(Uuid::nil())).to_bytes();
                stamp[..8].try_into().expect("eight bytes")
            };
            match self.flaw {
                RiseFlaw::StartsAnew => time(WallMs::MIN, 0),
                RiseFlaw::BelievesAStepBack => time(back(3_600_000), 0),
                RiseFlaw::OlderRow => older.unwrap_or(now),
                RiseFlaw::CountsOneBack => match stamp.counter().checked_sub(1) {
                    Some(counter) => time(stamp.wall(), counter),
                    None => time(back(1), u16::MAX),
                },
                RiseFlaw::DropsTheFuture if stamp.wall().get() > START_MS + 100 * 86_400_000 => {
                    time(WallMs::new(START_MS).unwrap_or(WallMs::MIN), 0)
                }
                RiseFlaw::DropsTheFuture => now,
                RiseFlaw::ReadsItsOwnStreamAlone => now,
            }
        });
        if self.flaw == RiseFlaw::ReadsItsOwnStreamAlone
            && let Some(own) = self.own_head()
        {
            self.turn_back(|_| own);
        }
        seen.extend(ended_at);
    }
}

#[async_trait]
impl Fixture for BrokenClockDisk {
    type Store = Reference;

    async fn open(&self) -> Result<Reference, BoxError> {
        let store = self.disk.open().await?;
        self.recover();
        Ok(store)
    }

    fn break_medium(&self, fault: Option<MediumFault>) -> bool {
        self.disk.break_medium(fault)
    }
}

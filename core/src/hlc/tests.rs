//! Goal: properties H1, H4 to H7, H9 and H10. Method: scripts of readings, of own stamps and of received ones
//! against the definitions, boundaries by hand.

use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const DRIFT: u64 = 300_000;

fn replica(n: u128) -> ReplicaId {
    ReplicaId(Uuid::from_u128(n))
}

fn wall(ms: u64) -> WallMs {
    WallMs::new(ms).unwrap()
}

fn any_hlc() -> impl Strategy<Value = Hlc> {
    // Draw from few values, so that ties happen.
    let wall = prop_oneof![0..4u64, Just(WallMs::MAX.get()), 0..=WallMs::MAX.get()];
    let counter = prop_oneof![0..3u16, Just(u16::MAX)];
    (wall, counter, 0..3u128).prop_map(|(w, c, r)| Hlc::new(WallMs::new(w).unwrap(), c, replica(r)))
}

/// Receives a stamp as the engine does: the engine sees the time with every input, checks the stamp when it takes the
/// commit, and follows it when the commit is applied.
fn receive(clock: &mut HlcGenerator, stamp: Hlc, now: WallMs) -> Result<(), DriftError> {
    clock.see(now);
    clock.check_drift(stamp, now)?;
    clock.follow(stamp);
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    See(u64),
    Stamp(u64),
    /// Checks a stamp at one time and follows it at another: the wall clock moves between the check and the write.
    Receive(Hlc, u64, u64),
}

fn any_script() -> impl Strategy<Value = Vec<Step>> {
    let reading = || prop_oneof![0..5u64, 1_000_000..1_000_010u64, Just(WallMs::MAX.get() - 1)];
    let step = prop_oneof![
        reading().prop_map(Step::See),
        reading().prop_map(Step::Stamp),
        (any_hlc(), reading(), reading()).prop_map(|(h, now, later)| Step::Receive(h, now, later)),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// H1, H4, H5 and H6 at once: for every interleaving and every reading.
    #[test]
    fn h1_stamps_strictly_rise(script in any_script(), drift in prop_oneof![Just(0u64), Just(2), Just(DRIFT)]) {
        let mut clock = HlcGenerator::fresh(replica(9), drift);
        let (mut highest, mut physical_max) = (None, 0);
        for step in script {
            let before = clock.clone();
            match step {
                Step::See(now) => {
                    clock.see(wall(now));
                    physical_max = physical_max.max(now);
                    prop_assert_eq!(clock.high_water(), before.high_water());
                }
                Step::Stamp(now) => {
                    physical_max = physical_max.max(now);
                    match clock.stamp(wall(now)) {
                        Ok(stamp) => {
                            prop_assert!(Some(stamp) > highest, "{stamp} after {highest:?}");
                            highest = Some(stamp);
                        }
                        Err(_) => prop_assert_eq!(&clock, &before),
                    }
                }
                Step::Receive(remote, now, later) => {
                    clock.see(wall(now));
                    physical_max = physical_max.max(now);
                    let tolerated = remote.wall().get() <= now + drift;
                    prop_assert_eq!(clock.check_drift(remote, wall(now)).is_ok(), tolerated);
                    if tolerated {
                        clock.see(wall(later));
                        physical_max = physical_max.max(later);
                        clock.follow(remote);
                        highest = highest.max(Some(Hlc { replica: replica(9), ..remote }));
                    } else {
                        prop_assert_eq!(clock.high_water(), before.high_water());
                    }
                }
            }
            prop_assert!(clock.high_water().wall().get() <= physical_max.saturating_add(drift));
        }
    }

    #[test]
    fn h4_the_next_stamp_is_above_what_was_observed(remote in any_hlc(), now in 0..6u64) {
        let mut clock = HlcGenerator::fresh(replica(0), u64::MAX);
        receive(&mut clock, remote, wall(now)).unwrap();
        if let Ok(next) = clock.stamp(wall(now)) {
            prop_assert!((next.wall(), next.counter()) > (remote.wall(), remote.counter()));
        }
    }

    #[test]
    fn h9_the_order_is_strict_and_total(a in any_hlc(), b in any_hlc(), c in any_hlc()) {
        prop_assert_eq!(a == b, a.cmp(&b).is_eq());
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        if a <= b && b <= c {
            prop_assert!(a <= c);
        }
        let hasher = RandomState::new();
        if a == b {
            prop_assert_eq!(hasher.hash_one(a), hasher.hash_one(b));
        }
    }

    #[test]
    fn h10_byte_order_is_order(a in any_hlc(), b in any_hlc()) {
        prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
        prop_assert_eq!(Hlc::from_bytes(&a.to_bytes()).unwrap(), a);
    }

    #[test]
    fn h10_other_lengths_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(Hlc::from_bytes(&bytes).is_ok(), bytes.len() == Hlc::LEN);
    }
}

#[test]
fn h5_the_drift_bound_is_exact() {
    for (ahead, tolerated) in [(DRIFT - 1, true), (DRIFT, true), (DRIFT + 1, false)] {
        let mut clock = HlcGenerator::fresh(replica(1), DRIFT);
        clock.stamp(wall(1000)).unwrap();
        let before = clock.clone();
        let remote = Hlc::new(wall(1000 + ahead), 7, replica(2));
        let received = receive(&mut clock, remote, wall(1000));
        let drift = DriftError { stamp: remote, ahead_ms: ahead, max_drift_ms: DRIFT };
        assert_eq!(received, if tolerated { Ok(()) } else { Err(drift) });
        assert_eq!(clock == before, !tolerated, "a refused stamp leaves the clock bit-identical");
    }
}

#[test]
fn h5_the_drift_bound_is_measured_against_physical_time() {
    // The clock stands at the bound itself, and physical time steps back.
    let mut clock = HlcGenerator::fresh(replica(1), DRIFT);
    receive(&mut clock, Hlc::new(wall(1000 + DRIFT), 0, replica(2)), wall(1000)).unwrap();
    for now in [1000, 400] {
        clock.see(wall(now));
        assert!(clock.check_drift(Hlc::new(wall(now + DRIFT), 9, replica(2)), wall(now)).is_ok());
        assert!(clock.check_drift(Hlc::new(wall(now + DRIFT + 1), 0, replica(2)), wall(now)).is_err());
    }
}

#[test]
fn h6_peers_cannot_ratchet_each_other_forward() {
    // Each of two replicas runs ahead of physical time by what the other one accepted.
    let (mut a, mut b) = (HlcGenerator::fresh(replica(1), DRIFT), HlcGenerator::fresh(replica(2), DRIFT));
    let now = wall(1_000_000);
    receive(&mut a, Hlc::new(wall(1_000_000 + DRIFT), u16::MAX - 1, replica(3)), now).unwrap();
    for _ in 0..10 {
        if let Ok(stamp) = a.stamp(now) {
            let _ = receive(&mut b, stamp, now);
        }
        if let Ok(stamp) = b.stamp(now) {
            let _ = receive(&mut a, stamp, now);
        }
    }
    assert!(
        a.high_water().wall() <= wall(1_000_000 + DRIFT) && b.high_water().wall() <= wall(1_000_000 + DRIFT)
    );
}

#[test]
fn h7_a_full_counter_carries_into_the_milliseconds() {
    let mut clock = HlcGenerator::new(Hlc::new(wall(1000), u16::MAX - 1, replica(1)), 1);
    assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(1000), u16::MAX, replica(1)));
    assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(1001), 0, replica(1)));
    assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(1001), 1, replica(1)));
}

#[test]
fn h7_a_carry_beyond_the_drift_bound_is_refused() {
    let mut clock = HlcGenerator::new(Hlc::new(wall(1000), 0, replica(1)), 1);
    receive(&mut clock, Hlc::new(wall(1001), u16::MAX, replica(2)), wall(1000)).unwrap();
    let before = clock.clone();
    assert!(matches!(clock.stamp(wall(1000)), Err(ClockError::Exhausted { max_drift_ms: 1 })));
    assert_eq!(clock, before);
    assert_eq!(clock.stamp(wall(1001)).unwrap(), Hlc::new(wall(1002), 0, replica(1)), "time heals it");

    let mut last = HlcGenerator::new(Hlc::new(WallMs::MAX, u16::MAX, replica(1)), 1);
    assert!(matches!(last.stamp(WallMs::MAX), Err(ClockError::Beyond48Bits { .. })));
}

#[test]
fn h7_counting_goes_on_from_a_stamp_that_was_let_through() {
    let mut clock = HlcGenerator::fresh(replica(1), 1);
    let far = Hlc::new(wall(5000), u16::MAX, replica(2));
    clock.see(wall(1000));
    clock.check_drift(far, wall(1000)).unwrap_err();
    clock.follow(far);
    assert_eq!(clock.stamp(wall(1000)).unwrap(), Hlc::new(wall(5001), 0, replica(1)));
    assert!(clock.check_drift(far, wall(1000)).is_err(), "it is let through once, the bound stays");
}

#[test]
fn a_clock_that_steps_back_does_not_stop_the_stamps() {
    let mut clock = HlcGenerator::fresh(replica(1), DRIFT);
    let before = clock.stamp(wall(10_000_000)).unwrap();
    for _ in 0..200_000 {
        clock.stamp(wall(1)).unwrap();
    }
    assert_eq!(clock.high_water().wall(), wall(before.wall().get() + 3));
}

#[test]
fn h10_golden_bytes() {
    let stamp = Hlc::new(wall(0x0102_0304_0506), 0x0708, replica(0x1112_1314_1516_1718_191a_1b1c_1d1e_1f20));
    let bytes: Vec<u8> = (1..=8).chain(0x11..=0x20).collect();
    assert_eq!(stamp.to_bytes().to_vec(), bytes);
}

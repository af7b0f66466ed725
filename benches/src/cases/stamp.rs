//! Drawing a stamp.

use std::hint::black_box;

use syncline::{Clock, HlcGenerator, ReplicaId, SystemClock, Uuid, WallMs};

use super::Bench;
use crate::Result;
use crate::rounds::{Spread, paired};
use crate::stopwatch::Stopwatch;
use crate::table::{Bar, Quantity, Row};

/// A commit costs some hundred microseconds, so this could cost ten times as much and not be seen there.
const BAR: Bar = Bar::BelowNanos(50.);

pub(super) fn run(bench: &Bench<'_>) -> Result<Vec<Row>> {
    // Short rounds, so that most of them run undisturbed.
    let (rounds, stamps) = (bench.amount(101, 51), 100_000);
    let clock = SystemClock::new();
    let mut stamper = HlcGenerator::fresh(ReplicaId(Uuid::from_u128(1)), 5 * 60 * 1000);
    let still = clock.wall()?;
    let wall = || -> Result<WallMs> { Ok(clock.wall()?) };
    let [alone, with_wall, wall] = paired(
        rounds,
        || (),
        |(), side| match side {
            0 => nanos(stamps, || {
                black_box(stamper.stamp(black_box(still))?);
                Ok(())
            }),
            1 => nanos(stamps, || {
                black_box(stamper.stamp(wall()?)?);
                Ok(())
            }),
            _ => nanos(stamps, || {
                black_box(wall()?);
                Ok(())
            }),
        },
    )?;
    let row = |case: &str, nanos: &[f64], beside: Option<&[f64]>, bar| Row {
        case: case.into(),
        ids: "",
        commit: String::new(),
        ours: Quantity::Nanos(Spread::of(nanos).median),
        beside: beside.map(|nanos| Quantity::Nanos(Spread::of(nanos).median)),
        bare: None,
        figure: Spread::of(nanos),
        bar,
    };
    Ok(vec![
        row("`HlcGenerator::stamp`", &alone, None, Some(BAR)),
        // What the platform's clock costs is the platform's affair.
        row("`stamp(SystemClock::wall)`, beside the clock", &with_wall, Some(&wall), None),
    ])
}

/// The nanoseconds that `work` takes, of `count` times.
fn nanos(count: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let stopwatch = Stopwatch::start();
    for _ in 0..count {
        work()?;
    }
    Ok(1e9 / stopwatch.rate(count))
}

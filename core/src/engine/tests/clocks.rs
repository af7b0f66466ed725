//! Goal: stamps rise and are not shown before they are stored, whatever the wall clock does. Method: the readings of both
//! clocks are made up.

use super::*;

#[test]
fn a_stamp_is_not_shown_before_it_is_durable() {
    let mut world = World::new(Rules::default());
    let before = world.engine.report().clock;
    world.now = now(5000);
    world.submit(vec![tag(1, "a")]);
    let batch = world.up_to_write().unwrap();
    assert_eq!(world.engine.report().clock, before);
    world.written(batch);
    world.settle();
    assert_eq!(world.engine.report().clock, world.head().stamp);
    assert!(world.engine.report().clock > before);
}

#[test]
fn a_clock_that_fails_stops_nothing_but_the_commit() {
    let mut world = World::new(Rules::default());
    let bad = [ClockError::Before1970, ClockError::failed("no clock"), WallMs::new(u64::MAX).unwrap_err()];
    for error in bad {
        world.now.wall = Err(error);
        assert!(matches!(world.commit(vec![tag(1, "a")]), Err(Error::Clock(_))));
        // A commit that draws no stamp needs no clock.
        world.commit(vec![untag(9)]).unwrap();
    }
    assert!(world.writes.is_empty());
    world.now = now(1000);
    world.commit(vec![tag(1, "a")]).unwrap();
    assert_eq!(world.audit(), []);
}

#[test]
fn a_jump_of_the_wall_clock_is_an_event_and_stamping_goes_on() {
    let mut world = World::new(Rules::default());
    let hour = 3_600_000;
    let readings: [(Result<u64, ()>, u64, Option<i64>); 7] = [
        (Ok(1000 + 60_000), 1000, None),                   // within the bound
        (Ok(1000 + 60_000 + hour), 2000, Some(3_599_000)), // forward
        (Ok(1000 + 60_000 + hour + 500), 2500, None),      // in step
        (Err(()), 2600, None),                             // no reading at all
        (Ok(1000), 2700, Some(1000 - 3_661_500 - 200)),    // back, seen across the failed reading
        (Ok(1000 + hour), 2700 + hour, None),              // suspended: both moved
        (Ok(1000), 2700 + hour, Some(-3_600_000)),         // back
    ];
    for (wall, mono, jumped) in readings {
        world.now = Now { wall: wall.map_or(Err(ClockError::Before1970), WallMs::new), mono: Mono(mono) };
        world.notices.clear();
        let before = world.engine.report().clock;
        let committed = world.commit(vec![rename(1, "x")]).is_ok();
        assert_eq!(committed, wall.is_ok());
        assert_eq!(world.engine.report().clock > before, committed);
        let jumps: Vec<_> = world
            .notices
            .iter()
            .flat_map(|notice| notice.iter())
            .filter_map(|event| match event {
                Event::ClockJumped { by_ms } => Some(*by_ms),
                _ => None,
            })
            .collect();
        assert_eq!(jumps, jumped.into_iter().collect::<Vec<_>>(), "at {mono}");
    }
}

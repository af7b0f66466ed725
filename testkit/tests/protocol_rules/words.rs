//! A plan in words.

use std::fmt::Write as _;

use syncline_testkit::sim::{Action, Edit, Plan, Step, StoreFault, Wall};

/// Writes the steps of a plan as a list.
pub(crate) fn history(page: &mut String, plan: &Plan) {
    let Plan { replicas, older_apps, tight, steps, .. } = plan;
    let mut about = vec![format!("{replicas} replicas")];
    let those = |mask: u8| places(mask, *replicas);
    if let Some(some) = those(*older_apps) {
        about.push(format!("the app of {some} does not know sets until the end"));
    }
    if let Some(some) = those(*tight) {
        about.push(format!("the limits of {some} are as small as they may be"));
    }
    writeln!(page, "{}.", about.join("; ")).unwrap();
    if !steps.is_empty() {
        page.push('\n');
    }
    for (number, Step { after_ms, action }) in (1..).zip(steps) {
        let wait = match after_ms {
            0 => String::new(),
            ms => format!("{ms} ms later: "),
        };
        writeln!(page, "{number}. {wait}{}.", words(action)).unwrap();
    }
}

/// The replicas of a failure, by their numbers instead of by their ids.
pub(crate) fn by_number(detail: &str) -> String {
    detail.replace("00000000-0000-0000-0000-0000000000a", "replica ")
}

fn words(action: &Action) -> String {
    match action {
        Action::Commit { at, edits, cancelled } => {
            let edits: Vec<_> = edits.iter().map(edit).collect();
            let cancelled =
                cancelled.map_or(String::new(), |polls| format!(", and drops the call after {polls} polls"));
            format!("{at} commits: {}{cancelled}", edits.join(", "))
        }
        Action::Pair { at } => format!("{at} commits the two notes of the pair"),
        Action::Many { at, count } => format!("{at} makes {count} commits"),
        Action::Large { at, id, kib } => format!("{at} commits photo {id} of {kib} KiB"),
        Action::Crash { at, applied, down_ms } => {
            let write = if *applied { "is applied" } else { "is not applied" };
            let back = down_ms.map_or("for ever".into(), |ms| format!("for {ms} ms"));
            format!("{at} dies {back}; a write that this cuts off {write}")
        }
        Action::Lose { at } => format!("{at} dies for ever, if another one can add joiners"),
        Action::Stop { at, down_ms } => format!("{at} shuts down for {down_ms} ms"),
        Action::Fault { at, after, fault } => {
            format!("{} of the store of {at} {}", operation(*after), self::fault(fault))
        }
        Action::Full { at, full: true } => format!("the disk of {at} is full"),
        Action::Full { at, full: false } => format!("the disk of {at} has space again"),
        Action::Slow { at, write_ms } => format!("writes of {at} take {write_ms} ms from now on"),
        Action::SlowReads { at, read_ms } => format!("reads of {at} take {read_ms} ms from now on"),
        Action::Backup { at } => format!("the disk of {at} is copied"),
        Action::Restore { at } => format!("{at} dies, and comes back with the copy of its disk, to read"),
        Action::Revive { at, mask } => {
            let cut = places(*mask, 8)
                .map_or(String::new(), |some| format!("; the network is cut between {some} and the others"));
            format!("{at} dies, comes back with the copy of its disk, and goes on writing{cut}")
        }
        Action::Link { from, to, percent: [lost, twice, late, damaged], delay_ms, blocked } => {
            let mut link: Vec<_> =
                [(lost, "lost"), (twice, "repeated"), (late, "reordered"), (damaged, "damaged")]
                    .into_iter()
                    .filter(|(percent, _)| **percent > 0)
                    .map(|(percent, what)| format!("{percent} % are {what}"))
                    .collect();
            link.extend(blocked.then(|| "none passes".into()));
            link.push(format!("they take up to {delay_ms} ms"));
            format!("of the frames from {from} to {to} {}", link.join(", "))
        }
        Action::Partition { mask } => {
            let some = places(*mask, 8).unwrap_or_else(|| "nobody".into());
            format!("the network is cut between {some} and the others")
        }
        Action::Disconnect { one, other } => format!("{one} and {other} are disconnected"),
        Action::Heal => "the network is whole again".into(),
        Action::Clock { at, wall } => format!("the wall clock of {at} {}", self::wall(*wall)),
        Action::Pause { at, ms } => format!("{at} hangs for {ms} ms"),
        Action::Join { .. } => "another replica joins through 0".into(),
        Action::JoinThrough { introducer, device_of } => {
            let device = device_of.map_or(String::new(), |one| format!(", on the device of {one}"));
            format!("another replica joins through {introducer}{device}")
        }
        Action::Flap { one, other, times } => {
            format!("{one} and {other} are disconnected and connected again {times} times")
        }
        Action::Late { from, to, ago } => {
            format!("the frame that {from} sent to {to} {ago} frames ago arrives once more")
        }
        Action::Update { at, to } => format!("{at} dies, and comes back with the version {to:?} of its app"),
        other => format!("{other:?}"),
    }
}

fn edit(edit: &Edit) -> String {
    let (what, id, put) = match edit {
        Edit::Note(id, put) => ("note", id, put),
        Edit::Place(id, put) => ("place", id, put),
        Edit::Set(id, put) => ("set", id, put),
    };
    format!("{} {what} {id}", if *put { "puts" } else { "deletes" })
}

fn operation(after: u8) -> String {
    match after {
        0 => "the next operation".into(),
        1 => "the next operation but one".into(),
        more => format!("the operation that comes after {more} others"),
    }
}

fn fault(fault: &StoreFault) -> String {
    let applied = |applied: bool| if applied { "applied" } else { "not applied" };
    match *fault {
        StoreFault::Error => "fails".into(),
        StoreFault::Unknown { applied: done } => format!("has an unknown outcome, and is {}", applied(done)),
        StoreFault::Panic { applied: done } => format!("panics, and is {}", applied(done)),
        StoreFault::Death { applied: done, again, .. } => {
            format!("kills the process, and is {}; it dies again {again} times", applied(done))
        }
    }
}

fn wall(wall: Wall) -> String {
    match wall {
        Wall::Off(ms) if ms < 0 => format!("is {} ms late", -ms),
        Wall::Off(ms) => format!("is {ms} ms ahead"),
        Wall::Frozen(at) => format!("stands still at {at} ms"),
        Wall::Before1970 => "shows a time before 1970".into(),
        Wall::Fails => "cannot be read".into(),
        Wall::Drifts(ms) => format!("moves away from the time by {ms} ms a second"),
    }
}

/// The replicas of a mask, or `None` if there are none.
fn places(mask: u8, count: u8) -> Option<String> {
    let places: Vec<_> =
        (0..count.min(8)).filter(|at| mask >> at & 1 == 1).map(|at| at.to_string()).collect();
    (!places.is_empty()).then(|| places.join(" and "))
}

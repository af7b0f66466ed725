#![forbid(unsafe_code)]
//! Prints the table: `cargo bench -p syncline-benches --bench ratios [-- [--quick] [engine]... [case]...]`.

use syncline_benches::cases::{self, Bench, Case};
use syncline_benches::hand_written::redb::Redb;
use syncline_benches::hand_written::sled::Sled;
use syncline_benches::hand_written::sqlite::Sqlite;
use syncline_benches::rounds::Spread;
use syncline_benches::stopwatch::Stopwatch;
use syncline_benches::{Result, disk, table};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        // `cargo test --all-targets` runs this too.
        eprintln!("nothing is measured without --bench, which `cargo bench` passes");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    for child in [cases::in_child::<Redb>, cases::in_child::<Sled>, cases::in_child::<Sqlite>] {
        if let Some(outcome) = child(&runtime, &arguments) {
            return outcome;
        }
    }
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with("--"));
    if let Some(unknown) = flags.iter().find(|flag| !["--bench", "--quick"].contains(&flag.as_str())) {
        return Err(format!("{unknown} is unknown; the arguments are [--quick] [engine]... [case]...").into());
    }
    let quick = flags.iter().any(|flag| *flag == "--quick");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Bench { runtime: &runtime, dir: dir.path(), quick };

    // Not sled's memory: it grows with the store, by 84 MiB for 1,000,000 hand-written records, and would hide ours.
    let cases: Vec<Case> = cases::without_engine()
        .into_iter()
        .chain(cases::of::<Redb>())
        .chain(cases::join_of::<Redb>())
        .chain(cases::memory_of::<Redb>())
        .chain(cases::of::<Sled>())
        .chain(cases::of::<Sqlite>())
        .chain(cases::join_of::<Sqlite>())
        .chain(cases::memory_of::<Sqlite>())
        .collect();
    let mut rows = Vec::new();
    let mut flushes_us = Vec::new();
    for case in &cases {
        if is_selected(case, &cases, &names) {
            eprintln!("{} {}", case.engine, case.name);
            flushes_us.push(disk::flush_cost(dir.path(), 100)?.as_secs_f64() * 1e6);
            let stopwatch = Stopwatch::start();
            rows.extend((case.run)(&bench)?);
            eprintln!("  {:.1} s", stopwatch.elapsed().as_secs_f64());
        }
    }
    if rows.is_empty() {
        let known: Vec<_> = cases.iter().map(|case| format!("{} {}", case.engine, case.name)).collect();
        return Err(format!("no case is called so; there are {}", known.join(", ")).into());
    }
    flushes_us.push(disk::flush_cost(dir.path(), 100)?.as_secs_f64() * 1e6);
    let Spread { median, min, max } = Spread::of(&flushes_us);
    println!("{}", table::markdown(&rows));
    println!(
        "Rates and times are medians of paired rounds; the figure is the median of the ratios of the rounds. \
         A flush (fdatasync after appending 4 KiB) took {median:.0} µs, {min:.0}..{max:.0} between the cases."
    );
    Ok(())
}

/// Whether `case` is of an engine that was named, or of any if none was, and the same with what is measured.
fn is_selected(case: &Case, all: &[Case], names: &[&String]) -> bool {
    let is_engine = |name: &str| all.iter().any(|case| case.engine == name);
    let (engines, cases): (Vec<&str>, Vec<&str>) =
        names.iter().map(|name| name.as_str()).partition(|name| is_engine(name));
    (engines.is_empty() || engines.contains(&case.engine))
        && (cases.is_empty() || cases.iter().any(|name| case.name.contains(name)))
}

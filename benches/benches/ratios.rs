#![forbid(unsafe_code)]
//! Prints the table: `cargo bench -p syncline-benches [-- [--quick] [case]...]`.

use std::path::Path;

use syncline_benches::cases::{self, Bench, LIST_IN_CHILD};
use syncline_benches::hand_written::redb::Redb;
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
    if let [_, child, path, records] = arguments.as_slice()
        && child == LIST_IN_CHILD
    {
        return cases::list_in_child::<Redb>(&runtime, Path::new(path), records.parse()?);
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let names: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Bench { runtime: &runtime, dir: dir.path(), quick };

    let mut rows = Vec::new();
    let mut flushes_us = Vec::new();
    for case in cases::all::<Redb>() {
        if names.is_empty() || names.iter().any(|name| case.name.contains(name.as_str())) {
            eprintln!("{}", case.name);
            flushes_us.push(disk::flush_cost(dir.path(), 100)?.as_secs_f64() * 1e6);
            let stopwatch = Stopwatch::start();
            rows.extend((case.run)(&bench)?);
            eprintln!("  {:.1} s", stopwatch.elapsed().as_secs_f64());
        }
    }
    if rows.is_empty() {
        let known = cases::all::<Redb>().map(|case| case.name).join(", ");
        return Err(format!("no case is called so; there are {known}").into());
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

//! Plays histories of the simulator for so many seconds, and prints how many, how fast, and which marks they have seen:
//! `cargo soak [SECONDS]`. `SYNCLINE_SEED` is the first seed; otherwise each run begins where no run did before.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program prints")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use syncline::internals::{MARKS, Rules};
use syncline::{Clock as _, SystemClock};
use syncline_testkit::seed;
use syncline_testkit::sim::{KINDS, check};

const SECONDS: u64 = 60;

fn main() -> ExitCode {
    let seconds = match std::env::args().nth(1).map(|text| text.parse()) {
        None => SECONDS,
        Some(Ok(seconds)) => seconds,
        Some(Err(_)) => {
            eprintln!("cargo soak [SECONDS]");
            return ExitCode::FAILURE;
        }
    };
    let clock = SystemClock::new();
    let first = match (std::env::var_os("SYNCLINE_SEED"), clock.wall()) {
        (None, Ok(wall)) => wall.get() << 16,
        _ => seed(),
    };
    let start = clock.mono();
    let passed_ms = || clock.mono().since(start);
    let (next, marks, kinds) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let (commits, deaths, frames) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let is_failed = || failed.lock().is_ok_and(|failed| !failed.is_empty());
    println!("the first seed is {first}");
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while passed_ms() < seconds * 1000 && !is_failed() {
                    let seed = next.fetch_add(1, Relaxed);
                    match check(seed, Rules::ALL) {
                        Ok(report) => {
                            marks.fetch_or(report.marks.into(), Relaxed);
                            kinds.fetch_or(report.kinds.into(), Relaxed);
                            commits.fetch_add(report.commits, Relaxed);
                            deaths.fetch_add(report.deaths, Relaxed);
                            frames.fetch_add(report.frames, Relaxed);
                        }
                        Err(explanation) => {
                            if let Ok(mut failed) = failed.lock() {
                                failed.push(explanation);
                            }
                        }
                    }
                }
            });
        }
    });
    let (seeds, ms) = (next.into_inner() - first, passed_ms().max(1));
    let rate = seeds.saturating_mul(10_000) / ms;
    println!(
        "{seeds} seeds in {} s, {}.{} a second; {} commits, {} deaths, {} frames",
        ms / 1000,
        rate / 10,
        rate % 10,
        commits.into_inner(),
        deaths.into_inner(),
        frames.into_inner()
    );
    print_seen("marks", &MARKS, marks.into_inner());
    print_seen("kinds", &KINDS, kinds.into_inner());
    let failed = failed.into_inner().unwrap_or_default();
    for explanation in &failed {
        println!("\n{explanation}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints how many of `names` were seen, and which were not.
fn print_seen(what: &str, names: &[&str], seen: u64) {
    let silent: Vec<_> =
        (0..).zip(names).filter(|(bit, _)| seen >> bit & 1 == 0).map(|(_, name)| *name).collect();
    let rest = if silent.is_empty() { String::new() } else { format!("; not seen: {}", silent.join(", ")) };
    println!("{what}: {} of {}{rest}", names.len() - silent.len(), names.len());
}

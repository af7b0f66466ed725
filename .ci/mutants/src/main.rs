//! Puts the mutants of the lists in `.ci/mutants` into a copy of the workspace, one at a time, and runs the tests.
//!
//! A mutant is killed if a test fails, or does not end. Its killer runs first, which takes seconds; if that passes, the
//! test command of `.ci/run` runs. Fails if fewer than 92 % are killed, or if one survives without a reason.
//! `--help` says how to choose among them.

mod list;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use list::{Mutant, root};

/// The share of mutants, in percent, that the tests must kill.
const KILLED_MIN: usize = 92;

/// The test commands of `.ci/run`. The lists of mutants are left out: no mutant applies where it is put in already.
const ALL_TESTS: [&str; 2] = [
    "--workspace --exclude syncline-mutants --all-features",
    "--release -p syncline-testkit --test simulation",
];

/// The result of a test command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// All tests pass: how many.
    Passed(usize),
    /// A test fails.
    Failed,
    /// The tests do not end in time.
    Hangs,
    NotCompiled,
}

/// Puts faults into a copy of the workspace, one at a time, and shows which of them the tests notice.
#[derive(Parser)]
#[command(name = ".ci/mutants/run")]
struct Settings {
    /// Run the killers alone.
    #[arg(long = "killers")]
    killers_only: bool,
    /// How long one test command may take, in seconds.
    #[arg(long, default_value_t = 1800)]
    seconds: u32,
    /// Parts of the names or files of mutants; all of them unless given.
    parts: Vec<String>,
}

impl Settings {
    fn wants(&self, mutant: &Mutant) -> bool {
        let named = |part: &String| mutant.name.contains(part) || mutant.file.contains(part);
        self.parts.is_empty() || self.parts.iter().any(named)
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let settings = Settings::parse();
    let mutants: Vec<_> = list::read_all()?.into_iter().filter(|mutant| settings.wants(mutant)).collect();
    let copy = Copy::make()?;
    let mut clean: BTreeMap<&str, Shown> = BTreeMap::new();
    let (mut killed, mut explained, mut wrong) = (0, 0, Vec::new());
    for mutant in &mutants {
        if let Some(reason) = &mutant.survives {
            explained += 1;
            println!("survives  {}: {reason}", mutant.name);
            continue;
        }
        let killer = mutant.killer.as_deref().unwrap_or(ALL_TESTS[0]);
        // A killer that fails without the fault, or that names no test, would prove nothing.
        if !clean.contains_key(killer) {
            clean.insert(killer, copy.test(killer, settings.seconds)?);
        }
        if !matches!(clean.get(killer), Some(Shown::Passed(1..))) {
            println!(
                "WRONG     {}: its killer `{killer}` shows {:?} without it",
                mutant.name,
                clean.get(killer)
            );
            wrong.push(&mutant.name);
            continue;
        }
        match copy.try_mutant(mutant, killer, &settings)? {
            Shown::Failed | Shown::Hangs => {
                killed += 1;
                println!("killed    {}", mutant.name);
            }
            Shown::Passed(_) => {
                println!("SURVIVES  {}: {}", mutant.name, mutant.why);
                wrong.push(&mutant.name);
            }
            Shown::NotCompiled => {
                println!("WRONG     {}: it does not compile", mutant.name);
                wrong.push(&mutant.name);
            }
        }
    }
    let share = 100 * killed / mutants.len().max(1);
    println!(
        "{killed} of {} mutants are killed: {share} %. {explained} survive for a reason.",
        mutants.len()
    );
    if !wrong.is_empty() {
        println!("{} survive without one, or are wrong: {wrong:?}", wrong.len());
    }
    Ok(if share >= KILLED_MIN && wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A copy of the workspace, so that no fault is ever in the sources themselves. It stays for the next run, which then
/// compiles only what has changed.
struct Copy {
    root: PathBuf,
    target: PathBuf,
}

impl Copy {
    fn make() -> Result<Self, Box<dyn Error>> {
        let base = root().join("target/mutants");
        let copy = Self { root: base.join("sources"), target: base.join("target") };
        let listed = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()?;
        for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let (from, to) = (root().join(name), copy.root.join(name));
            if from.is_file() {
                copy_if_changed(&from, &to)?;
            } else if to.is_file() {
                fs::remove_file(to)?;
            }
        }
        Ok(copy)
    }

    /// Runs tests with the fault: the killer, and if that does not notice it, all.
    fn try_mutant(
        &self,
        mutant: &Mutant,
        killer: &str,
        settings: &Settings,
    ) -> Result<Shown, Box<dyn Error>> {
        let path = self.root.join(&mutant.file);
        let text = fs::read_to_string(&path)?;
        fs::write(&path, mutant.apply(&text)?)?;
        let mut shown = self.test(killer, settings.seconds);
        for all in ALL_TESTS {
            if !settings.killers_only && matches!(shown, Ok(Shown::Passed(_))) {
                shown = self.test(all, settings.seconds);
            }
        }
        fs::write(&path, text)?;
        shown
    }

    fn test(&self, arguments: &str, seconds: u32) -> Result<Shown, Box<dyn Error>> {
        let output = Command::new("timeout")
            .args(["--kill-after=5", &seconds.to_string(), "cargo", "test", "--locked"])
            .args(arguments.split_whitespace())
            .current_dir(&self.root)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            // A fault may leave a name unused.
            .env_remove("RUSTFLAGS")
            .output()?;
        let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(match output.status.code() {
            Some(0) => Shown::Passed(passed(&out)),
            Some(124 | 137) => Shown::Hangs,
            _ if log.contains("could not compile") || log.contains("no test target") => Shown::NotCompiled,
            _ => Shown::Failed,
        })
    }
}

/// Copies a file unless the copy is the same: a file that is written anew would be compiled anew.
fn copy_if_changed(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let bytes = fs::read(from)?;
    if fs::read(to).is_ok_and(|copied| copied == bytes) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(to, bytes)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    Ok(())
}

/// How many tests have passed, as the lines `test result: ok. 3 passed; …` say.
fn passed(output: &str) -> usize {
    let counts = output.lines().filter_map(|line| {
        let (before, _) = line.strip_prefix("test result:")?.split_once(" passed")?;
        before.rsplit(' ').next()?.parse::<usize>().ok()
    });
    counts.sum()
}

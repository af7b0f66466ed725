#![forbid(unsafe_code)]
//! `cargo demo [DIR]`: what the library is for, on real input.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::HumanCount;
use syncline_demo::data_dir::DataDir;
use syncline_demo::progress::Progress;
use syncline_demo::run::{Counts, Outcome};
use syncline_demo::stores::Store;
use syncline_demo::survey::Survey;
use syncline_demo::walk::{FileSystem, Walk};
use syncline_demo::{Result, report};

/// Keeps a directory in each durable store of Syncline: a record for every file and directory, a shared tag for
/// every kind of them. A later run commits only what changed since. Then every store is audited.
///
/// A run may be stopped at any moment; the next one commits the rest. What cannot be read is counted, and what the
/// stores know of it stays. Links are not followed. A place where nothing is mounted now looks like an empty directory.
///
/// Exit code: 0 if all is well, 1 if an audit found a violation, 2 if the run could not be done.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo demo", verbatim_doc_comment)]
struct Arguments {
    /// The directory to walk.
    #[arg(default_value = ".")]
    dir: PathBuf,

    /// Where the stores are kept, for each walked directory on their own; never walked itself.
    ///
    /// [default: `syncline-demo` in the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// A store to run on; may be repeated. All of them unless given.
    #[arg(long = "store", value_name = "STORE")]
    stores: Vec<Store>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(demo(&arguments)));
    match done {
        Ok(Verdict::Well) => ExitCode::SUCCESS,
        Ok(Verdict::Violated) => ExitCode::from(1),
        Ok(Verdict::Failed) => ExitCode::from(2),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// How it went, in the order of what matters more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Well,
    /// A store could not be brought up to date, or not be opened.
    Failed,
    /// A store is not as it must be.
    Violated,
}

async fn demo(arguments: &Arguments) -> Result<Verdict> {
    let mut out = io::stdout().lock();
    let root = canonical(&arguments.dir)?;
    let default = env::temp_dir().join("syncline-demo");
    let data = DataDir::open(arguments.data.as_ref().unwrap_or(&default), &root)?;
    let survey = Survey::of(Walk::new(FileSystem, &root, &data.path, data.device))?;
    let (files, directories) = (HumanCount(survey.files), HumanCount(survey.directories));
    writeln!(out, "{}: files: {files}, directories: {directories}", root.display())?;
    writeln!(out, "stores: {}", data.stores.display())?;
    if survey.unreadable > 0 {
        let unreadable = HumanCount(survey.unreadable);
        writeln!(out, "skipped {unreadable} that cannot be read; what the stores know of them stays")?;
        for example in &survey.examples {
            writeln!(out, "  {example}")?;
        }
    }

    let chosen = if arguments.stores.is_empty() { Store::ALL.to_vec() } else { arguments.stores.clone() };
    let mut outcomes = Vec::new();
    for store in chosen {
        let name = store.name();
        let mut progress = Progress::new(&name, survey.entries());
        let outcome = store.run(&root, &data, &mut progress).await?;
        describe(&mut out, &name, &outcome)?;
        outcomes.push((name, outcome));
    }
    writeln!(out, "\n{}\n\n{}", report::table(&outcomes), report::LEGEND)?;
    Ok(outcomes.iter().map(|(_, outcome)| verdict(outcome)).max().unwrap_or(Verdict::Well))
}

fn canonical(dir: &Path) -> Result<PathBuf> {
    let failed =
        |what: &dyn std::fmt::Display| format!("{}: {what}; name a directory that is there", dir.display());
    let root = dir.canonicalize().map_err(|error| failed(&error))?;
    if root.is_dir() { Ok(root) } else { Err(failed(&"this is not a directory").into()) }
}

fn verdict(outcome: &Outcome) -> Verdict {
    match (&outcome.audit, &outcome.counts) {
        (Ok(violations), _) if !violations.is_empty() => Verdict::Violated,
        (Ok(_), Ok(_)) => Verdict::Well,
        _ => Verdict::Failed,
    }
}

/// Violations come in crowds when a whole table is gone; a few tell the story.
const VIOLATIONS_SHOWN_MAX: usize = 10;

fn describe(out: &mut impl Write, store: &str, outcome: &Outcome) -> Result<()> {
    match &outcome.counts {
        Ok(counts) => {
            let Counts { added, changed, deleted, kept, commits, .. } = counts;
            let [added, changed, deleted, kept, commits] =
                [added, changed, deleted, kept, commits].map(|count| HumanCount(*count));
            writeln!(
                out,
                "{store}: {added} added, {changed} changed, {deleted} deleted, {kept} kept unseen; commits: {commits}"
            )?;
        }
        Err(error) => writeln!(out, "{store}: {error}")?,
    }
    match &outcome.audit {
        Ok(violations) => {
            for violation in violations.iter().take(VIOLATIONS_SHOWN_MAX) {
                writeln!(out, "{store}: {violation}")?;
            }
            if let Some(more) = violations.len().checked_sub(VIOLATIONS_SHOWN_MAX + 1) {
                writeln!(out, "{store}: and {} more", HumanCount(more as u64 + 1))?;
            }
        }
        Err(error) => writeln!(out, "{store}: not audited: {error}")?,
    }
    Ok(())
}

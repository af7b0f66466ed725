//! The list of power: whether what a store acknowledges was synced, so that it survives a loss of power.
//!
//! A child writes under strace, which needs no privileges. The trace is judged, call by call:
//!
//! - When a write is acknowledged, every file of the store that was written is synced after its last write: by `fsync`,
//!   `fdatasync`, `msync(MS_SYNC)`, `sync` or `syncfs` that began when the write had ended, or since each write of the file
//!   syncs (`O_SYNC`, `O_DSYNC`, `RWF_DSYNC`). `sync_file_range` is none of these: it flushes neither the disk nor the
//!   length of the file. A sync that has failed does not count, nor does the next one.
//!   A file that is only made longer or shorter counts as written if nothing is left of it: engines end a transaction by
//!   emptying a journal, and give space back after their last sync.
//! - A file that was created, renamed or removed has its directory synced.
//! - What is written through shared memory (`mmap`) is in no trace: such a file counts as written by every batch.
//! - When a reader sees a batch, it is synced already.
//!
//! What the list cannot see: what `io_uring` writes (the test says so, and fails); a file system or a disk that does not
//! keep what it says it has synced; whether a store that is opened puts together what it finds: it only asks which bytes
//! are there. Work in the background of a write that leaves files unsynced is told as a fault of the write; the workload
//! is too small for an LSM to compact.
//!
//! Some files need not survive, such as SQLite's `-shm` or a log for people. The store names them:
//! `power_tests!(mine, |path| Mine::open(path), without: ["-shm"])`. Then the list removes them and looks whether the
//! store holds everything.

use std::fs;
use std::path::Path;

use syncline::Storage;

use crate::child::{Command, Numbers, Opener, Parent, Question, Size, run};
use crate::strace::{Traced, Verdict};

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_power_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            acknowledged_is_synced
            new_files_are_synced_in_their_directory
            seen_is_synced
        }
    };
}

/// Makes a module of the given name with one test for each property of the [list of power](mod@crate::power).
///
/// The closure opens the store at a path, as for [`crash_tests!`](crate::crash_tests):
/// `power_tests!(mine, |path| Mine::open(path));`. With `without: ["-shm"]` the ends of the names of files are named that
/// the store does without after a loss of power.
///
/// The tests need strace and the right to trace a child. Where the kit was built without them, the tests are *ignored*,
/// and say so.
#[macro_export]
macro_rules! power_tests {
    ($module:ident, $open:expr $(,)?) => {
        $crate::power_tests! { $module, $open, without: [] }
    };
    ($module:ident, $open:expr, without: $without:expr $(,)?) => {
        $crate::for_each_power_property! { [$crate::strace_test_module] ($) power, $module, $open, $without, {} }
    };
}

/// As [`child_test_module!`](crate::child_test_module), for tests that need strace.
#[doc(hidden)]
#[macro_export]
macro_rules! strace_test_module {
    (
        [($d:tt) $list:ident, $module:ident, $open:expr, $without:expr, { $($ignored:ident = $reason:literal),* }]
        $($property:ident)*
    ) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may need nothing from outside")]
            use super::*;

            // A name that is no property of the list does not compile.
            $(const _: () = {
                #[allow(unused_imports, reason = "it is there to be looked up")]
                use $crate::$list::$ignored;
            };)*

            macro_rules! unless_ignored {
                $(($ignored $d($d test:tt)*) => { $crate::strace_test! { #[ignore = $reason] $d($d test)* } };)*
                ($d property:ident $d($d test:tt)*) => { $crate::strace_test! { $d($d test)* } };
            }

            $(
                unless_ignored! {
                    $property
                    fn $property() {
                        let test = concat!(module_path!(), "::", stringify!($property));
                        let without: &[&str] = &$without;
                        let opener = $crate::child::Opener::new(test, $open).without(without.iter().copied());
                        $crate::$list::$property(&opener);
                    }
                }
            )*
        }
    };
}

/// Makes a test of a function that needs strace. Whether the test is ignored is decided when the kit is built.
#[cfg(strace)]
#[doc(hidden)]
#[macro_export]
macro_rules! strace_test {
    ($($function:tt)*) => {
        #[test]
        $($function)*
    };
}

/// Makes a test of a function that needs strace. Whether the test is ignored is decided when the kit is built.
#[cfg(not(strace))]
#[doc(hidden)]
#[macro_export]
macro_rules! strace_test {
    ($($function:tt)*) => {
        #[test]
        #[allow(unused_attributes, reason = "a test may be ignored for a reason of its own too")]
        #[ignore = "needs strace, and a system that lets it trace a child: install it, then `cargo clean -p syncline-testkit`"]
        $($function)*
    };
}

/// Every file of the store that was written is synced when a write is acknowledged.
pub fn acknowledged_is_synced<S: Storage>(opener: &Opener<S>) {
    run("acknowledged_is_synced", opener, |parent| {
        each_trace(parent, opener, |verdict| verdict.acknowledged.take())?;
        holds_without(parent, &opener.without)
    });
}

/// The name of every file that was created, renamed or removed is synced when a write is acknowledged.
pub fn new_files_are_synced_in_their_directory<S: Storage>(opener: &Opener<S>) {
    run("new_files_are_synced_in_their_directory", opener, |parent| {
        each_trace(parent, opener, |verdict| verdict.names.take())
    });
}

/// A batch is synced when a reader sees it: a loss of power would take back what was read.
pub fn seen_is_synced<S: Storage>(opener: &Opener<S>) {
    run("seen_is_synced", opener, |parent| {
        let mut verdict = trace(parent, opener, Size::Small, &[Command::Watch(Numbers::up_to(BATCHES))])?;
        if verdict.sights != BATCHES {
            return Err(format!("the trace has {} sights of {BATCHES} batches", verdict.sights));
        }
        verdict.seen.take().map_or(Ok(()), Err)
    });
}

/// Enough for files that are made anew now and then.
const BATCHES: u32 = 30;
/// Some hundreds to some thousands of operations.
const LARGE_BATCHES: u32 = 3;

/// Lets children write to a new store, to one that was closed and to one that was not, and judges each trace.
fn each_trace<S: Storage>(
    parent: &Parent,
    opener: &Opener<S>,
    fault: impl Fn(&mut Verdict) -> Option<String>,
) -> Result<(), String> {
    let half = BATCHES / 2;
    let reopened = [
        Command::Write(Numbers::up_to(half)),
        Command::Close,
        Command::Open(parent.path()),
        Command::Write(Numbers((half + 1..=BATCHES).collect())),
    ];
    let large = [Command::Write(Numbers::up_to(LARGE_BATCHES))];
    for (size, commands, batches) in
        [(Size::Small, &reopened[..], BATCHES), (Size::Large, &large, LARGE_BATCHES)]
    {
        let mut verdict = trace(parent, opener, size, commands)?;
        if verdict.acknowledgements != batches {
            let found = verdict.acknowledgements;
            return Err(format!("the trace has {found} acknowledgements of {batches} batches"));
        }
        if let Some(fault) = fault(&mut verdict) {
            return Err(fault);
        }
    }
    Ok(())
}

/// Runs the commands in a child, which ends without closing the store, and judges what it called.
fn trace<S: Storage>(
    parent: &Parent,
    opener: &Opener<S>,
    size: Size,
    commands: &[Command],
) -> Result<Verdict, String> {
    let (mut child, traced) = Traced::start(parent, parent.script(size), &[])?;
    child.must_open(&parent.path())?;
    for command in commands {
        child.must(command)?;
    }
    child.finish()?;
    let verdict = traced.verdict(&opener.without)?;
    if verdict.blind {
        return Err(
            "the store writes through io_uring, which no trace shows: this list cannot judge it".into()
        );
    }
    Ok(verdict)
}

/// Removes the files that the store says it does without, and looks whether it does.
fn holds_without(parent: &Parent, without: &[String]) -> Result<(), String> {
    remove(&parent.place(), without).map_err(|error| error.to_string())?;
    let mut child = parent.opened(parent.script(Size::Large))?;
    child
        .judge(&Question::in_order(LARGE_BATCHES, LARGE_BATCHES))
        .map(drop)
        .map_err(|what| format!("without the files {without:?}: {what}"))
}

fn remove(directory: &Path, without: &[String]) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove(&path, without)?;
        } else if without.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

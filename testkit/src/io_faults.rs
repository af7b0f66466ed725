//! The list of faults: what a store on files says, and keeps, when the system refuses its calls.
//!
//! A child writes under strace, which lets chosen calls fail without being made. First a child writes without faults, and
//! its calls to files of the store are counted. Then, for one call after the other, a child of its own meets the fault
//! there. It tells the outcome of each write; where the outcome is unknown, it opens the store again. Then a child
//! without faults judges:
//!
//! - What was `Ok` is there, whole and in its order.
//! - What was `Rejected` is not there, also after the store was opened again.
//! - What was `Unknown`, or ended in a panic, is there whole or not at all; and after `Unknown` the same handle accepts
//!   nothing more.
//! - A batch is not acknowledged by a sync that came after one which had failed: the system forgets with the error what it
//!   could not write.
//! - The store opens, and goes on.
//!
//! A store that hangs, aborts or panics while it opens is told in one sentence. strace counts calls by thread, so a fault
//! may hit two threads at once, and an opening that fails is tried again.
//!
//! By default each property lets [`FAULTS_MAX`] calls fail, drawn from the seed; with `SYNCLINE_SOAK=1` it lets each call
//! fail. What the list cannot see: calls through `io_uring`, and memory that is a file.

use std::collections::BTreeSet;

use fastrand::Rng;
use syncline::Storage;

use crate::child::{
    Child, Command, NoAnswer, Numbers, Opener, Parent, Question, Script, Size, Wrapper, not_ok, run,
};
use crate::storage::subject::Outcome;
use crate::strace::Traced;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_fault_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            failed_write_is_told
            full_medium_is_told
            short_write_is_completed_or_told
            failed_sync_is_told
            failed_open_changes_nothing
            failed_read_is_told
            failed_change_of_a_name_or_a_length_is_told
            killed_at_any_call_tears_no_batch
        }
    };
}

/// Makes a module of the given name with one test for each property of the [list of faults](crate::io_faults).
///
/// The closure opens the store at a path, as for [`crash_tests!`](crate::crash_tests):
/// `fault_tests!(mine, |path| Mine::open(path));`. Where the kit was built without strace the tests are *ignored*, and say
/// so. What an engine is known not to keep stands behind `ignore`, each property with the reason, which `cargo test` prints:
/// `fault_tests!(mine, |path| Mine::open(path), ignore { failed_read_is_told = "the engine reads on behind an error" });`
#[macro_export]
macro_rules! fault_tests {
    ($module:ident, $open:expr $(,)?) => {
        $crate::fault_tests! { $module, $open, ignore {} }
    };
    ($module:ident, $open:expr, ignore { $($ignored:ident = $reason:literal),* $(,)? } $(,)?) => {
        $crate::for_each_fault_property! {
            [$crate::strace_test_module]
            ($) io_faults, $module, $open, [], { $($ignored = $reason),* }
        }
    };
}

/// How many calls a property lets fail, in runs of their own.
pub const FAULTS_MAX: usize = 16;

const WRITES: [&str; 5] = ["write", "pwrite64", "writev", "pwritev", "pwritev2"];
const SYNCS: [&str; 3] = ["fsync", "fdatasync", "msync"];
const READS: [&str; 5] = ["read", "pread64", "readv", "preadv", "preadv2"];
const OPENS: [&str; 6] = ["open", "openat", "openat2", "creat", "mkdir", "mkdirat"];
const CHANGES: [&str; 11] = [
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "link",
    "linkat",
    "truncate",
    "ftruncate",
    "fallocate",
];

/// One write fails with an error of the device; the ones after it work.
pub fn failed_write_is_told<S: Storage>(opener: &Opener<S>) {
    each_call_fails("failed_write_is_told", opener, &WRITES, "EIO", "");
}

/// Every write from one on fails, since the medium is full.
pub fn full_medium_is_told<S: Storage>(opener: &Opener<S>) {
    each_call_fails("full_medium_is_told", opener, &WRITES, "ENOSPC", "+");
}

/// One sync fails; the ones after it work.
pub fn failed_sync_is_told<S: Storage>(opener: &Opener<S>) {
    each_call_fails("failed_sync_is_told", opener, &SYNCS, "EIO", "");
}

/// One file cannot be opened, or one directory cannot be made.
pub fn failed_open_changes_nothing<S: Storage>(opener: &Opener<S>) {
    each_call_fails("failed_open_changes_nothing", opener, &OPENS, "EIO", "");
}

/// One read fails. What cannot be read is not taken for the end, or for nothing.
pub fn failed_read_is_told<S: Storage>(opener: &Opener<S>) {
    each_call_fails("failed_read_is_told", opener, &READS, "EIO", "");
}

/// One file cannot be renamed, removed, cut or made longer.
pub fn failed_change_of_a_name_or_a_length_is_told<S: Storage>(opener: &Opener<S>) {
    each_call_fails("failed_change_of_a_name_or_a_length_is_told", opener, &CHANGES, "EIO", "");
}

/// No file may grow beyond a length: the write that would is short, and the next one fails. Once the store has noticed, its
/// files may grow again. (`ulimit -f` and `prlimit`: no call is made to fail, the system does it.)
pub fn short_write_is_completed_or_told<S: Storage>(opener: &Opener<S>) {
    run("short_write_is_completed_or_told", opener, |parent| {
        let mut rng = parent.rng();
        for _ in 0..FAULTS_MAX {
            // In units of 512 or 1,024 bytes. Half of the limits are met by a new store, the others by a larger one.
            let blocks = if rng.bool() { rng.u32(1..24) } else { rng.u32(24..400) };
            let shell = ["sh", "-c", "trap '' XFSZ; ulimit -S -f \"$0\"; exec \"$@\"", &blocks.to_string()];
            parent.begin_again()?;
            let child = parent.child_under(script(parent), &Wrapper(shell.map(Into::into).to_vec()))?;
            meet(parent, child)
                .and_then(|history| judge(parent, script(parent), &history))
                .map_err(|what| format!("with files of at most {blocks} blocks: {what}"))?;
        }
        Ok(())
    });
}

/// The child is killed when it makes a call that writes, syncs, renames, removes or cuts a file: not at a moment that
/// luck finds, as in the [list of crashes](mod@crate::crash), but at each of its calls.
pub fn killed_at_any_call_tears_no_batch<S: Storage>(opener: &Opener<S>) {
    run("killed_at_any_call_tears_no_batch", opener, |parent| {
        let script = parent.script(Size::Large);
        let calls = [&WRITES[..], &SYNCS, &CHANGES].concat();
        let (mut child, traced) = Traced::start(parent, script, &[])?;
        child.must_open(&parent.path())?;
        child.must(&Command::Write(Numbers::up_to(LARGE_BATCHES)))?;
        child.close()?;
        child.finish()?;
        let (most, files) = traced.calls(&calls)?;
        let mut deaths = 0;
        for at in drawn(most, &mut parent.rng()) {
            parent.begin_again()?;
            let fault = injected(&calls, &files, &format!("signal=KILL:when={at}"));
            let (child, _) = Traced::start(parent, script, &fault)?;
            let (history, died) = die(parent, child)?;
            deaths += u32::from(died);
            judge(parent, script, &history)
                .map_err(|what| format!("killed at call {at} of a thread: {what}"))?;
        }
        if deaths == 0 && most > 0 {
            return Err("strace has killed no child, so that this list has judged nothing".into());
        }
        Ok(())
    });
}

/// Enough for hundreds of calls: up to some thousand operations.
const LARGE_BATCHES: u32 = 3;

/// Lets a child write until it is killed. Returns whether it was.
fn die(parent: &Parent, mut child: Child) -> Result<(History, bool), String> {
    let mut history = History { candidates: vec![Numbers::default()], rejected: Numbers::default() };
    match child.open(&parent.path()) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(format!("the store cannot be opened: {error}")),
        Err(NoAnswer::Ended(_)) => return Ok((history, true)),
        Err(why) => return Err(why.into()),
    }
    for number in 1..=LARGE_BATCHES {
        let with = history.candidates[0].with(number);
        match child.write(number) {
            Ok((Outcome::Ok, _)) => history.candidates = vec![with],
            Ok((outcome, error)) => return Err(not_ok(number, &outcome, &error)),
            Err(NoAnswer::Ended(_)) => {
                history.candidates.push(with);
                return Ok((history, true));
            }
            Err(why) => return Err(why.into()),
        }
    }
    // The child may be killed while it closes the store.
    let died = child.close().is_err();
    Ok((history, died))
}

fn script(parent: &Parent) -> Script {
    parent.script(Size::Small)
}

fn each_call_fails<S: Storage>(
    property: &str,
    opener: &Opener<S>,
    calls: &[&str],
    error: &str,
    and_later: &str,
) {
    run(property, opener, |parent| {
        let (child, traced) = Traced::start_with(parent, script(parent), untraced(calls), &[])?;
        let history = meet(parent, child)?;
        if history.candidates != [Numbers::up_to(BATCHES)] {
            return Err("a write failed without any fault".into());
        }
        judge(parent, script(parent), &history).map_err(|what| format!("without any fault: {what}"))?;
        let (most, files) = traced.calls(calls)?;
        if most == 0 {
            eprintln!("{property}: the store makes no such call: {}", calls.join(", "));
        }
        for at in drawn(most, &mut parent.rng()) {
            one_fault(parent, calls, &files, &format!("error={error}:when={at}{and_later}"))
                .map_err(|what| format!("{error} at call {at}{and_later} of a thread: {what}"))?;
        }
        Ok(())
    });
}

/// Lets one call, or all from one on, fail in a new store.
fn one_fault(parent: &Parent, calls: &[&str], files: &BTreeSet<String>, fault: &str) -> Result<(), String> {
    parent.begin_again()?;
    let fault = injected(calls, files, fault);
    let (child, traced) = Traced::start_with(parent, script(parent), untraced(calls), &fault)?;
    let history = meet(parent, child)?;
    judge(parent, script(parent), &history)?;
    traced.verdict(&[])?.forgotten.map_or(Ok(()), Err)
}

/// The calls that no other list looks at: reads.
fn untraced<'c>(calls: &'c [&'c str]) -> &'c [&'c str] {
    if calls == READS { calls } else { &[] }
}

/// The arguments to strace by which these calls to these files meet a fault.
fn injected(calls: &[&str], files: &BTreeSet<String>, fault: &str) -> Vec<String> {
    // A `?` stands before a call that not every machine has.
    let names: Vec<_> = calls.iter().map(|call| format!("?{call}")).collect();
    let mut arguments = vec!["-e".into(), format!("inject={}:{fault}", names.join(","))];
    // The trace of syncs is judged, so it must have all calls; and nothing but the store syncs.
    if calls != SYNCS {
        arguments.extend(files.iter().flat_map(|file| ["-P".into(), file.clone()]));
    }
    arguments
}

/// The calls that fail: all if there are few or if there is time, otherwise the first, the last, and some in between.
fn drawn(most: u32, rng: &mut Rng) -> Vec<u32> {
    let mut all: Vec<_> = (1..=most).collect();
    if all.len() > FAULTS_MAX && std::env::var_os("SYNCLINE_SOAK").is_none() {
        let mut some: BTreeSet<_> = [1, 2, most].into();
        while some.len() < FAULTS_MAX {
            some.insert(rng.u32(1..=most));
        }
        all = some.into_iter().collect();
    }
    all
}

/// Few, so that a child is short; the faults come at every call of them.
const BATCHES: u32 = 8;
/// How often an opening is tried.
const OPENINGS_MAX: u32 = 3;

/// The states that the outcomes of a child's writes allow.
#[derive(Debug)]
struct History {
    /// The sets of batches that may be there.
    candidates: Vec<Numbers>,
    rejected: Numbers,
}

/// Lets a child open the store and write, whatever it meets.
fn meet(parent: &Parent, mut child: Child) -> Result<History, String> {
    let mut history = History { candidates: vec![Numbers::default()], rejected: Numbers::default() };
    let mut is_open = opens(parent, &mut child)?;
    // The batch after which this handle must accept nothing.
    let mut in_doubt = None;
    for number in 1..=BATCHES {
        if !is_open {
            break;
        }
        let (outcome, error) = child.write(number)?;
        if outcome != Outcome::Ok {
            child.lift_limits();
        }
        match (outcome, in_doubt) {
            (Outcome::Ok, Some(doubtful)) => {
                return Err(format!(
                    "batch {number} was accepted by the handle whose write of batch {doubtful} had ended with Unknown"
                ));
            }
            (Outcome::Ok, None) => {
                history.candidates.iter_mut().for_each(|numbers| numbers.0.push(number));
            }
            (Outcome::Rejected, _) => history.rejected.0.push(number),
            (outcome @ (Outcome::Unknown | Outcome::Panicked), _) => {
                let applied: Vec<_> = history.candidates.iter().map(|numbers| numbers.with(number)).collect();
                history.candidates.extend(applied);
                if outcome == Outcome::Unknown && in_doubt.is_none() {
                    in_doubt = Some(number);
                    continue;
                }
            }
            (outcome @ (Outcome::Fenced | Outcome::TooLarge), _) => {
                let what = not_ok(number, &outcome, &error);
                return Err(format!(
                    "{what}; there is no other owner, and without the fault the batch is taken"
                ));
            }
        }
        // An opening of a store that holds something meets faults too.
        if in_doubt.take().is_some() || number == BATCHES / 2 {
            child.close()?;
            is_open = opens(parent, &mut child)?;
            // The fault may hit a read, which then fails. Whether the next one does is not the matter of this list.
            if let Some(Ok(index)) = is_open.then(|| child.try_judge(&history.question())).transpose()? {
                history.candidates = vec![history.candidates.swap_remove(index)];
            }
        }
    }
    if is_open {
        child.close()?;
    }
    child.finish()?;
    Ok(history)
}

/// Opens the store, which may be refused a few times.
fn opens(parent: &Parent, child: &mut Child) -> Result<bool, String> {
    for _ in 0..OPENINGS_MAX {
        if child.open(&parent.path())?.is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Lets a child without faults judge what is there, and go on.
fn judge(parent: &Parent, script: Script, history: &History) -> Result<(), String> {
    let mut child = parent.opened(script).map_err(|what| format!("then, without the fault, {what}"))?;
    let index = child.judge(&history.question())?;
    let more = BATCHES + 1;
    child.must(&Command::Write(Numbers(vec![more])))?;
    child.close()?;
    child.must_open(&parent.path())?;
    let candidates = vec![history.candidates[index].with(more)];
    child.judge(&Question { candidates, rejected: history.rejected.clone() }).map(drop)
}

impl History {
    fn question(&self) -> Question {
        Question { candidates: self.candidates.clone(), rejected: self.rejected.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the calls that fail are the first, the second, the last and as many others as said, and all if they are few.
    #[test]
    fn the_calls_that_fail_are_spread_over_all() {
        let mut rng = Rng::with_seed(7);
        assert_eq!(drawn(0, &mut rng), []);
        assert_eq!(drawn(5, &mut rng), [1, 2, 3, 4, 5]);
        let some = drawn(1_000, &mut rng);
        assert!(some.len() == FAULTS_MAX || std::env::var_os("SYNCLINE_SOAK").is_some(), "{some:?}");
        assert!(some.is_sorted() && some.starts_with(&[1, 2]) && some.ends_with(&[1_000]), "{some:?}");
        assert!(some.iter().any(|at| (300..700).contains(at)), "{some:?}");
    }
}

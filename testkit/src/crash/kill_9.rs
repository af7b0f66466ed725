//! Children that write are killed at a moment drawn from the seed, one after the other on one store.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use syncline::{JoinStorage, Storage};

use crate::child::{
    Answer, Child, Command, NoAnswer, Numbers, Opener, Parent, Question, Script, Size, Wrapper, not_ok, run,
};
use crate::storage::subject::Outcome;

/// The first `Ok` after which a child is killed is among so many.
const ACKNOWLEDGED_MAX: u32 = 48;
/// More batches than a child can write before it is killed.
const BATCHES: u32 = 10_000;

/// Children write small batches and are killed after a number of acknowledgements. Every batch that was acknowledged is
/// there, in its order, and no part of another.
pub fn kill_9_loses_nothing_acknowledged<S: Storage>(opener: &Opener<S>) {
    const CYCLES: u32 = 16;
    run("kill_9_loses_nothing_acknowledged", opener, |parent| {
        again_and_again(parent, CYCLES, Size::Small, Command::Write, &mut AfterAcknowledgements(parent.rng()))
    });
}

/// Children write batches of up to 65,536 operations, or of as many as the store takes, and are killed while one is written,
/// also in the middle of a call. Each batch is there whole or not at all.
pub fn kill_9_tears_no_batch<S: Storage>(opener: &Opener<S>) {
    const CYCLES: u32 = 8;
    run("kill_9_tears_no_batch", opener, |parent| {
        let script = parent.script(Size::Large);
        let mut moment = InTheMiddle { rng: parent.rng(), script, op: None };
        again_and_again(parent, CYCLES, Size::Large, Command::Write, &mut moment)
    });
    run("kill_9_tears_no_batch", opener, in_the_middle_of_a_call);
}

/// Children write files that may not grow beyond a length, and are ended by the system when one does. So the last call is
/// done in part, which a signal to a process hardly ever hits. What is there in part must not harm what comes after.
/// (`ulimit -f`: the write that reaches the length is short, and the one after it ends the process.)
fn in_the_middle_of_a_call(parent: &Parent) -> Result<(), String> {
    const CYCLES: u32 = 6;
    if !cfg!(unix) {
        return Ok(());
    }
    let (script, mut rng) = (parent.script(Size::Large), parent.rng());
    let mut progress = Progress { acknowledged: 0, called: 0 };
    let mut deaths = 0;
    for cycle in 0..CYCLES {
        // In units of 512 or 1,024 bytes: within the next few megabytes of the longest file.
        let blocks = longest_file(&parent.place()) / 512 + rng.u64(1..6_000);
        let shell = ["sh", "-c", "ulimit -c 0; ulimit -S -f \"$0\"; exec \"$@\"", &blocks.to_string()]
            .map(Into::into);
        let mut child = parent.child_under(script, &Wrapper(shell.to_vec()))?;
        let next = progress.acknowledged + 1;
        let written = cut_off(parent, &mut child, next..next + Script::SIZES, &mut progress);
        deaths += u32::from(written?);
        drop(child);
        let mut child = parent.opened(script)?;
        let judged = progress.judge(&mut child).and_then(|()| {
            let number = progress.acknowledged + 1;
            child.must(&Command::Write(Numbers(vec![number])))?;
            (progress.acknowledged, progress.called) = (number, number);
            child.close()?;
            child.must_open(&parent.path())?;
            progress.judge(&mut child)
        });
        judged.map_err(|what| format!("after {} writes that were cut off: {what}", cycle + 1))?;
    }
    if deaths == 0 {
        eprintln!(
            "kill_9_tears_no_batch: no write was cut off; the store's files are not made longer by writing"
        );
    }
    Ok(())
}

/// Lets a child write until the system ends it, or refuses it a call. Returns whether the child was ended.
fn cut_off(
    parent: &Parent,
    child: &mut Child,
    numbers: std::ops::Range<u32>,
    progress: &mut Progress,
) -> Result<bool, String> {
    match child.open(&parent.path()) {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Ok(false),
        Err(NoAnswer::Ended(_)) => return Ok(true),
        Err(why) => return Err(why.into()),
    }
    child.send(&Command::Write(Numbers(numbers.collect())))?;
    loop {
        match child.answer("write") {
            Ok(Answer::Outcome(_, outcome, _)) if outcome != Outcome::Ok => return Ok(false),
            Ok(Answer::Done) => return Ok(false),
            Ok(answer) => progress.note(answer)?,
            Err(NoAnswer::Ended(_)) => return Ok(true),
            Err(why) => return Err(why.into()),
        }
    }
}

fn longest_file(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let len = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => longest_file(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(len).max().unwrap_or(0)
}

/// Children write a row of the app and a batch in each transaction, and are killed after a number of acknowledgements.
/// The rows are exactly those whose batches are there.
pub fn kill_9_keeps_rows_and_batches_in_step<S: JoinStorage>(opener: &Opener<S>) {
    const CYCLES: u32 = 12;
    run("kill_9_keeps_rows_and_batches_in_step", opener, |parent| {
        again_and_again(parent, CYCLES, Size::Small, Command::Join, &mut AfterAcknowledgements(parent.rng()))
    });
}

/// When a child is killed.
trait Moment {
    /// Reads answers of a child that writes, until it is to be killed.
    fn wait(&mut self, child: &mut Child, progress: &mut Progress) -> Result<(), String>;
}

/// How far the writes of a child have got.
pub(super) struct Progress {
    /// All batches up to this one were acknowledged.
    pub(super) acknowledged: u32,
    /// The last batch whose write was called.
    pub(super) called: u32,
}

impl Progress {
    pub(super) fn note(&mut self, answer: Answer) -> Result<(), String> {
        match answer {
            Answer::Calls(number) => self.called = number,
            Answer::Outcome(number, Outcome::Ok, _) => self.acknowledged = number,
            Answer::Outcome(number, outcome, error) => return Err(not_ok(number, &outcome, &error)),
            other => return Err(format!("the child wrote and said {other:?}")),
        }
        Ok(())
    }

    /// Lets a new child look at the store, which holds what was acknowledged, and perhaps the batch that was called last.
    /// Then that is what the store goes on from.
    pub(super) fn judge(&mut self, child: &mut Child) -> Result<(), String> {
        let index = child.judge(&Question::in_order(self.acknowledged, self.called))?;
        self.acknowledged += u32::try_from(index).unwrap_or_default();
        self.called = self.acknowledged;
        Ok(())
    }
}

fn again_and_again(
    parent: &Parent,
    cycles: u32,
    size: Size,
    command: fn(Numbers) -> Command,
    moment: &mut dyn Moment,
) -> Result<(), String> {
    let script = parent.script(size);
    let mut progress = Progress { acknowledged: 0, called: 0 };
    for cycle in 0..cycles {
        one_cycle(parent, script, command, moment, &mut progress)
            .map_err(|what| format!("after {cycle} kills: {what}"))?;
    }
    let mut last = parent.opened(script)?;
    progress.judge(&mut last)?;
    last.close()?;
    last.must_open(&parent.path())?;
    progress
        .judge(&mut last)
        .map_err(|what| format!("after the store was dropped and opened again: {what}"))?;
    if progress.acknowledged == 0 {
        return Err("the children wrote nothing before they were killed".into());
    }
    Ok(())
}

fn one_cycle(
    parent: &Parent,
    script: Script,
    command: fn(Numbers) -> Command,
    moment: &mut dyn Moment,
    progress: &mut Progress,
) -> Result<(), String> {
    let mut child = parent.opened(script)?;
    progress.judge(&mut child)?;
    let next = progress.acknowledged + 1;
    child.send(&command(Numbers((next..next + BATCHES).collect())))?;
    moment.wait(&mut child, progress)?;
    child.kill()?.into_iter().try_for_each(|answer| progress.note(answer))
}

struct AfterAcknowledgements(Rng);

impl Moment for AfterAcknowledgements {
    fn wait(&mut self, child: &mut Child, progress: &mut Progress) -> Result<(), String> {
        let until = progress.acknowledged + self.0.u32(..ACKNOWLEDGED_MAX);
        while progress.acknowledged < until {
            progress.note(child.answer("write")?)?;
        }
        Ok(())
    }
}

/// In the middle of a large write: after a drawn part of the time that it should take, by the writes before it.
struct InTheMiddle {
    rng: Rng,
    script: Script,
    /// The shortest time that one operation of a large batch took, once there was one.
    op: Option<Duration>,
}

impl Moment for InTheMiddle {
    fn wait(&mut self, child: &mut Child, progress: &mut Progress) -> Result<(), String> {
        let next = progress.acknowledged + 1;
        let target = match self.op {
            // The first child writes each size once, and so shows how long they take.
            None => next + Script::SIZES,
            Some(_) => {
                (next..next + Script::SIZES / 2).max_by_key(|number| self.script.ops(*number)).unwrap_or(next)
            }
        };
        loop {
            progress.note(child.answer("write")?)?;
            let whole = self.op.unwrap_or_default() * child.ops(self.script.ops(target));
            if progress.called == target {
                if let Some(answer) = child.glance(whole.mul_f32(self.rng.f32())) {
                    progress.note(answer)?;
                }
                return Ok(());
            }
            let clock = Stopwatch::start();
            progress.note(child.answer("write")?)?;
            let ops = child.ops(self.script.ops(progress.acknowledged));
            if ops >= 1_000 {
                let op = clock.elapsed() / ops;
                self.op = Some(self.op.map_or(op, |least| least.min(op)));
            }
        }
    }
}

/// The time that a child takes, by which the moment of its death is spread over its work. No outcome rests on it.
pub(super) struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[allow(
        clippy::disallowed_methods,
        reason = "no outcome rests on the time, and a child has no clock of the test's"
    )]
    pub(super) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

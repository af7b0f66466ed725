//! Children are killed while they open a store.

use std::time::Duration;

use fastrand::Rng;
use syncline::Storage;

use super::kill_9::{Progress, Stopwatch};
use crate::child::{Command, Numbers, Opener, Parent, Size, run};

const CYCLES: u32 = 8;
/// How many children are killed while they open what the last writer left.
const OPENERS: u32 = 3;

/// Children are killed while they open the store: a new one, then what a child left that was killed while it wrote. The
/// store opens again, and holds what it held.
pub fn killed_while_opening_it_opens_again<S: Storage>(opener: &Opener<S>) {
    run("killed_while_opening_it_opens_again", opener, |parent| {
        let (script, mut rng) = (parent.script(Size::Small), parent.rng());
        let mut progress = Progress { acknowledged: 0, called: 0 };
        let mut slowest = Duration::from_millis(1);
        for cycle in 0..CYCLES {
            for opener in 0..OPENERS {
                kill_an_opener(parent, slowest, &mut rng)
                    .map_err(|what| format!("opener {opener} after {cycle} writers: {what}"))?;
            }
            let mut writer = parent.child(script)?;
            let clock = Stopwatch::start();
            writer
                .must_open(&parent.path())
                .map_err(|what| format!("after {} killed openers: {what}", (cycle + 1) * OPENERS))?;
            slowest = slowest.max(clock.elapsed());
            progress.judge(&mut writer)?;
            let next = progress.acknowledged + 1;
            writer.send(&Command::Write(Numbers((next..next + 100).collect())))?;
            let until = progress.acknowledged + rng.u32(1..20);
            while progress.acknowledged < until {
                progress.note(writer.answer("write")?)?;
            }
            writer.kill()?.into_iter().try_for_each(|answer| progress.note(answer))?;
        }
        Ok(())
    });
}

/// Kills a child after a drawn part of the time that an opening takes.
fn kill_an_opener(parent: &Parent, slowest: Duration, rng: &mut Rng) -> Result<(), String> {
    let mut child = parent.child(parent.script(Size::Small))?;
    child.send(&Command::Open(parent.path()))?;
    drop(child.glance(slowest.mul_f32(rng.f32())));
    for answer in child.kill()? {
        if let crate::child::Answer::Refused(error) = answer {
            return Err(format!("the store cannot be opened: {error}"));
        }
    }
    Ok(())
}

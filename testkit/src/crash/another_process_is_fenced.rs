//! A second owner from another process.

use std::time::Duration;

use syncline::Storage;

use crate::child::{
    Answer, Child, Command, NoAnswer, Numbers, Opener, Parent, Question, Script, Size, not_ok, run,
};
use crate::storage::subject::Outcome;

/// A refusal and a takeover are both short; a second opener that has not answered for so long waits for the first.
const SECOND_OPENER_WAITS_MAX: Duration = Duration::from_secs(10);

/// A process has the store open. Another one that opens it is refused, and the first goes on; or the other takes it over,
/// and the first one's writes are fenced. It never waits, and a refusal, also one within the owner's process, lets no later
/// opener in. When an owner has closed the store, or was killed, the next one
/// opens at once.
pub fn another_process_is_fenced<S: Storage>(opener: &Opener<S>) {
    run("another_process_is_fenced", opener, |parent| {
        let script = parent.script(Size::Small);
        let mut first = parent.opened(script)?;
        first.must(&Command::Write(Numbers::up_to(3)))?;
        let mut second = parent.child(script)?;
        if opens(parent, &mut second, "the second opener")? {
            taken_over(parent, script, first, second)
        } else {
            refused(parent, first, second)
        }
    });
}

fn refused(parent: &Parent, mut first: Child, mut second: Child) -> Result<(), String> {
    // A refusal may release the lock of the owner, or remove its file, so that the next opener is let in.
    if opens(parent, &mut second, "the second opener")? {
        return Err("another process was refused, and let in when it tried again".into());
    }
    first.send(&Command::OpenBeside(parent.path()))?;
    match first.answer("open a second time")? {
        Answer::Refused(_) => {}
        Answer::Opened(_) => {
            return Err(
                "another process is refused, and the owner's own opens the store a second time".into()
            );
        }
        other => return Err(format!("the owner opened a second time and said {other:?}")),
    }
    if opens(parent, &mut second, "the second opener")? {
        return Err(
            "the owner's process was refused a second opening, and then another process was let in".into()
        );
    }
    first.must(&Command::Write(Numbers(vec![4])))?;
    first.close()?;
    if !opens(parent, &mut second, "the next opener")? {
        return Err("the first owner has closed the store, and the next process is refused".into());
    }
    second.judge(&Question::in_order(4, 4))?;
    second.must(&Command::Write(Numbers(vec![5])))?;
    if opens(parent, &mut first, "the first owner, which had closed the store,")? {
        return Err("the store was opened in one process and then in another, and both opened it".into());
    }
    drop(second.kill()?);
    if !opens(parent, &mut first, "the next opener")? {
        return Err("the owner was killed, and the next process is refused".into());
    }
    first.judge(&Question::in_order(5, 5)).map(drop)
}

fn taken_over(parent: &Parent, script: Script, mut first: Child, mut second: Child) -> Result<(), String> {
    match first.write(4)? {
        (Outcome::Fenced, _) => {}
        (Outcome::Ok, _) => {
            return Err("two processes have opened the store, and the first still writes to it".into());
        }
        (outcome, error) => {
            return Err(format!("another process has opened the store: {}", not_ok(4, &outcome, &error)));
        }
    }
    second.judge(&Question::in_order(3, 3))?;
    second.must(&Command::Write(Numbers(vec![4])))?;
    second.close()?;
    drop(first.kill()?);
    let mut third = parent.opened(script)?;
    third.judge(&Question::in_order(4, 4)).map(drop)
}

/// Whether the store was opened, and not refused.
fn opens(parent: &Parent, child: &mut Child, who: &str) -> Result<bool, String> {
    child.send(&Command::Open(parent.path()))?;
    let patience = parent.patience().min(SECOND_OPENER_WAITS_MAX);
    match child.answer_within(patience, "open") {
        Ok(Answer::Opened(_)) => Ok(true),
        Ok(Answer::Refused(_)) => Ok(false),
        Ok(other) => Err(format!("{who} said {other:?}")),
        Err(NoAnswer::Hangs(_)) => Err(format!("{who} has waited for {patience:?}")),
        Err(why) => Err(format!("{who}: {}", String::from(why))),
    }
}

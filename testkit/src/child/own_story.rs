//! Children with a story of their own, for what the lists do not play: a whole replica, an app.

use std::path::Path;
use std::process::exit;
use std::time::Duration;

use super::Answer;
use super::opener::name_in_binary;
use super::parent::{CHILD, CHILD_PATH};
use super::process::{Child, Wrapper};
use super::serve::answer;

/// In a child of this test, plays the story with the path that the parent has named, and ends the process. In the parent
/// this does nothing.
///
/// The test is named as for [`Opener::new`](super::Opener::new).
pub fn play(test: &str, story: impl FnOnce(&Path)) {
    if std::env::var_os(CHILD).is_none_or(|child| *child != *name_in_binary(test)) {
        return;
    }
    answer(&Answer::Hello(std::process::id()));
    let path = std::env::var_os(CHILD_PATH).unwrap_or_default();
    story(Path::new(&path));
    exit(0)
}

/// Tells the parent something, in one line.
pub fn tell(line: &str) {
    answer(&Answer::Told(line.to_owned()));
}

/// Starts a child of this test, kills it (`kill -9`) once it has told so many lines, and returns all that it has told.
///
/// # Errors
/// A sentence, if the child ends by itself, or tells nothing for a minute.
pub fn kill_after(test: &str, path: &Path, lines: usize) -> Result<Vec<String>, String> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut child = Child::spawn(name_in_binary(test), path, &Wrapper::default(), PATIENCE)?;
    let mut answers = Vec::new();
    while answers.len() < lines {
        answers.push(child.answer("tell something")?);
    }
    answers.extend(child.kill()?);
    let told = answers.into_iter().map(|answer| match answer {
        Answer::Told(line) => Ok(line),
        other => Err(format!("the child said {other:?}")),
    });
    told.collect()
}

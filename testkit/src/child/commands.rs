//! The commands that a parent writes to the standard input of a child, and the answers on its standard error, one a line.

use std::path::PathBuf;

use super::{Numbers, Question, Script};
use crate::storage::subject::Outcome;

/// What the lines of a child begin with that are answers. Other lines are the store's own, and panics.
pub(crate) const ANSWER: &str = "@syncline ";

/// A command to a child.
#[derive(Debug)]
pub(crate) enum Command {
    /// Which batches are meant by their numbers, from now on.
    Script(Script),
    /// Open the store: [`Answer::Opened`] or [`Answer::Refused`].
    Open(PathBuf),
    /// Open the store once more, beside the one that is open: [`Answer::Opened`] or [`Answer::Refused`]. The second is dropped.
    OpenBeside(PathBuf),
    /// Drop the store: [`Answer::Done`].
    Close,
    /// Write these batches, as long as the outcome is `Ok`: [`Answer::Calls`] and [`Answer::Outcome`] for each, then
    /// [`Answer::Done`].
    Write(Numbers),
    /// As `Write`, each together with a row of the app.
    Join(Numbers),
    /// As `Write`, and a reader on another thread tells when it first sees each batch: [`Answer::Seen`].
    Watch(Numbers),
    /// Read everything and compare: [`Answer::Holds`], [`Answer::Differs`] or [`Answer::Unreadable`].
    Judge(Question),
}

/// An answer of a child.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The first line, with the number of the process.
    Hello(u32),
    /// With the most operations of a batch that the store takes.
    Opened(u32),
    Refused(String),
    /// The write of this batch is called now.
    Calls(u32),
    /// The write of this batch has ended so, with an error or none.
    Outcome(u32, Outcome, String),
    /// A reader has seen this batch.
    Seen(u32),
    Done,
    /// The state is that of the candidate with this index.
    Holds(usize),
    Differs(String),
    /// The store could not be read, with its error.
    Unreadable(String),
    /// A line of a child with a story of its own.
    Told(String),
    /// The store panicked outside of a write.
    Panicked(String),
}

impl Command {
    pub(super) fn line(&self) -> String {
        match self {
            Self::Script(script) => format!("script {script}"),
            Self::Open(path) => format!("open {}", path.display()),
            Self::OpenBeside(path) => format!("open-beside {}", path.display()),
            Self::Close => "close".into(),
            Self::Write(numbers) => format!("write {numbers}"),
            Self::Join(numbers) => format!("join {numbers}"),
            Self::Watch(numbers) => format!("watch {numbers}"),
            Self::Judge(question) => format!("judge {question}"),
        }
    }

    /// What the child is to do, for a sentence.
    pub(super) const fn verb(&self) -> &'static str {
        match self {
            Self::Script(_) => "take the script",
            Self::Open(_) => "open",
            Self::OpenBeside(_) => "open a second time",
            Self::Close => "close",
            Self::Write(_) => "write",
            Self::Join(_) => "write with a row of the app",
            Self::Watch(_) => "write beside a reader",
            Self::Judge(_) => "read everything",
        }
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "script" => Self::Script(rest.parse().ok()?),
            "open" => Self::Open(rest.into()),
            "open-beside" => Self::OpenBeside(rest.into()),
            "close" => Self::Close,
            "write" => Self::Write(rest.parse().ok()?),
            "join" => Self::Join(rest.parse().ok()?),
            "watch" => Self::Watch(rest.parse().ok()?),
            "judge" => Self::Judge(rest.parse().ok()?),
            _ => return None,
        })
    }
}

impl Answer {
    pub(super) fn line(&self) -> String {
        match self {
            Self::Hello(pid) => format!("hello {pid}"),
            Self::Opened(ops) => format!("opened {ops}"),
            Self::Refused(error) => format!("refused {}", in_one_line(error)),
            Self::Calls(number) => format!("calls {number}"),
            Self::Outcome(number, outcome, error) => {
                format!("{} {number} {}", word(outcome), in_one_line(error))
            }
            Self::Seen(number) => format!("seen {number}"),
            Self::Done => "done".into(),
            Self::Holds(index) => format!("holds {index}"),
            Self::Differs(what) => format!("differs {}", in_one_line(what)),
            Self::Unreadable(error) => format!("unreadable {}", in_one_line(error)),
            Self::Told(line) => format!("told {}", in_one_line(line)),
            Self::Panicked(what) => format!("panicked {}", in_one_line(what)),
        }
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match first {
            "hello" => Self::Hello(rest.parse().ok()?),
            "opened" => Self::Opened(rest.parse().ok()?),
            "refused" => Self::Refused(rest.into()),
            "calls" => Self::Calls(rest.parse().ok()?),
            "seen" => Self::Seen(rest.parse().ok()?),
            "done" => Self::Done,
            "holds" => Self::Holds(rest.parse().ok()?),
            "differs" => Self::Differs(rest.into()),
            "unreadable" => Self::Unreadable(rest.into()),
            "told" => Self::Told(rest.into()),
            "panicked" => Self::Panicked(rest.into()),
            _ => {
                let outcome = OUTCOMES.into_iter().find(|outcome| word(outcome) == first)?;
                let (number, error) = rest.split_once(' ').unwrap_or((rest, ""));
                Self::Outcome(number.parse().ok()?, outcome, error.into())
            }
        })
    }
}

const OUTCOMES: [Outcome; 6] =
    [Outcome::Ok, Outcome::Rejected, Outcome::TooLarge, Outcome::Unknown, Outcome::Fenced, Outcome::Panicked];

const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Rejected => "rejected",
        Outcome::TooLarge => "too-large",
        Outcome::Unknown => "unknown",
        Outcome::Fenced => "fenced",
        Outcome::Panicked => "panic",
    }
}

fn in_one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join(" / ")
}

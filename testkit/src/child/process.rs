//! One child process, as the parent sees it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command as Program, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::commands::ANSWER;
use super::parent::{CHILD, CHILD_PATH};
use super::{Answer, Command, Numbers, Question, Script};
use crate::storage::subject::Outcome;

/// A program that runs the child, such as one that traces its calls: its name and its arguments.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wrapper(pub Vec<OsString>);

/// A child process. It is killed when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    /// `None` once the child is to end.
    commands: Option<ChildStdin>,
    answers: Receiver<Answer>,
    /// The last lines that are no answers: of panics, of the store, of the wrapper.
    last_words: Arc<Mutex<VecDeque<String>>>,
    /// The number of the child itself, if it runs inside of another program.
    wrapped: Option<u32>,
    patience: Duration,
    /// The most operations of a batch that the store takes, once it is open.
    ops_max: u32,
}

/// Why an answer did not come.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    Hangs(String),
    Ended(String),
    Other(String),
}

/// The sentence for the failure of a test.
impl From<NoAnswer> for String {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::Hangs(what) | NoAnswer::Ended(what) | NoAnswer::Other(what) => what,
        }
    }
}

const LAST_WORDS_MAX: usize = 8;

impl Child {
    /// Starts a child that does as it is told.
    pub(super) fn start(
        test: &str,
        script: Script,
        wrapper: &Wrapper,
        patience: Duration,
    ) -> Result<Self, String> {
        let mut child = Self::spawn(test, Path::new(""), wrapper, patience)?;
        child.send(&Command::Script(script))?;
        Ok(child)
    }

    /// Starts a child of a test. `path` is for a child with a story of its own.
    pub(super) fn spawn(
        test: &str,
        path: &Path,
        wrapper: &Wrapper,
        patience: Duration,
    ) -> Result<Self, String> {
        let failed = |error| format!("a child could not be started: {error}");
        let this = std::env::current_exe().map_err(failed)?;
        let mut program = match wrapper.0.split_first() {
            None => Program::new(this),
            Some((name, arguments)) => {
                let mut program = Program::new(name);
                program.args(arguments).arg(this);
                program
            }
        };
        // `--include-ignored`: the parent runs, so the child runs too.
        program.args([test, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
        program.env(CHILD, test).env(CHILD_PATH, path);
        let pipes = program.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = pipes.spawn().map_err(failed)?;
        let (Some(commands), Some(output)) = (process.stdin.take(), process.stderr.take()) else {
            return Err("a child has no pipes".into());
        };
        let (send, answers) = mpsc::channel();
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let words = Arc::clone(&last_words);
        let listen = move || {
            let mut lines = BufReader::new(output);
            let mut line = Vec::new();
            // Not `lines()`: a store may print bytes that are no text.
            while lines.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                match text.strip_prefix(ANSWER).and_then(Answer::parse) {
                    Some(answer) => drop(send.send(answer)),
                    None if text.is_empty() => {}
                    None => {
                        let mut words = words.lock().unwrap();
                        words.push_back(text);
                        if words.len() > LAST_WORDS_MAX {
                            words.pop_front();
                        }
                    }
                }
                line.clear();
            }
        };
        thread::Builder::new().name(format!("the answers of {test}")).spawn(listen).map_err(failed)?;
        let commands = Some(commands);
        let mut child =
            Self { process, commands, answers, last_words, wrapped: None, patience, ops_max: u32::MAX };
        match child.answer("start") {
            Ok(Answer::Hello(pid)) => child.wrapped = (!wrapper.0.is_empty()).then_some(pid),
            Ok(other) => return Err(format!("a child began with {other:?}")),
            Err(why) => {
                let what = String::from(why);
                return Err(format!("a child did not begin; is `{test}` a test of this binary? {what}"));
            }
        }
        Ok(child)
    }

    pub(crate) fn send(&mut self, command: &Command) -> Result<(), NoAnswer> {
        let line = format!("{}\n", command.line());
        match self.commands.as_mut().map(|commands| commands.write_all(line.as_bytes())) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.ended("take a command")),
        }
    }

    /// Waits for the next answer. `doing` is the verb of what the child was told, for the sentence if it does not come.
    pub(crate) fn answer(&mut self, doing: &str) -> Result<Answer, NoAnswer> {
        self.answer_within(self.patience, doing)
    }

    pub(crate) fn answer_within(&mut self, patience: Duration, doing: &str) -> Result<Answer, NoAnswer> {
        match self.answers.recv_timeout(patience) {
            Ok(Answer::Panicked(what)) => {
                Err(NoAnswer::Other(format!("the store panicked when it was to {doing}: {what}")))
            }
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout) => {
                let last_words = self.last_words();
                self.end();
                let what = format!("the store hangs: it was to {doing} for {patience:?}{last_words}");
                Err(NoAnswer::Hangs(what))
            }
            Err(RecvTimeoutError::Disconnected) => Err(self.ended(doing)),
        }
    }

    /// The next answer, if it comes within so long: a time by which a child is killed somewhere in its work.
    pub(crate) fn glance(&mut self, within: Duration) -> Option<Answer> {
        self.answers.recv_timeout(within).ok()
    }

    fn ended(&mut self, doing: &str) -> NoAnswer {
        let status = self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        // The reading thread may still be about to note the last lines: it ends when the pipe does.
        while self.answers.recv().is_ok() {}
        let last_words = self.last_words();
        NoAnswer::Ended(format!("the process ended by itself when it was to {doing}: {status}{last_words}"))
    }

    fn last_words(&self) -> String {
        let words: Vec<_> = self.last_words.lock().unwrap().iter().cloned().collect();
        if words.is_empty() { String::new() } else { format!("; its last words: {}", words.join(" / ")) }
    }

    /// Opens the store, or returns the error with which that was refused.
    pub(crate) fn open(&mut self, path: &Path) -> Result<Result<(), String>, NoAnswer> {
        self.send(&Command::Open(path.to_owned()))?;
        match self.answer("open")? {
            Answer::Opened(ops_max) => {
                self.ops_max = ops_max;
                Ok(Ok(()))
            }
            Answer::Refused(error) => Ok(Err(error)),
            other => Err(NoAnswer::Other(format!("the child opened the store and said {other:?}"))),
        }
    }

    pub(crate) fn must_open(&mut self, path: &Path) -> Result<(), String> {
        self.must(&Command::Open(path.to_owned()))
    }

    /// The operations of a batch that has so many in its script, as the store takes it.
    pub(crate) fn ops(&self, ops: u32) -> u32 {
        ops.min(self.ops_max)
    }

    /// Drops the store.
    pub(crate) fn close(&mut self) -> Result<(), String> {
        self.must(&Command::Close)
    }

    /// Writes one batch.
    pub(crate) fn write(&mut self, number: u32) -> Result<(Outcome, String), NoAnswer> {
        self.send(&Command::Write(Numbers(vec![number])))?;
        loop {
            match self.answer(&format!("write batch {number}"))? {
                Answer::Calls(_) => {}
                Answer::Outcome(_, outcome, error) => {
                    self.answer("write")?;
                    return Ok((outcome, error));
                }
                other => {
                    return Err(NoAnswer::Other(format!(
                        "the child wrote batch {number} and said {other:?}"
                    )));
                }
            }
        }
    }

    /// Sends a command, and waits until it has succeeded.
    pub(crate) fn must(&mut self, command: &Command) -> Result<(), String> {
        self.send(command)?;
        loop {
            match self.answer(command.verb())? {
                Answer::Calls(_) | Answer::Seen(_) | Answer::Outcome(_, Outcome::Ok, _) => {}
                Answer::Outcome(number, outcome, error) => return Err(not_ok(number, &outcome, &error)),
                Answer::Opened(ops_max) => {
                    self.ops_max = ops_max;
                    return Ok(());
                }
                Answer::Done => return Ok(()),
                Answer::Refused(error) => return Err(format!("the store cannot be opened: {error}")),
                other => return Err(format!("the child was to {} and said {other:?}", command.verb())),
            }
        }
    }

    /// Returns the index of the candidate that the store holds.
    pub(crate) fn judge(&mut self, question: &Question) -> Result<usize, String> {
        self.try_judge(question)?.map_err(|error| format!("everything was to be read: {error}"))
    }

    /// As `judge`, or the error of a read.
    pub(crate) fn try_judge(&mut self, question: &Question) -> Result<Result<usize, String>, String> {
        let command = Command::Judge(question.clone());
        self.send(&command)?;
        match self.answer(command.verb())? {
            Answer::Holds(index) => Ok(Ok(index)),
            Answer::Unreadable(error) => Ok(Err(error)),
            Answer::Differs(what) => Err(what),
            other => Err(format!("the child read the store and said {other:?}")),
        }
    }

    /// Lets the files of a child grow again that was started with a limit on them. Where there is no `prlimit` the limit stays.
    pub(crate) fn lift_limits(&self) {
        if let Some(pid) = self.wrapped {
            let mut lift = Program::new("prlimit");
            let _ =
                lift.args(["--fsize=unlimited:", "--pid", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// Kills the child. Returns the answers that it had still given.
    pub(crate) fn kill(mut self) -> Result<Vec<Answer>, String> {
        let status = self.end();
        // On Unix a killed process has no exit code.
        match status.and_then(|status| status.code()) {
            Some(code) if cfg!(unix) && self.wrapped.is_none() => {
                Err(format!("the process ended by itself with code {code}{}", self.last_words()))
            }
            _ => Ok(self.answers.iter().collect()),
        }
    }

    /// Lets the child end by itself, without dropping the store, and waits for its end. What it still answers is lost.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        self.commands = None;
        loop {
            match self.answers.recv_timeout(self.patience) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the process has not ended for {:?}", self.patience));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        drop(self.process.wait());
        Ok(())
    }

    /// Kills the process and waits for its end.
    fn end(&mut self) -> Option<ExitStatus> {
        if let Some(pid) = self.wrapped {
            // The program around the child ends when the child does. That it may be gone already is no error.
            drop(Program::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status());
        } else {
            drop(self.process.kill());
        }
        self.process.wait().ok()
    }
}

pub(crate) fn not_ok(number: u32, outcome: &Outcome, error: &str) -> String {
    format!("the write of batch {number} ended with {outcome}: {error}")
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

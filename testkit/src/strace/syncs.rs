//! Which acknowledgements of a trace came before the bytes and the names that they rest on were synced.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::parse::{Call, Event, path_of_file, quoted};
use crate::child::{ANSWER, Answer};
use crate::storage::subject::Outcome;

/// The findings of a trace, each with its first place.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// An acknowledged write that was not synced.
    pub(crate) acknowledged: Option<String>,
    /// An acknowledged write whose files have names that were not synced.
    pub(crate) names: Option<String>,
    /// A batch that a reader has seen before it was synced.
    pub(crate) seen: Option<String>,
    /// An acknowledged write whose sync came after one that had failed, with no write in between.
    pub(crate) forgotten: Option<String>,
    /// The store writes in a way that a trace does not show.
    pub(crate) blind: bool,
    /// How many acknowledgements and how many sights there were.
    pub(crate) acknowledgements: u32,
    pub(crate) sights: u32,
}

/// A file, or a directory with the names in it.
#[derive(Debug, Default)]
struct Bytes {
    /// Rises when a change begins and when it has ended, so that a sync which began in between does not count.
    changes: u64,
    synced: u64,
    /// The last change, and how many writes had been called by then.
    last: String,
    call: u32,
    /// A sync has failed. The system may have dropped what it did not write, and the next sync says nothing of that.
    failed: bool,
}

impl Bytes {
    fn change(&mut self, call: &str, calls: u32) {
        self.call = calls;
        call.clone_into(&mut self.last);
        self.failed = false;
        self.changes += 1;
    }

    const fn is_synced(&self) -> bool {
        self.changes == self.synced
    }
}

struct Syncs<'a> {
    place: String,
    without: &'a [String],
    /// Everything that exists.
    names: BTreeSet<String>,
    files: BTreeMap<String, Bytes>,
    directories: BTreeMap<String, Bytes>,
    /// Files that were opened so that each write is a sync.
    writes_through: HashSet<u64>,
    /// Memory that is a file: where it begins, how long it is, and the file.
    maps: Vec<(u64, u64, String)>,
    /// The syncs that have begun, by thread: what they cover.
    running: HashMap<u32, Vec<(String, u64)>>,
    /// How many writes were called.
    calls: u32,
    /// Whether anything was synced since the last of them was called.
    synced_since_call: bool,
    verdict: Verdict,
}

pub(super) fn judge(
    events: &[Event],
    place: &Path,
    there_before: BTreeSet<String>,
    without: &[String],
) -> Verdict {
    let mut syncs = Syncs {
        place: place.to_string_lossy().into_owned(),
        without,
        names: there_before,
        files: BTreeMap::new(),
        directories: BTreeMap::new(),
        writes_through: HashSet::new(),
        maps: Vec::new(),
        running: HashMap::new(),
        calls: 0,
        synced_since_call: false,
        verdict: Verdict::default(),
    };
    for event in events {
        match event {
            Event::Begin(call) => syncs.begin(call),
            Event::End(call) => syncs.end(call),
        }
    }
    syncs.verdict
}

impl Syncs<'_> {
    fn begin(&mut self, call: &Call) {
        match call.name.as_str() {
            "write" if call.argument(0).starts_with("2<") => self.answer(call),
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "sendfile" => {
                self.write(call, call.argument(0));
            }
            "ftruncate" | "fallocate" if changes_bytes(call) => self.write(call, call.argument(0)),
            "copy_file_range" | "splice" => self.write(call, call.argument(2)),
            "fsync" | "fdatasync" => {
                let covers = path_of_file(call.argument(0)).map(str::to_owned).into_iter().collect();
                self.begin_sync(call, covers);
            }
            "msync" if call.argument(2).contains("MS_SYNC") => {
                let covers = number(call.argument(0)).map_or_else(Vec::new, |at| self.mapped_at(at));
                self.begin_sync(call, covers);
            }
            "sync" | "syncfs" => {
                let covers = self.files.keys().chain(self.directories.keys()).cloned().collect();
                self.begin_sync(call, covers);
            }
            _ => {}
        }
    }

    fn end(&mut self, call: &Call) {
        let name = call.name.as_str();
        let Some(returned) = call.returned() else {
            if let Some(covered) = self.running.remove(&call.thread).filter(|_| name.contains("sync")) {
                for (path, _) in covered {
                    if let Some(bytes) = self.bytes(&path).filter(|bytes| !bytes.is_synced()) {
                        bytes.failed = true;
                    }
                }
            }
            return;
        };
        match name {
            "write" | "writev" | "pwrite64" | "pwritev" | "pwritev2" | "sendfile" => {
                self.write(call, call.argument(0));
            }
            "ftruncate" | "fallocate" if changes_bytes(call) => self.write(call, call.argument(0)),
            "copy_file_range" | "splice" => self.write(call, call.argument(2)),
            "truncate" if changes_bytes(call) => {
                if let Some(path) = quoted(call.argument(0)) {
                    self.change_file(path, call);
                }
            }
            "fsync" | "fdatasync" | "msync" | "sync" | "syncfs" => self.end_sync(call.thread),
            "open" | "openat" | "openat2" | "creat" => self.opened(call, returned),
            "close" => {
                self.writes_through.remove(&descriptor(call.argument(0)));
            }
            "dup" | "dup2" | "dup3" => self.copied(call, returned),
            "fcntl" if call.argument(1).starts_with("F_DUPFD") => self.copied(call, returned),
            "rename" | "link" | "symlink" => self.named(call, quoted(call.argument(0)), call.argument(1)),
            "renameat" | "renameat2" | "linkat" => {
                let from = absolute(call.argument(0), call.argument(1));
                if let Some(to) = absolute(call.argument(2), call.argument(3)) {
                    self.named(call, from.as_deref(), &format!("{to:?}"));
                }
            }
            "unlink" | "rmdir" => self.unlinked(call, quoted(call.argument(0)).map(str::to_owned)),
            "unlinkat" => self.unlinked(call, absolute(call.argument(0), call.argument(1))),
            "mkdir" => self.created(call, quoted(call.argument(0)).map(str::to_owned)),
            "mkdirat" => self.created(call, absolute(call.argument(0), call.argument(1))),
            "symlinkat" => self.created(call, absolute(call.argument(1), call.argument(2))),
            "mmap" => self.mapped(call, returned),
            "munmap" => {
                let at = number(call.argument(0)).unwrap_or_default();
                self.maps.retain(|(begin, ..)| *begin != at);
            }
            "io_uring_setup" => self.verdict.blind = true,
            _ => {}
        }
    }

    /// What the child says, by which the trace is cut into writes.
    fn answer(&mut self, call: &Call) {
        let text = call.argument(1);
        let Some((_, text)) = text.split_once(ANSWER) else { return };
        match text.split_once("\\n").map_or(text, |(line, _)| line) {
            line if line.starts_with("opened") => {
                // Another handle: what a failed sync has lost, it cannot know.
                let all = self.files.values_mut().chain(self.directories.values_mut());
                all.for_each(|bytes| bytes.failed = false);
            }
            line => match Answer::parse(line) {
                Some(Answer::Calls(_)) => {
                    self.synced_since_call = false;
                    self.calls += 1;
                    let mapped: Vec<_> = self.maps.iter().map(|(.., path)| path.clone()).collect();
                    for path in mapped {
                        self.files
                            .entry(path)
                            .or_default()
                            .change("mmap, through which it is written", self.calls);
                    }
                }
                Some(Answer::Outcome(number, Outcome::Ok, _)) => self.acknowledged(number),
                Some(Answer::Seen(number)) => {
                    self.verdict.sights += 1;
                    // Another file may be written meanwhile: a log that is synced is copied into the database.
                    let mut written = self.files.values().filter(|file| file.call == self.calls);
                    if self.verdict.seen.is_none() && !written.any(Bytes::is_synced) {
                        let what =
                            format!("a reader has seen batch {number}, and no file with it is synced yet");
                        self.verdict.seen = Some(what);
                    }
                }
                _ => {}
            },
        }
    }

    fn acknowledged(&mut self, number: u32) {
        self.verdict.acknowledgements += 1;
        let unsynced = match self.unsynced(&self.files) {
            None if !self.synced_since_call => Some("nothing was synced since it was called".to_owned()),
            unsynced => unsynced,
        };
        let unnamed = self.unsynced(&self.directories);
        let failed = self.files.iter().chain(&self.directories).find(|(_, bytes)| bytes.failed);
        let failed = failed.map(|(path, _)| format!("a sync of {} had failed", self.short(path)));
        let says = |what: Option<String>| Some(format!("batch {number} was acknowledged, and {}", what?));
        let Verdict { acknowledged, names, forgotten, .. } = &mut self.verdict;
        *acknowledged = acknowledged.take().or_else(|| says(unsynced));
        *names = names.take().or_else(|| says(unnamed));
        *forgotten = forgotten.take().or_else(|| says(failed));
    }

    /// Those that were not synced after their last change, and what changed them.
    fn unsynced(&self, all: &BTreeMap<String, Bytes>) -> Option<String> {
        let unsynced = all.iter().filter(|(_, bytes)| !bytes.is_synced());
        let says: Vec<_> = unsynced
            .map(|(path, bytes)| format!("{} was not synced after {}", self.short(path), bytes.last))
            .collect();
        (!says.is_empty()).then(|| says.join(", "))
    }

    fn short(&self, path: &str) -> String {
        let rest = path.strip_prefix(&self.place).unwrap_or(path).trim_start_matches('/');
        match self.directories.contains_key(path) {
            true if rest.is_empty() => "the directory above the path".into(),
            true => format!("the directory `{rest}`"),
            false => format!("`{rest}`"),
        }
    }

    fn is_inside(&self, path: &str) -> bool {
        path.strip_prefix(&self.place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn is_needed(&self, path: &str) -> bool {
        self.is_inside(path) && !self.without.iter().any(|end| path.ends_with(end.as_str()))
    }

    fn write(&mut self, call: &Call, file: &str) {
        let Some(path) = path_of_file(file) else { return };
        let by_call = call.name == "pwritev2" && call.arguments.last().is_some_and(|f| f.contains("SYNC"));
        if call.name.contains("write") && (by_call || self.writes_through.contains(&descriptor(file))) {
            if call.result.is_some() && self.is_needed(path) {
                self.synced_since_call = true;
                self.files.entry(path.to_owned()).or_default().call = self.calls;
            }
        } else {
            self.change_file(path, call);
        }
    }

    fn change_file(&mut self, path: &str, call: &Call) {
        if self.is_needed(path) && !self.directories.contains_key(path) {
            self.files.entry(path.to_owned()).or_default().change(&call.name, self.calls);
        }
    }

    fn change_directory_of(&mut self, path: &str, call: &Call) {
        if !self.is_needed(path) {
            return;
        }
        if let Some((directory, name)) = path.rsplit_once('/').filter(|(above, _)| self.is_inside(above)) {
            let entry = self.directories.entry(directory.to_owned()).or_default();
            entry.change(&format!("{} of `{name}`", call.name), self.calls);
        }
    }

    fn bytes(&mut self, path: &str) -> Option<&mut Bytes> {
        self.directories.get_mut(path).or_else(|| self.files.get_mut(path))
    }

    fn begin_sync(&mut self, call: &Call, covers: Vec<String>) {
        let upto = |path: &String| {
            let bytes = self.files.get(path).or_else(|| self.directories.get(path));
            bytes.map_or(0, |bytes| bytes.changes)
        };
        let covers = covers.into_iter().filter(|path| self.is_inside(path));
        let covers: Vec<_> = covers.map(|path| (path.clone(), upto(&path))).collect();
        self.running.insert(call.thread, covers);
    }

    fn end_sync(&mut self, thread: u32) {
        for (path, upto) in self.running.remove(&thread).unwrap_or_default() {
            self.synced_since_call = true;
            if let Some(bytes) = self.bytes(&path) {
                bytes.synced = bytes.synced.max(upto);
            }
        }
    }

    fn opened(&mut self, call: &Call, returned: u64) {
        let flags = call.arguments.iter().find(|argument| argument.contains("O_"));
        let has = |flag| call.name == "creat" || flags.is_some_and(|flags| flags.contains(flag));
        let Some(path) = call.result.as_deref().and_then(path_of_file).map(str::to_owned) else { return };
        if call.name != "creat" && (has("O_SYNC") || has("O_DSYNC")) {
            self.writes_through.insert(returned);
        } else {
            self.writes_through.remove(&returned);
        }
        if has("O_CREAT") && !self.names.contains(&path) {
            self.created(call, Some(path));
        } else if has("O_TRUNC") {
            self.change_file(&path, call);
        }
    }

    fn copied(&mut self, call: &Call, returned: u64) {
        if self.writes_through.contains(&descriptor(call.argument(0))) {
            self.writes_through.insert(returned);
        }
    }

    fn created(&mut self, call: &Call, path: Option<String>) {
        let Some(path) = path else { return };
        self.change_directory_of(&path, call);
        if call.name.starts_with("mkdir") && self.is_inside(&path) {
            self.directories.entry(path.clone()).or_default();
        }
        self.names.insert(path);
    }

    /// A file has another name, or one more. What was not synced goes with it.
    fn named(&mut self, call: &Call, from: Option<&str>, to: &str) {
        let Some(to) = quoted(to) else { return };
        if let Some(from) = from.filter(|_| call.name.starts_with("rename")) {
            self.change_directory_of(from, call);
            self.names.remove(from);
            self.files.remove(to);
            for bytes in [&mut self.files, &mut self.directories] {
                let inside = format!("{from}/");
                let moved: Vec<_> =
                    bytes.keys().filter(|path| *path == from || path.starts_with(&inside)).cloned().collect();
                for old in moved {
                    if let (Some(state), Some(rest)) = (bytes.remove(&old), old.strip_prefix(from)) {
                        bytes.insert(format!("{to}{rest}"), state);
                    }
                }
            }
        }
        self.created(call, Some(to.to_owned()));
    }

    fn unlinked(&mut self, call: &Call, path: Option<String>) {
        let Some(path) = path else { return };
        self.change_directory_of(&path, call);
        self.names.remove(&path);
        self.files.remove(&path);
        self.directories.remove(&path);
    }

    fn mapped(&mut self, call: &Call, at: u64) {
        let is_written = call.argument(2).contains("PROT_WRITE") && call.argument(3).contains("MAP_SHARED");
        if let Some(path) = path_of_file(call.argument(4)).filter(|path| is_written && self.is_needed(path)) {
            self.maps.push((at, number(call.argument(1)).unwrap_or_default(), path.to_owned()));
        }
    }

    fn mapped_at(&self, at: u64) -> Vec<String> {
        let found = self.maps.iter().filter(|(begin, len, _)| (*begin..*begin + *len).contains(&at));
        found.map(|(.., path)| path.clone()).collect()
    }
}

/// Whether a call that changes the length of a file changes bytes too. A journal is emptied to end a transaction. A file
/// that is longer or shorter than it should be is no loss: engines give space back after their last sync.
fn changes_bytes(call: &Call) -> bool {
    match call.name.as_str() {
        "fallocate" => !["0", "FALLOC_FL_KEEP_SIZE"].contains(&call.argument(1)),
        _ => call.argument(1) == "0",
    }
}

fn descriptor(file: &str) -> u64 {
    file.split('<').next().and_then(|number| number.parse().ok()).unwrap_or(u64::MAX)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The path `name` in quotes, below the open directory unless it is absolute.
fn absolute(directory: &str, name: &str) -> Option<String> {
    let name = quoted(name)?;
    if name.starts_with('/') {
        return Some(name.to_owned());
    }
    Some(format!("{}/{name}", path_of_file(directory)?))
}

#[cfg(test)]
mod tests {
    use super::super::parse::events;
    use super::*;

    /// Judges a trace of one batch: the lines, between the call of the write and its acknowledgement.
    fn judged(before: &str, lines: &str) -> Verdict {
        let marker = |text: &str| format!("1 write(2<pipe:[9]>, \"\\n@syncline {text}\\n\", 9) = 9\n");
        let trace = format!("{before}\n{}{lines}\n{}", marker("calls 1"), marker("ok 1"));
        judge(
            &events(&trace),
            Path::new("/p"),
            BTreeSet::from(["/p".into(), "/p/log".into()]),
            &["-shm".into()],
        )
    }

    fn unsynced(before: &str, lines: &str) -> String {
        judged(before, lines).acknowledged.unwrap_or_default()
    }

    const WRITE: &str = "1 pwrite64(3</p/log>, \"x\", 1, 0) = 1\n";
    const SYNC: &str = "1 fdatasync(3</p/log>) = 0\n";

    #[test]
    fn a_write_counts_as_durable_only_once_it_was_synced() {
        assert_eq!(unsynced("", &[WRITE, SYNC].concat()), "");
        assert!(unsynced("", &[SYNC, WRITE].concat()).contains("`log` was not synced after pwrite64"));
        assert!(unsynced("", "").contains("nothing was synced"));
        assert!(unsynced("", &[SYNC, "1 ftruncate(3</p/log>, 0) = 0"].concat()).contains("after ftruncate"));
        assert_eq!(unsynced("", &[SYNC, "1 ftruncate(3</p/log>, 4096) = 0"].concat()), "");
        // Another file, and one that is not the store's.
        let other = "1 fsync(4</p/other>) = 0\n1 fsync(4</elsewhere>) = 0";
        assert!(unsynced("", &[WRITE, other].concat()).contains("`log` was not synced"));
        let shm = "1 pwrite64(5</p/store-shm>, \"x\", 1, 0) = 1\n";
        assert_eq!(unsynced("", &[shm, WRITE, SYNC].concat()), "");
    }

    #[test]
    fn a_sync_that_began_before_the_write_had_ended_does_not_count() {
        let lines = "1 pwrite64(3</p/log>, \"x\", 1, 0 <unfinished ...>\n2 fdatasync(3</p/log> <unfinished ...>\n\
            1 <... pwrite64 resumed>) = 1\n2 <... fdatasync resumed>) = 0";
        assert!(unsynced("", lines).contains("`log` was not synced"));
    }

    #[test]
    fn a_file_may_be_opened_so_that_each_write_syncs() {
        for flag in ["O_DSYNC", "O_SYNC"] {
            let open = format!("1 openat(AT_FDCWD</>, \"/p/log\", O_RDWR|{flag}) = 3</p/log>");
            assert_eq!(unsynced(&open, WRITE), "");
            assert!(unsynced(&format!("{open}\n1 close(3</p/log>) = 0"), WRITE).contains("`log`"));
        }
        assert_eq!(unsynced("", "1 pwritev2(3</p/log>, [], 1, 0, RWF_DSYNC) = 1"), "");
    }

    #[test]
    fn a_file_in_memory_is_written_by_every_batch() {
        let map = "1 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_SHARED, 3</p/log>, 0) = 0x7000";
        assert_eq!(unsynced(map, "1 msync(0x7000, 4096, MS_SYNC) = 0"), "");
        assert!(
            unsynced(map, "1 msync(0x7000, 4096, MS_ASYNC) = 0").contains("`log` was not synced after mmap")
        );
        assert!(unsynced(map, "").contains("`log` was not synced after mmap"));
    }

    #[test]
    fn names_are_synced_with_their_directory_and_bytes_go_with_the_name() {
        let new = "1 openat(AT_FDCWD</>, \"/p/new\", O_RDWR|O_CREAT, 0666) = 4</p/new>\n\
            1 write(4</p/new>, \"x\", 1) = 1\n1 rename(\"/p/new\", \"/p/log\") = 0\n";
        let verdict = judged("", new);
        assert!(verdict.acknowledged.unwrap().contains("`log` was not synced after write"));
        assert!(verdict.names.unwrap().contains("after rename of `log`"));
        let synced = "1 fsync(4</p/log>) = 0\n1 fsync(5</p>) = 0";
        let verdict = judged("", &[new, synced].concat());
        assert_eq!((verdict.acknowledged, verdict.names), (None, None));
        let unlinked = judged("", &[WRITE, SYNC, "1 unlinkat(7</p>, \"old\", 0) = 0"].concat());
        assert!(
            unlinked.names.unwrap().contains("the directory above the path was not synced after unlinkat")
        );
    }

    #[test]
    fn a_sync_after_one_that_failed_says_nothing() {
        let failed = "1 fdatasync(3</p/log>) = -1 EIO (Input/output error) (INJECTED)\n";
        assert!(
            judged("", &[WRITE, failed, SYNC].concat())
                .forgotten
                .unwrap()
                .contains("a sync of `log` had failed")
        );
        assert_eq!(judged("", &[WRITE, failed, WRITE, SYNC].concat()).forgotten, None);
    }

    /// Goal: no call that writes, names or syncs is forgotten. Method: each of them in a trace of its own, from the files that
    /// strace shows, with what must be said of it.
    #[test]
    fn every_call_counts() {
        for write in [
            "write(3</p/log>, \"x\", 1) = 1",
            "writev(3</p/log>, [], 1) = 1",
            "pwrite64(3</p/log>, \"x\", 1, 0) = 1",
            "pwritev(3</p/log>, [], 1, 0) = 1",
            "pwritev2(3</p/log>, [], 1, 0, 0) = 1",
            "sendfile(3</p/log>, 4</tmp/x>, NULL, 1) = 1",
            "copy_file_range(4</tmp/x>, NULL, 3</p/log>, NULL, 1, 0) = 1",
            "splice(4</tmp/x>, NULL, 3</p/log>, NULL, 1, 0) = 1",
            "truncate(\"/p/log\", 0) = 0",
            "ftruncate(3</p/log>, 0) = 0",
            "fallocate(3</p/log>, FALLOC_FL_PUNCH_HOLE|FALLOC_FL_KEEP_SIZE, 0, 1) = 0",
            "open(\"/p/log\", O_RDWR|O_TRUNC) = 3</p/log>",
            "creat(\"/p/log\", 0666) = 3</p/log>",
        ] {
            assert!(unsynced("", &[SYNC, "1 ", write].concat()).contains("`log` was not synced"), "{write}");
            for sync in ["fsync(3</p/log>)", "fdatasync(3</p/log>)", "syncfs(3</p/log>)", "sync()"] {
                let synced = unsynced("", &["1 ", write, "\n1 ", sync, " = 0"].concat());
                assert_eq!(synced, "", "{write}, {sync}");
            }
        }
        for name in [
            "open(\"/p/new\", O_RDWR|O_CREAT, 0666) = 4</p/new>",
            "openat(AT_FDCWD</>, \"/p/new\", O_RDWR|O_CREAT, 0666) = 4</p/new>",
            "openat2(AT_FDCWD</>, \"/p/new\", {flags=O_RDWR|O_CREAT}, 24) = 4</p/new>",
            "creat(\"/p/new\", 0666) = 4</p/new>",
            "mkdir(\"/p/new\", 0777) = 0",
            "mkdirat(5</p>, \"new\", 0777) = 0",
            "rename(\"/p/log\", \"/p/new\") = 0",
            "renameat(5</p>, \"log\", 5</p>, \"new\") = 0",
            "renameat2(5</p>, \"log\", 5</p>, \"new\", 0) = 0",
            "link(\"/p/log\", \"/p/new\") = 0",
            "linkat(5</p>, \"log\", 5</p>, \"new\", 0) = 0",
            "symlink(\"log\", \"/p/new\") = 0",
            "symlinkat(\"log\", 5</p>, \"new\") = 0",
            "unlink(\"/p/log\") = 0",
            "unlinkat(5</p>, \"log\", 0) = 0",
            "rmdir(\"/p/log\") = 0",
        ] {
            let names = |lines: &str| judged("", lines).names.unwrap_or_default();
            assert!(names(&["1 ", name].concat()).contains("the directory above the path"), "{name}");
            assert_eq!(names(&["1 ", name, "\n1 fsync(5</p>) = 0"].concat()), "", "{name}");
            // A call that failed has done nothing.
            let (call, _) = name.rsplit_once(" = ").unwrap();
            assert_eq!(names(&["1 ", call, " = -1 EIO (Input/output error)"].concat()), "", "{name}");
        }
    }

    #[test]
    fn a_copy_of_a_descriptor_syncs_as_the_descriptor_does() {
        let open = "1 openat(AT_FDCWD</>, \"/p/log\", O_RDWR|O_DSYNC) = 4</p/log>\n1 ";
        for copy in [
            "dup(4</p/log>) = 3</p/log>",
            "dup2(4</p/log>, 3) = 3</p/log>",
            "dup3(4</p/log>, 3, 0) = 3</p/log>",
            "fcntl(4</p/log>, F_DUPFD_CLOEXEC, 3) = 3</p/log>",
        ] {
            assert_eq!(unsynced(&[open, copy].concat(), WRITE), "", "{copy}");
        }
        assert!(unsynced(&[open, "dup(5</p/other>) = 3</p/log>"].concat(), WRITE).contains("`log`"));
    }

    #[test]
    fn a_file_that_is_no_memory_any_more_is_not_written() {
        let map = "1 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_SHARED, 3</p/log>, 0) = 0x7000\n";
        let unmapped = [map, "1 munmap(0x7000, 8192) = 0"].concat();
        assert!(unsynced(&unmapped, "1 fsync(4</p/other>) = 0").is_empty());
        let private = map.replace("MAP_SHARED", "MAP_PRIVATE");
        assert!(unsynced(&private, "1 fsync(4</p/other>) = 0").is_empty());
    }

    #[test]
    fn a_store_that_was_opened_again_knows_what_is_there() {
        let failed = "1 fdatasync(3</p/log>) = -1 EIO (Input/output error) (INJECTED)\n";
        let opened = "1 write(2<pipe:[9]>, \"\\n@syncline opened 9\\n\", 9) = 9\n";
        assert_eq!(judged(&[WRITE, failed, opened].concat(), &[WRITE, SYNC].concat()).forgotten, None);
        let reopened = judged(&[WRITE, failed, opened].concat(), SYNC);
        assert_eq!((reopened.forgotten, reopened.acknowledged), (None, None));
        assert!(judged(&[WRITE, failed].concat(), SYNC).forgotten.is_some());
    }

    #[test]
    fn rings_are_seen_to_be_there() {
        assert!(judged("1 io_uring_setup(8, {flags=0}) = 3<anon_inode:[io_uring]>", "").blind);
        assert!(!judged("", "").blind);
    }
}

//! A child under strace: the calls that its store makes to the system, and calls that are made to fail.

mod parse;
mod syncs;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) use syncs::Verdict;

use crate::child::{Child, Parent, Script, Wrapper};

/// The calls of a trace: all that change files below a directory, or make them durable. A `?` stands before a call that
/// not every machine has.
const TRACED: &str = "write,writev,pwrite64,pwritev,pwritev2,?sendfile,?copy_file_range,?splice,?open,?creat,openat,\
    ?openat2,close,dup,?dup2,dup3,fcntl,ftruncate,truncate,fallocate,?rename,?renameat,renameat2,?unlink,unlinkat,\
    ?rmdir,?link,linkat,?symlink,symlinkat,?mkdir,mkdirat,mmap,munmap,msync,fsync,fdatasync,sync,syncfs,\
    ?io_uring_setup";

/// A child whose calls are written to a file, and the directory as it was before.
pub(crate) struct Traced {
    trace: PathBuf,
    place: PathBuf,
    there_before: BTreeSet<String>,
}

impl Traced {
    /// Starts a child whose calls are traced. `faults` are arguments to strace by which calls fail.
    pub(crate) fn start(parent: &Parent, script: Script, faults: &[String]) -> Result<(Child, Self), String> {
        Self::start_with(parent, script, &[], faults)
    }

    /// As `start`; the calls `more` are in the trace too, such as reads, which change nothing.
    pub(crate) fn start_with(
        parent: &Parent,
        script: Script,
        more: &[&str],
        faults: &[String],
    ) -> Result<(Child, Self), String> {
        let trace = parent.aside().join("trace");
        let mut arguments: Vec<OsString> =
            ["strace", "-f", "-y", "-qq", "-s", "64", "-e", "signal=none", "-e"].map(Into::into).to_vec();
        let more: String = more.iter().map(|call| format!(",?{call}")).collect();
        arguments.push(format!("trace={TRACED}{more}").into());
        // The filter of the kernel stops the child at these calls alone, so that it is hardly slower. A child that is to be
        // killed is not stopped by it in the way that this needs.
        if !faults.iter().any(|fault| fault.contains("signal=")) {
            arguments.push("--seccomp-bpf".into());
        }
        arguments.extend(faults.iter().map(Into::into));
        arguments.extend(["-o".into(), trace.clone().into(), "--".into()]);
        let mut there_before = BTreeSet::new();
        note_names(&parent.place(), &mut there_before);
        let child = parent.child_under(script, &Wrapper(arguments))?;
        Ok((child, Self { trace, place: parent.place(), there_before }))
    }

    /// Judges the trace of a child that has ended. `without` are the ends of the names of files that need not be durable.
    pub(crate) fn verdict(self, without: &[String]) -> Result<Verdict, String> {
        let text = fs::read(&self.trace).map_err(|error| format!("there is no trace: {error}"))?;
        let events = parse::events(&String::from_utf8_lossy(&text));
        Ok(syncs::judge(&events, &self.place, self.there_before, without))
    }

    /// How often any one thread of a child that has ended made each of these calls to files of the store, and the names
    /// of all of these files.
    pub(crate) fn calls(self, calls: &[&str]) -> Result<(u32, BTreeSet<String>), String> {
        let text = fs::read(&self.trace).map_err(|error| format!("there is no trace: {error}"))?;
        let place = self.place.to_string_lossy().into_owned();
        let (mut counts, mut names) = (HashMap::<(u32, String), u32>::new(), BTreeMap::new());
        for event in parse::events(&String::from_utf8_lossy(&text)) {
            let parse::Event::End(call) = event else { continue };
            let paths: Vec<_> = call.paths().filter(|path| path.starts_with(&place)).collect();
            if paths.is_empty() {
                continue;
            }
            if calls.contains(&call.name.as_str()) {
                *counts.entry((call.thread, call.name)).or_default() += 1;
            }
            names.extend(paths.into_iter().map(|path| (path, ())));
        }
        Ok((counts.into_values().max().unwrap_or(0), names.into_keys().collect()))
    }
}

/// Notes the names of everything below `directory`.
fn note_names(directory: &Path, names: &mut BTreeSet<String>) {
    names.insert(directory.to_string_lossy().into_owned());
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        names.insert(entry.path().to_string_lossy().into_owned());
        if entry.path().is_dir() {
            note_names(&entry.path(), names);
        }
    }
}

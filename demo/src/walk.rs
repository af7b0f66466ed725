//! The walk over a directory: every entry below it, in the order of their ids.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use std::vec;

use syncline::DeviceId;

use crate::kinds::{Form, kind_of};
use crate::models::Entry;
use crate::path_id::{ID_BYTES_MAX, PathId};

/// What is walked over: a file system, or in tests something that fails where a test says.
pub trait Tree: Clone {
    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// What the system reports, also if it does so in the middle: half a directory must not pass for a whole one.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;

    /// What is known of an entry, without following links.
    ///
    /// # Errors
    /// What the system reports.
    fn look(&self, path: &Path) -> io::Result<About>;
}

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// What it is.
    pub form: Form,
    /// The length of a file, or of a link's target.
    pub size: u64,
    /// In milliseconds since 1970.
    pub modified_ms: Option<i64>,
}

/// The file system of the machine.
#[derive(Clone, Copy, Debug)]
pub struct FileSystem;

/// What the walk came by.
#[derive(Debug)]
pub enum Seen {
    /// An entry.
    Found(Entry),
    /// What could not be read. Nobody knows whether it is there, and if it is a directory, what lies below it.
    Unreadable {
        /// Its id.
        path: PathId,
        /// Where, and what the system reported.
        why: String,
    },
}

/// A walk over everything below a directory, depth first, the names of each directory in order.
///
/// Memory holds the names of the directories that it stands in, and no more. What vanishes while the walk goes on
/// is passed over.
#[derive(Debug)]
pub struct Walk<T> {
    tree: T,
    device: DeviceId,
    skip: PathBuf,
    /// The directories from the root to where the walk stands.
    open: Vec<Open>,
    /// Comes next: the content of a directory that could be seen, but not read.
    unreadable: Option<Seen>,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    id: PathId,
    names: vec::IntoIter<OsString>,
}

impl<T: Tree> Walk<T> {
    /// A walk over `root`, whose entries belong to `device`, as if `skip` were not there.
    #[must_use]
    pub fn new(tree: T, root: &Path, skip: &Path, device: DeviceId) -> Self {
        let mut walk = Self { tree, device, skip: skip.to_owned(), open: Vec::new(), unreadable: None };
        if let Err(error) = walk.enter(root, &PathId::ROOT) {
            // Also if it is gone: a disk that was unplugged says nothing about what is on it.
            walk.unreadable = Some(unreadable(PathId::ROOT, root, &error));
        }
        walk
    }

    fn enter(&mut self, path: &Path, id: &PathId) -> io::Result<()> {
        let mut names = self.tree.names(path)?;
        names.sort_unstable();
        // Some file systems list an entry twice that is renamed meanwhile.
        names.dedup();
        self.open.push(Open { path: path.to_owned(), id: id.clone(), names: names.into_iter() });
        Ok(())
    }

    /// Looks at one entry, and goes into it if it is a directory; `None` if it is not there any more.
    fn visit(&mut self, path: &Path, id: PathId, parent: PathId, name: &OsString) -> Option<Seen> {
        if id.as_bytes().len() > ID_BYTES_MAX {
            let error = io::Error::other(format!("the path is longer than {ID_BYTES_MAX} bytes"));
            return Some(unreadable(id, path, &error));
        }
        let about = match self.tree.look(path) {
            Ok(about) => about,
            Err(error) if is_gone(&error) => return None,
            Err(error) => return Some(unreadable(id, path, &error)),
        };
        if about.form == Form::Directory {
            match self.enter(path, &id) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => return None,
                Err(error) => self.unreadable = Some(unreadable(id.clone(), path, &error)),
            }
        }
        Some(Seen::Found(Entry {
            path: id,
            device_id: self.device,
            parent: (!parent.is_root()).then_some(parent),
            name: name.to_string_lossy().into_owned(),
            kind: kind_of(about.form, Path::new(name)).to_owned(),
            size: about.size,
            modified_ms: about.modified_ms,
        }))
    }
}

impl<T: Tree> Iterator for Walk<T> {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        loop {
            if let Some(seen) = self.unreadable.take() {
                return Some(seen);
            }
            let directory = self.open.last_mut()?;
            let Some(name) = directory.names.next() else {
                self.open.pop();
                continue;
            };
            let path = directory.path.join(&name);
            if path == self.skip {
                continue;
            }
            let parent = directory.id.clone();
            let seen = self.visit(&path, parent.child(&name), parent, &name);
            if seen.is_some() {
                return seen;
            }
        }
    }
}

impl Tree for FileSystem {
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn look(&self, path: &Path) -> io::Result<About> {
        let metadata = fs::symlink_metadata(path)?;
        let form = match metadata.file_type() {
            kind if kind.is_dir() => Form::Directory,
            kind if kind.is_file() => Form::File,
            kind if kind.is_symlink() => Form::Link,
            _ => Form::Special,
        };
        // What a directory occupies differs between file systems and says nothing to a person.
        let size = if matches!(form, Form::File | Form::Link) { metadata.len() } else { 0 };
        Ok(About { form, size, modified_ms: metadata.modified().ok().and_then(ms_since_1970) })
    }
}

/// `None` if it is some hundred million years away.
fn ms_since_1970(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok(),
        Err(before) => i64::try_from(before.duration().as_millis()).ok().map(|ms| -ms),
    }
}

/// Whether the entry vanished after its name was read, or became a file after it was a directory.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(path: PathId, at: &Path, error: &io::Error) -> Seen {
    // Quoted and escaped: a name may hold what a terminal obeys.
    Seen::Unreadable { path, why: format!("{at:?}: {error}") }
}

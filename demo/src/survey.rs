//! The look ahead: how much there is to walk, and whether it can be walked at all.

use crate::Result;
use crate::kinds::DIRECTORY;
use crate::walk::{Seen, Tree, Walk};

/// How much there is.
///
/// Every store is filled by a walk of its own. One before them tells how long they are, and leaves the directory
/// in the system's cache, so that no store pays for being the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Everything that is not a directory.
    pub files: u64,
    /// The directories below the walked one.
    pub directories: u64,
    /// What could not be read.
    pub unreadable: u64,
    /// The first few of them.
    pub examples: Vec<String>,
}

/// Enough to see a pattern.
const EXAMPLES_MAX: usize = 5;

impl Survey {
    /// Walks once.
    ///
    /// # Errors
    /// If the walked directory itself cannot be read.
    pub fn of<T: Tree>(walk: Walk<T>) -> Result<Self> {
        let mut survey = Self::default();
        for seen in walk {
            match seen {
                Seen::Found(entry) if entry.kind == DIRECTORY => survey.directories += 1,
                Seen::Found(_) => survey.files += 1,
                Seen::Unreadable { path, why } if path.is_root() => {
                    return Err(format!("{why}; allow reading it, or name another directory").into());
                }
                Seen::Unreadable { why, .. } => {
                    survey.unreadable += 1;
                    if survey.examples.len() < EXAMPLES_MAX {
                        survey.examples.push(why);
                    }
                }
            }
        }
        Ok(survey)
    }

    /// The files and directories together.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.files + self.directories
    }
}

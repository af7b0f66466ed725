//! The lists of mutants: faults that a test must notice, each written down as one change of one file.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// A fault: the text `find`, which stands once in `file`, becomes `replace`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// The name, which no other mutant of any list has.
    pub(crate) name: String,
    /// The file, from the root of the workspace.
    pub(crate) file: String,
    pub(crate) find: String,
    pub(crate) replace: String,
    /// The harm to a user of the library.
    pub(crate) why: String,
    /// The arguments of `cargo test` that name the tests which notice the fault.
    pub(crate) killer: Option<String>,
    /// Why no test notices the fault, and none has to.
    pub(crate) survives: Option<String>,
}

/// A file of mutants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutant: Vec<Mutant>,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads all lists, in the order of their names.
pub(crate) fn read_all() -> Result<Vec<Mutant>, Box<dyn Error>> {
    let mut lists: Vec<_> = fs::read_dir(root().join(".ci/mutants"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    lists.retain(|path| {
        path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with("Cargo.toml")
    });
    lists.sort();
    let mut all = Vec::new();
    for path in lists {
        let list: List = toml::from_str(&fs::read_to_string(&path)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        all.extend(list.mutant);
    }
    Ok(all)
}

impl Mutant {
    /// Returns the file's text with the fault in it.
    pub(crate) fn apply(&self, text: &str) -> Result<String, String> {
        let count = text.matches(&self.find).count();
        if count != 1 || self.find == self.replace {
            return Err(format!("{}: its text stands {count} times in {}", self.name, self.file));
        }
        Ok(text.replacen(&self.find, &self.replace, 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A mutant that no longer applies tests nothing, and nobody runs the lists for every change.
    #[test]
    fn every_mutant_can_be_put_in() {
        let (mut names, mut complaints) = (BTreeSet::new(), Vec::new());
        let all = read_all().unwrap();
        assert!(!all.is_empty());
        for mutant in all {
            let text = fs::read_to_string(root().join(&mutant.file)).unwrap_or_default();
            complaints.extend(mutant.apply(&text).err());
            if mutant.why.is_empty() || mutant.killer.is_none() && mutant.survives.is_none() {
                complaints.push(format!("{}: without a reason, or without a killer", mutant.name));
            }
            if !names.insert(mutant.name.clone()) {
                complaints.push(format!("{}: two mutants have this name", mutant.name));
            }
        }
        assert!(complaints.is_empty(), "mutants that do not fit the sources:\n{}", complaints.join("\n"));
    }
}

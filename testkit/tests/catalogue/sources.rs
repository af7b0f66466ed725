//! What the sources of the workspace say of tests and properties, read as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The letters of the groups.
const LETTERS: [char; 7] = ['H', 'S', 'C', 'Y', 'B', 'X', 'I'];

/// The tests of the workspace, and the properties that its comments cite.
#[derive(Default)]
pub(crate) struct Sources {
    /// Every test, every property of the kit's lists, and the numbers that each of them proves.
    pub(crate) tests: BTreeMap<String, BTreeSet<String>>,
    /// Every number in a comment, and where.
    pub(crate) cited: Vec<(String, String)>,
    /// The names of all `macro_rules!`.
    pub(crate) macros: BTreeSet<String>,
    /// Every source file, from the root of the workspace.
    pub(crate) files: BTreeSet<String>,
}

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

impl Sources {
    /// Reads every source file of the workspace.
    pub(crate) fn read() -> Self {
        let kit = properties_of_the_kit();
        let mut sources = Self::default();
        sources.tests.extend(kit.iter().map(|name| ((*name).to_owned(), BTreeSet::new())));
        for path in rust_files(root()) {
            let file = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
            sources.take(&file, &fs::read_to_string(&path).unwrap(), &kit);
            sources.files.insert(file);
        }
        // It finds what it is for.
        assert!(sources.tests.len() > 300 && sources.cited.len() > 100, "the sources were not read");
        sources
    }

    fn take(&mut self, file: &str, source: &str, kit: &BTreeSet<&str>) {
        let (mut comment, mut is_test) = (String::new(), false);
        for line in source.lines().map(str::trim_start) {
            if line.starts_with("//") {
                let numbers = numbers_in(line);
                self.cited.extend(numbers.into_iter().map(|number| (number, file.to_owned())));
                comment = comment + line + "\n";
            } else if line == "strace_test! {" {
                is_test = true;
            } else if line.starts_with("#[") {
                is_test |= ["#[test]", "#[tokio::test"].iter().any(|test| line.starts_with(test));
            } else {
                if let Some(name) = function_in(line).filter(|name| is_test || kit.contains(name)) {
                    self.prove(name, numbers_in(&comment));
                }
                self.macros.extend(line.strip_prefix("macro_rules! ").map(|name| word(name).to_owned()));
                (comment, is_test) = (String::new(), false);
            }
        }
        if file.starts_with("testkit/src/sim/") {
            self.take_failures_of_the_simulator(source);
        }
    }

    fn prove(&mut self, test: &str, numbers: Vec<String>) {
        let proven = self.tests.entry(test.to_owned()).or_default();
        let prefix = test.split('_').next().unwrap_or_default().to_uppercase();
        proven.extend(is_number(&prefix).then_some(prefix));
        proven.extend(numbers);
    }

    /// The simulator names what it finds by number: `"Y1 peers converge"`.
    fn take_failures_of_the_simulator(&mut self, source: &str) {
        for text in source.split('"') {
            let number = text.split(' ').next().unwrap_or_default();
            if is_number(number) && text.contains(' ') {
                self.cited.push((number.to_owned(), "the simulator".into()));
                self.prove("no_history_breaks_a_property", vec![number.to_owned()]);
            }
        }
    }
}

/// The numbers that `text` cites: `C9, Y10`, and `H4 to H7` for all four.
pub(crate) fn numbers_in(text: &str) -> Vec<String> {
    let words: Vec<_> =
        text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
    let mut numbers = Vec::new();
    for (at, word) in words.iter().enumerate().filter(|(_, word)| is_number(word)) {
        if at >= 2 && words[at - 1] == "to" && is_number(words[at - 2]) && words[at - 2][..1] == word[..1] {
            let (first, last): (u32, u32) = (words[at - 2][1..].parse().unwrap(), word[1..].parse().unwrap());
            numbers.extend((first + 1..last).map(|number| format!("{}{number}", &word[..1])));
        }
        numbers.push((*word).to_owned());
    }
    numbers
}

fn is_number(word: &str) -> bool {
    let mut chars = word.chars();
    let letter = chars.next().is_some_and(|letter| LETTERS.contains(&letter));
    letter && (2..=3).contains(&word.len()) && chars.all(|digit| digit.is_ascii_digit())
}

/// The name of the function that begins on this line.
fn function_in(line: &str) -> Option<&str> {
    let words = ["fn ", "async fn ", "pub fn ", "pub async fn ", "pub(super) async fn ", "pub(super) fn "];
    words.iter().find_map(|begin| line.strip_prefix(begin)).map(word)
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The properties of the lists that a store is tested with.
fn properties_of_the_kit() -> BTreeSet<&'static str> {
    macro_rules! names {
        ([] $($name:ident)*) => { vec![$(stringify!($name)),*] };
    }
    let lists = [
        syncline_testkit::for_each_storage_property!([names]),
        syncline_testkit::for_each_crash_property!([names]),
        syncline_testkit::for_each_crash_join_property!([names]),
        syncline_testkit::for_each_power_property!([names]),
        syncline_testkit::for_each_fault_property!([names]),
        syncline_testkit::for_each_join_property!([names]),
        syncline_testkit::for_each_replica_property!([names]),
        syncline_testkit::for_each_joined_replica_property!([names]),
        syncline_testkit::for_each_replication_property!([names]),
        syncline_testkit::for_each_joined_replication_property!([names]),
        syncline_testkit::for_each_transport_property!([names]),
        syncline_testkit::for_each_replication_over_property!([names]),
        syncline_testkit::for_each_merge_law!([names]),
        syncline_testkit::for_each_clock_property!([names]),
        syncline_testkit::for_each_clock_rises_property!([names]),
    ];
    lists.into_iter().flatten().collect()
}

/// Every Rust file below `folder`, without what was built and what is hidden.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "target" || name.starts_with('.') || name.starts_with("mutants.out") {
            continue;
        }
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
    files
}

//! Byte vectors: files under `docs/vectors/` with the bytes of every message, row and key.
//!
//! A file has one vector a line: a name, and the bytes in hex. The tests read what the files have and write what the code
//! writes, so that a version of today can be read by every later one, and a stranger can try a peer against them. What
//! was released stays as it is; `SYNCLINE_UPDATE_DOCS=1` writes the files.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Compares the vectors of a file with those that the code writes; returns those of the file, by their names.
pub(crate) fn compare(file: &str, written: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let path = format!("{}/../docs/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("SYNCLINE_UPDATE_DOCS").is_some() {
        let lines = written
            .iter()
            .fold(String::new(), |lines, (name, bytes)| lines + name + " " + &hex(bytes) + "\n");
        std::fs::write(&path, lines).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    let read: BTreeMap<_, _> = lines.map(|(name, bytes)| (name.to_owned(), unhex(bytes))).collect();
    for (name, bytes) in written {
        let expected = read.get(*name).map(|bytes| hex(bytes));
        assert_eq!(
            expected,
            Some(hex(bytes)),
            "{file} has other bytes for {name}, written as {}",
            hex(bytes)
        );
    }
    assert_eq!(read.len(), written.len(), "each vector of {file} is written by a test, once");
    read
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "half a byte in {text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

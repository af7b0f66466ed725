//! Byte vectors: files under `docs/vectors/` with the bytes of every message, row and key.
//!
//! A file has one vector a line: a name, and the bytes in hex. The tests read what the files have and write what the code
//! writes, so that a version of today can be read by every later one, and a stranger can try a peer against them. What
//! was released stays as it is; `SYNCLINE_UPDATE_DOCS=1` writes the files. Beside each file stands one that lists the
//! fields of its vectors, so that a reader of another language need not guess where one ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The bytes of a field on one line.
const LINE_BYTES: usize = 16;

/// Compares the vectors of a file with those that the code writes; returns those of the file, by their names.
pub(crate) fn compare(file: &str, written: &[(&str, Vec<u8>)]) -> BTreeMap<String, Vec<u8>> {
    let text = text(file, || {
        written.iter().fold(String::new(), |lines, (name, bytes)| lines + name + " " + &hex(bytes) + "\n")
    });
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

/// Compares the listing of the vectors of a file with the one that follows from `fields`: for each name its fields, as
/// their lengths in bytes and their meanings, with `;` between them. Together they are all bytes of the vector.
pub(crate) fn list(file: &str, vectors: &BTreeMap<String, Vec<u8>>, fields: &[(&str, String)]) {
    let mut lines = String::new();
    for (name, fields) in fields {
        writeln!(lines, "{name}").unwrap();
        let mut rest = vectors[*name].as_slice();
        for field in fields.split(';') {
            let (len, meaning) = field.trim().split_once(' ').unwrap();
            let (bytes, behind) = rest
                .split_at_checked(len.parse().unwrap())
                .unwrap_or_else(|| panic!("{name} ends in {field}"));
            for (n, bytes) in bytes.chunks(LINE_BYTES).enumerate() {
                let line = format!("  {:32}  {}", hex(bytes), if n == 0 { meaning } else { "" });
                writeln!(lines, "{}", line.trim_end()).unwrap();
            }
            rest = behind;
        }
        assert!(rest.is_empty(), "{name} has {} bytes behind its fields", rest.len());
    }
    let listed: BTreeSet<_> = fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(listed, vectors.keys().map(String::as_str).collect(), "each vector is listed, once");
    assert_eq!(
        text(file, || lines.clone()),
        lines,
        "{file} lists other fields; SYNCLINE_UPDATE_DOCS=1 writes it"
    );
}

/// The text of a file of vectors, written anew if that is asked for.
fn text(file: &str, write: impl FnOnce() -> String) -> String {
    let path = format!("{}/../docs/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("SYNCLINE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, write()).unwrap();
    }
    std::fs::read_to_string(&path).unwrap()
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

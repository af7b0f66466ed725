//! Goal: faults that fuzzing has found do not come back. Method: the corpora of the fuzz targets, each input whole, cut
//! and with one byte changed.
//!
//! Each corpus begins with inputs of the bytes of today, so that fuzzing reaches what is behind the first check: the
//! vectors of `docs/vectors`, and what a member really sends. `SYNCLINE_UPDATE_DOCS=1` makes them anew.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syncline_testkit::fuzz;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn replay(target: &str, run: fn(&[u8])) {
    let mut inputs = 0;
    for file in std::fs::read_dir(corpus(target)).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        run(&bytes);
        for at in (0..bytes.len()).step_by(1 + bytes.len() / 32) {
            run(&bytes[..at]);
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x55;
            run(&flipped);
        }
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {target} is empty");
}

#[test]
fn frames_are_read_or_refused() {
    replay("frame", fuzz::frame);
}

#[test]
fn commits_are_read_or_refused() {
    replay("commit", fuzz::commit);
}

#[test]
fn a_replica_stands_whatever_a_member_sends() {
    replay("replica", fuzz::replica);
}

/// The vectors of a file of `docs/vectors`, by their names.
fn vectors(file: &str) -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let byte = |hex: &[u8]| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap();
    let vector = |line: &str| {
        let (name, hex) = line.split_once(' ').unwrap();
        (name.to_owned(), hex.as_bytes().chunks(2).map(byte).collect())
    };
    text.lines().map(vector).collect()
}

/// Each corpus has inputs of today: those of an older version of the wire would end at the first check.
#[test]
fn the_corpora_begin_with_the_bytes_of_today() {
    let mut inputs = BTreeMap::new();
    for (name, bytes) in vectors("messages.txt") {
        inputs.insert(format!("replica/{name}"), fuzz::as_input(&bytes));
        inputs.insert(format!("frame/{name}"), bytes);
    }
    inputs.insert("commit/log".into(), vectors("rows.txt")["log"][32..].to_vec());
    let sent = fuzz::what_a_member_sends();
    inputs.insert("replica/a_member".into(), sent.iter().flat_map(|frame| fuzz::as_input(frame)).collect());
    for (at, frame) in sent.into_iter().enumerate() {
        inputs.insert(format!("frame/a_member_{at}"), frame);
    }
    for (name, bytes) in inputs {
        let path = corpus(&name);
        if std::env::var_os("SYNCLINE_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let found = std::fs::read(&path).unwrap_or_default();
        assert!(found == bytes, "{name} is of another version: SYNCLINE_UPDATE_DOCS=1 makes it anew");
    }
}

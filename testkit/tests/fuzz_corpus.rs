//! Goal: faults that fuzzing has found do not come back. Method: the corpora of the fuzz targets, each input whole, cut
//! and with one byte changed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;

use syncline_testkit::fuzz;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
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

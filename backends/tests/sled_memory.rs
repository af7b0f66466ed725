//! Goal: the memory of the store does not grow with everything that was ever written. Method: a process of its own
//! writes many batches, and the system says how much memory it has had at most. Only Linux says that.
#![cfg(all(feature = "sled", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures::executor::block_on;
use syncline::{Storage, WriteBatch};
use syncline_backends::SledStorage;

/// A few times what the process takes. Without `free_replaced`, sled keeps every page that a batch has replaced: some
/// 300 MiB by the end.
const PEAK_MIB_MAX: u64 = 150;

#[test]
fn memory_does_not_grow_with_what_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStorage::builder().cache_bytes(4 << 20).open(directory.path().join("store")).unwrap();
    for batch in 0..150_u32 {
        let mut rows = WriteBatch::new();
        for row in 0..1000_u32 {
            rows.put([batch.to_be_bytes(), row.to_be_bytes()].concat(), [7; 100]);
        }
        block_on(store.write(rows)).unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    let peak_mib = peak.unwrap().parse::<u64>().unwrap() / 1024;
    println!("{peak_mib} MiB at most");
    assert!(peak_mib < PEAK_MIB_MAX, "{peak_mib} MiB");
}

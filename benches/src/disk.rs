//! What the disk itself costs, so that the rates can be read.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use crate::Result;
use crate::stopwatch::Stopwatch;

/// The median time of appending a page to a file in `dir` and flushing it, of `count` times.
///
/// # Errors
/// Those of the file system.
pub fn flush_cost(dir: &Path, count: usize) -> Result<Duration> {
    let mut file: File = tempfile::tempfile_in(dir)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let stopwatch = Stopwatch::start();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(stopwatch.elapsed());
    }
    times.sort();
    Ok(times.get(count / 2).copied().unwrap_or_default())
}

/// The bytes of the file or directory at `path`, all that is in it included.
///
/// # Errors
/// Those of the file system.
pub fn size(path: &Path) -> Result<u64> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.len());
    }
    fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}

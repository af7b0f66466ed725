//! The peak memory of a process of its own: what this one has freed, and the caches of its stores, would hide what
//! something takes.

use std::fs;
use std::process::Command;

use crate::Result;

/// The peak memory of this binary when it is run with `arguments` and prints it; `None` where it cannot be told.
///
/// # Errors
/// What the process reports.
pub fn peak_mib_of_child(arguments: &[&str]) -> Result<Option<f64>> {
    let mut child = Command::new(std::env::current_exe()?);
    let output = child.arg("--bench").args(arguments).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let kib = String::from_utf8(output.stdout)?;
    Ok(kib.trim().parse::<f64>().ok().map(|kib| kib / 1024.))
}

/// Prints the peak memory of this process. Linux alone tells it; elsewhere the line is empty.
pub fn print_peak() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    println!("{}", peak.unwrap_or_default());
}

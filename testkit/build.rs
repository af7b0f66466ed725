//! Looks for strace, which the lists of power and of faults need: libtest decides at compile time which tests are ignored.

use std::process::{Command, Stdio};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(strace)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    // Not only found: a container may forbid one process to trace another, and an old strace lacks an option.
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-y", "--seccomp-bpf", "-o", "/dev/null", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if strace.status().is_ok_and(|status| status.success()) {
        println!("cargo::rustc-cfg=strace");
    }
}

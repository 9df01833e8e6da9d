//! What a program uses, by the kernel's count.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Of a process and its descendants together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory in octets (`VmRSS`).
    pub resident: u64,
    /// The most that it was (`VmHWM`).
    pub peak: u64,
}

/// Reads the usage of a process and its descendants.
///
/// # Errors
/// When it has ended, or `/proc` can't be read.
pub fn usage(pid: u32) -> Result<Usage> {
    let mut total = Usage::default();
    for pid in family(pid)? {
        // The same that utime and stime of `stat` add up to, yet in nanoseconds and not in ticks.
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path().join("schedstat");
            // A thread may end between the two.
            let Ok(text) = fs::read_to_string(path) else {
                continue;
            };
            let nanos = text.split(' ').next().context("schedstat")?.parse()?;
            total.cpu += Duration::from_nanos(nanos);
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        total.resident += field(&status, "VmRSS:")?;
        total.peak += field(&status, "VmHWM:")?;
    }
    Ok(total)
}

fn field(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.with_context(|| name.to_owned())?;
    let kib: u64 = words
        .split_whitespace()
        .next()
        .context("a number")?
        .parse()?;
    Ok(kib * 1024)
}

/// A process and its descendants: some programs are more than one.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(&parent) = family.get(at) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
            .unwrap_or_default();
        for child in children.split_whitespace() {
            family.push(child.parse()?);
        }
        at += 1;
    }
    Ok(family)
}

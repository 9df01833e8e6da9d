//! Benchmarks: ours and a reference in the same run.

use anyhow::Result;

use crate::run::{self, LAB, cargo};

/// Runs those whose name holds `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<bool> {
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    run::build_lab()?;
    let programs = run::lab_folder()?;
    let mut passed = true;
    if wanted("add") {
        println!("\n=== add: CNI ADD as a whole process, beside ptp + host-local");
        let status = cargo()
            .args(["bench", "--quiet", "--bench", "add"])
            .args(LAB)
            .status()?;
        passed &= status.success();
    }
    if wanted("routes") {
        println!("\n=== routes: 100,000 learned routes into the kernel, beside a raw netlink loop");
        let status = std::process::Command::new(programs.join("lab-bench"))
            .arg("routes")
            .status()?;
        passed &= status.success();
    }
    Ok(passed)
}

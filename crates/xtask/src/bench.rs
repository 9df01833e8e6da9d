//! Benchmarks: ours and a reference in the same run.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run::{self, LAB, cargo};

/// Runs those whose name holds `filter`.
pub(crate) fn run(filter: Option<&str>) -> Result<bool> {
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let mut passed = true;
    if wanted("codec") {
        println!(
            "\n=== codec: UPDATEs read and written, beside routecore, bgpkit-parser and zettabgp"
        );
        let status = cargo()
            .args(["run", "--quiet", "--release", "--manifest-path"])
            .arg(run::root().join("crates/bgp-wire/benches/peers/Cargo.toml"))
            .status()?;
        passed &= status.success();
    }
    if filter == Some("codec") {
        // All others need the lab, which takes a while to build.
        return Ok(passed);
    }
    run::build_lab()?;
    let programs = run::lab_folder()?;
    if wanted("add") {
        println!("\n=== add: CNI ADD as a whole process, beside ptp and bridge with host-local");
        let status = cargo()
            .args(["bench", "--quiet", "--bench", "add"])
            .args(LAB)
            .env("MARGAY_CNI", static_shim()?)
            .status()?;
        passed &= status.success();
        let status = Command::new(programs.join("lab-bench"))
            .arg("first-packets")
            .status()?;
        passed &= status.success();
    }
    if wanted("dataplane") {
        println!(
            "\n=== dataplane: routes, failover and dumps, beside a raw netlink loop and ip -batch"
        );
        let status = cargo()
            .args(["bench", "--quiet", "-p", "netlink", "--bench", "routes"])
            .args(LAB)
            .status()?;
        passed &= status.success();
        println!();
        let status = Command::new(programs.join("lab-bench"))
            .arg("steady")
            .status()?;
        passed &= status.success();
    }
    if wanted("routes") {
        println!("\n=== routes: 100,000 learned routes into the kernel, beside a raw netlink loop");
        let status = Command::new(programs.join("lab-bench"))
            .arg("routes")
            .status()?;
        passed &= status.success();
    }
    if wanted("kube") {
        println!(
            "\n=== kube: an agent among 5,000 Nodes, and agents that write, at a real API server"
        );
        let status = Command::new(programs.join("lab-kube")).status()?;
        passed &= status.success();
    }
    if let Some(scenario) = bgp(filter) {
        let status = Command::new(programs.join("lab-bgp"))
            .args(scenario)
            .status()?;
        passed &= status.success();
    }
    Ok(passed)
}

/// Whether the BGP speakers are wanted: with all scenarios, or with the one that `bgp-NAME` names.
fn bgp(filter: Option<&str>) -> Option<Option<&str>> {
    match filter {
        None | Some("bgp") => Some(None),
        Some(filter) => filter.strip_prefix("bgp-").map(Some),
    }
}

/// The shim as it is meant to be installed: static, since a runtime starts it for every pod and loading libraries would take
/// longer than its work. With musl where that target is installed, for half the size.
fn static_shim() -> Result<PathBuf> {
    let target = match run::musl()? {
        Some(musl) => musl,
        None => run::host()?,
    };
    let built = cargo()
        .args(["build", "--quiet", "--profile", "shim", "-p", "cni"])
        .args(["--target", &target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status()?;
    if !built.success() {
        bail!("the static shim can't be built");
    }
    let folder = run::lab_folder()?.with_file_name(target);
    Ok(folder.join("shim/margay-cni"))
}

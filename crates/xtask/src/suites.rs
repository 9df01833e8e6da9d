//! The suites that need namespaces: the package `tests`. And the simulation, which needs nothing but an optimised build.

use std::ffi::OsString;

use anyhow::Result;

use crate::packages;
use crate::run::{self, LAB, Session, cargo};

/// In the order in which a person would want them to fail.
const SUITES: [&str; 15] = [
    "connectivity",
    "mesh",
    "topology",
    "firewall",
    "services",
    "pools",
    "tunnels",
    PEERS,
    "interop",
    "resilience",
    "runtime",
    CHART,
    "kubernetes",
    "cluster",
    "churn",
];

/// The suite of which docs/interop.md is the table.
const PEERS: &str = "peers";

/// The suite that puts static programs into an image.
const CHART: &str = "chart";

/// Runs the simulation with as many seeds and as large topologies as an optimised build allows.
pub(crate) fn simulation(session: &mut Session) -> Result<()> {
    session.step(
        "simulation",
        cargo().args(["test", "--quiet", "--profile", "lab", "-p", "sim"]),
    )?;
    Ok(())
}

/// Builds once, then runs each suite as a step of its own. Root can have namespaces, and has just installed what was
/// missing if `install` says so: then a test that can't run is a failure, for it says nothing about what it is to test.
pub(crate) fn run(session: &mut Session, install: bool) -> Result<()> {
    let required = match (packages::root(), install) {
        (true, true) => "all",
        (true, false) => "namespaces",
        (false, _) => "none",
    };
    let mut build = cargo();
    build.args(["build", "--quiet", "--bins"]).args(LAB);
    for suite in SUITES {
        build.args(["--test", suite]);
    }
    if !session.step("build (profile lab)", &mut build)? {
        return Ok(());
    }
    match run::musl()? {
        Some(target) => {
            session.step(
                "build static programs",
                cargo()
                    .args(["build", "--quiet", "--profile", "lab", "--target", &target])
                    .args(["-p", "agent", "-p", "cni", "-p", "ctl"]),
            )?;
        }
        None => session.skip(
            "build static programs",
            "the suite chart wants them: rustup target add …-unknown-linux-musl",
        ),
    }
    let programs = run::lab_folder()?;
    let path = path_with_tools();
    for suite in SUITES {
        session.step(
            suite,
            cargo()
                .args(["test", "--quiet", "--test", suite])
                .args(LAB)
                .env("MARGAY_BIN_DIR", &programs)
                .env("PATH", &path)
                .env("MARGAY_TESTS", required),
        )?;
    }
    Ok(())
}

/// Runs the suite of single sessions with other speakers, and has it write docs/interop.md when all of it passed.
pub(crate) fn interop(session: &mut Session) -> Result<()> {
    session.step(
        PEERS,
        cargo()
            .args(["test", "--quiet", "--test", PEERS])
            .args(LAB)
            .env("MARGAY_TESTS", "all")
            .env("MARGAY_INTEROP_WRITE", "1"),
    )?;
    Ok(())
}

/// Where programs are looked for: also among the tools that we have built.
fn path_with_tools() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = run::cache().map(|folder| folder.join("bin"));
    let folders = std::env::split_paths(&path).chain(tools);
    // A folder with a colon in its name can't be in a path.
    std::env::join_paths(folders).unwrap_or(path)
}

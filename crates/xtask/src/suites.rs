//! The suites that need namespaces: the package `tests`.

use anyhow::Result;

use crate::run::{self, Session, cargo};

/// In the order in which a person would want them to fail.
const SUITES: [&str; 4] = ["connectivity", "mesh", "interop", "resilience"];

/// Builds once, then runs each suite as a step of its own.
pub(crate) fn run(session: &mut Session) -> Result<()> {
    let built = session.step(
        "build (profile lab)",
        cargo()
            .args(["build", "--quiet", "--profile", "lab", "--bins", "--tests"])
            .args([
                "-p", "agent", "-p", "cni", "-p", "ctl", "-p", "lab", "-p", "tests",
            ]),
    )?;
    if !built {
        return Ok(());
    }
    let programs = run::lab_folder()?;
    for suite in SUITES {
        session.step(
            suite,
            cargo()
                .args([
                    "test",
                    "--quiet",
                    "--profile",
                    "lab",
                    "-p",
                    "tests",
                    "--test",
                    suite,
                ])
                .env("MARGAY_BIN_DIR", &programs),
        )?;
    }
    Ok(())
}

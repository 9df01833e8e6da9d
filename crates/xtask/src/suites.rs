//! The suites that need namespaces: the package `tests`.

use anyhow::Result;

use crate::run::{self, LAB, Session, cargo};

/// In the order in which a person would want them to fail.
const SUITES: [&str; 4] = ["connectivity", "mesh", "interop", "resilience"];

/// Builds once, then runs each suite as a step of its own.
pub(crate) fn run(session: &mut Session) -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--bins"]).args(LAB);
    for suite in SUITES {
        build.args(["--test", suite]);
    }
    if !session.step("build (profile lab)", &mut build)? {
        return Ok(());
    }
    let programs = run::lab_folder()?;
    for suite in SUITES {
        session.step(
            suite,
            cargo()
                .args(["test", "--quiet", "--test", suite])
                .args(LAB)
                .env("MARGAY_BIN_DIR", &programs),
        )?;
    }
    Ok(())
}

//! What is run on the second kernel: the very programs that were run on this one.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use cargo_metadata::Message;

use super::{kernel, quote};
use crate::packages;
use crate::run::{LAB, Session, build_lab, cargo, lab_folder};
use crate::{check, vm};

/// The step's name.
const STEP: &str = "on Debian's kernel (qemu)";
/// Whose tests concern the kernel and nothing else.
const PACKAGE: &str = "netlink";
/// Tests of it that are about load, not about the kernel: an emulated processor would take minutes for each.
const HEAVY: [&str; 2] = [
    "the_very_first_packet_arrives",
    "lost_events_come_to_light_by_a_dump",
];
/// The suites in which the kernel's part is the greatest.
const SUITES: [&str; 2] = ["mesh", "tunnels"];

/// Builds what is to be run, boots the machine once, and runs all of it.
///
/// # Errors
/// When a step can't be started. A machine that does not boot is a failed step.
pub(crate) fn run(session: &mut Session, install: bool) -> Result<()> {
    if let Some(reason) = kernel::missing() {
        // What could have been installed should be there.
        if install && packages::root() && std::env::consts::ARCH == "x86_64" {
            session.fail(STEP, &reason);
        } else {
            session.skip(STEP, reason);
        }
        return Ok(());
    }
    if let Err(error) = vm::unpack() {
        session.fail(STEP, &format!("{error:#}"));
        return Ok(());
    }
    let programs = programs()?;
    let mut machine = Command::new(std::env::current_exe()?);
    machine
        .args(["vm", "sh", "-c", &script(&programs)])
        .env("MARGAY_BIN_DIR", lab_folder()?)
        .env("MARGAY_TESTS", "kernel");
    session.step(STEP, &mut machine)?;
    Ok(())
}

/// Test programs with the name that their output goes under and their arguments.
fn programs() -> Result<Vec<(String, String, Vec<String>)>> {
    let mut selection = check::unit_tests();
    selection.args(check::targets(true)?);
    let skipped: Vec<String> = HEAVY
        .into_iter()
        .flat_map(|test| ["--skip".to_owned(), test.to_owned()])
        .collect();
    build_lab()?;
    let mut found: Vec<_> = executables(selection, PACKAGE)?
        .into_iter()
        .map(|(name, path)| (format!("{PACKAGE} {name}"), path, skipped.clone()))
        .collect();
    let mut selection = cargo();
    selection.args(["test", "--quiet"]).args(LAB);
    for suite in SUITES {
        selection.args(["--test", suite]);
    }
    let suites = executables(selection, "tests")?;
    found.extend(
        suites
            .into_iter()
            .map(|(name, path)| (name, path, vec!["--test-threads=1".to_owned()])),
    );
    Ok(found)
}

/// Builds what `cargo test` would run, and says where cargo has put a package's: name and path.
fn executables(mut selection: Command, package: &str) -> Result<Vec<(String, String)>> {
    let mut build = selection
        .args(["--no-run", "--message-format", "json"])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = std::io::BufReader::new(build.stdout.take().context("a pipe")?);
    let mut found = Vec::new();
    for message in Message::parse_stream(output) {
        if let Message::CompilerArtifact(artifact) = message?
            && let Some(path) = artifact.executable
            && artifact.profile.test
            && artifact
                .manifest_path
                .parent()
                .and_then(|it| it.file_name())
                == Some(package)
        {
            found.push((artifact.target.name, path.into_string()));
        }
    }
    if !build.wait()?.success() {
        bail!("the build failed: {selection:?}");
    }
    found.sort();
    Ok(found)
}

/// Runs all of them, whatever becomes of each.
fn script(programs: &[(String, String, Vec<String>)]) -> String {
    let mut script = "echo kernel $(uname -r); failed=0\n".to_owned();
    for (name, path, arguments) in programs {
        let words = std::iter::once(path)
            .chain(arguments)
            .map(|word| quote(word));
        let words: Vec<String> = words.collect();
        script += &format!(
            "echo '--- {name}'; {} --color never || failed=1\n",
            words.join(" ")
        );
    }
    script + "exit $failed"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_is_the_failure_of_all_and_stops_none() {
        let program = |script: &str| {
            (
                "x".to_owned(),
                "sh".to_owned(),
                vec!["-c".to_owned(), script.to_owned()],
            )
        };
        let programs = [program("echo one; false"), program("echo two")];
        let output = Command::new("sh").args(["-c", &script(&programs)]).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("one") && text.contains("two"), "{text}");
    }
}

//! What needs neither root nor namespaces.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use cargo_metadata::MetadataCommand;

use crate::packages;
use crate::run::{Session, cache, cargo, root};

/// The version of cargo-deny that [`run`] installs. Building it takes some minutes, so it is kept outside the tree.
const CARGO_DENY: &str = "0.20.2";

/// Crates whose integration tests make network namespaces.
const KERNEL: [&str; 2] = ["cni", "netlink"];

/// Runs all of them; installs cargo-deny when it is missing and `install` says so.
pub(crate) fn run(session: &mut Session, install: bool) -> Result<()> {
    session.step("format", cargo().args(["fmt", "--all", "--check"]))?;
    session.step(
        "clippy",
        cargo()
            .args(["clippy", "--quiet", "--workspace", "--all-targets"])
            .args(["--", "-D", "warnings"]),
    )?;
    session.step(
        "documentation",
        cargo()
            .args(["doc", "--quiet", "--workspace", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    // The crate graph and the tidiness tests are among these.
    session.step(
        "unit tests",
        unit_tests().args(["--lib", "--bins"]).args(targets(false)?),
    )?;
    session.step("examples in documentation", unit_tests().arg("--doc"))?;
    match cargo_deny(session, install)? {
        Some(deny) => {
            session.step(
                "licences, bans, sources",
                Command::new(deny)
                    .current_dir(root())
                    .args([
                        "--offline",
                        "--log-level",
                        "error",
                        "--config",
                        ".deny.toml",
                    ])
                    .args(["check", "bans", "licenses", "sources"]),
            )?;
        }
        None => session.skip(
            "licences, bans, sources",
            format!("cargo-deny is missing (cargo install --locked cargo-deny@{CARGO_DENY})"),
        ),
    }
    Ok(())
}

/// The tests that need the kernel's help: root, or user namespaces.
pub(crate) fn kernel(session: &mut Session) -> Result<()> {
    let mut tests = unit_tests();
    tests.args(targets(true)?);
    if !packages::root() {
        if !user_namespaces() {
            let reason = "they make network namespaces: run this as root, or allow user namespaces";
            session.skip("tests against the kernel", reason);
            return Ok(());
        }
        tests = inside(&tests);
    }
    session.step("tests against the kernel", &mut tests)?;
    Ok(())
}

/// Makes its caller root in user, network and mount namespaces of its own.
const UNSHARE: [&str; 2] = ["unshare", "-Urnm"];

/// Whether the kernel lets somebody who is not root do that.
fn user_namespaces() -> bool {
    let [program, flags] = UNSHARE;
    let output = Command::new(program).args([flags, "true"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// The same command in there.
fn inside(command: &Command) -> Command {
    let [program, flags] = UNSHARE;
    let mut inside = Command::new(program);
    inside
        .current_dir(root())
        .arg(flags)
        .arg(command.get_program())
        .args(command.get_args());
    inside
}

pub(crate) fn unit_tests() -> Command {
    let mut command = cargo();
    command.args([
        "test",
        "--quiet",
        "--no-fail-fast",
        "--workspace",
        "--exclude",
        "tests",
    ]);
    command
}

/// Integration tests, of the crates that need the kernel or of all others: `--test NAME` each.
pub(crate) fn targets(kernel: bool) -> Result<Vec<String>> {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()?;
    let packages = metadata.packages.iter();
    let names = packages
        .filter(|package| package.name.as_str() != "tests")
        .filter(|package| KERNEL.contains(&package.name.as_str()) == kernel)
        .flat_map(|package| &package.targets)
        .filter(|target| target.is_test())
        .flat_map(|target| ["--test".to_owned(), target.name.clone()]);
    Ok(names.collect())
}

/// Where cargo-deny is: on the path, or in our cache, or built into it just now.
fn cargo_deny(session: &mut Session, install: bool) -> Result<Option<PathBuf>> {
    let cached = cache().map(|folder| folder.join("bin/cargo-deny"));
    let found = [Some(PathBuf::from("cargo-deny")), cached.clone()]
        .into_iter()
        .flatten()
        .find(|program| {
            let version = Command::new(program).arg("--version").output();
            version.is_ok_and(|output| output.status.success())
        });
    let (None, true, Some(cached), Some(folder)) = (&found, install, cached, cache()) else {
        return Ok(found);
    };
    let built = session.step(
        "build cargo-deny (once)",
        cargo()
            .args(["install", "--quiet", "--locked", "--root"])
            .arg(folder)
            .arg(format!("cargo-deny@{CARGO_DENY}")),
    )?;
    Ok(built.then_some(cached))
}

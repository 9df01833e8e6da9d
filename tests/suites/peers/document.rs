//! `docs/interop.md`: made from the cases, written by a run in which all of them passed.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use lab::Namespace;
use lab::peer::Kind;

use crate::matrix::{Cell, FEATURES};

/// The environment variable that asks for the page to be written.
const WANTED: &str = "MARGAY_INTEROP_WRITE";

/// The line that only a run can know.
const VERSIONS: &str = "Versions: ";

pub(crate) fn is_wanted() -> bool {
    std::env::var_os(WANTED).is_some()
}

fn path() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/interop.md"))
}

/// Writes the page after a run in which nothing failed and nothing was left out.
pub(crate) fn write() -> Result<()> {
    let namespace = Namespace::create("versions")?;
    let mut versions = Vec::new();
    for kind in Kind::ALL {
        versions.push(format!("{} {}", kind.title(), kind.version(&namespace)?));
    }
    let page = render(&format!("{VERSIONS}{}.", versions.join(", ")))?;
    Ok(std::fs::write(path(), page)?)
}

/// Whether the page in the tree is the one that a run would write.
pub(crate) fn check() -> Result<()> {
    let page = std::fs::read_to_string(path()).context("read docs/interop.md")?;
    let mut lines = page.lines();
    let versions = lines.find(|line| line.starts_with(VERSIONS));
    let expected = render(versions.context("a line with versions")?)?;
    let differs = page
        .lines()
        .zip(expected.lines())
        .find(|(is, should)| is != should);
    ensure!(
        page == expected,
        "docs/interop.md is not what the cases say; cargo xtask interop writes it. First difference: {differs:?}"
    );
    Ok(())
}

fn render(versions: &str) -> Result<String> {
    let mut page = "# Interoperability\n\n\
        Written by `cargo xtask interop` from a run of the suite `peers`, in which every case passed: do not edit. A test \
        fails when this page and the cases differ.\n\n\
        Each case is a session of Margay's speaker with another one in network namespaces of their own. What the other \
        side has is read from its own tool (`birdc`, `vtysh` with JSON, `gobgp -j`, `bgpctl -j`, ExaBGP's JSON API and \
        log). Where a feature has two directions, both are tested. The name of a case is the speaker's and the \
        feature's: `cargo test -p tests --test peers -- frr::med`.\n\n"
        .to_owned();
    writeln!(page, "{versions}\n")?;
    page.push_str("| feature | name | RFC |");
    for kind in Kind::ALL {
        write!(page, " {} |", kind.title())?;
    }
    page.push_str("\n| --- | --- | --- |");
    page.push_str(&" --- |".repeat(Kind::ALL.len()));
    page.push('\n');
    let mut reasons: Vec<&str> = Vec::new();
    for feature in FEATURES {
        write!(
            page,
            "| {} | `{}` | {} |",
            feature.what, feature.slug, feature.rfc
        )?;
        for kind in Kind::ALL {
            match feature.cell(kind) {
                Cell::Case(_) => page.push_str(" passed |"),
                Cell::Without(reason) => {
                    let known = reasons.iter().position(|it| *it == reason);
                    let number = known.unwrap_or_else(|| {
                        reasons.push(reason);
                        reasons.len() - 1
                    });
                    write!(page, " no ({}) |", number + 1)?;
                }
            }
        }
        page.push('\n');
    }
    page.push_str("\nWhy a cell has no case:\n\n");
    for (number, reason) in (1..).zip(&reasons) {
        writeln!(page, "{number}. {reason}")?;
    }
    Ok(page)
}

//! Speakers under test: each as a whole process, with as much of it switched off as can be: no kernel routes, no log of
//! routes, and it waits for its peers to dial, so that all of them are dialled in the same way.

mod bird;
mod frr;
mod gobgp;
mod margay;
mod openbgpd;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use lab::Namespace;
use lab::process::{self, Process, Program};

/// Which speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Ours, as `margayd` has it.
    Margay,
    /// BIRD 2.
    Bird,
    /// FRR's `bgpd` alone.
    Frr,
    /// OpenBGPD.
    Openbgpd,
    /// GoBGP.
    Gobgp,
    /// No speaker: copies each UPDATE to everybody else. Nobody can do less.
    Copy,
}

impl Subject {
    pub(crate) const ALL: [Self; 6] = [
        Self::Margay,
        Self::Bird,
        Self::Frr,
        Self::Openbgpd,
        Self::Gobgp,
        Self::Copy,
    ];
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Margay => "margay",
            Self::Bird => "bird",
            Self::Frr => "frr",
            Self::Openbgpd => "openbgpd",
            Self::Gobgp => "gobgp",
            Self::Copy => "copy",
        })
    }
}

impl FromStr for Subject {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL
            .into_iter()
            .find(|subject| subject.to_string() == name);
        found.with_context(|| {
            let names = Self::ALL.map(|subject| subject.to_string());
            format!("{name} is none of {}", names.join(", "))
        })
    }
}

/// What a subject is to be.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// Its AS.
    pub(crate) asn: u32,
    /// Who may dial.
    pub(crate) peers: Vec<Peer>,
    /// What starts at it.
    pub(crate) networks: Vec<Ipv4Net>,
}

/// A peer of a subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) address: Ipv4Addr,
    pub(crate) asn: u32,
    /// A client of the subject's, which is a route reflector.
    pub(crate) client: bool,
}

/// Starts a subject.
pub(crate) fn start(
    subject: Subject,
    namespace: &Namespace,
    folder: &Path,
    topology: &Topology,
) -> Result<Process> {
    let program = match subject {
        Subject::Margay => margay::program(folder, topology)?,
        Subject::Bird => bird::program(folder, topology)?,
        Subject::Frr => frr::program(folder, topology)?,
        Subject::Openbgpd => openbgpd::program(folder, topology)?,
        Subject::Gobgp => gobgp::program(folder, topology)?,
        Subject::Copy => Program::new(process::ours("lab-copy")?),
    };
    let log = folder.join("log");
    Process::spawn(&subject.to_string(), namespace, program, log)
}

/// Somebody else's program.
fn theirs(paths: &[&str], package: &str) -> Result<Program> {
    for path in paths {
        if let Some(path) = process::find(path) {
            return Ok(Program::new(path));
        }
    }
    bail!("not installed (apt-get install {package})")
}

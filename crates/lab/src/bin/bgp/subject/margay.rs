//! Margay's speaker: `lab-router` without a kernel.

use std::path::Path;

use anyhow::Result;
use lab::process::{self, Program};

use super::Topology;
use crate::trial::SUBJECT;

pub(super) fn program(folder: &Path, topology: &Topology) -> Result<Program> {
    let mut program = Program::new(process::ours("lab-router")?)
        .args(["--asn", &topology.asn.to_string()])
        .args(["--router-id", &SUBJECT.to_string()])
        .args(["--no-kernel", "--passive", "--no-graceful-restart"])
        .arg("--socket")
        .arg(folder.join("router.sock"));
    for network in &topology.networks {
        program = program.args(["--network", &network.to_string()]);
    }
    for peer in &topology.peers {
        let kind = if peer.client { "--client" } else { "--peer" };
        program = program.args([kind, &format!("{}={}", peer.address, peer.asn)]);
    }
    Ok(program)
}

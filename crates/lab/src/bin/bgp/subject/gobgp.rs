//! GoBGP.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use lab::process::Program;

use super::{Topology, theirs};
use crate::trial::SUBJECT;

pub(super) fn program(folder: &Path, topology: &Topology) -> Result<Program> {
    let file = folder.join("gobgpd.toml");
    std::fs::write(&file, render(topology)?)?;
    Ok(theirs(&["gobgpd"], "gobgpd")?.arg("-f").arg(&file).args([
        "--pprof-disable",
        "--log-level",
        "error",
        "--api-hosts",
        "127.0.0.1:50051",
    ]))
}

fn render(topology: &Topology) -> Result<String> {
    let mut text = format!(
        "[global.config]\nas = {}\nrouter-id = \"{SUBJECT}\"\n",
        topology.asn
    );
    for peer in &topology.peers {
        write!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{}\"\npeer-as = {}\n\
             [neighbors.transport.config]\npassive-mode = true\n\
             [neighbors.timers.config]\nhold-time = 90\nkeepalive-interval = 30\n\
             [[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"ipv4-unicast\"\n",
            peer.address, peer.asn
        )?;
        if peer.client {
            write!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{SUBJECT}\"\n"
            )?;
        }
    }
    Ok(text)
}

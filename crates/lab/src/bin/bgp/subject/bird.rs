//! BIRD 2.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use lab::process::Program;

use super::{Topology, theirs};
use crate::trial::{SUBJECT, near};

pub(super) fn program(folder: &Path, topology: &Topology) -> Result<Program> {
    let file = folder.join("bird.conf");
    std::fs::write(&file, render(topology)?)?;
    Ok(theirs(&["bird"], "bird2")?
        .arg("-f")
        .arg("-c")
        .arg(&file)
        .arg("-s")
        .arg(folder.join("bird.ctl"))
        .arg("-P")
        .arg(folder.join("bird.pid")))
}

fn render(topology: &Topology) -> Result<String> {
    let mut text = format!(
        "log stderr {{ warning, error, fatal, bug }};\nrouter id {SUBJECT};\n\
         protocol device {{ scan time 3600; }}\n\
         ipv4 table ways;\n\
         protocol static way {{ ipv4 {{ table ways; }}; route 10.1.0.0/16 via {}; }}\n\
         protocol static own {{ ipv4;\n",
        near(0)
    );
    for network in &topology.networks {
        writeln!(text, "  route {network} unreachable;")?;
    }
    text.push_str("}\n");
    for (number, peer) in topology.peers.iter().enumerate() {
        let internal = peer.asn == topology.asn;
        write!(
            text,
            "protocol bgp peer{number} {{\n  local {SUBJECT} as {};\n  neighbor {} as {};\n  {}\n  passive on;\n  \
             hold time 90;\n  error wait time 1, 1;\n{}  \
             ipv4 {{ import all; export all; {} }};\n}}\n",
            topology.asn,
            peer.address,
            peer.asn,
            if internal { "multihop 64;" } else { "direct;" },
            if peer.client { "  rr client;\n" } else { "" },
            if internal { "igp table ways;" } else { "" },
        )?;
    }
    Ok(text)
}

//! OpenBGPD: three processes.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use lab::process::Program;

use super::{Topology, theirs};
use crate::trial::SUBJECT;

pub(super) fn program(folder: &Path, topology: &Topology) -> Result<Program> {
    // Where two of its processes lock themselves up, and where its control socket goes.
    std::fs::create_dir_all("/run/openbgpd")?;
    let file = folder.join("bgpd.conf");
    std::fs::write(&file, render(folder, topology)?)?;
    // It refuses a file that others can read.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    Ok(theirs(&["/usr/sbin/bgpd"], "openbgpd")?
        .arg("-d")
        .arg("-f")
        .arg(&file))
}

fn render(folder: &Path, topology: &Topology) -> Result<String> {
    let mut text = format!(
        "AS {}\nrouter-id {SUBJECT}\nlisten on {SUBJECT}\nfib-update no\nsocket \"{}\"\n",
        topology.asn,
        folder.join("bgpd.sock").display()
    );
    for network in &topology.networks {
        writeln!(text, "network {network}")?;
    }
    for peer in &topology.peers {
        write!(
            text,
            "neighbor {} {{\n  remote-as {}\n  passive\n  holdtime 90\n",
            peer.address, peer.asn
        )?;
        if peer.client {
            text.push_str("  route-reflector\n");
        }
        if peer.asn != topology.asn {
            text.push_str("  enforce neighbor-as no\n");
        }
        text.push_str("}\n");
    }
    text.push_str("allow from any\nallow to any\n");
    Ok(text)
}

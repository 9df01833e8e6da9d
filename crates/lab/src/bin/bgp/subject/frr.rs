//! FRR's `bgpd` without `zebra`.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use lab::process::Program;

use super::{Topology, theirs};
use crate::trial::SUBJECT;

pub(super) fn program(folder: &Path, topology: &Topology) -> Result<Program> {
    lab::tor::prepare_frr()?;
    let file = folder.join("bgpd.conf");
    std::fs::write(&file, render(topology)?)?;
    // OpenBGPD's program has the same name.
    Ok(theirs(&["/usr/lib/frr/bgpd"], "frr")?
        .args(["-Z", "-u", "root", "-g", "root", "-P", "0", "-f"])
        .arg(&file)
        .arg("-i")
        .arg(folder.join("bgpd.pid"))
        .arg("--vty_socket")
        .arg(folder))
}

fn render(topology: &Topology) -> Result<String> {
    let mut text = format!(
        "log stdout errors\nrouter bgp {}\n bgp router-id {SUBJECT}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n no bgp default ipv4-unicast\n",
        topology.asn
    );
    for peer in &topology.peers {
        let address = peer.address;
        write!(
            text,
            " neighbor {address} remote-as {}\n neighbor {address} timers 30 90\n neighbor {address} passive\n \
             neighbor {address} advertisement-interval 0\n",
            peer.asn
        )?;
        if peer.asn != topology.asn {
            // Without zebra it knows no links.
            writeln!(text, " neighbor {address} disable-connected-check")?;
        }
    }
    text.push_str(" address-family ipv4 unicast\n");
    for network in &topology.networks {
        writeln!(text, "  network {network}")?;
    }
    for peer in &topology.peers {
        writeln!(text, "  neighbor {} activate", peer.address)?;
        if peer.client {
            writeln!(text, "  neighbor {} route-reflector-client", peer.address)?;
        }
    }
    text.push_str(" exit-address-family\n");
    Ok(text)
}

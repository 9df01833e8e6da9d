//! A kernel that has no driver for tunnels.

use anyhow::{Result, bail};
use lab::datacentre::DataCentre;
use tests::{same, status};

use crate::underlay;

/// It is said, packets go where they would without a tunnel, and nothing else suffers.
pub(crate) fn says_so(dc: &mut DataCentre) -> Result<()> {
    underlay::connect(dc)?;
    underlay::set_mode(dc, "CrossSubnet")?;
    underlay::start(dc)?;
    let gateway = dc.racks[0].tor.address.to_string();
    let [a, b] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
    underlay::wait_route(a, b, &gateway, "eth0")?;
    let tunnels = underlay::tunnels(a)?;
    let next_hop = &tunnels.next_hops[0];
    same(
        "tunnelled",
        &(next_hop.tunnelled, next_hop.degraded),
        &(Some(false), true),
    )?;
    let output = a.ctl_output(&["tunnels"])?;
    same("exit status", &output.status.code(), &Some(1))?;
    for arguments in [&["tunnels"][..], &["status"]] {
        let output = a.ctl_output(arguments)?;
        let text = String::from_utf8(output.stdout)?;
        if !text.contains("this kernel has no driver for it") {
            bail!("margayctl {arguments:?} says\n{text}");
        }
    }
    // The session is up, pods are attached, and the routes are in place.
    let status = status(a)?;
    same("routes", &status.kernel.ok, &status.kernel.desired)?;
    same("sessions", &status.bgp.map(|bgp| bgp.established), &Some(1))
}

//! Modes that change while packets flow, an agent that dies, and pods that are older than the tunnel.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::DataCentre;
use lab::probe::tcp::throughput;
use lab::probe::{Echo, Loss, Pinger, Reply, Stream};
use lab::wait;
use tests::{oracle, same};

use crate::underlay::{self, PATIENCE};

/// An emulated processor has no time for more.
const INTERVAL: Duration = Duration::from_millis(10);

pub(crate) fn modes(dc: &mut DataCentre) -> Result<()> {
    underlay::connect(dc)?;
    // This network knows where pods are, so that they can do without tunnels.
    let spine = dc.spine.as_ref().context("a spine")?;
    for (number, rack) in dc.racks.iter().enumerate() {
        let tor = format!("172.20.255.{}", 2 * number + 1);
        for node in &rack.nodes {
            let (pods, address) = (node.pod_cidr.to_string(), node.address.to_string());
            oracle::ip(
                &rack.tor.namespace,
                &["route", "add", &pods, "via", &address],
            )?;
            oracle::ip(&spine.namespace, &["route", "add", &pods, "via", &tor])?;
        }
    }
    underlay::set_mode(dc, "Never")?;
    underlay::start(dc)?;
    let gateway = dc.racks[0].tor.address.to_string();
    {
        let [a, far] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
        underlay::wait_route(a, far, &gateway, "eth0")?;
        same("device", &underlay::device(a, "margay-ipip")?, &None)?;
    }
    let from = dc.racks[0].nodes[0].pods[0].namespace.clone();
    let streams = [&dc.racks[0].nodes[1], &dc.racks[1].nodes[0]].map(|node| {
        let to = node.pods[0].address;
        Pinger::open(&from)?.wait_answer(to, PATIENCE)?;
        Stream::start(&from, to, INTERVAL)
    });
    for (mode, near, far) in [
        ("CrossSubnet", "eth0", "margay-ipip"),
        ("Always", "margay-ipip", "margay-ipip"),
        ("CrossSubnet", "eth0", "margay-ipip"),
    ] {
        underlay::set_mode(dc, mode)?;
        wait_devices(dc, near, far)?;
    }
    // Without an agent packets go on, and its successor takes nothing away.
    let node = dc.node("node-a1")?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(PATIENCE)?;
    dc.wait_sessions(PATIENCE)?;
    wait_devices(dc, "eth0", "margay-ipip")?;

    underlay::set_mode(dc, "Never")?;
    for node in &dc.racks[0].nodes {
        for far in &dc.racks[1].nodes {
            underlay::wait_route(node, far, &gateway, "eth0")?;
        }
    }
    for node in dc.nodes() {
        wait::until("the device to go", PATIENCE, || {
            same("device", &underlay::device(node, "margay-ipip")?, &None)
        })?;
    }
    let losses: Vec<Loss> = streams
        .into_iter()
        .map(|stream| stream?.finish())
        .collect::<Result<_>>()?;
    if losses
        .iter()
        .any(|loss| !loss.lost.is_empty() || loss.sent < 100)
    {
        bail!("within the segment, and beyond it: {losses:?}");
    }
    // Apart from that, for it leaves the probe no time.
    underlay::set_mode(dc, "CrossSubnet")?;
    wait_devices(dc, "eth0", "margay-ipip")?;
    old_pods(dc)
}

/// Waits until all nodes reach those of their own rack and those of the other through these devices.
fn wait_devices(dc: &DataCentre, near: &str, far: &str) -> Result<()> {
    for node in dc.nodes() {
        for other in dc.nodes().filter(|other| other.name != node.name) {
            let device = if other.rack == node.rack { near } else { far };
            underlay::wait_route(node, other, &other.address.to_string(), device)?;
        }
    }
    Ok(())
}

/// Pods that were attached before there was a tunnel have an MTU that does not fit it: they are told. So are they of a link
/// that is narrower still, on the way of the outer packets.
fn old_pods(dc: &DataCentre) -> Result<()> {
    let [a, far] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
    let (from, to) = (&a.pods[0], &far.pods[0]);
    let link = oracle::ip(&from.namespace, &["link", "show", "eth0"])?;
    same("an old pod", &link.contains("mtu 1500"), &true)?;
    let mut pinger = Pinger::open(&from.namespace)?;
    let mut told = |length| -> Result<Option<u16>> {
        let echo = Echo {
            length,
            dont_fragment: true,
            ..Echo::default()
        };
        Ok(
            match pinger.ping(to.address, echo, Duration::from_secs(2))? {
                Reply::TooBig { mtu, .. } => Some(mtu),
                Reply::Answer { .. }
                | Reply::TimeExceeded { .. }
                | Reply::Unreachable { .. }
                | Reply::Nothing => None,
            },
        )
    };
    let transfer = || {
        let time = Duration::from_secs(2);
        let rate = throughput(&from.namespace, &to.namespace, to.address, time)?;
        same(&format!("{rate} bit/s"), &(rate > 1e6), &true)
    };
    same("MTU told", &told(1500)?, &Some(1480))?;
    transfer()?;
    let spine = dc.spine.as_ref().context("a spine")?;
    let narrow = |namespace, link| oracle::ip(namespace, &["link", "set", link, "mtu", "1400"]);
    narrow(&spine.namespace, "to-b")?;
    narrow(&dc.racks[1].tor.namespace, "uplink")?;
    // The first is lost: it is its outer packet that the router complains of, to the node.
    wait::until("the narrow link's MTU, less a header", PATIENCE, || {
        same("MTU told", &told(1450)?, &Some(1380))
    })?;
    transfer()
}

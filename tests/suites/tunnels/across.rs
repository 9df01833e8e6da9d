//! Four nodes in two segments: who is reached how, and what is on the wire.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node, Pod};
use lab::probe::capture::Frame;
use lab::probe::tcp::throughput;
use lab::probe::{Capture, Echo, Pinger, Reply};
use lab::process::{self, Program};
use lab::wait;
use std::time::Duration;
use tests::same;

use crate::underlay::{self, PATIENCE};

/// `IPPROTO_IPIP`, `IPPROTO_IPV6`.
const IPIP: u8 = 4;
const IP6IP6: u8 = 41;

pub(crate) fn segments(dc: &mut DataCentre) -> Result<()> {
    underlay::connect(dc)?;
    underlay::set_mode(dc, "CrossSubnet")?;
    underlay::start(dc)?;
    kernels(dc)?;
    said(dc)?;
    every_pod_pings_every_pod(dc)?;
    wire(dc)?;
    sizes(dc)
}

/// Routes as `ip` shows them.
fn kernels(dc: &DataCentre) -> Result<()> {
    for node in dc.nodes() {
        for other in dc.nodes().filter(|other| other.name != node.name) {
            let near = other.rack == node.rack;
            let device = if near { "eth0" } else { "margay-ipip" };
            underlay::wait_route(node, other, &other.address.to_string(), device)?;
            let theirs = other.ipv6.context("IPv6")?;
            let device = if near { "eth0" } else { "margay-ip6ip6" };
            wait::until("the IPv6 route", PATIENCE, || {
                let seen = underlay::route(node, &theirs.pod_cidr.to_string())?;
                same(
                    "route",
                    &seen,
                    &(theirs.address.to_string(), device.to_owned()),
                )
            })?;
        }
        let device = underlay::device(node, "margay-ipip")?.context("the device")?;
        same("MTU", &device["mtu"].as_u64(), &Some(1480))?;
        let device = underlay::device(node, "margay-ip6ip6")?.context("the device")?;
        same("MTU", &device["mtu"].as_u64(), &Some(1460))?;
    }
    Ok(())
}

/// What the operator is told.
fn said(dc: &DataCentre) -> Result<()> {
    for node in dc.nodes() {
        let tunnels = underlay::tunnels(node)?;
        same("next hops", &tunnels.next_hops.len(), &6)?;
        for next_hop in &tunnels.next_hops {
            let other = dc
                .nodes()
                .find(|other| Some(&other.name) == next_hop.node.as_ref())
                .context("a node")?;
            let far = other.rack != node.rack;
            same(&next_hop.reason, &next_hop.tunnelled, &Some(far))?;
        }
        let text = node.ctl(&["tunnels"])?;
        for words in [
            "margay-ipip",
            "it is on this node's subnet",
            "it is on no subnet",
        ] {
            if !text.contains(words) {
                bail!("no {words:?} in\n{text}");
            }
        }
        let status = node.ctl(&["status"])?;
        if !status.contains("margay-ipip up") || !status.contains("Nothing needs attention") {
            bail!("{status}");
        }
    }
    Ok(())
}

fn every_pod_pings_every_pod(dc: &DataCentre) -> Result<()> {
    for from in dc.pods() {
        let mut pinger = Pinger::open(&from.namespace)?;
        for to in dc.pods().filter(|to| to.name != from.name) {
            // The routers between are none to the inner packet.
            let reply = pinger.wait_answer(to.address, PATIENCE)?;
            same(&format!("TTL from {}", to.name), &reply.ttl(), &Some(62))?;
            ping6(from, &ipv6(to)?)?;
        }
    }
    // The node's own packets leave from its own address, and come back.
    let [a, b] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
    Pinger::open(&a.namespace)?.wait_answer(b.pods[0].address, PATIENCE)?;
    let asked = tests::oracle::ip(
        &a.namespace,
        &["route", "get", &b.pods[0].address.to_string()],
    )?;
    if !asked.contains(&format!("src {} ", a.address)) {
        bail!("{asked}");
    }
    Ok(())
}

fn ping6(from: &Pod, to: &str) -> Result<()> {
    wait::until(&format!("an answer from {to}"), PATIENCE, || {
        let ping = process::find("ping").context("ping")?;
        let arguments = ["-6", "-n", "-c", "1", "-W", "2", to];
        let text = Program::new(ping).args(arguments).stdout(&from.namespace)?;
        same("hop limit", &text.contains("ttl=62"), &true)
    })
}

fn ipv6(pod: &Pod) -> Result<String> {
    let addresses = pod.result["ips"].as_array().context("addresses")?;
    let mut addresses = addresses.iter().filter_map(|ip| ip["address"].as_str());
    let address = addresses.find(|address| address.contains(':'));
    let (address, _) = address.and_then(|it| it.split_once('/')).context("IPv6")?;
    Ok(address.to_owned())
}

/// What passes through the routers, and what through a segment.
fn wire(dc: &DataCentre) -> Result<()> {
    let [a, near, far] = [
        &dc.racks[0].nodes[0],
        &dc.racks[0].nodes[1],
        &dc.racks[1].nodes[0],
    ];
    let between = |from: &Node, to: &Node| -> Result<Vec<Frame>> {
        let spine = dc.spine.as_ref().context("a spine")?;
        let segment = Capture::start(&dc.racks[0].tor.namespace)?;
        let spine = Capture::start(&spine.namespace)?;
        let mut pinger = Pinger::open(&from.pods[0].namespace)?;
        pinger.wait_answer(to.pods[0].address, PATIENCE)?;
        ping6(&from.pods[0], &ipv6(&to.pods[0])?)?;
        let (segment, spine) = (segment.finish()?, spine.finish()?);
        let mut frames = if from.rack == to.rack { segment } else { spine };
        let (from, to) = (from.pods[0].address, to.pods[0].address);
        frames.retain(|frame| frame.carries(from, to) || frame.carries(to, from) || is_ipv6(frame));
        Ok(frames)
    };
    let inner = (a.pods[0].address, far.pods[0].address);
    let frames = between(a, far)?;
    let mut seen = 0;
    for frame in frames
        .iter()
        .filter(|frame| frame.carries(inner.0, inner.1))
    {
        let outer = frame.plain_ipv4().context("IPv4")?;
        same("outer", &outer, &(a.address, far.address, IPIP))?;
        // TTL 64, one hop done inside; ToR and spine count outside alone.
        same("inner TTL", &frame.0[14 + 20 + 8], &63)?;
        same("outer TTL", &(frame.0[14 + 8] < 63), &true)?;
        seen += 1;
    }
    if seen == 0 {
        bail!("no request passed the spine, among {} frames", frames.len());
    }
    let six = |frame: &&Frame| frame.0.get(14 + 6) == Some(&IP6IP6);
    let (own, theirs) = (a.ipv6.context("IPv6")?, far.ipv6.context("IPv6")?);
    let wrapped: Vec<_> = frames
        .iter()
        .filter(|frame| is_ipv6(frame))
        .filter(six)
        .collect();
    let wanted = [own.address.octets(), theirs.address.octets()].concat();
    if !wrapped
        .iter()
        .any(|frame| frame.0.get(14 + 8..14 + 40) == Some(&wanted[..]))
    {
        bail!("no IPv6 in IPv6 from {} to {}", own.address, theirs.address);
    }

    let inner = (a.pods[0].address, near.pods[0].address);
    let frames = between(a, near)?;
    let plain = |frame: &&Frame| frame.plain_ipv4().map(|it| (it.0, it.1)) == Some(inner);
    let requests = frames
        .iter()
        .filter(|frame| frame.carries(inner.0, inner.1));
    let (plain, all) = (requests.clone().filter(plain).count(), requests.count());
    if plain == 0 || plain != all {
        bail!("within a segment {plain} of {all} requests are plain");
    }
    Ok(())
}

fn is_ipv6(frame: &Frame) -> bool {
    frame.0.get(12..14) == Some(&[0x86, 0xdd])
}

/// Pods are born with an MTU that fits, and large segments get through.
fn sizes(dc: &DataCentre) -> Result<()> {
    let [a, far] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
    let (from, to) = (&a.pods[0], &far.pods[0]);
    let mut pinger = Pinger::open(&from.namespace)?;
    let echo = |length| Echo {
        length,
        dont_fragment: true,
        ..Echo::default()
    };
    let limit = Duration::from_secs(5);
    let fits = pinger.ping(to.address, echo(1460), limit)?;
    same("what fits", &fits.answered(), &true)?;
    // The pod's own kernel knows.
    let large = pinger.ping(to.address, echo(1461), limit)?;
    let own = Reply::TooBig {
        from: Ipv4Addr::UNSPECIFIED,
        mtu: 0,
    };
    same("what does not", &large, &own)?;
    let rate = throughput(
        &from.namespace,
        &to.namespace,
        to.address,
        Duration::from_secs(2),
    )?;
    same(&format!("{rate} bit/s"), &(rate > 1e6), &true)
}

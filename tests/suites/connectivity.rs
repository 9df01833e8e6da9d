//! The demo's data centre with every kind of ToR: packets go everywhere, untouched.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use lab::datacentre::{DataCentre, Node, Shape};
use lab::probe::capture::Frame;
use lab::probe::{Capture, EchoServer, Pinger, trace};
use lab::process::{self, Program};
use lab::tor::Kind;
use lab::{Namespace, net, wait};
use tests::{Case, SESSION, oracle, same, suite};

const LIMIT: Duration = Duration::from_secs(5);

/// ICMP, TCP, UDP: what may stand right after an Ethernet header's IPv4.
const PLAIN: [u8; 3] = [1, 6, 17];

fn main() -> ExitCode {
    let shape = Shape {
        pods: 2,
        ..Shape::default()
    };
    let single = Shape {
        racks: 1,
        nodes: 1,
        pods: 0,
        ..Shape::default()
    };
    let mut cases = Case::each(&Kind::ALL, "every_packet_arrives_untouched", &shape, fabric);
    let dual_stack = Shape {
        pods: 1,
        dual_stack: true,
        ..single.clone()
    };
    cases.push(Case::new("del_leaves_nothing", single, del_leaves_nothing).with("ip"));
    let loops = Case::new("unassigned_addresses_do_not_loop", dual_stack, no_loop);
    cases.push(loops.with("ip").with("ping"));
    suite(cases)
}

fn fabric(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    kernel_has_exactly_our_routes(dc)?;
    everybody_reaches_every_pod(dc)?;
    nobody_translates(dc)?;
    nobody_encapsulates(dc)?;
    the_way_has_no_other_hops(dc)
}

/// By `ip -j route`: a blackhole for its own range, a /32 a pod, a route a node; no more.
fn kernel_has_exactly_our_routes(dc: &DataCentre) -> Result<()> {
    for node in dc.nodes() {
        let mut expected: BTreeMap<Ipv4Net, ()> = BTreeMap::new();
        expected.extend(dc.nodes().map(|other| (other.pod_cidr, ())));
        let pods = node.pods.iter().map(|pod| pod.address);
        expected.extend(pods.map(|address| (Ipv4Net::new(address, 32).unwrap(), ())));
        let actual = oracle::margay_routes(&node.namespace)?;
        let keys: BTreeSet<_> = actual.keys().copied().collect();
        same(&node.name, &keys, &expected.into_keys().collect())?;
        same("own range", &actual[&node.pod_cidr], &None)?;
        for other in dc.nodes().filter(|other| other.rack != node.rack) {
            let tor = dc.racks.iter().find(|rack| rack.name == node.rack).unwrap();
            let via = Some(tor.tor.address.to_string());
            same("via the ToR", &actual[&other.pod_cidr], &via)?;
        }
    }
    Ok(())
}

/// And the TTL of the answer has fallen by exactly the routers on the way.
fn everybody_reaches_every_pod(dc: &DataCentre) -> Result<()> {
    for node in dc.nodes() {
        let own = [(&node.namespace, false)];
        let pods = node.pods.iter().map(|pod| (&pod.namespace, true));
        for (from, is_pod) in own.into_iter().chain(pods) {
            let mut pinger = Pinger::open(from)?;
            for other in dc.nodes() {
                for pod in &other.pods {
                    let itself = from.name() == pod.namespace.name();
                    let routers = if itself {
                        0
                    } else {
                        dc.routers_back(node, is_pod, other)
                    };
                    let ttl = pinger.wait_answer(pod.address, LIMIT)?.ttl();
                    let what = format!("TTL from {} to {}", from.name(), pod.name);
                    same(&what, &ttl, &Some(64 - routers))?;
                }
                // And back: nodes answer to pods.
                if other.name != node.name {
                    pinger.wait_answer(other.address, LIMIT)?;
                }
            }
        }
    }
    Ok(())
}

/// A server in a pod sees each client's own address, over UDP and TCP.
fn nobody_translates(dc: &DataCentre) -> Result<()> {
    for server in dc.nodes() {
        let pod = &server.pods[0];
        let echo = EchoServer::start(&pod.namespace, pod.address)?;
        for client in dc.pods() {
            let expected = IpAddr::V4(client.address);
            same(&client.name, &echo.ask_udp(&client.namespace)?, &expected)?;
            same(&client.name, &echo.ask_tcp(&client.namespace)?, &expected)?;
        }
        for client in dc.nodes().filter(|client| client.name != server.name) {
            let expected = IpAddr::V4(client.address);
            same(&client.name, &echo.ask_tcp(&client.namespace)?, &expected)?;
        }
    }
    Ok(())
}

/// On the ToR's links, where everything passes, pods' packets are plain IPv4 in Ethernet.
fn nobody_encapsulates(dc: &DataCentre) -> Result<()> {
    let (from, to) = ends(dc);
    plain_between(dc, from, to)?;
    plain_between(dc, from, &dc.racks[0].nodes[1])
}

fn plain_between(dc: &DataCentre, from: &Node, to: &Node) -> Result<()> {
    let (source, target) = (from.pods[0].address, to.pods[0].address);
    let capture = Capture::start(&dc.racks[0].tor.namespace)?;
    Pinger::open(&from.pods[0].namespace)?.wait_answer(target, LIMIT)?;
    let frames = capture.finish()?;
    let ours: Vec<_> = frames
        .iter()
        .filter(|frame| frame.carries(source, target) || frame.carries(target, source))
        .collect();
    if ours.len() < 4 {
        bail!(
            "{} frames at the ToR: in and out, both ways, make 4",
            ours.len()
        );
    }
    for frame in ours {
        match frame.plain_ipv4() {
            Some((from, to, protocol))
                if (from, to) == (source, target) || (from, to) == (target, source) =>
            {
                same("plain protocol", &PLAIN.contains(&protocol), &true)?;
            }
            other => bail!("wrapped: {other:?} {frame:?}"),
        }
    }
    Ok(())
}

/// By traceroute between racks; and the path carries what the bare nodes' does.
fn the_way_has_no_other_hops(dc: &DataCentre) -> Result<()> {
    let (from, to) = ends(dc);
    let mut pinger = Pinger::open(&from.pods[0].namespace)?;
    let hops = trace::traceroute(&mut pinger, to.pods[0].address)?;
    let routers: Vec<_> = hops.iter().map(|(address, _)| *address).collect();
    same("hops", &routers.len(), &6)?;
    same("first", &routers[0], &from.address)?;
    same("second", &routers[1], &dc.racks[0].tor.address)?;
    same("last but one", &routers[4], &to.address)?;
    same("last", &routers[5], &to.pods[0].address)?;
    same(
        "MTU",
        &trace::path_mtu(&mut pinger, to.pods[0].address)?,
        &1500,
    )
}

fn ends(dc: &DataCentre) -> (&Node, &Node) {
    (&dc.racks[0].nodes[0], &dc.racks[1].nodes[0])
}

/// CNI DEL takes away link, route and address; again is no error.
fn del_leaves_nothing(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    let node = dc.node("node-a1")?;
    let links = net::links(&node.namespace)?;
    let routes = oracle::margay_routes(&node.namespace)?;
    let address = node.attach()?.address;
    Pinger::open(&node.namespace)?.wait_answer(address, LIMIT)?;
    let pod = node.pods.pop().unwrap();
    for _ in 0..2 {
        pod.detach(&node.namespace, &node.run_folder().join("cni.sock"))?;
    }
    same("links", &net::links(&node.namespace)?, &links)?;
    same("routes", &oracle::margay_routes(&node.namespace)?, &routes)?;
    same("links in the pod", &net::links(&pod.namespace)?.len(), &1)
}

/// What the ToR sends to an address of the node's own range that no pod has ends at the node, though its default route leads back
/// to the ToR. The control: without the blackholes the same packets do go back.
fn no_loop(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let rack = dc.racks.first_mut().context("a rack")?;
    let (tor, own) = (rack.tor.namespace.clone(), rack.tor.address);
    let node = rack.nodes.first_mut().context("a node")?;
    let ipv6 = node.ipv6.context("IPv6")?;
    let own6 = Ipv6Addr::from((u128::from(ipv6.address) & !0xffff) | 1);
    let inside = &node.namespace;
    let host = ipv6.address.to_string();
    let range6 = ipv6.pod_cidr.to_string();
    net::address(&tor, "rack", Ipv6Net::new(own6, 64)?)?;
    let default = ["-6", "route", "add", "default", "via", &own6.to_string()];
    oracle::ip(inside, &default)?;
    oracle::ip(&tor, &["-6", "route", "add", &range6, "via", &host])?;
    let links = oracle::ip(inside, &["-j", "link", "show", "eth0"])?;
    let links: serde_json::Value = serde_json::from_str(&links)?;
    let mac = links[0]["address"].as_str().context("eth0")?;
    let mac: Vec<u8> = mac
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect::<Result<_, _>>()?;
    let pod = &node.pods[0];
    let ips = pod.result["ips"].as_array().into_iter().flatten();
    let mut ips = ips.filter_map(|ip| ip["address"].as_str()?.parse::<Ipv6Net>().ok());
    let (pod, pod6) = (
        pod.address.into(),
        ips.next().context("IPv6")?.addr().into(),
    );
    let ways = [
        (IpAddr::V4(own), pod, last(node.pod_cidr.into())),
        (IpAddr::V6(own6), pod6, last(ipv6.pod_cidr.into())),
    ];
    for (from, pod, unused) in ways {
        // The way there is one.
        wait::until("the pod to answer", SESSION, || {
            same("answered", &ping(&tor, pod)?, &true)
        })?;
        let (came, went_back) = passes(&tor, inside, &mac, from, unused)?;
        if came < 2 {
            bail!("{came} packets for {unused} came to the node");
        }
        same(&format!("sent back for {unused}"), &went_back, &0)?;
    }
    node.agent()?.kill()?;
    for range in [node.pod_cidr.to_string(), range6] {
        oracle::ip(&node.namespace, &["route", "del", "blackhole", &range])?;
    }
    for (from, _, unused) in ways {
        let (_, went_back) = passes(&tor, &node.namespace, &mac, from, unused)?;
        if went_back == 0 {
            bail!(
                "without its blackhole the node sent nothing for {unused} back, so nothing is shown"
            );
        }
    }
    Ok(())
}

/// The last address but one of a range: pods get the first.
fn last(range: ipnet::IpNet) -> IpAddr {
    match range.broadcast() {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) - 1).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) - 1).into()),
    }
}

/// Whether an address answers one of three pings.
fn ping(from: &Namespace, to: IpAddr) -> Result<bool> {
    let program = Program::new(process::find("ping").context("ping")?);
    let program = program.args(["-n", "-c", "3", "-i", "0.2", "-W", "1"]);
    Ok(program.arg(to.to_string()).output(from)?.status.success())
}

/// Pings an address that nobody has: how many of the packets came to the node, and how many it sent (by the MAC address).
fn passes(
    tor: &Namespace,
    node: &Namespace,
    mac: &[u8],
    from: IpAddr,
    to: IpAddr,
) -> Result<(usize, usize)> {
    let capture = Capture::start(node)?;
    same(&format!("answer from {to}"), &ping(tor, to)?, &false)?;
    let frames = capture.finish()?;
    let of_it = frames.iter().filter(|frame| ends_are(frame, from, to));
    let (sent, came): (Vec<_>, Vec<_>) = of_it.partition(|frame| frame.0.get(6..12) == Some(mac));
    Ok((came.len(), sent.len()))
}

/// Source and destination of the header right after Ethernet's.
fn ends_are(frame: &Frame, from: IpAddr, to: IpAddr) -> bool {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => frame
            .plain_ipv4()
            .is_some_and(|(source, target, _)| (source, target) == (from, to)),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            frame.0.get(12..14) == Some(&[0x86, 0xdd])
                && frame.0.get(22..54) == Some(&[from.octets(), to.octets()].concat()[..])
        }
        _ => false,
    }
}

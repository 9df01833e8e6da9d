//! The demo's data centre with every kind of ToR: packets go everywhere, untouched.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node, Shape};
use lab::net;
use lab::probe::{Capture, EchoServer, Pinger, trace};
use lab::tor::Kind;
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
    cases.push(Case::new("del_leaves_nothing", single, del_leaves_nothing).with("ip"));
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

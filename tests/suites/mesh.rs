//! Nodes of one L2 segment as an iBGP full mesh: nothing but the nodes themselves.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::datacentre::{DataCentre, Node, Pod, Shape};
use lab::probe::{Pinger, Stream};
use lab::process::{self, Program};
use lab::wait;
use serde_json::Value;
use tests::{Case, SESSION, oracle, peers, same, suite};

fn main() -> ExitCode {
    let shape = Shape {
        tor: None,
        racks: 1,
        nodes: 4,
        pods: 1,
        ..Shape::default()
    };
    let dual_stack = Shape {
        nodes: 2,
        dual_stack: true,
        ..shape.clone()
    };
    let both = Case::new(
        "pods_reach_each_other_over_both_families",
        dual_stack,
        both_families,
    );
    let moving = Shape {
        nodes: 3,
        ..shape.clone()
    };
    suite(vec![
        both.with("ip").with("ping"),
        Case::new("a_node_gets_another_address", moving, readdressed).with("ip"),
        Case::new("every_node_peers_with_every_other", shape, full_mesh).with("ip"),
    ])
}

/// One session over IPv4 carries both families; the next hop of IPv6 routes is the node's IPv6 address.
fn both_families(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let all: Vec<_> = dc.nodes().collect();
    for node in dc.nodes() {
        same("peers", &peers(node)?.len(), &1)?;
        let own = node.ipv6.context("IPv6")?;
        for other in all.iter().filter(|other| other.name != node.name) {
            let theirs = other.ipv6.context("IPv6")?;
            wait::until("the IPv6 route", SESSION, || {
                let shown = route(node, &theirs.pod_cidr.to_string())?;
                // With a group of nexthop objects `ip -6` lists its members, were there but one.
                let hop = shown["nexthops"].get(0).unwrap_or(&shown);
                let via = hop["gateway"].as_str().map(ToOwned::to_owned);
                same("gateway", &via, &Some(theirs.address.to_string()))
            })?;
        }
        let shown = route(node, &own.pod_cidr.to_string())?;
        same("own range", &shown["type"].as_str(), &Some("blackhole"))?;
    }
    for from in dc.pods() {
        for to in dc.pods() {
            let target = ipv6_address(to)?;
            wait::until(&format!("an answer from {target}"), SESSION, || {
                let ping = process::find("ping").context("ping")?;
                let arguments = ["-6", "-n", "-c", "1", "-W", "1", &target];
                Program::new(ping)
                    .args(arguments)
                    .stdout(&from.namespace)
                    .map(drop)
            })?;
        }
    }
    // A packet for an address that nobody has is dropped here, and not sent back where it came from.
    let node = all.first().context("a node")?;
    let unused = node.ipv6.context("IPv6")?.pod_cidr.addr().segments();
    let unused = std::net::Ipv6Addr::new(unused[0], 0, 0, unused[3], 0, 0, 0, 0xdead);
    let asked = oracle::ip(
        &node.namespace,
        &["-6", "route", "get", &unused.to_string()],
    );
    same("refused", &asked.is_err(), &true)
}

/// The route of ours to a prefix, by `ip -6`.
fn route(node: &Node, prefix: &str) -> Result<Value> {
    let arguments = ["-6", "-j", "-d", "route", "show", prefix, "proto", "77"];
    let routes: Value = serde_json::from_str(&oracle::ip(&node.namespace, &arguments)?)?;
    routes.get(0).cloned().context("no route")
}

/// The second address that the plugin gave.
fn ipv6_address(pod: &Pod) -> Result<String> {
    let addresses = pod.result["ips"].as_array().context("addresses")?;
    let mut addresses = addresses.iter().filter_map(|ip| ip["address"].as_str());
    let address = addresses.find(|address| address.contains(':'));
    let (address, _) = address
        .and_then(|it| it.split_once('/'))
        .context("an IPv6 address")?;
    Ok(address.to_owned())
}

/// A node's address changes while pods talk: all go by the new one, its own agent too, and who has nothing to do with it notices
/// nothing.
fn readdressed(dc: &mut DataCentre) -> Result<()> {
    const INTERVAL: Duration = Duration::from_millis(1);
    const RANGE: &str = "10.244.12.0/24";
    const NEW: &str = "172.20.1.112";
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let target = |name: &str| -> Result<_> {
        let pod = dc.pods().find(|pod| pod.name.contains(name));
        pod.context(name.to_owned())
    };
    let (first, moved, third) = (target("a1")?, target("a2")?, target("a3")?);
    let bystanders = Stream::start(&first.namespace, third.address, INTERVAL)?;
    let concerned = Stream::start(&first.namespace, moved.address, INTERVAL)?;
    let node = dc.nodes().find(|node| node.name == "node-a2");
    let node = node.context("node-a2")?;
    // The kernel keeps an address when the first of its subnet goes.
    node.namespace
        .sysctl("ipv4/conf/eth0/promote_secondaries", "1")?;
    let address = |verb: &str, address: &str| {
        let subnet = format!("{address}/24");
        oracle::ip(&node.namespace, &["address", verb, &subnet, "dev", "eth0"])
    };
    address("add", NEW)?;
    for each in dc.nodes() {
        let nodes = std::fs::read_to_string(each.config_folder().join("nodes.yaml"))?;
        let old = format!("address: {}\n", node.address);
        each.write_config(
            "nodes.yaml",
            &nodes.replace(&old, &format!("address: {NEW}\n")),
        )?;
    }
    for each in dc.nodes().filter(|each| each.name != node.name) {
        wait::until(&format!("{} to follow", each.name), SESSION, || {
            let gateways = oracle::gateways(&each.namespace, RANGE)?;
            same("gateways", &gateways, &[NEW.to_owned()].into())
        })?;
    }
    address("del", &node.address.to_string())?;
    wait::until("the sessions of the node", SESSION, || {
        let peers = peers(node)?;
        let up = |peer: &&api::Peer| peer.state == api::SessionState::Established;
        same("sessions", &peers.iter().filter(up).count(), &2)
    })?;
    for to in [first, moved, third] {
        Pinger::open(&third.namespace)?.wait_answer(to.address, SESSION)?;
    }
    let (bystanders, concerned) = (bystanders.finish()?, concerned.finish()?);
    same("lost by bystanders", &bystanders.lost.len(), &0)?;
    // Between the end of the old sessions and the first word of the new ones, milliseconds as a rule.
    let lost = concerned.lost.len();
    same(
        &format!("{lost} lost, less than a second's"),
        &(lost < 1000),
        &true,
    )?;
    Ok(())
}

fn full_mesh(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    for node in dc.nodes() {
        let peers = peers(node)?;
        same(&node.name, &peers.len(), &3)?;
        for peer in &peers {
            same("state", &peer.state, &api::SessionState::Established)?;
            same("kind", &peer.kind, &api::PeerKind::Internal)?;
            // What one node of a mesh tells another goes no further (RFC 4271 §9.2).
            same("prefixes", &peer.prefixes.received, &1)?;
        }
        same(
            "connections",
            &oracle::bgp_connections(&node.namespace)?,
            &3,
        )?;
        let routes = oracle::margay_routes(&node.namespace)?;
        for other in dc.nodes().filter(|other| other.name != node.name) {
            let via = Some(other.address.to_string());
            same("straight to the node", &routes[&other.pod_cidr], &via)?;
        }
    }
    for from in dc.pods() {
        let mut pinger = Pinger::open(&from.namespace)?;
        for to in dc.pods().filter(|to| to.name != from.name) {
            let reply = pinger.wait_answer(to.address, Duration::from_secs(5))?;
            same("TTL", &reply.ttl(), &Some(62))?;
        }
    }
    Ok(())
}

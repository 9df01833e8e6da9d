//! Nodes of one L2 segment as an iBGP full mesh: nothing but the nodes themselves.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::datacentre::{DataCentre, Node, Pod, Shape};
use lab::probe::Pinger;
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
    suite(vec![
        both.with("ip").with("ping"),
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

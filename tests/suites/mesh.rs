//! Nodes of one L2 segment as an iBGP full mesh: nothing but the nodes themselves.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use lab::datacentre::{DataCentre, Shape};
use lab::probe::Pinger;
use tests::{Case, SESSION, oracle, peers, same, suite};

fn main() -> ExitCode {
    let shape = Shape {
        tor: None,
        racks: 1,
        nodes: 4,
        pods: 1,
        ..Shape::default()
    };
    suite(vec![
        Case::new("every_node_peers_with_every_other", shape, full_mesh).with("ip"),
    ])
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

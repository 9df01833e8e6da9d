//! The network below the nodes.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use ipnet::{Ipv4Net, Ipv6Net};

use super::config;
use super::{DataCentre, Ipv6, Node, Rack, Router, Shape};
use crate::{Namespace, net, tor};

/// The L2 segment of a rack, in its ToR.
const SEGMENT: &str = "rack";

/// Where a data centre keeps its files.
pub(super) fn folder(shape: &Shape) -> PathBuf {
    Path::new("/run/lab").join(format!("{}dc", shape.prefix))
}

/// Private 4-octet ASes (RFC 6996), one a router and one a node.
const SPINE_AS: u32 = 4_200_000_000;
const TOR_AS: u32 = 4_200_001_000;
const SECOND_TOR_AS: u32 = 4_200_002_000;
const NODE_AS: u32 = 4_200_010_000;

/// The one AS of an iBGP mesh.
const MESH_AS: u32 = 64_512;

pub(super) fn build(shape: Shape) -> Result<DataCentre> {
    let mut racks = Vec::new();
    for number in 1..=shape.racks {
        racks.push(rack(&shape, number)?);
    }
    let mut dc = DataCentre {
        spine: (racks.len() > 1)
            .then(|| spine(&shape, &mut racks))
            .transpose()?,
        racks,
        shape,
    };
    config::write(&dc)?;
    start_speakers(&mut dc)?;
    Ok(dc)
}

fn rack(shape: &Shape, number: u8) -> Result<Rack> {
    let letter = char::from(b'a' + number - 1);
    let subnet = Ipv4Net::new(Ipv4Addr::new(172, 20, number, 0), 24)?;
    let address = Ipv4Addr::new(172, 20, number, 1);
    let namespace = router_namespace(shape, &format!("tor-{letter}"))?;
    net::segment(&namespace, SEGMENT)?;
    net::address(&namespace, SEGMENT, Ipv4Net::new(address, 24)?)?;

    let mut nodes = Vec::new();
    for node in 1..=shape.nodes {
        let name = format!("node-{letter}{node}");
        let port = format!("to-{letter}{node}");
        let host = Ipv4Addr::new(172, 20, number, 10 + node);
        let own = Namespace::create(&format!("{}{name}", shape.prefix))?;
        net::cable((&own, "eth0"), (&namespace, &port))?;
        net::plug(&namespace, &port, SEGMENT)?;
        net::address(&own, "eth0", Ipv4Net::new(host, 24)?)?;
        net::default_route(&own, address, "eth0")?;
        let ipv6 = shape.dual_stack.then(|| ipv6(number, node));
        if let Some(ipv6) = ipv6 {
            net::address(&own, "eth0", Ipv6Net::new(ipv6.address, 64)?)?;
        }
        nodes.push(Node::new(
            super::node::Identity {
                name: name.clone(),
                rack: letter,
                address: host,
                asn: match shape.tor {
                    Some(_) => NODE_AS + u32::from(number) * 10 + u32::from(node),
                    None => MESH_AS,
                },
                pod_cidr: Ipv4Net::new(Ipv4Addr::new(10, 244, number * 10 + node, 0), 24)?,
                ipv6,
            },
            own,
            folder(shape).join(name),
        ));
    }
    let second_tor = shape
        .two_tors
        .then(|| second_tor(shape, number, letter, &nodes))
        .transpose()?;
    Ok(Rack {
        name: letter,
        subnet,
        second_tor,
        tor: Router {
            name: format!("tor-{letter}"),
            namespace,
            address,
            asn: TOR_AS + u32::from(number),
            peers: nodes.iter().map(|node| node.address).collect(),
            speaker: None,
        },
        nodes,
    })
}

/// Of a node, by its rack's number and its own.
fn ipv6(rack: u8, node: u8) -> Ipv6 {
    let (rack, node) = (u16::from(rack), u16::from(node));
    let pods = Ipv6Addr::new(0xfd44, 0, 0, rack * 10 + node, 0, 0, 0, 0);
    Ipv6 {
        address: Ipv6Addr::new(0xfd20, 0, 0, rack, 0, 0, 0, 0x10 + node),
        pod_cidr: Ipv6Net::new_assert(pods, 64),
    }
}

/// The other router of a rack, with a link to each node.
fn second_tor(shape: &Shape, number: u8, letter: char, nodes: &[Node]) -> Result<Router> {
    let name = format!("tor-{letter}2");
    let address = Ipv4Addr::new(172, 21, number, 1);
    let namespace = router_namespace(shape, &name)?;
    net::segment(&namespace, SEGMENT)?;
    net::address(&namespace, SEGMENT, Ipv4Net::new(address, 24)?)?;
    let mut peers = Vec::new();
    for (node, host) in nodes.iter().zip(11u8..) {
        let port = format!("to-{letter}{}", host - 10);
        let own = Ipv4Addr::new(172, 21, number, host);
        net::cable((&node.namespace, "eth1"), (&namespace, &port))?;
        net::plug(&namespace, &port, SEGMENT)?;
        net::address(&node.namespace, "eth1", Ipv4Net::new(own, 24)?)?;
        peers.push(own);
    }
    Ok(Router {
        name,
        namespace,
        address,
        asn: SECOND_TOR_AS + u32::from(number),
        peers,
        speaker: None,
    })
}

fn spine(shape: &Shape, racks: &mut [Rack]) -> Result<Router> {
    let namespace = router_namespace(shape, "spine")?;
    let mut peers = Vec::new();
    for (rack, number) in racks.iter_mut().zip(0u8..) {
        let port = format!("to-{}", rack.name);
        let (own, theirs) = (
            Ipv4Addr::new(172, 20, 255, 2 * number),
            Ipv4Addr::new(172, 20, 255, 2 * number + 1),
        );
        net::cable((&namespace, &port), (&rack.tor.namespace, "uplink"))?;
        net::address(&namespace, &port, Ipv4Net::new(own, 31)?)?;
        net::address(&rack.tor.namespace, "uplink", Ipv4Net::new(theirs, 31)?)?;
        rack.tor.peers.push(own);
        peers.push(theirs);
    }
    Ok(Router {
        name: "spine".to_owned(),
        namespace,
        address: Ipv4Addr::new(172, 20, 255, 0),
        asn: SPINE_AS,
        peers,
        speaker: None,
    })
}

fn router_namespace(shape: &Shape, name: &str) -> Result<Namespace> {
    let namespace = Namespace::create(&format!("{}{name}", shape.prefix))?;
    for (file, value) in [
        ("ipv4/ip_forward", "1"),
        // A redirect would change a node's way behind the routes' back, and with it what the tests count.
        ("ipv4/conf/all/send_redirects", "0"),
        ("ipv4/conf/default/send_redirects", "0"),
        // Every hop of a traceroute shall answer.
        ("ipv4/icmp_ratelimit", "0"),
    ] {
        namespace.sysctl(file, value)?;
    }
    Ok(namespace)
}

fn start_speakers(dc: &mut DataCentre) -> Result<()> {
    let Some(kind) = dc.shape.tor else {
        return Ok(());
    };
    let asn_of = asns(dc);
    let mut networks: Vec<(String, Ipv4Net)> = dc
        .racks
        .iter()
        .map(|rack| (rack.tor.name.clone(), rack.subnet))
        .collect();
    for tor in dc.racks.iter().filter_map(|rack| rack.second_tor.as_ref()) {
        networks.push((tor.name.clone(), Ipv4Net::new(tor.address, 24)?.trunc()));
    }
    let (folder, hold_time) = (folder(&dc.shape), dc.shape.hold_time);
    let graceful_restart = dc.shape.graceful_restart;
    let second: Vec<String> = dc
        .racks
        .iter()
        .skip(1)
        .step_by(2)
        .map(|rack| rack.tor.name.clone())
        .collect();
    let second_kind = dc.shape.second_kind.unwrap_or(kind);
    for router in dc.routers_mut() {
        let config = tor::Config {
            name: router.name.clone(),
            asn: router.asn,
            router_id: router.address,
            networks: networks
                .iter()
                .filter(|(name, _)| *name == router.name)
                .map(|(_, network)| *network)
                .collect(),
            peers: router
                .peers
                .iter()
                .filter_map(|peer| Some((*peer, asn_of(*peer)?)))
                .collect(),
            hold_time,
            graceful_restart,
            folder: folder.join(&router.name),
        };
        let kind = match second.contains(&router.name) {
            true => second_kind,
            false => kind,
        };
        router.speaker = Some(tor::start(kind, &router.namespace, &config)?);
    }
    Ok(())
}

/// The AS of whoever has an address.
fn asns(dc: &DataCentre) -> impl Fn(Ipv4Addr) -> Option<u32> + use<> {
    let mut known: Vec<(Ipv4Addr, u32)> = dc.nodes().map(|it| (it.address, it.asn)).collect();
    for rack in &dc.racks {
        let second = rack.second_tor.iter().flat_map(|tor| &tor.peers);
        known.extend(second.copied().zip(rack.nodes.iter().map(|node| node.asn)));
    }
    if let Some(spine) = &dc.spine {
        for (rack, theirs) in dc.racks.iter().zip(&spine.peers) {
            known.push((*theirs, rack.tor.asn));
            known.extend(rack.tor.peers.last().map(|own| (*own, spine.asn)));
        }
    }
    move |address| {
        let found = known.iter().find(|(known, _)| *known == address);
        found.map(|(_, asn)| *asn)
    }
}

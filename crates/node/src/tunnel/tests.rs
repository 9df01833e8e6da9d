use dataplane::Link;
use dataplane::link::UnderlayRoute;
use expect_test::{Expect, expect};

use super::*;
use crate::{NodePlan, plan, reach};

const CLUSTER: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/24, "fd44:0:0:1::/64"]}
status:
  addresses: [{type: InternalIP, address: 10.1.0.11}, {type: InternalIP, address: "fd01::11"}]
---
apiVersion: v1
kind: Node
metadata: {name: n2}
spec: {podCIDRs: [10.244.2.0/24]}
status: {addresses: [{type: InternalIP, address: 10.1.0.12}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3}
spec: {podCIDRs: [10.244.3.0/24, "fd44:0:0:3::/64"]}
status:
  addresses: [{type: InternalIP, address: 10.2.0.11}, {type: InternalIP, address: "fd02::11"}]
---
apiVersion: v1
kind: Node
metadata: {name: n4}
spec: {podCIDRs: [10.244.4.0/24]}
status: {addresses: [{type: InternalIP, address: 10.9.0.4}]}
---
apiVersion: margay.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16, ipipMode: MODE}
---
apiVersion: margay.dev/v1alpha1
kind: IPPool
metadata: {name: near}
spec: {cidr: 10.244.4.0/22}
---
apiVersion: margay.dev/v1alpha1
kind: IPPool
metadata: {name: six}
spec: {cidr: "fd44::/32", ipipMode: CrossSubnet}
"#;

const DEVICES: Devices = Devices {
    ipip: Some(7),
    ip6ip6: Some(8),
};

fn planned(mode: &str) -> NodePlan {
    let parsed = resources::yaml::parse("a.yaml", &CLUSTER.replace("MODE", mode));
    assert_eq!(parsed.problems, []);
    let mut index = resources::Index::default();
    index.replace("a.yaml", parsed);
    plan(index.state(), "n1").unwrap()
}

/// One uplink; everything else behind its router, but for a subnet that a route says is on the link.
fn links() -> Links {
    let uplink = Link {
        index: 2,
        name: "eth0".into(),
        up: true,
        carrier: true,
        mtu: 1500,
        addresses: ["10.1.0.11/24", "fd01::11/64"]
            .map(|it| it.parse().unwrap())
            .into(),
        ..Link::default()
    };
    let route = |prefix: &str, via: Option<&str>| UnderlayRoute {
        prefix: prefix.parse().unwrap(),
        next_hops: vec![(via.map(|via| via.parse().unwrap()), 2)],
        priority: 0,
    };
    Links {
        links: [(2, uplink)].into(),
        underlay: vec![
            route("0.0.0.0/0", Some("10.1.0.1")),
            route("10.9.0.0/24", None),
            route("::/0", Some("fd01::1")),
        ],
        ..Links::default()
    }
}

/// The kernel's next hops for a prefix via a next hop, and what is said of them.
#[track_caller]
fn check(plan: &NodePlan, devices: Devices, prefix: &str, next_hop: &str, expected: &Expect) {
    let (prefix, address): (IpNet, IpAddr) = (prefix.parse().unwrap(), next_hop.parse().unwrap());
    let links = links();
    let reach = reach(address, &links, plan).unwrap();
    let tunnels = &plan.tunnels;
    let carried = reach.carried(tunnels.mode(prefix), tunnels.towards(address, &devices));
    let hops = carried.next_hops.iter().map(|hop| {
        let onlink = if hop.onlink { " onlink" } else { "" };
        format!("via {} link {}{onlink}", hop.via.unwrap(), hop.link)
    });
    let hops: Vec<String> = hops.collect();
    let said = explain(
        (prefix, address),
        &reach,
        (tunnels, &devices),
        &links,
        Some("no module"),
    );
    // What is said is what is done.
    let tunnelled = carried
        .next_hops
        .iter()
        .any(|hop| hop.link == 7 || hop.link == 8);
    assert_eq!(said.tunnelled, tunnelled);
    assert_eq!(
        carried.cost, reach.cost,
        "a tunnel is as far as what is under it"
    );
    let mark = if said.degraded { " (!)" } else { "" };
    expected.assert_eq(&format!("{}{mark}: {}", hops.join(", "), said.reason));
}

#[test]
fn never() {
    let plan = planned("Never");
    check(
        &plan,
        DEVICES,
        "10.244.2.0/24",
        "10.1.0.12",
        &expect!["via 10.1.0.12 link 2: ipipMode Never of IPPool pods"],
    );
    check(
        &plan,
        DEVICES,
        "10.244.3.0/24",
        "10.2.0.11",
        &expect!["via 10.1.0.1 link 2: ipipMode Never of IPPool pods"],
    );
    assert!(!plan.tunnels.wants(TunnelKind::Ipip));
    // The pool of IPv6 wants its own.
    assert!(plan.tunnels.wants(TunnelKind::Ip6ip6));
    assert_eq!(plan.tunnels.overhead(), 40);
}

#[test]
fn cross_subnet() {
    let plan = planned("CrossSubnet");
    check(
        &plan,
        DEVICES,
        "10.244.2.0/24",
        "10.1.0.12",
        &expect![
            "via 10.1.0.12 link 2: ipipMode CrossSubnet of IPPool pods: it is on this node's subnet 10.1.0.0/24 (eth0)"
        ],
    );
    check(
        &plan,
        DEVICES,
        "10.244.3.0/24",
        "10.2.0.11",
        &expect![
            "via 10.2.0.11 link 7 onlink: ipipMode CrossSubnet of IPPool pods: it is on no subnet of this node's interfaces"
        ],
    );
    check(
        &plan,
        DEVICES,
        "fd44:0:0:3::/64",
        "fd02::11",
        &expect![
            "via fd02::11 link 8 onlink: ipipMode CrossSubnet of IPPool six: it is on no subnet of this node's interfaces"
        ],
    );
    check(
        &plan,
        DEVICES,
        "10.244.3.0/24",
        "10.9.0.4",
        &expect![
            "via 10.9.0.4 link 2: ipipMode CrossSubnet of IPPool pods: a route says that it is on a link of this node"
        ],
    );
}

#[test]
fn always() {
    let plan = planned("Always");
    check(
        &plan,
        DEVICES,
        "10.244.2.0/24",
        "10.1.0.12",
        &expect!["via 10.1.0.12 link 7 onlink: ipipMode Always of IPPool pods"],
    );
    check(
        &plan,
        DEVICES,
        "10.244.3.0/24",
        "10.2.0.11",
        &expect!["via 10.2.0.11 link 7 onlink: ipipMode Always of IPPool pods"],
    );
}

#[test]
fn the_most_specific_pool_decides() {
    let plan = planned("Always");
    check(
        &plan,
        DEVICES,
        "10.244.4.0/24",
        "10.9.0.4",
        &expect!["via 10.9.0.4 link 2: ipipMode Never of IPPool near"],
    );
    check(
        &plan,
        DEVICES,
        "192.0.2.0/24",
        "10.2.0.11",
        &expect!["via 10.1.0.1 link 2: its prefixes are in no IPPool"],
    );
    // Larger than the pool is not inside it.
    check(
        &plan,
        DEVICES,
        "10.0.0.0/8",
        "10.2.0.11",
        &expect!["via 10.1.0.1 link 2: its prefixes are in no IPPool"],
    );
}

#[test]
fn only_nodes_unwrap() {
    let plan = planned("Always");
    check(
        &plan,
        DEVICES,
        "10.244.3.0/24",
        "10.1.0.1",
        &expect![
            "via 10.1.0.1 link 2: ipipMode Always of IPPool pods, but it is no node's InternalIP: only nodes unwrap"
        ],
    );
}

#[test]
fn without_a_device_packets_go_as_they_would_without_a_tunnel() {
    let plan = planned("CrossSubnet");
    check(
        &plan,
        Devices::default(),
        "10.244.3.0/24",
        "10.2.0.11",
        &expect![
            "via 10.1.0.1 link 2 (!): ipipMode CrossSubnet of IPPool pods, but there is no tunnel: no module"
        ],
    );
    // Nothing is wrong where none is wanted.
    check(
        &plan,
        Devices::default(),
        "10.244.2.0/24",
        "10.1.0.12",
        &expect![
            "via 10.1.0.12 link 2: ipipMode CrossSubnet of IPPool pods: it is on this node's subnet 10.1.0.0/24 (eth0)"
        ],
    );
}

#[test]
fn a_tunnel_never_leads_into_itself() {
    let text = CLUSTER.replace(
        "cidr: 10.244.0.0/16, ipipMode: MODE",
        "cidr: 10.0.0.0/8, ipipMode: Always",
    );
    let mut index = resources::Index::default();
    index.replace("a.yaml", resources::yaml::parse("a.yaml", &text));
    let plan = plan(index.state(), "n1").unwrap();
    check(
        &plan,
        DEVICES,
        "10.2.0.0/16",
        "10.2.0.11",
        &expect!["via 10.1.0.1 link 2: 10.2.0.0/16 holds nodes' own addresses"],
    );
    check(
        &plan,
        DEVICES,
        "10.244.3.0/24",
        "10.2.0.11",
        &expect!["via 10.2.0.11 link 7 onlink: ipipMode Always of IPPool pods"],
    );
}

#[test]
fn nodes_alone_may_send_through_tunnels() {
    let peers = planned("Always").firewall.tunnel_peers.unwrap();
    let shown: Vec<String> = peers.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.1.0.12", "10.2.0.11", "10.9.0.4", "fd02::11"]);
    let text = CLUSTER
        .replace("MODE", "Never")
        .replace("ipipMode: CrossSubnet", "ipipMode: Never");
    let mut index = resources::Index::default();
    index.replace("a.yaml", resources::yaml::parse("a.yaml", &text));
    // Somebody else's tunnels are none of our business.
    assert_eq!(
        plan(index.state(), "n1").unwrap().firewall.tunnel_peers,
        None
    );
}

#[test]
fn the_device_stands_on_the_nodes_address() {
    let plan = planned("CrossSubnet");
    let device = |kind| plan.tunnels.device(kind, &links()).unwrap().unwrap();
    assert_eq!(
        (
            device(TunnelKind::Ipip).local.to_string(),
            device(TunnelKind::Ipip).mtu
        ),
        ("10.1.0.11".to_owned(), 1480)
    );
    assert_eq!(
        (
            device(TunnelKind::Ip6ip6).local.to_string(),
            device(TunnelKind::Ip6ip6).mtu
        ),
        ("fd01::11".to_owned(), 1460)
    );
    let mut tunnels = plan.tunnels.clone();
    tunnels.local.clear();
    let error = tunnels.device(TunnelKind::Ip6ip6, &links()).unwrap_err();
    assert_eq!(error, "this node has no IPv6 InternalIP to tunnel from");
    assert_eq!(tunnels.overhead(), 0);
}

use std::net::IpAddr;

use dataplane::link::UnderlayRoute;
use dataplane::{Link, Links, NextHop};
use expect_test::{Expect, expect};
use ipnet::IpNet;
use smallvec::smallvec;

use super::{Reach, desired_route, endpoint_routes, gateway_routes, reach, static_routes};
use crate::{NodePlan, plan};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A node with two uplinks, one of them to a ToR that is no neighbour by address, and a link that is down.
fn links() -> Links {
    let link = |index, name: &str, up, addresses: &[&str]| Link {
        index,
        name: name.to_owned(),
        up,
        carrier: up,
        loopback: name == "lo",
        addresses: addresses.iter().copied().map(net).collect(),
        ..Link::default()
    };
    let route = |prefix: &str, priority, next_hops: &[(Option<&str>, u32)]| UnderlayRoute {
        prefix: net(prefix),
        next_hops: next_hops
            .iter()
            .map(|(via, link)| (via.map(ip), *link))
            .collect(),
        priority,
    };
    let all = [
        link(1, "lo", true, &["127.0.0.1/8", "192.0.2.200/32"]),
        link(2, "eth0", true, &["192.0.2.1/24"]),
        link(3, "eth1", true, &["198.51.100.1/24"]),
        link(4, "eth2", false, &["203.0.113.1/24"]),
        link(5, "eth3", true, &["10.9.9.9/32"]),
    ];
    Links {
        links: all.into_iter().map(|link| (link.index, link)).collect(),
        watched: std::collections::BTreeSet::default(),
        underlay: vec![
            route("192.0.2.0/24", 0, &[(None, 2)]),
            route("203.0.113.0/24", 0, &[(None, 4)]),
            route("0.0.0.0/0", 100, &[(Some("192.0.2.254"), 2)]),
            route("0.0.0.0/0", 200, &[(Some("198.51.100.254"), 3)]),
            route(
                "172.16.0.0/16",
                0,
                &[(Some("192.0.2.253"), 2), (Some("198.51.100.253"), 3)],
            ),
            route("172.17.0.0/16", 0, &[(Some("10.8.8.8"), 5)]),
            route("172.18.0.1/32", 0, &[(None, 5)]),
            route("192.0.2.77/32", 0, &[(Some("198.51.100.77"), 3)]),
        ],
    }
}

fn node_plan() -> NodePlan {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.1}]}\n";
    let mut index = resources::Index::default();
    index.replace("a", resources::yaml::parse("a", text));
    plan(index.state(), "n1").unwrap()
}

#[track_caller]
fn check_in(links: &Links, next_hops: &str, expected: &Expect) {
    let next_hops: Vec<bgp_wire::NextHop> = next_hops
        .split_whitespace()
        .map(|text| ip(text).into())
        .collect();
    let shown = match desired_route(net("10.244.2.0/24"), &next_hops, links, &node_plan()) {
        Err(error) => format!("unresolved: {error}"),
        Ok((key, route)) => {
            assert_eq!(
                (key.prefix, key.priority, key.table),
                (net("10.244.2.0/24"), 1024, 254)
            );
            let hops = route.next_hops.iter().map(|hop| {
                let onlink = if hop.onlink { " onlink" } else { "" };
                let via = hop.via.map(|via| via.to_string()).unwrap_or_default();
                format!("via {via} link {}{onlink}", hop.link)
            });
            hops.collect::<Vec<_>>().join(", ")
        }
    };
    expected.assert_eq(&shown);
}

#[track_caller]
fn check(next_hops: &str, expected: &Expect) {
    check_in(&links(), next_hops, expected);
}

#[test]
fn next_hops_resolve_as_the_kernel_would() {
    // On a subnet of ours.
    check("192.0.2.9", &expect!["via 192.0.2.9 link 2"]);
    // Through a gateway; the default route with the lower metric.
    check("100.64.0.9", &expect!["via 192.0.2.254 link 2"]);
    // Through two gateways.
    check(
        "172.16.0.9",
        &expect!["via 192.0.2.253 link 2, via 198.51.100.253 link 3"],
    );
    // Through a gateway that no subnet holds.
    check("172.17.0.9", &expect!["via 10.8.8.8 link 5 onlink"]);
    // By a route straight onto a link.
    check("172.18.0.1", &expect!["via 172.18.0.1 link 5"]);
    // A host route is more specific than the subnet.
    check("192.0.2.77", &expect!["via 198.51.100.77 link 3"]);
}

#[test]
fn equal_paths_merge() {
    check(
        "198.51.100.9 192.0.2.9",
        &expect!["via 192.0.2.9 link 2, via 198.51.100.9 link 3"],
    );
    check("192.0.2.9 192.0.2.9", &expect!["via 192.0.2.9 link 2"]);
    // Both by the same gateway.
    check("100.64.0.9 100.64.0.8", &expect!["via 192.0.2.254 link 2"]);
    // One of two can be reached.
    check("203.0.113.9 192.0.2.9", &expect!["via 192.0.2.9 link 2"]);
}

#[test]
fn what_cannot_be_reached_says_why() {
    check(
        "203.0.113.9",
        &expect!["unresolved: next hop 203.0.113.9 can't be reached: eth2 is down"],
    );
    check(
        "192.0.2.1",
        &expect!["unresolved: next hop 192.0.2.1 is this node itself"],
    );
    check(
        "192.0.2.200",
        &expect!["unresolved: next hop 192.0.2.200 is this node itself"],
    );
    check("", &expect!["unresolved: no next hop"]);
    check_in(
        &Links::default(),
        "192.0.2.9",
        &expect!["unresolved: no route to next hop 192.0.2.9"],
    );
    check(
        "2001:db8::1",
        &expect!["unresolved: no route to next hop 2001:db8::1"],
    );
}

#[test]
fn a_link_that_leads_nowhere_is_not_passed_by_on_the_default_route() {
    let mut links = links();
    // The kernel drops the subnet's route with its link; the default route is left.
    links
        .underlay
        .retain(|route| route.prefix != net("203.0.113.0/24"));
    check_in(
        &links,
        "203.0.113.9",
        &expect!["unresolved: next hop 203.0.113.9 can't be reached: eth2 is down"],
    );
    // A more specific route is another way, which somebody means.
    let elsewhere = UnderlayRoute {
        prefix: net("203.0.113.9/32"),
        next_hops: vec![(Some(ip("192.0.2.254")), 2)],
        priority: 0,
    };
    links.underlay.push(elsewhere);
    check_in(&links, "203.0.113.9", &expect!["via 192.0.2.254 link 2"]);
    // Without carrier a link is as good as down; of two ways one is left.
    let eth0 = links.links.get_mut(&2).unwrap();
    eth0.carrier = false;
    check_in(
        &links,
        "192.0.2.9",
        &expect!["unresolved: next hop 192.0.2.9 can't be reached: eth0 has no carrier"],
    );
    check_in(&links, "172.16.0.9", &expect!["via 198.51.100.253 link 3"]);
    check_in(
        &links,
        "100.64.0.9",
        &expect!["unresolved: next hop 100.64.0.9 can't be reached: eth0 has no carrier"],
    );
}

#[test]
fn next_hops_of_either_family_resolve() {
    let mut links = links();
    let eth0 = links.links.get_mut(&2).unwrap();
    eth0.addresses.push(net("2001:db8::1/64"));
    // An IPv4 prefix by an IPv6 next hop (RFC 8950).
    check_in(&links, "2001:db8::9", &expect!["via 2001:db8::9 link 2"]);
    check_in(
        &links,
        "fe80::9",
        &expect!["unresolved: next hop fe80::9 is link-local, and nothing says on which link"],
    );
}

#[test]
fn costs_and_the_default_route() {
    let cost = |address, plan: &NodePlan| {
        let reach = reach(ip(address), &links(), plan);
        reach.map(|reach| reach.cost).map_err(|it| it.reason)
    };
    let mut plan = node_plan();
    assert_eq!(cost("192.0.2.9", &plan), Ok(0));
    assert_eq!(cost("100.64.0.9", &plan), Ok(101));
    plan.default_route_resolves = false;
    assert_eq!(cost("192.0.2.9", &plan), Ok(0));
    assert_eq!(cost("172.16.0.9", &plan), Ok(1));
    let refused = cost("100.64.0.9", &plan).unwrap_err();
    assert!(refused.contains("only the default route"), "{refused}");
}

#[test]
fn own_range_is_never_learned() {
    for prefix in ["10.244.1.0/24", "10.244.1.7/32"] {
        let result = desired_route(
            net(prefix),
            &[ip("192.0.2.9").into()],
            &links(),
            &node_plan(),
        );
        assert_eq!(
            result.unwrap_err().to_string(),
            "inside this node's own 10.244.1.0/24"
        );
    }
}

#[test]
fn pods_and_unused_addresses() {
    let addresses = [ip("10.244.1.7")];
    let routes: Vec<_> = endpoint_routes(&addresses, 7)
        .chain(static_routes(&node_plan()))
        .collect();
    expect![[r#"
        [
            (
                RouteKey {
                    prefix: 10.244.1.7/32,
                    priority: 0,
                    table: 254,
                },
                Route {
                    kind: Unicast,
                    next_hops: [
                        NextHop {
                            via: None,
                            link: 7,
                            onlink: false,
                        },
                    ],
                    source: None,
                },
            ),
            (
                RouteKey {
                    prefix: 10.244.1.0/24,
                    priority: 1024,
                    table: 254,
                },
                Route {
                    kind: Blackhole,
                    next_hops: [],
                    source: None,
                },
            ),
        ]
    "#]]
    .assert_debug_eq(&routes);
}

#[test]
fn a_peer_has_a_gateway_of_its_own() {
    let text = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDR: 10.244.1.0/24}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.1}]}\n---\napiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: far}\nspec: {peerIP: 203.0.113.9, asNumber: 65001, reachableBy: 192.0.2.254}\n";
    let mut index = resources::Index::default();
    index.replace("a", resources::yaml::parse("a", text));
    let plan = plan(index.state(), "n1").unwrap();
    let mut links = links();
    let via = NextHop {
        via: Some(ip("192.0.2.254")),
        link: 2,
        onlink: false,
    };
    let expected = Reach {
        next_hops: smallvec![via],
        cost: 1,
        adjacent: false,
    };
    assert_eq!(reach(ip("203.0.113.9"), &links, &plan), Ok(expected));
    let routes: Vec<_> = gateway_routes(&plan, &links).collect();
    let [(key, Some(route))] = &routes[..] else {
        panic!("{routes:?}");
    };
    assert_eq!(key.prefix, net("203.0.113.9/32"));
    assert_eq!(route.next_hops[..], [via]);
    links.links.get_mut(&2).unwrap().carrier = false;
    assert_eq!(gateway_routes(&plan, &links).next(), Some((*key, None)));
}

//! The state against a model of the kernel: operations are carried out at once, and never fail unless told.

use std::collections::BTreeMap;
use std::time::Instant;

use dataplane::link::UnderlayRoute;
use dataplane::{NextHop, RouteKind};
use resources::{Index, yaml};
use smallvec::smallvec;

use super::*;

const UPLINK: LinkIndex = 2;
const POD: LinkIndex = 7;

#[expect(clippy::disallowed_methods, reason = "a start for virtual time")]
fn now() -> Instant {
    Instant::now()
}

fn plan() -> Arc<NodePlan> {
    let mut index = Index::default();
    let objects = "
apiVersion: v1
kind: Node
metadata: {name: a1}
spec: {podCIDR: 10.244.1.0/24}
status: {addresses: [{type: InternalIP, address: 10.0.1.11}]}
---
apiVersion: margay.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
";
    index.replace("test", yaml::parse("test", objects));
    Arc::new(node::plan(index.state(), "a1").unwrap())
}

fn links(mtu: u32) -> Links {
    let uplink = Link {
        index: UPLINK,
        name: "eth0".into(),
        up: true,
        carrier: true,
        mtu,
        addresses: vec!["10.0.1.11/24".parse().unwrap()],
        ..Link::default()
    };
    let connected = UnderlayRoute {
        prefix: "10.0.1.0/24".parse().unwrap(),
        next_hops: vec![(None, UPLINK)],
        priority: 0,
    };
    Links {
        links: BTreeMap::from([(UPLINK, uplink)]),
        underlay: vec![connected],
    }
}

fn change(prefix: &str, next_hop: Option<&str>) -> RouteChange {
    RouteChange {
        prefix: prefix.parse().unwrap(),
        next_hops: next_hop
            .map(|address| bgp_wire::NextHop::V4(address.parse().unwrap()))
            .into_iter()
            .collect(),
    }
}

fn pod(address: &str) -> Endpoint {
    Endpoint {
        container_id: "c1".into(),
        ifname: "eth0".into(),
        network: "margay".into(),
        netns: "/run/netns/pod".into(),
        link: POD,
        host_ifname: "mgy0123456789ab".into(),
        mac: [2, 0, 0, 0, 0, 1],
        host_mac: [2, 0, 0, 0, 0, 2],
        addresses: vec![address.parse().unwrap()],
        pod: None,
    }
}

/// Carries out what is planned until nothing is, and gives what was done.
fn settle(state: &mut State) -> Vec<Op> {
    let mut done = Vec::new();
    loop {
        let ops = state.plan(100, now());
        if ops.is_empty() {
            return done;
        }
        for op in ops {
            state.applied(&op, Ok(()), now());
            done.push(op);
        }
    }
}

fn deleted(ops: &[Op]) -> Vec<String> {
    ops.iter()
        .filter_map(|op| match op {
            Op::DeleteRoute(key, _) => Some(key.prefix.to_string()),
            _ => None,
        })
        .collect()
}

fn inherited(prefix: &str) -> (RouteKey, Option<Route>) {
    let hop = NextHop {
        via: Some("10.0.1.1".parse().unwrap()),
        link: UPLINK,
        onlink: false,
    };
    let route = Route {
        kind: RouteKind::Unicast,
        next_hops: smallvec![hop],
        source: None,
    };
    (node::learned_key(prefix.parse().unwrap()), Some(route))
}

#[test]
fn inherited_routes_go_only_when_every_source_has_spoken() {
    let mut state = State::new(0);
    let routes = vec![inherited("10.244.2.0/24"), inherited("10.244.9.0/24")];
    state.load(links(1500), routes, Vec::new());
    state.set_plan(plan());
    assert_eq!(deleted(&settle(&mut state)), Vec::<String>::new());
    state.set_endpoints(Vec::new());
    assert_eq!(deleted(&settle(&mut state)), Vec::<String>::new());
    state.set_paths(vec![change("10.244.2.0/24", Some("10.0.1.1"))]);
    assert_eq!(settle(&mut state), [], "what matches is adopted untouched");
    state.paths_synced();
    assert_eq!(deleted(&settle(&mut state)), ["10.244.9.0/24"]);
    assert!(state.numbers().idle);
}

#[test]
fn a_pod_has_its_route_and_its_neighbour_until_it_goes() {
    let mut state = State::new(0);
    state.load(links(1500), Vec::new(), Vec::new());
    state.set_plan(plan());
    state.set_endpoints(Vec::new());
    state.paths_synced();
    settle(&mut state);
    let keys = state.endpoint_up(pod("10.244.1.5"));
    assert_eq!(state.progress(keys[0]), Progress::Pending);
    let done = settle(&mut state);
    assert!(
        matches!(done[..], [Op::SetNeighbour(..), Op::AddRoute(..)]),
        "{done:?}"
    );
    assert_eq!(state.progress(keys[0]), Progress::Installed);
    state.endpoint_down(POD);
    assert_eq!(deleted(&settle(&mut state)), ["10.244.1.5/32"]);
}

#[test]
fn a_refused_pod_route_is_told_with_its_reason() {
    let mut state = State::new(0);
    state.load(links(1500), Vec::new(), Vec::new());
    state.set_plan(plan());
    let keys = state.endpoint_up(pod("10.244.1.5"));
    for op in state.plan(100, now()) {
        let refused = OpError::Refused {
            errno: 100,
            reason: "network is down".into(),
        };
        state.applied(&op, Err(refused), now());
    }
    let Progress::Refused(reason) = state.progress(keys[0]) else {
        panic!("not refused");
    };
    assert!(reason.contains("network is down"), "{reason}");
}

#[test]
fn learned_routes_follow_their_links() {
    let mut state = State::new(0);
    state.load(links(1500), Vec::new(), Vec::new());
    state.set_plan(plan());
    state.set_paths(vec![change("10.244.2.0/24", Some("192.0.2.1"))]);
    settle(&mut state);
    assert_eq!(state.numbers().unresolved, 1);
    // The way to the next hop appears.
    let address = "192.0.2.9/24".parse().unwrap();
    assert_eq!(
        state.handle(&Event::AddressAdded(UPLINK, address)),
        Then::Continue
    );
    let done = settle(&mut state);
    assert!(matches!(done[..], [Op::AddRoute(..)]), "{done:?}");
    assert_eq!(state.numbers().unresolved, 0);
}

#[test]
fn what_a_former_speaker_said_stays_until_its_successor_has_told_all() {
    let mut state = State::new(0);
    state.load(links(1500), Vec::new(), Vec::new());
    state.set_plan(plan());
    state.set_endpoints(Vec::new());
    let before = ["10.244.2.0/24", "10.244.3.0/24"];
    state.set_paths(
        before
            .map(|prefix| change(prefix, Some("10.0.1.1")))
            .to_vec(),
    );
    state.paths_synced();
    settle(&mut state);
    state.new_paths();
    state.set_paths(vec![change("10.244.3.0/24", Some("10.0.1.1"))]);
    assert_eq!(settle(&mut state), []);
    state.paths_synced();
    assert_eq!(deleted(&settle(&mut state)), ["10.244.2.0/24"]);
}

#[test]
fn pods_get_the_uplinks_mtu() {
    let mut state = State::new(0);
    state.load(links(9000), Vec::new(), Vec::new());
    assert_eq!(state.pod_mtu(), None);
    state.set_plan(plan());
    assert_eq!(state.pod_mtu(), Some(9000));
}

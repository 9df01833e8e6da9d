//! The state with a reconciler, against a kernel that does at once what it is told, unless it refuses.

use std::collections::BTreeMap;
use std::time::Instant;

use dataplane::link::UnderlayRoute;
use dataplane::{Event, NextHop, Op, RouteKind};
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
        watched: BTreeSet::new(),
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
        blackhole: false,
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
        spoofing: false,
        pod: None,
    }
}

/// A state with what it speaks to.
struct Fixture {
    state: State,
    links: Links,
    kernel: Reconciler,
}

impl Fixture {
    fn new(inherited: Vec<(RouteKey, Option<Route>)>) -> Self {
        let mut kernel = Reconciler::new(0);
        let inherited = inherited.into_iter();
        kernel.load(
            inherited.map(|(key, route)| (key, route.map(Into::into))),
            [],
        );
        Self {
            state: State::default(),
            links: links(1500),
            kernel,
        }
    }

    fn planned() -> Self {
        let mut fixture = Self::new(Vec::new());
        fixture.state.set_plan(plan(), &mut fixture.kernel);
        fixture
    }

    fn synced() -> Self {
        let mut fixture = Self::planned();
        fixture.state.set_endpoints(Vec::new(), &mut fixture.kernel);
        fixture.state.paths_synced(&mut fixture.kernel);
        fixture.settle();
        fixture
    }

    fn paths(&mut self, changes: Vec<RouteChange>) {
        self.state.set_paths(changes, &self.links, &mut self.kernel);
    }

    /// Carries out what is planned until nothing is, and gives what was done.
    fn settle(&mut self) -> Vec<Op> {
        self.state.settle(&self.links, &mut self.kernel);
        let mut done = Vec::new();
        loop {
            let ops = self.kernel.plan(100, now());
            if ops.is_empty() {
                return done;
            }
            for op in ops {
                self.kernel.applied(&op, Ok(()), now());
                done.push(op);
            }
        }
    }
}

fn deleted(ops: &[Op]) -> Vec<String> {
    let prefix = |op: &Op| {
        let Op::DeleteRoute(key, _) = op else {
            return None;
        };
        Some(key.prefix.to_string())
    };
    ops.iter().filter_map(prefix).collect()
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
    let mut it = Fixture::new(vec![inherited("10.244.2.0/24"), inherited("10.244.9.0/24")]);
    it.state.set_plan(plan(), &mut it.kernel);
    assert_eq!(deleted(&it.settle()), Vec::<String>::new());
    it.state.set_endpoints(Vec::new(), &mut it.kernel);
    assert_eq!(deleted(&it.settle()), Vec::<String>::new());
    it.paths(vec![change("10.244.2.0/24", Some("10.0.1.1"))]);
    assert_eq!(it.settle(), [], "what matches is adopted untouched");
    it.state.paths_synced(&mut it.kernel);
    assert_eq!(deleted(&it.settle()), ["10.244.9.0/24"]);
    assert!(it.state.numbers(&it.kernel).idle);
}

#[test]
fn a_pod_has_its_route_and_its_neighbour_until_it_goes() {
    let mut it = Fixture::synced();
    let keys = it.state.endpoint_up(pod("10.244.1.5"), &mut it.kernel);
    assert!(!it.kernel.is_installed(keys[0]));
    let done = it.settle();
    assert!(
        matches!(done[..], [Op::SetNeighbour(..), Op::AddRoute(..)]),
        "{done:?}"
    );
    assert!(it.kernel.is_installed(keys[0]));
    it.state.endpoint_down(POD, &mut it.kernel);
    assert_eq!(deleted(&it.settle()), ["10.244.1.5/32"]);
}

#[test]
fn an_address_that_has_moved_on_keeps_its_route() {
    let mut it = Fixture::synced();
    it.state.endpoint_up(pod("10.244.1.5"), &mut it.kernel);
    let successor = Endpoint {
        link: POD + 1,
        ..pod("10.244.1.5")
    };
    it.state.endpoint_up(successor, &mut it.kernel);
    it.settle();
    it.state.endpoint_down(POD, &mut it.kernel);
    assert_eq!(deleted(&it.settle()), Vec::<String>::new());
}

#[test]
fn the_newer_of_two_with_one_address_leaves_the_route_to_the_other() {
    let mut it = Fixture::synced();
    let newer = Endpoint {
        link: POD + 1,
        ..pod("10.244.1.5")
    };
    it.state.endpoint_up(pod("10.244.1.5"), &mut it.kernel);
    let keys = it.state.endpoint_up(newer, &mut it.kernel);
    it.settle();
    it.state.endpoint_down(POD + 1, &mut it.kernel);
    it.settle();
    let route = it.kernel.route(keys[0]).unwrap().actual.unwrap();
    assert_eq!(route.next_hops[0].link, POD);
}

#[test]
fn a_range_that_becomes_ours_keeps_its_blackhole() {
    let own = "10.244.1.0/24";
    let mut it = Fixture::new(Vec::new());
    it.paths(vec![change(own, Some("10.0.1.1"))]);
    it.state.set_plan(plan(), &mut it.kernel);
    it.settle();
    it.paths(vec![change(own, None)]);
    it.settle();
    let status = it
        .kernel
        .route(node::learned_key(own.parse().unwrap()))
        .unwrap();
    assert_eq!(status.actual.unwrap().kind, RouteKind::Blackhole);
}

#[test]
fn a_learned_blackhole_discards_until_it_goes() {
    let mut it = Fixture::synced();
    let prefix = "10.244.2.7/32";
    let blackhole = RouteChange {
        blackhole: true,
        ..change(prefix, None)
    };
    it.paths(vec![change(prefix, Some("10.0.1.1")), blackhole]);
    it.settle();
    let key = node::learned_key(prefix.parse().unwrap());
    let actual = it.kernel.route(key).unwrap().actual.unwrap();
    assert_eq!(actual, node::discard());
    it.paths(vec![change(prefix, None)]);
    assert_eq!(deleted(&it.settle()), [prefix]);
}

#[test]
fn learned_routes_follow_their_links() {
    let mut it = Fixture::synced();
    it.paths(vec![change("10.244.2.0/24", Some("192.0.2.1"))]);
    it.settle();
    assert_eq!(it.state.numbers(&it.kernel).unresolved, 1);
    // The way to the next hop appears.
    let address = "192.0.2.9/24".parse().unwrap();
    assert!(
        it.links
            .handle(&Event::AddressAdded(UPLINK, address))
            .changed
    );
    it.state.links_changed();
    let done = it.settle();
    assert!(matches!(done[..], [Op::AddRoute(..)]), "{done:?}");
    assert_eq!(it.state.numbers(&it.kernel).unresolved, 0);
}

#[test]
fn the_speaker_is_told_of_next_hops_and_routes_stay_until_it_has_chosen() {
    let (near, prefix) = ("10.0.1.1", "10.244.2.0/24");
    let key = node::learned_key(prefix.parse().unwrap());
    let near_address: IpAddr = near.parse().unwrap();
    let mut it = Fixture::synced();
    it.state.next_hop_news(vec![
        (near_address, true),
        ("192.0.2.1".parse().unwrap(), true),
    ]);
    it.settle();
    let told = [
        (near_address, Some(0)),
        ("192.0.2.1".parse().unwrap(), None),
    ];
    assert_eq!(it.state.next_hops_untold(), told);
    it.state.next_hops_sent();
    it.state.next_hops_taken(1, &mut it.kernel);
    it.paths(vec![change(prefix, Some(near))]);
    it.settle();
    assert!(it.kernel.is_installed(key));
    assert_eq!(it.state.numbers(&it.kernel).next_hops, (1, 1));

    // The cable is pulled.
    it.links.links.get_mut(&UPLINK).unwrap().carrier = false;
    it.state.links_changed();
    assert_eq!(it.settle(), [], "there is nothing better yet");
    assert_eq!(it.state.next_hops_untold(), [(near_address, None)]);
    it.state.next_hops_sent();
    assert_eq!(it.settle(), []);
    it.state.next_hops_taken(2, &mut it.kernel);
    assert_eq!(deleted(&it.settle()), [prefix]);

    // Back, and gone for good before the speaker has said anything.
    it.links.links.get_mut(&UPLINK).unwrap().carrier = true;
    it.state.links_changed();
    assert!(matches!(it.settle()[..], [Op::AddRoute(..)]));
    it.state.next_hop_news(vec![(near_address, false)]);
    it.paths(vec![change(prefix, None)]);
    assert_eq!(deleted(&it.settle()), [prefix]);
    assert_eq!(it.state.next_hops_untold(), []);
}

#[test]
fn a_new_speaker_is_told_all_it_asks_for() {
    let address: IpAddr = "10.0.1.1".parse().unwrap();
    let mut it = Fixture::synced();
    for _ in 0..2 {
        it.state.new_paths();
        it.state.next_hop_news(vec![(address, true)]);
        it.settle();
        assert_eq!(it.state.next_hops_untold(), [(address, Some(0))]);
        it.state.next_hops_sent();
    }
    it.state.new_paths();
    assert!(it.state.watched().contains(&address));
    it.state.paths_synced(&mut it.kernel);
    assert!(it.state.watched().is_empty(), "this one knows no path");
}

#[test]
fn paths_that_come_before_the_plan_are_not_lost() {
    let mut it = Fixture::new(Vec::new());
    it.paths(vec![change("10.244.2.0/24", Some("10.0.1.1"))]);
    assert_eq!(it.settle(), []);
    it.state.set_plan(plan(), &mut it.kernel);
    assert!(
        it.kernel
            .route(node::learned_key("10.244.2.0/24".parse().unwrap()))
            .is_none()
    );
    it.settle();
    assert!(
        it.kernel
            .is_installed(node::learned_key("10.244.2.0/24".parse().unwrap()))
    );
}

#[test]
fn what_a_former_speaker_said_stays_until_its_successor_has_told_all() {
    let mut it = Fixture::synced();
    let before = ["10.244.2.0/24", "10.244.3.0/24"];
    it.paths(
        before
            .map(|prefix| change(prefix, Some("10.0.1.1")))
            .to_vec(),
    );
    it.settle();
    it.state.new_paths();
    it.paths(vec![change("10.244.3.0/24", Some("10.0.1.1"))]);
    assert_eq!(it.settle(), []);
    it.state.paths_synced(&mut it.kernel);
    assert_eq!(deleted(&it.settle()), ["10.244.2.0/24"]);
}

#[test]
fn pods_get_the_uplinks_mtu() {
    assert_eq!(State::default().pod_mtu(&links(9000)), None);
    assert_eq!(Fixture::planned().state.pod_mtu(&links(9000)), Some(9000));
}

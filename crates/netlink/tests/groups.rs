//! Routes that point at nexthop groups, in the real kernel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::Netns;
use dataplane::{GroupKind, NextHop, Route, RouteKey, RouteState};
use netlink::setup::{self, VethEnd};
use netlink::{Driver, kernel, sysctl};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

const KIND: GroupKind = GroupKind::HashThreshold;
/// Protocol numbers are written by name where `rt_protos` has one.
const OURS: &str = "77";

struct Loop {
    ns: Netns,
    driver: Driver,
    /// The reconciler's clock, which the test moves.
    now: Instant,
}

impl Loop {
    fn new(ns: Netns, kind: GroupKind) -> Self {
        let driver = ns.run(|| {
            let mut driver = Driver::open(1).unwrap();
            assert!(driver.use_groups(kind).unwrap());
            driver.read().unwrap();
            driver
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "a start for the test's own clock"
        )]
        let now = Instant::now();
        Self { ns, driver, now }
    }

    /// Turns until there is nothing to do; says how many operations that took.
    fn settle(&mut self) -> u64 {
        let all =
            |it: dataplane::Counters| it.set + it.deleted + it.objects_set + it.objects_deleted;
        let before = all(self.driver.reconciler.counters());
        loop {
            self.driver.write(1000, self.now);
            let seen = self.driver.read().unwrap();
            if seen.events.is_empty() && !seen.resynced && !self.driver.has_work() {
                return all(self.driver.reconciler.counters()) - before;
            }
        }
    }

    /// Reads events until this is so. The kernel tells of a carrier when it finds the time.
    fn read_until(&mut self, is_so: impl Fn(&Driver) -> bool) {
        for _ in 0..100 {
            self.driver.read().unwrap();
            if is_so(&self.driver) {
                return;
            }
            let mut readable = [PollFd::new(&self.driver, PollFlags::IN)];
            let moment = Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            poll(&mut readable, Some(&moment)).unwrap();
        }
        panic!("the kernel did not say so within ten seconds");
    }

    /// What still waits has waited long enough.
    fn settle_later(&mut self) -> u64 {
        let done = self.settle();
        self.now += Duration::from_secs(1);
        done + self.settle()
    }

    fn want(&mut self, count: u32, hops: &[NextHop]) {
        for n in 0..count {
            let route = Route::unicast(hops.iter().copied());
            self.driver.reconciler.set_route(v4(n), Some(route));
        }
    }

    fn ok(&self) -> usize {
        self.driver.reconciler.summary().ok
    }

    fn routes(&self) -> Vec<Value> {
        let all = self.ns.ip(&["route", "show", "proto", OURS]);
        all.as_array().unwrap().clone()
    }

    /// Our nexthop objects, by `ip nexthop`.
    fn objects(&self) -> Vec<Value> {
        let all = self.ns.ip(&["nexthop", "show", "proto", OURS]);
        all.as_array().cloned().unwrap_or_default()
    }
}

fn v4(n: u32) -> RouteKey {
    let net = ipnet::Ipv4Net::new((0x0a00_0000 + (n << 8)).into(), 24).unwrap();
    RouteKey::main(net.into(), 0)
}

fn hop(via: &str, link: u32) -> NextHop {
    NextHop {
        via: Some(via.parse().unwrap()),
        link,
        onlink: false,
    }
}

/// Two uplinks, to two ToRs.
fn two_uplinks() -> (Netns, [NextHop; 2]) {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    setup::create_veth(&mut socket, VethEnd::new("up2"), VethEnd::new("up3")).unwrap();
    for name in ["up2", "up3"] {
        setup::set_up(&mut socket, ns.link(name)).unwrap();
    }
    let second = ns.link("up2");
    for address in ["198.51.100.1/24", "2001:db8:51::1/64"] {
        setup::add_address(&mut socket, second, address.parse().unwrap()).unwrap();
    }
    let first = ns.uplink();
    (ns, [hop("192.0.2.2", first), hop("198.51.100.2", second)])
}

fn loop_of(count: u32) -> (Loop, [NextHop; 2]) {
    let (ns, tors) = two_uplinks();
    let mut it = Loop::new(ns, KIND);
    it.driver.reconciler.sweep();
    it.want(count, &tors);
    assert_eq!(it.settle(), u64::from(count) + 3);
    assert_eq!(it.ok(), count as usize);
    (it, tors)
}

/// The gateways of a route as `ip -j` shows it.
fn gateways(route: &Value) -> Vec<&str> {
    let hops = match route["nexthops"].as_array() {
        Some(hops) => hops.iter().collect(),
        None => vec![route],
    };
    hops.into_iter()
        .filter_map(|hop| {
            let via = &hop["via"]["host"];
            hop["gateway"].as_str().or_else(|| via.as_str())
        })
        .collect()
}

#[test]
fn the_loss_of_a_tor_moves_all_routes_by_one_message() {
    for compat in ["1", "0"] {
        let (mut it, tors) = loop_of(500);
        it.ns
            .run(|| sysctl::set("net.ipv4.nexthop_compat_mode", compat).unwrap());
        let shown = it.routes();
        assert_eq!(shown.len(), 500);
        let id = shown[0]["nhid"].as_u64().unwrap();
        assert!(shown.iter().all(|route| route["nhid"] == id));
        if compat == "1" {
            assert_eq!(gateways(&shown[7]), ["192.0.2.2", "198.51.100.2"]);
        } else {
            assert_eq!(gateways(&shown[7]), [""; 0]);
        }
        it.want(500, &tors[1..]);
        // The group, and the object that nobody needs any more.
        assert_eq!(it.settle(), 2);
        assert_eq!(it.ok(), 500);
        assert_eq!(it.driver.reconciler.counters().moved, 500);
        assert_eq!(it.objects().len(), 2);
        // What the kernel does with a packet.
        let way = it.ns.ip(&["route", "get", "10.0.7.1"]);
        assert_eq!(way[0]["gateway"], "198.51.100.2");
        it.want(500, &tors);
        assert_eq!(it.settle(), 2);
        assert_eq!(it.routes().len(), 500);
    }
}

#[test]
fn every_family_and_shape_stands_in_the_kernel() {
    let (ns, tors) = two_uplinks();
    let (up0, up2) = (tors[0].link, tors[1].link);
    let mut it = Loop::new(ns, KIND);
    let onlink = NextHop {
        onlink: true,
        ..hop("203.0.113.9", up0)
    };
    let key = |prefix: &str| RouteKey::main(prefix.parse().unwrap(), 0);
    let shapes: [(&str, Vec<NextHop>, &[&str]); 6] = [
        ("10.1.0.0/16", vec![tors[0]], &["192.0.2.2"]),
        ("10.2.0.0/16", vec![onlink], &["203.0.113.9"]),
        // RFC 5549: by an IPv6 gateway.
        (
            "10.3.0.0/16",
            vec![hop("2001:db8::2", up0)],
            &["2001:db8::2"],
        ),
        (
            "10.4.0.0/16",
            vec![hop("2001:db8::2", up0), tors[1]],
            &["198.51.100.2", "2001:db8::2"],
        ),
        (
            "2001:db8:1::/48",
            vec![hop("2001:db8::2", up0)],
            &["2001:db8::2"],
        ),
        (
            "2001:db8:2::/48",
            vec![hop("2001:db8::2", up0), hop("2001:db8:51::2", up2)],
            &["2001:db8:51::2", "2001:db8::2"],
        ),
    ];
    for (prefix, hops, _) in &shapes {
        let route = Route::unicast(hops.iter().copied());
        it.driver.reconciler.set_route(key(prefix), Some(route));
    }
    it.settle();
    assert_eq!(it.ok(), 6, "{:?}", it.driver.reconciler.routes());
    for (prefix, _, expected) in &shapes {
        let family = if prefix.contains("::") { "-6" } else { "-4" };
        let shown = it.ns.ip(&[family, "route", "show", prefix]);
        let mut gateways = gateways(&shown[0]);
        gateways.sort_unstable();
        assert_eq!(gateways, *expected, "{shown}");
        assert!(shown[0]["nhid"].as_u64().unwrap() >= 775_000_000);
    }
    // They all go, and leave nothing.
    for (prefix, _, _) in &shapes {
        it.driver.reconciler.set_route(key(prefix), None);
    }
    it.settle_later();
    assert_eq!(it.objects(), Vec::<Value>::new());
    assert_eq!(it.ns.count_routes(&["proto", OURS]), 0);
}

#[test]
fn what_other_hands_take_away_comes_back() {
    let (mut it, _) = loop_of(20);
    it.ns.ip(&[
        "nexthop",
        "add",
        "id",
        "5",
        "via",
        "192.0.2.9",
        "dev",
        "up0",
    ]);
    // With the other setting, `ip route flush` sends back more than the kernel takes.
    it.ns
        .run(|| sysctl::set("net.ipv4.nexthop_compat_mode", "0").unwrap());
    let flushes: [&[&str]; 4] = [
        &["route", "flush", "proto", OURS],
        &["nexthop", "flush", "proto", OURS],
        // Everybody's.
        &["nexthop", "flush", "dev", "up0"],
        &[
            "route",
            "replace",
            "10.0.3.0/24",
            "via",
            "192.0.2.9",
            "proto",
            OURS,
        ],
    ];
    for flush in flushes {
        let lost = it.driver.reconciler.counters().lost;
        it.ns.ip(flush);
        it.settle_later();
        it.ns
            .run(|| sysctl::set("net.ipv4.nexthop_compat_mode", "1").unwrap());
        assert_eq!(it.ok(), 20, "{flush:?}");
        assert!(it.driver.reconciler.counters().lost > lost, "{flush:?}");
        for route in it.routes() {
            assert_eq!(gateways(&route), ["192.0.2.2", "198.51.100.2"], "{flush:?}");
        }
        it.now += Duration::from_secs(60);
    }
    // Another hand at our group.
    let group = it.routes()[0]["nhid"].to_string();
    let member = it.objects()[0]["id"].to_string();
    it.ns.ip(&[
        "nexthop", "replace", "id", &group, "group", &member, "proto", OURS,
    ]);
    it.settle_later();
    it.ns.ip(&["nexthop", "del", "id", &member]);
    it.settle_later();
    assert_eq!(it.ok(), 20);
    assert_eq!(gateways(&it.routes()[0]), ["192.0.2.2", "198.51.100.2"]);
}

#[test]
fn another_programs_objects_stay_as_they_are() {
    let (ns, tors) = two_uplinks();
    // In our ranges even, and one under our protocol but not in them.
    let theirs: [&[&str]; 4] = [
        &[
            "nexthop",
            "add",
            "id",
            "770000000",
            "via",
            "192.0.2.9",
            "dev",
            "up0",
        ],
        &["nexthop", "add", "id", "775000000", "group", "770000000"],
        &[
            "nexthop",
            "add",
            "id",
            "12",
            "via",
            "192.0.2.9",
            "dev",
            "up0",
            "proto",
            OURS,
        ],
        &["route", "add", "10.200.0.0/16", "nhid", "775000000"],
    ];
    for command in theirs {
        ns.ip(command);
    }
    let foreign = |ns: &Netns| {
        let all = ns.ip(&["nexthop", "show"]);
        let of = |id: u64| {
            all.as_array()
                .unwrap()
                .iter()
                .find(|it| it["id"] == id)
                .cloned()
        };
        [770_000_000, 775_000_000, 12].map(|id| of(id).unwrap())
    };
    let before = foreign(&ns);
    let mut it = Loop::new(ns, KIND);
    it.want(5, &tors);
    it.settle_later();
    assert_eq!(it.ok(), 5);
    // Somebody takes an object of ours for himself: it is his from now on, with the protocol that he gave it.
    let hop = it.objects()[1]["id"].to_string();
    assert!(hop.starts_with("770"), "{hop}");
    it.ns.ip(&[
        "nexthop",
        "replace",
        "id",
        &hop,
        "via",
        "192.0.2.9",
        "dev",
        "up0",
    ]);
    it.settle_later();
    assert_eq!(it.ok(), 5);
    let shown = it.routes();
    let mut shown = gateways(&shown[0]);
    shown.sort_unstable();
    assert_eq!(shown, ["192.0.2.2", "198.51.100.2"]);
    it.driver.reconciler.sweep();
    it.want(5, &[]);
    for n in 0..5 {
        it.driver.reconciler.set_route(v4(n), None);
    }
    it.settle_later();
    assert_eq!(foreign(&it.ns), before);
    let left = it.ns.ip(&["nexthop", "show", "id", &hop]);
    assert_eq!(left[0]["gateway"], "192.0.2.9");
    assert_eq!(it.objects().len(), 1, "the one outside our ranges");
    assert_eq!(it.ns.count_routes(&["10.200.0.0/16"]), 1);
}

#[test]
fn links_that_flap_lose_carrier_or_come_anew_get_their_routes_back() {
    let (mut it, tors) = loop_of(50);
    let mut socket = it.ns.socket();
    // One of two: the kernel does it by itself.
    let peers = [it.ns.link("up1"), it.ns.link("up3")];
    setup::set_down(&mut socket, peers[1]).unwrap();
    it.read_until(|driver| !driver.reconciler.has_object_through(tors[1].link));
    it.want(50, &tors[..1]);
    assert_eq!(it.settle(), 0, "the kernel has done it by itself");
    assert_eq!((it.ok(), it.routes().len()), (50, 50));
    // Both: the routes are gone, nobody told, and nothing is logged fifty times.
    setup::set_down(&mut socket, peers[0]).unwrap();
    it.read_until(|driver| !driver.reconciler.has_object_through(tors[0].link));
    it.settle();
    assert_eq!(it.routes().len(), 0);
    assert_eq!(it.driver.reconciler.summary().missing, 50);
    let status = it.driver.reconciler.route(v4(3)).unwrap();
    let reason = status.reason.unwrap();
    assert!(
        reason.contains("Carrier for nexthop device is down"),
        "{reason}"
    );
    assert!(it.driver.reconciler.counters().failed < 5);
    for peer in peers {
        setup::set_up(&mut socket, peer).unwrap();
    }
    it.read_until(|driver| {
        tors.iter()
            .all(|hop| driver.links().links[&hop.link].carrier)
    });
    it.want(50, &tors);
    it.settle_later();
    assert_eq!(it.ok(), 50);
    // Down and up, as one flap.
    setup::set_down(&mut socket, tors[0].link).unwrap();
    setup::set_up(&mut socket, tors[0].link).unwrap();
    it.settle_later();
    it.now += Duration::from_secs(60);
    it.settle_later();
    assert_eq!(it.ok(), 50, "{:?}", it.driver.reconciler.route(v4(0)));
    assert_eq!(gateways(&it.routes()[0]), ["192.0.2.2", "198.51.100.2"]);
    // Another name is nothing to us.
    it.ns.ip(&["link", "set", "up0", "down"]);
    it.ns.ip(&["link", "set", "up0", "name", "eth7", "up"]);
    it.now += Duration::from_secs(60);
    it.settle_later();
    assert_eq!(it.ok(), 50);
    // A new link has another index: what pointed at the old one is wanted through the new one.
    it.ns.ip(&["link", "del", "eth7"]);
    setup::create_veth(&mut socket, VethEnd::new("up0"), VethEnd::new("up1")).unwrap();
    for name in ["up0", "up1"] {
        setup::set_up(&mut socket, it.ns.link(name)).unwrap();
    }
    let link = it.ns.uplink();
    setup::add_address(&mut socket, link, "192.0.2.1/24".parse().unwrap()).unwrap();
    it.driver.read().unwrap();
    it.want(50, &[hop("192.0.2.2", link), tors[1]]);
    it.now += Duration::from_secs(60);
    it.settle_later();
    assert_eq!(it.ok(), 50);
    let devices = it.routes()[0]["nexthops"].to_string();
    assert!(
        devices.contains("\"up0\"") && devices.contains("\"up2\""),
        "{devices}"
    );
    assert_eq!(it.objects().len(), 3);
}

#[test]
fn inline_routes_become_grouped_and_back_without_a_gap() {
    let (ns, tors) = two_uplinks();
    let six = [
        hop("2001:db8::2", tors[0].link),
        hop("2001:db8:51::2", tors[1].link),
    ];
    let key6 = RouteKey::main("2001:db8:7::/48".parse().unwrap(), 0);
    let open = |ns: &Netns, grouped: bool| {
        ns.run(|| {
            let mut driver = Driver::open(1).unwrap();
            if grouped {
                assert!(driver.use_groups(KIND).unwrap());
            }
            driver.read().unwrap();
            driver
        })
    };
    let driver = open(&ns, false);
    let mut it = Loop::new(ns, KIND);
    it.driver = driver;
    for grouped in [false, true, false, true] {
        it.driver = open(&it.ns, grouped);
        // An independent listener counts what goes.
        let mut monitor = it.ns.run(|| netlink::Monitor::open(&[]).unwrap());
        it.want(30, &tors);
        it.driver
            .reconciler
            .set_route(key6, Some(Route::unicast(six)));
        it.driver.reconciler.sweep();
        it.settle_later();
        assert_eq!(it.ok(), 31);
        let shown = it.routes();
        assert_eq!(shown.len(), 30);
        assert!(shown.iter().all(|route| route["nhid"].is_u64() == grouped));
        assert_eq!(it.objects().len(), if grouped { 6 } else { 0 });
        let shown = it.ns.ip(&["-6", "route", "show", "2001:db8:7::/48"]);
        assert_eq!(shown.as_array().unwrap().len(), 1);
        assert_eq!(gateways(&shown[0]), ["2001:db8::2", "2001:db8:51::2"]);
        let netlink::Events::Changes(events) = monitor.read().unwrap() else {
            panic!("too many events")
        };
        let gone = |event: &&dataplane::Event| {
            matches!(event,
            dataplane::Event::Route(it) if it.action == dataplane::RouteAction::Removed && it.key.prefix.addr().is_ipv4())
        };
        assert_eq!(events.iter().find(gone), None);
    }
}

#[test]
fn a_successor_touches_nothing() {
    let (it, tors) = loop_of(40);
    let ns = it.ns;
    drop(it.driver);
    let before = (ns.ip(&["route", "show"]), ns.ip(&["nexthop", "show"]));
    let mut monitor = ns.run(|| netlink::Monitor::open(&[]).unwrap());
    let mut next = Loop::new(ns, KIND);
    next.want(40, &tors);
    next.driver.reconciler.sweep();
    assert_eq!(next.settle_later(), 0);
    assert_eq!(next.ok(), 40);
    let after = (
        next.ns.ip(&["route", "show"]),
        next.ns.ip(&["nexthop", "show"]),
    );
    assert_eq!(before, after);
    let netlink::Events::Changes(events) = monitor.read().unwrap() else {
        panic!("too many events")
    };
    assert_eq!(events, []);
}

#[test]
fn resilient_groups_keep_their_numbers() {
    let kind = GroupKind::Resilient {
        buckets: 32,
        idle: 500,
        unbalanced: 6000,
    };
    let (ns, tors) = two_uplinks();
    let mut it = Loop::new(ns, kind);
    it.want(5, &tors);
    it.settle();
    assert_eq!(it.ok(), 5);
    let group = it.routes()[0]["nhid"].to_string();
    let shown = it.ns.ip(&["nexthop", "show", "id", &group]);
    assert_eq!(shown[0]["type"], "resilient", "{shown}");
    assert_eq!(shown[0]["resilient_args"]["buckets"], 32);
    // In place, like any other.
    it.want(5, &tors[..1]);
    it.settle_later();
    it.driver.resync();
    assert_eq!(it.settle_later(), 0, "a dump shows what was written");
    assert_eq!(it.routes()[0]["nhid"].to_string(), group);
    assert_eq!(gateways(&it.routes()[0]), ["192.0.2.2"]);
    // Another kind of group is another group.
    let ns = it.ns;
    let mut plain = Loop::new(ns, KIND);
    plain.want(5, &tors[..1]);
    plain.driver.reconciler.sweep();
    plain.settle_later();
    let shown = plain.ns.ip(&["nexthop", "show", "proto", OURS]);
    assert_eq!(shown.as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(plain.ok(), 5);
}

#[test]
fn others_routes_through_objects_lead_to_next_hops_too() {
    let (ns, tors) = two_uplinks();
    ns.run(|| sysctl::set("net.ipv4.nexthop_compat_mode", "0").unwrap());
    ns.ip(&[
        "nexthop",
        "add",
        "id",
        "1",
        "via",
        "192.0.2.2",
        "dev",
        "up0",
    ]);
    ns.ip(&[
        "nexthop",
        "add",
        "id",
        "2",
        "via",
        "198.51.100.2",
        "dev",
        "up2",
    ]);
    ns.ip(&["nexthop", "add", "id", "3", "group", "1/2"]);
    ns.ip(&["route", "add", "203.0.113.0/24", "nhid", "3"]);
    let mut it = Loop::new(ns, KIND);
    let far: std::net::IpAddr = "203.0.113.9".parse().unwrap();
    it.driver.watch([far].into());
    it.settle();
    let way = it.driver.links().lookup(far).unwrap();
    let expected: Vec<_> = tors.iter().map(|hop| (hop.via, hop.link)).collect();
    assert_eq!(way.next_hops, expected);
}

#[test]
fn a_kernel_without_objects_gets_next_hops_in_the_routes() {
    // What such a kernel says of it can't be had here; that of one that is told to use none can.
    let (ns, tors) = two_uplinks();
    let mut socket = ns.socket();
    assert!(kernel::supports(&mut socket, KIND).unwrap());
    let wrong = GroupKind::Resilient {
        buckets: 0,
        idle: 0,
        unbalanced: 0,
    };
    assert!(
        !kernel::supports(&mut socket, wrong).unwrap(),
        "EINVAL is a no"
    );
    assert_eq!(kernel::dump_objects(&mut socket).unwrap(), Some(vec![]));
    let mut it = Loop::new(ns, KIND);
    assert!(!it.driver.use_groups(wrong).unwrap());
    it.want(5, &tors);
    assert_eq!(it.settle(), 5);
    assert_eq!(it.ok(), 5);
    assert!(it.routes().iter().all(|route| route["nhid"].is_null()));
    assert_eq!(
        it.driver.reconciler.route(v4(0)).unwrap().state,
        RouteState::Ok
    );
}

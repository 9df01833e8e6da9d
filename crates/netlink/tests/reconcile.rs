//! The whole loop in the real kernel: other hands take routes away, and they come back.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::{Duration, Instant};

use common::Netns;
use dataplane::{Neighbour, NeighbourKey, NextHop, Op, OpError, Route, RouteKey, RouteState};
use netlink::{Driver, kernel, setup};

struct Loop {
    ns: Netns,
    driver: Driver,
    /// The reconciler's clock, which the test moves.
    now: Instant,
    /// How often all was dumped.
    resyncs: usize,
}

impl Loop {
    fn new(ns: Netns) -> Self {
        let driver = ns.run(|| Driver::open(1).unwrap());
        #[expect(
            clippy::disallowed_methods,
            reason = "a start for the test's own clock"
        )]
        let now = Instant::now();
        Self {
            ns,
            driver,
            now,
            resyncs: 0,
        }
    }

    /// Turns until there is nothing to do; says how many operations that took.
    fn settle(&mut self) -> usize {
        let before = self.driver.reconciler.counters();
        loop {
            self.driver.write(100, self.now);
            let seen = self.driver.read().unwrap();
            self.resyncs += usize::from(seen.resynced);
            if seen.events.is_empty() && !self.driver.has_work() {
                let after = self.driver.reconciler.counters();
                return usize::try_from(after.set + after.deleted - before.set - before.deleted)
                    .unwrap();
            }
        }
    }

    /// Reads until the driver has looked for others' routes, which it does now and then.
    #[expect(
        clippy::disallowed_methods,
        reason = "between looks at a condition with a deadline"
    )]
    fn look(&mut self) {
        self.settle();
        for _ in 0..1000 {
            if !self.driver.reconciler.rivals().is_due() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
            self.settle();
        }
        panic!("no look in 20 s");
    }

    fn want(&mut self, prefix: &str, route: impl Into<Option<Route>>) {
        self.driver.reconciler.set_route(key(prefix), route.into());
    }

    fn state(&self, prefix: &str) -> (RouteState, Option<String>) {
        let status = self.driver.reconciler.route(key(prefix)).unwrap();
        (status.state, status.reason)
    }

    fn shown(&self, prefix: &str) -> serde_json::Value {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        self.ns.ip(&[family, "route", "show", prefix])
    }
}

fn key(prefix: &str) -> RouteKey {
    RouteKey::main(prefix.parse().unwrap(), 0)
}

fn via(address: &str, link: u32) -> Route {
    Route::unicast([NextHop {
        via: Some(address.parse().unwrap()),
        link,
        onlink: false,
    }])
}

/// Ten IPv4 and ten IPv6 routes and a neighbour, in the kernel.
fn twenty_routes() -> (Loop, Vec<String>) {
    let mut it = Loop::new(Netns::with_uplink());
    let link = it.ns.uplink();
    let v4 = (0..10).map(|n| (format!("10.{n}.0.0/16"), via("192.0.2.2", link)));
    let v6 = (0..10).map(|n| (format!("2001:db8:{n}::/48"), via("2001:db8::2", link)));
    let prefixes = v4.chain(v6).map(|(prefix, route)| {
        it.want(&prefix, route);
        prefix
    });
    let prefixes = prefixes.collect();
    let neighbour = NeighbourKey {
        link,
        address: [192, 0, 2, 2].into(),
    };
    it.driver.reconciler.set_neighbour(
        neighbour,
        Some(Neighbour {
            mac: [2, 0, 0, 0, 0, 2],
        }),
    );
    assert_eq!(it.settle(), 21);
    assert_eq!(it.driver.reconciler.summary().ok, 20);
    (it, prefixes)
}

#[test]
fn what_other_hands_take_away_comes_back() {
    let (mut it, prefixes) = twenty_routes();
    it.ns.ip(&["route", "del", "10.3.0.0/16"]);
    it.ns.ip(&["route", "flush", "10.4.0.0/16"]);
    it.ns.ip(&["-6", "route", "del", "2001:db8:3::/48"]);
    it.ns.ip(&["neigh", "del", "192.0.2.2", "dev", "up0"]);
    assert_eq!(it.settle(), 4);
    assert_eq!(it.driver.reconciler.counters().lost, 4);
    for prefix in &prefixes {
        assert_eq!(it.shown(prefix).as_array().unwrap().len(), 1, "{prefix}");
    }
    assert_eq!(
        it.ns.ip(&["neigh", "show", "192.0.2.2"])[0]["lladdr"],
        "02:00:00:00:00:02"
    );
    assert_eq!(it.settle(), 0, "our own changes are no news");
}

#[test]
fn who_keeps_taking_a_route_away_does_not_keep_us_busy() {
    let (mut it, _) = twenty_routes();
    let delete = |it: &mut Loop| {
        it.ns.ip(&["route", "del", "10.3.0.0/16"]);
        it.settle()
    };
    assert_eq!(
        [delete(&mut it), delete(&mut it), delete(&mut it)],
        [1, 1, 0]
    );
    assert!(!it.driver.has_work());
    let reason = "somebody keeps removing or changing it: 3 times in a row";
    let lost = (RouteState::Missing, Some(reason.into()));
    assert_eq!(it.state("10.3.0.0/16"), lost);
    it.now = it.driver.poll_timeout().unwrap().0;
    assert_eq!(it.settle(), 1);
    assert_eq!(it.state("10.3.0.0/16"), (RouteState::Ok, None));
}

#[test]
fn what_other_hands_change_is_put_right() {
    let (mut it, _) = twenty_routes();
    it.ns.ip(&[
        "route",
        "replace",
        "10.3.0.0/16",
        "via",
        "192.0.2.9",
        "proto",
        "77",
    ]);
    it.ns.ip(&[
        "neigh",
        "replace",
        "192.0.2.2",
        "lladdr",
        "02:00:00:00:00:99",
        "dev",
        "up0",
    ]);
    it.ns.ip(&[
        "-6",
        "route",
        "append",
        "2001:db8:3::/48",
        "via",
        "2001:db8::9",
        "dev",
        "up0",
        "proto",
        "77",
    ]);
    assert_eq!(it.settle(), 3);
    assert_eq!(it.shown("10.3.0.0/16")[0]["gateway"], "192.0.2.2");
    assert_eq!(it.shown("2001:db8:3::/48")[0]["gateway"], "2001:db8::2");
    assert_eq!(
        it.ns.ip(&["neigh", "show", "192.0.2.2"])[0]["lladdr"],
        "02:00:00:00:00:02"
    );
}

#[test]
fn one_hop_of_an_ipv6_multipath_route_comes_back() {
    let mut it = Loop::new(Netns::with_uplink());
    let link = it.ns.uplink();
    let hops = ["2001:db8::2", "2001:db8::3", "2001:db8::4"].map(|hop| via(hop, link).next_hops[0]);
    it.want("2001:db8:1::/48", Route::unicast(hops));
    assert_eq!(it.settle(), 1);
    it.ns.ip(&[
        "-6",
        "route",
        "del",
        "2001:db8:1::/48",
        "via",
        "2001:db8::3",
        "dev",
        "up0",
    ]);
    assert_eq!(it.settle(), 1);
    assert_eq!(
        it.shown("2001:db8:1::/48")[0]["nexthops"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

#[test]
fn a_link_that_flaps_gets_its_routes_back() {
    let (mut it, prefixes) = twenty_routes();
    let (link, mut socket) = (it.ns.uplink(), it.ns.socket());
    setup::set_down(&mut socket, link).unwrap();
    it.settle();
    assert_eq!(it.driver.reconciler.summary().missing, 20);
    let (state, reason) = it.state("10.1.0.0/16");
    assert_eq!(
        (state, reason.as_deref()),
        (
            RouteState::Missing,
            Some("Network is unreachable (Nexthop has invalid gateway)")
        )
    );
    assert!(it.driver.poll_timeout().is_some());

    // No time passes: the link's event alone brings them back. IPv6 lost its address as well.
    setup::set_up(&mut socket, link).unwrap();
    setup::add_address(&mut socket, link, "2001:db8::1/64".parse().unwrap()).unwrap();
    it.settle();
    for prefix in &prefixes {
        assert_eq!(
            it.shown(prefix).as_array().unwrap().len(),
            1,
            "{prefix}: {:?}",
            it.state(prefix)
        );
    }
    assert!(it.driver.reconciler.poll_timeout().is_none());
}

#[test]
fn another_programs_route_keeps_its_place_until_it_goes() {
    let (mut it, _) = twenty_routes();
    it.ns.ip(&[
        "route",
        "replace",
        "10.3.0.0/16",
        "via",
        "192.0.2.9",
        "proto",
        "bird",
    ]);
    it.ns.ip(&[
        "-6",
        "route",
        "replace",
        "2001:db8:3::/48",
        "via",
        "2001:db8::9",
        "proto",
        "static",
    ]);
    assert_eq!(it.settle(), 0);
    let held = (
        RouteState::Foreign,
        Some("a route of protocol bird has this place".into()),
    );
    assert_eq!(it.state("10.3.0.0/16"), held);
    assert_eq!(it.state("2001:db8:3::/48").0, RouteState::Foreign);
    // Wishing for something else under the key does not touch it either.
    it.want("10.3.0.0/16", Route::blackhole());
    it.settle();
    assert_eq!(it.state("10.3.0.0/16"), held);
    assert_eq!(it.shown("10.3.0.0/16")[0]["protocol"], "bird");
    it.ns.ip(&["route", "del", "10.3.0.0/16"]);
    it.ns.ip(&["-6", "route", "del", "2001:db8:3::/48"]);
    assert_eq!(it.settle(), 2);
    assert_eq!(it.shown("10.3.0.0/16")[0]["type"], "blackhole");
    assert_eq!(it.state("2001:db8:3::/48").0, RouteState::Ok);
}

/// What packets take is what `ip route get` says.
#[test]
fn a_route_of_a_lower_metric_is_named_until_it_goes() {
    let mut it = Loop::new(Netns::with_uplink());
    let link = it.ns.uplink();
    let prefixes = ["10.3.0.0/16", "10.4.0.0/16", "2001:db8:3::/48"];
    let ours = |prefix: &str| RouteKey::main(prefix.parse().unwrap(), 1024);
    // One was there before ours.
    let route = [
        "route",
        "add",
        "10.3.0.0/16",
        "via",
        "192.0.2.9",
        "metric",
        "20",
    ];
    it.ns.ip(&[&route[..], &["proto", "static"]].concat());
    // And some that are none of our business.
    it.ns
        .ip(&["route", "add", "10.5.0.0/16", "via", "192.0.2.9"]);
    it.ns
        .ip(&["route", "add", "10.4.1.0/24", "via", "192.0.2.9"]);
    for prefix in prefixes {
        let via = via(
            if prefix.contains(':') {
                "2001:db8::2"
            } else {
                "192.0.2.2"
            },
            link,
        );
        it.driver.reconciler.set_route(ours(prefix), Some(via));
    }
    it.look();
    let state = |it: &Loop, prefix: &str| {
        let status = it.driver.reconciler.route(ours(prefix)).unwrap();
        let rival = status
            .rival
            .map(|it| (it.priority, it.protocol, it.next_hops[0].via));
        (status.state, rival)
    };
    let theirs = Some((20, 4, Some([192, 0, 2, 9].into())));
    assert_eq!(state(&it, prefixes[0]), (RouteState::Shadowed, theirs));
    assert_eq!(state(&it, prefixes[1]), (RouteState::Ok, None));
    assert_eq!(state(&it, prefixes[2]), (RouteState::Ok, None));
    assert_eq!(it.driver.reconciler.summary().shadowed, 1);
    let taken = it.ns.ip(&["route", "get", "10.3.0.1"]);
    assert_eq!(taken[0]["gateway"], "192.0.2.9");

    // Others come later, one of them for IPv6; one that is worse than ours changes nothing.
    let route = [
        "-6",
        "route",
        "add",
        "2001:db8:3::/48",
        "via",
        "2001:db8::9",
    ];
    it.ns
        .ip(&[&route[..], &["metric", "7", "proto", "bird"]].concat());
    it.ns
        .ip(&["route", "add", "blackhole", "10.4.0.0/16", "metric", "2000"]);
    it.look();
    assert_eq!(state(&it, prefixes[1]), (RouteState::Ok, None));
    let theirs = Some((7, 12, Some("2001:db8::9".parse().unwrap())));
    assert_eq!(state(&it, prefixes[2]), (RouteState::Shadowed, theirs));
    let taken = it.ns.ip(&["-6", "route", "get", "2001:db8:3::1"]);
    assert_eq!(taken[0]["gateway"], "2001:db8::9");

    // Ours are where they were, and take the packets again once the others go.
    it.ns.ip(&["route", "del", "10.3.0.0/16", "metric", "20"]);
    it.ns
        .ip(&["-6", "route", "del", "2001:db8:3::/48", "metric", "7"]);
    it.look();
    for prefix in prefixes {
        assert_eq!(state(&it, prefix), (RouteState::Ok, None));
    }
    let taken = it.ns.ip(&["route", "get", "10.3.0.1"]);
    assert_eq!(taken[0]["gateway"], "192.0.2.2");
}

#[test]
fn a_successor_adopts_what_matches_and_sweeps_the_rest() {
    let (it, _) = twenty_routes();
    let (link, ns) = (it.ns.uplink(), it.ns);
    ns.ip(&[
        "route",
        "add",
        "10.77.0.0/16",
        "dev",
        "up0",
        "proto",
        "static",
    ]);
    ns.ip(&["route", "add", "unreachable", "10.78.0.0/16", "proto", "77"]);
    let mut it = Loop::new(ns);
    assert_eq!(it.settle(), 0, "nothing goes before the sweep");
    for n in 0..5 {
        it.want(&format!("10.{n}.0.0/16"), via("192.0.2.2", link));
    }
    it.want("10.5.0.0/16", via("192.0.2.3", link));
    assert_eq!(
        it.settle(),
        1,
        "five are adopted as they are, one is replaced"
    );
    it.driver.reconciler.sweep();
    // 20 routes and the unreachable one, less the six wanted, and the neighbour.
    assert_eq!(it.settle(), 16);
    assert_eq!(it.ns.count_routes(&["proto", "77"]), 6);
    assert_eq!(it.ns.count_routes(&["proto", "static"]), 1);
}

#[test]
fn others_routes_to_next_hops_are_followed_whatever_happens() {
    let mut it = Loop::new(Netns::with_uplink());
    let address = "198.51.100.7".parse().unwrap();
    let way = |it: &mut Loop| -> Option<Vec<String>> {
        it.settle();
        let route = it.driver.links().lookup(address)?;
        let gateways = route.next_hops.iter().filter_map(|(via, _)| *via);
        Some(gateways.map(|via| via.to_string()).collect())
    };
    it.settle();
    it.driver.watch([address].into());
    assert_eq!(way(&mut it), None);
    let script: [(&[&str], &[&str]); 7] = [
        (
            &["route", "add", "default", "via", "192.0.2.254"],
            &["192.0.2.254"],
        ),
        (
            &[
                "route",
                "add",
                "198.51.0.0/16",
                "via",
                "192.0.2.2",
                "metric",
                "9",
            ],
            &["192.0.2.2"],
        ),
        (
            &[
                "route",
                "add",
                "198.51.0.0/16",
                "via",
                "192.0.2.3",
                "metric",
                "5",
            ],
            &["192.0.2.3"],
        ),
        // One that does not concern us, and ours: longer, and yet no way.
        (
            &["route", "add", "203.0.113.0/24", "via", "192.0.2.9"],
            &["192.0.2.3"],
        ),
        (
            &[
                "route",
                "add",
                "198.51.100.0/24",
                "via",
                "192.0.2.4",
                "proto",
                "77",
            ],
            &["192.0.2.3"],
        ),
        (
            &["route", "del", "198.51.0.0/16", "metric", "5"],
            &["192.0.2.2"],
        ),
        (&["route", "add", "unreachable", "198.51.100.7"], &[]),
    ];
    for (command, expected) in script {
        it.ns.ip(command);
        assert_eq!(way(&mut it).unwrap(), expected, "{command:?}");
    }
    assert_eq!(it.resyncs, 1);
    // The kernel takes routes away with their link, and says nothing.
    it.ns.ip(&["route", "del", "unreachable", "198.51.100.7"]);
    it.ns.ip(&["link", "set", "up0", "down"]);
    assert_eq!(way(&mut it), None);
    it.ns.ip(&["link", "set", "up0", "up"]);
    it.ns
        .ip(&["route", "add", "198.51.0.0/16", "via", "192.0.2.2"]);
    assert_eq!(way(&mut it).unwrap(), ["192.0.2.2"]);
    it.ns.ip(&["address", "flush", "dev", "up0"]);
    assert_eq!(way(&mut it), None);
}

#[test]
fn lost_events_come_to_light_by_a_dump() {
    let (mut it, _) = twenty_routes();
    let mut other = it.ns.socket();
    // More events than any receive buffer holds.
    let links = it.ns.uplink();
    let mut ops = Vec::new();
    for n in 0..40_000u32 {
        let key = RouteKey::main(
            ipnet::Ipv4Net::from(std::net::Ipv4Addr::from(0x0b00_0000 + n)).into(),
            0,
        );
        ops.push(Op::AddRoute(key, via("192.0.2.2", links).into()));
    }
    assert!(kernel::apply(&mut other, &ops).iter().all(Result::is_ok));
    it.ns.ip(&["route", "del", "10.3.0.0/16"]);
    it.driver.reconciler.sweep();
    it.settle();
    assert!(it.resyncs > 1, "the receive buffer was not full");
    assert_eq!(it.ns.count_routes(&["proto", "77"]), 10);
    assert_eq!(it.state("10.3.0.0/16").0, RouteState::Ok);
}

#[test]
fn a_refusal_is_retried_in_time() {
    let mut it = Loop::new(Netns::with_uplink());
    let link = it.ns.uplink();
    it.want("10.1.0.0/16", via("198.51.100.1", link));
    it.driver.read().unwrap();
    let failures = it.driver.write(10, it.now);
    let [(Op::AddRoute(..), OpError::Refused { reason, .. })] = &failures[..] else {
        panic!("{failures:?}")
    };
    assert_eq!(
        &**reason,
        "Network is unreachable (Nexthop has invalid gateway)"
    );
    for _ in 0..10 {
        it.now = it.driver.poll_timeout().unwrap().0;
        assert!(
            it.driver.write(10, it.now).is_empty(),
            "the same failure is no news"
        );
    }
    assert_eq!(
        it.driver
            .reconciler
            .route(key("10.1.0.0/16"))
            .unwrap()
            .failures,
        11
    );
    it.now += Duration::from_secs(60);
    // A way appears that no event of a link tells of.
    it.ns.ip(&[
        "route",
        "add",
        "198.51.100.1/32",
        "dev",
        "up0",
        "scope",
        "link",
    ]);
    assert_eq!(it.settle(), 1);
}

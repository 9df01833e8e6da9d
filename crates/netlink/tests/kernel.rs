//! Dumps and operations against the real kernel, with iproute2 as an independent witness.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::Netns;
use dataplane::{
    Desired, FibRoute, Neighbour, NeighbourKey, NextHop, Op, OpError, ROUTE_PROTOCOL, Route,
    RouteKey, RouteKind, plan,
};
use netlink::{Socket, kernel, setup, sysctl};

fn key(prefix: &str) -> RouteKey {
    RouteKey::main(prefix.parse().unwrap(), 0)
}

fn hop(via: &str, link: u32) -> NextHop {
    NextHop {
        via: Some(via.parse().unwrap()),
        link,
        onlink: false,
    }
}

fn direct(link: u32) -> Route {
    Route::unicast([NextHop {
        via: None,
        link,
        onlink: false,
    }])
}

/// What the kernel has of ours.
fn actual(socket: &mut Socket) -> Desired {
    let routes = kernel::dump_routes(socket, ROUTE_PROTOCOL)
        .unwrap()
        .into_iter()
        .map(|(key, r)| (key, r.unwrap()));
    let neighbours = kernel::dump_neighbours(socket).unwrap();
    Desired {
        routes: routes.collect(),
        neighbours: neighbours.into_iter().collect(),
        ..Desired::default()
    }
}

/// Routes and neighbours of every shape that we make.
fn every_shape(link: u32) -> Desired {
    let onlink = |via| NextHop {
        onlink: true,
        ..hop(via, link)
    };
    let unicast = |hops: &[&str]| Route::unicast(hops.iter().map(|via| hop(via, link)));
    let from = |source: &str, route| Route {
        source: Some(source.parse().unwrap()),
        ..route
    };
    let metric = |priority, prefix| RouteKey {
        priority,
        ..key(prefix)
    };
    let table = |table, prefix| RouteKey {
        table,
        ..key(prefix)
    };
    let routes = [
        (key("10.1.0.1/32"), direct(link)),
        (key("10.2.0.0/16"), unicast(&["192.0.2.2"])),
        (key("10.3.0.0/16"), unicast(&["192.0.2.3", "192.0.2.2"])),
        (key("10.4.0.0/16"), Route::blackhole()),
        (key("10.5.0.0/16"), unicast(&["2001:db8::2"])),
        (key("10.6.0.0/16"), Route::unicast([onlink("198.51.100.1")])),
        (
            key("10.7.0.0/16"),
            Route::unicast([onlink("198.51.100.1"), hop("192.0.2.2", link)]),
        ),
        (
            key("10.8.0.0/16"),
            from("192.0.2.1", unicast(&["192.0.2.2"])),
        ),
        (metric(20, "10.8.0.0/16"), direct(link)),
        (table(77, "10.8.0.0/16"), direct(link)),
        (table(7777, "10.8.0.0/16"), direct(link)),
        (key("0.0.0.0/0"), unicast(&["192.0.2.2"])),
        (key("2001:db8:1::1/128"), direct(link)),
        (key("2001:db8:2::/48"), unicast(&["2001:db8::2"])),
        (
            key("2001:db8:3::/48"),
            unicast(&["2001:db8::3", "2001:db8::2"]),
        ),
        (key("2001:db8:4::/48"), Route::blackhole()),
        (
            key("2001:db8:5::/48"),
            from("2001:db8::1", unicast(&["2001:db8::2"])),
        ),
        (metric(20, "2001:db8:5::/48"), direct(link)),
        (table(7777, "2001:db8:5::/48"), direct(link)),
        (key("::/0"), unicast(&["2001:db8::2"])),
    ];
    let entry = |address: &str, last| {
        let key = NeighbourKey {
            link,
            address: address.parse().unwrap(),
        };
        (
            key,
            Neighbour {
                mac: [2, 0, 0, 0, 0, last],
            },
        )
    };
    let neighbours = [entry("10.1.0.1", 1), entry("2001:db8:1::1", 2)].into();
    Desired {
        routes: routes
            .map(|(key, route)| (key, FibRoute::Inline(route)))
            .into(),
        neighbours,
        ..Desired::default()
    }
}

fn apply_all(socket: &mut Socket, ops: &[Op]) {
    for (op, result) in ops.iter().zip(kernel::apply(socket, ops)) {
        assert_eq!(result, Ok(()), "{op:?}");
    }
}

#[test]
fn the_kernel_tells_every_route_as_it_was_told() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let desired = every_shape(ns.uplink());
    apply_all(&mut socket, &plan(&desired, &Desired::default()));
    assert_eq!(actual(&mut socket), desired);
    assert_eq!(plan(&desired, &actual(&mut socket)), []);
    let count = |family| {
        let shown = ns.ip(&[family, "route", "show", "table", "all", "proto", "77"]);
        shown.as_array().unwrap().len()
    };
    assert_eq!(count("-4") + count("-6"), desired.routes.len());
    let shown = ns.ip(&["route", "show", "10.2.0.0/16"]);
    assert_eq!(
        (shown[0]["gateway"].as_str(), shown[0]["protocol"].as_str()),
        (Some("192.0.2.2"), Some("77"))
    );
    assert_eq!(
        ns.ip(&["neigh", "show", "10.1.0.1"])[0]["lladdr"],
        "02:00:00:00:00:01"
    );

    let ops = plan(&Desired::default(), &actual(&mut socket));
    apply_all(&mut socket, &ops);
    assert_eq!(actual(&mut socket), Desired::default());
}

#[test]
fn any_shape_replaces_any_other_in_place() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let all = every_shape(ns.uplink());
    for family in [true, false] {
        let prefix = if family {
            "10.99.0.0/16"
        } else {
            "2001:db8:99::/48"
        };
        let shapes: Vec<_> = all
            .routes
            .iter()
            .filter(|(key, _)| key.prefix.addr().is_ipv4() == family)
            .collect();
        let mut before = None;
        for (_, one) in &shapes {
            for (_, other) in &shapes {
                for route in [*one, *other] {
                    let desired = Desired {
                        routes: [(key(prefix), route.clone())].into(),
                        ..Desired::default()
                    };
                    let ops = plan(&desired, &before.take().unwrap_or_default());
                    apply_all(&mut socket, &ops);
                    assert_eq!(actual(&mut socket), desired, "{ops:?}");
                    before = Some(desired);
                }
            }
        }
        apply_all(&mut socket, &[Op::DeleteRoute(key(prefix), None)]);
    }
}

#[test]
fn another_programs_route_is_never_touched() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let link = ns.uplink();
    ns.ip(&["route", "add", "10.1.0.0/16", "dev", "up0", "proto", "bird"]);
    ns.ip(&[
        "-6",
        "route",
        "add",
        "2001:db8:1::/48",
        "dev",
        "up0",
        "proto",
        "static",
    ]);
    // Hidden from a lookup of its address by a longer one.
    ns.ip(&[
        "route",
        "add",
        "10.2.0.0/16",
        "dev",
        "up0",
        "proto",
        "zebra",
    ]);
    ns.ip(&[
        "route",
        "add",
        "10.2.0.0/32",
        "dev",
        "up0",
        "proto",
        "static",
    ]);
    let ops = [
        Op::AddRoute(key("10.1.0.0/16"), direct(link).into()),
        Op::AddRoute(key("2001:db8:1::/48"), direct(link).into()),
        Op::AddRoute(key("10.2.0.0/16"), direct(link).into()),
        Op::AddRoute(key("10.3.0.0/16"), direct(link).into()),
        Op::DeleteRoute(key("10.1.0.0/16"), None),
        Op::DeleteRoute(key("10.2.0.0/16"), Some(RouteKind::Unicast)),
        Op::DeleteRoute(key("2001:db8:1::/48"), None),
    ];
    // Metric 0 is 1024 to `ip -6 route add` as well.
    let foreign = |protocol| {
        Err(OpError::Foreign {
            protocol: Some(protocol),
        })
    };
    let expected = [
        foreign(12),
        foreign(4),
        foreign(11),
        Ok(()),
        Ok(()),
        Ok(()),
        Ok(()),
    ];
    assert_eq!(kernel::apply(&mut socket, &ops), expected);
    assert_eq!(
        ns.ip(&["route", "show", "10.1.0.0/16"])[0]["protocol"],
        "bird"
    );
    assert_eq!(
        ns.ip(&["route", "show", "10.2.0.0/16"])[0]["protocol"],
        "zebra"
    );
    assert_eq!(
        ns.ip(&["-6", "route", "show", "2001:db8:1::/48"])[0]["protocol"],
        "static"
    );
    assert_eq!(actual(&mut socket).routes.len(), 1);
}

#[test]
fn an_operation_meets_its_end_whatever_it_finds() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let link = ns.uplink();
    let gateway = Route::unicast([hop("192.0.2.2", link)]);
    for prefix in ["10.1.0.0/16", "2001:db8:1::/48"] {
        let gateway = if prefix.contains(':') {
            Route::unicast([hop("2001:db8::2", link)])
        } else {
            gateway.clone()
        };
        let key = key(prefix);
        let ops = [
            // There is nothing to replace, then something of ours where there should be nothing.
            Op::ReplaceRoute(key, direct(link).into()),
            Op::AddRoute(key, gateway.clone().into()),
        ];
        apply_all(&mut socket, &ops[..1]);
        apply_all(&mut socket, &ops[1..]);
        assert_eq!(actual(&mut socket).routes, [(key, gateway.into())].into());
        apply_all(
            &mut socket,
            &[Op::DeleteRoute(key, None), Op::DeleteRoute(key, None)],
        );
    }
    let key = NeighbourKey {
        link,
        address: [10, 0, 0, 1].into(),
    };
    let gone = NeighbourKey { link: 4242, ..key };
    apply_all(
        &mut socket,
        &[Op::DeleteNeighbour(key), Op::DeleteNeighbour(gone)],
    );
}

#[test]
fn an_error_is_its_own_operations_and_says_why() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let link = ns.uplink();
    let ops = [
        Op::AddRoute(key("10.1.0.0/16"), direct(link).into()),
        Op::AddRoute(
            key("10.2.0.0/16"),
            Route::unicast([hop("203.0.113.1", link)]).into(),
        ),
        Op::AddRoute(key("10.3.0.0/16"), direct(4242).into()),
        Op::AddRoute(key("10.4.0.0/16"), direct(link).into()),
    ];
    let results = kernel::apply(&mut socket, &ops);
    let reasons: Vec<_> = results
        .iter()
        .map(|result| result.as_ref().err().map(ToString::to_string))
        .collect();
    let expected = [
        None,
        Some("Network is unreachable (Nexthop has invalid gateway)"),
        Some("No such device"),
        None,
    ];
    assert_eq!(
        reasons.iter().map(Option::as_deref).collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn links_are_dumped_with_addresses_and_the_routes_of_others() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let link = ns.uplink();
    setup::set_alias(&mut socket, link, "the way up").unwrap();
    ns.ip(&["route", "add", "default", "via", "192.0.2.254"]);
    ns.ip(&[
        "route",
        "add",
        "10.9.0.0/16",
        "metric",
        "5",
        "nexthop",
        "via",
        "192.0.2.2",
        "nexthop",
        "via",
        "192.0.2.3",
    ]);
    ns.ip(&["route", "add", "unreachable", "10.10.0.0/16"]);
    apply_all(
        &mut socket,
        &[Op::AddRoute(key("10.1.0.0/16"), direct(link).into())],
    );

    let mut links = kernel::dump_links(&mut socket).unwrap();
    let watched = [
        "10.9.1.1",
        "192.0.2.77",
        "203.0.113.1",
        "10.1.0.1",
        "10.10.0.1",
        "2001:db8::5",
        "2001:db9::5",
    ];
    links.watched = watched.map(|address| address.parse().unwrap()).into();
    links.underlay = kernel::lookup_underlay(&mut socket, &links).unwrap();
    let up0 = &links.links[&link];
    let shown = ns.ip(&["address", "show", "up0"]);
    assert_eq!(
        (up0.name.as_str(), up0.kind.as_deref(), up0.alias.as_deref()),
        ("up0", Some("veth"), Some("the way up"))
    );
    assert!(up0.up && up0.carrier && !up0.loopback && links.links[&1].loopback);
    assert_eq!(u64::from(up0.mtu), shown[0]["mtu"]);
    let mac: Vec<_> = up0.mac.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(mac.join(":"), shown[0]["address"]);
    for address in ["192.0.2.1/24", "2001:db8::1/64"] {
        assert!(
            up0.addresses.contains(&address.parse().unwrap()),
            "{:?}",
            up0.addresses
        );
    }
    let lookup = |address: &str| {
        links
            .lookup(address.parse().unwrap())
            .map(|route| route.next_hops.clone())
    };
    let via = |last: u8| (Some([192, 0, 2, last].into()), link);
    assert_eq!(lookup("10.9.1.1"), Some(vec![via(2), via(3)]));
    assert_eq!(lookup("192.0.2.77"), Some(vec![(None, link)]));
    assert_eq!(lookup("203.0.113.1"), Some(vec![via(254)]));
    assert_eq!(
        lookup("10.1.0.1"),
        Some(vec![via(254)]),
        "ours are not among them"
    );
    assert_eq!(lookup("10.10.0.1"), Some(vec![]), "unreachable");
    assert_eq!(lookup("2001:db8::5"), Some(vec![(None, link)]));
    assert_eq!(lookup("2001:db9::5"), None);
}

#[test]
fn forwarding_is_switched_on_once() {
    let ns = Netns::new();
    let root = std::path::Path::new(sysctl::ROOT);
    let (first, second) = ns.run(|| {
        let on = || {
            (
                sysctl::enable_ipv4_forwarding(root).unwrap(),
                sysctl::enable_ipv6_forwarding(root).unwrap(),
            )
        };
        (on(), on())
    });
    assert_eq!((first, second), ((true, true), (false, false)));
    let read =
        |name: &str| ns.run(|| std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap());
    assert_eq!(
        (read("ipv4/ip_forward"), read("ipv6/conf/all/forwarding")),
        ("1\n".into(), "1\n".into())
    );
}

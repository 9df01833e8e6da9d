//! Hand-made links, addresses and routes, seen through iproute2 as an independent witness.

mod common;

use std::os::fd::AsFd;

use common::Netns;
use dataplane::NextHop;
use netlink::setup::{self, VethEnd};
use netlink::{Error, netns};

#[test]
fn a_veth_pair_is_born_across_two_namespaces() {
    let (a, b) = (Netns::new(), Netns::new());
    let end = VethEnd {
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: Some(1400),
        ..VethEnd::new("left")
    };
    let peer = VethEnd {
        mtu: Some(1400),
        ..VethEnd::new("right").in_netns(b.fd())
    };
    setup::create_veth(&mut a.socket(), end, peer).unwrap();
    let (left, right) = (a.link("left"), b.link("right"));
    for (ns, link, address) in [(&a, left, "192.0.2.1/24"), (&b, right, "192.0.2.2/24")] {
        setup::add_address(&mut ns.socket(), link, address.parse().unwrap()).unwrap();
        setup::set_up(&mut ns.socket(), link).unwrap();
    }
    let shown = a.ip(&["-d", "link", "show", "left"]);
    assert_eq!(shown[0]["address"], "02:00:00:00:00:01");
    assert_eq!(shown[0]["mtu"], 1400);
    assert_eq!(shown[0]["linkinfo"]["info_kind"], "veth");
    assert_eq!(shown[0]["operstate"], "UP");
    assert_eq!(
        b.ip(&["address", "show", "right"])[0]["addr_info"][0]["local"],
        "192.0.2.2"
    );
    assert_eq!(
        b.ip(&["address", "show", "right"])[0]["addr_info"][0]["broadcast"],
        "192.0.2.255"
    );

    setup::set_default_route(&mut a.socket(), "192.0.2.2".parse().unwrap(), left).unwrap();
    assert_eq!(
        a.ip(&["route", "show", "default"])[0]["gateway"],
        "192.0.2.2"
    );
    setup::delete_route(&mut a.socket(), "0.0.0.0/0".parse().unwrap()).unwrap();
    assert!(
        a.ip(&["route", "show", "default"])
            .as_array()
            .unwrap()
            .is_empty()
    );

    setup::delete_link(&mut b.socket(), right).unwrap();
    assert_eq!(
        setup::link_index(&mut a.socket(), "left"),
        Err(Error::NoLink("left".into()))
    );
}

#[test]
fn links_are_renamed_enslaved_and_listed() {
    let ns = Netns::new();
    let mut socket = ns.socket();
    setup::create_bridge(&mut socket, "br0").unwrap();
    setup::create_veth(&mut socket, VethEnd::new("one"), VethEnd::new("two")).unwrap();
    let (bridge, one) = (ns.link("br0"), ns.link("one"));
    setup::enslave(&mut socket, one, bridge).unwrap();
    setup::rename(&mut socket, one, "port1").unwrap();
    setup::set_alias(&mut socket, one, "to somewhere").unwrap();
    setup::set_mtu(&mut socket, one, 9000).unwrap();
    setup::set_up(&mut socket, setup::LOOPBACK).unwrap();
    let shown = ns.ip(&["link", "show", "port1"]);
    assert_eq!(shown[0]["master"], "br0");
    assert_eq!(shown[0]["ifalias"], "to somewhere");
    assert_eq!(shown[0]["mtu"], 9000);
    let names: Vec<_> = setup::list_links(&mut socket)
        .unwrap()
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(names.len(), 4);
    assert!(
        ["lo", "br0", "port1", "two"]
            .iter()
            .all(|name| names.iter().any(|n| n == name)),
        "{names:?}"
    );
    setup::set_down(&mut socket, setup::LOOPBACK).unwrap();
}

#[test]
fn multipath_and_blackhole_routes_are_as_told() {
    let ns = Netns::with_uplink();
    let mut socket = ns.socket();
    let hop = |last: u8| NextHop {
        via: Some([192, 0, 2, last].into()),
        link: ns.uplink(),
        onlink: false,
    };
    setup::set_route(
        &mut socket,
        "10.1.0.0/16".parse().unwrap(),
        &[hop(2), hop(3)],
    )
    .unwrap();
    setup::set_route(&mut socket, "10.2.0.0/16".parse().unwrap(), &[]).unwrap();
    let ecmp = ns.ip(&["route", "show", "10.1.0.0/16"]);
    assert_eq!(ecmp[0]["nexthops"].as_array().unwrap().len(), 2);
    assert_eq!(
        ns.ip(&["route", "show", "10.2.0.0/16"])[0]["type"],
        "blackhole"
    );
}

#[test]
fn a_namespace_is_kept_by_a_file() {
    let path = std::env::temp_dir().join(format!("margay-netns-{}", std::process::id()));
    let fd = netns::create().unwrap();
    netns::bind_mount(fd.as_fd(), &path).unwrap();
    drop(fd);
    let reopened = netns::open(&path).unwrap();
    let inside = netns::in_netns(&reopened, netns::current).unwrap();
    let id = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
    assert_eq!(id(&reopened), id(&inside));
    assert_ne!(
        id(&reopened),
        id(&netns::current().unwrap()),
        "the calling thread stays where it was"
    );
    netns::unbind(&path).unwrap();
    netns::unbind(&path).unwrap();
    assert!(!path.exists());
}

//! What can be done about the MTU of a pod that is there already, without entering its namespace: nothing, and less than nothing.
//! Why the agent leaves both ends as they are, and path MTU discovery does the rest.
#![expect(
    clippy::unwrap_used,
    reason = "tests; the lint's own exception does not reach helpers"
)]

mod common;

use std::net::UdpSocket;
use std::time::Duration;

use common::Netns;
use netlink::Request;
use netlink::packet::RouteNetlinkMessage;
use netlink::packet::link::{LinkAttribute, LinkMessage};
use netlink::setup::{self, VethEnd};

/// A host's namespace and a pod's, with a veth pair of MTU 1500 between.
fn pair() -> (Netns, Netns) {
    let (host, pod) = (Netns::new(), Netns::new());
    let peer = VethEnd::new("eth0").in_netns(pod.fd());
    setup::create_veth(&mut host.socket(), VethEnd::new("mgy1"), peer).unwrap();
    for (ns, name, address) in [
        (&host, "mgy1", "192.0.2.1/24"),
        (&pod, "eth0", "192.0.2.2/24"),
    ] {
        setup::set_up(&mut ns.socket(), ns.link(name)).unwrap();
        setup::add_address(&mut ns.socket(), ns.link(name), address.parse().unwrap()).unwrap();
    }
    (host, pod)
}

fn mtu(ns: &Netns, name: &str) -> serde_json::Value {
    ns.ip(&["link", "show", "dev", name])[0]["mtu"].clone()
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = attributes;
    link
}

#[test]
fn a_link_in_another_namespace_is_seen_and_not_changed() {
    let (host, pod) = pair();
    let shown = host.ip(&["link", "show", "dev", "mgy1"])[0]["link_netnsid"].clone();
    let netns = i32::try_from(shown.as_i64().unwrap()).unwrap();
    // `IFLA_TARGET_NETNSID`, by its older name.
    let there = || {
        vec![
            LinkAttribute::IfName("eth0".to_owned()),
            LinkAttribute::IfNetnsId(netns),
        ]
    };
    let mut socket = host.socket();
    let seen = socket.query(Request::new(RouteNetlinkMessage::GetLink(link(there()))));
    assert_eq!(seen.unwrap().len(), 1, "the number is the pod's namespace");
    let mut wish = there();
    wish.push(LinkAttribute::Mtu(1400));
    for message in [
        RouteNetlinkMessage::SetLink(link(wish.clone())),
        RouteNetlinkMessage::NewLink(link(wish)),
    ] {
        // The kernel looks for the link to be changed here, and not there.
        let error = socket.request(Request::new(message)).unwrap_err();
        assert!(error.kernel_errno().is_some(), "{error}");
    }
    assert_eq!(mtu(&pod, "eth0"), 1500);
}

#[test]
fn a_smaller_mtu_on_the_hosts_end_alone_loses_packets_without_a_word() {
    let (host, pod) = pair();
    let server = host.run(|| UdpSocket::bind("192.0.2.1:0").unwrap());
    server
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let client = pod.run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    client.connect(server.local_addr().unwrap()).unwrap();
    // Whether the kernel refuses to send it or not: it does not arrive.
    let arrives = |octets: usize| {
        client.send(&vec![0; octets]).ok();
        server.recv(&mut [0; 2000]).is_ok()
    };
    // A link that is up carries packets a moment later.
    assert!((0..10).any(|_| arrives(1472)), "what fits");
    setup::set_mtu(&mut host.socket(), host.link("mgy1"), 1400).unwrap();
    assert!(arrives(1300));
    assert!(!arrives(1472));
    // Nor has the pod learned of it.
    assert!(!arrives(1472));
    let route = pod.ip(&["route", "get", "192.0.2.1"]);
    assert_eq!(route[0]["metrics"][0]["mtu"], serde_json::Value::Null);
    setup::set_mtu(&mut host.socket(), host.link("mgy1"), 1500).unwrap();
    assert!(arrives(1472));
}

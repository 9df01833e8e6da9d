//! Our nftables table, with real packets, and nft and iptables as witnesses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use common::Netns;
use dataplane::{Firewall, NextHop};
use ipnet::IpNet;
use netlink::nft::{Disturbed, Forward, Nft};
use netlink::setup::{self, VethEnd};
use netlink::sysctl;

/// Pod, node and somebody outside, each in a namespace: `mgy0` towards the pod, `up0` towards the outside.
struct Path {
    pod: Netns,
    node: Netns,
    outside: Netns,
}

const POD: [&str; 2] = ["10.244.1.2", "fd00:244:1::2"];
/// An address that the pod has as well, but that is not routed to it.
const STOLEN: [&str; 2] = ["10.244.1.99", "fd00:244:1::99"];
const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

fn net(address: &str) -> IpNet {
    IpNet::from(address.parse::<IpAddr>().unwrap())
}

impl Path {
    fn new() -> Self {
        let path = Self {
            pod: Netns::new(),
            node: Netns::new(),
            outside: Netns::new(),
        };
        path.veth("mgy0", &path.pod);
        path.veth("up0", &path.outside);
        for (index, length) in [(0, 24), (1, 64)] {
            let via = |text: &str, link| NextHop {
                via: Some(text.parse().unwrap()),
                link,
                onlink: false,
            };
            let subnet = |text: &str| IpNet::new(text.parse().unwrap(), length).unwrap();
            for (ns, name, address) in [
                (&path.pod, "eth0", net(POD[index])),
                (&path.pod, "eth0", net(STOLEN[index])),
                (&path.node, "up0", subnet(NODE[index])),
                (&path.outside, "eth0", subnet(OUTSIDE[index])),
            ] {
                setup::add_address(&mut ns.socket(), ns.link(name), address).unwrap();
            }
            let direct = |link| NextHop {
                via: None,
                link,
                onlink: false,
            };
            let (pod, outside) = (path.pod.link("eth0"), path.outside.link("eth0"));
            // The pod's way out, as a pod has it; the node's way to the pod; the outside's way to both.
            let all = IpNet::new(
                if index == 0 { "0.0.0.0" } else { "::" }.parse().unwrap(),
                0,
            );
            for (ns, prefix, hop) in [
                (&path.pod, net(NODE[index]), direct(pod)),
                (&path.pod, all.unwrap(), via(NODE[index], pod)),
                (&path.node, net(POD[index]), direct(path.node.link("mgy0"))),
                (&path.outside, net(POD[index]), via(NODE[index], outside)),
            ] {
                setup::set_route(&mut ns.socket(), prefix, &[hop]).unwrap();
            }
        }
        path.node.run(|| {
            sysctl::enable_ipv4_forwarding(std::path::Path::new(sysctl::ROOT)).unwrap();
            for (key, value) in [
                ("net/ipv6/conf/all/forwarding", "1"),
                // The node answers for itself on the pod's link, as a permanent neighbour entry would.
                ("net/ipv4/conf/mgy0/proxy_arp", "1"),
            ] {
                std::fs::write(format!("/proc/sys/{key}"), value).unwrap();
            }
        });
        // No neighbour discovery in the way of what is tested.
        let mac = |ns: &Netns, name: &str| {
            let shown = ns.ip(&["link", "show", name]);
            shown[0]["address"].as_str().unwrap().to_owned()
        };
        let neighbour = |ns: &Netns, address: &str, mac: &str, link: &str| {
            let arguments = ["neighbour", "replace", address, "lladdr", mac, "dev", link];
            ns.ip(&[&arguments[..], &["nud", "permanent"]].concat());
        };
        for index in [0, 1] {
            neighbour(&path.pod, NODE[index], &mac(&path.node, "mgy0"), "eth0");
            neighbour(&path.node, POD[index], &mac(&path.pod, "eth0"), "mgy0");
            let (node, outside) = (mac(&path.node, "up0"), mac(&path.outside, "eth0"));
            neighbour(&path.node, OUTSIDE[index], &outside, "up0");
            neighbour(&path.outside, NODE[index], &node, "eth0");
        }
        path
    }

    /// A pair from the node to `eth0` of another namespace.
    fn veth(&self, name: &str, other: &Netns) {
        let peer = VethEnd::new("eth0").in_netns(other.fd());
        setup::create_veth(&mut self.node.socket(), VethEnd::new(name), peer).unwrap();
        for (ns, name) in [(&self.node, name), (other, "eth0"), (other, "lo")] {
            setup::set_up(&mut ns.socket(), ns.link(name)).unwrap();
        }
    }

    /// What source address the outside sees on a datagram that the pod sends from `source`; `None`: nothing comes.
    fn seen(&self, source: &str, to: &str) -> Option<IpAddr> {
        let bind = |ns: &Netns, address: &str| {
            let address = SocketAddr::new(address.parse().unwrap(), 0);
            ns.run(|| UdpSocket::bind(address).unwrap())
        };
        let (receiver, sender) = (bind(&self.outside, to), bind(&self.pod, source));
        receiver
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        sender
            .send_to(b"hello", receiver.local_addr().unwrap())
            .unwrap();
        loop {
            match receiver.recv_from(&mut [0; 16]) {
                Ok((_, from)) => return Some(from.ip()),
                // Where there is a limit, the kernel does not begin anew after a signal.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn nft(&self) -> Nft {
        self.node.run(|| Nft::open().unwrap())
    }

    /// What a program says of the node.
    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let output = self
            .node
            .run(|| Command::new(program).args(arguments).output().unwrap());
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {error}");
        assert!(
            !error.contains("incompatible"),
            "{program} {arguments:?}: {error}"
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

fn guard() -> Firewall {
    Firewall {
        pod_interfaces: "mgy".into(),
        ..Firewall::default()
    }
}

#[test]
fn a_pod_sends_from_its_own_addresses_only() {
    let path = Path::new();
    let mut nft = path.nft();
    for index in [0, 1] {
        let stolen = Some(STOLEN[index].parse().unwrap());
        assert_eq!(
            path.seen(STOLEN[index], OUTSIDE[index]),
            stolen,
            "without us"
        );
    }
    nft.apply(&guard()).unwrap();
    for index in [0, 1] {
        let own = Some(POD[index].parse().unwrap());
        assert_eq!(path.seen(POD[index], OUTSIDE[index]), own);
        assert_eq!(path.seen(STOLEN[index], OUTSIDE[index]), None);
    }
    // Lifted for this pod.
    let lifted = Firewall {
        spoofers: ["mgy0".to_owned()].into(),
        ..guard()
    };
    nft.apply(&lifted).unwrap();
    for index in [0, 1] {
        let stolen = Some(STOLEN[index].parse().unwrap());
        assert_eq!(path.seen(STOLEN[index], OUTSIDE[index]), stolen);
    }
    let shown = path.ask("nft", &["list", "table", "inet", "margay"]);
    for line in ["iifname @spoofers accept", "elements = { \"mgy0\" }"] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
    assert!(shown.contains("fib saddr . iif oif"), "{shown}");
}

#[test]
fn pods_are_masqueraded_towards_the_outside_alone() {
    let path = Path::new();
    let mut nft = path.nft();
    let pools: Vec<IpNet> = vec![
        "10.244.0.0/16".parse().unwrap(),
        "fd00:244::/32".parse().unwrap(),
    ];
    let outside = Firewall {
        masqueraded: pools.clone(),
        inside: pools.clone(),
        ..guard()
    };
    nft.apply(&outside).unwrap();
    for index in [0, 1] {
        let node = Some(NODE[index].parse().unwrap());
        assert_eq!(path.seen(POD[index], OUTSIDE[index]), node);
    }
    // Now that is a node, or in a pool without masquerading: the pod's address stays.
    let mut inside = outside.clone();
    inside.inside.extend([net(OUTSIDE[0]), net(OUTSIDE[1])]);
    nft.apply(&inside).unwrap();
    for index in [0, 1] {
        let own = Some(POD[index].parse().unwrap());
        assert_eq!(path.seen(POD[index], OUTSIDE[index]), own);
    }
    let shown = path.ask("nft", &["list", "table", "inet", "margay"]);
    for line in [
        "ip saddr @masqueraded4 ip daddr != @inside4 counter",
        "masquerade",
        "elements = { 10.244.0.0/16, 192.0.2.2 }",
    ] {
        assert!(shown.contains(line), "{line} in {shown}");
    }
}

/// What kube-proxy does for a Service, in little: another address in the place of the Service's.
const PROXY: &str = "table ip proxy {
  chain pre { type nat hook prerouting priority -100; ip daddr 198.18.0.1 dnat to 192.0.2.2; }
  chain out { type nat hook output priority -100; ip daddr 198.18.0.1 dnat to 192.0.2.2; }
}";

#[test]
fn addresses_without_a_service_go_nowhere() {
    let path = Path::new();
    let mut nft = path.nft();
    // The router that announces the range: whatever the node doesn't know goes there.
    let default = NextHop {
        via: Some(OUTSIDE[0].parse().unwrap()),
        link: path.node.link("up0"),
        onlink: false,
    };
    let all = "0.0.0.0/0".parse().unwrap();
    setup::set_route(&mut path.node.socket(), all, &[default]).unwrap();
    for address in ["198.18.0.9", "198.18.0.1"] {
        let outside = path.outside.link("eth0");
        setup::add_address(&mut path.outside.socket(), outside, net(address)).unwrap();
    }
    let mut firewall = guard();
    nft.apply(&firewall).unwrap();
    assert!(path.seen(POD[0], "198.18.0.9").is_some());
    for (reject, words) in [
        (false, "drop"),
        (true, "reject with icmpx admin-prohibited"),
    ] {
        firewall.services = vec!["198.18.0.0/24".parse().unwrap(), net("fd96::1")];
        firewall.reject_services = reject;
        nft.apply(&firewall).unwrap();
        assert_eq!(path.seen(POD[0], "198.18.0.9"), None);
        assert_eq!(path.seen(POD[0], OUTSIDE[0]), Some(POD[0].parse().unwrap()));
        let shown = path.ask("nft", &["list", "table", "inet", "margay"]);
        for line in [
            "ip daddr @services4 counter",
            "ip6 daddr @services6 counter",
            words,
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
    }
    // A Service's address gets through, from a pod and from the node itself.
    assert_eq!(path.seen(POD[0], "198.18.0.1"), None);
    path.ask("nft", &[PROXY]);
    for (ns, source) in [(&path.pod, POD[0]), (&path.node, NODE[0])] {
        let receiver = path
            .outside
            .run(|| UdpSocket::bind((OUTSIDE[0], 0)).unwrap());
        let limit = Some(Duration::from_secs(2));
        receiver.set_read_timeout(limit).unwrap();
        let port = receiver.local_addr().unwrap().port();
        let sender = ns.run(|| UdpSocket::bind((source, 0)).unwrap());
        sender.send_to(b"hello", ("198.18.0.1", port)).unwrap();
        let (_, from) = receiver.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from.ip().to_string(), source);
    }
}

#[test]
fn tunnel_packets_come_from_nodes_alone() {
    let path = Path::new();
    let mut nft = path.nft();
    let nodes = (1..=5000u32).map(|node| IpAddr::from((0x0a00_0000 + node).to_be_bytes()));
    let firewall = Firewall {
        tunnel_peers: Some(nodes.chain(["2001:db8::7".parse().unwrap()]).collect()),
        ..Firewall::default()
    };
    nft.apply(&firewall).unwrap();
    let shown = path.ask("nft", &["-j", "list", "table", "inet", "margay"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let objects = shown["nftables"].as_array().unwrap();
    let rules = objects.iter().filter(|it| !it["rule"].is_null()).count();
    assert_eq!(rules, 3, "{shown}");
    // Neighbouring addresses have become ranges.
    let set = objects.iter().find(|it| it["set"]["name"] == "nodes4");
    let elements = set.unwrap()["set"]["elem"].as_array().unwrap();
    assert!(elements.len() < 40, "{elements:?}");
    path.ask(
        "nft",
        &[
            "get",
            "element",
            "inet",
            "margay",
            "nodes4",
            "{10.0.19.136}",
        ],
    );
}

#[test]
fn the_table_is_replaced_whole_healed_and_removed() {
    let path = Path::new();
    let mut nft = path.nft();
    path.ask("nft", &["add", "table", "inet", "other"]);
    nft.apply(&guard()).unwrap();
    nft.apply(&guard()).unwrap();
    assert_eq!(
        nft.disturbed().unwrap(),
        Disturbed {
            ours: false,
            forward: false
        },
        "our own changes and others' tables are no disturbance"
    );
    assert!(nft.is_whole().unwrap());
    path.ask("nft", &["flush", "ruleset"]);
    assert!(nft.disturbed().unwrap().ours);
    assert!(!nft.is_whole().unwrap());
    nft.apply(&guard()).unwrap();
    assert_eq!(path.seen(STOLEN[0], OUTSIDE[0]), None);
    // One rule less is noticed too.
    path.ask("nft", &["flush", "chain", "inet", "margay", "guard"]);
    assert!(nft.disturbed().unwrap().ours);

    path.ask("nft", &["add", "table", "inet", "other"]);
    nft.remove().unwrap();
    assert_eq!(
        path.ask("nft", &["list", "ruleset"]).trim(),
        "table inet other {\n}"
    );
}

#[test]
fn a_forward_chain_that_drops_lets_pods_through() {
    let path = Path::new();
    let mut nft = path.nft();
    assert_eq!(nft.forward("mgy").unwrap(), []);
    for program in ["iptables-nft", "ip6tables-nft"] {
        path.ask(program, &["-P", "FORWARD", "DROP"]);
        path.ask(program, &["-A", "FORWARD", "-i", "docker0", "-j", "ACCEPT"]);
    }
    assert!(nft.disturbed().unwrap().forward);
    for index in [0, 1] {
        assert_eq!(path.seen(POD[index], OUTSIDE[index]), None);
    }
    // Twice: the second time nothing is added.
    for _ in 0..2 {
        let dropping = nft.forward("mgy").unwrap();
        assert_eq!(dropping, [Forward::Ipv4, Forward::Ipv6]);
    }
    for index in [0, 1] {
        let own = Some(POD[index].parse().unwrap());
        assert_eq!(path.seen(POD[index], OUTSIDE[index]), own);
    }
    for program in ["iptables-nft", "ip6tables-nft"] {
        let shown = path.ask(program, &["-S"]);
        let expected = [
            "-P INPUT ACCEPT",
            "-P FORWARD DROP",
            "-P OUTPUT ACCEPT",
            "-N MARGAY-FORWARD",
            r#"-A FORWARD -m comment --comment "margay: pods" -j MARGAY-FORWARD"#,
            "-A FORWARD -i docker0 -j ACCEPT",
            r#"-A MARGAY-FORWARD -i mgy+ -m comment --comment "margay: pods" -j ACCEPT"#,
            r#"-A MARGAY-FORWARD -o mgy+ -m comment --comment "margay: pods" -j ACCEPT"#,
        ];
        assert_eq!(shown.lines().collect::<Vec<_>>(), expected, "{program}");
    }
    assert!(!nft.disturbed().unwrap().forward);
    // Somebody flushes the chain: put back. Then the policy accepts: taken away.
    path.ask("iptables-nft", &["-F", "FORWARD"]);
    assert!(nft.disturbed().unwrap().forward);
    nft.forward("mgy").unwrap();
    assert_eq!(path.seen(POD[0], OUTSIDE[0]), Some(POD[0].parse().unwrap()));
    path.ask("iptables-nft", &["-P", "FORWARD", "ACCEPT"]);
    assert_eq!(nft.forward("mgy").unwrap(), [Forward::Ipv6]);
    assert!(!path.ask("iptables-nft", &["-S"]).contains("MARGAY"));
    nft.remove().unwrap();
    assert!(!path.ask("ip6tables-nft", &["-S"]).contains("MARGAY"));
}

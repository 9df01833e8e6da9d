//! In network namespaces of the kernel, with `ip` as the independent witness. Needs root: without, they fail.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use dataplane::Op;

use super::*;
use crate::{kernel, netns};

const ALIAS: &str = "margay1 c=c0ffee i=eth0 n=margay a=10.244.1.7";
const HOST_MAC: [u8; 6] = [0x6a, 0x10, 0x30, 0x61, 0x60, 0x13];
const POD_MAC: [u8; 6] = [0xe2, 0x1d, 0x64, 0xa0, 0xc3, 0x60];

/// Two namespaces: a host's and a pod's.
struct Pair {
    host_netns: OwnedFd,
    pod_netns: OwnedFd,
    host: Socket,
    pod: Socket,
}

impl Pair {
    fn new() -> Self {
        let open = || {
            let netns = netns::create()
                .expect("these tests need root (CAP_SYS_ADMIN) to make network namespaces");
            let socket = netns::in_netns(&netns, || Ok(Socket::open().unwrap())).unwrap();
            (netns, socket)
        };
        let ((host_netns, host), (pod_netns, pod)) = (open(), open());
        Self {
            host_netns,
            pod_netns,
            host,
            pod,
        }
    }

    fn attach(&mut self, addresses: &[IpAddr]) -> Result<Wired, AttachError> {
        let wiring = Wiring {
            spoofing: false,
            host_ifname: "mgy6ad2516ced2a",
            host_mac: HOST_MAC,
            ifname: "eth0",
            mac: POD_MAC,
            mtu: 1400,
            addresses,
            default_route: true,
            alias: ALIAS,
            netns: self.pod_netns.as_fd(),
        };
        attach(&mut self.host, &mut self.pod, &wiring)
    }

    /// What the dataplane adds: the host's routes to the pod, and its neighbours.
    fn route(&mut self, wired: Wired, addresses: &[IpAddr]) {
        for &address in addresses {
            let hop = NextHop {
                via: None,
                link: wired.host,
                onlink: false,
            };
            setup::set_route(&mut self.host, address.into(), &[hop]).unwrap();
            let key = NeighbourKey {
                link: wired.host,
                address,
            };
            let neighbour = Op::SetNeighbour(key, Neighbour { mac: POD_MAC });
            assert_eq!(kernel::apply(&mut self.host, &[neighbour]), [Ok(())]);
        }
    }

    fn on_host(&self, arguments: &str) -> String {
        run(&self.host_netns, arguments)
    }

    fn in_pod(&self, arguments: &str) -> String {
        run(&self.pod_netns, arguments)
    }
}

/// What a program prints inside a namespace.
fn run(netns: &OwnedFd, command: &str) -> String {
    let mut words = command.split(' ');
    let output = netns::in_netns(netns, || {
        Command::new(words.next().unwrap()).args(words).output()
    })
    .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn addresses(text: &str) -> Vec<IpAddr> {
    text.split(' ')
        .map(|address| address.parse().unwrap())
        .collect()
}

#[test]
fn a_pod_is_wired() {
    let mut pair = Pair::new();
    let wired = pair.attach(&addresses("10.244.1.7")).unwrap();

    let link = pair.in_pod("ip -d link show dev eth0");
    assert!(
        link.contains("mtu 1400")
            && link.contains("state UP")
            && link.contains("e2:1d:64:a0:c3:60"),
        "{link}"
    );
    assert!(
        pair.in_pod("ip -4 addr show dev eth0")
            .contains("inet 10.244.1.7/32 scope global")
    );
    assert!(
        pair.in_pod("ip link show dev lo")
            .contains("<LOOPBACK,UP,LOWER_UP>")
    );
    let routes = pair.in_pod("ip route");
    assert!(
        routes.contains("default via 169.254.1.1 dev eth0")
            && routes.contains("169.254.1.1 dev eth0"),
        "{routes}"
    );
    assert!(routes.contains("scope link"), "{routes}");
    assert!(
        pair.in_pod("ip neigh")
            .contains("169.254.1.1 dev eth0 lladdr 6a:10:30:61:60:13")
    );
    assert!(pair.in_pod("ip neigh").contains("PERMANENT"));

    let link = pair.on_host("ip -d link show dev mgy6ad2516ced2a");
    assert!(
        link.contains("state UP") && link.contains("mtu 1400") && link.contains(ALIAS),
        "{link}"
    );
    assert!(link.contains("addrgenmode none"), "{link}");
    assert_eq!(pair.on_host("ip neigh"), "", "the dataplane's");
    let settings = |name| {
        let path = format!("cat /proc/sys/net/ipv4/conf/mgy6ad2516ced2a/{name}");
        pair.on_host(&path).trim().to_owned()
    };
    let names = [
        "forwarding",
        "rp_filter",
        "proxy_arp",
        "accept_redirects",
        "send_redirects",
        "route_localnet",
    ];
    assert_eq!(names.map(settings), ["1", "1", "0", "0", "0", "0"]);
    assert_eq!(
        setup::link_index(&mut pair.host, "mgy6ad2516ced2a"),
        Ok(wired.host)
    );
    assert_eq!(setup::link_index(&mut pair.pod, "eth0"), Ok(wired.pod));
}

#[test]
fn both_families_answer_the_first_packet() {
    let mut pair = Pair::new();
    let addresses = addresses("10.244.1.7 fd00::7");
    let wired = pair.attach(&addresses).unwrap();
    setup::set_up(&mut pair.host, setup::LOOPBACK).unwrap();
    for own in ["192.0.2.1/32", "2001:db8::1/128"] {
        setup::add_address(&mut pair.host, setup::LOOPBACK, own.parse().unwrap()).unwrap();
    }
    pair.route(wired, &addresses);
    pair.on_host("ping -c1 -W1 10.244.1.7");
    pair.in_pod("ping -c1 -W1 192.0.2.1");
    pair.on_host("ping -6 -c1 -W1 -I 2001:db8::1 fd00::7");
    pair.in_pod("ping -6 -c1 -W1 2001:db8::1");
    let neighbours = pair.on_host("ip neigh") + &pair.in_pod("ip neigh");
    assert_eq!(neighbours.matches("PERMANENT").count(), 4, "{neighbours}");
    assert_eq!(
        neighbours
            .lines()
            .filter(|line| !line.contains("PERMANENT"))
            .count(),
        0,
        "{neighbours}"
    );

    check(
        &mut pair.host,
        &mut pair.pod,
        "mgy6ad2516ced2a",
        "eth0",
        &addresses,
        &[gateway(addresses[0])],
    )
    .unwrap();
    pair.on_host("ip route del 10.244.1.7");
    let lost = check(
        &mut pair.host,
        &mut pair.pod,
        "mgy6ad2516ced2a",
        "eth0",
        &addresses,
        &[gateway(addresses[0])],
    )
    .unwrap_err();
    assert_eq!(
        lost.to_string(),
        "the host does not route 10.244.1.7 to mgy6ad2516ced2a"
    );
    pair.in_pod("ip addr del 10.244.1.7/32 dev eth0");
    let lost = check(
        &mut pair.host,
        &mut pair.pod,
        "mgy6ad2516ced2a",
        "eth0",
        &addresses,
        &[gateway(addresses[0])],
    )
    .unwrap_err();
    assert_eq!(lost.to_string(), "eth0 has lost its address 10.244.1.7");
    pair.in_pod("ip link set eth0 down");
    let lost = check(
        &mut pair.host,
        &mut pair.pod,
        "mgy6ad2516ced2a",
        "eth0",
        &addresses,
        &[gateway(addresses[0])],
    )
    .unwrap_err();
    assert_eq!(
        lost.to_string(),
        "the container has no interface eth0 that is up"
    );
}

#[test]
fn names_that_are_taken() {
    let mut pair = Pair::new();
    pair.in_pod("ip link add eth0 type veth peer name other");
    assert_eq!(
        pair.attach(&addresses("10.244.1.7")),
        Err(AttachError::InterfaceExists("eth0".into()))
    );
    assert!(!pair.on_host("ip link").contains("mgy"));
    pair.in_pod("ip link del eth0");
    pair.on_host("ip link add mgy6ad2516ced2a type veth peer name other");
    assert_eq!(
        pair.attach(&addresses("10.244.1.7")),
        Err(AttachError::HostLinkExists("mgy6ad2516ced2a".into()))
    );
    assert!(!pair.in_pod("ip link").contains("eth0"));
}

#[test]
fn a_failure_leaves_nothing() {
    let mut pair = Pair::new();
    // The pod has the route already, on another interface: the kernel refuses the second of its kind.
    pair.in_pod("ip link add other type veth peer name another");
    pair.in_pod("ip link set other up");
    pair.in_pod("ip route add default dev other");
    let error = pair.attach(&addresses("10.244.1.7")).unwrap_err();
    assert_eq!(error.to_string(), "configure the pod's end: File exists");
    assert!(!pair.on_host("ip link").contains("mgy"));
    assert!(!pair.in_pod("ip link").contains("eth0"));
}

#[test]
fn detaching_one_or_many_and_again() {
    let mut pair = Pair::new();
    pair.attach(&addresses("10.244.1.7")).unwrap();
    pair.on_host("ip link add uplink type veth peer name uplink2");
    detach(&mut pair.host, &["mgy6ad2516ced2a"]).unwrap();
    detach(&mut pair.host, &["mgy6ad2516ced2a"]).unwrap();
    assert!(!pair.in_pod("ip link").contains("eth0"));
    let names: Vec<String> = (0..20).map(|number| format!("mgy{number:012}")).collect();
    for (number, name) in names.iter().enumerate() {
        pair.on_host(&format!(
            "ip link add {name} type veth peer name peer{number}"
        ));
    }
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .chain(["mgynowhere"])
        .collect();
    detach(&mut pair.host, &names).unwrap();
    detach(&mut pair.host, &names).unwrap();
    detach(&mut pair.host, &[]).unwrap();
    let left = pair.on_host("ip -br link");
    assert!(!left.contains("mgy") && left.contains("uplink"), "{left}");
}

#[test]
fn links_are_listed_with_their_records() {
    let mut pair = Pair::new();
    pair.on_host("ip link add mgy000000000001 type veth peer name uplink");
    pair.attach(&addresses("10.244.1.7")).unwrap();
    pair.on_host("ip link add mgybridge type bridge");
    let links = list(&mut pair.host, "mgy").unwrap();
    let names: Vec<_> = links
        .iter()
        .map(|link| (link.name.as_str(), link.record.is_some()))
        .collect();
    assert_eq!(
        names,
        [("mgy000000000001", false), ("mgy6ad2516ced2a", true)]
    );
    assert_eq!(
        links[1].record.as_ref().unwrap().addresses,
        addresses("10.244.1.7")
    );
    assert_eq!(links[1].mac, HOST_MAC);
}

#[test]
fn a_link_that_goes_is_heard_of() {
    let mut pair = Pair::new();
    let mut watch = netns::in_netns(&pair.host_netns, || Ok(Watch::open().unwrap())).unwrap();
    let wired = pair.attach(&addresses("10.244.1.7")).unwrap();
    assert_eq!(watch.read(), Ok(Gone::default()));
    pair.in_pod("ip link del eth0");
    assert_eq!(
        watch.read(),
        Ok(Gone {
            links: vec![wired.host],
            overrun: false
        })
    );
    assert_eq!(watch.read(), Ok(Gone::default()));
}

/// From a socket that waits for nothing: what a pod that has just been made says is heard, the first time.
#[test]
fn the_very_first_packet_arrives() {
    for round in 0..50 {
        let mut pair = Pair::new();
        setup::set_up(&mut pair.host, setup::LOOPBACK).unwrap();
        let addresses = addresses("10.244.1.7 fd00::7");
        let listeners = ["192.0.2.1", "2001:db8::1"].map(|own| {
            let own: IpAddr = own.parse().unwrap();
            setup::add_address(&mut pair.host, setup::LOOPBACK, own.into()).unwrap();
            let listener = netns::in_netns(&pair.host_netns, || UdpSocket::bind((own, 0))).unwrap();
            listener
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            listener
        });
        let speakers = netns::in_netns(&pair.pod_netns, || {
            Ok([UdpSocket::bind("0.0.0.0:0")?, UdpSocket::bind("[::]:0")?])
        })
        .unwrap();
        let wired = pair.attach(&addresses).unwrap();
        pair.route(wired, &addresses);
        for (speaker, listener) in speakers.iter().zip(&listeners) {
            let target = listener.local_addr().unwrap();
            speaker.send_to(b"first", target).unwrap();
        }
        for (listener, address) in listeners.iter().zip(&addresses) {
            let (length, from) = listener
                .recv_from(&mut [0; 16])
                .unwrap_or_else(|error| panic!("round {round}, from {address}: {error}"));
            assert_eq!((length, from.ip()), (5, *address));
        }
        let tentative = pair.in_pod("ip -6 addr show tentative");
        assert_eq!(tentative, "", "duplicates are looked for");
        let link_local = pair.in_pod("ip -6 addr show dev eth0 scope link");
        assert!(
            link_local.contains("fe80::e01d:64ff:fea0:c360/64"),
            "{link_local}"
        );
    }
}

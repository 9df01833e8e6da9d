//! Others at the far end: one who has no business there, and one that is no Margay.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use lab::datacentre::DataCentre;
use lab::probe::{Capture, Pinger};
use lab::process::{Program, find};
use lab::tor::{self, Kind};
use lab::{Namespace, wait};
use tests::{oracle, same, status};

use crate::underlay::{self, PATIENCE};

/// How long a packet may take that must not arrive.
const SHORT: Duration = Duration::from_secs(1);

/// A host that is no node sends wrapped packets: none comes to a pod.
pub(crate) fn strangers(dc: &mut DataCentre) -> Result<()> {
    underlay::connect(dc)?;
    underlay::set_mode(dc, "Always")?;
    underlay::start(dc)?;
    let [a, b] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
    wait::until("the rule", PATIENCE, || {
        let rules = status(a)?.firewall.rules;
        let known = rules
            .iter()
            .any(|rule| rule.contains("tunnel packets from anybody but 1"));
        same(&format!("{rules:?}"), &known, &true)
    })?;
    let (pod, other) = (&a.pods[0], &b.pods[0]);
    let server = pod
        .namespace
        .run(|| Ok(UdpSocket::bind((pod.address, 5353))?))?;
    server.set_read_timeout(Some(SHORT))?;
    let heard = |from: &Namespace| -> Result<bool> {
        let inner = udp(other.address, pod.address, 5353);
        wrap(from, a.address, &inner)?;
        match server.recv_from(&mut [0; 64]) {
            Ok((_, who)) => {
                same("inner source", &who.ip(), &other.address.into())?;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    };
    // The ToR stands for any host that the cluster knows nothing of; the same packet from a node is a pod's.
    same("a stranger's", &heard(&dc.racks[0].tor.namespace)?, &false)?;
    same("a node's", &heard(&b.namespace)?, &true)?;
    same("a stranger's", &heard(&dc.racks[0].tor.namespace)?, &false)?;
    let nft = |arguments: &[&str]| -> Result<String> {
        let program = find("nft").context("nft")?;
        Program::new(program).args(arguments).stdout(&a.namespace)
    };
    let table = nft(&["list", "table", "inet", "margay"])?;
    same("counted", &table.contains("packets 2"), &true)?;
    // Without the table it would arrive: what was seen is the table's doing.
    let name = a.name.clone();
    dc.node(&name)?.agent()?.kill()?;
    let a = &dc.racks[0].nodes[0];
    let nft = Program::new(find("nft").context("nft")?);
    nft.args(["delete", "table", "inet", "margay"])
        .stdout(&a.namespace)?;
    let inner = udp(
        dc.racks[1].nodes[0].pods[0].address,
        a.pods[0].address,
        5353,
    );
    wrap(&dc.racks[0].tor.namespace, a.address, &inner)?;
    server
        .recv_from(&mut [0; 64])
        .context("without the table")?;
    Ok(())
}

/// An IPv4 packet with a UDP datagram, without a checksum of its own (RFC 768).
fn udp(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    packet[10..12].copy_from_slice(&(!sum).to_be_bytes());
    packet.extend(9u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0, 12, 0, 0]);
    packet.extend(b"spy!");
    packet
}

/// Sends it inside a packet of protocol 4.
fn wrap(from: &Namespace, to: Ipv4Addr, inner: &[u8]) -> Result<()> {
    use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, sendto, socket};
    let socket = from.run(|| {
        Ok(socket(
            AddressFamily::INET,
            SocketType::RAW,
            Some(Protocol::from_raw(4.try_into()?)),
        )?)
    })?;
    sendto(
        &socket,
        inner,
        SendFlags::empty(),
        &SocketAddrV4::new(to, 0),
    )?;
    Ok(())
}

/// A node with the kernel's own `tunl0`, configured by hand as another CNI would, and any BGP speaker.
pub(crate) fn plain_tunl0(dc: &mut DataCentre) -> Result<()> {
    underlay::connect(dc)?;
    underlay::set_mode(dc, "CrossSubnet")?;
    let (ours, theirs) = {
        let [a, b] = [&dc.racks[0].nodes[0], &dc.racks[1].nodes[0]];
        (a.pod_cidr, b.pod_cidr)
    };
    let other = &dc.racks[1].nodes[0];
    let (namespace, address) = (other.namespace.clone(), other.address);
    let pod: Ipv4Addr = "10.244.21.7".parse()?;
    same("in its range", &theirs.contains(&pod), &true)?;
    let peer = dc.racks[0].nodes[0].address;
    let ip = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        oracle::ip(&namespace, &words)
    };
    namespace.sysctl("ipv4/ip_forward", "1")?;
    let inside = Namespace::create(&format!("{}plain-pod", dc.shape.prefix))?;
    lab::net::cable((&namespace, "cali1"), (&inside, "eth0"))?;
    lab::net::address(&inside, "eth0", IpNet::from(std::net::IpAddr::from(pod)))?;
    lab::net::address(&namespace, "cali1", "169.254.1.1/32".parse::<IpNet>()?)?;
    oracle::ip(&inside, &["route", "add", "169.254.1.1", "dev", "eth0"])?;
    oracle::ip(&inside, &["route", "add", "default", "via", "169.254.1.1"])?;
    // Any tunnel makes the kernel load the driver, and with that there is a tunl0.
    ip("link add loader type ipip local 127.0.0.1")?;
    ip("link del loader")?;
    ip(&format!("addr add {pod}/32 dev tunl0"))?;
    ip("addr del 10.244.21.7/32 dev tunl0")?;
    ip("addr add 10.244.21.0/32 dev tunl0")?;
    ip("link set tunl0 up")?;
    ip(&format!("route add {pod}/32 dev cali1"))?;
    ip(&format!("route add {ours} via {peer} dev tunl0 onlink"))?;
    let asn = dc.racks[0].nodes[0].asn;
    let config = tor::Config {
        name: "plain".to_owned(),
        asn,
        router_id: address,
        networks: vec![theirs],
        peers: vec![(peer, asn)],
        hold_time: Duration::from_secs(90),
        graceful_restart: true,
        folder: "/run/lab/plain".into(),
    };
    let _speaker = tor::start(Kind::Margay, &namespace, &config)?;
    let a = dc.node("node-a1")?;
    a.start()?;
    a.wait_ready(PATIENCE)?;
    a.wait_in_step(PATIENCE)?;
    a.attach()?;
    let a = &dc.racks[0].nodes[0];
    wait::until("the route", PATIENCE, || {
        let seen = underlay::route(a, &theirs.to_string())?;
        same(
            "route",
            &seen,
            &(address.to_string(), "margay-ipip".to_owned()),
        )
    })?;
    let capture = Capture::start(&dc.spine.as_ref().context("a spine")?.namespace)?;
    Pinger::open(&a.pods[0].namespace)?.wait_answer(pod, PATIENCE)?;
    Pinger::open(&inside)?.wait_answer(a.pods[0].address, PATIENCE)?;
    let frames = capture.finish()?;
    for (from, to, outer) in [
        (a.pods[0].address, pod, (peer, address, 4)),
        (pod, a.pods[0].address, (address, peer, 4)),
    ] {
        let mut carried = frames.iter().filter(|frame| frame.carries(from, to));
        if !carried.any(|frame| frame.plain_ipv4() == Some(outer)) {
            bail!("nothing from {from} to {to} was wrapped as {outer:?}");
        }
    }
    Ok(())
}

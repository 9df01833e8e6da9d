//! Speakers on real sockets, each on a loopback address of its own. Next hops are made up: nobody takes one in 127/8.
#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

mod dynamic;
mod md5;
mod operator;
mod send_hold;
mod starvation;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bgp::config::{NextHopMode, PeerConfig, SpeakerConfig};
use bgp::policy::Policy;
use bgp::rib::Selection;
use bgp::session::{Direction, State};
use bgp::view::PeerStatus;
use bgp_net::{Handle, Listen, RouteFeed, Routes};
use bgp_wire::{
    Attributes, Capability, Context, Family, Message, NextHop, Notification, Open, header,
};
use ipnet::IpNet;

/// Far longer than any of this takes, so that a slow machine fails nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// An address that no other run of these tests uses at the same time.
fn address(host: u8) -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, host)
}

fn next_hop(host: u8) -> NextHop {
    NextHop::V4(Ipv4Addr::new(192, 0, 2, host))
}

fn peer(asn: u32, local: u8, port: u16) -> PeerConfig {
    PeerConfig {
        port,
        local_address: Some(address(local).into()),
        connect_retry: Duration::from_secs(1),
        next_hop: NextHopMode::Keep,
        import: Policy::accept_all(),
        export: Policy::accept_all(),
        ..PeerConfig::new(asn)
    }
}

fn speaker(host: u8, asn: u32, peers: &[(u8, PeerConfig)], prefixes: &[&str]) -> SpeakerConfig {
    let mut config = SpeakerConfig::new(asn, address(host));
    config.peers = peers
        .iter()
        .map(|(peer, config)| (address(*peer).into(), config.clone()))
        .collect();
    let attributes = Attributes {
        next_hop: Some(next_hop(host)),
        ..Attributes::originated()
    };
    config.originated = prefixes
        .iter()
        .map(|text| (text.parse().unwrap(), attributes.clone()))
        .collect();
    config
}

fn listen(host: u8, port: u16) -> Listen {
    Listen {
        addresses: vec![SocketAddr::new(address(host).into(), port)],
    }
}

async fn status(handle: &Handle, of: u8) -> PeerStatus {
    let peers = handle.peers().await.unwrap();
    peers
        .into_iter()
        .find(|peer| peer.address == IpAddr::from(address(of)))
        .unwrap()
}

/// Asks again and again until the answer is right.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"))
}

async fn established(handle: &Handle, of: u8) {
    until("established", async || {
        (status(handle, of).await.state == State::Established).then_some(())
    })
    .await;
}

/// Follows a route feed until it says this.
async fn follow(
    routes: &mut Routes,
    fib: &mut BTreeMap<IpNet, NextHop>,
    done: impl Fn(&BTreeMap<IpNet, NextHop>) -> bool,
) {
    let following = async {
        while !done(fib) {
            if let RouteFeed::Changes(changes) = routes.recv().await.expect("the speaker runs") {
                for change in changes {
                    match change.next_hops.first() {
                        Some(next_hop) => fib.insert(change.prefix, *next_hop),
                        None => fib.remove(&change.prefix),
                    };
                }
            }
        }
    };
    // Hundreds of thousands, in some tests.
    tokio::time::timeout(PATIENCE * 10, following)
        .await
        .expect("the routes come");
}

#[tokio::test]
async fn two_speakers_exchange_routes() {
    let port = 17901;
    let (one, mut from_two) = bgp_net::spawn(
        speaker(1, 65001, &[(2, peer(65002, 1, port))], &["10.1.0.0/24"]),
        &listen(1, port),
        false,
    )
    .unwrap();
    let (two, mut from_one) = bgp_net::spawn(
        speaker(
            2,
            65002,
            &[(1, peer(65001, 2, port))],
            &["10.2.0.0/24", "10.2.1.0/24"],
        ),
        &listen(2, port),
        false,
    )
    .unwrap();
    let (mut fib_one, mut fib_two) = (BTreeMap::new(), BTreeMap::new());
    follow(&mut from_two, &mut fib_one, |fib| fib.len() == 2).await;
    follow(&mut from_one, &mut fib_two, |fib| fib.len() == 1).await;
    assert_eq!(fib_two[&"10.1.0.0/24".parse().unwrap()], next_hop(1));

    // A changed configuration withdraws and announces without a reset.
    one.configure(speaker(
        1,
        65001,
        &[(2, peer(65002, 1, port))],
        &["10.3.0.0/24"],
    ));
    let only: IpNet = "10.3.0.0/24".parse().unwrap();
    follow(&mut from_one, &mut fib_two, |fib| {
        fib.len() == 1 && fib.contains_key(&only)
    })
    .await;
    let seen = status(&two, 1).await;
    assert_eq!((seen.flaps, seen.families[0].received), (0, 1));
    let told = one
        .routes_to(address(2).into(), Selection::All)
        .await
        .unwrap()
        .unwrap();
    assert!(
        told.iter()
            .any(|view| view.prefix == only && view.result.is_ok())
    );

    // A last word reaches the other side, and its routes go.
    one.shutdown("enough").await.unwrap();
    follow(&mut from_one, &mut fib_two, BTreeMap::is_empty).await;
    let error = status(&two, 1).await.last_error.unwrap().ended;
    assert_eq!(error.direction, Direction::Received);
    assert!(error.to_string().contains("enough"), "{error}");
    assert!(one.peers().await.is_err());
}

#[tokio::test]
async fn a_silent_end_keeps_routes_until_the_successor_is_there() {
    let port = 17902;
    let config = speaker(3, 65003, &[(4, peer(65004, 3, port))], &["10.3.0.0/24"]);
    let (old, _routes) = bgp_net::spawn(config.clone(), &listen(3, port), false).unwrap();
    let (helper, mut routes) = bgp_net::spawn(
        speaker(4, 65004, &[(3, peer(65003, 4, port))], &[]),
        &listen(4, port),
        false,
    )
    .unwrap();
    let mut fib = BTreeMap::new();
    follow(&mut routes, &mut fib, |fib| fib.len() == 1).await;

    old.abandon().await.unwrap();
    until("down", async || {
        (status(&helper, 3).await.state != State::Established).then_some(())
    })
    .await;
    assert!(status(&helper, 3).await.families[0].stale);
    let (new, _routes) = bgp_net::spawn(config, &listen(3, port), true).unwrap();
    established(&helper, 3).await;
    until("fresh again", async || {
        (!status(&helper, 3).await.families[0].stale).then_some(())
    })
    .await;
    assert_eq!(fib.len(), 1);
    while let Some(feed) = routes.try_recv() {
        if let RouteFeed::Changes(changes) = feed {
            assert!(
                changes.iter().all(|change| !change.next_hops.is_empty()),
                "withdrawn on the way: {changes:?}"
            );
        }
    }
    assert_eq!(status(&helper, 3).await.flaps, 1);
    new.abandon().await.unwrap();
}

/// A peer made of a bare socket.
struct Raw {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            received: Vec::new(),
        }
    }

    fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    fn receive<T>(&mut self, read: impl Fn(Message<'_>) -> Option<T>) -> T {
        let context = Context {
            four_octet_as: true,
            ..Context::default()
        };
        loop {
            while let Some(len) = header::frame_len(&self.received, &context).unwrap()
                && self.received.len() >= len
            {
                let frame: Vec<_> = self.received.drain(..len).collect();
                if let Some(answer) = read(header::decode(&frame, &context).unwrap()) {
                    return answer;
                }
            }
            let mut buffer = [0; 4096];
            let len = self.stream.read(&mut buffer).unwrap();
            assert!(len > 0, "closed");
            self.received.extend_from_slice(&buffer[..len]);
        }
    }

    fn open(&mut self, asn: u32, host: u8) -> Open {
        self.open_with(asn, host, 30)
    }

    fn open_with(&mut self, asn: u32, host: u8, hold_time: u16) -> Open {
        self.send(|out| {
            let capabilities = vec![
                Capability::Multiprotocol(Family::IPV4_UNICAST),
                Capability::FourOctetAs(asn),
            ];
            Open {
                asn,
                hold_time,
                router_id: address(host),
                capabilities,
            }
            .encode(out);
        });
        self.receive(|message| match message {
            Message::Open(open) => Some(open),
            _ => None,
        })
    }
}

#[tokio::test]
async fn a_raw_peer_dials_in() {
    let port = 17903;
    let passive = PeerConfig {
        passive: true,
        ..peer(65006, 5, port)
    };
    let config = speaker(5, 65005, &[(6, passive)], &["10.5.0.0/24"]);
    let (handle, _routes) = bgp_net::spawn(config, &listen(5, port), false).unwrap();
    let mut raw = tokio::task::spawn_blocking(move || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::new(address(6).into(), 0).into())
            .unwrap();
        socket
            .connect(&SocketAddr::new(address(5).into(), port).into())
            .unwrap();
        let mut raw = Raw::new(socket.into());
        let open = raw.open(65006, 6);
        assert_eq!((open.asn, open.hold_time), (65005, 90));
        raw.send(header::encode_keepalive);
        let prefixes = raw.receive(|message| match message {
            Message::Update(update) if update.end_of_rib().is_none() => Some(
                update
                    .reachable
                    .iter()
                    .flat_map(|(_, nlri)| nlri.iter())
                    .collect::<Vec<_>>(),
            ),
            _ => None,
        });
        assert_eq!(prefixes, ["10.5.0.0/24".parse::<IpNet>().unwrap()]);
        raw
    })
    .await
    .unwrap();
    let seen = status(&handle, 6).await;
    assert_eq!(
        (seen.state, seen.negotiated.unwrap().hold_time.as_secs()),
        (State::Established, 30)
    );

    // An OPEN now is out of place: 5/3 with the message's type (RFC 6608), told before the connection closes.
    let notification = tokio::task::spawn_blocking(move || {
        raw.send(|out| {
            Open {
                asn: 65006,
                hold_time: 30,
                router_id: address(6),
                capabilities: Vec::new(),
            }
            .encode(out);
        });
        raw.receive(|message| match message {
            Message::Notification(notification) => Some(notification),
            _ => None,
        })
    })
    .await
    .unwrap();
    assert_eq!(notification, Notification::new(5, 3, [1]));
    assert_eq!(
        status(&handle, 6).await.last_error.unwrap().ended.direction,
        Direction::Sent
    );
}

#[tokio::test]
async fn strangers_are_turned_away_and_refusals_are_told() {
    let port = 17904;
    // Nobody listens on the peer's port.
    let config = speaker(7, 65007, &[(8, peer(65008, 7, port))], &[]);
    let (handle, _routes) = bgp_net::spawn(config, &listen(7, port), false).unwrap();
    let attempt = until("an attempt", async || status(&handle, 8).await.last_attempt).await;
    assert!(
        attempt.ended.to_string().contains("refused"),
        "{}",
        attempt.ended
    );

    let stranger = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect((address(7), port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read(&mut [0; 64])
    });
    assert!(matches!(stranger.await.unwrap(), Ok(0) | Err(_)));
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind((address(9), 17905)).unwrap();
    let error = bgp_net::spawn(speaker(9, 65009, &[], &[]), &listen(9, 17905), false).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot listen on {}:17905", address(9))),
        "{error}"
    );
    drop(taken);
}

/// Of a port, how many of its connections are half closed and still have a descriptor (`/proc/net/tcp`: FIN_WAIT1 and 2, inode).
fn half_closed(port: u16) -> usize {
    let sockets = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let inode = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let is = fields[1].ends_with(&format!(":{port:04X}"))
                && matches!(fields[3], "04" | "05")
                && fields[9] != "0";
            is.then(|| fields[9].to_owned())
        };
        let inodes: BTreeSet<_> = table.lines().skip(1).filter_map(inode).collect();
        inodes.len()
    };
    // The kernel writes the table in pieces: what goes and comes meanwhile may stand there together. What piles up stays.
    (0..3).map(|_| sockets()).min().unwrap()
}

#[tokio::test]
async fn a_peer_that_calls_again_and_again_piles_up_no_sockets() {
    let port = 17911;
    let passive = PeerConfig {
        passive: true,
        ..peer(65042, 41, port)
    };
    let (_handle, _routes) = bgp_net::spawn(
        speaker(41, 65041, &[(42, passive)], &[]),
        &listen(41, port),
        false,
    )
    .unwrap();
    let mut calls = Vec::new();
    let mut most = 0;
    for _ in 0..40 {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from((address(42), 0)).into())
            .unwrap();
        socket
            .connect(&SocketAddr::from((address(41), port)).into())
            .unwrap();
        // Its OPEN: the call is taken, and the one before is given up.
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut octet = [0];
        stream.read_exact(&mut octet).unwrap();
        calls.push(stream);
        most = most.max(half_closed(port));
    }
    assert!((1..=5).contains(&most), "{most} of {}", calls.len());
}

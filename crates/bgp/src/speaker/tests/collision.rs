//! Two connections, one session (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §4.2).

use std::time::Duration;

use bgp_wire::capability::GracefulRestart;
use bgp_wire::notification::cease;
use bgp_wire::{Capability, Family, Notification, Open};

use super::net::{Net, address, peer, secs, speaker};
use crate::session::{ConnId, Opener, State};
use crate::speaker::Event;

fn downs(net: &Net, node: usize) -> usize {
    net.nodes[node]
        .events
        .iter()
        .filter(|event| matches!(event, Event::SessionDown { .. }))
        .count()
}

#[test]
fn both_dial_at_once_and_the_higher_identifier_keeps_its_connection() {
    for (latency, piece) in [(1, usize::MAX), (40, 1), (200, 7)] {
        let mut net = Net::new([
            speaker(0, 65001, &[(1, peer(65002))]),
            speaker(1, 65002, &[(0, peer(65001))]),
        ]);
        net.latency = Duration::from_millis(latency);
        net.piece = piece;
        net.run_until(secs(30), |net| net.up(0, 1));
        net.run(secs(10));
        assert!(net.up(0, 1));
        assert_eq!(net.connections(0, 1), 1);
        assert_eq!(downs(&net, 0) + downs(&net, 1), 0);
        assert_eq!(
            net.status(1, 0).connection.unwrap().opener,
            Opener::Local,
            "10.0.0.2 is the higher one"
        );
        assert_eq!(net.status(0, 1).connection.unwrap().opener, Opener::Peer);
        assert_eq!(
            net.status(0, 1).last_error,
            None,
            "a lost collision is no error"
        );
    }
}

#[test]
fn equal_identifiers_are_told_apart_by_their_as() {
    let mut low = speaker(0, 65001, &[(1, peer(65002))]);
    low.router_id = [9, 9, 9, 9].into();
    let mut high = speaker(1, 65002, &[(0, peer(65001))]);
    high.router_id = low.router_id;
    let mut net = Net::new([low, high]);
    net.run_until(secs(30), |net| net.up(0, 1));
    assert_eq!(net.status(1, 0).connection.unwrap().opener, Opener::Local);
}

#[test]
fn a_second_connection_does_not_disturb_an_established_session() {
    // Without graceful restart: node 1 comes up passive, then forgets that and dials.
    let plain = |asn| crate::config::PeerConfig {
        graceful_restart: None,
        ..peer(asn)
    };
    let mut net = Net::new([
        speaker(0, 65001, &[(1, plain(65002))]),
        speaker(1, 65002, &[(0, plain(65001))]),
    ]);
    net.run_until(secs(30), |net| net.up(0, 1));
    let now = net.now;
    let (local, remote) = (address(0), address(1));
    let conn = net
        .speaker(0)
        .handle_incoming((local, 179).into(), (remote, 5000).into(), now);
    assert!(conn.is_some(), "it is heard before it is turned down");
    net.run(secs(300));
    assert!(net.up(0, 1));
    assert_eq!(downs(&net, 0), 0);
}

/// Node 0 calls the one with the higher identifier, which has a session with it.
fn call(net: &mut Net) -> ConnId {
    let now = net.now;
    let (local, remote) = (address(1), address(0));
    let conn = net
        .speaker(1)
        .handle_incoming((local, 179).into(), (remote, 5000).into(), now);
    let restart = GracefulRestart {
        restarted: false,
        notification: true,
        restart_time: 120,
        families: vec![(Family::IPV4_UNICAST, true)],
    };
    let open = Open {
        asn: 65001,
        hold_time: 90,
        router_id: [10, 0, 0, 1].into(),
        capabilities: vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::FourOctetAs(65001),
            Capability::GracefulRestart(restart),
        ],
    };
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    let conn = conn.unwrap();
    net.speaker(1).handle_data(conn, &bytes, now);
    conn
}

#[test]
fn a_call_that_was_long_on_its_way_is_no_restart() {
    let mut net = Net::new([
        speaker(0, 65001, &[(1, peer(65002))]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run_until(secs(30), |net| net.up(0, 1));
    call(&mut net);
    net.run(secs(10));
    assert!(net.up(0, 1));
    assert_eq!(downs(&net, 1), 0);
    call(&mut net);
    net.run(Duration::from_millis(1));
    assert_eq!(downs(&net, 1), 1, "now it must have restarted");
}

/// The peer has sent all that its side of a session takes: an OPEN on our own connection would have it choose that one,
/// while we are up on the other.
#[test]
fn a_dial_that_is_answered_late_leaves_the_other_connection_alone() {
    let mut net = Net::new([
        speaker(0, 65001, &[(1, peer(65002))]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.lose(0, 1, true);
    net.run(Duration::from_millis(1));
    let dial = |event: &&Event| matches!(event, Event::Connect { .. });
    let Some(Event::Connect { conn, remote, .. }) = net.nodes[1].events.iter().find(dial).cloned()
    else {
        panic!("it dials");
    };
    call(&mut net);
    assert_eq!(net.state(1, 0), State::OpenConfirm);
    let now = net.now;
    net.speaker(1)
        .handle_connected(conn, (address(1), 5000).into(), remote, now);
    assert_eq!(net.speaker(1).poll_transmit(conn), None);
    net.run(Duration::from_millis(1));
    let closed =
        |event: &Event| matches!(event, Event::Close { conn: closed, .. } if *closed == conn);
    assert!(net.nodes[1].events.iter().any(closed));
    assert_eq!(net.state(1, 0), State::OpenConfirm);
}

/// A session that is over before the driver asks for events is one that was up.
#[test]
fn ups_and_downs_come_in_pairs() {
    let mut net = Net::new([
        speaker(0, 65001, &[(1, peer(65002))]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run_until(secs(30), |net| net.up(0, 1));
    net.run(secs(10));
    net.nodes[1].events.clear();
    let conn = call(&mut net);
    let now = net.now;
    let mut bytes = Vec::new();
    bgp_wire::header::encode_keepalive(&mut bytes);
    Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN).encode(&mut bytes);
    net.speaker(1).handle_data(conn, &bytes, now);
    net.run(Duration::from_millis(1));
    let up = |event: &&Event| matches!(event, Event::SessionUp { .. });
    let ups = net.nodes[1].events.iter().filter(up).count();
    assert_eq!((ups, downs(&net, 1)), (1, 2));
}

#[test]
fn random_latencies_end_in_one_session_on_one_connection() {
    for seed in 0..200_u64 {
        let mut net = Net::new([
            speaker(0, 65001, &[(1, peer(65002))]),
            speaker(1, 65002, &[(0, peer(65001))]),
        ]);
        // The second dials later than the first, at any moment of the first one's handshake.
        net.latency = Duration::from_millis(10);
        net.kill(1);
        net.run(Duration::from_micros(seed * 500));
        net.boot(1, false);
        net.run_until(secs(60), |net| net.up(0, 1));
        net.run(secs(5));
        assert!(net.up(0, 1), "offset {seed}");
        assert_eq!(net.connections(0, 1), 1, "offset {seed}");
    }
}

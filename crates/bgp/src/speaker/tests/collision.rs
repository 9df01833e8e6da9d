//! Two connections, one session (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §4.2).

use std::time::Duration;

use super::net::{Net, address, peer, secs, speaker};
use crate::session::Opener;
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

//! What the operator does to one peer, and passwords.

use bgp_wire::Family;

use super::net::{Net, address, originating, peer, secs, speaker};
use crate::config::{Password, PeerConfig, SpeakerConfig};
use crate::session::{Halt, State};
use crate::speaker::Event;

fn pair() -> Net {
    Net::new([
        originating(speaker(0, 65001, &[(1, peer(65002))]), &["10.1.0.0/24"]),
        originating(speaker(1, 65002, &[(0, peer(65001))]), &["10.2.0.0/24"]),
    ])
}

fn last_error(net: &Net, node: usize) -> String {
    let error = net.status(node, 1 - node).last_error;
    error
        .map(|error| error.ended.to_string())
        .unwrap_or_default()
}

#[test]
fn a_reset_says_why_and_comes_back_at_once() {
    let mut net = pair();
    net.run_until(secs(5), |net| net.up(0, 1));
    let now = net.now;
    assert!(net.speaker(0).reset_peer(address(1), "new cable", now));
    assert!(!net.speaker(0).reset_peer(address(7), "nobody", now));
    net.run_until(secs(20), |net| net.up(0, 1) && net.flaps(0) == 1);
    // Inside a Hard Reset, for both know RFC 8538.
    assert_eq!(
        last_error(&net, 1),
        "received Cease/Hard Reset (Cease/Administrative Reset: new cable)"
    );
}

#[test]
fn a_peer_that_is_shut_down_stays_down_until_it_is_reset() {
    let mut net = pair();
    net.run_until(secs(5), |net| net.up(0, 1));
    let now = net.now;
    net.speaker(0)
        .shut_down_peer(address(1), "maintenance", now);
    net.run(secs(1000));
    assert_eq!(net.state(0, 1), State::Idle);
    assert!(last_error(&net, 1).contains("Administrative Shutdown: maintenance"));
    let halt = net.status(0, 1).halt;
    assert_eq!(halt, Some(Halt::Administrative("maintenance".into())));
    assert_eq!(
        halt.unwrap().to_string(),
        "shut down by the operator: maintenance"
    );
    // Another configuration is no order to come back.
    let mut config = net.config(0);
    for peer in config.peers.values_mut() {
        peer.hold_time = secs(30);
    }
    net.configure(0, config);
    net.run(secs(100));
    assert_eq!(net.state(0, 1), State::Idle);
    let now = net.now;
    net.speaker(0).reset_peer(address(1), "", now);
    net.run_until(secs(300), |net| net.up(0, 1));
    assert_eq!(net.status(0, 1).negotiated.unwrap().hold_time, secs(30));
    assert_eq!(net.status(0, 1).halt, None);
}

#[test]
fn a_soft_reset_moves_everything_again_and_nothing_ends() {
    let mut net = pair();
    net.run_until(secs(5), |net| {
        net.nodes.iter().all(|node| node.routes.len() == 1)
    });
    net.run(secs(1));
    let before = [0, 1].map(|node| net.status(node, 1 - node).counters);
    assert_eq!(net.speaker(0).refresh_peer(address(1)), Some(true));
    assert_eq!(net.speaker(0).refresh_peer(address(7)), None);
    net.run(secs(1));
    let after = [0, 1].map(|node| net.status(node, 1 - node).counters);
    for (before, after) in before.iter().zip(after) {
        assert!(after.updates_in > before.updates_in);
        assert!(after.updates_out > before.updates_out);
    }
    assert_eq!(net.flaps(0) + net.flaps(1), 0);
    assert!(net.nodes.iter().all(|node| node.withdrawn == 0));
}

#[test]
fn keepalives_come_as_often_as_configured_and_a_third_of_the_hold_time_at_most() {
    for (keepalive, sent) in [(Some(secs(5)), 180..=270), (Some(secs(80)), 30..=46)] {
        let peer = |asn| PeerConfig {
            keepalive,
            ..peer(asn)
        };
        let mut net = Net::new([
            speaker(0, 65001, &[(1, peer(65002))]),
            speaker(1, 65002, &[(0, peer(65001))]),
        ]);
        net.run_until(secs(5), |net| net.up(0, 1));
        net.run(secs(1000));
        let messages = net.status(0, 1).counters.messages_out;
        assert!(sent.contains(&messages), "{keepalive:?}: {messages}");
        let expected = keepalive.unwrap().min(secs(30));
        assert_eq!(net.status(0, 1).negotiated.unwrap().keepalive, expected);
        assert_eq!(net.status(0, 1).families[0].family, Family::IPV4_UNICAST);
    }
}

fn password(text: &str) -> Option<Password> {
    Some(Password::new(text).unwrap())
}

/// Keys as the events say them since the last look: whether there is one, and on how many connections.
fn keys(net: &mut Net) -> Vec<(String, bool, usize)> {
    let events = std::mem::take(&mut net.nodes[0].events);
    let keys = events.into_iter().filter_map(|event| {
        let Event::SetKey {
            peers,
            password,
            connections,
        } = event
        else {
            return None;
        };
        Some((peers.to_string(), password.is_some(), connections.len()))
    });
    keys.collect()
}

#[test]
fn another_password_is_another_key_and_no_reset() {
    let mut net = pair();
    net.run_until(secs(5), |net| net.up(0, 1));
    assert_eq!(keys(&mut net), []);
    let configure = |net: &mut Net, password: Option<Password>| {
        let mut config = net.config(0);
        for peer in config.peers.values_mut() {
            peer.password.clone_from(&password);
        }
        net.configure(0, config);
        net.run(secs(20));
    };
    let here = "10.0.0.2/32".to_owned();
    // With or without is another handshake.
    configure(&mut net, password("one"));
    assert_eq!(keys(&mut net), [(here.clone(), true, 1)]);
    assert!(net.up(0, 1) && net.flaps(0) == 1);
    assert!(net.status(0, 1).password);
    configure(&mut net, password("two"));
    assert_eq!(keys(&mut net), [(here.clone(), true, 1)]);
    configure(&mut net, password("two"));
    assert_eq!(keys(&mut net), []);
    assert!(net.up(0, 1) && net.flaps(0) == 1, "the session goes on");
    let mut config = net.config(0);
    config.peers.clear();
    net.configure(0, config);
    net.run(secs(1));
    assert_eq!(keys(&mut net), [(here, false, 0)]);
}

#[test]
fn a_dial_that_nobody_answers_hints_at_the_password() {
    let with_password = PeerConfig {
        password: password("one"),
        ..peer(65002)
    };
    let mut net = Net::new([
        speaker(0, 65001, &[(1, with_password)]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.lose(0, 1, true);
    net.run(secs(60));
    let attempt = net.status(0, 1).last_attempt.unwrap().ended.to_string();
    assert!(attempt.contains("another password"), "{attempt}");
}

#[test]
fn configuration_keeps_a_peer_down_for_a_reason_that_shows() {
    let mut config = speaker(0, 65001, &[(1, peer(65002))]);
    let shut = |config: &mut SpeakerConfig, reason: Option<&str>| {
        for peer in config.peers.values_mut() {
            peer.shutdown = reason.map(str::to_owned);
        }
    };
    shut(&mut config, Some("Secret/x is missing"));
    let mut net = Net::new([config.clone(), speaker(1, 65002, &[(0, peer(65001))])]);
    net.run(secs(300));
    assert_eq!((net.state(0, 1), net.up(0, 1)), (State::Idle, false));
    let halt = net.status(0, 1).halt.unwrap().to_string();
    assert_eq!(halt, "Secret/x is missing");
    // The operator's reset is no way around it.
    let now = net.now;
    net.speaker(0).reset_peer(address(1), "", now);
    net.run(secs(300));
    assert_eq!(net.state(0, 1), State::Idle);
    shut(&mut config, None);
    net.configure(0, config.clone());
    net.run_until(secs(60), |net| net.up(0, 1));
    shut(&mut config, Some("gone again"));
    net.configure(0, config);
    net.run(secs(60));
    assert_eq!(net.state(0, 1), State::Idle);
    assert!(last_error(&net, 1).contains("Administrative Shutdown"));
}

//! Sessions come up, end, and come back.

use bgp_wire::Family;

use super::net::{Net, address, peer, secs, speaker};
use crate::config::PeerConfig;
use crate::session::{Direction, State};
use crate::speaker::Event;

fn pair(change: impl Fn(&mut PeerConfig)) -> Net {
    let (mut one, mut two) = (peer(65002), peer(65001));
    change(&mut one);
    change(&mut two);
    Net::new([
        speaker(0, 65001, &[(1, one)]),
        speaker(1, 65002, &[(0, two)]),
    ])
}

fn last_error(net: &Net, node: usize) -> String {
    net.status(node, 1 - node)
        .last_error
        .map(|error| error.ended.to_string())
        .unwrap_or_default()
}

#[test]
fn comes_up_and_says_so() {
    let mut net = pair(|_| {});
    net.run_until(secs(5), |net| net.up(0, 1));
    net.run(secs(1000));
    let status = net.status(0, 1);
    assert_eq!(status.state, State::Established);
    assert!(status.state_age > secs(990));
    let negotiated = status.negotiated.unwrap();
    assert_eq!(negotiated.hold_time, secs(90));
    assert_eq!(negotiated.router_id.to_string(), "10.0.0.2");
    assert_eq!(
        negotiated.local_capabilities.len(),
        negotiated.peer_capabilities.len()
    );
    // A KEEPALIVE every 22.5 to 30 s.
    let keepalives = status.counters.messages_out - 1;
    assert!((33..=46).contains(&keepalives), "{keepalives}");
    assert!(net.nodes[0].events.contains(&Event::SessionUp {
        peer: address(1),
        asn: 65002,
        hold_time: secs(90)
    }));
}

#[test]
fn the_smaller_hold_time_holds() {
    let mut net = Net::new([
        speaker(
            0,
            65001,
            &[(
                1,
                PeerConfig {
                    hold_time: secs(3),
                    ..peer(65002)
                },
            )],
        ),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run_until(secs(5), |net| net.up(0, 1));
    net.run(secs(60));
    assert!(net.up(0, 1));
    net.lose(0, 1, true);
    let after = net.run_until(secs(10), |net| net.state(1, 0) != State::Established);
    assert!(after <= secs(3), "{after:?}");
    assert_eq!(last_error(&net, 1), "sent Hold Timer Expired");
}

#[test]
fn hold_time_zero_means_no_keepalives_and_no_expiry() {
    let mut net = pair(|peer| peer.hold_time = secs(0));
    net.run_until(secs(5), |net| net.up(0, 1));
    net.run(secs(1));
    let before = net.status(0, 1).counters;
    net.lose(0, 1, true);
    net.run(secs(100_000));
    assert!(net.up(0, 1));
    assert_eq!(net.status(0, 1).counters, before);
}

#[test]
fn a_passive_peer_is_dialled_and_two_passive_ones_never_meet() {
    let mut net = Net::new([
        speaker(
            0,
            65001,
            &[(
                1,
                PeerConfig {
                    passive: true,
                    ..peer(65002)
                },
            )],
        ),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run_until(secs(5), |net| net.up(0, 1));
    let mut net = pair(|peer| peer.passive = true);
    net.run(secs(1000));
    assert_eq!(
        (net.state(0, 1), net.state(1, 0)),
        (State::Active, State::Active)
    );
    assert_eq!(net.status(0, 1).next_attempt, None);
}

#[test]
fn a_wrong_as_is_told_to_both_operators() {
    let mut net = Net::new([
        speaker(0, 65001, &[(1, peer(65099))]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run(secs(30));
    assert!(!net.up(0, 1));
    assert_eq!(
        last_error(&net, 0),
        "sent OPEN Message Error/Bad Peer AS (peer says AS 65002, configured is 65099)"
    );
    assert_eq!(
        net.status(1, 0).last_error.unwrap().ended.direction,
        Direction::Received
    );
    assert_eq!(
        last_error(&net, 1),
        "received OPEN Message Error/Bad Peer AS"
    );
    // Once put right, the next attempt succeeds.
    let right = speaker(0, 65001, &[(1, peer(65002))]);
    net.configure(0, right);
    net.run_until(secs(130), |net| net.up(0, 1));
}

#[test]
fn an_internal_peer_with_our_identifier_is_refused() {
    let mut twin = speaker(1, 65001, &[(0, peer(65001))]);
    twin.router_id = [10, 0, 0, 1].into();
    let mut net = Net::new([speaker(0, 65001, &[(1, peer(65001))]), twin]);
    net.run(secs(30));
    assert!(!net.up(0, 1));
    assert!(
        last_error(&net, 0).contains("Bad BGP Identifier"),
        "{}",
        last_error(&net, 0)
    );
}

#[test]
fn no_common_family() {
    let six = PeerConfig {
        families: vec![Family::IPV6_UNICAST],
        ..peer(65002)
    };
    let mut net = Net::new([
        speaker(0, 65001, &[(1, six)]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.run(secs(30));
    assert!(!net.up(0, 1));
    let errors = last_error(&net, 0) + &last_error(&net, 1);
    assert!(errors.contains("Unsupported Capability"), "{errors}");
}

#[test]
fn attempts_become_rare_and_are_not_forgotten_by_a_short_success() {
    // The peer's host is down: dials get no answer.
    let mut net = pair(|_| {});
    net.power_off(1);
    net.run(secs(600));
    let status = net.status(0, 1);
    assert!(
        status.failures > 10 && status.failures < 40,
        "{}",
        status.failures
    );
    assert!(
        status.next_attempt.is_some_and(|wait| wait <= secs(30)) || status.state == State::Connect
    );
    net.boot(1, false);
    net.run_until(secs(31), |net| net.up(0, 1));
    assert_eq!(
        net.status(0, 1).failures,
        status.failures,
        "not merely by reaching Established"
    );
    net.run(secs(61));
    assert_eq!(net.status(0, 1).failures, 0);
}

#[test]
fn a_lost_connection_is_back_soon() {
    let mut net = pair(|_| {});
    net.run_until(secs(5), |net| net.up(0, 1));
    net.run(secs(100));
    net.cut(0, 1);
    net.run(secs(1));
    assert_eq!(
        net.state(0, 1),
        State::Active,
        "and hears the peer meanwhile"
    );
    let after = net.run_until(secs(6), |net| net.up(0, 1));
    assert!(after <= secs(5), "{after:?}");
    assert_eq!(
        (net.status(0, 1).flaps, last_error(&net, 0).as_str()),
        (1, "connection reset")
    );
}

#[test]
fn shutdown_says_why() {
    let mut net = pair(|peer| peer.graceful_restart = None);
    net.run_until(secs(5), |net| net.up(0, 1));
    let now = net.now;
    net.speaker(0).shutdown("rebooting the rack", now);
    net.run(secs(10));
    assert_eq!(net.state(0, 1), State::Idle);
    assert_eq!(
        last_error(&net, 1),
        "received Cease/Administrative Shutdown: rebooting the rack"
    );
    assert_eq!(net.connections(0, 1), 0);
}

#[test]
fn configuration_changes_reset_what_they_must() {
    let mut net = Net::new([
        speaker(0, 65001, &[(1, peer(65002)), (2, peer(65003))]),
        speaker(1, 65002, &[(0, peer(65001))]),
        speaker(2, 65003, &[(0, peer(65001))]),
    ]);
    net.run_until(secs(5), |net| net.up(0, 1) && net.up(0, 2));

    // Nothing that a session depends on.
    let mut config = net.config(0);
    for peer in config.peers.values_mut() {
        peer.origin = "BGPPeer/other".into();
        peer.connect_retry = secs(60);
    }
    net.configure(0, config.clone());
    net.run(secs(10));
    assert!(net.up(0, 1) && net.up(0, 2));
    assert_eq!((net.status(0, 1).flaps, net.status(0, 2).flaps), (0, 0));

    // One session's hold time.
    config.peers.get_mut(&address(1)).unwrap().hold_time = secs(30);
    net.configure(0, config.clone());
    net.run_until(secs(10), |net| net.up(0, 1));
    assert_eq!((net.status(0, 1).flaps, net.status(0, 2).flaps), (1, 0));
    assert_eq!(net.status(1, 0).negotiated.unwrap().hold_time, secs(30));
    assert!(
        last_error(&net, 1).contains("Other Configuration Change"),
        "{}",
        last_error(&net, 1)
    );

    // A peer less.
    config.peers.remove(&address(2));
    net.configure(0, config.clone());
    net.run(secs(5));
    let error = net.status(2, 0).last_error.unwrap().ended.to_string();
    assert!(error.contains("Peer De-configured"), "{error}");
    assert!(net.up(0, 1));

    // And back, in the same slot.
    config.peers.insert(address(2), peer(65003));
    net.configure(0, config);
    net.run_until(secs(130), |net| net.up(0, 2));
}

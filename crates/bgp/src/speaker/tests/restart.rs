//! Graceful restart, both roles (RFC 4724, RFC 8538).

use std::net::Ipv6Addr;
use std::time::Duration;

use bgp_wire::{Family, Notification};

use super::net::{Net, address, originating, peer, prefix, secs, speaker};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::session::State;
use crate::speaker::Event;

/// Node 0 announces two prefixes to node 1, which is up and has them.
fn pair(change: impl Fn(&mut PeerConfig)) -> Net {
    let (mut one, mut two) = (peer(65002), peer(65001));
    change(&mut one);
    change(&mut two);
    let mut net = Net::new([
        originating(
            speaker(0, 65001, &[(1, one)]),
            &["10.1.0.0/24", "10.1.1.0/24"],
        ),
        originating(speaker(1, 65002, &[(0, two)]), &["10.2.0.0/24"]),
    ]);
    net.run_until(secs(10), |net| {
        net.nodes[1].routes.len() == 2 && net.nodes[0].routes.len() == 1
    });
    net
}

fn stale(net: &Net) -> bool {
    net.status(1, 0).families[0].stale
}

#[test]
fn routes_outlive_a_crash_until_the_successor_has_told_its_own() {
    let mut net = pair(|_| {});
    net.kill(0);
    net.run(secs(2));
    assert!(net.state(1, 0) != State::Established && stale(&net));
    assert_eq!(net.nodes[1].routes.len(), 2, "kept");

    // The successor has one route less.
    let config = originating(speaker(0, 65001, &[(1, peer(65002))]), &["10.1.1.0/24"]);
    net.set(0, config);
    net.boot(0, true);
    net.run_until(secs(10), |net| net.up(0, 1));
    net.run_until(secs(10), |net| !stale(net));
    assert_eq!(
        net.nodes[1].routes.keys().copied().collect::<Vec<_>>(),
        [prefix("10.1.1.0/24")]
    );
    assert_eq!(net.nodes[0].routes.len(), 1);
}

#[test]
fn a_restarted_speaker_sends_and_installs_nothing_before_it_knows_its_peers_routes() {
    let mut net = Net::new([
        originating(
            speaker(0, 65001, &[(1, peer(65002)), (2, peer(65003))]),
            &["10.1.0.0/24"],
        ),
        originating(speaker(1, 65002, &[(0, peer(65001))]), &["10.2.0.0/24"]),
        originating(speaker(2, 65003, &[(0, peer(65001))]), &["10.3.0.0/24"]),
    ]);
    net.run_until(secs(10), |net| {
        net.nodes[0].routes.len() == 2 && net.nodes[1].routes.len() == 2
    });
    net.kill(0);
    net.run(secs(1));
    // Node 2 is not heard of at first.
    net.lose(0, 2, true);
    net.boot(0, true);
    net.run(secs(8));
    assert!(net.up(0, 1));
    assert!(!net.speaker(0).is_synced() && net.nodes[0].routes.is_empty());
    assert_eq!(net.status(1, 0).families[0].received, 2, "stale, but there");
    assert!(stale_of(&net, 1));

    net.lose(0, 2, false);
    net.run_until(secs(40), |net| net.nodes[0].routes.len() == 2);
    assert!(net.speaker(0).is_synced());
    net.run_until(secs(5), |net| !stale_of(net, 1));
    let synced = net.nodes[0]
        .events
        .iter()
        .filter(|event| **event == Event::Synced)
        .count();
    assert_eq!(synced, 2, "once in each life");
}

fn stale_of(net: &Net, node: usize) -> bool {
    net.status(node, 0).families[0].stale
}

#[test]
fn an_unreachable_peer_does_not_hold_up_the_others_for_long() {
    let mut net = Net::new([
        originating(
            speaker(0, 65001, &[(1, peer(65002)), (2, peer(65003))]),
            &["10.1.0.0/24"],
        ),
        speaker(1, 65002, &[(0, peer(65001))]),
        speaker(2, 65003, &[(0, peer(65001))]),
    ]);
    net.run(secs(5));
    net.kill(0);
    net.kill(2);
    net.nodes[0].events.clear();
    net.boot(0, true);
    net.run_until(secs(10), |net| net.up(1, 0));
    let after = net.run_until(secs(60), |net| !stale_of(net, 1));
    assert!(after >= secs(4) && after < secs(25), "{after:?}");
    // It may be restarting itself and forward meanwhile: what the kernel has through it stays for that long.
    assert!(!net.speaker(0).is_synced());
    net.run_until(secs(120), |net| {
        net.nodes[0].events.last() == Some(&Event::Synced)
    });
}

#[test]
fn a_peer_without_graceful_restart_is_not_waited_for_as_one_that_restarts() {
    let plain = PeerConfig {
        graceful_restart: None,
        ..peer(65002)
    };
    let mut net = Net::new([
        speaker(0, 65001, &[(1, plain)]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.kill(1);
    net.kill(0);
    net.boot(0, true);
    let after = net.run_until(secs(60), |net| {
        net.nodes[0].events.last() == Some(&Event::Synced)
    });
    assert!(after >= secs(14) && after < secs(25), "{after:?}");
}

#[test]
fn a_peer_without_graceful_restart_has_our_routes_again_at_once() {
    let plain = PeerConfig {
        graceful_restart: None,
        ..peer(65001)
    };
    let mut net = Net::new([
        originating(speaker(0, 65001, &[(1, peer(65002))]), &["10.1.0.0/24"]),
        speaker(1, 65002, &[(0, plain)]),
    ]);
    net.run_until(secs(10), |net| net.nodes[1].routes.len() == 1);
    net.kill(0);
    net.run_until(secs(10), |net| net.nodes[1].routes.is_empty());
    net.boot(0, true);
    net.run_until(secs(20), |net| net.up(1, 0));
    let after = net.run_until(secs(60), |net| net.nodes[1].routes.len() == 1);
    assert!(after < secs(1), "{after:?}");
}

#[test]
fn a_configuration_that_lacks_a_peer_gives_nothing_up() {
    let mut net = Net::new([
        speaker(0, 65001, &[(1, peer(65002))]),
        originating(speaker(1, 65002, &[(0, peer(65001))]), &["10.2.0.0/24"]),
    ]);
    net.run_until(secs(10), |net| net.nodes[0].routes.len() == 1);
    net.kill(0);
    let lacking = SpeakerConfig {
        complete: false,
        ..speaker(0, 65001, &[])
    };
    net.set(0, lacking);
    net.nodes[0].events.clear();
    net.boot(0, true);
    net.run(secs(200));
    assert!(!net.speaker(0).is_synced());
    // The peer is waited for as one that was there from the start would be.
    net.configure(0, speaker(0, 65001, &[(1, peer(65002))]));
    assert!(!net.speaker(0).is_synced());
    net.run_until(secs(30), |net| {
        net.nodes[0].events.last() == Some(&Event::Synced)
    });
    assert_eq!(
        net.nodes[0].routes.len(),
        1,
        "known before it is told that all is"
    );
}

/// A deadline that is over and stays would keep a processor busy for as long as a file is broken.
#[test]
fn an_incomplete_configuration_is_waited_for_without_a_timer() {
    let passive = PeerConfig {
        passive: true,
        ..peer(65002)
    };
    let mut net = Net::new([SpeakerConfig {
        complete: false,
        ..speaker(0, 65001, &[(1, passive)])
    }]);
    let mut now = net.now;
    let speaker = net.speaker(0);
    for _ in 0..100 {
        let Some((at, reason)) = speaker.poll_timeout() else {
            return assert!(!speaker.is_synced());
        };
        assert!(at > now, "{reason}");
        now = at;
        speaker.handle_timeout(now);
    }
    panic!("a timer without end");
}

#[test]
fn time_is_up_in_the_end() {
    let passive = PeerConfig {
        passive: true,
        ..peer(65002)
    };
    let mut net = Net::new([
        speaker(0, 65001, &[(1, passive)]),
        speaker(1, 65002, &[(0, peer(65001))]),
    ]);
    net.kill(1);
    net.kill(0);
    net.boot(0, true);
    // It may come any moment: we would not know.
    let after = net.run_until(secs(200), |net| {
        net.nodes[0].events.last() == Some(&Event::Synced)
    });
    assert_eq!(after, peer(65002).graceful_restart.unwrap());
}

#[test]
fn routes_go_when_the_peer_does_not_come_back() {
    let mut net = pair(|peer| peer.graceful_restart = Some(secs(20)));
    net.power_off(0);
    net.lose(0, 1, true);
    net.cut(0, 1);
    let down = net.run_until(secs(91), |net| net.state(1, 0) != State::Established);
    assert_eq!(net.nodes[1].routes.len(), 2);
    let gone = net.run_until(secs(30), |net| net.nodes[1].routes.is_empty());
    assert!(
        gone >= secs(19) && gone <= secs(21),
        "down after {down:?}, gone {gone:?} later"
    );
}

#[test]
fn without_graceful_restart_routes_go_at_once() {
    let mut net = pair(|peer| peer.graceful_restart = None);
    net.kill(0);
    net.run_until(secs(1), |net| net.nodes[1].routes.is_empty());
}

#[test]
fn a_peer_that_comes_back_without_its_forwarding_state_loses_its_routes() {
    let mut net = pair(|_| {});
    net.kill(0);
    net.run(secs(1));
    let empty = speaker(0, 65001, &[(1, peer(65002))]);
    net.set(0, empty);
    // A cold start: the machine was rebooted.
    net.boot(0, false);
    net.run_until(secs(10), |net| net.state(1, 0) == State::Established);
    assert!(net.nodes[1].routes.is_empty() && !stale(&net));
}

#[test]
fn a_family_that_does_not_come_back_is_shown_until_it_goes() {
    let with = |families: &[Family], asn: u32| PeerConfig {
        families: families.to_vec(),
        other_local_address: Some(Ipv6Addr::from(0x2001_0db8 << 96 | u128::from(asn)).into()),
        ..peer(asn)
    };
    let both = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let mut net = Net::new([
        originating(
            speaker(0, 65001, &[(1, with(&both, 65002))]),
            &["2001:db8:1::/48"],
        ),
        speaker(1, 65002, &[(0, with(&both, 65001))]),
    ]);
    net.run_until(secs(10), |net| net.nodes[1].routes.len() == 1);
    net.kill(0);
    net.set(0, speaker(0, 65001, &[(1, with(&both[..1], 65002))]));
    net.boot(0, true);
    net.run_until(secs(10), |net| net.state(1, 0) == State::OpenConfirm);
    let families = net.status(1, 0).families;
    let shown: Vec<_> = families
        .iter()
        .map(|family| (family.family, family.received, family.stale))
        .collect();
    assert_eq!(shown, [(both[0], 0, true), (both[1], 1, true)]);
    net.run_until(secs(10), |net| net.state(1, 0) == State::Established);
    assert_eq!(net.status(1, 0).families.len(), 1);
    assert!(net.nodes[1].routes.is_empty(), "RFC 4724 §4.2");
}

#[test]
fn what_is_stale_still_goes_at_the_second_restart() {
    let mut net = pair(|_| {});
    net.kill(0);
    net.run(secs(1));
    // Back with one route, and gone again before its End-of-RIB: it waits for a third node that never comes.
    let waits = originating(
        speaker(0, 65001, &[(1, peer(65002)), (7, peer(65007))]),
        &["10.1.1.0/24"],
    );
    net.set(0, waits);
    net.boot(0, true);
    net.run_until(secs(10), |net| net.up(0, 1));
    assert_eq!(net.nodes[1].routes.len(), 2);
    assert!(stale(&net));
    net.kill(0);
    net.run(secs(1));
    let left: Vec<_> = net.nodes[1].routes.keys().copied().collect();
    assert_eq!(
        left,
        [prefix("10.1.1.0/24")],
        "marked stale by the first restart, deleted by the second; its own it told at once"
    );
}

#[test]
fn a_call_during_an_established_session_means_that_the_peer_restarted() {
    let mut net = pair(|_| {});
    net.run(secs(10));
    // Power cut and fast reboot: node 1 has no idea.
    net.power_off(0);
    net.boot(0, true);
    net.run_until(secs(10), |net| net.up(0, 1));
    net.run_until(secs(10), |net| net.nodes[0].routes.len() == 1);
    assert_eq!(net.nodes[1].routes.len(), 2);
    let withdrawn = net.nodes[1].withdrawn;
    assert_eq!(withdrawn, 0);
    assert_eq!(net.status(1, 0).flaps, 1);
    let error = net.status(1, 0).last_error.unwrap().ended.to_string();
    assert!(error.contains("restarted"), "{error}");
    net.run(secs(200));
    assert!(net.up(0, 1));
}

#[test]
fn both_restart_at_once() {
    let mut net = pair(|_| {});
    net.kill(0);
    net.kill(1);
    net.run(Duration::from_millis(100));
    net.boot(0, true);
    net.boot(1, true);
    // Neither waits for the other's End-of-RIB: both say that they have restarted.
    let after = net.run_until(secs(30), |net| {
        net.nodes[0].routes.len() == 1 && net.nodes[1].routes.len() == 2
    });
    assert!(after < secs(10), "{after:?}");
}

#[test]
fn an_error_keeps_routes_where_both_sides_say_so_and_a_shutdown_never_does() {
    let mut net = pair(|_| {});
    let now = net.now;
    net.inject(0, 1, |out| Notification::cease(8).encode(out));
    net.run(Duration::from_millis(10));
    assert!(net.state(1, 0) != State::Established && stale(&net));
    assert_eq!(net.nodes[1].routes.len(), 2, "RFC 8538: kept");
    net.run_until(secs(60), |net| net.up(0, 1) && !stale(net));
    assert_eq!(net.nodes[1].routes.len(), 2);
    assert!(net.now > now);

    let now = net.now;
    net.speaker(0).shutdown("for good", now);
    net.run(secs(1));
    assert!(net.nodes[1].routes.is_empty(), "Hard Reset");
    let error = net.status(1, 0).last_error.unwrap().ended.to_string();
    assert!(error.contains("for good"), "{error}");
}

#[test]
fn a_helper_does_not_wait_for_end_of_rib_for_ever() {
    let mut net = pair(|_| {});
    net.kill(0);
    // The successor waits for a passive peer that never comes, for longer than anybody would wait for it.
    let mut waits = originating(
        speaker(
            0,
            65001,
            &[
                (1, peer(65002)),
                (
                    7,
                    PeerConfig {
                        passive: true,
                        ..peer(65007)
                    },
                ),
            ],
        ),
        &["10.1.1.0/24"],
    );
    waits.selection_deferral = secs(4000);
    net.set(0, waits);
    net.boot(0, true);
    net.run_until(secs(10), |net| net.up(0, 1));
    // But for its own, which it told at once.
    let gone = net.run_until(secs(600), |net| net.nodes[1].routes.len() == 1);
    assert!(gone >= secs(300) && gone < secs(400), "{gone:?}");
    assert!(net.up(0, 1) && net.status(1, 0).flaps == 1);
    assert_eq!(net.status(1, 0).address, address(0));
}

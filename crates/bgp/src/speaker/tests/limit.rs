//! Bounds on what a peer may announce.

use std::time::Duration;

use bgp_wire::{Attributes, Family};

use super::net::{Net, address, peer, prefix, secs, speaker};
use crate::config::{LimitAction, PeerConfig, PrefixLimit, SpeakerConfig};
use crate::session::State;
use crate::speaker::Event;

fn limit(limit: u32, action: LimitAction) -> PrefixLimit {
    PrefixLimit {
        family: Family::IPV4_UNICAST,
        limit,
        warn_percent: 75,
        action,
    }
}

/// Node 0 with this limit, node 1 with so many prefixes.
fn net(limit: PrefixLimit, prefixes: u8) -> Net {
    let limited = PeerConfig {
        prefix_limits: vec![limit],
        ..peer(65002)
    };
    Net::new([speaker(0, 65001, &[(1, limited)]), announcing(prefixes)])
}

fn announcing(prefixes: u8) -> SpeakerConfig {
    let mut config = speaker(1, 65002, &[(0, peer(65001))]);
    config.originated = (0..prefixes)
        .map(|n| (prefix(&format!("10.2.{n}.0/24")), Attributes::originated()))
        .collect();
    config
}

fn warnings(net: &mut Net) -> usize {
    let events = std::mem::take(&mut net.nodes[0].events);
    let warnings = events.into_iter().filter_map(|event| {
        let Event::ManyPrefixes { received, .. } = event else {
            return None;
        };
        Some(received)
    });
    warnings.inspect(|received| assert!(*received > 6)).count()
}

#[test]
fn many_are_said_once_and_again_after_they_were_few() {
    let mut net = net(limit(8, LimitAction::Warn), 5);
    net.run(secs(10));
    assert_eq!(warnings(&mut net), 0, "six are three quarters of eight");
    for (prefixes, expected) in [(7, 1), (8, 0), (12, 0), (3, 0), (9, 1)] {
        net.configure(1, announcing(prefixes));
        net.run(secs(10));
        assert_eq!(warnings(&mut net), expected, "at {prefixes}");
        assert_eq!(net.nodes[0].routes.len(), usize::from(prefixes));
    }
    assert_eq!(net.flaps(0), 0);
    assert_eq!(net.status(0, 1).families[0].limit, Some(8));
}

#[test]
fn one_too_many_ends_the_session_until_its_time_is_over() {
    let pause = secs(300);
    let mut net = net(limit(4, LimitAction::Restart(pause)), 4);
    net.run(secs(10));
    assert!(net.up(0, 1));
    net.configure(1, announcing(5));
    net.run(secs(10));
    assert_eq!(net.state(0, 1), State::Idle);
    assert!(
        net.nodes[0].routes.is_empty(),
        "graceful restart keeps none"
    );
    let told = net.status(1, 0).last_error.unwrap().ended;
    let text = told.to_string();
    assert!(
        text.contains("Maximum Number of Prefixes Reached") && text.contains("4"),
        "{text}"
    );
    // AFI, SAFI and the limit, as RFC 4486 §4 has them; in front the code and subcode that the Hard Reset stands for.
    assert_eq!(told.notification.unwrap().data, [6, 1, 0, 1, 1, 0, 0, 0, 4]);
    let left = net.status(0, 1).next_attempt.unwrap();
    assert!(left > pause - secs(11) && left <= pause, "{left:?}");
    net.configure(1, announcing(4));
    let after = net.run_until(pause + secs(130), |net| net.up(0, 1));
    assert!(after >= pause - secs(11), "{after:?}");
}

#[test]
fn stays_down_until_it_is_reset_or_may_send_more() {
    let mut net = net(limit(4, LimitAction::StayDown), 5);
    net.run(Duration::from_secs(3600));
    assert_eq!(net.state(0, 1), State::Idle);
    let status = net.status(0, 1);
    assert_eq!(status.next_attempt, None);
    assert_eq!(
        status.halt.unwrap().to_string(),
        "more than 4 prefixes of ipv4-unicast: down until it is reset"
    );
    // A reset tries again, to the same end.
    let now = net.now;
    net.speaker(0).reset_peer(address(1), "try again", now);
    net.run(secs(300));
    assert_eq!((net.state(0, 1), net.flaps(0)), (State::Idle, 2));
    // More is allowed.
    let mut config = net.config(0);
    for peer in config.peers.values_mut() {
        peer.prefix_limits = vec![limit(5, LimitAction::StayDown)];
    }
    net.configure(0, config.clone());
    net.run_until(secs(300), |net| net.nodes[0].routes.len() == 5);
    // And less, while it is up.
    for peer in config.peers.values_mut() {
        peer.prefix_limits = vec![limit(3, LimitAction::StayDown)];
    }
    net.configure(0, config);
    net.run(secs(1));
    assert_eq!(net.state(0, 1), State::Idle);
}

#[test]
fn what_policy_rejects_counts_and_other_families_do_not() {
    let mut net = net(limit(4, LimitAction::StayDown), 5);
    let mut config = net.config(0);
    for peer in config.peers.values_mut() {
        peer.import = crate::policy::Policy::reject_all("nothing");
    }
    net.set(0, config.clone());
    net.configure(0, config.clone());
    net.run(secs(60));
    assert_eq!(net.state(0, 1), State::Idle);
    for peer in config.peers.values_mut() {
        peer.prefix_limits[0].family = Family::IPV6_UNICAST;
    }
    net.configure(0, config);
    net.run_until(secs(300), |net| net.up(0, 1));
    net.run(secs(60));
    assert!(net.up(0, 1));
}

//! Peers that come from a range of addresses.

use bgp_wire::Family;

use super::net::{Net, address, originating, peer, prefix, secs, speaker};
use crate::config::{AsnSet, DynamicPeers, Password, PeerConfig, SpeakerConfig};
use crate::policy::Policy;
use crate::session::State;
use crate::speaker::Event;

const RANGE: &str = "10.0.0.0/24";

fn hub(asns: AsnSet, limit: u32) -> SpeakerConfig {
    let mut config = speaker(0, 65000, &[]);
    let range = DynamicPeers {
        asns,
        limit,
        template: peer(0),
    };
    config.dynamic.insert(prefix(RANGE), range);
    config
}

/// A hub and `spokes` that dial it, each of an AS of its own.
fn star(hub: SpeakerConfig, spokes: usize) -> Net {
    let spokes = (1..=spokes).map(|node| {
        let asn = 65000 + u32::try_from(node).unwrap();
        let own = format!("10.{node}.0.0/24");
        originating(speaker(node, asn, &[(0, peer(65000))]), &[&own])
    });
    Net::new([hub].into_iter().chain(spokes))
}

fn up(net: &Net, node: usize) -> bool {
    let status = net.find_status(0, node);
    status.is_some_and(|status| status.state == State::Established)
}

#[test]
fn come_with_their_connection_and_exchange_routes() {
    let mut net = star(hub(AsnSet::any(), 10), 3);
    net.run_until(secs(10), |net| (1..=3).all(|node| up(net, node)));
    net.run(secs(10));
    assert_eq!(net.nodes[0].routes.len(), 3);
    assert_eq!(net.nodes[1].routes.len(), 2, "those of the others");
    let status = net.status(0, 2);
    assert_eq!((status.asn, status.dynamic), (65002, Some(prefix(RANGE))));
    assert!(status.passive);
}

#[test]
fn go_when_nothing_is_kept_for_them_any_more() {
    let mut net = star(hub(AsnSet::any(), 10), 1);
    net.run_until(secs(10), |net| up(net, 1));
    net.run(secs(5));
    net.kill(1);
    net.run(secs(60));
    let status = net.status(0, 1);
    assert_eq!(status.state, State::Active);
    assert!(status.families[0].stale, "it may be restarting");
    assert_eq!(net.nodes[0].routes.len(), 1);
    net.run(secs(70));
    assert!(net.find_status(0, 1).is_none());
    assert!(net.nodes[0].routes.is_empty());
    // And back again, as if it were new.
    net.boot(1, false);
    net.run_until(secs(10), |net| up(net, 1));
}

#[test]
fn one_that_restarts_is_the_same_peer() {
    let mut net = star(hub(AsnSet::any(), 10), 1);
    net.run_until(secs(10), |net| up(net, 1));
    net.run(secs(5));
    net.kill(1);
    net.run(secs(10));
    net.boot(1, true);
    net.run_until(secs(30), |net| up(net, 1));
    net.run(secs(10));
    assert_eq!((net.status(0, 1).flaps, net.nodes[0].withdrawn), (1, 0));
}

#[test]
fn of_the_right_as_only() {
    let asns = AsnSet::from_iter([65001..=65001, 65003..=65010]);
    let mut net = star(hub(asns, 10), 3);
    net.run(secs(30));
    assert!(up(&net, 1) && !up(&net, 2) && up(&net, 3));
    let error = net.status(2, 0).last_error.unwrap().ended.to_string();
    assert!(error.contains("Bad Peer AS"), "{error}");
    // Its pause is served, so that it can't make work without end.
    let attempts = net.status(2, 0).failures;
    assert!(attempts < 10, "{attempts}");
}

#[test]
fn no_more_than_there_may_be() {
    let mut net = star(hub(AsnSet::any(), 2), 4);
    net.run(secs(60));
    let there = |net: &Net| (1..=4).filter(|node| up(net, *node)).count();
    assert_eq!(there(&net), 2);
    // A place that becomes free is taken.
    let gone = (1..=4).find(|node| up(&net, *node)).unwrap();
    net.kill(gone);
    net.run(secs(300));
    assert_eq!(there(&net), 2);
}

#[test]
fn the_longest_range_counts_and_an_address_goes_before() {
    let mut config = hub(AsnSet::any(), 10);
    let nothing = DynamicPeers {
        asns: AsnSet::any(),
        limit: 10,
        template: PeerConfig {
            import: Policy::reject_all("nothing"),
            ..peer(0)
        },
    };
    config.dynamic.insert(prefix("10.0.0.2/31"), nothing);
    config.peers.insert(address(2), peer(65002));
    let mut net = star(config, 3);
    net.run(secs(30));
    assert_eq!(net.status(0, 1).dynamic, Some(prefix("10.0.0.2/31")));
    assert_eq!(
        net.status(0, 2).dynamic,
        Some(prefix("10.0.0.2/31")).filter(|_| false)
    );
    assert_eq!(net.status(0, 3).dynamic, Some(prefix(RANGE)));
    let learned: Vec<_> = net.nodes[0]
        .routes
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(learned, ["10.2.0.0/24", "10.3.0.0/24"]);
}

#[test]
fn follow_their_range() {
    let mut net = star(hub(AsnSet::any(), 10), 2);
    net.run_until(secs(10), |net| up(net, 1) && up(net, 2));
    net.run(secs(5));
    // Policy acts without a reset.
    let mut config = net.config(0);
    let range = config.dynamic.get_mut(&prefix(RANGE)).unwrap();
    range.template.import = Policy::reject_all("nothing");
    net.configure(0, config.clone());
    net.run(secs(1));
    assert!(net.nodes[0].routes.is_empty());
    assert_eq!(net.flaps(0), 0);
    // One of them gets a configuration of its own.
    config.peers.insert(address(1), peer(65001));
    net.configure(0, config.clone());
    net.run(secs(60));
    assert!(net.up(0, 1));
    assert_eq!(net.status(0, 1).dynamic, None);
    assert_eq!(net.nodes[0].routes.len(), 1);
    // The range goes, and with it who came from it.
    config.dynamic.clear();
    net.configure(0, config);
    net.run(secs(60));
    assert!(net.find_status(0, 2).is_none());
    assert!(net.up(0, 1));
    let error = net.status(2, 0).last_error.unwrap().ended.to_string();
    assert!(error.contains("Peer De-configured"), "{error}");
}

#[test]
fn share_one_key() {
    let mut config = hub(AsnSet::any(), 10);
    let range = config.dynamic.get_mut(&prefix(RANGE)).unwrap();
    range.template.password = Some(Password::new("one").unwrap());
    let mut net = star(config.clone(), 2);
    net.run_until(secs(10), |net| up(net, 1) && up(net, 2));
    let range = config.dynamic.get_mut(&prefix(RANGE)).unwrap();
    range.template.password = Some(Password::new("two").unwrap());
    net.configure(0, config);
    net.run(secs(10));
    let events = net.nodes[0].events.iter();
    let keys = events.filter_map(|event| {
        let Event::SetKey {
            peers, connections, ..
        } = event
        else {
            return None;
        };
        Some((peers.to_string(), connections.len()))
    });
    assert_eq!(
        keys.collect::<Vec<_>>(),
        [(RANGE.to_owned(), 0), (RANGE.to_owned(), 2)]
    );
    assert_eq!(net.flaps(0), 0);
    assert_eq!(net.status(0, 1).families[0].family, Family::IPV4_UNICAST);
}

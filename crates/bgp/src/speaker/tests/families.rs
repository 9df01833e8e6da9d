//! Both families over either transport, and whose next hop goes with which.

use bgp_wire::{Attributes, Family, NextHop, UpdateBuilder};

use super::net::{Net, address, address6, originating, peer, prefix, secs, speaker};
use crate::config::{PeerConfig, SpeakerConfig};
use crate::session::State;

const V4: &str = "10.1.0.0/24";
const V6: &str = "2001:db8:1::/48";

fn dual(asn: u32) -> PeerConfig {
    PeerConfig {
        families: vec![Family::IPV4_UNICAST, Family::IPV6_UNICAST],
        ..peer(asn)
    }
}

/// Moves a speaker's peers from their IPv4 to their IPv6 addresses.
fn over_ipv6(mut config: SpeakerConfig) -> SpeakerConfig {
    config.peers = std::mem::take(&mut config.peers)
        .into_iter()
        .map(|(old, peer)| {
            let node = (0..9).find(|node| address(*node) == old);
            (address6(node.unwrap_or_default()), peer)
        })
        .collect();
    config
}

fn pair(change: impl Fn(&mut PeerConfig)) -> [SpeakerConfig; 2] {
    let (mut one, mut two) = (dual(65002), dual(65001));
    change(&mut one);
    change(&mut two);
    [
        originating(speaker(0, 65001, &[(1, one)]), &[V4, V6]),
        speaker(1, 65002, &[(0, two)]),
    ]
}

/// What node 1 has learned, as `prefix via next hop`.
fn learned(net: &Net) -> Vec<String> {
    let changes = net.nodes[1].routes.values();
    changes
        .map(|change| format!("{} via {}", change.prefix, change.next_hops[0]))
        .collect()
}

/// Attaches both nodes to one link, with link-local addresses or without.
fn link(net: &mut Net, link_local: bool) {
    for node in 0..2 {
        let host = node + 1;
        let (v4, v6) = (format!("10.0.0.{host}/24"), format!("2001:db8::{host}/64"));
        let own = format!("fe80::{host}/64");
        net.attach(node, &["127.0.0.1/8", "::1/128"]);
        let mut addresses = vec![own.as_str(), v4.as_str(), v6.as_str()];
        addresses.drain(..usize::from(!link_local));
        net.attach(node, &addresses);
    }
}

#[test]
fn an_ipv4_session_carries_ipv6_with_the_links_address() {
    let mut net = Net::new(pair(|_| {}));
    link(&mut net, true);
    net.run_until(secs(5), |net| net.nodes[1].routes.len() == 2);
    assert_eq!(
        learned(&net),
        [
            "10.1.0.0/24 via 10.0.0.1",
            "2001:db8:1::/48 via 2001:db8::1 (fe80::1)"
        ]
    );
}

#[test]
fn an_ipv6_session_carries_ipv4_with_the_links_address() {
    let mut net = Net::new(pair(|_| {}).map(over_ipv6));
    link(&mut net, false);
    net.run_until(secs(5), |net| net.nodes[1].routes.len() == 2);
    assert_eq!(
        learned(&net),
        [
            "10.1.0.0/24 via 10.0.0.1",
            "2001:db8:1::/48 via 2001:db8::1"
        ]
    );
}

#[test]
fn a_peer_on_another_link_hears_of_no_link_local_address() {
    let mut net = Net::new(pair(|_| {}));
    for node in 0..2 {
        let host = node + 1;
        let (v4, v6) = (format!("10.0.0.{host}/32"), format!("2001:db8::{host}/128"));
        net.attach(node, &[&v4, &v6, "fe80::1/64"]);
    }
    net.run_until(secs(5), |net| net.nodes[1].routes.len() == 2);
    assert_eq!(learned(&net)[1], "2001:db8:1::/48 via 2001:db8::1");
}

#[test]
fn what_is_configured_goes_before_what_the_link_has() {
    let other = "2001:db8:ffff::1".parse().unwrap();
    let [mut one, two] = pair(|_| {});
    for peer in one.peers.values_mut() {
        peer.other_local_address = Some(other);
    }
    let mut net = Net::new([one, two]);
    link(&mut net, false);
    net.run_until(secs(5), |net| net.nodes[1].routes.len() == 2);
    assert_eq!(learned(&net)[1], "2001:db8:1::/48 via 2001:db8:ffff::1");
}

#[test]
fn without_an_address_of_its_family_a_route_is_not_told() {
    let mut net = Net::new(pair(|_| {}));
    net.run_until(secs(5), |net| !net.nodes[1].routes.is_empty());
    net.run(secs(60));
    assert_eq!(learned(&net), ["10.1.0.0/24 via 10.0.0.1"]);
    assert!(net.up(0, 1) && net.flaps(0) == 0);
}

#[test]
fn ipv4_by_an_ipv6_next_hop_where_both_want_it() {
    for (wanted, expected) in [([true, true], 2), ([true, false], 1), ([false, true], 1)] {
        let mut configs = pair(|_| {}).map(over_ipv6);
        for (config, wanted) in configs.iter_mut().zip(wanted) {
            for peer in config.peers.values_mut() {
                peer.extended_next_hop = wanted;
            }
        }
        let mut net = Net::new(configs);
        for node in 0..2 {
            let v6 = format!("2001:db8::{}/64", node + 1);
            net.attach(node, &[&v6]);
        }
        net.run_until(secs(5), |net| !net.nodes[1].routes.is_empty());
        net.run(secs(10));
        assert_eq!(learned(&net).len(), expected, "{wanted:?}");
        if expected == 2 {
            assert_eq!(learned(&net)[0], "10.1.0.0/24 via 2001:db8::1");
        }
    }
}

#[test]
fn an_ipv6_next_hop_that_was_not_agreed_on_ends_the_session() {
    let mut net = Net::new(pair(|_| {}));
    net.run_until(secs(5), |net| net.up(0, 1));
    net.inject(0, 1, |out| {
        let attributes = Attributes {
            as_path: bgp_wire::AsPath::sequence([65001]),
            ..Attributes::originated()
        };
        let context = bgp_wire::Context {
            four_octet_as: true,
            ..bgp_wire::Context::default()
        };
        let mut section = Vec::new();
        attributes.encode(&context, &mut section);
        let next_hop = NextHop::from(address6(0));
        let family = Family::IPV4_UNICAST;
        let mut builder = UpdateBuilder::announce(out, &context, &section, next_hop, family);
        builder.push(prefix("10.9.0.0/24")).unwrap();
        builder.finish();
    });
    net.run_until(secs(1), |net| net.state(1, 0) != State::Established);
    let error = net.status(1, 0).last_error.unwrap().ended.to_string();
    assert!(
        error.starts_with("sent UPDATE Message Error/Optional Attribute Error")
            && error.contains("RFC 8950"),
        "{error}"
    );
}

#[test]
fn each_family_is_used_only_where_both_have_it() {
    let [mut one, two] = pair(|_| {});
    for peer in one.peers.values_mut() {
        peer.families = vec![Family::IPV6_UNICAST];
    }
    let mut net = Net::new([one, two]);
    link(&mut net, false);
    net.run_until(secs(5), |net| !net.nodes[1].routes.is_empty());
    net.run(secs(10));
    assert_eq!(learned(&net), ["2001:db8:1::/48 via 2001:db8::1"]);
    let families: Vec<_> = net.status(1, 0).families;
    assert_eq!(families.len(), 1);
    assert_eq!(families[0].family, Family::IPV6_UNICAST);
    assert!(net.status(1, 0).synced);
}

//! Update groups: sharing, packing, slow readers, and no more messages than needed.

use bgp_wire::{Attributes, Community, Family};
use ipnet::IpNet;

use super::{Bed, address, external, internal, net, via};
use crate::policy::{Match, Policy, Statement, Verdict};
use crate::rib::{DownKind, PeerIndex, PeerSession, Selection};

fn nets(count: u32) -> Vec<IpNet> {
    (0..count)
        .map(|index| net(&format!("10.{}.{}.0/24", index / 256, index % 256)))
        .collect()
}

#[test]
fn peers_under_the_same_rules_share_octets() {
    let mut bed = Bed::new();
    for host in 1..=3_u8 {
        bed.up(host.into(), external(host, 65000 + u32::from(host)));
    }
    bed.up(4, internal(4));
    bed.drain_all();
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    let mut sent = |peer| bed.rib.poll_transmit(PeerIndex(peer)).unwrap();
    let (second, third, fourth) = (sent(2), sent(3), sent(4));
    assert_eq!(second.as_ptr(), third.as_ptr(), "the same buffer");
    assert_ne!(second, fourth);
}

#[test]
fn many_prefixes_a_message() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.drain_all();
    let all = nets(40);
    let (red, blue) = (via(1, &[65001]), via(1, &[65001, 65009]));
    for (index, prefix) in all.iter().enumerate() {
        bed.announce_nets(1, if index % 2 == 0 { &red } else { &blue }, &[*prefix]);
    }
    let before = bed.listeners[&2].updates;
    let listener = bed.drain(2);
    assert_eq!(listener.routes.len(), 40);
    // Ten chunks of four nets each (that is how small they are in tests), of two attribute sets each.
    assert_eq!(listener.updates - before, 20);
    for prefix in &all {
        bed.withdraw_net(1, *prefix);
    }
    let before = bed.listeners[&2].updates;
    bed.drain_all();
    let listener = &bed.listeners[&2];
    assert_eq!((listener.routes.len(), listener.updates - before), (0, 10));
    assert_eq!(bed.rib.memory().nets, 0);
    assert_eq!(bed.rib.messages_sent(PeerIndex(2)), 32);
}

#[test]
fn nobody_hears_its_own_routes_back() {
    let mut bed = Bed::new();
    for host in 1..=3_u8 {
        bed.up(host.into(), external(host, 65000 + u32::from(host)));
    }
    bed.announce(2, &via(2, &[65002, 65009]), &["10.0.0.0/24"]);
    for peer in [1, 3] {
        assert_eq!(bed.told(peer), ["10.0.0.0/24"]);
    }
    assert!(bed.told(2).is_empty());
    // A better one from peer 1: 2 hears of it, 1 has to forget what 2 said, 3 replaces it.
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    assert!(bed.told(1).is_empty());
    assert_eq!(bed.told(2), ["10.0.0.0/24"]);
    assert_eq!(bed.drain(3).withdrawn, 0, "an implicit withdrawal");
    // And again with other attributes: nothing for 1 to forget.
    bed.announce(
        1,
        &Attributes {
            communities: vec![Community(1)],
            ..via(1, &[65001])
        },
        &["10.0.0.0/24"],
    );
    bed.drain_all();
    for peer in 1..=3 {
        assert_eq!(bed.listeners[&peer].spurious, 0, "peer {peer}");
    }
    let from_this_peer = bed
        .rib
        .routes_to(PeerIndex(1), &Selection::All)
        .remove(0)
        .result
        .unwrap_err();
    assert_eq!(
        from_this_peer.to_string(),
        "the best path comes from this peer"
    );
}

#[test]
fn a_slow_reader_gets_the_latest_state_once() {
    let mut bed = Bed::new();
    for host in 1..=3_u8 {
        bed.up(host.into(), external(host, 65000 + u32::from(host)));
    }
    bed.drain_all();
    for round in 0..100 {
        for prefix in nets(8) {
            bed.announce_nets(
                1,
                &Attributes {
                    communities: vec![Community(round)],
                    ..via(1, &[65001])
                },
                &[prefix],
            );
        }
        bed.drain(2);
    }
    assert_eq!(bed.listeners[&2].announced, 800);
    // The chunk of four that it was given in the first round, then everything as it is now.
    let slow = bed.drain(3);
    assert_eq!((slow.announced, slow.routes.len()), (4 + 8, 8));
    // What comes and goes before it looks never was.
    bed.announce(1, &via(1, &[65001]), &["10.9.0.0/16"]);
    bed.drain(2);
    bed.withdraw(1, &["10.9.0.0/16"]);
    bed.drain(2);
    assert_eq!(bed.listeners[&2].spurious, 0);
    assert_eq!(
        bed.rib.memory().nets,
        9,
        "kept until the slow one knows too"
    );
    bed.drain(3);
    assert!(bed.rib.memory().nets <= 9);
    bed.drain_all();
    assert_eq!(bed.rib.memory().nets, 8);
}

#[test]
fn unheard_changes_leave_nothing_behind() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.withdraw(1, &["10.0.0.0/24"]);
    assert_eq!(bed.rib.memory().nets, 0);
    let listener = bed.drain(2);
    assert_eq!((listener.announced, listener.withdrawn), (0, 0));
}

#[test]
fn an_empty_table_gives_its_memory_back() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.drain_all();
    bed.announce_nets(1, &via(1, &[65001]), &nets(5000));
    bed.drain_all();
    let full = bed.rib.memory().octets;
    bed.down(1, DownKind::Drop);
    bed.drain_all();
    let empty = bed.rib.memory().octets;
    assert!(empty * 5 < full, "{empty} of {full} octets are left");
}

#[test]
fn end_of_rib_follows_the_first_dump() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    for prefix in nets(9) {
        bed.announce_nets(1, &via(1, &[65001]), &[prefix]);
    }
    bed.up(2, external(2, 65002));
    assert!(bed.rib.has_news(PeerIndex(2)));
    while bed.step(2) {
        let listener = &bed.listeners[&2];
        assert!(listener.ends.is_empty() || listener.routes.len() >= 9);
        // The table goes on changing; that must not put off the end for ever.
        if listener.announced < 40 {
            bed.announce_nets(
                1,
                &Attributes {
                    med: Some(1),
                    ..via(1, &[65001])
                },
                &nets(9)[..1],
            );
            bed.announce_nets(1, &via(1, &[65001]), &nets(9)[..1]);
        }
    }
    let listener = bed.drain(2);
    assert_eq!(listener.ends, [Family::IPV4_UNICAST, Family::IPV6_UNICAST]);
    assert!(!bed.rib.has_news(PeerIndex(2)));
}

#[test]
fn refresh_repeats_everything_but_the_end() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    for prefix in nets(6) {
        bed.announce_nets(1, &via(1, &[65001]), &[prefix]);
    }
    bed.drain_all();
    bed.rib
        .refresh(PeerIndex(2), bed.generation(2), Family::IPV4_UNICAST);
    let listener = bed.drain(2);
    assert_eq!(
        (listener.announced, listener.withdrawn, listener.ends.len()),
        (12, 0, 2)
    );
}

#[test]
fn a_new_export_policy_takes_back_what_it_forbids() {
    let mut bed = Bed::new();
    for host in 1..=3_u8 {
        bed.up(host.into(), external(host, 65000 + u32::from(host)));
    }
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24", "10.0.1.0/24"]);
    bed.announce(1, &via(1, &[65001, 65009]), &["10.0.2.0/24"]);
    bed.drain_all();
    let rule = Statement {
        name: "rule".into(),
        matches: vec![Match::AsPathContains(65009)],
        changes: vec![],
        verdict: Verdict::Reject,
    };
    let policy = Policy::new(vec![rule], Verdict::Accept, "default");
    bed.rib
        .set_policies(PeerIndex(2), Policy::accept_all(), policy.clone());
    assert_eq!(bed.told(2), ["10.0.0.0/24", "10.0.1.0/24"]);
    assert_eq!(bed.told(3).len(), 3);
    // The other one follows into the group that exists by now.
    bed.rib
        .set_policies(PeerIndex(3), Policy::accept_all(), policy);
    assert_eq!(bed.told(3), ["10.0.0.0/24", "10.0.1.0/24"]);
    bed.rib
        .set_policies(PeerIndex(2), Policy::accept_all(), Policy::accept_all());
    assert_eq!(bed.told(2).len(), 3);
}

/// Peer 1 announced four prefixes, peers 2 and 3 have read them in step, 4 and 5 came later and read the same chunk.
fn late_peers() -> Bed {
    let mut bed = Bed::new();
    bed.poll_routes(0);
    for host in 1..=3_u8 {
        bed.up(host.into(), external(host, 65000 + u32::from(host)));
    }
    bed.announce_nets(1, &via(1, &[65001]), &nets(4));
    for peer in 1..=3 {
        bed.drain(peer);
    }
    bed.up(4, external(4, 65004));
    let first = bed.rib.poll_transmit(PeerIndex(4)).unwrap();
    bed.drain(4);
    bed.up(5, external(5, 65005));
    let second = bed.rib.poll_transmit(PeerIndex(5)).unwrap();
    assert_eq!(first.as_ptr(), second.as_ptr(), "kept for the next");
    bed
}

#[test]
fn a_late_peer_is_not_told_of_what_all_others_were_untold() {
    let mut bed = late_peers();
    bed.drain(5);
    bed.withdraw_net(1, nets(1)[0]);
    for peer in 1..=5 {
        bed.drain(peer);
    }
    // The kernel has not looked, so the net is still there.
    assert_eq!(bed.rib.memory().nets, 4);
    bed.up(6, external(6, 65006));
    assert_eq!(bed.told(6).len(), 3);
}

#[test]
fn a_net_that_dies_twice_before_anybody_looks_is_forgotten_once() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce_nets(1, &via(1, &[65001]), &nets(1));
    bed.drain_all();
    bed.withdraw_net(1, nets(1)[0]);
    // Our own AS in its path: it can't be used, so to others nothing has changed.
    bed.announce_nets(1, &via(1, &[65001, 64512]), &nets(1));
    bed.withdraw_net(1, nets(1)[0]);
    assert_eq!(bed.rib.memory().nets, 1, "peer 2 has yet to hear of it");
    bed.drain_all();
    assert_eq!(bed.rib.memory().nets, 0);
    bed.announce_nets(1, &via(1, &[65001]), &nets(4));
    bed.drain_all();
    assert_eq!(bed.told(2).len(), 4);
}

#[test]
fn a_kernel_that_never_looks_again_keeps_nothing() {
    let mut bed = late_peers();
    bed.drain(5);
    bed.withdraw_net(1, nets(1)[0]);
    for peer in 1..=5 {
        bed.drain(peer);
    }
    assert_eq!(bed.rib.memory().nets, 4);
    bed.rib.close_routes();
    assert_eq!(bed.rib.memory().nets, 3);
    // It does look again after all.
    assert_eq!(bed.poll_routes(9), 3);
}

#[test]
fn a_late_peer_is_not_told_of_what_is_forgotten() {
    let mut bed = late_peers();
    bed.withdraw_net(1, nets(1)[0]);
    // Peer 5 is not in step.
    for peer in 1..=5 {
        bed.drain(peer);
    }
    while bed.poll_routes(9) > 0 {}
    assert_eq!(bed.rib.memory().nets, 3);
    bed.up(6, external(6, 65006));
    assert_eq!(bed.told(6).len(), 3);
}

/// A group's chunks were made for peers that had never been told of what its rules forbid.
#[test]
fn a_peer_that_moves_in_is_untold_too() {
    let rule = Statement {
        name: "rule".into(),
        matches: vec![Match::AsPathContains(65009)],
        changes: vec![],
        verdict: Verdict::Reject,
    };
    let policy = Policy::new(vec![rule], Verdict::Accept, "default");
    let strict = |host| PeerSession {
        export: policy.clone(),
        ..external(host, 65000 + u32::from(host))
    };
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.announce(1, &via(1, &[65001, 65009]), &["10.0.1.0/24"]);
    bed.drain_all();
    assert_eq!(bed.told(2).len(), 2);
    for host in 3..=5 {
        bed.up(host.into(), strict(host));
        assert_eq!(bed.told(host.into()).len(), 1);
    }
    bed.rib
        .set_policies(PeerIndex(2), Policy::accept_all(), policy.clone());
    assert_eq!(bed.told(2), ["10.0.0.0/24"]);
}

#[test]
fn deferral_holds_everything_back_but_our_own_routes() {
    let mut bed = Bed::new();
    bed.rib.defer(true);
    bed.rib
        .set_originated([(net("10.9.0.0/24"), Attributes::originated())].into());
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.drain_all();
    assert!(bed.kernel.is_empty());
    assert_eq!(bed.told(2), ["10.9.0.0/24"]);
    assert!(bed.listeners[&2].ends.is_empty());
    // One that is not ours any more is taken back, though it may be known from others.
    bed.announce(1, &via(1, &[65001]), &["10.9.0.0/24", "10.9.1.0/24"]);
    bed.rib
        .set_originated([(net("10.9.1.0/24"), Attributes::originated())].into());
    assert_eq!(bed.told(2), ["10.9.1.0/24"]);
    bed.rib.defer(false);
    bed.rib.hold_end_of_rib(true);
    bed.drain_all();
    assert_eq!(bed.kernel.len(), 2);
    assert_eq!(bed.told(2), ["10.0.0.0/24", "10.9.0.0/24", "10.9.1.0/24"]);
    assert!(bed.listeners[&2].ends.is_empty(), "more is to come");
    bed.rib.hold_end_of_rib(false);
    bed.drain_all();
    assert_eq!(bed.listeners[&2].ends.len(), 2);
}

#[test]
fn end_of_rib_follows_what_was_learned_during_deferral() {
    let mut bed = Bed::new();
    bed.rib.defer(true);
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.rib.defer(false);
    while bed.listeners[&2].ends.is_empty() && bed.step(2) {}
    // RFC 4724 §4.2: at End-of-RIB the peer drops what it has from before.
    assert_eq!(bed.listeners[&2].ends, [Family::IPV4_UNICAST]);
    assert_eq!(bed.listeners[&2].routes.len(), 1);
}

#[test]
fn the_kernel_hears_of_learned_routes_only() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(1));
    bed.rib
        .set_originated([(net("10.0.0.0/24"), Attributes::originated())].into());
    bed.drain_all();
    assert!(bed.kernel.is_empty());
    bed.rib.set_originated([].into());
    bed.drain_all();
    assert_eq!(bed.kernel.len(), 1);
    bed.down(1, DownKind::Drop);
    bed.drain_all();
    assert!(bed.kernel.is_empty());
}

#[test]
fn a_family_that_was_not_negotiated_is_not_sent() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(
        2,
        PeerSession {
            families: vec![Family::IPV6_UNICAST],
            ..external(2, 65002)
        },
    );
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    let listener = bed.drain(2);
    assert_eq!(
        (listener.routes.len(), listener.ends.as_slice()),
        (0, [Family::IPV6_UNICAST].as_slice())
    );
}

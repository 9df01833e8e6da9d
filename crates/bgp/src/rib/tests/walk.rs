//! Walks through all routes: what a turn costs, and what holds between two turns.

use std::net::Ipv4Addr;

use bgp_wire::{Attributes, Family, UpdateBuilder};
use ipnet::IpNet;

use super::{ASN, Bed, ROUTER_ID, address, client, external, internal, via};
use crate::config::{Decision, NextHopMode, Rules};
use crate::policy::{Change, Policy, Statement, Verdict};
use crate::rib::{DownKind, PathState, PeerIndex, PeerSession, Selection};

/// How many nets may be looked at in one turn, however many there are.
const TURN_LIMIT: u64 = 16_000;

fn prefixes(count: u32) -> Vec<IpNet> {
    let prefix = |n: u32| IpNet::new(Ipv4Addr::from(0x1400_0000 + (n << 8)).into(), 24).unwrap();
    (0..count).map(prefix).collect()
}

fn announce(bed: &mut Bed, peer: u32, attributes: &Attributes, prefixes: &[IpNet]) {
    let context = bed.sessions[&peer].context;
    let mut section = Vec::new();
    attributes.encode(&context, &mut section);
    for run in prefixes.chunks(500) {
        let mut message = Vec::new();
        let next_hop = attributes.next_hop.unwrap();
        let mut builder = UpdateBuilder::announce(
            &mut message,
            &context,
            &section,
            next_hop,
            Family::IPV4_UNICAST,
        );
        for prefix in run {
            builder.push(*prefix).unwrap();
        }
        builder.finish();
        bed.receive(peer, &message);
    }
}

fn retaining(session: PeerSession) -> PeerSession {
    PeerSession {
        retained: session.families.clone(),
        ..session
    }
}

fn from_inside(host: u8) -> Attributes {
    Attributes {
        local_pref: Some(100),
        ..via(host, &[65009])
    }
}

/// Two external peers and an internal one that have all prefixes, and one that has been told of them, as the kernel has.
fn bed(prefixes: &[IpNet]) -> Bed {
    let mut bed = Bed::new();
    bed.slow = true;
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.up(3, internal(3));
    bed.up(4, external(4, 65004));
    announce(&mut bed, 1, &via(1, &[65001]), prefixes);
    announce(&mut bed, 2, &via(2, &[65002, 65001]), prefixes);
    announce(&mut bed, 3, &from_inside(3), prefixes);
    bed.drain_all();
    bed
}

fn touched(bed: &Bed) -> u64 {
    let touched = |table: &crate::rib::table::Table| table.nets.touched.get();
    bed.rib.tables.iter().map(touched).sum()
}

/// What may happen to the bed, one input after the other.
type Inputs = Vec<(&'static str, fn(&mut Bed))>;

fn tagging() -> Policy {
    let statement = Statement {
        name: "tag".into(),
        matches: vec![],
        changes: vec![Change::LocalPref(50)],
        verdict: Verdict::Next,
    };
    Policy::new(vec![statement], Verdict::Accept, "default")
}

/// Each concerns all prefixes.
fn inputs() -> Inputs {
    vec![
        ("a policy", |bed| {
            let export = Policy::accept_all();
            bed.rib.set_policies(PeerIndex(1), tagging(), export);
        }),
        ("rules", |bed| {
            let rules = client(3, ROUTER_ID).rules;
            bed.rib.set_rules(PeerIndex(3), NextHopMode::Auto, rules);
        }),
        ("all rules at once", |bed| {
            for peer in 1..=3 {
                let rules = Rules {
                    blackhole: true,
                    ..Rules::default()
                };
                bed.rib.set_rules(PeerIndex(peer), NextHopMode::Auto, rules);
            }
        }),
        ("clusters", |bed| {
            bed.rib.set_clusters(vec![ROUTER_ID, [9, 9, 9, 9].into()]);
        }),
        ("the decision", |bed| {
            bed.rib.set_decision(Decision::multipath(4));
        }),
        ("a next hop gone", |bed| {
            bed.rib.set_next_hop(address(1), None);
        }),
        ("a session lost", |bed| bed.down(1, DownKind::Drop)),
        ("a session lost, its routes kept", |bed| {
            bed.down(2, DownKind::KeepStale);
        }),
        ("time is up", |bed| {
            bed.rib.stale_expired(PeerIndex(2), bed.generation(2));
        }),
        ("a refresh without routes", |bed| {
            let (peer, generation) = (PeerIndex(3), bed.generation(3));
            bed.rib
                .begin_refresh(peer, generation, Family::IPV4_UNICAST);
            bed.rib.end_refresh(peer, generation, Family::IPV4_UNICAST);
        }),
        // All that was swept waits for readers that have not come by.
        ("the readers lost", |bed| {
            for peer in [3, 4] {
                bed.down(peer, DownKind::Drop);
            }
            bed.rib.close_routes();
        }),
    ]
}

/// Runs all inputs; says what the dearest call looked at, and how many turns each input took.
fn cost(count: u32) -> (u64, Vec<(&'static str, u32)>) {
    let mut bed = bed(&prefixes(count));
    let mut most = 0;
    let mut turns = Vec::new();
    for (name, input) in inputs() {
        let before = touched(&bed);
        input(&mut bed);
        let spent = touched(&bed) - before;
        assert!(spent < TURN_LIMIT, "{name}: the input itself: {spent}");
        most = most.max(spent);
        let mut count = 0;
        while bed.rib.has_work() {
            let before = touched(&bed);
            bed.rib.work();
            let spent = touched(&bed) - before;
            assert!(spent < TURN_LIMIT, "{name}: a turn: {spent}");
            most = most.max(spent);
            count += 1;
        }
        turns.push((name, count));
    }
    assert_eq!(bed.rib.memory().nets, 0, "all is swept and forgotten");
    assert_eq!(bed.rib.attrs.total_refs(), 0);
    (most, turns)
}

#[test]
fn no_turn_costs_more_for_a_bigger_table() {
    let (small, some) = cost(2_000);
    let (big, many) = cost(12_000);
    assert!(big <= small + small / 4, "{small} {big}");
    for ((name, some), (_, many)) in some.into_iter().zip(many) {
        // Routes that are kept are only marked, and marking is no walk.
        let walks = name != "a session lost, its routes kept";
        assert_eq!(many > 0, walks, "{name}");
        assert!(!walks || many >= 4 * some, "{name}: {some} {many} turns");
    }
}

#[test]
fn several_changes_at_once_are_one_walk() {
    let turns = |bed: &mut Bed| {
        let mut turns = 0;
        while bed.rib.has_work() {
            bed.rib.work();
            turns += 1;
        }
        turns
    };
    let all = prefixes(4_000);
    let mut bed = bed(&all);
    bed.rib
        .set_policies(PeerIndex(1), tagging(), Policy::accept_all());
    let one = turns(&mut bed);
    for peer in 1..=3 {
        let policy = Policy::reject_all("nothing");
        bed.rib
            .set_policies(PeerIndex(peer), policy, Policy::accept_all());
        let rules = client(3, ROUTER_ID).rules;
        bed.rib.set_rules(PeerIndex(peer), NextHopMode::Own, rules);
    }
    bed.rib.set_clusters(vec![[9, 9, 9, 9].into()]);
    bed.rib.set_decision(Decision::multipath(2));
    bed.rib.set_next_hop(address(1), Some(7));
    let many = turns(&mut bed);
    assert!(many <= one + 2, "{one} {many}");
}

#[test]
fn a_session_that_is_back_before_its_routes_are_gone_keeps_what_it_sends() {
    let all = prefixes(2_000);
    let mut bed = bed(&all);
    bed.down(1, DownKind::Drop);
    bed.rib.work();
    assert!(bed.rib.has_work(), "not all is gone in one turn");
    bed.up(1, external(1, 65001));
    let received = bed.rib.received(PeerIndex(1), Family::IPV4_UNICAST);
    assert_eq!(received, 0, "the old session's don't count");
    // One that the walk has been at, one that it has not, and the rest never again.
    let again = [all[0], all[1_999]];
    announce(&mut bed, 1, &via(1, &[65001]), &again);
    bed.settle();
    let from = bed.rib.routes_from(PeerIndex(1), &Selection::All);
    let from: Vec<IpNet> = from.iter().map(|route| route.prefix).collect();
    assert_eq!(from, again);
    let told = bed.drain(4);
    assert_eq!(told.routes.len(), all.len());
    for (prefix, attributes) in &told.routes {
        let first = if again.contains(prefix) {
            [ASN, 65001]
        } else {
            [ASN, 65009]
        };
        let path: Vec<u32> = attributes.as_path.asns().take(2).collect();
        assert_eq!(path, first, "{prefix}");
    }
}

#[test]
fn what_the_walk_has_not_come_by_is_shown_as_it_is_going_to_be() {
    let all = prefixes(2_000);
    let mut bed = bed(&all);
    bed.down(1, DownKind::Drop);
    bed.rib.work();
    let last = Selection::Exact(all[1_999]);
    let routes = bed.rib.routes(&last);
    let shown: Vec<_> = routes[0].paths.iter().map(|path| path.peer).collect();
    assert_eq!(shown, [Some(PeerIndex(3)), Some(PeerIndex(2))]);
    assert!(matches!(routes[0].paths[0].state, PathState::Best(_)));
    let to = &bed.rib.routes_to(PeerIndex(4), &last)[0];
    assert!(to.pending, "the peer has yet to be told");
    let path: Vec<u32> = to.result.as_ref().unwrap().as_path.asns().collect();
    assert_eq!(path, [ASN, 65009]);
}

#[test]
fn sessions_lost_by_the_dozen_in_one_walk_leave_nothing() {
    let all = prefixes(300);
    let mut bed = bed(&all);
    bed.rib.set_turn(1);
    for round in 0..200_usize {
        bed.down(1, DownKind::Drop);
        bed.up(1, retaining(external(1, 65001)));
        announce(&mut bed, 1, &via(1, &[65001]), &all[round..=round]);
    }
    bed.settle();
    let from = bed.rib.routes_from(PeerIndex(1), &Selection::All);
    assert_eq!(from.len(), 1);
    assert_eq!(from[0].prefix, all[199]);
    assert!(!from[0].paths[0].stale);
}

//! Each step of the decision process decides once, and says so.

use bgp_wire::{Attributes, Origin};

use super::{Bed, address, external, internal, net, via};
use crate::config::Decision;
use crate::rib::{PathState, PathView, PeerIndex, PeerSession, Selection, Why};

/// The paths to 10.0.0.0/24 when two peers announce it: peer 1 with `first`, peer 2 with `second`.
fn contest(first: (PeerSession, Attributes), second: (PeerSession, Attributes)) -> Vec<PathView> {
    let mut views = Vec::new();
    // Whoever comes first must not matter.
    for order in [[1, 2], [2, 1]] {
        let mut bed = Bed::new();
        bed.rib.set_next_hop(address(77), Some(9));
        for peer in order {
            let (session, attributes) = if peer == 1 { &first } else { &second };
            bed.up(peer, session.clone());
            bed.announce(peer, attributes, &["10.0.0.0/24"]);
        }
        views.push(
            bed.rib
                .routes(&Selection::Exact(net("10.0.0.0/24")))
                .remove(0)
                .paths,
        );
    }
    assert_eq!(views[0], views[1]);
    views.remove(0)
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_step_decides() {
    let ext = |host, asn| external(host, asn);
    let reflected = |originator: u8, clusters: u8| Attributes {
        originator_id: Some([10, 0, 0, originator].into()),
        cluster_list: (0..clusters)
            .map(|cluster| [9, 9, 9, cluster].into())
            .collect(),
        ..via(1, &[65001])
    };
    let with = |attributes: Attributes, change: fn(&mut Attributes)| {
        let mut attributes = attributes;
        change(&mut attributes);
        attributes
    };
    // The first of each pair wins; at every earlier step it is no better, at every later one it is worse.
    let cases = [
        (
            Why::LocalPref,
            (
                internal(2),
                with(via(2, &[65001, 65009]), |it| it.local_pref = Some(101)),
            ),
            (
                internal(1),
                with(via(1, &[65001]), |it| it.local_pref = None),
            ),
        ),
        (
            Why::AsPathLength,
            (
                ext(2, 65002),
                with(via(2, &[65002]), |it| it.origin = Origin::Incomplete),
            ),
            (ext(1, 65001), via(1, &[65001, 65009])),
        ),
        (
            Why::Origin,
            (ext(2, 65001), with(via(2, &[65001]), |it| it.med = Some(9))),
            (
                ext(1, 65001),
                with(via(1, &[65001]), |it| it.origin = Origin::Egp),
            ),
        ),
        (
            Why::Med,
            (internal(2), with(via(2, &[65001]), |it| it.med = None)),
            (ext(1, 65001), with(via(1, &[65001]), |it| it.med = Some(1))),
        ),
        (
            Why::External,
            (ext(2, 65001), via(77, &[65001])),
            (internal(1), via(1, &[65001])),
        ),
        (
            Why::IgpCost,
            (ext(2, 65002), via(2, &[65002])),
            (ext(1, 65001), via(77, &[65001])),
        ),
        (
            Why::RouterId,
            (ext(1, 65001), via(1, &[65001])),
            (ext(2, 65002), via(2, &[65002])),
        ),
        (
            Why::RouterId,
            (internal(9), reflected(1, 2)),
            (internal(8), reflected(2, 1)),
        ),
        (
            Why::ClusterListLength,
            (internal(9), reflected(1, 1)),
            (internal(8), reflected(1, 2)),
        ),
        (
            Why::PeerAddress,
            (internal(8), reflected(1, 1)),
            (internal(9), reflected(1, 1)),
        ),
    ];
    for (why, winner, loser) in cases {
        let paths = contest(winner, loser);
        assert_eq!(paths[0].peer, Some(PeerIndex(1)), "{why}");
        assert_eq!(paths[0].state, PathState::Best(why));
        assert_eq!(paths[1].state, PathState::Lost(why));
    }
}

#[test]
fn only_path_and_own_route() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    let states = |bed: &Bed| -> Vec<PathState> {
        bed.rib
            .routes(&Selection::All)
            .remove(0)
            .paths
            .into_iter()
            .map(|path| path.state)
            .collect()
    };
    assert_eq!(states(&bed), [PathState::Best(Why::OnlyPath)]);
    bed.rib
        .set_originated([(net("10.0.0.0/24"), Attributes::originated())].into());
    assert_eq!(
        states(&bed),
        [PathState::Best(Why::Local), PathState::Lost(Why::Local)]
    );
}

/// RFC 4271 §9.1.2.2 c: a path that falls by its MED falls whether or not its rival wins in the end, so adding a path can
/// change which of two others is better.
#[test]
fn med_is_compared_inside_a_neighbouring_as() {
    let mut bed = Bed::new();
    let med = |host: u8, asn: u32, med: u32| Attributes {
        med: Some(med),
        ..via(host, &[asn])
    };
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.up(3, external(3, 65001));
    bed.announce(1, &med(1, 65001, 10), &["10.0.0.0/24"]);
    bed.announce(2, &med(2, 65002, 99), &["10.0.0.0/24"]);
    let best = |bed: &Bed| {
        bed.rib.routes(&Selection::All)[0].paths[0]
            .peer_address
            .unwrap()
    };
    assert_eq!(
        best(&bed),
        address(1),
        "MEDs of different ASes do not compare; the lower router id wins"
    );
    // The third path beats the first by MED, and loses to the second by router id.
    bed.announce(3, &med(3, 65001, 5), &["10.0.0.0/24"]);
    assert_eq!(best(&bed), address(2));
    let paths = bed.rib.routes(&Selection::All).remove(0).paths;
    let first = paths
        .iter()
        .find(|path| path.peer_address == Some(address(1)))
        .unwrap();
    assert_eq!(first.state, PathState::Lost(Why::Med));
    bed.withdraw(3, &["10.0.0.0/24"]);
    assert_eq!(best(&bed), address(1));
}

#[test]
fn an_unreachable_next_hop_is_not_used() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    bed.announce(2, &via(2, &[65002]), &["10.0.0.0/24"]);
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(1));
    bed.rib.set_next_hop(address(1), None);
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(2));
    let paths = bed.rib.routes(&Selection::All).remove(0).paths;
    assert_eq!(paths[1].state, PathState::Unreachable);
    bed.rib.set_next_hop(address(2), None);
    bed.drain_all();
    assert!(bed.kernel.is_empty());
    bed.rib.set_next_hop(address(1), Some(5));
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(1));
}

#[test]
fn a_tracked_next_hop_is_not_used_before_it_is_known() {
    let mut bed = Bed::new();
    bed.rib.track_next_hops();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24", "10.0.1.0/24"]);
    bed.announce(2, &via(2, &[65002, 65003]), &["10.0.0.0/24"]);
    bed.drain_all();
    assert!(bed.kernel.is_empty() && bed.rib.awaits_next_hops());
    let both = [(address(1), true), (address(2), true)];
    assert_eq!(bed.rib.poll_next_hops(), both);
    assert_eq!(bed.rib.poll_next_hops(), []);
    // The second answer is there first, and is as good as any.
    bed.rib.set_next_hop(address(2), Some(0));
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(2));
    bed.rib.set_next_hop(address(1), Some(0));
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(1));
    assert!(!bed.rib.awaits_next_hops());
    // It is forgotten with the last path that had it: what was known of it may be wrong when it comes back.
    bed.withdraw(1, &["10.0.0.0/24", "10.0.1.0/24"]);
    assert_eq!(bed.rib.poll_next_hops(), [(address(1), false)]);
    bed.rib.set_next_hop(address(1), Some(0));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    assert_eq!(bed.rib.poll_next_hops(), [(address(1), true)]);
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")][0].address(), address(2));
}

#[test]
fn equal_paths_share() {
    let mut bed = Bed::new();
    bed.rib.set_decision(Decision::multipath(2));
    for host in 1..=3_u8 {
        bed.up(host.into(), external(host, 65000 + u32::from(host)));
        bed.announce(
            host.into(),
            &via(host, &[65000 + u32::from(host)]),
            &["10.0.0.0/24"],
        );
    }
    bed.up(4, external(4, 65004));
    bed.announce(4, &via(4, &[65004, 65005]), &["10.0.0.0/24"]);
    bed.drain_all();
    let hops = |bed: &Bed| -> Vec<_> {
        bed.kernel[&net("10.0.0.0/24")]
            .iter()
            .map(bgp_wire::NextHop::address)
            .collect()
    };
    assert_eq!(hops(&bed), [address(1), address(2)]);
    let told = bed.listeners[&4].announced;
    bed.down(2, crate::rib::DownKind::Drop);
    bed.drain_all();
    assert_eq!(hops(&bed), [address(1), address(3)]);
    assert_eq!(
        bed.listeners[&4].announced, told,
        "a change among equals is the kernel's business alone"
    );
    bed.rib.set_decision(Decision::default());
    bed.drain_all();
    assert_eq!(hops(&bed), [address(1)]);
}

/// Two kinds of paths, each with its own limit; other neighbouring ASes only where that is asked for.
#[test]
fn how_many_share_and_with_whom() {
    let limits = |external, internal, relax| Decision {
        max_external_paths: external,
        max_internal_paths: internal,
        multipath_relax: relax,
        ..Decision::default()
    };
    let cases = [
        (limits(1, 1, true), 1, 1),
        (limits(4, 1, true), 3, 1),
        (limits(4, 1, false), 2, 1),
        (limits(2, 4, true), 2, 3),
        (limits(4, 4, false), 2, 2),
        (limits(0, 0, true), 1, 1),
    ];
    for (decision, expected_external, expected_internal) in cases {
        let mut bed = Bed::new();
        bed.rib.set_decision(decision);
        for (host, asn) in [(1, 65001), (2, 65001), (3, 65002)] {
            bed.up(host.into(), external(host, asn));
            bed.announce(host.into(), &via(host, &[asn]), &["10.0.0.0/24"]);
            bed.up(u32::from(host) + 10, internal(host + 10));
            let inside = via(host + 10, &[asn]);
            bed.announce(
                u32::from(host) + 10,
                &inside,
                &["10.0.0.0/24", "10.0.1.0/24"],
            );
        }
        bed.drain_all();
        let counts = ["10.0.0.0/24", "10.0.1.0/24"].map(|prefix| bed.kernel[&net(prefix)].len());
        assert_eq!(
            counts,
            [expected_external, expected_internal],
            "{decision:?}"
        );
        let shown = bed.rib.routes(&Selection::Exact(net("10.0.0.0/24")));
        let marked = shown[0].paths.iter().filter(|path| path.multipath).count();
        let all_that_could = if decision.multipath_relax { 3 } else { 2 };
        let expected = if decision.max_external_paths > 1 {
            all_that_could
        } else {
            0
        };
        assert_eq!(marked, expected, "{decision:?}");
    }
}

#[test]
fn meds_compare_as_configured() {
    let decision = |always, worst| Decision {
        always_compare_med: always,
        missing_med_worst: worst,
        ..Decision::default()
    };
    let med = |host, asn, med| Attributes {
        med,
        ..via(host, &[asn])
    };
    // Peer 1 would win by its router id.
    let cases = [
        (decision(false, false), 65002, Some(1), None, 1),
        (decision(false, false), 65001, Some(1), None, 2),
        (decision(true, false), 65002, Some(1), None, 2),
        (decision(true, false), 65002, Some(2), Some(1), 2),
        (decision(false, true), 65001, Some(1), None, 1),
        (decision(false, true), 65001, None, Some(5), 2),
        (decision(true, true), 65002, None, Some(5), 2),
        (decision(false, true), 65002, None, Some(5), 1),
    ];
    for (decision, second_asn, first, second, expected) in cases {
        let mut bed = Bed::new();
        bed.up(1, external(1, 65001));
        bed.up(2, external(2, second_asn));
        bed.announce(1, &med(1, 65001, first), &["10.0.0.0/24"]);
        bed.announce(2, &med(2, second_asn, second), &["10.0.0.0/24"]);
        bed.rib.set_decision(decision);
        let best = bed.rib.routes(&Selection::All)[0].paths[0].peer;
        let case = (decision, second_asn, first, second);
        assert_eq!(best, Some(PeerIndex(expected)), "{case:?}");
    }
}

/// Costs told together are told as one after the other.
#[test]
fn many_next_hops_at_once() {
    let mut bed = Bed::new();
    bed.rib.set_decision(Decision::multipath(4));
    for host in 1..=4_u8 {
        let asn = 65000 + u32::from(host);
        bed.up(host.into(), external(host, asn));
        bed.announce(host.into(), &via(host, &[asn]), &["10.0.0.0/24"]);
    }
    let costs = [Some(5), Some(3), None, Some(3)];
    let all = (1..=4).map(address).zip(costs);
    bed.rib.set_next_hops(all);
    bed.drain_all();
    let hops: Vec<_> = bed.kernel[&net("10.0.0.0/24")]
        .iter()
        .map(bgp_wire::NextHop::address)
        .collect();
    assert_eq!(hops, [address(2), address(4)]);
    let routes = bed.rib.routes(&Selection::All);
    let state = |host: u8| {
        let mut paths = routes[0].paths.iter();
        let path = paths.find(|path| path.peer_address == Some(address(host)));
        path.unwrap().state.clone()
    };
    assert_eq!(state(1), PathState::Lost(Why::IgpCost));
    assert_eq!(state(3), PathState::Unreachable);
    // What changed then is settled: news of one next hop concerns no other.
    bed.rib.set_next_hops([(address(1), Some(1))]);
    bed.drain_all();
    assert_eq!(bed.kernel[&net("10.0.0.0/24")].len(), 1);
}

#[test]
fn a_next_hop_that_nobody_spoke_of_yet_is_told_from_one_that_is_gone() {
    let mut bed = Bed::new();
    bed.rib.track_next_hops();
    bed.up(1, external(1, 65001));
    bed.announce(1, &via(1, &[65001]), &["10.0.0.0/24"]);
    let state = |bed: &Bed| bed.rib.routes(&Selection::All)[0].paths[0].state.clone();
    assert_eq!(state(&bed), PathState::Unresolved);
    bed.rib.set_next_hop(address(1), None);
    assert_eq!(state(&bed), PathState::Unreachable);
    bed.rib.set_next_hop(address(1), Some(0));
    assert_eq!(state(&bed), PathState::Best(Why::OnlyPath));
}

//! Who is told what, and with which attributes.

use bgp_wire::{AsPath, Attributes, Community, ExtendedCommunity, Ipv6ExtendedCommunity, NextHop};

use super::{ASN, Bed, ROUTER_ID, address, client, external, internal, net, via};
use crate::config::NextHopMode;
use crate::policy::{Change, Match, Policy, Statement, Verdict};
use crate::rib::{PeerIndex, PeerSession, Selection, Withheld};

const PREFIX: &str = "10.0.0.0/24";

/// What peer 2 is told of a route of peer 1's.
fn told(
    from: PeerSession,
    attributes: &Attributes,
    to: PeerSession,
) -> Result<Attributes, Withheld> {
    let mut bed = Bed::new();
    bed.up(1, from);
    bed.up(2, to);
    bed.announce(1, attributes, &[PREFIX]);
    let shown = bed
        .rib
        .routes_to(PeerIndex(2), &Selection::All)
        .remove(0)
        .result;
    let told = bed.drain(2).routes.get(&net(PREFIX)).cloned();
    assert_eq!(
        shown.as_ref().ok(),
        told.as_ref(),
        "the view shows what is sent"
    );
    shown
}

fn rich() -> Attributes {
    Attributes {
        med: Some(7),
        local_pref: Some(200),
        communities: vec![Community(5)],
        originator_id: Some([10, 0, 0, 77].into()),
        cluster_list: vec![[9, 9, 9, 9].into()],
        ..via(1, &[65009])
    }
}

#[test]
fn to_an_external_peer() {
    let told = told(internal(1), &rich(), external(2, 65002)).unwrap();
    let expected = Attributes {
        as_path: AsPath::sequence([ASN, 65009]),
        next_hop: Some(NextHop::from(address(254))),
        communities: vec![Community(5)],
        ..Attributes::originated()
    };
    assert_eq!(told, expected);
}

#[test]
fn to_an_internal_peer() {
    let learned = Attributes {
        med: Some(7),
        ..via(1, &[65001])
    };
    let told = told(external(1, 65001), &learned, internal(2)).unwrap();
    assert_eq!(
        told,
        Attributes {
            local_pref: Some(100),
            ..learned
        }
    );
}

#[test]
fn reflection() {
    let client = |host| client(host, ROUTER_ID);
    assert_eq!(
        told(internal(1), &via(1, &[]), internal(2)),
        Err(Withheld::InternalToInternal)
    );
    for (from, to) in [
        (client(1), internal(2)),
        (internal(1), client(2)),
        (client(1), client(2)),
    ] {
        let told = told(from, &via(1, &[]), to).unwrap();
        assert_eq!(told.originator_id, Some([10, 0, 0, 1].into()));
        assert_eq!(told.cluster_list, [ROUTER_ID]);
        assert_eq!(told.next_hop, Some(NextHop::from(address(1))));
    }
    let told = told(client(1), &rich(), client(2)).unwrap();
    assert_eq!(told.originator_id, Some([10, 0, 0, 77].into()));
    assert_eq!(told.cluster_list, [ROUTER_ID, [9, 9, 9, 9].into()]);
}

#[test]
fn well_known_communities() {
    let with = |community| Attributes {
        communities: vec![Community(community)],
        ..via(1, &[65001])
    };
    let cases = [
        (0xffff_ff01, external(2, 65002), Err(Withheld::NoExport)),
        (0xffff_ff03, external(2, 65002), Err(Withheld::NoExport)),
        (0xffff_ff02, external(2, 65002), Err(Withheld::NoAdvertise)),
        (0xffff_ff02, internal(2), Err(Withheld::NoAdvertise)),
        (0xffff_ff01, internal(2), Ok(())),
    ];
    for (community, to, expected) in cases {
        assert_eq!(
            told(external(1, 65001), &with(community), to).map(|_| ()),
            expected
        );
    }
}

/// RFC 4360 §6, RFC 5701 §2.
#[test]
fn non_transitive_communities_stay_in_the_as() {
    let (stays, goes) = (
        ExtendedCommunity([0x40, 4, 0, 1, 0, 0, 0, 1]),
        ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 1]),
    );
    let v6 = |kind| {
        let mut bytes = [1; 20];
        bytes[0] = kind;
        Ipv6ExtendedCommunity(bytes)
    };
    let both = Attributes {
        extended_communities: vec![stays, goes],
        ipv6_extended_communities: vec![v6(0x40), v6(0)],
        ..via(1, &[65001])
    };
    let outside = told(external(1, 65001), &both, external(2, 65002)).unwrap();
    assert_eq!(outside.extended_communities, [goes]);
    assert_eq!(outside.ipv6_extended_communities, [v6(0)]);
    let inside = told(external(1, 65001), &both, internal(2)).unwrap();
    assert_eq!(inside.extended_communities, both.extended_communities);
    assert_eq!(
        inside.ipv6_extended_communities,
        both.ipv6_extended_communities
    );
}

#[test]
fn next_hops() {
    let shared = Some(net("192.0.2.0/24"));
    let own = address(254);
    let to = |next_hop, shared_subnet| PeerSession {
        next_hop,
        shared_subnet,
        ..external(2, 65002)
    };
    let cases = [
        (via(1, &[65001]), to(NextHopMode::Auto, None), own),
        (via(1, &[65001]), to(NextHopMode::Auto, shared), address(1)),
        // On the subnet, but whose it is we do not know.
        (via(9, &[65001]), to(NextHopMode::Auto, shared), own),
        (via(1, &[65001]), to(NextHopMode::Own, shared), own),
        (via(1, &[65001]), to(NextHopMode::Keep, None), address(1)),
        (via(1, &[65001]), internal(2), address(1)),
        (
            via(1, &[65001]),
            PeerSession {
                next_hop: NextHopMode::Own,
                ..internal(2)
            },
            own,
        ),
    ];
    for (attributes, to, expected) in cases {
        let mode = (to.next_hop, to.shared_subnet, to.ibgp);
        let told = told(external(1, 65001), &attributes, to).unwrap();
        assert_eq!(told.next_hop.unwrap().address(), expected, "{mode:?}");
    }
}

#[test]
fn families_without_a_next_hop_stay_here() {
    let no_v6 = PeerSession {
        other_local_address: None,
        link_local: None,
        ..external(2, 65002)
    };
    let mut bed = Bed::new();
    bed.up(2, no_v6);
    bed.rib
        .set_originated([(net("2001:db8:1::/48"), Attributes::originated())].into());
    let view = bed.rib.routes_to(PeerIndex(2), &Selection::All).remove(0);
    assert_eq!(view.result, Err(Withheld::NoNextHop));
    assert!(bed.drain(2).routes.is_empty());
}

#[test]
fn an_ipv4_prefix_with_an_ipv6_next_hop() {
    let over_v6 = |extended_next_hop| PeerSession {
        peer_address: "2001:db8::2".parse().unwrap(),
        local_address: "2001:db8::fe".parse().unwrap(),
        other_local_address: None,
        link_local: None,
        extended_next_hop,
        ..external(2, 65002)
    };
    assert_eq!(
        told(external(1, 65001), &via(1, &[65001]), over_v6(false)),
        Err(Withheld::NoNextHop)
    );
    let told = told(external(1, 65001), &via(1, &[65001]), over_v6(true)).unwrap();
    assert_eq!(
        told.next_hop,
        Some(NextHop::V6("2001:db8::fe".parse().unwrap()))
    );
}

#[test]
fn own_routes() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, internal(2));
    let attributes = Attributes {
        med: Some(3),
        ..Attributes::originated()
    };
    bed.rib
        .set_originated([(net("10.1.0.0/24"), attributes)].into());
    let external = bed.told_attributes(1, "10.1.0.0/24");
    assert_eq!(external.as_path, AsPath::sequence([ASN]));
    assert_eq!(
        (external.med, external.next_hop),
        (Some(3), Some(NextHop::from(address(254))))
    );
    let internal = bed.told_attributes(2, "10.1.0.0/24");
    assert_eq!(
        (internal.as_path, internal.local_pref),
        (AsPath::default(), Some(100))
    );
    bed.drain_all();
    assert!(bed.kernel.is_empty(), "our own routes are not learned");
    bed.rib.set_originated([].into());
    assert!(bed.told(1).is_empty());
}

#[test]
fn policy_changes_and_rejects() {
    let rule = |matches, changes, verdict| Statement {
        name: "BGPFilter/x rule 1".into(),
        matches,
        changes,
        verdict,
    };
    let export = |statement| Policy::new(vec![statement], Verdict::Accept, "default");
    let to = |export| PeerSession {
        export,
        ..external(2, 65002)
    };
    let learned = Attributes {
        med: Some(7),
        ..via(1, &[65001])
    };
    let rejecting = export(rule(
        vec![Match::AsPathContains(65001)],
        vec![],
        Verdict::Reject,
    ));
    let refused = told(external(1, 65001), &learned, to(rejecting)).unwrap_err();
    assert_eq!(refused.to_string(), "rejected by BGPFilter/x rule 1");
    let changes = vec![
        Change::Med(Some(9)),
        Change::Prepend(2),
        Change::AddCommunity(Community(4).into()),
    ];
    let told = told(
        external(1, 65001),
        &learned,
        to(export(rule(vec![], changes, Verdict::Accept))),
    )
    .unwrap();
    assert_eq!(
        told.med,
        Some(9),
        "a MED set on the way out is for this neighbour"
    );
    assert_eq!(told.as_path, AsPath::sequence([ASN, ASN, ASN, 65001]));
    assert_eq!(told.communities, [Community(4)]);
}

#[test]
fn attributes_that_leave_no_room_are_withdrawn() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, external(2, 65002));
    bed.announce(1, &via(1, &[65001]), &[PREFIX]);
    assert_eq!(bed.told(2), [PREFIX]);
    // Fits when it comes in, and no more with our AS in front: 4,096 octets are full.
    let mut long = via(1, &[65001]);
    long.communities = (0..1000).map(Community).collect();
    let mut section = Vec::new();
    long.encode(&super::context(false), &mut section);
    let room = 4096 - 23 - 4 - section.len();
    long.as_path.prepend(65001, room / 4);
    bed.announce(1, &long, &[PREFIX]);
    assert!(bed.told(2).is_empty());
    let view = bed.rib.routes_to(PeerIndex(2), &Selection::All).remove(0);
    assert_eq!(view.result, Err(Withheld::TooLong));
}

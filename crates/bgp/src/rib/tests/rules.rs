//! What is done with a peer's routes beside policy, each rule by itself.

use bgp_wire::{AsPath, Attributes, Community, NextHop, Segment, SegmentKind};

use super::{ASN, Bed, ROUTER_ID, address, client, external, internal, net, via};
use crate::config::{Client, LocalAs, NextHopMode, PrivateAs, Rules};
use crate::policy::{Change, Policy, Statement, Verdict};
use crate::rib::{PathState, PeerIndex, PeerSession, Rejected, Selection, Withheld};

const PREFIX: &str = "10.0.0.0/24";
const SECOND_CLUSTER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(9, 9, 9, 9);
/// Our AS towards one peer.
const LOCAL_ASN: u32 = 64999;

fn with(session: PeerSession, change: fn(&mut Rules)) -> PeerSession {
    let mut session = session;
    change(&mut session.rules);
    session
}

/// What becomes of a route of peer 1's here, and what peer 2 is told of it.
fn learned(
    from: PeerSession,
    attributes: &Attributes,
    to: PeerSession,
) -> (Bed, Result<Attributes, Withheld>) {
    let mut bed = Bed::new();
    bed.rib.set_clusters(vec![ROUTER_ID, SECOND_CLUSTER]);
    bed.settle();
    bed.up(1, from);
    bed.up(2, to);
    bed.announce(1, attributes, &[PREFIX]);
    bed.drain_all();
    let shown = bed
        .rib
        .routes_to(PeerIndex(2), &Selection::All)
        .remove(0)
        .result;
    let sent = bed.listeners[&2].routes.get(&net(PREFIX));
    assert_eq!(shown.as_ref().ok(), sent, "the view shows what is sent");
    (bed, shown)
}

fn state(bed: &Bed) -> PathState {
    bed.rib.routes(&Selection::All)[0].paths[0].state.clone()
}

fn attributes(bed: &Bed) -> Attributes {
    bed.rib.routes(&Selection::All)[0].paths[0]
        .attributes
        .clone()
}

fn sequence(asns: &[u32]) -> AsPath {
    AsPath::sequence(asns)
}

#[test]
fn reflection_between_clusters_and_within_one() {
    let meshed = |host, cluster| {
        with(client(host, cluster), |rules| {
            rules.client = rules.client.map(|client| Client {
                meshed: true,
                ..client
            });
        })
    };
    let (first, second) = (ROUTER_ID, SECOND_CLUSTER);
    // The cluster that is put in front: the source's, and for a source that is no client, the destination's.
    let cases = [
        (client(1, first), client(2, second), Ok(first)),
        (client(1, second), client(2, first), Ok(second)),
        (client(1, second), internal(2), Ok(second)),
        (internal(1), client(2, second), Ok(second)),
        (internal(1), internal(2), Err(Withheld::InternalToInternal)),
        (client(1, first), client(2, first), Ok(first)),
        (
            meshed(1, first),
            meshed(2, first),
            Err(Withheld::ClientToClient),
        ),
        (meshed(1, first), meshed(2, second), Ok(first)),
        (internal(1), meshed(2, first), Ok(first)),
        (meshed(1, first), internal(2), Ok(first)),
    ];
    for (from, to, expected) in cases {
        let rules = (from.rules.client, to.rules.client);
        let (_, told) = learned(from, &via(1, &[]), to);
        let cluster = told.map(|told| {
            assert_eq!(told.originator_id, Some([10, 0, 0, 1].into()));
            assert_eq!(told.next_hop, Some(NextHop::from(address(1))));
            assert_eq!(told.cluster_list.len(), 1);
            told.cluster_list[0]
        });
        assert_eq!(cluster, expected, "{rules:?}");
    }
}

/// An external peer is no client whatever the configuration says: what it is told is told as to any other.
#[test]
fn an_external_peer_is_no_client() {
    let odd = PeerSession {
        rules: client(2, ROUTER_ID).rules,
        ..external(2, 65002)
    };
    let (_, told) = learned(internal(1), &via(1, &[]), odd);
    assert_eq!(told.unwrap().cluster_list, [] as [std::net::Ipv4Addr; 0]);
}

#[test]
fn a_route_that_came_through_any_of_our_clusters_is_a_loop() {
    let mut bed = Bed::new();
    bed.up(1, internal(1));
    let through = Attributes {
        cluster_list: vec![[8, 8, 8, 8].into(), SECOND_CLUSTER],
        ..via(1, &[])
    };
    bed.announce(1, &through, &[PREFIX]);
    assert!(matches!(state(&bed), PathState::Best(_)));
    bed.rib.set_clusters(vec![ROUTER_ID, SECOND_CLUSTER]);
    bed.settle();
    assert_eq!(state(&bed), PathState::Rejected(Rejected::ClusterLoop));
    bed.rib.set_clusters(vec![[7, 7, 7, 7].into()]);
    bed.settle();
    assert!(matches!(state(&bed), PathState::Best(_)));
}

#[test]
fn a_peer_becomes_a_client_and_stops_without_a_new_session() {
    let mut bed = Bed::new();
    for host in 1..=3_u8 {
        bed.up(host.into(), internal(host));
    }
    bed.announce(1, &via(1, &[]), &[PREFIX]);
    assert!(bed.told(2).is_empty() && bed.told(3).is_empty());
    let mode = NextHopMode::Auto;
    // Peer 1's routes are now for all; peer 2 had no say in that.
    bed.rib
        .set_rules(PeerIndex(1), mode, client(1, ROUTER_ID).rules);
    assert_eq!(
        (bed.told(2), bed.told(3)),
        (vec![PREFIX.into()], vec![PREFIX.into()])
    );
    bed.rib.set_rules(PeerIndex(1), mode, Rules::default());
    assert!(bed.told(2).is_empty() && bed.told(3).is_empty());
    bed.rib
        .set_rules(PeerIndex(3), mode, client(3, ROUTER_ID).rules);
    assert_eq!(
        (bed.told(2), bed.told(3)),
        (vec![], vec![PREFIX.to_owned()])
    );
}

#[test]
fn local_as() {
    let style = |host, local_as| {
        let session = PeerSession {
            local_asn: LOCAL_ASN,
            ..external(host, 65000 + u32::from(host))
        };
        PeerSession {
            rules: Rules {
                local_as,
                ..Rules::default()
            },
            ..session
        }
    };
    let cases = [
        (
            LocalAs::Prepend,
            vec![LOCAL_ASN, ASN],
            vec![LOCAL_ASN, 65001],
        ),
        (LocalAs::NoPrepend, vec![LOCAL_ASN, ASN], vec![65001]),
        (LocalAs::Replace, vec![LOCAL_ASN], vec![65001]),
    ];
    for (local_as, in_front, received) in cases {
        let (_, told) = learned(external(1, 65001), &via(1, &[65001]), style(2, local_as));
        let expected = [in_front.as_slice(), &[65001]].concat();
        assert_eq!(told.unwrap().as_path, sequence(&expected), "{local_as:?}");
        let (bed, _) = learned(style(1, local_as), &via(1, &[65001]), internal(2));
        assert_eq!(
            attributes(&bed).as_path,
            sequence(&received),
            "{local_as:?}"
        );
        // Both numbers are ours: either is a loop.
        for own in [ASN, LOCAL_ASN] {
            let (bed, _) = learned(style(1, local_as), &via(1, &[65001, own]), internal(2));
            assert_eq!(state(&bed), PathState::Rejected(Rejected::AsLoop));
        }
    }
}

#[test]
fn our_own_as_may_be_allowed() {
    let allowing = |count| PeerSession {
        rules: Rules {
            allowed_own_as: count,
            ..Rules::default()
        },
        ..external(1, 65001)
    };
    for (allowed, path, fits) in [
        (0, vec![65001, ASN], false),
        (1, vec![65001, ASN], true),
        (1, vec![65001, ASN, 65002, ASN], false),
        (2, vec![65001, ASN, 65002, ASN], true),
    ] {
        let (bed, _) = learned(allowing(allowed), &via(1, &path), external(2, 65002));
        assert_eq!(matches!(state(&bed), PathState::Best(_)), fits, "{path:?}");
    }
}

#[test]
fn private_as_numbers_and_the_peers_own() {
    let to = |private_as, override_as| PeerSession {
        rules: Rules {
            private_as,
            override_as,
            ..Rules::default()
        },
        ..external(2, 65002)
    };
    let path = [65001, 3000, 65002, 4_200_000_001, 4_294_967_295, 65001];
    let cases = [
        (
            PrivateAs::Keep,
            false,
            vec![ASN, 65001, 3000, 65002, 4_200_000_001, 4_294_967_295, 65001],
        ),
        (
            PrivateAs::Remove,
            false,
            vec![ASN, 3000, 65002, 4_294_967_295],
        ),
        (
            PrivateAs::Replace,
            false,
            vec![ASN, ASN, 3000, 65002, ASN, 4_294_967_295, ASN],
        ),
        (
            PrivateAs::Keep,
            true,
            vec![ASN, 65001, 3000, ASN, 4_200_000_001, 4_294_967_295, 65001],
        ),
        (PrivateAs::Remove, true, vec![ASN, 3000, ASN, 4_294_967_295]),
    ];
    for (private_as, override_as, expected) in cases {
        let (_, told) = learned(
            external(1, 65001),
            &via(1, &path),
            to(private_as, override_as),
        );
        assert_eq!(
            told.unwrap().as_path,
            sequence(&expected),
            "{private_as:?} {override_as}"
        );
    }
    // All of a path may go; what policy prepends may not.
    let prepending = Policy::new(
        vec![Statement {
            name: "x".into(),
            matches: vec![],
            changes: vec![Change::Prepend(2)],
            verdict: Verdict::Accept,
        }],
        Verdict::Reject,
        "default",
    );
    let to = PeerSession {
        export: prepending,
        ..to(PrivateAs::Remove, false)
    };
    let (_, told) = learned(external(1, 65001), &via(1, &[65001, 65005]), to);
    assert_eq!(told.unwrap().as_path, sequence(&[ASN, ASN, ASN]));
    let inside = PeerSession {
        rules: Rules {
            private_as: PrivateAs::Remove,
            override_as: true,
            ..Rules::default()
        },
        ..internal(2)
    };
    let (_, told) = learned(external(1, 65001), &via(1, &[65001]), inside);
    assert_eq!(
        told.unwrap().as_path,
        sequence(&[65001]),
        "for external peers alone"
    );
}

/// Peers that differ only in what has no say on what they are told share their octets.
#[test]
fn rules_without_a_say_keep_no_peers_apart() {
    let client_by_mistake = PeerSession {
        rules: client(3, ROUTER_ID).rules,
        ..external(3, 65003)
    };
    let differing = [
        external(2, 65002),
        client_by_mistake,
        with(external(4, 65004), |rules| rules.allowed_own_as = 3),
        with(external(5, 65005), |rules| rules.graceful_shutdown = false),
        with(external(6, 65006), |rules| rules.blackhole = true),
        with(external(7, 65007), |rules| {
            rules.local_as = LocalAs::Prepend
        }),
    ];
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    for (index, session) in (2..).zip(&differing) {
        bed.up(index, session.clone());
    }
    bed.drain_all();
    bed.announce(1, &via(1, &[65001]), &[PREFIX]);
    let sent: Vec<_> = (2..)
        .zip(&differing)
        .map(|(index, _)| bed.rib.poll_transmit(PeerIndex(index)).unwrap().as_ptr())
        .collect();
    assert!(
        sent.iter().all(|buffer| *buffer == sent[0]),
        "one buffer for all"
    );
}

fn tagged(community: Community) -> Attributes {
    Attributes {
        communities: vec![community],
        ..via(1, &[65001])
    }
}

#[test]
fn no_peer_is_for_bilateral_peers() {
    let attributes = tagged(Community::NOPEER);
    let bilateral = with(external(2, 65002), |rules| rules.bilateral = true);
    let (_, told) = learned(external(1, 65001), &attributes, bilateral.clone());
    assert_eq!(told, Err(Withheld::NoPeer));
    assert!(
        learned(external(1, 65001), &attributes, external(2, 65002))
            .1
            .is_ok()
    );
    assert!(
        learned(external(1, 65001), &via(1, &[65001]), bilateral)
            .1
            .is_ok()
    );
}

#[test]
fn graceful_shutdown_is_the_last_resort() {
    let attributes = tagged(Community::GRACEFUL_SHUTDOWN);
    let (bed, told) = learned(external(1, 65001), &attributes, internal(2));
    assert_eq!(self::attributes(&bed).local_pref, Some(0));
    let told = told.unwrap();
    assert_eq!((told.local_pref, told.communities.len()), (Some(0), 1));
    // Not from an internal peer, whose LOCAL_PREF says it; and not where that is switched off.
    let (bed, _) = learned(internal(1), &attributes, internal(2));
    assert_eq!(self::attributes(&bed).local_pref, Some(100));
    let deaf = with(external(1, 65001), |rules| rules.graceful_shutdown = false);
    let (bed, _) = learned(deaf, &attributes, internal(2));
    assert_eq!(self::attributes(&bed).local_pref, None);
}

#[test]
fn a_drain_tells_everyone_and_ends() {
    let mut bed = Bed::new();
    bed.up(1, external(1, 65001));
    bed.up(2, internal(2));
    bed.rib
        .set_originated([(net(PREFIX), Attributes::originated())].into());
    let draining = Rules {
        drain: true,
        ..Rules::default()
    };
    for (rules, communities, local_pref) in [
        (draining, vec![Community::GRACEFUL_SHUTDOWN], 0),
        (Rules::default(), vec![], 100),
    ] {
        for peer in [1, 2] {
            bed.rib.set_rules(PeerIndex(peer), NextHopMode::Auto, rules);
        }
        let outside = bed.told_attributes(1, PREFIX);
        assert_eq!(
            (outside.local_pref, &outside.communities),
            (None, &communities)
        );
        let inside = bed.told_attributes(2, PREFIX);
        assert_eq!(
            (inside.local_pref, &inside.communities),
            (Some(local_pref), &communities)
        );
    }
}

#[test]
fn a_blackhole_is_honoured_where_it_is_configured() {
    let attributes = tagged(Community::BLACKHOLE);
    let (bed, told) = learned(external(1, 65001), &attributes, external(2, 65002));
    assert!(told.is_ok());
    assert_eq!(bed.kernel[&net(PREFIX)].len(), 1);

    let trusted = with(external(1, 65001), |rules| rules.blackhole = true);
    let (mut bed, told) = learned(trusted, &attributes, external(2, 65002));
    assert_eq!(told, Err(Withheld::NoAdvertise));
    assert_eq!(bed.kernel[&net(PREFIX)], [], "discarded");
    bed.rib.set_next_hop(address(1), None);
    bed.drain_all();
    assert_eq!(bed.kernel[&net(PREFIX)], [], "nowhere is always reachable");
    bed.rib.set_next_hop(address(1), Some(0));
    bed.rib
        .set_rules(PeerIndex(1), NextHopMode::Auto, Rules::default());
    bed.drain_all();
    assert_eq!(bed.kernel[&net(PREFIX)].len(), 1);
    assert_eq!(bed.listeners[&2].routes.len(), 1);
    bed.withdraw(1, &[PREFIX]);
    bed.drain_all();
    assert!(bed.kernel.is_empty());
}

#[test]
fn confederation_segments_are_refused() {
    let mut attributes = via(1, &[]);
    attributes.as_path = AsPath {
        segments: vec![Segment {
            kind: SegmentKind::ConfedSequence,
            asns: vec![65100],
        }],
    };
    let (bed, _) = learned(internal(1), &attributes, client(2, ROUTER_ID));
    assert_eq!(state(&bed), PathState::Rejected(Rejected::Confederation));
}

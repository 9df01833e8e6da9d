//! The order in which routes and news of next hops arrive changes nothing in the end.

use std::collections::BTreeMap;

use bgp_wire::{Attributes, Origin};
use proptest::prelude::*;

use super::{Bed, address, client, external, internal, net, via};
use crate::config::Decision;
use crate::rib::{PathView, PeerSession, Selection};

const PREFIX: &str = "10.0.0.0/24";
const PEERS: u32 = 6;

fn session(peer: u32) -> PeerSession {
    let host = u8::try_from(peer).unwrap();
    match peer {
        1..=3 => external(host, 65000 + peer % 2),
        4 => client(host, [9, 9, 9, 9].into()),
        _ => internal(host),
    }
}

/// One piece of news.
#[derive(Debug, Clone)]
enum News {
    Route {
        peer: u32,
        long: bool,
        med: Option<u32>,
        origin: Origin,
        originator: bool,
    },
    Cost {
        host: u8,
        cost: Option<u32>,
    },
}

fn news() -> impl Strategy<Value = Vec<News>> {
    let route = |peer: u32| {
        (
            any::<bool>(),
            prop::option::of(0..3_u32),
            prop::sample::select(vec![Origin::Igp, Origin::Igp, Origin::Egp]),
            any::<bool>(),
        )
            .prop_map(move |(long, med, origin, originator)| News::Route {
                peer,
                long,
                med,
                origin,
                originator,
            })
    };
    let cost = |host: u8| {
        prop::option::weighted(0.8, 0..2_u32).prop_map(move |cost| News::Cost { host, cost })
    };
    let routes: Vec<_> = (1..=PEERS).map(route).collect();
    let costs: Vec<_> = (1..=3).map(cost).collect();
    (routes, costs).prop_map(|(mut all, costs)| {
        all.extend(costs);
        all
    })
}

fn decision() -> impl Strategy<Value = Decision> {
    (1..4_u8, any::<[bool; 3]>()).prop_map(|(paths, [relax, always, worst])| Decision {
        multipath_relax: relax,
        always_compare_med: always,
        missing_med_worst: worst,
        ..Decision::multipath(paths)
    })
}

/// What everyone knows in the end; paths by their peer's address.
fn outcome(decision: Decision, news: &[News]) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut bed = Bed::new();
    bed.rib.set_decision(decision);
    for peer in 1..=PEERS {
        bed.up(peer, session(peer));
    }
    for item in news {
        match item {
            News::Route {
                peer,
                long,
                med,
                origin,
                originator,
            } => {
                let session = session(*peer);
                let host = u8::try_from(*peer).unwrap();
                let first = if session.ibgp {
                    65001
                } else {
                    session.peer_asn
                };
                let path = if *long {
                    vec![first, 65009]
                } else {
                    vec![first]
                };
                let attributes = Attributes {
                    med: *med,
                    origin: *origin,
                    originator_id: (session.ibgp && *originator).then_some([10, 0, 0, 77].into()),
                    ..via(host, &path)
                };
                bed.announce(*peer, &attributes, &[PREFIX]);
            }
            News::Cost { host, cost } => bed.rib.set_next_hop(address(*host), *cost),
        }
    }
    bed.drain_all();
    let mut paths: Vec<PathView> = bed.rib.routes(&Selection::Exact(net(PREFIX)))[0]
        .paths
        .clone();
    paths.sort_by_key(|path| path.peer_address);
    let told: BTreeMap<_, _> = bed
        .listeners
        .iter()
        .map(|(peer, listener)| (*peer, listener.routes.clone()))
        .collect();
    (paths, bed.kernel.clone(), told)
}

proptest! {
    #[test]
    fn any_order_ends_the_same(
        decision in decision(),
        (first, second) in news().prop_flat_map(|news| (Just(news.clone()), Just(news).prop_shuffle())),
    ) {
        prop_assert_eq!(outcome(decision, &first), outcome(decision, &second));
    }
}

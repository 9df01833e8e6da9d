//! The kernel's reader of the change list.

use bgp_wire::NextHop;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::decision::{Facts, Key, equal};
use super::list::FIB;
use super::path::Path;
use super::peer::PeerIndex;
use super::table::Table;

/// What the kernel is to do with a prefix from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: IpNet,
    /// The next hops of the best path and of those that traffic can be shared with, sorted; none: the prefix is not
    /// (or no longer) learned.
    pub next_hops: SmallVec<[NextHop; 1]>,
    /// What is sent there is to be discarded (RFC 7999): the prefix is learned, and there are no next hops.
    pub blackhole: bool,
}

/// Reads on until `changes` holds `max`.
pub(super) fn poll(
    table: &mut Table,
    facts: Facts<'_>,
    max: usize,
    changes: &mut Vec<RouteChange>,
) {
    let start = match table.fib {
        Some(place) => place,
        None => *table.fib.insert(table.list.enter_first(&mut table.nets)),
    };
    let mut at = start.node();
    while changes.len() < max {
        let Some(net) = table.list.next_net(&table.nets, at) else {
            break;
        };
        at = net;
        let blackhole = is_blackhole(table, facts, net);
        let next_hops = match blackhole {
            true => SmallVec::new(),
            false => next_hops(table, facts, net),
        };
        let learned = blackhole || !next_hops.is_empty();
        // A prefix that the kernel never heard of need not be taken back.
        if learned || table.nets[net].has(FIB) {
            table.nets[net].set(FIB, learned);
            changes.push(RouteChange {
                prefix: table.prefix(net),
                next_hops,
                blackhole,
            });
        }
    }
    if at != start.node() {
        table.fib = Some(table.list.enter_after(&mut table.nets, at));
        table.list.leave(&mut table.nets, start);
        table.collect();
    }
}

/// Whether the best path says so, and comes from a peer that may.
fn is_blackhole(table: &Table, facts: Facts<'_>, net: u32) -> bool {
    table.best(net).is_some_and(|(id, source)| {
        facts.attrs.summary(id).blackhole
            && facts
                .peers
                .get(source)
                .is_some_and(|peer| peer.session.rules.blackhole)
    })
}

/// Of the best path and, as many as may be, of those equal to it; none for a route of our own.
pub(super) fn next_hops(table: &Table, facts: Facts<'_>, net: u32) -> SmallVec<[NextHop; 1]> {
    let mut next_hops = SmallVec::new();
    let Some((id, source)) = table.best(net) else {
        return next_hops;
    };
    if source == PeerIndex::LOCAL {
        return next_hops;
    }
    next_hops.extend(facts.attrs.next_hop(id));
    if facts.decision.is_multipath() {
        let paths: SmallVec<[&Path; 8]> = table.chain(net).collect();
        let keys: SmallVec<[Option<Key>; 8]> = paths.iter().map(|path| facts.key(path)).collect();
        let max_paths = keys[0].map_or(1, |best| best.max_paths(&facts.decision));
        let mut others: Vec<NextHop> = equal(&keys, 0)
            .filter_map(|at| facts.attrs.next_hop(paths[at].accepted()?))
            .collect();
        // Sorted before it is cut, so that the order in which paths came does not matter.
        others.sort_unstable();
        others.dedup();
        for next_hop in others {
            if next_hops.len() < max_paths && !next_hops.contains(&next_hop) {
                next_hops.push(next_hop);
            }
        }
        next_hops.sort_unstable();
    }
    next_hops
}

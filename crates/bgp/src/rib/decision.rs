//! The decision process (RFC 4271 §9.1.2, RFC 4456 §9).

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use smallvec::SmallVec;

use super::attrs::AttrStore;
use super::path::Path;
use super::peer::{Peer, PeerIndex, Peers};
use crate::config::Decision;

/// The step that decided between paths, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// There was no other path to compare with.
    OnlyPath,
    /// A route of our own against learned ones.
    Local,
    /// The higher LOCAL_PREF.
    LocalPref,
    /// The shorter AS_PATH (RFC 4271 §9.1.2.2 a).
    AsPathLength,
    /// The lower ORIGIN (b).
    Origin,
    /// The lower MULTI_EXIT_DISC among paths from one neighbouring AS (c).
    Med,
    /// External peers before internal ones (d).
    External,
    /// The nearer next hop (e).
    IgpCost,
    /// The lower BGP identifier, or ORIGINATOR_ID where there is one (f; RFC 4456 §9).
    RouterId,
    /// The shorter CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// The lower peer address (g).
    PeerAddress,
}

impl Why {
    /// Why the best path is the best one.
    #[must_use]
    pub fn won(self) -> &'static str {
        match self {
            Self::OnlyPath => "only path",
            Self::Local => "own route",
            Self::LocalPref => "higher local preference",
            Self::AsPathLength => "shorter AS path",
            Self::Origin => "better origin",
            Self::Med => "lower MED",
            Self::External => "external before internal",
            Self::IgpCost => "nearer next hop (IGP cost)",
            Self::RouterId => "lower router id",
            Self::ClusterListLength => "shorter cluster list",
            Self::PeerAddress => "lower peer address",
        }
    }

    /// Why another path is not the best one.
    #[must_use]
    pub fn lost(self) -> &'static str {
        match self {
            Self::OnlyPath => "not compared",
            Self::Local => "learned, and there is an own route",
            Self::LocalPref => "lower local preference",
            Self::AsPathLength => "longer AS path",
            Self::Origin => "worse origin",
            Self::Med => "higher MED",
            Self::External => "internal after external",
            Self::IgpCost => "farther next hop (IGP cost)",
            Self::RouterId => "higher router id",
            Self::ClusterListLength => "longer cluster list",
            Self::PeerAddress => "higher peer address",
        }
    }
}

/// The step by its name.
impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnlyPath => "only path",
            Self::Local => "own route",
            Self::LocalPref => "local preference",
            Self::AsPathLength => "AS path length",
            Self::Origin => "origin",
            Self::Med => "MED",
            Self::External => "external before internal",
            Self::IgpCost => "IGP cost to next hop",
            Self::RouterId => "router id",
            Self::ClusterListLength => "cluster list length",
            Self::PeerAddress => "peer address",
        })
    }
}

/// What the process asks of a path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    local: bool,
    local_pref: u32,
    path_len: u16,
    origin: bgp_wire::Origin,
    /// MEDs compare where this is equal: the neighbouring AS, or always.
    med_group: u32,
    med: u32,
    external: bool,
    cost: u32,
    router_id: u32,
    cluster_len: u16,
    address: Option<IpAddr>,
    /// Paths share traffic where this is equal: the neighbouring AS, or always.
    share_group: u32,
}

/// Where the facts are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) attrs: &'a AttrStore,
    pub(super) peers: &'a Peers,
    pub(super) decision: Decision,
    /// Which family.
    pub(super) slot: usize,
}

impl Facts<'_> {
    /// The MED of a path that may be used, as it counts. Where none of a net's paths has one above 0, no path's place
    /// depends on which others there are.
    pub(super) fn med(&self, path: &Path) -> u32 {
        path.accepted().map_or(0, |id| {
            let worst = self.decision.missing_med_worst;
            self.attrs.summary(id).med(worst)
        })
    }

    /// What the process asks of this path; `None` if it may not be chosen at all.
    pub(super) fn key(&self, path: &Path) -> Option<Key> {
        let peer = self.peers.get(path.peer());
        let dead = peer.is_some_and(|peer| peer.paths[self.slot].is_dead(path.label()));
        if dead { None } else { self.key_of(path, peer) }
    }

    /// The same though the path may be dead.
    pub(super) fn key_dead_or_alive(&self, path: &Path) -> Option<Key> {
        self.key_of(path, self.peers.get(path.peer()))
    }

    fn key_of(&self, path: &Path, peer: Option<&Peer>) -> Option<Key> {
        let id = path.accepted()?;
        let summary = self.attrs.summary(id);
        let session = peer.map(|peer| &peer.session);
        // What is discarded here needs no way to its next hop, which often is nobody's address (RFC 5635 §2).
        let discards = session.is_some_and(|session| session.rules.blackhole) && summary.blackhole;
        let cost = self.attrs.cost(id).or_else(|| discards.then_some(0))?;
        let unless = |all: bool| if all { 0 } else { summary.neighbour_as };
        Some(Key {
            local: path.peer() == PeerIndex::LOCAL,
            local_pref: summary.local_pref,
            path_len: summary.path_len,
            origin: summary.origin,
            med_group: unless(self.decision.always_compare_med),
            med: summary.med(self.decision.missing_med_worst),
            external: session.is_some_and(|session| !session.ibgp),
            cost,
            router_id: match summary.originator_id {
                0 => session.map_or(0, |session| session.peer_router_id.into()),
                originator => originator,
            },
            cluster_len: summary.cluster_len,
            address: session.map(|session| session.peer_address),
            share_group: unless(self.decision.multipath_relax),
        })
    }
}

/// First step that tells the two apart; `Less` is better.
fn step<T: Ord>(a: &T, b: &T, why: Why) -> Option<(Ordering, Why)> {
    match a.cmp(b) {
        Ordering::Equal => None,
        order @ (Ordering::Less | Ordering::Greater) => Some((order, why)),
    }
}

impl Key {
    /// Up to ORIGIN: what is asked of each path without regard to the others.
    fn before_med(&self, other: &Self) -> Option<(Ordering, Why)> {
        step(&other.local, &self.local, Why::Local)
            .or_else(|| step(&other.local_pref, &self.local_pref, Why::LocalPref))
            .or_else(|| step(&self.path_len, &other.path_len, Why::AsPathLength))
            .or_else(|| step(&self.origin, &other.origin, Why::Origin))
    }

    fn med(&self, other: &Self) -> Option<(Ordering, Why)> {
        if self.med_group == other.med_group {
            step(&self.med, &other.med, Why::Med)
        } else {
            None
        }
    }

    /// From MED on to the IGP cost: paths that are still equal here can share traffic.
    fn after_med(&self, other: &Self) -> Option<(Ordering, Why)> {
        step(&other.external, &self.external, Why::External)
            .or_else(|| step(&self.cost, &other.cost, Why::IgpCost))
    }

    fn tie(&self, other: &Self) -> Option<(Ordering, Why)> {
        step(&self.router_id, &other.router_id, Why::RouterId)
            .or_else(|| {
                step(
                    &self.cluster_len,
                    &other.cluster_len,
                    Why::ClusterListLength,
                )
            })
            .or_else(|| step(&self.address, &other.address, Why::PeerAddress))
    }

    /// Whether this path is better than another where no path has a MED, which makes the order total.
    pub(super) fn beats_without_med(&self, other: &Self) -> bool {
        self.before_med(other)
            .or_else(|| self.after_med(other))
            .or_else(|| self.tie(other))
            .is_some_and(|(order, _)| order == Ordering::Less)
    }

    /// Whether traffic might be split between this path and the best one, MEDs aside: equal up to the IGP cost, and
    /// learned, of one kind and as the configuration has it.
    pub(super) fn may_share_with(&self, best: &Self) -> bool {
        !self.local
            && self.share_group == best.share_group
            && self.before_med(best).is_none()
            && self.after_med(best).is_none()
    }

    /// How many paths traffic may be split between where this is the best one.
    pub(super) fn max_paths(&self, decision: &Decision) -> usize {
        let max = if self.external {
            decision.max_external_paths
        } else {
            decision.max_internal_paths
        };
        max.max(1).into()
    }
}

/// The position of the best path. MEDs are compared inside each neighbouring AS before anything later is asked
/// (RFC 4271 §9.1.2.2 c), so the result does not depend on the order of the paths.
pub(super) fn select(keys: &[Option<Key>]) -> Option<usize> {
    let top = keys
        .iter()
        .flatten()
        .copied()
        .reduce(|a, b| match b.before_med(&a) {
            Some((Ordering::Less, _)) => b,
            _ => a,
        })?;
    let level = |key: &Key| key.before_med(&top).is_none();
    // The lowest MED of each group that compares.
    let mut lowest: SmallVec<[(u32, u32); 8]> = SmallVec::new();
    for key in keys.iter().flatten().filter(|key| level(key)) {
        match lowest.iter_mut().find(|(group, _)| *group == key.med_group) {
            Some((_, med)) => *med = key.med.min(*med),
            None => lowest.push((key.med_group, key.med)),
        }
    }
    let mut best: Option<(usize, &Key)> = None;
    for (index, key) in keys.iter().enumerate() {
        let Some(key) = key
            .as_ref()
            .filter(|key| level(key) && lowest.contains(&(key.med_group, key.med)))
        else {
            continue;
        };
        let better = best.is_none_or(|(_, best)| {
            key.after_med(best)
                .or_else(|| key.tie(best))
                .is_some_and(|(order, _)| order == Ordering::Less)
        });
        if better {
            best = Some((index, key));
        }
    }
    best.map(|(index, _)| index)
}

/// Which paths traffic may be split between: the best one, and those that it beat only by the last tie breaks.
pub(super) fn equal(keys: &[Option<Key>], best: usize) -> impl Iterator<Item = usize> + '_ {
    let top = keys.get(best).copied().flatten();
    keys.iter().enumerate().filter_map(move |(index, key)| {
        let (key, top) = key.as_ref().zip(top.as_ref())?;
        (key.may_share_with(top) && !falls_by_med(keys, key)).then_some(index)
    })
}

/// Whether a rival at the same level has a lower MED from the same neighbouring AS.
fn falls_by_med(keys: &[Option<Key>], key: &Key) -> bool {
    keys.iter()
        .flatten()
        .filter(|rival| rival.before_med(key).is_none())
        .any(|rival| matches!(rival.med(key), Some((Ordering::Less, _))))
}

/// Why each path is where it is: for one that lost, the step at which it did; for the best one, the last step at which
/// a rival fell.
pub(super) fn explain(keys: &[Option<Key>], best: usize) -> Vec<Option<Why>> {
    let Some(Some(top)) = keys.get(best) else {
        return vec![None; keys.len()];
    };
    let mut reasons: Vec<Option<Why>> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            let key = key.as_ref().filter(|_| index != best)?;
            match key.before_med(top) {
                Some((_, why)) => Some(why),
                None if falls_by_med(keys, key) => Some(Why::Med),
                None => key
                    .after_med(top)
                    .or_else(|| key.tie(top))
                    .map(|(_, why)| why),
            }
        })
        .collect();
    reasons[best] = Some(
        reasons
            .iter()
            .flatten()
            .max()
            .copied()
            .unwrap_or(Why::OnlyPath),
    );
    reasons
}

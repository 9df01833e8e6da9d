//! Which nodes are route reflectors (RFC 4456), where a BGPConfiguration leaves that to us.
//!
//! Every agent chooses by itself, from the cluster's objects alone: nobody leads, and agents that see the same choose
//! the same. The choice is by rendezvous hashing, so that a node that comes or goes changes one reflector at most,
//! and agents that see the cluster a moment apart still have all the others in common.

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use resources::bgp_configuration::DEFAULT;
use resources::node::{EXCLUDE_REFLECTOR, ZONE};
use resources::{ClusterState, Node};

/// The reflectors, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reflectors<'a> {
    names: BTreeSet<&'a str>,
    per_zone: bool,
}

impl<'a> Reflectors<'a> {
    /// `None` where the configuration wants none of this kind, or no node may be one.
    pub(crate) fn new(cluster: &'a ClusterState) -> Option<Self> {
        let spec = cluster.configurations.get(DEFAULT)?;
        let wanted = spec.route_reflectors.as_ref()?;
        let selected = |node: &&Node| {
            let selector = wanted.node_selector.as_ref();
            selector.is_none_or(|selector| selector.matches(&node.metadata.labels))
        };
        let nodes = cluster.nodes.values().filter(selected);
        let nodes = nodes.filter(|node| {
            // Who has the annotation is a reflector already, of somebody's own making.
            node.internal_ips().next().is_some() && node.route_reflector_cluster_id().is_none()
        });
        let names = match &wanted.auto {
            None => nodes.map(|node| node.metadata.name.as_str()).collect(),
            Some(auto) => choose(nodes, usize::from(auto.count), auto.per_zone),
        };
        // Without any reflector nobody would learn anything: then nodes do as if none were wanted.
        (!names.is_empty()).then(|| Self {
            names,
            per_zone: wanted.auto.as_ref().is_some_and(|auto| auto.per_zone),
        })
    }

    /// Whether this node is one.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether two nodes have a session: two reflectors have, and a reflector and whoever is a client of it.
    pub(crate) fn joins(&self, a: &Node, b: &Node) -> bool {
        let reflect = |node: &Node| self.contains(&node.metadata.name);
        match (reflect(a), reflect(b)) {
            (true, true) => true,
            (false, false) => false,
            _ => !self.per_zone || zone(a) == zone(b),
        }
    }
}

/// How a node stands within its zone, the first one first: whether it is likely to go, its weight, its name.
type Standing<'a> = (bool, Reverse<u64>, &'a str);

/// `count` nodes spread over zones, or as many in each zone. Nodes that are about to go, or seem to be gone already, are
/// taken only where there are not enough others: when all seem to be gone, it is the witness that is.
fn choose<'a>(
    nodes: impl Iterator<Item = &'a Node>,
    count: usize,
    per_zone: bool,
) -> BTreeSet<&'a str> {
    let mut zones: BTreeMap<&str, Vec<Standing<'_>>> = BTreeMap::new();
    let eligible = nodes.filter(|node| !node.metadata.labels.contains_key(EXCLUDE_REFLECTOR));
    for node in eligible {
        let name = node.metadata.name.as_str();
        let entry = (!node.is_dependable(), Reverse(weight(name)), name);
        zones.entry(zone(node)).or_default().push(entry);
    }
    let mut ranked = Vec::new();
    for zone in zones.values_mut() {
        zone.sort_unstable();
        let own = zone.iter().take(count).zip(0..);
        ranked.extend(own.map(|(&(doubtful, weight, name), rank)| (doubtful, rank, weight, name)));
    }
    // The first of every zone, then the second of every zone, and so on.
    ranked.sort_unstable();
    let enough = if per_zone { ranked.len() } else { count };
    let names = ranked.into_iter().take(enough);
    names.map(|(.., name)| name).collect()
}

fn zone(node: &Node) -> &str {
    node.metadata.labels.get(ZONE).map_or("", String::as_str)
}

/// A name's weight: FNV-1a of 64 bits, mixed by the last steps of MurmurHash3, since FNV leaves similar names
/// alike. Agents of different versions have to agree, so this is for good.
fn weight(name: &str) -> u64 {
    let mut hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

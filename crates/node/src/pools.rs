//! Where the addresses of a node's pods come from: its pod CIDRs, or blocks of pools.
//!
//! Decided for each family by itself. A pool with `assignmentMode: Automatic` that selects the node takes the family over:
//! the node's pod CIDRs then have no effect, as with Calico's own IPAM. Otherwise pod CIDRs give addresses where the node
//! has some, and pools that don't say `Manual` where it has none.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use resources::{
    AssignmentMode, ClusterState, IpPoolSpec, IpReservationSpec, Kind, Namespace, Node, Problem,
    Selector, Severity,
};

use crate::plan::problem;

/// Labels of an object.
type Labels = BTreeMap<String, String>;

/// Where the addresses of a node's pods come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPlan {
    /// The node's pod CIDRs that have an effect.
    pub cidrs: Vec<IpNet>,
    /// Pools that give addresses on this node, in the order in which they are asked.
    pub pools: Vec<Pool>,
    /// What is given to nobody.
    pub reserved: Vec<IpNet>,
    /// Pod CIDRs of all nodes that have an effect: no block may be there. Empty where there are no pools.
    pub foreign: Vec<IpNet>,
    /// Names of the cluster's nodes. Empty where there are no pools.
    pub nodes: BTreeSet<String>,
    /// Labels of namespaces. Empty where no pool asks for them.
    pub namespaces: BTreeMap<String, Labels>,
}

/// A pool that gives addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The name of its object.
    pub name: String,
    /// The range.
    pub cidr: IpNet,
    /// Prefix length of its blocks.
    pub block_len: u8,
    /// Whether also pods get one that don't ask for an address in it.
    pub automatic: bool,
    /// The namespaces whose pods it is for; `None` for all, and for what is no pod.
    pub namespaces: Option<Selector>,
}

impl AddressPlan {
    /// Whether a pool is for what runs in this namespace; `None` for what is no pod.
    #[must_use]
    pub fn selects(&self, pool: &Pool, namespace: Option<&str>) -> bool {
        let Some(selector) = &pool.namespaces else {
            return true;
        };
        namespace.is_some_and(|name| match self.namespaces.get(name) {
            Some(labels) => selector.matches(labels),
            None => selector.matches(&Namespace::labels_of_unknown(name)),
        })
    }

    /// Whether anything gives addresses without being asked for a certain one.
    #[must_use]
    pub fn gives(&self) -> bool {
        !self.cidrs.is_empty() || self.pools.iter().any(|pool| pool.automatic)
    }
}

/// Where the addresses of this node's pods come from.
pub(crate) fn addressing(
    cluster: &ClusterState,
    node: &Node,
    problems: &mut Vec<Problem>,
) -> AddressPlan {
    let own = |ipv4: bool| node.pod_cidrs().any(|cidr| cidr.addr().is_ipv4() == ipv4);
    let mut pools = Vec::new();
    for (name, spec) in &cluster.pools {
        if spec.disabled || !selected(spec, node) {
            continue;
        }
        let ipv4 = spec.cidr.addr().is_ipv4();
        let automatic = match spec.assignment_mode {
            Some(mode) => mode == AssignmentMode::Automatic,
            // Silent about it, it adds nothing to a node that has its own.
            None if own(ipv4) && !taken_over(cluster, node, ipv4) => continue,
            None => true,
        };
        pools.push(Pool {
            name: name.clone(),
            cidr: spec.cidr,
            block_len: block_len(name, spec, problems),
            automatic,
            namespaces: spec.namespace_selector.clone(),
        });
    }
    overlaps(cluster, problems);
    let asked = pools.iter().any(|pool| pool.namespaces.is_some());
    let namespaces = cluster.namespaces.iter().filter(|_| asked);
    let reservations = cluster.reservations.values();
    AddressPlan {
        cidrs: effective(cluster, node).collect(),
        reserved: reservations.flat_map(IpReservationSpec::ranges).collect(),
        foreign: cluster
            .nodes
            .values()
            .filter(|_| !pools.is_empty())
            .flat_map(|node| effective(cluster, node))
            .collect(),
        nodes: cluster
            .nodes
            .keys()
            .filter(|_| !pools.is_empty())
            .cloned()
            .collect(),
        namespaces: namespaces
            .map(|(name, namespace)| (name.clone(), namespace.labels()))
            .collect(),
        pools,
    }
}

/// A node's pod CIDRs that have an effect.
pub(crate) fn effective<'a>(
    cluster: &'a ClusterState,
    node: &'a Node,
) -> impl Iterator<Item = IpNet> + 'a {
    let (v4, v6) = (
        taken_over(cluster, node, true),
        taken_over(cluster, node, false),
    );
    node.pod_cidrs().filter(move |cidr| match cidr {
        IpNet::V4(_) => !v4,
        IpNet::V6(_) => !v6,
    })
}

/// Whether a pool takes the place of the node's pod CIDRs of a family. A pool that is disabled still does: its pods should
/// not end up elsewhere.
fn taken_over(cluster: &ClusterState, node: &Node, ipv4: bool) -> bool {
    cluster.pools.values().any(|pool| {
        pool.assignment_mode == Some(AssignmentMode::Automatic)
            && pool.cidr.addr().is_ipv4() == ipv4
            && selected(pool, node)
    })
}

fn selected(pool: &IpPoolSpec, node: &Node) -> bool {
    let selector = pool.node_selector.as_ref();
    selector.is_none_or(|selector| selector.matches(&node.metadata.labels))
}

/// A pool that is smaller than the usual block is one block.
fn block_len(name: &str, spec: &IpPoolSpec, problems: &mut Vec<Problem>) -> u8 {
    let (len, pool) = (spec.block_len(), spec.cidr);
    if len >= pool.prefix_len() {
        return len;
    }
    let message = format!(
        "{pool} is smaller than a block of the usual size, /{len}: it is one block, for one node. Write blockSize"
    );
    let object = Some((Kind::IpPool, name));
    problems.push(problem(Severity::Warning, object, "spec.cidr", message));
    pool.prefix_len()
}

/// Of two pools with a common address the settings of both would count.
fn overlaps(cluster: &ClusterState, problems: &mut Vec<Problem>) {
    let pools: Vec<(&String, IpNet)> = cluster
        .pools
        .iter()
        .map(|(name, spec)| (name, spec.cidr))
        .collect();
    for (index, (name, cidr)) in pools.iter().enumerate() {
        let mut others = pools.iter().take(index);
        let Some((other, theirs)) =
            others.find(|(_, other)| other.contains(cidr) || cidr.contains(other))
        else {
            continue;
        };
        let message = format!(
            "{cidr} overlaps {theirs} of IPPool {other}: give each pool a range of its own"
        );
        let object = Some((Kind::IpPool, name.as_str()));
        problems.push(problem(Severity::Error, object, "spec.cidr", message));
    }
}

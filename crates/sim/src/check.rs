//! What must hold.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bgp::session::State;

use crate::address::{Block, NodeId};
use crate::net::Net;
use crate::oracle::Oracle;

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong, and where.
    pub what: String,
    /// When, in virtual time.
    pub at: Duration,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {:?}: {}", self.at, self.what)
    }
}

impl std::error::Error for Violation {}

pub(crate) fn violation(net: &Net, what: impl Into<String>) -> Violation {
    Violation {
        what: what.into(),
        at: net.elapsed(),
    }
}

/// Whether a node runs.
#[must_use]
pub fn runs(net: &Net, node: NodeId) -> bool {
    net.host(node).speaker().is_some()
}

/// Pairs that both want a session and can have one, the lower number first.
#[must_use]
pub fn wanted_sessions(net: &Net) -> Vec<(NodeId, NodeId)> {
    let mut pairs = Vec::new();
    for node in net.nodes().filter(|node| runs(net, *node)) {
        for address in net.host(node).config.peers.keys() {
            let Some(other) = NodeId::of(*address).filter(|other| node < *other) else {
                continue;
            };
            let mutual =
                runs(net, other) && net.host(other).config.peers.contains_key(&node.address());
            if mutual && net.passes(node, other) && net.passes(other, node) {
                pairs.push((node, other));
            }
        }
    }
    pairs
}

/// All sessions that can be up are, each over one connection that both sides mean, and there is no other connection.
///
/// # Errors
///
/// A pair for which that is not so.
pub fn sessions(net: &Net) -> Result<(), Violation> {
    let mut ends = BTreeMap::new();
    for node in net.nodes() {
        for peer in net.peers(node) {
            if let (State::Established, Some(connection)) = (peer.state, peer.connection) {
                let Some(other) = NodeId::of(peer.address) else {
                    continue;
                };
                ends.insert((node, other), (connection.local, connection.remote));
            }
        }
    }
    let wanted = wanted_sessions(net);
    for (a, b) in &wanted {
        let (Some(one), Some(other)) = (ends.get(&(*a, *b)), ends.get(&(*b, *a))) else {
            let state = |node: NodeId, of: NodeId| {
                let peers = net.peers(node);
                peers.into_iter().find(|peer| peer.address == of.address())
            };
            let what = format!(
                "no session between {a} and {b}: {:?} {:?}",
                state(*a, *b),
                state(*b, *a)
            );
            return Err(violation(net, what));
        };
        if (one.0, one.1) != (other.1, other.0) {
            let what = format!("{a} and {b} mean two connections: {one:?}, {other:?}");
            return Err(violation(net, what));
        }
    }
    if ends.len() != wanted.len() * 2 {
        let stray = ends
            .keys()
            .find(|(a, b)| !wanted.contains(&(*a.min(b), *a.max(b))));
        return Err(violation(net, format!("a session too many: {stray:?}")));
    }
    Ok(())
}

/// Whether all sessions are up that can be, and no others.
#[must_use]
pub fn all_up(net: &Net) -> bool {
    // Counting is cheaper than looking.
    net.totals().session_ends == wanted_sessions(net).len() * 2 && sessions(net).is_ok()
}

/// No path that a peer left behind is kept, and no speaker waits for a peer that may be restarting.
#[must_use]
pub fn nothing_stale(net: &Net) -> bool {
    net.nodes().filter(|node| runs(net, *node)).all(|node| {
        !net.host(node).fib.is_inherited()
            && net
                .peers(node)
                .iter()
                .all(|peer| peer.families.iter().all(|family| !family.stale))
    })
}

/// Every node's paths, choices and kernel routes are what the [`Oracle`] says, for the nodes given.
///
/// # Errors
///
/// What differs.
pub fn routes(
    net: &Net,
    nodes: impl IntoIterator<Item = NodeId>,
    costs: &BTreeMap<(NodeId, NodeId), Option<u32>>,
) -> Result<(), Violation> {
    let mut oracle = Oracle::new(net, costs);
    for node in nodes {
        oracle.check(node).map_err(|what| violation(net, what))?;
    }
    Ok(())
}

/// Which nodes have a block as their own, and run.
#[must_use]
pub fn owners(net: &Net) -> BTreeMap<Block, Vec<NodeId>> {
    let mut owners: BTreeMap<Block, Vec<NodeId>> = BTreeMap::new();
    for node in net.nodes().filter(|node| runs(net, *node)) {
        for prefix in net.host(node).config.originated.keys() {
            if let Some(block) = Block::of(prefix) {
                owners.entry(block).or_default().push(node);
            }
        }
    }
    owners
}

/// Packets from a node to a block get to a node that has it, hop by hop and whichever of equal next hops they take. With
/// `must`, there has to be a route.
///
/// # Errors
///
/// Where they end up instead.
pub fn walk(
    net: &Net,
    from: NodeId,
    block: Block,
    owners: &[NodeId],
    must: bool,
) -> Result<(), Violation> {
    // Nodes on the way to here, and those still to try from there.
    let mut way: Vec<(NodeId, &[NodeId])> = Vec::new();
    let mut at = from;
    loop {
        if way.iter().any(|(node, _)| *node == at) {
            let nodes: Vec<NodeId> = way.iter().map(|(node, _)| *node).collect();
            let what = format!("packets to {block} go in circles at {at}: {nodes:?}");
            return Err(violation(net, what));
        }
        if owners.contains(&at) {
            let Some(next) = next_branch(&mut way) else {
                return Ok(());
            };
            at = next;
            continue;
        }
        let next_hops = net.lookup(at, block);
        let Some((first, others)) = next_hops.split_first() else {
            if at == from && !must {
                return Ok(());
            }
            let what = format!("packets from {from} to {block} end at {at}, which has no route");
            return Err(violation(net, what));
        };
        if !net.passes(at, *first) {
            let what =
                format!("packets from {from} to {block} go from {at} to {first}, a dead end");
            return Err(violation(net, what));
        }
        way.push((at, others));
        at = *first;
    }
}

/// The next hop that is still to be tried, the deepest first.
fn next_branch(way: &mut Vec<(NodeId, &[NodeId])>) -> Option<NodeId> {
    while let Some((_, others)) = way.last_mut() {
        if let Some((first, rest)) = others.split_first() {
            *others = rest;
            return Some(*first);
        }
        way.pop();
    }
    None
}

/// [`walk`] from each of these nodes to every block that anybody has; and nobody has a route to any other block.
///
/// # Errors
///
/// The first packet that gets lost, or a route to nowhere.
pub fn forwarding(
    net: &Net,
    nodes: impl IntoIterator<Item = NodeId>,
    must: bool,
) -> Result<(), Violation> {
    let owners = owners(net);
    for node in nodes {
        if !runs(net, node) {
            continue;
        }
        for (block, owners) in &owners {
            walk(net, node, *block, owners, must)?;
        }
        if let Some((block, via)) = net
            .kernel_routes(node)
            .find(|(block, _)| !owners.contains_key(block))
        {
            let what = format!("{node} has a route to {block} via {via:?}, which nobody has");
            return Err(violation(net, what));
        }
    }
    Ok(())
}

/// Octets that a speaker may take whatever it knows.
const BASE: usize = 64 * 1024;
/// What an update group may keep for slow readers and late joiners.
const GROUP: usize = 3 << 20;
/// Octets for a path with its attribute sets, for a prefix, and for a peer's position.
const PER_PATH: usize = 512;

/// Nobody keeps more than what there is: no prefix that nobody announces, no attribute set that no path has, no octets that
/// grow with time.
///
/// # Errors
///
/// Who does.
pub fn memory(net: &Net) -> Result<(), Violation> {
    let blocks = owners(net).len();
    for node in net.nodes() {
        let Some(speaker) = net.host(node).speaker() else {
            continue;
        };
        let memory = speaker.memory();
        let config = &net.host(node).config;
        let peers = config.peers.len();
        let most_paths = blocks * peers + config.originated.len();
        let most_sets = memory.paths * 2;
        let most_octets = BASE + GROUP + (memory.paths + memory.nets + peers) * PER_PATH;
        if memory.nets > blocks
            || memory.paths > most_paths
            || memory.attribute_sets > most_sets
            || memory.octets > most_octets
        {
            let what = format!("{node} keeps {memory:?} for {blocks} blocks and {peers} peers");
            return Err(violation(net, what));
        }
    }
    let (half_open, octets) = net.unsettled();
    // At rest there is nothing under way but a KEEPALIVE now and then, 19 octets.
    if half_open > 0 || octets > 19 * 2 * net.totals().session_ends {
        let what = format!("{half_open} connections are half open, {octets} octets under way");
        return Err(violation(net, what));
    }
    Ok(())
}

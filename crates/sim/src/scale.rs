//! Large topologies, from power-up to rest.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::address::NodeId;
use crate::check::{self, Violation, violation};
use crate::net::{Conditions, Net, Totals};
use crate::topology::Topology;

/// How long it may take in virtual time.
const LIMIT: Duration = Duration::from_secs(300);

/// What a run was.
#[derive(Debug, Clone)]
pub struct Report {
    /// The topology.
    pub topology: String,
    /// Sessions.
    pub sessions: usize,
    /// Virtual time from power-up to the last change of a kernel's route.
    pub converged: Duration,
    /// What it took.
    pub totals: Totals,
    /// Messages that speakers received.
    pub messages: u64,
    /// Octets that all speakers' RIBs take by their own count.
    pub rib_octets: usize,
    /// Prefixes, paths and attribute sets in all RIBs together.
    pub rib: [usize; 3],
    /// Nodes whose whole state was compared with the oracle's.
    pub compared: usize,
    /// Over everything that happened.
    pub digest: u64,
}

/// Powers everything up within a second, and lets it come to rest. Then every session is checked, every node's kernel is
/// followed to every block, and the whole state of `sample` nodes is compared with the oracle's.
///
/// # Errors
///
/// What did not hold.
pub fn run(topology: &Topology, seed: u64, sample: usize) -> Result<Report, Violation> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut net = Net::new(
        topology.configs.clone(),
        Conditions::default(),
        random.u64(..),
    );
    let nodes: Vec<NodeId> = net.nodes().collect();
    let mut starts: Vec<(Duration, NodeId)> = nodes
        .iter()
        .map(|node| (Duration::from_micros(random.u64(0..1_000_000)), *node))
        .collect();
    starts.sort_unstable();
    for (at, node) in starts {
        net.run(at.saturating_sub(net.elapsed()));
        net.boot(node);
    }
    let blocks: usize = topology
        .configs
        .iter()
        .map(|config| config.originated.len())
        .sum();
    let routes: usize = topology
        .configs
        .iter()
        .map(|config| blocks - config.originated.len())
        .sum();
    let ends = topology.sessions() * 2;
    let done = |net: &Net| {
        let totals = net.totals();
        totals.session_ends == ends && totals.routes == routes
    };
    if !net.run_until(LIMIT, Duration::from_millis(100), done) {
        let what = format!(
            "{:?} instead of {ends} ends of sessions and {routes} routes",
            net.totals()
        );
        return Err(violation(&net, what));
    }
    let rest = |net: &Net| net.unsettled() == (0, 0);
    net.run(Duration::from_secs(2));
    if !net.run_until(LIMIT, Duration::from_millis(100), rest) {
        return Err(violation(&net, format!("no rest: {:?}", net.unsettled())));
    }
    check::sessions(&net)?;
    check::forwarding(&net, nodes.iter().copied(), true)?;
    check::memory(&net)?;
    let mut sampled = topology.transit.clone();
    while sampled.len() < sample.min(nodes.len()) {
        let node = nodes[random.usize(0..nodes.len())];
        if !sampled.contains(&node) {
            sampled.push(node);
        }
    }
    sampled.truncate(sample);
    check::routes(&net, sampled.iter().copied(), &BTreeMap::new())?;
    Ok(report(topology, &net, sampled.len()))
}

fn report(topology: &Topology, net: &Net, compared: usize) -> Report {
    let mut rib = [0; 3];
    let mut rib_octets = 0;
    for speaker in net.nodes().filter_map(|node| net.host(node).speaker()) {
        let memory = speaker.memory();
        rib_octets += memory.octets;
        rib[0] += memory.nets;
        rib[1] += memory.paths;
        rib[2] += memory.attribute_sets;
    }
    let messages = net
        .nodes()
        .flat_map(|node| net.peers(node))
        .map(|peer| peer.counters.messages_in)
        .sum();
    Report {
        topology: topology.to_string(),
        sessions: topology.sessions(),
        converged: net.last_change(),
        totals: net.totals(),
        messages,
        rib_octets,
        rib,
        compared,
        digest: net.digest(),
    }
}

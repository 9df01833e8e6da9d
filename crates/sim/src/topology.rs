//! Who peers with whom.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use bgp::config::{Client, NextHopMode, PeerConfig, SpeakerConfig};
use bgp::policy::{Change, Match, Policy, SourceKind, Statement, Verdict};
use bgp_wire::{Asn, Attributes, Community};

use crate::address::NodeId;

/// The AS where there is one only.
pub const ASN: Asn = 64_512;

/// Speakers' configurations, by node.
#[derive(Debug, Clone)]
pub struct Topology {
    /// What kind it is, for a person.
    pub name: String,
    /// One a node.
    pub configs: Vec<SpeakerConfig>,
    /// Whoever is up can be reached from everybody: routes are withheld from nobody who needs them.
    pub reachable: bool,
    /// Nodes that packets go through, or that others' routes come from.
    pub transit: Vec<NodeId>,
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, sessions) = (self.configs.len(), self.sessions());
        write!(f, "{}: {nodes} nodes, {sessions} sessions", self.name)
    }
}

/// A peer to which everything is told, and of which everything is taken.
fn open_peer(asn: Asn) -> PeerConfig {
    PeerConfig {
        import: Policy::accept_all(),
        export: Policy::accept_all(),
        ..PeerConfig::new(asn)
    }
}

/// A peer as a client in this cluster.
fn client(cluster_id: Ipv4Addr) -> Option<Client> {
    Some(Client {
        cluster_id,
        meshed: false,
    })
}

impl Topology {
    fn new(name: String, asns: impl IntoIterator<Item = Asn>) -> Self {
        let configs = (0..)
            .map(NodeId)
            .zip(asns)
            .map(|(node, asn)| SpeakerConfig::new(asn, node.router_id()))
            .collect();
        Self {
            name,
            configs,
            reachable: true,
            transit: Vec::new(),
        }
    }

    /// Gives `node` so many blocks of its own.
    pub fn originate(&mut self, node: NodeId, blocks: u32) {
        let config = &mut self.configs[node.index()];
        config.originated.extend(
            (0..blocks).map(|block| (node.block(block).prefix(), Attributes::originated())),
        );
    }

    /// Leaves its blocks to every `nth` node that has some, and takes them from the others.
    pub fn thin_out(&mut self, nth: usize) {
        let owners = self
            .configs
            .iter_mut()
            .filter(|config| !config.originated.is_empty());
        for (at, config) in owners.enumerate() {
            if at % nth.max(1) != 0 {
                config.originated.clear();
            }
        }
    }

    /// Makes two nodes peers. `change` is called for each side's view of the other.
    fn connect(&mut self, a: NodeId, b: NodeId, mut change: impl FnMut(NodeId, &mut PeerConfig)) {
        for (node, other) in [(a, b), (b, a)] {
            let mut peer = open_peer(self.configs[other.index()].asn);
            change(node, &mut peer);
            self.configs[node.index()]
                .peers
                .insert(other.address(), peer);
        }
    }

    /// How many pairs peer.
    #[must_use]
    pub fn sessions(&self) -> usize {
        let ends: usize = self.configs.iter().map(|config| config.peers.len()).sum();
        ends / 2
    }

    /// Changes every peer's configuration.
    pub fn each_peer(&mut self, mut change: impl FnMut(NodeId, NodeId, &mut PeerConfig)) {
        for (node, config) in (0..).map(NodeId).zip(&mut self.configs) {
            for (address, peer) in &mut config.peers {
                if let Some(other) = NodeId::of(*address) {
                    change(node, other, peer);
                }
            }
        }
    }

    /// Every node peers with every other one, in one AS.
    #[must_use]
    pub fn mesh(nodes: u32, blocks: u32) -> Self {
        let mut topology = Self::new("mesh".to_owned(), (0..nodes).map(|_| ASN));
        for a in (0..nodes).map(NodeId) {
            topology.originate(a, blocks);
            for b in (0..a.0).map(NodeId) {
                topology.connect(a, b, |_, _| ());
            }
        }
        topology
    }

    /// Every node is a client of each of the route reflectors, which are the first nodes and peer with each other. They
    /// have no blocks of their own. They are one cluster, or each its own.
    #[must_use]
    pub fn reflectors(clients: u32, reflectors: u32, blocks: u32, one_cluster: bool) -> Self {
        let clusters = if one_cluster {
            "one cluster"
        } else {
            "their own clusters"
        };
        let name = format!("{reflectors} route reflectors, {clusters}");
        let cluster = |reflector: NodeId| match one_cluster {
            true => NodeId(0).router_id(),
            false => reflector.router_id(),
        };
        let mut topology = Self::new(name, (0..reflectors + clients).map(|_| ASN));
        for reflector in (0..reflectors).map(NodeId) {
            topology.transit.push(reflector);
            for other in (0..reflector.0).map(NodeId) {
                topology.connect(reflector, other, |_, _| ());
            }
            for node in (reflectors..reflectors + clients).map(NodeId) {
                topology.connect(reflector, node, |side, peer| {
                    if side == reflector {
                        peer.rules.client = client(cluster(reflector));
                    }
                });
            }
        }
        for node in (reflectors..reflectors + clients).map(NodeId) {
            topology.originate(node, blocks);
        }
        topology
    }

    /// Racks with two ToRs each under spines. An AS per rack: nodes are clients of their ToRs, which reflect their routes,
    /// and speak to the spines as external peers.
    #[must_use]
    pub fn racks(racks: u32, nodes: u32, spines: u32, blocks: u32) -> Self {
        const TORS: u32 = 2;
        let rack_asn = |rack: u32| 4_200_000_001 + rack;
        let per_rack = TORS + nodes;
        let asns = (0..spines)
            .map(|_| ASN)
            .chain((0..racks * per_rack).map(|at| rack_asn(at / per_rack)));
        let name = format!("{racks} racks with two ToRs, {spines} spines");
        let mut topology = Self::new(name, asns);
        topology.transit = (0..spines).map(NodeId).collect();
        for rack in 0..racks {
            let first = spines + rack * per_rack;
            let tors = [NodeId(first), NodeId(first + 1)];
            topology.transit.extend(tors);
            topology.connect(tors[0], tors[1], |_, _| ());
            for tor in tors {
                for spine in (0..spines).map(NodeId) {
                    topology.connect(tor, spine, |_, _| ());
                }
                for node in (first + TORS..first + per_rack).map(NodeId) {
                    topology.connect(tor, node, |side, peer| {
                        if side == tor {
                            peer.rules.client = client(tor.router_id());
                            peer.next_hop = NextHopMode::Own;
                        }
                    });
                }
            }
            for node in (first + TORS..first + per_rack).map(NodeId) {
                topology.originate(node, blocks);
            }
        }
        topology
    }

    /// The same with external sessions everywhere: each node has an AS of its own.
    #[must_use]
    pub fn external_racks(racks: u32, nodes: u32, spines: u32, blocks: u32) -> Self {
        let mut topology = Self::racks(racks, nodes, spines, blocks);
        topology.name = format!("{}, an AS for each node", topology.name);
        let transit = topology.transit.clone();
        for (node, config) in (0..).map(NodeId).zip(&mut topology.configs) {
            if !transit.contains(&node) {
                config.asn = 4_210_000_000 + node.0;
            }
        }
        let asns: Vec<Asn> = topology.configs.iter().map(|config| config.asn).collect();
        topology.each_peer(|_, other, peer| {
            peer.asn = asns[other.index()];
            peer.rules.client = None;
            peer.next_hop = NextHopMode::Auto;
        });
        topology
    }

    /// Several ASes of a few fully meshed nodes each, joined by a random connected graph of external sessions. Routes
    /// follow shortest paths, with random MEDs on the way.
    #[must_use]
    pub fn random(random: &mut fastrand::Rng) -> Self {
        let (mut topology, _) = Self::random_graph(random);
        topology.name = format!("random graph, {}", topology.name);
        topology
    }

    /// The same under the economy of the Internet (Gao and Rexford): each AS prefers what its customers offer, then its
    /// peers, then its providers, and tells peers and providers of its customers' routes alone. It always converges.
    #[must_use]
    pub fn economy(random: &mut fastrand::Rng) -> Self {
        let (mut topology, links) = Self::random_graph(random);
        topology.name = format!("customers and providers, {}", topology.name);
        // Not everything is told to everybody.
        topology.reachable = false;
        for (a, b) in links {
            // The AS with the lower number is the provider: no AS is its own provider's provider.
            let (low, high) = if topology.configs[a.index()].asn < topology.configs[b.index()].asn {
                (a, b)
            } else {
                (b, a)
            };
            let peers = random.u8(0..4) == 0;
            let relation = |of: NodeId| match (peers, of == low) {
                (true, _) => Relation::Peer,
                (false, true) => Relation::Customer,
                (false, false) => Relation::Provider,
            };
            for (node, other) in [(low, high), (high, low)] {
                if let Some(peer) = topology.configs[node.index()]
                    .peers
                    .get_mut(&other.address())
                {
                    let relation = relation(node);
                    peer.import = relation.import();
                    peer.export = relation.export();
                }
            }
        }
        topology
    }

    fn random_graph(random: &mut fastrand::Rng) -> (Self, Vec<(NodeId, NodeId)>) {
        let systems = random.u32(2..=5);
        let mut asns = Vec::new();
        for system in 0..systems {
            for _ in 0..random.u32(1..=3) {
                asns.push(65_001 + system);
            }
        }
        let nodes: Vec<(NodeId, Asn)> = (0..).map(NodeId).zip(asns.iter().copied()).collect();
        let mut topology = Self::new(format!("{systems} ASes"), asns);
        let mut links = Vec::new();
        for (at, (a, asn)) in nodes.iter().enumerate() {
            topology.originate(*a, random.u32(1..=2));
            topology.transit.push(*a);
            for (b, _) in nodes[..at].iter().filter(|(_, other)| other == asn) {
                // The border router is the next hop: nobody else knows the way to the other AS.
                topology.connect(*a, *b, |_, peer| peer.next_hop = NextHopMode::Own);
            }
        }
        for system in 1..systems {
            // At least one link to an earlier AS keeps the graph in one piece.
            for extra in 0..random.u32(1..=3) {
                let earlier = random.u32(0..system);
                let of = |system: u32, random: &mut fastrand::Rng| {
                    let members: Vec<NodeId> = nodes
                        .iter()
                        .filter(|(_, asn)| *asn == 65_001 + system)
                        .map(|(node, _)| *node)
                        .collect();
                    members[random.usize(0..members.len())]
                };
                let (a, b) = (of(system, random), of(earlier, random));
                if extra > 0 && links.contains(&(a, b)) {
                    continue;
                }
                let meds = [random.u32(0..3), random.u32(0..3)];
                topology.connect(a, b, |node, peer| {
                    peer.export = med(meds[usize::from(node == a)]);
                });
                links.push((a, b));
            }
        }
        (topology, links)
    }

    /// Timers of seconds instead of minutes, so that little happens for little time.
    pub fn hurry(&mut self, random: &mut fastrand::Rng) {
        let secs = Duration::from_secs;
        let hold = secs(*pick(random, &[3, 9, 9, 30, 90]));
        let retry = secs(random.u64(1..=5));
        let restart = secs(random.u64(5..=60));
        for config in &mut self.configs {
            config.selection_deferral = secs(random.u64(5..=60));
        }
        self.each_peer(|_, _, peer| {
            peer.hold_time = hold;
            peer.connect_retry = retry;
            peer.graceful_restart = Some(restart);
        });
    }
}

fn pick<'a, T>(random: &mut fastrand::Rng, from: &'a [T]) -> &'a T {
    &from[random.usize(0..from.len())]
}

/// What another AS is to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Customer,
    Peer,
    Provider,
}

/// On routes that customers offered.
const FROM_CUSTOMER: Community = Community(65_000 << 16 | 1);
/// On all others that came from outside.
const FROM_OTHERS: Community = Community(65_000 << 16 | 2);

impl Relation {
    fn import(self) -> Policy {
        let (mark, local_pref) = match self {
            Self::Customer => (FROM_CUSTOMER, 200),
            Self::Peer => (FROM_OTHERS, 150),
            Self::Provider => (FROM_OTHERS, 120),
        };
        let statement = Statement {
            name: "mark".into(),
            matches: Vec::new(),
            changes: vec![
                Change::SetCommunities(vec![mark.into()]),
                Change::LocalPref(local_pref),
            ],
            verdict: Verdict::Accept,
        };
        Policy::new(vec![statement], Verdict::Reject, "nothing else")
    }

    fn export(self) -> Policy {
        if self == Self::Customer {
            return Policy::accept_all();
        }
        let when = |name: &str, matches, verdict| Statement {
            name: name.into(),
            matches,
            changes: Vec::new(),
            verdict,
        };
        let statements = vec![
            when(
                "others' routes",
                vec![Match::Community(FROM_OTHERS.into())],
                Verdict::Reject,
            ),
            when(
                "customers' routes",
                vec![Match::Community(FROM_CUSTOMER.into())],
                Verdict::Accept,
            ),
            when(
                "our own",
                vec![Match::Source(SourceKind::Local)],
                Verdict::Accept,
            ),
            when(
                "our AS's own",
                vec![Match::AsPathLength(0, 0)],
                Verdict::Accept,
            ),
        ];
        Policy::new(statements, Verdict::Reject, "nothing else")
    }
}

/// Tells everything with this MED.
pub(crate) fn med(value: u32) -> Policy {
    if value == 0 {
        return Policy::accept_all();
    }
    let statement = Statement {
        name: "MED".into(),
        matches: Vec::new(),
        changes: vec![Change::Med(Some(value))],
        verdict: Verdict::Accept,
    };
    Policy::new(vec![statement], Verdict::Reject, "nothing else")
}

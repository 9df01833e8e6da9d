//! A random network, a random run of faults, and then: does everything that must hold hold?
//!
//! A scenario is its seed. [`run`] makes the faults and looks for what must never be; [`restarts`] lets speakers restart
//! gracefully and loses not a single packet.

use std::collections::BTreeMap;
use std::time::Duration;

use bgp::config::Decision;

use crate::address::{Block, NodeId};
use crate::check::{self, Violation, violation};
use crate::net::{Conditions, Net};
use crate::topology::{self, Topology};

/// Sessions are up this long after the last fault: the longest pause after errors, a hold time, a dial, and a bit.
const UP_TIME: Duration = Duration::from_secs(400);
/// Nothing is stale this long after: the longest that routes are kept for a peer that came back is six minutes.
const STALE_TIME: Duration = Duration::from_secs(500);
/// How long everything has been quiet before it is looked at.
const QUIET_TIME: Duration = Duration::from_secs(20);

/// What a scenario was, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The topology.
    pub topology: String,
    /// How many faults there were.
    pub faults: u32,
    /// Virtual time in all.
    pub time: Duration,
    /// Over everything that happened: the same for the same seed.
    pub digest: u64,
    /// What happened, if it was asked for.
    pub log: Vec<String>,
}

/// Runs a scenario. With `log`, what happens is written down.
///
/// # Errors
///
/// What did not hold, with the log so far.
pub fn run(seed: u64, log: bool) -> Result<Summary, (Violation, Vec<String>)> {
    let mut scenario = Scenario::new(seed, log);
    let result = scenario.run();
    scenario.finish(result)
}

/// Lets speakers of a random network restart gracefully, one, several or all at once: packets find their way all the while,
/// nobody's route to anything is missing at any moment, and none is stale in the end.
///
/// # Errors
///
/// What did not hold, with the log so far.
pub fn restarts(seed: u64, log: bool) -> Result<Summary, (Violation, Vec<String>)> {
    let mut scenario = Scenario::new(seed, log);
    let result = scenario.restarts();
    scenario.finish(result)
}

#[derive(Debug)]
struct Scenario {
    random: fastrand::Rng,
    net: Net,
    topology: Topology,
    /// Nodes that left for good.
    gone: Vec<NodeId>,
    /// Costs that kernels told.
    costs: BTreeMap<(NodeId, NodeId), Option<u32>>,
    faults: u32,
    /// Who has had a route to what when everything was well.
    ways: Vec<(NodeId, Block)>,
    /// When the last process that was stopped goes on, and the last deaf reader reads.
    busy_until: Duration,
}

impl Scenario {
    fn new(seed: u64, log: bool) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut topology = random_topology(&mut random);
        topology.hurry(&mut random);
        let conditions = random_conditions(&mut random);
        let mut net = Net::new(topology.configs.clone(), conditions, random.u64(..));
        if log {
            net.keep_log();
        }
        net.log(|| format!("seed {seed}, {topology}"));
        Self {
            random,
            net,
            topology,
            gone: Vec::new(),
            costs: BTreeMap::new(),
            faults: 0,
            ways: Vec::new(),
            busy_until: Duration::ZERO,
        }
    }

    fn finish(
        mut self,
        result: Result<(), Violation>,
    ) -> Result<Summary, (Violation, Vec<String>)> {
        if result.is_err() {
            self.net.log_state();
        }
        let log = self.net.logged().to_vec();
        match result {
            Ok(()) => Ok(Summary {
                topology: self.topology.to_string(),
                faults: self.faults,
                time: self.net.elapsed(),
                digest: self.net.digest(),
                log,
            }),
            Err(violation) => Err((violation, log)),
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        // Some differ from the others in what they offer, and some wait to be called.
        let random = &mut self.random;
        let (odd, passive) = (random.u8(0..4) == 0, random.u8(0..4) == 0);
        if odd || passive {
            for node in self.net.nodes().collect::<Vec<_>>() {
                let (no_restart, multipath) = (odd && random.bool(), odd && random.bool());
                let seed = random.u64(..);
                self.net.configure(node, |config| {
                    let mut random = fastrand::Rng::with_seed(seed);
                    if multipath {
                        config.decision = Decision::multipath(4);
                    }
                    for (address, peer) in &mut config.peers {
                        if no_restart {
                            peer.graceful_restart = None;
                        }
                        let below = NodeId::of(*address).is_some_and(|other| node < other);
                        peer.passive = passive && below && random.bool();
                    }
                });
            }
        }
        for node in self.net.nodes().collect::<Vec<_>>() {
            let pause = self.pause(Duration::from_secs(2));
            self.net.run(pause);
            self.net.boot(node);
        }
        for _ in 0..self.random.u32(0..=10) {
            let pause = self.pause(Duration::from_secs(60));
            self.net.run(pause);
            self.fault();
            self.faults += 1;
        }
        self.heal();
        self.settle()
    }

    /// Mostly short, sometimes long.
    fn pause(&mut self, most: Duration) -> Duration {
        let scale = self.random.u32(0..16);
        most.mul_f64(self.random.f64()) / (1 << scale)
    }

    fn node(&mut self) -> NodeId {
        let nodes = self.topology.configs.len();
        NodeId::from_index(self.random.usize(0..nodes))
    }

    /// A node and one of its peers.
    fn pair(&mut self) -> Option<(NodeId, NodeId)> {
        let node = self.node();
        let peers: Vec<NodeId> = self.topology.configs[node.index()]
            .peers
            .keys()
            .filter_map(|address| NodeId::of(*address))
            .collect();
        (!peers.is_empty()).then(|| (node, peers[self.random.usize(0..peers.len())]))
    }

    fn fault(&mut self) {
        let node = self.node();
        match self.random.u8(0..18) {
            0 | 1 => {
                let hard = self.random.bool();
                self.net.kill(node, hard);
            }
            2 | 3 => self.start(node),
            4 | 5 => {
                let hard = self.random.bool();
                self.net.kill(node, hard);
                let pause = self.pause(Duration::from_secs(30));
                self.net.run(pause);
                self.start(node);
            }
            6 => self.net.power_off(node),
            7 => {
                self.net.power_off(node);
                let pause = self.pause(Duration::from_secs(200));
                self.net.run(pause);
                self.start(node);
            }
            8 => self.net.shut_down(node, "maintenance"),
            9..=11 => self.cut(),
            12 => {
                if let Some((a, b)) = self.pair() {
                    self.net.break_connections(a, b);
                }
            }
            13 => {
                if let Some((a, b)) = self.pair() {
                    let time = self.pause(Duration::from_secs(1000));
                    self.busy(time);
                    self.net.deafen(a, b, time);
                }
            }
            14 => {
                let time = self.pause(Duration::from_secs(100));
                self.busy(time);
                self.net.stop(node, time);
            }
            15 => self.net.conditions().heal(),
            16 => self.cost(),
            _ => self.reconfigure(node),
        }
    }

    fn busy(&mut self, time: Duration) {
        self.busy_until = self.busy_until.max(self.net.elapsed() + time);
    }

    fn start(&mut self, node: NodeId) {
        if !check::runs(&self.net, node) && !self.gone.contains(&node) {
            let of_node: Vec<_> = self
                .costs
                .keys()
                .copied()
                .filter(|(of, _)| *of == node)
                .collect();
            for key in of_node {
                self.costs.remove(&key);
            }
            self.net.boot(node);
        }
    }

    /// Cuts a pair off from each other, in one direction or both, or the network in two, or mends it.
    fn cut(&mut self) {
        let Some((a, b)) = self.pair() else { return };
        let cut = self.random.u8(0..4) > 0;
        let both = self.random.bool();
        let nodes: Vec<NodeId> = self.net.nodes().collect();
        self.net
            .log(|| format!("{a} and {b}: cut {cut}, both ways {both}"));
        let pairs = if self.random.u8(0..4) == 0 {
            let middle = self.random.usize(0..nodes.len());
            let (one, other) = nodes.split_at(middle);
            one.iter()
                .flat_map(|a| other.iter().map(|b| (*a, *b)))
                .collect()
        } else {
            vec![(a, b)]
        };
        for (a, b) in pairs {
            self.net.conditions().cut(a, b, cut);
            if both {
                self.net.conditions().cut(b, a, cut);
            }
        }
    }

    /// A kernel tells its speaker another distance to a node. Not that there is no way: then packets have none either.
    fn cost(&mut self) {
        let (node, other) = (self.node(), self.node());
        if node == other || !check::runs(&self.net, node) {
            return;
        }
        let cost = Some(self.random.u32(0..3));
        self.costs.insert((node, other), cost);
        self.net.set_next_hop(node, other.address(), cost);
    }

    fn reconfigure(&mut self, node: NodeId) {
        let original = self.topology.configs[node.index()].clone();
        let random = &mut self.random;
        match random.u8(0..5) {
            // One of its blocks comes or goes, if it is a node that has some.
            0 if !original.originated.is_empty() => {
                let prefix = node.block(random.u32(0..2)).prefix();
                let attributes = bgp_wire::Attributes::originated();
                self.net.configure(node, |config| {
                    if config.originated.remove(&prefix).is_none() {
                        config.originated.insert(prefix, attributes);
                    }
                });
            }
            // A peer goes, or all come back.
            1 | 2 => {
                let at = random.usize(0..original.peers.len().max(1));
                let add = random.bool();
                self.net.configure(node, |config| {
                    if add {
                        for (address, peer) in &original.peers {
                            config.peers.entry(*address).or_insert_with(|| peer.clone());
                        }
                    } else if let Some(address) = original.peers.keys().nth(at) {
                        config.peers.remove(address);
                    }
                });
            }
            // What its OPEN says.
            3 => {
                let hold = Duration::from_secs([3, 6, 30][random.usize(0..3)]);
                self.net.configure(node, |config| {
                    for peer in config.peers.values_mut() {
                        peer.hold_time = hold;
                    }
                });
            }
            // What it tells with its routes.
            _ => {
                let export = topology::med(random.u32(0..3));
                let at = random.usize(0..original.peers.len().max(1));
                let economy = !self.topology.reachable;
                self.net.configure(node, |config| {
                    if let Some(peer) = config.peers.values_mut().nth(at)
                        && !economy
                    {
                        peer.export = export;
                    }
                });
            }
        }
    }

    /// Ends all faults but a few: some nodes stay away.
    fn heal(&mut self) {
        self.net.log(|| "all is mended".to_owned());
        self.net.conditions().heal();
        self.net.conditions().loss = 0;
        let leave = self.random.u8(0..3) == 0;
        for node in self.net.nodes().collect::<Vec<_>>() {
            let stays_away = leave && self.random.u8(0..4) == 0;
            if stays_away {
                self.gone.push(node);
                if self.random.bool() {
                    self.net.power_off(node);
                } else {
                    self.net.shut_down(node, "retired");
                }
            } else {
                let original = self.topology.configs[node.index()].peers.clone();
                self.net.configure(node, |config| {
                    for (address, peer) in original {
                        config.peers.entry(address).or_insert(peer);
                    }
                });
                self.start(node);
            }
        }
    }

    /// Everything comes to rest, and then is as it must be.
    fn settle(&mut self) -> Result<(), Violation> {
        self.net
            .run(self.busy_until.saturating_sub(self.net.elapsed()));
        let slice = Duration::from_secs(1);
        if !self.net.run_until(UP_TIME, slice, check::all_up) {
            check::sessions(&self.net)?;
        }
        if !self.net.run_until(STALE_TIME, slice, check::nothing_stale) {
            return Err(violation(&self.net, "something is stale for too long"));
        }
        self.net.run(QUIET_TIME);
        if !self.net.run_until(UP_TIME, slice, check::all_up) {
            check::sessions(&self.net)?;
        }
        self.net.run(QUIET_TIME);
        self.check()
    }

    fn check(&self) -> Result<(), Violation> {
        let nodes = || self.net.nodes();
        check::sessions(&self.net)?;
        check::routes(&self.net, nodes(), &self.costs)?;
        let transit_up = self
            .topology
            .transit
            .iter()
            .all(|node| check::runs(&self.net, *node));
        let must = self.topology.reachable && transit_up;
        check::forwarding(&self.net, nodes(), must)?;
        check::memory(&self.net)
    }

    fn restarts(&mut self) -> Result<(), Violation> {
        // Nobody is patient for less time than a process takes to come back.
        let restart = Duration::from_secs(120);
        self.topology
            .each_peer(|_, _, peer| peer.graceful_restart = Some(restart));
        for config in &mut self.topology.configs {
            config.selection_deferral = restart;
        }
        for (node, config) in (0..).map(NodeId).zip(self.topology.configs.clone()) {
            self.net.configure(node, |old| *old = config);
            self.net.boot(node);
        }
        self.settle()?;
        for node in self.net.nodes() {
            let routes = self.net.kernel_routes(node);
            self.ways.extend(routes.map(|(block, _)| (node, block)));
        }
        for _ in 0..self.random.u32(1..=4) {
            let mut nodes = self.restarting();
            for node in &nodes {
                let (pause, hard) = (self.pause(Duration::from_secs(5)), self.random.bool());
                self.forward(pause)?;
                self.net.kill(*node, hard);
            }
            self.random.shuffle(&mut nodes);
            for node in nodes {
                let pause = self.pause(Duration::from_secs(10));
                self.forward(pause)?;
                self.start(node);
                self.faults += 1;
            }
            // A second restart before the first one's End-of-RIB costs routes by RFC 4724 §4.2.
            let end = self.net.now() + UP_TIME;
            while !(check::all_up(&self.net) && check::nothing_stale(&self.net)) {
                self.forward(Duration::from_secs(1))?;
                if self.net.now() > end {
                    check::sessions(&self.net)?;
                    return Err(violation(&self.net, "a restart does not end"));
                }
            }
            let pause = self.pause(Duration::from_secs(60));
            self.forward(pause)?;
        }
        self.settle()
    }

    /// Who restarts at once: one node, a few, all that others' routes come from, or all that there are. One only where every
    /// node is on the way to others: ASes in circles find their paths by trying (path exploration), and packets may go round
    /// meanwhile, whoever keeps what.
    fn restarting(&mut self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.net.nodes().collect();
        self.random.shuffle(&mut nodes);
        if self.topology.transit.len() == nodes.len() {
            nodes.truncate(1);
            return nodes;
        }
        match self.random.u8(0..6) {
            0 | 1 => nodes.truncate(1),
            2 | 3 => nodes.truncate(self.random.usize(1..=nodes.len())),
            4 if !self.topology.transit.is_empty() => {
                nodes.retain(|node| self.topology.transit.contains(node));
            }
            _ => {}
        }
        nodes
    }

    /// Lets time pass while packets find their way from everywhere to wherever there was one.
    fn forward(&mut self, time: Duration) -> Result<(), Violation> {
        let end = self.net.now() + time;
        while self.net.now() < end {
            let left = end - self.net.now();
            let slice = Duration::from_micros(self.random.u64(500..200_000));
            self.net.run(left.min(slice));
            let owners = all_owners(&self.net);
            for (node, block) in &self.ways {
                let owners = owners.get(block).map_or(&[][..], Vec::as_slice);
                check::walk(&self.net, *node, *block, owners, true)?;
            }
        }
        Ok(())
    }
}

/// Who has which block, whether or not its process runs just now.
fn all_owners(net: &Net) -> BTreeMap<Block, Vec<NodeId>> {
    let mut owners: BTreeMap<_, Vec<NodeId>> = BTreeMap::new();
    for node in net.nodes() {
        for prefix in net.host(node).config.originated.keys() {
            if let Some(block) = Block::of(prefix) {
                owners.entry(block).or_default().push(node);
            }
        }
    }
    owners
}

fn random_topology(random: &mut fastrand::Rng) -> Topology {
    let blocks = random.u32(1..=3);
    match random.u8(0..7) {
        0 => Topology::mesh(random.u32(2..=7), blocks),
        1 | 2 => Topology::reflectors(random.u32(1..=6), random.u32(1..=3), blocks, random.bool()),
        3 => Topology::racks(
            random.u32(1..=2),
            random.u32(1..=3),
            random.u32(1..=2),
            blocks,
        ),
        4 => Topology::external_racks(
            random.u32(1..=2),
            random.u32(1..=3),
            random.u32(1..=2),
            blocks,
        ),
        5 => Topology::random(random),
        _ => Topology::economy(random),
    }
}

fn random_conditions(random: &mut fastrand::Rng) -> Conditions {
    let micros = Duration::from_micros;
    let far = [micros(500), micros(5_000), micros(200_000)][random.usize(0..3)];
    let mut conditions = Conditions::default();
    conditions.latency = [micros(50), far];
    conditions.loss = [0, 0, 20, 200][random.usize(0..4)];
    conditions.window = [64, 1_000, 10_000, 256 * 1024][random.usize(0..4)];
    conditions.read_sizes = [[1, 40], [1, 5_000], [64 * 1024, 64 * 1024]][random.usize(0..3)];
    conditions.looks = [3, 10, 1 << 16][random.usize(0..3)];
    conditions.turn = [
        micros(20),
        [micros(100), micros(50_000)][random.usize(0..2)],
    ];
    conditions
}

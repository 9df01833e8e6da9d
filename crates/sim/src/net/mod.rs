//! Hosts, their speakers, the network between them, and a clock that jumps to whatever happens next.
//!
//! | module | what |
//! | --- | --- |
//! | `queue` | what happens when |
//! | `tcp` | connections: windows, latency, loss, FIN and RST |
//! | `process` | a speaker and its sockets, driven as `bgp-net` drives them |
//! | `conditions` | how good or bad the network is |
//!
//! Everything random comes from one seed, and nothing depends on the order of a hash map: the same seed gives the same run,
//! which [`Net::digest`] shows.

mod conditions;
mod process;
mod queue;
mod tcp;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::config::SpeakerConfig;
use bgp::speaker::Speaker;
use bgp::view::PeerStatus;

pub use conditions::Conditions;

use crate::address::{Block, NodeId};
use crate::fib::{Fib, NextHops};
use process::{Input, Mailbox, Process};
use queue::{Happening, Queue};
use tcp::{Phase, Side, TcpId, Tcps};

const PORT: u16 = 179;

/// A machine: a kernel with routes, and at most one process.
#[derive(Debug)]
pub struct Host {
    /// What the process is, or will be when it starts.
    pub config: SpeakerConfig,
    /// The kernel's routes.
    pub fib: Fib,
    /// It has power.
    pub powered: bool,
    /// A process has run since it has power: there is something to restart from.
    ran: bool,
    process: Option<Process>,
    /// There while the process is.
    mailbox: Option<Mailbox>,
}

impl Host {
    /// The speaker, if the process runs.
    #[must_use]
    pub fn speaker(&self) -> Option<&Speaker> {
        self.process.as_ref().map(|process| &process.speaker)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Net {
    hosts: Vec<Host>,
    now: Instant,
    start: Instant,
    queue: Queue,
    tcps: Tcps,
    next_hops: NextHops,
    conditions: Conditions,
    random: fastrand::Rng,
    digest: u64,
    happenings: u64,
    octets: u64,
    changes: u64,
    sessions: usize,
    routes: usize,
    last_change: Instant,
    log: Option<Vec<String>>,
}

/// What a run has taken so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Things that happened: arrivals, turns, deadlines.
    pub happenings: u64,
    /// Octets written to sockets.
    pub octets: u64,
    /// Changes of kernel routes.
    pub changes: u64,
    /// Ends of sessions that are up: two of each.
    pub session_ends: usize,
    /// Kernel routes of all nodes.
    pub routes: usize,
}

impl Net {
    /// Hosts without power.
    #[must_use]
    pub fn new(configs: Vec<SpeakerConfig>, conditions: Conditions, seed: u64) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant does as the start of virtual time"
        )]
        let now = Instant::now();
        let hosts = configs
            .into_iter()
            .map(|config| Host {
                config,
                fib: Fib::default(),
                powered: false,
                ran: false,
                process: None,
                mailbox: None,
            })
            .collect();
        Self {
            hosts,
            now,
            start: now,
            queue: Queue::default(),
            tcps: Tcps::default(),
            next_hops: NextHops::default(),
            conditions,
            random: fastrand::Rng::with_seed(seed),
            digest: 0xcbf2_9ce4_8422_2325,
            happenings: 0,
            octets: 0,
            changes: 0,
            sessions: 0,
            routes: 0,
            last_change: now,
            log: None,
        }
    }

    /// Keeps a log of what happens, for a person.
    pub fn keep_log(&mut self) {
        self.log = Some(Vec::new());
    }

    /// What was logged, with virtual times.
    #[must_use]
    pub fn logged(&self) -> &[String] {
        self.log.as_deref().unwrap_or_default()
    }

    /// Adds a line to the log, if there is one.
    pub fn log(&mut self, line: impl FnOnce() -> String) {
        let at = self.elapsed();
        if let Some(log) = &mut self.log {
            log.push(format!("{:>12.6} {}", at.as_secs_f64(), line()));
        }
    }

    /// Writes into the log what every node has, for a person.
    pub fn log_state(&mut self) {
        if self.log.is_none() {
            return;
        }
        let mut lines = Vec::new();
        for node in self.nodes() {
            for peer in self.peers(node) {
                let (address, state, error) = (peer.address, peer.state, peer.last_error);
                lines.push(format!("{node}: peer {address}: {state:?}, {error:?}"));
            }
            let speaker = self.host(node).speaker();
            let selection = bgp::rib::Selection::All;
            for route in speaker.map_or_else(Vec::new, |speaker| speaker.routes(&selection)) {
                for path in &route.paths {
                    let attributes = &path.attributes;
                    lines.push(format!(
                        "{node}: {} from {:?}: {:?}, via {:?}, AS path {:?}, originator {:?}, clusters {:?}, MED {:?}, stale {}",
                        route.prefix,
                        path.peer_address,
                        path.state,
                        attributes.next_hop,
                        attributes.as_path.asns().collect::<Vec<_>>(),
                        attributes.originator_id,
                        attributes.cluster_list,
                        attributes.med,
                        path.stale,
                    ));
                }
            }
        }
        for line in lines {
            self.log(|| line);
        }
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.hosts.len()).map(NodeId::from_index)
    }

    /// A node's host.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    #[must_use]
    pub fn host(&self, node: NodeId) -> &Host {
        &self.hosts[node.index()]
    }

    /// How a node's speaker sees its peers; nothing where none runs.
    #[must_use]
    pub fn peers(&self, node: NodeId) -> Vec<PeerStatus> {
        let speaker = self.host(node).speaker();
        speaker.map_or_else(Vec::new, |speaker| speaker.peers(self.now))
    }

    /// Where a node's kernel sends packets for a block.
    #[must_use]
    pub fn lookup(&self, node: NodeId, block: Block) -> &[NodeId] {
        self.host(node).fib.lookup(block, &self.next_hops)
    }

    /// All routes of a node's kernel.
    pub fn kernel_routes(&self, node: NodeId) -> impl Iterator<Item = (Block, &[NodeId])> {
        self.host(node).fib.iter(&self.next_hops)
    }

    /// Virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// When the last change of a kernel's route was, since the beginning.
    #[must_use]
    pub fn last_change(&self) -> Duration {
        self.last_change - self.start
    }

    /// One number over all that has happened, in order: the same for the same seed.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// What it took so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            happenings: self.happenings,
            octets: self.octets,
            changes: self.changes,
            session_ends: self.sessions,
            routes: self.routes,
        }
    }

    /// The network's conditions, to be changed at any time.
    pub fn conditions(&mut self) -> &mut Conditions {
        &mut self.conditions
    }

    /// Whether packets from one node get to another: neither is without power, and nothing is cut.
    #[must_use]
    pub fn passes(&self, from: NodeId, to: NodeId) -> bool {
        self.host(from).powered && self.host(to).powered && !self.conditions.is_cut(from, to)
    }

    /// Starts a node's process, and the machine if it has no power. The speaker is told that it restarts if another
    /// process ran there before: the kernel has kept what that one did.
    pub fn boot(&mut self, node: NodeId) {
        let now = self.now;
        let seed = self.random.u64(..);
        let host = &mut self.hosts[node.index()];
        host.powered = true;
        let restarting = std::mem::replace(&mut host.ran, true);
        if restarting {
            host.fib.inherit();
        }
        let mut speaker = Speaker::new(host.config.clone(), restarting, seed, now);
        speaker.set_turn(self.conditions.looks);
        host.process = Some(Process::new(speaker));
        host.mailbox = Some(Mailbox::default());
        self.log(|| format!("{node}: starts, restarting: {restarting}"));
        self.wake(node);
    }

    /// Ends a node's process as `kill -9` does: its kernel keeps its routes and closes its sockets. `hard`: by RST.
    pub fn kill(&mut self, node: NodeId, hard: bool) {
        self.log(|| format!("{node}: killed, by RST: {hard}"));
        let Some((process, mailbox)) = self.take_process(node) else {
            return;
        };
        for (tcp, side) in process.sockets.into_values() {
            self.close(tcp, side, None, hard);
        }
        for input in mailbox.inputs {
            if let Input::Accept(tcp) = input {
                self.close(tcp, Side::Acceptor, None, true);
            }
        }
    }

    /// Ends a node as a power cut does: nobody is told, and the kernel's routes are gone.
    pub fn power_off(&mut self, node: NodeId) {
        self.log(|| format!("{node}: without power"));
        self.take_process(node);
        let host = &mut self.hosts[node.index()];
        host.powered = false;
        host.ran = false;
        self.routes -= host.fib.len();
        host.fib = Fib::default();
        let ends: Vec<_> = self
            .tcps
            .iter()
            .flat_map(|(id, tcp)| Side::BOTH.map(|side| (id, side, tcp.ends[side as usize].node)))
            .filter(|(_, _, of)| *of == node)
            .collect();
        for (tcp, side, _) in ends {
            self.forget(tcp, side);
        }
    }

    fn take_process(&mut self, node: NodeId) -> Option<(Process, Mailbox)> {
        let host = &mut self.hosts[node.index()];
        let process = host.process.take()?;
        self.sessions -= process.sessions;
        Some((process, host.mailbox.take().unwrap_or_default()))
    }

    /// Ends a node's process with words to all its peers (RFC 9003), and takes the machine away once they are sent.
    pub fn shut_down(&mut self, node: NodeId, text: &str) {
        self.log(|| format!("{node}: shuts down"));
        let now = self.now;
        if let Some(process) = &mut self.hosts[node.index()].process {
            process.speaker.shutdown(text, now);
        }
        if let Some(mailbox) = &mut self.hosts[node.index()].mailbox {
            mailbox.stopped_until = None;
        }
        self.turn(node);
        self.kill(node, false);
        let host = &mut self.hosts[node.index()];
        host.ran = false;
        self.routes -= host.fib.len();
        host.fib = Fib::default();
    }

    /// A node gets another configuration: at once, or when it starts.
    pub fn configure(&mut self, node: NodeId, change: impl FnOnce(&mut SpeakerConfig)) {
        let now = self.now;
        let host = &mut self.hosts[node.index()];
        change(&mut host.config);
        if let Some(process) = &mut host.process {
            process.speaker.set_config(host.config.clone(), now);
        }
        self.log(|| format!("{node}: another configuration"));
        self.wake(node);
    }

    /// A node's process gets no time for a while.
    pub fn stop(&mut self, node: NodeId, time: Duration) {
        self.log(|| format!("{node}: stopped for {time:?}"));
        let until = self.now + time;
        if let Some(mailbox) = &mut self.hosts[node.index()].mailbox {
            mailbox.stopped_until = Some(until);
        }
        self.wake(node);
    }

    /// A node reads nothing from another for a while, on the connections that there are.
    pub fn deafen(&mut self, node: NodeId, towards: NodeId, time: Duration) {
        self.log(|| format!("{node}: reads nothing from {towards} for {time:?}"));
        let until = self.now + time;
        for (tcp, side) in self.ends(node, towards) {
            if let Some(end) = self.tcps.end_mut(tcp, side) {
                end.deaf_until = Some(until);
            }
        }
    }

    /// The connections between two nodes are lost, and both hear of it, unless what tells them gets lost.
    pub fn break_connections(&mut self, a: NodeId, b: NodeId) {
        self.log(|| format!("{a}, {b}: connections broken"));
        for (tcp, side) in self.ends(a, b) {
            for side in [side, side.other()] {
                let at = self.now;
                self.queue.push(at, Happening::Reset { tcp, side });
            }
        }
    }

    fn ends(&self, node: NodeId, other: NodeId) -> Vec<(TcpId, Side)> {
        let process = self.hosts[node.index()].process.as_ref();
        let sockets = process.into_iter().flat_map(|p| p.sockets.values());
        sockets
            .copied()
            .filter(|(tcp, side)| {
                self.tcps
                    .end(*tcp, side.other())
                    .is_some_and(|end| end.node == other)
            })
            .collect()
    }

    /// The kernel of a node tells its speaker of the route to another node: its cost, or that there is none.
    pub fn set_next_hop(&mut self, node: NodeId, address: IpAddr, cost: Option<u32>) {
        let now = self.now;
        if let Some(process) = &mut self.hosts[node.index()].process {
            process.speaker.set_next_hop(address, cost, now);
        }
        self.wake(node);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Lets time pass until `done`, which is asked every `slice`; `false` if that is not so after `limit`.
    pub fn run_until(
        &mut self,
        limit: Duration,
        slice: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            self.run(slice);
        }
    }

    /// Lets the next thing happen that is due by `end`.
    fn step(&mut self, end: Instant) -> bool {
        if self.queue.next().is_none_or(|at| at > end) {
            return false;
        }
        let Some((at, happening)) = self.queue.pop() else {
            return false;
        };
        self.now = self.now.max(at);
        self.happenings += 1;
        self.note(happening);
        match happening {
            Happening::Syn { tcp, attempt } => self.syn(tcp, attempt),
            Happening::SynAck { tcp } => self.syn_ack(tcp),
            Happening::Reset { tcp, side } => self.reset_arrives(tcp, side),
            Happening::Arrival { tcp, side } => self.arrival(tcp, side),
            Happening::Window { tcp, side } => self.window_opens(tcp, side),
            Happening::Listens { tcp, side } => self.listens(tcp, side),
            Happening::Turn { node } => self.turn(node),
            Happening::Timer { node } => self.timer(node),
        }
        true
    }

    /// Takes it into the digest (FNV-1a over words).
    fn note(&mut self, happening: Happening) {
        let (kind, what) = match happening {
            Happening::Syn { tcp, attempt } => (1 + u64::from(attempt) * 16, tcp.number()),
            Happening::SynAck { tcp } => (2, tcp.number()),
            Happening::Reset { tcp, side } => (3 + side as u64 * 16, tcp.number()),
            Happening::Arrival { tcp, side } => (4 + side as u64 * 16, tcp.number()),
            Happening::Window { tcp, side } => (5 + side as u64 * 16, tcp.number()),
            Happening::Listens { tcp, side } => (6 + side as u64 * 16, tcp.number()),
            Happening::Turn { node } => (7, u64::from(node.0)),
            Happening::Timer { node } => (8, u64::from(node.0)),
        };
        let nanos = u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX);
        for word in [nanos, kind, what, self.octets] {
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn latency(&mut self, from: NodeId, to: NodeId) -> Duration {
        self.conditions.latency(from, to, &mut self.random)
    }

    /// How many connections two nodes have between them, half-open ones counted.
    #[must_use]
    pub fn connections(&self, a: NodeId, b: NodeId) -> usize {
        let between = |ends: &[tcp::End; 2]| {
            let nodes = [ends[0].node, ends[1].node];
            nodes == [a, b] || nodes == [b, a]
        };
        self.tcps
            .iter()
            .filter(|(_, tcp)| between(&tcp.ends))
            .count()
    }

    /// Connections that only one side knows, or that are not made yet, and octets that are under way: between nodes that
    /// run.
    #[must_use]
    pub fn unsettled(&self) -> (usize, usize) {
        self.tcps.iter().fold((0, 0), |(ends, octets), (_, tcp)| {
            let open = tcp.ends.iter().all(|end| end.phase == Phase::Open);
            if tcp
                .ends
                .iter()
                .any(|end| self.host(end.node).process.is_none())
            {
                // Who dials a node that is away goes on doing so.
                return (ends, octets);
            }
            let under_way: usize = tcp.ends.iter().map(|end| end.out.octets).sum();
            (ends + usize::from(!open), octets + under_way)
        })
    }
}

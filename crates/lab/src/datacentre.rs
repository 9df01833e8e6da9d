//! A data centre: racks of nodes behind top-of-rack routers, and a spine between them.
//!
//! ```text
//!                      spine
//!        172.20.255.0/31 │ 172.20.255.2/31 …
//!            ┌───────────┴───────────┐
//!          tor-a                   tor-b
//!            │ 172.20.1.0/24         │ 172.20.2.0/24      one L2 segment a rack, the ToR is .1
//!        ┌───┴───┐               ┌───┴───┐
//!     node-a1 node-a2         node-b1 node-b2             .11, .12, …; pods 10.244.<rack><node>.0/24
//! ```

mod config;
mod fabric;
mod node;
mod pod;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use ipnet::Ipv4Net;

use crate::process;
use crate::tor::{self, Tor};
use crate::{Namespace, wait};

pub use node::{Identity, Ipv6, METRICS, Node};
pub use pod::Pod;

/// What is to be built.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Before every namespace's name, so that several data centres can stand side by side.
    pub prefix: String,
    /// The speaker of ToRs and spine; without one there are no sessions with them, and nodes of one rack form an iBGP
    /// mesh.
    pub tor: Option<tor::Kind>,
    /// The speaker of every second rack's ToR, where it is another.
    pub second_kind: Option<tor::Kind>,
    /// How many racks: 1 to 9. One rack has no spine.
    pub racks: u8,
    /// How many nodes a rack has: 1 to 9.
    pub nodes: u8,
    /// How many pods a node has.
    pub pods: u8,
    /// Hold time that both sides propose.
    pub hold_time: Duration,
    /// Nodes have an IPv6 address as well, `fd20:0:0:<rack>::11`, `::12`, …, and pods one of `fd44:0:0:<rack><node>::/64`.
    pub dual_stack: bool,
    /// Each rack has a second ToR on a segment of its own (`172.21.<rack>.0/24`, the ToR is .1), to which each node has a link
    /// `eth1`. It has no way to other racks.
    pub two_tors: bool,
    /// Routers keep the routes of a session that is lost for a while, and want the same of others (RFC 4724).
    pub graceful_restart: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            tor: Some(tor::Kind::Margay),
            second_kind: None,
            racks: 2,
            nodes: 2,
            pods: 3,
            hold_time: Duration::from_secs(90),
            dual_stack: false,
            two_tors: false,
            graceful_restart: true,
        }
    }
}

/// A router of the fabric, in its namespace.
#[derive(Debug)]
pub struct Router {
    /// Its name, without the data centre's prefix.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its address towards the nodes; the spine's own.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
    /// Its BGP peers.
    pub peers: Vec<Ipv4Addr>,
    /// Its speaker, where the shape asks for one.
    pub speaker: Option<Box<dyn Tor>>,
}

/// A rack.
#[derive(Debug)]
pub struct Rack {
    /// Its letter.
    pub name: char,
    /// Its L2 segment's subnet.
    pub subnet: Ipv4Net,
    /// Its router.
    pub tor: Router,
    /// Its second router, where the shape asks for one.
    pub second_tor: Option<Router>,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// All of it. Everything ends with this value.
#[derive(Debug)]
pub struct DataCentre {
    /// What was asked for.
    pub shape: Shape,
    /// Between the racks, where there is more than one.
    pub spine: Option<Router>,
    /// The racks.
    pub racks: Vec<Rack>,
}

impl DataCentre {
    /// Builds the network and starts the routers' speakers: everything but the agents and the pods.
    ///
    /// # Errors
    /// When the kernel refuses something or a speaker does not start.
    pub fn fabric(shape: Shape) -> Result<Self> {
        fabric::build(shape)
    }

    /// Builds all of it, waits for the sessions and attaches the pods.
    ///
    /// # Errors
    /// When something is not up in time: with the logs' ends.
    pub fn build(shape: Shape) -> Result<Self> {
        let mut dc = Self::fabric(shape)?;
        let result = dc.start();
        result.map_err(|error| error.context(dc.logs()))?;
        Ok(dc)
    }

    /// Starts the agents, waits for the sessions and attaches the pods.
    ///
    /// # Errors
    /// When something is not up in time.
    pub fn start(&mut self) -> Result<()> {
        self.start_agents()?;
        self.wait_sessions(Duration::from_secs(40))?;
        let pods = self.shape.pods;
        self.nodes_mut()
            .try_for_each(|node| (0..pods).try_for_each(|_| node.attach().map(drop)))
    }

    /// Starts every node's agent and waits for their sockets.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start_agents(&mut self) -> Result<()> {
        let limit = Duration::from_secs(20);
        self.nodes_mut().try_for_each(Node::start)?;
        self.nodes_mut().try_for_each(|node| node.wait_ready(limit))
    }

    /// Waits until every router has a session with each of its peers, and every agent is in step.
    ///
    /// # Errors
    /// When that has not happened after `limit`.
    pub fn wait_sessions(&mut self, limit: Duration) -> Result<()> {
        for router in self.routers_mut() {
            let peers = router.peers.clone();
            if let Some(speaker) = &mut router.speaker {
                tor::wait_established(speaker.as_mut(), &peers, limit)
                    .map_err(|error| error.context(router.name.clone()))?;
            }
        }
        self.nodes().try_for_each(|node| node.wait_in_step(limit))
    }

    /// Waits until every node has a kernel route of Margay's to every other node's pods.
    ///
    /// # Errors
    /// When that has not happened after `limit`.
    pub fn wait_routes(&self, limit: Duration) -> Result<()> {
        let all: Vec<Ipv4Net> = self.nodes().map(|node| node.pod_cidr).collect();
        for node in self.nodes() {
            wait::until(&format!("the routes of {}", node.name), limit, || {
                let have = node.kernel_routes()?;
                let others = all.iter().filter(|cidr| **cidr != node.pod_cidr);
                for cidr in others {
                    if !have.contains(cidr) {
                        bail!("{} has no route to {cidr}, only {have:?}", node.name);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Every node, rack by rack.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.racks.iter().flat_map(|rack| &rack.nodes)
    }

    /// Every node, rack by rack.
    pub fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        self.racks.iter_mut().flat_map(|rack| &mut rack.nodes)
    }

    /// Every pod, node by node.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.nodes().flat_map(|node| &node.pods)
    }

    /// ToRs and spine.
    pub fn routers_mut(&mut self) -> impl Iterator<Item = &mut Router> {
        let tors = self
            .racks
            .iter_mut()
            .flat_map(|rack| std::iter::once(&mut rack.tor).chain(&mut rack.second_tor));
        tors.chain(&mut self.spine)
    }

    /// The node called so, without the data centre's prefix.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        match self.nodes_mut().find(|node| node.name == name) {
            Some(node) => Ok(node),
            None => bail!("there is no {name}"),
        }
    }

    /// How many routers a packet passes from one node to another, the nodes themselves not counted.
    #[must_use]
    pub fn routers_between(&self, from: &Node, to: &Node) -> u8 {
        if from.name == to.name {
            0
        } else if from.rack != to.rack {
            3
        } else {
            u8::from(
                self.shape
                    .tor
                    .is_some_and(|tor| !tor.third_party_next_hop()),
            )
        }
    }

    /// How many routers an answer passes from a pod on `to` back to `from`, or to a pod on it.
    #[must_use]
    pub fn routers_back(&self, from: &Node, from_pod: bool, to: &Node) -> u8 {
        let own = u8::from(from_pod);
        if from.name == to.name {
            own
        } else if from.rack == to.rack && !from_pod {
            // The node itself is on the segment, whatever way its pods' range takes.
            1
        } else {
            1 + self.routers_between(from, to) + own
        }
    }

    /// The ends of all logs, for a failure's report.
    #[must_use]
    pub fn logs(&mut self) -> String {
        let mut files: Vec<PathBuf> = Vec::new();
        files.extend(self.nodes().map(Node::log));
        for router in self.routers_mut() {
            if let Some(speaker) = &mut router.speaker {
                files.extend(speaker.processes().iter().map(|it| it.log().to_owned()));
            }
        }
        files
            .iter()
            .map(|file| format!("--- {}\n{}\n", file.display(), process::tail(file, 15)))
            .collect()
    }
}

//! Sessions between nodes that follow from what nodes there are: the full mesh, or those with route reflectors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::config::PeerConfig;
use resources::bgp_configuration::DEFAULT;
use resources::{Kind, Node, Problem, Severity};

use crate::peers::{ANY_DISTANCE, Planner};
use crate::plan::{CONNECT_RETRY, DEFAULT_RESTART_TIME, listen_port, problem, setting};

/// From how many nodes on a full mesh is said to be large: each node has as many sessions, and every change goes over all of
/// them. Those who run Calico go over to route reflectors between 50 and 100.
pub const LARGE_MESH: usize = 100;

/// How the nodes are joined, as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// This node's part.
    pub role: Role,
    /// Peers that it has for that, by address.
    pub peers: BTreeSet<IpAddr>,
    /// Those of them that are reflectors.
    pub reflectors: BTreeSet<IpAddr>,
}

/// A node's part in the topology.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// None: its peers are those that BGPPeers say.
    #[default]
    Apart,
    /// It peers with every other node.
    Meshed,
    /// It peers with route reflectors.
    Client,
    /// It is a route reflector.
    Reflector,
}

impl Planner<'_> {
    /// Adds the peers that follow from what nodes there are. As in Calico, nodes of our AS are internal peers, those of another
    /// external ones. Both ends dial, unlike in Calico, so that whichever restarts is back at once; a collision is resolved by
    /// the session. Route reflectors by annotation are no part of it.
    pub(crate) fn topology(
        &self,
        peers: &mut BTreeMap<IpAddr, PeerConfig>,
        problems: &mut Vec<Problem>,
    ) -> Topology {
        let mut topology = Topology {
            role: self.role(),
            ..Topology::default()
        };
        if topology.role == Role::Apart {
            return topology;
        }
        let name = self.node.metadata.name.as_str();
        if self.node.internal_ips().next().is_none() {
            let message = "no InternalIP: the node has no sessions with other nodes";
            let object = Some((Kind::Node, name));
            problems.push(problem(
                Severity::Error,
                object,
                "status.addresses",
                message,
            ));
            return topology;
        }
        let others: Vec<&Node> = self
            .cluster
            .nodes
            .values()
            .filter(|other| other.metadata.name != name)
            .filter(|other| other.route_reflector_cluster_id().is_none())
            .filter(|other| match &self.reflectors {
                Some(reflectors) => reflectors.joins(self.node, other),
                None => true,
            })
            .collect();
        self.complain(topology.role, &others, problems);
        let template = self.template(problems);
        for other in others {
            self.join(other, &template, &mut topology, peers, problems);
        }
        topology
    }

    fn role(&self) -> Role {
        if self.node.route_reflector_cluster_id().is_some() {
            return Role::Apart;
        }
        match &self.reflectors {
            Some(_) if self.is_chosen(self.node) => Role::Reflector,
            Some(_) => Role::Client,
            None if self.mesh_enabled() => Role::Meshed,
            None => Role::Apart,
        }
    }

    /// What is hardly as it was meant.
    fn complain(&self, role: Role, others: &[&Node], problems: &mut Vec<Problem>) {
        let nodes = others.len() + 1;
        let configuration = self.cluster.configurations.get(DEFAULT);
        let object = configuration.map(|_| (Kind::BgpConfiguration, DEFAULT));
        if role == Role::Meshed && nodes > LARGE_MESH {
            let message = format!(
                "the full mesh has {nodes} nodes, and as many sessions on each: from {LARGE_MESH} on write `routeReflectors`"
            );
            let field = "spec.nodeToNodeMeshEnabled";
            problems.push(problem(Severity::Warning, object, field, message));
        }
        let field = "spec.routeReflectors";
        let wanted = configuration.is_some_and(|spec| spec.route_reflectors.is_some());
        if wanted && self.reflectors.is_none() {
            let message =
                "no Node may be a route reflector: the nodes form a full mesh until there is one";
            problems.push(problem(Severity::Error, object, field, message));
        }
        if self.reflectors.is_some() && others.is_empty() && self.cluster.nodes.len() > 1 {
            let message = "no other node is a route reflector of this one, or a client: it learns no routes. Is there a Node in its zone that may be one?";
            problems.push(problem(Severity::Error, object, field, message));
        }
        let own = self.asn_of(self.node);
        let stranger = others.iter().find(|other| self.asn_of(other) != own);
        if let Some(other) = stranger.filter(|_| self.reflectors.is_some()) {
            let message = format!(
                "Node {} is of AS {}, not {own}: route reflectors pass routes on within one AS alone",
                other.metadata.name,
                self.asn_of(other)
            );
            problems.push(problem(Severity::Error, object, field, message));
        }
    }

    /// What all of these sessions have in common.
    fn template(&self, problems: &mut Vec<Problem>) -> PeerConfig {
        let name = &self.node.metadata.name;
        let restart_time = setting(self.cluster, name, |spec| spec.node_mesh_max_restart_time)
            .unwrap_or(DEFAULT_RESTART_TIME);
        let default = self.cluster.configurations.get(DEFAULT);
        let password = self.password(
            default.and_then(|spec| spec.node_mesh_password.as_ref()),
            (Kind::BgpConfiguration, DEFAULT),
            "spec.nodeMeshPassword",
            problems,
        );
        let reflects = self.reflects();
        PeerConfig {
            shutdown: password.as_ref().err().cloned(),
            password: password.ok().flatten(),
            hold_time: self.hold_time(),
            connect_retry: CONNECT_RETRY,
            families: self.families(&[]),
            reach: ANY_DISTANCE,
            graceful_restart: self.graceful_restart().then_some(restart_time),
            import: self.ranges.import(std::iter::empty(), reflects),
            export: self.ranges.export(std::iter::empty(), reflects),
            ..PeerConfig::new(0)
        }
    }

    fn join(
        &self,
        other: &Node,
        template: &PeerConfig,
        topology: &mut Topology,
        peers: &mut BTreeMap<IpAddr, PeerConfig>,
        problems: &mut Vec<Problem>,
    ) {
        let (name, theirs) = (&self.node.metadata.name, other.metadata.name.as_str());
        let Some((own, address)) = self.common_address(other) else {
            let message = format!(
                "no InternalIP of a family that Node {name} has one of: there is no session between the two"
            );
            let object = Some((Kind::Node, theirs));
            problems.push(problem(
                Severity::Warning,
                object,
                "status.addresses",
                message,
            ));
            return;
        };
        // Said elsewhere; a session with ourselves helps nobody. And any BGPPeer wins.
        if own == address || peers.contains_key(&address) {
            return;
        }
        let asn = self.asn_of(other);
        let origin = match &self.reflectors {
            Some(_) if self.is_chosen(other) => "reflector",
            Some(_) => "client",
            None => "mesh",
        };
        let peer = PeerConfig {
            asn,
            port: listen_port(self.cluster, theirs),
            local_address: Some(own),
            other_local_address: self.other_address(own),
            extended_next_hop: own.is_ipv6(),
            rules: self.rules(Some(other), asn == self.asn_of(self.node)),
            origin: format!("{origin}/{theirs}"),
            ..template.clone()
        };
        peers.insert(address, peer);
        topology.peers.insert(address);
        if self.is_chosen(other) {
            topology.reflectors.insert(address);
        }
    }
}

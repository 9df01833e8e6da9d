//! Which peers a node has: the mesh, and the BGPPeers that select it.
//!
//! One address has one session. Where several ask for it, a BGPPeer of all nodes wins over one of some nodes, as in
//! Calico, then the name that sorts first, and any BGPPeer over the mesh.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::time::Duration;

use bgp::config::{NextHopMode, PeerConfig, Reach};
use bgp::policy::Policy;
use bgp_wire::Family;
use resources::bgp_configuration::DEFAULT;
use resources::{
    BgpPeerSpec, ClusterState, FilterRule, Kind, Node, Problem, Severity, SourceAddress,
};

use crate::filter::{Ranges, export};
use crate::plan::{
    CONNECT_RETRY, DEFAULT_HOLD_TIME, DEFAULT_PORT, DEFAULT_RESTART_TIME, asn, listen_port,
    problem, setting,
};

/// The peers of this node, by address.
pub(crate) fn peers(
    cluster: &ClusterState,
    node: &Node,
    ranges: &Ranges,
    problems: &mut Vec<Problem>,
) -> BTreeMap<IpAddr, PeerConfig> {
    let planner = Planner {
        cluster,
        node,
        ranges,
    };
    let mut peers = BTreeMap::new();
    planner.explicit(&mut peers, problems);
    planner.mesh(&mut peers, problems);
    peers
}

struct Planner<'a> {
    cluster: &'a ClusterState,
    node: &'a Node,
    ranges: &'a Ranges,
}

impl Planner<'_> {
    fn explicit(&self, peers: &mut BTreeMap<IpAddr, PeerConfig>, problems: &mut Vec<Problem>) {
        let (global, others): (Vec<_>, Vec<_>) = self
            .cluster
            .peers
            .iter()
            .partition(|(_, spec)| spec.is_global());
        for (name, spec) in global.into_iter().chain(others) {
            self.check_target(name, spec, problems);
            // A list of all route reflectors applies to them as well: whoever is meant itself passes over it.
            let own = self.node.internal_ips().any(|ip| ip == spec.peer_ip.ip);
            if own || !self.selected(spec) {
                continue;
            }
            match peers.entry(spec.peer_ip.ip) {
                Entry::Vacant(entry) => {
                    entry.insert(self.peer(name, spec, problems));
                }
                Entry::Occupied(entry) => {
                    let message = format!(
                        "{} is a peer already by {}: this one has no effect here",
                        spec.peer_ip.ip,
                        entry.get().origin
                    );
                    problems.push(problem(
                        Severity::Warning,
                        Some((Kind::BgpPeer, name)),
                        "spec.peerIP",
                        message,
                    ));
                }
            }
        }
    }

    /// Whether a BGPPeer is one of this node's.
    fn selected(&self, spec: &BgpPeerSpec) -> bool {
        let metadata = &self.node.metadata;
        match (&spec.node, &spec.node_selector) {
            (Some(node), _) => *node == metadata.name,
            (None, Some(selector)) => selector.matches(&metadata.labels),
            (None, None) => true,
        }
    }

    /// A name or a selector with a slip in it would otherwise be a peer that nobody has and nobody misses.
    fn check_target(&self, name: &str, spec: &BgpPeerSpec, problems: &mut Vec<Problem>) {
        let nodes = &self.cluster.nodes;
        let (field, message) = match (&spec.node, &spec.node_selector) {
            (Some(node), _) if !nodes.contains_key(node) => {
                ("spec.node", format!("there is no Node named `{node}`"))
            }
            (None, Some(selector))
                if !nodes
                    .values()
                    .any(|node| selector.matches(&node.metadata.labels)) =>
            {
                (
                    "spec.nodeSelector",
                    format!("no Node has labels that match `{selector}`"),
                )
            }
            _ => return,
        };
        problems.push(problem(
            Severity::Warning,
            Some((Kind::BgpPeer, name)),
            field,
            message,
        ));
    }

    fn peer(&self, name: &str, spec: &BgpPeerSpec, problems: &mut Vec<Problem>) -> PeerConfig {
        let ip = spec.peer_ip.ip;
        let asn = spec.as_number.get();
        let other = self.node_at(ip);
        let mut port = DEFAULT_PORT;
        let mut origin = format!("BGPPeer/{name}");
        if let Some(other) = other {
            let theirs = self.asn_of(other);
            if theirs == asn {
                port = listen_port(self.cluster, &other.metadata.name);
            } else {
                let message = format!(
                    "{ip} is Node {} of AS {theirs}, not {asn}: the session will be refused",
                    other.metadata.name
                );
                problems.push(problem(
                    Severity::Warning,
                    Some((Kind::BgpPeer, name)),
                    "spec.asNumber",
                    message,
                ));
            }
            if self.mesh_enabled() {
                origin = format!("{origin} (instead of mesh/{})", other.metadata.name);
            }
        }
        let source = spec.source_address.unwrap_or_default();
        let (import, export) = self.policies(name, spec, problems);
        PeerConfig {
            port: spec.peer_ip.port.unwrap_or(port),
            local_address: match source {
                SourceAddress::UseNodeIP => self.source_address(),
                SourceAddress::None => None,
            },
            passive: spec.passive.unwrap_or(false),
            hold_time: spec.hold_time.unwrap_or_else(|| self.hold_time()),
            reach: spec.ttl_security.map_or(ANY_DISTANCE, Reach::Gtsm),
            next_hop: match spec.next_hop_mode.unwrap_or_default() {
                resources::NextHopMode::Auto => NextHopMode::Auto,
                resources::NextHopMode::Own => NextHopMode::Own,
                resources::NextHopMode::Keep => NextHopMode::Keep,
            },
            graceful_restart: spec
                .graceful_restart
                .unwrap_or_else(|| self.graceful_restart())
                .then(|| spec.max_restart_time.unwrap_or(DEFAULT_RESTART_TIME)),
            import,
            export,
            connect_retry: CONNECT_RETRY,
            families: FAMILIES.to_vec(),
            origin,
            ..PeerConfig::new(asn)
        }
    }

    /// A peer's policies. One that names a filter which isn't there gets nothing and gives nothing: what the filter
    /// was to keep out is not known.
    fn policies(
        &self,
        name: &str,
        spec: &BgpPeerSpec,
        problems: &mut Vec<Problem>,
    ) -> (Policy, Policy) {
        let filters = &self.cluster.filters;
        if let Some((index, missing)) = spec
            .filters
            .iter()
            .enumerate()
            .find(|(_, filter)| !filters.contains_key(*filter))
        {
            let message = format!(
                "there is no BGPFilter named `{missing}`: until there is, no route passes in either direction"
            );
            let field = format!("spec.filters[{index}]");
            problems.push(problem(
                Severity::Error,
                Some((Kind::BgpPeer, name)),
                &field,
                message,
            ));
            let policy = Policy::reject_all(format!("BGPFilter/{missing} is missing"));
            return (policy.clone(), policy);
        }
        let rules = |direction: &'static str| {
            spec.filters.iter().flat_map(move |filter| {
                let spec = &filters[filter];
                let rules: &[FilterRule] = match direction {
                    "importV4" => &spec.import_v4,
                    _ => &spec.export_v4,
                };
                rules.iter().enumerate().map(move |(index, rule)| {
                    (format!("BGPFilter/{filter} {direction}[{index}]"), rule)
                })
            })
        };
        (
            self.ranges.import(rules("importV4")),
            export(rules("exportV4")),
        )
    }

    /// Every other node, as Calico has it: nodes of our AS as internal peers, those of another as external ones. Both
    /// ends dial, unlike in Calico, so that whichever restarts is back at once; a collision is resolved by the session.
    fn mesh(&self, peers: &mut BTreeMap<IpAddr, PeerConfig>, problems: &mut Vec<Problem>) {
        if !self.mesh_enabled() {
            return;
        }
        if self.node.internal_ipv4().is_none() {
            let message = "no IPv4 InternalIP: the node is left out of the mesh";
            let object = Some((Kind::Node, self.node.metadata.name.as_str()));
            problems.push(problem(
                Severity::Error,
                object,
                "status.addresses",
                message,
            ));
            return;
        }
        let name = &self.node.metadata.name;
        let restart_time = setting(self.cluster, name, |spec| spec.node_mesh_max_restart_time)
            .unwrap_or(DEFAULT_RESTART_TIME);
        let template = PeerConfig {
            local_address: self.source_address(),
            hold_time: self.hold_time(),
            connect_retry: CONNECT_RETRY,
            families: FAMILIES.to_vec(),
            reach: ANY_DISTANCE,
            graceful_restart: self.graceful_restart().then_some(restart_time),
            import: self.ranges.import(std::iter::empty()),
            export: export(std::iter::empty()),
            ..PeerConfig::new(0)
        };
        for (other_name, other) in self
            .cluster
            .nodes
            .iter()
            .filter(|(other, _)| *other != name)
        {
            let Some(address) = other.internal_ipv4() else {
                let message = "no IPv4 InternalIP: the node is left out of the mesh";
                let object = Some((Kind::Node, other_name.as_str()));
                problems.push(problem(
                    Severity::Warning,
                    object,
                    "status.addresses",
                    message,
                ));
                continue;
            };
            if self.node.internal_ipv4() == Some(address) {
                // Said elsewhere; a session with ourselves helps nobody.
                continue;
            }
            peers.entry(address.into()).or_insert_with(|| PeerConfig {
                asn: self.asn_of(other),
                port: listen_port(self.cluster, other_name),
                origin: format!("mesh/{other_name}"),
                ..template.clone()
            });
        }
    }

    fn mesh_enabled(&self) -> bool {
        let default = self.cluster.configurations.get(DEFAULT);
        default
            .and_then(|spec| spec.node_to_node_mesh_enabled)
            .unwrap_or(true)
    }

    fn hold_time(&self) -> Duration {
        setting(self.cluster, &self.node.metadata.name, |spec| {
            spec.hold_time
        })
        .unwrap_or(DEFAULT_HOLD_TIME)
    }

    fn graceful_restart(&self) -> bool {
        setting(self.cluster, &self.node.metadata.name, |spec| {
            spec.graceful_restart
        })
        .unwrap_or(true)
    }

    fn source_address(&self) -> Option<IpAddr> {
        self.node.internal_ipv4().map(IpAddr::from)
    }

    fn node_at(&self, ip: IpAddr) -> Option<&Node> {
        self.cluster
            .nodes
            .values()
            .find(|node| node.internal_ips().any(|address| address == ip))
    }

    fn asn_of(&self, node: &Node) -> u32 {
        asn(self.cluster, node)
    }
}

/// What sessions carry.
const FAMILIES: [Family; 1] = [Family::IPV4_UNICAST];

/// Peers may be any number of hops away, as in Calico; the TTL is the highest, so that a peer may ask for TTL security.
const ANY_DISTANCE: Reach = Reach::Hops(255);

//! What one node is to do, from the objects of the whole cluster.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::config::{Decision, SpeakerConfig};
use bgp_wire::pattern::AnyCommunity;
use bgp_wire::{Asn, Attributes};
use dataplane::{Firewall, TunnelKind};
use ipnet::IpNet;
use resources::bgp_configuration::{BindMode, DEFAULT, NODE_PREFIX};
use resources::{BgpConfigurationSpec, ClusterState, Kind, Node, ObjectRef, Problem, Severity};

use crate::filter::Ranges;
use crate::pools::{self, AddressPlan};
use crate::topology::Topology;
use crate::tunnel::Tunnels;
use crate::{peers, services, targets};

/// The AS of nodes for which nothing else is said: private use (RFC 6996), and Calico's default.
pub const DEFAULT_ASN: Asn = 64512;

/// BGP's port.
pub const DEFAULT_PORT: u16 = 179;

/// The hold time that we propose: what RFC 4271 §10 suggests.
pub const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(90);

/// The restart time that we announce: BIRD's default and so Calico's.
pub const DEFAULT_RESTART_TIME: Duration = Duration::from_secs(120);

/// Wait between attempts to connect: Calico's. A node's peers are near, and a restart should be over soon.
pub const CONNECT_RETRY: Duration = Duration::from_secs(5);

/// How long a restarted speaker waits for End-of-RIB: half the restart time that peers give us, so that they have our
/// routes again before they drop the old ones although one peer of many is gone.
pub const SELECTION_DEFERRAL: Duration = Duration::from_secs(60);

/// How many equal paths share the load. Nodes have two ToRs, rarely four.
pub const MAX_PATHS: u8 = 16;

/// What one node is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePlan {
    /// The node's name.
    pub node: String,
    /// Its speaker: itself, peers, policies, originated routes.
    pub speaker: SpeakerConfig,
    /// The port that the speaker listens on.
    pub listen_port: u16,
    /// The addresses that it listens on; none: every one.
    pub bind: Vec<IpAddr>,
    /// The node's InternalIPs.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods: pod CIDRs and blocks. Packets to unused addresses in them are dropped.
    pub pod_cidrs: Vec<IpNet>,
    /// Peers that are to be reached by a gateway, each with that.
    pub gateways: BTreeMap<IpAddr, IpAddr>,
    /// Where its pods' addresses come from.
    pub addressing: AddressPlan,
    /// The default route may lead to a next hop.
    pub default_route_resolves: bool,
    /// What travels through tunnels.
    pub tunnels: Tunnels,
    /// What its nftables table is to do, but for the pods' interfaces, which are nothing to a plan.
    pub firewall: Firewall,
    /// Which of the speaker's peers follow from what nodes there are.
    pub topology: Topology,
    /// What is wrong. Their `source` and `line` are for [`Index::locate`](resources::Index::locate) to fill in.
    pub problems: Vec<Problem>,
}

/// Why a node can't be planned for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing is known of it.
    #[error("there is no Node named `{0}`: --node-name must be the name of a Node object")]
    NoNode(String),
    /// It has no BGP identifier.
    #[error(
        "Node `{0}` has neither an IPv4 InternalIP nor the annotation margay.dev/router-id: one of them must be there to be its router id"
    )]
    NoRouterId(String),
    /// Which blocks it has is not known, so that a plan would withdraw them.
    #[error("which blocks this node has is not known yet: {0}")]
    BlocksUnknown(String),
}

/// Plans for the node of this name, without a block of a pool.
///
/// # Errors
///
/// As [`plan_with_blocks`].
pub fn plan(cluster: &ClusterState, node_name: &str) -> Result<NodePlan, PlanError> {
    plan_with_blocks(cluster, node_name, &[])
}

/// Plans for the node of this name, which has these blocks of pools.
///
/// # Errors
///
/// When too little is known of the node to have a speaker at all. Everything less is listed in
/// [`NodePlan::problems`].
pub fn plan_with_blocks(
    cluster: &ClusterState,
    node_name: &str,
    blocks: &[IpNet],
) -> Result<NodePlan, PlanError> {
    let Some(node) = cluster.nodes.get(node_name) else {
        return Err(PlanError::NoNode(node_name.to_owned()));
    };
    let router_id = router_id(node).ok_or_else(|| PlanError::NoRouterId(node_name.to_owned()))?;
    let mut problems = Vec::new();
    let addressing = pools::addressing(cluster, node, &mut problems);
    let mut pod_cidrs = addressing.cidrs.clone();
    pod_cidrs.extend(blocks);
    overlaps(cluster, node, &pod_cidrs, &mut problems);
    let asn = asn(cluster, node);
    let ranges = Ranges::new(cluster, &pod_cidrs);
    let (peers, dynamic, topology) = peers::peers(cluster, node, &ranges, &mut problems);
    let gateways = targets::gateways(cluster, node, &peers);
    let tunnels = Tunnels::new(cluster, node);
    let speaker = SpeakerConfig {
        peers,
        dynamic,
        originated: originated(cluster, node, &pod_cidrs, &mut problems),
        // Routes of our own are all that we announce: no other one's next hop to keep.
        subnets: Vec::new(),
        decision: decision(cluster, node_name),
        cluster_id: node.route_reflector_cluster_id(),
        selection_deferral: SELECTION_DEFERRAL,
        ..SpeakerConfig::new(asn, router_id)
    };
    if ranges.are_unknown() {
        let message = "neither an IPPool nor a Node's podCIDRs say where pods are: without a filter no route is accepted from peers";
        problems.push(problem(Severity::Warning, None, "", message));
    }
    let firewall = firewall(cluster, &tunnels, &mut problems);
    problems.sort();
    Ok(NodePlan {
        node: node_name.to_owned(),
        speaker,
        listen_port: listen_port(cluster, node_name),
        bind: match setting(cluster, node_name, |spec| spec.bind_mode).unwrap_or_default() {
            BindMode::None => Vec::new(),
            BindMode::NodeIP => node.internal_ips().collect(),
        },
        addresses: node.internal_ips().collect(),
        pod_cidrs,
        gateways,
        addressing,
        default_route_resolves: setting(cluster, node_name, |spec| spec.resolve_by_default_route)
            .unwrap_or(true),
        firewall,
        topology,
        tunnels,
        problems,
    })
}

/// A node's AS: its annotation or label, else its own BGPConfiguration, else by a label in that of all nodes, else that of all
/// nodes.
pub(crate) fn asn(cluster: &ClusterState, node: &Node) -> Asn {
    let own = format!("{NODE_PREFIX}{}", node.metadata.name);
    let own = || cluster.configurations.get(&own)?.as_number;
    let all = cluster.configurations.get(DEFAULT);
    let by_label = || {
        let table = all?.as_number_by_label.as_ref()?;
        table.get(&node.metadata.labels).copied()
    };
    node.as_number()
        .or_else(own)
        .or_else(by_label)
        .or_else(|| all?.as_number)
        .map_or(DEFAULT_ASN, resources::AsNumber::get)
}

/// The port that a node listens on.
pub(crate) fn listen_port(cluster: &ClusterState, node: &str) -> u16 {
    setting(cluster, node, |spec| spec.listen_port).unwrap_or(DEFAULT_PORT)
}

/// How the node compares paths.
fn decision(cluster: &ClusterState, node: &str) -> Decision {
    let wanted = setting(cluster, node, |spec| spec.best_path);
    let maximum = wanted.and_then(|it| it.maximum_paths).unwrap_or(MAX_PATHS);
    let usual = Decision::multipath(maximum);
    let Some(wanted) = wanted else {
        return usual;
    };
    Decision {
        multipath_relax: wanted.multipath_relax.unwrap_or(usual.multipath_relax),
        always_compare_med: wanted.always_compare_med.unwrap_or(false),
        missing_med_worst: wanted.missing_med_is_worst.unwrap_or(false),
        ..usual
    }
}

/// A setting from a node's own BGPConfiguration, else from that of all nodes.
pub(crate) fn setting<T>(
    cluster: &ClusterState,
    node: &str,
    choose: impl Fn(&BgpConfigurationSpec) -> Option<T>,
) -> Option<T> {
    let own = cluster.configurations.get(&format!("{NODE_PREFIX}{node}"));
    let all = cluster.configurations.get(DEFAULT);
    own.and_then(&choose).or_else(|| all.and_then(&choose))
}

/// What every node's nftables table is to do.
fn firewall(cluster: &ClusterState, tunnels: &Tunnels, problems: &mut Vec<Problem>) -> Firewall {
    let pools = cluster.pools.values();
    let masqueraded = pools.clone().filter(|pool| pool.nat_outgoing);
    let nodes = cluster.nodes.values().flat_map(Node::internal_ips);
    let mut firewall = Firewall {
        masqueraded: masqueraded.map(|pool| pool.cidr).collect(),
        inside: pools
            .map(|pool| pool.cidr)
            .chain(nodes.map(IpNet::from))
            .collect(),
        tunnel_peers: TunnelKind::ALL
            .into_iter()
            .any(|kind| tunnels.wants(kind))
            .then(|| tunnels.nodes.keys().copied().collect()),
        ..Firewall::default()
    };
    services::guard(cluster, &mut firewall, problems);
    firewall
}

/// What starts at this node: its pods' ranges, and what it announces of Services; with the communities of
/// `prefixAdvertisements`.
fn originated(
    cluster: &ClusterState,
    node: &Node,
    pod_cidrs: &[IpNet],
    problems: &mut Vec<Problem>,
) -> BTreeMap<IpNet, Attributes> {
    let mut prefixes = services::announced(cluster, node);
    for cidr in pod_cidrs {
        prefixes.entry(*cidr).or_default();
    }
    let tags = tags(cluster, &node.metadata.name, problems);
    let with_attributes = |(prefix, own): (IpNet, BTreeSet<AnyCommunity>)| {
        let mut attributes = Attributes::originated();
        let inside = tags.iter().filter(|(range, _)| range.contains(&prefix));
        for community in own
            .into_iter()
            .chain(inside.map(|(_, community)| *community))
        {
            bgp::policy::tag(&mut attributes, community);
        }
        (prefix, attributes)
    };
    prefixes.into_iter().map(with_attributes).collect()
}

/// The communities of `prefixAdvertisements` by range. A node's own list stands for that of all nodes.
fn tags(
    cluster: &ClusterState,
    node: &str,
    problems: &mut Vec<Problem>,
) -> Vec<(IpNet, AnyCommunity)> {
    let own = format!("{NODE_PREFIX}{node}");
    let specs = [own.as_str(), DEFAULT].map(|name| (name, cluster.configurations.get(name)));
    let lists = specs
        .iter()
        .filter_map(|(name, spec)| Some((*name, (*spec)?)));
    let mut lists = lists.filter(|(_, spec)| !spec.prefix_advertisements.is_empty());
    let Some((name, spec)) = lists.next() else {
        return Vec::new();
    };
    let named = |text: &str| {
        let all = specs.iter().filter_map(|(_, spec)| spec.as_ref());
        let mut all = all.flat_map(|spec| &spec.communities);
        all.find(|community| community.name == text)
            .map(|community| community.value.0)
    };
    let mut tags = Vec::new();
    for (index, entry) in spec.prefix_advertisements.iter().enumerate() {
        for (place, text) in entry.communities.iter().enumerate() {
            match text.parse().ok().or_else(|| named(text)) {
                Some(community) => tags.push((entry.cidr, community)),
                None => problems.push(problem(
                    Severity::Error,
                    Some((Kind::BgpConfiguration, name)),
                    &format!("spec.prefixAdvertisements[{index}].communities[{place}]"),
                    format!(
                        "`{text}` is neither a community, as in 65000:1, nor a name that `spec.communities` has"
                    ),
                )),
            }
        }
    }
    tags
}

/// A problem of an object, or of the cluster as a whole.
pub(crate) fn problem(
    severity: Severity,
    object: Option<(Kind, &str)>,
    field: &str,
    message: impl Into<String>,
) -> Problem {
    Problem {
        source: String::new(),
        line: None,
        object: object.map(|(kind, name)| ObjectRef {
            kind,
            name: name.to_owned(),
        }),
        field: field.to_owned(),
        severity,
        message: message.into(),
    }
}

pub(crate) fn router_id(node: &Node) -> Option<Ipv4Addr> {
    node.router_id().or_else(|| node.internal_ipv4())
}

/// Two nodes with one range would take each other's packets, and one address two routers' sessions.
fn overlaps(cluster: &ClusterState, node: &Node, pod_cidrs: &[IpNet], problems: &mut Vec<Problem>) {
    let name = &node.metadata.name;
    for (other_name, other) in cluster.nodes.iter().filter(|(other, _)| *other != name) {
        for theirs in pools::effective(cluster, other) {
            for ours in pod_cidrs
                .iter()
                .filter(|ours| ours.contains(&theirs) || theirs.contains(*ours))
            {
                let message = format!(
                    "{ours} overlaps {theirs} of Node {other_name}: give each node a range of its own"
                );
                problems.push(problem(
                    Severity::Error,
                    Some((Kind::Node, name)),
                    "spec.podCIDRs",
                    message,
                ));
            }
        }
        if let Some(address) = node
            .internal_ipv4()
            .filter(|address| other.internal_ipv4() == Some(*address))
        {
            let message = format!(
                "InternalIP {address} is also that of Node {other_name}: each node needs its own"
            );
            problems.push(problem(
                Severity::Error,
                Some((Kind::Node, name)),
                "status.addresses",
                message,
            ));
        } else if router_id(node) == router_id(other) {
            let message = format!(
                "Node {other_name} has the same router id: sessions between the two are refused (RFC 4271 §6.2)"
            );
            problems.push(problem(
                Severity::Error,
                Some((Kind::Node, name)),
                "metadata.annotations",
                message,
            ));
        }
    }
}

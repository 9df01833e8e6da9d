//! Which peers a node has: the mesh, and the BGPPeers that select it.
//!
//! One address has one session. Where several ask for it, a BGPPeer of all nodes wins over one of some nodes, as in
//! Calico, then the name that sorts first, and any BGPPeer over the mesh.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp::config::{
    Client, DynamicPeers, LimitAction, NextHopMode, Password, PeerConfig, PrefixLimit, PrivateAs,
    Reach, Rules,
};
use bgp::policy::Policy;
use bgp_wire::{Asn, Family};
use ipnet::IpNet;
use resources::bgp_configuration::DEFAULT;
use resources::{
    AsNumber, BgpPeerSpec, ClusterState, Kind, MaxPrefixes, Node, PasswordSource, PeerAddress,
    Problem, ReversePeering, SecretKeyRef, Severity, SourceAddress,
};

use crate::filter::Ranges;
use crate::plan::{
    CONNECT_RETRY, DEFAULT_HOLD_TIME, DEFAULT_PORT, DEFAULT_RESTART_TIME, asn, listen_port,
    problem, router_id, setting,
};
use crate::reflectors::Reflectors;
use crate::rule;
use crate::topology::Topology;

/// The peers of this node, by address and by range; and which of them follow from what nodes there are.
pub(crate) fn peers(
    cluster: &ClusterState,
    node: &Node,
    ranges: &Ranges,
    problems: &mut Vec<Problem>,
) -> (
    BTreeMap<IpAddr, PeerConfig>,
    BTreeMap<IpNet, DynamicPeers>,
    Topology,
) {
    let planner = Planner {
        cluster,
        node,
        ranges,
        reflectors: Reflectors::new(cluster),
    };
    let mut peers = BTreeMap::new();
    planner.explicit(&mut peers, problems);
    let topology = planner.topology(&mut peers, problems);
    (peers, planner.ranges(problems), topology)
}

/// A peer that a BGPPeer asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) spec: &'a BgpPeerSpec,
    pub(crate) at: PeerAddress,
    pub(crate) asn: Asn,
}

pub(crate) struct Planner<'a> {
    pub(crate) cluster: &'a ClusterState,
    pub(crate) node: &'a Node,
    pub(crate) ranges: &'a Ranges,
    pub(crate) reflectors: Option<Reflectors<'a>>,
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
            if !selected(spec, self.node) {
                continue;
            }
            for (at, asn) in self.addresses(name, spec, problems) {
                let peer = Wanted {
                    name,
                    spec,
                    at,
                    asn: asn.get(),
                };
                self.add(&peer, peers, problems);
            }
            for other in self.selected_peers(spec) {
                self.add_node(name, spec, other, peers, problems);
            }
        }
        // What somebody asked for here comes before what somebody asked for there.
        for (name, spec) in &self.cluster.peers {
            let selector = spec.peer_selector.as_ref();
            let meant = selector.is_some_and(|it| it.matches(&self.node.metadata.labels));
            let reverse = spec.reverse_peering.unwrap_or_default() == ReversePeering::Auto;
            if !meant || !reverse {
                continue;
            }
            for other in self.cluster.nodes.values().filter(|it| selected(spec, it)) {
                let known = |(_, ip): (IpAddr, IpAddr)| peers.contains_key(&ip);
                if !self.common_address(other).is_some_and(known) {
                    self.add_node(name, spec, other, peers, problems);
                }
            }
        }
    }

    fn selected_peers<'s>(&'s self, spec: &'s BgpPeerSpec) -> impl Iterator<Item = &'s Node> {
        let selector = spec.peer_selector.as_ref();
        self.cluster
            .nodes
            .values()
            .filter(move |node| selector.is_some_and(|it| it.matches(&node.metadata.labels)))
    }

    /// A node as the peer of a BGPPeer with `peerSelector`.
    fn add_node(
        &self,
        name: &str,
        spec: &BgpPeerSpec,
        other: &Node,
        peers: &mut BTreeMap<IpAddr, PeerConfig>,
        problems: &mut Vec<Problem>,
    ) {
        let Some((_, ip)) = self.common_address(other) else {
            return;
        };
        let peer = Wanted {
            name,
            spec,
            at: PeerAddress { ip, port: None },
            asn: self.asn_of(other),
        };
        self.add(&peer, peers, problems);
    }

    fn add(
        &self,
        wanted: &Wanted<'_>,
        peers: &mut BTreeMap<IpAddr, PeerConfig>,
        problems: &mut Vec<Problem>,
    ) {
        let ip = wanted.at.ip;
        // A list of all route reflectors applies to them as well: whoever is meant itself passes over it.
        if self.node.internal_ips().any(|own| own == ip) {
            return;
        }
        match peers.entry(ip) {
            Entry::Vacant(entry) => {
                entry.insert(self.peer(wanted, problems));
            }
            Entry::Occupied(entry) => {
                let message = format!(
                    "{ip} is a peer already by {}: this one has no effect here",
                    entry.get().origin
                );
                let field = match (&wanted.spec.peer_selector, &wanted.spec.peers_by_label) {
                    (Some(_), _) => "spec.peerSelector",
                    (None, Some(_)) => "spec.peersByLabel",
                    (None, None) => "spec.peerIP",
                };
                problems.push(problem(
                    Severity::Warning,
                    Some((Kind::BgpPeer, wanted.name)),
                    field,
                    message,
                ));
            }
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
            _ => match &spec.peer_selector {
                Some(selector) if self.selected_peers(spec).next().is_none() => (
                    "spec.peerSelector",
                    format!("no Node has labels that match `{selector}`"),
                ),
                _ => return,
            },
        };
        problems.push(problem(
            Severity::Warning,
            Some((Kind::BgpPeer, name)),
            field,
            message,
        ));
    }

    pub(crate) fn peer(&self, wanted: &Wanted<'_>, problems: &mut Vec<Problem>) -> PeerConfig {
        let Wanted {
            name,
            spec,
            at: PeerAddress { ip, .. },
            asn,
        } = *wanted;
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
            let meshed = |node: &Node| node.route_reflector_cluster_id().is_none();
            if self.mesh_enabled() && meshed(other) && meshed(self.node) {
                origin = format!("{origin} (instead of mesh/{})", other.metadata.name);
            }
        }
        let source = spec.source_address.unwrap_or_default();
        let local_asn = spec.local_as_number.map(AsNumber::get);
        let internal = asn == local_asn.unwrap_or_else(|| self.asn_of(self.node));
        let (import, export) = self.policies(name, spec, internal, problems);
        let object = (Kind::BgpPeer, name);
        let password = self.password(spec.password.as_ref(), object, "spec.password", problems);
        PeerConfig {
            port: wanted.at.port.unwrap_or(port),
            local_address: match source {
                SourceAddress::UseNodeIP => self.node.internal_ip_like(ip),
                SourceAddress::None => None,
            },
            other_local_address: match source {
                SourceAddress::UseNodeIP => self.other_address(ip),
                SourceAddress::None => None,
            },
            passive: spec.passive.unwrap_or(false),
            hold_time: spec.hold_time.unwrap_or_else(|| self.hold_time()),
            keepalive: spec.keepalive_time,
            prefix_limits: prefix_limits(spec.max_prefixes.as_ref()),
            shutdown: password.as_ref().err().cloned(),
            password: password.ok().flatten(),
            reach: spec.ttl_security.map_or(ANY_DISTANCE, Reach::Gtsm),
            next_hop: next_hop_mode(spec, internal),
            graceful_restart: spec
                .graceful_restart
                .unwrap_or_else(|| self.graceful_restart())
                .then(|| spec.max_restart_time.unwrap_or(DEFAULT_RESTART_TIME)),
            local_asn,
            rules: Rules {
                allowed_own_as: spec.num_allowed_local_as_numbers.unwrap_or(0),
                private_as: match spec.private_as_numbers.unwrap_or_default() {
                    resources::PrivateAs::Keep => PrivateAs::Keep,
                    resources::PrivateAs::Remove => PrivateAs::Remove,
                    resources::PrivateAs::Replace => PrivateAs::Replace,
                },
                override_as: spec.override_as_number.unwrap_or(false),
                bilateral: spec.bilateral.unwrap_or(false),
                graceful_shutdown: spec.graceful_shutdown.unwrap_or(true),
                blackhole: spec.blackhole.unwrap_or(false),
                ..self.rules(other, internal)
            },
            import,
            export,
            connect_retry: CONNECT_RETRY,
            families: self.families(&spec.filters),
            extended_next_hop: spec.extended_next_hop.unwrap_or_else(|| ip.is_ipv6()),
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
        internal: bool,
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
        let named = || spec.filters.iter().map(|name| (name, &filters[name]));
        (
            self.ranges.import(
                named().flat_map(|(name, spec)| rule::import(name, spec)),
                internal && self.reflects(),
            ),
            self.ranges.export(
                named().flat_map(|(name, spec)| rule::export(name, spec)),
                internal && self.reflects(),
            ),
        )
    }

    /// What a session carries: IPv4, and IPv6 where pods have such addresses or a filter of the peer's speaks of it.
    pub(crate) fn families(&self, filters: &[String]) -> Vec<Family> {
        let speaks = |filter: &String| {
            let spec = self.cluster.filters.get(filter);
            spec.is_some_and(|spec| !(spec.import_v6.is_empty() && spec.export_v6.is_empty()))
        };
        let ipv6 = self.ranges.have_ipv6() || filters.iter().any(speaks);
        let mut families = vec![Family::IPV4_UNICAST];
        families.extend(ipv6.then_some(Family::IPV6_UNICAST));
        families
    }

    /// Whether this node is a route reflector.
    pub(crate) fn reflects(&self) -> bool {
        self.cluster_id(self.node).is_some()
    }

    /// A node's cluster id, if it is a route reflector. One that was chosen is a cluster of its own: its clients may have
    /// sessions with it alone.
    fn cluster_id(&self, node: &Node) -> Option<Ipv4Addr> {
        let chosen = self.is_chosen(node);
        let own = || chosen.then(|| router_id(node)).flatten();
        node.route_reflector_cluster_id().or_else(own)
    }

    /// Whether the cluster's `routeReflectors` make this node one.
    pub(crate) fn is_chosen(&self, node: &Node) -> bool {
        let reflectors = self.reflectors.as_ref();
        reflectors.is_some_and(|it| it.contains(&node.metadata.name))
    }

    /// What holds for a peer by what this node and the peer are. As in Calico, whoever isn't a reflector of the same
    /// cluster is a client.
    pub(crate) fn rules(&self, peer: Option<&Node>, internal: bool) -> Rules {
        let theirs = peer.and_then(|peer| self.cluster_id(peer));
        let ours = self.cluster_id(self.node);
        // Reflectors that were chosen have sessions with each other.
        let both = self.is_chosen(self.node) && peer.is_some_and(|peer| self.is_chosen(peer));
        Rules {
            client: ours
                .filter(|_| internal && theirs != ours && !both)
                .map(|cluster_id| Client {
                    cluster_id,
                    meshed: false,
                }),
            drain: self.node.is_draining(),
            ..Rules::default()
        }
    }

    /// Our address and another node's between which they have their session: one carries both families, over IPv4 where both
    /// nodes have that.
    pub(crate) fn common_address(&self, other: &Node) -> Option<(IpAddr, IpAddr)> {
        let ipv4 = self.node.internal_ipv4().zip(other.internal_ipv4());
        let ipv6 = self.node.internal_ipv6().zip(other.internal_ipv6());
        let ipv4 = ipv4.map(|(own, other)| (own.into(), other.into()));
        ipv4.or_else(|| ipv6.map(|(own, other)| (own.into(), other.into())))
    }

    /// Our address of the family that a session with this address is not of.
    pub(crate) fn other_address(&self, session: IpAddr) -> Option<IpAddr> {
        let mut addresses = self.node.internal_ips();
        addresses.find(|address| address.is_ipv4() != session.is_ipv4())
    }

    /// A peer's password. One that can't be had keeps the peer down, in these words: a session without it would be open to
    /// those whom it was to keep out.
    pub(crate) fn password(
        &self,
        source: Option<&PasswordSource>,
        object: (Kind, &str),
        field: &str,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<Password>, String> {
        let Some(PasswordSource {
            secret_key_ref: SecretKeyRef { name, key },
        }) = source
        else {
            return Ok(None);
        };
        let found = match self.cluster.secrets.get(name) {
            None => Err(format!("there is no Secret named `{name}`")),
            Some(secret) => match secret.value(key) {
                None => Err(format!("Secret `{name}` has no key `{key}`")),
                Some(octets) => Password::new(octets)
                    .map_err(|error| format!("Secret `{name}`, key `{key}`: {error}")),
            },
        };
        found.map(Some).map_err(|reason| {
            let message = format!("{reason}: until there is a password the session stays down");
            let field = format!("{field}.secretKeyRef");
            problems.push(problem(Severity::Error, Some(object), &field, message));
            reason
        })
    }

    pub(crate) fn mesh_enabled(&self) -> bool {
        let default = self.cluster.configurations.get(DEFAULT);
        default
            .and_then(|spec| spec.node_to_node_mesh_enabled)
            .unwrap_or_else(|| self.reflectors.is_none())
    }

    pub(crate) fn hold_time(&self) -> Duration {
        setting(self.cluster, &self.node.metadata.name, |spec| {
            spec.hold_time
        })
        .unwrap_or(DEFAULT_HOLD_TIME)
    }

    pub(crate) fn graceful_restart(&self) -> bool {
        setting(self.cluster, &self.node.metadata.name, |spec| {
            spec.graceful_restart
        })
        .unwrap_or(true)
    }

    fn node_at(&self, ip: IpAddr) -> Option<&Node> {
        self.cluster
            .nodes
            .values()
            .find(|node| node.internal_ips().any(|address| address == ip))
    }

    pub(crate) fn asn_of(&self, node: &Node) -> u32 {
        asn(self.cluster, node)
    }
}

/// Whether a node has this BGPPeer.
pub(crate) fn selected(spec: &BgpPeerSpec, node: &Node) -> bool {
    let metadata = &node.metadata;
    match (&spec.node, &spec.node_selector) {
        (Some(node), _) => *node == metadata.name,
        (None, Some(selector)) => selector.matches(&metadata.labels),
        (None, None) => true,
    }
}

/// `keepOriginalNextHop` is for external peers, as in Calico.
fn next_hop_mode(spec: &BgpPeerSpec, internal: bool) -> NextHopMode {
    match spec.next_hop_mode {
        None if !internal && spec.keep_original_next_hop == Some(true) => NextHopMode::Keep,
        None | Some(resources::NextHopMode::Auto) => NextHopMode::Auto,
        Some(resources::NextHopMode::Own) => NextHopMode::Own,
        Some(resources::NextHopMode::Keep) => NextHopMode::Keep,
    }
}

/// Peers may be any number of hops away, as in Calico; the TTL is the highest, so that a peer may ask for TTL security.
pub(crate) const ANY_DISTANCE: Reach = Reach::Hops(255);

/// A limit for each family. A session that is down for it comes back after five minutes where nothing else is said.
fn prefix_limits(limit: Option<&MaxPrefixes>) -> Vec<PrefixLimit> {
    let Some(limit) = limit else {
        return Vec::new();
    };
    let after = limit.restart_after.unwrap_or(DEFAULT_LIMIT_PAUSE);
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    let limits = families.map(|family| PrefixLimit {
        family,
        limit: limit.limit,
        warn_percent: limit.warn_percent.unwrap_or(DEFAULT_WARN_PERCENT),
        action: match limit.action.unwrap_or_default() {
            resources::LimitAction::Warn => LimitAction::Warn,
            resources::LimitAction::Restart => LimitAction::Restart(after),
            resources::LimitAction::StayDown => LimitAction::StayDown,
        },
    });
    limits.to_vec()
}

/// How long a session with too many prefixes stays down.
const DEFAULT_LIMIT_PAUSE: Duration = Duration::from_secs(300);

/// From which share of a limit on it is said.
const DEFAULT_WARN_PERCENT: u8 = 75;

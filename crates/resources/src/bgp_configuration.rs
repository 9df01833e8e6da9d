//! `BGPConfiguration`: settings of all nodes (`default`), or of one (`node.<name>`).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::advertisement::{
    Aggregation, LoopPrevention, NamedCommunity, PrefixAdvertisement, ServiceRange,
    validate_advertisements, validate_communities, validate_ranges,
};
use crate::fault::Fault;
use crate::schema;
use crate::values::optional_duration;
use crate::{AsNumber, ByLabel, PasswordSource, Selector};

/// The name of the configuration of all nodes.
pub const DEFAULT: &str = "default";

/// What the name of one node's own configuration starts with: its settings win over those of [`DEFAULT`].
pub const NODE_PREFIX: &str = "node.";

/// Settings. One that is absent has its default: see the constants of the planner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpConfigurationSpec {
    /// The AS of nodes that have none of their own (annotation `margay.dev/as-number`). 64512 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// The AS of nodes by a label of theirs, as of all nodes of a rack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number_by_label: Option<ByLabel<AsNumber>>,
    /// The TCP port that nodes listen on, and dial each other at. 179 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Which addresses nodes accept connections at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<BindMode>,
    /// How paths are compared, and how many of them share the load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_path: Option<BestPath>,
    /// Whether every node peers with every other. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// Which nodes are route reflectors, in the place of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route_reflectors: Option<RouteReflectors>,
    /// How long sessions within the mesh live in restart (RFC 4724). 120 s by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
    #[schemars(with = "Option<schema::Duration>")]
    pub node_mesh_max_restart_time: Option<Duration>,
    /// What sessions within the mesh are signed with (RFC 2385).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<PasswordSource>,
    /// Hold time to propose where the peer says nothing else: zero (no keepalives), or at least 3 s. 90 s by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
    #[schemars(with = "Option<schema::Duration>")]
    pub hold_time: Option<Duration>,
    /// Whether graceful restart is offered where the peer says nothing else. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<bool>,
    /// Whether the default route may lead to a next hop. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_by_default_route: Option<bool>,
    /// Ranges of Services' ClusterIPs to announce.
    #[serde(
        default,
        rename = "serviceClusterIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_cluster_ips: Vec<ServiceRange>,
    /// Ranges of Services' external IPs to announce.
    #[serde(
        default,
        rename = "serviceExternalIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_external_ips: Vec<ServiceRange>,
    /// Ranges of load balancers' addresses to announce.
    #[serde(
        default,
        rename = "serviceLoadBalancerIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_load_balancer_ips: Vec<ServiceRange>,
    /// Whether those of load balancers are announced as ranges, or each address by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<Aggregation>,
    /// What becomes of packets to addresses of these ranges that no Service has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_loop_prevention: Option<LoopPrevention>,
    /// Names for communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<NamedCommunity>,
    /// Communities of the node's own routes, by range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
}

/// Which addresses nodes accept connections at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BindMode {
    /// Every one.
    #[default]
    None,
    /// The node's InternalIPs.
    NodeIP,
}

/// How paths are compared (RFC 4271 §9.1.2.2), and how many of them share the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BestPath {
    /// How many equal paths share the load; 16 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maximum_paths: Option<u8>,
    /// Whether AS paths of equal length are equal although their first ASes differ; true by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipath_relax: Option<bool>,
    /// Whether MEDs of different neighbouring ASes are compared as well; false by default.
    #[serde(
        default,
        rename = "alwaysCompareMED",
        skip_serializing_if = "Option::is_none"
    )]
    pub always_compare_med: Option<bool>,
    /// Whether a path without MED counts as one with the highest; false by default.
    #[serde(
        default,
        rename = "missingMEDIsWorst",
        skip_serializing_if = "Option::is_none"
    )]
    pub missing_med_is_worst: Option<bool>,
}

/// Which nodes are route reflectors (RFC 4456).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteReflectors {
    /// The labels of nodes that are reflectors, or that may be chosen. All nodes by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Choose some of these nodes; without it, all are reflectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto: Option<AutoReflectors>,
}

/// How many nodes are chosen to be reflectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AutoReflectors {
    /// So many in the cluster, spread over its zones.
    pub count: u8,
    /// So many in each zone, for the nodes of that zone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_zone: bool,
}

impl BgpConfigurationSpec {
    pub(crate) fn validate(&self, name: &str, faults: &mut Vec<Fault>) {
        let own = name
            .strip_prefix(NODE_PREFIX)
            .is_some_and(|node| !node.is_empty());
        if name != DEFAULT && !own {
            let message = format!(
                "a BGPConfiguration named `{name}` has no effect: it is `default`, or `node.` and a node's name"
            );
            faults.push(Fault::at("metadata.name", message));
        }
        if own && self.node_to_node_mesh_enabled.is_some() {
            let message = "the mesh is on or off for all nodes: set this in `default`";
            faults.push(Fault::at("spec.nodeToNodeMeshEnabled", message));
        }
        if own && self.node_mesh_password.is_some() {
            let message = "both ends of a session need the same password: set this in `default`";
            faults.push(Fault::at("spec.nodeMeshPassword", message));
        }
        self.validate_reflectors(own, faults);
        if let Some(table) = &self.as_number_by_label {
            table.validate("spec.asNumberByLabel", faults);
            if own {
                let message = "this is for one node: write `asNumber`";
                faults.push(Fault::at("spec.asNumberByLabel", message));
            }
        }
        self.validate_services(own, faults);
        validate_communities(&self.communities, faults);
        validate_advertisements(&self.prefix_advertisements, faults);
        if let Some(password) = &self.node_mesh_password {
            password.validate("spec.nodeMeshPassword", faults);
        }
        if self.best_path.is_some_and(|it| it.maximum_paths == Some(0)) {
            let message = "without a path nothing is reached: write 1 for no load sharing, or more";
            faults.push(Fault::at("spec.bestPath.maximumPaths", message));
        }
        if self.listen_port == Some(0) {
            faults.push(Fault::at(
                "spec.listenPort",
                "a port is 1 to 65535; 179 is BGP's",
            ));
        }
        validate_hold_time(self.hold_time, faults);
        validate_restart_time(
            "spec.nodeMeshMaxRestartTime",
            self.node_mesh_max_restart_time,
            faults,
        );
    }
}

impl BgpConfigurationSpec {
    /// The ranges of all of a Service's kinds of addresses.
    pub fn service_ranges(&self) -> impl Iterator<Item = &ServiceRange> {
        self.service_cluster_ips
            .iter()
            .chain(&self.service_external_ips)
            .chain(&self.service_load_balancer_ips)
    }

    fn validate_reflectors(&self, own: bool, faults: &mut Vec<Fault>) {
        let Some(reflectors) = &self.route_reflectors else {
            return;
        };
        let at = "spec.routeReflectors";
        if own {
            let message = "all nodes have to agree on the reflectors: set this in `default`";
            faults.push(Fault::at(at, message));
        }
        if reflectors.auto.is_none() && reflectors.node_selector.is_none() {
            let message = "says nothing: write `nodeSelector`, or `auto` with a `count`";
            faults.push(Fault::at(at, message));
        }
        if reflectors.auto.as_ref().is_some_and(|auto| auto.count == 0) {
            let message = "without a reflector no node learns a route: write 1 or more, better 2";
            faults.push(Fault::at(&format!("{at}.auto.count"), message));
        }
        if self.node_to_node_mesh_enabled == Some(true) {
            let message =
                "goes without `routeReflectors`, which take its place: remove one of them";
            faults.push(Fault::at("spec.nodeToNodeMeshEnabled", message));
        }
    }

    fn validate_services(&self, own: bool, faults: &mut Vec<Fault>) {
        let lists = [
            ("spec.serviceClusterIPs", &self.service_cluster_ips),
            ("spec.serviceExternalIPs", &self.service_external_ips),
            (
                "spec.serviceLoadBalancerIPs",
                &self.service_load_balancer_ips,
            ),
        ];
        let mut set: Vec<&str> = Vec::new();
        for (field, ranges) in lists {
            validate_ranges(field, ranges, faults);
            set.extend((!ranges.is_empty()).then_some(field));
        }
        let others = [
            (
                "spec.serviceLoadBalancerAggregation",
                self.service_load_balancer_aggregation.is_some(),
            ),
            (
                "spec.serviceLoopPrevention",
                self.service_loop_prevention.is_some(),
            ),
        ];
        set.extend(
            others
                .iter()
                .filter(|(_, set)| *set)
                .map(|(field, _)| *field),
        );
        for field in set.into_iter().filter(|_| own) {
            let message = "Services are announced by all nodes alike: set this in `default`; a node's label node.kubernetes.io/exclude-from-external-load-balancers takes it out";
            faults.push(Fault::at(field, message));
        }
    }
}

/// RFC 4271 §4.2: two octets of seconds, and neither 1 nor 2.
pub(crate) fn validate_hold_time(hold_time: Option<Duration>, faults: &mut Vec<Fault>) {
    let Some(seconds) = hold_time.map(|time| time.as_secs()) else {
        return;
    };
    if matches!(seconds, 1 | 2) || seconds > u64::from(u16::MAX) {
        let message = format!(
            "a hold time of {seconds}s can't be: write `3s` to `65535s`, or `0s` for none (RFC 4271 §4.2)"
        );
        faults.push(Fault::at("spec.holdTime", message));
    }
}

/// RFC 4724 §3: twelve bits of seconds. Zero means that forwarding state is lost at once.
pub(crate) fn validate_restart_time(field: &str, time: Option<Duration>, faults: &mut Vec<Fault>) {
    let Some(seconds) = time.map(|time| time.as_secs()) else {
        return;
    };
    if !(1..=4095).contains(&seconds) {
        let message =
            format!("a restart time of {seconds}s can't be: write `1s` to `4095s` (RFC 4724 §3)");
        faults.push(Fault::at(field, message));
    }
}

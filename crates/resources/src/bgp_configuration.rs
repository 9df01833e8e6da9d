//! `BGPConfiguration`: settings of all nodes (`default`), or of one (`node.<name>`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::values::optional_duration;
use crate::{AsNumber, PasswordSource};

/// The name of the configuration of all nodes.
pub const DEFAULT: &str = "default";

/// What the name of one node's own configuration starts with: its settings win over those of [`DEFAULT`].
pub const NODE_PREFIX: &str = "node.";

/// Settings. One that is absent has its default: see the constants of the planner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpConfigurationSpec {
    /// The AS of nodes that have none of their own (annotation `margay.dev/as-number`). 64512 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<AsNumber>,
    /// The TCP port that nodes listen on, and dial each other at. 179 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Whether every node peers with every other. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,
    /// How long sessions within the mesh live in restart (RFC 4724). 120 s by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "optional_duration"
    )]
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
    pub hold_time: Option<Duration>,
    /// Whether graceful restart is offered where the peer says nothing else. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<bool>,
    /// Whether the default route may lead to a next hop. True by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_by_default_route: Option<bool>,
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
        if let Some(password) = &self.node_mesh_password {
            password.validate("spec.nodeMeshPassword", faults);
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

//! The cluster's objects as values: deterministic, and without files, sockets or clocks.
//!
//! | module | what |
//! | --- | --- |
//! | [`object`] | [`Object`]: one of the kinds below, with its name and labels |
//! | [`bgp_configuration`], [`bgp_peer`], [`bgp_filter`], [`filter_rule`], [`ip_pool`], [`ip_reservation`] | our own kinds, `margay.dev/v1alpha1` |
//! | [`ipam_block`] | which node has which part of a pool: what agents write |
//! | [`namespace`] | what we use of Kubernetes' `v1` Namespace |
//! | [`node`] | what we use of Kubernetes' `v1` Node |
//! | [`advertisement`] | which Services a BGPConfiguration announces, and with which communities |
//! | [`service`] | what we use of Kubernetes' Service and EndpointSlice |
//! | [`node_status`] | `NodeStatus`, which agents write |
//! | [`secret`] | what we use of Kubernetes' `v1` Secret: passwords |
//! | [`by_label`] | tables by a node's label: a row for each rack |
//! | `document` | objects to documents again |
//! | [`values`] | AS numbers, durations, peer addresses: what fields hold |
//! | [`selector`] | label selectors, in Kubernetes' syntax and in Calico's |
//! | [`yaml`] | files to objects; every fault with its line and what would be right |
//! | [`schema`] | what the API server is told of the values that fields hold |
//! | [`index`] | objects that come and go, to [`ClusterState`] |
//!
//! Field names and semantics are those of Calico's `projectcalico.org/v3` where the idea is the same. A field exists
//! only once it has an effect: one that we don't know is refused, never silently ignored.
#![forbid(unsafe_code)]

pub mod advertisement;
pub mod bgp_configuration;
pub mod bgp_filter;
pub mod bgp_peer;
pub mod by_label;
mod document;
mod fault;
pub mod filter_rule;
pub mod index;
pub mod ip_pool;
pub mod ip_reservation;
pub mod ipam_block;
pub mod namespace;
pub mod node;
pub mod node_status;
pub mod object;
pub mod schema;
pub mod secret;
pub mod selector;
pub mod service;
mod tree;
pub mod values;
mod written;
pub mod yaml;

pub use bgp_configuration::BgpConfigurationSpec;
pub use bgp_filter::BgpFilterSpec;
pub use bgp_peer::{
    BgpPeerSpec, LimitAction, MaxPrefixes, NextHopMode, Peer, PeerRange, PrivateAs, ReversePeering,
    SourceAddress,
};
pub use by_label::ByLabel;
pub use filter_rule::{Action, FilterRule, MatchOperator, PrefixLength};
pub use index::{ClusterState, Index};
pub use ip_pool::{AssignmentMode, IpPoolSpec, IpipMode};
pub use ip_reservation::IpReservationSpec;
pub use ipam_block::{IpamBlock, IpamBlockSpec};
pub use namespace::Namespace;
pub use node::Node;
pub use node_status::NodeStatusStatus;
pub use object::{Kind, Metadata, Object, ObjectRef, Resource};
pub use secret::{PasswordSource, Secret, SecretKeyRef};
pub use selector::Selector;
pub use service::{EndpointSlice, Service};
pub use values::{AsNumber, PeerAddress};
pub use written::Written;

/// The API group and version of our own kinds.
pub const API_VERSION: &str = "margay.dev/v1alpha1";

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something that was asked for is not in force.
    Error,
    /// All is in force, but hardly as it was meant.
    Warning,
}

/// Something wrong with the configuration, for a person to read and to mend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where the configuration came from: a file's name, or [`index::KUBERNETES`].
    pub source: String,
    /// Line in that file, from 1.
    pub line: Option<u32>,
    /// The object, as far as it could be told.
    pub object: Option<ObjectRef>,
    /// Path of the field: `spec.importV4[0].cidr`. Empty for the object as a whole.
    pub field: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.source.is_empty() {
            f.write_str(&self.source)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

//! `IPPool`: a range that pods have their addresses from.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::values::cidr;

/// A range of pod addresses. Together the pools say which routes are accepted from peers without a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The range.
    #[serde(deserialize_with = "cidr::deserialize")]
    pub cidr: IpNet,
    /// Whether pods with an address of this pool take their node's when they send to somewhere outside all pools and nodes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nat_outgoing: bool,
    /// Routes inside it are announced to nobody, unless a filter says so.
    #[serde(
        default,
        rename = "disableBGPExport",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub disable_bgp_export: bool,
    /// Which next hops packets to addresses of this pool are tunnelled to: IPv4 in IPv4 (RFC 2003), or, in a pool of IPv6,
    /// IPv6 in IPv6 (RFC 2473).
    #[serde(default, skip_serializing_if = "IpipMode::is_never")]
    pub ipip_mode: IpipMode,
}

/// When packets between nodes travel inside packets of the nodes' own.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum IpipMode {
    /// Never: the network between the nodes knows where pods are.
    #[default]
    Never,
    /// To nodes that are on no subnet of this node's interfaces.
    CrossSubnet,
    /// To every node.
    Always,
}

impl IpipMode {
    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes a reference"
    )]
    fn is_never(&self) -> bool {
        *self == Self::Never
    }
}

impl std::fmt::Display for IpipMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Never => "Never",
            Self::CrossSubnet => "CrossSubnet",
            Self::Always => "Always",
        })
    }
}

impl IpPoolSpec {
    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        if self.cidr.prefix_len() == 0 {
            let message = "a pool of all addresses would let a peer take the default route: write your pods' own range";
            faults.push(Fault::at("spec.cidr", message));
        }
    }
}

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
}

impl IpPoolSpec {
    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        if self.cidr.prefix_len() == 0 {
            let message = "a pool of all addresses would let a peer take the default route: write your pods' own range";
            faults.push(Fault::at("spec.cidr", message));
        }
    }
}

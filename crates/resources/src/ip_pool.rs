//! `IPPool`: a range that pods have their addresses from.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Selector;
use crate::fault::Fault;
use crate::schema;
use crate::values::cidr;

/// Prefix length of a pool's blocks unless told otherwise, IPv4: 64 addresses, as in Calico.
pub const DEFAULT_BLOCK_SIZE_V4: u8 = 26;
/// The same, IPv6.
pub const DEFAULT_BLOCK_SIZE_V6: u8 = 122;

/// A range of pod addresses. Together the pools say which routes are accepted from peers without a filter. Nodes take
/// blocks out of them where they have no pod CIDR of the family, or where a pool's [`AssignmentMode`] says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpPoolSpec {
    /// The range.
    #[serde(deserialize_with = "cidr::deserialize")]
    #[schemars(with = "schema::Cidr")]
    pub cidr: IpNet,
    /// Prefix length of the blocks that nodes take: 20 to 32 (IPv4; 26 by default), 116 to 128 (IPv6; 122 by default).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// Labels of the nodes that take blocks. All by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<Selector>,
    /// Labels of the namespaces whose pods get an address of this pool. All by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<Selector>,
    /// No address is given any more; those that are in use stay.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
    /// Who has addresses of it. By default [`AssignmentMode::Automatic`] on nodes without a pod CIDR of the family, and
    /// nobody on nodes with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignment_mode: Option<AssignmentMode>,
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
    /// Calico's other tunnel, of which only "never" can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vxlan_mode: Option<VxlanMode>,
    /// What Calico may use addresses of it for. Pods have to be among it; a permission to give addresses to tunnels is
    /// none that is used here, where they have their nodes' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_uses: Option<Vec<PoolUse>>,
}

/// When packets between nodes travel inside VXLAN (RFC 7348).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VxlanMode {
    /// Never.
    Never,
}

/// What addresses of a pool may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PoolUse {
    /// Pods.
    Workload,
    /// Nodes' ends of tunnels.
    Tunnel,
}

/// When packets between nodes travel inside packets of the nodes' own.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
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

/// Who has addresses of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AssignmentMode {
    /// Every pod that both selectors select, also on nodes with a pod CIDR, which then gives nothing of that family.
    Automatic,
    /// Only a pod that asks for an address in it.
    Manual,
}

impl IpPoolSpec {
    /// Prefix length of its blocks.
    #[must_use]
    pub fn block_len(&self) -> u8 {
        let default = match self.cidr {
            IpNet::V4(_) => DEFAULT_BLOCK_SIZE_V4,
            IpNet::V6(_) => DEFAULT_BLOCK_SIZE_V6,
        };
        self.block_size.unwrap_or(default)
    }

    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        if self.cidr.prefix_len() == 0 {
            let message = "a pool of all addresses would let a peer take the default route: write your pods' own range";
            faults.push(Fault::at("spec.cidr", message));
            return;
        }
        if let Some(uses) = &self.allowed_uses
            && !uses.contains(&PoolUse::Workload)
        {
            faults.push(Fault::at(
                "spec.allowedUses",
                "a pool is for pods: write `Workload` too, or remove the pool",
            ));
        }
        let Some(len) = self.block_size else {
            return;
        };
        let range = match self.cidr {
            IpNet::V4(_) => 20..=32,
            IpNet::V6(_) => 116..=128,
        };
        let cidr = self.cidr;
        if !range.contains(&len) || len < cidr.prefix_len() {
            let (first, last) = (*range.start().max(&cidr.prefix_len()), *range.end());
            let message = format!(
                "{len} can't be the prefix length of a block in {cidr}: write {first} to {last}"
            );
            faults.push(Fault::at("spec.blockSize", message));
        }
    }
}

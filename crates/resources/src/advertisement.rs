//! Which ranges of Services a node announces, and which communities its routes carry: parts of a BGPConfiguration.

use bgp_wire::pattern::AnyCommunity;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Written;
use crate::fault::Fault;
use crate::schema;
use crate::values::cidr;

/// A range that Services have addresses from. A range of one address is announced only while a Service has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceRange {
    /// The range.
    #[serde(deserialize_with = "cidr::deserialize")]
    #[schemars(with = "schema::Cidr")]
    pub cidr: IpNet,
}

/// Whether every node announces the ranges of load balancers' addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregation {
    /// The ranges, and single addresses where only some nodes are to get their packets.
    #[default]
    Enabled,
    /// Each Service's address by itself.
    Disabled,
}

/// What becomes of forwarded packets to an address of the Services' ranges that no Service has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LoopPrevention {
    /// They are dropped.
    #[default]
    Drop,
    /// They are dropped, and the sender is told.
    Reject,
    /// They are forwarded: back to the router that they came from, as a rule.
    Disabled,
}

/// A name for a community.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamedCommunity {
    /// The name, as `prefixAdvertisements` has it.
    pub name: String,
    /// The community.
    pub value: Written<AnyCommunity>,
}

/// Communities of the node's own routes inside a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixAdvertisement {
    /// The range.
    #[serde(deserialize_with = "cidr::deserialize")]
    #[schemars(with = "schema::Cidr")]
    pub cidr: IpNet,
    /// Communities, or names of `communities`.
    pub communities: Vec<String>,
}

/// A default route that attracts everything is not what a range of Services is.
pub(crate) fn validate_ranges(field: &str, ranges: &[ServiceRange], faults: &mut Vec<Fault>) {
    for (index, range) in ranges.iter().enumerate() {
        if range.cidr.prefix_len() == 0 {
            let message = "a range of all addresses would attract all packets: write your Services' own range";
            faults.push(Fault::at(&format!("{field}[{index}].cidr"), message));
        }
    }
}

/// Names are unique, and don't look like what they stand for.
pub(crate) fn validate_communities(communities: &[NamedCommunity], faults: &mut Vec<Fault>) {
    for (index, community) in communities.iter().enumerate() {
        let name = &community.name;
        let field = format!("spec.communities[{index}].name");
        if name.is_empty() {
            faults.push(Fault::at(&field, "empty: write a name"));
        } else if name.parse::<AnyCommunity>().is_ok() {
            let message = format!("`{name}` is a community itself: write another name");
            faults.push(Fault::at(&field, message));
        } else if communities[..index].iter().any(|it| it.name == *name) {
            let message = format!("there are two communities named `{name}`: remove one of them");
            faults.push(Fault::at(&field, message));
        }
    }
}

/// An entry without communities has no effect.
pub(crate) fn validate_advertisements(list: &[PrefixAdvertisement], faults: &mut Vec<Fault>) {
    for (index, entry) in list.iter().enumerate() {
        if entry.communities.is_empty() {
            let field = format!("spec.prefixAdvertisements[{index}].communities");
            faults.push(Fault::at(&field, "is empty: write at least one community"));
        }
    }
}

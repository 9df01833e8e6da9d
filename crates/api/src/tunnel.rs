//! `GET /v1/tunnels`: which next hops are reached through tunnels, and why.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::Hop;

/// Devices, and how packets travel to each next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tunnels {
    /// The node whose tunnels these are.
    pub node: String,
    /// The tunnel devices that are there or should be.
    pub devices: Vec<TunnelDevice>,
    /// By next hop, then by pool.
    pub next_hops: Vec<TunnelNextHop>,
}

/// A tunnel device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelDevice {
    /// Its name: `margay-ipip`.
    pub name: String,
    /// Its kind, as the kernel calls it: `ipip`, `ip6tnl`.
    pub kind: String,
    /// This end's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The MTU that it should have, in octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// How it is.
    pub state: TunnelState,
    /// Why it is not as it should be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a tunnel device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TunnelState {
    /// It takes and sends packets.
    Up,
    /// It takes packets, and will send them when the other nodes have had time to make theirs.
    Opening,
    /// It is not there, or not usable.
    Missing,
    /// No pool wants it any more: it takes what others still send, and goes soon.
    Leaving,
}

/// How packets travel to one next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelNextHop {
    /// The next hop.
    pub address: IpAddr,
    /// The node that it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The IPPool of the prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// How many prefixes of that pool go there.
    pub prefixes: u64,
    /// Whether they go through a tunnel; `None` when the next hop can't be reached at all.
    pub tunnelled: Option<bool>,
    /// A tunnel is wanted, and there is none: packets go without.
    #[serde(default)]
    pub degraded: bool,
    /// Why.
    pub reason: String,
    /// The kernel's next hops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Hop>,
}

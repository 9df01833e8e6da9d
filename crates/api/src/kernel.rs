//! `GET /v1/routes`: the kernel's routes beside those that should be there.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::PodName;

/// Routes, by prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRoutes {
    /// The node whose routes these are.
    pub node: String,
    /// The routes.
    pub routes: Vec<KernelRoute>,
}

/// A route that should be there, that is there, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Metric.
    pub metric: u32,
    /// What it is for.
    pub kind: KernelRouteKind,
    /// What should be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Target>,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Target>,
    /// How the two compare.
    pub state: KernelRouteState,
    /// What the kernel said when it refused, or why no route can be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The pod that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
}

/// What a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KernelRouteKind {
    /// It leads to a pod of this node.
    Pod,
    /// Learned by BGP.
    Learned,
    /// It drops what is sent to unused addresses of this node's own range.
    Blackhole,
    /// Nobody wants it.
    Unknown,
}

/// How a route compares with the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KernelRouteState {
    /// It is there as it should be.
    Ok,
    /// It is there, and somebody else's route of a lower metric takes its packets.
    Shadowed,
    /// It should be there and isn't.
    Missing,
    /// It is there with another target.
    Wrong,
    /// Somebody else's route stands in its place.
    Foreign,
    /// It is ours, and nobody wants it.
    Leftover,
    /// No route can be made, as the next hop can't be reached.
    Unresolved,
}

/// Where a route leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Nowhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blackhole: bool,
    /// Next hops; more than one is equal-cost multipath.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_hops: Vec<Hop>,
    /// The kernel's nexthop group that the route points at (`nhid` in `ip route`); absent where the next hops stand in the
    /// route itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u32>,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// The gateway; `None` when the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The link's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
}

//! `GET /v1/bgp/routes?prefix=&from=&to=`: the RIBs.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What is asked for. Without `from` and `to`: the Loc-RIB with all candidates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BgpRoutesQuery {
    /// Only this prefix and those inside it; an address stands for the prefixes that hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// What this peer sent us, with what our policy says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// What we send this peer, and why not the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
}

/// Routes, by prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpRoutes {
    /// The node whose routes these are.
    pub node: String,
    /// One for each prefix.
    pub routes: Vec<BgpRoute>,
}

/// A prefix and its paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpRoute {
    /// The prefix.
    pub prefix: IpNet,
    /// Its paths, best first.
    pub paths: Vec<BgpPath>,
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpPath {
    /// What became of it.
    pub state: PathState,
    /// Why, in words: `shorter AS path`, `rejected by BGPFilter/pods rule 2`, `own pod range`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The peer that sent it; `None` for a route of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<IpAddr>,
    /// `AS_PATH` as people write it: `65001 65002 {65003,65004}`.
    #[serde(default)]
    pub as_path: String,
    /// ORIGIN: `igp`, `egp`, `incomplete`.
    pub origin: String,
    /// `LOCAL_PREF`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<u32>,
    /// `MULTI_EXIT_DISC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<u32>,
    /// Communities of all kinds: `64512:100`, `64512:1:2`, `no-export`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub communities: Vec<String>,
    /// `ORIGINATOR_ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub originator_id: Option<Ipv4Addr>,
    /// `CLUSTER_LIST`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_list: Vec<Ipv4Addr>,
    /// The statements of our policy that decided about it and that changed its attributes, in words; empty where policy
    /// was not asked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Kept from before the peer's restart (RFC 4724).
    #[serde(default)]
    pub stale: bool,
}

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PathState {
    /// Selected.
    Best,
    /// As good as the best one, and used beside it.
    Multipath,
    /// A candidate that lost.
    Candidate,
    /// Refused on import.
    Rejected,
    /// Sent to the peer that was asked about.
    Advertised,
    /// Not sent to the peer that was asked about.
    NotAdvertised,
}

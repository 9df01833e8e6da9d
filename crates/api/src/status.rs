//! `GET /v1/status`: how the agent is.

use std::net::Ipv4Addr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::TunnelDevice;

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// The agent's version.
    pub version: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// Seconds since then.
    pub uptime_seconds: u64,
    /// Its configuration.
    pub config: ConfigStatus,
    /// Its BGP speaker; `None` while there is none.
    pub bgp: Option<BgpStatus>,
    /// Why there is no speaker although the configuration asks for one: `cannot listen on 0.0.0.0:179: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speaker_error: Option<String>,
    /// The node's pod ranges.
    pub pod_cidrs: Vec<IpNet>,
    /// The kernel's routes.
    pub kernel: KernelStatus,
    /// Our nftables table.
    #[serde(default)]
    pub firewall: FirewallStatus,
    /// Tunnel devices that are there or should be.
    #[serde(default)]
    pub tunnels: Vec<TunnelDevice>,
    /// How many pods are attached.
    pub endpoints: u64,
}

/// Where the configuration comes from, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// Directory, or another description of the source.
    pub source: String,
    /// Files that were read, by name.
    pub files: Vec<ConfigFile>,
    /// What is wrong, by file and line.
    pub problems: Vec<Problem>,
}

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFile {
    /// Its name.
    pub name: String,
    /// How many objects it holds that are in force.
    pub objects: u64,
}

/// Something wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The file, or another source.
    pub source: String,
    /// Line in that file, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The object: `BGPPeer/tor-a`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// The field: `spec.asNumber`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Something that was asked for is not in force.
    Error,
    /// All is in force, but hardly as it was meant.
    Warning,
}

/// The speaker in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BgpStatus {
    /// Our AS.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// The TCP port that we listen on.
    pub listen_port: u16,
    /// How many peers are configured.
    pub peers: u64,
    /// How many of them have an established session.
    pub established: u64,
    /// Every peer has sent its routes once (End-of-RIB), or the time to wait for that is over. Until then no route that
    /// an earlier agent left in the kernel is removed.
    pub synced: bool,
    /// Prefixes in the Loc-RIB.
    pub prefixes: u64,
    /// Paths in all Adj-RIBs-In.
    pub paths: u64,
    /// Prefixes that start at this node.
    pub originated: u64,
}

/// The kernel's routes in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelStatus {
    /// The kernel has been read, and nothing waits to be written.
    pub synced: bool,
    /// Routes that should be there.
    pub desired: u64,
    /// Those of them that are.
    pub ok: u64,
    /// Those that are, while packets take another program's route of a lower metric.
    #[serde(default)]
    pub shadowed: u64,
    /// Those that are not, though nobody else's route is in the way.
    pub missing: u64,
    /// Those that are there with other next hops.
    pub wrong: u64,
    /// Those in whose place another program's route stands.
    #[serde(default)]
    pub foreign: u64,
    /// Routes of ours that nobody wants.
    pub leftover: u64,
    /// Learned prefixes whose next hop can't be reached.
    pub unresolved: u64,
    /// The last thing that the kernel refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<KernelError>,
}

/// Our nftables table, `inet margay`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FirewallStatus {
    /// Its rules, and what we added to other tables, in words.
    pub rules: Vec<String>,
    /// How often somebody else had changed it, and it was written anew.
    pub healed: u64,
    /// What the kernel refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Something that the kernel refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KernelError {
    /// What, and why.
    pub message: String,
    /// Seconds since then.
    pub seconds_ago: u64,
}

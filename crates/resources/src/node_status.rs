//! `NodeStatus`: what a node's agent says of itself, for people and for their tools. Nobody but the agent writes it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a node's agent is. Counts are as fresh as the last report, which an agent makes less often the more nodes there
/// are; changes of state are reported first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatusStatus {
    /// The agent's version.
    pub version: String,
    /// Our AS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,
    /// Our BGP identifier.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<String>,
    /// Pods that are attached.
    pub pods: u64,
    /// What `kubectl get` shows.
    pub summary: Summary,
    /// The sessions, by peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<SessionStatus>,
    /// The ranges that pods have addresses of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<RangeStatus>,
    /// The kernel's routes.
    pub routes: RouteStatus,
    /// Next hops to which an IPPool wants a tunnel; absent where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<TunnelStatus>,
    /// What is wrong with the objects that this node goes by, the worst first; no more than a few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// In short, for tools that wait for one: `Ready`, `SessionsEstablished`, `RoutesInstalled`, `ConfigurationAccepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<StatusCondition>,
}

/// In a few words.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Established of configured: `2/2`.
    pub sessions: String,
    /// In the kernel of those that should be: `12/12`.
    pub routes: String,
    /// Next hops that are tunnelled, of those that are or should be and can't: `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<String>,
    /// Peers whose session is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// The last error of a session that is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// The peer's address.
    pub peer: String,
    /// Its AS.
    pub as_number: u32,
    /// What asked for it: `BGPPeer/tor-a`, `mesh`.
    pub origin: String,
    /// A state of RFC 4271 §8.2.2.
    pub state: String,
    /// Since when it is in this state, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Prefixes that the peer sent.
    pub received: u64,
    /// Those of them that our policy accepts.
    pub accepted: u64,
    /// Prefixes that we sent.
    pub advertised: u64,
    /// Why it went down last, or doesn't come up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<SessionFault>,
}

/// Why a session went down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionFault {
    /// In words.
    pub message: String,
    /// Who said so: `Sent` by us, `Received` from the peer, or neither: `Connection`.
    pub direction: String,
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// A range of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RangeStatus {
    /// The range.
    pub cidr: String,
    /// Addresses in use.
    pub used: u64,
    /// Addresses that a pod can have; absent where they are without number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// The kernel's routes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// Routes that should be there.
    pub desired: u64,
    /// Those of them that are.
    pub installed: u64,
    /// Those that should be and are, while packets take another program's route of a lower metric. They don't count as
    /// installed.
    #[serde(default)]
    pub shadowed: u64,
    /// Learned prefixes whose next hop can't be reached.
    pub unresolved: u64,
}

/// Next hops to which an IPPool wants a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelStatus {
    /// How many are tunnelled.
    pub tunnelled: u64,
    /// How many should be and can't: packets go without, or the next hop can't be reached.
    pub failed: u64,
    /// Both kinds, those that failed first; no more than 50.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next_hops: Vec<TunnelNextHop>,
}

/// How packets travel to a next hop.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TunnelNextHop {
    /// The next hop.
    pub address: String,
    /// The node that it is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The IPPool that wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The device that packets leave by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// They are in a tunnel.
    pub tunnelled: bool,
    /// Why, or why not.
    pub reason: String,
}

/// As Kubernetes' `meta/v1` Condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCondition {
    /// Its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word.
    pub reason: String,
    /// Why, for a person.
    #[schemars(length(max = 1024))]
    pub message: String,
    /// Since when, RFC 3339.
    pub last_transition_time: String,
}

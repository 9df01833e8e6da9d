//! `GET /v1/bgp/peers` and `/v1/bgp/peers/{address}`: the sessions. `POST /v1/bgp/peers/{address}`: orders to one of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// All configured peers, by address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peers {
    /// The node whose peers these are.
    pub node: String,
    /// The peers.
    pub peers: Vec<Peer>,
}

/// A peer and its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The port that we dial.
    pub port: u16,
    /// Its AS, as configured.
    pub asn: u32,
    /// Our AS.
    pub local_asn: u32,
    /// Whether it is in our AS.
    pub kind: PeerKind,
    /// What asked for it: `BGPPeer/tor-a`, `mesh`.
    pub origin: String,
    /// We only wait for its connection.
    pub passive: bool,
    /// The range that it was accepted from, where it is not configured by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<IpNet>,
    /// How its segments are authenticated, and what stands in the way of it: `TCP-MD5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<String>,
    /// Why it stays down, where that is on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// The session's state.
    pub state: SessionState,
    /// Since when it is in this state, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Seconds since then. In [`SessionState::Established`] this is the uptime.
    pub state_seconds: u64,
    /// Our address on the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// Our BGP identifier.
    pub local_router_id: Ipv4Addr,
    /// Its BGP identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_id: Option<Ipv4Addr>,
    /// The timers.
    pub timers: Timers,
    /// Graceful restart, where we offer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,
    /// Families in use: `ipv4-unicast`.
    pub families: Vec<String>,
    /// The capabilities that it announced, in words.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Prefixes.
    pub prefixes: PrefixCounts,
    /// Messages since the peer was configured.
    #[serde(default)]
    pub messages: MessageCounts,
    /// How often an established session was lost since the peer was configured.
    pub flaps: u64,
    /// It has sent all its routes in this session (End-of-RIB), or need not.
    #[serde(default)]
    pub synced: bool,
    /// The last NOTIFICATION either way, or the last loss of an established session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<SessionError>,
    /// Why TCP didn't come up when we tried last. Never older than [`last_error`](Self::last_error), and gone once a
    /// session is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_attempt: Option<SessionError>,
    /// Seconds until we dial again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry_seconds: Option<u64>,
}

/// Whether a peer is in our AS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerKind {
    /// It is.
    Internal,
    /// It isn't.
    External,
}

/// The states of RFC 4271 §8.2.2, of the connection that got further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the RFC's names")]
pub enum SessionState {
    Idle,
    Connect,
    Active,
    OpenSent,
    OpenConfirm,
    Established,
}

/// A session's timers, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Timers {
    /// The hold time that we propose.
    pub configured_hold_seconds: u16,
    /// The hold time in force: the smaller of both proposals. Zero is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u16>,
    /// How often we send a KEEPALIVE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive_seconds: Option<u16>,
}

/// Graceful restart (RFC 4724).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestart {
    /// How long it shall keep our routes while we restart.
    pub our_seconds: u16,
    /// How long it wants us to keep its own; `None` when it doesn't take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_seconds: Option<u16>,
    /// It is restarting now: its routes are kept although the session is down.
    pub helping: bool,
    /// Routes kept from before its restart.
    pub stale: u64,
}

/// How many prefixes went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixCounts {
    /// It sent us these.
    pub received: u64,
    /// Those of them that our policy accepts.
    pub accepted: u64,
    /// We sent it these.
    pub advertised: u64,
    /// How many it may send in each family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// An order to one peer: the body of a POST.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerOrder {
    /// What to do.
    pub action: PeerAction,
    /// For the peer's operator (RFC 9003); cut after 255 octets.
    #[serde(default)]
    pub text: String,
}

/// What to do with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PeerAction {
    /// End its session, and start it again whatever kept it down.
    Reset,
    /// Send everything again, and ask for the same (RFC 2918); the session goes on.
    SoftReset,
    /// End its session, and keep it down until it is reset.
    Shutdown,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerOrderDone {
    /// In words.
    pub message: String,
}

/// Messages by type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageCounts {
    /// Received from the peer.
    pub received: Messages,
    /// Sent to it.
    pub sent: Messages,
    /// UPDATEs received with a malformed attribute that did not end the session (RFC 7606).
    #[serde(default)]
    pub malformed_updates: u64,
}

/// Messages of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Messages {
    /// All of them.
    pub total: u64,
    /// UPDATEs.
    pub updates: u64,
    /// NOTIFICATIONs.
    pub notifications: u64,
}

/// Why a session or an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionError {
    /// In words, without the direction: `Cease/Administrative Shutdown`, `Connection refused`.
    pub message: String,
    /// Whose doing.
    pub direction: Direction,
    /// NOTIFICATION code and subcode, where one was sent or received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<(u8, u8)>,
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// Seconds since then.
    pub seconds_ago: u64,
}

/// Whose doing an error was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// We sent the NOTIFICATION.
    Sent,
    /// The peer sent it.
    Received,
    /// Neither: the connection failed.
    Connection,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

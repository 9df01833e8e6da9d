//! What the operator sees: plain values, made on request. Ages are durations: the machine knows no wall clock.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp_wire::{Asn, Capability, Family};
use ipnet::IpNet;

use crate::session::{Counters, Ended, Halt, Opener, State};

/// One peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its address: what it's known by.
    pub address: IpAddr,
    /// What in the configuration asked for it.
    pub origin: String,
    /// Its AS; 0 while a dynamic peer has not said it yet.
    pub asn: Asn,
    /// The range that it is accepted from, where it is not known by its address.
    pub dynamic: Option<IpNet>,
    /// Our AS towards it.
    pub local_asn: Asn,
    /// We only wait for it.
    pub passive: bool,
    /// Its segments must be signed (RFC 2385).
    pub password: bool,
    /// The session's state.
    pub state: State,
    /// Why it stays down, where that is on purpose.
    pub halt: Option<Halt>,
    /// How long it has been in this state.
    pub state_age: Duration,
    /// The connection, where there is one.
    pub connection: Option<ConnectionStatus>,
    /// What both sides agreed on, once they have exchanged OPENs.
    pub negotiated: Option<NegotiatedStatus>,
    /// Families: those agreed on, or those configured while the session is down.
    pub families: Vec<FamilyStatus>,
    /// Messages since the peer was configured.
    pub counters: Counters,
    /// How often an established session ended.
    pub flaps: u32,
    /// Failures in a row; forgotten once a session has lasted.
    pub failures: u32,
    /// The last NOTIFICATION either way, or the last loss of an established session.
    pub last_error: Option<LastError>,
    /// Why TCP did not come up, or ended early, when we tried last; `None` once a session was up since.
    pub last_attempt: Option<LastError>,
    /// Until we dial again.
    pub next_attempt: Option<Duration>,
    /// Its routes are whole: it has sent End-of-RIB in this session, or needs not.
    pub synced: bool,
}

/// A peer's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionStatus {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub remote: SocketAddr,
    /// Who opened it.
    pub opener: Opener,
}

/// What two OPENs agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NegotiatedStatus {
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// The smaller of both hold times; zero: no keepalives.
    pub hold_time: Duration,
    /// How often we send a KEEPALIVE, before jitter.
    pub keepalive: Duration,
    /// What we announced.
    pub local_capabilities: Vec<Capability>,
    /// What the peer announced.
    pub peer_capabilities: Vec<Capability>,
    /// How long we keep the peer's routes while it restarts, where both sides want that.
    pub graceful_restart: Option<Duration>,
}

/// One family of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyStatus {
    /// Which.
    pub family: Family,
    /// Prefixes that the peer announces.
    pub received: usize,
    /// Those of them that the import policy lets through.
    pub accepted: usize,
    /// Prefixes that we announce to it.
    pub advertised: usize,
    /// How many prefixes it may announce.
    pub limit: Option<u32>,
    /// The peer is restarting, or was not done yet after it: its routes are those of before.
    pub stale: bool,
}

/// Why a session, or an attempt at one, ended last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// How long ago.
    pub age: Duration,
    /// What happened.
    pub ended: Ended,
}

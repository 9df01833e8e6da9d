//! What a speaker is told to be. A new configuration replaces the old one whole; the speaker finds the difference.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp_wire::{Asn, Attributes, Family};
use ipnet::IpNet;

use crate::policy::Policy;

/// A speaker: itself, its peers, and the routes that start at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our BGP identifier; not 0.0.0.0 (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Peers by address: one session an address.
    pub peers: BTreeMap<IpAddr, PeerConfig>,
    /// Routes of our own. A next hop of `None` becomes our address on each session.
    pub originated: BTreeMap<IpNet, Attributes>,
    /// Subnets that this node is connected to, where third-party next hops are wanted (RFC 4271 §5.1.3): towards an external
    /// peer on one of them, the next hop of a route stays what it is if it is on the same subnet. Read when a session
    /// comes up.
    pub subnets: Vec<IpNet>,
    /// How many equal paths a prefix may have; 1 switches multipath off.
    pub max_paths: u8,
    /// Everything that was configured is in here. False while it is known that something is missing, a peer perhaps: until it is
    /// there, nothing from before is given up ([`Speaker::is_synced`](crate::speaker::Speaker::is_synced)).
    pub complete: bool,
    /// How long a restarted speaker waits for its peers' End-of-RIB before it trusts what it has
    /// (Selection_Deferral_Timer, RFC 4724 §4.1).
    pub selection_deferral: Duration,
}

impl SpeakerConfig {
    /// A speaker without peers or routes.
    #[must_use]
    pub fn new(asn: Asn, router_id: Ipv4Addr) -> Self {
        Self {
            asn,
            router_id,
            peers: BTreeMap::new(),
            originated: BTreeMap::new(),
            subnets: Vec::new(),
            max_paths: 1,
            complete: true,
            selection_deferral: Duration::from_secs(120),
        }
    }
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its AS; equal to ours makes it an internal peer.
    pub asn: Asn,
    /// TCP port to connect to.
    pub port: u16,
    /// Source address of our connections.
    pub local_address: Option<IpAddr>,
    /// Only wait for its connection, never dial.
    pub passive: bool,
    /// Hold time to propose: zero, or at least 3 s.
    pub hold_time: Duration,
    /// Wait between attempts to connect (ConnectRetryTimer, RFC 4271 §8.2.2), before jitter and backoff.
    pub connect_retry: Duration,
    /// Families to offer.
    pub families: Vec<Family>,
    /// How far away it may be.
    pub reach: Reach,
    /// Next hop towards it.
    pub next_hop: NextHopMode,
    /// An internal peer is a client of ours: what other internal peers say is reflected to it, and what it says to them
    /// (RFC 4456).
    pub reflector_client: bool,
    /// Offer graceful restart with this restart time (RFC 4724); `None` switches it off.
    pub graceful_restart: Option<Duration>,
    /// Applied to what it sends.
    pub import: Policy,
    /// Applied to what we send it, before the attributes are rewritten for it.
    pub export: Policy,
    /// What in the configuration asked for this peer, for a person: `BGPPeer/tor-a`, `mesh`.
    pub origin: String,
}

impl PeerConfig {
    /// A directly connected peer with which nothing is exchanged yet: policy rejects everything (RFC 8212).
    #[must_use]
    pub fn new(asn: Asn) -> Self {
        Self {
            asn,
            port: 179,
            local_address: None,
            passive: false,
            hold_time: Duration::from_secs(90),
            connect_retry: Duration::from_secs(5),
            families: vec![Family::IPV4_UNICAST],
            reach: Reach::Hops(1),
            next_hop: NextHopMode::Auto,
            reflector_client: false,
            graceful_restart: Some(Duration::from_secs(120)),
            import: Policy::reject_all("no import policy"),
            export: Policy::reject_all("no export policy"),
            origin: String::new(),
        }
    }
}

/// How far away a peer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Any distance: for internal peers and external multihop ones; TTL of what we send.
    Hops(u8),
    /// Generalised TTL security (RFC 5082): at most this many hops away.
    Gtsm(u8),
}

/// How the next hop is set towards a peer (RFC 4271 §5.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHopMode {
    /// Ours towards external peers, unless the route's own is the address of the peer that it came from and on the
    /// subnet that we share with this one; unchanged towards internal ones. Ours always for routes of our own.
    Auto,
    /// Ours always.
    Own,
    /// Unchanged always.
    Keep,
}

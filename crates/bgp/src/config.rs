//! What a speaker is told to be. A new configuration replaces the old one whole; the speaker finds the difference.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bgp_wire::{Asn, Attributes, Family};
use ipnet::IpNet;

pub use crate::asn_set::AsnSet;
pub use crate::password::{Password, PasswordError};
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
    /// Peers that are not known by their addresses: whoever connects from one of these ranges. The longest one counts, and an
    /// address in [`peers`](Self::peers) goes before.
    pub dynamic: BTreeMap<IpNet, DynamicPeers>,
    /// Routes of our own. A next hop of `None` becomes our address on each session.
    pub originated: BTreeMap<IpNet, Attributes>,
    /// Subnets that this node is connected to, where third-party next hops are wanted (RFC 4271 §5.1.3): towards an external
    /// peer on one of them, the next hop of a route stays what it is if it is on the same subnet. Read when a session
    /// comes up.
    pub subnets: Vec<IpNet>,
    /// How paths are compared, and which of them share traffic.
    pub decision: Decision,
    /// Our cluster id as a route reflector, for the loop check (RFC 4456 §8); `None`: the BGP identifier. Those of
    /// [`Rules::client`] count as ours too.
    pub cluster_id: Option<Ipv4Addr>,
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
            dynamic: BTreeMap::new(),
            originated: BTreeMap::new(),
            subnets: Vec::new(),
            decision: Decision::default(),
            cluster_id: None,
            complete: true,
            selection_deferral: Duration::from_secs(120),
        }
    }
}

/// How paths are compared (RFC 4271 §9.1.2.2), and which of them share traffic. The default compares as the RFC says,
/// and uses one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How many equal paths from external peers a prefix may have; 1 (or 0) switches their multipath off.
    pub max_external_paths: u8,
    /// How many equal paths from internal peers a prefix may have.
    pub max_internal_paths: u8,
    /// Paths of equal length may share traffic although their neighbouring ASes differ.
    pub multipath_relax: bool,
    /// MEDs of different neighbouring ASes are compared as well.
    pub always_compare_med: bool,
    /// A path without MED counts as one with the highest; else as one with 0, the best (RFC 4271 §9.1.2.2 c).
    pub missing_med_worst: bool,
}

impl Decision {
    /// Up to `paths` equal paths of either kind, whatever their neighbouring ASes.
    #[must_use]
    pub fn multipath(paths: u8) -> Self {
        Self {
            max_external_paths: paths,
            max_internal_paths: paths,
            multipath_relax: true,
            ..Self::default()
        }
    }

    /// Whether any prefix may have more than one path.
    pub(crate) fn is_multipath(&self) -> bool {
        self.max_external_paths > 1 || self.max_internal_paths > 1
    }
}

impl Default for Decision {
    fn default() -> Self {
        Self {
            max_external_paths: 1,
            max_internal_paths: 1,
            multipath_relax: false,
            always_compare_med: false,
            missing_med_worst: false,
        }
    }
}

/// Peers from a range of addresses. Each is there from its connection on until its session has ended and nothing is kept
/// for its return any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicPeers {
    /// Of which ASes they may be.
    pub asns: AsnSet,
    /// How many may be there at the same time.
    pub limit: u32,
    /// What each of them is like, save for its AS: that is the one in its OPEN. None of them is dialled.
    pub template: PeerConfig,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its AS; equal to ours towards it makes it an internal peer.
    pub asn: Asn,
    /// Our AS towards it, where that is not the speaker's: [`Rules::local_as`] says what becomes of AS paths.
    pub local_asn: Option<Asn>,
    /// TCP port to connect to.
    pub port: u16,
    /// Source address of our connections.
    pub local_address: Option<IpAddr>,
    /// Our address of the other family: the next hop towards it of routes whose family is not that of the connection.
    /// `None`: one of the connection's interface, as far as [`Speaker::set_interfaces`] told of it.
    ///
    /// [`Speaker::set_interfaces`]: crate::speaker::Speaker::set_interfaces
    pub other_local_address: Option<IpAddr>,
    /// Only wait for its connection, never dial.
    pub passive: bool,
    /// Hold time to propose: zero, or at least 3 s.
    pub hold_time: Duration,
    /// How often we send a KEEPALIVE, before jitter; `None`, and at most: a third of the hold time agreed on
    /// (RFC 4271 §4.4).
    pub keepalive: Option<Duration>,
    /// How long it may take nothing of what we send before it is given up, at least; twice the hold time where that is longer
    /// (SendHoldTime, RFC 9687 §3).
    pub send_hold: Duration,
    /// Wait between attempts to connect (ConnectRetryTimer, RFC 4271 §8.2.2), before jitter and backoff.
    pub connect_retry: Duration,
    /// Families to offer.
    pub families: Vec<Family>,
    /// What TCP's segments are signed with (RFC 2385).
    pub password: Option<Password>,
    /// How many prefixes it may announce, at most one limit a family.
    pub prefix_limits: Vec<PrefixLimit>,
    /// How far away it may be.
    pub reach: Reach,
    /// Next hop towards it.
    pub next_hop: NextHopMode,
    /// Offer to take IPv4 routes with an IPv6 next hop, and to give them (RFC 8950).
    pub extended_next_hop: bool,
    /// Offer graceful restart with this restart time (RFC 4724); `None` switches it off.
    pub graceful_restart: Option<Duration>,
    /// What is done with its routes beside policy.
    pub rules: Rules,
    /// Applied to what it sends.
    pub import: Policy,
    /// Applied to what we send it, before the attributes are rewritten for it.
    pub export: Policy,
    /// Why it is to stay down: nothing is dialled or accepted as long as this is set.
    pub shutdown: Option<String>,
    /// What in the configuration asked for this peer, for a person: `BGPPeer/tor-a`, `mesh`.
    pub origin: String,
}

impl PeerConfig {
    /// A directly connected peer with which nothing is exchanged yet: policy rejects everything (RFC 8212).
    #[must_use]
    pub fn new(asn: Asn) -> Self {
        Self {
            asn,
            local_asn: None,
            port: 179,
            local_address: None,
            other_local_address: None,
            passive: false,
            hold_time: Duration::from_secs(90),
            keepalive: None,
            send_hold: Duration::from_secs(480),
            connect_retry: Duration::from_secs(5),
            families: vec![Family::IPV4_UNICAST],
            password: None,
            prefix_limits: Vec::new(),
            reach: Reach::Hops(1),
            next_hop: NextHopMode::Auto,
            extended_next_hop: false,
            graceful_restart: Some(Duration::from_secs(120)),
            rules: Rules::default(),
            import: Policy::reject_all("no import policy"),
            export: Policy::reject_all("no export policy"),
            shutdown: None,
            origin: String::new(),
        }
    }
}

/// A bound on the prefixes that a peer announces in one family, those that import policy rejects counted too: it is
/// there for our memory (RFC 4271 §6.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixLimit {
    /// Which family.
    pub family: Family,
    /// So many are fine.
    pub limit: u32,
    /// From this share of the limit on it is said, in percent.
    pub warn_percent: u8,
    /// What one more leads to.
    pub action: LimitAction,
}

impl PrefixLimit {
    /// How many prefixes are worth a word.
    pub(crate) fn warn_at(&self) -> u64 {
        u64::from(self.limit) * u64::from(self.warn_percent.min(100)) / 100
    }
}

/// What comes of more prefixes than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitAction {
    /// It is said, and that is all.
    Warn,
    /// The session ends with Cease/Maximum Number of Prefixes Reached (RFC 4486 §4), and may come back after this time.
    Restart(Duration),
    /// The session ends like that, and stays down until somebody resets it or the limit changes.
    StayDown,
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

/// What is done with a peer's routes beside policy. A change needs no new session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules {
    /// It is our client, we its route reflector (RFC 4456). Without effect on an external peer.
    pub client: Option<Client>,
    /// What AS paths show where our AS towards it is not the speaker's.
    pub local_as: LocalAs,
    /// How often our own AS, or the one that we have towards it, may be in the AS path of a route that it sends.
    pub allowed_own_as: u8,
    /// What becomes of private AS numbers in what it is told. Without effect on an internal peer, as the next one.
    pub private_as: PrivateAs,
    /// Its own AS in what it is told is replaced by ours towards it, for sites of one AS to learn of each other.
    pub override_as: bool,
    /// It is a bilateral peer in the sense of RFC 3765: routes with NOPEER are not for it.
    pub bilateral: bool,
    /// Routes of an external peer with GRACEFUL_SHUTDOWN get LOCAL_PREF 0 (RFC 8326 §4.2).
    pub graceful_shutdown: bool,
    /// Its routes with BLACKHOLE are discard routes for us, and go to nobody else (RFC 7999 §3).
    pub blackhole: bool,
    /// We are about to go: what it is told carries GRACEFUL_SHUTDOWN, and LOCAL_PREF 0 inside our AS (RFC 8326 §4).
    pub drain: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            client: None,
            local_as: LocalAs::Replace,
            allowed_own_as: 0,
            private_as: PrivateAs::Keep,
            override_as: false,
            bilateral: false,
            graceful_shutdown: true,
            blackhole: false,
            drain: false,
        }
    }
}

/// A peer as our client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// The cluster that it is in. A reflector may serve several.
    pub cluster_id: Ipv4Addr,
    /// The clients of its cluster have sessions with each other: nothing is reflected between them (RFC 4456 §9).
    pub meshed: bool,
}

/// What AS paths show where our AS towards a peer is not the speaker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LocalAs {
    /// What the peer sends gets that AS in front, what it is told has the speaker's behind it: as if a router of that AS
    /// stood between.
    Prepend,
    /// What the peer sends stays as it is; what it is told has both.
    NoPrepend,
    /// What the peer sends stays as it is; what it is told has that AS alone.
    Replace,
}

/// What becomes of private AS numbers (RFC 6996) in an AS path on its way to an external peer. The peer's own stays, for
/// its loop check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrivateAs {
    /// Nothing.
    Keep,
    /// They are taken out.
    Remove,
    /// Ours stands for them, so that the path keeps its length.
    Replace,
}

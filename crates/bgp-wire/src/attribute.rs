//! Path attributes (RFC 4271 §5) as values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{AsPath, Asn, Community, ExtendedCommunity, LargeCommunity};

/// ORIGIN (RFC 4271 §5.1.1). Lower is preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// IGP, 0.
    Igp,
    /// EGP, 1.
    Egp,
    /// INCOMPLETE, 2.
    Incomplete,
}

/// A next hop: from NEXT_HOP (RFC 4271 §5.1.3) or from MP_REACH_NLRI (RFC 4760 §3, RFC 2545 §3, RFC 8950).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address: 16 octets on the wire.
    V6(Ipv6Addr),
    /// A global IPv6 address and a link-local one: 32 octets on the wire (RFC 2545 §3).
    V6WithLinkLocal(Ipv6Addr, Ipv6Addr),
}

impl NextHop {
    /// The address, without the link-local one that may stand beside it.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match *self {
            Self::V4(address) => address.into(),
            Self::V6(address) | Self::V6WithLinkLocal(address, _) => address.into(),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

/// AGGREGATOR (RFC 4271 §5.1.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS that aggregated.
    pub asn: Asn,
    /// The router id of the speaker that aggregated.
    pub router_id: Ipv4Addr,
}

/// An attribute we pass on without knowing it: optional and transitive (RFC 4271 §5).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownAttribute {
    /// Type code.
    pub code: u8,
    /// Flags, with Partial set and Extended Length as the value needs.
    pub flags: u8,
    /// The value as received.
    pub value: Vec<u8>,
}

/// The path attributes of a route, validated; without those that name prefixes.
///
/// The next hop stands here for every family: from NEXT_HOP for IPv4 unicast outside MP_REACH_NLRI, else from
/// MP_REACH_NLRI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// ORIGIN.
    pub origin: Origin,
    /// AS_PATH.
    pub as_path: AsPath,
    /// The next hop; `None` only on a route of our own that has none yet.
    pub next_hop: Option<NextHop>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// ATOMIC_AGGREGATE.
    pub atomic_aggregate: bool,
    /// AGGREGATOR.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES (RFC 1997).
    pub communities: Vec<Community>,
    /// ORIGINATOR_ID (RFC 4456).
    pub originator_id: Option<Ipv4Addr>,
    /// CLUSTER_LIST (RFC 4456), most recent first.
    pub cluster_list: Vec<Ipv4Addr>,
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// Unknown optional transitive attributes, by type code.
    pub unknown: Vec<UnknownAttribute>,
}

impl Attributes {
    /// Those of a route that starts here: ORIGIN IGP, an empty AS_PATH, and nothing else.
    #[must_use]
    pub fn originated() -> Self {
        Self {
            origin: Origin::Igp,
            as_path: AsPath::default(),
            next_hop: None,
            med: None,
            local_pref: None,
            atomic_aggregate: false,
            aggregator: None,
            communities: Vec::new(),
            originator_id: None,
            cluster_list: Vec::new(),
            extended_communities: Vec::new(),
            large_communities: Vec::new(),
            unknown: Vec::new(),
        }
    }
}

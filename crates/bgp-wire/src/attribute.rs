//! Path attributes (RFC 4271 §5) as values. How they are read is in [`update`](crate::update).

mod encode;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use encode::encode_header;

use crate::{AsPath, Asn, Community, ExtendedCommunity, Ipv6ExtendedCommunity, LargeCommunity};

/// Attribute type codes (IANA "BGP Path Attributes").
pub mod code {
    /// ORIGIN.
    pub const ORIGIN: u8 = 1;
    /// AS_PATH.
    pub const AS_PATH: u8 = 2;
    /// NEXT_HOP.
    pub const NEXT_HOP: u8 = 3;
    /// MULTI_EXIT_DISC.
    pub const MULTI_EXIT_DISC: u8 = 4;
    /// LOCAL_PREF.
    pub const LOCAL_PREF: u8 = 5;
    /// ATOMIC_AGGREGATE.
    pub const ATOMIC_AGGREGATE: u8 = 6;
    /// AGGREGATOR.
    pub const AGGREGATOR: u8 = 7;
    /// COMMUNITIES (RFC 1997).
    pub const COMMUNITIES: u8 = 8;
    /// ORIGINATOR_ID (RFC 4456).
    pub const ORIGINATOR_ID: u8 = 9;
    /// CLUSTER_LIST (RFC 4456).
    pub const CLUSTER_LIST: u8 = 10;
    /// MP_REACH_NLRI (RFC 4760).
    pub const MP_REACH_NLRI: u8 = 14;
    /// MP_UNREACH_NLRI (RFC 4760).
    pub const MP_UNREACH_NLRI: u8 = 15;
    /// EXTENDED COMMUNITIES (RFC 4360).
    pub const EXTENDED_COMMUNITIES: u8 = 16;
    /// AS4_PATH (RFC 6793).
    pub const AS4_PATH: u8 = 17;
    /// AS4_AGGREGATOR (RFC 6793).
    pub const AS4_AGGREGATOR: u8 = 18;
    /// IPv6 Address Specific Extended Communities (RFC 5701).
    pub const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
    /// LARGE_COMMUNITY (RFC 8092).
    pub const LARGE_COMMUNITY: u8 = 32;
}

/// Attribute flags (RFC 4271 §4.3).
pub mod flag {
    /// Optional, as opposed to well-known.
    pub const OPTIONAL: u8 = 0x80;
    /// Transitive: to be passed on even by who does not know it.
    pub const TRANSITIVE: u8 = 0x40;
    /// Partial: somebody on the way did not know it.
    pub const PARTIAL: u8 = 0x20;
    /// Extended Length: two octets of length.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

/// An attribute's name as the RFCs write it, for those known here.
#[must_use]
pub fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        code::ORIGIN => "ORIGIN",
        code::AS_PATH => "AS_PATH",
        code::NEXT_HOP => "NEXT_HOP",
        code::MULTI_EXIT_DISC => "MULTI_EXIT_DISC",
        code::LOCAL_PREF => "LOCAL_PREF",
        code::ATOMIC_AGGREGATE => "ATOMIC_AGGREGATE",
        code::AGGREGATOR => "AGGREGATOR",
        code::COMMUNITIES => "COMMUNITIES",
        code::ORIGINATOR_ID => "ORIGINATOR_ID",
        code::CLUSTER_LIST => "CLUSTER_LIST",
        code::MP_REACH_NLRI => "MP_REACH_NLRI",
        code::MP_UNREACH_NLRI => "MP_UNREACH_NLRI",
        code::EXTENDED_COMMUNITIES => "EXTENDED COMMUNITIES",
        code::AS4_PATH => "AS4_PATH",
        code::AS4_AGGREGATOR => "AS4_AGGREGATOR",
        code::IPV6_EXTENDED_COMMUNITIES => "IPV6 EXTENDED COMMUNITIES",
        code::LARGE_COMMUNITY => "LARGE_COMMUNITY",
        _ => return None,
    })
}

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

impl Origin {
    /// The value on the wire.
    #[must_use]
    pub fn value(self) -> u8 {
        match self {
            Self::Igp => 0,
            Self::Egp => 1,
            Self::Incomplete => 2,
        }
    }

    pub(crate) fn from_value(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Igp,
            1 => Self::Egp,
            2 => Self::Incomplete,
            _ => return None,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        })
    }
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

impl NextHop {
    /// How long it is on the wire: 4, 16 or 32 octets.
    pub(crate) fn encoded_len(&self) -> u8 {
        match self {
            Self::V4(_) => 4,
            Self::V6(_) => 16,
            Self::V6WithLinkLocal(..) => 32,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(address) => out.extend_from_slice(&address.octets()),
            Self::V6(address) => out.extend_from_slice(&address.octets()),
            Self::V6WithLinkLocal(address, link_local) => {
                out.extend_from_slice(&address.octets());
                out.extend_from_slice(&link_local.octets());
            }
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::V6WithLinkLocal(address, link_local) => write!(f, "{address} ({link_local})"),
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

/// Which of the known optional transitive attributes came with Partial set: once set it stays (RFC 4271 §5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Partial {
    /// AGGREGATOR.
    pub aggregator: bool,
    /// COMMUNITIES.
    pub communities: bool,
    /// EXTENDED COMMUNITIES.
    pub extended_communities: bool,
    /// IPv6 Address Specific Extended Communities.
    pub ipv6_extended_communities: bool,
    /// LARGE_COMMUNITY.
    pub large_communities: bool,
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
    /// IPv6 Address Specific Extended Communities (RFC 5701).
    pub ipv6_extended_communities: Vec<Ipv6ExtendedCommunity>,
    /// LARGE_COMMUNITY (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// Unknown optional transitive attributes, by type code.
    pub unknown: Vec<UnknownAttribute>,
    /// Which of the attributes above came with Partial set. Without effect where the attribute is not there.
    pub partial: Partial,
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
            ipv6_extended_communities: Vec::new(),
            large_communities: Vec::new(),
            unknown: Vec::new(),
            partial: Partial::default(),
        }
    }
}

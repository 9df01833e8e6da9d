//! Path attributes (RFC 4271 §5) as values. How they are read is in [`update`](crate::update).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{AS_TRANS, AsPath, Asn, Community, Context, ExtendedCommunity, LargeCommunity, update};

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
            large_communities: Vec::new(),
            unknown: Vec::new(),
            partial: Partial::default(),
        }
    }

    /// Writes the attribute section as `context` needs it: in the order of the type codes, without MP_REACH_NLRI
    /// and MP_UNREACH_NLRI, and NEXT_HOP only where the next hop is an IPv4 address.
    ///
    /// What is set is written; to leave LOCAL_PREF out towards an external peer is up to the caller. For a peer
    /// without four-octet numbers AS_TRANS, AS4_PATH and AS4_AGGREGATOR are put in (RFC 6793 §4.2.2). A section longer
    /// than a message may get written: [`UpdateBuilder`](crate::UpdateBuilder) then takes no prefix.
    pub fn encode(&self, context: &Context, out: &mut Vec<u8>) {
        self.encode_with(context.four_octet_as, true, out);
    }

    /// Writes a form that does not depend on any session: equal attributes give equal bytes, different ones
    /// different bytes, and [`decode_canonical`](Self::decode_canonical) gives the attributes back. It is what to intern.
    ///
    /// It is the next hop's length in octets (0 for none), the next hop, and the section that [`encode`](Self::encode)
    /// writes for four-octet numbers, without NEXT_HOP. What the wire can't tell apart isn't told apart here either:
    /// an empty AS_PATH segment, a sequence over 255 numbers, Partial without its attribute.
    ///
    /// ```
    /// use bgp_wire::{AsPath, Attributes};
    ///
    /// let mut attributes = Attributes::originated();
    /// attributes.as_path = AsPath::sequence([64512, 64513]);
    /// let mut bytes = Vec::new();
    /// attributes.encode_canonical(&mut bytes);
    /// assert_eq!(Attributes::decode_canonical(&bytes), Some(attributes));
    /// ```
    pub fn encode_canonical(&self, out: &mut Vec<u8>) {
        match &self.next_hop {
            Some(next_hop) => {
                out.push(next_hop.encoded_len());
                next_hop.encode(out);
            }
            None => out.push(0),
        }
        self.encode_with(true, false, out);
    }

    /// Splits canonical bytes into the next hop and the section that is to be sent with it, which has no NEXT_HOP:
    /// [`UpdateBuilder`](crate::UpdateBuilder) puts it in. `None` for bytes that no
    /// [`encode_canonical`](Self::encode_canonical) wrote.
    #[must_use]
    pub fn split_canonical(bytes: &[u8]) -> Option<(Option<NextHop>, &[u8])> {
        let (&len, rest) = bytes.split_first()?;
        let (next_hop, section) = rest.split_at_checked(len.into())?;
        let next_hop = match len {
            0 => None,
            _ => Some(update::next_hop(next_hop)?),
        };
        Some((next_hop, section))
    }

    /// Reads what [`encode_canonical`](Self::encode_canonical) wrote; `None` for other bytes.
    #[must_use]
    pub fn decode_canonical(bytes: &[u8]) -> Option<Self> {
        let (next_hop, section) = Self::split_canonical(bytes)?;
        update::decode_own_section(section).map(|attributes| Self {
            next_hop,
            ..attributes
        })
    }

    fn encode_with(&self, four_octet_as: bool, with_next_hop: bool, out: &mut Vec<u8>) {
        const WELL_KNOWN: u8 = flag::TRANSITIVE;
        const NON_TRANSITIVE: u8 = flag::OPTIONAL;
        let transitive = |partial: bool| {
            flag::OPTIONAL | flag::TRANSITIVE | if partial { flag::PARTIAL } else { 0 }
        };
        // Unknown attributes may have any code: each known one lets those with lower codes go first.
        let mut unknown = self.unknown.as_slice();
        let mut attribute = |out: &mut Vec<u8>, flags: u8, code: u8, len: usize| {
            encode_unknown_below(&mut unknown, code, out);
            encode_header(flags, code, len, out);
        };

        attribute(out, WELL_KNOWN, code::ORIGIN, 1);
        out.push(self.origin.value());
        if four_octet_as {
            attribute(out, WELL_KNOWN, code::AS_PATH, self.as_path.encoded_len4());
            self.as_path.encode4(out);
        } else {
            attribute(out, WELL_KNOWN, code::AS_PATH, self.as_path.encoded_len2());
            self.as_path.encode2(out);
        }
        if with_next_hop && let Some(NextHop::V4(next_hop)) = self.next_hop {
            attribute(out, WELL_KNOWN, code::NEXT_HOP, 4);
            out.extend_from_slice(&next_hop.octets());
        }
        if let Some(med) = self.med {
            attribute(out, NON_TRANSITIVE, code::MULTI_EXIT_DISC, 4);
            out.extend_from_slice(&med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            attribute(out, WELL_KNOWN, code::LOCAL_PREF, 4);
            out.extend_from_slice(&local_pref.to_be_bytes());
        }
        if self.atomic_aggregate {
            attribute(out, WELL_KNOWN, code::ATOMIC_AGGREGATE, 0);
        }
        if let Some(aggregator) = &self.aggregator {
            let flags = transitive(self.partial.aggregator);
            if four_octet_as {
                attribute(out, flags, code::AGGREGATOR, 8);
                out.extend_from_slice(&aggregator.asn.to_be_bytes());
            } else {
                attribute(out, flags, code::AGGREGATOR, 6);
                out.extend_from_slice(
                    &u16::try_from(aggregator.asn)
                        .unwrap_or(AS_TRANS)
                        .to_be_bytes(),
                );
            }
            out.extend_from_slice(&aggregator.router_id.octets());
        }
        if !self.communities.is_empty() {
            let flags = transitive(self.partial.communities);
            attribute(out, flags, code::COMMUNITIES, 4 * self.communities.len());
            self.communities
                .iter()
                .for_each(|community| out.extend_from_slice(&community.0.to_be_bytes()));
        }
        if let Some(originator_id) = self.originator_id {
            attribute(out, NON_TRANSITIVE, code::ORIGINATOR_ID, 4);
            out.extend_from_slice(&originator_id.octets());
        }
        if !self.cluster_list.is_empty() {
            attribute(
                out,
                NON_TRANSITIVE,
                code::CLUSTER_LIST,
                4 * self.cluster_list.len(),
            );
            self.cluster_list
                .iter()
                .for_each(|cluster| out.extend_from_slice(&cluster.octets()));
        }
        if !self.extended_communities.is_empty() {
            let flags = transitive(self.partial.extended_communities);
            attribute(
                out,
                flags,
                code::EXTENDED_COMMUNITIES,
                8 * self.extended_communities.len(),
            );
            self.extended_communities
                .iter()
                .for_each(|community| out.extend_from_slice(&community.0));
        }
        if !four_octet_as {
            if let Some(as4_path) = self.as_path.as4_path() {
                attribute(
                    out,
                    transitive(false),
                    code::AS4_PATH,
                    as4_path.encoded_len4(),
                );
                as4_path.encode4(out);
            }
            if let Some(aggregator) = self
                .aggregator
                .filter(|aggregator| aggregator.asn > u32::from(u16::MAX))
            {
                attribute(out, transitive(false), code::AS4_AGGREGATOR, 8);
                out.extend_from_slice(&aggregator.asn.to_be_bytes());
                out.extend_from_slice(&aggregator.router_id.octets());
            }
        }
        if !self.large_communities.is_empty() {
            let flags = transitive(self.partial.large_communities);
            attribute(
                out,
                flags,
                code::LARGE_COMMUNITY,
                12 * self.large_communities.len(),
            );
            for community in &self.large_communities {
                out.extend_from_slice(&community.global.to_be_bytes());
                out.extend_from_slice(&community.local1.to_be_bytes());
                out.extend_from_slice(&community.local2.to_be_bytes());
            }
        }
        for rest in unknown {
            rest.encode(out);
        }
    }
}

impl UnknownAttribute {
    fn encode(&self, out: &mut Vec<u8>) {
        // The low bits are unused and must be zero (RFC 4271 §4.3).
        let flags = self.flags & (flag::OPTIONAL | flag::TRANSITIVE | flag::PARTIAL);
        encode_header(flags, self.code, self.value.len(), out);
        out.extend_from_slice(&self.value);
    }
}

/// Writes those at the front of `unknown` whose codes are below `code`, and takes them off.
fn encode_unknown_below(unknown: &mut &[UnknownAttribute], code: u8, out: &mut Vec<u8>) {
    while let Some((first, rest)) = unknown.split_first()
        && first.code < code
    {
        first.encode(out);
        *unknown = rest;
    }
}

/// Writes flags, type code and length, the length in two octets only where one is too short.
pub(crate) fn encode_header(flags: u8, code: u8, len: usize, out: &mut Vec<u8>) {
    if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[flags, code, len]);
    } else {
        out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code]);
        out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    }
}

//! Communities of all kinds (RFC 1997, RFC 4360, RFC 5701, RFC 8092).
//!
//! ```
//! use bgp_wire::{Community, LargeCommunity};
//!
//! # fn main() -> Result<(), bgp_wire::community::ParseError> {
//! let community: Community = "65000:1".parse()?;
//! assert_eq!(community, Community::new(65000, 1));
//! assert_eq!("no-export".parse(), Ok(Community::NO_EXPORT));
//! assert_eq!(Community::GRACEFUL_SHUTDOWN.to_string(), "graceful-shutdown");
//! assert_eq!("4200000001:1:2".parse::<LargeCommunity>()?.global, 4_200_000_001);
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// A text that is no community.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither two 16-bit numbers nor a well-known name.
    #[error(
        "not a community: expected two numbers up to 65535 as in 65000:1, or a well-known name"
    )]
    Community,
    /// Not three 32-bit numbers.
    #[error("not a large community: expected three numbers up to 4294967295 as in 64512:1:2")]
    Large,
    /// Neither a form with a type in front nor sixteen hexadecimal digits.
    #[error(
        "not an extended community: expected rt:ASN:NUMBER, soo:ASN:NUMBER (or an IPv4 address \
         for ASN), or 0x and 16 hexadecimal digits"
    )]
    Extended,
}

/// A standard community: two 16-bit halves in one number (RFC 1997).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Drain: lower the preference of these routes, the path is about to go (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// A route to be accepted although its AS_PATH has our AS (RFC 7611).
    pub const ACCEPT_OWN: Self = Self(0xffff_0001);
    /// Stale under long-lived graceful restart (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// Not to be kept by long-lived graceful restart (RFC 9494).
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// Drop traffic to this prefix (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Not to leave the AS or confederation (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// Not to be advertised to anyone (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not to leave the AS, not even within the confederation (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// Not to be advertised over bilateral peerings (RFC 3765).
    pub const NOPEER: Self = Self(0xffff_ff04);

    /// The well-known ones by name.
    const NAMES: [(Self, &'static str); 9] = [
        (Self::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Self::ACCEPT_OWN, "accept-own"),
        (Self::LLGR_STALE, "llgr-stale"),
        (Self::NO_LLGR, "no-llgr"),
        (Self::BLACKHOLE, "blackhole"),
        (Self::NO_EXPORT, "no-export"),
        (Self::NO_ADVERTISE, "no-advertise"),
        (Self::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Self::NOPEER, "no-peer"),
    ];

    /// The community `asn:value`.
    #[must_use]
    pub fn new(asn: u16, value: u16) -> Self {
        Self(u32::from(asn) << 16 | u32::from(value))
    }

    /// The first half: the AS that defines what the second means.
    #[must_use]
    pub fn asn(self) -> u16 {
        let [high, low, ..] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The second half.
    #[must_use]
    pub fn value(self) -> u16 {
        let [.., high, low] = self.0.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The name of a well-known one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES
            .iter()
            .find(|(community, _)| *community == self)
            .map(|(_, name)| *name)
    }
}

/// A well-known name, or `asn:value`.
impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}:{}", self.asn(), self.value()),
        }
    }
}

impl FromStr for Community {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Some((community, _)) = Self::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*community);
        }
        let (asn, value) = text.split_once(':').ok_or(ParseError::Community)?;
        match (number(asn), number(value)) {
            (Some(asn), Some(value)) => Ok(Self::new(asn, value)),
            _ => Err(ParseError::Community),
        }
    }
}

/// An extended community, opaque: eight octets (RFC 4360).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Types with two octets of AS, an IPv4 address, four octets of AS (RFC 4360 §3, RFC 5668).
    const TYPES: [u8; 3] = [0, 1, 2];
    /// Subtypes by the name that operators use (RFC 4360 §4, §5).
    const SUBTYPES: [(u8, &'static str); 2] = [(2, "rt"), (3, "soo")];

    /// Whether it may leave the AS: bit T of the type (RFC 4360 §2).
    #[must_use]
    pub fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

/// `rt:64512:1` and `soo:192.0.2.1:1` for route targets and origins, `0x` and all octets for others.
impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let name = Self::SUBTYPES
            .iter()
            .find(|(code, _)| *code == subtype)
            .map(|(_, name)| name);
        match (kind, name) {
            (0, Some(name)) => {
                let (asn, value) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, g]));
                write!(f, "{name}:{asn}:{value}")
            }
            (1, Some(name)) => {
                let value = u16::from_be_bytes([e, g]);
                write!(f, "{name}:{}:{value}", Ipv4Addr::new(a, b, c, d))
            }
            // With L where the number would read as one of two octets.
            (2, Some(name)) => {
                let (asn, value) = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, g]));
                let suffix = if asn <= u32::from(u16::MAX) { "L" } else { "" };
                write!(f, "{name}:{asn}{suffix}:{value}")
            }
            _ => write!(f, "0x{:016x}", u64::from_be_bytes(self.0)),
        }
    }
}

impl FromStr for ExtendedCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        extended(text).ok_or(ParseError::Extended)
    }
}

fn extended(text: &str) -> Option<ExtendedCommunity> {
    if let Some(digits) = text.strip_prefix("0x") {
        let plain = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let value = u64::from_str_radix(digits, 16).ok().filter(|_| plain)?;
        return Some(ExtendedCommunity(value.to_be_bytes()));
    }
    let (name, rest) = text.split_once(':')?;
    let (administrator, value) = rest.split_once(':')?;
    let (subtype, _) = *ExtendedCommunity::SUBTYPES
        .iter()
        .find(|(_, known)| *known == name)?;
    let [two_octets, address, four_octets] = ExtendedCommunity::TYPES;
    let mut bytes = [0; 8];
    bytes[1] = subtype;
    if let Some(asn) = number::<u16>(administrator) {
        bytes[0] = two_octets;
        bytes[2..4].copy_from_slice(&asn.to_be_bytes());
        bytes[4..].copy_from_slice(&number::<u32>(value)?.to_be_bytes());
        return Some(ExtendedCommunity(bytes));
    }
    if let Ok(administrator) = administrator.parse::<Ipv4Addr>() {
        bytes[0] = address;
        bytes[2..6].copy_from_slice(&administrator.octets());
    } else {
        let asn: u32 = number(administrator.strip_suffix('L').unwrap_or(administrator))?;
        bytes[0] = four_octets;
        bytes[2..6].copy_from_slice(&asn.to_be_bytes());
    }
    bytes[6..].copy_from_slice(&number::<u16>(value)?.to_be_bytes());
    Some(ExtendedCommunity(bytes))
}

/// An IPv6 address specific extended community, opaque: twenty octets, an address from the third on (RFC 5701).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv6ExtendedCommunity(pub [u8; 20]);

impl Ipv6ExtendedCommunity {
    /// Whether it may leave the AS: bit T of the type, as in [`ExtendedCommunity`] (RFC 5701 §2).
    #[must_use]
    pub fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

/// A large community (RFC 8092).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// Global administrator: an AS number.
    pub global: u32,
    /// Local data, part 1.
    pub local1: u32,
    /// Local data, part 2.
    pub local2: u32,
}

impl LargeCommunity {
    pub(crate) fn from_bytes(bytes: [u8; 12]) -> Self {
        let [g0, g1, g2, g3, a0, a1, a2, a3, b0, b1, b2, b3] = bytes;
        Self {
            global: u32::from_be_bytes([g0, g1, g2, g3]),
            local1: u32::from_be_bytes([a0, a1, a2, a3]),
            local2: u32::from_be_bytes([b0, b1, b2, b3]),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&self.global.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.local1.to_be_bytes());
        bytes[8..].copy_from_slice(&self.local2.to_be_bytes());
        bytes
    }

    /// Takes out repeated values (RFC 8092 §5). A peer chooses how many there are, so not by comparing
    /// each with each.
    pub(crate) fn dedup(communities: &mut Vec<Self>) {
        if communities.len() > 1 {
            let mut seen = BTreeSet::new();
            communities.retain(|community| seen.insert(*community));
        }
    }
}

/// Three numbers (RFC 8092 §4).
impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut numbers = text.split(':').map(number);
        match (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) {
            (Some(Some(global)), Some(Some(local1)), Some(Some(local2)), None) => Ok(Self {
                global,
                local1,
                local2,
            }),
            _ => Err(ParseError::Large),
        }
    }
}

/// A decimal number without sign, which `FromStr` of the integers would let pass.
fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') {
        None
    } else {
        text.parse().ok()
    }
}

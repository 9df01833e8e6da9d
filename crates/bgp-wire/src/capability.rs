//! Capabilities in an OPEN (RFC 5492).

use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};
use nom::{IResult, Parser};

use crate::{Asn, Family};

/// Capability codes that are understood here (IANA "Capability Codes").
pub mod code {
    /// Multiprotocol extensions (RFC 4760).
    pub const MULTIPROTOCOL: u8 = 1;
    /// Route refresh (RFC 2918).
    pub const ROUTE_REFRESH: u8 = 2;
    /// Extended next hop encoding (RFC 8950).
    pub const EXTENDED_NEXT_HOP: u8 = 5;
    /// Extended message (RFC 8654).
    pub const EXTENDED_MESSAGE: u8 = 6;
    /// Graceful restart (RFC 4724).
    pub const GRACEFUL_RESTART: u8 = 64;
    /// Four-octet AS number (RFC 6793).
    pub const FOUR_OCTET_AS: u8 = 65;
    /// Enhanced route refresh (RFC 7313).
    pub const ENHANCED_ROUTE_REFRESH: u8 = 70;
}

/// A capability that a speaker announces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Multiprotocol extensions for one family, code 1 (RFC 4760 §8).
    Multiprotocol(Family),
    /// Route refresh, code 2 (RFC 2918).
    RouteRefresh,
    /// Extended next hop encoding, code 5: NLRI family, and AFI of the next hop (RFC 8950 §4).
    ExtendedNextHop(Vec<(Family, u16)>),
    /// Extended message, code 6 (RFC 8654).
    ExtendedMessage,
    /// Graceful restart, code 64 (RFC 4724 §3, N-bit RFC 8538 §2).
    GracefulRestart(GracefulRestart),
    /// Four-octet AS number, code 65 (RFC 6793).
    FourOctetAs(Asn),
    /// Enhanced route refresh, code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Any other.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value as received.
        value: Vec<u8>,
    },
}

/// The graceful restart capability's value (RFC 4724 §3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarted: bool,
    /// N: NOTIFICATION and hold timer expiry keep state too (RFC 8538 §2).
    pub notification: bool,
    /// Seconds until the session should be back, at most 4,095.
    pub restart_time: u16,
    /// Families, each with F: forwarding state was preserved.
    pub families: Vec<(Family, bool)>,
}

/// Longest restart time: twelve bits.
const MAX_RESTART_TIME: u16 = 0x0fff;
/// R in the first two octets of graceful restart.
const FLAG_RESTARTED: u16 = 0x8000;
/// N in the first two octets of graceful restart.
const FLAG_NOTIFICATION: u16 = 0x4000;
/// F in a family's flags.
const FLAG_FORWARDING: u8 = 0x80;

impl Capability {
    /// The capability's code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Multiprotocol(_) => code::MULTIPROTOCOL,
            Self::RouteRefresh => code::ROUTE_REFRESH,
            Self::ExtendedNextHop(_) => code::EXTENDED_NEXT_HOP,
            Self::ExtendedMessage => code::EXTENDED_MESSAGE,
            Self::GracefulRestart(_) => code::GRACEFUL_RESTART,
            Self::FourOctetAs(_) => code::FOUR_OCTET_AS,
            Self::EnhancedRouteRefresh => code::ENHANCED_ROUTE_REFRESH,
            Self::Unknown { code, .. } => *code,
        }
    }

    /// Writes code, length and value; nothing where the value is over 255 octets, which the length can't say.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0]);
        match self {
            Self::Multiprotocol(family) => {
                out.extend_from_slice(&family.afi.to_be_bytes());
                out.extend_from_slice(&[0, family.safi]);
            }
            Self::RouteRefresh | Self::ExtendedMessage | Self::EnhancedRouteRefresh => {}
            Self::ExtendedNextHop(next_hops) => {
                for (family, next_hop_afi) in next_hops {
                    out.extend_from_slice(&family.afi.to_be_bytes());
                    out.extend_from_slice(&[0, family.safi]);
                    out.extend_from_slice(&next_hop_afi.to_be_bytes());
                }
            }
            Self::GracefulRestart(value) => value.encode(out),
            Self::FourOctetAs(asn) => out.extend_from_slice(&asn.to_be_bytes()),
            Self::Unknown { value, .. } => out.extend_from_slice(value),
        }
        match u8::try_from(out.len() - start - 2) {
            Ok(len) => out[start + 1] = len,
            Err(_) => out.truncate(start),
        }
    }

    /// Reads a value. A value that does not have its code's form makes the OPEN malformed: `None`.
    fn decode(code: u8, value: &[u8]) -> Option<Self> {
        Some(match code {
            code::MULTIPROTOCOL => Self::Multiprotocol(whole(value, family_with_reserved)?),
            // The value of these is empty, and without meaning where it is not.
            code::ROUTE_REFRESH => Self::RouteRefresh,
            code::EXTENDED_MESSAGE => Self::ExtendedMessage,
            code::ENHANCED_ROUTE_REFRESH => Self::EnhancedRouteRefresh,
            code::EXTENDED_NEXT_HOP => Self::ExtendedNextHop(all(value, extended_next_hop)?),
            code::GRACEFUL_RESTART => Self::GracefulRestart(GracefulRestart::decode(value)?),
            code::FOUR_OCTET_AS => Self::FourOctetAs(whole(value, be_u32)?),
            _ => Self::Unknown {
                code,
                value: value.to_vec(),
            },
        })
    }
}

impl GracefulRestart {
    fn decode(value: &[u8]) -> Option<Self> {
        let (rest, flags) = be_u16::<_, nom::error::Error<&[u8]>>(value).ok()?;
        Some(Self {
            restarted: flags & FLAG_RESTARTED != 0,
            notification: flags & FLAG_NOTIFICATION != 0,
            restart_time: flags & MAX_RESTART_TIME,
            families: all(rest, restart_family)?,
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = self.restart_time.min(MAX_RESTART_TIME);
        if self.restarted {
            flags |= FLAG_RESTARTED;
        }
        if self.notification {
            flags |= FLAG_NOTIFICATION;
        }
        out.extend_from_slice(&flags.to_be_bytes());
        for (family, forwarding) in &self.families {
            out.extend_from_slice(&family.afi.to_be_bytes());
            out.extend_from_slice(&[family.safi, if *forwarding { FLAG_FORWARDING } else { 0 }]);
        }
    }
}

/// Reads all capabilities in one optional parameter.
pub(crate) fn decode_all(
    mut parameter: &[u8],
    capabilities: &mut Vec<Capability>,
) -> Result<(), &'static str> {
    while !parameter.is_empty() {
        let (rest, (code, value)) =
            triple(parameter).map_err(|_| "OPEN: capability overruns its optional parameter")?;
        capabilities.push(
            Capability::decode(code, value)
                .ok_or("OPEN: capability's value has the wrong length")?,
        );
        parameter = rest;
    }
    Ok(())
}

/// Code, length and value.
fn triple(input: &[u8]) -> IResult<&[u8], (u8, &[u8])> {
    (be_u8, length_data(be_u8)).parse(input)
}

/// AFI, a reserved octet and SAFI (RFC 4760 §8).
fn family_with_reserved(input: &[u8]) -> IResult<&[u8], Family> {
    (be_u16, be_u8, be_u8)
        .map(|(afi, _reserved, safi)| Family { afi, safi })
        .parse(input)
}

/// AFI, SAFI in two octets, and the next hop's AFI (RFC 8950 §4).
fn extended_next_hop(input: &[u8]) -> IResult<&[u8], (Family, u16)> {
    (family_with_reserved, be_u16).parse(input)
}

/// AFI, SAFI and flags (RFC 4724 §3).
fn restart_family(input: &[u8]) -> IResult<&[u8], (Family, bool)> {
    (be_u16, be_u8, be_u8)
        .map(|(afi, safi, flags)| (Family { afi, safi }, flags & FLAG_FORWARDING != 0))
        .parse(input)
}

/// The one item that takes up all of `input`.
fn whole<'a, T>(input: &'a [u8], item: impl Fn(&'a [u8]) -> IResult<&'a [u8], T>) -> Option<T> {
    match item(input) {
        Ok(([], value)) => Some(value),
        _ => None,
    }
}

/// Items until `input` ends, which must be where an item ends.
fn all<'a, T>(
    mut input: &'a [u8],
    item: impl Fn(&'a [u8]) -> IResult<&'a [u8], T>,
) -> Option<Vec<T>> {
    let mut items = Vec::new();
    while !input.is_empty() {
        let (rest, value) = item(input).ok()?;
        items.push(value);
        input = rest;
    }
    Some(items)
}

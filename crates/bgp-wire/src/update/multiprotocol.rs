//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760), and next hops (RFC 2545, RFC 8950).
//!
//! Where one of these is malformed its prefixes can't be found, so nothing weaker than a reset would
//! do (RFC 7606 §5.3, §7.11). RFC 4760 §7 names the subcode: Optional Attribute Error.

use super::section::{MpUnreach, Raw, Section, error};
use crate::cursor::Cursor;
use crate::notification::update_error;
use crate::{Family, MessageError, NextHop, Nlri};

impl<'a> Section<'a> {
    /// RFC 4760 §3.
    pub(super) fn mp_reach(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let malformed = |reason| malformed(raw, reason);
        let mut cursor = Cursor::new(raw.value);
        let (Some(afi), Some(safi), Some(len)) = (cursor.u16(), cursor.u8(), cursor.u8()) else {
            return Err(malformed("MP_REACH_NLRI: truncated"));
        };
        let (Some(next_hop), Some(_reserved)) = (cursor.take(len.into()), cursor.u8()) else {
            return Err(malformed("MP_REACH_NLRI: next hop overruns the attribute"));
        };
        let family = Family { afi, safi };
        let len_fits = match family {
            Family::IPV4_UNICAST => matches!(len, 4 | 16 | 32),
            Family::IPV6_UNICAST => matches!(len, 16 | 32),
            _ => {
                self.parsed.has_other_family = true;
                self.discard(raw.code, "family is not supported");
                return Ok(());
            }
        };
        let next_hop = from_bytes(next_hop)
            .filter(|_| len_fits)
            .ok_or_else(|| malformed("MP_REACH_NLRI: next hop length does not fit the family"))?;
        let run = Nlri::check(family, cursor.rest())
            .map_err(|_| malformed("MP_REACH_NLRI: malformed prefix"))?;
        let next_hop = straighten(next_hop);
        if !is_host(next_hop) {
            let subcode = update_error::OPTIONAL_ATTRIBUTE_ERROR;
            self.withdraw(
                raw.code,
                "next hop is not an address of a host",
                subcode,
                raw.whole,
            );
        }
        self.parsed.mp_reach = Some((next_hop, run));
        Ok(())
    }

    /// RFC 4760 §4.
    pub(super) fn mp_unreach(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let mut cursor = Cursor::new(raw.value);
        let (Some(afi), Some(safi)) = (cursor.u16(), cursor.u8()) else {
            return Err(malformed(raw, "MP_UNREACH_NLRI: truncated"));
        };
        let family = Family { afi, safi };
        let empty = cursor.is_empty();
        let run = match family {
            Family::IPV4_UNICAST | Family::IPV6_UNICAST => Some(
                Nlri::check(family, cursor.rest())
                    .map_err(|_| malformed(raw, "MP_UNREACH_NLRI: malformed prefix"))?,
            ),
            _ => None,
        };
        if run.is_none() && !empty {
            self.discard(raw.code, "family is not supported");
        }
        self.parsed.mp_unreach = Some(MpUnreach { family, run, empty });
        Ok(())
    }
}

/// A next hop by its length: 4, 16 or 32 octets.
pub(crate) fn from_bytes(bytes: &[u8]) -> Option<NextHop> {
    let mut cursor = Cursor::new(bytes);
    Some(match bytes.len() {
        4 => NextHop::V4(cursor.ipv4()?),
        16 => NextHop::V6(cursor.ipv6()?),
        32 => NextHop::V6WithLinkLocal(cursor.ipv6()?, cursor.ipv6()?),
        _ => return None,
    })
}

/// Straightens what speakers in the field put into 32 octets, where RFC 2545 §3 wants a global and a
/// link-local address: a second address that is no link-local one goes, and where there is no global
/// one the link-local one stands alone.
fn straighten(next_hop: NextHop) -> NextHop {
    if let NextHop::V6WithLinkLocal(first, second) = next_hop {
        if !second.is_unicast_link_local() {
            return NextHop::V6(first);
        }
        if first.is_unspecified() || first == second {
            return NextHop::V6(second);
        }
    }
    next_hop
}

/// Whether the address can be a host's: for IPv4 neither 0/8 nor 127/8 nor class D or E (RFC 4271
/// §6.3).
pub(super) fn is_host(next_hop: NextHop) -> bool {
    match next_hop {
        NextHop::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        NextHop::V6(address) | NextHop::V6WithLinkLocal(address, _) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

fn malformed(raw: Raw<'_>, reason: &'static str) -> MessageError {
    error(reason, update_error::OPTIONAL_ATTRIBUTE_ERROR, raw.whole)
}

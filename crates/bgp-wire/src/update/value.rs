//! The values of single attributes.

use std::net::Ipv4Addr;

use super::multiprotocol::is_host;
use super::section::{Mode, Raw, Section};
use crate::as_path::Accept;
use crate::attribute::{code as attr, flag};
use crate::cursor::{Cursor, exact};
use crate::notification::update_error;
use crate::{
    Aggregator, AsPath, Community, ExtendedCommunity, Ipv6ExtendedCommunity, LargeCommunity,
    NextHop, Origin,
};

const WRONG_LENGTH: &str = "wrong length";

impl<'a> Section<'a> {
    /// Reads a value whose length fits its rule. The error says what is wrong with it.
    pub(super) fn value(&mut self, raw: Raw<'a>) -> Result<(), &'static str> {
        let value = raw.value;
        let attributes = &mut self.parsed.attributes;
        match raw.code {
            attr::ORIGIN => {
                let [value] = fixed(value)?;
                attributes.origin = Origin::from_value(value).ok_or("undefined value")?;
            }
            attr::AS_PATH => attributes.as_path = as_path(value, self.mode)?,
            attr::NEXT_HOP => {
                let next_hop = NextHop::V4(fixed(value)?.into());
                attributes.next_hop = Some(next_hop);
                if !is_host(next_hop) {
                    return Err("not an address of a host");
                }
            }
            attr::MULTI_EXIT_DISC => attributes.med = Some(u32::from_be_bytes(fixed(value)?)),
            attr::LOCAL_PREF => attributes.local_pref = Some(u32::from_be_bytes(fixed(value)?)),
            attr::ATOMIC_AGGREGATE => attributes.atomic_aggregate = true,
            attr::AGGREGATOR => {
                attributes.aggregator = Some(aggregator(value, self.mode)?);
                attributes.partial.aggregator = is_partial(raw);
            }
            attr::COMMUNITIES => {
                attributes.communities = items(value, |item| Community(u32::from_be_bytes(item)));
                attributes.partial.communities = is_partial(raw);
            }
            attr::ORIGINATOR_ID => attributes.originator_id = Some(fixed(value)?.into()),
            attr::CLUSTER_LIST => attributes.cluster_list = items(value, Ipv4Addr::from),
            attr::EXTENDED_COMMUNITIES => {
                attributes.extended_communities = items(value, ExtendedCommunity);
                attributes.partial.extended_communities = is_partial(raw);
            }
            attr::IPV6_EXTENDED_COMMUNITIES => {
                attributes.ipv6_extended_communities = items(value, Ipv6ExtendedCommunity);
                attributes.partial.ipv6_extended_communities = is_partial(raw);
            }
            attr::LARGE_COMMUNITY => {
                attributes.large_communities = items(value, LargeCommunity::from_bytes);
                attributes.partial.large_communities = is_partial(raw);
                if !self.mode.own {
                    LargeCommunity::dedup(&mut attributes.large_communities);
                }
            }
            attr::AS4_PATH | attr::AS4_AGGREGATOR => return self.as4(raw),
            _ => {}
        }
        Ok(())
    }

    /// AS4_PATH and AS4_AGGREGATOR (RFC 6793 §4.1, §6).
    fn as4(&mut self, raw: Raw<'a>) -> Result<(), &'static str> {
        if self.mode.four_octet_as {
            return Err("not allowed from a peer with four-octet AS numbers (RFC 6793)");
        }
        let four_octets = Mode {
            four_octet_as: true,
            ..self.mode
        };
        if raw.code == attr::AS4_AGGREGATOR {
            self.as4_aggregator = Some(aggregator(raw.value, four_octets)?);
            return Ok(());
        }
        if raw.value.is_empty() {
            return Err(WRONG_LENGTH);
        }
        // Confederation segments are to be taken out, not refused.
        let accept = Accept {
            sets: true,
            confederations: true,
            zero: false,
        };
        let path = AsPath::decode(raw.value, 4, accept)?;
        if path.segments.iter().any(|segment| segment.kind.is_set()) {
            let subcode = update_error::OPTIONAL_ATTRIBUTE_ERROR;
            self.withdraw(raw.code, "has an AS_SET (RFC 9774)", subcode, raw.whole);
        }
        self.as4_path = Some(path.without_confederations());
        Ok(())
    }
}

fn as_path(value: &[u8], mode: Mode) -> Result<AsPath, &'static str> {
    let width = if mode.four_octet_as { 4 } else { 2 };
    let accept = Accept {
        sets: mode.own,
        confederations: !mode.external,
        zero: mode.own,
    };
    AsPath::decode(value, width, accept)
}

/// RFC 4271 §4.3 g, with two or four octets of AS number (RFC 6793 §4.1); AS 0 is malformed
/// (RFC 7607 §2).
fn aggregator(value: &[u8], mode: Mode) -> Result<Aggregator, &'static str> {
    let mut cursor = Cursor::new(value);
    let asn = if mode.four_octet_as {
        cursor.u32()
    } else {
        cursor.u16().map(u32::from)
    };
    match (asn, cursor.ipv4(), cursor.is_empty()) {
        (Some(0), Some(_), true) if !mode.own => Err("has AS 0 (RFC 7607)"),
        (Some(asn), Some(router_id), true) => Ok(Aggregator { asn, router_id }),
        _ => Err(WRONG_LENGTH),
    }
}

fn is_partial(raw: Raw<'_>) -> bool {
    raw.flags & flag::PARTIAL != 0
}

fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N], &'static str> {
    exact(value).ok_or(WRONG_LENGTH)
}

fn items<T, const N: usize>(value: &[u8], item: impl Fn([u8; N]) -> T) -> Vec<T> {
    value
        .as_chunks()
        .0
        .iter()
        .map(|bytes| item(*bytes))
        .collect()
}

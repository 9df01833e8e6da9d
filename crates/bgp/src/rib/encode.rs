//! Whole UPDATE messages, many prefixes in each.

use bgp_wire::{Context, Family, NextHop, UpdateBuilder};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// More than any message needs beside prefixes and attributes: header, lengths, MP_REACH_NLRI with its next hop, and
/// one longest prefix.
const AMPLE: usize = 128;

/// Whether a message has room for any prefix of the family beside these attributes (RFC 8654 §4).
pub(super) fn fits(context: &Context, family: Family, next_hop: NextHop, section: &[u8]) -> bool {
    if section.len() + AMPLE <= context.max_message_len() {
        return true;
    }
    let longest = if family == Family::IPV4_UNICAST {
        Ipv4Net::new(std::net::Ipv4Addr::UNSPECIFIED, 32).map(IpNet::V4)
    } else {
        Ipv6Net::new(std::net::Ipv6Addr::UNSPECIFIED, 128).map(IpNet::V6)
    };
    let mut scratch = Vec::new();
    let mut builder = UpdateBuilder::announce(&mut scratch, context, section, next_hop, family);
    longest.is_ok_and(|prefix| builder.push(prefix).is_ok())
}

/// Appends as many messages as these prefixes need; returns how many those are. `section` holds the attributes of all
/// of them; it [`fits`].
pub(super) fn announce(
    out: &mut Vec<u8>,
    context: &Context,
    family: Family,
    next_hop: NextHop,
    section: &[u8],
    prefixes: impl IntoIterator<Item = IpNet>,
) -> u32 {
    pack(out, context, family, Some((section, next_hop)), prefixes)
}

/// Appends as many messages as the withdrawal of these prefixes needs; returns how many those are.
pub(super) fn withdraw(
    out: &mut Vec<u8>,
    context: &Context,
    family: Family,
    prefixes: impl IntoIterator<Item = IpNet>,
) -> u32 {
    pack(out, context, family, None, prefixes)
}

/// Announces with this section and next hop, or withdraws.
fn pack(
    out: &mut Vec<u8>,
    context: &Context,
    family: Family,
    announced: Option<(&[u8], NextHop)>,
    prefixes: impl IntoIterator<Item = IpNet>,
) -> u32 {
    let mut messages = 0;
    let mut prefixes = prefixes.into_iter();
    let mut next = prefixes.next();
    while next.is_some() {
        let mut builder = match announced {
            Some((section, next_hop)) => {
                UpdateBuilder::announce(out, context, section, next_hop, family)
            }
            None => UpdateBuilder::withdraw(out, context, family),
        };
        while let Some(prefix) = next
            && builder.push(prefix).is_ok()
        {
            next = prefixes.next();
        }
        if builder.finish().is_empty() {
            // No room for even one: nothing would change by trying again.
            break;
        }
        messages += 1;
    }
    messages
}

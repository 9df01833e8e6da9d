//! Attributes to bytes: the section for a session, and the canonical form.

use super::{Attributes, NextHop, UnknownAttribute, code, flag};
use crate::{AS_TRANS, Context, update};

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const NON_TRANSITIVE: u8 = flag::OPTIONAL;

impl Attributes {
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
            _ => Some(update::next_hop_from_bytes(next_hop)?),
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
        let mut writer = Writer {
            out,
            unknown: &self.unknown,
            four_octet_as,
        };
        self.write_well_known(&mut writer, with_next_hop);
        self.write_optional(&mut writer);
        writer.finish();
    }

    /// Codes 1 to 7: the base specification's.
    fn write_well_known(&self, writer: &mut Writer<'_>, with_next_hop: bool) {
        writer.attribute(WELL_KNOWN, code::ORIGIN, [self.origin.value()]);
        if writer.four_octet_as {
            writer.header(WELL_KNOWN, code::AS_PATH, self.as_path.encoded_len(4));
            self.as_path.encode4(writer.out);
        } else {
            writer.header(WELL_KNOWN, code::AS_PATH, self.as_path.encoded_len(2));
            self.as_path.encode2(writer.out);
        }
        if with_next_hop && let Some(NextHop::V4(next_hop)) = self.next_hop {
            writer.attribute(WELL_KNOWN, code::NEXT_HOP, next_hop.octets());
        }
        if let Some(med) = self.med {
            writer.attribute(NON_TRANSITIVE, code::MULTI_EXIT_DISC, med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            writer.attribute(WELL_KNOWN, code::LOCAL_PREF, local_pref.to_be_bytes());
        }
        if self.atomic_aggregate {
            writer.attribute(WELL_KNOWN, code::ATOMIC_AGGREGATE, []);
        }
        if let Some(aggregator) = &self.aggregator {
            let flags = transitive(self.partial.aggregator);
            if writer.four_octet_as {
                writer.header(flags, code::AGGREGATOR, 8);
                writer.out.extend_from_slice(&aggregator.asn.to_be_bytes());
            } else {
                writer.header(flags, code::AGGREGATOR, 6);
                let asn = u16::try_from(aggregator.asn).unwrap_or(AS_TRANS);
                writer.out.extend_from_slice(&asn.to_be_bytes());
            }
            writer.out.extend_from_slice(&aggregator.router_id.octets());
        }
    }

    /// Codes from 8 on.
    fn write_optional(&self, writer: &mut Writer<'_>) {
        let flags = transitive(self.partial.communities);
        writer.items(flags, code::COMMUNITIES, &self.communities, |item| {
            item.0.to_be_bytes()
        });
        if let Some(originator_id) = self.originator_id {
            writer.attribute(NON_TRANSITIVE, code::ORIGINATOR_ID, originator_id.octets());
        }
        writer.items(
            NON_TRANSITIVE,
            code::CLUSTER_LIST,
            &self.cluster_list,
            |item| item.octets(),
        );
        let flags = transitive(self.partial.extended_communities);
        writer.items(
            flags,
            code::EXTENDED_COMMUNITIES,
            &self.extended_communities,
            |item| item.0,
        );
        if !writer.four_octet_as {
            self.write_as4(writer);
        }
        let flags = transitive(self.partial.ipv6_extended_communities);
        writer.items(
            flags,
            code::IPV6_EXTENDED_COMMUNITIES,
            &self.ipv6_extended_communities,
            |item| item.0,
        );
        let flags = transitive(self.partial.large_communities);
        writer.items(
            flags,
            code::LARGE_COMMUNITY,
            &self.large_communities,
            |item| item.to_bytes(),
        );
    }

    /// What a peer with two-octet numbers is to pass on for us (RFC 6793 §4.2.2).
    fn write_as4(&self, writer: &mut Writer<'_>) {
        if let Some(as4_path) = self.as_path.as4_path() {
            writer.header(transitive(false), code::AS4_PATH, as4_path.encoded_len(4));
            as4_path.encode4(writer.out);
        }
        if let Some(aggregator) = self.aggregator.filter(|it| it.asn > u32::from(u16::MAX)) {
            writer.header(transitive(false), code::AS4_AGGREGATOR, 8);
            writer.out.extend_from_slice(&aggregator.asn.to_be_bytes());
            writer.out.extend_from_slice(&aggregator.router_id.octets());
        }
    }
}

fn transitive(partial: bool) -> u8 {
    flag::OPTIONAL | flag::TRANSITIVE | if partial { flag::PARTIAL } else { 0 }
}

/// A section being written. Unknown attributes may have any code: each known one lets those with lower codes go first.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    unknown: &'a [UnknownAttribute],
    four_octet_as: bool,
}

impl Writer<'_> {
    /// The start of an attribute; its value is to follow.
    #[inline]
    fn header(&mut self, flags: u8, code: u8, len: usize) {
        if !self.unknown.is_empty() {
            self.unknown_before(code);
        }
        encode_header(flags, code, len, self.out);
    }

    fn unknown_before(&mut self, code: u8) {
        while let Some((first, rest)) = self.unknown.split_first()
            && first.code < code
        {
            first.encode(self.out);
            self.unknown = rest;
        }
    }

    /// An attribute that is always of the same length.
    #[inline]
    fn attribute<const N: usize>(&mut self, flags: u8, code: u8, value: [u8; N]) {
        self.header(flags, code, N);
        self.out.extend_from_slice(&value);
    }

    /// A list, which an empty one has no attribute for.
    fn items<T, const N: usize>(
        &mut self,
        flags: u8,
        code: u8,
        items: &[T],
        bytes: impl Fn(&T) -> [u8; N],
    ) {
        if items.is_empty() {
            return;
        }
        self.header(flags, code, N * items.len());
        self.out.extend(items.iter().flat_map(bytes));
    }

    /// The unknown attributes with the highest codes.
    fn finish(self) {
        for rest in self.unknown {
            rest.encode(self.out);
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

/// Writes flags, type code and length, the length in two octets only where one is too short.
#[inline]
pub(crate) fn encode_header(flags: u8, code: u8, len: usize, out: &mut Vec<u8>) {
    if let Ok(len) = u8::try_from(len) {
        out.extend_from_slice(&[flags, code, len]);
    } else {
        out.extend_from_slice(&[flags | flag::EXTENDED_LENGTH, code]);
        out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    }
}

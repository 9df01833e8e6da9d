//! Writing UPDATEs: many prefixes beside one attribute section.

use std::ops::Range;

use ipnet::IpNet;

use crate::attribute::{code as attr, encode_header, flag};
use crate::{Context, Family, NextHop, header, nlri};

/// Why a prefix was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room for it: finish this message and start another. Where not even a first prefix has room, the
    /// attributes are too long for the session, and the route is to be withdrawn instead (RFC 8654 §4).
    #[error("no room left in the message")]
    Full,
    /// It is not of the message's family.
    #[error("prefix is not of the message's family")]
    Family,
}

/// Where the prefixes go.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// The NLRI field, which ends the message.
    Nlri,
    /// The Withdrawn Routes field, whose length is at `len_at`; an empty attribute section follows it.
    Withdrawn { len_at: usize },
    /// MP_REACH_NLRI or MP_UNREACH_NLRI, first in the attribute section (RFC 7606 §5.1), its header at `attribute_at`.
    Multiprotocol { attribute_at: usize },
}

/// How much longer a multiprotocol attribute gets where its length needs two octets.
const EXTENDED: usize = 1;

/// Writes one UPDATE at the end of a buffer, as many prefixes in it as fit.
///
/// The attribute section is encoded once, by [`Attributes::encode`](crate::Attributes::encode), and shared by all
/// messages that carry it. Nothing is written where no prefix was taken, and dropping a builder undoes it.
///
/// ```
/// use bgp_wire::{Context, Family, UpdateBuilder};
/// use ipnet::IpNet;
///
/// // As many messages as it takes.
/// fn withdraw_all(context: &Context, prefixes: impl IntoIterator<Item = IpNet>, out: &mut Vec<u8>) {
///     let mut prefixes = prefixes.into_iter().peekable();
///     while prefixes.peek().is_some() {
///         let mut builder = UpdateBuilder::withdraw(out, context, Family::IPV4_UNICAST);
///         while let Some(prefix) = prefixes.peek() {
///             if builder.push(*prefix).is_err() {
///                 break;
///             }
///             prefixes.next();
///         }
///         builder.finish();
///     }
/// }
///
/// let mut out = Vec::new();
/// let prefixes = (0..2000u32).map(|n| IpNet::new_assert(std::net::Ipv4Addr::from_bits(n << 8).into(), 24));
/// withdraw_all(&Context::default(), prefixes, &mut out);
/// assert_eq!(out.len(), 2000 * 4 + 2 * 23);
/// ```
#[derive(Debug)]
pub struct UpdateBuilder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    /// Where `out` may grow to before what [`finish`](Self::finish) appends.
    limit: usize,
    family: Family,
    form: Form,
    count: usize,
    /// What goes behind the prefixes: the section up to its NEXT_HOP and from there on.
    tail: [&'a [u8]; 2],
}

impl<'a> UpdateBuilder<'a> {
    /// An announcement of `family` with this section and next hop.
    ///
    /// IPv4 unicast with an IPv4 next hop goes into the message's own fields, `next_hop` in NEXT_HOP; anything else
    /// into MP_REACH_NLRI (RFC 4760, RFC 8950). A NEXT_HOP in `section` does not count: it is replaced or left out.
    /// An IPv4 next hop for another family is written as an IPv4-mapped IPv6 address.
    #[must_use]
    pub fn announce(
        out: &'a mut Vec<u8>,
        context: &Context,
        section: &'a [u8],
        next_hop: NextHop,
        family: Family,
    ) -> Self {
        let parts = around_next_hop(section);
        let start = header::begin(out, header::kind::UPDATE);
        let limit = start + context.max_message_len();
        out.extend_from_slice(&[0; 4]);
        let section_at = out.len();
        if let (Family::IPV4_UNICAST, NextHop::V4(address)) = (family, next_hop) {
            let (before, after) = parts;
            let [a, b, c, d] = address.octets();
            out.extend_from_slice(before);
            out.extend_from_slice(&[flag::TRANSITIVE, attr::NEXT_HOP, 4, a, b, c, d]);
            out.extend_from_slice(after);
            put_len(out, section_at - 2);
            return Self::new(out, start, limit, family, Form::Nlri);
        }
        let next_hop = if let NextHop::V4(address) = next_hop
            && family != Family::IPV4_UNICAST
        {
            NextHop::V6(address.to_ipv6_mapped())
        } else {
            next_hop
        };
        multiprotocol_header(attr::MP_REACH_NLRI, family, out);
        out.push(next_hop.encoded_len());
        next_hop.encode(out);
        out.push(0); // reserved
        let tail = match parts {
            // Nothing was cut out: there is one part to copy.
            (before, after) if before.len() + after.len() == section.len() => [section, &[]],
            (before, after) => [before, after],
        };
        let limit = limit.saturating_sub(EXTENDED + tail[0].len() + tail[1].len());
        let attribute_at = section_at;
        let form = Form::Multiprotocol { attribute_at };
        let mut builder = Self::new(out, start, limit, family, form);
        builder.tail = tail;
        builder
    }

    /// A withdrawal of `family`: IPv4 unicast in the message's own field, anything else in MP_UNREACH_NLRI.
    #[must_use]
    pub fn withdraw(out: &'a mut Vec<u8>, context: &Context, family: Family) -> Self {
        if family != Family::IPV4_UNICAST {
            return Self::withdraw_multiprotocol(out, context, family);
        }
        let start = header::begin(out, header::kind::UPDATE);
        let len_at = out.len();
        out.extend_from_slice(&[0, 0]);
        // Two octets stay free for the length of the empty attribute section.
        let limit = start + context.max_message_len() - 2;
        Self::new(out, start, limit, family, Form::Withdrawn { len_at })
    }

    /// A withdrawal in MP_UNREACH_NLRI whatever the family: for IPv4 unicast that was announced in MP_REACH_NLRI.
    #[must_use]
    pub fn withdraw_multiprotocol(out: &'a mut Vec<u8>, context: &Context, family: Family) -> Self {
        let start = header::begin(out, header::kind::UPDATE);
        let limit = start + context.max_message_len() - EXTENDED;
        out.extend_from_slice(&[0; 4]);
        let attribute_at = out.len();
        multiprotocol_header(attr::MP_UNREACH_NLRI, family, out);
        Self::new(
            out,
            start,
            limit,
            family,
            Form::Multiprotocol { attribute_at },
        )
    }

    /// One whose prefixes go where `out` ends.
    fn new(out: &'a mut Vec<u8>, start: usize, limit: usize, family: Family, form: Form) -> Self {
        Self {
            out,
            start,
            limit,
            family,
            form,
            count: 0,
            tail: [&[], &[]],
        }
    }

    /// Adds a prefix.
    ///
    /// # Errors
    ///
    /// It was not added: see [`PushError`].
    // Out of line, a prefix would be copied into memory for the call, which takes as long as to write it.
    #[inline(always)]
    pub fn push(&mut self, prefix: IpNet) -> Result<(), PushError> {
        if Family::of(prefix) != self.family {
            return Err(PushError::Family);
        }
        if self.out.len() + nlri::encoded_len(prefix) > self.limit {
            return Err(PushError::Full);
        }
        nlri::encode(prefix, self.out);
        self.count += 1;
        Ok(())
    }

    /// How many prefixes were added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Ends the message: where in the buffer it is; empty where no prefix was added.
    pub fn finish(mut self) -> Range<usize> {
        if self.count == 0 {
            // Dropping it cuts off what there is.
            return self.start..self.start;
        }
        match self.form {
            Form::Nlri => {}
            Form::Withdrawn { len_at } => {
                put_len(self.out, len_at);
                self.out.extend_from_slice(&[0, 0]);
            }
            Form::Multiprotocol { attribute_at } => self.finish_multiprotocol(attribute_at),
        }
        header::finish(self.out, self.start);
        let range = self.start..self.out.len();
        self.start = range.end;
        range
    }

    fn finish_multiprotocol(&mut self, attribute_at: usize) {
        finish_multiprotocol_header(self.out, attribute_at);
        let [before, after] = self.tail;
        self.out.extend_from_slice(before);
        if !after.is_empty() {
            self.out.extend_from_slice(after);
        }
        put_len(self.out, attribute_at - 2);
    }
}

impl Drop for UpdateBuilder<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}

/// Writes the End-of-RIB of a family (RFC 4724 §2).
pub fn encode_end_of_rib(family: Family, out: &mut Vec<u8>) {
    let start = header::begin(out, header::kind::UPDATE);
    if family == Family::IPV4_UNICAST {
        out.extend_from_slice(&[0, 0, 0, 0]);
    } else {
        out.extend_from_slice(&[0, 0, 0, 6]);
        encode_header(flag::OPTIONAL, attr::MP_UNREACH_NLRI, 3, out);
        out.extend_from_slice(&family.afi.to_be_bytes());
        out.push(family.safi);
    }
    header::finish(out, start);
}

/// Fills in a length of two octets at `at`: of what stands behind them.
fn put_len(out: &mut [u8], at: usize) {
    let len = u16::try_from(out.len() - at - 2).unwrap_or(u16::MAX);
    out[at..at + 2].copy_from_slice(&len.to_be_bytes());
}

/// Writes the header of a multiprotocol attribute with its length open, and the family. There is room for a length of one
/// octet: most messages need no more, and who has to move the rest for another octet has a long message to share the work.
fn multiprotocol_header(code: u8, family: Family, out: &mut Vec<u8>) {
    let [afi_high, afi_low] = family.afi.to_be_bytes();
    out.extend_from_slice(&[flag::OPTIONAL, code, 0, afi_high, afi_low, family.safi]);
}

/// Fills in the length of the multiprotocol attribute that ends the buffer, in two octets where one is too short.
fn finish_multiprotocol_header(out: &mut Vec<u8>, at: usize) {
    match u8::try_from(out.len() - at - 3) {
        Ok(len) => out[at + 2] = len,
        Err(_) => {
            out[at] |= flag::EXTENDED_LENGTH;
            out.insert(at + 2, 0);
            put_len(out, at + 2);
        }
    }
}

/// The parts of a well-formed section before and after its NEXT_HOP; where there is none, before and after its place.
fn around_next_hop(section: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some(&[flags, code, high, ..]) = section.get(at..) {
        let len = match section.get(at + 3) {
            Some(&low) if flags & flag::EXTENDED_LENGTH != 0 => {
                4 + usize::from(u16::from_be_bytes([high, low]))
            }
            _ => 3 + usize::from(high),
        };
        if code > attr::NEXT_HOP {
            break;
        }
        let next = section.len().min(at + len);
        if code == attr::NEXT_HOP {
            return (&section[..at], &section[next..]);
        }
        at = next;
    }
    section.split_at(at)
}

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
    /// MP_REACH_NLRI or MP_UNREACH_NLRI, first in the attribute section (RFC 7606 §5.1), its header at `attribute_at`
    /// with room for an extended length.
    Multiprotocol { attribute_at: usize },
}

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
        let (before, after) = around_next_hop(section);
        let start = header::begin(out, header::kind::UPDATE);
        let end = start + context.max_message_len();
        out.extend_from_slice(&[0, 0]);
        let len_at = out.len();
        out.extend_from_slice(&[0, 0]);
        if let (Family::IPV4_UNICAST, NextHop::V4(address)) = (family, next_hop) {
            out.extend_from_slice(before);
            encode_header(flag::TRANSITIVE, attr::NEXT_HOP, 4, out);
            out.extend_from_slice(&address.octets());
            out.extend_from_slice(after);
            let len = u16::try_from(out.len() - len_at - 2).unwrap_or(u16::MAX);
            out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
            return Self {
                out,
                start,
                limit: end,
                family,
                form: Form::Nlri,
                count: 0,
                tail: [&[], &[]],
            };
        }
        let next_hop = if let NextHop::V4(address) = next_hop
            && family != Family::IPV4_UNICAST
        {
            NextHop::V6(address.to_ipv6_mapped())
        } else {
            next_hop
        };
        let attribute_at = out.len();
        multiprotocol_header(attr::MP_REACH_NLRI, family, out);
        out.push(next_hop.encoded_len());
        next_hop.encode(out);
        out.push(0);
        let limit = end.saturating_sub(before.len() + after.len());
        let form = Form::Multiprotocol { attribute_at };
        Self {
            out,
            start,
            limit,
            family,
            form,
            count: 0,
            tail: [before, after],
        }
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
        Self {
            out,
            start,
            limit,
            family,
            form: Form::Withdrawn { len_at },
            count: 0,
            tail: [&[], &[]],
        }
    }

    /// A withdrawal in MP_UNREACH_NLRI whatever the family: for IPv4 unicast that was announced in MP_REACH_NLRI.
    #[must_use]
    pub fn withdraw_multiprotocol(out: &'a mut Vec<u8>, context: &Context, family: Family) -> Self {
        let start = header::begin(out, header::kind::UPDATE);
        let limit = start + context.max_message_len();
        out.extend_from_slice(&[0, 0, 0, 0]);
        let attribute_at = out.len();
        multiprotocol_header(attr::MP_UNREACH_NLRI, family, out);
        let form = Form::Multiprotocol { attribute_at };
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
    #[inline]
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
                let len = u16::try_from(self.out.len() - len_at - 2).unwrap_or(u16::MAX);
                self.out[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
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
        for part in self.tail {
            self.out.extend_from_slice(part);
        }
        let len = u16::try_from(self.out.len() - attribute_at).unwrap_or(u16::MAX);
        self.out[attribute_at - 2..attribute_at].copy_from_slice(&len.to_be_bytes());
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

/// Writes the header of a multiprotocol attribute with its length open, and the family.
fn multiprotocol_header(code: u8, family: Family, out: &mut Vec<u8>) {
    out.extend_from_slice(&[flag::OPTIONAL | flag::EXTENDED_LENGTH, code, 0, 0]);
    out.extend_from_slice(&family.afi.to_be_bytes());
    out.push(family.safi);
}

/// Fills in the length of the multiprotocol attribute that ends the buffer, in one octet where that will do.
fn finish_multiprotocol_header(out: &mut Vec<u8>, at: usize) {
    let len = out.len() - at - 4;
    if let Ok(len) = u8::try_from(len) {
        out[at] &= !flag::EXTENDED_LENGTH;
        out[at + 2] = len;
        out.remove(at + 3);
    } else {
        out[at + 2..at + 4].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
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

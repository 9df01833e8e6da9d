//! Prefixes in an UPDATE (RFC 4271 §4.3, RFC 4760 §5): a length in bits, and as many octets as it needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::Family;

/// A checked run of prefixes of one family, still as bytes: iterating it can't fail and allocates nothing.
///
/// Only IPv4 unicast and IPv6 unicast have runs. Bits beyond a prefix's length are zero in what
/// [`iter`](Self::iter) gives, whatever they were on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nlri<'a> {
    pub(crate) family: Family,
    pub(crate) bytes: &'a [u8],
    pub(crate) count: usize,
}

impl<'a> Nlri<'a> {
    /// Checks a run; the error says what is wrong with it.
    pub(crate) fn check(family: Family, bytes: &'a [u8]) -> Result<Self, &'static str> {
        let max = max_prefix_len(family).ok_or("prefixes of an unknown family")?;
        let mut count = 0;
        let mut at = 0;
        while let Some(&len) = bytes.get(at) {
            if len > max {
                return Err("prefix length over the family's maximum");
            }
            at += 1 + octets(len);
            count += 1;
        }
        if at == bytes.len() {
            Ok(Self {
                family,
                bytes,
                count,
            })
        } else {
            Err("prefix overruns its field")
        }
    }

    /// The family that all prefixes are of.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// How many prefixes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The prefixes, in the order of the wire; one may come more than once.
    #[must_use]
    pub fn iter(&self) -> Iter<'a> {
        Iter {
            v6: self.family == Family::IPV6_UNICAST,
            bytes: self.bytes,
            count: self.count,
        }
    }
}

impl<'a> IntoIterator for Nlri<'a> {
    type Item = IpNet;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &Nlri<'a> {
    type Item = IpNet;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The prefixes of an [`Nlri`].
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    v6: bool,
    bytes: &'a [u8],
    count: usize,
}

impl Iterator for Iter<'_> {
    type Item = IpNet;

    #[inline]
    fn next(&mut self) -> Option<IpNet> {
        let (&len, rest) = self.bytes.split_first()?;
        let address = rest;
        // The run was checked, so this is always there, and the constructors below never fail.
        self.bytes = rest.get(octets(len)..)?;
        self.count -= 1;
        if self.v6 {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            let address = u128::from_be_bytes(leading(address)) & mask;
            Ipv6Net::new(Ipv6Addr::from_bits(address), len)
                .ok()
                .map(IpNet::V6)
        } else {
            let address = u32::from_be_bytes(leading(address)) & mask_v4(len);
            Ipv4Net::new(Ipv4Addr::from_bits(address), len)
                .ok()
                .map(IpNet::V4)
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl std::iter::FusedIterator for Iter<'_> {}

/// Longest prefix of a family, where we know it.
fn max_prefix_len(family: Family) -> Option<u8> {
    match family {
        Family::IPV4_UNICAST => Some(32),
        Family::IPV6_UNICAST => Some(128),
        _ => None,
    }
}

/// The first `N` octets of `bytes`, zeros where it ends before. Those of the next prefix that come along are for the
/// caller's mask to take off: to copy a fixed length is several times faster than to copy the right one.
#[inline]
fn leading<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or_else(|| {
        let mut octets = [0; N];
        octets[..bytes.len()].copy_from_slice(bytes);
        octets
    })
}

/// How many octets a prefix of `len` bits takes, besides the length.
#[inline]
fn octets(len: u8) -> usize {
    usize::from(len).div_ceil(8)
}

/// How many octets a prefix takes on the wire.
#[inline]
pub(crate) fn encoded_len(prefix: IpNet) -> usize {
    1 + octets(prefix.prefix_len())
}

/// Writes one prefix, bits beyond its length zero.
#[inline]
pub(crate) fn encode(prefix: IpNet, out: &mut Vec<u8>) {
    let len = prefix.prefix_len();
    out.push(len);
    let end = out.len() + octets(len);
    // All octets of the address, then off with those too many: a fixed length copies fastest.
    match prefix {
        IpNet::V4(prefix) => {
            let network = prefix.addr().to_bits() & mask_v4(len);
            out.extend_from_slice(&network.to_be_bytes());
        }
        // Most prefixes end with an octet, and what is beyond that goes off anyway.
        IpNet::V6(prefix) if len.is_multiple_of(8) => {
            out.extend_from_slice(&prefix.addr().octets());
        }
        IpNet::V6(prefix) => out.extend_from_slice(&prefix.network().octets()),
    }
    out.truncate(end);
}

/// The first `len` bits set, for a length of 0 to 32. With more bits than needed a shift can't go too far, and takes one
/// instruction.
#[inline]
fn mask_v4(len: u8) -> u32 {
    let bits = (u64::from(u32::MAX) << 32) >> (len & 63);
    let [.., a, b, c, d] = bits.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

//! Communities of all three kinds (RFC 1997, RFC 4360, RFC 8092).

use std::collections::BTreeSet;

/// A standard community: two 16-bit halves in one number (RFC 1997).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

/// An extended community, opaque: eight octets (RFC 4360).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

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

    /// Takes out repeated values (RFC 8092 §5); in time proportional to n log n, since a peer chooses how many there are.
    pub(crate) fn dedup(communities: &mut Vec<Self>) {
        let mut seen = BTreeSet::new();
        if communities.len() > 1 {
            communities.retain(|community| seen.insert(*community));
        }
    }
}

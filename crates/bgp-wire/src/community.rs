//! Communities of all three kinds (RFC 1997, RFC 4360, RFC 8092).

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

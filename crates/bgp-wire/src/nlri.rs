//! Prefixes in an UPDATE (RFC 4271 §4.3, RFC 4760 §5).

use crate::Family;

/// A checked run of prefixes of one family, still as bytes: iterating it can't fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nlri<'a> {
    pub(crate) family: Family,
    pub(crate) bytes: &'a [u8],
}

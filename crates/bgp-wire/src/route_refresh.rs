//! ROUTE-REFRESH (RFC 2918; subtypes RFC 7313).

use crate::Family;

/// A ROUTE-REFRESH message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteRefresh {
    /// The family to send again.
    pub family: Family,
    /// 0 request, 1 beginning of a refresh, 2 its end (RFC 7313 §3.2).
    pub subtype: u8,
}

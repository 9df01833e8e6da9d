//! Capabilities in an OPEN (RFC 5492).

use crate::{Asn, Family};

/// A capability that a speaker announces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Multiprotocol extensions for one family, code 1 (RFC 4760 §8).
    Multiprotocol(Family),
    /// Route refresh, code 2 (RFC 2918).
    RouteRefresh,
    /// Extended next hop encoding, code 5: NLRI family, and AFI of the next hop (RFC 8950 §4).
    ExtendedNextHop(Vec<(Family, u16)>),
    /// Extended message, code 6 (RFC 8654).
    ExtendedMessage,
    /// Graceful restart, code 64 (RFC 4724 §3, N-bit RFC 8538 §2).
    GracefulRestart(GracefulRestart),
    /// Four-octet AS number, code 65 (RFC 6793).
    FourOctetAs(Asn),
    /// Enhanced route refresh, code 70 (RFC 7313).
    EnhancedRouteRefresh,
    /// Any other.
    Unknown {
        /// Its code.
        code: u8,
        /// Its value as received.
        value: Vec<u8>,
    },
}

/// The graceful restart capability's value (RFC 4724 §3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GracefulRestart {
    /// R: the sender has restarted.
    pub restarted: bool,
    /// N: NOTIFICATION and hold timer expiry keep state too (RFC 8538 §2).
    pub notification: bool,
    /// Seconds until the session should be back, at most 4,095.
    pub restart_time: u16,
    /// Families, each with F: forwarding state was preserved.
    pub families: Vec<(Family, bool)>,
}

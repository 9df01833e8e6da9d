//! OPEN (RFC 4271 §4.2).

use std::net::Ipv4Addr;

use crate::{Asn, Capability};

/// An OPEN message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Open {
    /// The sender's AS: from the four-octet capability where present (RFC 6793 §4.1), else My Autonomous System.
    pub asn: Asn,
    /// Hold time in seconds as proposed: 0, or at least 3.
    pub hold_time: u16,
    /// BGP identifier: any non-zero 32-bit number, written as an address (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Capabilities in the order of the wire.
    pub capabilities: Vec<Capability>,
}

//! Framing (RFC 4271 §4.1).

use crate::{Notification, Open, RouteRefresh, Update};

/// Length of the header: marker, length, type.
pub const LEN: usize = 19;
/// Longest message (RFC 4271 §4.1).
pub const MAX_LEN: usize = 4096;
/// Longest message where both sides allow extended ones (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65535;

/// Any message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// OPEN, type 1.
    Open(Open),
    /// UPDATE, type 2.
    Update(Update<'a>),
    /// NOTIFICATION, type 3.
    Notification(Notification),
    /// KEEPALIVE, type 4.
    Keepalive,
    /// ROUTE-REFRESH, type 5.
    RouteRefresh(RouteRefresh),
}

/// A message that ends the session: what was wrong, and the NOTIFICATION to send (none in answer to a malformed
/// NOTIFICATION, RFC 4271 §6.4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct MessageError {
    /// What was wrong, for a person.
    pub reason: &'static str,
    /// What to tell the peer.
    pub notification: Option<Notification>,
}

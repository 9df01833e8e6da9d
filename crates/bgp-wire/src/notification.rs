//! NOTIFICATION (RFC 4271 §4.5).

/// A NOTIFICATION: why a session ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Error code: 1 message header, 2 OPEN, 3 UPDATE, 4 hold timer, 5 state machine, 6 Cease, 7 ROUTE-REFRESH.
    pub code: u8,
    /// Error subcode, 0 when unspecific.
    pub subcode: u8,
    /// What went wrong, as the code says.
    pub data: Vec<u8>,
}

//! UPDATE (RFC 4271 §4.3), its faults handled as RFC 7606 says.

use crate::Attributes;
use crate::nlri::Nlri;

/// An UPDATE as received.
///
/// `reachable` and `unreachable` hold at most two runs each: that of the message's own IPv4 fields, and that of
/// MP_REACH_NLRI or MP_UNREACH_NLRI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update<'a> {
    /// Prefixes withdrawn.
    pub unreachable: Vec<Nlri<'a>>,
    /// Prefixes announced, all with [`attributes`](Self::attributes), and their next hop: the IPv4 fields' and
    /// MP_REACH_NLRI's may differ, so it stands with each run.
    pub reachable: Vec<(crate::NextHop, Nlri<'a>)>,
    /// The path attributes; `None` when nothing is announced, or when a fault makes the announcement a withdrawal.
    pub attributes: Option<Attributes>,
    /// What was wrong with the attributes, in the order of the wire.
    pub faults: Vec<Fault>,
}

/// One fault in the path attributes, and what RFC 7606 wants done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The attribute's type code.
    pub code: u8,
    /// What was wrong, for a person.
    pub reason: &'static str,
    /// What follows.
    pub reaction: Reaction,
}

/// What a malformed attribute leads to, weakest first (RFC 7606 §2). A session reset is a
/// [`MessageError`](crate::MessageError) instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// The attribute is dropped, the route kept.
    Discard,
    /// Every prefix that the message announces is withdrawn instead.
    TreatAsWithdraw,
}

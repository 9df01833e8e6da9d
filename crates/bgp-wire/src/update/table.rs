//! What each attribute is: the table that decides how a fault in it is handled.

use super::Reaction;
use crate::attribute::{code, flag};
use crate::notification::update_error;

/// Flags of a well-known attribute, which is always transitive.
pub(super) const WELL_KNOWN: u8 = flag::TRANSITIVE;
/// Flags of an optional non-transitive attribute.
pub(super) const NON_TRANSITIVE: u8 = flag::OPTIONAL;
/// Flags of an optional transitive attribute.
pub(super) const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// An attribute: the flags it must have, how long it is, who may send it, and what a malformed one
/// leads to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// OPTIONAL and TRANSITIVE as specified.
    pub(super) flags: u8,
    pub(super) length: Length,
    /// Reaction to a wrong length or value.
    pub(super) malformed: Reaction,
    /// The subcode that RFC 4271 §6.3 has for a wrong value.
    pub(super) subcode: u8,
    /// Dropped unread when it comes from an external peer.
    pub(super) internal_only: bool,
}

/// Which lengths an attribute may have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Length {
    Exactly(usize),
    /// At least one item of so many octets, and only whole ones.
    Items(usize),
    /// The value's own decoder knows.
    Any,
}

impl Length {
    pub(super) fn fits(self, len: usize) -> bool {
        match self {
            Self::Exactly(exactly) => len == exactly,
            Self::Items(size) => len != 0 && len.is_multiple_of(size),
            Self::Any => true,
        }
    }
}

impl Rule {
    /// The rule for an attribute; `None` for one that is unknown here.
    #[inline]
    pub(super) fn of(attribute: u8) -> Option<Self> {
        use Length::{Any, Exactly, Items};
        use Reaction::{Discard, TreatAsWithdraw as Withdraw};
        use update_error::{
            ATTRIBUTE_LENGTH_ERROR as LENGTH, INVALID_NEXT_HOP, INVALID_ORIGIN, MALFORMED_AS_PATH,
            OPTIONAL_ATTRIBUTE_ERROR as OPTIONAL,
        };
        let rule = |flags, length, malformed, subcode| Self {
            flags,
            length,
            malformed,
            subcode,
            internal_only: false,
        };
        Some(match attribute {
            // RFC 7606 §7.1 to §7.10, §7.14, §7.15.
            code::ORIGIN => rule(WELL_KNOWN, Exactly(1), Withdraw, INVALID_ORIGIN),
            code::AS_PATH => rule(WELL_KNOWN, Any, Withdraw, MALFORMED_AS_PATH),
            code::NEXT_HOP => rule(WELL_KNOWN, Exactly(4), Withdraw, INVALID_NEXT_HOP),
            code::MULTI_EXIT_DISC => rule(NON_TRANSITIVE, Exactly(4), Withdraw, OPTIONAL),
            code::LOCAL_PREF => rule(WELL_KNOWN, Exactly(4), Withdraw, LENGTH).internal_only(),
            code::ATOMIC_AGGREGATE => rule(WELL_KNOWN, Exactly(0), Discard, LENGTH),
            code::AGGREGATOR => rule(TRANSITIVE, Any, Discard, OPTIONAL),
            code::COMMUNITIES => rule(TRANSITIVE, Items(4), Withdraw, OPTIONAL),
            code::ORIGINATOR_ID => {
                rule(NON_TRANSITIVE, Exactly(4), Withdraw, OPTIONAL).internal_only()
            }
            code::CLUSTER_LIST => {
                rule(NON_TRANSITIVE, Items(4), Withdraw, OPTIONAL).internal_only()
            }
            // RFC 7606 §7.11, §7.12: what is malformed about these resets the session.
            code::MP_REACH_NLRI | code::MP_UNREACH_NLRI => {
                rule(NON_TRANSITIVE, Any, Withdraw, OPTIONAL)
            }
            code::EXTENDED_COMMUNITIES => rule(TRANSITIVE, Items(8), Withdraw, OPTIONAL),
            code::IPV6_EXTENDED_COMMUNITIES => rule(TRANSITIVE, Items(20), Withdraw, OPTIONAL),
            // RFC 6793 §6.
            code::AS4_PATH | code::AS4_AGGREGATOR => rule(TRANSITIVE, Any, Discard, OPTIONAL),
            // RFC 8092 §6.
            code::LARGE_COMMUNITY => rule(TRANSITIVE, Items(12), Withdraw, OPTIONAL),
            _ => return None,
        })
    }

    fn internal_only(self) -> Self {
        Self {
            internal_only: true,
            ..self
        }
    }

    /// Whether flags as received contradict what the attribute is: RFC 7606 §3 c, and RFC 4271
    /// §4.3 for Partial, which only optional transitive attributes may have.
    pub(super) fn conflicts(&self, flags: u8) -> bool {
        (flags ^ self.flags) & TRANSITIVE != 0
            || (flags & flag::PARTIAL != 0 && self.flags != TRANSITIVE)
    }
}

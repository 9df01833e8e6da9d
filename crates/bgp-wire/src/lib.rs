//! BGP-4 messages to and from bytes: deterministic, and without sockets, clocks or shared state.
//!
//! Decoding is total: any bytes give a [`Message`] or a [`MessageError`] that carries the NOTIFICATION to answer
//! with, never a panic. A fault inside an UPDATE's path attributes does not fail the message: RFC 7606 asks for
//! "treat-as-withdraw" or "attribute discard", and [`Update`] carries which of them applies and why.
//!
//! ```
//! use bgp_wire::{Context, Message, Reaction, header};
//!
//! # fn main() -> Result<(), bgp_wire::MessageError> {
//! // What the two OPENs came to.
//! let context = Context { four_octet_as: true, ..Context::default() };
//! // 10.1.0.0/24 by way of 192.0.2.1 and AS 64513, with a MULTI_EXIT_DISC of three octets, which should have four.
//! let frame = [
//!     &[0xff; 16][..], &[0, 53, 2], &[0, 0], &[0, 26],
//!     &[0x40, 1, 1, 0], &[0x40, 2, 6, 2, 1, 0, 0, 252, 1], &[0x40, 3, 4, 192, 0, 2, 1], &[0x80, 4, 3, 0, 0, 0],
//!     &[24, 10, 1, 0],
//! ]
//! .concat();
//! assert_eq!(header::frame_len(&frame, &context)?, Some(frame.len()));
//! let Message::Update(update) = header::decode(&frame, &context)? else { unreachable!() };
//! // The session lives, the route does not.
//! assert_eq!(update.faults[0].reaction, Reaction::TreatAsWithdraw);
//! assert_eq!(update.faults[0].to_string(), "MULTI_EXIT_DISC: wrong length (treated as withdrawn)");
//! let withdrawn: Vec<_> = update.unreachable.iter().flatten().map(|prefix| prefix.to_string()).collect();
//! assert_eq!(withdrawn, ["10.1.0.0/24"]);
//! # Ok(())
//! # }
//! ```
//!
//! Writing is in [`update`]: attributes once, then as many messages beside them as the prefixes need.
//!
//! A file for each message, and one for each kind of attribute:
//!
//! | module | what |
//! | --- | --- |
//! | [`family`] | address families (RFC 4760) |
//! | [`header`] | framing: marker, length, type (RFC 4271 §4.1) |
//! | [`open`], [`capability`] | OPEN and its capabilities (RFC 4271 §4.2, RFC 5492) |
//! | [`update`], [`nlri`] | UPDATE and the prefixes in it (RFC 4271 §4.3, RFC 4760) |
//! | [`attribute`], [`as_path`], [`community`] | path attributes (RFC 4271 §5, RFC 7606) |
//! | [`pattern`] | what filters ask of AS paths and communities |
//! | [`notification`] | NOTIFICATION: codes, subcodes, data (RFC 4271 §4.5, RFC 4486, RFC 6608, RFC 9003) |
//! | [`route_refresh`] | ROUTE-REFRESH (RFC 2918, RFC 7313) |
#![forbid(unsafe_code)]

pub mod as_path;
pub mod attribute;
pub mod capability;
pub mod community;
mod cursor;
pub mod family;
pub mod header;
pub mod nlri;
pub mod notification;
pub mod open;
pub mod pattern;
pub mod route_refresh;
pub mod update;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attribute::{Aggregator, Attributes, NextHop, Origin, UnknownAttribute};
pub use capability::{Capability, GracefulRestart};
pub use community::{Community, ExtendedCommunity, Ipv6ExtendedCommunity, LargeCommunity};
pub use family::Family;
pub use header::{Message, MessageError};
pub use nlri::Nlri;
pub use notification::Notification;
pub use open::Open;
pub use route_refresh::RouteRefresh;
pub use update::{Fault, Reaction, Update, UpdateBuilder};

/// An autonomous system number, always four octets here (RFC 6793).
pub type Asn = u32;

/// AS_TRANS: stands for a four-octet number where only two octets fit (RFC 6793 §9).
pub const AS_TRANS: u16 = 23456;

/// What both sides agreed on in their OPENs, as far as it changes how later messages are written and read.
///
/// The default is what holds before: neither capability, an external peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Context {
    /// Both sides sent the four-octet AS capability: AS_PATH and AGGREGATOR hold four octets a number (RFC 6793).
    pub four_octet_as: bool,
    /// Both sides sent the extended message capability: up to 65,535 octets instead of 4,096 (RFC 8654).
    pub extended_message: bool,
    /// The peer is in our own AS: decides which attributes are expected and which are discarded (RFC 7606 §7).
    pub ibgp: bool,
}

impl Context {
    /// What the OPENs that the two sides sent each other come to.
    #[must_use]
    pub fn negotiated(local: &Open, remote: &Open) -> Self {
        let has_four_octet_as = |open: &Open| {
            open.capabilities
                .iter()
                .any(|capability| matches!(capability, Capability::FourOctetAs(_)))
        };
        Self {
            four_octet_as: has_four_octet_as(local) && has_four_octet_as(remote),
            extended_message: local.has(&Capability::ExtendedMessage)
                && remote.has(&Capability::ExtendedMessage),
            ibgp: local.asn == remote.asn,
        }
    }

    /// The longest message that may be sent, header included.
    #[must_use]
    pub fn max_message_len(&self) -> usize {
        if self.extended_message {
            header::MAX_EXTENDED_LEN
        } else {
            header::MAX_LEN
        }
    }
}

//! UPDATE (RFC 4271 §4.3), its faults handled as RFC 7606 says.
//!
//! Reading is [`header::decode`](crate::header::decode); what it gives borrows the prefixes from the frame. Writing is
//! [`UpdateBuilder`], which packs as many prefixes as fit beside an attribute section that was encoded once.
//!
//! ```
//! use bgp_wire::{AsPath, Attributes, Context, Family, Message, NextHop, UpdateBuilder, header};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let context = Context { four_octet_as: true, ..Context::default() };
//! let mut attributes = Attributes::originated();
//! attributes.as_path = AsPath::sequence([64512]);
//! let mut section = Vec::new();
//! attributes.encode(&context, &mut section);
//!
//! let next_hop = NextHop::V4([192, 0, 2, 1].into());
//! let mut bytes = Vec::new();
//! let mut builder = UpdateBuilder::announce(&mut bytes, &context, &section, next_hop, Family::IPV4_UNICAST);
//! builder.push("10.1.0.0/24".parse()?)?;
//! builder.push("10.1.1.0/24".parse()?)?;
//! builder.finish();
//!
//! let Message::Update(update) = header::decode(&bytes, &context)? else { unreachable!() };
//! let (from_wire, prefixes) = &update.reachable[0];
//! assert_eq!(*from_wire, next_hop);
//! assert_eq!(prefixes.iter().map(|prefix| prefix.to_string()).collect::<Vec<_>>(), ["10.1.0.0/24", "10.1.1.0/24"]);
//! assert_eq!(update.attributes.map(|attributes| attributes.as_path), Some(AsPath::sequence([64512])));
//! # Ok(())
//! # }
//! ```

mod builder;
mod decode;
mod multiprotocol;
mod section;
mod table;
mod value;

use std::fmt;

use smallvec::SmallVec;

pub use builder::{PushError, UpdateBuilder, encode_end_of_rib};
pub(crate) use decode::{decode, decode_own_section};
pub(crate) use multiprotocol::from_bytes as next_hop_from_bytes;

use crate::{Attributes, Family, NextHop, Nlri, attribute};

/// An UPDATE as received.
///
/// Withdrawals come first: a prefix both withdrawn and announced is announced (RFC 4271 §4.3). Where a fault turns the
/// announcement into a withdrawal, its prefixes stand in `unreachable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update<'a> {
    /// Prefixes withdrawn: the message's own IPv4 field, MP_UNREACH_NLRI, and what is to be treated as withdrawn.
    pub unreachable: SmallVec<[Nlri<'a>; 1]>,
    /// Prefixes announced, all with [`attributes`](Self::attributes), and their next hop: the IPv4 field's and
    /// MP_REACH_NLRI's may differ, so it stands with each run. At most one run for each.
    pub reachable: SmallVec<[(NextHop, Nlri<'a>); 1]>,
    /// The path attributes, their next hop that of the first run; `None` when nothing is announced, or when a fault
    /// makes the announcement a withdrawal.
    pub attributes: Option<Attributes>,
    /// What was wrong with the attributes, in the order of the wire.
    pub faults: Vec<Fault>,
    pub(crate) end_of_rib: Option<Family>,
}

impl Update<'_> {
    /// The family that this message ends the initial transfer of: End-of-RIB is an UPDATE with nothing in it for IPv4
    /// unicast, and one with nothing but an MP_UNREACH_NLRI without prefixes for any other (RFC 4724 §2).
    #[must_use]
    pub fn end_of_rib(&self) -> Option<Family> {
        self.end_of_rib
    }
}

/// One fault in the path attributes, and what RFC 7606 wants done about it. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The attribute's type code.
    pub code: u8,
    /// What was wrong, for a person.
    pub reason: &'static str,
    /// What follows.
    pub reaction: Reaction,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match attribute::name(self.code) {
            Some(name) => write!(f, "{name}: ")?,
            None => write!(f, "attribute {}: ", self.code)?,
        }
        write!(f, "{} ({})", self.reason, self.reaction)
    }
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

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discard => "attribute discarded",
            Self::TreatAsWithdraw => "treated as withdrawn",
        })
    }
}

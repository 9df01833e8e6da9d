//! NOTIFICATION (RFC 4271 §4.5): codes and subcodes by name, and their data where it says something to a person.
//!
//! ```
//! use bgp_wire::Notification;
//!
//! let notification = Notification::shutdown("maintenance, back at 14:00");
//! assert_eq!(notification.to_string(), "Cease/Administrative Shutdown: maintenance, back at 14:00");
//! ```

use std::fmt::{self, Write as _};

use crate::cursor::Cursor;
use crate::{Family, MessageError, header};

/// Error codes (IANA "BGP Error (Notification) Codes").
pub mod code {
    /// Message Header Error.
    pub const MESSAGE_HEADER: u8 = 1;
    /// OPEN Message Error.
    pub const OPEN: u8 = 2;
    /// UPDATE Message Error.
    pub const UPDATE: u8 = 3;
    /// Hold Timer Expired.
    pub const HOLD_TIMER_EXPIRED: u8 = 4;
    /// Finite State Machine Error.
    pub const FSM: u8 = 5;
    /// Cease.
    pub const CEASE: u8 = 6;
    /// ROUTE-REFRESH Message Error (RFC 7313).
    pub const ROUTE_REFRESH: u8 = 7;
    /// Send Hold Timer Expired (RFC 9687).
    pub const SEND_HOLD_TIMER_EXPIRED: u8 = 8;
}

/// Subcodes of Message Header Error (RFC 4271 §6.1).
pub mod header_error {
    /// The marker was not all ones.
    pub const CONNECTION_NOT_SYNCHRONIZED: u8 = 1;
    /// Data: the length field.
    pub const BAD_MESSAGE_LENGTH: u8 = 2;
    /// Data: the type field.
    pub const BAD_MESSAGE_TYPE: u8 = 3;
}

/// Subcodes of OPEN Message Error (RFC 4271 §6.2).
pub mod open_error {
    /// Malformed in a way that no subcode names.
    pub const UNSPECIFIC: u8 = 0;
    /// Data: the highest version spoken, two octets.
    pub const UNSUPPORTED_VERSION_NUMBER: u8 = 1;
    /// The AS is not the one configured, or 0 (RFC 7607).
    pub const BAD_PEER_AS: u8 = 2;
    /// The identifier is 0, or our own on an internal session (RFC 6286).
    pub const BAD_BGP_IDENTIFIER: u8 = 3;
    /// An optional parameter other than capabilities.
    pub const UNSUPPORTED_OPTIONAL_PARAMETER: u8 = 4;
    /// A hold time of 1 or 2 s, or one that we do not want.
    pub const UNACCEPTABLE_HOLD_TIME: u8 = 6;
    /// Data: the capabilities that we need and the peer has not (RFC 5492 §5).
    pub const UNSUPPORTED_CAPABILITY: u8 = 7;
    /// Roles do not match (RFC 9234).
    pub const ROLE_MISMATCH: u8 = 11;
}

/// Subcodes of UPDATE Message Error (RFC 4271 §6.3).
pub mod update_error {
    /// Lengths contradict each other, or an attribute is there twice.
    pub const MALFORMED_ATTRIBUTE_LIST: u8 = 1;
    /// Data: the attribute.
    pub const UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE: u8 = 2;
    /// Data: the attribute's type code.
    pub const MISSING_WELL_KNOWN_ATTRIBUTE: u8 = 3;
    /// Data: the attribute.
    pub const ATTRIBUTE_FLAGS_ERROR: u8 = 4;
    /// Data: the attribute.
    pub const ATTRIBUTE_LENGTH_ERROR: u8 = 5;
    /// Data: the attribute.
    pub const INVALID_ORIGIN: u8 = 6;
    /// Data: the attribute.
    pub const INVALID_NEXT_HOP: u8 = 8;
    /// Data: the attribute.
    pub const OPTIONAL_ATTRIBUTE_ERROR: u8 = 9;
    /// A prefix in the message's own fields is malformed.
    pub const INVALID_NETWORK_FIELD: u8 = 10;
    /// A malformed AS_PATH.
    pub const MALFORMED_AS_PATH: u8 = 11;
}

/// Subcodes of Finite State Machine Error (RFC 6608 §3). Data: the type of the message that was not expected.
pub mod fsm_error {
    /// Unexpected message in OpenSent.
    pub const OPEN_SENT: u8 = 1;
    /// Unexpected message in OpenConfirm.
    pub const OPEN_CONFIRM: u8 = 2;
    /// Unexpected message in Established.
    pub const ESTABLISHED: u8 = 3;
}

/// Subcodes of Cease (RFC 4486 §3).
pub mod cease {
    /// Data, optional: AFI, SAFI and the bound that was reached.
    pub const MAXIMUM_PREFIXES_REACHED: u8 = 1;
    /// Data: a shutdown communication (RFC 9003).
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// The peer was removed from the configuration.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Data: a shutdown communication (RFC 9003).
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    /// A connection that is not wanted.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// The session's configuration changed.
    pub const OTHER_CONFIGURATION_CHANGE: u8 = 6;
    /// The other connection of the pair stays (RFC 4271 §6.8).
    pub const CONNECTION_COLLISION_RESOLUTION: u8 = 7;
    /// Out of memory or the like.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// Graceful restart must not keep routes. Data: the code, subcode and data that it stands for (RFC 8538 §3).
    pub const HARD_RESET: u8 = 9;
    /// BFD says that the path is down (RFC 9384).
    pub const BFD_DOWN: u8 = 10;
}

/// Subcodes of ROUTE-REFRESH Message Error (RFC 7313 §5).
pub mod route_refresh_error {
    /// Data: the whole message.
    pub const INVALID_MESSAGE_LENGTH: u8 = 1;
}

/// Longest shutdown communication in octets (RFC 9003 §2).
const MAX_COMMUNICATION: usize = 255;
/// How many octets of data [`Notification`]'s `Display` shows at most.
const MAX_SHOWN: usize = 32;

/// A NOTIFICATION: why a session ends. Its `Display` is for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// Error code: 1 message header, 2 OPEN, 3 UPDATE, 4 hold timer, 5 state machine, 6 Cease, 7 ROUTE-REFRESH,
    /// 8 send hold timer. See [`code`](mod@code).
    pub code: u8,
    /// Error subcode, 0 when unspecific.
    pub subcode: u8,
    /// What went wrong, as the code says.
    pub data: Vec<u8>,
}

impl Notification {
    /// One of this code, subcode and data.
    #[must_use]
    pub fn new(code: u8, subcode: u8, data: impl Into<Vec<u8>>) -> Self {
        Self {
            code,
            subcode,
            data: data.into(),
        }
    }

    /// A Cease without data: one of [`cease`].
    #[must_use]
    pub fn cease(subcode: u8) -> Self {
        Self::new(code::CEASE, subcode, [])
    }

    /// Cease/Administrative Shutdown with a text for the peer's operator, which is cut after 255 octets (RFC 9003).
    #[must_use]
    pub fn shutdown(text: &str) -> Self {
        Self::new(
            code::CEASE,
            cease::ADMINISTRATIVE_SHUTDOWN,
            communication(text),
        )
    }

    /// Cease/Administrative Reset with a text for the peer's operator, which is cut after 255 octets (RFC 9003).
    #[must_use]
    pub fn reset(text: &str) -> Self {
        Self::new(
            code::CEASE,
            cease::ADMINISTRATIVE_RESET,
            communication(text),
        )
    }

    /// Cease/Maximum Number of Prefixes Reached, with the family and the bound (RFC 4486 §4).
    #[must_use]
    pub fn maximum_prefixes(family: Family, bound: u32) -> Self {
        let mut data = family.afi.to_be_bytes().to_vec();
        data.push(family.safi);
        data.extend_from_slice(&bound.to_be_bytes());
        Self::new(code::CEASE, cease::MAXIMUM_PREFIXES_REACHED, data)
    }

    /// Cease/Hard Reset around another NOTIFICATION: graceful restart must not keep the routes (RFC 8538 §3.1).
    #[must_use]
    pub fn hard_reset(inner: &Self) -> Self {
        let mut data = vec![inner.code, inner.subcode];
        data.extend_from_slice(&inner.data);
        Self::new(code::CEASE, cease::HARD_RESET, data)
    }

    /// What a Cease/Hard Reset stands for, where it says so (RFC 8538 §3.1).
    #[must_use]
    pub fn encapsulated(&self) -> Option<Self> {
        match (self.code, self.subcode, self.data.as_slice()) {
            (code::CEASE, cease::HARD_RESET, [code, subcode, data @ ..]) => {
                Some(Self::new(*code, *subcode, data))
            }
            _ => None,
        }
    }

    /// The text of an Administrative Shutdown or Reset (RFC 9003 §2); `None` where there is none or it is malformed.
    ///
    /// It is the peer's: escape it before it reaches a terminal or a log, as `Display` does.
    #[must_use]
    pub fn communication(&self) -> Option<&str> {
        if self.code != code::CEASE
            || !matches!(
                self.subcode,
                cease::ADMINISTRATIVE_SHUTDOWN | cease::ADMINISTRATIVE_RESET
            )
        {
            return None;
        }
        let (len, text) = self.data.split_first()?;
        let text = text.get(..usize::from(*len))?;
        std::str::from_utf8(text)
            .ok()
            .filter(|text| !text.is_empty())
    }

    /// Reads the message's body.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, MessageError> {
        match body {
            [code, subcode, data @ ..] => Ok(Self::new(*code, *subcode, data)),
            // Never answered: RFC 4271 §6.4.
            _ => Err(MessageError {
                reason: "NOTIFICATION: shorter than 21 octets",
                notification: None,
            }),
        }
    }

    /// Writes the whole message; data beyond the 4,096 octets that any peer takes is cut off.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = header::begin(out, header::kind::NOTIFICATION);
        out.extend_from_slice(&[self.code, self.subcode]);
        let room = header::MAX_LEN - header::LEN - 2;
        out.extend_from_slice(self.data.get(..room).unwrap_or(&self.data));
        header::finish(out, start);
    }

    /// The code's name.
    #[must_use]
    pub fn code_name(&self) -> Option<&'static str> {
        Some(match self.code {
            code::MESSAGE_HEADER => "Message Header Error",
            code::OPEN => "OPEN Message Error",
            code::UPDATE => "UPDATE Message Error",
            code::HOLD_TIMER_EXPIRED => "Hold Timer Expired",
            code::FSM => "Finite State Machine Error",
            code::CEASE => "Cease",
            code::ROUTE_REFRESH => "ROUTE-REFRESH Message Error",
            code::SEND_HOLD_TIMER_EXPIRED => "Send Hold Timer Expired",
            _ => return None,
        })
    }

    /// The subcode's name under its code; none for 0.
    #[must_use]
    pub fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (code::MESSAGE_HEADER, header_error::CONNECTION_NOT_SYNCHRONIZED) => {
                "Connection Not Synchronized"
            }
            (code::MESSAGE_HEADER, header_error::BAD_MESSAGE_LENGTH) => "Bad Message Length",
            (code::MESSAGE_HEADER, header_error::BAD_MESSAGE_TYPE) => "Bad Message Type",
            (code::OPEN, open_error::UNSUPPORTED_VERSION_NUMBER) => "Unsupported Version Number",
            (code::OPEN, open_error::BAD_PEER_AS) => "Bad Peer AS",
            (code::OPEN, open_error::BAD_BGP_IDENTIFIER) => "Bad BGP Identifier",
            (code::OPEN, open_error::UNSUPPORTED_OPTIONAL_PARAMETER) => {
                "Unsupported Optional Parameter"
            }
            (code::OPEN, open_error::UNACCEPTABLE_HOLD_TIME) => "Unacceptable Hold Time",
            (code::OPEN, open_error::UNSUPPORTED_CAPABILITY) => "Unsupported Capability",
            (code::OPEN, open_error::ROLE_MISMATCH) => "Role Mismatch",
            (code::UPDATE, update_error::MALFORMED_ATTRIBUTE_LIST) => "Malformed Attribute List",
            (code::UPDATE, update_error::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE) => {
                "Unrecognized Well-known Attribute"
            }
            (code::UPDATE, update_error::MISSING_WELL_KNOWN_ATTRIBUTE) => {
                "Missing Well-known Attribute"
            }
            (code::UPDATE, update_error::ATTRIBUTE_FLAGS_ERROR) => "Attribute Flags Error",
            (code::UPDATE, update_error::ATTRIBUTE_LENGTH_ERROR) => "Attribute Length Error",
            (code::UPDATE, update_error::INVALID_ORIGIN) => "Invalid ORIGIN Attribute",
            (code::UPDATE, update_error::INVALID_NEXT_HOP) => "Invalid NEXT_HOP Attribute",
            (code::UPDATE, update_error::OPTIONAL_ATTRIBUTE_ERROR) => "Optional Attribute Error",
            (code::UPDATE, update_error::INVALID_NETWORK_FIELD) => "Invalid Network Field",
            (code::UPDATE, update_error::MALFORMED_AS_PATH) => "Malformed AS_PATH",
            (code::FSM, fsm_error::OPEN_SENT) => "Unexpected Message in OpenSent",
            (code::FSM, fsm_error::OPEN_CONFIRM) => "Unexpected Message in OpenConfirm",
            (code::FSM, fsm_error::ESTABLISHED) => "Unexpected Message in Established",
            (code::CEASE, cease::MAXIMUM_PREFIXES_REACHED) => "Maximum Number of Prefixes Reached",
            (code::CEASE, cease::ADMINISTRATIVE_SHUTDOWN) => "Administrative Shutdown",
            (code::CEASE, cease::PEER_DECONFIGURED) => "Peer De-configured",
            (code::CEASE, cease::ADMINISTRATIVE_RESET) => "Administrative Reset",
            (code::CEASE, cease::CONNECTION_REJECTED) => "Connection Rejected",
            (code::CEASE, cease::OTHER_CONFIGURATION_CHANGE) => "Other Configuration Change",
            (code::CEASE, cease::CONNECTION_COLLISION_RESOLUTION) => {
                "Connection Collision Resolution"
            }
            (code::CEASE, cease::OUT_OF_RESOURCES) => "Out of Resources",
            (code::CEASE, cease::HARD_RESET) => "Hard Reset",
            (code::CEASE, cease::BFD_DOWN) => "BFD Down",
            (code::ROUTE_REFRESH, route_refresh_error::INVALID_MESSAGE_LENGTH) => {
                "Invalid Message Length"
            }
            _ => return None,
        })
    }

    /// The family and the bound of a Maximum Number of Prefixes Reached, where it says them (RFC 4486 §4).
    #[must_use]
    pub fn maximum_prefixes_reached(&self) -> Option<(Family, u32)> {
        if (self.code, self.subcode) != (code::CEASE, cease::MAXIMUM_PREFIXES_REACHED) {
            return None;
        }
        let mut data = Cursor::new(&self.data);
        let family = Family {
            afi: data.u16()?,
            safi: data.u8()?,
        };
        Some((family, data.u32()?))
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code_name() {
            Some(name) => f.write_str(name)?,
            None => write!(f, "code {}", self.code)?,
        }
        match self.subcode_name() {
            Some(name) => write!(f, "/{name}")?,
            None if self.subcode != 0 => write!(f, "/subcode {}", self.subcode)?,
            None => {}
        }
        if let Some(inner) = self.encapsulated() {
            // One level only: a Hard Reset within a Hard Reset is the peer's joke, shown as bytes.
            return if inner.encapsulated().is_none() {
                write!(f, " ({inner})")
            } else {
                hex(f, &self.data)
            };
        }
        if let Some(text) = self.communication() {
            f.write_str(": ")?;
            return text.chars().try_for_each(|c| {
                if is_invisible(c) {
                    write!(f, "{}", c.escape_default())
                } else {
                    f.write_char(c)
                }
            });
        }
        if let Some((family, bound)) = self.maximum_prefixes_reached() {
            return write!(f, ": {bound} of {family}");
        }
        match self.data.as_slice() {
            [] => Ok(()),
            data => hex(f, data),
        }
    }
}

/// Whether a character acts on its surroundings instead of showing: controls, zero widths, and what
/// turns the direction of writing.
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Data in hexadecimal, the start of it where it is long.
fn hex(f: &mut fmt::Formatter<'_>, data: &[u8]) -> fmt::Result {
    f.write_str(" (data ")?;
    for octet in data.iter().take(MAX_SHOWN) {
        write!(f, "{octet:02x}")?;
    }
    f.write_str(if data.len() > MAX_SHOWN { "...)" } else { ")" })
}

/// A length octet and the text, cut at a character's end.
fn communication(text: &str) -> Vec<u8> {
    let text = &text[..text.floor_char_boundary(MAX_COMMUNICATION)];
    let mut data = vec![u8::try_from(text.len()).unwrap_or(u8::MAX)];
    data.extend_from_slice(text.as_bytes());
    data
}

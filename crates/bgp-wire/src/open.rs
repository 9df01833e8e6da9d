//! OPEN (RFC 4271 §4.2), with its optional parameters in both forms (RFC 5492 §4, RFC 9072).
//!
//! ```
//! use bgp_wire::{Capability, Context, Family, Message, Open, header};
//!
//! # fn main() -> Result<(), bgp_wire::MessageError> {
//! let open = Open {
//!     asn: 4_200_000_001,
//!     hold_time: 90,
//!     router_id: [192, 0, 2, 1].into(),
//!     capabilities: vec![
//!         Capability::Multiprotocol(Family::IPV4_UNICAST),
//!         Capability::RouteRefresh,
//!         Capability::FourOctetAs(4_200_000_001),
//!     ],
//! };
//! let mut bytes = Vec::new();
//! open.encode(&mut bytes);
//! assert_eq!(header::decode(&bytes, &Context::default())?, Message::Open(open));
//! # Ok(())
//! # }
//! ```

use std::net::Ipv4Addr;

use crate::capability;
use crate::cursor::Cursor;
use crate::notification::{code, open_error};
use crate::{AS_TRANS, Asn, Capability, Family, MessageError, header};

/// The version that this is: BGP-4.
const VERSION: u8 = 4;
/// Optional parameter type: capabilities (RFC 5492 §4).
const PARAMETER_CAPABILITIES: u8 = 2;
/// Optional parameter type that says: extended form (RFC 9072 §2).
const PARAMETER_EXTENDED: u8 = 255;
/// What capabilities may take up in an OPEN of 4,096 octets: the fixed part, the extended form's length and one
/// parameter's header go off.
const MAX_CAPABILITIES: usize = header::MAX_LEN - 29 - 3 - 3;

/// An OPEN message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Open {
    /// The sender's AS: from the four-octet capability where present (RFC 6793 §4.1), else My Autonomous System.
    pub asn: Asn,
    /// Hold time in seconds as proposed: 0, or at least 3.
    pub hold_time: u16,
    /// BGP identifier: any non-zero 32-bit number, written as an address (RFC 6286).
    pub router_id: Ipv4Addr,
    /// Capabilities in the order of the wire, repeated ones included.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Whether a capability equal to this one is announced.
    #[must_use]
    pub fn has(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    /// The families announced, each once; IPv4 unicast where no multiprotocol capability is there at all (RFC 4760 §8).
    #[must_use]
    pub fn families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        for capability in &self.capabilities {
            if let Capability::Multiprotocol(family) = capability
                && !families.contains(family)
            {
                families.push(*family);
            }
        }
        if families.is_empty() {
            families.push(Family::IPV4_UNICAST);
        }
        families
    }

    /// The graceful restart capability; where it is repeated, the last one counts (RFC 4724 §3).
    #[must_use]
    pub fn graceful_restart(&self) -> Option<&capability::GracefulRestart> {
        self.capabilities.iter().rev().find_map(|capability| {
            if let Capability::GracefulRestart(value) = capability {
                Some(value)
            } else {
                None
            }
        })
    }

    /// Reads the message's body. The AS is not compared with the one expected: the session knows that.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, MessageError> {
        let mut cursor = Cursor::new(body);
        let (Some(version), Some(my_as), Some(hold_time), Some(router_id), Some(parameters_len)) = (
            cursor.u8(),
            cursor.u16(),
            cursor.u16(),
            cursor.ipv4(),
            cursor.u8(),
        ) else {
            return Err(malformed("OPEN: shorter than 29 octets"));
        };
        if version != VERSION {
            let data = u16::from(VERSION).to_be_bytes();
            return Err(error(
                "OPEN: version is not 4",
                open_error::UNSUPPORTED_VERSION_NUMBER,
                &data,
            ));
        }
        if my_as == 0 {
            return Err(error("OPEN: AS is 0", open_error::BAD_PEER_AS, &[]));
        }
        if matches!(hold_time, 1 | 2) {
            return Err(error(
                "OPEN: hold time is 1 or 2 s",
                open_error::UNACCEPTABLE_HOLD_TIME,
                &[],
            ));
        }
        if router_id.is_unspecified() {
            return Err(error(
                "OPEN: BGP identifier is 0",
                open_error::BAD_BGP_IDENTIFIER,
                &[],
            ));
        }
        let capabilities = decode_parameters(parameters_len, cursor.rest())?;
        let four_octet = capabilities.iter().rev().find_map(|capability| {
            if let Capability::FourOctetAs(asn) = capability {
                Some(*asn)
            } else {
                None
            }
        });
        if four_octet == Some(0) {
            return Err(error(
                "OPEN: four-octet AS is 0",
                open_error::BAD_PEER_AS,
                &[],
            ));
        }
        let asn = four_octet.unwrap_or_else(|| my_as.into());
        Ok(Self {
            asn,
            hold_time,
            router_id,
            capabilities,
        })
    }

    /// Writes the whole message.
    ///
    /// The capabilities stand in one parameter, in the extended form where they need more than 255 octets (RFC 9072).
    /// One whose value is over 255 octets, or for which 4,096 octets of message leave no room, is left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = header::begin(out, header::kind::OPEN);
        out.push(VERSION);
        out.extend_from_slice(&u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        out.extend_from_slice(&self.hold_time.to_be_bytes());
        out.extend_from_slice(&self.router_id.octets());

        let mut capabilities = Vec::new();
        for capability in &self.capabilities {
            let before = capabilities.len();
            capability.encode(&mut capabilities);
            if capabilities.len() > MAX_CAPABILITIES {
                capabilities.truncate(before);
            }
        }
        let len = u16::try_from(capabilities.len()).unwrap_or(u16::MAX);
        match u8::try_from(len) {
            Ok(0) => out.push(0),
            Ok(len @ 1..=253) => out.extend_from_slice(&[len + 2, PARAMETER_CAPABILITIES, len]),
            _ => {
                out.extend_from_slice(&[255, PARAMETER_EXTENDED]);
                out.extend_from_slice(&(len + 3).to_be_bytes());
                out.push(PARAMETER_CAPABILITIES);
                out.extend_from_slice(&len.to_be_bytes());
            }
        }
        out.extend_from_slice(&capabilities);
        header::finish(out, start);
    }
}

/// Reads the optional parameters; `bytes` is what follows their length octet.
fn decode_parameters(len: u8, bytes: &[u8]) -> Result<Vec<Capability>, MessageError> {
    // The extended form: its length octet may hold anything but 0, only the type that follows tells (RFC 9072 §2).
    let extended = len != 0 && bytes.first() == Some(&PARAMETER_EXTENDED);
    let (len, bytes) = if extended {
        let mut cursor = Cursor::new(&bytes[1..]);
        let len = cursor
            .u16()
            .ok_or_else(|| malformed("OPEN: extended parameters truncated"))?;
        (usize::from(len), cursor.rest())
    } else {
        (usize::from(len), bytes)
    };
    if bytes.len() != len {
        return Err(malformed(
            "OPEN: optional parameters are not as long as said",
        ));
    }
    let mut capabilities = Vec::new();
    let mut cursor = Cursor::new(bytes);
    while let Some(kind) = cursor.u8() {
        let len = if extended {
            cursor.u16().map(usize::from)
        } else {
            cursor.u8().map(usize::from)
        };
        let value = len
            .and_then(|len| cursor.take(len))
            .ok_or_else(|| malformed("OPEN: optional parameter overruns the parameters"))?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(error(
                "OPEN: unknown optional parameter",
                open_error::UNSUPPORTED_OPTIONAL_PARAMETER,
                &[],
            ));
        }
        capability::decode_all(value, &mut capabilities).map_err(malformed)?;
    }
    Ok(capabilities)
}

fn error(reason: &'static str, subcode: u8, data: &[u8]) -> MessageError {
    MessageError::new(reason, code::OPEN, subcode, data)
}

fn malformed(reason: &'static str) -> MessageError {
    error(reason, open_error::UNSPECIFIC, &[])
}

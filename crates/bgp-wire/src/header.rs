//! Framing (RFC 4271 §4.1, RFC 8654), and the way from a frame to its message and back.
//!
//! A connection is a run of frames. [`frame_len`] says how long the next one is, as soon as its header is there;
//! [`decode`] reads it.
//!
//! ```
//! use bgp_wire::{Context, Message, header};
//!
//! # fn main() -> Result<(), bgp_wire::MessageError> {
//! let context = Context::default();
//! let mut received = Vec::new();
//! header::encode_keepalive(&mut received);
//! header::encode_keepalive(&mut received);
//!
//! let mut messages = 0;
//! while let Some(len) = header::frame_len(&received, &context)? {
//!     if received.len() < len {
//!         break;
//!     }
//!     assert_eq!(header::decode(&received[..len], &context)?, Message::Keepalive);
//!     received.drain(..len);
//!     messages += 1;
//! }
//! assert_eq!(messages, 2);
//! # Ok(())
//! # }
//! ```

use crate::cursor::Cursor;
use crate::notification::{code, header_error};
use crate::{Context, Notification, Open, RouteRefresh, Update, update};

/// Length of the header: marker, length, type.
pub const LEN: usize = 19;
/// Longest message (RFC 4271 §4.1).
pub const MAX_LEN: usize = 4096;
/// Longest message where both sides allow extended ones (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65535;

/// Message type codes (RFC 4271 §4.1, RFC 2918 §3).
pub mod kind {
    /// OPEN.
    pub const OPEN: u8 = 1;
    /// UPDATE.
    pub const UPDATE: u8 = 2;
    /// NOTIFICATION.
    pub const NOTIFICATION: u8 = 3;
    /// KEEPALIVE.
    pub const KEEPALIVE: u8 = 4;
    /// ROUTE-REFRESH.
    pub const ROUTE_REFRESH: u8 = 5;
}

/// Any message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every message is an UPDATE: a box would cost each an allocation"
)]
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

impl Message<'_> {
    /// The message's type code: what a NOTIFICATION about an unexpected message carries as data (RFC 6608 §3).
    #[must_use]
    pub fn kind(&self) -> u8 {
        match self {
            Self::Open(_) => kind::OPEN,
            Self::Update(_) => kind::UPDATE,
            Self::Notification(_) => kind::NOTIFICATION,
            Self::Keepalive => kind::KEEPALIVE,
            Self::RouteRefresh(_) => kind::ROUTE_REFRESH,
        }
    }
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

impl MessageError {
    pub(crate) fn new(
        reason: &'static str,
        code: u8,
        subcode: u8,
        data: impl Into<Vec<u8>>,
    ) -> Self {
        Self {
            reason,
            notification: Some(Notification::new(code, subcode, data)),
        }
    }
}

/// How long the message at the start of `buf` is, header included; `None` until the header's 19 octets are there.
///
/// The whole message need not be in `buf`. Marker, length and type are checked in this order, the length also
/// against what its type and `context` allow.
///
/// # Errors
///
/// Message Header Errors of RFC 4271 §6.1: 1/1 for the marker, 1/2 with the length as data, 1/3 with the type as data.
pub fn frame_len(buf: &[u8], context: &Context) -> Result<Option<usize>, MessageError> {
    let mut cursor = Cursor::new(buf);
    let (Some(marker), Some(length), Some(message_kind)) =
        (cursor.array::<16>(), cursor.u16(), cursor.u8())
    else {
        return Ok(None);
    };
    if marker != [0xff; 16] {
        return Err(MessageError::new(
            "header: marker is not all ones",
            code::MESSAGE_HEADER,
            header_error::CONNECTION_NOT_SYNCHRONIZED,
            [],
        ));
    }
    let len = usize::from(length);
    if len < LEN || len > context.max_message_len() {
        return Err(bad_length(
            "header: length out of range",
            message_kind,
            length,
        ));
    }
    let fits = match message_kind {
        kind::OPEN => (29..=MAX_LEN).contains(&len),
        kind::UPDATE | kind::ROUTE_REFRESH => len >= 23,
        kind::NOTIFICATION => len >= 21,
        kind::KEEPALIVE => len == LEN,
        _ => {
            return Err(MessageError::new(
                "header: unknown message type",
                code::MESSAGE_HEADER,
                header_error::BAD_MESSAGE_TYPE,
                [message_kind],
            ));
        }
    };
    if fits {
        Ok(Some(len))
    } else {
        Err(bad_length(
            "header: length does not fit the type",
            message_kind,
            length,
        ))
    }
}

/// Bad Message Length, with the length field as data. None for a NOTIFICATION: it is never answered by another.
fn bad_length(reason: &'static str, message_kind: u8, length: u16) -> MessageError {
    if message_kind == kind::NOTIFICATION {
        return MessageError {
            reason,
            notification: None,
        };
    }
    MessageError::new(
        reason,
        code::MESSAGE_HEADER,
        header_error::BAD_MESSAGE_LENGTH,
        length.to_be_bytes(),
    )
}

/// Reads one whole frame, as cut by [`frame_len`].
///
/// # Errors
///
/// Whatever ends a session: the frame's header (as [`frame_len`]; 1/2 also where `frame` is not as long as its header
/// says), and what the decoder of its type refuses. Faults in path attributes that RFC 7606 handles without a reset
/// are no errors: see [`Update`].
pub fn decode<'a>(frame: &'a [u8], context: &Context) -> Result<Message<'a>, MessageError> {
    let Some(len) = frame_len(frame, context)? else {
        return Err(bad_length(
            "header: truncated",
            0,
            u16::try_from(frame.len()).unwrap_or(u16::MAX),
        ));
    };
    let message_kind = frame[LEN - 1];
    if frame.len() != len {
        let length = u16::try_from(len).unwrap_or(u16::MAX);
        return Err(bad_length(
            "header: length is not the frame's",
            message_kind,
            length,
        ));
    }
    let body = &frame[LEN..];
    match message_kind {
        kind::OPEN => Open::decode(body).map(Message::Open),
        kind::UPDATE => update::decode(body, context).map(Message::Update),
        kind::NOTIFICATION => Notification::decode(body).map(Message::Notification),
        kind::ROUTE_REFRESH => RouteRefresh::decode(frame).map(Message::RouteRefresh),
        _ => Ok(Message::Keepalive),
    }
}

/// Writes a KEEPALIVE (RFC 4271 §4.4).
pub fn encode_keepalive(out: &mut Vec<u8>) {
    let start = begin(out, kind::KEEPALIVE);
    finish(out, start);
}

/// Writes a header whose length is still open; gives where it starts, for [`finish`].
pub(crate) fn begin(out: &mut Vec<u8>, message_kind: u8) -> usize {
    let start = out.len();
    let mut header = [0xff; LEN];
    header[16..].copy_from_slice(&[0, 0, message_kind]);
    out.extend_from_slice(&header);
    start
}

/// Fills in the length of the message that starts at `start` and ends at the end of `out`.
pub(crate) fn finish(out: &mut [u8], start: usize) {
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

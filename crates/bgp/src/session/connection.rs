//! One TCP connection with the peer, as bytes in and bytes out.

use std::fmt;
use std::net::SocketAddr;

use bgp_wire::{Capability, Context, Family, Open, RouteRefresh, header};
use bytes::Bytes;

use super::open::Negotiated;
use super::timer::Timers;

/// A TCP connection, made or being made. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    pub(crate) peer: u32,
    pub(crate) serial: u32,
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.peer, self.serial)
    }
}

impl ConnId {
    /// A number of its own for each connection, for tables of the driver.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        (u64::from(self.peer) << 32) | u64::from(self.serial)
    }

    /// The inverse of [`as_u64`](Self::as_u64).
    #[must_use]
    pub fn from_u64(number: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        Self {
            peer: u32::from_be_bytes([a, b, c, d]),
            serial: u32::from_be_bytes([e, f, g, h]),
        }
    }
}

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opener {
    /// We.
    Local,
    /// The peer.
    Peer,
}

/// A connection, from the first SYN to the last byte.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) opener: Opener,
    /// Our address and the peer's; `None` while it's being made.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// Keepalive, hold and send hold.
    pub(crate) timers: Timers,
    /// The OPEN that we sent.
    pub(crate) sent: Option<Open>,
    /// What was agreed on, from OpenConfirm.
    pub(crate) negotiated: Option<Box<Negotiated>>,
    /// The hold timer was found late once, and the peer was given the benefit of the doubt.
    pub(crate) hold_grace_used: bool,
    /// The start of a message whose end has not come yet.
    partial: Vec<u8>,
    /// Whole messages that go before any UPDATE. Bounded: one OPEN, one KEEPALIVE, one NOTIFICATION, and one ROUTE-REFRESH
    /// a family.
    control: Vec<u8>,
    keepalive_waits: bool,
    refreshes_wait: Vec<Family>,
}

impl Connection {
    pub(crate) fn new(
        id: ConnId,
        opener: Opener,
        addresses: Option<(SocketAddr, SocketAddr)>,
    ) -> Self {
        Self {
            id,
            opener,
            addresses,
            timers: Timers::default(),
            sent: None,
            negotiated: None,
            hold_grace_used: false,
            partial: Vec::new(),
            control: Vec::new(),
            keepalive_waits: false,
            refreshes_wait: Vec::new(),
        }
    }

    /// How to read what the peer sends. It may send extended messages where we said that we take them, whether or not it takes
    /// ours (RFC 8654 §4).
    pub(crate) fn context(&self) -> Context {
        self.negotiated
            .as_ref()
            .map_or_else(Context::default, |negotiated| Context {
                extended_message: negotiated
                    .local_capabilities
                    .contains(&Capability::ExtendedMessage),
                ..negotiated.context
            })
    }

    /// Takes the bytes that wait for their message's end, to be given back by [`keep_partial`](Self::keep_partial).
    pub(crate) fn take_partial(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.partial)
    }

    /// Keeps what is not a whole message yet: less than the longest message.
    pub(crate) fn keep_partial(&mut self, rest: Vec<u8>) {
        self.partial = rest;
    }

    /// Queues a message by its `encode`.
    pub(crate) fn queue(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.control);
    }

    /// Queues a KEEPALIVE unless one waits already: a peer that doesn't read must not make the queue grow.
    pub(crate) fn queue_keepalive(&mut self) -> bool {
        if self.keepalive_waits {
            return false;
        }
        self.keepalive_waits = true;
        header::encode_keepalive(&mut self.control);
        true
    }

    /// Queues a ROUTE-REFRESH unless one for the family waits already.
    pub(crate) fn queue_refresh(&mut self, family: Family) {
        if !self.refreshes_wait.contains(&family) {
            self.refreshes_wait.push(family);
            RouteRefresh::request(family).encode(&mut self.control);
        }
    }

    pub(crate) fn has_control(&self) -> bool {
        !self.control.is_empty()
    }

    /// Everything queued.
    pub(crate) fn take_control(&mut self) -> Option<Bytes> {
        self.keepalive_waits = false;
        self.refreshes_wait.clear();
        (!self.control.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.control)))
    }
}

/// How many messages there are in a run of whole ones, and how many of those are UPDATEs.
pub(crate) fn count_messages(mut messages: &[u8]) -> (u64, u64) {
    let mut count = (0, 0);
    while let Some([high, low, kind]) = messages.get(16..header::LEN) {
        count.0 += 1;
        count.1 += u64::from(*kind == header::kind::UPDATE);
        let len = usize::from(u16::from_be_bytes([*high, *low])).max(header::LEN);
        messages = messages.get(len..).unwrap_or_default();
    }
    count
}

//! One peer: its connection, the handshake, what it has yet to say and what it holds.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bgp_wire::{Capability, Context, Family, Message, Open, header};
use lab::wait;
use rustix::event::epoll::EventFlags;
use socket2::{Domain, Protocol, Socket, Type};

use super::HOLD_TIME;
use crate::feed::Octets;
use crate::held::{Held, Space};

const HEADER: usize = 19;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Connecting,
    OpenSent,
    OpenConfirm,
    Established,
}

/// What came of reading.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing to act on.
    Nothing,
    /// There is something to answer.
    Answer,
    /// The session came up.
    Up,
    /// The connection ended, and why.
    Closed(String),
}

#[derive(Debug)]
pub(super) struct Member {
    address: Ipv4Addr,
    asn: u32,
    greeting: Option<Octets>,
    socket: Option<Socket>,
    state: State,
    /// What is to be said, and how much of the first is.
    out: VecDeque<Octets>,
    said: usize,
    waits_for_room: bool,
    /// The beginning of a message whose end is still to come.
    partial: Vec<u8>,
    held: Held,
    expected: Option<u32>,
    reached: Option<Instant>,
    /// What it proposes, in seconds.
    hold_time: u16,
    /// When the subject's last KEEPALIVE came, and the longest that one was waited for.
    heard_of: Option<Instant>,
    silence: Duration,
}

impl Member {
    pub(super) fn new(address: Ipv4Addr, asn: u32, space: Space, greeting: Option<Octets>) -> Self {
        Self {
            address,
            asn,
            greeting,
            socket: None,
            state: State::Idle,
            out: VecDeque::new(),
            said: 0,
            waits_for_room: false,
            partial: Vec::new(),
            held: Held::new(space),
            expected: None,
            reached: None,
            hold_time: HOLD_TIME,
            heard_of: None,
            silence: Duration::ZERO,
        }
    }

    /// Another hold time than the usual one.
    pub(super) fn hold(&mut self, seconds: u16) {
        self.hold_time = seconds;
    }

    /// How often it says that it is there.
    pub(super) fn keepalive(&self) -> Duration {
        Duration::from_secs(self.hold_time.into()) / 3
    }

    /// From now on the longest time between two KEEPALIVEs is measured anew.
    pub(super) fn watch(&mut self, now: Instant) {
        self.heard_of = Some(now);
        self.silence = Duration::ZERO;
    }

    /// The longest time between two KEEPALIVEs, or since the last one.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let since = self.heard_of.map_or(Duration::ZERO, |at| now - at);
        self.silence.max(since)
    }

    pub(super) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    pub(super) fn is_connecting(&self) -> bool {
        self.state == State::Connecting
    }

    pub(super) fn is_established(&self) -> bool {
        self.state == State::Established
    }

    pub(super) fn is_silent(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn count(&self) -> u32 {
        self.held.count()
    }

    pub(super) fn expects(&self) -> Option<u32> {
        self.expected
    }

    pub(super) fn reached(&self) -> Option<Instant> {
        self.reached
    }

    /// Says whether anybody has to wait for it.
    pub(super) fn expect(&mut self, prefixes: u32) -> bool {
        let first = self.expected.is_none();
        self.expected = Some(prefixes);
        self.reached = None;
        first
    }

    /// Notes the time when it has come to hold what is expected; says whether that is now.
    pub(super) fn check(&mut self, now: fn() -> Instant) -> bool {
        if self.expected != Some(self.held.count()) {
            return false;
        }
        self.expected = None;
        self.reached = Some(now());
        true
    }

    pub(super) fn dial(&mut self, target: SocketAddr) -> Result<&Socket> {
        let kind = Type::STREAM.nonblocking();
        let socket = Socket::new(Domain::IPV4, kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket
            .bind(&SocketAddr::from((self.address, 0)).into())
            .with_context(|| format!("bind to {}", self.address))?;
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.raw_os_error() == Some(in_progress()) => {}
            Err(error) => return Err(error).context("dial"),
        }
        self.state = State::Connecting;
        self.partial.clear();
        Ok(self.socket.insert(socket))
    }

    /// The end of a dial: whether there is a connection. It begins with an OPEN.
    pub(super) fn connected(&mut self, raw: bool) -> Result<bool> {
        let socket = self.socket.as_ref().context("a socket")?;
        if socket.take_error()?.is_some() {
            self.close();
            return Ok(false);
        }
        // Registered as waiting for room: `write` sees that there is none to wait for.
        self.waits_for_room = true;
        if raw {
            return Ok(true);
        }
        self.state = State::OpenSent;
        let open = Open {
            asn: self.asn,
            hold_time: self.hold_time,
            router_id: self.address,
            capabilities: vec![
                Capability::Multiprotocol(Family::IPV4_UNICAST),
                Capability::RouteRefresh,
                Capability::FourOctetAs(self.asn),
            ],
        };
        let mut octets = Vec::new();
        open.encode(&mut octets);
        self.push(octets.into());
        Ok(true)
    }

    /// Says what it has to say once its session is up.
    pub(super) fn greet(&mut self) {
        self.state = State::Established;
        self.out.extend(self.greeting.clone());
    }

    /// Drops the connection; says whether its session was up.
    pub(super) fn close(&mut self) -> bool {
        self.socket = None;
        self.out.clear();
        self.said = 0;
        self.waits_for_room = false;
        std::mem::replace(&mut self.state, State::Idle) == State::Established
    }

    pub(super) fn push(&mut self, octets: Octets) {
        self.out.push_back(octets);
    }

    pub(super) fn push_keepalive(&mut self) {
        let mut octets = Vec::new();
        header::encode_keepalive(&mut octets);
        self.push(octets.into());
    }

    /// Writes as much as goes. Gives what the poller is to wait for, where that is another thing now.
    pub(super) fn write(&mut self) -> Result<Option<EventFlags>> {
        let Some(mut socket) = self.socket.as_ref() else {
            return Ok(None);
        };
        let mut full = false;
        while let Some(first) = self.out.front() {
            match socket.write(&first[self.said..]) {
                Ok(written) => self.said += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                // Reading finds out why.
                Err(_) => break,
            }
            if self.said == first.len() {
                self.out.pop_front();
                self.said = 0;
            }
        }
        let wait = match full {
            true => EventFlags::IN | EventFlags::OUT,
            false => EventFlags::IN,
        };
        let changed = std::mem::replace(&mut self.waits_for_room, full) != full;
        Ok(changed.then_some(wait))
    }

    /// Reads what is there, up to a buffer full.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Heard> {
        let Some(mut socket) = self.socket.as_ref() else {
            return Ok(Heard::Nothing);
        };
        let start = self.partial.len();
        buffer[..start].copy_from_slice(&self.partial);
        let len = match socket.read(&mut buffer[start..]) {
            Ok(0) => return Ok(Heard::Closed("the subject closed the connection".into())),
            Ok(len) => start + len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Heard::Nothing),
            Err(error) => return Ok(Heard::Closed(error.to_string())),
        };
        let mut rest = &buffer[..len];
        let mut heard = Heard::Nothing;
        while let Some(length) = rest.get(16..18) {
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            let Some((message, next)) = rest.split_at_checked(length) else {
                break;
            };
            rest = next;
            let last = self.message(message)?;
            if !matches!(last, Heard::Nothing) {
                heard = last;
            }
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        Ok(heard)
    }

    fn message(&mut self, message: &[u8]) -> Result<Heard> {
        let (header, body) = message
            .split_at_checked(HEADER)
            .context("a message shorter than its header")?;
        match (header[HEADER - 1], self.state) {
            (2, _) => {
                self.held.update(body).context("a malformed UPDATE")?;
                Ok(Heard::Nothing)
            }
            (1, State::OpenSent) => {
                self.state = State::OpenConfirm;
                self.push_keepalive();
                Ok(Heard::Answer)
            }
            (4, State::OpenConfirm) => Ok(Heard::Up),
            (4, State::Established) => {
                let now = wait::now();
                self.silence = self.silence(now);
                self.heard_of = Some(now);
                Ok(Heard::Nothing)
            }
            (3, _) => {
                let notification = match header::decode(message, &Context::default()) {
                    Ok(Message::Notification(notification)) => notification.to_string(),
                    other => format!("{other:?}"),
                };
                Ok(Heard::Closed(notification))
            }
            _ => Ok(Heard::Nothing),
        }
    }
}

fn in_progress() -> i32 {
    rustix::io::Errno::INPROGRESS.raw_os_error()
}

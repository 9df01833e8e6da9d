//! Connections: two pipes of octets, and what the two hosts' kernels make of them.
//!
//! As in TCP, octets of one direction come in order or not at all; what is sent into a cut waits and is sent again until
//! it arrives or the sender's user timeout is over; a FIN is sent again like data, a RST is sent once. A pipe takes as
//! much as the window lets it: a reader that doesn't read stops its writer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bgp::session::ConnId;
use bytes::Bytes;

use super::queue::Happening;
use super::{Input, Net};
use crate::address::NodeId;

/// How long a host goes on sending what a closed connection left unsent.
const ORPHAN_TIME: Duration = Duration::from_secs(60);
/// How long a host goes on sending where nobody has set a user timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(900);
/// First pause before something is sent again; doubles from time to time.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// Longest such pause.
const MAX_RETRANSMIT: Duration = Duration::from_secs(15);
/// How often a SYN is sent again: after 1, 2, 4, … seconds.
const SYN_RETRIES: u8 = 5;

/// Names a connection. Its place may be used again, under another serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TcpId {
    slot: u32,
    serial: u32,
}

impl TcpId {
    pub(crate) fn number(self) -> u64 {
        u64::from(self.slot) << 32 | u64::from(self.serial)
    }
}

/// One of a connection's two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Dialler, Self::Acceptor];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// How an end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// SYN sent.
    Connecting,
    /// The kernel has accepted it, the process has not.
    Backlog,
    /// In the process's hands.
    Open,
    /// The host knows nothing of it, not yet or no more.
    Gone,
}

#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: NodeId,
    /// The speaker's name for it.
    pub(crate) conn: Option<ConnId>,
    pub(crate) phase: Phase,
    /// How long the host sends the same again before it gives up; zero: [`DEFAULT_TIMEOUT`].
    pub(crate) user_timeout: Duration,
    /// Until then the process reads nothing.
    pub(crate) deaf_until: Option<Instant>,
    /// The process has been told that there is something to read.
    pub(crate) readable: bool,
    /// What it sends.
    pub(crate) out: Pipe,
}

#[derive(Debug)]
pub(crate) enum Segment {
    Data(Bytes),
    Fin,
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::Fin => 0,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// What did not fit: the process has it still.
    pub(crate) unsent: Option<Bytes>,
    /// On its way, with the time of its arrival. The first one's arrival is in the queue.
    flight: VecDeque<(Instant, Segment)>,
    /// Arrived, and not read.
    pub(crate) arrived: VecDeque<Segment>,
    /// Octets in both.
    pub(crate) octets: usize,
    /// Since when nothing gets through, and the pause before the next attempt.
    stalled: Option<(Instant, Duration)>,
}

impl Pipe {
    /// Gives back what a burst has taken: most of many thousand pipes are idle most of the time.
    pub(crate) fn shrink(&mut self) {
        if self.flight.is_empty() && self.flight.capacity() > 4 {
            self.flight = VecDeque::new();
        }
        if self.arrived.is_empty() && self.arrived.capacity() > 4 {
            self.arrived = VecDeque::new();
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[derive(Debug)]
pub(crate) struct Tcp {
    serial: u32,
    pub(crate) ends: [End; 2],
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Tcps {
    slots: slab::Slab<Tcp>,
    last_serial: u32,
}

impl Tcps {
    pub(crate) fn get(&self, id: TcpId) -> Option<&Tcp> {
        let tcp = self.slots.get(id.slot as usize)?;
        (tcp.serial == id.serial).then_some(tcp)
    }

    pub(crate) fn get_mut(&mut self, id: TcpId) -> Option<&mut Tcp> {
        let tcp = self.slots.get_mut(id.slot as usize)?;
        (tcp.serial == id.serial).then_some(tcp)
    }

    pub(crate) fn end(&self, id: TcpId, side: Side) -> Option<&End> {
        Some(&self.get(id)?.ends[side as usize])
    }

    pub(crate) fn end_mut(&mut self, id: TcpId, side: Side) -> Option<&mut End> {
        Some(&mut self.get_mut(id)?.ends[side as usize])
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TcpId, &Tcp)> {
        self.slots.iter().filter_map(|(slot, tcp)| {
            let slot = u32::try_from(slot).ok()?;
            let serial = tcp.serial;
            Some((TcpId { slot, serial }, tcp))
        })
    }

    /// The port that the dialler's kernel chose.
    pub(crate) fn port(&self, id: TcpId) -> u16 {
        32_768 + u16::try_from(id.serial % 28_000).unwrap_or(0)
    }

    fn insert(&mut self, ends: [End; 2]) -> TcpId {
        self.last_serial = self.last_serial.wrapping_add(1);
        let serial = self.last_serial;
        let slot = self.slots.insert(Tcp { serial, ends });
        TcpId {
            slot: u32::try_from(slot).unwrap_or(u32::MAX),
            serial,
        }
    }

    /// Forgets a connection that neither host knows.
    fn collect(&mut self, id: TcpId) {
        if self
            .get(id)
            .is_some_and(|tcp| tcp.ends.iter().all(|end| end.phase == Phase::Gone))
        {
            self.slots.remove(id.slot as usize);
        }
    }
}

impl Net {
    /// A process dials.
    pub(super) fn dial(
        &mut self,
        from: NodeId,
        conn: ConnId,
        to: NodeId,
        timeout: Duration,
    ) -> TcpId {
        let end = |node, conn, phase| End {
            node,
            conn,
            phase,
            user_timeout: timeout,
            deaf_until: None,
            readable: false,
            out: Pipe::default(),
        };
        let tcp = self.tcps.insert([
            end(from, Some(conn), Phase::Connecting),
            end(to, None, Phase::Gone),
        ]);
        let at = self.now + self.latency(from, to);
        self.queue.push(at, Happening::Syn { tcp, attempt: 0 });
        tcp
    }

    pub(super) fn syn(&mut self, tcp: TcpId, attempt: u8) {
        let Some([dialler, acceptor]) = self.tcps.get(tcp).map(|tcp| &tcp.ends) else {
            return;
        };
        let (from, to) = (dialler.node, acceptor.node);
        if !self.passes(from, to) {
            if attempt >= SYN_RETRIES {
                return self.fail(tcp, Side::Dialler, "connection timed out");
            }
            let at = self.now + Duration::from_secs(1 << attempt);
            let attempt = attempt + 1;
            return self.queue.push(at, Happening::Syn { tcp, attempt });
        }
        if self.hosts[to.index()].process.is_none() {
            return self.fail(tcp, Side::Dialler, "connection refused");
        }
        if let Some(end) = self.tcps.end_mut(tcp, Side::Acceptor) {
            end.phase = Phase::Backlog;
        }
        self.input(to, Input::Accept(tcp));
        let at = self.now + self.latency(to, from);
        self.queue.push(at, Happening::SynAck { tcp });
    }

    pub(super) fn syn_ack(&mut self, tcp: TcpId) {
        let Some([dialler, acceptor]) = self.tcps.get(tcp).map(|tcp| &tcp.ends) else {
            return;
        };
        let (phase, from, to) = (dialler.phase, dialler.node, acceptor.node);
        if phase != Phase::Connecting {
            // Given up meanwhile: the SYN-ACK is answered by a RST.
            return self.reset(tcp, Side::Acceptor);
        }
        if !self.passes(to, from) {
            let at = self.now + Duration::from_secs(1);
            return self.queue.push(at, Happening::SynAck { tcp });
        }
        if let Some(end) = self.tcps.end_mut(tcp, Side::Dialler) {
            end.phase = Phase::Open;
        }
        self.input(from, Input::Connected(tcp));
    }

    /// Sends a RST to an end: it may get lost.
    fn reset(&mut self, tcp: TcpId, side: Side) {
        let Some(tcp_ref) = self.tcps.get(tcp) else {
            return;
        };
        let (to, from) = (
            tcp_ref.ends[side as usize].node,
            tcp_ref.ends[side.other() as usize].node,
        );
        let at = self.now + self.latency(from, to);
        self.queue.push(at, Happening::Reset { tcp, side });
    }

    pub(super) fn reset_arrives(&mut self, tcp: TcpId, side: Side) {
        let Some(tcp_ref) = self.tcps.get(tcp) else {
            return;
        };
        let (to, from) = (
            tcp_ref.ends[side as usize].node,
            tcp_ref.ends[side.other() as usize].node,
        );
        if self.passes(from, to) {
            self.fail(tcp, side, "connection reset by peer");
        }
    }

    /// A connection ends for its host; the process hears of it.
    fn fail(&mut self, tcp: TcpId, side: Side, reason: &'static str) {
        let Some(end) = self.tcps.end_mut(tcp, side) else {
            return;
        };
        let node = end.node;
        match end.phase {
            Phase::Gone => {}
            // The process has not seen it: `Input::Accept` finds it gone.
            Phase::Backlog => self.forget(tcp, side),
            Phase::Connecting | Phase::Open => self.input(node, Input::Failed(tcp, side, reason)),
        }
    }

    /// The host knows it no more; what is on its way from it is lost.
    pub(super) fn forget(&mut self, tcp: TcpId, side: Side) {
        if let Some(end) = self.tcps.end_mut(tcp, side) {
            end.phase = Phase::Gone;
            end.conn = None;
            end.out.clear();
            self.tcps.collect(tcp);
        }
    }

    /// The process closes an end, or dies. What it has written is sent first, unless it has left octets unread: that is
    /// a RST (RFC 2525 §2.17), as it is where `hard` says so.
    pub(super) fn close(&mut self, tcp: TcpId, side: Side, last: Option<Bytes>, hard: bool) {
        let Some(tcp_mut) = self.tcps.get_mut(tcp) else {
            return;
        };
        let other = &mut tcp_mut.ends[side.other() as usize];
        let unread = other
            .out
            .arrived
            .iter()
            .any(|segment| matches!(segment, Segment::Data(_)));
        let other_phase = other.phase;
        other.out.arrived.clear();
        let end = &mut tcp_mut.ends[side as usize];
        let opened = matches!(end.phase, Phase::Open | Phase::Backlog);
        end.phase = Phase::Gone;
        end.conn = None;
        let blocked = end.out.unsent.take().is_some();
        if !opened || other_phase == Phase::Gone {
            return self.tcps.collect(tcp);
        }
        // A peer that doesn't read gets no last words, nor a FIN.
        if hard || unread || blocked {
            return self.reset(tcp, side.other());
        }
        if let Some(last) = last.filter(|last| !last.is_empty()) {
            self.send(tcp, side, Segment::Data(last));
        }
        self.send(tcp, side, Segment::Fin);
    }

    /// As much of it as the window takes; the rest.
    pub(super) fn write(&mut self, tcp: TcpId, side: Side, mut bytes: Bytes) -> Option<Bytes> {
        let window = self.conditions.window;
        let used = self.tcps.end(tcp, side)?.out.octets;
        let room = window.saturating_sub(used);
        if room == 0 {
            return Some(bytes);
        }
        let rest = (bytes.len() > room).then(|| bytes.split_off(room));
        self.octets += bytes.len() as u64;
        self.send(tcp, side, Segment::Data(bytes));
        rest
    }

    fn send(&mut self, tcp: TcpId, side: Side, segment: Segment) {
        let Some(tcp_ref) = self.tcps.get(tcp) else {
            return;
        };
        let (from, to) = (
            tcp_ref.ends[side as usize].node,
            tcp_ref.ends[side.other() as usize].node,
        );
        let at = self.now + self.latency(from, to);
        let Some(end) = self.tcps.end_mut(tcp, side) else {
            return;
        };
        let at = end.out.flight.back().map_or(at, |(last, _)| at.max(*last));
        end.out.octets += segment.len();
        let idle = end.out.flight.is_empty();
        end.out.flight.push_back((at, segment));
        if idle {
            self.queue.push(at, Happening::Arrival { tcp, side });
        }
    }

    /// The first segment on its way from `side` gets there, or not.
    pub(super) fn arrival(&mut self, tcp: TcpId, side: Side) {
        let Some(tcp_ref) = self.tcps.get(tcp) else {
            return;
        };
        let (sender, receiver) = (
            &tcp_ref.ends[side as usize],
            &tcp_ref.ends[side.other() as usize],
        );
        let (from, to) = (sender.node, receiver.node);
        let (sender_phase, receiver_phase) = (sender.phase, receiver.phase);
        if !self.passes(from, to) {
            return self.stall(tcp, side);
        }
        if receiver_phase == Phase::Gone {
            // Nobody knows the connection there.
            if let Some(end) = self.tcps.end_mut(tcp, side) {
                end.out.clear();
            }
            if sender_phase != Phase::Gone {
                self.reset(tcp, side);
            }
            return self.tcps.collect(tcp);
        }
        let now = self.now;
        let Some(tcp_mut) = self.tcps.get_mut(tcp) else {
            return;
        };
        let pipe = &mut tcp_mut.ends[side as usize].out;
        pipe.stalled = None;
        let Some((_, segment)) = pipe.flight.pop_front() else {
            return;
        };
        pipe.arrived.push_back(segment);
        let next = pipe.flight.front().map(|(at, _)| now.max(*at));
        if let Some(at) = next {
            self.queue.push(at, Happening::Arrival { tcp, side });
        }
        self.wake_reader(tcp, side.other());
    }

    fn stall(&mut self, tcp: TcpId, side: Side) {
        let now = self.now;
        let Some(end) = self.tcps.end_mut(tcp, side) else {
            return;
        };
        if end.out.flight.is_empty() {
            return;
        }
        let (since, pause) = end.out.stalled.unwrap_or((now, RETRANSMIT));
        let patience = if end.phase == Phase::Gone {
            ORPHAN_TIME
        } else if end.user_timeout.is_zero() {
            DEFAULT_TIMEOUT
        } else {
            end.user_timeout
        };
        if now - since >= patience {
            let phase = end.phase;
            end.out.clear();
            if phase == Phase::Gone {
                // Given up for good: the other side never hears of it.
                return;
            }
            return self.fail(tcp, side, "connection timed out");
        }
        end.out.stalled = Some((since, (pause * 2).min(MAX_RETRANSMIT)));
        self.queue
            .push(now + pause, Happening::Arrival { tcp, side });
    }

    /// Tells the process that there is something to read, once.
    pub(super) fn wake_reader(&mut self, tcp: TcpId, side: Side) {
        let now = self.now;
        let Some(end) = self.tcps.end_mut(tcp, side) else {
            return;
        };
        if end.readable || end.phase != Phase::Open {
            return;
        }
        end.readable = true;
        let node = end.node;
        match end.deaf_until.filter(|until| *until > now) {
            Some(until) => self.queue.push(until, Happening::Listens { tcp, side }),
            None => self.input(node, Input::Readable(tcp, side)),
        }
    }

    pub(super) fn listens(&mut self, tcp: TcpId, side: Side) {
        if let Some(end) = self.tcps.end_mut(tcp, side) {
            end.readable = false;
            self.wake_reader(tcp, side);
        }
    }

    /// The writer may go on.
    pub(super) fn window_opens(&mut self, tcp: TcpId, side: Side) {
        let Some(tcp_ref) = self.tcps.get(tcp) else {
            return;
        };
        let (end, from) = (
            &tcp_ref.ends[side as usize],
            tcp_ref.ends[side.other() as usize].node,
        );
        let (node, open) = (end.node, end.phase == Phase::Open);
        if !open {
            return;
        }
        if !self.passes(from, node) {
            // The writer's window probes find out.
            let at = self.now + Duration::from_secs(1);
            return self.queue.push(at, Happening::Window { tcp, side });
        }
        self.input(node, Input::Writable(tcp, side));
    }
}

//! A node's process: a speaker and its sockets, driven as `bgp-net` drives them.
//!
//! What comes in wakes the process, which has its turn a little later, and then takes all that has come in by then:
//! the more there is to do, the more goes into one turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use bgp::session::ConnId;
use bgp::speaker::{Event, Speaker};
use bytes::Bytes;

use super::queue::Happening;
use super::tcp::{Phase, Segment, Side, TcpId};
use super::{Net, PORT};
use crate::address::NodeId;

/// What is read from a connection before the next one has its turn.
const READ_CHUNK: usize = 64 * 1024;
/// How many route changes the kernel takes at once.
const CHANGES: usize = 4096;

/// What a process finds when it has its turn.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input {
    Accept(TcpId),
    Connected(TcpId),
    Failed(TcpId, Side, &'static str),
    Readable(TcpId, Side),
    Writable(TcpId, Side),
}

/// What waits for a process.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    pub(crate) inputs: Vec<Input>,
    /// A turn is scheduled.
    woken: bool,
    /// Stopped until then: SIGSTOP, or a machine that has no time for it.
    pub(crate) stopped_until: Option<Instant>,
}

/// A speaker and its sockets.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) speaker: Speaker,
    pub(crate) sockets: BTreeMap<ConnId, (TcpId, Side)>,
    /// The deadline that is scheduled.
    pub(crate) timer: Option<Instant>,
    pub(crate) sessions: usize,
}

impl Process {
    pub(crate) fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            sockets: BTreeMap::new(),
            timer: None,
            sessions: 0,
        }
    }
}

impl Net {
    /// Something for a process, if there is one.
    pub(super) fn input(&mut self, node: NodeId, input: Input) {
        if let Some(mailbox) = &mut self.hosts[node.index()].mailbox {
            mailbox.inputs.push(input);
            self.wake(node);
        }
    }

    /// Has a turn scheduled.
    pub(super) fn wake(&mut self, node: NodeId) {
        let pause = self.conditions.turn(&mut self.random);
        let at = self.now + pause;
        let Some(mailbox) = &mut self.hosts[node.index()].mailbox else {
            return;
        };
        if !std::mem::replace(&mut mailbox.woken, true) {
            let at = mailbox.stopped_until.map_or(at, |until| at.max(until));
            self.queue.push(at, Happening::Turn { node });
        }
    }

    /// A deadline may be due.
    pub(super) fn timer(&mut self, node: NodeId) {
        let now = self.now;
        let Some(process) = &mut self.hosts[node.index()].process else {
            return;
        };
        if process.timer.is_some_and(|at| at <= now) {
            process.timer = None;
            self.wake(node);
        }
    }

    pub(super) fn turn(&mut self, node: NodeId) {
        let now = self.now;
        let host = &mut self.hosts[node.index()];
        let (Some(mut process), Some(mailbox)) = (host.process.take(), &mut host.mailbox) else {
            return;
        };
        if let Some(until) = mailbox.stopped_until.filter(|until| *until > now) {
            // Stopped since the turn was scheduled.
            self.queue.push(until, Happening::Turn { node });
            host.process = Some(process);
            return;
        }
        mailbox.woken = false;
        mailbox.stopped_until = None;
        let inputs = std::mem::take(&mut mailbox.inputs);
        if process
            .speaker
            .poll_timeout()
            .is_some_and(|(at, _)| at <= now)
        {
            process.speaker.handle_timeout(now);
        }
        for input in inputs {
            self.take(&mut process, input);
        }
        self.drain(node, &mut process);
        let next = process.speaker.poll_timeout().map(|(at, _)| at.max(now));
        if let Some(at) = next.filter(|at| process.timer.is_none_or(|timer| *at < timer)) {
            process.timer = Some(at);
            self.queue.push(at, Happening::Timer { node });
        }
        self.hosts[node.index()].process = Some(process);
    }

    fn take(&mut self, process: &mut Process, input: Input) {
        match input {
            Input::Accept(tcp) => self.accept(process, tcp),
            Input::Connected(tcp) => self.connected(process, tcp),
            Input::Failed(tcp, side, reason) => {
                let conn = self.tcps.end(tcp, side).and_then(|end| end.conn);
                self.forget(tcp, side);
                if let Some(conn) = conn {
                    process.sockets.remove(&conn);
                    process.speaker.handle_closed(conn, reason.into(), self.now);
                }
            }
            Input::Readable(tcp, side) => self.read(process, tcp, side),
            Input::Writable(tcp, side) => {
                if let Some(conn) = self.tcps.end(tcp, side).and_then(|end| end.conn) {
                    self.transmit(process, conn);
                }
            }
        }
    }

    fn accept(&mut self, process: &mut Process, tcp: TcpId) {
        let Some(ends) = self.tcps.get(tcp).map(|tcp| &tcp.ends) else {
            return;
        };
        let [from, to] = [ends[0].node, ends[1].node];
        if ends[1].phase != Phase::Backlog {
            return;
        }
        let (local, remote) = (
            SocketAddr::new(to.address(), PORT),
            SocketAddr::new(from.address(), ephemeral(tcp, self)),
        );
        let transport = process.speaker.transport(from.address());
        let accepted = transport.and_then(|transport| {
            let conn = process.speaker.handle_incoming(local, remote, self.now)?;
            Some((conn, transport))
        });
        let Some((conn, transport)) = accepted else {
            return self.close(tcp, Side::Acceptor, None, false);
        };
        if let Some(end) = self.tcps.end_mut(tcp, Side::Acceptor) {
            end.phase = Phase::Open;
            end.conn = Some(conn);
            end.user_timeout = transport.user_timeout;
        }
        process.sockets.insert(conn, (tcp, Side::Acceptor));
        // What came before it was accepted.
        self.wake_reader(tcp, Side::Acceptor);
    }

    fn connected(&mut self, process: &mut Process, tcp: TcpId) {
        let Some(ends) = self.tcps.get(tcp).map(|tcp| &tcp.ends) else {
            return;
        };
        let [from, to] = [ends[0].node, ends[1].node];
        let Some(conn) = ends[0].conn else { return };
        let (local, remote) = (
            SocketAddr::new(from.address(), ephemeral(tcp, self)),
            SocketAddr::new(to.address(), PORT),
        );
        process
            .speaker
            .handle_connected(conn, local, remote, self.now);
        self.wake_reader(tcp, Side::Dialler);
    }

    fn read(&mut self, process: &mut Process, tcp: TcpId, side: Side) {
        let now = self.now;
        if let Some(end) = self.tcps.end_mut(tcp, side) {
            end.readable = false;
        }
        let mut budget = READ_CHUNK;
        loop {
            let Some(end) = self.tcps.end(tcp, side) else {
                return;
            };
            let Some(conn) = end.conn.filter(|_| end.phase == Phase::Open) else {
                return;
            };
            if end.deaf_until.is_some_and(|until| until > now) || budget == 0 {
                return self.wake_reader(tcp, side);
            }
            match self.receive(tcp, side, budget) {
                Received::Nothing => return,
                Received::End => {
                    process.sockets.remove(&conn);
                    self.close(tcp, side, None, false);
                    return process
                        .speaker
                        .handle_closed(conn, "closed by peer".into(), now);
                }
                Received::Data(bytes) => {
                    budget -= bytes.len();
                    process.speaker.handle_data(conn, &bytes, now);
                    if process
                        .speaker
                        .poll_timeout()
                        .is_some_and(|(at, _)| at <= now)
                    {
                        process.speaker.handle_timeout(now);
                    }
                }
            }
        }
    }

    /// One read: part of what has arrived, or several segments at once.
    fn receive(&mut self, tcp: TcpId, side: Side, budget: usize) -> Received {
        let limit = self.conditions.read_size(&mut self.random).min(budget);
        let Some(tcp_mut) = self.tcps.get_mut(tcp) else {
            return Received::Nothing;
        };
        let pipe = &mut tcp_mut.ends[side.other() as usize].out;
        let mut data = match pipe.arrived.front_mut() {
            None => return Received::Nothing,
            Some(Segment::Fin) => return Received::End,
            Some(Segment::Data(bytes)) => bytes.split_to(limit.min(bytes.len())),
        };
        let finished = |pipe: &super::tcp::Pipe| matches!(pipe.arrived.front(), Some(Segment::Data(bytes)) if bytes.is_empty());
        if finished(pipe) {
            pipe.arrived.pop_front();
        }
        if data.len() < limit && matches!(pipe.arrived.front(), Some(Segment::Data(_))) {
            let mut joined = data.to_vec();
            while let Some(Segment::Data(bytes)) = pipe.arrived.front_mut()
                && joined.len() < limit
            {
                joined.extend_from_slice(&bytes.split_to((limit - joined.len()).min(bytes.len())));
                if finished(pipe) {
                    pipe.arrived.pop_front();
                }
            }
            data = joined.into();
        }
        pipe.octets -= data.len();
        if pipe.octets == 0 {
            pipe.shrink();
        }
        let blocked = pipe.unsent.is_some();
        let (to, from) = (
            tcp_mut.ends[side as usize].node,
            tcp_mut.ends[side.other() as usize].node,
        );
        if blocked {
            let at = self.now + self.latency(to, from);
            let side = side.other();
            self.queue.push(at, Happening::Window { tcp, side });
        }
        Received::Data(data)
    }

    /// Writes what the speaker has to say, until it has said everything or the window is full.
    fn transmit(&mut self, process: &mut Process, conn: ConnId) {
        let Some(&(tcp, side)) = process.sockets.get(&conn) else {
            return;
        };
        loop {
            let Some(end) = self.tcps.end_mut(tcp, side) else {
                return;
            };
            if end.phase != Phase::Open {
                return;
            }
            let Some(bytes) = end
                .out
                .unsent
                .take()
                .or_else(|| process.speaker.poll_transmit(conn))
            else {
                return;
            };
            if let Some(rest) = self.write(tcp, side, bytes) {
                if let Some(end) = self.tcps.end_mut(tcp, side) {
                    end.out.unsent = Some(rest);
                }
                return;
            }
        }
    }

    fn drain(&mut self, node: NodeId, process: &mut Process) {
        let mut synced = false;
        loop {
            while let Some(event) = process.speaker.poll_event() {
                synced |= event == Event::Synced;
                self.event(node, process, event);
            }
            let mut wrote = false;
            while let Some(conn) = process.speaker.poll_ready() {
                self.transmit(process, conn);
                wrote = true;
            }
            if !wrote {
                break;
            }
        }
        let host = &mut self.hosts[node.index()];
        loop {
            let changes = process.speaker.poll_routes(CHANGES);
            if changes.is_empty() {
                break;
            }
            let before = host.fib.len();
            for change in &changes {
                host.fib.apply(change, &mut self.next_hops);
            }
            self.changes += changes.len() as u64;
            self.routes = self.routes + host.fib.len() - before;
            self.last_change = self.now;
        }
        if synced {
            let before = host.fib.len();
            host.fib.synced();
            self.routes = self.routes + host.fib.len() - before;
        }
    }

    fn event(&mut self, node: NodeId, process: &mut Process, event: Event) {
        match event {
            Event::Connect {
                conn,
                remote,
                transport,
            } => match NodeId::of(remote.ip()).filter(|to| to.index() < self.hosts.len()) {
                Some(to) => {
                    let tcp = self.dial(node, conn, to, transport.user_timeout);
                    process.sockets.insert(conn, (tcp, Side::Dialler));
                }
                None => {
                    process
                        .speaker
                        .handle_closed(conn, "no route to host".into(), self.now);
                }
            },
            Event::Close { conn, last } => self.last_words(process, conn, last),
            Event::SessionUp { peer, .. } => {
                process.sessions += 1;
                self.sessions += 1;
                self.log(|| format!("{node}: session with {} is up", name(peer)));
            }
            Event::SessionDown { peer, ended } => {
                process.sessions -= 1;
                self.sessions -= 1;
                self.log(|| format!("{node}: session with {} is down: {ended}", name(peer)));
            }
            Event::AttemptFailed { peer, ended, .. } => {
                self.log(|| format!("{node}: no session with {}: {ended}", name(peer)));
            }
            Event::Synced => self.log(|| format!("{node}: synced")),
            // Nobody here has a key or a limit.
            Event::SetKey { .. } | Event::ManyPrefixes { .. } => {}
        }
    }

    fn last_words(&mut self, process: &mut Process, conn: ConnId, last: Bytes) {
        if let Some((tcp, side)) = process.sockets.remove(&conn) {
            self.close(tcp, side, Some(last), false);
        }
    }
}

#[derive(Debug)]
enum Received {
    Nothing,
    Data(Bytes),
    End,
}

fn name(peer: std::net::IpAddr) -> String {
    NodeId::of(peer).map_or_else(|| peer.to_string(), |node| node.to_string())
}

/// The port that a dialler's kernel chose.
fn ephemeral(tcp: TcpId, net: &Net) -> u16 {
    net.tcps.port(tcp)
}

//! The session machine for one peer: both connection slots, the FSM of each, collisions, timers, negotiation, and the
//! helper's half of graceful restart (RFC 4271 §6.8, §8; RFC 4724 §4.2; RFC 9687).
//!
//! | module | what |
//! | --- | --- |
//! | `fsm` | states, events, and the transitions as one table |
//! | `timer` | deadlines |
//! | `backoff` | pauses between attempts |
//! | `connection` | bytes of one TCP connection |
//! | `open` | our OPEN, and what the two agree on |
//! | `input` | from bytes to events |
//! | `act` | from events to what is done about them |
//! | `admin` | what configuration and the operator do to a session |
//! | `limit` | bounds on what the peer may announce |
//! | `refresh` | everything once more, either way (RFC 2918, RFC 7313) |
//! | `helper` | what outlives a session while the peer restarts |
//! | `ended` | why it ended, for a person |
//! | `status` | how it stands |
//!
//! A session has at most two connections: the one it opens itself and the one that the peer opened. Each runs the FSM;
//! at most one of them gets to Established, and then the other slot rests until a peer that restarted calls anew.

mod act;
mod admin;
mod backoff;
mod connection;
mod ended;
pub(crate) mod fsm;
mod helper;
mod input;
mod limit;
pub(crate) mod open;
mod refresh;
mod status;
#[cfg(test)]
mod tests;
pub(crate) mod timer;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_wire::{Asn, Family, Update};
use bytes::Bytes;

pub use admin::Halt;
pub use connection::{ConnId, Opener};
pub use ended::{Direction, Ended};
pub use fsm::State;

use crate::config::{AsnSet, PeerConfig, PrefixLimit, SpeakerConfig};
use act::Detail;
use backoff::Backoff;
use connection::Connection;
use fsm::Event;
use open::{LocalRestart, Negotiated};
use timer::{Timer, Timers};

/// How long after a return of the peer its old routes stay without an End-of-RIB.
const STALE_TIME: Duration = Duration::from_secs(360);
/// How long a peer that began to send everything again may take until it says that it is done (RFC 7313 §4 leaves it open).
const REFRESH_TIME: Duration = Duration::from_secs(360);
/// How long a session must have been up for its earlier failures to be forgotten.
const STABLE_TIME: Duration = Duration::from_secs(60);
/// A dial is given at least this long, however short the configured retry time: a lost SYN is sent again after 1 s and
/// after 3 s.
const MIN_DIAL_TIME: Duration = Duration::from_secs(5);
/// How long the peer's OPEN may take: "a large value" (RFC 4271 §8.2.2).
const OPEN_TIME: Duration = Duration::from_secs(240);
/// How long after a session came up the peer may still have sent its call without knowing of it: a lost SYN is sent again
/// after 1 s and after 3 s. If it has restarted that soon, it calls again.
const CROSSING_TIME: Duration = Duration::from_secs(4);
/// A hold timer served later than this says that we slept, not that the peer did.
const LATE: Duration = Duration::from_secs(1);

/// What of the configuration makes a session: any change of it needs a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The speaker's AS, which AS paths may show beside the session's.
    pub(crate) asn: Asn,
    pub(crate) local_asn: Asn,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) peer_asns: AsnSet,
    pub(crate) families: Vec<Family>,
    pub(crate) extended_next_hop: bool,
    pub(crate) hold_time: Duration,
    pub(crate) graceful_restart: Option<Duration>,
}

impl Settings {
    pub(crate) fn new(speaker: &SpeakerConfig, peer: &PeerConfig, peer_asns: AsnSet) -> Self {
        Self {
            asn: speaker.asn,
            local_asn: peer.local_asn.unwrap_or(speaker.asn),
            router_id: speaker.router_id,
            peer_asns,
            families: peer.families.clone(),
            extended_next_hop: peer.extended_next_hop,
            hold_time: peer.hold_time,
            graceful_restart: peer.graceful_restart,
        }
    }
}

/// What the session tells the RIB, at the moment when it happens: the same bytes may hold the last message of the
/// handshake and the first routes.
pub(crate) trait Routes {
    /// The session is up.
    fn up(&mut self, negotiated: &Negotiated, local: SocketAddr);
    /// The session is down; the routes of the families in `keep` stay, as stale ones.
    fn down(&mut self, keep: &[Family]);
    /// Routes from the peer.
    fn update(&mut self, update: &Update<'_>);
    /// The peer has sent all it has of a family: what is stale still is gone.
    fn end_of_rib(&mut self, family: Family);
    /// Stale routes have had their time.
    fn stale_expired(&mut self);
    /// The peer wants everything of a family again.
    fn refresh(&mut self, family: Family);
    /// The peer begins to send everything of a family again (RFC 7313).
    fn begin_refresh(&mut self, family: Family);
    /// It is done, or has had the time to: what did not come again is gone.
    fn end_refresh(&mut self, family: Family);
    /// How many prefixes of a family the peer has announced.
    fn received(&self, family: Family) -> u32;
    /// The next UPDATE for the peer.
    fn poll_transmit(&mut self) -> Option<Bytes>;
}

/// What the session asks of its driver, and what it reports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Open a TCP connection.
    Connect(ConnId),
    /// Close a connection after these last bytes.
    Close(ConnId, Bytes),
    /// There is something to send.
    Ready(ConnId),
    /// Established, with a peer of this AS and this hold time. It may be over by the time that this is read.
    Up(Asn, Duration),
    /// No longer established.
    Down(Ended),
    /// An attempt failed, so many of them in a row.
    Failed(Ended, u32),
    /// The peer has announced so many prefixes that it is worth a word.
    ManyPrefixes(PrefixLimit, u32),
}

/// Message counters since the peer was configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages of any type received.
    pub messages_in: u64,
    /// Messages of any type sent.
    pub messages_out: u64,
    /// UPDATEs received.
    pub updates_in: u64,
    /// UPDATEs sent.
    pub updates_out: u64,
    /// NOTIFICATIONs received.
    pub notifications_in: u64,
    /// NOTIFICATIONs sent.
    pub notifications_out: u64,
    /// UPDATEs received with a malformed attribute that did not end the session (RFC 7606).
    pub update_faults_in: u64,
}

/// One of the two places for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// Ours to dial; also the resting place of an established connection that the peer opened, once it opens another.
    Out,
    /// The peer's.
    In,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Out, Self::In];

    fn other(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

#[derive(Debug)]
struct Slot {
    state: State,
    connection: Option<Connection>,
}

impl Slot {
    const EMPTY: Self = Self {
        state: State::Idle,
        connection: None,
    };
}

/// The session with one peer.
#[derive(Debug)]
pub(crate) struct Session {
    peer: u32,
    settings: Settings,
    passive: bool,
    connect_retry: Duration,
    keepalive: Option<Duration>,
    send_hold: Duration,
    limits: Vec<PrefixLimit>,
    /// The peer's segments must be signed.
    signed: bool,
    restart: LocalRestart,
    enabled: bool,
    /// Why the session is down for good, where it is not for lack of trying.
    halt: Option<Halt>,
    slots: [Slot; 2],
    timers: Timers,
    backoff: Backoff,
    last_serial: u32,
    outputs: VecDeque<Output>,
    /// Families whose stale routes the RIB keeps for the peer's return.
    stale: Vec<Family>,
    /// Families whose End-of-RIB has not come yet in this session.
    awaited: Vec<Family>,
    /// Families of which the peer is sending everything again.
    refreshing: Vec<Family>,
    /// Families of which it was said that there are many prefixes.
    warned: Vec<Family>,
    /// KEEPALIVEs since the session came up.
    keepalives: u32,
    counters: Counters,
    flaps: u32,
    last_error: Option<(Instant, Ended)>,
    last_attempt: Option<(Instant, Ended)>,
    shown: State,
    since: Instant,
}

impl Session {
    /// A session that is stopped; [`start`](Self::start) it.
    ///
    /// Its connections are numbered from after `last_serial`.
    pub(crate) fn new(
        peer: u32,
        last_serial: u32,
        settings: Settings,
        config: &PeerConfig,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            peer,
            settings,
            passive: config.passive,
            connect_retry: config.connect_retry,
            keepalive: config.keepalive,
            send_hold: config.send_hold,
            limits: config.prefix_limits.clone(),
            signed: config.password.is_some(),
            restart: LocalRestart::default(),
            enabled: false,
            halt: None,
            slots: [Slot::EMPTY; 2],
            timers: Timers::default(),
            backoff: Backoff::new(seed),
            last_serial,
            outputs: VecDeque::new(),
            stale: Vec::new(),
            awaited: Vec::new(),
            refreshing: Vec::new(),
            warned: Vec::new(),
            keepalives: 0,
            counters: Counters::default(),
            flaps: 0,
            last_error: None,
            last_attempt: None,
            shown: State::Idle,
            since: now,
        }
    }

    pub(crate) fn last_serial(&self) -> u32 {
        self.last_serial
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn set_restart(&mut self, restart: LocalRestart) {
        self.restart = restart;
    }

    /// A connection that was asked for by [`Output::Connect`] is up.
    pub(crate) fn handle_connected(
        &mut self,
        conn: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        let Some(side) = self.side(conn) else { return };
        if self.slot(side).state != State::Connect {
            return;
        }
        if self.slot(side.other()).state >= State::OpenConfirm {
            // The peer may have the session on the other connection already. An OPEN on this one could only make the two
            // of us decide differently, and lose both.
            self.abandon_dial();
            return self.settle(now);
        }
        if let Some(connection) = &mut self.slots[side as usize].connection {
            connection.addresses = Some((local, remote));
        }
        self.event(side, Event::Connected, Detail::None, now, routes);
    }

    /// The peer opened a connection. `None`: refused, because the session is stopped or held off.
    pub(crate) fn handle_incoming(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
        routes: &mut impl Routes,
    ) -> Option<ConnId> {
        if !self.enabled || self.timers.is_set(Timer::IdleHold) {
            return None;
        }
        match self.slot(Side::In).state {
            State::Established => self.slots.swap(0, 1),
            // A speaker opens one connection at a time: the one before is dead.
            State::OpenSent | State::OpenConfirm => self.collide(Side::In, now, routes),
            State::Idle | State::Active | State::Connect => {}
        }
        if self.slot(Side::Out).state == State::Established {
            // Where our connection is dead, this makes its host say so.
            self.event(
                Side::Out,
                Event::KeepaliveExpired,
                Detail::None,
                now,
                routes,
            );
        }
        let conn = self.next_conn();
        self.slots[Side::In as usize] = Slot {
            state: State::Active,
            connection: Some(Connection::new(conn, Opener::Peer, Some((local, remote)))),
        };
        self.event(Side::In, Event::Connected, Detail::None, now, routes);
        Some(conn)
    }

    /// TCP failed or ended, or never came up; `reason` is for a person.
    pub(crate) fn handle_closed(
        &mut self,
        conn: ConnId,
        reason: String,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        let Some(side) = self.side(conn) else { return };
        self.event(
            side,
            Event::Lost,
            Detail::Ended(Ended::local(reason)),
            now,
            routes,
        );
    }

    /// Serves every timer that is due: first the KEEPALIVEs.
    pub(crate) fn handle_timeout(&mut self, now: Instant, routes: &mut impl Routes) {
        for side in Side::BOTH {
            while let Some((timer, late)) = self.slots[side as usize]
                .connection
                .as_mut()
                .and_then(|connection| connection.timers.expire(now))
            {
                self.connection_timeout(side, timer, late, now, routes);
            }
        }
        while let Some((timer, _)) = self.timers.expire(now) {
            self.session_timeout(timer, now, routes);
        }
    }

    /// The earliest deadline.
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let connections = self
            .slots
            .iter()
            .filter_map(|slot| slot.connection.as_ref()?.timers.next());
        let (at, timer) = connections
            .chain(self.timers.next())
            .min_by_key(|(at, _)| *at)?;
        Some((at, timer.reason()))
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether a message waits that is not the RIB's.
    pub(crate) fn has_control(&self, conn: ConnId) -> bool {
        let connection = self
            .side(conn)
            .and_then(|side| self.slot(side).connection.as_ref());
        connection.is_some_and(Connection::has_control)
    }

    /// What to send next on a connection whose socket has room: control messages, then the RIB's.
    pub(crate) fn poll_transmit(
        &mut self,
        conn: ConnId,
        routes: &mut impl Routes,
    ) -> Option<Bytes> {
        let side = self.side(conn)?;
        let established = self.slot(side).state == State::Established;
        let connection = self.slots[side as usize].connection.as_mut()?;
        if let Some(control) = connection.take_control() {
            connection.timers.stop(Timer::SendHold);
            return Some(control);
        }
        let updates = established.then(|| routes.poll_transmit()).flatten()?;
        let messages = connection::count_messages(&updates);
        self.counters.messages_out += messages.0;
        self.counters.updates_out += messages.1;
        Some(updates)
    }

    /// Whether we have tried to reach the peer in vain.
    pub(crate) fn is_unreachable(&self) -> bool {
        !self.passive && self.backoff.failures() > 0 && !self.state().connected()
    }

    fn slot(&self, side: Side) -> &Slot {
        &self.slots[side as usize]
    }

    fn side(&self, conn: ConnId) -> Option<Side> {
        Side::BOTH.into_iter().find(|side| {
            self.slot(*side)
                .connection
                .as_ref()
                .is_some_and(|c| c.id == conn)
        })
    }

    fn next_conn(&mut self) -> ConnId {
        self.last_serial = self.last_serial.wrapping_add(1);
        ConnId {
            peer: self.peer,
            serial: self.last_serial,
        }
    }
}

//! The speaker: owner of every peer's session and of the RIB.
//!
//! Its methods come in four groups, as those of every machine here:
//!
//! - inputs: `handle_*`, [`set_config`](Speaker::set_config), [`set_interfaces`](Speaker::set_interfaces),
//!   [`shutdown`](Speaker::shutdown);
//! - outputs: `poll_*`. After any input a driver drains [`poll_event`](Speaker::poll_event), then for each connection of
//!   [`poll_ready`](Speaker::poll_ready) writes what [`poll_transmit`](Speaker::poll_transmit) gives until that is
//!   empty or the socket is full (then it asks again when the socket is writable), then takes
//!   [`poll_routes`](Speaker::poll_routes), and at last sleeps until [`poll_timeout`](Speaker::poll_timeout);
//! - time: `now` is an argument, and never goes back;
//! - views for the operator: [`peers`](Speaker::peers), [`routes`](Speaker::routes).
//!
//! Nothing queues up behind a peer that does not read: UPDATEs are made when they are asked for.
//!
//! To stop for good is [`shutdown`](Speaker::shutdown). To stop for an upgrade is to drop the speaker with its sockets:
//! peers that know graceful restart keep our routes until the successor is there.

mod adapter;
mod admin;
mod configure;
mod dynamic;
mod event;
mod interface;
mod restart;
#[cfg(test)]
mod tests;
mod views;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bgp_wire::Notification;
use bytes::Bytes;
use ipnet::IpNet;
use slab::Slab;

use crate::config::{PeerConfig, SpeakerConfig};
use crate::rib::{Generation, PeerIndex, Rib, RouteChange};
use crate::session::timer::KEEPALIVE_EARLY;
use crate::session::{ConnId, Output, Session};
pub use event::{Event, Transport};
pub use interface::Interface;

use adapter::PeerRoutes;
use restart::Restart;

#[derive(Debug)]
struct Peer {
    address: IpAddr,
    config: PeerConfig,
    /// The range that it was accepted from, where it is not configured by its address.
    range: Option<IpNet>,
    session: Session,
    /// Of the last session that came up: what reaches the RIB carries it.
    generation: Generation,
    /// Where the peer stands in `deadlines`.
    scheduled: Option<Instant>,
    /// The established connection is in `ready`.
    ready: bool,
}

/// See the [module's documentation](self).
#[derive(Debug)]
pub struct Speaker {
    /// Without the peers: each has its own.
    config: SpeakerConfig,
    interfaces: Vec<Interface>,
    rib: Rib,
    peers: Slab<Peer>,
    by_address: BTreeMap<IpAddr, u32>,
    /// The last connection number that each slot of `peers` has used: no name of a connection is used twice.
    serials: Vec<u32>,
    last_generation: u32,
    seed: u64,
    deadlines: BTreeSet<(Instant, u32)>,
    events: VecDeque<Event>,
    ready: VecDeque<ConnId>,
    /// The RIB has changed since its peers were last polled.
    rib_changed: bool,
    restart: Restart,
    /// There was more for the RIB to do when it was last looked at.
    working: bool,
    /// The time of the last input.
    now: Instant,
    /// Shut down for good: a configuration that comes late must not bring sessions back.
    stopped: bool,
}

impl Speaker {
    /// A speaker that begins to dial at once.
    ///
    /// `restarting`: a predecessor's routes are in the kernel and have been forwarding; peers are told so, and nothing but our own
    /// routes is sent or installed before theirs are known again (RFC 4724 §4.1). `seed` drives every jitter.
    #[must_use]
    pub fn new(config: SpeakerConfig, restarting: bool, seed: u64, now: Instant) -> Self {
        let mut speaker = Self {
            rib: Rib::with_seed(config.asn, config.router_id, config.decision, seed),
            peers: Slab::new(),
            by_address: BTreeMap::new(),
            serials: Vec::new(),
            last_generation: 0,
            seed,
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            ready: VecDeque::new(),
            rib_changed: false,
            stopped: false,
            working: false,
            now,
            interfaces: Vec::new(),
            restart: Restart::new(restarting, config.selection_deferral, now),
            config: SpeakerConfig {
                peers: BTreeMap::new(),
                dynamic: BTreeMap::new(),
                originated: BTreeMap::new(),
                ..config.clone()
            },
        };
        speaker.rib.defer(restarting);
        speaker.set_config(config, now);
        speaker
    }

    /// Ends every session for good: Cease/Administrative Shutdown with a text for the peers' operators (RFC 9003).
    pub fn shutdown(&mut self, text: &str, now: Instant) {
        self.stopped = true;
        let notification = Notification::shutdown(text);
        let indices: Vec<_> = self.by_address.values().copied().collect();
        for index in indices {
            self.with_session(index, |session, routes| {
                session.stop(&notification, now, routes)
            });
        }
        self.begin_work(now);
    }

    /// Tells which addresses this machine has on which link, for next hops of a family other than the connection's and for
    /// link-local ones (RFC 2545 §3, RFC 8950 §4). Read when a session comes up: tell it before the connection.
    pub fn set_interfaces(&mut self, interfaces: Vec<Interface>) {
        self.interfaces = interfaces;
    }

    /// The connection that [`Event::Connect`] asked for is up.
    pub fn handle_connected(
        &mut self,
        conn: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) {
        self.with_session(conn.peer, |session, routes| {
            session.handle_connected(conn, local, remote, now, routes)
        });
        self.begin_work(now);
    }

    /// A connection from outside. `None`: close it, no peer is configured there, or its session is held off.
    pub fn handle_incoming(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        now: Instant,
    ) -> Option<ConnId> {
        let address = remote.ip().to_canonical();
        let local_address = local.ip().to_canonical();
        let wanted = self.peer_config(address)?.local_address;
        if wanted.is_some_and(|wanted| wanted != local_address) {
            return None;
        }
        let index = match self.by_address.get(&address) {
            Some(index) => *index,
            None => self.adopt(address, now)?,
        };
        let conn = self.with_session(index, |session, routes| {
            session.handle_incoming(local, remote, now, routes)
        });
        self.retire(index, now);
        self.begin_work(now);
        conn.flatten()
    }

    /// The configuration of a peer, or of one that would come from this address.
    fn peer_config(&self, address: IpAddr) -> Option<&PeerConfig> {
        match self.by_address.get(&address) {
            Some(index) => Some(&self.peers.get(*index as usize)?.config),
            None => self.range_of(address).map(|(_, range)| &range.template),
        }
    }

    /// How the socket of a connection from this address is set up; `None` where no peer is configured.
    #[must_use]
    pub fn transport(&self, peer: IpAddr) -> Option<Transport> {
        self.peer_config(peer.to_canonical()).map(Transport::from)
    }

    /// Bytes from a connection. Bounded work for bounded bytes: hand over chunks, and serve timers in between. What follows for
    /// any number of routes, if a session ends by it say, is done in turns: see [`handle_timeout`](Self::handle_timeout).
    pub fn handle_data(&mut self, conn: ConnId, data: &[u8], now: Instant) {
        let changed = std::mem::take(&mut self.rib_changed);
        self.with_session(conn.peer, |session, routes| {
            session.handle_data(conn, data, now, routes)
        });
        if self.rib_changed {
            self.restart.heard(conn.peer, now);
        }
        self.rib_changed |= changed;
        self.retire(conn.peer, now);
        self.begin_work(now);
        self.check_sync(now);
    }

    /// A connection failed, was closed by the peer, or could not be made; `reason` is for a person.
    pub fn handle_closed(&mut self, conn: ConnId, reason: String, now: Instant) {
        self.with_session(conn.peer, |session, routes| {
            session.handle_closed(conn, reason, now, routes)
        });
        self.retire(conn.peer, now);
        self.begin_work(now);
    }

    /// Serves every timer that is due.
    ///
    /// Work that can wait is done when no session's timer is: a piece of it, and the next time is due at once until it is
    /// all done.
    pub fn handle_timeout(&mut self, now: Instant) {
        let urgent = self.is_urgent(now);
        while let Some((_, index)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            self.with_session(index, |session, routes| session.handle_timeout(now, routes));
            self.retire(index, now);
        }
        // Nothing but keepalives goes before its time.
        let soon = self.deadlines.range(..(now + KEEPALIVE_EARLY, 0));
        let soon: Vec<u32> = soon.map(|(_, index)| *index).collect();
        for index in soon {
            self.with_session(index, |session, routes| session.handle_timeout(now, routes));
        }
        self.now = now;
        if !urgent {
            self.work();
        }
        self.check_sync(now);
    }

    /// Connections whose hold timer is due. A driver that may have been busy reads from them first: what the peer has sent
    /// meanwhile is a sign of life.
    #[must_use]
    pub fn expiring(&self, now: Instant) -> Vec<ConnId> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, index)| self.peers.get(*index as usize))
            .flat_map(|peer| peer.session.expiring(now))
            .collect()
    }

    /// Whether a session's timer is due: what can't wait.
    #[must_use]
    pub fn is_urgent(&self, now: Instant) -> bool {
        self.deadlines.first().is_some_and(|(at, _)| *at <= now)
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let session = self.deadlines.first().map(|(at, index)| {
            let timeout = self
                .peers
                .get(*index as usize)
                .and_then(|peer| peer.session.poll_timeout());
            (*at, timeout.map_or("session", |(_, reason)| reason))
        });
        // While next hops are awaited, or routes chosen, nothing of it can happen.
        let waits = self.rib.awaits_next_hops() || self.rib.is_choosing();
        let restart = (!waits).then(|| self.restart.poll_timeout());
        session
            .into_iter()
            .chain(restart.flatten())
            .chain(self.work_timeout())
            .min_by_key(|(at, _)| *at)
    }

    /// What to do or to log, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// A connection that may have something to send.
    pub fn poll_ready(&mut self) -> Option<ConnId> {
        if std::mem::take(&mut self.rib_changed) {
            for (_, peer) in &mut self.peers {
                if !peer.ready
                    && let Some((conn, _)) = peer.session.established()
                {
                    peer.ready = true;
                    self.ready.push_back(conn);
                }
            }
        }
        while let Some(conn) = self.ready.pop_front() {
            let Some(peer) = self.peers.get_mut(conn.peer as usize) else {
                continue;
            };
            let established = peer
                .session
                .established()
                .is_some_and(|(established, _)| established == conn);
            if established {
                peer.ready = false;
                // Asking each peer is cheap next to what a driver does for each: most changes concern few of them.
                if !peer.session.has_control(conn) && !self.rib.has_news(PeerIndex(conn.peer)) {
                    continue;
                }
            }
            return Some(conn);
        }
        None
    }

    /// The next bytes for a connection whose socket has room: one or more whole messages.
    pub fn poll_transmit(&mut self, conn: ConnId) -> Option<Bytes> {
        // A session that has sent something has nothing to report, and nothing to wait for any sooner.
        self.run_session(conn.peer, |session, routes| {
            session.poll_transmit(conn, routes)
        })
        .flatten()
    }

    /// What has changed in the routes learned, at most `max` of them; a slow reader gets the latest state only.
    pub fn poll_routes(&mut self, max: usize) -> Vec<RouteChange> {
        self.rib.poll_routes(max)
    }

    /// Nobody asks [`poll_routes`](Self::poll_routes) any more: nothing is kept for whoever would.
    pub fn close_routes(&mut self) {
        self.rib.close_routes();
    }

    /// Tells the cost of the kernel's route to a next hop, `None` where there is none: paths are chosen anew at once
    /// (RFC 4271 §9.1.2.2 e). A next hop that was never told of counts as reachable, unless next hops are tracked.
    pub fn set_next_hop(&mut self, address: IpAddr, cost: Option<u32>, now: Instant) {
        self.set_next_hops([(address, cost)], now);
    }

    /// The same of many addresses: all routes are walked through once. Until [`is_reconsidering`](Self::is_reconsidering) says
    /// no, [`poll_routes`](Self::poll_routes) may have routes by the costs from before.
    pub fn set_next_hops(
        &mut self,
        costs: impl IntoIterator<Item = (IpAddr, Option<u32>)>,
        now: Instant,
    ) {
        self.rib.set_next_hops(costs);
        self.rib_changed = true;
        self.begin_work(now);
        self.check_sync(now);
    }

    /// Whether not all that follows from [`set_next_hops`](Self::set_next_hops) is done yet.
    #[must_use]
    pub fn is_reconsidering(&self) -> bool {
        self.rib.is_reconsidering()
    }

    /// From now on somebody asks [`poll_next_hops`](Self::poll_next_hops) and answers by
    /// [`set_next_hop`](Self::set_next_hop): no path is used before its next hop is known to be reachable. For a speaker
    /// that knows no routes yet.
    pub fn track_next_hops(&mut self) {
        self.rib.track_next_hops();
    }

    /// The next hops that came into use (true) or went out of it since the last call, where they are tracked. To be asked
    /// before [`poll_routes`](Self::poll_routes).
    pub fn poll_next_hops(&mut self) -> Vec<(IpAddr, bool)> {
        self.rib.poll_next_hops()
    }

    /// Whether the routes that a predecessor knew are known again: every peer has sent End-of-RIB, or has had the time
    /// that its own restart may take. Until then nobody may sweep routes that the kernel has and
    /// [`poll_routes`](Self::poll_routes) has not told.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.restart.is_settled()
    }

    fn check_sync(&mut self, now: Instant) {
        // What can't be chosen yet for want of an answer, or of a turn, would be missed by those who hold our routes for us.
        if !self.restart.is_settled() && (self.rib.awaits_next_hops() || self.rib.is_choosing()) {
            return;
        }
        let sessions = self
            .peers
            .iter()
            .filter_map(|(slot, peer)| Some((u32::try_from(slot).ok()?, &peer.session)));
        if self.restart.finish(now, sessions) {
            self.rib.defer(false);
            self.rib.hold_end_of_rib(true);
            self.rib_changed = true;
            for (_, peer) in &mut self.peers {
                peer.session.set_restart(self.restart.local());
            }
        }
        if self.restart.complete(now) {
            self.rib.hold_end_of_rib(false);
            self.rib_changed = true;
        }
        if self.restart.settle(self.config.complete, now) {
            self.events.push_back(Event::Synced);
        }
    }

    /// Runs one session, and takes over what it has to say.
    fn with_session<T>(
        &mut self,
        index: u32,
        run: impl FnOnce(&mut Session, &mut PeerRoutes<'_>) -> T,
    ) -> Option<T> {
        let result = self.run_session(index, run)?;
        let peer = self.peers.get_mut(index as usize)?;
        while let Some(output) = peer.session.poll_output() {
            let event = match output {
                Output::Ready(conn) => {
                    // A KEEPALIVE or a NOTIFICATION: before everybody's routes.
                    self.ready.push_front(conn);
                    continue;
                }
                Output::Connect(conn) => Event::Connect {
                    conn,
                    remote: SocketAddr::new(peer.address, peer.config.port),
                    transport: (&peer.config).into(),
                },
                Output::Close(conn, last) => Event::Close { conn, last },
                Output::Up(asn, hold_time) => {
                    peer.ready = false;
                    Event::SessionUp {
                        peer: peer.address,
                        asn,
                        hold_time,
                    }
                }
                Output::Down(ended) => Event::SessionDown {
                    peer: peer.address,
                    ended,
                },
                Output::Failed(ended, failures) => Event::AttemptFailed {
                    peer: peer.address,
                    ended,
                    failures,
                },
                Output::ManyPrefixes(limit, received) => Event::ManyPrefixes {
                    peer: peer.address,
                    limit,
                    received,
                },
            };
            self.events.push_back(event);
        }

        let next = peer.session.poll_timeout().map(|(at, _)| at);
        if next != peer.scheduled {
            if let Some(at) = std::mem::replace(&mut peer.scheduled, next) {
                self.deadlines.remove(&(at, index));
            }
            if let Some(at) = next {
                self.deadlines.insert((at, index));
            }
        }
        self.restart.observe(index, &peer.session);
        Some(result)
    }

    /// Runs one session, and leaves what it has to say where it is.
    fn run_session<T>(
        &mut self,
        index: u32,
        run: impl FnOnce(&mut Session, &mut PeerRoutes<'_>) -> T,
    ) -> Option<T> {
        let peer = self.peers.get_mut(index as usize)?;
        let mut routes = PeerRoutes {
            rib: &mut self.rib,
            config: &self.config,
            peer: &peer.config,
            interfaces: &self.interfaces,
            address: peer.address,
            index: PeerIndex(index),
            generation: &mut peer.generation,
            last_generation: &mut self.last_generation,
            changed: &mut self.rib_changed,
        };
        Some(run(&mut peer.session, &mut routes))
    }
}

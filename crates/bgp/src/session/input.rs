//! From bytes to events.

use std::time::Instant;

use bgp_wire::header::kind;
use bgp_wire::notification::{code, update_error};
use bgp_wire::{Family, Message, MessageError, Notification, Open, Update, header};

use super::act::Detail;
use super::connection::ConnId;
use super::ended::Ended;
use super::fsm::{Event, State};
use super::open::{self, Negotiated};
use super::timer::Timer;
use super::{CROSSING_TIME, Opener, Routes, Session, Side};

impl Session {
    /// Takes bytes from a connection, whole messages or not. The work is bounded by their number, so a driver that
    /// reads a bounded chunk a time and looks at the clock in between starves no timer.
    pub(crate) fn handle_data(
        &mut self,
        conn: ConnId,
        data: &[u8],
        now: Instant,
        routes: &mut impl Routes,
    ) {
        let Some(side) = self.side(conn) else { return };
        self.restart_hold(side, now);
        let Some(connection) = &mut self.slots[side as usize].connection else {
            return;
        };
        let mut joined = connection.take_partial();
        let mut input = data;
        if !joined.is_empty() {
            joined.extend_from_slice(data);
            input = &joined;
        }
        let mut taken = 0;
        // Any message may end the connection, or make it change its slot.
        while let Some(side) = self.side(conn) {
            let rest = &input[taken..];
            match self.next_frame(side, rest) {
                Err(error) => return self.malformed(side, &error, now, routes),
                Ok(None) => {
                    if taken > 0 || joined.is_empty() {
                        joined = rest.to_vec();
                    }
                    if let Some(connection) = &mut self.slots[side as usize].connection {
                        connection.keep_partial(joined);
                    }
                    return;
                }
                Ok(Some(frame)) => {
                    taken += frame.len();
                    self.handle_frame(side, frame, now, routes);
                }
            }
        }
    }

    fn next_frame<'a>(
        &self,
        side: Side,
        bytes: &'a [u8],
    ) -> Result<Option<&'a [u8]>, MessageError> {
        let Some(connection) = &self.slot(side).connection else {
            return Ok(None);
        };
        let len = header::frame_len(bytes, &connection.context())?;
        Ok(len.and_then(|len| bytes.get(..len)))
    }

    fn handle_frame(&mut self, side: Side, frame: &[u8], now: Instant, routes: &mut impl Routes) {
        self.counters.messages_in += 1;
        // Out of place whatever is in it, and how to read it is not agreed on yet.
        if let Some(kind @ (kind::UPDATE | kind::ROUTE_REFRESH)) =
            frame.get(header::LEN - 1).copied()
            && self.slot(side).state != State::Established
        {
            let event = if kind == kind::UPDATE {
                Event::Update
            } else {
                Event::Refresh
            };
            return self.event(side, event, Detail::Message(kind), now, routes);
        }
        let Some(connection) = &self.slot(side).connection else {
            return;
        };
        let message = match header::decode(frame, &connection.context()) {
            Ok(message) => message,
            Err(error) => return self.malformed(side, &error, now, routes),
        };
        match message {
            Message::Open(open) if self.slot(side).state == State::OpenSent => {
                self.handle_open(side, &open, now, routes)
            }
            Message::Open(_) => {
                self.event(side, Event::Open, Detail::Message(kind::OPEN), now, routes)
            }
            Message::Keepalive => {
                if self.slot(side).state == State::Established {
                    self.keepalives = self.keepalives.saturating_add(1);
                }
                self.event(
                    side,
                    Event::Keepalive,
                    Detail::Message(kind::KEEPALIVE),
                    now,
                    routes,
                );
            }
            Message::Update(update) => {
                self.counters.updates_in += 1;
                self.counters.update_faults_in += u64::from(!update.faults.is_empty());
                if let Some(error) = self.unexpected_next_hop(side, &update) {
                    let ended = Detail::Ended(error);
                    return self.event(side, Event::Malformed, ended, now, routes);
                }
                self.event(side, Event::Update, Detail::Update(&update), now, routes);
                self.enforce_limits(now, routes);
            }
            Message::RouteRefresh(refresh) => {
                self.event(side, Event::Refresh, Detail::Refresh(refresh), now, routes)
            }
            Message::Notification(notification) => {
                self.counters.notifications_in += 1;
                self.event(
                    side,
                    Event::Notification,
                    Detail::Ended(Ended::received(notification)),
                    now,
                    routes,
                );
            }
        }
    }

    fn malformed(
        &mut self,
        side: Side,
        error: &MessageError,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        match &error.notification {
            Some(notification) => {
                let ended = Ended::sent(notification.clone(), error.reason);
                self.event(side, Event::Malformed, Detail::Ended(ended), now, routes);
            }
            // What was malformed is itself a NOTIFICATION: the session ends without an answer.
            None => {
                let ended = Ended::local(error.reason);
                self.event(side, Event::Notification, Detail::Ended(ended), now, routes);
            }
        }
    }

    /// The peer's OPEN on a connection in OpenSent: the first moment at which a collision can be decided.
    fn handle_open(&mut self, side: Side, theirs: &Open, now: Instant, routes: &mut impl Routes) {
        let Some(sent) = self
            .slot(side)
            .connection
            .as_ref()
            .and_then(|connection| connection.sent.as_ref())
        else {
            return;
        };
        let negotiated = match open::negotiate(&self.settings, sent, theirs) {
            Ok(negotiated) => negotiated,
            Err((notification, detail)) => {
                let ended = Ended::sent(notification, detail);
                return self.event(side, Event::Malformed, Detail::Ended(ended), now, routes);
            }
        };
        if self.wins_collision(side, &negotiated, now, routes) {
            self.event(
                side,
                Event::Open,
                Detail::Agreed(Box::new(negotiated)),
                now,
                routes,
            );
        } else {
            self.collide(side, now, routes);
        }
    }

    /// Decides between this connection and the other one, if there is any (RFC 4271 §6.8), and ends the other one
    /// where it loses.
    ///
    /// The other one may be in OpenSent: the RFC allows to decide already where the peer's identifier is known by
    /// other means, as it is here by this connection's OPEN. Both sides then decide alike at their first OPEN.
    fn wins_collision(
        &mut self,
        side: Side,
        negotiated: &Negotiated,
        now: Instant,
        routes: &mut impl Routes,
    ) -> bool {
        let other = side.other();
        match self.slot(other).state {
            State::Idle | State::Active | State::Connect => true,
            State::OpenSent | State::OpenConfirm => {
                let keep = match open::we_are_higher(&self.settings, negotiated) {
                    true => Opener::Local,
                    false => Opener::Peer,
                };
                let wins = self
                    .slot(side)
                    .connection
                    .as_ref()
                    .is_some_and(|connection| connection.opener == keep);
                if wins {
                    self.collide(other, now, routes);
                }
                wins
            }
            // A call that crossed ours on a slow way. The peer has this session too, or is about to: our KEEPALIVE was
            // sent before the answer to its call.
            State::Established if self.has_just_come_up(now) => false,
            // A peer that keeps its routes through a restart would not call if its old connection were alive.
            State::Established => {
                let restarts = self
                    .established()
                    .is_some_and(|(_, old)| old.graceful_restart.is_some());
                if restarts {
                    let ended = Ended::local("peer restarted: it opened a new connection");
                    self.event(
                        other,
                        Event::PeerRestarted,
                        Detail::Ended(ended),
                        now,
                        routes,
                    );
                }
                restarts
            }
        }
    }

    /// An IPv6 next hop of an IPv4 route where that was not agreed on: the attribute's next hop has a length that was
    /// not to be expected, and only a reset is allowed (RFC 7606 §7.11, RFC 8950 §4).
    fn unexpected_next_hop(&self, side: Side, update: &Update<'_>) -> Option<Ended> {
        let negotiated = self.slot(side).connection.as_ref()?.negotiated.as_ref()?;
        let unexpected = !negotiated.extended_next_hop
            && update.reachable.iter().any(|(next_hop, run)| {
                run.family() == Family::IPV4_UNICAST && next_hop.address().is_ipv6()
            });
        unexpected.then(|| {
            let subcode = update_error::OPTIONAL_ATTRIBUTE_ERROR;
            let detail = "an IPv6 next hop for IPv4 routes, which was not agreed on (RFC 8950)";
            Ended::sent(Notification::new(code::UPDATE, subcode, []), detail)
        })
    }

    fn has_just_come_up(&self, now: Instant) -> bool {
        self.shown == State::Established && now.duration_since(self.since) < CROSSING_TIME
    }

    pub(super) fn take_update(
        &mut self,
        update: &Update<'_>,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        match update.end_of_rib() {
            Some(family) => {
                routes.end_of_rib(family);
                self.end_of_rib(family, now);
            }
            None => routes.update(update),
        }
    }

    fn end_of_rib(&mut self, family: Family, now: Instant) {
        self.awaited.retain(|awaited| *awaited != family);
        self.stale.retain(|stale| *stale != family);
        if self.stale.is_empty() {
            self.timers.stop(Timer::Stale);
        }
        self.settle(now);
    }
}

//! From events to what is done about them: the FSM's actions, and the rules that hold after each.

use std::time::{Duration, Instant};

use bgp_wire::header::kind;
use bgp_wire::notification::{cease, code, fsm_error};
use bgp_wire::{Notification, RouteRefresh, Update};
use bytes::Bytes;

use super::connection::Connection;
use super::ended::Ended;
use super::fsm::{self, Action, Event, State};
use super::open::{self, Negotiated};
use super::timer::Timer;
use super::{LATE, MIN_DIAL_TIME, OPEN_TIME, Opener, Output, Routes, STABLE_TIME, Session, Side};

/// What belongs to an event beyond its kind.
#[derive(Debug)]
pub(super) enum Detail<'a, 'b> {
    None,
    /// Why it ends.
    Ended(Ended),
    /// What the two OPENs agree on.
    Agreed(Box<Negotiated>),
    /// Type of a message without content, or out of place.
    Message(u8),
    /// The routes.
    Update(&'a Update<'b>),
    /// The request.
    Refresh(RouteRefresh),
}

impl Detail<'_, '_> {
    fn message_kind(&self) -> Option<u8> {
        match self {
            Self::None | Self::Ended(_) | Self::Agreed(_) => None,
            Self::Message(kind) => Some(*kind),
            Self::Update(_) => Some(kind::UPDATE),
            Self::Refresh(_) => Some(kind::ROUTE_REFRESH),
        }
    }
}

/// A transition while its actions are done.
#[derive(Debug)]
pub(super) struct Step<'a, 'b> {
    pub(super) side: Side,
    pub(super) event: Event,
    detail: Detail<'a, 'b>,
    pub(super) ended: Option<Ended>,
    pub(super) now: Instant,
}

impl Session {
    /// Runs one connection's FSM by one event.
    pub(super) fn event(
        &mut self,
        side: Side,
        event: Event,
        detail: Detail<'_, '_>,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        let before = self.slot(side).state;
        let (next, actions) = fsm::step(before, event);
        let ended = why_ended(before, event, actions, &detail);
        let mut step = Step {
            side,
            event,
            detail,
            ended,
            now,
        };
        self.slots[side as usize].state = next;
        for action in actions {
            self.act(*action, &mut step, routes);
        }
        if let Some(ended) = step.ended
            && before > State::Active
            && next < before
        {
            self.note_end(before, event, ended, now);
        }
        self.settle(now);
    }

    fn act(&mut self, action: Action, step: &mut Step<'_, '_>, routes: &mut impl Routes) {
        let Step { side, now, .. } = *step;
        match action {
            Action::Dial => {
                let conn = self.next_conn();
                self.slots[side as usize].connection =
                    Some(Connection::new(conn, Opener::Local, None));
                let patience = self.backoff.retry(self.connect_retry).max(MIN_DIAL_TIME);
                self.timers.set(Timer::ConnectRetry, now + patience);
                self.outputs.push_back(Output::Connect(conn));
            }
            Action::Abort => {
                self.timers.stop(Timer::ConnectRetry);
                self.close(side);
            }
            Action::Retry => {
                self.slots[side as usize].connection = None;
                self.backoff.failed();
                self.retry(now);
            }
            Action::HoldOff => self.hold_off(side, now),
            Action::SendOpen => self.send_open(side, now),
            Action::Agree => {
                if let Detail::Agreed(negotiated) =
                    std::mem::replace(&mut step.detail, Detail::None)
                {
                    self.agree(side, negotiated, now);
                }
            }
            Action::SendKeepalive => self.send_keepalive(side, now),
            Action::Up => self.up(side, now, routes),
            Action::Down => self.down(step, routes),
            Action::TakeUpdate => {
                if let Detail::Update(update) = step.detail {
                    self.take_update(update, now, routes);
                }
            }
            Action::TakeRefresh => {
                if let Detail::Refresh(refresh) = step.detail {
                    self.take_refresh(refresh, now, routes);
                }
            }
            Action::Answer
            | Action::NotifyHold
            | Action::NotifySendHold
            | Action::NotifyUnexpected => {
                if let Some(notification) = step
                    .ended
                    .as_ref()
                    .and_then(|ended| ended.notification.as_ref())
                {
                    self.counters.notifications_out += 1;
                    self.send(side, |connection| {
                        connection.queue(|out| notification.encode(out))
                    });
                }
            }
            Action::Close => self.close(side),
        }
    }

    fn hold_off(&mut self, side: Side, now: Instant) {
        let other = side.other();
        // Where the other connection lives on, its fate decides.
        if self.slot(other).state.connected() {
            return;
        }
        self.close(other);
        self.slots[other as usize].state = State::Idle;
        self.backoff.failed();
        let pause = self.backoff.idle_hold();
        self.timers.set(Timer::IdleHold, now + pause);
    }

    fn send_open(&mut self, side: Side, now: Instant) {
        if side == Side::Out {
            self.timers.stop(Timer::ConnectRetry);
        }
        let open = open::ours(&self.settings, self.restart);
        self.send(side, |connection| {
            connection.queue(|out| open.encode(out));
            connection.timers.set(Timer::Hold, now + OPEN_TIME);
            connection.sent = Some(open);
        });
    }

    /// Ends the connection on this side in favour of the other one.
    pub(super) fn collide(&mut self, side: Side, now: Instant, routes: &mut impl Routes) {
        let notification = Notification::cease(cease::CONNECTION_COLLISION_RESOLUTION);
        self.event(
            side,
            Event::Collision,
            Detail::Ended(Ended::sent(notification, "")),
            now,
            routes,
        );
    }

    /// Data is a sign of life when it arrives, however late its turn comes.
    pub(super) fn restart_hold(&mut self, side: Side, now: Instant) {
        let Some(connection) = &mut self.slots[side as usize].connection else {
            return;
        };
        let Some(negotiated) = &connection.negotiated else {
            return;
        };
        if !negotiated.hold_time.is_zero() {
            connection
                .timers
                .set(Timer::Hold, now + negotiated.hold_time);
            connection.hold_grace_used = false;
        }
    }

    pub(super) fn connection_timeout(
        &mut self,
        side: Side,
        timer: Timer,
        late: Duration,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        match timer {
            Timer::Keepalive => {
                self.event(side, Event::KeepaliveExpired, Detail::None, now, routes)
            }
            Timer::SendHold => self.event(side, Event::SendHoldExpired, Detail::None, now, routes),
            Timer::Hold => {
                let Some(connection) = &mut self.slots[side as usize].connection else {
                    return;
                };
                if late > LATE && !connection.hold_grace_used {
                    // The process was stopped or starved: what the peer sent meanwhile waits in the socket.
                    connection.hold_grace_used = true;
                    connection.timers.set(Timer::Hold, now + LATE);
                    return;
                }
                self.event(side, Event::HoldExpired, Detail::None, now, routes);
            }
            Timer::IdleHold
            | Timer::ConnectRetry
            | Timer::Stable
            | Timer::Restart
            | Timer::Stale
            | Timer::Refresh => {}
        }
    }

    pub(super) fn session_timeout(&mut self, timer: Timer, now: Instant, routes: &mut impl Routes) {
        match timer {
            Timer::IdleHold => self.begin(now, routes),
            Timer::ConnectRetry => self.retry_expired(now, routes),
            Timer::Stable => self.backoff.clear(),
            Timer::Restart | Timer::Stale => {
                self.timers.stop(Timer::Restart);
                self.timers.stop(Timer::Stale);
                self.stale.clear();
                routes.stale_expired();
            }
            Timer::Refresh => self.refresh_expired(routes),
            Timer::Keepalive | Timer::Hold | Timer::SendHold => {}
        }
    }

    /// Leaves Idle.
    pub(super) fn begin(&mut self, now: Instant, routes: &mut impl Routes) {
        let event = if self.passive {
            Event::StartPassive
        } else {
            Event::Start
        };
        self.event(Side::Out, event, Detail::None, now, routes);
    }

    fn retry_expired(&mut self, now: Instant, routes: &mut impl Routes) {
        if self.slot(Side::In).state == State::OpenConfirm {
            // About to be up: a dial now would only make a collision.
            return self.retry(now);
        }
        if self.slot(Side::Out).state == State::Connect {
            self.backoff.failed();
            self.note_end(
                State::Connect,
                Event::RetryExpired,
                Ended::local(no_answer(self.signed)),
                now,
            );
        }
        self.event(Side::Out, Event::RetryExpired, Detail::None, now, routes);
    }

    fn retry(&mut self, now: Instant) {
        if self.passive {
            return;
        }
        let pause = self.backoff.retry(self.connect_retry);
        self.timers.set(Timer::ConnectRetry, now + pause);
    }

    /// Gives up a dial that is under way.
    pub(super) fn abandon_dial(&mut self) {
        if self.slot(Side::Out).state == State::Connect {
            self.close(Side::Out);
            self.slots[Side::Out as usize].state = State::Active;
        }
    }

    fn agree(&mut self, side: Side, negotiated: Box<Negotiated>, now: Instant) {
        let Some(connection) = &mut self.slots[side as usize].connection else {
            return;
        };
        connection.timers.stop(Timer::Hold);
        connection.negotiated = Some(negotiated);
        self.restart_hold(side, now);
    }

    fn send_keepalive(&mut self, side: Side, now: Instant) {
        let Some(connection) = &self.slot(side).connection else {
            return;
        };
        let hold_time = connection
            .negotiated
            .as_ref()
            .map_or(Duration::ZERO, |negotiated| negotiated.hold_time);
        let interval = self.keepalive(hold_time);
        let interval = self.backoff.jitter(interval);
        let established = self.slot(side).state == State::Established;
        let send_hold = self.send_hold.max(hold_time * 2);
        self.send(side, |connection| {
            connection.queue_keepalive();
            if hold_time.is_zero() {
                return;
            }
            connection.timers.set(Timer::Keepalive, now + interval);
            // Runs from the first message that the peer does not take (RFC 9687 §3.2).
            if established && !connection.timers.is_set(Timer::SendHold) {
                connection.timers.set(Timer::SendHold, now + send_hold);
            }
        });
    }

    /// Queues one message, and asks to be polled.
    pub(super) fn send(&mut self, side: Side, queue: impl FnOnce(&mut Connection)) {
        let Some(connection) = &mut self.slots[side as usize].connection else {
            return;
        };
        let idle = !connection.has_control();
        queue(connection);
        self.counters.messages_out += 1;
        if idle {
            self.outputs.push_back(Output::Ready(connection.id));
        }
    }

    fn close(&mut self, side: Side) {
        if let Some(mut connection) = self.slots[side as usize].connection.take() {
            let last = connection.take_control().unwrap_or_else(Bytes::new);
            self.outputs.push_back(Output::Close(connection.id, last));
        }
    }

    fn up(&mut self, side: Side, now: Instant, routes: &mut impl Routes) {
        let Some(connection) = &self.slot(side).connection else {
            return;
        };
        let (Some(negotiated), Some((local, _))) = (&connection.negotiated, connection.addresses)
        else {
            return;
        };
        let negotiated = negotiated.clone();
        self.timers.stop(Timer::ConnectRetry);
        self.timers.stop(Timer::IdleHold);
        self.timers.set(Timer::Stable, now + STABLE_TIME);
        self.awaited.clone_from(&negotiated.families);
        self.warned.clear();
        self.keepalives = 0;
        self.last_attempt = None;
        routes.up(&negotiated, local);
        self.outputs
            .push_back(Output::Up(negotiated.peer_asn, negotiated.hold_time));
        self.returned(&negotiated, now);
        let other = side.other();
        if self.slot(other).state != State::Idle {
            self.collide(other, now, routes);
        }
    }

    /// Remembers an end for the operator. A connection that lost a collision is nothing to speak of, and a dial that
    /// got no further than TCP must not hide the NOTIFICATION that came before it.
    fn note_end(&mut self, before: State, event: Event, ended: Ended, now: Instant) {
        let collision = ended.notification.as_ref().is_some_and(|n| {
            (n.code, n.subcode) == (code::CEASE, cease::CONNECTION_COLLISION_RESOLUTION)
        });
        if collision || (event == Event::Stop && before != State::Established) {
            return;
        }
        if before != State::Established {
            self.outputs
                .push_back(Output::Failed(ended.clone(), self.backoff.failures()));
        }
        if before == State::Established || ended.notification.is_some() {
            self.last_attempt = None;
            self.last_error = Some((now, ended));
        } else {
            self.last_attempt = Some((now, ended));
        }
    }

    /// What holds after every event, however it came about: an established session has the only connection, a held off
    /// or stopped one has none, and any other one waits for the peer and has a timer for its own next dial.
    pub(super) fn settle(&mut self, now: Instant) {
        let up = self.established().is_some();
        let held = !self.enabled || self.timers.is_set(Timer::IdleHold);
        for side in Side::BOTH {
            let slot = &mut self.slots[side as usize];
            if slot.state < State::Connect {
                let contender = slot.connection.is_some();
                slot.state = if contender || !(up || held) {
                    State::Active
                } else {
                    State::Idle
                };
            }
        }
        let waits = self.slot(Side::Out).state == State::Active
            && self.slot(Side::Out).connection.is_none();
        if waits && !self.timers.is_set(Timer::ConnectRetry) {
            self.retry(now);
        }
        if !waits && self.slot(Side::Out).state != State::Connect {
            self.timers.stop(Timer::ConnectRetry);
        }
        let state = self.state();
        if state != self.shown {
            self.shown = state;
            self.since = now;
        }
    }
}

/// What is known when a dial was never answered.
fn no_answer(signed: bool) -> &'static str {
    if signed {
        "connect: no answer; a host with another password, or with none, drops what we send without a word"
    } else {
        "connect: no answer"
    }
}

/// Why the connection ends by this event: what came with the event, or what the FSM itself has to say.
fn why_ended(
    state: State,
    event: Event,
    actions: &[Action],
    detail: &Detail<'_, '_>,
) -> Option<Ended> {
    let subcode = match state {
        State::OpenSent => fsm_error::OPEN_SENT,
        State::OpenConfirm => fsm_error::OPEN_CONFIRM,
        State::Idle | State::Active | State::Connect | State::Established => fsm_error::ESTABLISHED,
    };
    if let Detail::Ended(ended) = detail {
        Some(ended.clone())
    } else if actions.contains(&Action::NotifyHold) {
        Some(Ended::sent(
            Notification::new(code::HOLD_TIMER_EXPIRED, 0, []),
            "",
        ))
    } else if actions.contains(&Action::NotifySendHold) {
        Some(Ended::sent(
            Notification::new(code::SEND_HOLD_TIMER_EXPIRED, 0, []),
            "the peer does not read",
        ))
    } else if actions.contains(&Action::NotifyUnexpected) {
        let data: Vec<_> = detail.message_kind().into_iter().collect();
        Some(Ended::sent(
            Notification::new(code::FSM, subcode, data),
            format!("{event:?} in {state}"),
        ))
    } else {
        None
    }
}

//! How the session stands.

use std::time::{Duration, Instant};

use super::admin::Halt;
use super::connection::{ConnId, Connection};
use super::ended::Ended;
use super::fsm::State;
use super::open::Negotiated;
use super::timer::Timer;
use super::{Counters, Session, Side};
use bgp_wire::Family;

impl Session {
    /// The state for the operator: that of the connection that got furthest.
    pub(crate) fn state(&self) -> State {
        self.slots[0].state.max(self.slots[1].state)
    }

    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// The established connection, or the one that got furthest.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        let first = self.slots.iter().max_by_key(|slot| slot.state)?;
        first.connection.as_ref()
    }

    pub(crate) fn established(&self) -> Option<(ConnId, &Negotiated)> {
        let slot = self
            .slots
            .iter()
            .find(|slot| slot.state == State::Established)?;
        let connection = slot.connection.as_ref()?;
        Some((connection.id, connection.negotiated.as_deref()?))
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    pub(crate) fn flaps(&self) -> u32 {
        self.flaps
    }

    pub(crate) fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    pub(crate) fn last_error(&self) -> Option<&(Instant, Ended)> {
        self.last_error.as_ref()
    }

    pub(crate) fn last_attempt(&self) -> Option<&(Instant, Ended)> {
        self.last_attempt.as_ref()
    }

    pub(crate) fn stale(&self) -> &[Family] {
        &self.stale
    }

    /// How often a KEEPALIVE is sent under this hold time, before jitter: as configured, and a third of it at most.
    pub(crate) fn keepalive(&self, hold_time: Duration) -> Duration {
        self.keepalive.unwrap_or(hold_time).min(hold_time / 3)
    }

    /// The connections that there are, made or being made.
    pub(crate) fn connections(&self) -> Vec<ConnId> {
        let connections = self
            .slots
            .iter()
            .filter_map(|slot| slot.connection.as_ref());
        connections.map(|connection| connection.id).collect()
    }

    /// Connections whose hold timer is due.
    pub(crate) fn expiring(&self, now: Instant) -> impl Iterator<Item = ConnId> {
        self.slots.iter().filter_map(move |slot| {
            let connection = slot.connection.as_ref()?;
            let deadline = connection.timers.deadline(Timer::Hold)?;
            (deadline <= now).then_some(connection.id)
        })
    }

    /// Why the session is down for good.
    pub(crate) fn halt(&self) -> Option<&Halt> {
        self.halt.as_ref()
    }

    /// Whether nothing is left of the session: no connection, no routes kept for the peer, no pause, no order to stay down.
    pub(crate) fn is_over(&self) -> bool {
        let pause = self.timers.is_set(Timer::IdleHold) || self.halt.is_some();
        let connected = self.slots.iter().any(|slot| slot.connection.is_some());
        !pause && !connected && self.stale.is_empty()
    }

    /// When the next dial is due.
    pub(crate) fn next_attempt(&self) -> Option<Instant> {
        match self.slot(Side::Out).state {
            State::Active => self.timers.deadline(Timer::ConnectRetry),
            State::Idle => self.timers.deadline(Timer::IdleHold),
            State::Connect | State::OpenSent | State::OpenConfirm | State::Established => None,
        }
    }

    /// Whether the peer has told all its routes since the session came up. One without graceful restart need not send
    /// End-of-RIB: its second KEEPALIVE, the first that is no part of the handshake, stands for it.
    pub(crate) fn is_synced(&self) -> bool {
        let Some((_, negotiated)) = self.established() else {
            return false;
        };
        self.awaited.is_empty() || (negotiated.graceful_restart.is_none() && self.keepalives > 0)
    }

    /// Whether the session is up with a peer that has no graceful restart, and so promises no End-of-RIB.
    pub(crate) fn promises_no_end_of_rib(&self) -> bool {
        let established = self.established();
        established.is_some_and(|(_, negotiated)| negotiated.graceful_restart.is_none())
    }

    /// How long a session has been up with a peer that said that it has restarted itself.
    pub(crate) fn restarted_for(&self, now: Instant) -> Option<Duration> {
        let (_, negotiated) = self.established()?;
        let restarted = negotiated.graceful_restart.as_ref()?.restarted;
        restarted.then(|| now.saturating_duration_since(self.since))
    }
}

//! The helper's half of graceful restart: which routes outlive a session, and for how long (RFC 4724 §4.2, RFC 8538 §4).

use std::time::{Duration, Instant};

use bgp_wire::Family;
use bgp_wire::notification::{cease, code};

use super::act::Step;
use super::ended::Ended;
use super::fsm::Event;
use super::open::Negotiated;
use super::timer::Timer;
use super::{Output, Routes, STALE_TIME, Session};

impl Session {
    /// The peer is back: the RIB has dropped the stale routes of families for which it did not keep forwarding, the rest
    /// waits for its End-of-RIB, though not for ever (RFC 4724 §4.2).
    pub(super) fn returned(&mut self, negotiated: &Negotiated, now: Instant) {
        self.timers.stop(Timer::Restart);
        self.stale
            .retain(|family| negotiated.forwarding().contains(family));
        if !self.stale.is_empty() {
            self.timers.set(Timer::Stale, now + STALE_TIME);
        }
    }

    pub(super) fn down(&mut self, step: &Step<'_, '_>, routes: &mut impl Routes) {
        self.timers.stop(Timer::Stable);
        self.timers.stop(Timer::Stale);
        self.timers.stop(Timer::Refresh);
        self.refreshing.clear();
        self.stale.clear();
        if let Some((restart_time, families)) = self.kept(step) {
            self.timers.set(Timer::Restart, step.now + restart_time);
            self.stale = families;
        }
        self.awaited.clear();
        self.flaps = self.flaps.saturating_add(1);
        routes.down(&self.stale);
        let ended = step
            .ended
            .clone()
            .unwrap_or_else(|| Ended::local("session ended"));
        self.outputs.push_back(Output::Down(ended));
    }

    /// Which routes outlive the session, and for how long: where TCP ended without a word (RFC 4724 §4.2), and where
    /// both sides said so, after any error but a Hard Reset (RFC 8538 §4).
    fn kept(&self, step: &Step<'_, '_>) -> Option<(Duration, Vec<Family>)> {
        let negotiated = self
            .slot(step.side)
            .connection
            .as_ref()?
            .negotiated
            .as_deref()?;
        let restart = negotiated.graceful_restart.as_ref()?;
        let silent = matches!(step.event, Event::Lost | Event::PeerRestarted);
        let hard = step
            .ended
            .as_ref()
            .and_then(|ended| ended.notification.as_ref())
            .is_some_and(|n| (n.code, n.subcode) == (code::CEASE, cease::HARD_RESET));
        let meant = matches!(step.event, Event::Stop | Event::TooManyPrefixes);
        let keep = silent || (restart.notification && !meant && !hard);
        (keep && !restart.restart_time.is_zero() && !restart.families.is_empty())
            .then(|| (restart.restart_time, restart.families.clone()))
    }
}

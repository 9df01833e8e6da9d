//! Bounds on how many prefixes the peer may announce (RFC 4271 §6.7, RFC 4486 §4).

use std::time::Instant;

use bgp_wire::Notification;

use super::act::Detail;
use super::admin::Halt;
use super::ended::Ended;
use super::fsm::{Event, State};
use super::timer::Timer;
use super::{Output, Routes, Session, Side};
use crate::config::{LimitAction, PrefixLimit};

impl Session {
    /// Compares what the peer has announced with what it may.
    pub(super) fn enforce_limits(&mut self, now: Instant, routes: &mut impl Routes) {
        for at in 0..self.limits.len() {
            let Some(side) = Side::BOTH
                .into_iter()
                .find(|side| self.slot(*side).state == State::Established)
            else {
                return;
            };
            let limit = self.limits[at];
            let received = routes.received(limit.family);
            if received > limit.limit && limit.action != LimitAction::Warn {
                self.exceeded(side, limit, received, now, routes);
            } else {
                self.warn_of(limit, received);
            }
        }
    }

    /// Says once that there are many, and again only after they have become fewer.
    fn warn_of(&mut self, limit: PrefixLimit, received: u32) {
        let many = u64::from(received) > limit.warn_at();
        let warned = self.warned.contains(&limit.family);
        if many && !warned {
            self.warned.push(limit.family);
            self.outputs
                .push_back(Output::ManyPrefixes(limit, received));
        } else if !many && warned {
            self.warned.retain(|family| *family != limit.family);
        }
    }

    fn exceeded(
        &mut self,
        side: Side,
        limit: PrefixLimit,
        received: u32,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        let notification = Notification::maximum_prefixes(limit.family, limit.limit);
        let detail = format!("{received} prefixes of {}", limit.family);
        // The routes are too many to be kept through a restart, ours as well as the peer's.
        let ended = Ended::sent(self.final_word(side, &notification), detail);
        self.event(
            side,
            Event::TooManyPrefixes,
            Detail::Ended(ended),
            now,
            routes,
        );
        match limit.action {
            LimitAction::Restart(after) => self.timers.set(Timer::IdleHold, now + after),
            LimitAction::StayDown => {
                self.halt = Some(Halt::TooManyPrefixes(limit.family, limit.limit));
                self.enabled = false;
                self.timers.stop(Timer::IdleHold);
            }
            LimitAction::Warn => {}
        }
        self.settle(now);
    }
}

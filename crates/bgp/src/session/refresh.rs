//! Everything of a family once more, either way, while the session goes on (RFC 2918, RFC 7313).

use std::time::Instant;

use bgp_wire::{Family, RouteRefresh};

use super::timer::Timer;
use super::{REFRESH_TIME, Routes, Session, Side};

impl Session {
    /// Asks the peer for all its routes again; false where it can't be asked.
    pub(crate) fn request_refresh(&mut self) -> bool {
        let Some((conn, negotiated)) = self.established() else {
            return false;
        };
        if !negotiated.route_refresh {
            return false;
        }
        let families = negotiated.families.clone();
        if let Some(side) = self.side(conn) {
            self.send_refreshes(side, &families);
        }
        true
    }

    /// Has the RIB send everything to the peer again, as if it had asked for it.
    pub(crate) fn resend(&self, routes: &mut impl Routes) {
        let families = self
            .established()
            .map(|(_, negotiated)| negotiated.families.as_slice());
        for family in families.unwrap_or_default() {
            routes.refresh(*family);
        }
    }

    pub(super) fn take_refresh(
        &mut self,
        refresh: RouteRefresh,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        let Some((_, negotiated)) = self.established() else {
            return;
        };
        let family = refresh.family;
        if !negotiated.families.contains(&family) {
            return;
        }
        let (enhanced, graceful) = (
            negotiated.enhanced_refresh,
            negotiated.graceful_restart.is_some(),
        );
        match refresh.subtype {
            RouteRefresh::REQUEST => routes.refresh(family),
            // Before its End-of-RIB a BoRR means nothing (RFC 7313 §4). One more in the midst of a refresh changes nothing:
            // what has come since the first is no staler for it.
            RouteRefresh::BEGIN if enhanced && !(graceful && self.awaited.contains(&family)) => {
                if !self.refreshing.contains(&family) {
                    self.refreshing.push(family);
                    routes.begin_refresh(family);
                }
                self.timers.set(Timer::Refresh, now + REFRESH_TIME);
            }
            RouteRefresh::END if self.refreshing.contains(&family) => {
                self.refreshing.retain(|other| *other != family);
                if self.refreshing.is_empty() {
                    self.timers.stop(Timer::Refresh);
                }
                routes.end_refresh(family);
            }
            // An EoRR without its BoRR, or a subtype of the future (RFC 7313 §4, §5).
            _ => {}
        }
    }

    /// The peer has not said that it is done, and has had the time to.
    pub(super) fn refresh_expired(&mut self, routes: &mut impl Routes) {
        for family in std::mem::take(&mut self.refreshing) {
            routes.end_refresh(family);
        }
    }

    fn send_refreshes(&mut self, side: Side, families: &[Family]) {
        for family in families {
            self.send(side, |connection| connection.queue_refresh(*family));
        }
    }
}

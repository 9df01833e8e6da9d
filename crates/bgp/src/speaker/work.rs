//! What goes through all routes, a piece a turn: keepalives must be sent and read between one piece and the next.

use std::time::Instant;

use super::Speaker;

impl Speaker {
    /// How many routes are looked at in one turn, where something concerns all of them: fewer make for shorter turns, and for
    /// more of them. There is a default.
    pub fn set_turn(&mut self, looks: u32) {
        self.rib.set_turn(looks);
    }

    /// An input is taken in: what follows from it is begun at once, unless there was something to do already.
    pub(super) fn begin_work(&mut self, now: Instant) {
        self.now = now;
        if !self.working {
            self.work();
        }
    }

    /// One turn.
    pub(super) fn work(&mut self) {
        if self.rib.has_work() {
            self.rib.work();
            self.rib_changed = true;
        }
        self.working = self.rib.has_work();
    }

    /// Due at once, as long as there is something.
    pub(super) fn work_timeout(&self) -> Option<(Instant, &'static str)> {
        self.rib
            .has_work()
            .then_some((self.now, "walk through all routes"))
    }
}

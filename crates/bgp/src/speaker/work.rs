//! Work that may take long, a piece a turn: each peer whose import policy or rules change has all routes walked through, and
//! keepalives must be sent and read between one walk and the next.

use std::collections::VecDeque;
use std::time::Instant;

use super::Speaker;
use crate::rib::PeerIndex;

/// How many prefixes may be looked at in one turn, by whole walks: some tens of milliseconds. Few in tests, for them to need
/// more than one.
const TURN: usize = if cfg!(test) { 1 << 10 } else { 1 << 16 };

/// What is left to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Peers whose routes must be judged by a new policy or new rules.
    judge: VecDeque<u32>,
    /// Since when there is something.
    since: Option<Instant>,
    /// Prefixes looked at in this turn.
    walked: usize,
}

impl Work {
    /// Due at once, as long as there is something.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        Some((self.since?, "policies"))
    }
}

impl Speaker {
    /// Brings a peer's new policy and rules into force: now, if this turn has time for it.
    pub(super) fn judge_or_queue(&mut self, index: u32, now: Instant) {
        if self.work.judge.is_empty() && self.work.walked <= TURN {
            return self.judge(index);
        }
        if !self.work.judge.contains(&index) {
            self.work.judge.push_back(index);
        }
        self.work.since.get_or_insert(now);
    }

    /// Goes on for one turn.
    pub(super) fn work(&mut self) {
        self.work.walked = 0;
        while self.work.walked <= TURN
            && let Some(index) = self.work.judge.pop_front()
        {
            self.judge(index);
            self.rib_changed = true;
        }
        if self.work.judge.is_empty() {
            self.work.since = None;
        }
    }

    /// A turn for what comes from outside begins.
    pub(super) fn begin_turn(&mut self) {
        self.work.walked = 0;
    }

    fn judge(&mut self, index: u32) {
        let Some(peer) = self.peers.get(index as usize) else {
            return;
        };
        let (config, index) = (&peer.config, PeerIndex(index));
        self.rib
            .set_policies(index, config.import.clone(), config.export.clone());
        self.rib.set_rules(index, config.next_hop, config.rules);
        self.work.walked += self.rib.walk_len();
    }
}

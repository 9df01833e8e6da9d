//! Our own restart: when are the routes known that a predecessor had? (RFC 4724 §4.1)

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::session::Session;
use crate::session::open::LocalRestart;

/// How long a peer that we cannot reach holds up the others.
const ABSENT_TIME: Duration = Duration::from_secs(15);
/// How long a peer that has restarted too does so. It may wait for our End-of-RIB as we wait for its own, and RFC 4724
/// §4.1 excludes it to avoid that; yet mostly it does have something to tell.
const RESTARTED_TIME: Duration = Duration::from_secs(3);
/// How often we look for either.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// From the start until every peer has told its routes, or time is up.
#[derive(Debug)]
pub(super) struct Restart {
    restarting: bool,
    synced: bool,
    /// Peers whose routes are still to come.
    waiting: BTreeSet<u32>,
    /// Selection_Deferral_Timer.
    deferral: Instant,
    /// From when on peers that cannot be reached are not waited for: one dead node must not hold up a whole mesh.
    absent: Instant,
    /// When to look at the peers again.
    look: Instant,
}

impl Restart {
    pub(super) fn new(restarting: bool, deferral: Duration, now: Instant) -> Self {
        Self {
            restarting,
            synced: false,
            waiting: BTreeSet::new(),
            deferral: now + deferral,
            absent: now + ABSENT_TIME,
            look: now + LOOK_INTERVAL,
        }
    }

    /// What our OPENs say. Once synced, the kernel has our routes whatever becomes of a session.
    pub(super) fn local(&self) -> LocalRestart {
        LocalRestart {
            restarting: self.restarting && !self.synced,
            forwarding: self.restarting || self.synced,
        }
    }

    pub(super) fn is_synced(&self) -> bool {
        self.synced
    }

    pub(super) fn added(&mut self, peer: u32) {
        if !self.synced {
            self.waiting.insert(peer);
        }
    }

    pub(super) fn removed(&mut self, peer: u32) {
        self.waiting.remove(&peer);
    }

    /// Looks at a session in which something happened.
    pub(super) fn observe(&mut self, peer: u32, session: &Session) {
        if !self.synced && session.is_synced() {
            self.waiting.remove(&peer);
        }
    }

    /// Whether the wait ends now. `sessions` are asked for only when it is time to look at them.
    pub(super) fn finish<'a>(
        &mut self,
        now: Instant,
        sessions: impl IntoIterator<Item = (u32, &'a Session)>,
    ) -> bool {
        if self.synced {
            return false;
        }
        if now >= self.look {
            self.look = now + LOOK_INTERVAL;
            for (peer, session) in sessions {
                let absent = now >= self.absent && session.is_unreachable();
                if absent
                    || session
                        .restarted_for(now)
                        .is_some_and(|time| time >= RESTARTED_TIME)
                {
                    self.waiting.remove(&peer);
                }
            }
        }
        self.synced = self.waiting.is_empty() || now >= self.deferral;
        self.synced
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        (!self.synced).then(|| (self.deferral.min(self.look), "selection deferral"))
    }
}

//! Our own restart: when are the routes known that a predecessor had? (RFC 4724 §4.1)

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::session::Session;
use crate::session::open::LocalRestart;

/// How long a peer that we cannot reach holds up the choice of routes.
const ABSENT_TIME: Duration = Duration::from_secs(15);
/// How long a peer that has restarted too holds up the choice of routes. It may wait for our End-of-RIB as we wait for its own, and
/// RFC 4724 §4.1 excludes it to avoid that; yet mostly it does have something to tell.
const RESTARTED_TIME: Duration = Duration::from_secs(3);
/// How long such peers hold up our End-of-RIB after each word of theirs: longer than they wait for one that is absent. Whoever holds
/// our routes for us would drop them at an End-of-RIB that comes before they are known again.
const QUIET_TIME: Duration = Duration::from_secs(20);
/// How often we look for either.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// From the start until every peer has told its routes, or time is up.
///
/// Three things wait, for different times. Routes are chosen and told to others once all peers that can be reached have told
/// theirs: others' patience with us is limited. Where some of these have restarted too and are not done, End-of-RIB
/// waits until they are, or have been silent for a while: what they learn from each other comes over any number of hops. What the
/// kernel has from before stays longer, for as long as a peer that can't be reached may be restarting itself: it goes on
/// forwarding meanwhile. Our own routes need no choice, and don't wait.
#[derive(Debug)]
pub(super) struct Restart {
    restarting: bool,
    synced: bool,
    settled: bool,
    /// Peers whose routes are still to come, as far as choosing routes waits for them.
    waiting: BTreeSet<u32>,
    /// Peers that have restarted too, and had not told all when routes were chosen.
    unfinished: BTreeSet<u32>,
    /// From when on these are not waited for, unless they go on telling.
    quiet: Instant,
    /// Nothing holds up End-of-RIB any more.
    complete: bool,
    /// Peers whose routes are still to come, and until when they may be restarting.
    outstanding: BTreeMap<u32, Instant>,
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
            settled: false,
            waiting: BTreeSet::new(),
            unfinished: BTreeSet::new(),
            quiet: now,
            complete: false,
            outstanding: BTreeMap::new(),
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

    /// Nothing from before needs to be kept any longer.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    /// A peer, and how long it may take to restart where it offers to do so gracefully.
    pub(super) fn added(&mut self, peer: u32, restart_time: Option<Duration>, now: Instant) {
        if !self.synced {
            self.waiting.insert(peer);
        }
        if !self.settled {
            let patience = restart_time.unwrap_or(ABSENT_TIME);
            self.outstanding.insert(peer, now + patience);
        }
    }

    pub(super) fn removed(&mut self, peer: u32) {
        self.waiting.remove(&peer);
        self.unfinished.remove(&peer);
        self.outstanding.remove(&peer);
    }

    /// A peer has told a route.
    pub(super) fn heard(&mut self, peer: u32, now: Instant) {
        if !self.complete && self.unfinished.contains(&peer) {
            self.quiet = now + QUIET_TIME;
        }
    }

    /// Looks at a session in which something happened.
    pub(super) fn observe(&mut self, peer: u32, session: &Session) {
        if !(self.settled && self.complete) && session.is_synced() {
            self.removed(peer);
        } else if !self.synced && session.promises_no_end_of_rib() {
            // It has dropped our routes, and waits for nothing but us (RFC 4724 §4.1 excludes it). What the kernel has
            // through it stays until it has had the time to tell its routes.
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
                let restarted = session
                    .restarted_for(now)
                    .is_some_and(|time| time >= RESTARTED_TIME);
                let waited_for = (absent || restarted) && self.waiting.remove(&peer);
                if waited_for && restarted {
                    self.unfinished.insert(peer);
                }
            }
        }
        self.synced = self.waiting.is_empty() || now >= self.deferral;
        self.quiet = now + QUIET_TIME;
        self.synced
    }

    /// Whether End-of-RIB, held up until now, is due from now on.
    pub(super) fn complete(&mut self, now: Instant) -> bool {
        if !self.synced || self.complete {
            return false;
        }
        self.complete = self.unfinished.is_empty() || now >= self.quiet.min(self.deferral);
        self.complete
    }

    /// Whether what is from before need not be kept any longer, from now on. `complete`: all peers are known.
    pub(super) fn settle(&mut self, complete: bool, now: Instant) -> bool {
        if !self.synced || self.settled {
            return false;
        }
        // Asked after every input: whoever is behind one that still has time can be looked at when that is over.
        while let Some(first) = self.outstanding.first_entry()
            && *first.get() <= now
        {
            first.remove();
        }
        self.settled = complete && self.outstanding.is_empty();
        self.settled
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if !self.synced {
            return Some((self.deferral.min(self.look), "selection deferral"));
        }
        let quiet = (!self.complete).then(|| self.quiet.min(self.deferral));
        // While the configuration is not complete there may be nobody left: then nothing is waited for but that.
        let outstanding = self.outstanding.first_key_value();
        let until = outstanding
            .filter(|_| !self.settled)
            .map(|(_, until)| *until);
        let at = quiet.into_iter().chain(until).min()?;
        Some((at, "peers that may be restarting"))
    }
}

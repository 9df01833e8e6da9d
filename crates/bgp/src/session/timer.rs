//! Timers as deadlines in a table. The machine owns them; its driver sleeps until the earliest.

use std::time::{Duration, Instant};

/// What a deadline is for. The session has the first six, each connection has its own of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// IdleHoldTimer: end of the pause after an error.
    IdleHold,
    /// ConnectRetryTimer: time to dial, or time to give up a dial.
    ConnectRetry,
    /// The session has been up for long enough to forget earlier failures.
    Stable,
    /// The peer's restart time is over: it did not come back (RFC 4724 §4.2).
    Restart,
    /// The peer came back, but did not say End-of-RIB for too long.
    Stale,
    /// The peer began to send everything again, but did not say that it is done for too long (RFC 7313).
    Refresh,
    /// KeepaliveTimer.
    Keepalive,
    /// HoldTimer.
    Hold,
    /// SendHoldTimer (RFC 9687).
    SendHold,
}

impl Timer {
    /// All, in the order in which those that are due at the same time are served: a KEEPALIVE before anything that
    /// could end its session.
    pub(crate) const ALL: [Self; 9] = [
        Self::Keepalive,
        Self::Hold,
        Self::SendHold,
        Self::IdleHold,
        Self::ConnectRetry,
        Self::Stable,
        Self::Restart,
        Self::Stale,
        Self::Refresh,
    ];

    /// What the driver is waiting for, for its logs.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::IdleHold => "idle hold",
            Self::ConnectRetry => "connect retry",
            Self::Stable => "session stable",
            Self::Restart => "peer restart",
            Self::Stale => "stale routes",
            Self::Refresh => "route refresh",
            Self::Keepalive => "keepalive",
            Self::Hold => "hold",
            Self::SendHold => "send hold",
        }
    }
}

/// How long before its time a keepalive may go, when the speaker is awake anyway: a node of a big mesh wakes up for some
/// of them together, and not for each. The interval is jittered by more than that (RFC 4271 §10).
pub(crate) const KEEPALIVE_EARLY: Duration = Duration::from_millis(250);

/// Deadlines by timer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timers {
    deadlines: [Option<Instant>; Timer::ALL.len()],
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.deadlines[timer as usize] = Some(at);
    }

    pub(crate) fn stop(&mut self, timer: Timer) {
        self.deadlines[timer as usize] = None;
    }

    pub(crate) fn deadline(&self, timer: Timer) -> Option<Instant> {
        self.deadlines[timer as usize]
    }

    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.deadline(timer).is_some()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<(Instant, Timer)> {
        Timer::ALL
            .into_iter()
            .filter_map(|timer| Some((self.deadline(timer)?, timer)))
            .min_by_key(|(at, _)| *at)
    }

    /// Takes out one timer that is due, with how late it is. A keepalive may go a moment early.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(Timer, Duration)> {
        let until = |timer| match timer == Timer::Keepalive {
            true => now + KEEPALIVE_EARLY,
            false => now,
        };
        let (timer, at) = Timer::ALL
            .into_iter()
            .filter_map(|timer| Some((timer, self.deadline(timer)?)))
            .find(|(timer, at)| *at <= until(*timer))?;
        self.stop(timer);
        Some((timer, now.saturating_duration_since(at)))
    }
}

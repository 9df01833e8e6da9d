//! What configuration and the operator do to a session.

use std::fmt;
use std::time::Instant;

use bgp_wire::notification::cease;
use bgp_wire::{Family, Notification};

use super::act::Detail;
use super::ended::Ended;
use super::fsm::{Event, State};
use super::timer::{Timer, Timers};
use super::{Routes, Session, Settings, Side};
use crate::config::PeerConfig;

/// Why a session stays down although its peer is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// The operator shut it down, with this text.
    Administrative(String),
    /// Configuration says so, for this reason.
    Configured(String),
    /// The peer announced more prefixes of a family than this limit.
    TooManyPrefixes(Family, u32),
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Administrative(text) if text.is_empty() => {
                f.write_str("shut down by the operator")
            }
            Self::Administrative(text) => write!(f, "shut down by the operator: {text}"),
            Self::Configured(reason) => f.write_str(reason),
            Self::TooManyPrefixes(family, limit) => {
                write!(
                    f,
                    "more than {limit} prefixes of {family}: down until it is reset"
                )
            }
        }
    }
}

impl Session {
    /// Takes what may change under a living session.
    pub(crate) fn adapt(&mut self, config: &PeerConfig, now: Instant, routes: &mut impl Routes) {
        self.connect_retry = config.connect_retry;
        self.keepalive = config.keepalive;
        self.send_hold = config.send_hold;
        self.signed = config.password.is_some();
        self.configure(config.shutdown.as_ref(), now, routes);
        if self.passive != config.passive {
            self.passive = config.passive;
            if self.passive && self.slot(Side::Out).state <= State::Connect {
                self.timers.stop(Timer::ConnectRetry);
                self.abandon_dial();
            }
            self.settle(now);
        }
        if self.limits != config.prefix_limits {
            self.limits.clone_from(&config.prefix_limits);
            self.warned.clear();
            if matches!(self.halt, Some(Halt::TooManyPrefixes(..))) {
                self.start(now, routes);
            }
            self.enforce_limits(now, routes);
        }
    }

    /// Lets the session come up: at once where it dials.
    pub(crate) fn start(&mut self, now: Instant, routes: &mut impl Routes) {
        self.enabled = true;
        self.halt = None;
        self.begin(now, routes);
    }

    /// Begins: the session comes up, unless configuration has a reason why not.
    pub(crate) fn admit(
        &mut self,
        shutdown: Option<String>,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        match shutdown {
            Some(reason) => self.halt = Some(Halt::Configured(reason)),
            None => self.start(now, routes),
        }
    }

    /// Ends the session and keeps it down.
    pub(crate) fn stop(
        &mut self,
        notification: &Notification,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        self.enabled = false;
        for side in Side::BOTH {
            let ended = Ended::sent(self.final_word(side, notification), "");
            self.event(side, Event::Stop, Detail::Ended(ended), now, routes);
        }
        if !std::mem::take(&mut self.stale).is_empty() {
            routes.stale_expired();
        }
        self.timers = Timers::default();
        self.settle(now);
    }

    /// Ends the session and starts it with other settings; one that the operator shut down takes them, and stays down.
    pub(crate) fn reset(
        &mut self,
        settings: Settings,
        notification: &Notification,
        now: Instant,
        routes: &mut impl Routes,
    ) {
        self.stop(notification, now, routes);
        self.settings = settings;
        self.backoff.clear();
        if !matches!(
            self.halt,
            Some(Halt::Administrative(_) | Halt::Configured(_))
        ) {
            self.start(now, routes);
        }
    }

    /// What configuration says of whether the session may be there at all. The operator's shutdown outlives it.
    fn configure(&mut self, reason: Option<&String>, now: Instant, routes: &mut impl Routes) {
        match (&self.halt, reason) {
            (Some(Halt::Configured(old)), Some(reason)) if old == reason => {}
            (Some(Halt::Administrative(_)), _) => {}
            (_, Some(reason)) => {
                self.halt = Some(Halt::Configured(reason.clone()));
                let notification = Notification::cease(cease::ADMINISTRATIVE_SHUTDOWN);
                self.stop(&notification, now, routes);
            }
            (Some(Halt::Configured(_)), None) => self.start(now, routes),
            (_, None) => {}
        }
    }

    /// The operator's reset: ends the session, and starts it again whatever kept it down, save configuration (RFC 4486 §4,
    /// RFC 9003 §2).
    pub(crate) fn restart(&mut self, text: &str, now: Instant, routes: &mut impl Routes) {
        self.halt
            .take_if(|halt| !matches!(halt, Halt::Configured(_)));
        let settings = self.settings.clone();
        self.reset(settings, &Notification::reset(text), now, routes);
    }

    /// The operator's shutdown: until [`restart`](Self::restart) (RFC 4486 §4, RFC 9003 §2).
    pub(crate) fn shut_down(&mut self, text: &str, now: Instant, routes: &mut impl Routes) {
        self.halt = Some(Halt::Administrative(text.to_owned()));
        self.stop(&Notification::shutdown(text), now, routes);
    }

    /// A peer that would keep our routes through any NOTIFICATION has to be told that this one is meant (RFC 8538 §3.1).
    pub(super) fn final_word(&self, side: Side, notification: &Notification) -> Notification {
        let negotiated = self
            .slot(side)
            .connection
            .as_ref()
            .and_then(|connection| connection.negotiated.as_deref());
        match negotiated.and_then(|negotiated| negotiated.graceful_restart.as_ref()) {
            Some(restart) if restart.notification => Notification::hard_reset(notification),
            _ => notification.clone(),
        }
    }
}

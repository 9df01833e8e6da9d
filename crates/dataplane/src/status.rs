//! Routes as an operator reads them: what should be beside what is.

use std::fmt;
use std::time::Instant;

use crate::table::{Trouble, View};
use crate::{Route, RouteKey};

/// One route, desired beside actual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStatus {
    /// Which.
    pub key: RouteKey,
    /// What should be; `None` for a leftover.
    pub desired: Option<Route>,
    /// What the kernel has of ours, as far as we know.
    pub actual: Option<Route>,
    /// How they compare.
    pub state: RouteState,
    /// Why it is not as it should be: the last failure, who holds the key, or that it is lost again and again.
    pub reason: Option<String>,
    /// Failures in a row.
    pub failures: u32,
    /// The next attempt, if nothing happens before.
    pub retry_at: Option<Instant>,
}

/// How desired and actual compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteState {
    /// The kernel has what it should.
    Ok,
    /// The kernel does not have it.
    Missing,
    /// The kernel has another value under the key.
    Wrong,
    /// Another program's route holds the key.
    Foreign,
    /// The kernel has it and nobody wants it.
    Leftover,
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
            Self::Foreign => "foreign",
            Self::Leftover => "leftover",
        })
    }
}

/// How many routes are in which [`RouteState`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// [`RouteState::Ok`].
    pub ok: usize,
    /// [`RouteState::Missing`].
    pub missing: usize,
    /// [`RouteState::Wrong`].
    pub wrong: usize,
    /// [`RouteState::Foreign`].
    pub foreign: usize,
    /// [`RouteState::Leftover`].
    pub leftover: usize,
}

impl Summary {
    pub(crate) fn count(&mut self, state: RouteState) {
        *match state {
            RouteState::Ok => &mut self.ok,
            RouteState::Missing => &mut self.missing,
            RouteState::Wrong => &mut self.wrong,
            RouteState::Foreign => &mut self.foreign,
            RouteState::Leftover => &mut self.leftover,
        } += 1;
    }
}

pub(crate) fn route(view: &View<'_, RouteKey, Route>) -> RouteStatus {
    RouteStatus {
        key: view.key,
        desired: view.desired.cloned(),
        actual: view.actual.cloned(),
        state: state(view),
        reason: reason(view.trouble),
        failures: view.trouble.map_or(0, |trouble| trouble.failures),
        retry_at: view.trouble.and_then(|trouble| trouble.retry_at),
    }
}

pub(crate) fn state<K, V: Eq>(view: &View<'_, K, V>) -> RouteState {
    let foreign = view
        .trouble
        .is_some_and(|trouble| trouble.holder().is_some());
    match (view.desired, view.actual) {
        (None, _) => RouteState::Leftover,
        (Some(desired), Some(actual)) if desired == actual => RouteState::Ok,
        (Some(_), _) if foreign => RouteState::Foreign,
        (Some(_), Some(_)) => RouteState::Wrong,
        (Some(_), None) => RouteState::Missing,
    }
}

pub(crate) fn reason(trouble: Option<&Trouble>) -> Option<String> {
    let trouble = trouble?;
    let holder = trouble
        .holder()
        .map(|protocol| crate::OpError::Foreign { protocol }.to_string());
    let lost = || {
        (trouble.losses > 0).then(|| {
            format!(
                "somebody keeps removing or changing it: {} times in a row",
                trouble.losses
            )
        })
    };
    holder
        .or_else(|| trouble.error.as_ref().map(ToString::to_string))
        .or_else(lost)
}

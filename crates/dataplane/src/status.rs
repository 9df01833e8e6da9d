//! Routes as an operator reads them: what should be beside what is.

use std::fmt;
use std::time::Instant;

use crate::groups::Groups;
use crate::nexthop::NexthopId;
use crate::table::{Trouble, View};
use crate::{FibRoute, Object, Rival, Rivals, Route, RouteKey};

/// What was done since the start; each only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Routes and neighbours added or replaced.
    pub set: u64,
    /// Routes and neighbours deleted.
    pub deleted: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Routes, neighbours and nexthop objects that were as desired until somebody else took or changed them.
    pub lost: u64,
    /// Nexthop objects made or changed.
    pub objects_set: u64,
    /// Nexthop objects deleted.
    pub objects_deleted: u64,
    /// Routes that were moved by a change of their group, and not each by itself.
    pub moved: u64,
}

/// One route, desired beside actual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStatus {
    /// Which.
    pub key: RouteKey,
    /// What should be; `None` for a leftover.
    pub desired: Option<Route>,
    /// What the kernel has of ours, as far as we know; where that points at a nexthop object, with what the object says.
    pub actual: Option<Route>,
    /// The nexthop object that the kernel's route points at.
    pub object: Option<NexthopId>,
    /// How they compare.
    pub state: RouteState,
    /// Why it is not as it should be: the last failure, who holds the key, or that it is lost again and again.
    pub reason: Option<String>,
    /// Another program's route for this prefix that shadows ours, or has its place.
    pub rival: Option<Rival>,
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
    /// The kernel has it, and another program's route of a lower metric takes its packets.
    Shadowed,
    /// The kernel does not have it.
    Missing,
    /// The kernel has another value under the key.
    Wrong,
    /// Another program's route holds the key.
    Foreign,
    /// The kernel has it and nobody wants it.
    Leftover,
}

impl RouteState {
    /// The kernel has what it should, whether or not packets take it.
    #[must_use]
    pub fn is_installed(self) -> bool {
        matches!(self, Self::Ok | Self::Shadowed)
    }
}

impl fmt::Display for RouteState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Shadowed => "shadowed",
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
    /// [`RouteState::Shadowed`].
    pub shadowed: usize,
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
            RouteState::Shadowed => &mut self.shadowed,
            RouteState::Missing => &mut self.missing,
            RouteState::Wrong => &mut self.wrong,
            RouteState::Foreign => &mut self.foreign,
            RouteState::Leftover => &mut self.leftover,
        } += 1;
    }
}

pub(crate) fn route(
    view: &View<'_, RouteKey, FibRoute>,
    groups: &Groups,
    rivals: &Rivals,
) -> RouteStatus {
    let state = state(view, groups, rivals);
    let rival = rivals.of(&view.key.prefix).filter(|rival| match state {
        RouteState::Shadowed => true,
        RouteState::Foreign => rival.priority <= view.key.priority,
        RouteState::Ok | RouteState::Missing | RouteState::Wrong | RouteState::Leftover => false,
    });
    RouteStatus {
        key: view.key,
        desired: desired(view, groups),
        actual: actual(view, groups),
        object: view.actual.and_then(FibRoute::object),
        state,
        rival: rival.cloned(),
        reason: reason(view.trouble).or_else(|| objects_reason(view, groups)),
        failures: view.trouble.map_or(0, |trouble| trouble.failures),
        retry_at: view.trouble.and_then(|trouble| trouble.retry_at),
    }
}

/// A route that nothing is known of yet but that it should be.
pub(crate) fn pending(key: RouteKey, groups: &Groups) -> Option<RouteStatus> {
    Some(RouteStatus {
        key,
        desired: Some(Route::unicast(groups.pending(&key)?.iter().copied())),
        actual: None,
        object: None,
        state: RouteState::Missing,
        reason: None,
        rival: None,
        failures: 0,
        retry_at: None,
    })
}

fn desired(view: &View<'_, RouteKey, FibRoute>, groups: &Groups) -> Option<Route> {
    if let Some(hops) = groups.pending(&view.key) {
        return Some(Route::unicast(hops.iter().copied()));
    }
    match view.desired? {
        FibRoute::Inline(route) => Some(route.clone()),
        FibRoute::Object(id) => Some(Route::unicast(groups.hops_of(*id)?.iter().copied())),
    }
}

fn actual(view: &View<'_, RouteKey, FibRoute>, groups: &Groups) -> Option<Route> {
    match view.actual? {
        FibRoute::Inline(route) => Some(route.clone()),
        FibRoute::Object(id) => Some(Route::unicast(groups.actual_hops(*id)?)),
    }
}

pub(crate) fn state(
    view: &View<'_, RouteKey, FibRoute>,
    groups: &Groups,
    rivals: &Rivals,
) -> RouteState {
    let state = compared(view, groups);
    let shadowed = || {
        rivals
            .of(&view.key.prefix)
            .is_some_and(|it| it.shadows(&view.key))
    };
    if state == RouteState::Ok && shadowed() {
        return RouteState::Shadowed;
    }
    state
}

fn compared(view: &View<'_, RouteKey, FibRoute>, groups: &Groups) -> RouteState {
    let foreign = view
        .trouble
        .is_some_and(|trouble| trouble.holder().is_some());
    let pending = groups.pending(&view.key).is_some();
    let is_right = |route: &FibRoute| route.object().is_none_or(|id| groups.is_right(id));
    match (view.desired, view.actual) {
        (None, _) if !pending => RouteState::Leftover,
        (Some(desired), Some(actual)) if desired == actual && !pending && is_right(actual) => {
            RouteState::Ok
        }
        // What matters is where packets go, not how it is written.
        (_, Some(_)) if desired(view, groups) == actual(view, groups) => RouteState::Ok,
        (_, _) if foreign => RouteState::Foreign,
        (_, Some(_)) => RouteState::Wrong,
        (_, None) => RouteState::Missing,
    }
}

/// Why the object that a route is to point at is not as it should be.
fn objects_reason(view: &View<'_, RouteKey, FibRoute>, groups: &Groups) -> Option<String> {
    let id = view.desired?.object()?;
    let group = groups.groups.view(id)?;
    let members = match group.desired {
        Some(Object::Group(group)) => &group.members[..],
        _ => &[],
    };
    let members = members.iter().filter_map(|id| groups.hops.view(*id));
    let members = members.filter_map(|view| reason(view.trouble));
    reason(group.trouble).or_else(|| members.into_iter().next())
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

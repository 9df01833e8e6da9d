//! Keeps the kernel as it should be, one dirty key at a time.

use std::net::IpAddr;
use std::time::Instant;

use crate::table::{Step, Table};
use crate::{
    Event, LinkIndex, Neighbour, NeighbourKey, Op, OpError, ROUTE_PROTOCOL, Route, RouteAction,
    RouteEvent, RouteKey, RouteState, RouteStatus, Summary, status,
};

/// Holds what should be, what the kernel has, and which keys differ. Work and memory per change do not depend on how many
/// routes there are. It does no I/O: its owner feeds it and carries its operations to the kernel.
///
/// In: [`set_route`](Self::set_route), [`set_neighbour`](Self::set_neighbour), [`load`](Self::load) (a dump, at first and
/// now and then), [`handle`](Self::handle) (events). Out: [`plan`](Self::plan); each operation that it returns must come back
/// by [`applied`](Self::applied) before the next `plan`. [`poll_timeout`](Self::poll_timeout) says when to plan again though
/// nothing has happened.
///
/// - Nothing is planned before the first dump.
/// - What a predecessor left (routes of ours that nobody has desired since the start) stays until
///   [`sweep`](Self::sweep); what matches is adopted as it is.
/// - Another program's route that holds a key is never touched.
/// - What somebody else removes or changes comes back at once, but not for ever: when it happens again and again within
///   seconds, pauses grow up to some seconds, until the key has stayed put for a while.
#[derive(Debug)]
pub struct Reconciler {
    routes: Table<RouteKey, Route>,
    neighbours: Table<NeighbourKey, Neighbour>,
    loaded: bool,
    counters: Counters,
}

/// What was done since the start; each only grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Routes and neighbours added or replaced.
    pub set: u64,
    /// Routes and neighbours deleted.
    pub deleted: u64,
    /// Operations that failed.
    pub failed: u64,
    /// Routes and neighbours that were as desired until somebody else took or changed them.
    pub lost: u64,
}

impl Reconciler {
    /// An empty one. The seed varies the jitter of retries, and the hashing.
    pub fn new(seed: u64) -> Self {
        Self {
            routes: Table::new(seed),
            neighbours: Table::new(seed),
            loaded: false,
            counters: Counters::default(),
        }
    }

    /// Says what should stand under a key, `None` for nothing. True when that is news.
    pub fn set_route(&mut self, key: RouteKey, route: Option<Route>) -> bool {
        self.routes.desire(key.normal(), route.map(Route::normal))
    }

    /// Says which neighbour entry there should be, `None` for none. True when that is news.
    pub fn set_neighbour(&mut self, key: NeighbourKey, neighbour: Option<Neighbour>) -> bool {
        self.neighbours.desire(key, neighbour)
    }

    /// Takes in a whole dump of what the kernel has of ours.
    pub fn load(
        &mut self,
        routes: impl IntoIterator<Item = (RouteKey, Option<Route>)>,
        neighbours: impl IntoIterator<Item = (NeighbourKey, Neighbour)>,
    ) {
        let mut lost = 0;
        self.routes.begin_load();
        for (key, route) in routes {
            let key = key.normal();
            match route {
                Some(route) => lost += usize::from(self.routes.load(key, route.normal())),
                None => self.routes.observe_unknown(key),
            }
        }
        lost += self.routes.finish_load();
        self.neighbours.begin_load();
        for (key, neighbour) in neighbours {
            lost += usize::from(self.neighbours.load(key, neighbour));
        }
        lost += self.neighbours.finish_load();
        self.counters.lost += lost as u64;
        self.loaded = true;
    }

    /// Takes in an event.
    pub fn handle(&mut self, event: &Event) {
        match event {
            Event::Route(route) => self.handle_route(route),
            Event::Neighbour(key, neighbour) => {
                self.counters.lost += u64::from(self.neighbours.observe(*key, *neighbour));
            }
            // What failed for want of a link or of a way to its gateway may work now.
            Event::Link(_) | Event::AddressAdded(..) => {
                self.routes.wake_all();
                self.neighbours.wake_all();
            }
            Event::LinkRemoved(_) | Event::AddressRemoved(..) => {}
        }
    }

    fn handle_route(&mut self, event: &RouteEvent) {
        let key = event.key.normal();
        if event.protocol != ROUTE_PROTOCOL {
            match event.action {
                RouteAction::Added => self.routes.foreign(key, Some(Some(event.protocol))),
                RouteAction::Replaced => {
                    self.routes.foreign(key, Some(Some(event.protocol)));
                    self.counters.lost += u64::from(self.routes.observe(key, None));
                }
                RouteAction::Removed => self.routes.foreign(key, None),
            }
            return;
        }
        let actual = match (event.action, &event.route) {
            (RouteAction::Removed, gone) => self.rest(&key, gone.as_ref()),
            (_, Some(route)) => Some(route.clone().normal()),
            (_, None) => return self.routes.observe_unknown(key),
        };
        self.counters.lost += u64::from(self.routes.observe(key, actual));
    }

    /// What is left of a route when these next hops are gone: IPv6 tells of one at a time.
    fn rest(&self, key: &RouteKey, gone: Option<&Route>) -> Option<Route> {
        if key.prefix.addr().is_ipv4() {
            return None;
        }
        let mut rest = self.routes.actual(*key)?.clone();
        let gone = gone?;
        rest.next_hops.retain(|hop| !gone.next_hops.contains(hop));
        (!rest.next_hops.is_empty()).then_some(rest)
    }

    /// From now on, what nobody desires goes, whoever left it: call it when all that is desired is known.
    pub fn sweep(&mut self) {
        self.routes.sweep();
        self.neighbours.sweep();
    }

    /// Up to `max` operations, in an order that never leaves a hole: neighbours before the routes that need them, additions and
    /// replacements before deletions. Empty when all is done or waits for its retry.
    pub fn plan(&mut self, max: usize, now: Instant) -> Vec<Op> {
        let mut ops = Vec::new();
        if !self.loaded {
            return ops;
        }
        self.routes.recall();
        self.neighbours.recall();
        self.routes.wake(now);
        self.neighbours.wake(now);
        while ops.len() < max {
            let Some((key, Step::Add(value) | Step::Replace(value))) =
                self.neighbours.next_upsert(now)
            else {
                break;
            };
            ops.push(Op::SetNeighbour(key, value));
        }
        while ops.len() < max {
            ops.push(match self.routes.next_upsert(now) {
                Some((key, Step::Add(route))) => Op::AddRoute(key, route),
                Some((key, Step::Replace(route))) => Op::ReplaceRoute(key, route),
                Some((_, Step::Delete(_))) | None => break,
            });
        }
        while ops.len() < max {
            let Some((key, Step::Delete(was))) = self.routes.next_delete(now) else {
                break;
            };
            ops.push(Op::DeleteRoute(key, was.map(|route| route.kind)));
        }
        while ops.len() < max {
            let Some((key, _)) = self.neighbours.next_delete(now) else {
                break;
            };
            ops.push(Op::DeleteNeighbour(key));
        }
        ops
    }

    /// What came of an operation. True when it failed otherwise than the last time, so that it is worth a line in the log.
    pub fn applied(&mut self, op: &Op, result: Result<(), OpError>, now: Instant) -> bool {
        let deletes = matches!(op, Op::DeleteRoute(..) | Op::DeleteNeighbour(_));
        let counter = match (&result, deletes) {
            (Ok(()), false) => &mut self.counters.set,
            (Ok(()), true) => &mut self.counters.deleted,
            (Err(_), _) => &mut self.counters.failed,
        };
        *counter += 1;
        match op {
            Op::AddRoute(key, route) | Op::ReplaceRoute(key, route) => {
                self.routes.applied(*key, Some(route), result, now)
            }
            Op::DeleteRoute(key, _) => self.routes.applied(*key, None, result, now),
            Op::SetNeighbour(key, neighbour) => {
                self.neighbours.applied(*key, Some(neighbour), result, now)
            }
            Op::DeleteNeighbour(key) => self.neighbours.applied(*key, None, result, now),
        }
    }

    /// Whether [`plan`](Self::plan) may have something at once.
    pub fn has_work(&self) -> bool {
        self.loaded && !(self.routes.is_idle() && self.neighbours.is_idle())
    }

    /// When to plan again though nothing has happened, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let at = [self.routes.poll_timeout(), self.neighbours.poll_timeout()]
            .into_iter()
            .flatten()
            .min()?;
        Some((
            at,
            "retry of what the kernel refused or somebody keeps removing",
        ))
    }

    /// Whether the kernel has, as far as we know, a route of ours through this link.
    pub fn uses_link(&self, link: LinkIndex) -> bool {
        let through = |route: &Route| route.next_hops.iter().any(|hop| hop.link == link);
        self.routes
            .views()
            .any(|view| view.actual.is_some_and(through))
    }

    /// Whether the kernel has the route that is desired under this key.
    pub fn is_installed(&self, key: RouteKey) -> bool {
        self.route(key)
            .is_some_and(|status| status.state == RouteState::Ok)
    }

    /// One route: desired beside actual.
    pub fn route(&self, key: RouteKey) -> Option<RouteStatus> {
        self.routes
            .view(key.normal())
            .map(|view| status::route(&view))
    }

    /// All routes, desired beside actual, sorted.
    pub fn routes(&self) -> Vec<RouteStatus> {
        let mut all: Vec<_> = self
            .routes
            .views()
            .map(|view| status::route(&view))
            .collect();
        all.sort_unstable_by_key(|status| status.key);
        all
    }

    /// The neighbour entries that should be and are not, with the last error; sorted.
    pub fn missing_neighbours(&self) -> Vec<(LinkIndex, IpAddr, Option<String>)> {
        let missing = self
            .neighbours
            .views()
            .filter(|view| view.desired != view.actual && view.desired.is_some());
        let mut missing: Vec<_> = missing
            .map(|view| {
                (
                    view.key.link,
                    view.key.address,
                    status::reason(view.trouble),
                )
            })
            .collect();
        missing.sort_unstable();
        missing
    }

    /// How many routes are in which state.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.routes
            .views()
            .for_each(|view| summary.count(status::state(&view)));
        summary
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

//! Keeps the kernel as it should be, one dirty key at a time.

mod view;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::groups::{Groups, Hops, delete_objects};
use crate::status::Counters;
use crate::table::{Step, Table, View};
use crate::{
    Event, FibRoute, GroupKind, LinkIndex, Neighbour, NeighbourKey, NexthopId, Object, ObjectEvent,
    Op, OpError, ROUTE_PROTOCOL, Rivals, Route, RouteAction, RouteEvent, RouteKey, nexthop,
};

/// Holds what should be, what the kernel has, and which keys differ. Work and memory per change do not depend on how many
/// routes there are. It does no I/O: its owner feeds it and carries its operations to the kernel.
///
/// In: [`set_route`](Self::set_route), [`set_neighbour`](Self::set_neighbour), [`load_objects`](Self::load_objects) and
/// [`load`](Self::load) (a dump, at first and now and then), [`handle`](Self::handle) (events). Out: [`plan`](Self::plan); each
/// operation that it returns must come back by [`applied`](Self::applied) before the next `plan`.
/// [`poll_timeout`](Self::poll_timeout) says when to plan again though nothing has happened.
///
/// - Nothing is planned before the first dump.
/// - What a predecessor left (routes of ours that nobody has desired since the start) stays until
///   [`sweep`](Self::sweep); what matches is adopted as it is.
/// - Another program's route that holds a key is never touched, nor another program's nexthop object.
/// - What somebody else removes or changes comes back at once, but not for ever: when it happens again and again within
///   seconds, pauses grow up to some seconds, until the key has stayed put for a while.
/// - With [`use_groups`](Self::use_groups), routes with gateways point at nexthop groups, and when all routes of a group come to
///   want the same other next hops, one operation moves them all. A route is as it should be when what it points at is.
#[derive(Debug)]
pub struct Reconciler {
    routes: Table<RouteKey, FibRoute>,
    neighbours: Table<NeighbourKey, Neighbour>,
    groups: Groups,
    rivals: Rivals,
    /// The metrics of the routes that were ever desired: two, or a few more.
    metrics: BTreeSet<u32>,
    loaded: bool,
    counters: Counters,
}

impl Reconciler {
    /// An empty one, whose routes have their next hops in themselves. The seed varies the jitter of retries, and the hashing.
    pub fn new(seed: u64) -> Self {
        Self {
            routes: Table::new(seed),
            neighbours: Table::new(seed),
            groups: Groups::new(seed),
            rivals: Rivals::default(),
            metrics: BTreeSet::new(),
            loaded: false,
            counters: Counters::default(),
        }
    }

    /// Has routes with gateways point at nexthop groups of this kind; `None`: their next hops stand in themselves. Call it
    /// before anything is desired.
    pub fn use_groups(&mut self, kind: Option<GroupKind>) {
        self.groups.set_kind(kind);
    }

    /// What kind of groups routes point at; `None`: at none.
    pub fn group_kind(&self) -> Option<GroupKind> {
        self.groups.kind()
    }

    /// Says what should stand under a key, `None` for nothing. True when that is news.
    pub fn set_route(&mut self, key: RouteKey, route: Option<Route>) -> bool {
        let (key, route) = (key.normal(), route.map(Route::normal));
        let desired = self.routes.desired(&key);
        let group = desired.and_then(FibRoute::object);
        if route.is_some() && desired.is_none() {
            self.rivals.wanted(&key);
            self.metrics.insert(key.priority);
        }
        match route {
            Some(route) if self.groups.suits(&route) => {
                self.set_grouped(key, group, &route.next_hops)
            }
            route => {
                let pended = self.groups.unpend(&key, group);
                if let Some(group) = group {
                    self.groups.leave(group);
                }
                self.routes.desire(key, route.map(FibRoute::Inline)) || pended
            }
        }
    }

    fn set_grouped(&mut self, key: RouteKey, group: Option<NexthopId>, hops: &Hops) -> bool {
        match group.and_then(|id| self.groups.hops_of(id)) {
            Some(now) if now == hops => self.groups.unpend(&key, group),
            Some(_) => self.groups.pend(key, group, hops.clone()),
            // Which groups there are is not known before the first dump.
            None if !self.loaded => self.groups.pend(key, None, hops.clone()),
            None => {
                self.groups.unpend(&key, None);
                self.place(key, hops);
                true
            }
        }
    }

    /// Gives a route the group that it belongs to.
    fn place(&mut self, key: RouteKey, hops: &Hops) {
        let points_at = self.routes.actual(key).and_then(FibRoute::object);
        let before = self.routes.desired(&key).and_then(FibRoute::object);
        let group = self.groups.join(hops, points_at);
        if let Some(before) = before {
            self.groups.leave(before);
        }
        self.routes.desire(key, Some(FibRoute::Object(group)));
    }

    /// Brings the groups up to date with what routes want.
    fn settle_groups(&mut self, now: Instant) {
        for (key, hops) in self.groups.take_fresh() {
            self.place(key, &hops);
        }
        let due = self.groups.due(now);
        if due.is_empty() {
            return;
        }
        let strangers = self.strangers();
        for id in due {
            let (moves, together) = self.groups.take_moves(id);
            if together && !strangers.contains(&id) {
                self.counters.moved += moves.len() as u64;
                let hops = moves.into_iter().next().map(|(_, hops)| hops);
                hops.into_iter()
                    .for_each(|hops| self.groups.retarget(id, hops));
            } else {
                for (key, hops) in moves {
                    self.place(key, &hops);
                }
            }
        }
    }

    /// The groups that routes in the kernel point at which are to point elsewhere, or nobody has desired yet.
    fn strangers(&self) -> BTreeSet<NexthopId> {
        let stranger = |view: View<'_, RouteKey, FibRoute>| {
            let actual = view.actual?.object()?;
            (view.desired.and_then(FibRoute::object) != Some(actual)).then_some(actual)
        };
        self.routes.views().filter_map(stranger).collect()
    }

    /// Says which neighbour entry there should be, `None` for none. True when that is news.
    pub fn set_neighbour(&mut self, key: NeighbourKey, neighbour: Option<Neighbour>) -> bool {
        self.neighbours.desire(key, neighbour)
    }

    /// Takes in a whole dump of the nexthop objects with identifiers of our ranges and whose they are, `None` for a kind that
    /// we have no word for. Before [`load`](Self::load), where the kernel has nexthop objects at all.
    pub fn load_objects(
        &mut self,
        objects: impl IntoIterator<Item = (NexthopId, u8, Option<Object>)>,
    ) {
        let mut lost = 0;
        let mut taken = Vec::new();
        self.groups.begin_load();
        for (id, protocol, object) in objects {
            let Some(table) = self.groups.table(id) else {
                continue;
            };
            match object {
                _ if protocol != ROUTE_PROTOCOL => taken.push(id),
                Some(object) => lost += usize::from(table.load(id, object)),
                None => table.observe_unknown(id),
            }
        }
        lost += self.groups.hops.finish_load() + self.groups.groups.finish_load();
        self.counters.lost += lost as u64;
        for id in taken {
            self.taken(id);
        }
        self.unpark();
    }

    /// Takes in a whole dump of what routes and neighbours the kernel has of ours.
    pub fn load(
        &mut self,
        routes: impl IntoIterator<Item = (RouteKey, Option<FibRoute>)>,
        neighbours: impl IntoIterator<Item = (NeighbourKey, Neighbour)>,
    ) {
        let mut lost = 0;
        self.routes.begin_load();
        for (key, route) in routes {
            let key = key.normal();
            match route {
                Some(route) => {
                    lost += usize::from(self.routes.load(key, route.normal()));
                }
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
        self.rivals.look_again();
        self.loaded = true;
    }

    /// Takes in an event. True when it means that the kernel removed routes of ours without a word: dump them again.
    pub fn handle(&mut self, event: &Event) -> bool {
        if matches!(
            event,
            Event::Link(_) | Event::LinkRemoved(_) | Event::AddressRemoved(..)
        ) {
            // The kernel may have removed others' routes without a word.
            self.rivals.look_again();
        }
        match event {
            Event::Route(route) => self.handle_route(route),
            Event::Neighbour(key, neighbour) => {
                self.counters.lost += u64::from(self.neighbours.observe(*key, *neighbour));
            }
            Event::Object(object) => return self.handle_object(object),
            // What failed for want of a link or of a way to its gateway may work now.
            Event::Link(_) | Event::AddressAdded(..) => {
                self.groups.hops.wake_all();
                self.groups.groups.wake_all();
                self.routes.wake_all();
                self.neighbours.wake_all();
            }
            Event::LinkRemoved(_) | Event::AddressRemoved(..) => {}
        }
        false
    }

    fn handle_object(&mut self, event: &ObjectEvent) -> bool {
        let ObjectEvent {
            id,
            protocol,
            removed,
            object,
        } = event;
        if *protocol != ROUTE_PROTOCOL {
            if *removed {
                self.groups.give_back(*id);
            } else {
                self.taken(*id);
            }
            return false;
        }
        let Some(table) = self.groups.table(*id) else {
            return false;
        };
        let lost = match (removed, object) {
            (true, _) => table.observe(*id, None),
            (false, Some(object)) => table.observe(*id, Some(object.clone())),
            (false, None) => {
                table.observe_unknown(*id);
                false
            }
        };
        self.counters.lost += u64::from(lost);
        self.unpark();
        *removed && nexthop::GROUP_IDS.contains(id)
    }

    /// Somebody else uses an identifier of our ranges: what of ours pointed at it gets another.
    fn taken(&mut self, id: NexthopId) {
        let Some(other) = self.groups.take(id) else {
            return;
        };
        let of_it =
            |view: &View<'_, RouteKey, FibRoute>| view.desired == Some(&FibRoute::Object(id));
        let keys: Vec<_> = self.routes.views().filter(of_it).map(|it| it.key).collect();
        for key in keys {
            self.routes.desire(key, Some(FibRoute::Object(other)));
        }
    }

    /// What waited for an object may be possible now.
    fn unpark(&mut self) {
        self.groups.groups.unpark();
        self.routes.unpark();
    }

    fn handle_route(&mut self, event: &RouteEvent) {
        let key = event.key.normal();
        if event.protocol != ROUTE_PROTOCOL {
            if self.wants(&key.prefix) {
                self.rivals.look();
            }
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
    fn rest(&self, key: &RouteKey, gone: Option<&FibRoute>) -> Option<FibRoute> {
        if key.prefix.addr().is_ipv4() {
            return None;
        }
        let mut rest = self.routes.actual(*key)?.inline()?.clone();
        let gone = gone?.inline()?;
        rest.next_hops.retain(|hop| !gone.next_hops.contains(hop));
        (!rest.next_hops.is_empty()).then_some(FibRoute::Inline(rest))
    }

    /// From now on, what nobody desires goes, whoever left it: call it when all that is desired is known.
    pub fn sweep(&mut self) {
        self.groups.hops.sweep();
        self.groups.groups.sweep();
        self.routes.sweep();
        self.neighbours.sweep();
    }

    /// Up to `max` operations, in an order that never leaves a hole: nexthop objects before groups, groups before the routes
    /// that point at them, neighbours before the routes that need them, additions and replacements before deletions, and
    /// nothing goes that something may still point at. Empty when all is done or waits for its retry.
    pub fn plan(&mut self, max: usize, now: Instant) -> Vec<Op> {
        let mut ops = Vec::new();
        if !self.loaded {
            return ops;
        }
        self.begin_turn(now);
        // What comes later needs to know how these fared.
        self.plan_objects(&mut ops, max, now);
        if !ops.is_empty() {
            return ops;
        }
        while ops.len() < max {
            let Some((key, Step::Add(value) | Step::Replace(value))) =
                self.neighbours.next_upsert(now, |_| true)
            else {
                break;
            };
            ops.push(Op::SetNeighbour(key, value));
        }
        let Self { groups, routes, .. } = self;
        let can_be = |route: &FibRoute| route.object().is_none_or(|id| groups.is_right(id));
        while ops.len() < max {
            ops.push(match routes.next_upsert(now, can_be) {
                Some((key, Step::Add(route))) => Op::AddRoute(key, route),
                Some((key, Step::Replace(route))) => Op::ReplaceRoute(key, route),
                Some((_, Step::Delete(_))) | None => break,
            });
        }
        while ops.len() < max {
            let Some((key, Step::Delete(was))) = self.routes.next_delete(now, |_| true) else {
                break;
            };
            ops.push(Op::DeleteRoute(key, was.map(|route| route.kind())));
        }
        while ops.len() < max {
            let Some((key, _)) = self.neighbours.next_delete(now, |_| true) else {
                break;
            };
            ops.push(Op::DeleteNeighbour(key));
        }
        if self.routes.is_idle() {
            self.plan_object_deletions(&mut ops, max, now);
        }
        ops
    }

    fn begin_turn(&mut self, now: Instant) {
        self.settle_groups(now);
        self.groups.hops.recall();
        self.groups.groups.recall();
        self.routes.recall();
        self.neighbours.recall();
        self.groups.hops.wake(now);
        self.groups.groups.wake(now);
        self.routes.wake(now);
        self.neighbours.wake(now);
    }

    fn plan_objects(&mut self, ops: &mut Vec<Op>, max: usize, now: Instant) {
        let Groups { hops, groups, .. } = &mut self.groups;
        let op = |(id, step)| match step {
            Step::Add(object) => Some(Op::AddObject(id, object)),
            Step::Replace(object) => Some(Op::ReplaceObject(id, object)),
            Step::Delete(_) => None,
        };
        while ops.len() < max
            && let Some(step) = hops.next_upsert(now, |_| true)
        {
            ops.extend(op(step));
        }
        if !ops.is_empty() {
            return;
        }
        while ops.len() < max
            && let Some(step) = groups.next_upsert(now, |group| Groups::is_ready(hops, group))
        {
            ops.extend(op(step));
        }
    }

    /// Objects go only when all routes have had their turn, and none may point at them any more: the kernel would remove it too.
    fn plan_object_deletions(&mut self, ops: &mut Vec<Op>, max: usize, now: Instant) {
        // What is on the way may be what they wait for.
        let last = ops.is_empty();
        let Groups { hops, groups, .. } = &mut self.groups;
        if groups.has_deletions() {
            let unknown = self.routes.has_unknown();
            let objects = self.routes.views();
            let used: BTreeSet<_> = objects
                .filter_map(|view| view.actual.and_then(FibRoute::object))
                .collect();
            let may_go = |id: &NexthopId| !unknown && !used.contains(id);
            delete_objects(groups, may_go, last, ops, max, now);
        }
        // After the groups that hold them.
        if groups.is_idle() && hops.has_deletions() {
            let held = Groups::held_hops(groups);
            let may_go = |id: &NexthopId| held.as_ref().is_some_and(|held| !held.contains(id));
            let last = ops.is_empty();
            delete_objects(hops, may_go, last, ops, max, now);
        }
    }

    /// What came of an operation. True when it failed otherwise than the last time, so that it is worth a line in the log.
    pub fn applied(&mut self, op: &Op, result: Result<(), OpError>, now: Instant) -> bool {
        let counters = &mut self.counters;
        let counter = match (&result, op) {
            (Err(_), _) => &mut counters.failed,
            (_, Op::AddObject(..) | Op::ReplaceObject(..)) => &mut counters.objects_set,
            (_, Op::DeleteObject(_)) => &mut counters.objects_deleted,
            (_, Op::DeleteRoute(..) | Op::DeleteNeighbour(_)) => &mut counters.deleted,
            (_, Op::AddRoute(..) | Op::ReplaceRoute(..) | Op::SetNeighbour(..)) => {
                &mut counters.set
            }
        };
        *counter += 1;
        if matches!(result, Err(OpError::Foreign { .. })) {
            self.rivals.look();
        }
        match op {
            Op::AddRoute(key, route) | Op::ReplaceRoute(key, route) => {
                self.routes.applied(*key, Some(route), result, now)
            }
            Op::DeleteRoute(key, _) => self.routes.applied(*key, None, result, now),
            Op::SetNeighbour(key, neighbour) => {
                self.neighbours.applied(*key, Some(neighbour), result, now)
            }
            Op::DeleteNeighbour(key) => self.neighbours.applied(*key, None, result, now),
            Op::AddObject(id, object) | Op::ReplaceObject(id, object) => {
                self.applied_object(*id, Some(object), result, now)
            }
            Op::DeleteObject(id) => self.applied_object(*id, None, result, now),
        }
    }

    fn applied_object(
        &mut self,
        id: NexthopId,
        object: Option<&Object>,
        result: Result<(), OpError>,
        now: Instant,
    ) -> bool {
        let done = result.is_ok();
        let foreign = matches!(result, Err(OpError::Foreign { .. }));
        let Some(table) = self.groups.table(id) else {
            return false;
        };
        let news = table.applied(id, object, result, now);
        if foreign {
            self.taken(id);
        }
        if done {
            self.unpark();
        }
        news
    }

    /// Whether [`plan`](Self::plan) may have something at once.
    pub fn has_work(&self) -> bool {
        let idle = self.routes.is_idle()
            && self.neighbours.is_idle()
            && self.groups.hops.is_idle()
            && self.groups.groups.is_idle()
            && !self.groups.is_dirty();
        self.loaded && !idle
    }

    /// When to plan again though nothing has happened, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let retries = [
            self.routes.poll_timeout(),
            self.neighbours.poll_timeout(),
            self.groups.hops.poll_timeout(),
            self.groups.groups.poll_timeout(),
        ];
        let retry = retries.into_iter().flatten().min().map(|at| {
            let why = "retry of what the kernel refused or somebody keeps removing";
            (at, why)
        });
        let moves = self.groups.poll_timeout();
        let moves = moves.map(|at| (at, "the rest of a group's routes did not move in time"));
        retry.into_iter().chain(moves).min_by_key(|(at, _)| *at)
    }

    /// Whether the kernel has, as far as we know, a route of ours through this link.
    pub fn uses_link(&self, link: LinkIndex) -> bool {
        let through = |route: &Route| route.next_hops.iter().any(|hop| hop.link == link);
        let inline = |route: &FibRoute| route.inline().is_some_and(through);
        self.has_object_through(link)
            || self
                .routes
                .views()
                .any(|view| view.actual.is_some_and(inline))
    }

    /// Whether the kernel has, as far as we know, a nexthop object of ours through this link: it goes when the link loses its
    /// carrier, and its routes with it.
    pub fn has_object_through(&self, link: LinkIndex) -> bool {
        let through = |object: &Object| matches!(object, Object::Hop(hop) if hop.link == link);
        let mut hops = self.groups.hops.views();
        hops.any(|view| view.actual.is_some_and(through))
    }
}

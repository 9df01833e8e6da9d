//! Which nexthop group each route belongs to, so that what moves together is moved by one message.
//!
//! A route with gateways points at a group, and a group at the objects of its next hops. Objects are known by what they
//! are: a route joins a group that has its next hops already, the one that it points at before any other. When all routes
//! of a group come to want the same other next hops, the group is changed in place and no route is touched. Groups may
//! so come to be equal; when their routes part again, they part with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use foldhash::quality::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::nexthop::{GROUP_IDS, Group, GroupKind, HOP_IDS, NexthopId, Object};
use crate::table::Table;
use crate::{NextHop, Op, Route, RouteKey, RouteKind};

/// Next hops, sorted: what a route wants, or what a group has.
pub(crate) type Hops = SmallVec<[NextHop; 1]>;

/// A group of more routes than these waits a little for the rest of them when some of them move: a speaker tells of its
/// prefixes in portions.
const FEW: usize = 64;
/// How long it waits after the last one that moved.
const QUIET: Duration = Duration::from_millis(10);
/// How long it waits at most.
const PATIENCE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub(crate) struct Groups {
    /// The objects of single next hops.
    pub(crate) hops: Table<NexthopId, Object>,
    /// The groups.
    pub(crate) groups: Table<NexthopId, Object>,
    /// `None`: the kernel has no nexthop objects, or is to be given none.
    kind: Option<GroupKind>,
    classes: BTreeMap<NexthopId, Class>,
    by_hops: BTreeMap<Hops, BTreeSet<NexthopId>>,
    members: BTreeMap<NextHop, Member>,
    /// Identifiers of our ranges that somebody else uses.
    taken: BTreeSet<NexthopId>,
    /// What routes want that have not got their group yet.
    pending: HashMap<RouteKey, Hops, FixedState>,
    /// Those of them that have no group now.
    fresh: Vec<RouteKey>,
    /// Groups some of whose routes want other next hops.
    moving: BTreeSet<NexthopId>,
    /// There is news since the last [`Reconciler::plan`](crate::Reconciler::plan).
    dirty: bool,
    /// The group that was joined last: neighbouring prefixes mostly share theirs.
    last: Option<(Hops, NexthopId)>,
    next_hop_id: NexthopId,
    next_group_id: NexthopId,
}

/// A group that routes belong to.
#[derive(Debug)]
struct Class {
    hops: Hops,
    /// How many routes belong to it.
    routes: usize,
    /// Those that want other next hops; some may have changed their mind.
    moving: Vec<RouteKey>,
    /// How many do.
    movers: usize,
    gathering: Option<Gathering>,
}

/// A group that waits for the rest of its routes to move.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    since: Instant,
    last: Instant,
    movers: usize,
}

impl Gathering {
    fn ends(&self) -> Instant {
        (self.since + PATIENCE).min(self.last + QUIET)
    }
}

/// A next hop that groups have.
#[derive(Debug)]
struct Member {
    id: NexthopId,
    groups: usize,
}

impl Groups {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            hops: Table::new(seed),
            groups: Table::new(seed),
            kind: None,
            classes: BTreeMap::new(),
            by_hops: BTreeMap::new(),
            members: BTreeMap::new(),
            taken: BTreeSet::new(),
            pending: HashMap::with_hasher(FixedState::with_seed(seed)),
            fresh: Vec::new(),
            moving: BTreeSet::new(),
            dirty: false,
            last: None,
            next_hop_id: *HOP_IDS.start(),
            next_group_id: *GROUP_IDS.start(),
        }
    }

    /// Says what groups there are to be. Only before anything is desired.
    pub(crate) fn set_kind(&mut self, kind: Option<GroupKind>) {
        self.kind = kind;
    }

    pub(crate) fn kind(&self) -> Option<GroupKind> {
        self.kind
    }

    /// Whether a route is to point at a group. One without a gateway is a pod's own: nothing is shared.
    pub(crate) fn suits(&self, route: &Route) -> bool {
        self.kind.is_some()
            && route.kind == RouteKind::Unicast
            && route.source.is_none()
            && !route.next_hops.is_empty()
            && route.next_hops.iter().all(|hop| hop.via.is_some())
    }

    /// The next hops that a group is to have.
    pub(crate) fn hops_of(&self, id: NexthopId) -> Option<&Hops> {
        self.classes.get(&id).map(|class| &class.hops)
    }

    /// What a route wants that has not got its group yet.
    pub(crate) fn pending(&self, key: &RouteKey) -> Option<&Hops> {
        self.pending.get(key)
    }

    /// The next hops that the kernel's group has.
    pub(crate) fn actual_hops(&self, id: NexthopId) -> Option<Hops> {
        let Object::Group(group) = self.groups.actual(id)? else {
            return None;
        };
        let hop = |id: &NexthopId| match self.hops.actual(*id)? {
            Object::Hop(hop) => Some(*hop),
            Object::Group(_) => None,
        };
        let mut hops: Hops = group.members.iter().map(hop).collect::<Option<_>>()?;
        hops.sort_unstable();
        Some(hops)
    }

    /// Whether the kernel's group is as it should be, and its members too.
    pub(crate) fn is_right(&self, id: NexthopId) -> bool {
        self.groups.is_right(id)
            && match self.groups.actual(id) {
                Some(Object::Group(group)) => {
                    group.members.iter().all(|hop| self.hops.is_right(*hop))
                }
                _ => false,
            }
    }

    /// A route of a group, or of none yet, wants these next hops: it gets its group when all that want something else are
    /// known. True when that is news.
    pub(crate) fn pend(&mut self, key: RouteKey, group: Option<NexthopId>, hops: Hops) -> bool {
        self.dirty = true;
        match self.pending.insert(key, hops.clone()) {
            Some(before) => return before != hops,
            None => match group.and_then(|id| Some((id, self.classes.get_mut(&id)?))) {
                Some((id, class)) => {
                    class.moving.push(key);
                    class.movers += 1;
                    self.moving.insert(id);
                }
                None => self.fresh.push(key),
            },
        }
        true
    }

    /// A route of a group, or of none, wants nothing else any more. True when it did.
    pub(crate) fn unpend(&mut self, key: &RouteKey, group: Option<NexthopId>) -> bool {
        let pended = self.pending.remove(key).is_some();
        if pended && let Some(class) = group.and_then(|id| self.classes.get_mut(&id)) {
            class.movers -= 1;
        }
        pended
    }

    /// Routes that want next hops and have no group.
    pub(crate) fn take_fresh(&mut self) -> Vec<(RouteKey, Hops)> {
        let fresh = std::mem::take(&mut self.fresh);
        self.take_pending(fresh)
    }

    fn take_pending(&mut self, keys: Vec<RouteKey>) -> Vec<(RouteKey, Hops)> {
        let take = |key: RouteKey| self.pending.remove(&key).map(|hops| (key, hops));
        keys.into_iter().filter_map(take).collect()
    }

    /// The groups whose routes' moves need not wait any longer.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<NexthopId> {
        self.dirty = false;
        let mut due = Vec::new();
        for id in &self.moving {
            let Some(class) = self.classes.get_mut(id) else {
                due.push(*id);
                continue;
            };
            if class.movers == class.routes || class.routes <= FEW {
                due.push(*id);
                continue;
            }
            let movers = class.movers;
            let gathering = class.gathering.get_or_insert(Gathering {
                since: now,
                last: now,
                movers,
            });
            if gathering.movers != movers {
                (gathering.last, gathering.movers) = (now, movers);
            }
            if now >= gathering.ends() {
                due.push(*id);
            }
        }
        due
    }

    /// The moves of one group, and whether all of its routes want the same.
    pub(crate) fn take_moves(&mut self, id: NexthopId) -> (Vec<(RouteKey, Hops)>, bool) {
        self.moving.remove(&id);
        let Some(class) = self.classes.get_mut(&id) else {
            return (Vec::new(), false);
        };
        (class.movers, class.gathering) = (0, None);
        let routes = class.routes;
        let keys = std::mem::take(&mut class.moving);
        let moves = self.take_pending(keys);
        let same = moves.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let together = !moves.is_empty() && moves.len() == routes && same;
        (moves, together)
    }

    /// Whether there are moves that were not looked at yet.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// When the next group has waited long enough.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let ends = |id| self.classes.get(id)?.gathering.map(|it| it.ends());
        self.moving.iter().filter_map(ends).min()
    }

    /// A route joins a group with these next hops: the one that it points at, if it has them, else any.
    pub(crate) fn join(&mut self, hops: &Hops, points_at: Option<NexthopId>) -> NexthopId {
        let id = self.choose(hops, points_at);
        let class = self.classes.entry(id).or_insert_with(|| Class {
            hops: hops.clone(),
            routes: 0,
            moving: Vec::new(),
            movers: 0,
            gathering: None,
        });
        class.routes += 1;
        if class.routes == 1 {
            self.by_hops.entry(hops.clone()).or_default().insert(id);
            self.acquire(hops);
            self.desire_group(id, hops);
        }
        if self
            .last
            .as_ref()
            .is_none_or(|(last, of)| *of != id || last != hops)
        {
            self.last = Some((hops.clone(), id));
        }
        id
    }

    fn choose(&mut self, hops: &Hops, points_at: Option<NexthopId>) -> NexthopId {
        if let Some(id) = points_at
            && self.has(id, hops)
        {
            return id;
        }
        if let Some((last, id)) = &self.last
            && last == hops
        {
            return *id;
        }
        let known = self.by_hops.get(hops).and_then(|ids| ids.first());
        if let Some(id) = known {
            return *id;
        }
        // What a predecessor left, or what is about to go.
        let left = self.groups.views().map(|view| view.key);
        let left = left.filter(|id| self.has(*id, hops)).min();
        left.unwrap_or_else(|| self.free_group_id())
    }

    /// Whether a group has these next hops, or has nobody and could be had as it is.
    fn has(&self, id: NexthopId, hops: &Hops) -> bool {
        if let Some(class) = self.classes.get(&id) {
            return class.hops == *hops;
        }
        let kind = match self.groups.actual(id) {
            Some(Object::Group(group)) => Some(group.kind),
            _ => None,
        };
        kind.is_some()
            && kind == self.kind
            && GROUP_IDS.contains(&id)
            && !self.taken.contains(&id)
            && self.actual_hops(id).as_ref() == Some(hops)
    }

    /// A route is no longer of this group.
    pub(crate) fn leave(&mut self, id: NexthopId) {
        let Some(class) = self.classes.get_mut(&id) else {
            return;
        };
        class.routes -= 1;
        self.dirty |= class.movers > 0;
        if class.routes > 0 {
            return;
        }
        if let Some(class) = self.classes.remove(&id) {
            self.last = None;
            self.forget_hops(id, &class.hops);
            self.groups.desire(id, None);
            self.release(&class.hops);
        }
    }

    fn forget_hops(&mut self, id: NexthopId, hops: &Hops) {
        if let Some(ids) = self.by_hops.get_mut(hops) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_hops.remove(hops);
            }
        }
    }

    /// All routes of a group come to have other next hops.
    pub(crate) fn retarget(&mut self, id: NexthopId, hops: Hops) {
        let Some(class) = self.classes.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut class.hops, hops.clone());
        self.last = None;
        self.forget_hops(id, &before);
        self.by_hops.entry(hops.clone()).or_default().insert(id);
        // In this order, so that a next hop that stays keeps its object.
        self.acquire(&hops);
        self.release(&before);
        self.desire_group(id, &hops);
    }

    fn desire_group(&mut self, id: NexthopId, hops: &Hops) {
        let members = hops.iter().filter_map(|hop| self.members.get(hop));
        let kind = self.kind.unwrap_or_default();
        let group = Group::new(kind, members.map(|member| member.id));
        self.groups.desire(id, Some(Object::Group(group)));
    }

    fn acquire(&mut self, hops: &Hops) {
        for hop in hops {
            if let Some(member) = self.members.get_mut(hop) {
                member.groups += 1;
                continue;
            }
            let object = Object::Hop(*hop);
            let left = self.hops.views().filter(|view| {
                view.desired.is_none()
                    && view.actual == Some(&object)
                    && !self.taken.contains(&view.key)
            });
            let left = left.map(|view| view.key).min();
            let id = left.unwrap_or_else(|| self.free_hop_id());
            self.hops.desire(id, Some(object));
            self.members.insert(*hop, Member { id, groups: 1 });
        }
    }

    fn release(&mut self, hops: &Hops) {
        for hop in hops {
            let Some(member) = self.members.get_mut(hop) else {
                continue;
            };
            member.groups -= 1;
            if member.groups == 0 {
                self.hops.desire(member.id, None);
                self.members.remove(hop);
            }
        }
    }

    fn free_hop_id(&mut self) -> NexthopId {
        let free = |id: &NexthopId| !self.taken.contains(id) && self.hops.view(*id).is_none();
        let id = next_free(&HOP_IDS, self.next_hop_id, free);
        self.next_hop_id = id + 1;
        id
    }

    fn free_group_id(&mut self) -> NexthopId {
        let free = |id: &NexthopId| !self.taken.contains(id) && self.groups.view(*id).is_none();
        let id = next_free(&GROUP_IDS, self.next_group_id, free);
        self.next_group_id = id + 1;
        id
    }

    /// Begins a dump of all objects.
    pub(crate) fn begin_load(&mut self) {
        self.taken.clear();
        self.hops.begin_load();
        self.groups.begin_load();
    }

    /// The table that holds an identifier, if it is of our ranges.
    pub(crate) fn table(&mut self, id: NexthopId) -> Option<&mut Table<NexthopId, Object>> {
        if HOP_IDS.contains(&id) {
            Some(&mut self.hops)
        } else if GROUP_IDS.contains(&id) {
            Some(&mut self.groups)
        } else {
            None
        }
    }

    /// Somebody else uses an identifier of our ranges. What of ours was to have it gets another one; where that is a group,
    /// its routes are to follow: says which.
    pub(crate) fn take(&mut self, id: NexthopId) -> Option<NexthopId> {
        self.taken.insert(id);
        if HOP_IDS.contains(&id) {
            self.rename_hop(id);
            return None;
        }
        self.groups.observe(id, None);
        let class = self.classes.remove(&id)?;
        self.last = None;
        self.groups.desire(id, None);
        self.forget_hops(id, &class.hops);
        let other = self.free_group_id();
        self.desire_group(other, &class.hops);
        self.by_hops
            .entry(class.hops.clone())
            .or_default()
            .insert(other);
        if self.moving.remove(&id) {
            self.moving.insert(other);
        }
        self.classes.insert(other, class);
        Some(other)
    }

    fn rename_hop(&mut self, id: NexthopId) {
        self.hops.observe(id, None);
        let Some((hop, _)) = self.members.iter().find(|(_, member)| member.id == id) else {
            return;
        };
        let hop = *hop;
        self.hops.desire(id, None);
        let other = self.free_hop_id();
        self.hops.desire(other, Some(Object::Hop(hop)));
        if let Some(member) = self.members.get_mut(&hop) {
            member.id = other;
        }
        let with = self
            .classes
            .iter()
            .filter(|(_, class)| class.hops.contains(&hop));
        let with: Vec<_> = with.map(|(id, class)| (*id, class.hops.clone())).collect();
        for (id, hops) in with {
            self.desire_group(id, &hops);
        }
    }

    /// Somebody else uses an identifier no longer.
    pub(crate) fn give_back(&mut self, id: NexthopId) {
        self.taken.remove(&id);
    }

    /// The objects of next hops that some group of the kernel may still hold; `None` when that is not known.
    pub(crate) fn held_hops(groups: &Table<NexthopId, Object>) -> Option<BTreeSet<NexthopId>> {
        if groups.has_unknown() {
            return None;
        }
        let mut held = BTreeSet::new();
        for view in groups.views() {
            if let Some(Object::Group(group)) = view.actual {
                held.extend(group.members.iter().copied());
            }
        }
        Some(held)
    }

    /// Whether a group's members are in the kernel, so that the group can be.
    pub(crate) fn is_ready(hops: &Table<NexthopId, Object>, object: &Object) -> bool {
        match object {
            Object::Hop(_) => true,
            Object::Group(group) => group.members.iter().all(|id| hops.is_right(*id)),
        }
    }
}

/// The next identifier of a range that is free, from `start` on and around.
fn next_free(
    range: &std::ops::RangeInclusive<NexthopId>,
    start: NexthopId,
    free: impl Fn(&NexthopId) -> bool,
) -> NexthopId {
    let from = if range.contains(&start) {
        start
    } else {
        *range.start()
    };
    let found = (from..=*range.end()).find(&free);
    // Five million of each: the range is never full.
    found
        .or_else(|| range.clone().find(&free))
        .unwrap_or_else(|| *range.start())
}

/// Deletes the objects that may go. Where some may not yet, none do, unless this is the last thing to do: then the others are
/// looked at again in a moment.
pub(crate) fn delete_objects(
    table: &mut Table<NexthopId, Object>,
    may_go: impl Fn(&NexthopId) -> bool,
    last: bool,
    ops: &mut Vec<Op>,
    max: usize,
    now: Instant,
) {
    if !last && !table.may_all_go(&may_go) {
        return;
    }
    while ops.len() < max
        && let Some((id, _)) = table.next_delete(now, &may_go)
    {
        ops.push(Op::DeleteObject(id));
    }
}

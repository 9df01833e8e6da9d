//! What the kernel should hold, from everything that is known now: the plan, the endpoints, the best paths and the links.
//! Pure: [`super::thread`] feeds it and carries its operations to the kernel.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::rib::RouteChange;
use dataplane::{
    Event, Link, LinkIndex, Links, Neighbour, NeighbourKey, Op, OpError, Reconciler, Route,
    RouteKey, RouteState, RouteStatus, Summary,
};
use ipnet::IpNet;
use node::NodePlan;
use smallvec::SmallVec;

use crate::pods::Endpoint;

type NextHops = SmallVec<[bgp_wire::NextHop; 1]>;

/// The desired state and its sources, and the reconciler that they feed.
///
/// Each `set_*` says what one source holds now; the state works out which routes that changes. Nothing inherited is
/// removed before all sources have spoken: the plan, the endpoints and the best paths.
#[derive(Debug)]
pub(super) struct State {
    plan: Option<Arc<NodePlan>>,
    links: Links,
    endpoints: BTreeMap<LinkIndex, Endpoint>,
    learned: BTreeMap<IpNet, NextHops>,
    unresolved: BTreeMap<IpNet, String>,
    static_keys: BTreeSet<RouteKey>,
    reconciler: Reconciler,
    /// Learned from a speaker that has ended; its successor has not said the same yet.
    former: BTreeSet<IpNet>,
    /// Links or plan changed: every learned route resolves anew.
    resolve_all: bool,
    /// How the next hops that were resolved last resolve: neighbouring prefixes mostly share theirs.
    resolved: Option<(NextHops, Route)>,
    sources: Sources,
}

/// Which sources have said all that they know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sources {
    endpoints: bool,
    paths: bool,
    swept: bool,
}

/// What a [`State::handle`] asks of the one who feeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Continue,
    /// Dump our routes again: the kernel may have dropped some without a word.
    Reload,
}

impl State {
    /// Nothing known yet.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            plan: None,
            links: Links::default(),
            endpoints: BTreeMap::new(),
            learned: BTreeMap::new(),
            unresolved: BTreeMap::new(),
            static_keys: BTreeSet::new(),
            former: BTreeSet::new(),
            reconciler: Reconciler::new(seed),
            resolve_all: false,
            resolved: None,
            sources: Sources::default(),
        }
    }

    /// A dump of everything.
    pub(super) fn load(
        &mut self,
        links: Links,
        routes: Vec<(RouteKey, Option<Route>)>,
        neighbours: Vec<(NeighbourKey, Neighbour)>,
    ) {
        if self.links != links {
            self.links = links;
            self.resolve_all = true;
        }
        self.reconciler.load(routes, neighbours);
    }

    /// A change in the kernel.
    pub(super) fn handle(&mut self, event: &Event) -> Then {
        let impact = self.links.handle(event);
        // A pod's link says nothing about next hops; on a busy node these come all the time.
        self.resolve_all |= impact.changed && !self.is_endpoint_event(event);
        self.reconciler.handle(event);
        match impact.flushed {
            Some(link) if self.reconciler.uses_link(link) => Then::Reload,
            _ => Then::Continue,
        }
    }

    fn is_endpoint_event(&self, event: &Event) -> bool {
        match event {
            Event::Link(link) => link.name.starts_with(api::cni::HOST_IFNAME_PREFIX),
            Event::LinkRemoved(index) => self.endpoints.contains_key(index),
            Event::AddressAdded(index, _) | Event::AddressRemoved(index, _) => {
                self.endpoints.contains_key(index)
            }
            Event::Route(_) | Event::Neighbour(..) => false,
        }
    }

    /// What this node is to do.
    pub(super) fn set_plan(&mut self, plan: Arc<NodePlan>) {
        let routes: BTreeMap<_, _> = node::static_routes(&plan).collect();
        for gone in self
            .static_keys
            .iter()
            .filter(|key| !routes.contains_key(key))
        {
            self.reconciler.set_route(*gone, None);
        }
        self.static_keys = routes.keys().copied().collect();
        for (key, route) in routes {
            self.reconciler.set_route(key, Some(route));
        }
        self.plan = Some(plan);
        self.resolve_all = true;
        self.sweep_when_ready();
    }

    /// A pod is attached. Gives the keys of its routes.
    pub(super) fn endpoint_up(&mut self, endpoint: Endpoint) -> Vec<RouteKey> {
        if let Some(before) = self.endpoints.remove(&endpoint.link) {
            self.withdraw(&before);
        }
        let mut keys = Vec::new();
        for (key, neighbour) in
            node::endpoint_neighbours(&endpoint.addresses, endpoint.link, endpoint.mac)
        {
            self.reconciler.set_neighbour(key, Some(neighbour));
        }
        for (key, route) in node::endpoint_routes(&endpoint.addresses, endpoint.link) {
            self.reconciler.set_route(key, Some(route));
            keys.push(key);
        }
        self.endpoints.insert(endpoint.link, endpoint);
        keys
    }

    /// A pod is gone.
    pub(super) fn endpoint_down(&mut self, link: LinkIndex) {
        if let Some(endpoint) = self.endpoints.remove(&link) {
            self.withdraw(&endpoint);
        }
    }

    /// These pods are attached, and no others.
    pub(super) fn set_endpoints(&mut self, endpoints: Vec<Endpoint>) {
        let present: BTreeSet<LinkIndex> = endpoints.iter().map(|endpoint| endpoint.link).collect();
        let gone: Vec<_> = self
            .endpoints
            .keys()
            .filter(|link| !present.contains(link))
            .copied()
            .collect();
        for link in gone {
            self.endpoint_down(link);
        }
        for endpoint in endpoints {
            self.endpoint_up(endpoint);
        }
        self.sources.endpoints = true;
        self.sweep_when_ready();
    }

    fn withdraw(&mut self, endpoint: &Endpoint) {
        for (key, _) in node::endpoint_routes(&endpoint.addresses, endpoint.link) {
            // Another endpoint may have the address by now.
            let taken = self.endpoints.values().any(|other| {
                other
                    .addresses
                    .iter()
                    .any(|address| IpNet::from(*address) == key.prefix)
            });
            if !taken {
                self.reconciler.set_route(key, None);
            }
        }
        for (key, _) in node::endpoint_neighbours(&endpoint.addresses, endpoint.link, endpoint.mac)
        {
            self.reconciler.set_neighbour(key, None);
        }
    }

    /// Another speaker begins to tell its best paths. What its predecessor told stays until it has told all.
    pub(super) fn new_paths(&mut self) {
        self.former = self.learned.keys().copied().collect();
    }

    /// Best paths changed.
    pub(super) fn set_paths(&mut self, changes: Vec<RouteChange>) {
        for change in changes {
            self.former.remove(&change.prefix);
            if change.next_hops.is_empty() {
                self.unlearn(change.prefix);
            } else {
                self.learn(change.prefix, &change.next_hops);
                self.learned.insert(change.prefix, change.next_hops);
            }
        }
    }

    /// All best paths are known.
    pub(super) fn paths_synced(&mut self) {
        for prefix in std::mem::take(&mut self.former) {
            self.unlearn(prefix);
        }
        self.sources.paths = true;
        self.sweep_when_ready();
    }

    fn unlearn(&mut self, prefix: IpNet) {
        self.learned.remove(&prefix);
        self.unresolved.remove(&prefix);
        self.reconciler.set_route(node::learned_key(prefix), None);
    }

    fn learn(&mut self, prefix: IpNet, next_hops: &NextHops) {
        let Some(plan) = self.plan.clone() else {
            return;
        };
        match self.resolve(prefix, next_hops, &plan) {
            Ok(route) => {
                self.unresolved.remove(&prefix);
                self.reconciler
                    .set_route(node::learned_key(prefix), Some(route));
            }
            Err(reason) => {
                self.unresolved.insert(prefix, reason);
                self.reconciler.set_route(node::learned_key(prefix), None);
            }
        }
    }

    fn resolve(
        &mut self,
        prefix: IpNet,
        next_hops: &NextHops,
        plan: &NodePlan,
    ) -> Result<Route, String> {
        if let Some(reason) = node::refusal(prefix, plan) {
            return Err(reason.to_string());
        }
        if let Some((last, route)) = &self.resolved
            && last == next_hops
        {
            return Ok(route.clone());
        }
        let route =
            node::resolve(next_hops, &self.links, plan).map_err(|error| error.to_string())?;
        self.resolved = Some((next_hops.clone(), route.clone()));
        Ok(route)
    }

    fn sweep_when_ready(&mut self) {
        let ready = self.sources.endpoints && self.sources.paths && self.plan.is_some();
        if ready && !self.sources.swept {
            self.sources.swept = true;
            self.resolve_again();
            self.reconciler.sweep();
        }
    }

    fn resolve_again(&mut self) {
        if !std::mem::take(&mut self.resolve_all) {
            return;
        }
        self.resolved = None;
        let learned = std::mem::take(&mut self.learned);
        for (prefix, next_hops) in &learned {
            self.learn(*prefix, next_hops);
        }
        self.learned = learned;
    }

    /// Up to `max` operations; see [`Reconciler::plan`].
    pub(super) fn plan(&mut self, max: usize, now: Instant) -> Vec<Op> {
        self.resolve_again();
        self.reconciler.plan(max, now)
    }

    /// What came of an operation. True when it is worth a line in the log.
    pub(super) fn applied(&mut self, op: &Op, result: Result<(), OpError>, now: Instant) -> bool {
        self.reconciler.applied(op, result, now)
    }

    /// Whether [`plan`](Self::plan) may have something at once.
    pub(super) fn has_work(&self) -> bool {
        self.resolve_all || self.reconciler.has_work()
    }

    /// When to plan again though nothing has happened.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.reconciler.poll_timeout().map(|(at, _)| at)
    }

    /// How far a route has come: in the kernel, refused with a reason, or still on its way.
    pub(super) fn progress(&self, key: RouteKey) -> Progress {
        match self.reconciler.route(key) {
            Some(status) if status.state == RouteState::Ok => Progress::Installed,
            Some(RouteStatus {
                reason: Some(reason),
                ..
            }) => Progress::Refused(reason),
            Some(_) | None => Progress::Pending,
        }
    }

    /// The MTU that a pod's packets fit through on their way out of this node, in octets: the smallest of the links that hold
    /// the node's own addresses. `None` while those are unknown.
    pub(super) fn pod_mtu(&self) -> Option<u32> {
        let own = &self.plan.as_ref()?.addresses;
        let uplink = |link: &&Link| {
            link.addresses
                .iter()
                .any(|address| own.contains(&address.addr()))
        };
        self.links
            .links
            .values()
            .filter(uplink)
            .map(|link| link.mtu)
            .min()
    }

    /// Everything an operator may want to see.
    pub(super) fn view(&self) -> View {
        View {
            routes: self.reconciler.routes(),
            links: self
                .links
                .links
                .values()
                .map(|link| (link.index, link.name.clone()))
                .collect(),
            unresolved: self.unresolved.clone(),
            endpoints: self.endpoints.clone(),
            static_keys: self.static_keys.clone(),
        }
    }

    /// The same in numbers.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            summary: self.reconciler.summary(),
            counters: self.reconciler.counters(),
            unresolved: self.unresolved.len(),
            learned: self.learned.len(),
            paths_synced: self.sources.paths,
            idle: self.sources.swept && !self.has_work(),
            last_error: None,
        }
    }
}

/// How far a route has come on its way into the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Installed,
    Refused(String),
    Pending,
}

/// The dataplane as an operator sees it.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Our routes, desired beside actual.
    pub routes: Vec<RouteStatus>,
    /// Names of links.
    pub links: BTreeMap<LinkIndex, String>,
    /// Learned prefixes for which there can be no route, with the reason.
    pub unresolved: BTreeMap<IpNet, String>,
    /// Pods by host link.
    pub endpoints: BTreeMap<LinkIndex, Endpoint>,
    /// The keys of routes that the plan itself asks for.
    pub static_keys: BTreeSet<RouteKey>,
}

/// The dataplane in numbers.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Routes by state.
    pub summary: Summary,
    /// What was done since the start.
    pub counters: dataplane::Counters,
    /// Learned prefixes for which there can be no route.
    pub unresolved: usize,
    /// Learned prefixes.
    pub learned: usize,
    /// The speaker has told all its best paths.
    pub paths_synced: bool,
    /// Inherited routes have been swept, and nothing waits to be written.
    pub idle: bool,
    /// The last thing that the kernel refused, and how long ago.
    pub last_error: Option<(Duration, String)>,
}

//! What the reconciler tells of itself.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Reconciler;
use crate::{
    Counters, LinkIndex, NexthopId, Object, Rivals, RouteKey, RouteStatus, Summary, status,
};

impl Reconciler {
    /// Whether the kernel has the route that is desired under this key.
    pub fn is_installed(&self, key: RouteKey) -> bool {
        self.route(key)
            .is_some_and(|status| status.state.is_installed())
    }

    /// One route: desired beside actual.
    pub fn route(&self, key: RouteKey) -> Option<RouteStatus> {
        let key = key.normal();
        match self.routes.view(key) {
            Some(view) => Some(status::route(&view, &self.groups, &self.rivals)),
            None => status::pending(key, &self.groups),
        }
    }

    /// All routes, desired beside actual, sorted.
    pub fn routes(&self) -> Vec<RouteStatus> {
        let views = self.routes.views();
        let mut all: Vec<_> = views
            .map(|view| status::route(&view, &self.groups, &self.rivals))
            .collect();
        all.sort_unstable_by_key(|status| status.key);
        all
    }

    /// The nexthop objects that the kernel has of ours, as far as we know, sorted.
    pub fn objects(&self) -> Vec<(NexthopId, Object)> {
        let tables = self.groups.hops.views().chain(self.groups.groups.views());
        let mut all: Vec<_> = tables
            .filter_map(|view| Some((view.key, view.actual?.clone())))
            .collect();
        all.sort_unstable_by_key(|(id, _)| *id);
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

    /// Whether a route of the main table is desired for this very prefix.
    pub fn wants(&self, prefix: &IpNet) -> bool {
        let key = |metric: &u32| RouteKey::main(*prefix, *metric);
        let mut keys = self.metrics.iter().map(key);
        keys.any(|key| self.routes.desired(&key).is_some() || self.groups.pending(&key).is_some())
    }

    /// Others' routes for our prefixes, as far as they were looked for.
    pub fn rivals(&self) -> &Rivals {
        &self.rivals
    }

    /// The same, to say what was found, or that there may be more.
    pub fn rivals_mut(&mut self) -> &mut Rivals {
        &mut self.rivals
    }

    /// How many routes are in which state.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.routes
            .views()
            .for_each(|view| summary.count(status::state(&view, &self.groups, &self.rivals)));
        summary
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

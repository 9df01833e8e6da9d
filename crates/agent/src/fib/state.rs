//! What the kernel should hold, from everything that is known now: the plan, the endpoints, the best paths and the links.
//! Pure: [`super::thread`] feeds it, and [`netlink::Driver`] carries to the kernel what it tells the reconciler.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bgp::rib::RouteChange;
use dataplane::{
    Link, LinkIndex, Links, NextHop, Reconciler, Route, RouteKey, RouteStatus, Summary, TunnelKind,
};
use ipnet::IpNet;
use node::tunnel::Decision;
use node::{Devices, NodePlan, Reach};
use resources::IpipMode;
use smallvec::SmallVec;

use super::next_hops::NextHops;
use super::tunnels::DeviceStatus;
use crate::pods::Endpoint;

type Hops = SmallVec<[bgp_wire::NextHop; 1]>;

/// The sources of the desired state.
///
/// Each method says what one source holds now; the state works out which routes that changes, and tells the reconciler.
/// Nothing inherited is removed before all sources have spoken: the plan, the endpoints and the best paths.
#[derive(Debug, Default)]
pub(super) struct State {
    plan: Option<Arc<NodePlan>>,
    endpoints: BTreeMap<LinkIndex, Endpoint>,
    /// Best paths by prefix; without next hops what goes there is discarded.
    learned: BTreeMap<IpNet, Hops>,
    unresolved: BTreeMap<IpNet, String>,
    next_hops: NextHops,
    /// Unresolved, yet their routes stay until the speaker has heard of it.
    held: BTreeSet<IpNet>,
    /// The keys of routes that the plan itself asks for.
    static_keys: BTreeSet<RouteKey>,
    /// Learned from a speaker that has ended; its successor has not said the same yet.
    former: BTreeSet<IpNet>,
    /// The plan changed: every learned route resolves anew.
    resolve_all: bool,
    /// Links changed: every next hop is looked at again.
    links_changed: bool,
    /// How the next hops that were resolved last resolve: neighbouring prefixes mostly share theirs.
    resolved: Option<(Hops, IpipMode, Route)>,
    /// The tunnels that packets may go through.
    devices: Devices,
    sources: Sources,
}

/// Which sources have said all that they know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sources {
    endpoints: bool,
    paths: bool,
    swept: bool,
}

impl State {
    /// What this node is to do.
    pub(super) fn set_plan(&mut self, plan: Arc<NodePlan>, reconciler: &mut Reconciler) {
        let routes: BTreeMap<_, _> = node::static_routes(&plan).collect();
        let gateways = plan.gateways.keys().map(|peer| (*peer).into());
        let gateways: BTreeSet<RouteKey> = gateways.map(node::learned_key).collect();
        let keys = routes.keys().chain(&gateways).copied().collect();
        for gone in std::mem::replace(&mut self.static_keys, keys) {
            if !routes.contains_key(&gone) && !gateways.contains(&gone) {
                reconciler.set_route(gone, None);
            }
        }
        for (key, route) in routes {
            reconciler.set_route(key, Some(route));
        }
        self.plan = Some(plan);
        self.resolve_all = true;
    }

    /// A pod is attached. Gives the keys of its routes.
    pub(super) fn endpoint_up(
        &mut self,
        endpoint: Endpoint,
        reconciler: &mut Reconciler,
    ) -> Vec<RouteKey> {
        self.endpoint_down(endpoint.link, reconciler);
        let Endpoint {
            addresses,
            link,
            mac,
            ..
        } = &endpoint;
        for (key, neighbour) in node::endpoint_neighbours(addresses, *link, *mac) {
            reconciler.set_neighbour(key, Some(neighbour));
        }
        let mut keys = Vec::new();
        for (key, route) in node::endpoint_routes(addresses, *link) {
            reconciler.set_route(key, Some(route));
            keys.push(key);
        }
        self.endpoints.insert(endpoint.link, endpoint);
        keys
    }

    /// A pod is gone.
    pub(super) fn endpoint_down(&mut self, link: LinkIndex, reconciler: &mut Reconciler) {
        let Some(Endpoint { addresses, mac, .. }) = self.endpoints.remove(&link) else {
            return;
        };
        for (key, _) in node::endpoint_routes(&addresses, link) {
            // Another endpoint may have the address by now.
            let heir = self.endpoints.values().find_map(|other| {
                let mut routes = node::endpoint_routes(&other.addresses, other.link);
                routes.find(|(other, _)| *other == key)
            });
            reconciler.set_route(key, heir.map(|(_, route)| route));
        }
        for (key, _) in node::endpoint_neighbours(&addresses, link, mac) {
            reconciler.set_neighbour(key, None);
        }
    }

    /// These pods are attached, and no others.
    pub(super) fn set_endpoints(&mut self, endpoints: Vec<Endpoint>, reconciler: &mut Reconciler) {
        let present: BTreeSet<LinkIndex> = endpoints.iter().map(|endpoint| endpoint.link).collect();
        let known: Vec<LinkIndex> = self.endpoints.keys().copied().collect();
        for gone in known.into_iter().filter(|link| !present.contains(link)) {
            self.endpoint_down(gone, reconciler);
        }
        for endpoint in endpoints {
            self.endpoint_up(endpoint, reconciler);
        }
        self.sources.endpoints = true;
    }

    /// Another speaker begins to tell its best paths. What its predecessor told stays until it has told all.
    pub(super) fn new_paths(&mut self) {
        self.former = self.learned.keys().copied().collect();
        self.next_hops.new_speaker();
    }

    /// The speaker is gone: it will not choose other paths.
    pub(super) fn paths_ended(&mut self, reconciler: &mut Reconciler) {
        self.next_hops.new_speaker();
        self.release(reconciler);
    }

    /// Next hops came into use (true) or went out of it. Those there are now are to be [watched](Self::watched).
    pub(super) fn next_hop_news(&mut self, news: Vec<(IpAddr, bool)>) {
        self.next_hops.news(news);
    }

    /// The addresses to which the kernel's ways matter.
    pub(super) fn watched(&self) -> BTreeSet<IpAddr> {
        let gateways = self.plan.iter().flat_map(|plan| plan.gateways.values());
        let mut watched = self.next_hops.addresses();
        watched.extend(gateways);
        watched
    }

    /// What the speaker is to be told of next hops, to be followed by [`next_hops_sent`](Self::next_hops_sent).
    pub(super) fn next_hops_untold(&self) -> Vec<(IpAddr, Option<u32>)> {
        self.next_hops.untold()
    }

    /// The speaker was told.
    pub(super) fn next_hops_sent(&mut self) {
        self.next_hops.sent();
    }

    /// The speaker has acted upon what it was told so many times.
    pub(super) fn next_hops_taken(&mut self, times: u64, reconciler: &mut Reconciler) {
        self.next_hops.taken(times);
        if !self.next_hops.speaker_is_behind() {
            self.release(reconciler);
        }
    }

    /// Gives up the routes that were held for the speaker's sake.
    fn release(&mut self, reconciler: &mut Reconciler) {
        for prefix in std::mem::take(&mut self.held) {
            self.set_learned(prefix, None, reconciler);
        }
    }

    /// Why next hops can't be reached, of those that can't.
    pub(super) fn unreachable(&self) -> BTreeMap<IpAddr, String> {
        self.next_hops.unreachable()
    }

    /// Best paths changed.
    pub(super) fn set_paths(
        &mut self,
        changes: Vec<RouteChange>,
        links: &Links,
        reconciler: &mut Reconciler,
    ) {
        for RouteChange {
            prefix,
            next_hops,
            blackhole,
        } in changes
        {
            self.former.remove(&prefix);
            if next_hops.is_empty() && !blackhole {
                self.unlearn(prefix, reconciler);
            } else {
                for next_hop in &next_hops {
                    self.next_hops.mention(next_hop.address());
                }
                // What is resolved anew in a moment need not be now.
                if let (false, Some(plan)) = (self.resolve_all, self.plan.as_deref()) {
                    let tunnels = (plan, &self.devices);
                    self.next_hops.evaluate(links, tunnels, false);
                    self.learn(prefix, &next_hops, reconciler);
                }
                self.learned.insert(prefix, next_hops);
            }
        }
    }

    /// All best paths are known.
    pub(super) fn paths_synced(&mut self, reconciler: &mut Reconciler) {
        for prefix in std::mem::take(&mut self.former) {
            self.unlearn(prefix, reconciler);
        }
        self.next_hops.forget_unasked();
        self.sources.paths = true;
    }

    fn unlearn(&mut self, prefix: IpNet, reconciler: &mut Reconciler) {
        self.learned.remove(&prefix);
        self.unresolved.remove(&prefix);
        self.held.remove(&prefix);
        self.set_learned(prefix, None, reconciler);
    }

    /// A prefix of the plan's own has its key to itself, whatever anybody announces.
    fn set_learned(&self, prefix: IpNet, route: Option<Route>, reconciler: &mut Reconciler) {
        let key = node::learned_key(prefix);
        if !self.static_keys.contains(&key) {
            reconciler.set_route(key, route);
        }
    }

    fn learn(&mut self, prefix: IpNet, next_hops: &Hops, reconciler: &mut Reconciler) {
        self.held.remove(&prefix);
        let route = match self.resolve(prefix, next_hops) {
            Ok(route) => {
                self.unresolved.remove(&prefix);
                Some(route)
            }
            Err(reason) => {
                self.unresolved.insert(prefix, reason);
                let waits = self.next_hops.speaker_is_behind();
                if waits && reconciler.is_installed(node::learned_key(prefix)) {
                    self.held.insert(prefix);
                    return;
                }
                None
            }
        };
        self.set_learned(prefix, route, reconciler);
    }

    fn resolve(&mut self, prefix: IpNet, next_hops: &Hops) -> Result<Route, String> {
        let Some(plan) = self.plan.as_deref() else {
            return Err("the configuration doesn't say enough yet".to_owned());
        };
        if let Some(reason) = node::refusal(prefix, plan) {
            return Err(reason.to_string());
        }
        let mode = plan.tunnels.mode(prefix);
        if let Some((last, last_mode, route)) = &self.resolved
            && last == next_hops
            && *last_mode == mode
        {
            return Ok(route.clone());
        }
        if next_hops.is_empty() {
            return Ok(node::discard());
        }
        let verdicts = next_hops
            .iter()
            .filter_map(|next_hop| self.next_hops.carried(next_hop.address(), mode));
        let verdicts: SmallVec<[_; 4]> = verdicts.collect();
        let route = node::resolve(&verdicts).map_err(|error| error.to_string())?;
        self.resolved = Some((next_hops.clone(), mode, route.clone()));
        Ok(route)
    }

    /// Next hops may resolve otherwise than before.
    pub(super) fn links_changed(&mut self) {
        self.links_changed = true;
    }

    /// The tunnels that packets may go through are these.
    pub(super) fn set_devices(&mut self, devices: Devices) {
        if devices != self.devices {
            self.devices = devices;
            self.links_changed = true;
        }
    }

    /// What travels through tunnels, once there is a plan.
    pub(super) fn tunnels(&self) -> Option<&node::Tunnels> {
        Some(&self.plan.as_ref()?.tunnels)
    }

    /// Whether routes lead somewhere already: ours, or a predecessor's.
    pub(super) fn is_established(&self, reconciler: &Reconciler) -> bool {
        !self.learned.is_empty() || reconciler.summary().leftover > 0
    }

    /// Brings the reconciler up to date; to be called before it plans.
    pub(super) fn settle(&mut self, links: &Links, reconciler: &mut Reconciler) {
        self.resolve_again(links, reconciler);
        let Sources {
            endpoints,
            paths,
            swept,
        } = self.sources;
        if endpoints && paths && self.plan.is_some() && !swept {
            self.sources.swept = true;
            reconciler.sweep();
        }
    }

    /// Resolves what may resolve otherwise than before.
    fn resolve_again(&mut self, links: &Links, reconciler: &mut Reconciler) {
        let Some(plan) = self.plan.as_deref() else {
            return;
        };
        let links_changed = std::mem::take(&mut self.links_changed);
        let all = std::mem::take(&mut self.resolve_all);
        if links_changed || all {
            for (key, route) in node::gateway_routes(plan, links) {
                reconciler.set_route(key, route);
            }
        }
        let tunnels = (plan, &self.devices);
        let changed = self
            .next_hops
            .evaluate(links, tunnels, links_changed || all);
        if changed.is_empty() && !all {
            return;
        }
        self.resolved = None;
        let learned = std::mem::take(&mut self.learned);
        for (prefix, next_hops) in &learned {
            let concerned = |next_hop: &bgp_wire::NextHop| changed.contains(&next_hop.address());
            if all || next_hops.iter().any(concerned) {
                self.learn(*prefix, next_hops, reconciler);
            }
        }
        self.learned = learned;
    }

    /// The MTU that a pod's packets fit through on their way out of this node, in octets: the smallest of the links that hold
    /// the node's own addresses, less a tunnel's header where any pool may want one. `None` while those are unknown.
    pub(super) fn pod_mtu(&self, links: &Links) -> Option<u32> {
        let plan = self.plan.as_ref()?;
        let own = |net: &IpNet| plan.addresses.contains(&net.addr());
        let uplink = |link: &&Link| link.tunnel.is_none() && link.addresses.iter().any(own);
        let mtus = links.links.values().filter(uplink).map(|link| link.mtu);
        Some(mtus.min()?.saturating_sub(plan.tunnels.overhead()))
    }

    /// How the packets of each next hop travel, for each pool that has prefixes there.
    pub(super) fn ways(&self, links: &Links, tunnels: &super::Tunnels) -> Vec<Way> {
        let Some(plan) = self.plan.as_deref() else {
            return Vec::new();
        };
        let mut ways: BTreeMap<(IpAddr, Option<&str>, IpipMode), Way> = BTreeMap::new();
        for (prefix, next_hops) in &self.learned {
            let (pool, mode) = (plan.tunnels.pool(*prefix), plan.tunnels.mode(*prefix));
            for address in next_hops.iter().map(bgp_wire::NextHop::address) {
                let key = (address, pool.map(|pool| pool.name.as_str()), mode);
                let way = ways.entry(key).or_insert_with(|| {
                    let unavailable = tunnels.unavailable(TunnelKind::of(address));
                    let explain = |reach: &Reach| {
                        let own = (&plan.tunnels, &self.devices);
                        node::tunnel::explain((*prefix, address), reach, own, links, unavailable)
                    };
                    let decision = self
                        .next_hops
                        .verdict(address)
                        .map(|verdict| verdict.as_ref().map(explain).map_err(ToString::to_string));
                    let carried = self.next_hops.carried(address, mode);
                    Way {
                        address,
                        node: plan.tunnels.nodes.get(&address).cloned(),
                        pool: pool.map(|pool| pool.name.clone()),
                        mode,
                        prefixes: 0,
                        next_hops: carried.and_then(Result::ok).map(|it| it.next_hops),
                        decision: decision.unwrap_or_else(|| Err("not looked at yet".to_owned())),
                    }
                });
                way.prefixes += 1;
            }
        }
        ways.into_values().collect()
    }

    /// Everything an operator may want to see.
    pub(super) fn view(&self, links: &Links, reconciler: &Reconciler) -> View {
        View {
            routes: reconciler.routes(),
            links: links
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
    pub(super) fn numbers(&self, reconciler: &Reconciler) -> Numbers {
        Numbers {
            summary: reconciler.summary(),
            counters: reconciler.counters(),
            unresolved: self.unresolved.len(),
            next_hops: self.next_hops.count(),
            paths_synced: self.sources.paths,
            idle: self.sources.swept && !reconciler.has_work(),
            tunnels: Vec::new(),
            last_error: None,
        }
    }
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

/// How the packets of one next hop travel.
#[derive(Debug, Clone)]
pub struct Way {
    /// The next hop.
    pub address: IpAddr,
    /// The node that it is, if it is one.
    pub node: Option<String>,
    /// The pool of the prefixes.
    pub pool: Option<String>,
    /// How it wants packets to travel.
    pub mode: IpipMode,
    /// How many prefixes of that pool go there.
    pub prefixes: u64,
    /// The kernel's next hops; `None` when it can't be reached.
    pub next_hops: Option<SmallVec<[NextHop; 1]>>,
    /// Tunnelled or not, and why; or why it can't be reached.
    pub decision: Result<Decision, String>,
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
    /// Next hops of the RIB that can be reached, and those that can't.
    pub next_hops: (usize, usize),
    /// The speaker has told all its best paths.
    pub paths_synced: bool,
    /// Inherited routes have been swept, and nothing waits to be written.
    pub idle: bool,
    /// Tunnel devices.
    pub tunnels: Vec<DeviceStatus>,
    /// The last thing that the kernel refused, and how long ago.
    pub last_error: Option<(Duration, String)>,
}

//! Best paths and endpoints to kernel routes, one prefix at a time.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use dataplane::link::UnderlayRoute;
use dataplane::{
    Link, LinkIndex, Links, Neighbour, NeighbourKey, NextHop, Route, RouteKey, RouteKind,
};
use ipnet::IpNet;
use smallvec::{SmallVec, smallvec};

use crate::NodePlan;

/// Metric of learned routes and of the blackhole: Calico's default. A route that somebody else installs for the same
/// prefix, with the usual metric of 0, wins over ours.
pub const METRIC: u32 = 1024;

/// Metric of pod routes: above all that somebody else may have for the same address.
pub const POD_METRIC: u32 = 0;

/// The main table.
pub const TABLE: u32 = 254;

/// Why there can be no kernel route for a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unresolved {
    /// For a person.
    pub reason: String,
}

/// The key of a learned prefix's route.
#[must_use]
pub fn learned_key(prefix: IpNet) -> RouteKey {
    RouteKey {
        prefix: prefix.trunc(),
        priority: METRIC,
        table: TABLE,
    }
}

/// Why a learned prefix gets no route whatever its next hop is; `None` when nothing speaks against it.
#[must_use]
pub fn refusal(prefix: IpNet, plan: &NodePlan) -> Option<Unresolved> {
    let own = plan.pod_cidrs.iter().find(|own| own.contains(&prefix))?;
    Some(unresolved(format!("inside this node's own {own}")))
}

/// How a next hop is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// What a route through it has for next hops in the kernel, sorted: itself where it is on a link, else the gateways to it.
    pub next_hops: SmallVec<[NextHop; 1]>,
    /// The IGP cost (RFC 4271 §9.1.2.2 e): one more than the metric of the route to it, 0 where it is on a
    /// link.
    pub cost: u32,
    /// It is on a link of this node: on the subnet of one, or by a route without a gateway.
    pub adjacent: bool,
}

/// The route over these next hops, `None` for one that can't be reached; equal ones merged.
///
/// # Errors
///
/// When none of the next hops can be reached: why the first of them can't.
pub fn resolve<'a>(
    next_hops: impl IntoIterator<Item = &'a Result<Reach, Unresolved>>,
) -> Result<Route, Unresolved> {
    let mut hops: SmallVec<[NextHop; 1]> = SmallVec::new();
    let mut reason = None;
    for next_hop in next_hops {
        match next_hop {
            Ok(reach) => hops.extend(reach.next_hops.iter().copied()),
            Err(error) => {
                reason.get_or_insert(error);
            }
        }
    }
    hops.sort_unstable();
    hops.dedup();
    if hops.is_empty() {
        let unknown = || unresolved("no next hop".to_owned());
        return Err(reason.cloned().unwrap_or_else(unknown));
    }
    Ok(Route {
        kind: RouteKind::Unicast,
        next_hops: hops,
        source: None,
    })
}

/// The route for a learned prefix.
///
/// # Errors
///
/// [`refusal`], or as [`reach`] and [`resolve`].
pub fn desired_route(
    prefix: IpNet,
    next_hops: &[bgp_wire::NextHop],
    links: &Links,
    plan: &NodePlan,
) -> Result<(RouteKey, Route), Unresolved> {
    if let Some(refusal) = refusal(prefix, plan) {
        return Err(refusal);
    }
    let next_hops: Vec<_> = next_hops
        .iter()
        .map(|next_hop| reach(next_hop.address(), links, plan))
        .collect();
    Ok((learned_key(prefix), resolve(&next_hops)?))
}

/// The routes to an endpoint's addresses, straight onto its host veth.
pub fn endpoint_routes(
    addresses: &[IpAddr],
    link: LinkIndex,
) -> impl Iterator<Item = (RouteKey, Route)> + '_ {
    addresses.iter().map(move |address| {
        let key = RouteKey {
            prefix: IpNet::from(*address),
            priority: POD_METRIC,
            table: TABLE,
        };
        let next_hop = NextHop {
            via: None,
            link,
            onlink: false,
        };
        let route = Route {
            kind: RouteKind::Unicast,
            next_hops: smallvec![next_hop],
            source: None,
        };
        (key, route)
    })
}

/// The permanent neighbour entries of an endpoint's addresses: no ARP on the pod path.
pub fn endpoint_neighbours(
    addresses: &[IpAddr],
    link: LinkIndex,
    mac: [u8; 6],
) -> impl Iterator<Item = (NeighbourKey, Neighbour)> + '_ {
    addresses.iter().map(move |address| {
        let key = NeighbourKey {
            link,
            address: *address,
        };
        (key, Neighbour { mac })
    })
}

/// Routes that are there whatever is learned: a blackhole for each pod range, so that a packet to an unused address is
/// dropped here instead of following the default route back out.
pub fn static_routes(plan: &NodePlan) -> impl Iterator<Item = (RouteKey, Route)> + '_ {
    plan.pod_cidrs
        .iter()
        .map(|cidr| (learned_key(*cidr), discard()))
}

/// The routes to peers that have a gateway of their own; `None` where that can't be reached.
pub fn gateway_routes<'a>(
    plan: &'a NodePlan,
    links: &'a Links,
) -> impl Iterator<Item = (RouteKey, Option<Route>)> + 'a {
    plan.gateways.keys().map(|peer| {
        let route = resolve([&reach(*peer, links, plan)]);
        (learned_key(IpNet::from(*peer)), route.ok())
    })
}

/// A route that discards what follows it.
#[must_use]
pub fn discard() -> Route {
    Route {
        kind: RouteKind::Blackhole,
        next_hops: SmallVec::new(),
        source: None,
    }
}

/// How the kernel's own longest match would reach a next hop.
///
/// One on a connected subnet is reached directly; one further away through the gateway of the route that somebody else has
/// towards it. Routes of ours never serve for that, so that no route depends on itself. A link that is down or without
/// carrier leads nowhere, and what is on its subnet is not looked for elsewhere by a route that is less specific: the
/// default route would claim to lead to a ToR whose cable was pulled.
///
/// # Errors
///
/// When it can't be reached, with the reason.
pub fn reach(address: IpAddr, links: &Links, plan: &NodePlan) -> Result<Reach, Unresolved> {
    let Some(gateway) = plan.gateways.get(&address) else {
        return look_up(address, links, plan);
    };
    // The configuration's word instead of the kernel's, whose route to there is ours.
    look_up(*gateway, links, plan).map(|reach| Reach {
        cost: reach.cost.saturating_add(1),
        adjacent: false,
        ..reach
    })
}

fn look_up(address: IpAddr, links: &Links, plan: &NodePlan) -> Result<Reach, Unresolved> {
    let on_us = |net: &IpNet| net.addr() == address;
    if plan.addresses.contains(&address)
        || links
            .links
            .values()
            .any(|link| link.addresses.iter().any(on_us))
    {
        return Err(unresolved(format!(
            "next hop {address} is this node itself"
        )));
    }
    if let IpAddr::V6(link_local) = address
        && link_local.is_unicast_link_local()
    {
        return Err(unresolved(format!(
            "next hop {address} is link-local, and nothing says on which link"
        )));
    }
    let subnet = connected(address, links);
    let route = links.lookup(address);
    let length = route.map(|route| route.prefix.prefix_len());
    match (subnet, route) {
        // The subnet's own route is among the others'; only one that is more specific wins.
        (Some((subnet, link)), _) if length.is_none_or(|length| length <= subnet) => {
            match link.trouble() {
                None => Ok(Reach {
                    next_hops: smallvec![direct(address, link.index)],
                    cost: 0,
                    adjacent: true,
                }),
                Some(trouble) => Err(unresolved(format!(
                    "next hop {address} can't be reached: {} {trouble}",
                    link.name
                ))),
            }
        }
        (_, Some(route)) => by_route(address, route, links, plan),
        (_, None) => Err(unresolved(format!("no route to next hop {address}"))),
    }
}

/// A next hop that a route of somebody else leads to.
fn by_route(
    address: IpAddr,
    route: &UnderlayRoute,
    links: &Links,
    plan: &NodePlan,
) -> Result<Reach, Unresolved> {
    if route.prefix.prefix_len() == 0 && !plan.default_route_resolves {
        return Err(unresolved(format!(
            "only the default route leads to next hop {address}, which does not count (resolveByDefaultRoute)"
        )));
    }
    if route.next_hops.is_empty() {
        let prefix = route.prefix;
        return Err(unresolved(format!(
            "next hop {address} can't be reached: the route to {prefix} drops packets"
        )));
    }
    let trouble = |link: &LinkIndex| {
        let link = links.links.get(link)?;
        Some((link, link.trouble()?))
    };
    let mut hops: SmallVec<[NextHop; 1]> = route
        .next_hops
        .iter()
        .filter(|(_, link)| trouble(link).is_none())
        .map(|&(via, link)| match via {
            Some(via) => gateway(via, link, links),
            None => direct(address, link),
        })
        .collect();
    if hops.is_empty() {
        let troubles = route
            .next_hops
            .iter()
            .filter_map(|(_, link)| trouble(link))
            .map(|(link, trouble)| format!("{} {trouble}", link.name));
        let mut troubles: Vec<_> = troubles.collect();
        troubles.dedup();
        return Err(unresolved(format!(
            "next hop {address} can't be reached: {}",
            troubles.join(", ")
        )));
    }
    let on_link = route.next_hops.iter().any(|(via, _)| via.is_none());
    hops.sort_unstable();
    hops.dedup();
    Ok(Reach {
        next_hops: hops,
        // The metrics of connected routes tell links apart for other purposes: two ToRs on two links are equally near. What
        // needs a gateway is further away than either.
        cost: match on_link {
            true => 0,
            false => route.priority.saturating_add(1),
        },
        adjacent: route.next_hops.iter().all(|(via, _)| via.is_none()),
    })
}

fn direct(address: IpAddr, link: LinkIndex) -> NextHop {
    NextHop {
        via: Some(address),
        link,
        onlink: false,
    }
}

/// The most specific subnet of ours that holds the address: its length, and the link.
pub(crate) fn connected(address: IpAddr, links: &Links) -> Option<(u8, &Link)> {
    let links = links.links.values().filter(|link| !link.loopback);
    links
        .flat_map(|link| link.addresses.iter().map(move |net| (net, link)))
        .filter(|(net, _)| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
        // Where two links are on one subnet, the one that works can deliver.
        .max_by_key(|(net, link)| {
            (
                net.prefix_len(),
                link.trouble().is_none(),
                std::cmp::Reverse(link.index),
            )
        })
        .map(|(net, link)| (net.prefix_len(), link))
}

/// A gateway on a link. The kernel believes that it is there by itself only where a subnet says so.
fn gateway(via: IpAddr, link: LinkIndex, links: &Links) -> NextHop {
    let in_subnet = links
        .links
        .get(&link)
        .is_some_and(|link| link.addresses.iter().any(|net| net.contains(&via)));
    NextHop {
        via: Some(via),
        link,
        onlink: !in_subnet,
    }
}

fn unresolved(reason: String) -> Unresolved {
    Unresolved { reason }
}

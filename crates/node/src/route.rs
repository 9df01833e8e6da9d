//! Best paths and endpoints to kernel routes, one prefix at a time.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use dataplane::link::UnderlayRoute;
use dataplane::{LinkIndex, Links, Neighbour, NeighbourKey, NextHop, Route, RouteKey, RouteKind};
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

/// The route over these next hops, as the kernel's own longest match would reach them; equal ones merged.
///
/// A next hop on a connected subnet is used as it is; one further away is reached through the gateway of the route
/// that somebody else has towards it. Routes of ours never serve for that, so that no route depends on itself.
///
/// # Errors
///
/// When none of the next hops can be reached.
pub fn resolve(
    next_hops: &[bgp_wire::NextHop],
    links: &Links,
    plan: &NodePlan,
) -> Result<Route, Unresolved> {
    let mut hops: SmallVec<[NextHop; 1]> = SmallVec::new();
    let mut reason = None;
    for next_hop in next_hops {
        match resolve_one(next_hop.address(), links, plan) {
            Ok(resolved) => hops.extend(resolved),
            Err(error) => {
                reason.get_or_insert(error);
            }
        }
    }
    hops.sort_unstable();
    hops.dedup();
    if hops.is_empty() {
        return Err(reason.unwrap_or_else(|| unresolved("no next hop".to_owned())));
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
/// [`refusal`], or as [`resolve`].
pub fn desired_route(
    prefix: IpNet,
    next_hops: &[bgp_wire::NextHop],
    links: &Links,
    plan: &NodePlan,
) -> Result<(RouteKey, Route), Unresolved> {
    if let Some(refusal) = refusal(prefix, plan) {
        return Err(refusal);
    }
    Ok((learned_key(prefix), resolve(next_hops, links, plan)?))
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

/// A route that discards what follows it.
#[must_use]
pub fn discard() -> Route {
    Route {
        kind: RouteKind::Blackhole,
        next_hops: SmallVec::new(),
        source: None,
    }
}

fn resolve_one(
    address: IpAddr,
    links: &Links,
    plan: &NodePlan,
) -> Result<SmallVec<[NextHop; 1]>, Unresolved> {
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
    let direct = |link| NextHop {
        via: Some(address),
        link,
        onlink: false,
    };
    let hops = match (connected(address, links), underlay(address, links)) {
        // The subnet's own route is among the others'; only one that is more specific wins.
        (Some((length, link)), route)
            if route.is_none_or(|route| route.prefix.prefix_len() <= length) =>
        {
            smallvec![direct(link)]
        }
        (_, Some(route)) => route
            .next_hops
            .iter()
            .filter(|(_, link)| links.links.get(link).is_none_or(|link| link.up))
            .map(|&(via, link)| via.map_or_else(|| direct(link), |via| gateway(via, link, links)))
            .collect::<SmallVec<[NextHop; 1]>>(),
        _ => return Err(unresolved(format!("no route to next hop {address}"))),
    };
    if hops.is_empty() {
        return Err(unresolved(format!(
            "every link towards next hop {address} is down"
        )));
    }
    Ok(hops)
}

/// The most specific subnet of ours that holds the address: its length, and the link.
fn connected(address: IpAddr, links: &Links) -> Option<(u8, LinkIndex)> {
    let usable = links
        .links
        .values()
        .filter(|link| link.up && !link.loopback);
    usable
        .flat_map(|link| link.addresses.iter().map(move |net| (net, link)))
        .filter(|(net, _)| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
        // Where two links are on one subnet, the one with carrier can deliver.
        .max_by_key(|(net, link)| {
            (
                net.prefix_len(),
                link.carrier,
                std::cmp::Reverse(link.index),
            )
        })
        .map(|(net, link)| (net.prefix_len(), link.index))
}

/// The others' route that the kernel would choose.
fn underlay(address: IpAddr, links: &Links) -> Option<&UnderlayRoute> {
    links
        .underlay
        .iter()
        .filter(|route| route.prefix.contains(&address))
        .max_by_key(|route| (route.prefix.prefix_len(), std::cmp::Reverse(route.priority)))
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

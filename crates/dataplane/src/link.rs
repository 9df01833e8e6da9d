//! Links and what stands on them, as dumped from the kernel and kept current by its events.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Event, ROUTE_PROTOCOL, RouteAction, RouteEvent, RouteKind};

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// A kernel interface index (`ifi_index`).
pub type LinkIndex = u32;

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// `IFLA_IFALIAS`, where set. An endpoint's veth carries its record here.
    pub alias: Option<String>,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, …; `None` for a physical device.
    pub kind: Option<String>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The loopback device (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// MTU in octets.
    pub mtu: u32,
    /// MAC address, empty where the link has none.
    pub mac: Vec<u8>,
    /// Its addresses with the length of their subnet.
    pub addresses: Vec<IpNet>,
}

/// A unicast route that somebody else installed in the main table: what a next hop of ours may resolve through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Gateways with the links they are reached through; no gateway means directly connected.
    pub next_hops: Vec<(Option<IpAddr>, LinkIndex)>,
    /// Metric: the lowest wins.
    pub priority: u32,
}

/// All links of a network namespace, and the routes of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// By index.
    pub links: BTreeMap<LinkIndex, Link>,
    /// The main table's unicast routes that are not ours, sorted by prefix, then by metric.
    pub underlay: Vec<UnderlayRoute>,
}

/// What an event means to those who use links.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Impact {
    /// Next hops may resolve otherwise than before.
    pub changed: bool,
    /// The kernel may have flushed IPv4 routes through this link (it went down, or lost an address), of which it tells
    /// nothing: dump ours again if [`Reconciler::uses_link`](crate::Reconciler::uses_link) says so.
    pub flushed: Option<LinkIndex>,
}

impl Links {
    /// Takes in an event.
    pub fn handle(&mut self, event: &Event) -> Impact {
        match event {
            Event::Link(link) => self.set_link(link),
            Event::LinkRemoved(index) => {
                self.forget_routes_through(*index);
                Impact {
                    changed: self.links.remove(index).is_some(),
                    flushed: Some(*index),
                }
            }
            Event::AddressAdded(index, address) => {
                let link = self.links.entry(*index).or_insert_with(|| Link {
                    index: *index,
                    ..Link::default()
                });
                let news = !link.addresses.contains(address);
                if news {
                    link.addresses.push(*address);
                }
                Impact {
                    changed: news,
                    flushed: None,
                }
            }
            Event::AddressRemoved(index, address) => {
                let Some(link) = self.links.get_mut(index) else {
                    return Impact::default();
                };
                link.addresses.retain(|other| other != address);
                Impact {
                    changed: true,
                    flushed: Some(*index),
                }
            }
            Event::Route(route) => Impact {
                changed: self.handle_route(route),
                flushed: None,
            },
            Event::Neighbour(..) => Impact::default(),
        }
    }

    fn set_link(&mut self, link: &Link) -> Impact {
        let mut link = link.clone();
        let before = self.links.get_mut(&link.index);
        let went_down = before.as_ref().is_some_and(|before| before.up) && !link.up;
        if let Some(before) = before {
            link.addresses = std::mem::take(&mut before.addresses);
            if *before
                == (Link {
                    addresses: Vec::new(),
                    ..link.clone()
                })
            {
                before.addresses = link.addresses;
                return Impact::default();
            }
        }
        let index = link.index;
        if went_down {
            self.forget_routes_through(index);
        }
        self.links.insert(index, link);
        Impact {
            changed: true,
            flushed: went_down.then_some(index),
        }
    }

    /// The kernel flushes IPv4 routes through a link that goes down, and tells nobody.
    fn forget_routes_through(&mut self, index: LinkIndex) {
        for route in &mut self.underlay {
            if route.prefix.addr().is_ipv4() {
                route.next_hops.retain(|(_, link)| *link != index);
            }
        }
        self.underlay.retain(|route| !route.next_hops.is_empty());
    }

    fn handle_route(&mut self, event: &RouteEvent) -> bool {
        let RouteEvent {
            key,
            protocol,
            action,
            route,
        } = event;
        if key.table != MAIN {
            return false;
        }
        let at = self
            .underlay
            .binary_search_by_key(&(key.prefix, key.priority), |it| (it.prefix, it.priority));
        let unicast = route
            .as_ref()
            .filter(|route| route.kind == RouteKind::Unicast);
        let theirs = *protocol != ROUTE_PROTOCOL;
        match (action, at, unicast) {
            (RouteAction::Removed, Ok(at), Some(gone)) if theirs => {
                let hops = &mut self.underlay[at].next_hops;
                let whole = key.prefix.addr().is_ipv4();
                hops.retain(|(via, link)| {
                    !whole
                        && !gone
                            .next_hops
                            .iter()
                            .any(|it| it.via == *via && it.link == *link)
                });
                if hops.is_empty() {
                    self.underlay.remove(at);
                }
                true
            }
            (RouteAction::Added | RouteAction::Replaced, at, Some(route)) if theirs => {
                let next_hops = route
                    .next_hops
                    .iter()
                    .map(|hop| (hop.via, hop.link))
                    .collect();
                let route = UnderlayRoute {
                    prefix: key.prefix,
                    next_hops,
                    priority: key.priority,
                };
                match at {
                    Ok(at) if self.underlay[at] == route => return false,
                    Ok(at) => self.underlay[at] = route,
                    Err(at) => self.underlay.insert(at, route),
                }
                true
            }
            // Something else took its place: ours, or a kind through which nothing is reached.
            (RouteAction::Replaced, Ok(at), _) => {
                self.underlay.remove(at);
                true
            }
            _ => false,
        }
    }

    /// The route of others that a packet to this address would take: longest prefix, then lowest metric.
    pub fn lookup(&self, address: IpAddr) -> Option<&UnderlayRoute> {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        (0..=longest).rev().find_map(|length| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            let at = self.underlay.partition_point(|route| route.prefix < prefix);
            self.underlay.get(at).filter(|route| route.prefix == prefix)
        })
    }
}

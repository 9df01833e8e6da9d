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
                let carried = self.carries(*index);
                self.forget_routes_through(*index);
                self.links.remove(index);
                Impact {
                    changed: carried,
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
        self.links.insert(index, link);
        let carries = self.carries(index);
        if went_down {
            self.forget_routes_through(index);
        }
        Impact {
            changed: carries,
            flushed: went_down.then_some(index),
        }
    }

    /// Whether a next hop may resolve through this link: it has addresses, or a route of others. Pods' links have neither, and
    /// come and go all the time.
    fn carries(&self, index: LinkIndex) -> bool {
        let has_address = |link: &Link| !link.addresses.is_empty();
        self.links.get(&index).is_some_and(has_address)
            || self
                .underlay
                .iter()
                .any(|route| route.next_hops.iter().any(|(_, link)| *link == index))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NextHop, Route, RouteKey};

    fn link(index: LinkIndex, up: bool) -> Event {
        Event::Link(Link {
            index,
            name: format!("eth{index}"),
            up,
            carrier: up,
            ..Link::default()
        })
    }

    fn theirs(prefix: &str, action: RouteAction, hops: &[(&str, LinkIndex)]) -> Event {
        let hops = hops.iter().map(|(via, link)| NextHop {
            via: via.parse().ok(),
            link: *link,
            onlink: false,
        });
        let key = RouteKey::main(prefix.parse().unwrap(), 0);
        Event::Route(RouteEvent {
            key,
            protocol: 4,
            action,
            route: Some(Route::unicast(hops)),
        })
    }

    fn handle(links: &mut Links, event: &Event) -> (bool, Option<LinkIndex>) {
        let Impact { changed, flushed } = links.handle(event);
        (changed, flushed)
    }

    fn way(links: &Links, address: &str) -> Vec<LinkIndex> {
        let route = links.lookup(address.parse().unwrap());
        route
            .map(|route| route.next_hops.iter().map(|hop| hop.1).collect())
            .unwrap_or_default()
    }

    #[test]
    fn only_news_is_a_change() {
        let mut links = Links::default();
        // Nothing resolves through a link without addresses: a pod's, say.
        assert_eq!(handle(&mut links, &link(1, true)), (false, None));
        let address = Event::AddressAdded(1, "192.0.2.1/24".parse().unwrap());
        assert_eq!(handle(&mut links, &address), (true, None));
        assert_eq!(handle(&mut links, &address), (false, None));
        // Links tell of themselves all the time: statistics, IPv6 state, …
        assert_eq!(handle(&mut links, &link(1, true)), (false, None));
        assert_eq!(links.links[&1].addresses.len(), 1);
        assert_eq!(handle(&mut links, &link(1, false)), (true, Some(1)));
        assert_eq!(links.links[&1].addresses.len(), 1);
        assert_eq!(handle(&mut links, &Event::LinkRemoved(1)), (true, Some(1)));
        assert_eq!(links, Links::default());
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let mut links = Links::default();
        for (prefix, link) in [
            ("0.0.0.0/0", 1),
            ("10.0.0.0/8", 2),
            ("10.1.0.0/16", 3),
            ("::/0", 4),
        ] {
            links.handle(&theirs(prefix, RouteAction::Added, &[("", link)]));
        }
        let Event::Route(mut backup) = theirs("10.1.0.0/16", RouteAction::Added, &[("", 9)]) else {
            panic!()
        };
        backup.key.priority = 100;
        links.handle(&Event::Route(backup));
        assert!(
            links
                .underlay
                .is_sorted_by_key(|route| (route.prefix, route.priority))
        );
        assert_eq!(way(&links, "10.1.2.3"), [3]);
        assert_eq!(way(&links, "10.2.2.3"), [2]);
        assert_eq!(way(&links, "192.0.2.1"), [1]);
        assert_eq!(way(&links, "2001:db8::1"), [4]);
        links.handle(&theirs("10.1.0.0/16", RouteAction::Removed, &[("", 3)]));
        assert_eq!(way(&links, "10.1.2.3"), [9]);
    }

    #[test]
    fn a_link_down_takes_ipv4_routes_with_it_untold() {
        let mut links = Links::default();
        links.handle(&link(1, true));
        links.handle(&link(2, true));
        let both = [("192.0.2.1", 1), ("198.51.100.1", 2)];
        links.handle(&theirs("10.0.0.0/8", RouteAction::Added, &both));
        links.handle(&theirs("10.1.0.0/16", RouteAction::Added, &both[..1]));
        links.handle(&theirs(
            "2001:db8::/32",
            RouteAction::Added,
            &[("fe80::1", 1)],
        ));
        links.handle(&link(1, false));
        assert_eq!(way(&links, "10.1.0.1"), [2]);
        assert_eq!(way(&links, "2001:db8::1"), [1], "the kernel will tell");
    }

    #[test]
    fn ipv6_next_hops_go_one_by_one() {
        let mut links = Links::default();
        links.handle(&theirs(
            "2001:db8::/32",
            RouteAction::Added,
            &[("fe80::1", 1), ("fe80::2", 2)],
        ));
        links.handle(&theirs(
            "2001:db8::/32",
            RouteAction::Removed,
            &[("fe80::1", 1)],
        ));
        assert_eq!(way(&links, "2001:db8::1"), [2]);
        links.handle(&theirs(
            "2001:db8::/32",
            RouteAction::Removed,
            &[("fe80::2", 2)],
        ));
        assert_eq!(way(&links, "2001:db8::1"), []);
    }

    #[test]
    fn ours_in_place_of_theirs_ends_theirs() {
        let mut links = Links::default();
        links.handle(&theirs(
            "10.0.0.0/8",
            RouteAction::Added,
            &[("192.0.2.1", 1)],
        ));
        let Event::Route(ours) = theirs("10.0.0.0/8", RouteAction::Replaced, &[("192.0.2.2", 1)])
        else {
            panic!()
        };
        let changed = links
            .handle(&Event::Route(RouteEvent {
                protocol: ROUTE_PROTOCOL,
                ..ours
            }))
            .changed;
        assert!(changed && links.underlay.is_empty());
    }
}

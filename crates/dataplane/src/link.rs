//! Links and what stands on them, as dumped from the kernel and kept current by its events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Event, ROUTE_PROTOCOL, RouteAction, RouteEvent, TunnelParameters};

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
    /// What a tunnel is like, where it is of a kind that we use.
    pub tunnel: Option<TunnelParameters>,
    /// Its addresses with the length of their subnet.
    pub addresses: Vec<IpNet>,
}

/// A route that somebody else installed in the main table: what a next hop of ours may resolve through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Gateways with the links they are reached through; no gateway means directly connected. None at all: packets are dropped.
    pub next_hops: Vec<(Option<IpAddr>, LinkIndex)>,
    /// Metric: the lowest wins.
    pub priority: u32,
}

/// All links of a network namespace, and the routes of others as far as they lead to addresses that matter.
///
/// Others may have a million routes. Only those that hold an address of [`watched`](Self::watched) are kept: the kernel is
/// asked for them again whenever an event may have changed one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// By index.
    pub links: BTreeMap<LinkIndex, Link>,
    /// The addresses to which ways are looked for: next hops.
    pub watched: BTreeSet<IpAddr>,
    /// The main table's routes that are not ours and lead to watched addresses, sorted by prefix, then by metric.
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
    /// This link lost its carrier: the kernel has removed the nexthop objects through it, and their routes, and tells of
    /// neither: dump ours again if
    /// [`Reconciler::has_object_through`](crate::Reconciler::has_object_through) says so.
    pub lost_carrier: Option<LinkIndex>,
    /// The routes of others to watched addresses may be others than before: ask the kernel again.
    pub underlay: bool,
}

impl Link {
    /// Why nothing is reached through it; `None` when something may be.
    pub fn trouble(&self) -> Option<&'static str> {
        match (self.up, self.carrier) {
            (false, _) => Some("is down"),
            (true, false) => Some("has no carrier"),
            (true, true) => None,
        }
    }
}

impl Links {
    /// Takes in an event.
    pub fn handle(&mut self, event: &Event) -> Impact {
        match event {
            Event::Link(link) => self.set_link(link),
            Event::LinkRemoved(index) => {
                let carried = self.carries(*index);
                self.links.remove(index);
                Impact {
                    changed: carried,
                    flushed: Some(*index),
                    lost_carrier: None,
                    underlay: carried,
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
                    underlay: news,
                    ..Impact::default()
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
                    lost_carrier: None,
                    underlay: true,
                }
            }
            Event::Route(route) => Impact {
                underlay: self.concerns(route),
                ..Impact::default()
            },
            Event::Neighbour(..) | Event::Object(_) => Impact::default(),
        }
    }

    fn set_link(&mut self, link: &Link) -> Impact {
        let mut link = link.clone();
        let before = self.links.get_mut(&link.index);
        let went_down = before.as_ref().is_some_and(|before| before.up) && !link.up;
        let lost_carrier = before.as_ref().is_some_and(|before| before.carrier) && !link.carrier;
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
        Impact {
            changed: carries,
            flushed: went_down.then_some(index),
            lost_carrier: lost_carrier.then_some(index),
            underlay: carries,
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

    /// Whether a route that changed may be one that leads to a watched address: another's, or ours in its place.
    fn concerns(&self, event: &RouteEvent) -> bool {
        let RouteEvent {
            key,
            protocol,
            action,
            ..
        } = event;
        let theirs = *protocol != ROUTE_PROTOCOL || *action == RouteAction::Replaced;
        key.table == MAIN && theirs && self.watches(&key.prefix)
    }

    /// Whether a watched address lies in this prefix.
    pub fn watches(&self, prefix: &IpNet) -> bool {
        let range = prefix.network()..=prefix.broadcast();
        self.watched.range(range).next().is_some()
    }

    /// The route of others that a packet to this address, a watched one, would take: longest prefix, then lowest metric.
    pub fn lookup(&self, address: IpAddr) -> Option<&UnderlayRoute> {
        self.underlay
            .iter()
            .filter(|route| route.prefix.contains(&address))
            .max_by_key(|route| (route.prefix.prefix_len(), std::cmp::Reverse(route.priority)))
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

    fn route(prefix: &str, protocol: u8, action: RouteAction) -> Event {
        let hop = NextHop {
            via: None,
            link: 1,
            onlink: false,
        };
        Event::Route(RouteEvent {
            key: RouteKey::main(prefix.parse().unwrap(), 0),
            protocol,
            action,
            route: Some(Route::unicast([hop]).into()),
        })
    }

    fn handle(links: &mut Links, event: &Event) -> (bool, Option<LinkIndex>) {
        let Impact {
            changed,
            flushed,
            underlay,
            lost_carrier: _,
        } = links.handle(event);
        assert_eq!(
            changed, underlay,
            "a link's changes are those of its routes"
        );
        (changed, flushed)
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
    fn routes_matter_that_hold_a_watched_address() {
        let watched = ["10.1.2.3", "2001:db8::1"].map(|address| address.parse().unwrap());
        let mut links = Links {
            watched: watched.into(),
            ..Links::default()
        };
        let mut check = |prefix, protocol, action, expected| {
            let impact = links.handle(&route(prefix, protocol, action));
            let expected = Impact {
                underlay: expected,
                ..Impact::default()
            };
            assert_eq!(impact, expected, "{prefix} {protocol} {action:?}");
        };
        for prefix in ["0.0.0.0/0", "10.1.0.0/16", "10.1.2.3/32", "2001:db8::/64"] {
            check(prefix, 4, RouteAction::Added, true);
            check(prefix, 4, RouteAction::Removed, true);
            // Ours is no way to a next hop of ours, but it may have taken the place of one.
            check(prefix, ROUTE_PROTOCOL, RouteAction::Added, false);
            check(prefix, ROUTE_PROTOCOL, RouteAction::Replaced, true);
        }
        for prefix in ["10.2.0.0/16", "10.1.2.4/32", "2001:db8:1::/48"] {
            check(prefix, 4, RouteAction::Added, false);
        }
    }

    #[test]
    fn the_longest_prefix_wins_then_the_lowest_metric() {
        let ways = [
            ("0.0.0.0/0", 0, 1),
            ("10.1.0.0/16", 100, 2),
            ("10.1.0.0/16", 200, 3),
            ("::/0", 0, 4),
        ];
        let underlay = ways.map(|(prefix, priority, link)| UnderlayRoute {
            prefix: prefix.parse().unwrap(),
            next_hops: vec![(None, link)],
            priority,
        });
        let links = Links {
            underlay: underlay.into(),
            ..Links::default()
        };
        let way = |address: &str| {
            links
                .lookup(address.parse().unwrap())
                .map(|way| way.next_hops[0].1)
        };
        assert_eq!(way("10.1.2.3"), Some(2));
        assert_eq!(way("192.0.2.1"), Some(1));
        assert_eq!(way("2001:db8::1"), Some(4));
    }
}

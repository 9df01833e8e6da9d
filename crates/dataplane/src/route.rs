//! Routes of ours as values (`rtnetlink(7)`).

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::{LinkIndex, NexthopId};

/// What makes two routes the same one to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Destination, host bits zero.
    pub prefix: IpNet,
    /// Metric (`RTA_PRIORITY`); the kernel reads 0 as 1024 for IPv6.
    pub priority: u32,
    /// Table (`RTA_TABLE`): 254 is main.
    pub table: u32,
}

/// `IP6_RT_PRIO_USER`: what the kernel makes of metric 0 for IPv6.
const IPV6_DEFAULT_PRIORITY: u32 = 1024;

/// In two words, where the derived one would take an octet at a time: a route of each of a hundred thousand is looked up.
impl Hash for RouteKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let rest = u64::from(self.table) << 8 | u64::from(self.prefix.prefix_len());
        match self.prefix {
            IpNet::V4(net) => {
                state.write_u64(u64::from(net.addr().to_bits()) << 32 | u64::from(self.priority))
            }
            IpNet::V6(net) => {
                state.write_u128(net.addr().to_bits());
                state.write_u32(self.priority);
            }
        }
        state.write_u64(rest);
    }
}

impl RouteKey {
    /// A route of the main table (254).
    pub fn main(prefix: IpNet, priority: u32) -> Self {
        Self {
            prefix,
            priority,
            table: 254,
        }
        .normal()
    }

    /// The key as the kernel will tell it: host bits zero, and no metric 0 for IPv6.
    #[must_use]
    pub fn normal(self) -> Self {
        let prefix = self.prefix.trunc();
        let priority = match prefix {
            IpNet::V6(_) if self.priority == 0 => IPV6_DEFAULT_PRIORITY,
            IpNet::V4(_) | IpNet::V6(_) => self.priority,
        };
        Self {
            prefix,
            priority,
            ..self
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Forwarded to a next hop.
    Unicast,
    /// Dropped silently.
    Blackhole,
}

/// Where a packet goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The gateway; `None` when the destination is on the link itself. May be IPv6 for an IPv4 route.
    pub via: Option<IpAddr>,
    /// The link.
    pub link: LinkIndex,
    /// The gateway is on the link although no address there says so (`RTNH_F_ONLINK`).
    pub onlink: bool,
}

/// A route's value under its [`RouteKey`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// What becomes of a packet.
    pub kind: RouteKind,
    /// Sorted; more than one is equal-cost multipath. Empty for a blackhole.
    pub next_hops: SmallVec<[NextHop; 1]>,
    /// Preferred source address (`RTA_PREFSRC`).
    pub source: Option<IpAddr>,
}

impl Route {
    /// Forwarded to these next hops.
    pub fn unicast(next_hops: impl IntoIterator<Item = NextHop>) -> Self {
        Self {
            kind: RouteKind::Unicast,
            next_hops: next_hops.into_iter().collect(),
            source: None,
        }
        .normal()
    }

    /// Dropped silently.
    pub fn blackhole() -> Self {
        Self {
            kind: RouteKind::Blackhole,
            next_hops: SmallVec::new(),
            source: None,
        }
    }

    /// The route as the kernel will tell it, so that equal routes are equal: next hops sorted, each once; none for a blackhole.
    #[must_use]
    pub fn normal(mut self) -> Self {
        match self.kind {
            RouteKind::Unicast if self.next_hops.len() > 1 => {
                self.next_hops.sort_unstable();
                self.next_hops.dedup();
            }
            RouteKind::Unicast => {}
            RouteKind::Blackhole => self.next_hops.clear(),
        }
        self
    }
}

/// A route as it stands in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FibRoute {
    /// With its next hops in itself.
    Inline(Route),
    /// Forwarded to the next hops of a nexthop object (`RTA_NH_ID`).
    Object(NexthopId),
}

impl FibRoute {
    /// What becomes of a packet.
    pub fn kind(&self) -> RouteKind {
        match self {
            Self::Inline(route) => route.kind,
            Self::Object(_) => RouteKind::Unicast,
        }
    }

    /// As [`Route::normal`].
    #[must_use]
    pub fn normal(self) -> Self {
        match self {
            Self::Inline(route) => Self::Inline(route.normal()),
            Self::Object(id) => Self::Object(id),
        }
    }

    /// The object that it points at.
    pub fn object(&self) -> Option<NexthopId> {
        match self {
            Self::Inline(_) => None,
            Self::Object(id) => Some(*id),
        }
    }

    /// The next hops that stand in the route itself.
    pub(crate) fn inline(&self) -> Option<&Route> {
        match self {
            Self::Inline(route) => Some(route),
            Self::Object(_) => None,
        }
    }
}

impl From<Route> for FibRoute {
    fn from(route: Route) -> Self {
        Self::Inline(route)
    }
}

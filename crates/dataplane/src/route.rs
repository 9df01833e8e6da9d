//! Routes of ours as values (`rtnetlink(7)`).

use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use crate::LinkIndex;

/// What makes two routes the same one to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// Destination, host bits zero.
    pub prefix: IpNet,
    /// Metric (`RTA_PRIORITY`); the kernel reads 0 as 1024 for IPv6.
    pub priority: u32,
    /// Table (`RTA_TABLE`): 254 is main.
    pub table: u32,
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

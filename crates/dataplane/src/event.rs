//! What the kernel tells about changes.

use ipnet::IpNet;

use crate::{FibRoute, Link, LinkIndex, Neighbour, NeighbourKey, NexthopId, Object, RouteKey};

/// One change, in the order in which the kernel made them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link appeared or changed in some way; its addresses are not part of it.
    Link(Link),
    /// A link is gone.
    LinkRemoved(LinkIndex),
    /// An address was added or changed.
    AddressAdded(LinkIndex, IpNet),
    /// An address is gone.
    AddressRemoved(LinkIndex, IpNet),
    /// A route changed, whoever's it is.
    Route(RouteEvent),
    /// A neighbour entry of ours changed; `None` when it is gone or no longer permanent.
    Neighbour(NeighbourKey, Option<Neighbour>),
    /// A nexthop object changed whose identifier is one of ours, whoever's it is.
    Object(ObjectEvent),
}

/// A change of one nexthop object. The kernel does not tell of those that it removes with their link, nor of the groups that
/// become smaller or go with them, nor of the IPv4 routes that go with a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Which.
    pub id: NexthopId,
    /// Whose (`nh_protocol`).
    pub protocol: u8,
    /// It is gone.
    pub removed: bool,
    /// What it is now, or was; `None` for a kind that we have no word for.
    pub object: Option<Object>,
}

/// A change of one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEvent {
    /// Which.
    pub key: RouteKey,
    /// Whose (`rtm_protocol`).
    pub protocol: u8,
    /// What happened.
    pub action: RouteAction,
    /// What it is now, or was; `None` for a kind that we have no word for: unreachable, local, …
    pub route: Option<FibRoute>,
}

/// What happened to a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteAction {
    /// It is new; or an IPv6 one changed, in which case all its next hops are told.
    Added,
    /// It took the place of what was under the key, whosever that was, which is not told apart.
    Replaced,
    /// It is gone. IPv6: the next hops told are gone, others may be left.
    Removed,
}

//! What the kernel tells about changes.

use ipnet::IpNet;

use crate::{Link, LinkIndex, Neighbour, NeighbourKey, Route, RouteKey};

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
    pub route: Option<Route>,
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

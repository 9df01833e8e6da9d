//! What the kernel should hold beside what it holds, and the ordered operations between them: deterministic, and
//! without sockets, clocks or tasks.
//!
//! | module | what |
//! | --- | --- |
//! | [`link`] | links, their addresses, and the routes that others installed, as far as next hops need them |
//! | [`route`] | routes of ours as values: key, kind, next hops |
//! | [`nexthop`] | nexthop objects, which many routes point at |
//! | [`neighbour`] | permanent neighbour entries for pods |
//! | [`event`] | what the kernel tells about changes |
//! | [`firewall`] | what our own nftables table is to do |
//! | [`op`] | single changes to the kernel, and how they can fail |
//! | [`mod@plan`] | all differences between two states at once |
//! | [`rivals`] | routes of other programs for our prefixes |
//! | [`reconciler`] | the same key by key, as changes come, with retries |
//! | [`tunnel`] | tunnel devices: what they should be like, and the operations that make them so |
//! | [`status`] | routes as an operator reads them |
#![forbid(unsafe_code)]

mod entry;
pub mod event;
pub mod firewall;
mod groups;
pub mod link;
pub mod neighbour;
pub mod nexthop;
pub mod op;
mod pause;
pub mod plan;
pub mod reconciler;
pub mod rivals;
pub mod route;
mod slots;
pub mod status;
mod table;
pub mod tunnel;

pub use event::{Event, ObjectEvent, RouteAction, RouteEvent};
pub use firewall::Firewall;
pub use link::{Impact, Link, LinkIndex, Links};
pub use neighbour::{Neighbour, NeighbourKey};
pub use nexthop::{Group, GroupKind, NexthopId, Object};
pub use op::{Op, OpError, protocol_name};
pub use plan::plan;
pub use reconciler::Reconciler;
pub use rivals::{Rival, Rivals};
pub use route::{FibRoute, NextHop, Route, RouteKey, RouteKind};
pub use status::{Counters, RouteState, RouteStatus, Summary};
pub use tunnel::{Tunnel, TunnelKind, TunnelOp, TunnelParameters};

/// The route protocol that marks what is ours (`rtm_protocol`, `ip route … proto 77`).
pub const ROUTE_PROTOCOL: u8 = 77;

/// What this node's kernel should hold of ours. Anything of ours beyond it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Nexthop objects by identifier.
    pub objects: std::collections::BTreeMap<NexthopId, Object>,
    /// Routes by key.
    pub routes: std::collections::BTreeMap<RouteKey, FibRoute>,
    /// Neighbour entries by key.
    pub neighbours: std::collections::BTreeMap<NeighbourKey, Neighbour>,
}

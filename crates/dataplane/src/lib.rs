//! What the kernel should hold beside what it holds, and the ordered operations between them: deterministic, and
//! without sockets, clocks or tasks.
//!
//! | module | what |
//! | --- | --- |
//! | [`link`] | links, their addresses, and the routes that others installed, as far as next hops need them |
//! | [`route`] | routes of ours as values: key, kind, next hops |
//! | [`neighbour`] | permanent neighbour entries for pods |
#![forbid(unsafe_code)]

pub mod link;
pub mod neighbour;
pub mod route;

pub use link::{Link, LinkIndex, Links};
pub use neighbour::{Neighbour, NeighbourKey};
pub use route::{NextHop, Route, RouteKey, RouteKind};

/// The route protocol that marks what is ours (`rtm_protocol`, `ip route … proto 77`).
pub const ROUTE_PROTOCOL: u8 = 77;

/// What this node's kernel should hold of ours. Anything of ours beyond it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// Routes by key.
    pub routes: std::collections::BTreeMap<RouteKey, Route>,
    /// Neighbour entries by key.
    pub neighbours: std::collections::BTreeMap<NeighbourKey, Neighbour>,
}

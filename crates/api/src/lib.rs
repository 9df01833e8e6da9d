//! Requests and responses of the agent's local sockets, as values: deterministic, and without sockets.
//!
//! | module | what |
//! | --- | --- |
//! | [`status`] | `GET /v1/status` |
//! | [`peer`] | `GET /v1/bgp/peers`, `GET` and `POST /v1/bgp/peers/{address}` |
//! | [`bgp_route`] | `GET /v1/bgp/routes?prefix=&from=&to=` |
//! | [`kernel`] | `GET /v1/routes` |
//! | [`tunnel`] | `GET /v1/tunnels` |
//! | [`endpoint`] | `GET /v1/endpoints` |
//! | [`cni`] | what the CNI plugin and the agent say to each other |
//!
//! The local API is HTTP/1.1 with JSON over a Unix socket. A status other than 200 comes with an [`Error`]. Fields may
//! be added at any time; readers pass over those that they don't know.
#![forbid(unsafe_code)]

pub mod bgp_route;
pub mod cni;
pub mod endpoint;
pub mod kernel;
pub mod peer;
pub mod status;
pub mod tunnel;

use serde::{Deserialize, Serialize};

pub use bgp_route::{BgpPath, BgpRoute, BgpRoutes, BgpRoutesQuery, PathState};
pub use endpoint::{Endpoint, Endpoints, PodName};
pub use kernel::{Hop, KernelRoute, KernelRouteKind, KernelRouteState, KernelRoutes, Target};
pub use peer::{
    Direction, GracefulRestart, MessageCounts, Messages, Peer, PeerAction, PeerKind, PeerOrder,
    PeerOrderDone, Peers, PrefixCounts, SessionError, SessionState, Timers,
};
pub use status::{
    BgpStatus, ConfigFile, ConfigStatus, FirewallStatus, KernelError, KernelStatus, Problem,
    Severity, Status,
};
pub use tunnel::{TunnelDevice, TunnelNextHop, TunnelState, Tunnels};

/// Where the agent's API is, unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/margay/api.sock";

/// The API's paths.
pub mod path {
    /// [`Status`](crate::Status).
    pub const STATUS: &str = "/v1/status";
    /// [`Peers`](crate::Peers); with `/{address}`: [`Peer`](crate::Peer), and by POST a
    /// [`PeerOrder`](crate::PeerOrder).
    pub const PEERS: &str = "/v1/bgp/peers";
    /// [`BgpRoutes`](crate::BgpRoutes), for a [`BgpRoutesQuery`](crate::BgpRoutesQuery).
    pub const BGP_ROUTES: &str = "/v1/bgp/routes";
    /// [`KernelRoutes`](crate::KernelRoutes).
    pub const ROUTES: &str = "/v1/routes";
    /// [`Tunnels`](crate::Tunnels).
    pub const TUNNELS: &str = "/v1/tunnels";
    /// [`Endpoints`](crate::Endpoints).
    pub const ENDPOINTS: &str = "/v1/endpoints";
}

/// What comes with a status other than 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    /// What is wrong, and what would be right.
    pub error: String,
}

//! Single changes to the kernel, and how they can fail.

use crate::{FibRoute, Neighbour, NeighbourKey, NexthopId, Object, RouteKey, RouteKind};

/// One change. Each is idempotent: what is already as the change would have it counts as done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Makes a nexthop object where its identifier must be free: another's object is never touched.
    AddObject(NexthopId, Object),
    /// Takes the place of a nexthop object of ours: all routes that point at it change with it.
    ReplaceObject(NexthopId, Object),
    /// Makes a neighbour entry or takes the place of what is there.
    SetNeighbour(NeighbourKey, Neighbour),
    /// Makes a route where its key must be free: another's route is never touched.
    AddRoute(RouteKey, FibRoute),
    /// Takes the place of a route of ours without a gap.
    ReplaceRoute(RouteKey, FibRoute),
    /// Removes a route of ours. Its kind, where known, so that no other one goes.
    DeleteRoute(RouteKey, Option<RouteKind>),
    /// Removes a neighbour entry.
    DeleteNeighbour(NeighbourKey),
    /// Removes a nexthop object of ours. The kernel removes routes and groups with it that still use it.
    DeleteObject(NexthopId),
}

/// Why the kernel does not have what an [`Op`] wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Another program's route has this key, or another program's nexthop object this identifier.
    #[error("{}", foreign(*protocol))]
    Foreign {
        /// Its `rtm_protocol`, where it could be found out.
        protocol: Option<u8>,
    },
    /// The kernel refused.
    #[error("{reason}")]
    Refused {
        /// The error number.
        errno: i32,
        /// In words, the kernel's own where it has some.
        reason: Box<str>,
    },
    /// No answer came: whether it was done is unknown.
    #[error("outcome unknown: {0}")]
    Unknown(Box<str>),
}

/// Says who holds a key.
fn foreign(protocol: Option<u8>) -> String {
    match protocol {
        Some(protocol) => format!("a route of {} has this place", protocol_name(protocol)),
        None => "another program's route has this place".into(),
    }
}

/// The name that `rt_protos` gives to a route protocol, or its number.
pub fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "redirect",
        2 => "kernel",
        3 => "boot",
        4 => "static",
        8 => "gated",
        9 => "ra",
        11 => "zebra",
        12 => "bird",
        16 => "dhcp",
        17 => "mrouted",
        18 => "keepalived",
        42 => "babel",
        crate::ROUTE_PROTOCOL => "margay",
        99 => "openr",
        186 => "bgp",
        187 => "isis",
        188 => "ospf",
        189 => "rip",
        192 => "eigrp",
        number => return format!("protocol {number}"),
    };
    format!("protocol {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_names_the_holder() {
        let error = OpError::Foreign { protocol: Some(12) };
        assert_eq!(error.to_string(), "a route of protocol bird has this place");
        assert_eq!(protocol_name(200), "protocol 200");
    }
}

//! A kernel in miniature: one route per key, whoever's it is, and neighbour entries.

use std::collections::BTreeMap;

use dataplane::{Desired, Neighbour, NeighbourKey, Op, OpError, ROUTE_PROTOCOL, Route, RouteKey};

/// What the kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Routes with their protocol.
    pub(crate) routes: BTreeMap<RouteKey, (u8, Route)>,
    pub(crate) neighbours: BTreeMap<NeighbourKey, Neighbour>,
}

impl Kernel {
    pub(crate) fn of(state: &Desired) -> Self {
        let routes = state
            .routes
            .iter()
            .map(|(key, route)| (*key, (ROUTE_PROTOCOL, route.clone())));
        Self {
            routes: routes.collect(),
            neighbours: state.neighbours.clone(),
        }
    }

    /// What is ours.
    pub(crate) fn ours(&self) -> Desired {
        let ours = self
            .routes
            .iter()
            .filter(|(_, (protocol, _))| *protocol == ROUTE_PROTOCOL);
        let routes = ours
            .map(|(key, (_, route))| (*key, route.clone()))
            .collect();
        Desired {
            routes,
            neighbours: self.neighbours.clone(),
        }
    }

    /// As `netlink::kernel::apply` does it.
    pub(crate) fn apply(&mut self, op: &Op) -> Result<(), OpError> {
        match op {
            Op::SetNeighbour(key, neighbour) => {
                self.neighbours.insert(*key, *neighbour);
            }
            Op::DeleteNeighbour(key) => {
                self.neighbours.remove(key);
            }
            Op::AddRoute(key, route) | Op::ReplaceRoute(key, route) => match self.routes.get(key) {
                Some((protocol, _)) if *protocol != ROUTE_PROTOCOL => {
                    return Err(OpError::Foreign {
                        protocol: Some(*protocol),
                    });
                }
                _ => {
                    self.routes.insert(*key, (ROUTE_PROTOCOL, route.clone()));
                }
            },
            Op::DeleteRoute(key, _) => {
                if self
                    .routes
                    .get(key)
                    .is_some_and(|(protocol, _)| *protocol == ROUTE_PROTOCOL)
                {
                    self.routes.remove(key);
                }
            }
        }
        Ok(())
    }
}

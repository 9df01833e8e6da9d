//! A kernel in miniature: one route per key, whoever's it is, neighbour entries, and nexthop objects.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod world;

use std::collections::BTreeMap;

use dataplane::{
    Desired, FibRoute, Neighbour, NeighbourKey, NexthopId, Object, ObjectEvent, Op, OpError,
    ROUTE_PROTOCOL, RouteKey,
};

/// What the kernel holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Routes with their protocol.
    pub(crate) routes: BTreeMap<RouteKey, (u8, FibRoute)>,
    pub(crate) neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// Nexthop objects with their protocol.
    pub(crate) objects: BTreeMap<NexthopId, (u8, Object)>,
    /// Routes that went because the object did that they pointed at.
    pub(crate) collateral: usize,
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
            objects: state
                .objects
                .iter()
                .map(|(id, object)| (*id, (ROUTE_PROTOCOL, object.clone())))
                .collect(),
            collateral: 0,
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
        let ours = self
            .objects
            .iter()
            .filter(|(_, (protocol, _))| *protocol == ROUTE_PROTOCOL);
        Desired {
            objects: ours
                .map(|(id, (_, object))| (*id, object.clone()))
                .collect(),
            routes,
            neighbours: self.neighbours.clone(),
        }
    }

    /// Removes an object with all that needs it, and gives the events that tell of groups.
    pub(crate) fn remove_object(&mut self, id: NexthopId) -> Vec<ObjectEvent> {
        self.objects.remove(&id);
        let before = self.routes.len();
        self.routes
            .retain(|_, (_, route)| route.object() != Some(id));
        self.collateral += before - self.routes.len();
        let mut events = Vec::new();
        let mut empty = Vec::new();
        for (group, (protocol, object)) in &mut self.objects {
            let Object::Group(it) = &mut *object else {
                continue;
            };
            if !it.members.contains(&id) {
                continue;
            }
            it.members.retain(|member| *member != id);
            if it.members.is_empty() {
                empty.push(*group);
            }
            events.push(ObjectEvent {
                id: *group,
                protocol: *protocol,
                removed: it.members.is_empty(),
                object: Some(object.clone()),
            });
        }
        for group in empty {
            events.extend(self.remove_object(group));
        }
        events
    }

    /// All objects through a link go, and what needs them.
    pub(crate) fn lose_carrier(&mut self, link: u32) {
        let through = |object: &Object| matches!(object, Object::Hop(hop) if hop.link == link);
        let gone: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, (_, object))| through(object))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.remove_object(id);
        }
    }

    /// As the kernel would.
    fn set_object(&mut self, id: NexthopId, object: &Object) -> Result<(), OpError> {
        let refused = |reason: &str| OpError::Refused {
            errno: 22,
            reason: reason.into(),
        };
        match self.objects.get(&id) {
            Some((protocol, _)) if *protocol != ROUTE_PROTOCOL => {
                return Err(OpError::Foreign {
                    protocol: Some(*protocol),
                });
            }
            Some((_, was)) if matches!(was, Object::Hop(_)) != matches!(object, Object::Hop(_)) => {
                return Err(refused("a group can't take the place of a next hop"));
            }
            _ => {}
        }
        if let Object::Group(group) = object {
            let is_hop = |id| matches!(self.objects.get(id), Some((_, Object::Hop(_))));
            if group.members.is_empty() || !group.members.iter().all(is_hop) {
                return Err(refused("Invalid nexthop id"));
            }
        }
        self.objects.insert(id, (ROUTE_PROTOCOL, object.clone()));
        Ok(())
    }

    /// The next hops that a route leads to.
    pub(crate) fn resolve(&self, route: &FibRoute) -> Option<dataplane::Route> {
        let id = match route {
            FibRoute::Inline(route) => return Some(route.clone()),
            FibRoute::Object(id) => id,
        };
        let Object::Group(group) = &self.objects.get(id)?.1 else {
            return None;
        };
        let hop = |id| match self.objects.get(id) {
            Some((_, Object::Hop(hop))) => Some(*hop),
            _ => None,
        };
        let hops: Option<Vec<_>> = group.members.iter().map(hop).collect();
        Some(dataplane::Route::unicast(hops?))
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
            Op::AddObject(id, object) | Op::ReplaceObject(id, object) => {
                return self.set_object(*id, object);
            }
            Op::DeleteObject(id) => {
                if self
                    .objects
                    .get(id)
                    .is_some_and(|(protocol, _)| *protocol == ROUTE_PROTOCOL)
                {
                    self.remove_object(*id);
                }
            }
            Op::AddRoute(_, FibRoute::Object(id)) | Op::ReplaceRoute(_, FibRoute::Object(id))
                if !self.objects.contains_key(id) =>
            {
                return Err(OpError::Refused {
                    errno: 22,
                    reason: "Nexthop id does not exist".into(),
                });
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

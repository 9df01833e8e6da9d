//! A reconciler with a kernel in miniature, and what may happen to them.

use std::collections::BTreeMap;
use std::time::Instant;

use dataplane::{
    Desired, Event, FibRoute, Group, Neighbour, NeighbourKey, NextHop, Object, ObjectEvent, Op,
    OpError, ROUTE_PROTOCOL, Reconciler, Route, RouteAction, RouteEvent, RouteKey,
};
use ipnet::IpNet;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::Kernel;

/// Few keys and few values, so that they meet.
pub(crate) fn key() -> impl Strategy<Value = RouteKey> {
    let prefix = prop_oneof![
        (0u8..6).prop_map(|n| IpNet::new([10, 0, 0, n].into(), 32).unwrap()),
        (0u8..3).prop_map(|n| IpNet::new([10, n, 0, 0].into(), 16).unwrap()),
        (0u16..3).prop_map(|n| IpNet::new([0x2001, 0xdb8, n, 0, 0, 0, 0, 0].into(), 48).unwrap()),
    ];
    (prefix, prop_oneof![Just(0u32), Just(20)])
        .prop_map(|(prefix, priority)| RouteKey::main(prefix, priority))
}

pub(crate) fn hop() -> impl Strategy<Value = NextHop> {
    (1u8..4, 1u32..3).prop_map(|(n, link)| NextHop {
        via: Some([192, 0, 2, n].into()),
        link,
        onlink: false,
    })
}

pub(crate) fn route() -> impl Strategy<Value = Route> {
    prop_oneof![1 => Just(Route::blackhole()), 4 => vec(hop(), 1..4).prop_map(Route::unicast)]
}

pub(crate) fn neighbour() -> impl Strategy<Value = (NeighbourKey, Neighbour)> {
    (1u32..3, 0u8..4, 0u8..3).prop_map(|(link, n, mac)| {
        (
            NeighbourKey {
                link,
                address: [10, 0, 0, n].into(),
            },
            Neighbour {
                mac: [2, 0, 0, 0, 0, mac],
            },
        )
    })
}

prop_compose! {
    pub(crate) fn state()(routes in btree_map(key(), route(), 0..12), neighbours in vec(neighbour(), 0..6)) -> Desired {
        let routes = routes.into_iter().map(|(key, route)| (key, route.into())).collect();
        Desired { routes, neighbours: neighbours.into_iter().collect(), ..Desired::default() }
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Happening {
    Want(RouteKey, Option<Route>),
    WantNeighbour((NeighbourKey, Neighbour), bool),
    /// Another hand in the kernel, which may write under our protocol number; its event may get lost.
    Meddle {
        key: RouteKey,
        route: Option<FibRoute>,
        protocol: u8,
        told: bool,
    },
    /// Plans and applies up to so many operations; those whose bit is set meet a fault.
    Work {
        max: usize,
        faults: u32,
    },
    /// Another hand at the nexthop objects: takes the one with this number away, or writes it anew; its event may get lost.
    MeddleObject {
        number: usize,
        object: Option<NextHop>,
        protocol: u8,
        told: bool,
    },
    /// The kernel removes all objects through a link, of which it tells nothing but that the link has no carrier.
    LoseCarrier(u32),
    Dump,
    Sweep,
}

pub(crate) fn happening() -> impl Strategy<Value = Happening> {
    let protocol = prop_oneof![Just(ROUTE_PROTOCOL), Just(4u8)];
    prop_oneof![
        4 => (key(), proptest::option::of(route())).prop_map(|(key, route)| Happening::Want(key, route)),
        2 => (neighbour(), any::<bool>()).prop_map(|(it, wanted)| Happening::WantNeighbour(it, wanted)),
        3 => (key(), proptest::option::of(route().prop_map(FibRoute::Inline)), protocol, any::<bool>())
            .prop_map(|(key, route, protocol, told)| Happening::Meddle { key, route, protocol, told }),
        4 => (0usize..8, any::<u32>()).prop_map(|(max, faults)| Happening::Work { max, faults }),
        2 => (0usize..8, proptest::option::of(hop()), prop_oneof![Just(ROUTE_PROTOCOL), Just(0u8)], any::<bool>())
            .prop_map(|(number, object, protocol, told)| Happening::MeddleObject { number, object, protocol, told }),
        1 => (1u32..3).prop_map(Happening::LoseCarrier),
        1 => Just(Happening::Dump),
        1 => Just(Happening::Sweep),
    ]
}

/// A reconciler with its kernel, and what it was told to reach.
pub(crate) struct World {
    pub(crate) reconciler: Reconciler,
    pub(crate) kernel: Kernel,
    pub(crate) desired: BTreeMap<RouteKey, Route>,
    pub(crate) neighbours: BTreeMap<NeighbourKey, Neighbour>,
    pub(crate) now: Instant,
}

impl World {
    pub(crate) fn new(kernel: Kernel) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "a start for the test's own clock"
        )]
        let now = Instant::now();
        Self {
            reconciler: Reconciler::new(7),
            kernel,
            desired: BTreeMap::new(),
            neighbours: BTreeMap::new(),
            now,
        }
    }

    pub(crate) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Want(key, route) => self.want(key, route),
            Happening::WantNeighbour((key, neighbour), wanted) => {
                let neighbour = wanted.then_some(neighbour);
                self.reconciler.set_neighbour(key, neighbour);
                match neighbour {
                    Some(neighbour) => self.neighbours.insert(key, neighbour),
                    None => self.neighbours.remove(&key),
                };
            }
            Happening::Meddle {
                key,
                route,
                protocol,
                told,
            } => self.meddle(key, route, protocol, told),
            Happening::Work { max, faults } => {
                self.work(max, faults);
            }
            Happening::MeddleObject {
                number,
                object,
                protocol,
                told,
            } => self.meddle_object(number, object, protocol, told),
            Happening::LoseCarrier(link) => {
                self.kernel.lose_carrier(link);
                if self.reconciler.has_object_through(link) {
                    self.dump();
                }
            }
            Happening::Dump => self.dump(),
            Happening::Sweep => self.reconciler.sweep(),
        }
    }

    pub(crate) fn want(&mut self, key: RouteKey, route: Option<Route>) {
        self.reconciler.set_route(key, route.clone());
        match route {
            Some(route) => self.desired.insert(key, route),
            None => self.desired.remove(&key),
        };
    }

    pub(crate) fn meddle(
        &mut self,
        key: RouteKey,
        route: Option<FibRoute>,
        protocol: u8,
        told: bool,
    ) {
        let before = self.kernel.routes.get(&key).cloned();
        let event = match (route, before) {
            (Some(route), before) => {
                self.kernel.routes.insert(key, (protocol, route.clone()));
                let action = if before.is_some() {
                    RouteAction::Replaced
                } else {
                    RouteAction::Added
                };
                RouteEvent {
                    key,
                    protocol,
                    action,
                    route: Some(route),
                }
            }
            (None, Some((protocol, route))) => {
                self.kernel.routes.remove(&key);
                RouteEvent {
                    key,
                    protocol,
                    action: RouteAction::Removed,
                    route: Some(route),
                }
            }
            (None, None) => return,
        };
        if told {
            self.reconciler.handle(&Event::Route(event));
        }
    }

    /// Faults: a refusal, or a lost reply with the operation done or not done.
    pub(crate) fn work(&mut self, max: usize, faults: u32) -> usize {
        let ops = self.reconciler.plan(max, self.now);
        assert!(ops.len() <= max);
        assert_in_order(&ops);
        for (index, op) in ops.iter().enumerate() {
            let fault = faults
                .checked_shr(3 * u32::try_from(index).unwrap())
                .unwrap_or(0)
                & 7;
            let lost = || Err(OpError::Unknown("no answer".into()));
            let result = match fault {
                1 => Err(OpError::Refused {
                    errno: 100,
                    reason: "Network is down".into(),
                }),
                2 => lost(),
                3 => self.kernel.apply(op).and_then(|()| lost()),
                _ => self.kernel.apply(op),
            };
            self.reconciler.applied(op, result, self.now);
        }
        ops.len()
    }

    fn meddle_object(&mut self, number: usize, object: Option<NextHop>, protocol: u8, told: bool) {
        let Some((id, (before, was))) = self.kernel.objects.iter().nth(number) else {
            return;
        };
        let (id, before, was) = (*id, *before, was.clone());
        let mut events = match (object, was) {
            (None, was) => {
                let mut events = self.kernel.remove_object(id);
                events.insert(
                    0,
                    ObjectEvent {
                        id,
                        protocol: before,
                        removed: true,
                        object: Some(was),
                    },
                );
                events
            }
            (Some(hop), Object::Hop(_)) => vec![event(id, protocol, Object::Hop(hop))],
            // A group of somebody else's making, of what members there are.
            (Some(_), Object::Group(Group { kind, .. })) => {
                let is_hop =
                    |(_, object): &(&u32, &(u8, Object))| matches!(object.1, Object::Hop(_));
                let first = self.kernel.objects.iter().find(is_hop).map(|(id, _)| *id);
                vec![event(id, protocol, Object::Group(Group::new(kind, first)))]
            }
        };
        for event in &events {
            if let (false, Some(object)) = (event.removed, &event.object) {
                self.kernel
                    .objects
                    .insert(event.id, (event.protocol, object.clone()));
            }
        }
        if told {
            let mut dump = false;
            for event in events.drain(..) {
                dump |= self.reconciler.handle(&Event::Object(event));
            }
            if dump {
                self.dump();
            }
        }
    }

    pub(crate) fn dump(&mut self) {
        if self.reconciler.group_kind().is_some() || !self.kernel.objects.is_empty() {
            let objects = self.kernel.objects.clone().into_iter();
            let objects = objects.map(|(id, (protocol, object))| (id, protocol, Some(object)));
            self.reconciler.load_objects(objects);
        }
        let ours = self.kernel.ours();
        self.reconciler.load(
            ours.routes
                .into_iter()
                .map(|(key, route)| (key, Some(route))),
            ours.neighbours,
        );
    }

    /// All is known, and no more faults: how many operations succeed until there is nothing left to do?
    pub(crate) fn settle(&mut self) -> usize {
        let mut count = 0;
        // What another program holds is tried again for ever; all else has had its turn after so many pauses.
        let mut idle = 0;
        self.reconciler.sweep();
        self.dump();
        while idle < 100 {
            let before = self.reconciler.counters();
            self.work(3, 0);
            let after = self.reconciler.counters();
            let all =
                |it: dataplane::Counters| it.set + it.deleted + it.objects_set + it.objects_deleted;
            let done = all(after) - all(before);
            count += usize::try_from(done).unwrap();
            idle = if done == 0 { idle + 1 } else { 0 };
            if let (0, Some((at, _))) = (done, self.reconciler.poll_timeout()) {
                self.now = at.max(self.now);
            }
            assert!(
                count < 1000,
                "it never comes to rest: {:?}",
                self.reconciler
            );
        }
        count
    }
}

/// Objects, neighbours, then routes that are added or replaced, then routes that go, then neighbours and objects that go.
pub(crate) fn assert_in_order(ops: &[Op]) {
    let rank = |op: &Op| match op {
        Op::AddObject(_, Object::Hop(_)) | Op::ReplaceObject(_, Object::Hop(_)) => 0,
        Op::AddObject(_, Object::Group(_)) | Op::ReplaceObject(_, Object::Group(_)) => 1,
        Op::SetNeighbour(..) => 2,
        Op::AddRoute(..) | Op::ReplaceRoute(..) => 3,
        Op::DeleteRoute(..) => 4,
        Op::DeleteNeighbour(_) => 5,
        Op::DeleteObject(id) if dataplane::nexthop::GROUP_IDS.contains(id) => 6,
        Op::DeleteObject(_) => 7,
    };
    assert!(ops.is_sorted_by_key(rank), "{ops:?}");
}

fn event(id: u32, protocol: u8, object: Object) -> ObjectEvent {
    ObjectEvent {
        id,
        protocol,
        removed: false,
        object: Some(object),
    }
}

//! Routes that point at nexthop groups, against a kernel in miniature.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dataplane::{
    Desired, Event, FibRoute, Group, GroupKind, NextHop, NexthopId, Object, ObjectEvent, Op,
    OpError, ROUTE_PROTOCOL, Route, RouteKey, RouteState, plan,
};
use ipnet::{IpNet, Ipv4Net};
use model::Kernel;
use model::world::{Happening, World, assert_in_order, happening, hop, key, route, state};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

const KIND: GroupKind = GroupKind::HashThreshold;

fn world(kernel: Kernel) -> World {
    let mut world = World::new(kernel);
    world.reconciler.use_groups(Some(KIND));
    world
}

fn tor(n: u8, link: u32) -> NextHop {
    NextHop {
        via: Some([10, 0, n, 1].into()),
        link,
        onlink: false,
    }
}

fn prefix(n: u32) -> RouteKey {
    let net = Ipv4Net::new((0x0a80_0000 + (n << 8)).into(), 24).unwrap();
    RouteKey::main(IpNet::V4(net), 1024)
}

fn want(world: &mut World, keys: std::ops::Range<u32>, hops: &[NextHop]) {
    for n in keys {
        world.want(prefix(n), Some(Route::unicast(hops.iter().copied())));
    }
}

/// Carries out all that can be done now, and gives it.
fn work(world: &mut World) -> Vec<Op> {
    let mut done = Vec::new();
    loop {
        let ops = world.reconciler.plan(100_000, world.now);
        if ops.is_empty() {
            return done;
        }
        for op in ops {
            let result = world.kernel.apply(&op);
            world.reconciler.applied(&op, result, world.now);
            done.push(op);
        }
    }
}

/// What the kernel should hold beside what it holds, by what routes lead to.
fn leads(world: &World) -> BTreeMap<RouteKey, Route> {
    let ours = world.kernel.ours().routes.into_iter();
    ours.map(|(key, route)| (key, world.kernel.resolve(&route).unwrap()))
        .collect()
}

fn used(kernel: &Kernel) -> BTreeSet<NexthopId> {
    let groups = kernel.ours().routes.into_values();
    let groups: BTreeSet<_> = groups.filter_map(|route| route.object()).collect();
    let members = groups.iter().filter_map(|id| match &kernel.objects[id].1 {
        Object::Group(group) => Some(group.members.to_vec()),
        Object::Hop(_) => None,
    });
    let members: Vec<_> = members.flatten().collect();
    groups.into_iter().chain(members).collect()
}

/// A state whose routes point at groups of its own.
fn grouped() -> impl Strategy<Value = Desired> {
    let objects = (vec(hop(), 1..4), vec(vec(0usize..3, 1..3), 1..4));
    (state(), objects, btree_map(key(), 0usize..4, 0..10)).prop_map(
        |(mut state, (hops, groups), routes)| {
            for (n, hop) in (770_000_000..).zip(&hops) {
                state.objects.insert(n, Object::Hop(*hop));
            }
            for (n, members) in (775_000_000..).zip(&groups) {
                let id = |n: &usize| 770_000_000 + u32::try_from(n % hops.len()).unwrap();
                let group = Group::new(KIND, members.iter().map(id));
                state.objects.insert(n, Object::Group(group));
            }
            for (key, n) in routes {
                let n = u32::try_from(n % groups.len()).unwrap();
                state.routes.insert(key, FibRoute::Object(775_000_000 + n));
            }
            state
        },
    )
}

proptest! {
    #[test]
    fn applying_a_plan_gives_what_is_desired(a in grouped(), b in grouped()) {
        let mut kernel = Kernel::of(&a);
        let ops = plan(&b, &a);
        assert_in_order(&ops);
        for op in &ops {
            kernel.apply(op).unwrap();
        }
        prop_assert_eq!(kernel.collateral, 0, "no route went but by its own deletion");
        prop_assert_eq!(kernel.ours(), b.clone());
        prop_assert_eq!(plan(&b, &b), vec![]);
    }

    #[test]
    fn whatever_happens_it_converges(start in grouped(), happenings in vec(happening(), 0..60)) {
        let mut world = world(Kernel::of(&start));
        for happening in happenings {
            world.happen(happening);
        }
        // What still waits for the rest of its group has waited long enough.
        world.now += Duration::from_secs(1);
        world.settle();
        let mut desired = world.desired.clone();
        desired.retain(|key, _| world.kernel.routes.get(key).is_none_or(|(protocol, _)| *protocol == ROUTE_PROTOCOL));
        prop_assert_eq!(leads(&world), desired);
        // A route that somebody else keeps from its place has its group ready.
        let wanted: BTreeSet<_> = world.desired.values().map(|route| route.next_hops.clone()).collect();
        for (id, object) in world.kernel.ours().objects {
            let needed = match object {
                Object::Group(_) => wanted.contains(&world.kernel.resolve(&FibRoute::Object(id)).unwrap().next_hops),
                Object::Hop(hop) => wanted.iter().any(|hops| hops.contains(&hop)),
            };
            prop_assert!(needed, "nobody uses {}", id);
        }
        prop_assert_eq!(&world.kernel.ours().neighbours, &world.neighbours);
        prop_assert_eq!(world.settle(), 0, "at rest, nothing is done");
        for status in world.reconciler.routes() {
            let foreign = world.kernel.routes.get(&status.key).is_some_and(|(protocol, _)| *protocol != ROUTE_PROTOCOL);
            let state = if foreign { RouteState::Foreign } else { RouteState::Ok };
            prop_assert_eq!(status.state, state, "{:?}", status);
            prop_assert_eq!(status.desired.as_ref(), world.desired.get(&status.key));
        }
    }

    #[test]
    fn what_is_foreign_stays_as_it_was(start in grouped(), happenings in vec(happening(), 0..60)) {
        let mut world = world(Kernel::of(&start));
        for happening in happenings {
            let works = matches!(happening, Happening::Work { .. });
            let foreign = |world: &World| {
                let routes = world.kernel.routes.clone().into_iter();
                let routes: Vec<_> = routes.filter(|(_, (protocol, _))| *protocol != ROUTE_PROTOCOL).collect();
                let objects = world.kernel.objects.clone().into_iter();
                // Who builds a group of our next hops loses them with us.
                let own = |object: &Object| matches!(object, Object::Hop(_));
                let objects: Vec<_> = objects
                    .filter(|(_, (protocol, object))| *protocol != ROUTE_PROTOCOL && own(object))
                    .collect();
                (routes, objects)
            };
            let before = foreign(&world);
            world.happen(happening);
            prop_assert!(!works || foreign(&world) == before);
        }
    }

    #[test]
    fn without_other_hands_no_route_goes_with_its_object(
        wants in vec((key(), proptest::option::of(route())), 0..60), max in 1usize..9, faults in vec(any::<u32>(), 60),
    ) {
        let mut world = world(Kernel::default());
        world.dump();
        world.reconciler.sweep();
        for ((key, route), faults) in wants.into_iter().zip(faults) {
            world.want(key, route);
            world.work(max, faults);
            world.now += Duration::from_millis(40);
        }
        world.settle();
        prop_assert_eq!(world.kernel.collateral, 0);
        prop_assert_eq!(leads(&world), world.desired.clone());
    }

    #[test]
    fn a_successor_finds_nothing_to_do(wants in vec((key(), route()), 0..40), cut in 0usize..30) {
        let mut first = world(Kernel::default());
        first.dump();
        first.reconciler.sweep();
        for (key, route) in wants {
            first.want(key, Some(route));
            if first.desired.len() % 7 == cut % 7 {
                first.settle();
            }
        }
        first.now += Duration::from_secs(1);
        first.settle();
        let mut second = world(first.kernel.clone());
        second.dump();
        for (key, route) in &first.desired {
            second.want(*key, Some(route.clone()));
        }
        prop_assert_eq!(second.settle(), 0);
        prop_assert_eq!(second.kernel, first.kernel);
    }
}

/// So many routes through both ToRs.
fn two_tors(count: u32) -> World {
    let mut it = world(Kernel::default());
    it.dump();
    it.reconciler.sweep();
    want(&mut it, 0..count, &[tor(1, 1), tor(2, 2)]);
    assert_eq!(work(&mut it).len(), 3 + count as usize);
    it
}

#[test]
fn the_loss_of_a_tor_is_one_operation() {
    let mut it = two_tors(1000);
    want(&mut it, 0..1000, &[tor(2, 2)]);
    let ops = work(&mut it);
    let [Op::ReplaceObject(_, Object::Group(_)), Op::DeleteObject(_)] = &ops[..] else {
        panic!("{ops:?}")
    };
    assert_eq!(it.reconciler.counters().moved, 1000);
    assert_eq!(it.reconciler.summary().ok, 1000);
    // And back.
    want(&mut it, 0..1000, &[tor(1, 1), tor(2, 2)]);
    let ops = work(&mut it);
    let [Op::AddObject(_, Object::Hop(_)), Op::ReplaceObject(..)] = &ops[..] else {
        panic!("{ops:?}")
    };
    assert_eq!(leads(&it), it.desired);
}

#[test]
fn several_groups_change_at_once_and_may_come_to_be_equal() {
    let mut it = two_tors(100);
    want(&mut it, 100..200, &[tor(1, 1)]);
    want(&mut it, 200..300, &[tor(2, 2)]);
    assert_eq!(work(&mut it).len(), 202);
    want(&mut it, 0..200, &[tor(2, 2)]);
    let ops = work(&mut it);
    assert_eq!(
        ops.len(),
        3,
        "two groups, and the object of the dead ToR: {ops:?}"
    );
    assert_eq!(leads(&it), it.desired);
    // A successor leaves three equal groups as they are.
    let mut successor = world(it.kernel.clone());
    successor.dump();
    want(&mut successor, 0..300, &[tor(2, 2)]);
    assert_eq!(successor.settle(), 0);
    // The ToR is back: each group's routes go where they were.
    want(&mut it, 0..100, &[tor(1, 1), tor(2, 2)]);
    want(&mut it, 100..200, &[tor(1, 1)]);
    assert_eq!(work(&mut it).len(), 3);
    assert_eq!(leads(&it), it.desired);
}

#[test]
fn moves_that_come_in_portions_wait_for_each_other() {
    let mut it = two_tors(1000);
    for portion in 0..10 {
        assert_eq!(work(&mut it), []);
        want(&mut it, portion * 100..(portion + 1) * 100, &[tor(2, 2)]);
        it.now += Duration::from_millis(5);
    }
    assert_eq!(work(&mut it).len(), 2);
    assert_eq!(leads(&it), it.desired);
}

#[test]
fn moves_do_not_wait_for_what_does_not_come() {
    let mut it = two_tors(1000);
    want(&mut it, 0..500, &[tor(2, 2)]);
    assert_eq!(work(&mut it), []);
    let status = it.reconciler.route(prefix(0)).unwrap();
    assert_eq!(status.state, RouteState::Wrong);
    assert_eq!(status.desired, it.desired.get(&prefix(0)).cloned());
    let (at, _) = it.reconciler.poll_timeout().unwrap();
    assert!(at <= it.now + Duration::from_millis(10));
    it.now = at;
    // Another group, and 500 routes that join it.
    assert_eq!(work(&mut it).len(), 501);
    assert_eq!(leads(&it), it.desired);
    // One who changes his mind while waiting.
    want(&mut it, 500..700, &[tor(2, 2)]);
    assert_eq!(work(&mut it), []);
    want(&mut it, 500..700, &[tor(1, 1), tor(2, 2)]);
    it.now += Duration::from_secs(1);
    assert_eq!(work(&mut it), []);
    assert_eq!(leads(&it), it.desired);
}

#[test]
fn a_predecessors_other_routes_keep_a_group_as_it_is() {
    let first = two_tors(100);
    let mut it = world(first.kernel);
    it.dump();
    want(&mut it, 0..1, &[tor(1, 1), tor(2, 2)]);
    work(&mut it);
    // All that the successor knows of the group moves; 99 others still point at it.
    want(&mut it, 0..1, &[tor(2, 2)]);
    work(&mut it);
    let through_both = leads(&it).into_values();
    assert_eq!(
        through_both.filter(|it| it.next_hops.len() == 2).count(),
        99
    );
}

#[test]
fn inline_routes_of_an_older_version_are_moved_without_a_gap() {
    let mut old = World::new(Kernel::default());
    old.dump();
    want(&mut old, 0..10, &[tor(1, 1), tor(2, 2)]);
    old.settle();
    let mut new = world(old.kernel.clone());
    new.dump();
    want(&mut new, 0..10, &[tor(1, 1), tor(2, 2)]);
    assert_eq!(
        new.reconciler.summary().ok,
        10,
        "they lead where they should"
    );
    let ops = work(&mut new);
    let replaced = |op: &&Op| matches!(op, Op::ReplaceRoute(_, FibRoute::Object(_)));
    assert_eq!(ops.iter().filter(replaced).count(), 10);
    assert_eq!(ops.len(), 13);
    // And the other way round: a kernel of before nexthop objects is not asked for them, but who is told to use none does.
    let mut back = World::new(new.kernel.clone());
    back.dump();
    want(&mut back, 0..10, &[tor(1, 1), tor(2, 2)]);
    back.reconciler.sweep();
    let ops = work(&mut back);
    assert_eq!(ops.len(), 13, "ten routes, then the objects: {ops:?}");
    assert_eq!(back.kernel, old.kernel);
}

#[test]
fn an_identifier_that_somebody_else_has_is_left_alone() {
    let mut it = world(Kernel::default());
    let theirs = Object::Hop(tor(9, 1));
    for id in [770_000_000, 775_000_000] {
        it.kernel.objects.insert(id, (0, theirs.clone()));
    }
    // One comes to light by the dump, the other by the kernel's refusal.
    let foreign = (770_000_000, 0, Some(theirs.clone()));
    it.reconciler.load_objects([foreign]);
    it.reconciler.load([], []);
    want(&mut it, 0..5, &[tor(1, 1)]);
    it.now += Duration::from_secs(1);
    it.settle();
    assert_eq!(leads(&it), it.desired);
    assert_eq!(it.kernel.objects[&770_000_000], (0, theirs.clone()));
    assert_eq!(it.kernel.objects[&775_000_000], (0, theirs));
    // Somebody writes over a group of ours under his own protocol: it is his now, and our routes go elsewhere.
    let group = it.kernel.routes[&prefix(0)].1.object().unwrap();
    let object = it.kernel.objects[&group].1.clone();
    it.kernel.objects.insert(group, (3, object.clone()));
    it.reconciler.handle(&Event::Object(ObjectEvent {
        id: group,
        protocol: 3,
        removed: false,
        object: Some(object),
    }));
    it.settle();
    assert!(!used(&it.kernel).contains(&group));
    assert!(it.kernel.objects.contains_key(&group));
    assert_eq!(leads(&it), it.desired);
}

#[test]
fn a_refused_object_is_the_reason_of_its_routes() {
    let mut it = world(Kernel::default());
    it.dump();
    want(&mut it, 0..100, &[tor(1, 1)]);
    let ops = it.reconciler.plan(1000, it.now);
    let [Op::AddObject(..)] = &ops[..] else {
        panic!("{ops:?}")
    };
    let refused = OpError::Refused {
        errno: 100,
        reason: "Network is down (Carrier for nexthop device is down)".into(),
    };
    assert!(it.reconciler.applied(&ops[0], Err(refused), it.now));
    assert_eq!(
        it.reconciler.plan(1000, it.now),
        [],
        "nothing is tried in vain"
    );
    let status = it.reconciler.route(prefix(7)).unwrap();
    assert_eq!(status.state, RouteState::Missing);
    assert!(
        status
            .reason
            .unwrap()
            .contains("Carrier for nexthop device is down")
    );
    it.now = it.reconciler.poll_timeout().unwrap().0;
    assert_eq!(work(&mut it).len(), 102);
}

#[test]
fn lost_carrier_takes_objects_and_they_come_back() {
    let mut it = two_tors(100);
    it.kernel.lose_carrier(1);
    it.dump();
    // The kernel has done by itself what is desired now.
    want(&mut it, 0..100, &[tor(2, 2)]);
    assert_eq!(work(&mut it), []);
    assert_eq!(it.reconciler.summary().ok, 100);
    it.kernel.lose_carrier(2);
    it.dump();
    assert_eq!(it.reconciler.summary().missing, 100);
    assert_eq!(work(&mut it).len(), 102);
    assert_eq!(leads(&it), it.desired);
}

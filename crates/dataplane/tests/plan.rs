//! Planning and reconciling against a kernel in miniature: whatever the two states, the changes and the faults on the way.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod model;

use std::time::Duration;

use dataplane::{Event, FibRoute, NextHop, Op, ROUTE_PROTOCOL, Route, RouteKey, RouteState, plan};
use model::Kernel;
use model::world::{Happening, World, assert_in_order, happening, state};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #[test]
    fn applying_a_plan_gives_what_is_desired(a in state(), b in state()) {
        let mut kernel = Kernel::of(&a);
        let ops = plan(&b, &a);
        assert_in_order(&ops);
        for op in &ops {
            kernel.apply(op).unwrap();
        }
        prop_assert_eq!(kernel.ours(), b);
    }

    #[test]
    fn there_is_nothing_to_plan_between_equals(a in state()) {
        prop_assert_eq!(plan(&a, &a), vec![]);
    }

    #[test]
    fn a_plan_is_no_longer_than_the_difference(a in state(), b in state()) {
        let keys: std::collections::BTreeSet<_> = a.routes.keys().chain(b.routes.keys()).collect();
        let differ = keys.iter().filter(|key| a.routes.get(key) != b.routes.get(key)).count();
        let routes = |op: &&Op| !matches!(op, Op::SetNeighbour(..) | Op::DeleteNeighbour(_));
        prop_assert_eq!(plan(&b, &a).iter().filter(routes).count(), differ);
    }

    #[test]
    fn a_plan_cut_short_is_taken_up_again(a in state(), b in state(), cut in 0usize..20) {
        let mut kernel = Kernel::of(&a);
        for op in plan(&b, &a).iter().take(cut) {
            kernel.apply(op).unwrap();
        }
        for op in &plan(&b, &kernel.ours()) {
            kernel.apply(op).unwrap();
        }
        prop_assert_eq!(kernel.ours(), b);
    }

    #[test]
    fn the_reconciler_plans_what_the_plan_says(a in state(), b in state()) {
        let mut world = World::new(Kernel::of(&a));
        world.dump();
        for (key, route) in &b.routes {
            world.want(*key, route_of(route));
        }
        for (key, neighbour) in &b.neighbours {
            world.happen(Happening::WantNeighbour((*key, *neighbour), true));
        }
        world.reconciler.sweep();
        let mut ops = world.reconciler.plan(usize::MAX, world.now);
        let mut expected = plan(&b, &a);
        assert_in_order(&ops);
        let sort = |ops: &mut Vec<Op>| ops.sort_by_key(|op| format!("{op:?}"));
        sort(&mut ops);
        sort(&mut expected);
        prop_assert_eq!(ops, expected);
    }

    #[test]
    fn whatever_happens_it_converges(start in state(), happenings in vec(happening(), 0..60)) {
        let mut world = World::new(Kernel::of(&start));
        for happening in happenings {
            world.happen(happening);
        }
        world.settle();
        let neighbours = world.neighbours.clone();
        let mut routes: std::collections::BTreeMap<_, FibRoute> =
            world.desired.clone().into_iter().map(|(key, route)| (key, route.into())).collect();
        routes.retain(|key, _| world.kernel.routes.get(key).is_none_or(|(protocol, _)| *protocol == ROUTE_PROTOCOL));
        let ours = world.kernel.ours();
        prop_assert_eq!(&ours.routes, &routes);
        prop_assert_eq!(&ours.neighbours, &neighbours);
        prop_assert_eq!(world.settle(), 0, "at rest, nothing is done");
        for status in world.reconciler.routes() {
            let foreign = world.kernel.routes.get(&status.key).is_some_and(|(protocol, _)| *protocol != ROUTE_PROTOCOL);
            let state = if foreign { RouteState::Foreign } else { RouteState::Ok };
            prop_assert_eq!(status.state, state, "{:?}", status);
            prop_assert_eq!(status.desired.as_ref(), world.desired.get(&status.key));
        }
    }

    #[test]
    fn foreign_routes_are_as_they_were(start in state(), happenings in vec(happening(), 0..60)) {
        let mut world = World::new(Kernel::of(&start));
        for happening in happenings {
            let meddles = matches!(happening, Happening::Meddle { .. });
            let foreign = |world: &World| -> Vec<_> {
                let all = world.kernel.routes.clone().into_iter();
                all.filter(|(_, (protocol, _))| *protocol != ROUTE_PROTOCOL).collect()
            };
            let before = foreign(&world);
            world.happen(happening);
            prop_assert!(meddles || foreign(&world) == before);
        }
    }

    #[test]
    fn a_predecessors_routes_stay_until_the_sweep(start in state(), wanted in state()) {
        let mut world = World::new(Kernel::of(&start));
        prop_assert_eq!(world.reconciler.plan(100, world.now), vec![], "nothing before the dump");
        world.dump();
        for (key, route) in &wanted.routes {
            world.want(*key, route_of(route));
        }
        while world.work(5, 0) > 0 {}
        for key in start.routes.keys().chain(wanted.routes.keys()) {
            prop_assert!(world.kernel.routes.contains_key(key));
        }
        world.reconciler.sweep();
        while world.work(5, 0) > 0 {}
        prop_assert_eq!(world.kernel.ours().routes, wanted.routes);
    }
}

#[test]
fn pauses_grow_and_end_with_news() {
    let mut world = World::new(Kernel::default());
    world.dump();
    let key = RouteKey::main("10.0.0.0/8".parse().unwrap(), 0);
    world.want(key, Some(Route::blackhole()));
    let mut pauses = Vec::new();
    for _ in 0..14 {
        assert_eq!(world.work(1, 1), 1);
        assert_eq!(world.work(1, 1), 0, "it waits");
        let (at, _) = world.reconciler.poll_timeout().unwrap();
        pauses.push(at - world.now);
        world.now = at;
    }
    assert!(
        pauses[0] >= Duration::from_millis(75) && pauses[0] <= Duration::from_millis(125),
        "{pauses:?}"
    );
    assert!(
        pauses[12] >= Duration::from_millis(22_500) && pauses[13] <= Duration::from_millis(37_500),
        "{pauses:?}"
    );
    assert_eq!(world.work(1, 1), 1);
    // Another wish is tried at once.
    world.want(
        key,
        Some(Route::unicast([NextHop {
            via: None,
            link: 1,
            onlink: false,
        }])),
    );
    assert_eq!(world.work(1, 0), 1);
    assert_eq!(world.reconciler.poll_timeout(), None);
    assert!(world.reconciler.is_installed(key));
}

#[test]
fn a_wish_withdrawn_on_the_way_leaves_nothing_behind() {
    let mut world = World::new(Kernel::default());
    world.dump();
    let key = RouteKey::main("10.0.0.0/8".parse().unwrap(), 0);
    world.want(key, Some(Route::blackhole()));
    let ops = world.reconciler.plan(10, world.now);
    world.want(key, None);
    for op in &ops {
        let result = world.kernel.apply(op);
        world.reconciler.applied(op, result, world.now);
    }
    assert_eq!(world.work(10, 0), 1);
    assert_eq!(world.kernel, Kernel::default());
    assert_eq!(world.reconciler.routes(), []);
}

/// How many operations a second's worth of turns takes when another hand removes the route as soon as it is there.
fn fight(world: &mut World, key: RouteKey, time: Duration) -> Vec<Duration> {
    let (start, mut writes) = (world.now, Vec::new());
    while world.now < start + time {
        world.meddle(key, None, ROUTE_PROTOCOL, true);
        if world.work(10, 0) > 0 {
            writes.push(world.now - start);
        }
        world.now += Duration::from_millis(1);
    }
    writes
}

#[test]
fn what_somebody_keeps_removing_comes_back_ever_later() {
    let mut world = World::new(Kernel::default());
    world.dump();
    let key = RouteKey::main("10.0.0.0/8".parse().unwrap(), 0);
    world.want(key, Some(Route::blackhole()));
    assert_eq!(world.work(1, 0), 1);
    let writes = fight(&mut world, key, Duration::from_secs(60));
    assert_eq!(
        writes[..2],
        [Duration::ZERO, Duration::from_millis(1)],
        "at once at first"
    );
    assert!(writes[2] >= Duration::from_millis(75), "{writes:?}");
    let pauses: Vec<_> = writes[2..]
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    let longest = pauses.iter().max().unwrap();
    assert!(
        *longest >= Duration::from_millis(3750) && *longest <= Duration::from_millis(6300),
        "{pauses:?}"
    );
    assert!((12..30).contains(&writes.len()), "{writes:?}");

    // The status says so, nothing is to be done, and neither a link's event nor another program's passing by shortens it.
    world.meddle(key, None, ROUTE_PROTOCOL, true);
    world.work(10, 0);
    let status = world.reconciler.route(key).unwrap();
    assert_eq!(status.state, RouteState::Missing);
    let reason = status.reason.unwrap();
    assert!(
        reason.starts_with("somebody keeps removing or changing it: "),
        "{reason}"
    );
    assert_eq!(
        world.reconciler.poll_timeout().map(|(at, _)| at),
        status.retry_at
    );
    world
        .reconciler
        .handle(&Event::AddressAdded(1, "192.0.2.1/24".parse().unwrap()));
    world.meddle(key, Some(Route::blackhole().into()), 4, true);
    world.meddle(key, None, 4, true);
    assert!(world.work(10, 0) == 0 && status.retry_at.is_some());

    // Another wish is news, and tried at once.
    let other = Route::unicast([NextHop {
        via: None,
        link: 1,
        onlink: false,
    }]);
    world.want(key, Some(other));
    assert_eq!(world.work(10, 0), 1);
}

#[test]
fn what_stays_put_is_forgiven() {
    let mut world = World::new(Kernel::default());
    world.dump();
    let key = RouteKey::main("10.0.0.0/8".parse().unwrap(), 0);
    world.want(key, Some(Route::blackhole()));
    assert_eq!(world.work(1, 0), 1);
    // Now and then is no fight, however often.
    for _ in 0..20 {
        world.meddle(key, None, ROUTE_PROTOCOL, true);
        assert_eq!(world.work(10, 0), 1);
        world.now += Duration::from_secs(1);
    }
    // A dump shows losses like events do.
    let mut healed = 0;
    for _ in 0..3 {
        world.meddle(key, None, ROUTE_PROTOCOL, false);
        world.dump();
        healed += world.work(10, 0);
    }
    assert_eq!(healed, 2);
    world.now = world.reconciler.poll_timeout().unwrap().0;
    assert_eq!(world.work(10, 0), 1);
    assert!(world.reconciler.is_installed(key));
    world.now += Duration::from_secs(10);
    for _ in 0..2 {
        world.meddle(key, None, ROUTE_PROTOCOL, true);
        assert_eq!(world.work(10, 0), 1, "forgiven");
    }
    world.meddle(key, None, ROUTE_PROTOCOL, true);
    assert_eq!(world.work(10, 0), 0);
}

fn route_of(route: &FibRoute) -> Option<Route> {
    match route {
        FibRoute::Inline(route) => Some(route.clone()),
        FibRoute::Object(_) => None,
    }
}

//! All differences between two states at once, as operations in a safe order.

use crate::{Desired, NexthopId, Object, Op};

/// What turns `actual` into `desired`: over the union of both, nexthop objects before the groups and routes that point at them,
/// neighbours before the routes that need them, additions and replacements before deletions, so that nothing that both hold is
/// ever without a way; and nothing goes while something may still point at it. Empty when both are equal.
///
/// [`Reconciler`](crate::Reconciler) does the same key by key, as changes come.
pub fn plan(desired: &Desired, actual: &Desired) -> Vec<Op> {
    let mut ops = Vec::new();
    for wanted in [is_hop as fn(&Object) -> bool, is_group] {
        ops.extend(objects(desired, actual, wanted));
    }
    for (key, neighbour) in &desired.neighbours {
        if actual.neighbours.get(key) != Some(neighbour) {
            ops.push(Op::SetNeighbour(*key, *neighbour));
        }
    }
    for (key, route) in &desired.routes {
        match actual.routes.get(key) {
            Some(same) if same == route => {}
            Some(_) => ops.push(Op::ReplaceRoute(*key, route.clone())),
            None => ops.push(Op::AddRoute(*key, route.clone())),
        }
    }
    for (key, route) in actual
        .routes
        .iter()
        .filter(|(key, _)| !desired.routes.contains_key(key))
    {
        ops.push(Op::DeleteRoute(*key, Some(route.kind())));
    }
    for key in actual
        .neighbours
        .keys()
        .filter(|key| !desired.neighbours.contains_key(key))
    {
        ops.push(Op::DeleteNeighbour(*key));
    }
    let gone = |of: fn(&Object) -> bool| {
        let gone = actual
            .objects
            .iter()
            .filter(move |(id, object)| of(object) && !desired.objects.contains_key(id));
        gone.map(|(id, _)| Op::DeleteObject(*id))
    };
    ops.extend(gone(is_group));
    ops.extend(gone(is_hop));
    ops
}

/// Additions and replacements of one kind of object.
fn objects<'a>(
    desired: &'a Desired,
    actual: &'a Desired,
    wanted: fn(&Object) -> bool,
) -> impl Iterator<Item = Op> + 'a {
    let step = |(id, object): (&NexthopId, &Object)| match actual.objects.get(id) {
        Some(same) if same == object => None,
        Some(_) => Some(Op::ReplaceObject(*id, object.clone())),
        None => Some(Op::AddObject(*id, object.clone())),
    };
    desired
        .objects
        .iter()
        .filter(move |(_, object)| wanted(object))
        .filter_map(step)
}

fn is_hop(object: &Object) -> bool {
    matches!(object, Object::Hop(_))
}

fn is_group(object: &Object) -> bool {
    matches!(object, Object::Group(_))
}

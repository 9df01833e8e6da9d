//! All differences between two states at once, as operations in a safe order.

use crate::{Desired, Op};

/// What turns `actual` into `desired`: over the union of both, neighbours before the routes that need them, additions and
/// replacements before deletions, so that nothing that both hold is ever without a way. Empty when both are equal.
///
/// [`Reconciler`](crate::Reconciler) does the same key by key, as changes come.
pub fn plan(desired: &Desired, actual: &Desired) -> Vec<Op> {
    let mut ops = Vec::new();
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
        ops.push(Op::DeleteRoute(*key, Some(route.kind)));
    }
    for key in actual
        .neighbours
        .keys()
        .filter(|key| !desired.neighbours.contains_key(key))
    {
        ops.push(Op::DeleteNeighbour(*key));
    }
    ops
}

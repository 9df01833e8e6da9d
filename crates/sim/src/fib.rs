//! A node's kernel, as far as routes go: what the speaker has told of, and what a predecessor left.

use std::collections::BTreeMap;

use bgp::rib::RouteChange;

use crate::address::{Block, NodeId};

/// Sets of next hops, each kept once for all nodes.
#[derive(Debug, Default)]
pub struct NextHops {
    sets: Vec<Box<[NodeId]>>,
    by_set: BTreeMap<Box<[NodeId]>, u32>,
}

impl NextHops {
    fn intern(&mut self, set: Vec<NodeId>) -> u32 {
        let set = set.into_boxed_slice();
        if let Some(&number) = self.by_set.get(&set) {
            return number;
        }
        self.sets.push(set.clone());
        let number = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
        self.by_set.insert(set, number);
        number
    }

    fn get(&self, number: u32) -> &[NodeId] {
        match number.checked_sub(1) {
            Some(at) => &self.sets[at as usize],
            None => &[],
        }
    }
}

/// One node's routes. Four octets a route, so that five thousand nodes can have five thousand each.
#[derive(Debug, Default)]
pub struct Fib {
    /// By block; 0: no route.
    routes: Vec<u32>,
    count: usize,
    /// After a restart: which routes the new speaker has told of. The others are swept once it is synced.
    told: Option<Vec<bool>>,
}

impl Fib {
    /// How many routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no route.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where packets for a block go: to any of these; none: there is no route.
    #[must_use]
    pub fn lookup<'a>(&self, block: Block, next_hops: &'a NextHops) -> &'a [NodeId] {
        next_hops.get(self.routes.get(block.index()).copied().unwrap_or(0))
    }

    /// All routes.
    pub fn iter<'a>(
        &'a self,
        next_hops: &'a NextHops,
    ) -> impl Iterator<Item = (Block, &'a [NodeId])> {
        (0..)
            .zip(&self.routes)
            .filter(|(_, number)| **number != 0)
            .map(|(block, number)| (Block(block), next_hops.get(*number)))
    }

    /// Whether anything from before a restart is still there unconfirmed.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.told.is_some()
    }

    /// The speaker is gone and its routes stay.
    pub(crate) fn inherit(&mut self) {
        self.told = Some(vec![false; self.routes.len()]);
    }

    /// The new speaker knows all it will know: what it has not told of goes.
    pub(crate) fn synced(&mut self) {
        for (at, told) in self.told.take().unwrap_or_default().into_iter().enumerate() {
            if !told {
                self.set(at, 0);
            }
        }
    }

    pub(crate) fn apply(&mut self, change: &RouteChange, next_hops: &mut NextHops) {
        let Some(block) = Block::of(&change.prefix) else {
            return;
        };
        let mut set: Vec<NodeId> = change
            .next_hops
            .iter()
            .filter_map(|next_hop| NodeId::of(next_hop.address()))
            .collect();
        set.sort_unstable();
        let number = if set.is_empty() {
            0
        } else {
            next_hops.intern(set)
        };
        self.set(block.index(), number);
        if let Some(told) = &mut self.told {
            if told.len() <= block.index() {
                told.resize(block.index() + 1, false);
            }
            told[block.index()] = true;
        }
    }

    fn set(&mut self, at: usize, number: u32) {
        if self.routes.len() <= at {
            if number == 0 {
                return;
            }
            self.routes.resize(at + 1, 0);
        }
        let old = std::mem::replace(&mut self.routes[at], number);
        self.count = self.count + usize::from(number != 0) - usize::from(old != 0);
    }
}

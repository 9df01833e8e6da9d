//! What is to be told of blocks and pools: to whoever gives addresses, to metrics, to a person.

use std::collections::{BTreeMap, BTreeSet};

use ipam::blocks;
use node::Pool;
use resources::{Problem, Severity};

use super::{Holder, PoolUsage, Stage, occupied};

impl Holder {
    /// Says which pools have no free block.
    pub(super) fn tell_full(&mut self) {
        let Some(listed) = &self.listed else {
            return;
        };
        let occupied = occupied(listed, &self.plan);
        let full = |pool: &&Pool| {
            let (reserved, len) = (&self.plan.reserved, pool.block_len);
            blocks::next_free(pool.cidr, len, &occupied, reserved, 0).is_none()
        };
        let pools = self.plan.pools.iter().filter(full);
        let pools: BTreeMap<String, String> = pools
            .map(|pool| (pool.name.clone(), self.full_message(pool)))
            .collect();
        self.waiting = !pools.is_empty();
        self.addresses.set_full(pools);
    }

    /// How many blocks each pool has.
    pub(crate) fn pools(&self) -> Vec<PoolUsage> {
        let Some(listed) = &self.listed else {
            return Vec::new();
        };
        let occupied = occupied(listed, &self.plan);
        let usage = |pool: &Pool| PoolUsage {
            pool: pool.name.clone(),
            total: blocks::count(pool.cidr, pool.block_len),
            taken: blocks::taken(pool.cidr, pool.block_len, &occupied, &self.plan.reserved),
            own: self
                .held
                .keys()
                .filter(|cidr| pool.cidr.contains(*cidr))
                .count() as u64,
        };
        self.plan.pools.iter().map(usage).collect()
    }

    pub(super) fn full_message(&self, pool: &Pool) -> String {
        let count = blocks::count(pool.cidr, pool.block_len);
        let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
        for stored in self.listed.iter().flat_map(|listed| &listed.blocks) {
            if pool.cidr.contains(&stored.block.spec.cidr) {
                *owners.entry(&stored.block.spec.node).or_default() += 1;
            }
        }
        let (name, cidr, nodes) = (&pool.name, pool.cidr, owners.len());
        let mut message = format!(
            "IPPool {name} ({cidr}) has no free block: all {count} are reserved or taken, by {nodes} nodes"
        );
        let orphans: BTreeSet<&str> = owners
            .keys()
            .filter(|owner| !self.plan.nodes.contains(**owner))
            .copied()
            .collect();
        if !orphans.is_empty() {
            let names = orphans.into_iter().collect::<Vec<_>>().join(", ");
            message += &match &self.reclaim {
                Some(reclaim) => format!(
                    "; there is no Node {names}: its blocks come back {} s after it went",
                    reclaim.grace.as_secs()
                ),
                None => {
                    format!("; there is no Node {names}: if that is meant, delete its IPAMBlocks")
                }
            };
        }
        message
    }

    /// What is wrong, for a person.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let problem = |source: String, severity, message| Problem {
            source,
            line: None,
            object: None,
            field: String::new(),
            severity,
            message,
        };
        let mut problems = Vec::new();
        if let Some(error) = &self.error {
            let message =
                format!("{error}: the node keeps the blocks that it has, and can take no other");
            problems.push(problem(String::new(), Severity::Error, message));
        }
        for unreadable in self.listed.iter().flat_map(|listed| &listed.unreadable) {
            let whose = match unreadable.cidr {
                Some(cidr) => format!("{}: nobody takes {cidr} meanwhile", unreadable.message),
                None => unreadable.message.clone(),
            };
            problems.push(problem(unreadable.source.clone(), Severity::Error, whose));
        }
        for (cidr, other) in &self.lost {
            let message = format!(
                "block {cidr} was this node's, and now is Node {other}'s: delete the pods that have addresses in it"
            );
            problems.push(problem(String::new(), Severity::Error, message));
        }
        for (cidr, (node, how)) in self.reclaim.iter().flat_map(|reclaim| &reclaim.alive) {
            let message = format!(
                "block {cidr} of Node {node}, which there is not, is in use: {how}. Switch that machine off, or make its Node again"
            );
            problems.push(problem(String::new(), Severity::Warning, message));
        }
        for (cidr, held) in &self.held {
            if let Stage::Disputed { with } = &held.stage {
                let message = format!(
                    "block {cidr} overlaps {with}: no address is given from it; it goes back with its last pod"
                );
                problems.push(problem(String::new(), Severity::Error, message));
            } else if self.planned && !self.plan.pools.iter().any(|pool| pool.cidr.contains(cidr)) {
                let message = format!(
                    "block {cidr} is in no IPPool that gives addresses on this node: it goes back with its last pod"
                );
                problems.push(problem(String::new(), Severity::Warning, message));
            }
        }
        problems
    }
}

//! Blocks of nodes that are no more.
//!
//! A Node that is deleted may come back, with pods that never stopped: one that registers anew, one that a cloud lost sight of.
//! So its blocks stay for a while; they stay as long as anybody announces them; and they are deleted as they were read
//! before the API server said that there is no such Node. Each block has an order in which the nodes would take it back, by
//! a hash: the first does it as a rule, and the others only if it didn't. An agent that lives makes its block again when that
//! is deleted: then it is let alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Holder, hash};

/// How long the next node in order waits for the one before it.
const TURN: Duration = Duration::from_secs(10);
/// How long until a block is looked at again that could not be taken back.
const AGAIN: Duration = Duration::from_secs(60);
/// Blocks in one look: each takes two requests.
const AT_ONCE: usize = 16;

/// When blocks of nodes that are no more come back, and which.
pub(super) struct Reclaim {
    pub(super) grace: Duration,
    /// Nodes with blocks that there are not, and since when.
    absent: BTreeMap<String, Instant>,
    /// Their blocks, and when it is this node's turn; `None`: never.
    due: BTreeMap<IpNet, Option<Instant>>,
    /// Those that are in use all the same: whose, and how that shows.
    pub(super) alive: BTreeMap<IpNet, (String, &'static str)>,
    /// What version each block was of when its node was first seen to be gone.
    versions: BTreeMap<(IpNet, String), String>,
}

impl Holder {
    /// Blocks of nodes come back that have been gone for `grace`, where nobody announces them.
    pub(crate) fn set_reclaim(&mut self, grace: Duration) {
        self.reclaim = Some(Reclaim {
            grace,
            absent: BTreeMap::new(),
            due: BTreeMap::new(),
            alive: BTreeMap::new(),
            versions: BTreeMap::new(),
        });
    }

    /// Takes back what it is time for.
    pub(super) fn reclaim(&mut self, now: Instant) {
        // Whoever knows of no Node of its own knows too little of others.
        if self.resting || !self.plan.nodes.contains(&self.node) {
            return;
        }
        let Some(mut reclaim) = self.reclaim.take() else {
            return;
        };
        if std::mem::take(&mut self.other) {
            self.note_absent(&mut reclaim, now);
        }
        let due = reclaim.due.iter();
        let due = due.filter(|(_, at)| at.is_some_and(|at| at <= now));
        let due: Vec<IpNet> = due.map(|(cidr, _)| *cidr).take(AT_ONCE).collect();
        if !due.is_empty()
            && let Some(routed) = (self.routed)()
        {
            for cidr in due {
                let again = now + AGAIN.min(reclaim.grace);
                if let Some(at) = reclaim.due.get_mut(&cidr) {
                    *at = Some(again);
                }
                let announced = routed.iter().any(|prefix| cidr.contains(prefix));
                if !self.take_back(&mut reclaim, cidr, announced) {
                    break;
                }
            }
        }
        self.reclaim = Some(reclaim);
    }

    fn note_absent(&self, reclaim: &mut Reclaim, now: Instant) {
        let mut absent = BTreeMap::new();
        let mut due = BTreeMap::new();
        for stored in self.listed.iter().flat_map(|listed| &listed.blocks) {
            let spec = &stored.block.spec;
            if self.plan.nodes.contains(&spec.node) {
                continue;
            }
            let since = reclaim.absent.get(&spec.node).copied().unwrap_or(now);
            absent.insert(spec.node.clone(), since);
            let key = (spec.cidr, spec.node.clone());
            let first = reclaim.versions.entry(key);
            if *first.or_insert_with(|| stored.version.clone()) != stored.version {
                let whose = (spec.node.clone(), "its agent has made it again");
                reclaim.alive.insert(spec.cidr, whose);
                due.insert(spec.cidr, None);
                continue;
            }
            let at = reclaim.due.get(&spec.cidr).copied().flatten();
            let at = at.unwrap_or_else(|| since + reclaim.grace + TURN * self.rank(spec.cidr));
            due.insert(spec.cidr, Some(at));
        }
        let nodes = &self.plan.nodes;
        reclaim
            .versions
            .retain(|(_, node), _| !nodes.contains(node));
        reclaim.alive.retain(|cidr, _| due.contains_key(cidr));
        (reclaim.absent, reclaim.due) = (absent, due);
    }

    /// How many nodes come before this one.
    fn rank(&self, cidr: IpNet) -> u32 {
        let weight = |node: &str| hash(&format!("{cidr} {node}"));
        let own = weight(&self.node);
        let nodes = self.plan.nodes.iter();
        let before = nodes.filter(|node| weight(node) > own).count();
        u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// Whether the store can be asked for more.
    fn take_back(&mut self, reclaim: &mut Reclaim, cidr: IpNet, announced: bool) -> bool {
        let Some(listed) = &mut self.listed else {
            return false;
        };
        let mut blocks = listed.blocks.iter();
        let Some(place) = blocks.position(|stored| stored.block.spec.cidr == cidr) else {
            return true;
        };
        let stored = &listed.blocks[place];
        let node = &stored.block.spec.node;
        if announced {
            let whose = (node.clone(), "somebody announces it");
            reclaim.alive.insert(cidr, whose);
            return true;
        }
        reclaim.alive.remove(&cidr);
        match self.store.is_gone(node) {
            Ok(true) => {}
            Ok(false) => return true,
            Err(error) => {
                self.error = Some(error);
                return false;
            }
        }
        match self.store.delete(stored) {
            Ok(()) => {
                tracing::warn!(block = %cidr, node, grace = ?reclaim.grace, "there has been no such Node for so long, and nobody announces its block: taken back");
                listed.blocks.remove(place);
                reclaim.due.remove(&cidr);
                self.tell_full();
            }
            // Another node was faster, or it is somebody's again.
            Err(error) => tracing::debug!(block = %cidr, node, %error, "not taken back"),
        }
        true
    }
}

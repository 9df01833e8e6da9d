//! A block ahead of need: where few addresses are left another block is taken before a pod has to wait for it, and where
//! few would be left without it an unused one stays.

use std::time::{Duration, Instant};

use ipam::{Usage, blocks};
use ipnet::IpNet;
use node::Pool;

use super::{Answer, Holder, Stage, occupied};

/// Few addresses are less than this share of a block: of one of 64 (IPv4), less than 7. Blocks of less than eight have no such
/// share, and none is taken ahead.
const SHARE: u128 = 8;
/// How long after one attempt another is made.
const AGAIN: Duration = Duration::from_secs(10);

/// What the node's blocks of a pool have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Supply {
    /// Addresses in use.
    used: u128,
    /// Addresses that could be given.
    free: u128,
    /// Less than this are few.
    few: u128,
}

impl Holder {
    /// Takes a block ahead for each pool that needs one.
    pub(super) fn take_ahead(&mut self, usage: &[Usage], now: Instant) {
        self.near = false;
        let plan = std::sync::Arc::clone(&self.plan);
        for pool in plan.pools.iter().filter(|pool| pool.automatic) {
            let supply = self.supply(pool, usage, None);
            if supply.used == 0 || supply.free >= supply.few * 4 || !self.has_plenty(pool) {
                continue;
            }
            self.near = true;
            let waits = self.ahead_at.is_some_and(|at| now < at);
            if supply.free >= supply.few || waits || self.resting {
                continue;
            }
            self.ahead_at = Some(now + AGAIN);
            if let Answer::Claimed(block) = self.claim(pool) {
                tracing::info!(%block, free = supply.free, "taken ahead: few addresses are left");
            }
        }
    }

    /// Whether an unused block is kept for pods to come.
    pub(super) fn is_spare(&self, cidr: IpNet, usage: &[Usage]) -> bool {
        let mut pools = self.plan.pools.iter();
        let Some(pool) = pools.find(|pool| pool.automatic && pool.cidr.contains(&cidr)) else {
            return false;
        };
        let rest = self.supply(pool, usage, Some(cidr));
        // Twice as few as those that have one taken: pods that come and go at that edge move no block.
        rest.used > 0 && rest.free < rest.few * 2 && self.has_plenty(pool)
    }

    /// Who takes more than is needed shall not be the one who leaves nothing to others: a quarter of the blocks is free.
    fn has_plenty(&self, pool: &Pool) -> bool {
        let Some(listed) = &self.listed else {
            return false;
        };
        let reserved = &self.plan.reserved;
        let occupied = occupied(listed, &self.plan);
        let taken = blocks::taken(pool.cidr, pool.block_len, &occupied, reserved);
        let count = blocks::count(pool.cidr, pool.block_len);
        taken < count - count / 4
    }

    fn supply(&self, pool: &Pool, usage: &[Usage], without: Option<IpNet>) -> Supply {
        let mut supply = Supply {
            few: block_size(pool) / SHARE,
            ..Supply::default()
        };
        for (cidr, held) in &self.held {
            let active = matches!(held.stage, Stage::Active { .. });
            if !active || !pool.cidr.contains(cidr) || Some(*cidr) == without {
                continue;
            }
            match usage.iter().find(|usage| usage.cidr == *cidr) {
                Some(usage) => {
                    supply.used += usage.used;
                    supply.free += usage.total.saturating_sub(usage.used + usage.cooling);
                }
                // Just taken: no plan with it is in force yet.
                None => supply.free += block_size(pool),
            }
        }
        supply
    }
}

/// Addresses that a block gives: as many as there are, but for the first and the last.
fn block_size(pool: &Pool) -> u128 {
    let host_bits = u32::from(pool.cidr.max_prefix_len() - pool.block_len);
    (1u128 << host_bits.min(64)).saturating_sub(2)
}

//! Which blocks this node has, takes and gives back. Time is an argument; the store and the addresses are given.
//!
//! | stage of a block | announced | addresses are given | left when |
//! | --- | --- | --- | --- |
//! | active | yes | yes | no address has been in use for the grace time |
//! | disputed: it overlaps another node's | while it has pods | no | the other one is gone, or its own last pod |
//! | closed | no, as soon as the plan without it is in force | no | that plan is in force |
//! | leaving | no | no | the kernel has no route for it any more: after a restart it keeps what it had until all peers have spoken |
//! | withdrawn | no | no | peers have had time to hear of it; then its object is deleted |
//!
//! A block is created first and looked at then: where another block overlaps it (of another size; one of the same size has
//! the same name), the newcomer gives way. Of two that come at once both may; neither gives an address before it has looked.

mod ahead;
mod claim;
mod reclaim;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use node::AddressPlan;
use resources::IpamBlock;

use super::store::{BlockStore, CreateError, Listed, StoreError, Stored};

/// How long a withdrawal may take to reach everybody before the block can be another node's.
pub(crate) const WITHDRAWAL: Duration = Duration::from_secs(5);

/// Who gives the addresses of the blocks.
pub trait Addresses: Send + Sync {
    /// How full each range is that addresses are given from.
    fn usage(&self) -> Vec<ipam::Usage>;
    /// Gives no more addresses of a block. With `only_unused`, only where none is in use or rests; whether it was done.
    fn close(&self, block: IpNet, only_unused: bool) -> bool;
    /// Takes that back.
    fn open(&self, block: IpNet);
    /// Pools without a free block, each with words about that.
    fn set_full(&self, pools: BTreeMap<String, String>);
}

/// Prefixes that the kernel has routes of ours to; `None` when that can't be told.
pub type Routed = Box<dyn Fn() -> Option<Vec<IpNet>> + Send>;

/// A block that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Names of the pools that it may be of; the first that has one is taken.
    pub pools: Vec<String>,
    /// An address that it must have.
    pub address: Option<IpAddr>,
}

/// What became of a [`Want`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The node has this block, and will give addresses of it when its plan says so.
    Claimed(IpNet),
    /// There is none, and why.
    Full(String),
    /// It can't be told now, and why.
    Unavailable(String),
}

/// How many blocks a pool has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pool's name.
    pub pool: String,
    /// Blocks in all.
    pub total: u128,
    /// Blocks that some node has, or that can't be had.
    pub taken: u128,
    /// Blocks that this node has.
    pub own: u64,
}

#[derive(Debug)]
struct Held {
    stored: Stored,
    stage: Stage,
    /// When the store was last read, it overlapped another node's.
    disputed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Active { unused_since: Option<Instant> },
    Disputed { with: String },
    Closed,
    Leaving,
    Withdrawn { since: Instant },
}

impl Held {
    fn new(stored: Stored) -> Self {
        Self {
            stored,
            stage: Stage::Active { unused_since: None },
            disputed: false,
        }
    }

    /// It is on its way out.
    fn is_leaving(&self) -> bool {
        matches!(
            self.stage,
            Stage::Closed | Stage::Leaving | Stage::Withdrawn { .. }
        )
    }
}

/// This node's blocks.
pub(crate) struct Holder {
    node: String,
    store: Box<dyn BlockStore>,
    addresses: Arc<dyn Addresses>,
    routed: Routed,
    grace: Duration,
    plan: Arc<AddressPlan>,
    /// There has been one.
    planned: bool,
    held: BTreeMap<IpNet, Held>,
    /// What the store had when it was last read; `None` before that.
    listed: Option<Listed>,
    /// Why it can't be read, or written.
    error: Option<StoreError>,
    /// It has failed a moment ago: it is not asked.
    resting: bool,
    /// Some pool has no free block.
    waiting: bool,
    /// Blocks that were this node's until somebody else's name stood in them.
    lost: BTreeMap<IpNet, String>,
    /// Whether blocks of nodes that are no more come back.
    reclaim: Option<reclaim::Reclaim>,
    /// The plan, or what the store had, is another than it was.
    other: bool,
    /// Few addresses are left of some pool, or soon will be.
    near: bool,
    /// When a block may be taken ahead again.
    ahead_at: Option<Instant>,
}

impl Holder {
    pub(crate) fn new(
        node: String,
        store: Box<dyn BlockStore>,
        addresses: Arc<dyn Addresses>,
        routed: Routed,
        grace: Duration,
    ) -> Self {
        Self {
            node,
            store,
            addresses,
            routed,
            grace,
            plan: Arc::default(),
            planned: false,
            held: BTreeMap::new(),
            listed: None,
            error: None,
            resting: false,
            waiting: false,
            lost: BTreeMap::new(),
            reclaim: None,
            other: false,
            near: false,
            ahead_at: None,
        }
    }

    pub(crate) fn set_plan(&mut self, plan: Arc<AddressPlan>) {
        self.plan = plan;
        (self.planned, self.other) = (true, true);
        self.tell_full();
    }

    /// The blocks that the node announces, or why that is not known yet.
    pub(crate) fn announced(&self) -> Result<Vec<IpNet>, String> {
        if self.listed.is_none() {
            let error = self.error.as_ref();
            return Err(error.map_or_else(|| "not read yet".to_owned(), ToString::to_string));
        }
        let announced = |held: &Held| match held.stage {
            Stage::Active { .. } | Stage::Disputed { .. } => true,
            Stage::Closed | Stage::Leaving | Stage::Withdrawn { .. } => false,
        };
        let held = self.held.iter().filter(|(_, held)| announced(held));
        Ok(held.map(|(cidr, _)| *cidr).collect())
    }

    /// Whether the store did not do what it was asked last.
    pub(crate) fn has_failed(&self) -> bool {
        self.error.is_some()
    }

    /// As long as it rests, nobody waits for a store that does not answer.
    pub(crate) fn rest(&mut self, resting: bool) {
        self.resting = resting;
    }

    /// How long until the store is to be read again though nobody asks.
    pub(crate) fn pace(&self) -> Duration {
        let disputed = |held: &Held| matches!(held.stage, Stage::Disputed { .. });
        let waiting = self.waiting || self.held.values().any(disputed);
        self.store.pace(self.plan.nodes.len(), waiting)
    }

    /// Reads the store, and follows what others did to this node's blocks.
    pub(crate) fn refresh(&mut self) {
        if self.read() && self.follow() && self.read() {
            self.follow();
        }
    }

    /// The same of this node's blocks alone, as long as they are as they should be.
    pub(crate) fn refresh_own(&mut self) {
        let listed = match self.store.list_of(&self.node) {
            Ok(listed) => listed,
            Err(error) => {
                self.error = Some(error);
                return;
            }
        };
        self.error = None;
        let own = listed.blocks.iter().map(|stored| &stored.block.spec);
        let own = own.filter(|spec| spec.node == self.node);
        let here: BTreeSet<IpNet> = own.map(|spec| spec.cidr).collect();
        // What is new or missing is to be seen beside those of others.
        let as_known = self.held.keys().eq(&here);
        match self.listed.is_some() && as_known && listed.unreadable.is_empty() {
            true => self.adopt(&listed),
            false => self.refresh(),
        }
    }

    /// Whether the store is to be read once more, for it has been written.
    fn follow(&mut self) -> bool {
        let Some(listed) = self.listed.take() else {
            return false;
        };
        self.adopt(&listed);
        let present: BTreeMap<IpNet, &str> = listed
            .blocks
            .iter()
            .map(|stored| (stored.block.spec.cidr, stored.block.spec.node.as_str()))
            .collect();
        let missing: Vec<IpNet> = self
            .held
            .keys()
            .filter(|cidr| present.get(cidr) != Some(&self.node.as_str()))
            .copied()
            .collect();
        let mut written = false;
        for cidr in missing {
            match present.get(&cidr) {
                Some(other) => {
                    tracing::error!(block = %cidr, node = other, "another node's name stands in this node's block: given up");
                    self.lost.insert(cidr, (*other).to_owned());
                    self.held.remove(&cidr);
                }
                None => written |= self.restore(cidr),
            }
        }
        self.lost.retain(|cidr, _| present.contains_key(cidr));
        self.settle_disputes(&listed);
        self.listed = Some(listed);
        self.tell_full();
        written
    }

    /// Holds what has this node's name, whoever created it: an agent before this one, or this one by a request whose answer
    /// was lost.
    fn adopt(&mut self, listed: &Listed) {
        for stored in &listed.blocks {
            if stored.block.spec.node != self.node {
                continue;
            }
            let cidr = stored.block.spec.cidr;
            self.lost.remove(&cidr);
            let held = self.held.entry(cidr);
            let held = held.or_insert_with(|| Held::new(stored.clone()));
            held.stored = stored.clone();
        }
    }

    /// Somebody has deleted the object of a block. Whether there is another one now.
    fn restore(&mut self, cidr: IpNet) -> bool {
        if self.held.get(&cidr).is_some_and(Held::is_leaving) {
            self.held.remove(&cidr);
            self.addresses.open(cidr);
            return false;
        }
        match self.store.create(&IpamBlock::new(cidr, &self.node)) {
            Ok(stored) => {
                tracing::warn!(block = %cidr, "the object of this node's block was gone: created again");
                if let Some(held) = self.held.get_mut(&cidr) {
                    held.stored = stored;
                }
            }
            Err(CreateError::Exists) => {}
            Err(CreateError::Failed(error)) => {
                self.error = Some(error);
                return false;
            }
        }
        true
    }

    fn settle_disputes(&mut self, listed: &Listed) {
        for (cidr, held) in &mut self.held {
            let rival = rival(listed, *cidr, &self.node);
            held.disputed = rival.is_some();
            match (&held.stage, rival) {
                (Stage::Active { .. }, Some(with)) => {
                    tracing::error!(block = %cidr, with, "overlaps another node's block: no address is given from it");
                    self.addresses.close(*cidr, false);
                    held.stage = Stage::Disputed { with };
                }
                (Stage::Disputed { .. }, None) => {
                    self.addresses.open(*cidr);
                    held.stage = Stage::Active { unused_since: None };
                }
                _ => {}
            }
        }
    }

    /// Follows which blocks are in use, and gives back what has not been for long.
    pub(crate) fn look(&mut self, now: Instant) {
        self.reclaim(now);
        let usage = self.addresses.usage();
        let unused = |cidr: IpNet| {
            let mut usage = usage.iter().filter(|usage| usage.cidr == cidr);
            usage.any(|usage| usage.used == 0 && usage.cooling == 0)
        };
        let mut gone = Vec::new();
        let mut needless = Vec::new();
        for (cidr, held) in &mut self.held {
            match &mut held.stage {
                Stage::Active { unused_since } if !unused(*cidr) => *unused_since = None,
                Stage::Active { unused_since } => {
                    let since = *unused_since.get_or_insert(now);
                    if now.saturating_duration_since(since) >= self.grace {
                        needless.push(*cidr);
                    }
                }
                Stage::Disputed { .. } => {
                    if self.addresses.close(*cidr, true) {
                        held.stage = Stage::Closed;
                    }
                }
                Stage::Withdrawn { since }
                    if !self.resting && now.saturating_duration_since(*since) >= WITHDRAWAL =>
                {
                    match self.store.delete(&held.stored) {
                        Ok(()) => gone.push(*cidr),
                        Err(error) => self.error = Some(error),
                    }
                }
                Stage::Closed | Stage::Leaving | Stage::Withdrawn { .. } => {}
            }
        }
        for cidr in gone {
            tracing::info!(block = %cidr, "given back");
            self.held.remove(&cidr);
            self.addresses.open(cidr);
        }
        // One after the other: what goes is no longer there for the next.
        for cidr in needless {
            if !self.is_spare(cidr, &usage) && self.addresses.close(cidr, true) {
                tracing::info!(block = %cidr, "no address in use: withdrawn");
                self.set_stage(cidr, Stage::Closed);
            }
        }
        self.follow_kernel(now);
        self.take_ahead(&usage, now);
    }

    /// What no plan has is withdrawn when the kernel hasn't it either.
    fn follow_kernel(&mut self, now: Instant) {
        let leaving = |held: &Held| held.stage == Stage::Leaving;
        if !self.held.values().any(leaving) {
            return;
        }
        let Some(routed) = (self.routed)() else {
            return;
        };
        for (cidr, held) in &mut self.held {
            if leaving(held) && !routed.contains(cidr) {
                held.stage = Stage::Withdrawn { since: now };
            }
        }
    }

    fn set_stage(&mut self, cidr: IpNet, stage: Stage) {
        if let Some(held) = self.held.get_mut(&cidr) {
            held.stage = stage;
        }
    }

    /// A plan with these ranges is in force.
    pub(crate) fn in_force(&mut self, ranges: &[IpNet], now: Instant) {
        for (cidr, held) in &mut self.held {
            if held.stage == Stage::Closed && !ranges.contains(cidr) {
                held.stage = Stage::Leaving;
            }
        }
        self.follow_kernel(now);
    }

    /// Whether something is to be done soon.
    pub(crate) fn is_busy(&self) -> bool {
        let busy = |held: &Held| !matches!(held.stage, Stage::Active { .. });
        self.near || self.held.values().any(busy)
    }
}

/// What has an address in common with a block and is not this node's, in words.
fn rival(listed: &Listed, cidr: IpNet, node: &str) -> Option<String> {
    let meets = |other: &IpNet| other.contains(&cidr) || cidr.contains(other);
    let others = listed.blocks.iter().map(|stored| &stored.block.spec);
    let mut others = others.filter(|spec| spec.node != node && meets(&spec.cidr));
    if let Some(other) = others.next() {
        return Some(format!("block {} of Node {}", other.cidr, other.node));
    }
    let mut unreadable = listed.unreadable.iter();
    unreadable
        .find(|unreadable| unreadable.cidr.as_ref().is_some_and(meets))
        .map(|unreadable| format!("the block of {}, which can't be read", unreadable.source))
}

/// Where no block can be.
fn occupied(listed: &Listed, plan: &AddressPlan) -> Vec<IpNet> {
    let blocks = listed.blocks.iter().map(|stored| stored.block.spec.cidr);
    let unreadable = listed
        .unreadable
        .iter()
        .filter_map(|unreadable| unreadable.cidr);
    blocks
        .chain(unreadable)
        .chain(plan.foreign.iter().copied())
        .collect()
}

/// FNV-1a: nodes need other numbers, not secret ones, and the same after a restart.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

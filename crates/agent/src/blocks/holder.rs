//! Which blocks this node has, takes and gives back. Time is an argument; the store and the addresses are given.
//!
//! | stage of a block | announced | addresses are given | left when |
//! | --- | --- | --- | --- |
//! | active | yes | yes | no address has been in use for the grace time |
//! | disputed: it overlaps another node's | while it has pods | no | the other one is gone, or its own last pod |
//! | closed | no, as soon as the plan without it is in force | no | that plan is in force |
//! | withdrawn | no | no | peers have had time to hear of it; then its object is deleted |
//!
//! A block is created first and looked at then: where another block overlaps it (of another size; one of the same size has
//! the same name), the newcomer gives way. Of two that come at once both may; neither gives an address before it has looked.

mod report;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipam::blocks;
use ipnet::IpNet;
use node::{AddressPlan, Pool};
use resources::IpamBlock;

use super::store::{BlockStore, CreateError, Listed, StoreError, Stored};

/// How long a withdrawal may take to reach everybody before the block can be another node's.
pub(crate) const WITHDRAWAL: Duration = Duration::from_secs(5);
/// How often another block is tried when somebody else was faster.
const ATTEMPTS: u32 = 64;

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
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Active { unused_since: Option<Instant> },
    Disputed { with: String },
    Closed,
    Withdrawn { since: Instant },
}

/// This node's blocks.
pub(crate) struct Holder {
    node: String,
    store: Box<dyn BlockStore>,
    addresses: Arc<dyn Addresses>,
    grace: Duration,
    plan: Arc<AddressPlan>,
    held: BTreeMap<IpNet, Held>,
    /// What the store had when it was last read; `None` before that.
    listed: Option<Listed>,
    /// Why it can't be read, or written.
    error: Option<StoreError>,
    /// Blocks that were this node's until somebody else's name stood in them.
    lost: BTreeMap<IpNet, String>,
}

impl Holder {
    pub(crate) fn new(
        node: String,
        store: Box<dyn BlockStore>,
        addresses: Arc<dyn Addresses>,
        grace: Duration,
    ) -> Self {
        Self {
            node,
            store,
            addresses,
            grace,
            plan: Arc::default(),
            held: BTreeMap::new(),
            listed: None,
            error: None,
            lost: BTreeMap::new(),
        }
    }

    pub(crate) fn set_plan(&mut self, plan: Arc<AddressPlan>) {
        self.plan = plan;
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
            Stage::Closed | Stage::Withdrawn { .. } => false,
        };
        let held = self.held.iter().filter(|(_, held)| announced(held));
        Ok(held.map(|(cidr, _)| *cidr).collect())
    }

    /// Reads the store, and follows what others did to this node's blocks.
    pub(crate) fn refresh(&mut self) {
        let Some(listed) = self.list() else {
            return;
        };
        let own = listed
            .blocks
            .iter()
            .filter(|stored| stored.block.spec.node == self.node);
        for stored in own.cloned().collect::<Vec<_>>() {
            let cidr = stored.block.spec.cidr;
            self.lost.remove(&cidr);
            let stage = Stage::Active { unused_since: None };
            let held = self.held.entry(cidr).or_insert_with(|| Held {
                stored: stored.clone(),
                stage,
            });
            held.stored = stored;
        }
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
        for cidr in missing {
            match present.get(&cidr) {
                Some(other) => {
                    tracing::error!(block = %cidr, node = other, "another node's name stands in this node's block: given up");
                    self.lost.insert(cidr, (*other).to_owned());
                    self.held.remove(&cidr);
                }
                None => self.restore(cidr),
            }
        }
        self.lost.retain(|cidr, _| present.contains_key(cidr));
        self.settle_disputes(&listed);
        self.listed = Some(listed);
        self.tell_full();
    }

    /// Somebody has deleted the object of a block.
    fn restore(&mut self, cidr: IpNet) {
        let leaving = |held: &Held| matches!(held.stage, Stage::Closed | Stage::Withdrawn { .. });
        if self.held.get(&cidr).is_some_and(leaving) {
            self.held.remove(&cidr);
            return self.addresses.open(cidr);
        }
        match self.store.create(&IpamBlock::new(cidr, &self.node)) {
            Ok(stored) => {
                tracing::warn!(block = %cidr, "the object of this node's block was gone: created again");
                if let Some(held) = self.held.get_mut(&cidr) {
                    held.stored = stored;
                }
            }
            // The next look tells whose it is.
            Err(CreateError::Exists) => {}
            Err(CreateError::Failed(error)) => self.error = Some(error),
        }
    }

    fn settle_disputes(&mut self, listed: &Listed) {
        for (cidr, held) in &mut self.held {
            let rival = rival(listed, *cidr, &self.node);
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
        let usage = self.addresses.usage();
        let unused = |cidr: IpNet| {
            let mut usage = usage.iter().filter(|usage| usage.cidr == cidr);
            usage.any(|usage| usage.used == 0 && usage.cooling == 0)
        };
        let mut gone = Vec::new();
        for (cidr, held) in &mut self.held {
            match &mut held.stage {
                Stage::Active { unused_since } if !unused(*cidr) => *unused_since = None,
                Stage::Active { unused_since } => {
                    let since = *unused_since.get_or_insert(now);
                    if now.saturating_duration_since(since) >= self.grace
                        && self.addresses.close(*cidr, true)
                    {
                        tracing::info!(block = %cidr, "no address in use: withdrawn");
                        held.stage = Stage::Closed;
                    }
                }
                Stage::Disputed { .. } => {
                    if self.addresses.close(*cidr, true) {
                        held.stage = Stage::Closed;
                    }
                }
                Stage::Withdrawn { since }
                    if now.saturating_duration_since(*since) >= WITHDRAWAL =>
                {
                    match self.store.delete(&held.stored) {
                        Ok(()) => gone.push(*cidr),
                        Err(error) => self.error = Some(error),
                    }
                }
                Stage::Closed | Stage::Withdrawn { .. } => {}
            }
        }
        for cidr in gone {
            tracing::info!(block = %cidr, "given back");
            self.held.remove(&cidr);
            self.addresses.open(cidr);
        }
    }

    /// A plan with these ranges is in force.
    pub(crate) fn in_force(&mut self, ranges: &[IpNet], now: Instant) {
        for (cidr, held) in &mut self.held {
            if held.stage == Stage::Closed && !ranges.contains(cidr) {
                held.stage = Stage::Withdrawn { since: now };
            }
        }
    }

    /// Whether something is to be done soon.
    pub(crate) fn is_busy(&self) -> bool {
        let busy = |held: &Held| !matches!(held.stage, Stage::Active { unused_since: None });
        self.held.values().any(busy)
    }

    /// Gets a block.
    pub(crate) fn want(&mut self, want: &Want) -> Answer {
        let plan = Arc::clone(&self.plan);
        let mut full = Vec::new();
        let pools = plan
            .pools
            .iter()
            .filter(|pool| want.pools.contains(&pool.name));
        for pool in pools {
            let outcome = match want.address {
                Some(address) => self.claim_for(pool, address),
                None => self.claim(pool),
            };
            match outcome {
                Answer::Full(message) => full.push(message),
                Answer::Claimed(_) | Answer::Unavailable(_) => return outcome,
            }
        }
        match full.is_empty() {
            true => Answer::Unavailable("the pools are others now".to_owned()),
            false => Answer::Full(full.join("; ")),
        }
    }

    fn claim(&mut self, pool: &Pool) -> Answer {
        if let Some(cidr) = self.at_hand(pool) {
            return Answer::Claimed(cidr);
        }
        let start = hash(&self.node) ^ hash(&pool.name);
        for attempt in 0..ATTEMPTS {
            let Some(listed) = self.list() else {
                return self.unavailable();
            };
            // Who lost a race to somebody shall not meet the same one again at the next block.
            let start = start
                .wrapping_add(hash(&format!("{}/{attempt}", self.node)) * u64::from(attempt > 0));
            let occupied = occupied(&listed, &self.plan);
            let next = blocks::next_free(
                pool.cidr,
                pool.block_len,
                &occupied,
                &self.plan.reserved,
                start,
            );
            let Some(cidr) = next else {
                self.listed = Some(listed);
                let message = self.full_message(pool);
                self.tell_full();
                return Answer::Full(message);
            };
            match self.create(cidr) {
                Ok(true) => return Answer::Claimed(cidr),
                Ok(false) => {}
                Err(()) => return self.unavailable(),
            }
        }
        Answer::Unavailable("other nodes were faster at every block that was tried".to_owned())
    }

    /// A block that the node has, and that has an address to give.
    fn at_hand(&mut self, pool: &Pool) -> Option<IpNet> {
        let usage = self.addresses.usage();
        // One that is not listed yet has just been taken.
        let full = |cidr: &IpNet| {
            usage
                .iter()
                .any(|usage| usage.cidr == *cidr && usage.used + usage.cooling >= usage.total)
        };
        let ours = self
            .held
            .iter_mut()
            .filter(|(cidr, _)| pool.cidr.contains(*cidr));
        for (cidr, held) in ours {
            match held.stage {
                Stage::Active { .. } if !full(cidr) => return Some(*cidr),
                Stage::Closed | Stage::Withdrawn { .. } => {
                    held.stage = Stage::Active { unused_since: None };
                    self.addresses.open(*cidr);
                    return Some(*cidr);
                }
                Stage::Active { .. } | Stage::Disputed { .. } => {}
            }
        }
        None
    }

    /// The block of one address.
    fn claim_for(&mut self, pool: &Pool, address: IpAddr) -> Answer {
        let Some(cidr) = blocks::block_of(pool.cidr, pool.block_len, address) else {
            return Answer::Full(format!(
                "{address} is not in IPPool {} ({})",
                pool.name, pool.cidr
            ));
        };
        let ours = self
            .held
            .iter()
            .find(|(held, _)| held.contains(&address))
            .map(|(cidr, _)| *cidr);
        if let Some(cidr) = ours {
            let Some(held) = self.held.get_mut(&cidr) else {
                return self.unavailable();
            };
            if let Stage::Disputed { with } = &held.stage {
                return Answer::Full(format!("{address} is in {cidr}, which overlaps {with}"));
            }
            if !matches!(held.stage, Stage::Active { .. }) {
                held.stage = Stage::Active { unused_since: None };
                self.addresses.open(cidr);
            }
            return Answer::Claimed(cidr);
        }
        let Some(listed) = self.list() else {
            return self.unavailable();
        };
        if let Some(with) = rival(&listed, cidr, &self.node) {
            return Answer::Full(format!("{address} is in {with}"));
        }
        match self.create(cidr) {
            Ok(true) => Answer::Claimed(cidr),
            Ok(false) => Answer::Unavailable(format!("somebody else takes {cidr}")),
            Err(()) => self.unavailable(),
        }
    }

    /// Creates a block's object, and looks whether it is alone. `false`: somebody else has it, or part of it.
    fn create(&mut self, cidr: IpNet) -> Result<bool, ()> {
        let stored = match self.store.create(&IpamBlock::new(cidr, &self.node)) {
            Ok(stored) => stored,
            Err(CreateError::Exists) => return Ok(false),
            Err(CreateError::Failed(error)) => {
                self.error = Some(error);
                return Err(());
            }
        };
        // Where that can't be told now, the block is found by the next look, as after a restart.
        let listed = self.list().ok_or(())?;
        if let Some(with) = rival(&listed, cidr, &self.node) {
            tracing::info!(block = %cidr, with, "overlaps what another node took at the same time: given back");
            self.store
                .delete(&stored)
                .map_err(|error| self.error = Some(error))?;
            return Ok(false);
        }
        tracing::info!(block = %cidr, "taken");
        let stage = Stage::Active { unused_since: None };
        self.held.insert(cidr, Held { stored, stage });
        self.listed = Some(listed);
        Ok(true)
    }

    fn list(&mut self) -> Option<Listed> {
        match self.store.list() {
            Ok(listed) => {
                self.error = None;
                Some(listed)
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    fn unavailable(&self) -> Answer {
        let error = self
            .error
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        Answer::Unavailable(format!("no block can be taken now: {error}"))
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

//! Taking blocks.

use std::net::IpAddr;
use std::sync::Arc;

use ipam::blocks;
use ipnet::IpNet;
use node::Pool;
use resources::IpamBlock;

use super::{Answer, Held, Holder, Stage, Want, hash, occupied, rival};
use crate::blocks::store::{CreateError, StoreError};

/// How often another block is tried when somebody else was faster.
const ATTEMPTS: u32 = 64;

impl Holder {
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
                None => match self.at_hand(pool) {
                    Some(cidr) => Answer::Claimed(cidr),
                    None => self.claim(pool),
                },
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

    /// Takes one that nobody has. What was read last says where one may be; whether it is free, creating it tells.
    pub(super) fn claim(&mut self, pool: &Pool) -> Answer {
        let start = hash(&self.node) ^ hash(&pool.name);
        let mut fresh = false;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 || self.listed.is_none() {
                if !self.read() {
                    return self.unavailable();
                }
                fresh = true;
                if let Some(cidr) = self.found(pool) {
                    return Answer::Claimed(cidr);
                }
            }
            let Some(listed) = &self.listed else {
                return self.unavailable();
            };
            // Who lost a race to somebody shall not meet the same one again at the next block.
            let start = start
                .wrapping_add(hash(&format!("{}/{attempt}", self.node)) * u64::from(attempt > 0));
            let occupied = occupied(listed, &self.plan);
            let next = blocks::next_free(
                pool.cidr,
                pool.block_len,
                &occupied,
                &self.plan.reserved,
                start,
            );
            match next {
                Some(cidr) => match self.create(cidr) {
                    Ok(true) => return Answer::Claimed(cidr),
                    Ok(false) => {}
                    Err(()) => return self.unavailable(),
                },
                None if fresh => {
                    let message = self.full_message(pool);
                    self.tell_full();
                    return Answer::Full(message);
                }
                None => {}
            }
        }
        Answer::Unavailable("other nodes were faster at every block that was tried".to_owned())
    }

    /// A block of the pool that turns out to be this node's.
    fn found(&mut self, pool: &Pool) -> Option<IpNet> {
        let known: Vec<IpNet> = self.held.keys().copied().collect();
        self.follow();
        let active = |held: &Held| matches!(held.stage, Stage::Active { .. });
        let mut new = self
            .held
            .iter()
            .filter(|(cidr, held)| !known.contains(cidr) && active(held));
        new.find(|(cidr, _)| pool.cidr.contains(*cidr))
            .map(|(cidr, _)| *cidr)
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
            if held.is_leaving() && !held.disputed {
                held.stage = Stage::Active { unused_since: None };
                self.addresses.open(*cidr);
                return Some(*cidr);
            }
            if matches!(held.stage, Stage::Active { .. }) && !full(cidr) {
                return Some(*cidr);
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
        if let Some(answer) = self.in_hand(address) {
            return answer;
        }
        if !self.read() {
            return self.unavailable();
        }
        self.follow();
        if let Some(answer) = self.in_hand(address) {
            return answer;
        }
        let rival = self
            .listed
            .as_ref()
            .and_then(|listed| rival(listed, cidr, &self.node));
        if let Some(with) = rival {
            return Answer::Full(format!("{address} is in {with}"));
        }
        match self.create(cidr) {
            Ok(true) => Answer::Claimed(cidr),
            Ok(false) => Answer::Unavailable(format!("somebody else takes {cidr}")),
            Err(()) => self.unavailable(),
        }
    }

    /// What becomes of an address in a block that the node has.
    fn in_hand(&mut self, address: IpAddr) -> Option<Answer> {
        let mut ours = self.held.iter_mut();
        let (cidr, held) = ours.find(|(cidr, _)| cidr.contains(&address))?;
        if let Stage::Disputed { with } = &held.stage {
            let message = format!("{address} is in {cidr}, which overlaps {with}");
            return Some(Answer::Full(message));
        }
        if held.disputed {
            let message = format!("{address} is in {cidr}, which overlaps another node's block");
            return Some(Answer::Unavailable(message));
        }
        if !matches!(held.stage, Stage::Active { .. }) {
            held.stage = Stage::Active { unused_since: None };
            self.addresses.open(*cidr);
        }
        Some(Answer::Claimed(*cidr))
    }

    /// Creates a block's object, and looks whether it is alone. `false`: somebody else has it, or part of it.
    fn create(&mut self, cidr: IpNet) -> Result<bool, ()> {
        if self.resting {
            return Err(());
        }
        let stored = match self.store.create(&IpamBlock::new(cidr, &self.node)) {
            Ok(stored) => stored,
            Err(CreateError::Exists) => return Ok(false),
            Err(CreateError::Failed(error)) => {
                self.error = Some(error);
                return Err(());
            }
        };
        // Where that can't be told now, the block is found by the next look, as after a restart.
        if !self.read() {
            return Err(());
        }
        let rival = self
            .listed
            .as_ref()
            .and_then(|listed| rival(listed, cidr, &self.node));
        if let Some(with) = rival {
            tracing::info!(block = %cidr, with, "overlaps what another node took at the same time: given back");
            self.store
                .delete(&stored)
                .map_err(|error| self.error = Some(error))?;
            return Ok(false);
        }
        tracing::info!(block = %cidr, "taken");
        self.held.insert(cidr, Held::new(stored));
        self.tell_full();
        Ok(true)
    }

    /// Reads the store; whether that worked.
    pub(super) fn read(&mut self) -> bool {
        if self.resting {
            return false;
        }
        match self.store.list() {
            Ok(listed) => {
                (self.listed, self.error) = (Some(listed), None);
                self.other = true;
            }
            Err(error) => self.error = Some(error),
        }
        self.error.is_none()
    }

    fn unavailable(&self) -> Answer {
        let error = self.error.as_ref().map(StoreError::to_string);
        Answer::Unavailable(format!(
            "no block can be taken now: {}",
            error.unwrap_or_default()
        ))
    }
}

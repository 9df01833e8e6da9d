//! Address choice inside a node's pod CIDRs and blocks: deterministic, and without clock, file or socket. [`blocks`] has
//! the choice of blocks inside a pool.
//!
//! [`Ipam`] remembers nothing across a restart. What is in use is told by whoever knows it (the kernel's veths) with
//! [`Ipam::claim`]; what it keeps beside that, the reuse cool-down and the round-robin cursor, may be lost.
//!
//! Addresses are given round robin inside a CIDR, and one CIDR after the other: the second is touched when the first
//! has none. A released address rests for the cool-down, so that what still talks to a dead pod does not reach a
//! stranger; the cool-down is strict, and [`AllocateError::Exhausted`] says how many addresses rest. Only who names an
//! address gets it out of its rest: a pod with a fixed address that is made anew is no stranger to its old peers.
//!
//! Never given: of an IPv4 CIDR the first and the last address, of an IPv6 CIDR the first; a CIDR of two addresses or
//! one gives all of them. Further ranges can be set aside with [`Ipam::set_cidrs`].
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

pub mod blocks;
mod pool;
mod taken;
#[cfg(test)]
mod tests;

use pool::Pool;

/// How long a released address rests before it is given again, unless told otherwise.
pub const DEFAULT_COOLDOWN: Duration = Duration::from_secs(60);

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The node has no CIDR of the family.
    #[error("this node has no {0} pod CIDR or block")]
    NoCidr(Family),
    /// All of them are in use or resting.
    #[error(
        "no free {family} address: {used} of {total} in use and {cooling} resting after use in {cidrs}"
    )]
    Exhausted {
        /// The family that was asked for.
        family: Family,
        /// Addresses in use.
        used: u128,
        /// Addresses that rest after use.
        cooling: u128,
        /// Addresses that the CIDRs can give in all.
        total: u128,
        /// The CIDRs, separated by spaces.
        cidrs: String,
    },
    /// The address that was asked for is in no CIDR of the node, or is one that is never given.
    #[error("{0} is not an address that this node's pod CIDRs can give")]
    NotOurs(IpAddr),
    /// The address that was asked for is another pod's.
    #[error("{0} is in use")]
    InUse(IpAddr),
}

/// How full one CIDR is, in addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The CIDR.
    pub cidr: IpNet,
    /// Addresses that it can give in all.
    pub total: u128,
    /// Of these, in use.
    pub used: u128,
    /// Of these, resting after use.
    pub cooling: u128,
}

/// Chooses addresses. All methods are total; nothing here blocks.
#[derive(Debug, Clone)]
pub struct Ipam {
    cooldown: Duration,
    pools: Vec<Pool>,
    in_use: BTreeSet<IpAddr>,
    /// The address that was claimed last: where the search starts in a CIDR that only comes later.
    claimed_last: BTreeMap<Family, IpAddr>,
    /// Released addresses with the end of their rest, earliest first.
    resting: VecDeque<(Instant, IpAddr)>,
    /// Addresses in use that were asked for while they rested, with the end of that rest.
    interrupted: BTreeMap<IpAddr, Instant>,
}

impl Ipam {
    /// Without any CIDR yet.
    #[must_use]
    pub fn new(cooldown: Duration) -> Self {
        Self {
            cooldown,
            pools: Vec::new(),
            in_use: BTreeSet::new(),
            claimed_last: BTreeMap::new(),
            resting: VecDeque::new(),
            interrupted: BTreeMap::new(),
        }
    }

    /// Sets the CIDRs to give from, in this order, and ranges inside them that are never given.
    ///
    /// Addresses in use stay so, whether they are inside the new CIDRs or not. The cursor of a CIDR that stays is kept.
    pub fn set_cidrs(&mut self, cidrs: &[IpNet], reserved: &[IpNet]) {
        let mut pools: Vec<Pool> = Vec::with_capacity(cidrs.len());
        for cidr in cidrs.iter().map(IpNet::trunc) {
            // One address must be in one pool: of overlapping CIDRs the first that was named counts.
            if pools
                .iter()
                .any(|pool| pool.cidr().contains(&cidr) || cidr.contains(&pool.cidr()))
            {
                continue;
            }
            let mut pool = Pool::new(cidr, reserved);
            if let Some(known) = self.pools.iter().find(|known| known.cidr() == cidr) {
                pool.set_cursor(known.cursor());
            } else {
                self.claimed_last
                    .values()
                    .for_each(|address| pool.continue_after(*address));
            }
            for &address in self
                .in_use
                .iter()
                .chain(self.resting.iter().map(|(_, address)| address))
            {
                pool.take(address);
            }
            pools.push(pool);
        }
        self.pools = pools;
    }

    /// Marks an address as in use that was given before this `Ipam` was made; false when it already is in use.
    ///
    /// Searches go on after the address that was claimed last, so claiming in the order in which addresses were given
    /// keeps the round robin going across a restart.
    pub fn claim(&mut self, address: IpAddr) -> bool {
        if !self.in_use.insert(address) {
            return false;
        }
        self.resting.retain(|(_, resting)| *resting != address);
        for pool in &mut self.pools {
            pool.take(address);
            pool.continue_after(address);
        }
        self.claimed_last.insert(Family::of(address), address);
        true
    }

    /// Gives an address of the family.
    ///
    /// # Errors
    ///
    /// When there is no CIDR of the family, or all its addresses are in use or resting.
    pub fn allocate(&mut self, family: Family, now: Instant) -> Result<IpAddr, AllocateError> {
        self.allocate_from(family, now, |_| true)
    }

    /// Gives an address of the family out of the CIDRs for which `may` says so.
    ///
    /// # Errors
    ///
    /// When there is no such CIDR, or all its addresses are in use or resting.
    pub fn allocate_from(
        &mut self,
        family: Family,
        now: Instant,
        may: impl Fn(IpNet) -> bool,
    ) -> Result<IpAddr, AllocateError> {
        self.wake(now);
        let mut pools = self
            .pools
            .iter_mut()
            .filter(|pool| Family::of(pool.cidr().addr()) == family && may(pool.cidr()));
        match pools.find_map(Pool::take_next) {
            Some(address) => {
                self.in_use.insert(address);
                Ok(address)
            }
            None => Err(self.exhausted(family, now, may)),
        }
    }

    /// Gives this very address, even one that rests: who asks for it knows whose it was.
    ///
    /// # Errors
    ///
    /// When it is in use, reserved, or in none of the CIDRs.
    pub fn allocate_specific(
        &mut self,
        address: IpAddr,
        now: Instant,
    ) -> Result<(), AllocateError> {
        self.wake(now);
        if self.in_use.contains(&address) {
            return Err(AllocateError::InUse(address));
        }
        let Some(pool) = self.pools.iter_mut().find(|pool| pool.gives(address)) else {
            return Err(AllocateError::NotOurs(address));
        };
        pool.take(address);
        let rests = |(_, resting): &(Instant, IpAddr)| *resting == address;
        if let Some((until, _)) = self
            .resting
            .iter()
            .position(rests)
            .and_then(|index| self.resting.remove(index))
        {
            self.interrupted.insert(address, until);
        }
        self.in_use.insert(address);
        Ok(())
    }

    /// Takes an address back; it rests for the cool-down. False when it wasn't in use.
    pub fn release(&mut self, address: IpAddr, now: Instant) -> bool {
        if !self.in_use.remove(&address) {
            return false;
        }
        self.interrupted.remove(&address);
        // `now` never runs backwards and the cool-down is one for all, so the queue stays sorted.
        self.resting.push_back((now + self.cooldown, address));
        true
    }

    /// Takes an address back that nobody has seen yet: it can be given again at once. Where it was given out of its
    /// rest, it goes on resting.
    pub fn give_back(&mut self, address: IpAddr) {
        if !self.in_use.remove(&address) {
            return;
        }
        if let Some(until) = self.interrupted.remove(&address) {
            let index = self.resting.partition_point(|(end, _)| *end <= until);
            return self.resting.insert(index, (until, address));
        }
        for pool in &mut self.pools {
            pool.give_back(address);
        }
    }

    /// Whether no address of a range is in use or rests.
    #[must_use]
    pub fn is_unused(&self, range: IpNet, now: Instant) -> bool {
        let rests = |(until, address): &(Instant, IpAddr)| *until > now && range.contains(address);
        !self.in_use.iter().any(|address| range.contains(address))
            && !self.resting.iter().any(rests)
    }

    /// Whether this very address may be given where it is free: it is in a CIDR, and not reserved there.
    #[must_use]
    pub fn gives(&self, address: IpAddr) -> bool {
        self.pools.iter().any(|pool| pool.gives(address))
    }

    /// Whether an address of the family could be given now.
    ///
    /// # Errors
    ///
    /// As [`Ipam::allocate`].
    pub fn check(&self, family: Family, now: Instant) -> Result<(), AllocateError> {
        let free = |usage: &Usage| usage.used + usage.cooling < usage.total;
        let mut usage = self.usage(now).into_iter();
        if usage.any(|usage| Family::of(usage.cidr.addr()) == family && free(&usage)) {
            return Ok(());
        }
        Err(self.exhausted(family, now, |_| true))
    }

    /// How full each CIDR is, in their order.
    #[must_use]
    pub fn usage(&self, now: Instant) -> Vec<Usage> {
        let usage = |pool: &Pool| {
            let used = self
                .in_use
                .iter()
                .filter(|address| pool.gives(**address))
                .count() as u128;
            // What rests no longer is free, even where nothing has swept it up yet.
            let (resting, rested): (Vec<&(Instant, IpAddr)>, Vec<_>) = self
                .resting
                .iter()
                .filter(|(_, address)| pool.gives(*address))
                .partition(|(until, _)| *until > now);
            let cooling = resting.len() as u128;
            Usage {
                cidr: pool.cidr(),
                total: pool.free() + rested.len() as u128 + used + cooling,
                used,
                cooling,
            }
        };
        self.pools.iter().map(usage).collect()
    }

    /// Frees what has rested long enough.
    fn wake(&mut self, now: Instant) {
        while let Some((_, address)) = self.resting.pop_front_if(|(until, _)| *until <= now) {
            for pool in &mut self.pools {
                pool.give_back(address);
            }
        }
    }

    fn exhausted(
        &self,
        family: Family,
        now: Instant,
        may: impl Fn(IpNet) -> bool,
    ) -> AllocateError {
        let of_family = |usage: &Usage| Family::of(usage.cidr.addr()) == family && may(usage.cidr);
        let usage: Vec<Usage> = self.usage(now).into_iter().filter(of_family).collect();
        if usage.is_empty() {
            return AllocateError::NoCidr(family);
        }
        AllocateError::Exhausted {
            family,
            used: usage.iter().map(|usage| usage.used).sum(),
            cooling: usage.iter().map(|usage| usage.cooling).sum(),
            total: usage.iter().map(|usage| usage.total).sum(),
            cidrs: usage
                .iter()
                .map(|usage| usage.cidr.to_string())
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

//! Which endpoints there are and which addresses they have: plain state, without kernel or clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::cni::AttachmentId;
use ipam::{AllocateError, Family, Ipam, Usage};
use ipnet::IpNet;
use netlink::pod::PodLink;
use node::{AddressPlan, Pool};

use super::Endpoint;
use crate::blocks::Want;

/// Endpoints by attachment, and the addresses inside the node's pod CIDRs and blocks.
#[derive(Debug)]
pub(crate) struct Registry {
    endpoints: BTreeMap<AttachmentId, Endpoint>,
    by_link: BTreeMap<u32, AttachmentId>,
    ipam: Ipam,
    plan: AddressPlan,
    /// The node's blocks by its plan.
    blocks: BTreeSet<IpNet>,
    /// Blocks, of that plan or not, from which no address is given.
    closed: BTreeSet<IpNet>,
    /// Pools without a free block, with words about that.
    full: BTreeMap<String, String>,
    mtu: u32,
    /// Attachments that somebody works on.
    busy: BTreeSet<AttachmentId>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Shortage {
    /// Nothing gives addresses yet.
    #[error("this node has no pod CIDR yet, and no IPPool gives addresses on it")]
    Nowhere,
    /// The pools that do are for others.
    #[error("no IPPool that gives addresses on this node is for {0}")]
    NotSelected(String),
    /// There is none.
    #[error(transparent)]
    Ipam(#[from] AllocateError),
    /// There is none in the blocks that the node has; another block may have one.
    #[error("{reason}")]
    Block {
        /// The block.
        want: Want,
        /// What the blocks lack.
        reason: String,
    },
    /// There is none in the blocks that the node has, and no other block.
    #[error("{0}")]
    Full(String),
}

impl Registry {
    pub(crate) fn new(cooldown: Duration) -> Self {
        Self {
            endpoints: BTreeMap::new(),
            by_link: BTreeMap::new(),
            ipam: Ipam::new(cooldown),
            plan: AddressPlan::default(),
            blocks: BTreeSet::new(),
            closed: BTreeSet::new(),
            full: BTreeMap::new(),
            mtu: 1500,
            busy: BTreeSet::new(),
        }
    }

    pub(crate) fn set_addressing(&mut self, plan: &AddressPlan, blocks: &[IpNet], mtu: u32) {
        self.plan = plan.clone();
        self.blocks = blocks.iter().copied().collect();
        self.mtu = mtu;
        self.arrange();
    }

    fn arrange(&mut self) {
        let open = self.blocks.difference(&self.closed);
        let ranges: Vec<IpNet> = self.plan.cidrs.iter().chain(open).copied().collect();
        self.ipam.set_cidrs(&ranges, &self.plan.reserved);
    }

    /// Gives no more addresses of a block; with `only_unused`, only where none is in use or rests.
    pub(crate) fn close(&mut self, block: IpNet, only_unused: bool, now: Instant) -> bool {
        if only_unused && !self.ipam.is_unused(block, now) {
            return false;
        }
        self.closed.insert(block);
        self.arrange();
        true
    }

    /// Takes that back.
    pub(crate) fn open(&mut self, block: IpNet) {
        self.closed.remove(&block);
        self.arrange();
    }

    pub(crate) fn set_full(&mut self, pools: BTreeMap<String, String>) {
        self.full = pools;
    }

    /// Whether addresses are given from this block.
    pub(crate) fn has_block(&self, block: IpNet) -> bool {
        self.blocks.contains(&block) && !self.closed.contains(&block)
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    pub(crate) fn usage(&self, now: Instant) -> Vec<Usage> {
        self.ipam.usage(now)
    }

    /// Whether a pod could get an address of each family.
    pub(crate) fn check_addresses(&self, now: Instant) -> Result<(), Shortage> {
        if !self.plan.gives() {
            return Err(Shortage::Nowhere);
        }
        let usage = self.ipam.usage(now);
        let automatic = || self.plan.pools.iter().filter(|pool| pool.automatic);
        let families: BTreeSet<Family> = automatic().map(|pool| family(pool.cidr)).collect();
        for family in families {
            let pools = || automatic().filter(|pool| self::family(pool.cidr) == family);
            let free = |usage: &Usage| {
                usage.used + usage.cooling < usage.total
                    && pools().any(|pool| pool.cidr.contains(&usage.cidr))
            };
            let full = || pools().map(|pool| self.full.get(&pool.name));
            if !usage.iter().any(free) && full().all(|message| message.is_some()) {
                let messages: Vec<&str> = full().flatten().map(String::as_str).collect();
                return Err(Shortage::Full(messages.join("; ")));
            }
        }
        let families: BTreeSet<Family> = self.plan.cidrs.iter().map(|cidr| family(*cidr)).collect();
        for family in families {
            self.ipam.check(family, now)?;
        }
        Ok(())
    }

    /// Takes the attachment for whoever works on it; false when somebody does already.
    pub(crate) fn begin(&mut self, id: &AttachmentId) -> bool {
        self.busy.insert(id.clone())
    }

    /// Whether somebody works on the attachment.
    pub(crate) fn is_busy(&self, id: &AttachmentId) -> bool {
        self.busy.contains(id)
    }

    /// Lets it go again.
    pub(crate) fn end(&mut self, id: &AttachmentId) {
        self.busy.remove(id);
    }

    pub(crate) fn get(&self, id: &AttachmentId) -> Option<&Endpoint> {
        self.endpoints.get(id)
    }

    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values()
    }

    /// Whether the container has another attachment than this one.
    pub(crate) fn has_other(&self, id: &AttachmentId) -> bool {
        self.endpoints
            .keys()
            .any(|other| other.container_id == id.container_id && other != id)
    }

    /// One address a family: those that were asked for, and one of the registry's choice for each other family.
    pub(crate) fn allocate(
        &mut self,
        wanted: &[IpAddr],
        namespace: Option<&str>,
        now: Instant,
    ) -> Result<Vec<IpAddr>, Shortage> {
        if !self.plan.gives() && wanted.is_empty() {
            return Err(Shortage::Nowhere);
        }
        let mut given: Vec<IpAddr> = Vec::with_capacity(2);
        let result = self.allocate_into(&mut given, wanted, namespace, now);
        if let Err(shortage) = result {
            self.give_back(&given);
            return Err(shortage);
        }
        given.sort_unstable();
        Ok(given)
    }

    fn allocate_into(
        &mut self,
        given: &mut Vec<IpAddr>,
        wanted: &[IpAddr],
        namespace: Option<&str>,
        now: Instant,
    ) -> Result<(), Shortage> {
        for &address in wanted {
            self.allocate_specific(address, namespace, now)?;
            given.push(address);
        }
        let pools: Vec<Pool> = self
            .plan
            .pools
            .iter()
            .filter(|pool| pool.automatic && self.plan.selects(pool, namespace))
            .cloned()
            .collect();
        let ranges = self.plan.cidrs.iter().copied();
        let families: BTreeSet<Family> = ranges
            .chain(pools.iter().map(|pool| pool.cidr))
            .map(family)
            .collect();
        for family in families {
            if !given.iter().any(|address| Family::of(*address) == family) {
                given.push(self.allocate_any(family, &pools, now)?);
            }
        }
        if given.is_empty() {
            let who = namespace.map_or_else(
                || "what is no pod".to_owned(),
                |namespace| format!("pods of namespace {namespace}"),
            );
            return Err(Shortage::NotSelected(who));
        }
        Ok(())
    }

    /// A plan has for each family either pod CIDRs or pools that give addresses by themselves.
    fn allocate_any(
        &mut self,
        family: Family,
        pools: &[Pool],
        now: Instant,
    ) -> Result<IpAddr, Shortage> {
        let of_family = || {
            let pools = pools.iter();
            pools.filter(|pool| self::family(pool.cidr) == family)
        };
        if of_family().next().is_none() {
            let cidrs = &self.plan.cidrs;
            return Ok(self
                .ipam
                .allocate_from(family, now, |range| cidrs.contains(&range))?);
        }
        // Each pool in turn, and only then another block.
        for pool in of_family() {
            let blocks = &self.blocks;
            let of_pool = |range: IpNet| blocks.contains(&range) && pool.cidr.contains(&range);
            if let Ok(address) = self.ipam.allocate_from(family, now, of_pool) {
                return Ok(address);
            }
        }
        let of_any = |range: IpNet| of_family().any(|pool| pool.cidr.contains(&range));
        let reason = match self.ipam.allocate_from(family, now, of_any) {
            Ok(address) => return Ok(address),
            Err(AllocateError::NoCidr(_)) => format!("this node has no {family} block yet"),
            Err(error) => error.to_string(),
        };
        let want = Want {
            pools: of_family().map(|pool| pool.name.clone()).collect(),
            address: None,
        };
        Err(Shortage::Block { want, reason })
    }

    fn allocate_specific(
        &mut self,
        address: IpAddr,
        namespace: Option<&str>,
        now: Instant,
    ) -> Result<(), Shortage> {
        let pods = |cidr: &IpNet| cidr.contains(&address);
        if self.plan.cidrs.iter().any(pods) {
            return Ok(self.ipam.allocate_specific(address, now)?);
        }
        let mut pools = self.plan.pools.iter();
        let pool =
            pools.find(|pool| pool.cidr.contains(&address) && self.plan.selects(pool, namespace));
        let reserved = || {
            self.plan
                .reserved
                .iter()
                .any(|range| range.contains(&address))
        };
        let Some(pool) = pool.filter(|_| !reserved()) else {
            return Err(AllocateError::NotOurs(address).into());
        };
        let in_block = |block: &&IpNet| block.contains(&address) && !self.closed.contains(*block);
        if self.blocks.iter().any(|block| in_block(&block)) {
            return Ok(self.ipam.allocate_specific(address, now)?);
        }
        Err(Shortage::Block {
            want: Want {
                pools: vec![pool.name.clone()],
                address: Some(address),
            },
            reason: format!("{address} is in no block that this node has"),
        })
    }

    /// Takes back addresses that no pod has had.
    pub(crate) fn give_back(&mut self, addresses: &[IpAddr]) {
        for address in addresses {
            // As in `remove_link`: two endpoints may have been found with it.
            if !self.has_address(*address) {
                self.ipam.give_back(*address);
            }
        }
    }

    fn has_address(&self, address: IpAddr) -> bool {
        self.endpoints()
            .any(|endpoint| endpoint.addresses.contains(&address))
    }

    /// Adds an endpoint whose addresses were allocated here.
    pub(crate) fn insert(&mut self, endpoint: Endpoint) {
        let id = endpoint.id();
        self.by_link.insert(endpoint.link, id.clone());
        self.endpoints.insert(id, endpoint);
    }

    /// Adds an endpoint that was found in the kernel. Returns the addresses that another one has already.
    pub(crate) fn adopt(&mut self, endpoint: Endpoint) -> Vec<IpAddr> {
        let twice = endpoint
            .addresses
            .iter()
            .copied()
            .filter(|address| !self.ipam.claim(*address))
            .collect();
        self.insert(endpoint);
        twice
    }

    /// Whether there is an endpoint on this link.
    pub(crate) fn has_link(&self, link: u32) -> bool {
        self.by_link.contains_key(&link)
    }

    /// Takes out the endpoint on this link; its addresses stay in use. `None` when there is none, or no longer.
    pub(crate) fn take_link(&mut self, link: u32) -> Option<Endpoint> {
        let id = self.by_link.remove(&link)?;
        if self.endpoints.get(&id)?.link != link {
            return None;
        }
        self.endpoints.remove(&id)
    }

    /// Takes out the endpoint on this link, and lets its addresses rest. `None` when there is none, or no longer.
    pub(crate) fn remove_link(&mut self, link: u32, now: Instant) -> Option<Endpoint> {
        let endpoint = self.take_link(link)?;
        for address in &endpoint.addresses {
            // An address that was found at two endpoints stays in use while one of them lives.
            if !self.has_address(*address) {
                self.ipam.release(*address, now);
            }
        }
        Some(endpoint)
    }

    /// Endpoints whose link is not among those that the kernel has.
    pub(crate) fn missing(&self, present: &[PodLink]) -> Vec<u32> {
        let present: BTreeSet<u32> = present.iter().map(|link| link.index).collect();
        self.by_link
            .keys()
            .copied()
            .filter(|link| !present.contains(link))
            .collect()
    }
}

fn family(range: IpNet) -> Family {
    Family::of(range.addr())
}

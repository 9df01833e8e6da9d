//! Which endpoints there are and which addresses they have: plain state, without kernel or clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::cni::AttachmentId;
use ipam::{AllocateError, Family, Ipam, Usage};
use ipnet::IpNet;
use netlink::pod::PodLink;

use super::Endpoint;

/// Endpoints by attachment, and the addresses inside the node's pod CIDRs.
#[derive(Debug)]
pub(crate) struct Registry {
    endpoints: BTreeMap<AttachmentId, Endpoint>,
    by_link: BTreeMap<u32, AttachmentId>,
    ipam: Ipam,
    families: BTreeSet<Family>,
    mtu: u32,
    /// Attachments that somebody works on.
    busy: BTreeSet<AttachmentId>,
}

impl Registry {
    pub(crate) fn new(cooldown: Duration) -> Self {
        Self {
            endpoints: BTreeMap::new(),
            by_link: BTreeMap::new(),
            ipam: Ipam::new(cooldown),
            families: BTreeSet::new(),
            mtu: 1500,
            busy: BTreeSet::new(),
        }
    }

    pub(crate) fn set_pools(&mut self, cidrs: &[IpNet], mtu: u32) {
        self.ipam.set_cidrs(cidrs, &[]);
        self.families = cidrs.iter().map(|cidr| Family::of(cidr.addr())).collect();
        self.mtu = mtu;
    }

    /// Whether addresses can be given at all.
    pub(crate) fn has_pools(&self) -> bool {
        !self.families.is_empty()
    }

    pub(crate) fn mtu(&self) -> u32 {
        self.mtu
    }

    pub(crate) fn usage(&self, now: Instant) -> Vec<Usage> {
        self.ipam.usage(now)
    }

    /// Whether a pod could get an address of each family.
    pub(crate) fn check_addresses(&self, now: Instant) -> Result<(), AllocateError> {
        let mut families = self.families.iter();
        families.try_for_each(|family| self.ipam.check(*family, now))
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
        now: Instant,
    ) -> Result<Vec<IpAddr>, AllocateError> {
        let mut given: Vec<IpAddr> = Vec::with_capacity(2);
        let mut result = Ok(());
        for &address in wanted {
            result = self.ipam.allocate_specific(address, now);
            if result.is_err() {
                break;
            }
            given.push(address);
        }
        for &family in &self.families {
            if result.is_ok() && !given.iter().any(|address| Family::of(*address) == family) {
                result = self
                    .ipam
                    .allocate(family, now)
                    .map(|address| given.push(address));
            }
        }
        if let Err(error) = result {
            self.give_back(&given);
            return Err(error);
        }
        given.sort_unstable();
        Ok(given)
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

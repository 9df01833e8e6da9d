//! Peers that are not configured by their addresses: they come with their connection, and go when nothing is left of them.

use std::net::IpAddr;
use std::time::Instant;

use ipnet::IpNet;

use super::Speaker;
use crate::config::{DynamicPeers, PeerConfig};

impl DynamicPeers {
    /// The configuration of one of them.
    pub(super) fn peer(&self) -> PeerConfig {
        PeerConfig {
            asn: 0,
            passive: true,
            ..self.template.clone()
        }
    }
}

impl Speaker {
    /// The range that an address belongs to: the longest.
    pub(super) fn range_of(&self, address: IpAddr) -> Option<(IpNet, &DynamicPeers)> {
        self.config
            .dynamic
            .iter()
            .filter(|(range, _)| range.contains(&address))
            .max_by_key(|(range, _)| range.prefix_len())
            .map(|(range, dynamic)| (*range, dynamic))
    }

    /// The peers that were accepted from a range.
    pub(super) fn members(&self, range: IpNet) -> Vec<u32> {
        self.by_address
            .values()
            .copied()
            .filter(|index| {
                let peer = self.peers.get(*index as usize);
                peer.is_some_and(|peer| peer.range == Some(range))
            })
            .collect()
    }

    /// Makes a host a peer that has connected from a range; `None` where there are enough.
    pub(super) fn adopt(&mut self, address: IpAddr, now: Instant) -> Option<u32> {
        if self.stopped {
            return None;
        }
        let (range, dynamic) = self.range_of(address)?;
        let (limit, config) = (dynamic.limit as usize, dynamic.peer());
        if self.members(range).len() >= limit {
            return None;
        }
        self.add_peer(address, config, Some(range), now)
    }

    /// Forgets a dynamic peer of whose session nothing is left.
    pub(super) fn retire(&mut self, index: u32, now: Instant) {
        if let Some(peer) = self.peers.get(index as usize)
            && peer.range.is_some()
            && peer.session.is_over()
        {
            self.remove_peer(peer.address, now);
        }
    }
}

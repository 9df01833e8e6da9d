//! Between a session and the RIB.

use std::net::{IpAddr, SocketAddr};

use bgp_wire::{Family, Update};
use bytes::Bytes;
use ipnet::IpNet;

use crate::config::{PeerConfig, SpeakerConfig};
use crate::rib::{DownKind, Generation, PeerIndex, PeerSession, Rib};
use crate::session::Routes;
use crate::session::open::Negotiated;
use crate::speaker::Interface;

/// What one session may do to the RIB: everything under the number of its own generation.
#[derive(Debug)]
pub(super) struct PeerRoutes<'a> {
    pub(super) rib: &'a mut Rib,
    pub(super) config: &'a SpeakerConfig,
    pub(super) peer: &'a PeerConfig,
    pub(super) interfaces: &'a [Interface],
    pub(super) address: IpAddr,
    pub(super) index: PeerIndex,
    pub(super) generation: &'a mut Generation,
    pub(super) last_generation: &'a mut u32,
    /// Set when the RIB may have something new to send, to anybody.
    pub(super) changed: &'a mut bool,
}

impl Routes for PeerRoutes<'_> {
    fn up(&mut self, negotiated: &Negotiated, local: SocketAddr) {
        let peer = self.peer;
        *self.last_generation += 1;
        *self.generation = Generation(*self.last_generation);
        let local_address = local.ip().to_canonical();
        let shared =
            |subnet: &&IpNet| subnet.contains(&local_address) && subnet.contains(&self.address);
        let interface = self
            .interfaces
            .iter()
            .find(|interface| interface.has(local_address));
        let other_local_address = peer
            .other_local_address
            .or_else(|| interface.and_then(|interface| interface.global(local_address.is_ipv4())));
        let session = PeerSession {
            ibgp: negotiated.context.ibgp,
            peer_asn: negotiated.peer_asn,
            local_asn: peer.local_asn.unwrap_or(self.config.asn),
            peer_router_id: negotiated.peer_router_id,
            peer_address: self.address,
            local_address,
            other_local_address,
            link_local: interface
                .filter(|interface| interface.reaches(self.address))
                .and_then(Interface::link_local),
            shared_subnet: self.config.subnets.iter().find(shared).copied(),
            next_hop: peer.next_hop,
            extended_next_hop: negotiated.extended_next_hop,
            enhanced_refresh: negotiated.enhanced_refresh,
            context: negotiated.context,
            families: negotiated.families.clone(),
            retained: negotiated.forwarding().to_vec(),
            restarted: negotiated
                .graceful_restart
                .as_ref()
                .is_some_and(|restart| restart.restarted),
            rules: peer.rules,
            import: peer.import.clone(),
            export: peer.export.clone(),
        };
        self.rib.peer_up(self.index, *self.generation, session);
        *self.changed = true;
    }

    fn down(&mut self, keep: &[Family]) {
        let kind = if keep.is_empty() {
            DownKind::Drop
        } else {
            DownKind::KeepStale
        };
        self.rib.peer_down(self.index, *self.generation, kind);
        for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
            if !keep.contains(&family) {
                self.rib.forget_stale(self.index, *self.generation, family);
            }
        }
        *self.changed = true;
    }

    fn update(&mut self, update: &Update<'_>) {
        self.rib.update(self.index, *self.generation, update);
        *self.changed = true;
    }

    fn end_of_rib(&mut self, family: Family) {
        self.rib.end_of_rib(self.index, *self.generation, family);
        *self.changed = true;
    }

    fn stale_expired(&mut self) {
        self.rib.stale_expired(self.index, *self.generation);
        *self.changed = true;
    }

    fn refresh(&mut self, family: Family) {
        self.rib.refresh(self.index, *self.generation, family);
        *self.changed = true;
    }

    fn begin_refresh(&mut self, family: Family) {
        self.rib.begin_refresh(self.index, *self.generation, family);
    }

    fn end_refresh(&mut self, family: Family) {
        self.rib.end_refresh(self.index, *self.generation, family);
        *self.changed = true;
    }

    fn received(&self, family: Family) -> u32 {
        self.rib.received(self.index, family)
    }

    fn poll_transmit(&mut self) -> Option<Bytes> {
        self.rib.poll_transmit(self.index)
    }
}

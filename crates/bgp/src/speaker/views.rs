//! What the operator sees.

use std::net::IpAddr;
use std::time::Instant;

use super::{Peer, Speaker};
use crate::rib::{ExportView, Memory, PeerIndex, RouteView, Selection};
use crate::session::Ended;
use crate::view::{ConnectionStatus, FamilyStatus, LastError, NegotiatedStatus, PeerStatus};

impl Speaker {
    /// All peers, by address.
    #[must_use]
    pub fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        self.by_address
            .values()
            .filter_map(|index| Some((*index, self.peers.get(*index as usize)?)))
            .map(|(index, peer)| self.peer_status(index, peer, now))
            .collect()
    }

    /// The Loc-RIB and what competed for it.
    #[must_use]
    pub fn routes(&self, selection: &Selection) -> Vec<RouteView> {
        self.rib.routes(selection)
    }

    /// What a peer has announced, with the reason for what is rejected; `None` where there is no such peer.
    #[must_use]
    pub fn routes_from(&self, peer: IpAddr, selection: &Selection) -> Option<Vec<RouteView>> {
        let index = self.by_address.get(&peer)?;
        Some(self.rib.routes_from(PeerIndex(*index), selection))
    }

    /// What a peer is told, with the reason for what it is not; `None` where there is no such peer.
    #[must_use]
    pub fn routes_to(&self, peer: IpAddr, selection: &Selection) -> Option<Vec<ExportView>> {
        let index = self.by_address.get(&peer)?;
        Some(self.rib.routes_to(PeerIndex(*index), selection))
    }

    /// How much the RIB holds.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.rib.memory()
    }

    fn peer_status(&self, index: u32, peer: &Peer, now: Instant) -> PeerStatus {
        let config = &peer.config;
        let session = &peer.session;
        let connection = session.connection();
        let negotiated = connection.and_then(|connection| connection.negotiated.as_deref());
        let families = negotiated.map_or(&config.families, |negotiated| &negotiated.families);
        // Of a family that a restarted peer no longer speaks, routes are there until its session is up.
        let kept = session.stale().iter();
        let kept = kept.filter(|family| !families.contains(family));
        let error = |(at, ended): &(Instant, Ended)| LastError {
            age: now.saturating_duration_since(*at),
            ended: ended.clone(),
        };
        PeerStatus {
            address: peer.address,
            origin: config.origin.clone(),
            asn: negotiated.map_or(config.asn, |negotiated| negotiated.peer_asn),
            dynamic: peer.range,
            local_asn: config.local_asn.unwrap_or(self.config.asn),
            passive: config.passive,
            password: config.password.is_some(),
            state: session.state(),
            halt: session.halt().cloned(),
            state_age: now.saturating_duration_since(session.since()),
            connection: connection.and_then(|connection| {
                let (local, remote) = connection.addresses?;
                Some(ConnectionStatus {
                    local,
                    remote,
                    opener: connection.opener,
                })
            }),
            negotiated: negotiated.map(|negotiated| NegotiatedStatus {
                router_id: negotiated.peer_router_id,
                hold_time: negotiated.hold_time,
                keepalive: session.keepalive(negotiated.hold_time),
                local_capabilities: negotiated.local_capabilities.clone(),
                peer_capabilities: negotiated.peer_capabilities.clone(),
                graceful_restart: negotiated
                    .graceful_restart
                    .as_ref()
                    .map(|restart| restart.restart_time),
            }),
            families: families
                .iter()
                .chain(kept)
                .map(|family| {
                    let counts = self.rib.counts(PeerIndex(index), *family);
                    FamilyStatus {
                        family: *family,
                        received: counts.received,
                        accepted: counts.accepted,
                        advertised: counts.advertised,
                        limit: config
                            .prefix_limits
                            .iter()
                            .find(|limit| limit.family == *family)
                            .map(|limit| limit.limit),
                        stale: session.stale().contains(family),
                    }
                })
                .collect(),
            counters: session.counters(),
            flaps: session.flaps(),
            failures: session.failures(),
            last_error: session.last_error().map(error),
            last_attempt: session.last_attempt().map(error),
            next_attempt: session
                .next_attempt()
                .map(|at| at.saturating_duration_since(now)),
            synced: session.is_synced(),
        }
    }
}

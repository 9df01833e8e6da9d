//! From one configuration to the next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use bgp_wire::Notification;
use bgp_wire::notification::cease;
use ipnet::IpNet;

use super::{Event, Peer, Speaker, Transport};
use crate::config::{AsnSet, DynamicPeers, PeerConfig, SpeakerConfig};
use crate::rib::{Generation, PeerIndex};
use crate::session::{Session, Settings};

impl Speaker {
    /// Becomes what `config` says: sessions come, go, or start anew, where and only where their own parameters changed.
    pub fn set_config(&mut self, mut config: SpeakerConfig, now: Instant) {
        if self.stopped {
            return;
        }
        let clusters = clusters(&config);
        let peers = std::mem::take(&mut config.peers);
        let old = std::mem::replace(&mut self.config, config);
        self.remove_peers(&peers, now);
        if (old.asn, old.router_id) != (self.config.asn, self.config.router_id) {
            self.rib
                .set_identity(self.config.asn, self.config.router_id);
        }
        self.rib.set_decision(self.config.decision);
        self.rib.set_clusters(clusters);
        if old.originated != self.config.originated {
            self.rib.set_originated(self.config.originated.clone());
        }
        self.set_ranges(&old.dynamic, now);
        for (address, peer) in peers {
            match self.by_address.get(&address) {
                None => {
                    self.set_key(IpNet::from(address), None, &peer, Vec::new());
                    self.add_peer(address, peer, None, now);
                }
                Some(index) => self.change_peer(*index, peer, now),
            }
        }
        self.rib_changed = true;
        self.begin_work(now);
        self.check_sync(now);
    }

    /// Removes peers that are not configured any more, and dynamic ones whose range is gone or which have a configuration
    /// of their own now.
    fn remove_peers(&mut self, wanted: &BTreeMap<IpAddr, PeerConfig>, now: Instant) {
        let gone = self.by_address.iter().filter(|(address, index)| {
            let Some(peer) = self.peers.get(**index as usize) else {
                return true;
            };
            let configured = wanted.contains_key(*address);
            match peer.range {
                None => !configured,
                Some(range) => {
                    configured || self.range_of(**address).map(|(range, _)| range) != Some(range)
                }
            }
        });
        let gone: Vec<_> = gone.map(|(address, _)| *address).collect();
        for address in gone {
            let password = self.remove_peer(address, now);
            if password && !wanted.contains_key(&address) {
                self.events.push_back(Event::SetKey {
                    peers: address.into(),
                    password: None,
                    connections: Vec::new(),
                });
            }
        }
    }

    /// Brings the ranges' keys and the peers from them up to date.
    fn set_ranges(&mut self, old: &BTreeMap<IpNet, DynamicPeers>, now: Instant) {
        for (range, before) in old {
            if before.template.password.is_some() && !self.config.dynamic.contains_key(range) {
                self.events.push_back(Event::SetKey {
                    peers: *range,
                    password: None,
                    connections: Vec::new(),
                });
            }
        }
        for (range, dynamic) in self.config.dynamic.clone() {
            let members = self.members(range);
            let connections = members.iter().filter_map(|index| {
                let peer = self.peers.get(*index as usize)?;
                Some(peer.session.connections())
            });
            let connections = connections.flatten().collect();
            let before = old.get(&range).map(|before| &before.template);
            self.set_key(range, before, &dynamic.template, connections);
            for index in members {
                self.change_peer(index, dynamic.peer(), now);
            }
        }
    }

    /// Has the key of these peers set where it is new or another one.
    fn set_key(
        &mut self,
        peers: IpNet,
        before: Option<&PeerConfig>,
        config: &PeerConfig,
        connections: Vec<crate::session::ConnId>,
    ) {
        let before = before.and_then(|before| before.password.as_ref());
        if before != config.password.as_ref() {
            self.events.push_back(Event::SetKey {
                peers,
                password: config.password.clone(),
                connections,
            });
        }
    }

    /// Adds a peer; `range`: the one that it was accepted from.
    pub(super) fn add_peer(
        &mut self,
        address: IpAddr,
        config: PeerConfig,
        range: Option<IpNet>,
        now: Instant,
    ) -> Option<u32> {
        let slot = self.peers.vacant_key();
        let index = u32::try_from(slot).ok()?;
        if self.serials.len() <= slot {
            self.serials.resize(slot + 1, 0);
        }
        // Neighbouring seeds must not give neighbouring jitters.
        let seed = self.seed ^ u64::from(index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let settings = self.settings(&config, range);
        let shutdown = config.shutdown.clone();
        let mut session = Session::new(index, self.serials[slot], settings, &config, seed, now);
        session.set_restart(self.restart.local());
        self.by_address.insert(address, index);
        self.restart.added(index, config.graceful_restart, now);
        self.peers.insert(Peer {
            address,
            config,
            range,
            session,
            generation: Generation(0),
            scheduled: None,
            ready: false,
        });
        self.with_session(index, |session, routes| {
            session.admit(shutdown, now, routes)
        });
        Some(index)
    }

    /// Removes a peer; says whether it had a key of its own.
    pub(super) fn remove_peer(&mut self, address: IpAddr, now: Instant) -> bool {
        let Some(index) = self.by_address.remove(&address) else {
            return false;
        };
        let notification = Notification::cease(cease::PEER_DECONFIGURED);
        self.with_session(index, |session, routes| {
            session.stop(&notification, now, routes)
        });
        self.restart.removed(index);
        let Some(peer) = self.peers.try_remove(index as usize) else {
            return false;
        };
        self.serials[index as usize] = peer.session.last_serial();
        if let Some(at) = peer.scheduled {
            self.deadlines.remove(&(at, index));
        }
        peer.range.is_none() && peer.config.password.is_some()
    }

    fn change_peer(&mut self, index: u32, config: PeerConfig, now: Instant) {
        let Some(peer) = self.peers.get_mut(index as usize) else {
            return;
        };
        let (address, range) = (peer.address, peer.range);
        let before = std::mem::replace(&mut peer.config, config.clone());
        let connections = peer.session.connections();
        let settings = self.settings(&config, range);
        if range.is_none() {
            self.set_key(address.into(), Some(&before), &config, connections);
        }
        let Some(peer) = self.peers.get_mut(index as usize) else {
            return;
        };
        let reset = *peer.session.settings() != settings || needs_reset(&before, &config);
        let rib_index = PeerIndex(index);
        if config.import != before.import || config.export != before.export {
            let (import, export) = (config.import.clone(), config.export.clone());
            self.rib.set_policies(rib_index, import, export);
        }
        if config.next_hop != before.next_hop || config.rules != before.rules {
            self.rib.set_rules(rib_index, config.next_hop, config.rules);
        }
        self.with_session(index, |session, routes| {
            session.adapt(&config, now, routes);
            if reset {
                let notification = Notification::cease(cease::OTHER_CONFIGURATION_CHANGE);
                session.reset(settings, &notification, now, routes);
            }
        });
    }

    fn settings(&self, config: &PeerConfig, range: Option<IpNet>) -> Settings {
        let range = range.and_then(|range| self.config.dynamic.get(&range));
        let asns = range.map_or_else(|| AsnSet::from(config.asn), |range| range.asns.clone());
        Settings::new(&self.config, config, asns)
    }
}

/// Whether the sockets have to be others. A session survives another password: the peer may change its own at the same
/// time (RFC 2385 §4.4 leaves it to us).
fn needs_reset(before: &PeerConfig, config: &PeerConfig) -> bool {
    let but_for_password = |config: &PeerConfig| Transport {
        password: None,
        ..config.into()
    };
    config.port != before.port
        || config.password.is_some() != before.password.is_some()
        || but_for_password(config) != but_for_password(before)
}

/// The cluster ids that are ours.
fn clusters(config: &SpeakerConfig) -> Vec<Ipv4Addr> {
    let templates = config.dynamic.values().map(|range| &range.template);
    let clients = config
        .peers
        .values()
        .chain(templates)
        .filter_map(|peer| peer.rules.client);
    let mut clusters: Vec<_> = clients.map(|client| client.cluster_id).collect();
    clusters.push(config.cluster_id.unwrap_or(config.router_id));
    clusters.sort_unstable();
    clusters.dedup();
    clusters
}

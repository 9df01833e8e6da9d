//! From one topology to another without a lost packet: sessions of the new one come up before those of the old one go.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bgp::config::PeerConfig;
use bgp_wire::Asn;

use crate::NodePlan;
use crate::topology::{Role, Topology};

/// How long all sessions of the new topology have to be up, their routes whole, before old ones go. Nodes see another
/// configuration moments apart, and a reflector has to hear from all of its clients before it has anything to reflect.
pub const SETTLED: Duration = Duration::from_secs(30);

/// When old sessions go although not all new ones are up: a node that is broken must not keep them for good.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Remembers the topology in force, and keeps sessions that a plan no longer has.
///
/// Whether a session stays depends on what it was for. All of a node whose part in the topology has changed stay, as
/// does one with a node that was a reflector of ours. Otherwise the node at its other end is gone. Who was a reflector goes on
/// reflecting meanwhile.
#[derive(Debug, Default)]
pub struct Handover {
    last: Option<Last>,
    /// Sessions that are kept as they were.
    leaving: BTreeMap<IpAddr, Kept>,
    /// Since when all sessions that are to stay are up.
    whole_since: Option<Instant>,
}

/// A session as it was.
#[derive(Debug)]
struct Kept {
    /// Since when it isn't planned so any more.
    since: Instant,
    peer: PeerConfig,
    /// Routes were reflected to it, and still are, even where the session stays for another reason: the new reflector may not
    /// know yet that it is one.
    reflected: bool,
}

/// What was planned last.
#[derive(Debug)]
struct Last {
    identity: (Asn, Ipv4Addr),
    topology: Topology,
    peers: BTreeMap<IpAddr, PeerConfig>,
}

impl Handover {
    /// Whether there are sessions that are only kept: then [`merge`](Self::merge) has to be called again soon.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Adds to a plan what is to be kept. `whole`: whether a peer's session is up, and has told all its routes.
    pub fn merge(&mut self, plan: &mut NodePlan, whole: impl Fn(IpAddr) -> bool, now: Instant) {
        let speaker = &plan.speaker;
        let identity = (speaker.asn, speaker.router_id);
        let stays = |address: &IpAddr| speaker.peers.contains_key(address);
        if let Some(last) = self.last.take() {
            if last.identity != identity || speaker.peers.is_empty() {
                // Every session is another one now; or none is wanted.
                self.leaving.clear();
            } else {
                let role_changed = last.topology.role != plan.topology.role;
                let demoted = role_changed && last.topology.role == Role::Reflector;
                let reflectors = &last.topology.reflectors;
                for (address, peer) in last.peers {
                    let gone = !stays(&address);
                    if demoted || gone && (role_changed || reflectors.contains(&address)) {
                        let kept = Kept {
                            since: now,
                            peer,
                            reflected: demoted,
                        };
                        self.leaving.entry(address).or_insert(kept);
                        self.whole_since = None;
                    }
                }
            }
        }
        if plan.topology.role == Role::Reflector {
            self.leaving
                .values_mut()
                .for_each(|kept| kept.reflected = false);
        }
        self.leaving
            .retain(|address, kept| kept.reflected || !stays(address));
        let up =
            |(address, peer): (&IpAddr, &PeerConfig)| peer.shutdown.is_some() || whole(*address);
        self.whole_since = match speaker.peers.iter().all(up) {
            true => self.whole_since.or(Some(now)),
            false => None,
        };
        let settled = self.whole_since.is_some_and(|since| now - since >= SETTLED);
        self.leaving
            .retain(|_, kept| !settled && now - kept.since < PATIENCE);
        let ours = |address: &IpAddr| plan.topology.peers.contains(address);
        let peers = speaker.peers.iter().filter(|(address, _)| ours(address));
        self.last = Some(Last {
            identity,
            topology: plan.topology.clone(),
            peers: peers.map(|(at, peer)| (*at, peer.clone())).collect(),
        });
        for (address, kept) in &self.leaving {
            kept.add_to(&mut plan.speaker.peers, *address);
        }
    }
}

impl Kept {
    fn add_to(&self, peers: &mut BTreeMap<IpAddr, PeerConfig>, address: IpAddr) {
        let old = &self.peer;
        match peers.entry(address) {
            Entry::Vacant(entry) => {
                let mut peer = old.clone();
                peer.origin += " (until the new sessions are up)";
                entry.insert(peer);
            }
            Entry::Occupied(mut entry) => {
                let peer = entry.get_mut();
                peer.rules.client = old.rules.client;
                (peer.import, peer.export) = (old.import.clone(), old.export.clone());
            }
        }
    }
}

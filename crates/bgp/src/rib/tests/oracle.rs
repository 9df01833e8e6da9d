//! A naive RIB: maps of what each peer said, and everything worked out from them on the spot.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::{AsPath, Attributes, Community, NextHop, Segment, SegmentKind};
use ipnet::IpNet;

use super::{ASN, ROUTER_ID};
use crate::config::NextHopMode;
use crate::policy::{Candidate, Outcome, SourceKind};
use crate::rib::PeerSession;

#[derive(Debug)]
pub(super) struct OraclePeer {
    pub(super) session: PeerSession,
    pub(super) up: bool,
    /// What it announced, and whether that is from before its restart.
    pub(super) routes: BTreeMap<IpNet, (Attributes, bool)>,
}

#[derive(Debug, Default)]
pub(super) struct Oracle {
    pub(super) peers: BTreeMap<u32, OraclePeer>,
    pub(super) originated: BTreeMap<IpNet, Attributes>,
    pub(super) costs: BTreeMap<IpAddr, Option<u32>>,
    pub(super) max_paths: usize,
}

#[derive(Debug, Clone)]
struct Path {
    peer: Option<u32>,
    attributes: Attributes,
    external: bool,
    cost: u32,
    identifier: Ipv4Addr,
    address: Option<IpAddr>,
}

impl Oracle {
    pub(super) fn end_of_rib(&mut self, peer: u32) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.routes.retain(|_, (_, stale)| !*stale);
        }
    }

    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        let mut all: Vec<IpNet> = self
            .peers
            .values()
            .flat_map(|peer| peer.routes.keys().copied())
            .collect();
        all.extend(self.originated.keys());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What may be used of a peer's route.
    pub(super) fn accepted(&self, peer: &OraclePeer, prefix: IpNet) -> Option<Attributes> {
        let session = &peer.session;
        let (attributes, _) = peer.routes.get(&prefix)?;
        let flat: Vec<u32> = attributes
            .as_path
            .segments
            .iter()
            .flat_map(|segment| segment.asns.clone())
            .collect();
        let next_hop = attributes.next_hop.unwrap().address();
        let refused = flat.contains(&ASN)
            || (!session.ibgp && flat.first() != Some(&session.peer_asn))
            || next_hop == session.local_address
            || Some(next_hop) == session.other_local_address
            || attributes.originator_id == Some(ROUTER_ID)
            || attributes.cluster_list.contains(&ROUTER_ID);
        let source = if session.ibgp {
            SourceKind::Internal
        } else {
            SourceKind::External
        };
        match session.import.evaluate(&Candidate {
            prefix,
            attributes,
            source,
        }) {
            Outcome::Accept(applied) if !refused => {
                let mut attributes = attributes.clone();
                session.import.apply(&applied, &mut attributes, ASN);
                Some(attributes)
            }
            Outcome::Accept(_) | Outcome::Reject(_) => None,
        }
    }

    fn paths(&self, prefix: IpNet) -> Vec<Path> {
        let mut paths = Vec::new();
        if let Some(attributes) = self.originated.get(&prefix) {
            paths.push(Path {
                peer: None,
                attributes: attributes.clone(),
                external: false,
                cost: 0,
                identifier: Ipv4Addr::UNSPECIFIED,
                address: None,
            });
            return paths;
        }
        for (index, peer) in &self.peers {
            let Some(attributes) = self.accepted(peer, prefix) else {
                continue;
            };
            let next_hop = attributes.next_hop.unwrap().address();
            let Some(cost) = self.costs.get(&next_hop).copied().unwrap_or(Some(0)) else {
                continue;
            };
            paths.push(Path {
                peer: Some(*index),
                external: !peer.session.ibgp,
                cost,
                identifier: attributes
                    .originator_id
                    .unwrap_or(peer.session.peer_router_id),
                address: Some(peer.session.peer_address),
                attributes,
            });
        }
        paths
    }

    /// RFC 4271 §9.1.2.2 as it is written: remove from consideration, step by step. Returns the best path and what is
    /// left before the last tie breaks.
    fn choose(&self, prefix: IpNet) -> (Option<Path>, Vec<Path>) {
        let mut paths = self.paths(prefix);
        keep_least(&mut paths, |path| {
            u32::MAX - path.attributes.local_pref.unwrap_or(100)
        });
        keep_least(&mut paths, |path| path.attributes.as_path.len());
        keep_least(&mut paths, |path| path.attributes.origin);
        let all = paths.clone();
        let neighbour = |path: &Path| {
            path.attributes
                .as_path
                .segments
                .first()
                .map(|segment| segment.asns[0])
        };
        let med = |path: &Path| path.attributes.med.unwrap_or(0);
        paths.retain(|path| {
            !all.iter()
                .any(|other| neighbour(other) == neighbour(path) && med(other) < med(path))
        });
        keep_least(&mut paths, |path| !path.external);
        keep_least(&mut paths, |path| path.cost);
        let equal = paths.clone();
        keep_least(&mut paths, |path| path.identifier);
        keep_least(&mut paths, |path| path.attributes.cluster_list.len());
        keep_least(&mut paths, |path| path.address);
        assert!(paths.len() <= 1);
        (paths.pop(), equal)
    }

    /// What a peer should have been told in the end.
    pub(super) fn told(&self, to: u32) -> BTreeMap<IpNet, Attributes> {
        let session = &self.peers[&to].session;
        self.prefixes()
            .into_iter()
            .filter_map(|prefix| {
                let best = self.choose(prefix).0?;
                if best.peer == Some(to) {
                    return None;
                }
                Some((prefix, self.export(session, prefix, best)?))
            })
            .collect()
    }

    fn export(&self, to: &PeerSession, prefix: IpNet, best: Path) -> Option<Attributes> {
        let from = best.peer.map(|peer| &self.peers[&peer].session);
        let source = match from {
            None => SourceKind::Local,
            Some(from) if from.ibgp => SourceKind::Internal,
            Some(_) => SourceKind::External,
        };
        let mut attributes = best.attributes;
        let has = |value| attributes.communities.contains(&Community(value));
        let reflects = to.reflector_client || from.is_some_and(|from| from.reflector_client);
        if has(0xffff_ff02)
            || (!to.ibgp && (has(0xffff_ff01) || has(0xffff_ff03)))
            || (to.ibgp && source == SourceKind::Internal && !reflects)
        {
            return None;
        }
        let Outcome::Accept(applied) = to.export.evaluate(&Candidate {
            prefix,
            attributes: &attributes,
            source,
        }) else {
            return None;
        };
        if !to.ibgp && source != SourceKind::Local {
            attributes.med = None;
        }
        to.export.apply(&applied, &mut attributes, ASN);
        let own = match prefix {
            IpNet::V4(_) => NextHop::from(to.local_address),
            IpNet::V6(_) => NextHop::from(to.other_local_address.unwrap()),
        };
        let route = attributes
            .next_hop
            .filter(|_| source != SourceKind::Local)
            .unwrap_or(own);
        let on_link = to
            .shared_subnet
            .is_some_and(|subnet| subnet.contains(&route.address()))
            && from.is_some_and(|from| from.peer_address == route.address());
        let keeps = match to.next_hop {
            NextHopMode::Own => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => to.ibgp || on_link,
        };
        let next_hop = if keeps { route } else { own };
        if prefix.addr().is_ipv4() != next_hop.address().is_ipv4() {
            return None;
        }
        attributes.next_hop = Some(next_hop);
        if to.ibgp {
            attributes.local_pref = Some(attributes.local_pref.unwrap_or(100));
            if source == SourceKind::Internal {
                let originator = attributes
                    .originator_id
                    .unwrap_or_else(|| from.unwrap().peer_router_id);
                attributes.originator_id = Some(originator);
                attributes.cluster_list.insert(0, ROUTER_ID);
            }
        } else {
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list = Vec::new();
            match attributes.as_path.segments.first_mut() {
                Some(first) => first.asns.insert(0, ASN),
                None => {
                    let first = Segment {
                        kind: SegmentKind::Sequence,
                        asns: vec![ASN],
                    };
                    attributes.as_path = AsPath {
                        segments: vec![first],
                    };
                }
            }
        }
        Some(attributes)
    }

    /// What the kernel should have in the end.
    pub(super) fn kernel(&self) -> BTreeMap<IpNet, Vec<NextHop>> {
        let mut routes = BTreeMap::new();
        for prefix in self.prefixes() {
            let (Some(best), equal) = self.choose(prefix) else {
                continue;
            };
            if best.peer.is_none() {
                continue;
            }
            let mut others: Vec<NextHop> = equal
                .iter()
                .filter_map(|path| path.attributes.next_hop)
                .collect();
            others.sort_unstable();
            others.dedup();
            let mut next_hops = vec![best.attributes.next_hop.unwrap()];
            for next_hop in others {
                if next_hops.len() < self.max_paths && !next_hops.contains(&next_hop) {
                    next_hops.push(next_hop);
                }
            }
            next_hops.sort_unstable();
            routes.insert(prefix, next_hops);
        }
        routes
    }
}

fn keep_least<T: Ord>(paths: &mut Vec<Path>, key: impl Fn(&Path) -> T) {
    if let Some(least) = paths.iter().map(&key).min() {
        paths.retain(|path| key(path) == least);
    }
}

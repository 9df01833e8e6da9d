//! A naive RIB: maps of what each peer said, and everything worked out from them on the spot.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::{AsPath, Attributes, Community, NextHop, Segment, SegmentKind};
use ipnet::IpNet;

use super::{ASN, ROUTER_ID};
use crate::config::{Client, Decision, LocalAs, NextHopMode, PrivateAs};
use crate::policy::{Candidate, NextHopChange, Outcome, SourceKind};
use crate::rib::PeerSession;

#[derive(Debug)]
pub(super) struct OraclePeer {
    pub(super) session: PeerSession,
    pub(super) up: bool,
    /// It is sending everything again.
    pub(super) refreshing: bool,
    /// What it announced, and whether that is from before its restart or refresh.
    pub(super) routes: BTreeMap<IpNet, (Attributes, bool)>,
}

#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) peers: BTreeMap<u32, OraclePeer>,
    pub(super) originated: BTreeMap<IpNet, Attributes>,
    pub(super) costs: BTreeMap<IpAddr, Option<u32>>,
    pub(super) decision: Decision,
    pub(super) clusters: Vec<Ipv4Addr>,
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
        let rules = &session.rules;
        let ours = |asn: &&u32| **asn == ASN || **asn == session.local_asn;
        let refused = flat.iter().filter(ours).count() > usize::from(rules.allowed_own_as)
            || (!session.ibgp && flat.first() != Some(&session.peer_asn))
            || next_hop == session.local_address
            || Some(next_hop) == session.other_local_address
            || attributes.originator_id == Some(ROUTER_ID)
            || attributes
                .cluster_list
                .iter()
                .any(|cluster| self.clusters.contains(cluster));
        let source = if session.ibgp {
            SourceKind::Internal
        } else {
            SourceKind::External
        };
        let Outcome::Accept(applied) = session.import.evaluate(&Candidate {
            prefix,
            attributes,
            source,
            from: Some(session.peer_address),
            internal: session.ibgp,
        }) else {
            return None;
        };
        if refused {
            return None;
        }
        let mut changed = attributes.clone();
        let effects = session
            .import
            .apply(&applied, &mut changed, session.local_asn);
        let wanted = match effects.next_hop {
            Some(NextHopChange::Address(address)) => Some(address),
            Some(NextHopChange::Peer) => Some(session.peer_address),
            Some(NextHopChange::Own) | None => None,
        };
        if let Some(wanted) = wanted.filter(|wanted| wanted.is_ipv4() == next_hop.is_ipv4()) {
            changed.next_hop = Some(wanted.into());
        }
        let came_with = |community| attributes.communities.contains(&community);
        if !session.ibgp && session.local_asn != ASN && rules.local_as == LocalAs::Prepend {
            put_in_front(&mut changed, session.local_asn);
        }
        if !session.ibgp && rules.graceful_shutdown && came_with(Community::GRACEFUL_SHUTDOWN) {
            changed.local_pref = Some(0);
        }
        if rules.blackhole && came_with(Community::BLACKHOLE) {
            tag(&mut changed, Community::BLACKHOLE);
            tag(&mut changed, Community::NO_ADVERTISE);
        }
        Some(changed)
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
            let discards = peer.session.rules.blackhole
                && attributes.communities.contains(&Community::BLACKHOLE);
            let known = self.costs.get(&next_hop).copied().unwrap_or(Some(0));
            let Some(cost) = known.or_else(|| discards.then_some(0)) else {
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
        let Decision {
            always_compare_med,
            missing_med_worst,
            multipath_relax,
            ..
        } = self.decision;
        let missing = if missing_med_worst { u32::MAX } else { 0 };
        let med = |path: &Path| path.attributes.med.unwrap_or(missing);
        paths.retain(|path| {
            !all.iter().any(|other| {
                (always_compare_med || neighbour(other) == neighbour(path))
                    && med(other) < med(path)
            })
        });
        keep_least(&mut paths, |path| !path.external);
        keep_least(&mut paths, |path| path.cost);
        let mut equal = paths.clone();
        keep_least(&mut paths, |path| path.identifier);
        keep_least(&mut paths, |path| path.attributes.cluster_list.len());
        keep_least(&mut paths, |path| path.address);
        assert!(paths.len() <= 1);
        let best = paths.pop();
        if let Some(best) = &best {
            equal.retain(|path| multipath_relax || neighbour(path) == neighbour(best));
        }
        (best, equal)
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
        let client = |session: &PeerSession| session.rules.client.filter(|_| session.ibgp);
        let (from_client, to_client) = (from.and_then(client), client(to));
        if forbidden(&attributes, to)
            || (to.ibgp && source == SourceKind::Internal && !reflects(from_client, to_client))
        {
            return None;
        }
        let Outcome::Accept(applied) = to.export.evaluate(&Candidate {
            prefix,
            attributes: &attributes,
            source,
            from: from.map(|from| from.peer_address),
            internal: to.ibgp,
        }) else {
            return None;
        };
        if !to.ibgp && source != SourceKind::Local {
            attributes.med = None;
        }
        if !to.ibgp {
            hide_asns(&mut attributes, to);
        }
        let wanted = to
            .export
            .apply(&applied, &mut attributes, to.local_asn)
            .next_hop;
        let next_hop = next_hop(to, from, prefix, attributes.next_hop, wanted);
        if prefix.addr().is_ipv4() != next_hop.address().is_ipv4() {
            return None;
        }
        attributes.next_hop = Some(next_hop);
        if to.rules.drain {
            tag(&mut attributes, Community::GRACEFUL_SHUTDOWN);
        }
        if to.ibgp {
            attributes.local_pref = Some(attributes.local_pref.unwrap_or(100));
            if to.rules.drain {
                attributes.local_pref = Some(0);
            }
            if source == SourceKind::Internal {
                let originator = attributes
                    .originator_id
                    .unwrap_or_else(|| from.unwrap().peer_router_id);
                attributes.originator_id = Some(originator);
                let cluster = from_client.or(to_client).unwrap().cluster_id;
                attributes.cluster_list.insert(0, cluster);
            }
        } else {
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list = Vec::new();
            if to.local_asn != ASN && to.rules.local_as != LocalAs::Replace {
                put_in_front(&mut attributes, ASN);
            }
            put_in_front(&mut attributes, to.local_asn);
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
            let from = &self.peers[&best.peer.unwrap()].session;
            if from.rules.blackhole && best.attributes.communities.contains(&Community::BLACKHOLE) {
                routes.insert(prefix, Vec::new());
                continue;
            }
            let max_paths = match best.external {
                true => self.decision.max_external_paths,
                false => self.decision.max_internal_paths,
            };
            let mut others: Vec<NextHop> = equal
                .iter()
                .filter_map(|path| path.attributes.next_hop)
                .collect();
            others.sort_unstable();
            others.dedup();
            let mut next_hops = vec![best.attributes.next_hop.unwrap()];
            for next_hop in others {
                if next_hops.len() < usize::from(max_paths) && !next_hops.contains(&next_hop) {
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

fn next_hop(
    to: &PeerSession,
    from: Option<&PeerSession>,
    prefix: IpNet,
    route: Option<NextHop>,
    wanted: Option<NextHopChange>,
) -> NextHop {
    let own = match prefix {
        IpNet::V4(_) => NextHop::from(to.local_address),
        IpNet::V6(_) => NextHop::from(to.other_local_address.unwrap()),
    };
    let route = route.filter(|_| from.is_some()).unwrap_or(own);
    let on_link = to
        .shared_subnet
        .is_some_and(|subnet| subnet.contains(&route.address()))
        && from.is_some_and(|from| from.peer_address == route.address());
    let keeps = match to.next_hop {
        NextHopMode::Own => false,
        NextHopMode::Keep => true,
        NextHopMode::Auto => to.ibgp || on_link,
    };
    match wanted {
        Some(NextHopChange::Own) => own,
        Some(NextHopChange::Address(address)) => address.into(),
        Some(NextHopChange::Peer) | None if keeps => route,
        Some(NextHopChange::Peer) | None => own,
    }
}

fn forbidden(attributes: &Attributes, to: &PeerSession) -> bool {
    let has = |community| attributes.communities.contains(&community);
    has(Community::NO_ADVERTISE)
        || (!to.ibgp && (has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED)))
        || (to.rules.bilateral && has(Community::NOPEER))
}

fn reflects(from: Option<Client>, to: Option<Client>) -> bool {
    match (from, to) {
        (None, None) => false,
        (Some(from), Some(to)) => from.cluster_id != to.cluster_id || !to.meshed,
        _ => true,
    }
}

fn put_in_front(attributes: &mut Attributes, asn: u32) {
    match attributes.as_path.segments.first_mut() {
        Some(first) => first.asns.insert(0, asn),
        None => {
            let first = Segment {
                kind: SegmentKind::Sequence,
                asns: vec![asn],
            };
            attributes.as_path = AsPath {
                segments: vec![first],
            };
        }
    }
}

fn tag(attributes: &mut Attributes, community: Community) {
    attributes.communities.push(community);
    attributes.communities.sort_unstable();
    attributes.communities.dedup();
}

/// The path that an external peer may see, before our own AS goes in front.
fn hide_asns(attributes: &mut Attributes, to: &PeerSession) {
    let private =
        |asn: u32| (64512..=65534).contains(&asn) || (4_200_000_000..=4_294_967_294).contains(&asn);
    let path: Vec<u32> = attributes
        .as_path
        .asns()
        .filter_map(|asn| match to.rules.private_as {
            _ if asn == to.peer_asn && to.rules.override_as => Some(to.local_asn),
            PrivateAs::Remove if private(asn) && asn != to.peer_asn => None,
            PrivateAs::Replace if private(asn) && asn != to.peer_asn => Some(to.local_asn),
            PrivateAs::Keep | PrivateAs::Remove | PrivateAs::Replace => Some(asn),
        })
        .collect();
    attributes.as_path = AsPath::sequence(path);
}

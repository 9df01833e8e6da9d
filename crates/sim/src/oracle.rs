//! What every node should have, worked out anew from what its neighbours have chosen, straight from the RFCs' words.
//!
//! It knows no RIB: it takes the best paths of a node's neighbours, tells each of them on as the neighbour should have, and
//! chooses among what arrives. Where every node's choice agrees with that, the whole network is in a stable state. A
//! route that nobody originates can't support itself in such a state: AS_PATH and CLUSTER_LIST grow with every step.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp::config::{NextHopMode, PeerConfig, SpeakerConfig};
use bgp::policy::{Candidate, Outcome, SourceKind};
use bgp::rib::{PathState, PathView, Selection};
use bgp::session::State;
use bgp_wire::{AsPath, Attributes, Community, NextHop, Segment, SegmentKind};
use ipnet::IpNet;

use crate::address::NodeId;
use crate::net::Net;

const NO_EXPORT: Community = Community(0xffff_ff01);
const NO_ADVERTISE: Community = Community(0xffff_ff02);

/// The best path of a node to a prefix, as the node itself says.
#[derive(Debug, Clone)]
struct Best {
    attributes: Attributes,
    /// `None`: a route of its own.
    from: Option<NodeId>,
}

/// A path that a node should have.
#[derive(Debug, Clone)]
struct Arrived {
    from: NodeId,
    attributes: Attributes,
    external: bool,
    cost: u32,
    usable: bool,
}

impl Arrived {
    fn identifier(&self) -> Ipv4Addr {
        let originator = self.attributes.originator_id;
        originator.unwrap_or_else(|| self.from.router_id())
    }

    fn neighbour(&self) -> Option<u32> {
        let first = self.attributes.as_path.segments.first()?;
        (first.kind == SegmentKind::Sequence).then(|| first.asns[0])
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Oracle<'a> {
    net: &'a Net,
    /// What each node has chosen, of those that were asked.
    chosen: BTreeMap<NodeId, BTreeMap<IpNet, Best>>,
    /// Costs that a kernel has told its speaker.
    costs: &'a BTreeMap<(NodeId, NodeId), Option<u32>>,
}

impl<'a> Oracle<'a> {
    /// An oracle over a net at rest.
    #[must_use]
    pub fn new(net: &'a Net, costs: &'a BTreeMap<(NodeId, NodeId), Option<u32>>) -> Self {
        Self {
            net,
            chosen: BTreeMap::new(),
            costs,
        }
    }

    /// Compares all that a node has with what it should have: every path, the best of them, the kernel's routes.
    ///
    /// # Errors
    ///
    /// What differs.
    pub fn check(&mut self, node: NodeId) -> Result<(), String> {
        let Some(speaker) = self.net.host(node).speaker() else {
            return Ok(());
        };
        let neighbours: Vec<NodeId> = self.established(node);
        for neighbour in &neighbours {
            self.ask(*neighbour);
        }
        let mut expected: BTreeMap<IpNet, Vec<Arrived>> = BTreeMap::new();
        for neighbour in neighbours {
            for (prefix, arrived) in self.arriving(neighbour, node) {
                expected.entry(prefix).or_default().push(arrived);
            }
        }
        let config = &self.net.host(node).config;
        for route in speaker.routes(&Selection::All) {
            let arrived = expected.remove(&route.prefix).unwrap_or_default();
            let own = config.originated.get(&route.prefix);
            self.compare(node, &route.prefix, own, arrived, &route.paths)
                .map_err(|what| format!("{node} has for {}: {what}", route.prefix))?;
        }
        match expected.into_iter().next() {
            Some((prefix, arrived)) => Err(format!("{node} lacks {prefix}: {arrived:?}")),
            None => Ok(()),
        }
    }

    /// Peers with whom a session is up, on both sides.
    fn established(&self, node: NodeId) -> Vec<NodeId> {
        let up = |status: &bgp::view::PeerStatus| status.state == State::Established;
        let peers = self.net.peers(node);
        peers
            .iter()
            .filter(|status| up(status))
            .filter_map(|status| NodeId::of(status.address))
            .collect()
    }

    fn ask(&mut self, node: NodeId) {
        let net = self.net;
        self.chosen.entry(node).or_insert_with(|| {
            let Some(speaker) = net.host(node).speaker() else {
                return BTreeMap::new();
            };
            let best = |path: &PathView| matches!(path.state, PathState::Best(_));
            speaker
                .routes(&Selection::All)
                .into_iter()
                .filter_map(|mut route| {
                    let at = route.paths.iter().position(best)?;
                    let path = route.paths.swap_remove(at);
                    let best = Best {
                        attributes: path.attributes,
                        from: path.peer_address.and_then(NodeId::of),
                    };
                    Some((route.prefix, best))
                })
                .collect()
        });
    }

    /// What `from` tells `to`, as `to` takes it.
    fn arriving(&self, from: NodeId, to: NodeId) -> Vec<(IpNet, Arrived)> {
        let (sender, receiver) = (&self.net.host(from).config, &self.net.host(to).config);
        let (Some(out), Some(into)) = (
            sender.peers.get(&to.address()),
            receiver.peers.get(&from.address()),
        ) else {
            return Vec::new();
        };
        let told = self.chosen.get(&from).into_iter().flatten();
        told.filter(|(_, best)| best.from != Some(to))
            .filter_map(|(prefix, best)| {
                let attributes = tell(sender, from, out, *prefix, best)?;
                let arrived = self.take(receiver, to, into, from, *prefix, attributes);
                Some((*prefix, arrived))
            })
            .collect()
    }

    /// Import: the checks of RFC 4271 §6.3, §9.1.2 and RFC 4456 §8, then policy. What is refused is kept as it came.
    fn take(
        &self,
        config: &SpeakerConfig,
        node: NodeId,
        peer: &PeerConfig,
        from: NodeId,
        prefix: IpNet,
        mut attributes: Attributes,
    ) -> Arrived {
        let external = peer.asn != config.asn;
        let flat: Vec<u32> = attributes
            .as_path
            .segments
            .iter()
            .flat_map(|segment| segment.asns.iter().copied())
            .collect();
        let next_hop = attributes.next_hop.map(|next_hop| next_hop.address());
        let mut usable = !flat.contains(&config.asn)
            && (!external || flat.first() == Some(&peer.asn))
            && next_hop != Some(node.address())
            && attributes.originator_id != Some(node.router_id())
            && !clusters(config, node)
                .iter()
                .any(|cluster| attributes.cluster_list.contains(cluster));
        let source = match external {
            true => SourceKind::External,
            false => SourceKind::Internal,
        };
        let candidate = Candidate {
            prefix,
            attributes: &attributes,
            source,
            from: Some(from.address()),
            internal: !external,
        };
        match peer.import.evaluate(&candidate) {
            Outcome::Accept(applied) if usable => {
                peer.import.apply(&applied, &mut attributes, config.asn);
            }
            Outcome::Accept(_) | Outcome::Reject(_) => usable = false,
        }
        let cost = next_hop
            .and_then(NodeId::of)
            .and_then(|next_hop| self.costs.get(&(node, next_hop)).copied())
            .unwrap_or(Some(0));
        Arrived {
            from,
            attributes,
            external,
            cost: cost.unwrap_or(0),
            usable: usable && cost.is_some(),
        }
    }

    fn compare(
        &self,
        node: NodeId,
        prefix: &IpNet,
        own: Option<&Attributes>,
        mut arrived: Vec<Arrived>,
        paths: &[PathView],
    ) -> Result<(), String> {
        let expected = arrived.len() + usize::from(own.is_some());
        if paths.len() != expected {
            return Err(format!(
                "{} paths instead of {expected}: {paths:?}",
                paths.len()
            ));
        }
        for path in paths {
            if path.stale {
                return Err(format!("a stale path: {path:?}"));
            }
            let Some(address) = path.peer_address else {
                if own != Some(&path.attributes) {
                    return Err(format!("an own route that is not configured: {path:?}"));
                }
                continue;
            };
            let from = NodeId::of(address);
            let Some(wanted) = arrived.iter().find(|wanted| Some(wanted.from) == from) else {
                return Err(format!("a path that nobody told of: {path:?}"));
            };
            let usable = matches!(path.state, PathState::Best(_) | PathState::Lost(_));
            if usable != wanted.usable || path.attributes != wanted.attributes {
                return Err(format!("{path:?} instead of {wanted:?}"));
            }
        }
        arrived.retain(|path| path.usable);
        let (best, equal) = match own {
            Some(_) => (None, Vec::new()),
            None => choose(arrived),
        };
        let chosen = paths
            .iter()
            .find(|path| matches!(path.state, PathState::Best(_)));
        let chosen_from = chosen.map(|path| path.peer_address);
        let best_from = match (own, &best) {
            (Some(_), _) => Some(None),
            (None, best) => best.as_ref().map(|best| Some(best.from.address())),
        };
        if chosen_from != best_from {
            return Err(format!(
                "the path of {chosen_from:?} instead of {best_from:?}: {paths:?}"
            ));
        }
        self.compare_kernel(node, prefix, best.as_ref(), &equal)
    }

    fn compare_kernel(
        &self,
        node: NodeId,
        prefix: &IpNet,
        best: Option<&Arrived>,
        equal: &[Arrived],
    ) -> Result<(), String> {
        let gateway = |path: &Arrived| {
            let next_hop = path.attributes.next_hop?;
            NodeId::of(next_hop.address())
        };
        let decision = &self.net.host(node).config.decision;
        let most = match best.is_some_and(|best| best.external) {
            true => usize::from(decision.max_external_paths),
            false => usize::from(decision.max_internal_paths),
        };
        let mut wanted: Vec<NodeId> = best.and_then(gateway).into_iter().collect();
        let mut others: Vec<NodeId> = equal.iter().filter_map(gateway).collect();
        others.sort_unstable();
        others.dedup();
        for other in others {
            if wanted.len() < most && !wanted.contains(&other) {
                wanted.push(other);
            }
        }
        wanted.sort_unstable();
        let block = crate::address::Block::of(prefix).ok_or("not a block")?;
        let actual = self.net.lookup(node, block);
        if actual != wanted {
            return Err(format!(
                "kernel routes via {actual:?} instead of {wanted:?}"
            ));
        }
        Ok(())
    }
}

/// The clusters that a node reflects for; its own identifier where none is configured.
fn clusters(config: &SpeakerConfig, node: NodeId) -> Vec<Ipv4Addr> {
    let clients = config.peers.values().filter_map(|peer| peer.rules.client);
    let mut clusters: Vec<Ipv4Addr> = clients.map(|client| client.cluster_id).collect();
    clusters.push(config.cluster_id.unwrap_or_else(|| node.router_id()));
    clusters
}

/// Export: who may be told (RFC 4271 §9.2, RFC 4456 §6, RFC 1997), policy, and the attributes (RFC 4271 §5.1, RFC 4456 §8).
fn tell(
    config: &SpeakerConfig,
    node: NodeId,
    to: &PeerConfig,
    prefix: IpNet,
    best: &Best,
) -> Option<Attributes> {
    let internal = to.asn == config.asn;
    let source_peer = best.from.and_then(|from| config.peers.get(&from.address()));
    let source = match source_peer {
        None => SourceKind::Local,
        Some(peer) if peer.asn == config.asn => SourceKind::Internal,
        Some(_) => SourceKind::External,
    };
    let client = source_peer
        .and_then(|peer| peer.rules.client)
        .or(to.rules.client);
    let reflects = client.is_some();
    let has = |community| best.attributes.communities.contains(&community);
    if has(NO_ADVERTISE)
        || (has(NO_EXPORT) && !internal)
        || (internal && source == SourceKind::Internal && !reflects)
    {
        return None;
    }
    let candidate = Candidate {
        prefix,
        attributes: &best.attributes,
        source,
        from: best.from.map(NodeId::address),
        internal,
    };
    let Outcome::Accept(applied) = to.export.evaluate(&candidate) else {
        return None;
    };
    let mut attributes = best.attributes.clone();
    if !internal && source != SourceKind::Local {
        attributes.med = None;
    }
    to.export.apply(&applied, &mut attributes, config.asn);
    let unchanged = source != SourceKind::Local
        && match to.next_hop {
            NextHopMode::Own => false,
            NextHopMode::Keep => true,
            NextHopMode::Auto => internal,
        };
    if !unchanged || attributes.next_hop.is_none() {
        attributes.next_hop = Some(NextHop::V4(node.router_id()));
    }
    if internal {
        attributes.local_pref = Some(attributes.local_pref.unwrap_or(100));
        if let (SourceKind::Internal, Some(from)) = (source, best.from) {
            let originator = attributes.originator_id.unwrap_or_else(|| from.router_id());
            attributes.originator_id = Some(originator);
            attributes.cluster_list.insert(0, client?.cluster_id);
        }
        return Some(attributes);
    }
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    match attributes.as_path.segments.first_mut() {
        Some(first) if first.kind == SegmentKind::Sequence => first.asns.insert(0, config.asn),
        _ => {
            let mut segments = vec![Segment {
                kind: SegmentKind::Sequence,
                asns: vec![config.asn],
            }];
            segments.append(&mut attributes.as_path.segments);
            attributes.as_path = AsPath { segments };
        }
    }
    Some(attributes)
}

/// RFC 4271 §9.1.2.2 and RFC 4456 §9 as they are written: take paths away, step by step. The best path, and what is left
/// before the last ties are broken.
fn choose(mut paths: Vec<Arrived>) -> (Option<Arrived>, Vec<Arrived>) {
    least(&mut paths, |path| {
        u32::MAX - path.attributes.local_pref.unwrap_or(100)
    });
    least(&mut paths, |path| path.attributes.as_path.len());
    least(&mut paths, |path| path.attributes.origin);
    let med = |path: &Arrived| path.attributes.med.unwrap_or(0);
    let all = paths.clone();
    paths.retain(|path| {
        !all.iter()
            .any(|other| other.neighbour() == path.neighbour() && med(other) < med(path))
    });
    least(&mut paths, |path| !path.external);
    least(&mut paths, |path| path.cost);
    let equal = paths.clone();
    least(&mut paths, Arrived::identifier);
    least(&mut paths, |path| path.attributes.cluster_list.len());
    least(&mut paths, |path| IpAddr::from(path.from.router_id()));
    (paths.pop(), equal)
}

fn least<T: Ord>(paths: &mut Vec<Arrived>, key: impl Fn(&Arrived) -> T) {
    if let Some(least) = paths.iter().map(&key).min() {
        paths.retain(|path| key(path) == least);
    }
}

//! Where the peers of a BGPPeer are for one node: a row of a table, a range, or behind a gateway.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;

use bgp::config::{DynamicPeers, PeerConfig};
use ipnet::IpNet;
use resources::{AsNumber, BgpPeerSpec, ClusterState, Kind, Node, PeerAddress, Problem, Severity};

use crate::peers::{Planner, Wanted, selected};
use crate::plan::problem;

/// How many peers a range may have where nothing else is said.
const DEFAULT_RANGE_LIMIT: u32 = 100;

/// The gateways to this node's peers, where a BGPPeer says one.
pub(crate) fn gateways(
    cluster: &ClusterState,
    node: &Node,
    peers: &BTreeMap<IpAddr, PeerConfig>,
) -> BTreeMap<IpAddr, IpAddr> {
    let own = cluster.peers.values().filter(|spec| selected(spec, node));
    let pairs = own.filter_map(|spec| Some((spec.peer_ip?.ip, spec.reachable_by?)));
    pairs.filter(|(peer, _)| peers.contains_key(peer)).collect()
}

impl Planner<'_> {
    /// Where the peers are that a BGPPeer says for this node.
    pub(crate) fn addresses(
        &self,
        name: &str,
        spec: &BgpPeerSpec,
        problems: &mut Vec<Problem>,
    ) -> Vec<(PeerAddress, AsNumber)> {
        let Some(table) = &spec.peers_by_label else {
            return spec.peer_ip.zip(spec.as_number).into_iter().collect();
        };
        let labels = &self.node.metadata.labels;
        if let Some(row) = table.get(labels) {
            let peers = row.iter().map(|peer| (peer.peer_ip, peer.as_number));
            return peers.collect();
        }
        let found = match labels.get(&table.label) {
            Some(value) => format!("has `{}: {value}`, for which there is no row", table.label),
            None => format!("has no label `{}`", table.label),
        };
        let message = format!(
            "Node {} {found}: it has no peer by this",
            self.node.metadata.name
        );
        problems.push(problem(
            Severity::Warning,
            Some((Kind::BgpPeer, name)),
            "spec.peersByLabel",
            message,
        ));
        Vec::new()
    }

    /// Peers that are accepted from ranges.
    pub(crate) fn ranges(&self, problems: &mut Vec<Problem>) -> BTreeMap<IpNet, DynamicPeers> {
        let mut dynamic = BTreeMap::new();
        for (name, spec) in &self.cluster.peers {
            let Some(range) = spec
                .peer_range
                .as_ref()
                .filter(|_| selected(spec, self.node))
            else {
                continue;
            };
            let entry = match dynamic.entry(range.cidr) {
                Entry::Vacant(entry) => entry,
                Entry::Occupied(_) => {
                    let cidr = range.cidr;
                    let message =
                        format!("another BGPPeer has {cidr}: this one has no effect here");
                    let object = Some((Kind::BgpPeer, name.as_str()));
                    problems.push(problem(
                        Severity::Warning,
                        object,
                        "spec.peerRange.cidr",
                        message,
                    ));
                    continue;
                }
            };
            let asns = range.as_numbers.iter().map(|asn| asn.get());
            // Only where all are of one AS is it known before they come whether they are internal peers.
            let known = asns.clone().next().filter(|_| range.as_numbers.len() == 1);
            let peer = Wanted {
                name,
                spec,
                at: PeerAddress {
                    ip: range.cidr.addr(),
                    port: None,
                },
                asn: known.unwrap_or_default(),
            };
            entry.insert(DynamicPeers {
                asns: asns.map(|asn| asn..=asn).collect(),
                limit: range.limit.unwrap_or(DEFAULT_RANGE_LIMIT),
                template: self.peer(&peer, problems),
            });
        }
        dynamic
    }
}

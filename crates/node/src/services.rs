//! Which addresses of Services a node announces, as Calico does: ranges from every node, and single addresses where a
//! range would send packets to nodes that have no endpoint for them, or where there is no range.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp_wire::pattern::AnyCommunity;
use dataplane::Firewall;
use ipnet::IpNet;
use resources::advertisement::{Aggregation, LoopPrevention, ServiceRange};
use resources::bgp_configuration::DEFAULT;
use resources::service::EXCLUDE_NODE;
use resources::{BgpConfigurationSpec, ClusterState, Kind, Node, Problem, Service, Severity};

use crate::plan::problem;

/// Prefixes to announce, each with the communities that its Services ask for.
pub(crate) type Announced = BTreeMap<IpNet, BTreeSet<AnyCommunity>>;

/// A range of each kind of address as a field of [`BgpConfigurationSpec`].
pub(crate) fn ranges(cluster: &ClusterState) -> impl Iterator<Item = IpNet> + '_ {
    let all = cluster.configurations.get(DEFAULT).into_iter();
    all.flat_map(BgpConfigurationSpec::service_ranges)
        .map(|range| range.cidr)
}

/// What this node announces of Services.
pub(crate) fn announced(cluster: &ClusterState, node: &Node) -> Announced {
    let mut announced = Announced::new();
    let Some(spec) = cluster.configurations.get(DEFAULT) else {
        return announced;
    };
    if node.metadata.labels.contains_key(EXCLUDE_NODE) || spec.service_ranges().next().is_none() {
        return announced;
    }
    let aggregated =
        spec.service_load_balancer_aggregation.unwrap_or_default() == Aggregation::Enabled;
    let load_balancers = spec.service_load_balancer_ips.iter();
    let whole = spec
        .service_cluster_ips
        .iter()
        .chain(&spec.service_external_ips)
        .chain(load_balancers.filter(|_| aggregated));
    for range in whole.filter(|range| !is_single(range.cidr)) {
        announced.entry(range.cidr).or_default();
    }
    let here = local_endpoints(cluster, &node.metadata.name);
    for (name, service) in &cluster.services {
        for address in addresses(spec, service, aggregated) {
            let local = || here.contains(&(name.clone(), address.ip.is_ipv4()));
            if address.is_announced(service.advertise(), local) {
                let entry = announced.entry(IpNet::from(address.ip)).or_default();
                entry.extend(service.communities());
            }
        }
    }
    announced
}

/// Services that have a ready endpoint on this node, by full name and whether it is of IPv4.
fn local_endpoints(cluster: &ClusterState, node: &str) -> BTreeSet<(String, bool)> {
    let slices = cluster.endpoint_slices.values();
    let here = slices.filter(|slice| slice.nodes.iter().any(|name| name == node));
    here.map(|slice| (slice.service_reference(), slice.ipv4))
        .collect()
}

/// One address of a Service, inside a range.
struct Address {
    ip: IpAddr,
    /// Only nodes with an endpoint get its packets.
    local: bool,
    /// Every node announces the range.
    covered: bool,
}

impl Address {
    /// Whether the node announces it by itself.
    fn is_announced(&self, asked: Option<bool>, local: impl FnOnce() -> bool) -> bool {
        match asked {
            Some(false) => false,
            _ if self.local => local(),
            Some(true) => true,
            None => !self.covered,
        }
    }
}

/// A Service's addresses inside the ranges.
fn addresses<'a>(
    spec: &'a BgpConfigurationSpec,
    service: &'a Service,
    aggregated: bool,
) -> impl Iterator<Item = Address> + 'a {
    let Service {
        cluster_ips,
        external_ips,
        load_balancer_ips,
        external_local,
        internal_local,
        ..
    } = service;
    let kinds = [
        // As in Calico, a ClusterIP that comes in from outside is under the external policy; kube-proxy goes by the
        // internal one. A node that lacks endpoints is the wrong one by either.
        (
            cluster_ips,
            &spec.service_cluster_ips,
            *external_local || *internal_local,
            true,
        ),
        (
            external_ips,
            &spec.service_external_ips,
            *external_local,
            true,
        ),
        (
            load_balancer_ips,
            &spec.service_load_balancer_ips,
            *external_local,
            aggregated,
        ),
    ];
    kinds
        .into_iter()
        .flat_map(|(ips, ranges, local, aggregated)| {
            ips.iter().filter_map(move |ip| {
                let mut inside = ranges
                    .iter()
                    .filter(|range| range.cidr.contains(ip))
                    .peekable();
                inside.peek()?;
                let whole = |range: &ServiceRange| aggregated && !is_single(range.cidr);
                Some(Address {
                    ip: *ip,
                    local,
                    covered: inside.any(whole),
                })
            })
        })
}

fn is_single(range: IpNet) -> bool {
    range.prefix_len() == range.max_prefix_len()
}

/// What becomes of packets to addresses that no Service has. Ranges in which there is somebody else are left alone, for their
/// packets are forwarded by nodes as well.
pub(crate) fn guard(cluster: &ClusterState, firewall: &mut Firewall, problems: &mut Vec<Problem>) {
    let Some(spec) = cluster.configurations.get(DEFAULT) else {
        return;
    };
    let prevention = spec.service_loop_prevention.unwrap_or_default();
    firewall.reject_services = prevention == LoopPrevention::Reject;
    if prevention == LoopPrevention::Disabled {
        return;
    }
    let pools = cluster.pools.values().map(|pool| pool.cidr);
    let nodes = cluster.nodes.values();
    let others: Vec<IpNet> = pools
        .chain(nodes.clone().flat_map(Node::pod_cidrs))
        .chain(nodes.flat_map(Node::internal_ips).map(IpNet::from))
        .collect();
    let lists = [
        ("spec.serviceClusterIPs", &spec.service_cluster_ips),
        ("spec.serviceExternalIPs", &spec.service_external_ips),
        (
            "spec.serviceLoadBalancerIPs",
            &spec.service_load_balancer_ips,
        ),
    ];
    for (field, ranges) in lists {
        for (index, ServiceRange { cidr }) in ranges.iter().enumerate() {
            let overlaps = |other: &&IpNet| cidr.contains(*other) || other.contains(cidr);
            match others.iter().find(overlaps) {
                None => firewall.services.push(*cidr),
                Some(other) => problems.push(problem(
                    Severity::Warning,
                    Some((Kind::BgpConfiguration, DEFAULT)),
                    &format!("{field}[{index}].cidr"),
                    format!(
                        "{cidr} overlaps {other}, which nodes or pods are in: packets to addresses of it that no Service has are not dropped"
                    ),
                )),
            }
        }
    }
    firewall.services.sort_unstable();
    firewall.services.dedup();
}

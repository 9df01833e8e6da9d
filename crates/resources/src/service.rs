//! What we use of Kubernetes' `v1` Service and `discovery.k8s.io/v1` EndpointSlice: which addresses a Service has, and
//! on which nodes it can be reached. Kubernetes owns these kinds, so fields that we don't know are passed over; and they
//! are many, so what we have no use for is not kept.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use bgp_wire::pattern::AnyCommunity;
use serde::de::{self, Deserialize, Deserializer};

use crate::Metadata;
use crate::fault::Fault;

/// Annotation of a Service: `true` announces each of its addresses by itself, also where a range that holds them is
/// announced; `false` announces none by itself.
pub const ADVERTISE: &str = "margay.dev/advertise";

/// Annotation of a Service: communities of its addresses' own routes, with commas between.
pub const COMMUNITIES: &str = "margay.dev/communities";

/// Label of a Node that is to attract no Services' packets, whatever its value: Kubernetes' own.
pub const EXCLUDE_NODE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// Label of an EndpointSlice: its Service's name.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service, as far as its addresses go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Name, namespace, and annotations of ours.
    pub metadata: Metadata,
    /// `spec.clusterIPs`, or else `spec.clusterIP`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` of a Service of type LoadBalancer, but for those whose `ipMode` is `Proxy`:
    /// packets to these don't come to nodes.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.externalTrafficPolicy` is `Local`.
    pub external_local: bool,
    /// `spec.internalTrafficPolicy` is `Local`.
    pub internal_local: bool,
}

/// Nodes on which a Service has endpoints of one family that are ready, and not about to end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name and namespace.
    pub metadata: Metadata,
    /// The Service's name; empty where the slice is not one of a Service's.
    pub service: String,
    /// `addressType` is `IPv4`, else `IPv6`.
    pub ipv4: bool,
    /// Names of the nodes, sorted.
    pub nodes: Vec<String>,
}

impl Service {
    /// Whether it has an address that could be announced.
    #[must_use]
    pub fn has_addresses(&self) -> bool {
        let lists = [
            &self.cluster_ips,
            &self.external_ips,
            &self.load_balancer_ips,
        ];
        lists.iter().any(|list| !list.is_empty())
    }

    /// What its annotation asks for.
    #[must_use]
    pub fn advertise(&self) -> Option<bool> {
        self.metadata.annotations.get(ADVERTISE)?.parse().ok()
    }

    /// The communities that its annotation asks for.
    pub fn communities(&self) -> impl Iterator<Item = AnyCommunity> + '_ {
        self.written_communities()
            .filter_map(|text| text.parse().ok())
    }

    fn written_communities(&self) -> impl Iterator<Item = &str> {
        let text = self.metadata.annotations.get(COMMUNITIES);
        let parts = text.into_iter().flat_map(|text| text.split(','));
        parts.map(str::trim).filter(|part| !part.is_empty())
    }

    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        if let Some(text) = self.metadata.annotations.get(ADVERTISE)
            && text.parse::<bool>().is_err()
        {
            let message = format!("`{text}` is neither `true` nor `false`, in quotes");
            faults.push(Fault::at("metadata.annotations", message).below(ADVERTISE));
        }
        for text in self.written_communities() {
            if let Err(error) = text.parse::<AnyCommunity>() {
                let message = format!("`{text}`: {error}");
                faults.push(Fault::at("metadata.annotations", message).below(COMMUNITIES));
            }
        }
    }
}

impl EndpointSlice {
    /// Its Service's name with its namespace, as [`ObjectRef`](crate::ObjectRef) has it.
    #[must_use]
    pub fn service_reference(&self) -> String {
        format!("{}/{}", self.metadata.namespace(), self.service)
    }
}

impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document::Service {
            metadata,
            spec,
            status,
        } = document::Service::deserialize(deserializer)?;
        let ingress = status.load_balancer.ingress;
        let ours = spec.kind == "LoadBalancer";
        let to_nodes = |ingress: &document::Ingress| ours && ingress.ip_mode != "Proxy";
        Ok(Self {
            metadata: Metadata {
                labels: Default::default(),
                annotations: metadata
                    .annotations
                    .into_iter()
                    .filter(|(key, _)| key == ADVERTISE || key == COMMUNITIES)
                    .collect(),
                ..metadata
            },
            cluster_ips: match spec.cluster_ips.is_empty() {
                true => addresses([spec.cluster_ip]),
                false => addresses(spec.cluster_ips),
            },
            external_ips: addresses(spec.external_ips),
            load_balancer_ips: addresses(
                ingress
                    .into_iter()
                    .filter(to_nodes)
                    .map(|ingress| ingress.ip),
            ),
            external_local: spec.external_traffic_policy == "Local",
            internal_local: spec.internal_traffic_policy == "Local",
        })
    }
}

impl<'de> Deserialize<'de> for EndpointSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document::EndpointSlice {
            mut metadata,
            address_type,
            endpoints,
        } = document::EndpointSlice::deserialize(deserializer)?;
        let addresses = ["IPv4", "IPv6"].contains(&address_type.as_str());
        let ready = endpoints.into_iter().filter(|endpoint| {
            let conditions = endpoint.conditions;
            // As Kubernetes has it: what is not said is ready, and not terminating.
            addresses
                && conditions.ready.unwrap_or(true)
                && !conditions.terminating.unwrap_or(false)
        });
        let mut nodes: Vec<String> = ready.filter_map(|endpoint| endpoint.node_name).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.shrink_to_fit();
        let service = metadata.labels.remove(SERVICE_NAME).unwrap_or_default();
        Ok(Self {
            metadata: Metadata {
                labels: Default::default(),
                annotations: Default::default(),
                ..metadata
            },
            service,
            ipv4: address_type == "IPv4",
            nodes,
        })
    }
}

fn addresses(list: impl IntoIterator<Item = document::Ip>) -> Vec<IpAddr> {
    list.into_iter().filter_map(|ip| ip.0).collect()
}

/// The objects as Kubernetes has them.
mod document {
    use super::{Deserialize, Deserializer, IpAddr, Metadata, de};

    #[derive(serde::Deserialize)]
    pub(super) struct Service {
        pub(super) metadata: Metadata,
        #[serde(default)]
        pub(super) spec: Spec,
        #[serde(default)]
        pub(super) status: Status,
    }

    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Spec {
        #[serde(rename = "type")]
        pub(super) kind: String,
        #[serde(rename = "clusterIP")]
        pub(super) cluster_ip: Ip,
        #[serde(rename = "clusterIPs")]
        pub(super) cluster_ips: Vec<Ip>,
        #[serde(rename = "externalIPs")]
        pub(super) external_ips: Vec<Ip>,
        pub(super) external_traffic_policy: String,
        pub(super) internal_traffic_policy: String,
    }

    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Status {
        pub(super) load_balancer: LoadBalancer,
    }

    #[derive(Default, serde::Deserialize)]
    #[serde(default)]
    pub(super) struct LoadBalancer {
        pub(super) ingress: Vec<Ingress>,
    }

    #[derive(Default, serde::Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    pub(super) struct Ingress {
        pub(super) ip: Ip,
        pub(super) ip_mode: String,
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct EndpointSlice {
        pub(super) metadata: Metadata,
        pub(super) address_type: String,
        #[serde(default)]
        pub(super) endpoints: Vec<Endpoint>,
    }

    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub(super) struct Endpoint {
        #[serde(default)]
        pub(super) conditions: Conditions,
        #[serde(default)]
        pub(super) node_name: Option<String>,
    }

    #[derive(Clone, Copy, Default, serde::Deserialize)]
    #[serde(default)]
    pub(super) struct Conditions {
        pub(super) ready: Option<bool>,
        pub(super) terminating: Option<bool>,
    }

    /// An address, or none: a headless Service has the word `None`.
    #[derive(Default)]
    pub(super) struct Ip(pub(super) Option<IpAddr>);

    impl<'de> Deserialize<'de> for Ip {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text.is_empty() || text == "None" {
                return Ok(Self(None));
            }
            let wrong = |_| de::Error::custom(format!("`{text}` is not an address"));
            text.parse().map(|ip| Self(Some(ip))).map_err(wrong)
        }
    }
}

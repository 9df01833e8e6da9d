//! What we use of Kubernetes' `v1` Node. Kubernetes owns this kind, so fields that we don't know are passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use crate::fault::Fault;
use crate::values::parse_cidr;
use crate::{AsNumber, Metadata};

/// Annotation or label: the node's AS. The annotation wins.
pub const AS_NUMBER: &str = "margay.dev/as-number";

/// Annotation: the node's BGP identifier, where it isn't the first IPv4 InternalIP.
pub const ROUTER_ID: &str = "margay.dev/router-id";

/// Annotation: the node is a route reflector, and this its cluster id (RFC 4456). It leaves the mesh.
pub const ROUTE_REFLECTOR_CLUSTER_ID: &str = "margay.dev/route-reflector-cluster-id";

/// Annotation: `true` while the node is about to go: peers are told to prefer any other path (RFC 8326).
pub const DRAIN: &str = "margay.dev/drain";

/// Label: the node's failure domain, as Kubernetes has it.
pub const ZONE: &str = "topology.kubernetes.io/zone";

/// Label: the node is never chosen to be a route reflector, whatever the label's value.
pub const EXCLUDE_REFLECTOR: &str = "margay.dev/exclude-from-route-reflectors";

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What is wanted.
    #[serde(default)]
    pub spec: NodeSpec,
    /// What is.
    #[serde(default)]
    pub status: NodeStatus,
}

/// A node's `spec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// The first of `podCIDRs`.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Ranges of this node's pods, at most one of each family.
    #[serde(default, rename = "podCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub pod_cidrs: Vec<String>,
    /// No new pods are to come: it is about to go, as a rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unschedulable: bool,
}

/// A node's `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<NodeAddress>,
    /// What is the case with it. Only its readiness is kept.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "readiness"
    )]
    pub conditions: Vec<NodeCondition>,
}

/// One thing that is or isn't the case with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCondition {
    /// What: `Ready`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, or `Unknown`.
    pub status: String,
}

fn readiness<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NodeCondition>, D::Error> {
    let mut conditions = Vec::<NodeCondition>::deserialize(deserializer)?;
    conditions.retain(|condition| condition.kind == "Ready");
    Ok(conditions)
}

/// One of a node's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddress {
    /// `InternalIP`, `Hostname`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The address, or a name.
    pub address: String,
}

impl Node {
    /// The AS that its annotation says, or its label.
    #[must_use]
    pub fn as_number(&self) -> Option<AsNumber> {
        let Metadata {
            annotations,
            labels,
            ..
        } = &self.metadata;
        let text = annotations.get(AS_NUMBER).or_else(|| labels.get(AS_NUMBER));
        text?.parse().ok()
    }

    /// The BGP identifier that its annotation says.
    #[must_use]
    pub fn router_id(&self) -> Option<Ipv4Addr> {
        self.metadata.annotations.get(ROUTER_ID)?.parse().ok()
    }

    /// Its cluster id, if it is a route reflector.
    #[must_use]
    pub fn route_reflector_cluster_id(&self) -> Option<Ipv4Addr> {
        let text = self.metadata.annotations.get(ROUTE_REFLECTOR_CLUSTER_ID)?;
        text.parse().ok()
    }

    /// Whether its routes are about to go.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.metadata
            .annotations
            .get(DRAIN)
            .is_some_and(|text| text == "true")
    }

    /// Whether it is likely to stay: it is ready as far as anybody says, takes pods, and isn't being drained.
    #[must_use]
    pub fn is_dependable(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        let ready = conditions.all(|it| it.kind != "Ready" || it.status == "True");
        ready && !self.spec.unschedulable && !self.is_draining()
    }

    /// Its InternalIPs, in order.
    pub fn internal_ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.status
            .addresses
            .iter()
            .filter(|address| address.kind == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
    }

    /// Its first IPv4 InternalIP.
    #[must_use]
    pub fn internal_ipv4(&self) -> Option<Ipv4Addr> {
        self.internal_ips().find_map(|address| match address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        })
    }

    /// Its first InternalIP of the same family as another address.
    #[must_use]
    pub fn internal_ip_like(&self, other: IpAddr) -> Option<IpAddr> {
        let mut addresses = self.internal_ips();
        addresses.find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// Its first IPv6 InternalIP.
    #[must_use]
    pub fn internal_ipv6(&self) -> Option<Ipv6Addr> {
        self.internal_ips().find_map(|address| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address),
        })
    }

    /// The ranges of its pods.
    pub fn pod_cidrs(&self) -> impl Iterator<Item = IpNet> + '_ {
        let only = self
            .spec
            .pod_cidr
            .iter()
            .filter(|_| self.spec.pod_cidrs.is_empty());
        self.spec
            .pod_cidrs
            .iter()
            .chain(only)
            .filter_map(|cidr| parse_cidr(cidr).ok())
    }

    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        let annotations = &self.metadata.annotations;
        let labels = &self.metadata.labels;
        for (field, map) in [
            ("metadata.annotations", annotations),
            ("metadata.labels", labels),
        ] {
            let number = map.get(AS_NUMBER).map(|text| text.parse::<AsNumber>());
            if let Some(Err(message)) = number {
                faults.push(Fault::at(field, message).below(AS_NUMBER));
            }
        }
        let ids = [
            (ROUTER_ID, "router id"),
            (ROUTE_REFLECTOR_CLUSTER_ID, "cluster id"),
        ];
        for (annotation, what) in ids {
            if let Some(text) = annotations.get(annotation)
                && text
                    .parse::<Ipv4Addr>()
                    .map_or(true, |id| id.is_unspecified())
            {
                let message =
                    format!("`{text}` is not a {what}: write an IPv4 address other than 0.0.0.0");
                faults.push(Fault::at("metadata.annotations", message).below(annotation));
            }
        }
        if let Some(text) = annotations.get(DRAIN)
            && !matches!(text.as_str(), "true" | "false")
        {
            let message = format!("`{text}` is neither `true` nor `false`, in quotes");
            faults.push(Fault::at("metadata.annotations", message).below(DRAIN));
        }
        if let Some(Err(message)) = self.spec.pod_cidr.as_deref().map(parse_cidr) {
            faults.push(Fault::at("spec.podCIDR", message));
        }
        for (index, cidr) in self.spec.pod_cidrs.iter().enumerate() {
            if let Err(message) = parse_cidr(cidr) {
                faults.push(Fault::at(&format!("spec.podCIDRs[{index}]"), message));
            }
        }
        for (index, address) in self.status.addresses.iter().enumerate() {
            if address.kind == "InternalIP" && address.address.parse::<IpAddr>().is_err() {
                let message = format!("`{}` is not an address", address.address);
                faults.push(Fault::at(
                    &format!("status.addresses[{index}].address"),
                    message,
                ));
            }
        }
    }
}

//! `GET /v1/endpoints`: the pods attached to this node.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Endpoints, by pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The node.
    pub node: String,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A pod's attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The runtime's id of the container.
    pub container_id: String,
    /// The pod, where the runtime said which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The interface's name inside the pod.
    pub ifname: String,
    /// Its other end, on the host.
    pub host_ifname: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod's MAC address: `0a:58:0a:f4:01:02`.
    pub mac: String,
}

/// A pod's namespace and name, shown as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

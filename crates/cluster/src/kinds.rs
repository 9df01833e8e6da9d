//! Which resource of the API each kind is, and how its objects become [`Object`]s.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ClusterResourceScope;
use kube::api::{ApiResource, DynamicObject, ObjectMeta};
use kube::core::GroupVersionKind;
use resources::node::{NodeSpec, NodeStatus};
use resources::{Kind, Metadata, Object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Annotations that are read start so. Others' are not kept: some hold whole objects, and there are many nodes.
const OURS: &str = "margay.dev/";

/// The taint that keeps pods from a node until its agent serves it.
pub const TAINT: &str = "margay.dev/agent-not-ready";

/// The kinds that are always watched. Secrets are by name, and the rest of the kinds while they matter.
pub const ALWAYS: [Kind; 6] = [
    Kind::BgpConfiguration,
    Kind::BgpFilter,
    Kind::BgpPeer,
    Kind::IpPool,
    Kind::IpReservation,
    Kind::Node,
];

/// What is read of an object beside its metadata.
const READ: [&str; 6] = [
    "spec",
    "status",
    "data",
    "endpoints",
    "addressType",
    "ports",
];

/// The resource of a kind.
#[must_use]
pub fn resource(kind: Kind) -> ApiResource {
    let (group, version) = match kind.api_version().split_once('/') {
        Some((group, version)) => (group, version),
        None => ("", kind.api_version()),
    };
    let gvk = GroupVersionKind::gvk(group, version, kind.name());
    ApiResource::from_gvk_with_plural(&gvk, &plural(kind.name()))
}

/// The resource's name in URLs and rules: the plural of the kind's, in lower case.
#[must_use]
pub fn plural(kind: &str) -> String {
    let lower = kind.to_ascii_lowercase();
    match lower.ends_with('s') {
        true => format!("{lower}es"),
        false => format!("{lower}s"),
    }
}

/// What is read of a Node: the rest of it, which is most, is dropped as soon as it has come.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct SlimNode {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SlimSpec,
    #[serde(default)]
    status: SlimStatus,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct SlimSpec {
    #[serde(flatten)]
    ranges: NodeSpec,
    #[serde(default)]
    taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
struct SlimStatus {
    #[serde(flatten)]
    rest: NodeStatus,
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Taint {
    key: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// What is to be known of our own Node alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// Tells it from another one of the same name.
    pub uid: String,
    /// It has the taint that keeps pods away until we serve it.
    pub tainted: bool,
    /// Its condition `NetworkUnavailable`, if it has one.
    pub network_unavailable: Option<String>,
}

impl OwnNode {
    pub(crate) fn new(node: &SlimNode) -> Self {
        let mut conditions = node.status.conditions.iter();
        let condition = conditions.find(|condition| condition.kind == "NetworkUnavailable");
        Self {
            uid: node.metadata.uid.clone().unwrap_or_default(),
            tainted: node.spec.taints.iter().any(|taint| taint.key == TAINT),
            network_unavailable: condition.map(|condition| condition.status.clone()),
        }
    }
}

impl SlimNode {
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
}

impl kube::Resource for SlimNode {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        Cow::Borrowed("Node")
    }

    fn group((): &()) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn version((): &()) -> Cow<'_, str> {
        Cow::Borrowed("v1")
    }

    fn plural((): &()) -> Cow<'_, str> {
        Cow::Borrowed("nodes")
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What has come of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// Read already.
    Read(Box<Object>),
    /// As it came: what is wrong with it, if anything, is for the index to find and to report.
    Raw(Kind, Value),
}

impl From<SlimNode> for Received {
    fn from(node: SlimNode) -> Self {
        let metadata = node.metadata;
        let mut status = node.status.rest;
        status
            .addresses
            .retain(|address| address.kind == "InternalIP");
        Self::Read(Box::new(Object::Node(resources::Node {
            metadata: Metadata {
                name: metadata.name.unwrap_or_default(),
                labels: metadata.labels.unwrap_or_default(),
                annotations: ours(metadata.annotations.unwrap_or_default()),
                ..Metadata::default()
            },
            spec: node.spec.ranges,
            status,
        })))
    }
}

/// An object of a kind that is read as a whole.
pub(crate) fn raw(kind: Kind, object: DynamicObject) -> Received {
    let metadata = object.metadata;
    let mut tree = match object.data {
        Value::Object(fields) => fields,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    };
    tree.retain(|field, _| READ.contains(&field.as_str()));
    tree.insert("apiVersion".to_owned(), json!(kind.api_version()));
    tree.insert("kind".to_owned(), json!(kind.name()));
    tree.insert(
        "metadata".to_owned(),
        json!({
            "name": metadata.name.unwrap_or_default(),
            "namespace": metadata.namespace,
            "labels": metadata.labels.unwrap_or_default(),
            "annotations": ours(metadata.annotations.unwrap_or_default()),
        }),
    );
    Received::Raw(kind, Value::Object(tree))
}

fn ours(mut annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    annotations.retain(|name, _| name.starts_with(OURS));
    annotations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_in_the_api() {
        let named = |kind| {
            let resource = resource(kind);
            format!("{} {}", resource.api_version, resource.plural)
        };
        assert_eq!(named(Kind::BgpPeer), "margay.dev/v1alpha1 bgppeers");
        assert_eq!(named(Kind::IpPool), "margay.dev/v1alpha1 ippools");
        assert_eq!(named(Kind::Secret), "v1 secrets");
        assert_eq!(plural("NodeStatus"), "nodestatuses");
    }

    #[test]
    fn of_a_node_only_what_is_read_is_kept() {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {
                "name": "n", "labels": {"rack": "a"}, "resourceVersion": "7",
                "annotations": {"margay.dev/as-number": "64513", "example.com/large": "…"},
            },
            "spec": {"podCIDR": "10.244.1.0/24", "providerID": "x"},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n"},
                    {"type": "InternalIP", "address": "192.0.2.1"},
                ],
                "images": [{"names": ["a"]}],
            },
        });
        let node: SlimNode = serde_json::from_value(node).unwrap();
        let Received::Read(object) = Received::from(node) else {
            panic!("a Node is read at once");
        };
        let Object::Node(node) = *object else {
            panic!("not a Node");
        };
        assert_eq!(node.metadata.annotations.len(), 1);
        assert_eq!(node.status.addresses.len(), 1);
        assert_eq!(node.pod_cidrs().count(), 1);
        assert_eq!(node.as_number().map(|asn| asn.get()), Some(64513));
    }
}

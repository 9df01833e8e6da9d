//! The chart's CustomResourceDefinitions, from the types in `resources`.
//!
//! | module | what |
//! | --- | --- |
//! | [`structural`] | a type's schema to what the API server takes: a structural schema |
//! | [`rules`] | rules over several fields, in CEL, with the words that a wrong object is refused with |
//!
//! `cargo xtask crds` writes them to `charts/margay/crds`; a test holds the files to the types.
#![forbid(unsafe_code)]

pub mod rules;
pub mod structural;

use resources::{
    API_VERSION, BgpConfigurationSpec, BgpFilterSpec, BgpPeerSpec, IpPoolSpec, IpReservationSpec,
    IpamBlockSpec, NodeStatusStatus,
};
use schemars::JsonSchema;
use serde_json::{Value, json};

/// A column of `kubectl get`: its name, the type and path of what it shows, and from which priority on.
type Column = (&'static str, &'static str, &'static str, u8);

/// A kind of ours.
#[derive(Debug)]
struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    columns: &'static [Column],
    /// Fields beside the name that a list or a watch can be restricted by (Kubernetes 1.31 and later).
    selectable: &'static [&'static str],
    /// `spec` or `status`: the one that the type is of.
    part: &'static str,
    schema: fn() -> Value,
}

const AGE: Column = ("Age", "date", ".metadata.creationTimestamp", 0);

const DEFINITIONS: [Definition; 7] = [
    Definition {
        kind: "BGPConfiguration",
        plural: "bgpconfigurations",
        short: &["bgpconf"],
        columns: &[
            ("AS", "string", ".spec.asNumber", 0),
            ("Mesh", "boolean", ".spec.nodeToNodeMeshEnabled", 0),
            ("Port", "integer", ".spec.listenPort", 0),
            AGE,
        ],
        selectable: &[],
        part: "spec",
        schema: schema::<BgpConfigurationSpec>,
    },
    Definition {
        kind: "BGPFilter",
        plural: "bgpfilters",
        short: &["bgpf"],
        columns: &[AGE],
        selectable: &[],
        part: "spec",
        schema: schema::<BgpFilterSpec>,
    },
    Definition {
        kind: "BGPPeer",
        plural: "bgppeers",
        short: &["bgpp"],
        columns: &[
            ("Peer", "string", ".spec.peerIP", 0),
            ("AS", "string", ".spec.asNumber", 0),
            ("Node", "string", ".spec.node", 0),
            ("Nodes", "string", ".spec.nodeSelector", 0),
            ("Peers", "string", ".spec.peerSelector", 1),
            ("Filters", "string", ".spec.filters", 1),
            AGE,
        ],
        selectable: &[],
        part: "spec",
        schema: schema::<BgpPeerSpec>,
    },
    Definition {
        kind: "IPAMBlock",
        plural: "ipamblocks",
        short: &["ipamb"],
        columns: &[
            ("CIDR", "string", ".spec.cidr", 0),
            ("Node", "string", ".spec.node", 0),
            AGE,
        ],
        // An agent follows its own node's.
        selectable: &[".spec.node"],
        part: "spec",
        schema: schema::<IpamBlockSpec>,
    },
    Definition {
        kind: "IPPool",
        plural: "ippools",
        short: &["pool"],
        columns: &[
            ("CIDR", "string", ".spec.cidr", 0),
            ("NAT", "boolean", ".spec.natOutgoing", 0),
            AGE,
        ],
        selectable: &[],
        part: "spec",
        schema: schema::<IpPoolSpec>,
    },
    Definition {
        kind: "IPReservation",
        plural: "ipreservations",
        short: &["ipres"],
        columns: &[("CIDRs", "string", ".spec.reservedCIDRs", 0), AGE],
        selectable: &[],
        part: "spec",
        schema: schema::<IpReservationSpec>,
    },
    Definition {
        kind: "NodeStatus",
        plural: "nodestatuses",
        short: &["mns"],
        columns: &[
            (
                "Ready",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].status",
                0,
            ),
            ("Sessions", "string", ".status.summary.sessions", 0),
            ("Routes", "string", ".status.summary.routes", 0),
            ("Pods", "integer", ".status.pods", 0),
            ("Tunnels", "string", ".status.summary.tunnels", 1),
            ("Down", "string", ".status.summary.down", 1),
            ("Last Error", "string", ".status.summary.lastError", 1),
            ("AS", "integer", ".status.asNumber", 1),
            ("Router ID", "string", ".status.routerID", 1),
            ("Version", "string", ".status.version", 1),
            AGE,
        ],
        selectable: &[],
        part: "status",
        schema: schema::<NodeStatusStatus>,
    },
];

/// Every definition, with the name of its file.
#[must_use]
pub fn all() -> Vec<(String, Value)> {
    let named =
        |definition: &Definition| (format!("{}.yaml", definition.plural), build(definition));
    DEFINITIONS.iter().map(named).collect()
}

/// A definition as it stands in its file.
///
/// # Errors
/// When it can't be written as YAML.
pub fn yaml(definition: &Value) -> anyhow::Result<String> {
    let text = serde_saphyr::to_string(definition)?;
    Ok(format!(
        "# Written by `cargo xtask crds`, from the types in crates/resources.\n{text}"
    ))
}

fn schema<T: JsonSchema>() -> Value {
    structural::schema::<T>()
}

fn build(definition: &Definition) -> Value {
    let (group, version) = API_VERSION.split_once('/').unwrap_or(("", API_VERSION));
    let plural = definition.plural;
    let mut part = (definition.schema)();
    rules::add(definition.kind, &mut part);
    let description = part
        .as_object_mut()
        .and_then(|part| part.remove("description"));
    let mut properties = json!({
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
    });
    properties[definition.part] = part;
    let mut schema = json!({
        "type": "object",
        "description": description,
        "properties": properties,
    });
    if definition.part == "spec" {
        schema["required"] = json!(["spec"]);
    }
    if let Some(rules) = rules::whole(definition.kind) {
        schema["x-kubernetes-validations"] = rules;
    }
    if definition.kind == "IPAMBlock" {
        // Rules over a text without a bound are too dear for the API server.
        schema["properties"]["metadata"]["properties"] =
            json!({"name": {"type": "string", "maxLength": 63}});
    }
    let column = |(name, kind, path, priority): &Column| json!({"name": name, "type": kind, "jsonPath": path, "priority": priority});
    let columns: Vec<Value> = definition.columns.iter().map(column).collect();
    let mut served = json!({
        "name": version,
        "served": true,
        "storage": true,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    });
    if !definition.selectable.is_empty() {
        let field = |path: &&str| json!({"jsonPath": path});
        served["selectableFields"] = definition.selectable.iter().map(field).collect();
    }
    if definition.part == "status" {
        served["subresources"] = json!({"status": {}});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            // What Helm asks of an object that it is to take as a release's own: the chart's templates upgrade what its
            // folder `crds` installed.
            "labels": {"app.kubernetes.io/managed-by": "Helm"},
            "annotations": {
                "meta.helm.sh/release-name": "margay",
                "meta.helm.sh/release-namespace": "kube-system",
            },
        },
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {
                "kind": definition.kind,
                "listKind": format!("{}List", definition.kind),
                "plural": plural,
                "singular": definition.kind.to_ascii_lowercase(),
                "shortNames": definition.short,
                "categories": ["margay"],
            },
            "versions": [served],
        },
    })
}

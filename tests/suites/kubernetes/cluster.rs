//! A rack whose nodes ask a real API server, each agent with the rights that the chart gives it and no other.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node, Shape};
use lab::kubernetes::ControlPlane;
use lab::wait;
use serde_json::{Value, json};
use tests::{SESSION, oracle, same};

/// How long a change in the API may take until the kernel shows it.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The agents' namespace.
pub(crate) const NAMESPACE: &str = "margay-system";

/// The chart's definitions.
pub(crate) const DEFINITIONS: [&str; 7] = [
    include_str!("../../../charts/margay/crds/bgpconfigurations.yaml"),
    include_str!("../../../charts/margay/crds/bgpfilters.yaml"),
    include_str!("../../../charts/margay/crds/bgppeers.yaml"),
    include_str!("../../../charts/margay/crds/ipamblocks.yaml"),
    include_str!("../../../charts/margay/crds/ippools.yaml"),
    include_str!("../../../charts/margay/crds/ipreservations.yaml"),
    include_str!("../../../charts/margay/crds/nodestatuses.yaml"),
];

/// The chart's rules.
const RULES: &str = include_str!("../../../charts/margay/files/rules.yaml");

/// A data centre and its control plane, which is where the ToR is.
pub(crate) struct Cluster {
    pub(crate) dc: DataCentre,
    pub(crate) plane: ControlPlane,
}

impl Cluster {
    /// Network, control plane, definitions, rights and Nodes: everything but agents.
    pub(crate) fn build(shape: Shape) -> Result<Self> {
        let prefix = shape.prefix.clone();
        let mut dc = DataCentre::fabric(shape)?;
        let tor = &dc.racks.first().context("a rack")?.tor;
        let folder = format!("/run/lab/{prefix}plane").into();
        let plane = ControlPlane::start(&tor.namespace, tor.address, folder)?;
        define(&plane)?;
        plane.apply(&rights())?;
        for node in dc.nodes_mut() {
            plane.apply(&object(node))?;
            set_address(&plane, node)?;
        }
        let kubeconfig = plane.service_account(NAMESPACE, "margay")?;
        for node in dc.nodes_mut() {
            node.kubeconfig = Some(kubeconfig.clone());
        }
        Ok(Self { dc, plane })
    }

    /// Runs a test, and adds the logs to what it fails with.
    pub(crate) fn with(shape: Shape, test: fn(&mut Self) -> Result<()>) -> Result<()> {
        let mut cluster = Self::build(shape)?;
        let result = test(&mut cluster);
        result.map_err(|error| {
            let logs = cluster.dc.logs() + &cluster.plane.logs();
            error.context(logs)
        })
    }

    /// Waits until a node's kernel has routes of ours to these prefixes by these next hops and no other, as `ip` shows them;
    /// routes to its own pods have no next hop.
    pub(crate) fn wait_routes(&self, node: &str, expected: &[(&str, &str)]) -> Result<()> {
        let node = self.node(node)?;
        wait::until(&format!("the routes of {}", node.name), SESSION, || {
            let routes = oracle::margay_routes(&node.namespace)?;
            let shown: Vec<(String, String)> = routes
                .iter()
                .filter_map(|(prefix, via)| Some((prefix.to_string(), via.clone()?)))
                .filter(|(_, via)| via.parse::<std::net::IpAddr>().is_ok())
                .collect();
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(prefix, via)| ((*prefix).to_owned(), (*via).to_owned()))
                .collect();
            same("routes", &shown, &expected)
        })
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        self.dc
            .nodes()
            .find(|node| node.name == name)
            .context("no such node")
    }

    /// What the API has of a node's status, once it is so.
    pub(crate) fn wait_status(
        &self,
        node: &str,
        what: &str,
        check: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait::until(
            &format!("the NodeStatus of {node}: {what}"),
            SESSION,
            || {
                let object = self.plane.get(&["nodestatus", node])?;
                if !check(&object["status"]) {
                    bail!("{}", object["status"]);
                }
                Ok(object)
            },
        )
    }
}

/// Applies the chart's definitions and waits until they are served.
pub(crate) fn define(plane: &ControlPlane) -> Result<()> {
    plane.apply(&DEFINITIONS.join("---\n"))?;
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ];
    plane.kubectl(&wait).map(drop)
}

fn rights() -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n---\n\
         apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: margay, namespace: {NAMESPACE}}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: margay}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: margay}}\n\
         subjects: [{{kind: ServiceAccount, name: margay, namespace: {NAMESPACE}}}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: margay, namespace: {NAMESPACE}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: margay}}\n\
         subjects: [{{kind: ServiceAccount, name: margay, namespace: {NAMESPACE}}}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: margay, namespace: {NAMESPACE}}}\n\
         rules: [{{apiGroups: [\"\"], resources: [secrets], resourceNames: [bgp], verbs: [list, watch]}}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: margay}}\nrules:\n"
    );
    text.extend(RULES.lines().map(|line| format!("  {line}\n")));
    text
}

/// A Node as a kubelet with `--register-with-taints` would make it.
pub(crate) fn object(node: &Node) -> String {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name, "labels": {"rack": node.rack.to_string()},
            "annotations": {"margay.dev/as-number": node.asn.to_string()},
        },
        "spec": {
            "podCIDR": node.pod_cidr, "podCIDRs": [node.pod_cidr],
            "taints": [
                {"key": "example.com/other", "effect": "NoSchedule"},
                {"key": "margay.dev/agent-not-ready", "effect": "NoSchedule"},
            ],
        },
    });
    object.to_string()
}

/// A Node's address, which only its status has.
pub(crate) fn set_address(plane: &ControlPlane, node: &Node) -> Result<()> {
    let ipv6 = node.ipv6.map(|ipv6| ipv6.address.to_string());
    let addresses = [Some(node.address.to_string()), ipv6];
    let addresses = addresses.into_iter().flatten();
    let addresses: Vec<Value> = addresses
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    let patch = json!({"status": {
        "addresses": addresses,
        "conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}],
    }});
    let patch = format!("--patch={patch}");
    let line = [
        "patch",
        "node",
        &node.name,
        "--subresource=status",
        "--type=merge",
        &patch,
    ];
    plane.kubectl(&line).map(drop)
}

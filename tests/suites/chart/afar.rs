//! `margayctl` from elsewhere: by kubectl, the API server and the kubelet's streaming server into each agent's pod.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lab::Namespace;
use lab::datacentre::{DataCentre, Node};
use lab::kubernetes::ControlPlane;
use lab::process::{self, Program};
use serde_json::{Value, json};
use tests::containerd::private_root;
use tests::kubelet::PORT;
use tests::{chart, same};

use crate::run::{Machine, ready, start};

/// Who may look at pods, and not into them.
const VIEWER: &str = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: viewer, namespace: default}\n---\n\
     apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: viewer}\n\
     rules: [{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}]\n---\n\
     apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: viewer}\n\
     roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: viewer}\n\
     subjects: [{kind: ServiceAccount, name: viewer, namespace: default}]\n";

/// All agents, one, and what is said when one of them can't be reached or somebody has no right to.
pub(crate) fn asked(dc: &mut DataCentre) -> Result<()> {
    private_root()?;
    let image = chart::image()?;
    let objects = chart::render(&["--set", "config.source=directory"])?;
    let template = &chart::object(&objects, "DaemonSet", "margay")?["spec"]["template"];
    let mut machines = BTreeMap::new();
    for node in dc.nodes_mut() {
        machines.insert(node.name.clone(), start(node, &image, template)?);
    }
    ready(dc, &machines)?;
    let tor = &dc.racks.first().context("a rack")?.tor;
    let here = tor.namespace.clone();
    let plane = ControlPlane::start(&here, tor.address, "/run/lab/afar".into())?;
    plane.apply(VIEWER)?;
    for node in dc.nodes() {
        register(&plane, node, template)?;
    }
    let result = ask(dc, &plane, &here, &machines);
    result.map_err(|error| error.context(plane.logs()))
}

fn ask(
    dc: &DataCentre,
    plane: &ControlPlane,
    here: &Namespace,
    machines: &BTreeMap<String, Machine>,
) -> Result<()> {
    let margayctl = |kubeconfig: &Path, words: &[&str]| -> Result<Program> {
        let program = Program::new(process::ours("margayctl")?)
            .arg("--kubectl")
            .arg(plane.program())
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("HOME", "/run/lab/afar");
        Ok(program.args(["--namespace", chart::NAMESPACE]).args(words))
    };
    let admin = plane.admin();
    let mut servers = Vec::new();
    for node in dc.nodes() {
        let machine = machines.get(&node.name).context("a machine")?;
        servers.push(machine.kubelet.serve(node)?);
    }
    let all = margayctl(&admin, &["bgp", "peers"])?.stdout(here)?;
    for node in dc.nodes() {
        let others = dc.nodes().filter(|other| other.name != node.name);
        for text in others.map(|other| other.address.to_string()) {
            same(&all, &all.contains(&text), &true)?;
        }
        let one = margayctl(&admin, &["--node", &node.name, "routes", "-o", "json"])?;
        let routes: Value = serde_json::from_str(&one.stdout(here)?)?;
        if !routes.to_string().contains(&node.pod_cidr.to_string()) {
            bail!("{routes}");
        }
    }

    let viewer = plane.service_account("default", "viewer")?;
    let refused = margayctl(&viewer, &["status"])?.output(here)?;
    same("a viewer's exit", &refused.status.success(), &false)?;
    let said = String::from_utf8(refused.stdout)?;
    if !said.contains("pods/exec") {
        bail!("a viewer is told: {said}");
    }

    // A node that is off: the others are shown all the same.
    servers.pop();
    let some = margayctl(&admin, &["status"])?.output(here)?;
    same("the exit with a node off", &some.status.success(), &false)?;
    let shown = String::from_utf8(some.stdout)?;
    let (first, second) = shown.split_once("=== node-a2").context(shown.clone())?;
    if !first.contains("Node node-a1") || !second.contains("kubectl: ") {
        bail!("with a node off: {shown}");
    }
    Ok(())
}

/// The Node and its agent's pod, as a kubelet would tell of them.
fn register(plane: &ControlPlane, node: &Node, template: &Value) -> Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}});
    plane.apply(&object.to_string())?;
    let status = json!({
        "addresses": [{"type": "InternalIP", "address": node.address}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
    });
    patch(plane, "node", &node.name, &status)?;
    let name = format!("margay-{}", node.name);
    let mut spec = template["spec"].clone();
    spec["nodeName"] = json!(node.name);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": chart::NAMESPACE, "labels": template["metadata"]["labels"],
        },
        "spec": spec,
    });
    plane.apply(&pod.to_string())?;
    patch(plane, "pod", &name, &json!({"phase": "Running"}))
}

fn patch(plane: &ControlPlane, kind: &str, name: &str, status: &Value) -> Result<()> {
    let patch = format!("--patch={}", json!({ "status": status }));
    let namespace = chart::NAMESPACE;
    let line = [
        "--namespace",
        namespace,
        "patch",
        kind,
        name,
        "--subresource=status",
        "--type=merge",
        &patch,
    ];
    plane.kubectl(&line).map(drop)
}

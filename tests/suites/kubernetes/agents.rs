//! Agents that follow the API, and what they do while it is away.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::probe::{Pinger, Stream};
use lab::wait;
use serde_json::Value;
use tests::{SESSION, oracle, peers, same, status};

use crate::cluster::{Cluster, SOON, object, set_address};

const SETTINGS: &str = "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: true}\n---\n\
     apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n";

const A1: &str = "172.20.1.11";
const A2: &str = "172.20.1.12";
const RANGE_2: &str = "10.244.12.0/24";

/// Every kind that comes and goes is followed; pods reach each other; the node's status is right.
pub(crate) fn follow(cluster: &mut Cluster) -> Result<()> {
    cluster.plane.apply(SETTINGS)?;
    cluster.dc.start_agents()?;
    cluster.wait_routes("node-a1", &[(RANGE_2, A2)])?;
    for node in cluster.dc.nodes_mut() {
        node.attach()?;
    }
    let target = cluster
        .node("node-a2")?
        .pods
        .first()
        .context("a pod")?
        .address;
    let from = &cluster
        .node("node-a1")?
        .pods
        .first()
        .context("a pod")?
        .namespace;
    Pinger::open(from)?.wait_answer(target, SESSION)?;

    opened(cluster, "node-a1")?;
    let reported = cluster.wait_status("node-a1", "all up", |status| {
        status["summary"]["sessions"] == "1/1"
            && status["pods"] == 1
            && condition(status, "Ready") == "True"
    })?;
    let session = &reported["status"]["sessions"][0];
    same("peer", &session["peer"].as_str(), &Some(A2))?;
    same("accepted", &session["accepted"].as_u64(), &Some(1))?;
    let owner = &reported["metadata"]["ownerReferences"][0];
    same("owner", &owner["name"].as_str(), &Some("node-a1"))?;
    let shown = cluster
        .plane
        .kubectl(&["get", "nodestatuses", "-o", "wide"])?;
    if !shown.contains("1/1") || !shown.contains("LAST ERROR") {
        bail!("kubectl shows: {shown}");
    }

    // Another range, AS and address of the other node.
    let moved = "10.244.99.0/24";
    cluster
        .plane
        .kubectl(&["delete", "node", "node-a2", "--wait=true"])?;
    cluster.wait_routes("node-a1", &[])?;
    let node = cluster.node("node-a2")?;
    cluster.plane.apply(&object(node).replace(RANGE_2, moved))?;
    set_address(&cluster.plane, node)?;
    cluster.wait_routes("node-a1", &[(moved, A2)])?;
    // It is another Node of the same name: it was opened to pods anew.
    opened(cluster, "node-a2")?;
    annotate(cluster, "node-a2", "margay.dev/as-number=64999")?;
    wait::until("the other AS", SESSION, || {
        let peer = peers(cluster.node("node-a1")?)?.pop().context("a peer")?;
        same("AS", &peer.asn, &64999)
    })?;

    // A filter and a peer come and go, and a password is followed.
    cluster.plane.apply("apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n")?;
    cluster.wait_routes("node-a1", &[])?;
    let peer = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: bgp, namespace: margay-system}}\nstringData: {{key: fine}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: none}}\nspec: {{importV4: [{{action: Reject}}]}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: one}}\nspec: {{node: node-a1, peerIP: {A2}, asNumber: 64999, password: {{secretKeyRef: {{name: bgp, key: key}}}}}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: two}}\nspec: {{node: node-a2, peerIP: {A1}, asNumber: 64512, password: {{secretKeyRef: {{name: bgp, key: key}}}}}}\n"
    );
    cluster.plane.apply(&peer)?;
    cluster.wait_routes("node-a1", &[(moved, A2)])?;
    let line = |filters: &str| format!("--patch={{\"spec\":{{\"filters\":{filters}}}}}");
    cluster.plane.kubectl(&[
        "patch",
        "bgppeer",
        "one",
        "--type=merge",
        &line("[\"none\"]"),
    ])?;
    cluster.wait_routes("node-a1", &[])?;
    cluster.plane.kubectl(&["delete", "bgpfilter", "none"])?;
    cluster
        .plane
        .kubectl(&["patch", "bgppeer", "one", "--type=merge", &line("null")])?;
    cluster.wait_routes("node-a1", &[(moved, A2)])?;
    cluster.plane.kubectl(&["delete", "bgppeer", "one"])?;
    cluster.wait_routes("node-a1", &[])
}

/// The node is open to pods: no condition and no taint of ours stands in their way, and other people's taints stay.
pub(crate) fn opened(cluster: &Cluster, node: &str) -> Result<()> {
    wait::until(&format!("{node} to be open to pods"), SESSION, || {
        let node = cluster.plane.get(&["node", node])?;
        same(
            "condition",
            &condition(&node["status"], "NetworkUnavailable"),
            &"False",
        )?;
        let taints = node["spec"]["taints"]
            .as_array()
            .context("the other taint")?;
        // Without a controller manager nothing adds to them but the API server.
        let keys: Vec<&str> = taints
            .iter()
            .filter_map(|taint| taint["key"].as_str())
            .collect();
        if keys.contains(&"margay.dev/agent-not-ready") || !keys.contains(&"example.com/other") {
            bail!("taints: {keys:?}");
        }
        Ok(())
    })
}

fn annotate(cluster: &Cluster, node: &str, annotation: &str) -> Result<()> {
    let line = ["annotate", "--overwrite", "node", node, annotation];
    cluster.plane.kubectl(&line).map(drop)
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a str {
    let conditions = status["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

/// While the API server is away everything goes on, pods come and go, even an agent that dies loses nothing; and once it is
/// back, with a history that begins later, what has changed meanwhile is known.
pub(crate) fn absence(cluster: &mut Cluster) -> Result<()> {
    cluster.plane.apply(SETTINGS)?;
    cluster.dc.start_agents()?;
    cluster.wait_routes("node-a1", &[(RANGE_2, A2)])?;
    for node in cluster.dc.nodes_mut() {
        node.attach()?;
    }
    let target = cluster
        .node("node-a2")?
        .pods
        .first()
        .context("a pod")?
        .address;
    let from = cluster
        .node("node-a1")?
        .pods
        .first()
        .context("a pod")?
        .namespace
        .clone();
    Pinger::open(&from)?.wait_answer(target, SESSION)?;
    let stream = Stream::start(&from, target, Duration::from_millis(5))?;
    let before = oracle::margay_routes(&cluster.node("node-a1")?.namespace)?;

    cluster.plane.apiserver.kill()?;
    wait::until("the report of it", SOON, || {
        let problems = status(cluster.node("node-a1")?)?.config.problems;
        let said = problems
            .iter()
            .any(|it| it.message.contains("can't be reached"));
        said.then_some(()).with_context(|| format!("{problems:?}"))
    })?;
    // Pods come and go.
    let node = cluster.dc.node("node-a1")?;
    node.attach()?;
    node.detach()?;
    // An agent that starts without it takes nothing away.
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(SESSION)?;
    wait::until("what is waited for", SOON, || {
        let problems = status(cluster.node("node-a1")?)?.config.problems;
        let said = problems
            .iter()
            .any(|it| it.message.contains("waiting for the API server"));
        said.then_some(()).with_context(|| format!("{problems:?}"))
    })?;
    let node = cluster.node("node-a1")?;
    same("routes", &oracle::margay_routes(&node.namespace)?, &before)?;
    wait::until("the other to keep its routes", SOON, || {
        same("sessions", &peers(cluster.node("node-a2")?)?.len(), &1)
    })?;

    cluster.plane.apiserver.restart()?;
    cluster.plane.wait_ready()?;
    cluster.plane.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node-x, annotations: {margay.dev/as-number: \"64512\"}}\nspec: {podCIDR: 10.244.77.0/24, podCIDRs: [10.244.77.0/24]}\n")?;
    for node in ["node-a1", "node-a2"] {
        wait::until(&format!("{node} to know of the new Node"), SESSION, || {
            let config = status(cluster.node(node)?)?.config;
            let mut kinds = config.files.iter();
            let nodes = kinds
                .find(|kind| kind.name == "Node")
                .map(|kind| kind.objects);
            same("Nodes", &nodes, &Some(3))
        })?;
    }
    cluster.wait_routes("node-a1", &[(RANGE_2, A2)])?;
    cluster.wait_status("node-a1", "all up", |status| {
        status["summary"]["sessions"] == "1/1"
    })?;
    let loss = stream.finish()?;
    match loss.lost.as_slice() {
        [] => Ok(()),
        lost => bail!("{} of {} lost: {lost:?}", lost.len(), loss.sent),
    }
}

//! An agent that starts while it can't ask the API server.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::probe::{Pinger, Stream};
use lab::process::{Program, find};
use lab::wait;
use serde_json::Value;
use tests::{SESSION, oracle, same, status, wait_session};

use crate::cluster::{Cluster, SOON};

const SETTINGS: &str = "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {nodeToNodeMeshEnabled: false}\n---\n\
     apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: pods}\nspec: {cidr: 10.244.0.0/16}\n";
const NODE: &str = "node-a1";
/// What the file is called that an agent keeps.
const FILE: &str = "cluster.json";
/// How the agent says that it goes by it.
const KEPT: &str = "has kept: waiting for the API server";

/// An agent that starts while the API server is dead, or can't be reached from its node, has its sessions with a ToR by what
/// was said to the one before it; and follows what has changed as soon as it can.
pub(crate) fn start(cluster: &mut Cluster) -> Result<()> {
    let tor = &cluster.dc.racks.first().context("a rack")?.tor;
    let (address, asn) = (tor.address, tor.asn);
    cluster.plane.apply(&format!(
        "{SETTINGS}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: bgp, namespace: margay-system}}\nstringData: {{key: fine}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: tor}}\nspec: {{peerIP: {address}, asNumber: {asn}}}\n"
    ))?;
    cluster.dc.start_agents()?;
    for node in cluster.dc.nodes_mut() {
        node.wait_ready(SESSION)?;
        node.attach()?;
    }
    let other = cluster.node("node-a2")?;
    let (range, via) = (other.pod_cidr.to_string(), other.address.to_string());
    let target = other.pods.first().context("a pod")?.address;
    let from = &cluster.node(NODE)?.pods.first().context("a pod")?.namespace;
    let from = from.clone();
    Pinger::open(&from)?.wait_answer(target, SESSION)?;
    let node = cluster.node(NODE)?;
    node.wait_in_step(SESSION)?;
    let before = oracle::margay_routes(&node.namespace)?;
    let file = node.run_folder().join(FILE);
    kept(&file, 2)?;

    // The API server dies, then the agent: no packet is lost, and the session with the ToR comes up.
    let stream = Stream::start(&from, target, Duration::from_millis(5))?;
    cluster.plane.apiserver.kill()?;
    let node = cluster.dc.node(NODE)?;
    node.agent()?.kill()?;
    node.start()?;
    by_the_file(cluster)?;
    let node = cluster.dc.node(NODE)?;
    node.wait_in_step(SESSION)?;
    let pod = node.attach()?;
    let address = pod.address;
    Pinger::open(&from)?.wait_answer(address, SESSION)?;
    node.detach()?;
    same("routes", &oracle::margay_routes(&node.namespace)?, &before)?;
    // It is told all by one that is back.
    cluster.plane.apiserver.restart()?;
    cluster.plane.wait_ready()?;
    by_the_server(cluster, 2)?;
    let loss = stream.finish()?;
    if !loss.lost.is_empty() {
        bail!("{} of {} lost: {:?}", loss.lost.len(), loss.sent, loss.lost);
    }

    // Nobody answers at all, and the kernel has forgotten everything but the pods' interfaces.
    cut(cluster, true)?;
    let node = cluster.dc.node(NODE)?;
    node.agent()?.kill()?;
    for object in ["nexthop", "route"] {
        oracle::ip(&node.namespace, &[object, "flush", "proto", "77"])?;
    }
    same("routes", &oracle::margay_routes(&node.namespace)?.len(), &0)?;
    cluster.plane.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node-x}\nspec: {podCIDR: 10.244.77.0/24, podCIDRs: [10.244.77.0/24]}\n")?;
    cluster.dc.node(NODE)?.start()?;
    by_the_file(cluster)?;
    cluster.wait_routes(NODE, &[(&range, &via)])?;
    Pinger::open(&from)?.wait_answer(target, SESSION)?;
    // What was said meanwhile is followed.
    cut(cluster, false)?;
    by_the_server(cluster, 3)?;
    kept(&file, 3)?;

    // A file of which nothing can be made is said to be so, and the routes stay as they are.
    cut(cluster, true)?;
    let node = cluster.dc.node(NODE)?;
    node.agent()?.kill()?;
    let before = oracle::margay_routes(&node.namespace)?;
    let text = fs::read(&file)?;
    fs::write(&file, text.get(..text.len() / 2).unwrap_or_default())?;
    node.start()?;
    wait::until("the log", SOON, || {
        let log = fs::read_to_string(cluster.node(NODE)?.log())?;
        let said =
            log.contains("of no use: it is broken") && log.contains("waiting for the API server");
        said.then_some(()).context("not said")
    })?;
    let node = cluster.node(NODE)?;
    same("routes", &oracle::margay_routes(&node.namespace)?, &before)?;
    cut(cluster, false)?;
    by_the_server(cluster, 3)?;
    kept(&file, 3)
}

/// The file has all Nodes, and is root's alone.
fn kept(file: &PathBuf, nodes: usize) -> Result<()> {
    wait::until("the file", SOON, || {
        let text = fs::read_to_string(file)?;
        let document: Value = serde_json::from_str(&text)?;
        let objects = document["objects"].as_array().context("objects")?;
        let of_kind = objects.iter().filter(|object| object["kind"] == "Node");
        same("Nodes", &of_kind.count(), &nodes)?;
        same(
            "mode",
            &(fs::metadata(file)?.permissions().mode() & 0o777),
            &0o600,
        )
    })
}

/// The agent says that it goes by what was kept, and has its session.
fn by_the_file(cluster: &mut Cluster) -> Result<()> {
    cluster.dc.node(NODE)?.wait_ready(SESSION)?;
    let node = cluster.node(NODE)?;
    wait::until("the agent to go by the file", SOON, || {
        let problems = status(node)?.config.problems;
        let said = problems.iter().any(|it| it.message.contains(KEPT));
        said.then_some(()).with_context(|| format!("{problems:?}"))
    })?;
    wait_session(node, true, SOON).map(drop)
}

/// The agent goes by the API server, which has so many Nodes.
fn by_the_server(cluster: &Cluster, nodes: u64) -> Result<()> {
    wait::until("the agent to go by the API server", SESSION, || {
        let config = status(cluster.node(NODE)?)?.config;
        if config.problems.iter().any(|it| it.message.contains(KEPT)) {
            bail!("{:?}", config.problems);
        }
        let mut kinds = config.files.iter();
        let count = kinds
            .find(|kind| kind.name == "Node")
            .map(|kind| kind.objects);
        same("Nodes", &count, &Some(nodes))
    })
}

/// Drops whatever the node sends to the API server, or lets it pass again.
fn cut(cluster: &Cluster, cut: bool) -> Result<()> {
    let rules = match cut {
        true => {
            "table inet cut { chain out { type filter hook output priority 0; tcp dport 6443 drop; }; }"
        }
        false => "delete table inet cut",
    };
    let nft = Program::new(find("nft").context("nft")?).args(["-f", "-"]);
    let node = cluster.node(NODE)?;
    let output = nft.output_with(&node.namespace, rules.as_bytes())?;
    match output.status.success() {
        true => Ok(()),
        false => bail!("nft: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

//! Addresses from pools whose blocks are objects of the API: nodes without pod CIDRs, which share nothing but an API server.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv6Net;
use lab::datacentre::Node;
use lab::kubernetes::ControlPlane;
use lab::probe::Pinger;
use lab::process::{self, Program};
use lab::wait;
use serde_json::Value;
use tests::blocks::{Owners, ranges, wait_everywhere};
use tests::{SESSION, oracle, same, status};

use crate::agents::opened;
use crate::cluster::{Cluster, object, set_address};

/// What one change may take on a busy machine; giving a block back takes five seconds by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// A pool of the mesh.
pub(crate) fn pool(cidr: &str, size: u8) -> String {
    format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: true}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: pods}}\nspec: {{cidr: {cidr}, blockSize: {size}}}\n"
    )
}

/// A Node as it is where nobody gives it pod CIDRs.
fn register(plane: &ControlPlane, node: &Node) -> Result<()> {
    let mut object: Value = serde_json::from_str(&object(node))?;
    let spec = object["spec"].as_object_mut().context("spec")?;
    spec.retain(|field, _| !field.starts_with("podCIDR"));
    plane.apply(&object.to_string())?;
    set_address(plane, node)
}

/// Nodes without pod CIDRs, short times, a pool; and the agents.
pub(crate) fn start(cluster: &mut Cluster, pool: &str) -> Result<()> {
    start_with(cluster, pool, &[])
}

fn start_with(cluster: &mut Cluster, pool: &str, arguments: &[&str]) -> Result<()> {
    for node in cluster.dc.nodes_mut() {
        let delete = ["delete", "node", &node.name, "--wait=true"];
        cluster.plane.kubectl(&delete)?;
        register(&cluster.plane, node)?;
        let times = ["--block-grace", "1", "--address-cooldown", "1"];
        let all = times.iter().chain(arguments);
        node.arguments = all.map(|argument| (*argument).to_owned()).collect();
    }
    cluster.plane.apply(pool)?;
    cluster.dc.start_agents()?;
    cluster.dc.wait_sessions(SESSION)
}

/// Which node has which block, as kubectl tells.
pub(crate) fn owners(cluster: &Cluster) -> Result<Owners> {
    let list = cluster.plane.get(&["ipamblocks"])?;
    let mut owners = Owners::new();
    for object in list["items"].as_array().into_iter().flatten() {
        let cidr = object["spec"]["cidr"].as_str().context("cidr")?.parse()?;
        let node = object["spec"]["node"].as_str().context("node")?.to_owned();
        if let Some(other) = owners.insert(cidr, node) {
            bail!("{cidr} twice, once of {other}");
        }
    }
    Ok(owners)
}

pub(crate) fn everywhere(cluster: &Cluster) -> Result<()> {
    wait_everywhere(&cluster.dc, LIMIT, || owners(cluster))
}

/// The name of a block's object.
fn name(block: ipnet::Ipv4Net) -> String {
    let address = block.network().to_string().replace('.', "-");
    format!("{address}-{}", block.prefix_len())
}

fn ping(cluster: &Cluster, from: &str, to: Ipv4Addr) -> Result<()> {
    let from = cluster.node(from)?.pods.first().context("a pod")?;
    Pinger::open(&from.namespace)?
        .wait_answer(to, LIMIT)
        .map(drop)
}

/// Blocks come with pods and go after them; what people do to them is followed.
pub(crate) fn lifecycle(cluster: &mut Cluster) -> Result<()> {
    start(cluster, &pool("10.50.0.0/24", 29))?;
    // A node without a block is open to pods all the same, for the first brings it.
    opened(cluster, "node-a1")?;
    same("no pods, no blocks", &owners(cluster)?, &Owners::new())?;
    // Six addresses a block: two blocks here, one there.
    for _ in 0..9 {
        cluster.dc.node("node-a1")?.attach()?;
    }
    let address = cluster.dc.node("node-a2")?.attach()?.address;
    let taken = owners(cluster)?;
    let own = |name: &str| taken.values().filter(|owner| *owner == name).count();
    same("blocks", &[own("node-a1"), own("node-a2")], &[2, 1])?;
    everywhere(cluster)?;
    ping(cluster, "node-a1", address)?;
    let line = [
        "get",
        "ipamb",
        "--field-selector=spec.node=node-a2",
        "--no-headers",
    ];
    let shown = cluster.plane.kubectl(&line)?;
    let words: Vec<&str> = shown.split_whitespace().collect();
    let (block, _) = taken
        .iter()
        .find(|(_, owner)| *owner == "node-a2")
        .context("a block")?;
    same(
        "kubectl get",
        &words.get(..3),
        &Some(&[name(*block).as_str(), &block.to_string(), "node-a2"][..]),
    )?;

    judged(cluster, &name(*block))?;

    // Somebody deletes one that is in use: it comes back at once.
    let uid = |cluster: &Cluster| -> Result<Value> {
        Ok(cluster.plane.get(&["ipamblock", &name(*block)])?["metadata"]["uid"].clone())
    };
    let before = uid(cluster)?;
    let delete = ["delete", "ipamblock", &name(*block), "--wait=false"];
    cluster.plane.kubectl(&delete)?;
    wait::until("the block to be its node's again", LIMIT, || {
        let now = uid(cluster)?;
        match now == before {
            true => bail!("the old one is there"),
            false => same("owners", &owners(cluster)?, &taken),
        }
    })?;
    ping(cluster, "node-a1", address)?;

    // The next agent finds the same, and so does another Node of the same name.
    let line = ["delete", "node", "node-a1", "--wait=true"];
    cluster.plane.kubectl(&line)?;
    let node = cluster.dc.node("node-a1")?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(LIMIT)?;
    let node = cluster.node("node-a1")?;
    let kept = ranges(node)?.values().filter(|via| via.is_none()).count();
    same("a node without Node keeps its blocks", &kept, &2)?;
    register(&cluster.plane, node)?;
    cluster.dc.wait_sessions(SESSION)?;
    same("blocks", &owners(cluster)?, &taken)?;
    everywhere(cluster)?;
    ping(cluster, "node-a1", address)?;

    // A block that empties goes: first from all kernels, and only then from the API.
    cluster.dc.node("node-a2")?.detach()?;
    wait::until("the withdrawal", LIMIT, || {
        for node in cluster.dc.nodes() {
            if ranges(node)?.contains_key(block) {
                bail!("{} has {block}", node.name);
            }
        }
        Ok(())
    })?;
    if !owners(cluster)?.contains_key(block) {
        bail!("{block} was given back before it was withdrawn");
    }
    wait::until("the return", LIMIT, || {
        same("taken", &owners(cluster)?.contains_key(block), &false)
    })?;
    everywhere(cluster)
}

/// Blocks of both families: each node's kernel has its own and a way to the other's, and pods reach each other by both.
pub(crate) fn families(cluster: &mut Cluster) -> Result<()> {
    let six = "---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: six}\nspec: {cidr: 'fd00:50::/112'}\n";
    start(cluster, &(pool("10.50.0.0/24", 29) + six))?;
    let mut pods = Vec::new();
    for name in ["node-a1", "node-a2"] {
        let pod = cluster.dc.node(name)?.attach()?;
        let address = pod.result["ips"][1]["address"].as_str();
        let address: Ipv6Net = address.context("an IPv6 address")?.parse()?;
        pods.push((pod.namespace.clone(), pod.address, address.addr()));
    }
    let list = cluster.plane.get(&["ipamblocks"])?;
    let items = list["items"].as_array().context("items")?;
    same("blocks", &items.len(), &4)?;
    for (number, name) in ["node-a1", "node-a2"].iter().enumerate() {
        let address = pods[number].2;
        let block = items.iter().find_map(|object| {
            let block: Ipv6Net = object["spec"]["cidr"].as_str()?.parse().ok()?;
            (block.contains(&address) && object["spec"]["node"] == *name).then_some(block)
        });
        let block = block.with_context(|| format!("{address} is in no block of {name}"))?;
        same("its size", &block.prefix_len(), &122)?;
        for node in cluster.dc.nodes() {
            wait::until(&format!("{block} on {}", node.name), LIMIT, || {
                let arguments = [
                    "-6",
                    "-j",
                    "route",
                    "show",
                    &block.to_string(),
                    "proto",
                    "77",
                ];
                let shown: Value = serde_json::from_str(&oracle::ip(&node.namespace, &arguments)?)?;
                let own = shown[0]["type"] == "blackhole";
                same(
                    "at home",
                    &(own, shown[0].is_null()),
                    &(node.name == *name, false),
                )
            })?;
        }
    }
    let (from, four, _) = &pods[0];
    let (_, other, six) = &pods[1];
    Pinger::open(from)?.wait_answer(*other, LIMIT)?;
    let ping = process::find("ping").context("ping")?;
    Program::new(ping)
        .args(["-6", "-c", "3", "-W", "5", &six.to_string()])
        .stdout(from)
        .with_context(|| format!("ping {six} from the pod of {four}"))
        .map(drop)
}

/// The API server refuses what would break the claim, in words.
fn judged(cluster: &Cluster, name: &str) -> Result<()> {
    let refused = |yaml: &str, words: &str| -> Result<()> {
        let said = cluster.plane.apply(yaml).err();
        let said = said.with_context(|| format!("taken: {yaml}"))?.to_string();
        match said.contains(words) {
            true => Ok(()),
            false => bail!("{words:?} not in {said}"),
        }
    };
    let block = |name: &str, cidr: &str, node: &str| {
        format!(
            "apiVersion: margay.dev/v1alpha1\nkind: IPAMBlock\nmetadata: {{name: {name}}}\nspec: {{cidr: '{cidr}', node: '{node}'}}\n"
        )
    };
    let object = cluster.plane.get(&["ipamblock", name])?;
    let cidr = object["spec"]["cidr"].as_str().context("cidr")?;
    refused(
        &block(name, cidr, "node-a1"),
        "nothing in it can be changed",
    )?;
    for (name, cidr, words) in [
        ("mine", "10.9.0.0/26", "`10-244-1-64-26`"),
        ("10-9-0-0-27", "10.9.0.0/26", "`10-244-1-64-26`"),
        ("10-9-0-1-26", "10.9.0.1/26", "the first address"),
        ("fd00-9--26", "fd00:9::/122", "`fd00-10-0-0-0-0-0-40-122`"),
        (
            "fd00-09-0-0-0-0-0-0-122",
            "fd00:9::/122",
            "`fd00-10-0-0-0-0-0-40-122`",
        ),
    ] {
        refused(&block(name, cidr, "a"), words)?;
    }
    refused(&block("10-9-0-0-26", "10.9.0.0/26", ""), "name of the node")?;
    for (name, cidr) in [
        ("10-9-0-0-26", "10.9.0.0/26"),
        ("fd00-9-0-0-0-0-0-40-122", "fd00:9::40/122"),
    ] {
        cluster.plane.apply(&block(name, cidr, "nobody"))?;
        cluster.plane.kubectl(&["delete", "ipamblock", name])?;
    }
    Ok(())
}

/// While the API server is away pods get addresses of the blocks that their node has; another block has to wait, and so
/// has the pod, which is told why.
pub(crate) fn absence(cluster: &mut Cluster) -> Result<()> {
    start(cluster, &pool("10.50.0.0/24", 29))?;
    let address = cluster.dc.node("node-a2")?.attach()?.address;
    cluster.dc.node("node-a1")?.attach()?;
    everywhere(cluster)?;
    let taken = owners(cluster)?;

    // It takes calls and answers none: worse than one that is gone.
    cluster.plane.apiserver.freeze()?;
    for _ in 0..5 {
        cluster.dc.node("node-a1")?.attach()?;
    }
    ping(cluster, "node-a1", address)?;
    let node = cluster.dc.node("node-a1")?;
    let error = node
        .attach()
        .err()
        .context("there is no block")?
        .to_string();
    for words in [
        "\"code\":11",
        "no block can be taken now",
        "the API server can't be reached",
    ] {
        if !error.contains(words) {
            bail!("{words:?} not in {error}");
        }
    }
    let problems = status(node)?.config.problems;
    let told = problems
        .iter()
        .any(|it| it.message.contains("the node keeps the blocks that it has"));
    same("told", &told, &true)?;
    // And one that is gone.
    cluster.plane.apiserver.kill()?;
    let node = cluster.dc.node("node-a1")?;
    node.detach()?;
    wait::until("a free address", LIMIT, || node.attach().map(drop))?;
    cluster.plane.apiserver.restart()?;
    cluster.plane.wait_ready()?;
    same("blocks", &owners(cluster)?, &taken)?;
    let node = cluster.dc.node("node-a1")?;
    wait::until("another block", LIMIT, || node.attach().map(drop))?;
    same("blocks", &owners(cluster)?.len(), &3)?;
    everywhere(cluster)
}

/// Where a block is nearly full the next is there already: pods come on although nobody can be asked for it.
pub(crate) fn ahead(cluster: &mut Cluster) -> Result<()> {
    start(cluster, &pool("10.50.0.0/22", 26))?;
    let node = cluster.dc.node("node-a1")?;
    // Of 62 addresses 7 are left.
    for _ in 0..55 {
        node.attach()?;
    }
    same("blocks", &owners(cluster)?.len(), &1)?;
    cluster.dc.node("node-a1")?.attach()?;
    wait::until("the next block", LIMIT, || {
        same("blocks", &owners(cluster)?.len(), &2)
    })?;
    everywhere(cluster)?;
    let before = owners(cluster)?;
    cluster.plane.apiserver.kill()?;
    let node = cluster.dc.node("node-a1")?;
    for _ in 0..16 {
        node.attach()?;
    }
    let last = node.pods.last().context("a pod")?.address;
    let other = cluster.node("node-a1")?.pods[0].address;
    let first = before.iter().find(|(block, _)| block.contains(&other));
    let (first, _) = first.context("a block")?;
    same("in the first block", &first.contains(&last), &false)?;
    cluster.plane.apiserver.restart()?;
    cluster.plane.wait_ready()?;
    same("blocks", &owners(cluster)?.len(), &2)?;
    cluster.dc.node("node-a2")?.attach()?;
    ping(cluster, "node-a2", last)
}

/// A Node that is deleted keeps its block for a while, for as long as its machine goes on, and then no longer.
pub(crate) fn gone(cluster: &mut Cluster) -> Result<()> {
    let tor = &cluster.dc.racks[0].tor;
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: false}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: pods}}\nspec: {{cidr: 10.50.0.0/28, blockSize: 29}}\n---\n\
         apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: tor}}\nspec: {{peerIP: {}, asNumber: {}}}\n",
        tor.address, tor.asn
    );
    start_with(cluster, &text, &["--block-orphan-grace", "4"])?;
    cluster.dc.node("node-a1")?.attach()?;
    let address = cluster.dc.node("node-a3")?.attach()?.address;
    ping(cluster, "node-a1", address)?;
    let before = owners(cluster)?;
    let line = ["delete", "node", "node-a3", "--wait=true"];
    cluster.plane.kubectl(&line)?;
    let told = |words: &str| {
        wait::until(words, LIMIT * 3, || {
            for name in ["node-a1", "node-a2"] {
                let problems = status(cluster.node(name)?)?.config.problems;
                if problems.iter().any(|it| it.message.contains(words)) {
                    return Ok(());
                }
            }
            bail!("nobody says so")
        })
    };
    told("of Node node-a3, which there is not, is in use: somebody announces it")?;
    same("blocks", &owners(cluster)?, &before)?;
    ping(cluster, "node-a1", address)?;

    // The machine dies. Routers that wait for it no longer drop its routes, and its block is another one's.
    let node = cluster.dc.node("node-a3")?;
    node.agent()?.kill()?;
    let (block, _) = before
        .iter()
        .find(|(_, owner)| *owner == "node-a3")
        .context("its block")?;
    wait::until("the block to come back", LIMIT * 2, || {
        same("taken", &owners(cluster)?.contains_key(block), &false)
    })?;
    let node = cluster.dc.node("node-a2")?;
    let other = wait::until("a block", LIMIT, || Ok(node.attach()?.address))?;
    same("in the same block", &block.contains(&other), &true)?;
    ping(cluster, "node-a1", other)
}

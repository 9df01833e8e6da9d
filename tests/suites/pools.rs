//! Addresses from blocks of IPPools: nodes without pod CIDRs, which share nothing but a directory. What is announced and
//! what is guarded is seen in the kernels of all nodes, by `ip`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node, Pod, Shape};
use lab::probe::Pinger;
use lab::{Namespace, wait};
use serde_json::{Value, json};
use tests::blocks::ranges;
use tests::{Case, SESSION, same, status, suite};

/// What one change may take on a busy machine; giving a block back takes five seconds by itself.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let nodes = Shape {
        tor: None,
        racks: 1,
        nodes: 3,
        pods: 0,
        ..Shape::default()
    };
    let case = |name: &str, body| Case::new(name, nodes.clone(), body).with("ip");
    suite(vec![
        case("blocks_are_announced_while_they_have_pods", lifecycle),
        case("a_full_pool_says_so_until_a_block_comes_back", full),
        case("three_nodes_take_blocks_at_once", at_once),
        case("a_pool_that_changes_keeps_its_pods", changes),
        case("pods_in_a_block_that_was_lost_are_listed", lost),
    ])
}

/// Nodes without pod CIDRs, one directory of blocks, short times; and their agents.
fn start(dc: &mut DataCentre, pool: &str) -> Result<()> {
    let shared = shared(dc)?;
    fs::create_dir_all(&shared)?;
    for node in dc.nodes_mut() {
        let folder = node.config_folder();
        let text = fs::read_to_string(folder.join("nodes.yaml"))?;
        let text: String = text
            .lines()
            .filter(|line| !line.contains("podCIDR") && !line.starts_with("    - 10.244."))
            .map(|line| line.replace("spec:", "spec: {}") + "\n")
            .collect();
        node.write_config("nodes.yaml", &text)?;
        symlink(&shared, folder.join("ipam"))?;
        set_pool(node, pool)?;
        let times = ["--block-grace", "1", "--address-cooldown", "1"];
        node.arguments = times.map(str::to_owned).into();
    }
    dc.start_agents()?;
    dc.wait_sessions(SESSION)
}

fn set_pool(node: &Node, spec: &str) -> Result<()> {
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: pods\nspec: {{{spec}}}\n"
    );
    node.write_config("pool.yaml", &text)
}

/// Beside the nodes' own folders.
fn shared(dc: &DataCentre) -> Result<PathBuf> {
    let node = dc.nodes().next().context("a node")?;
    let folder = node.config_folder();
    let above = folder.parent().and_then(|folder| folder.parent());
    Ok(above.context("a folder above")?.join("blocks"))
}

/// Which node has which block, by the files.
fn blocks(dc: &DataCentre) -> Result<BTreeMap<Ipv4Net, String>> {
    let mut blocks = BTreeMap::new();
    for file in fs::read_dir(shared(dc)?)? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let object: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        let cidr = object["spec"]["cidr"].as_str().context("cidr")?.parse()?;
        let node = object["spec"]["node"].as_str().context("node")?.to_owned();
        blocks.insert(cidr, node);
    }
    Ok(blocks)
}

fn wait_everywhere(dc: &DataCentre) -> Result<()> {
    tests::blocks::wait_everywhere(dc, LIMIT, || blocks(dc))
}

fn lifecycle(dc: &mut DataCentre) -> Result<()> {
    start(dc, "cidr: 10.50.0.0/24, blockSize: 29")?;
    same("no pods, no blocks", &blocks(dc)?, &BTreeMap::new())?;
    // Six addresses a block: two blocks here, one there.
    for _ in 0..9 {
        dc.node("node-a1")?.attach()?;
    }
    dc.node("node-a2")?.attach()?;
    let taken = blocks(dc)?;
    let own = |name: &str| taken.values().filter(|owner| *owner == name).count();
    same("blocks", &[own("node-a1"), own("node-a2")], &[2, 1])?;
    wait_everywhere(dc)?;
    let other = dc.node("node-a2")?.pods[0].namespace.clone();
    let mut pinger = Pinger::open(&other)?;
    for pod in &dc.racks[0].nodes[0].pods {
        let home = taken.keys().find(|block| block.contains(&pod.address));
        home.with_context(|| format!("{} is in no block", pod.address))?;
        pinger.wait_answer(pod.address, LIMIT)?;
    }

    // The next agent finds the same.
    let node = dc.node("node-a1")?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(LIMIT)?;
    dc.wait_sessions(SESSION)?;
    same("blocks", &blocks(dc)?, &taken)?;
    wait_everywhere(dc)?;

    // The block that empties goes: first from all kernels, and only then from the directory.
    let node = dc.node("node-a1")?;
    let last = node.pods.last().context("a pod")?.address;
    let block = *taken.keys().find(|block| block.contains(&last)).unwrap();
    while node.pods.iter().any(|pod| block.contains(&pod.address)) {
        node.detach()?;
    }
    let remaining = node.pods.len();
    wait::until("the withdrawal", LIMIT, || {
        for node in dc.nodes() {
            if ranges(node)?.contains_key(&block) {
                bail!("{} has {block}", node.name);
            }
        }
        Ok(())
    })?;
    if !blocks(dc)?.contains_key(&block) {
        bail!("{block} was given back before it was withdrawn");
    }
    wait::until("the return", LIMIT, || {
        match blocks(dc)?.contains_key(&block) {
            true => bail!("{block} is taken"),
            false => Ok(()),
        }
    })?;
    if remaining > 0 {
        same("blocks", &blocks(dc)?.len(), &2)?;
    }
    wait_everywhere(dc)
}

fn full(dc: &mut DataCentre) -> Result<()> {
    start(dc, "cidr: 10.50.0.0/28, blockSize: 29")?;
    dc.node("node-a1")?.attach()?;
    dc.node("node-a2")?.attach()?;
    let node = dc.node("node-a3")?;
    let error = node
        .attach()
        .err()
        .context("there is no block")?
        .to_string();
    for words in [
        "\"code\":101",
        "all 2 are reserved or taken, by 2 nodes",
        "make the IPPool larger",
    ] {
        if !error.contains(words) {
            bail!("{words:?} not in {error}");
        }
    }
    wait::until("STATUS 50", LIMIT, || {
        let answer = cni_status(node)?;
        same("code", &answer["code"], &json!(50))
    })?;
    let metrics = node.ctl_json(&["status"])?;
    same("still up", &metrics["node"], &json!("node-a3"))?;
    dc.node("node-a2")?.detach()?;
    let node = dc.node("node-a3")?;
    wait::until("a block", LIMIT, || node.attach().map(drop))?;
    same("STATUS", &cni_status(node)?, &Value::Null)?;
    wait_everywhere(dc)
}

/// What STATUS prints.
fn cni_status(node: &Node) -> Result<Value> {
    let network = json!({
        "cniVersion": "1.1.0", "name": "margay", "type": "margay", "socket": node.cni_socket(),
    });
    let output = lab::process::Program::new(lab::process::ours("margay-cni")?)
        .env("CNI_COMMAND", "STATUS")
        .env("CNI_PATH", "/opt/cni/bin")
        .output_with(&node.namespace, network.to_string().as_bytes())?;
    match output.status.success() {
        true => Ok(Value::Null),
        false => Ok(serde_json::from_slice(&output.stdout)?),
    }
}

/// Two addresses a block, so that every other ADD takes one, on three nodes and eight at a time.
fn at_once(dc: &mut DataCentre) -> Result<()> {
    const PODS: usize = 24;
    start(dc, "cidr: 10.50.0.0/24, blockSize: 30")?;
    let prefix = dc.shape.prefix.clone();
    let attach = |node: &Node, number: usize| -> Result<Pod> {
        let name = format!("many-{}-{number}", node.name);
        let namespace = Namespace::create(&format!("{prefix}{name}"))?;
        Pod::attach(name, namespace, &node.namespace, &node.cni_socket())
    };
    let pods: Vec<Pod> = std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for node in dc.nodes() {
            for first in 0..8 {
                let attach = &attach;
                let work = move || -> Result<Vec<Pod>> {
                    (first..PODS)
                        .step_by(8)
                        .map(|number| attach(node, number))
                        .collect()
                };
                workers.push(scope.spawn(work));
            }
        }
        let mut pods = Vec::new();
        for worker in workers {
            pods.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        anyhow::Ok(pods)
    })?;
    let addresses: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
    same("addresses", &addresses.len(), &(3 * PODS))?;
    let taken = blocks(dc)?;
    for node in dc.nodes() {
        let own = taken.values().filter(|owner| **owner == node.name).count();
        same(&node.name, &own, &(PODS / 2))?;
    }
    wait_everywhere(dc)?;
    let mut pinger = Pinger::open(&pods[0].namespace)?;
    for pod in &pods[1..] {
        pinger.wait_answer(pod.address, LIMIT)?;
    }
    Ok(())
}

fn changes(dc: &mut DataCentre) -> Result<()> {
    let cidr = "cidr: 10.50.0.0/24, blockSize: 29";
    start(dc, cidr)?;
    let address = dc.node("node-a1")?.attach()?.address;
    dc.node("node-a2")?.attach()?;
    wait_everywhere(dc)?;
    let taken = blocks(dc)?;
    for change in ["disabled: true", "nodeSelector: rack == 'z'"] {
        for node in dc.nodes() {
            set_pool(node, &format!("{cidr}, {change}"))?;
        }
        let node = dc.node("node-a1")?;
        wait::until(change, LIMIT, || {
            let answer = cni_status(node)?;
            let text = answer["msg"].to_string();
            match text.contains("no IPPool gives addresses") {
                true => Ok(()),
                false => bail!("{answer}"),
            }
        })?;
        let problems = status(node)?.config.problems;
        let told = problems
            .iter()
            .any(|it| it.message.contains("goes back with its last pod"));
        same("told", &told, &true)?;
        // Longer than the grace time.
        wait_everywhere(dc)?;
        let other = dc.node("node-a2")?.pods[0].namespace.clone();
        Pinger::open(&other)?.wait_answer(address, LIMIT)?;
        same("blocks", &blocks(dc)?, &taken)?;
    }
    // And with the last pod it goes.
    dc.node("node-a1")?.detach()?;
    wait::until("the return", LIMIT, || {
        let owners: Vec<String> = blocks(dc)?.into_values().collect();
        same("blocks", &owners, &vec!["node-a2".to_owned()])
    })?;
    for node in dc.nodes() {
        set_pool(node, cidr)?;
    }
    let node = dc.node("node-a1")?;
    node.attach()?;
    wait_everywhere(dc)
}

fn lost(dc: &mut DataCentre) -> Result<()> {
    start(dc, "cidr: 10.50.0.0/24, blockSize: 29")?;
    let address = dc.node("node-a1")?.attach()?.address;
    wait_everywhere(dc)?;
    let (block, _) = blocks(dc)?.pop_first().context("a block")?;
    let name = format!("{}-29.json", block.network().to_string().replace('.', "-"));
    let file = shared(dc)?.join(name);
    let text = fs::read_to_string(&file)?.replace("node-a1", "node-a3");
    fs::write(&file, text)?;
    // An agent looks at its start, and every half minute.
    for name in ["node-a1", "node-a3"] {
        let node = dc.node(name)?;
        node.agent()?.kill()?;
        node.start()?;
        node.wait_ready(LIMIT)?;
    }
    dc.wait_sessions(SESSION)?;
    wait_everywhere(dc)?;
    let problems = status(dc.node("node-a1")?)?.config.problems;
    let words = format!("{address} of pod default/pod-a1-1 is in none of this node's");
    match problems
        .iter()
        .any(|problem| problem.message.contains(&words))
    {
        true => Ok(()),
        false => bail!("{words:?} not in {problems:?}"),
    }
}

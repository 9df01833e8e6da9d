//! Many nodes at one small pool, while their agents and the API server die.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{Node, Pod};
use lab::kubernetes::ControlPlane;
use lab::probe::Pinger;
use lab::{Namespace, wait};
use serde_json::Value;
use tests::blocks::ranges;
use tests::{oracle, same};

use crate::blocks::{LIMIT, everywhere, owners, pool, start};
use crate::cluster::Cluster;

/// Of so many steps of a node, in one its agent dies.
const DEADLY: usize = 12;
/// Blocks that have been on several nodes: so many make a race.
const TRAVELLED: usize = 4;
/// Blocks of two addresses each: one a node, so that whoever has two makes another one wait.
const BLOCKS: usize = 8;
/// A block that is given back and not taken for so long is wanted by nobody.
const UNWANTED: Duration = Duration::from_secs(15);
/// A pod may have to wait for an API server that starts anew.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was seen while the nodes raced.
#[derive(Default)]
struct Seen {
    looks: usize,
    /// Blocks that were at home on two nodes at once.
    twice: BTreeSet<String>,
    /// Blocks by how many nodes had them, one after the other.
    homes: BTreeMap<Ipv4Net, BTreeSet<String>>,
}

impl Seen {
    fn travelled(&self) -> usize {
        self.homes.values().filter(|homes| homes.len() > 1).count()
    }
}

pub(crate) fn race(cluster: &mut Cluster) -> Result<()> {
    start(cluster, &pool("10.50.0.0/27", 30))?;
    let prefix = cluster.dc.shape.prefix.clone();
    run(cluster, |plane, seen| {
        outages(plane)?;
        wait::until("a race", PATIENCE, || {
            let travelled = lock(seen).travelled();
            match travelled < TRAVELLED {
                true => bail!("{travelled} blocks have had several nodes"),
                false => Ok(()),
            }
        })
    })?;
    cluster.dc.wait_sessions(PATIENCE)?;
    // With one block each there are as many as nodes.
    for node in cluster.dc.nodes_mut() {
        while node.pods.len() > 1 {
            node.detach()?;
        }
    }
    for node in cluster.dc.nodes_mut().filter(|node| node.pods.is_empty()) {
        let name = format!("last-{}", node.name);
        let namespace = Namespace::create(&format!("{prefix}{name}"))?;
        let pod = wait::until("a block", LIMIT, || {
            attach(node, &name, &namespace)?.context("the pool is full")
        })?;
        node.pods.push(pod);
    }
    everywhere(cluster)?;
    all_reach_all(cluster)?;
    exhaustion(cluster)
}

/// Blocks of one size are told apart by their names; of two sizes, by a look after each claim. The size changes again and
/// again, and so who holds which.
pub(crate) fn sizes(cluster: &mut Cluster) -> Result<()> {
    start(cluster, &pool("10.50.0.0/27", 30))?;
    run(cluster, |plane, seen| {
        for size in [29, 30, 28, 30, 29, 30, 28] {
            plane.apply(&pool("10.50.0.0/27", size))?;
            // New ones, and not only what is left of an earlier time.
            lock(seen).homes.clear();
            wait::until(&format!("claims of /{size}"), PATIENCE, || {
                let list = plane.get(&["ipamblocks"])?;
                let items = list["items"].as_array().into_iter().flatten();
                let mut blocks = items.filter_map(|it| it["spec"]["cidr"].as_str()?.parse().ok());
                match blocks.any(|block: Ipv4Net| block.prefix_len() == size) {
                    true => Ok(()),
                    false => bail!("{list}"),
                }
            })?;
        }
        Ok(())
    })?;
    let taken: Vec<Ipv4Net> = owners(cluster)?.into_keys().collect();
    for (number, block) in taken.iter().enumerate() {
        if let Some(other) = taken[..number].iter().find(|it| it.contains(block)) {
            bail!("{block} is inside {other}: {taken:?}");
        }
    }
    cluster.dc.wait_sessions(PATIENCE)?;
    everywhere(cluster)
}

/// Has pods come and go on all nodes for as long as `drive` takes, and looks at the kernels meanwhile.
fn run(
    cluster: &mut Cluster,
    drive: impl FnOnce(&mut ControlPlane, &Mutex<Seen>) -> Result<()>,
) -> Result<()> {
    let over = AtomicBool::new(false);
    let homes: Vec<(String, Namespace)> = cluster
        .dc
        .nodes()
        .map(|node| (node.name.clone(), node.namespace.clone()))
        .collect();
    let Cluster { dc, plane } = cluster;
    let prefix = dc.shape.prefix.clone();
    let seen = Mutex::new(Seen::default());
    let (outcome, results) = std::thread::scope(|scope| {
        let mut workers = vec![scope.spawn(|| watch(&homes, &seen, &over).map(|()| 0))];
        for node in dc.nodes_mut() {
            workers.push(scope.spawn(|| work(node, &prefix, &over)));
        }
        let outcome = drive(plane, &seen);
        over.store(true, Ordering::Relaxed);
        let results: Vec<_> = workers.into_iter().map(ScopedJoinHandle::join).collect();
        (outcome, results)
    });
    let seen = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    same("blocks on two nodes at once", &seen.twice, &BTreeSet::new())?;
    let mut refusals = 0;
    for result in results {
        refusals += result.map_err(|_| anyhow!("a thread panicked"))??;
    }
    outcome?;
    tests::complain(&format!(
        "{} looks, {} blocks had several nodes, {refusals} times the pool was full",
        seen.looks,
        seen.travelled()
    ));
    match seen.looks {
        0..20 => bail!("only {} looks at the kernels", seen.looks),
        _ => Ok(()),
    }
}

/// The API server dies twice, in the midst of claims.
fn outages(plane: &mut ControlPlane) -> Result<()> {
    for _ in 0..2 {
        wait::until("claims", PATIENCE, || {
            let list = plane.get(&["ipamblocks"])?;
            let taken = list["items"].as_array().map_or(0, Vec::len);
            (taken >= BLOCKS / 2)
                .then_some(())
                .with_context(|| format!("{taken}"))
        })?;
        plane.apiserver.kill()?;
        plane.apiserver.restart()?;
        plane.wait_ready()?;
    }
    Ok(())
}

/// Looks again and again which kernels have which blocks as their own.
fn watch(homes: &[(String, Namespace)], seen: &Mutex<Seen>, over: &AtomicBool) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let begin = wait::now();
        let mut now: BTreeMap<Ipv4Net, Vec<&String>> = BTreeMap::new();
        for (name, namespace) in homes {
            let arguments = ["-j", "route", "show", "proto", "77", "type", "blackhole"];
            let routes: Value = serde_json::from_str(&oracle::ip(namespace, &arguments)?)?;
            for route in routes.as_array().into_iter().flatten() {
                let block: Ipv4Net = route["dst"].as_str().context("dst")?.parse()?;
                now.entry(block).or_default().push(name);
            }
        }
        // A block is withdrawn five seconds before it can be another node's: a look that took longer says nothing.
        if begin.elapsed() > Duration::from_secs(4) {
            continue;
        }
        let mut seen = lock(seen);
        seen.looks += 1;
        for (block, names) in &now {
            for (other, theirs) in &now {
                if other.contains(block) && names.iter().chain(theirs).any(|it| *it != names[0]) {
                    seen.twice
                        .insert(format!("{block}: {names:?}, {other}: {theirs:?}"));
                }
            }
        }
        for (block, names) in now {
            let homes = seen.homes.entry(block).or_default();
            homes.extend(names.into_iter().cloned());
        }
    }
    Ok(())
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pods come and go at random, and every so often the agent dies. Gives how often the pool was full.
fn work(node: &mut Node, prefix: &str, over: &AtomicBool) -> Result<usize> {
    let mut random = fastrand::Rng::with_seed(u64::from(u32::from(node.address)));
    let mut refusals = 0;
    for step in 1.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        if step % DEADLY == 0 {
            node.agent()?.kill()?;
            node.start()?;
        }
        match random.u8(0..10) {
            0 => leave(node, over)?,
            1..4 => {
                if let Some(pod) = node.pods.pop() {
                    pod.detach(&node.namespace, &node.cni_socket())?;
                }
            }
            _ => {
                let name = format!("race-{}-{step}", node.name);
                let namespace = Namespace::create(&format!("{prefix}{name}"))?;
                match attach(node, &name, &namespace)? {
                    Some(pod) => node.pods.push(pod),
                    None => {
                        refusals += 1;
                        leave(node, over)?;
                    }
                }
            }
        }
    }
    Ok(refusals)
}

/// All pods go, and what they had is for others: waits until somebody has it, or nobody wants it.
fn leave(node: &mut Node, over: &AtomicBool) -> Result<()> {
    let own: Vec<Ipv4Net> = ranges(node)?
        .into_iter()
        .filter_map(|(block, via)| via.is_none().then_some(block))
        .collect();
    while let Some(pod) = node.pods.pop() {
        pod.detach(&node.namespace, &node.cni_socket())?;
    }
    let taken = wait::until("another home", UNWANTED, || {
        let now = ranges(node)?;
        let elsewhere = |block| now.get(block).is_some_and(Option::is_some);
        match own.iter().any(elsewhere) || over.load(Ordering::Relaxed) {
            true => Ok(()),
            false => bail!("{own:?} are at home nowhere else"),
        }
    });
    // Nothing that the others must do.
    drop(taken);
    Ok(())
}

/// As a container runtime does it: what failed is undone, and tried again. `None`: the pool is full.
fn attach(node: &Node, name: &str, namespace: &Namespace) -> Result<Option<Pod>> {
    let socket = node.cni_socket();
    wait::until(&format!("{name} to be attached"), PATIENCE, || {
        let tried = Pod::attach(name.to_owned(), namespace.clone(), &node.namespace, &socket);
        let error = match tried {
            Ok(pod) => return Ok(Some(pod)),
            Err(error) => error,
        };
        Pod::detach_named(name, namespace, &node.namespace, &socket)?;
        match error.to_string().contains("are reserved or taken, by") {
            true => Ok(None),
            false => Err(error),
        }
    })
}

/// Every pod has an address of its own, in a block of its own node, and reaches all others.
fn all_reach_all(cluster: &Cluster) -> Result<()> {
    let taken = owners(cluster)?;
    let mut addresses = BTreeSet::new();
    for node in cluster.dc.nodes() {
        for pod in &node.pods {
            let block = taken.iter().find(|(block, _)| block.contains(&pod.address));
            same(
                &format!("home of {}", pod.address),
                &block.map(|(_, owner)| owner.as_str()),
                &Some(node.name.as_str()),
            )?;
            if !addresses.insert(pod.address) {
                bail!("two pods have {}", pod.address);
            }
        }
    }
    let with_pods = || cluster.dc.nodes().filter_map(|node| node.pods.first());
    if with_pods().count() < BLOCKS - 1 {
        bail!("too few nodes have pods: {taken:?}");
    }
    for pod in with_pods() {
        let mut pinger = Pinger::open(&pod.namespace)?;
        for address in &addresses {
            pinger.wait_answer(*address, LIMIT)?;
        }
    }
    Ok(())
}

/// The pool fills up, says so, and is of use again once a node has no pods.
fn exhaustion(cluster: &mut Cluster) -> Result<()> {
    let refusal = |node: &mut Node| -> Result<String> {
        for _ in 0..2 * BLOCKS {
            match node.attach() {
                Ok(_) => {}
                Err(error) => return Ok(error.to_string()),
            }
        }
        bail!("more pods than addresses")
    };
    let said = refusal(cluster.dc.node("node-a1")?)?;
    for words in [
        "\"code\":101",
        "IPPool pods (10.50.0.0/27) has no free block: all 8 are reserved or taken, by ",
    ] {
        if !said.contains(words) {
            bail!("{words:?} not in {said}");
        }
    }
    same("blocks", &owners(cluster)?.len(), &BLOCKS)?;
    let giver = cluster
        .dc
        .nodes()
        .filter(|node| node.name != "node-a1" && !node.pods.is_empty())
        .map(|node| node.name.clone())
        .next()
        .context("a node with pods")?;
    let gone: Vec<Ipv4Addr> = cluster
        .node(&giver)?
        .pods
        .iter()
        .map(|pod| pod.address)
        .collect();
    let node = cluster.dc.node(&giver)?;
    while !node.pods.is_empty() {
        node.detach()?;
    }
    wait::until("empty blocks to come back", LIMIT, || {
        let left = owners(cluster)?;
        let still = left.iter().find(|(_, owner)| **owner == giver);
        same("its blocks", &still.map(|(block, _)| *block), &None)
    })?;
    let node = cluster.dc.node("node-a1")?;
    let address = wait::until("an address", LIMIT, || Ok(node.attach()?.address))?;
    let taken = owners(cluster)?;
    let home = taken.iter().find(|(block, _)| block.contains(&address));
    let home = home.with_context(|| format!("{address} is in no block"))?;
    same("its home", &home.1.as_str(), &"node-a1")?;
    if !gone.iter().any(|address| home.0.contains(address)) {
        bail!("{} is none of those that came back: {gone:?}", home.0);
    }
    everywhere(cluster)?;
    all_reach_all(cluster)
}

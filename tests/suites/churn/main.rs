//! Pods in numbers, while plugin, agent and namespaces die at random moments. What must hold all the time: no two pods
//! that live have one address, of either family. And in the end: nothing is left.

mod calls;
mod faults;
mod watcher;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use lab::datacentre::{DataCentre, Node, Pod, Shape};
use lab::probe::{Echo, Pinger};
use lab::process::{self, Program};
use lab::{Namespace, net, wait};
use serde_json::Value;
use tests::{Case, oracle, same, suite};

/// Pods of the burst, and how many at a time.
const PODS: u32 = 200;
const AT_A_TIME: usize = 16;

/// What one change may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let node = Shape {
        tor: None,
        racks: 1,
        nodes: 1,
        pods: 0,
        dual_stack: true,
        ..Shape::default()
    };
    let nodes = Shape {
        nodes: 2,
        ..node.clone()
    };
    let cases = [
        Case::new("two_hundred_pods_sixteen_at_a_time", node.clone(), burst),
        Case::new(
            "a_thousand_pods_while_all_dies",
            node.clone(),
            faults::churn,
        ),
        Case::new("the_agent_killed_at_each_call", node, calls::killed).with("strace"),
        Case::new("every_first_packet_is_answered", nodes, first_packets),
    ];
    suite(cases.map(|case| case.with("ip").with("ping")).into())
}

/// What a node has when it has no pods.
#[derive(Debug, PartialEq)]
struct Emptiness {
    links: Vec<String>,
    routes: Vec<String>,
    /// Those of IPv6, as `ip` prints them.
    routes6: String,
    neighbours: String,
    files: BTreeSet<OsString>,
}

impl Emptiness {
    fn of(node: &Node) -> Result<Self> {
        let routes = oracle::margay_routes(&node.namespace)?;
        let files = std::fs::read_dir(node.run_folder())?;
        Ok(Self {
            links: net::links(&node.namespace)?.into_values().collect(),
            routes: routes
                .into_keys()
                .map(|prefix| prefix.to_string())
                .collect(),
            routes6: oracle::ip(&node.namespace, &["-6", "route", "show", "proto", "77"])?,
            neighbours: oracle::ip(&node.namespace, &["neigh", "show", "nud", "permanent"])?,
            files: files
                .map(|file| Ok(file?.file_name()))
                .collect::<Result<_>>()?,
        })
    }

    /// Waits until it is so again, and the agent thinks so too.
    fn wait_again(&self, node: &Node) -> Result<()> {
        wait::until("nothing to be left", LIMIT, || {
            same("node", &Self::of(node)?, self)?;
            let endpoints: api::Endpoints = serde_json::from_value(node.ctl_json(&["endpoints"])?)?;
            same("endpoints", &endpoints.endpoints.len(), &0)
        })
    }
}

/// Gives the node a range that a thousand pods fit into: an address rests for a minute.
fn widen(node: &Node) -> Result<()> {
    let file = node.config_folder().join("nodes.yaml");
    let text = std::fs::read_to_string(file)?;
    node.write_config(
        "nodes.yaml",
        &text.replace(&node.pod_cidr.to_string(), "10.245.0.0/16"),
    )
}

/// What ADD has given: an address of IPv4, then one of IPv6.
fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let given = result["ips"].as_array().context("no addresses")?;
    let given = given.iter().map(|given| {
        let text = given["address"].as_str().context("no address")?;
        Ok(text.parse::<IpNet>()?.addr())
    });
    let given: Vec<IpAddr> = given.collect::<Result<_>>()?;
    match given[..] {
        [IpAddr::V4(_), IpAddr::V6(_)] => Ok(given),
        _ => bail!("not one address of each family: {given:?}"),
    }
}

/// Sends one packet to the IPv6 address among these, and fails when it isn't answered.
fn ping6(from: &Namespace, addresses: &[IpAddr]) -> Result<()> {
    let target = addresses.iter().find(|address| address.is_ipv6());
    let target = target.context("no IPv6 address")?.to_string();
    Program::new(process::find("ping").context("ping")?)
        .args(["-6", "-n", "-c", "1", "-W", "2", &target])
        .stdout(from)
        .map(drop)
}

/// Runs `work` for each number below `count`, some at a time.
fn side_by_side<T: Send>(count: u32, work: impl Fn(u32) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicU32::new(0);
    let worker = || -> Result<Vec<T>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            done.push(work(number)?);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        Ok(all)
    })
}

fn burst(dc: &mut DataCentre) -> Result<()> {
    let prefix = dc.shape.prefix.clone();
    dc.start_agents()?;
    let node = dc.node("node-a1")?;
    let empty = Emptiness::of(node)?;
    let (host, socket) = (node.namespace.clone(), node.cni_socket());
    let pods = side_by_side(PODS, |number| {
        let name = format!("burst-{number}");
        let namespace = Namespace::create(&format!("{prefix}{name}"))?;
        Pod::attach(name, namespace, &host, &socket)
    })?;
    let mut all = BTreeSet::new();
    for pod in &pods {
        all.extend(addresses(&pod.result)?);
    }
    same("addresses", &all.len(), &(2 * pods.len()))?;
    let mut pinger = Pinger::open(&host)?;
    for pod in &pods {
        pinger
            .wait_answer(pod.address, LIMIT)
            .with_context(|| pod.name.clone())?;
        ping6(&host, &addresses(&pod.result)?).with_context(|| pod.name.clone())?;
    }
    side_by_side(PODS, |number| pods[number as usize].detach(&host, &socket))?;
    empty.wait_again(node)
}

/// From the moment ADD returns, the very first packet to a pod of another node is answered.
fn first_packets(dc: &mut DataCentre) -> Result<()> {
    const ROUNDS: u32 = 200;
    const PATIENCE: Duration = Duration::from_secs(2);
    dc.start_agents()?;
    dc.wait_sessions(LIMIT)?;
    dc.wait_routes(LIMIT)?;
    let other = dc.node("node-a2")?.attach()?;
    let (target, targets) = (other.address, addresses(&other.result)?);
    let node = dc.node("node-a1")?;
    let mut pinger = Pinger::open(&node.namespace)?;
    // The way between the nodes itself asks by ARP once.
    pinger.wait_answer(target, LIMIT)?;
    wait::until("the way between the nodes", LIMIT, || {
        ping6(&node.namespace, &targets)
    })?;
    let mut lost = 0;
    for _ in 0..ROUNDS {
        let pod = node.attach()?.namespace.clone();
        let reply = Pinger::open(&pod)?.ping(target, Echo::default(), PATIENCE)?;
        lost += u32::from(!reply.answered());
        ping6(&pod, &targets).context("the first packet of IPv6")?;
        node.detach()?;
    }
    if lost > 0 {
        bail!("{lost} of {ROUNDS} first packets were not answered");
    }
    Ok(())
}

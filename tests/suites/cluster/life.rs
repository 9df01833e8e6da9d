//! What the cluster goes through, one thing after the other, with streams of packets between pods that stand.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::DataCentre;
use lab::net;
use lab::probe::{Echo, EchoServer, Pinger, Stream};
use lab::{Namespace, wait};
use tests::{SESSION, complain, oracle, same};

use crate::cluster::{Cluster, register};

/// How long the API server is away.
const ABSENCE: Duration = Duration::from_secs(60);
/// Between two packets of a stream.
const INTERVAL: Duration = Duration::from_millis(10);

/// What happens to the cluster.
type Stage = fn(&mut Cluster<'_>) -> Result<()>;

/// In this order.
const STAGES: [(&str, Stage); 5] = [
    ("objects that were written for Calico", calico),
    ("the three rules", rules),
    ("the API server is away", absence),
    ("a node goes and comes", removal),
    ("an upgrade, node by node", upgrade),
];

/// All of it.
pub(crate) fn all(dc: &mut DataCentre) -> Result<()> {
    let mut cluster = Cluster::build(dc)?;
    for (name, stage) in STAGES {
        let began = wait::now();
        let done = stage(&mut cluster).with_context(|| name.to_owned());
        done.map_err(|error| error.context(cluster.logs()))?;
        complain(&format!("{name}: {} s", began.elapsed().as_secs()));
    }
    Ok(())
}

/// Calico's objects take effect: peers by selectors, filters, the pool.
fn calico(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.apply_calico()?;
    // A DaemonSet's first pods start on all nodes at once; none is ready before it has heard the others of its rack.
    for name in cluster.names() {
        cluster.start(&name)?;
    }
    for name in cluster.names() {
        cluster.wait_ready(&name)?;
        cluster.wait_open(&name)?;
    }
    cluster.dc.wait_sessions(SESSION)?;
    cluster.dc.wait_routes(SESSION)?;
    for name in cluster.names() {
        let node = cluster.node(&name)?;
        // The ToR, and the other node of the rack.
        wait::until("the sessions", SESSION, || {
            let connections = oracle::bgp_connections(&node.namespace)?;
            same("sessions", &connections, &2)
        })?;
    }
    // The filter lets one rack's subnet through and not the other's.
    for (node, subnet, passes) in [
        ("node-a1", "172.20.2.0/24", false),
        ("node-b1", "172.20.1.0/24", true),
    ] {
        let routes = oracle::margay_routes(&cluster.node(node)?.namespace)?;
        let there = routes.contains_key(&subnet.parse()?);
        same(&format!("{subnet} on {node}"), &there, &passes)?;
    }
    for node in cluster.dc.nodes_mut() {
        node.attach()?;
        node.attach()?;
    }
    // The pool's `natOutgoing`: who is outside sees the node.
    for rack in &cluster.dc.racks {
        let outside = EchoServer::start(&rack.tor.namespace, rack.tor.address)?;
        for node in &rack.nodes {
            let pod = node.pods.first().context("a pod")?;
            let seen = outside.ask_udp(&pod.namespace)?;
            same("address outside", &seen, &IpAddr::from(node.address))?;
        }
    }
    Ok(())
}

/// Kubernetes' rules: pods and nodes reach each other without NAT, and a pod's own view of its address is everybody's.
fn rules(cluster: &mut Cluster<'_>) -> Result<()> {
    let mut all: Vec<(&str, &Namespace, Ipv4Addr)> = Vec::new();
    for pod in cluster.dc.pods() {
        let own = oracle::ip(&pod.namespace, &["-j", "-4", "address", "show", "eth0"])?;
        let own: serde_json::Value = serde_json::from_str(&own)?;
        let own = own[0]["addr_info"][0]["local"].as_str();
        same("own view", &own, &Some(pod.address.to_string().as_str()))?;
        all.push((&pod.name, &pod.namespace, pod.address));
    }
    for node in cluster.dc.nodes() {
        all.push((&node.name, &node.namespace, node.address));
    }
    for (to, namespace, address) in &all {
        let server = EchoServer::start(namespace, *address)?;
        for (from, namespace, address) in &all {
            // A node asks its own pods from its address too; to itself it would be any address.
            let what = format!("{from} to {to}");
            let seen = [server.ask_udp(namespace), server.ask_tcp(namespace)];
            for seen in seen {
                same(&what, &seen.context(what.clone())?, &IpAddr::from(*address))?;
            }
        }
    }
    Ok(())
}

/// For a minute nobody answers, and pods come and go on all nodes.
fn absence(cluster: &mut Cluster<'_>) -> Result<()> {
    let streams = streams(cluster, &["node-a1", "node-a2", "node-b1", "node-b2"])?;
    cluster.plane.apiserver.kill()?;
    let end = wait::now() + ABSENCE;
    let names = cluster.names();
    let mut rounds = 0u32;
    while wait::now() < end {
        for (at, name) in names.iter().enumerate() {
            let address = cluster.dc.node(name)?.attach()?.address;
            let other = cluster.node(&names[(at + 1 + rounds as usize % 3) % names.len()])?;
            let from = &other.pods.first().context("a pod")?.namespace;
            let mut pinger = Pinger::open(from)?;
            pinger
                .wait_answer(address, SESSION)
                .with_context(|| format!("from {} to a new pod on {name}", other.name))?;
            cluster.dc.node(name)?.detach()?;
            let reply = pinger.ping(address, Echo::default(), Duration::from_millis(100))?;
            same("a pod that is gone answers", &reply.answered(), &false)?;
        }
        rounds += 1;
    }
    if rounds < 3 {
        bail!("only {rounds} rounds of churn");
    }
    // One that stays.
    for name in &names {
        cluster.dc.node(name)?.attach()?;
    }
    cluster.plane.apiserver.restart()?;
    cluster.plane.wait_ready()?;
    for name in &names {
        cluster.wait_open(name)?;
    }
    nothing_lost(streams)
}

/// A machine is switched off and its Node deleted; later both come back, with the same pods.
fn removal(cluster: &mut Cluster<'_>) -> Result<()> {
    const GONE: &str = "node-b2";
    let streams = streams(cluster, &["node-a1", "node-a2", "node-b1"])?;
    let target = cluster.node(GONE)?.pods.first().context("a pod")?.address;
    cluster.stop(GONE)?;
    let rack = cluster.dc.racks.get(1).context("a rack")?;
    let tor = rack.tor.namespace.clone();
    net::set_down(&tor, "to-b2")?;
    cluster.plane.kubectl(&["delete", "node", GONE])?;
    let neighbour = cluster.node("node-b1")?.namespace.clone();
    wait::until("the neighbour to drop its session", SESSION, || {
        same("sessions", &oracle::bgp_connections(&neighbour)?, &1)
    })?;
    let mut pingers = Vec::new();
    for name in ["node-a1", "node-a2", "node-b1"] {
        let pod = cluster.node(name)?.pods.first().context("a pod")?;
        let mut pinger = Pinger::open(&pod.namespace)?;
        let reply = pinger.ping(target, Echo::default(), Duration::from_millis(500))?;
        same("a pod of a dead node answers", &reply.answered(), &false)?;
        pingers.push(pinger);
    }
    net::set_up(&tor, "to-b2")?;
    register(&cluster.plane, cluster.node(GONE)?)?;
    cluster.roll(GONE)?;
    cluster.wait_open(GONE)?;
    for mut pinger in pingers {
        pinger.wait_answer(target, SESSION)?;
    }
    wait::until("the neighbour's session", SESSION, || {
        same("sessions", &oracle::bgp_connections(&neighbour)?, &2)
    })?;
    nothing_lost(streams)
}

/// `helm upgrade` changes the DaemonSet's template, and its pods are replaced one after the other.
fn upgrade(cluster: &mut Cluster<'_>) -> Result<()> {
    cluster.dc.wait_sessions(SESSION)?;
    let streams = streams(cluster, &["node-a1", "node-a2", "node-b1", "node-b2"])?;
    cluster.upgrade("log.filter=debug")?;
    for name in cluster.names() {
        cluster.roll(&name)?;
        cluster.wait_open(&name)?;
    }
    cluster.dc.wait_sessions(SESSION)?;
    cluster.dc.wait_routes(SESSION)?;
    nothing_lost(streams)?;
    rules(cluster)
}

/// From the first pod of each node to the second one of every node.
fn streams(cluster: &Cluster<'_>, nodes: &[&str]) -> Result<Vec<(String, Stream)>> {
    let mut found = Vec::new();
    for from in nodes {
        let source = cluster.node(from)?.pods.first().context("a pod")?;
        for to in nodes {
            let target = cluster.node(to)?.pods.get(1).context("a second pod")?;
            Pinger::open(&source.namespace)?.wait_answer(target.address, SESSION)?;
            let stream = Stream::start(&source.namespace, target.address, INTERVAL)?;
            found.push((format!("{from} to {to}"), stream));
        }
    }
    Ok(found)
}

fn nothing_lost(streams: Vec<(String, Stream)>) -> Result<()> {
    let mut complaints = Vec::new();
    for (name, stream) in streams {
        let loss = stream.finish()?;
        if !loss.lost.is_empty() || loss.sent < 100 {
            complaints.push(format!(
                "{name}: {} of {} lost: {:?}",
                loss.lost.len(),
                loss.sent,
                loss.lost
            ));
        }
    }
    match complaints.as_slice() {
        [] => Ok(()),
        _ => bail!("{}", complaints.join("\n")),
    }
}

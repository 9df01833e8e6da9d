//! containerd and runc.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node};
use lab::probe::Pinger;
use lab::process::{self, Program};
use lab::wait;
use tests::containerd::{BIN, CONF, Containerd};
use tests::cri::{Client, LinuxSandbox, Metadata, PortMapping, Sandbox};
use tests::{archive, same};

use crate::{LIMIT, Traces, holds, installer, prepare};

pub(crate) fn pods(dc: &mut DataCentre) -> Result<()> {
    let plugins = ["loopback", "portmap"];
    let node = prepare(dc, Path::new(BIN), Path::new(CONF), &plugins)?;
    let before = Traces::of(node)?;
    let mut containerd = Containerd::start(node, &[])?;
    let result = by_command(node, &containerd)
        .and_then(|()| by_cri(node, &mut containerd))
        .and_then(|()| before.wait_again(node));
    let log = || containerd.log();
    result.map_err(|error| error.context(log()))
}

/// `ctr run --cni`: a container on its own, without Kubernetes.
fn by_command(node: &Node, containerd: &Containerd) -> Result<()> {
    let script = format!("ip addr show dev eth0; ping -c1 -W2 {}", node.address);
    let script = format!("/bin/busybox --install -s /bin; {script}");
    let output = containerd
        .ctr()?
        .args(["run", "--rm", "--cni", "--snapshotter", "native"])
        .args([archive::NAME, "alone", "/bin/busybox", "sh", "-c", &script])
        .output(&node.namespace)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("ctr run: {}: {text}{complaint}", output.status);
    }
    holds(&text, &format!("inet {}/32", first(node)))?;
    let range = node.ipv6.context("the shape has IPv6")?.pod_cidr;
    let range = range.network().to_string();
    holds(&text, &format!("inet6 {}", range.trim_end_matches(':')))?;
    holds(&text, "1 packets received")
}

/// The first address of a node's range.
fn first(node: &Node) -> Ipv4Addr {
    node.pod_cidr
        .hosts()
        .next()
        .unwrap_or(Ipv4Addr::UNSPECIFIED)
}

fn sandbox(name: &str) -> Sandbox {
    Sandbox {
        metadata: Some(Metadata {
            name: name.to_owned(),
            uid: format!("uid-of-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: String::new(),
        port_mappings: Vec::new(),
        annotations: BTreeMap::new(),
        linux: Some(LinuxSandbox::default()),
    }
}

/// As the kubelet does it, with everything restarted in between.
fn by_cri(node: &mut Node, containerd: &mut Containerd) -> Result<()> {
    let before = Traces::of(node)?;
    let client = Client::new(&containerd.socket());
    let web = wait::until("the runtime's network to be ready", LIMIT, || {
        client.run(Sandbox {
            port_mappings: vec![PortMapping {
                protocol: 0,
                container_port: 80,
                host_port: 8080,
            }],
            ..sandbox("web-0")
        })
    })?;
    let fixed = Ipv4Addr::from_bits(first(node).to_bits() + 76);
    let wish = ("margay.dev/ip-addresses".to_owned(), fixed.to_string());
    let database = client.run(Sandbox {
        annotations: BTreeMap::from([wish]),
        ..sandbox("db-0")
    })?;
    same(
        "by annotation",
        &client.address(&database)?,
        &fixed.to_string(),
    )?;
    let address: Ipv4Addr = client.address(&web)?.parse()?;
    let mut pinger = Pinger::open(&node.namespace)?;
    for address in [address, fixed] {
        pinger.wait_answer(address, LIMIT)?;
    }
    // The runtime knows both of a pod's addresses, and both are the pod's.
    let both = client.addresses(&web)?;
    let address6 = match &both[..] {
        [first, second] if *first == address.to_string() => second.parse::<Ipv6Addr>()?,
        _ => bail!("not {address} and one of IPv6: {both:?}"),
    };
    if !node.ipv6.context("IPv6")?.pod_cidr.contains(&address6) {
        bail!("{address6} is of another range");
    }
    ping6(node, address6)?;
    let rules = Traces::of(node)?.ports.join("\n");
    holds(&rules, &format!("--to-destination {address}:80"))?;
    let endpoints: api::Endpoints = serde_json::from_value(node.ctl_json(&["endpoints"])?)?;
    let text = format!("{endpoints:?}");
    ["web-0", "db-0"]
        .iter()
        .try_for_each(|name| holds(&text, name))?;

    // Both lose their memory; the pods don't.
    containerd.restart(node)?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(LIMIT)?;
    for (id, wanted) in [(&web, address), (&database, fixed)] {
        same("address", &client.address(id)?, &wanted.to_string())?;
        pinger.wait_answer(wanted, LIMIT)?;
    }
    same("addresses", &client.addresses(&web)?, &both)?;
    ping6(node, address6)?;
    // A pod ends while there is no agent, and again.
    node.agent()?.kill()?;
    client.stop(&database)?;
    client.stop(&database)?;
    client.remove(&database)?;
    node.start()?;
    node.wait_ready(LIMIT)?;
    containerd.restart(node)?;
    // Without a plugin a pod lives on, and can't end: the runtime keeps it until there is one again.
    installer(node, &["uninstall"], Path::new(BIN), Path::new(CONF))?;
    pinger.wait_answer(address, LIMIT)?;
    ping6(node, address6)?;
    if client.stop(&web).is_ok() {
        bail!("a pod has ended without the plugin");
    }
    let install = ["install", "--wait", "20"];
    installer(node, &install, Path::new(BIN), Path::new(CONF))?;
    wait::until("the pod to end", LIMIT, || client.stop(&web))?;
    client.remove(&web)?;
    before.wait_again(node)
}

fn ping6(node: &Node, target: Ipv6Addr) -> Result<()> {
    Program::new(process::find("ping").context("ping")?)
        .args(["-6", "-n", "-c", "1", "-W", "2", &target.to_string()])
        .stdout(&node.namespace)
        .map(drop)
}

//! `libcni` itself, as `cnitool` drives it: other plugins behind ours, and the verbs of 1.1.0.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use lab::Namespace;
use lab::datacentre::{DataCentre, Node};
use lab::probe::Pinger;
use lab::process::{self, Program};
use serde_json::{Value, json};
use tests::{oracle, same};

use crate::{LIMIT, Traces, holds, prepare};

/// A pod, and how `cnitool` is to treat it.
struct Tool {
    host: Namespace,
    pod: Namespace,
    bin: PathBuf,
    conf: PathBuf,
    arguments: Value,
    /// The network's name, which `libcni` remembers what it attached by.
    network: String,
    ifname: String,
}

impl Tool {
    fn run(&self, verb: &str) -> Result<String> {
        Program::new(process::find("cnitool").context("cnitool")?)
            .args([verb, &self.network])
            .arg(self.pod.path())
            .env("CNI_PATH", &self.bin)
            .env("CNI_IFNAME", &self.ifname)
            .env("NETCONFPATH", &self.conf)
            .env("CAP_ARGS", self.arguments.to_string())
            .stdout(&self.host)
            .with_context(|| format!("cnitool {verb}"))
    }
}

/// A node with these plugins behind ours in the chain.
fn chain<'a>(
    dc: &'a mut DataCentre,
    name: &str,
    version: &str,
    behind: &[Value],
) -> Result<(&'a mut Node, Tool)> {
    let pod = Namespace::create(&format!("{}{name}", dc.shape.prefix))?;
    let folder = dc.node("node-a1")?.run_folder();
    let (bin, conf) = (folder.join("bin"), folder.join("net.d"));
    let names: Vec<&str> = behind
        .iter()
        .filter_map(|plugin| plugin["type"].as_str())
        .collect();
    let node = prepare(dc, &bin, &conf, &names)?;
    // What is installed speaks what its portmap does; here the chain is a test's own.
    let installed = conf.join("10-margay.conflist");
    let mut conflist: Value = serde_json::from_str(&fs::read_to_string(&installed)?)?;
    let ours = conflist["plugins"][0].clone();
    let plugins: Vec<Value> = [&[ours], behind].concat();
    conflist = json!({ "cniVersion": version, "name": name, "plugins": plugins });
    fs::write(&installed, conflist.to_string())?;
    let tool = Tool {
        host: node.namespace.clone(),
        pod,
        bin,
        conf,
        arguments: json!({}),
        ifname: "eth0".to_owned(),
        network: name.to_owned(),
    };
    Ok((node, tool))
}

pub(crate) fn chained(dc: &mut DataCentre) -> Result<()> {
    let behind = [
        json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" }, "mtu": 1400 }),
        json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } }),
        json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }),
    ];
    let (node, mut tool) = chain(dc, "chained", "1.0.0", &behind)?;
    tool.arguments = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }],
        "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 8_000_000, "egressRate": 8_000_000, "egressBurst": 8_000_000 },
        "mac": "02:00:5e:00:00:07",
    });
    let before = Traces::of(node)?;
    let result: Value = serde_json::from_str(&tool.run("add")?)?;
    let address = result["ips"][0]["address"].as_str().context("an address")?;
    let address = address.trim_end_matches("/32");
    let in_pod = |program: &str, arguments: &[&str]| {
        Program::new(process::find(program).context("a program")?)
            .args(arguments)
            .stdout(&tool.pod)
    };
    let link = in_pod("ip", &["link", "show", "dev", "eth0"])?;
    holds(&link, "mtu 1400")?;
    holds(&link, "02:00:5e:00:00:07")?;
    let sysctl = tool
        .pod
        .run(|| Ok(fs::read_to_string("/proc/sys/net/core/somaxconn")?))?;
    holds(&sysctl, "500")?;
    let host = result["interfaces"][0]["name"].as_str().context("a name")?;
    let shaped = Program::new(process::find("tc").context("tc")?)
        .args(["qdisc", "show", "dev", host])
        .stdout(&node.namespace)?;
    holds(&shaped, "tbf")?;
    let rules = Traces::of(node)?.ports.join("\n");
    holds(&rules, &format!("--to-destination {address}:80"))?;
    Pinger::open(&node.namespace)?.wait_answer(address.parse()?, LIMIT)?;
    // What others have done to our interface is no fault. Debian's portmap is not asked: it looks for rules of IPv6 even
    // where the pod has no such address.
    let file = tool.conf.join("10-margay.conflist");
    let whole = fs::read_to_string(&file)?;
    let mut conflist: Value = serde_json::from_str(&whole)?;
    conflist["plugins"].as_array_mut().context("plugins")?.pop();
    fs::write(&file, conflist.to_string())?;
    tool.run("check")?;
    fs::write(&file, whole)?;
    tool.run("del")?;
    tool.run("del")?;
    before.wait_again(node)
}

/// The verbs that came with 1.1.0, which no plugin of Debian's speaks yet.
pub(crate) fn newest(dc: &mut DataCentre) -> Result<()> {
    let (node, tool) = chain(dc, "newest", "1.1.0", &[])?;
    let before = Traces::of(node)?;
    tool.run("status")?;
    let result: Value = serde_json::from_str(&tool.run("add")?)?;
    if result["cniVersion"] != "1.1.0" || result["interfaces"][1]["mtu"].is_null() {
        bail!("not as 1.1.0 has it: {result}");
    }
    tool.run("check")?;
    // `cnitool` has nothing that it calls valid: all that `libcni` remembers of the network goes.
    tool.run("gc")?;
    before.wait_again(node)?;
    tool.run("add")?;
    // An agent that hangs, and none at all.
    node.agent()?.freeze()?;
    holds(&refusal(tool.run("status"))?, "margayd is not ready")?;
    node.agent()?.kill()?;
    holds(&refusal(tool.run("status"))?, "margayd is not ready")?;
    tool.run("del")?;
    node.start()?;
    node.wait_ready(LIMIT)?;
    before.wait_again(node)
}

fn refusal(status: Result<String>) -> Result<String> {
    match status {
        Ok(_) => bail!("STATUS is well, and no agent serves"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Two interfaces of one container: each is attached, and goes, by itself.
pub(crate) fn twice(dc: &mut DataCentre) -> Result<()> {
    let (node, mut tool) = chain(dc, "twice", "1.0.0", &[])?;
    let before = Traces::of(node)?;
    let attach = |tool: &Tool| -> Result<Ipv4Addr> {
        let result: Value = serde_json::from_str(&tool.run("add")?)?;
        let address = result["ips"][0]["address"].as_str().context("an address")?;
        Ok(address.trim_end_matches("/32").parse()?)
    };
    let first = attach(&tool)?;
    let with_one = Traces::of(node)?;
    "net1".clone_into(&mut tool.ifname);
    let second = attach(&tool)?;
    let mut pinger = Pinger::open(&node.namespace)?;
    pinger.wait_answer(first, LIMIT)?;
    // Its answers would leave by the first interface, and from there with a foreign address.
    if !oracle::margay_routes(&node.namespace)?.contains_key(&second.into()) {
        bail!("no route to {second}");
    }
    let routes = oracle::ip(&tool.pod, &["route", "show", "default"])?;
    same("default routes", &routes.lines().count(), &1)?;
    holds(&routes, "dev eth0")?;
    tool.run("check")?;
    tool.run("del")?;
    with_one.wait_again(node)?;
    pinger.wait_answer(first, LIMIT)?;
    "eth0".clone_into(&mut tool.ifname);
    tool.run("check")?;
    tool.run("del")?;
    before.wait_again(node)
}

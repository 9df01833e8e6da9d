//! Real runtimes: containerd with runc, by its own command line and by the kubelet's interface (CRI), and `libcni` with
//! other plugins chained behind ours. Images are made on the spot from a static busybox.

mod chain;
mod containerd;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::datacentre::{DataCentre, Node, Shape};
use lab::process::{self, Program};
use lab::{net, wait};
use tests::containerd::private_root;
use tests::{Case, oracle, same, suite};

/// What a runtime may take for one thing.
const LIMIT: Duration = Duration::from_secs(30);

/// Where distributions put the reference plugins.
const REFERENCE: &str = "/usr/lib/cni";

fn main() -> ExitCode {
    let node = Shape {
        tor: None,
        racks: 1,
        nodes: 1,
        pods: 0,
        ..Shape::default()
    };
    let dual_stack = Shape {
        dual_stack: true,
        ..node.clone()
    };
    let pods = [
        Case::new("containerd_attaches_pods", dual_stack, containerd::pods).with("ping"),
        Case::new("libcni_chains_other_plugins", node.clone(), chain::chained)
            .with("tc")
            .wants("cnitool"),
        Case::new("libcni_speaks_1_1_0", node.clone(), chain::newest).wants("cnitool"),
        Case::new("libcni_attaches_a_container_twice", node, chain::twice).wants("cnitool"),
    ];
    let needed = ["ip", "iptables", "containerd", "ctr", "runc", "busybox"];
    let cases = pods.map(|case| needed.into_iter().fold(case, Case::with));
    suite(cases.into())
}

/// A node with a running agent, and a folder of plugins and one of configurations into which ours is installed.
fn prepare<'a>(
    dc: &'a mut DataCentre,
    bin: &Path,
    conf: &Path,
    plugins: &[&str],
) -> Result<&'a mut Node> {
    private_root()?;
    dc.start_agents()?;
    let node = dc.node("node-a1")?;
    fs::create_dir_all(bin)?;
    fs::create_dir_all(conf)?;
    for plugin in plugins {
        fs::copy(Path::new(REFERENCE).join(plugin), bin.join(plugin)).with_context(|| {
            format!("{REFERENCE}/{plugin}: install containernetworking-plugins")
        })?;
    }
    installer(node, &["install", "--wait", "20"], bin, conf)?;
    Ok(node)
}

/// `margay-cni install` or `uninstall` for these folders.
fn installer(node: &Node, arguments: &[&str], bin: &Path, conf: &Path) -> Result<()> {
    Program::new(process::ours("margay-cni")?)
        .args(arguments)
        .arg("--socket")
        .arg(node.cni_socket())
        .arg("--bin-dir")
        .arg(bin)
        .arg("--conf-dir")
        .arg(conf)
        .stdout(&node.namespace)
        .map(drop)
}

/// What a pod must not leave behind: links, routes, rules for its ports.
#[derive(Debug, PartialEq)]
struct Traces {
    links: Vec<String>,
    routes: Vec<String>,
    /// Those of IPv6, as `ip` prints them.
    routes6: String,
    ports: Vec<String>,
}

impl Traces {
    fn of(node: &Node) -> Result<Self> {
        let rules = Program::new(process::find("iptables").context("iptables")?)
            .args(["-t", "nat", "-S"])
            .stdout(&node.namespace)?;
        let routes = oracle::margay_routes(&node.namespace)?;
        let ports = rules.lines().filter(|line| line.contains("CNI-DN-"));
        Ok(Self {
            links: net::links(&node.namespace)?.into_values().collect(),
            routes: routes
                .into_keys()
                .map(|prefix| prefix.to_string())
                .collect(),
            routes6: oracle::ip(&node.namespace, &["-6", "route", "show", "proto", "77"])?,
            ports: ports.map(ToOwned::to_owned).collect(),
        })
    }

    /// Waits until there is no more than this.
    fn wait_again(&self, node: &Node) -> Result<()> {
        wait::until("nothing of the pods to be left", LIMIT, || {
            same("traces", &Self::of(node)?, self)
        })
    }
}

/// Fails unless `text` holds `wanted`.
fn holds(text: &str, wanted: &str) -> Result<()> {
    if text.contains(wanted) {
        return Ok(());
    }
    bail!("no {wanted:?} in: {text}")
}

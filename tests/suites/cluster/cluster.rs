//! What is there: the data centre, its control plane in `tor-a`, the release, and a kubelet on each node.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node};
use lab::kubernetes::{ControlPlane, PORT};
use lab::process::{self, Program};
use lab::wait;
use serde_json::{Value, json};
use tests::containerd::Containerd;
use tests::kubelet::{Kubelet, Pod};
use tests::{SESSION, chart, oracle, same};

/// Written for Calico.
const CALICO: &str = include_str!("calico.yaml");

/// A node's runtime, its kubelet, and the DaemonSet's pod on it.
struct Machine {
    containerd: Containerd,
    kubelet: Kubelet,
    pod: Option<Pod>,
    generation: u32,
}

pub(crate) struct Cluster<'a> {
    pub(crate) dc: &'a mut DataCentre,
    pub(crate) plane: ControlPlane,
    machines: BTreeMap<String, Machine>,
}

impl<'a> Cluster<'a> {
    /// Control plane, release, objects and runtimes: everything but the agents.
    pub(crate) fn build(dc: &'a mut DataCentre) -> Result<Self> {
        let image = chart::image()?;
        join(dc)?;
        let tor = &dc.racks.first().context("a rack")?.tor;
        let folder = format!("/run/lab/{}plane", dc.shape.prefix).into();
        let plane = ControlPlane::start(&tor.namespace, tor.address, folder)?;
        let mut machines = BTreeMap::new();
        for node in dc.nodes() {
            fs::create_dir_all(node.run_folder())?;
            let containerd = Containerd::start(node, &[&image])?;
            let folders = BTreeMap::from([(PathBuf::from("/run/margay"), node.run_folder())]);
            let root = node.run_folder().join("root");
            let kubelet = Kubelet::new(node, &containerd.socket(), root, folders);
            machines.insert(
                node.name.clone(),
                Machine {
                    containerd,
                    kubelet,
                    pod: None,
                    generation: 0,
                },
            );
        }
        let cluster = Self {
            dc,
            plane,
            machines,
        };
        let chart = chart::folder("charts/margay").display().to_string();
        cluster.helm(&["install", "margay", &chart, "--set", &cluster.values()?])?;
        for node in cluster.dc.nodes() {
            register(&cluster.plane, node)?;
            let folder = cluster.machine(node)?.kubelet.path("/volumes/api-token");
            cluster.plane.project(chart::NAMESPACE, "margay", &folder)?;
        }
        Ok(cluster)
    }

    /// Where the agents find the API server before there is a pod network.
    fn values(&self) -> Result<String> {
        let tor = &self.dc.racks.first().context("a rack")?.tor;
        Ok(format!(
            "apiServer.host={},apiServer.port={PORT}",
            tor.address
        ))
    }

    /// `helm` with the administrator's rights.
    pub(crate) fn helm(&self, arguments: &[&str]) -> Result<()> {
        let namespace = &self.dc.racks.first().context("a rack")?.tor.namespace;
        let output = Program::new(process::find("helm").context("helm")?)
            .args(arguments)
            .args(["--namespace", chart::NAMESPACE, "--kubeconfig"])
            .arg(self.plane.admin())
            .env("HOME", "/run/lab")
            .output(namespace)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("helm {}: {said}", arguments.join(" "));
        }
        Ok(())
    }

    /// `helm upgrade` to further values.
    pub(crate) fn upgrade(&self, further: &str) -> Result<()> {
        let chart = chart::folder("charts/margay").display().to_string();
        let values = format!("{},{further}", self.values()?);
        self.helm(&["upgrade", "margay", &chart, "--set", &values])
    }

    /// Applies what was written for Calico, with nothing changed but `apiVersion`.
    pub(crate) fn apply_calico(&self) -> Result<()> {
        let lines = CALICO
            .lines()
            .map(|line| match line.strip_prefix("apiVersion: ") {
                Some(_) => "apiVersion: margay.dev/v1alpha1\n".to_owned(),
                None => format!("{line}\n"),
            });
        self.plane.apply(&lines.collect::<String>())
    }

    /// Replaces the pod of a node's by one of the DaemonSet's template, and waits until it is ready.
    pub(crate) fn roll(&mut self, name: &str) -> Result<()> {
        self.stop(name)?;
        self.start(name)?;
        self.wait_ready(name)
    }

    /// Runs a pod of the DaemonSet's template, as the API server has it, on a node.
    pub(crate) fn start(&mut self, name: &str) -> Result<()> {
        let daemons = self
            .plane
            .get(&["-n", chart::NAMESPACE, "daemonset", "margay"])?;
        let machine = self.machines.get_mut(name).context("a machine")?;
        machine.generation += 1;
        let pod = format!("margay-{}", machine.generation);
        let template = &daemons["spec"]["template"];
        machine.pod = Some(machine.kubelet.run(&pod, template)?);
        Ok(())
    }

    /// Stops the pod of a node's, if there is one, and waits until it is gone.
    pub(crate) fn stop(&mut self, name: &str) -> Result<()> {
        let machine = self.machines.get_mut(name).context("a machine")?;
        if let Some(pod) = machine.pod.take() {
            let codes = machine.kubelet.stop(&pod)?;
            same("exit codes", &codes.into_values().collect(), &vec![0, 0])?;
        }
        Ok(())
    }

    /// Waits for the probes of a node's pod.
    pub(crate) fn wait_ready(&self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        let machine = self.machine(node)?;
        let pod = machine.pod.as_ref().context("a pod")?;
        for probe in ["startupProbe", "readinessProbe"] {
            machine.kubelet.wait_probe(node, pod, probe, SESSION)?;
        }
        Ok(())
    }

    pub(crate) fn node(&self, name: &str) -> Result<&Node> {
        let found = self.dc.nodes().find(|node| node.name == name);
        found.with_context(|| format!("there is no {name}"))
    }

    /// The names of all nodes.
    pub(crate) fn names(&self) -> Vec<String> {
        self.dc.nodes().map(|node| node.name.clone()).collect()
    }

    fn machine(&self, node: &Node) -> Result<&Machine> {
        self.machines.get(&node.name).context("a machine")
    }

    /// Kubernetes lets pods onto a node: neither our taint nor the condition stands in their way.
    pub(crate) fn wait_open(&self, name: &str) -> Result<()> {
        wait::until(&format!("{name} to be open to pods"), SESSION, || {
            let node = self.plane.get(&["node", name])?;
            let conditions = node["status"]["conditions"].as_array();
            let unavailable = conditions
                .into_iter()
                .flatten()
                .find(|it| it["type"] == "NetworkUnavailable");
            let taints = node["spec"]["taints"].as_array();
            let tainted = taints
                .into_iter()
                .flatten()
                .any(|it| it["key"] == "margay.dev/agent-not-ready");
            match unavailable {
                Some(condition) if condition["status"] == "False" && !tainted => Ok(()),
                _ => bail!("{node}"),
            }
        })
    }

    /// The ends of the logs, for a failure's report.
    pub(crate) fn logs(&self) -> String {
        let machines = self.machines.iter().map(|(name, machine)| {
            let agent = machine.pod.as_ref().map(|pod| pod.log("margayd"));
            format!(
                "--- {name}\n{}\n{}\n",
                agent.unwrap_or_default(),
                machine.containerd.log()
            )
        });
        machines.collect::<String>() + &self.plane.logs()
    }
}

/// Lets the racks' nodes reach each other before any agent runs: an API server is not found by routes that need it.
fn join(dc: &DataCentre) -> Result<()> {
    let spine = dc.spine.as_ref().context("a spine")?;
    for rack in &dc.racks {
        let subnet = rack.subnet.to_string();
        let up = rack.tor.peers.last().context("the spine")?.to_string();
        let port = format!("to-{}", rack.name);
        let mut down = spine.peers.iter().zip(&dc.racks);
        let down = down.find(|(_, it)| it.name == rack.name);
        let down = down.context("the ToR")?.0.to_string();
        let line = ["route", "add", &subnet, "via", &down, "dev", &port];
        oracle::ip(&spine.namespace, &line)?;
        for other in dc.racks.iter().filter(|it| it.name != rack.name) {
            let other = other.subnet.to_string();
            let line = ["route", "add", &other, "via", &up, "dev", "uplink"];
            oracle::ip(&rack.tor.namespace, &line)?;
        }
    }
    Ok(())
}

/// A Node as its kubelet would register it: tainted, and without a network.
pub(crate) fn register(plane: &ControlPlane, node: &Node) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node.name, "labels": {"rack": node.rack.to_string()},
            "annotations": {"margay.dev/as-number": node.asn.to_string()},
        },
        "spec": {
            "podCIDR": node.pod_cidr, "podCIDRs": [node.pod_cidr],
            "taints": [{"key": "margay.dev/agent-not-ready", "effect": "NoSchedule"}],
        },
    });
    plane.apply(&object.to_string())?;
    let status: Value = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": node.address}],
        "conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}],
    }});
    let patch = format!("--patch={status}");
    let line = [
        "patch",
        "node",
        &node.name,
        "--subresource=status",
        "--type=merge",
        &patch,
    ];
    plane.kubectl(&line).map(drop)
}

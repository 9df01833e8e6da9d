//! The image, and the chart's pods on nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::datacentre::{DataCentre, Node};
use lab::probe::Pinger;
use serde_json::Value;
use tests::containerd::{Containerd, private_root};
use tests::kubelet::{Kubelet, Pod};
use tests::{chart, oracle, same};

/// How long agents may take to be ready, routes included.
const LIMIT: Duration = Duration::from_secs(60);

/// Octets, uncompressed.
const LARGEST: u64 = 25 << 20;

/// The archive holds three static programs, and nothing else.
pub(crate) fn image(_: &mut DataCentre) -> Result<()> {
    let archive = chart::image()?;
    let size = fs::metadata(&archive)?.len();
    if size > LARGEST {
        bail!("{size} octets");
    }
    let folder = Path::new("/run/lab/image/unpacked");
    fs::create_dir_all(folder)?;
    let tar = |archive: &Path| -> Result<()> {
        let status = Command::new("tar")
            .arg("-xf")
            .arg(archive)
            .arg("-C")
            .arg(folder)
            .status()?;
        match status.success() {
            true => Ok(()),
            false => bail!("tar: {status}"),
        }
    };
    tar(&archive)?;
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json"))?)?;
    let layers = manifest[0]["Layers"].as_array().context("layers")?;
    let mut files = Vec::new();
    for layer in layers {
        let layer = folder.join(layer.as_str().context("a layer")?);
        let output = Command::new("tar").arg("-tf").arg(&layer).output()?;
        let names = String::from_utf8(output.stdout)?;
        files.extend(names.lines().map(ToOwned::to_owned));
        tar(&layer)?;
    }
    files.sort();
    same(
        "files",
        &files,
        &["margay-cni", "margayctl", "margayd"]
            .map(String::from)
            .into(),
    )?;
    for program in files {
        // An interpreter would be a dynamic loader, which the image has not.
        let octets = fs::read(folder.join(&program))?;
        same(
            &format!("{program} needs a loader"),
            &needs_loader(&octets)?,
            &false,
        )?;
    }
    Ok(())
}

/// Whether an ELF program (64 bits, little endian) has a program header `PT_INTERP`: elf(5).
fn needs_loader(program: &[u8]) -> Result<bool> {
    let number = |at: usize, length: usize| -> Result<usize> {
        let octets = program.get(at..at + length).context("too short")?;
        Ok(octets
            .iter()
            .rev()
            .fold(0, |sum, octet| sum << 8 | usize::from(*octet)))
    };
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("no such program");
    }
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for header in 0..count {
        if number(start + header * size, 4)? == 3 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What runs on a node.
pub(crate) struct Machine {
    containerd: Containerd,
    pub(crate) kubelet: Kubelet,
    pod: Pod,
}

/// Agents run with the chart's command line, user, capabilities, seccomp profile and mounts, become ready, and let pods on
/// different nodes reach each other; they end in time and in silence; what uninstalls takes away what was installed.
pub(crate) fn nodes(dc: &mut DataCentre) -> Result<()> {
    private_root()?;
    let image = chart::image()?;
    let objects = chart::render(&["--set", "config.source=directory,metrics.enabled=true"])?;
    let template = &chart::object(&objects, "DaemonSet", "margay")?["spec"]["template"];
    let mut machines = BTreeMap::new();
    for node in dc.nodes_mut() {
        node.namespace.sysctl("ipv4/ip_forward", "0")?;
        machines.insert(node.name.clone(), start(node, &image, template)?);
    }
    let result = exercise(dc, &mut machines).and_then(|()| {
        let hook = chart::object(&objects, "DaemonSet", "margay-uninstall")?;
        uninstall(dc, &mut machines, &hook["spec"]["template"])
    });
    result.map_err(|error| {
        let logs = machines
            .values()
            .map(|it| format!("{}\n{}", it.pod.log("margayd"), it.containerd.log()));
        error.context(logs.collect::<Vec<_>>().join("\n"))
    })
}

pub(crate) fn start(node: &Node, image: &Path, template: &Value) -> Result<Machine> {
    fs::create_dir_all(node.run_folder())?;
    let containerd = Containerd::start(node, &[image])?;
    let root = node.run_folder().join("root");
    let folders = BTreeMap::from([
        (PathBuf::from("/run/margay"), node.run_folder()),
        (PathBuf::from("/etc/margay"), node.config_folder()),
    ]);
    let kubelet = Kubelet::new(node, &containerd.socket(), root, folders);
    let pod = kubelet.run(&format!("margay-{}", node.name), template)?;
    Ok(Machine {
        containerd,
        kubelet,
        pod,
    })
}

fn exercise(dc: &mut DataCentre, machines: &mut BTreeMap<String, Machine>) -> Result<()> {
    ready(dc, machines)?;
    for node in dc.nodes_mut() {
        let machine = machines.get(&node.name).context("a machine")?;
        let forward = || fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
        let forward = node.namespace.run(|| Ok(forward()?))?;
        same("ip_forward", &forward.trim(), &"1")?;
        let status = machine
            .kubelet
            .execute(&machine.pod, "margayd", &["/margayctl", "status"])?;
        if !status.contains(&format!("Node {}", node.name)) {
            bail!("{status}");
        }
        // What `margayctl --node` has kubectl run.
        let raw = ["/margayctl", "raw", "GET", "/v1/status"];
        let answer = machine.kubelet.execute(&machine.pod, "margayd", &raw)?;
        if !answer.starts_with("HTTP/1.1 200") || !answer.contains(&node.name) {
            bail!("{answer}");
        }
        confined(node)?;
        let conflist = machine.kubelet.path("/etc/cni/net.d/10-margay.conflist");
        lab::wait::until("the conflist", LIMIT, || {
            fs::metadata(&conflist).with_context(|| machine.pod.log("conflist"))
        })?;
        let plugin = machine.kubelet.path("/opt/cni/bin/margay");
        same(
            "plugin",
            &fs::read(plugin)?,
            &fs::read(chart::static_programs()?.join("margay-cni"))?,
        )?;
        node.attach()?;
    }
    reach(dc)?;
    // An upgrade: stopped in time, routes stay, started anew.
    for node in dc.nodes() {
        let machine = machines.get_mut(&node.name).context("a machine")?;
        let before = oracle::margay_routes(&node.namespace)?;
        let codes = machine.kubelet.stop(&machine.pod)?;
        same("exit codes", &codes.into_values().collect(), &vec![0, 0])?;
        same("routes", &oracle::margay_routes(&node.namespace)?, &before)?;
        machine.kubelet.start_all(&mut machine.pod)?;
    }
    ready(dc, machines)?;
    reach(dc)
}

pub(crate) fn ready(dc: &DataCentre, machines: &BTreeMap<String, Machine>) -> Result<()> {
    for node in dc.nodes() {
        let machine = machines.get(&node.name).context("a machine")?;
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            machine
                .kubelet
                .wait_probe(node, &machine.pod, probe, LIMIT)?;
        }
    }
    dc.wait_routes(LIMIT)
}

/// Pods of different nodes answer each other.
fn reach(dc: &DataCentre) -> Result<()> {
    for from in dc.pods() {
        let mut pinger = Pinger::open(&from.namespace)?;
        for to in dc.pods() {
            pinger.wait_answer(to.address, LIMIT)?;
        }
    }
    Ok(())
}

/// What the kernel says of the agent's powers.
fn confined(node: &Node) -> Result<()> {
    let own = fs::metadata(node.namespace.path())?;
    let mut found = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        // Whatever ends meanwhile is none of ours.
        let (Ok(status), Ok(namespace)) = (
            fs::read_to_string(path.join("status")),
            fs::metadata(path.join("ns/net")),
        ) else {
            continue;
        };
        use std::os::unix::fs::MetadataExt as _;
        if namespace.ino() != own.ino() || !status.starts_with("Name:\tmargayd\n") {
            continue;
        }
        found += 1;
        // CAP_NET_BIND_SERVICE is 10, CAP_NET_ADMIN 12: capabilities(7).
        for line in [
            "CapInh:\t0000000000000000",
            "CapPrm:\t0000000000001400",
            "CapEff:\t0000000000001400",
            "CapBnd:\t0000000000001400",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
        ] {
            if !status.lines().any(|found| found == line) {
                bail!("no {line:?} in {status}");
            }
        }
    }
    same("agents on the node", &found, &1)
}

fn uninstall(
    dc: &mut DataCentre,
    machines: &mut BTreeMap<String, Machine>,
    template: &Value,
) -> Result<()> {
    for node in dc.nodes_mut() {
        node.detach()?;
        let machine = machines.get_mut(&node.name).context("a machine")?;
        let pod = machine.kubelet.run("uninstall", template)?;
        let left = ["/etc/cni/net.d", "/opt/cni/bin"].map(|folder| machine.kubelet.path(folder));
        lab::wait::until("what was installed to be gone", LIMIT, || {
            for folder in &left {
                if fs::read_dir(folder)?.next().is_some() {
                    bail!("{}: {}", folder.display(), pod.log("uninstall"));
                }
            }
            Ok(())
        })?;
        same(
            "exit codes",
            &machine.kubelet.stop(&pod)?.into_values().collect(),
            &vec![0],
        )?;
    }
    Ok(())
}

//! `cargo xtask bench kube`: what an agent uses in a large cluster, and what agents cost a real API server.
#![expect(
    clippy::print_stdout,
    reason = "a program for a terminal: what it prints is what it is for"
)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Shape};
use lab::kubernetes::ControlPlane;
use lab::{meter, wait};
use serde_json::{Value, json};

/// The chart's definitions.
const DEFINITIONS: [&str; 7] = [
    include_str!("../../../../charts/margay/crds/bgpconfigurations.yaml"),
    include_str!("../../../../charts/margay/crds/bgpfilters.yaml"),
    include_str!("../../../../charts/margay/crds/bgppeers.yaml"),
    include_str!("../../../../charts/margay/crds/ipamblocks.yaml"),
    include_str!("../../../../charts/margay/crds/ippools.yaml"),
    include_str!("../../../../charts/margay/crds/ipreservations.yaml"),
    include_str!("../../../../charts/margay/crds/nodestatuses.yaml"),
];
/// How many Nodes there are, besides those with agents.
const STEPS: [usize; 2] = [1000, 5000];
/// How many agents write.
const WRITERS: usize = 5;
/// How long each thing is watched.
const LENGTH: Duration = Duration::from_secs(30);
/// How many Nodes change in a second.
const CHANGES: usize = 10;
/// What the agent's memory may come to with all Nodes, in MiB.
const GOAL: f64 = 40.0;
/// How many clients make Nodes: each is held to some 50 requests a second by itself.
const CLIENTS: usize = 8;
/// Longer than any machine takes.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match lab::enter().map(drop).and_then(|()| bench()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<bool> {
    let mut dc = DataCentre::fabric(Shape {
        tor: None,
        racks: 1,
        nodes: u8::try_from(WRITERS + 1)?,
        pods: 0,
        ..Shape::default()
    })?;
    let tor = &dc.racks.first().context("a rack")?.tor;
    let plane = ControlPlane::start(&tor.namespace, tor.address, "/run/lab/plane".into())?;
    plane.apply(&DEFINITIONS.join("---\n"))?;
    let established = [
        "wait",
        "--for=condition=Established",
        "crd",
        "--all",
        "--timeout=60s",
    ];
    plane.kubectl(&established)?;
    let nodes = dc.nodes_mut().map(|node| {
        node.kubeconfig = Some(plane.admin());
        let (address, range) = (node.address.to_string(), node.pod_cidr.to_string());
        object(&node.name, &address, &range)
    });
    create(&plane, nodes.collect())?;
    writers(&mut dc, &plane)?;
    mesh(&plane, false)?;
    large(&mut dc, &plane)
}

/// Sessions between all agents, or none.
fn mesh(plane: &ControlPlane, enabled: bool) -> Result<()> {
    plane.apply(&format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{nodeToNodeMeshEnabled: {enabled}}}\n"
    ))
}

/// Some agents whose sessions come and go, and what of that the API server hears.
fn writers(dc: &mut DataCentre, plane: &ControlPlane) -> Result<()> {
    mesh(plane, true)?;
    for node in dc.nodes_mut().skip(1) {
        node.start()?;
    }
    wait::until("a NodeStatus of each", LIMIT, || {
        let list = plane.get(&["nodestatuses"])?;
        let count = list["items"].as_array().map_or(0, Vec::len);
        if count < WRITERS {
            bail!("{count}");
        }
        Ok(())
    })?;
    let before = Load::read(plane)?;
    let start = wait::now();
    let mut enabled = true;
    while start.elapsed() < LENGTH {
        enabled = !enabled;
        mesh(plane, enabled)?;
        wait::measure_for(Duration::from_secs(1));
    }
    let took = start.elapsed().as_secs_f64();
    let load = Load::read(plane)?;
    let (requests, octets) = (load.requests - before.requests, load.octets - before.octets);
    println!(
        "{WRITERS} agents whose sessions come and go, in a cluster of {}, over {took:.0} s, by the API server's metrics:\n  \
         writes of NodeStatus {:.2}/s, their bodies {:.0} octets/s ({:.0} octets each)",
        WRITERS + 1,
        requests / took,
        octets / took,
        octets / requests
    );
    for node in dc.nodes_mut().skip(1) {
        node.agent()?.terminate(LIMIT)?;
    }
    Ok(())
}

/// What the API server has counted of NodeStatuses.
struct Load {
    requests: f64,
    octets: f64,
}

impl Load {
    fn read(plane: &ControlPlane) -> Result<Self> {
        let text = plane.kubectl(&["get", "--raw", "/metrics"])?;
        let sum = |name: &str| -> f64 {
            let lines = text.lines().filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('{'))
                    && line.contains("resource=\"nodestatuses\"")
                    // Not what the bench itself asks, nor the agents' reading.
                    && ["APPLY", "PATCH", "patch", "apply"].iter().any(|verb| line.contains(&format!("verb=\"{verb}\"")))
            });
            let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            values.sum()
        };
        let load = Self {
            requests: sum("apiserver_request_total"),
            octets: sum("apiserver_request_body_size_bytes_sum"),
        };
        if load.requests == 0.0 || load.octets == 0.0 {
            bail!("the API server's metrics have no writes of nodestatuses");
        }
        Ok(load)
    }
}

/// One agent in a cluster that grows.
fn large(dc: &mut DataCentre, plane: &ControlPlane) -> Result<bool> {
    let node = dc.node("node-a1")?;
    let mut there = 0;
    let mut most = f64::INFINITY;
    for count in STEPS {
        create(plane, (there..count).map(load_node).collect())?;
        there = count;
        // From its start, as in a cluster that is there.
        node.start()?;
        let copy = node.run_folder().join("cluster.json");
        let copied = wait::until("the copy of all Nodes", LIMIT, || {
            node.agent()?.check()?;
            let text = std::fs::read_to_string(&copy)?;
            let found = (0..count)
                .filter(|number| text.contains(&format!("\"load-{number}\"")))
                .count();
            if found < count {
                bail!("{found} of {count}");
            }
            Ok(text.len())
        })?;
        let used = meter::usage(node.agent()?.pid())?;
        most = mib(used.peak);
        println!(
            "margayd in a cluster of {count} Nodes of {} octets each: resident {:.1} MiB, at most {most:.1} MiB; cluster.json {copied} \
             octets, {} a Node",
            load_node(0).to_string().len(),
            mib(used.resident),
            copied / count
        );
        if count < 5000 {
            node.agent()?.terminate(LIMIT)?;
        }
    }
    let held = most < GOAL;
    let word = if held { "holds" } else { "missed" };
    println!("  goal: under {GOAL} MiB at {there} Nodes: {word}");
    let pid = node.agent()?.pid();
    let idle = percent(pid, || {
        wait::measure_for(LENGTH);
        Ok(())
    })?;
    let mut changed = 0;
    let start = wait::now();
    let busy = percent(pid, || {
        while start.elapsed() < LENGTH {
            change(plane, changed)?;
            changed += CHANGES;
            let due = Duration::from_secs((changed / CHANGES) as u64);
            wait::measure_for(due.saturating_sub(start.elapsed()));
        }
        Ok(())
    })?;
    let used = meter::usage(pid)?;
    let rate = changed as f64 / start.elapsed().as_secs_f64();
    println!(
        "  CPU with no change {idle:.2} % of a core; with {rate:.1} Nodes patched a second {busy:.2} %; resident {:.1} MiB then, at \
         most {:.1} MiB",
        mib(used.resident),
        mib(used.peak)
    );
    Ok(held)
}

fn mib(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

/// What a process uses of a core meanwhile.
fn percent(pid: u32, mut meanwhile: impl FnMut() -> Result<()>) -> Result<f64> {
    let (before, start) = (meter::usage(pid)?, wait::now());
    meanwhile()?;
    let (after, took) = (meter::usage(pid)?, start.elapsed());
    Ok((after.cpu - before.cpu).as_secs_f64() / took.as_secs_f64() * 100.0)
}

/// Changes an annotation of some Nodes, as many controllers do.
fn change(plane: &ControlPlane, from: usize) -> Result<()> {
    let names: Vec<String> = (from..from + CHANGES)
        .map(|number| format!("load-{number}"))
        .collect();
    let mut line = vec!["annotate", "node", "--overwrite"];
    line.extend(names.iter().map(String::as_str));
    let annotation = format!("example.com/changed={from}");
    line.push(&annotation);
    plane.kubectl(&line).map(drop)
}

/// Makes objects, with several clients at once.
fn create(plane: &ControlPlane, objects: Vec<Value>) -> Result<()> {
    let share = objects.len().div_ceil(CLIENTS).max(1);
    std::thread::scope(|scope| {
        let clients: Vec<_> = objects
            .chunks(share)
            .map(|items| {
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
                let line = ["create", "--validate=false", "-f", "-"];
                scope.spawn(move || plane.feed(&line, &list))
            })
            .collect();
        clients
            .into_iter()
            .try_for_each(|client| match client.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

fn load_node(number: usize) -> Value {
    let (high, low) = (number / 256, number % 256);
    object(
        &format!("load-{number}"),
        &format!("172.30.{high}.{low}"),
        &format!("10.{}.{low}.0/24", 128 + high),
    )
}

/// A Node as a kubelet and a cloud make it.
fn object(name: &str, address: &str, range: &str) -> Value {
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": format!("kubelet has said: {reason}"),
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    let resources = json!({
        "cpu": "16", "memory": "65843224Ki", "pods": "110", "ephemeral-storage": "203070420Ki", "hugepages-2Mi": "0",
    });
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "beta.kubernetes.io/arch": "amd64", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name, "node.kubernetes.io/instance-type": "m5.4xlarge",
                "topology.kubernetes.io/region": "eu-central-1", "topology.kubernetes.io/zone": "eu-central-1a",
            },
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "300",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                "csi.volume.kubernetes.io/nodeid": format!("{{\"ebs.csi.aws.com\":\"i-0{name}\"}}"),
            },
        },
        "spec": {"podCIDR": range, "podCIDRs": [range], "providerID": format!("aws:///eu-central-1a/i-0{name}")},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": resources, "allocatable": resources,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                condition("Ready", "True", "KubeletReady"),
            ],
        },
    })
}

//! A node in a network namespace: the agent's pods threads in this process, and the real shim as a runtime starts it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::pods::{AddressPlan, Endpoint, EndpointSink, PodsConfig, PodsHandle, spawn};
use dataplane::{Neighbour, NeighbourKey, NextHop, Op};
use netlink::{Socket, kernel, netns, setup};
use serde_json::{Value, json};

/// What stands in for the dataplane: installs each endpoint's neighbours and routes, and keeps the record that proves addresses unique.
pub struct Routes {
    host: Mutex<Socket>,
    /// Who has which address now.
    pub live: Mutex<BTreeMap<IpAddr, String>>,
    /// The endpoints that `synced` told.
    pub found: Mutex<Vec<Endpoint>>,
    /// What `up` answers.
    pub refuse: Mutex<Option<String>>,
}

impl EndpointSink for Routes {
    fn up(&self, endpoint: Endpoint) -> Result<(), String> {
        if let Some(reason) = self.refuse.lock().unwrap().clone() {
            return Err(reason);
        }
        for &address in &endpoint.addresses {
            let owner = endpoint.container_id.clone() + "/" + &endpoint.ifname;
            let before = self.live.lock().unwrap().insert(address, owner);
            assert_eq!(before, None, "{address} has two owners");
            let hop = NextHop {
                via: None,
                link: endpoint.link,
                onlink: false,
            };
            let key = NeighbourKey {
                link: endpoint.link,
                address,
            };
            let neighbour = Neighbour { mac: endpoint.mac };
            let mut host = self.host.lock().unwrap();
            kernel::apply(&mut host, &[Op::SetNeighbour(key, neighbour)])[0]
                .as_ref()
                .map_err(|error| error.to_string())?;
            setup::set_route(&mut host, address.into(), &[hop])
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn down(&self, endpoint: &Endpoint) {
        for &address in &endpoint.addresses {
            let owner = endpoint.container_id.clone() + "/" + &endpoint.ifname;
            let mut live = self.live.lock().unwrap();
            if live.get(&address) == Some(&owner) {
                live.remove(&address);
                // The link may have taken it away already.
                setup::delete_route(&mut self.host.lock().unwrap(), address.into()).ok();
            }
        }
    }

    fn synced(&self, endpoints: Vec<Endpoint>) {
        *self.found.lock().unwrap() = endpoints;
    }
}

/// A node. Dropping it stops the agent; the kernel takes the rest away with the namespace.
pub struct Node {
    pub netns: OwnedFd,
    pub directory: tempfile::TempDir,
    pub agent: Option<PodsHandle>,
    pub routes: Arc<Routes>,
    pub cidrs: &'static str,
    pub cooldown: Duration,
    /// How long an attachment stays whose container is gone.
    pub collect_after: Duration,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop_agent();
    }
}

impl Node {
    /// With an agent that gives addresses of these CIDRs.
    pub fn new(cidrs: &'static str) -> Self {
        let mut node = Self::without_agent(cidrs);
        node.start_agent();
        node
    }

    pub fn without_agent(cidrs: &'static str) -> Self {
        let netns = netns::create()
            .expect("these tests need root (CAP_SYS_ADMIN) to make network namespaces");
        let host = netns::in_netns(&netns, || {
            let mut host = Socket::open().unwrap();
            setup::set_up(&mut host, setup::LOOPBACK).unwrap();
            setup::add_address(&mut host, setup::LOOPBACK, "192.0.2.1/32".parse().unwrap())
                .unwrap();
            Ok(host)
        });
        let routes = Routes {
            host: Mutex::new(host.unwrap()),
            live: Mutex::default(),
            found: Mutex::default(),
            refuse: Mutex::default(),
        };
        Self {
            netns,
            directory: tempfile::tempdir().unwrap(),
            agent: None,
            routes: Arc::new(routes),
            cidrs,
            cooldown: ipam::DEFAULT_COOLDOWN,
            collect_after: Duration::from_secs(300),
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("cni.sock")
    }

    /// Starts an agent that has no CIDR yet.
    pub fn start_agent_without_cidr(&mut self) -> PodsHandle {
        let config = PodsConfig {
            cooldown: self.cooldown,
            collect_after: self.collect_after,
            collect_every: Duration::from_millis(50),
            ..PodsConfig::new(self.socket())
        };
        let sink = Arc::clone(&self.routes);
        let agent = netns::in_netns(&self.netns, || Ok(spawn(&config, sink).unwrap())).unwrap();
        self.agent = Some(agent.clone());
        agent
    }

    pub fn start_agent(&mut self) {
        set_cidrs(&self.start_agent_without_cidr(), self.cidrs);
    }

    pub fn stop_agent(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop();
        }
    }

    pub fn agent(&self) -> &PodsHandle {
        self.agent.as_ref().unwrap()
    }

    /// What a program says inside the host's namespace.
    pub fn run(&self, command: &str) -> String {
        run(&self.netns, command)
    }

    /// The same of a program that may fail.
    pub fn try_run(&self, command: &str) -> Result<String, String> {
        try_run(&self.netns, command)
    }

    /// Names of the host veths that there are.
    pub fn veths(&self) -> Vec<String> {
        let links: Value = serde_json::from_str(&self.run("ip -j link")).unwrap();
        let names = links
            .as_array()
            .unwrap()
            .iter()
            .map(|link| link["ifname"].as_str().unwrap().to_owned());
        names.filter(|name| name.starts_with("mgy")).collect()
    }

    /// The configuration as the runtime hands it over.
    pub fn config(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "name": "margay", "type": "margay", "socket": self.socket(), "agentTimeoutSeconds": 10 })
    }

    /// Runs the shim for a pod.
    pub fn cni(&self, command: &str, pod: &Pod, config: &Value) -> Outcome {
        self.cni_with(command, pod, config, &[])
    }

    /// The same with further variables, or other values.
    pub fn cni_with(
        &self,
        command: &str,
        pod: &Pod,
        config: &Value,
        further: &[(&str, &str)],
    ) -> Outcome {
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", &pod.container_id),
            ("CNI_NETNS", &pod.path),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/opt/cni/bin"),
            (
                "CNI_ARGS",
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0",
            ),
        ];
        let variables = [&variables[..], further].concat();
        netns::in_netns(&self.netns, || Ok(shim(&variables, &config.to_string()))).unwrap()
    }

    /// An ADD that works.
    pub fn add(&self, pod: &Pod) -> Value {
        self.cni("ADD", pod, &self.config("1.1.0")).success()
    }

    /// A DEL that works.
    pub fn del(&self, pod: &Pod) {
        let outcome = self.cni("DEL", pod, &self.config("1.1.0"));
        assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    }
}

/// Lets an agent give addresses of these CIDRs.
pub fn set_cidrs(agent: &PodsHandle, cidrs: &str) {
    let plan = AddressPlan {
        cidrs: cidrs.split(' ').map(|cidr| cidr.parse().unwrap()).collect(),
        ..AddressPlan::default()
    };
    agent.set_addressing(&plan, &[], 1400);
}

/// A container's network namespace.
pub struct Pod {
    pub container_id: String,
    pub netns: OwnedFd,
    pub path: String,
}

impl Pod {
    pub fn new(container_id: &str) -> Self {
        let netns = netns::create().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        Self {
            container_id: container_id.into(),
            netns,
            path,
        }
    }

    /// What a program says inside the pod.
    pub fn run(&self, command: &str) -> String {
        run(&self.netns, command)
    }
}

/// What the shim left behind.
#[derive(Debug)]
pub struct Outcome {
    pub ok: bool,
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The result of a success.
    pub fn success(&self) -> Value {
        assert!(self.ok, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Code and text of a refusal.
    pub fn error(&self) -> (u64, String) {
        assert!(!self.ok, "{self:?}");
        let error: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"));
        assert!(error["cniVersion"].is_string(), "{error}");
        let details = error
            .get("details")
            .map_or("", |details| details.as_str().unwrap());
        (
            error["code"].as_u64().unwrap(),
            format!("{} | {details}", error["msg"].as_str().unwrap()),
        )
    }
}

/// Where cargo has put the shim: a folder above its tests and benchmarks. The variable by which cargo tells it holds a
/// hyphen, and a wrapper around the compiler that is a shell's script loses it.
pub fn shim_path() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.set_file_name("margay-cni");
    path
}

/// Runs the shim with these variables and no others.
pub fn shim(variables: &[(&str, &str)], stdin: &str) -> Outcome {
    shim_with(variables, Stdio::piped(), stdin)
}

/// The same with this standard input, into which goes `text` where it is a pipe.
pub fn shim_with(variables: &[(&str, &str)], stdin: Stdio, text: &str) -> Outcome {
    let mut child = Command::new(shim_path())
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        // It may end without reading.
        stdin.write_all(text.as_bytes()).ok();
    }
    let output = child.wait_with_output().unwrap();
    Outcome {
        ok: output.status.success(),
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// What a program says inside a namespace; it must succeed.
pub fn run(netns: &OwnedFd, command: &str) -> String {
    try_run(netns, command).unwrap_or_else(|error| panic!("{command}: {error}"))
}

/// What a program says inside a namespace, or what it complains about.
fn try_run(netns: &OwnedFd, command: &str) -> Result<String, String> {
    let mut words = command.split(' ');
    let output = netns::in_netns(netns, || {
        Command::new(words.next().unwrap()).args(words).output()
    })
    .unwrap_or_else(|error| panic!("{command}: {error}"));
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Waits for something that follows from an event.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "polled, with a limit; the condition decides"
        )]
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never came: {what}");
}

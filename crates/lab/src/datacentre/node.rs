//! A node: the real agent in a namespace of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dataplane::{ROUTE_PROTOCOL, Route, RouteKind};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink::kernel;
use serde_json::Value;

use super::Pod;
use crate::process::{self, Process, Program};
use crate::{Namespace, net, wait};

/// Where an agent serves its metrics, in its node's namespace.
pub const METRICS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9179);

/// Who a node is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its name, without the data centre's prefix.
    pub name: String,
    /// Its rack.
    pub rack: char,
    /// Its address on the rack's segment.
    pub address: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
    /// Where its pods' addresses come from.
    pub pod_cidr: Ipv4Net,
    /// The same for IPv6, where the shape asks for it.
    pub ipv6: Option<Ipv6>,
}

/// What a node has of IPv6.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6 {
    /// Its address on the rack's segment.
    pub address: Ipv6Addr,
    /// Where its pods' addresses come from.
    pub pod_cidr: Ipv6Net,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    identity: Identity,
    /// Its namespace.
    pub namespace: Namespace,
    folder: PathBuf,
    agent: Option<Process>,
    /// Further arguments of its agent.
    pub arguments: Vec<String>,
    /// With this its agent asks an API server, and reads no directory.
    pub kubeconfig: Option<PathBuf>,
    /// The pods on it.
    pub pods: Vec<Pod>,
    attached: u32,
}

impl std::ops::Deref for Node {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.identity
    }
}

impl Node {
    /// A node whose agent does not run yet.
    #[must_use]
    pub fn new(identity: Identity, namespace: Namespace, folder: PathBuf) -> Self {
        Self {
            identity,
            namespace,
            folder,
            agent: None,
            arguments: Vec::new(),
            kubeconfig: None,
            pods: Vec::new(),
            attached: 0,
        }
    }

    /// The directory of YAML that its agent reads.
    #[must_use]
    pub fn config_folder(&self) -> PathBuf {
        self.folder.join("config")
    }

    /// Where its agent's sockets are.
    #[must_use]
    pub fn run_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// Its agent's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("margayd.log")
    }

    /// Starts its agent, for the first time or again.
    ///
    /// # Errors
    /// When it runs already, isn't built, or can't be started.
    pub fn start(&mut self) -> Result<()> {
        if let Some(agent) = &mut self.agent {
            return agent.restart();
        }
        std::fs::create_dir_all(self.run_folder())?;
        let name = format!("margayd of {}", self.identity.name);
        let agent = Process::spawn(&name, &self.namespace, self.margayd()?, self.log())?;
        self.agent = Some(agent);
        Ok(())
    }

    /// How its agent is started.
    ///
    /// # Errors
    /// When it isn't built.
    pub fn margayd(&self) -> Result<Program> {
        let (option, source) = match &self.kubeconfig {
            Some(kubeconfig) => ("--kubeconfig", kubeconfig.clone()),
            None => ("--config-dir", self.config_folder()),
        };
        Ok(Program::new(process::ours("margayd")?)
            .args(["--node-name", &self.identity.name])
            .arg(option)
            .arg(source)
            .arg("--run-dir")
            .arg(self.run_folder())
            .args(["--metrics", &METRICS.to_string()])
            .args(&self.arguments))
    }

    /// Its agent.
    ///
    /// # Errors
    /// When it was never started.
    pub fn agent(&mut self) -> Result<&mut Process> {
        self.agent.as_mut().context("the agent was never started")
    }

    /// Waits until its agent serves both sockets.
    ///
    /// # Errors
    /// When that has not happened after `limit`, or the agent ended.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let what = format!("the agent of {}", self.identity.name);
        wait::until(&what, limit, || {
            self.agent()?.check()?;
            UnixStream::connect(self.run_folder().join("api.sock")).context("api.sock")?;
            let status = self.ctl_output(&["status", "-o", "json"])?;
            // A peer may be down yet; "not reachable" is 3.
            match status.status.code() {
                Some(0 | 1) if self.run_folder().join("cni.sock").exists() => Ok(()),
                code => bail!("margayctl status: {code:?}"),
            }
        })
    }

    /// Waits until its agent has all its sessions, trusts what it learned by them, and the kernel has all of that.
    ///
    /// # Errors
    /// When that has not happened after `limit`: with the last status.
    pub fn wait_in_step(&self, limit: Duration) -> Result<()> {
        wait::until(&format!("{} to be in step", self.name), limit, || {
            let status = self.ctl_json(&["status"])?;
            let bgp = &status["bgp"];
            let sessions = bgp["peers"] != 0 && bgp["established"] == bgp["peers"];
            if sessions && bgp["synced"] == true && status["kernel"]["synced"] == true {
                return Ok(());
            }
            bail!("{}: {status}", self.name)
        })
    }

    /// What `margayctl` says here.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn ctl_output(&self, arguments: &[&str]) -> Result<Output> {
        self.margayctl(arguments)?.output(&self.namespace)
    }

    /// What `margayctl` prints here.
    ///
    /// # Errors
    /// Also when it fails, as it does while a configured peer is down.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        self.margayctl(arguments)?.stdout(&self.namespace)
    }

    /// [`ctl`](Self::ctl) as JSON, whatever the exit status.
    ///
    /// # Errors
    /// When it is no JSON.
    pub fn ctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.ctl_output(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!(
                "margayctl {}: {}{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    fn margayctl(&self, arguments: &[&str]) -> Result<Program> {
        Ok(Program::new(process::ours("margayctl")?)
            .arg("--socket")
            .arg(self.run_folder().join("api.sock"))
            .args(arguments))
    }

    /// The kernel's routes that are Margay's.
    ///
    /// # Errors
    /// When the kernel can't be asked, or has one of a kind that Margay knows nothing of.
    pub fn kernel(&self) -> Result<BTreeMap<Ipv4Net, Route>> {
        let mut socket = net::socket(&self.namespace)?;
        let dump = kernel::dump_routes(&mut socket, ROUTE_PROTOCOL)?;
        let objects = kernel::dump_objects(&mut socket)?.unwrap_or_default();
        let mut routes = BTreeMap::new();
        for (key, route) in dump {
            if let IpNet::V4(prefix) = key.prefix {
                let route = route.and_then(|route| kernel::target(&route, &objects));
                routes.insert(prefix, route.with_context(|| format!("odd: {prefix}"))?);
            }
        }
        Ok(routes)
    }

    /// Where those lead that forward packets.
    ///
    /// # Errors
    /// As [`kernel`](Self::kernel).
    pub fn kernel_routes(&self) -> Result<BTreeSet<Ipv4Net>> {
        let routes = self.kernel()?.into_iter();
        Ok(routes
            .filter(|(_, route)| route.kind == RouteKind::Unicast)
            .map(|(prefix, _)| prefix)
            .collect())
    }

    /// Makes a namespace for one more pod and attaches it.
    ///
    /// # Errors
    /// When the plugin reports one.
    pub fn attach(&mut self) -> Result<&Pod> {
        self.attached += 1;
        let namespace = self.namespace.name();
        let prefix = namespace
            .strip_suffix(self.identity.name.as_str())
            .unwrap_or_default();
        let rack_and_number = self.identity.name.trim_start_matches("node-");
        let name = format!("pod-{rack_and_number}-{}", self.attached);
        let pod_namespace = Namespace::create(&format!("{prefix}{name}"))?;
        let pod = Pod::attach(name, pod_namespace, &self.namespace, &self.cni_socket())?;
        self.pods.push(pod);
        self.pods.last().context("it was pushed just now")
    }

    /// Detaches its last pod and removes the pod's namespace.
    ///
    /// # Errors
    /// When the plugin reports one.
    pub fn detach(&mut self) -> Result<()> {
        let pod = self.pods.pop().context("no pod is left")?;
        pod.detach(&self.namespace, &self.cni_socket())
    }

    /// Where its agent listens for the plugin.
    #[must_use]
    pub fn cni_socket(&self) -> PathBuf {
        self.run_folder().join("cni.sock")
    }

    /// Overwrites or adds a file of its configuration at once, as an editor that saves well does.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_config(&self, file: &str, text: &str) -> Result<()> {
        let target = self.config_folder().join(file);
        let draft: &Path = &self.folder.join("draft");
        std::fs::write(draft, text)?;
        Ok(std::fs::rename(draft, target)?)
    }
}

//! What a kubelet does with a pod on its node, by the same interface to the same runtime: containers with the command line,
//! environment, mounts, capabilities and user that the pod's template says, and its probes. Whatever a template has that is not
//! understood here is an error, so that nothing is passed over in silence.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::datacentre::Node;
use lab::{process, wait};
use serde_json::Value;

pub use server::{PORT, Server};

use crate::cri::{
    Capabilities, Client, Container, ContainerName, ContainerSecurity, Image, LinuxContainer,
    LinuxSandbox, Metadata, Mount, Namespaces, Number, Profile, Sandbox, SandboxSecurity, Variable,
};

/// The network of the node (`NamespaceOption`).
const OF_NODE: i32 = 2;
/// A PID namespace for each container.
const OF_CONTAINER: i32 = 1;

/// What the kubelet asks to be hidden from unprivileged containers (`procMount: Default`).
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// The same for what may be read only.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// How long a container may take to start, or to end by itself.
const LIMIT: Duration = Duration::from_secs(30);

/// A node's kubelet.
#[derive(Debug)]
pub struct Kubelet {
    client: Client,
    node: String,
    address: String,
    /// Where the node's folders are, which the lab has for all nodes in one file system.
    root: PathBuf,
    folders: BTreeMap<PathBuf, PathBuf>,
    containers: server::Containers,
}

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    sandbox: Sandbox,
    id: String,
    template: Value,
    containers: BTreeMap<String, String>,
    logs: PathBuf,
    attempt: u32,
}

impl Kubelet {
    /// For the runtime that listens at `socket`. What a pod mounts of the node is in `root`, save for what `folders` names.
    #[must_use]
    pub fn new(
        node: &Node,
        socket: &Path,
        root: PathBuf,
        folders: BTreeMap<PathBuf, PathBuf>,
    ) -> Self {
        Self {
            client: Client::new(socket),
            node: node.name.clone(),
            address: node.address.to_string(),
            root,
            folders,
            containers: server::Containers::default(),
        }
    }

    /// Serves what the API server asks of a kubelet, at the node's address.
    ///
    /// # Errors
    /// When it can't listen there.
    pub fn serve(&self, node: &Node) -> Result<Server> {
        let address = (node.address, PORT).into();
        let (runtime, containers) = (self.client.socket(), self.containers.clone());
        Server::start(&node.namespace, address, runtime.to_owned(), containers)
    }

    /// A folder of the node's.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        // The kernel shows each process the parameters of its own network namespace there.
        if path.starts_with("/proc/") {
            return path.into();
        }
        let known = self.folders.get(Path::new(path)).cloned();
        known.unwrap_or_else(|| self.root.join(path.trim_start_matches('/')))
    }

    /// Runs a pod of this template: its init containers one after the other, then its containers.
    ///
    /// # Errors
    /// When the runtime refuses something, or an init container fails.
    pub fn run(&self, name: &str, template: &Value) -> Result<Pod> {
        let logs = self.root.join("logs").join(name);
        fs::create_dir_all(&logs)?;
        let spec = &template["spec"];
        if spec["hostNetwork"] != true {
            bail!("only pods of the node's network are known here");
        }
        let sandbox = Sandbox {
            metadata: Some(Metadata {
                name: name.to_owned(),
                uid: format!("uid-of-{name}"),
                namespace: crate::chart::NAMESPACE.to_owned(),
                attempt: 0,
            }),
            // The node's own, with its network.
            hostname: String::new(),
            log_directory: logs.display().to_string(),
            port_mappings: Vec::new(),
            annotations: BTreeMap::new(),
            linux: Some(LinuxSandbox {
                security: Some(SandboxSecurity {
                    namespaces: Some(namespaces()),
                    seccomp: seccomp(spec)?,
                }),
            }),
        };
        let id = self.client.run(sandbox.clone())?;
        let mut pod = Pod {
            sandbox,
            id,
            template: template.clone(),
            containers: BTreeMap::new(),
            logs,
            attempt: 0,
        };
        for container in spec["initContainers"].as_array().into_iter().flatten() {
            let id = self.start(&pod, container)?;
            self.wait_end(&pod, container, &id)?;
        }
        self.start_all(&mut pod)?;
        Ok(pod)
    }

    /// Starts the pod's containers, for the first time or again.
    ///
    /// # Errors
    /// When the runtime refuses one.
    pub fn start_all(&self, pod: &mut Pod) -> Result<()> {
        let template = pod.template.clone();
        for container in template["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let id = self.start(pod, container)?;
            let name = text(&container["name"])?;
            let key = [
                crate::chart::NAMESPACE.to_owned(),
                pod.name().to_owned(),
                name.clone(),
            ];
            let mut known = self
                .containers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            known.insert(key, id.clone());
            pod.containers.insert(name, id);
        }
        pod.attempt += 1;
        Ok(())
    }

    /// Stops the pod's containers, as at its deletion, and gives their exit codes.
    ///
    /// # Errors
    /// When the runtime refuses.
    pub fn stop(&self, pod: &Pod) -> Result<BTreeMap<String, i32>> {
        let grace = pod.template["spec"]["terminationGracePeriodSeconds"].as_u64();
        let grace = Duration::from_secs(grace.unwrap_or(30));
        let mut codes = BTreeMap::new();
        for (name, id) in &pod.containers {
            self.client.stop_container(id, grace)?;
            codes.insert(name.clone(), self.client.container(id)?.exit_code);
        }
        Ok(codes)
    }

    /// Runs a command in one of the pod's containers, and gives what it prints.
    ///
    /// # Errors
    /// When it can't be run.
    pub fn execute(&self, pod: &Pod, container: &str, command: &[&str]) -> Result<String> {
        let id = pod.containers.get(container).context("no such container")?;
        let done = self.client.execute(id, command)?;
        Ok(String::from_utf8(done.stdout)?)
    }

    /// Waits until a probe of a container's is answered with success.
    ///
    /// # Errors
    /// With the last answer, when that has not happened after `limit`.
    pub fn wait_probe(&self, node: &Node, pod: &Pod, probe: &str, limit: Duration) -> Result<()> {
        let containers = pod.template["spec"]["containers"].as_array();
        let probes = containers
            .into_iter()
            .flatten()
            .map(|container| &container[probe])
            .filter(|probe| !probe.is_null());
        for found in probes {
            let get = &found["httpGet"];
            let host = get["host"].as_str().unwrap_or(&self.address);
            let port = get["port"].as_u64().context("a probe's port")?;
            let address: SocketAddr = format!("{host}:{port}").parse()?;
            let path = text(&get["path"])?;
            wait::until(&format!("{probe} of {}", self.node), limit, || {
                for (name, id) in &pod.containers {
                    if self.client.container(id)?.state != 1 {
                        bail!("{name} has ended: {}", pod.log(name));
                    }
                }
                let answer = node.namespace.run(|| ask(address, &path))?;
                if answer.starts_with("HTTP/1.1 200") {
                    return Ok(());
                }
                bail!("{answer}{}", pod.log("margayd"))
            })?;
        }
        Ok(())
    }

    fn start(&self, pod: &Pod, container: &Value) -> Result<String> {
        let spec = &pod.template["spec"];
        let name = text(&container["name"])?;
        let security = &container["securityContext"];
        let log_path = format!("{name}.log");
        let container = Container {
            metadata: Some(ContainerName {
                name,
                attempt: pod.attempt,
            }),
            image: Some(Image {
                image: text(&container["image"])?,
            }),
            command: texts(&container["command"])?,
            args: texts(&container["args"])?,
            variables: self.variables(container)?,
            mounts: self.mounts(spec, container)?,
            log_path,
            linux: Some(LinuxContainer {
                security: Some(ContainerSecurity {
                    capabilities: Some(Capabilities {
                        add: texts(&security["capabilities"]["add"])?,
                        drop: texts(&security["capabilities"]["drop"])?,
                    }),
                    privileged: security["privileged"] == true,
                    namespaces: Some(namespaces()),
                    user: number(&security["runAsUser"]),
                    readonly_root: security["readOnlyRootFilesystem"] == true,
                    no_new_privileges: security["allowPrivilegeEscalation"] == false,
                    group: number(&security["runAsGroup"]),
                    masked_paths: MASKED.map(ToOwned::to_owned).into(),
                    readonly_paths: READ_ONLY.map(ToOwned::to_owned).into(),
                    seccomp: seccomp(spec)?,
                }),
            }),
        };
        self.client.start(&pod.id, &pod.sandbox, container)
    }

    fn wait_end(&self, pod: &Pod, container: &Value, id: &str) -> Result<()> {
        let name = text(&container["name"])?;
        wait::until(&format!("{name} to end"), LIMIT, || {
            let status = self.client.container(id)?;
            match (status.state, status.exit_code) {
                (2, 0) => Ok(()),
                _ => bail!("{status:?}: {}", pod.log(&name)),
            }
        })
    }

    fn variables(&self, container: &Value) -> Result<Vec<Variable>> {
        let mut found = Vec::new();
        for variable in container["env"].as_array().into_iter().flatten() {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match (variable["value"].as_str(), field) {
                (Some(value), None) => value.to_owned(),
                (None, Some("spec.nodeName")) => self.node.clone(),
                (None, Some("metadata.namespace")) => crate::chart::NAMESPACE.to_owned(),
                _ => bail!("a variable of a kind that is not known here: {variable}"),
            };
            let key = text(&variable["name"])?;
            found.push(Variable { key, value });
        }
        Ok(found)
    }

    fn mounts(&self, spec: &Value, container: &Value) -> Result<Vec<Mount>> {
        let volumes = spec["volumes"].as_array().context("volumes")?;
        let mut found = Vec::new();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let volume = volumes
                .iter()
                .find(|volume| volume["name"] == mount["name"])
                .with_context(|| format!("no volume for {mount}"))?;
            let host_path = match volume["hostPath"]["path"].as_str() {
                Some(path) => self.path(path),
                // What the API server would give is in a folder of the volume's name.
                None => self.path(&format!("/volumes/{}", text(&volume["name"])?)),
            };
            if volume["hostPath"]["type"] == "DirectoryOrCreate" {
                fs::create_dir_all(&host_path)?;
            }
            if !host_path.is_dir() {
                bail!("{volume}: {} is not there", host_path.display());
            }
            found.push(Mount {
                container_path: text(&mount["mountPath"])?,
                host_path: host_path.display().to_string(),
                readonly: mount["readOnly"] == true,
            });
        }
        Ok(found)
    }
}

impl Pod {
    fn name(&self) -> &str {
        let metadata = self.sandbox.metadata.as_ref();
        metadata.map_or("", |metadata| &metadata.name)
    }

    /// The end of a container's log.
    #[must_use]
    pub fn log(&self, container: &str) -> String {
        process::tail(&self.logs.join(format!("{container}.log")), 15)
    }
}

fn namespaces() -> Namespaces {
    Namespaces {
        network: OF_NODE,
        pid: OF_CONTAINER,
        ipc: 0,
    }
}

fn seccomp(spec: &Value) -> Result<Option<Profile>> {
    match spec["securityContext"]["seccompProfile"]["type"].as_str() {
        Some("RuntimeDefault") => Ok(Some(Profile { kind: 0 })),
        None => Ok(Some(Profile { kind: 1 })),
        other => bail!("a seccomp profile that is not known here: {other:?}"),
    }
}

fn number(value: &Value) -> Option<Number> {
    Some(Number {
        value: value.as_i64()?,
    })
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().map(ToOwned::to_owned);
    text.with_context(|| format!("no text: {value}"))
}

fn texts(value: &Value) -> Result<Vec<String>> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// One GET, and the whole answer.
fn ask(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(12)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

//! The kubelet's side of the Container Runtime Interface (`runtime.v1`): its calls about sandboxes and containers, over HTTP/2 on a
//! Unix socket.

#![expect(
    missing_docs,
    reason = "fields mean what the specification's fields of these names mean"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Which pod it is.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

/// A `hostPort`.
#[derive(Clone, PartialEq, Message)]
pub struct PortMapping {
    #[prost(int32, tag = "1")]
    pub protocol: i32,
    #[prost(int32, tag = "2")]
    pub container_port: i32,
    #[prost(int32, tag = "3")]
    pub host_port: i32,
}

/// How a Linux sandbox is made.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxSandbox {
    #[prost(message, optional, tag = "2")]
    pub security: Option<SandboxSecurity>,
}

/// `LinuxSandboxSecurityContext`.
#[derive(Clone, PartialEq, Message)]
pub struct SandboxSecurity {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<Namespaces>,
    #[prost(message, optional, tag = "9")]
    pub seccomp: Option<Profile>,
}

/// `NamespaceOption`: 0 the pod's, 1 the container's, 2 the node's.
#[derive(Clone, PartialEq, Message)]
pub struct Namespaces {
    #[prost(int32, tag = "1")]
    pub network: i32,
    #[prost(int32, tag = "2")]
    pub pid: i32,
    #[prost(int32, tag = "3")]
    pub ipc: i32,
}

/// `SecurityProfile`: 0 the runtime's, 1 none.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(int32, tag = "1")]
    pub kind: i32,
}

/// `ContainerConfig`, of which this is what matters here.
#[derive(Clone, PartialEq, Message)]
pub struct Container {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<ContainerName>,
    #[prost(message, optional, tag = "2")]
    pub image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    pub variables: Vec<Variable>,
    #[prost(message, repeated, tag = "7")]
    pub mounts: Vec<Mount>,
    #[prost(string, tag = "11")]
    pub log_path: String,
    #[prost(message, optional, tag = "15")]
    pub linux: Option<LinuxContainer>,
}

/// `ContainerMetadata`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerName {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

/// `ImageSpec`.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub image: String,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub struct Variable {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// `Mount`.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub container_path: String,
    #[prost(string, tag = "2")]
    pub host_path: String,
    #[prost(bool, tag = "3")]
    pub readonly: bool,
}

/// `LinuxContainerConfig`.
#[derive(Clone, PartialEq, Message)]
pub struct LinuxContainer {
    #[prost(message, optional, tag = "2")]
    pub security: Option<ContainerSecurity>,
}

/// `LinuxContainerSecurityContext`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerSecurity {
    #[prost(message, optional, tag = "1")]
    pub capabilities: Option<Capabilities>,
    #[prost(bool, tag = "2")]
    pub privileged: bool,
    #[prost(message, optional, tag = "3")]
    pub namespaces: Option<Namespaces>,
    #[prost(message, optional, tag = "5")]
    pub user: Option<Number>,
    #[prost(bool, tag = "7")]
    pub readonly_root: bool,
    #[prost(bool, tag = "11")]
    pub no_new_privileges: bool,
    #[prost(message, optional, tag = "12")]
    pub group: Option<Number>,
    #[prost(string, repeated, tag = "13")]
    pub masked_paths: Vec<String>,
    #[prost(string, repeated, tag = "14")]
    pub readonly_paths: Vec<String>,
    #[prost(message, optional, tag = "15")]
    pub seccomp: Option<Profile>,
}

/// `Capability`.
#[derive(Clone, PartialEq, Message)]
pub struct Capabilities {
    #[prost(string, repeated, tag = "1")]
    pub add: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub drop: Vec<String>,
}

/// `Int64Value`.
#[derive(Clone, PartialEq, Message)]
pub struct Number {
    #[prost(int64, tag = "1")]
    pub value: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<Container>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<Sandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct Stop {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

/// `ContainerStatus`.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerStatus {
    /// 0 created, 1 running, 2 exited, 3 unknown.
    #[prost(int32, tag = "3")]
    pub state: i32,
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    #[prost(string, tag = "10")]
    pub reason: String,
    #[prost(string, tag = "11")]
    pub message: String,
}

#[derive(Clone, PartialEq, Message)]
struct Exec {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    seconds: i64,
}

/// `ExecRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Stream {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(string, repeated, tag = "2")]
    pub(crate) command: Vec<String>,
    #[prost(bool, tag = "3")]
    pub(crate) terminal: bool,
    #[prost(bool, tag = "4")]
    pub(crate) input: bool,
    #[prost(bool, tag = "5")]
    pub(crate) output: bool,
    #[prost(bool, tag = "6")]
    pub(crate) error: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Url {
    #[prost(string, tag = "1")]
    url: String,
}

/// `ExecSyncResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct Executed {
    #[prost(bytes = "vec", tag = "1")]
    pub stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub exit_code: i32,
}

/// `PodSandboxConfig`, of which this is what matters here.
#[derive(Clone, PartialEq, Message)]
pub struct Sandbox {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(string, tag = "3")]
    pub log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub port_mappings: Vec<PortMapping>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxSandbox>,
}

#[derive(Clone, PartialEq, Message)]
struct Run {
    #[prost(message, optional, tag = "1")]
    config: Option<Sandbox>,
}

/// What names a sandbox: the answer to `RunPodSandbox`, and the other calls' question.
#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "5")]
    network: Option<Network>,
}

#[derive(Clone, PartialEq, Message)]
struct Network {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
struct PodIp {
    #[prost(string, tag = "1")]
    ip: String,
}

/// A client. Every call makes a connection of its own, as if the runtime had just been started anew.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Of the runtime that listens there.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes a pod's sandbox and returns its ID.
    ///
    /// # Errors
    /// The runtime's.
    pub fn run(&self, sandbox: Sandbox) -> Result<String> {
        let config = Some(sandbox);
        let answer: Id = self.call("RunPodSandbox", &Run { config })?;
        Ok(answer.id)
    }

    /// The address that the runtime has read in our result.
    ///
    /// # Errors
    /// The runtime's, and when there is none.
    pub fn address(&self, id: &str) -> Result<String> {
        Ok(self.network(id)?.ip)
    }

    /// All addresses that it has read there, [`address`](Self::address) first.
    ///
    /// # Errors
    /// The runtime's, and when there is none.
    pub fn addresses(&self, id: &str) -> Result<Vec<String>> {
        let network = self.network(id)?;
        let further = network.additional_ips.into_iter().map(|further| further.ip);
        Ok([network.ip].into_iter().chain(further).collect())
    }

    fn network(&self, id: &str) -> Result<Network> {
        let answer: StatusAnswer = self.call("PodSandboxStatus", &Id { id: id.to_owned() })?;
        let network = answer.status.and_then(|status| status.network);
        network.context("no network")
    }

    /// Stops a sandbox and what is in it.
    ///
    /// # Errors
    /// The runtime's.
    pub fn stop(&self, id: &str) -> Result<()> {
        let Empty {} = self.call("StopPodSandbox", &Id { id: id.to_owned() })?;
        Ok(())
    }

    /// Removes a sandbox that is stopped.
    ///
    /// # Errors
    /// The runtime's.
    pub fn remove(&self, id: &str) -> Result<()> {
        let Empty {} = self.call("RemovePodSandbox", &Id { id: id.to_owned() })?;
        Ok(())
    }

    /// Makes a container in a sandbox, starts it, and returns its ID.
    ///
    /// # Errors
    /// The runtime's.
    pub fn start(&self, id: &str, sandbox: &Sandbox, container: Container) -> Result<String> {
        let create = Create {
            sandbox: id.to_owned(),
            config: Some(container),
            sandbox_config: Some(sandbox.clone()),
        };
        let Id { id } = self.call("CreateContainer", &create)?;
        let Empty {} = self.call("StartContainer", &Id { id: id.clone() })?;
        Ok(id)
    }

    /// How a container is.
    ///
    /// # Errors
    /// The runtime's.
    pub fn container(&self, id: &str) -> Result<ContainerStatus> {
        let answer: ContainerAnswer = self.call("ContainerStatus", &Id { id: id.to_owned() })?;
        answer.status.context("no status")
    }

    /// SIGTERM, and SIGKILL after `grace`.
    ///
    /// # Errors
    /// The runtime's.
    pub fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let seconds = i64::try_from(grace.as_secs())?;
        let id = id.to_owned();
        let Empty {} = self.call("StopContainer", &Stop { id, seconds })?;
        Ok(())
    }

    /// Runs a command in a container.
    ///
    /// # Errors
    /// The runtime's; a failure of the command's is in its exit code.
    pub fn execute(&self, id: &str, command: &[&str]) -> Result<Executed> {
        self.call(
            "ExecSync",
            &Exec {
                id: id.to_owned(),
                command: command.iter().map(ToString::to_string).collect(),
                seconds: 20,
            },
        )
    }

    /// Where the runtime's streaming server waits for whoever will run this command.
    ///
    /// # Errors
    /// The runtime's.
    pub(crate) fn stream(&self, command: &Stream) -> Result<String> {
        let Url { url } = self.call("Exec", command)?;
        Ok(url)
    }

    fn call<A: Message + Default>(&self, method: &str, question: &impl Message) -> Result<A> {
        // gRPC: one octet that says "not compressed", the length, the message.
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(question.encoded_len())?);
        question.encode(&mut body)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime
            .block_on(async {
                tokio::time::timeout(LIMIT, self.exchange(method, body.freeze())).await
            })
            .with_context(|| format!("{method} takes too long"))?
            .with_context(|| method.to_owned())?;
        Ok(A::decode(answer.get(5..).unwrap_or_default())?)
    }

    async fn exchange(&self, method: &str, body: Bytes) -> Result<BytesMut> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await?;
        let (client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = http::Request::post(format!(
            "http://localhost/runtime.v1.RuntimeService/{method}"
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
        let (response, mut send) = client.ready().await?.send_request(request, false)?;
        send.send_data(body, true)?;
        let response = response.await?;
        let headers = response.headers().clone();
        let mut body = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            answer.extend_from_slice(&data);
        }
        // An error without an answer has its status among the headers.
        let end = body.trailers().await?.unwrap_or(headers);
        let text = |name| {
            end.get(name)
                .and_then(|value: &http::HeaderValue| value.to_str().ok())
        };
        match text("grpc-status") {
            Some("0") => Ok(answer),
            status => bail!(
                "gRPC status {status:?}: {}",
                text("grpc-message").unwrap_or_default()
            ),
        }
    }
}

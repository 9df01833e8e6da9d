//! The kubelet's side of the Container Runtime Interface: four of its calls, over HTTP/2 on a Unix socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message;

/// Which pod it is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Metadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
    #[prost(uint32, tag = "4")]
    pub(crate) attempt: u32,
}

/// A `hostPort`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PortMapping {
    #[prost(int32, tag = "1")]
    pub(crate) protocol: i32,
    #[prost(int32, tag = "2")]
    pub(crate) container_port: i32,
    #[prost(int32, tag = "3")]
    pub(crate) host_port: i32,
}

/// How a Linux sandbox is made; all by default.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LinuxSandbox {}

/// `PodSandboxConfig`, of which this is what matters here.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Sandbox {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) port_mappings: Vec<PortMapping>,
    #[prost(btree_map = "string, string", tag = "7")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub(crate) linux: Option<LinuxSandbox>,
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
}

/// A client. Every call makes a connection of its own, as if the runtime had just been started anew.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Makes a pod's sandbox and returns its ID.
    pub(crate) fn run(&self, sandbox: Sandbox) -> Result<String> {
        let config = Some(sandbox);
        let answer: Id = self.call("RunPodSandbox", &Run { config })?;
        Ok(answer.id)
    }

    /// The address that the runtime has read in our result.
    pub(crate) fn address(&self, id: &str) -> Result<String> {
        let answer: StatusAnswer = self.call("PodSandboxStatus", &Id { id: id.to_owned() })?;
        let network = answer.status.and_then(|status| status.network);
        Ok(network.context("no network")?.ip)
    }

    pub(crate) fn stop(&self, id: &str) -> Result<()> {
        let Empty {} = self.call("StopPodSandbox", &Id { id: id.to_owned() })?;
        Ok(())
    }

    pub(crate) fn remove(&self, id: &str) -> Result<()> {
        let Empty {} = self.call("RemovePodSandbox", &Id { id: id.to_owned() })?;
        Ok(())
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
                tokio::time::timeout(super::LIMIT, self.exchange(method, body.freeze())).await
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

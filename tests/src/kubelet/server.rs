//! The part of a kubelet that the API server calls: a command in a container, as `kubectl exec` wants it. The connection is
//! passed on to the runtime's own streaming server, as a kubelet does.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow, bail};
use lab::Namespace;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::server::TlsStream;

use crate::cri::Client;

/// A kubelet's port.
pub const PORT: u16 = 10250;

/// More than any request's head has.
const LONGEST_HEAD: usize = 16 << 10;

/// Which containers there are: namespace, pod and container, and the runtime's ID.
pub(super) type Containers = Arc<Mutex<BTreeMap<[String; 3], String>>>;

/// It serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    thread: Option<JoinHandle<()>>,
    end: Option<oneshot::Sender<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Server {
    /// Listens at `address` in `namespace`, where the runtime's streaming server is too.
    pub(super) fn start(
        namespace: &Namespace,
        address: SocketAddr,
        runtime: PathBuf,
        containers: Containers,
    ) -> Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(identity(address)?));
        let listener = namespace.run(|| Ok(std::net::TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let (end, ended) = oneshot::channel();
        let namespace = namespace.clone();
        let serve = async move {
            let listener = TcpListener::from_std(listener)?;
            let accept = async {
                loop {
                    let (stream, _) = listener.accept().await?;
                    let (acceptor, runtime) = (acceptor.clone(), runtime.clone());
                    let containers = Arc::clone(&containers);
                    tokio::spawn(async move {
                        // Whoever asked is told, and it is whoever asked that fails a test.
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, &runtime, &containers).await.ok();
                        }
                    });
                }
            };
            tokio::select! {
                failed = accept => failed,
                _ = ended => Ok(()),
            }
        };
        let thread = std::thread::spawn(move || {
            let run = || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(serve)
            };
            namespace.run(run).ok();
        });
        Ok(Self {
            thread: Some(thread),
            end: Some(end),
        })
    }
}

/// A certificate that nobody vouches for, as kubelets have it by default.
fn identity(address: SocketAddr) -> Result<ServerConfig> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([address.ip().to_string()])?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth();
    Ok(config.with_single_cert(vec![cert.der().clone()], key)?)
}

/// One connection: its first request's head, then whatever both sides say.
async fn serve(
    mut stream: TlsStream<TcpStream>,
    runtime: &Path,
    containers: &Containers,
) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD {
            bail!("a head of more than {LONGEST_HEAD} octets");
        }
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    let mut upstream = match open(&head, runtime, containers).await {
        Ok(upstream) => upstream,
        Err(error) => {
            let text = "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n\r\n";
            let answer = format!("{text}{error:#}\n");
            return Ok(stream.write_all(answer.as_bytes()).await?);
        }
    };
    // How the other end hangs up is its own affair.
    copy_bidirectional(&mut stream, &mut upstream).await.ok();
    Ok(())
}

/// The runtime's end of what this request's head is to begin.
async fn open(head: &str, runtime: &Path, containers: &Containers) -> Result<TcpStream> {
    let (method, target, rest) = request(head)?;
    let command = Command::parse(target, containers)?;
    let client = Client::new(runtime);
    let url = tokio::task::spawn_blocking(move || command.ask(&client)).await??;
    let url: http::Uri = url.parse()?;
    let authority = url.authority().context("a streaming URL without a host")?;
    let path = url
        .path_and_query()
        .context("a streaming URL without a path")?;
    let mut upstream = TcpStream::connect(authority.as_str()).await?;
    let head = format!("{method} {path} HTTP/1.1\r\n{rest}");
    upstream.write_all(head.as_bytes()).await?;
    Ok(upstream)
}

/// Method, target and everything after the first line.
fn request(head: &str) -> Result<(&str, &str, &str)> {
    let (line, rest) = head.split_once("\r\n").context("no line")?;
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some("HTTP/1.1")) => Ok((method, target, rest)),
        _ => bail!("no request: {line:?}"),
    }
}

/// What is to run where.
#[derive(Debug)]
struct Command {
    container: String,
    words: Vec<String>,
    input: bool,
    output: bool,
    error: bool,
    terminal: bool,
}

impl Command {
    /// `/exec/NAMESPACE/POD/CONTAINER?command=WORD&command=WORD&output=1&…`.
    fn parse(target: &str, containers: &Containers) -> Result<Self> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let names: Vec<&str> = path.split('/').skip(1).collect();
        let ["exec", namespace, pod, container] = names[..] else {
            bail!("only /exec/NAMESPACE/POD/CONTAINER is served: {path}");
        };
        let key = [namespace, pod, container].map(ToOwned::to_owned);
        let known = containers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = Self {
            container: known
                .get(&key)
                .cloned()
                .ok_or_else(|| anyhow!("no container {}", key.join("/")))?,
            words: Vec::new(),
            input: false,
            output: false,
            error: false,
            terminal: false,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "command" => command.words.push(value.into_owned()),
                "input" => command.input = value == "1",
                "output" => command.output = value == "1",
                "error" => command.error = value == "1",
                "tty" => command.terminal = value == "1",
                other => bail!("an option that is not known here: {other}"),
            }
        }
        Ok(command)
    }

    fn ask(self, client: &Client) -> Result<String> {
        client.stream(&crate::cri::Stream {
            id: self.container,
            command: self.words,
            terminal: self.terminal,
            input: self.input,
            output: self.output,
            error: self.error,
        })
    }
}

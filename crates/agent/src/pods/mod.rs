//! The endpoints of this node: serves the CNI shim, gives addresses, and follows the kernel.
//!
//! The kernel is the store. An endpoint exists while its host veth does; the veth's alias says whose it is. The registry
//! is rebuilt from one dump of links when the threads start, and follows link events from then on.
//!
//! | thread | owns | ends |
//! | --- | --- | --- |
//! | `pods` | the link watch: a veth that went without a DEL takes its endpoint with it; looks now and then for attachments whose container is gone | by [`PodsHandle::stop`] |
//! | `pods-0` … | a netlink socket each; they accept connections and serve one request at a time | when the listener is closed |
//! | `pods-reaper` | a netlink socket; deletes veths in batches and answers DEL | when the last worker has ended |
//!
//! They share the `registry` behind one lock, which nobody holds across a system call. Work on one attachment excludes
//! other work on it (`Claim`); work on different ones runs side by side: a DEL waits 20 ms for the kernel, and no ADD
//! waits for it. Requests that find all workers busy wait in the listener's backlog.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use api::cni::{AttachmentId, HOST_IFNAME_PREFIX};
use ipnet::IpNet;
use netlink::Socket;
use netlink::pod::{self, PodLink, Record, Watch};
pub use node::AddressPlan;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

mod collector;
mod connection;
mod metrics;
mod reaper;
mod registry;
#[cfg(test)]
mod tests;
mod verbs;

use crate::blocks::{Addresses, Blocks};
use collector::Collector;
use connection::Listener;
pub use metrics::{BUCKETS, Metrics, Operation};
use reaper::Condemned;
use registry::Registry;
use verbs::Server;

/// A pod's attachment to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The container's ID.
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// The network configuration's name.
    pub network: String,
    /// The path of the network namespace as the runtime knows it; empty where it is not known any more.
    pub netns: String,
    /// Index of the host veth.
    pub link: u32,
    /// Name of the host veth.
    pub host_ifname: String,
    /// MAC address of the pod's end.
    pub mac: [u8; 6],
    /// MAC address of the host's end.
    pub host_mac: [u8; 6],
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Whether it may send from addresses that are not its own.
    pub spoofing: bool,
    /// Namespace and name of the pod, where it is one.
    pub pod: Option<(String, String)>,
}

impl Endpoint {
    fn id(&self) -> AttachmentId {
        AttachmentId {
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// What the kernel says about one. `None` for a link that no record makes an endpoint.
    fn from_link(link: PodLink) -> Option<Self> {
        let Record {
            container_id,
            ifname,
            network,
            addresses,
            mac,
            spoofing,
            pod,
            netns,
        } = link.record?;
        let identity = AttachmentId {
            container_id: container_id.clone(),
            ifname: ifname.clone(),
        }
        .identity();
        Some(Self {
            mac: mac.unwrap_or(identity.pod_mac.0),
            host_mac: link.mac,
            netns: netns.unwrap_or_default(),
            link: link.index,
            host_ifname: link.name,
            container_id,
            ifname,
            network,
            addresses,
            spoofing,
            pod,
        })
    }
}

/// Who brings endpoints into the host's routes. Called from several threads, and may block for a moment.
pub trait EndpointSink: Send + Sync {
    /// A new endpoint. Returns when the host's routes to it are in the kernel; the shim waits for it.
    ///
    /// # Errors
    /// In words for the runtime's log. The endpoint is taken down again, and `down` is called.
    fn up(&self, endpoint: Endpoint) -> Result<(), String>;

    /// An endpoint that goes or is gone. May come more than once for one, and also for one that never was up.
    fn down(&self, endpoint: &Endpoint);

    /// All endpoints that were there when the threads started. Called once, before any other.
    fn synced(&self, endpoints: Vec<Endpoint>);
}

/// What the threads need to know.
#[derive(Debug, Clone)]
pub struct PodsConfig {
    /// Where the shim asks.
    pub socket_path: PathBuf,
    /// How long an address rests before it is given again.
    pub cooldown: Duration,
    /// Requests that are served at the same time.
    pub workers: usize,
    /// How often attachments are looked for whose container is gone.
    pub collect_every: Duration,
    /// How long such an attachment stays.
    pub collect_after: Duration,
}

impl PodsConfig {
    /// With the cool-down and the number of workers that fit most nodes.
    pub fn new(socket_path: PathBuf) -> Self {
        // The kernel does most of an ADD under one lock; more workers would wait there.
        Self {
            socket_path,
            cooldown: ipam::DEFAULT_COOLDOWN,
            workers: 4,
            collect_every: Duration::from_secs(30),
            // A runtime that is slow or starts anew sends its DEL within that time.
            collect_after: Duration::from_secs(300),
        }
    }
}

/// Steers the threads; clones steer the same ones.
#[derive(Debug, Clone)]
pub struct PodsHandle {
    shared: Arc<Shared>,
    listener: Arc<Listener>,
    stop: Arc<OwnedFd>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

/// Reads the endpoints from the kernel and starts the threads, in the calling thread's network namespace.
///
/// ADD is put off until [`PodsHandle::set_addressing`] has said where addresses come from.
///
/// # Errors
/// When the kernel can't be asked, or the socket can't be made.
pub fn spawn(config: &PodsConfig, sink: Arc<dyn EndpointSink>) -> anyhow::Result<PodsHandle> {
    // First the watch, then the dump: what goes in between is heard of.
    let watch = Watch::open().context("watch links")?;
    let mut host = Socket::open().context("open a netlink socket")?;
    let registry = adopt(&mut host, config.cooldown)?;
    let endpoints = registry.endpoints().cloned().collect();
    let shared = Arc::new(Shared {
        registry: Mutex::new(registry),
        freed: Condvar::new(),
        blocks: OnceLock::new(),
        sink,
        metrics: Arc::default(),
    });
    let listener = Listener::bind(&config.socket_path)
        .with_context(|| format!("listen at {}", config.socket_path.display()))?;
    let listener = Arc::new(listener);
    let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).context("eventfd")?);
    // Before any request is served.
    shared.sink.synced(endpoints);

    let (reaper, thread) = reaper::spawn(Arc::clone(&shared), Socket::open()?)?;
    let mut threads = vec![thread];
    for number in 0..config.workers.max(1) {
        let mut server = Server {
            shared: Arc::clone(&shared),
            host: Socket::open()?,
            reaper: reaper.clone(),
        };
        let listener = Arc::clone(&listener);
        let worker = move || {
            let mut buffer = Vec::new();
            while let Some(connection) = next_connection(&listener) {
                server.serve(connection, &mut buffer);
            }
        };
        threads.push(
            std::thread::Builder::new()
                .name(format!("pods-{number}"))
                .spawn(worker)?,
        );
    }
    let follower = Follower {
        shared: Arc::clone(&shared),
        watch,
        host,
        stop: Arc::clone(&stop),
        reaper,
        collector: Collector::new(config.collect_after),
        collect_every: config.collect_every,
    };
    threads.push(
        std::thread::Builder::new()
            .name("pods".into())
            .spawn(move || follower.run())?,
    );
    Ok(PodsHandle {
        shared,
        listener,
        stop,
        threads: Arc::new(Mutex::new(threads)),
    })
}

impl PodsHandle {
    /// Sets where addresses come from, the blocks of pools that the node has, and the MTU of new pods in octets.
    pub fn set_addressing(&self, plan: &AddressPlan, blocks: &[IpNet], mtu: u32) {
        self.shared.registry().set_addressing(plan, blocks, mtu);
        self.shared.freed.notify_all();
    }

    /// Who gets further blocks of pools. Without, there are those that the node has.
    pub fn set_blocks(&self, blocks: Blocks) {
        // Once in an agent's life.
        self.shared.blocks.set(blocks).ok();
    }

    /// All endpoints, by container.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.shared.registry().endpoints().cloned().collect()
    }

    /// How full each pod CIDR is.
    #[must_use]
    pub fn usage(&self) -> Vec<ipam::Usage> {
        self.shared.registry().usage(clock())
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.shared.metrics)
    }

    /// Ends all threads after the requests that they are at. Endpoints stay as they are.
    pub fn stop(&self) {
        self.listener.close();
        // The counter can't overflow, and nothing else can go wrong.
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).ok();
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads.into_iter().rev() {
            if thread.join().is_err() {
                tracing::error!("a pods thread has panicked");
            }
        }
    }
}

impl Addresses for PodsHandle {
    fn usage(&self) -> Vec<ipam::Usage> {
        self.shared.registry().usage(clock())
    }

    fn close(&self, block: IpNet, only_unused: bool) -> bool {
        self.shared.registry().close(block, only_unused, clock())
    }

    fn open(&self, block: IpNet) {
        self.shared.registry().open(block);
        self.shared.freed.notify_all();
    }

    fn set_full(&self, pools: BTreeMap<String, String>) {
        self.shared.registry().set_full(pools);
    }
}

/// What the threads share.
pub(crate) struct Shared {
    registry: Mutex<Registry>,
    /// Somebody has let an attachment go, or addresses come from somewhere else now.
    freed: Condvar,
    blocks: OnceLock<Blocks>,
    sink: Arc<dyn EndpointSink>,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("registry", &self.registry)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until addresses are given from a block; false when that takes too long.
    fn wait_for_block(&self, block: IpNet, timeout: Duration) -> bool {
        let waited = self
            .freed
            .wait_timeout_while(self.registry(), timeout, |registry| {
                !registry.has_block(block)
            });
        let (_registry, result) = waited.unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }
}

/// The right to work on an attachment, until it is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    shared: Arc<Shared>,
    id: AttachmentId,
}

impl Claim {
    /// Waits while somebody else works on it; `None` when that takes too long.
    fn wait(shared: &Arc<Shared>, id: &AttachmentId, timeout: Duration) -> Option<Self> {
        let registry = shared.registry();
        let (_registry, result) = shared
            .freed
            .wait_timeout_while(registry, timeout, |registry| !registry.begin(id))
            .unwrap_or_else(PoisonError::into_inner);
        (!result.timed_out()).then(|| Self {
            shared: Arc::clone(shared),
            id: id.clone(),
        })
    }

    fn id(&self) -> &AttachmentId {
        &self.id
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.registry().end(&self.id);
        self.shared.freed.notify_all();
    }
}

/// The thread that follows the kernel.
struct Follower {
    shared: Arc<Shared>,
    watch: Watch,
    host: Socket,
    stop: Arc<OwnedFd>,
    reaper: SyncSender<Condemned>,
    collector: Collector,
    collect_every: Duration,
}

impl Follower {
    fn run(mut self) {
        let mut next_look = clock();
        loop {
            let now = clock();
            if now >= next_look {
                self.collect(now);
                next_look = now + self.collect_every;
            }
            // A timeout that a timespec can't hold is one that never comes.
            let wait = Timespec::try_from(next_look.saturating_duration_since(now)).ok();
            let mut descriptors = [
                PollFd::new(&self.watch, PollFlags::IN),
                PollFd::new(&*self.stop, PollFlags::IN),
            ];
            match poll(&mut descriptors, wait.as_ref()) {
                Ok(_) if !descriptors[1].revents().is_empty() => return,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return tracing::error!(%errno, "links are not followed any more"),
            }
            match self.gone_links() {
                Ok(links) => links.into_iter().for_each(|link| self.gone(link)),
                Err(error) => tracing::error!(%error, "link events can't be read"),
            }
        }
    }

    /// Takes down attachments whose container is gone.
    fn collect(&mut self, now: Instant) {
        let endpoints = self.shared.registry().endpoints().cloned().collect();
        for endpoint in self.collector.look(endpoints, &collector::Real, now) {
            // Who works on it has not forgotten it.
            let Some(claim) = Claim::wait(&self.shared, &endpoint.id(), Duration::ZERO) else {
                continue;
            };
            if !self.shared.registry().has_link(endpoint.link) {
                continue;
            }
            tracing::warn!(
                container = endpoint.container_id,
                ifname = endpoint.ifname,
                addresses = ?endpoint.addresses,
                netns = endpoint.netns,
                "the container is gone and there was no DEL: detached"
            );
            self.shared.sink.down(&endpoint);
            self.shared
                .metrics
                .collected
                .fetch_add(1, Ordering::Relaxed);
            let condemned = Condemned {
                claim,
                link: Some(endpoint.link),
                connection: None,
                started: now,
            };
            // Only after the reaper panicked, which has been told.
            drop(self.reaper.send(condemned));
        }
    }

    fn gone_links(&mut self) -> Result<Vec<u32>, netlink::Error> {
        let gone = self.watch.read()?;
        if !gone.overrun {
            return Ok(gone.links);
        }
        tracing::info!("link events were lost: reading all links");
        let present = pod::list(&mut self.host, HOST_IFNAME_PREFIX)?;
        Ok(self.shared.registry().missing(&present))
    }

    fn gone(&self, link: u32) {
        let (endpoint, busy) = {
            let mut registry = self.shared.registry();
            let endpoint = registry.remove_link(link, clock());
            let busy = endpoint
                .as_ref()
                .is_some_and(|endpoint| registry.is_busy(&endpoint.id()));
            (endpoint, busy)
        };
        let Some(endpoint) = endpoint else {
            return;
        };
        self.shared.sink.down(&endpoint);
        // Who works on it deletes it, or will see that it is gone.
        if !busy {
            let Endpoint {
                container_id,
                ifname,
                addresses,
                ..
            } = &endpoint;
            tracing::info!(
                container = container_id,
                ifname,
                ?addresses,
                "the endpoint's link went without a DEL"
            );
            self.shared.metrics.vanished.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Rebuilds the registry from the kernel, oldest endpoint first, and deletes what a crash left half-made.
fn adopt(host: &mut Socket, cooldown: Duration) -> anyhow::Result<Registry> {
    let mut registry = Registry::new(cooldown);
    let mut nameless = Vec::new();
    for link in pod::list(host, HOST_IFNAME_PREFIX).context("read the links")? {
        let name = link.name.clone();
        let Some(endpoint) = Endpoint::from_link(link) else {
            nameless.extend(is_host_ifname(&name).then_some(name));
            continue;
        };
        let Endpoint {
            container_id,
            addresses,
            ..
        } = &endpoint;
        tracing::info!(
            container = container_id,
            link = name,
            ?addresses,
            "endpoint found"
        );
        for address in registry.adopt(endpoint) {
            tracing::error!(%address, link = name, "two endpoints have this address");
        }
    }
    for name in &nameless {
        tracing::warn!(link = name, "no record says whose link this is: deleted");
    }
    pod::detach(
        host,
        &nameless.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .context("delete half-made links")?;
    Ok(registry)
}

/// Whether this is a name that only we make: the prefix and 12 hex digits.
fn is_host_ifname(name: &str) -> bool {
    let digits = name.strip_prefix(HOST_IFNAME_PREFIX).unwrap_or_default();
    digits.len() == 12
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// The next connection; `None` when there are no more.
fn next_connection(listener: &Listener) -> Option<connection::Connection> {
    loop {
        match listener.accept() {
            Ok(connection) => return connection,
            // Too many open files, say: what is open now will be closed, and the shim asks again.
            Err(error) => {
                tracing::error!(%error, "CNI connection not accepted");
                #[expect(
                    clippy::disallowed_methods,
                    reason = "there is nothing to wait for but others' closing files"
                )]
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: what is timed here is real"
)]
fn clock() -> Instant {
    Instant::now()
}

//! The main loop: whenever the configuration changes, the speaker, the dataplane and the pods are told what follows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use api::{ConfigFile, ConfigStatus};
use ipnet::IpNet;
use node::{Handover, NodePlan};
use resources::{Problem, Severity};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::blocks::{self, BlockStore, Blocks, DirectoryStore, KubernetesStore};
use crate::cli::Cli;
use crate::config::Configuration;
use crate::fib::{self, Fib};
use crate::firewall::Firewall;
use crate::memory::{Keeper, Memory};
use crate::origin::{News, Origin};
use crate::pods::{self, Endpoint, EndpointSink, PodsConfig, PodsHandle};
use crate::readiness::{Gate, Readiness};
use crate::{health, memory, metrics, parameters, report, server};

/// How long until a port that was taken is tried again.
const LISTEN_RETRY: Duration = Duration::from_secs(10);
/// How often we look whether old sessions can go.
const HANDOVER_LOOK: Duration = Duration::from_secs(1);
/// The MTU of pods while that of the node's uplink is unknown: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// How long the API server may take to tell all before what it said to an earlier agent comes into force.
const RECALL: Duration = Duration::from_secs(5);
/// How long threads may take to end before the process ends without them.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the rest of the agent may ask.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The node's name.
    pub node: String,
    /// When the agent started, by the wall clock.
    pub started: SystemTime,
    /// When the agent started.
    pub started_at: Instant,
    /// The dataplane.
    pub fib: Fib,
    /// Our nftables table.
    pub firewall: Firewall,
    /// The pods.
    pub pods: PodsHandle,
    /// The node's blocks of pools.
    pub blocks: Blocks,
    /// The configuration and what follows from it.
    pub state: watch::Receiver<State>,
    /// Whether the node serves.
    pub(crate) gate: Arc<Gate>,
}

impl Agent {
    /// Whether pods may come.
    #[expect(clippy::disallowed_methods, reason = "an edge: the agent's clock")]
    pub(crate) fn readiness(&self, status: &api::Status, peers: &[api::Peer]) -> Readiness {
        let plan = self.state.borrow().plan.clone();
        let gives = plan.is_some_and(|plan| plan.addressing.gives());
        self.gate.look(status, peers, gives, Instant::now())
    }
}

/// The configuration in force, and what follows from it.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Files, and what is wrong with them.
    pub config: ConfigStatus,
    /// The plan in force.
    pub plan: Option<Arc<NodePlan>>,
    /// The speaker, once there was a plan.
    pub bgp: Option<bgp_net::Handle>,
    /// Why there is a plan but no speaker.
    pub speaker_error: Option<String>,
}

/// Who hears of endpoints.
struct Endpoints {
    fib: Fib,
    firewall: Firewall,
}

impl EndpointSink for Endpoints {
    fn up(&self, endpoint: Endpoint) -> Result<(), String> {
        if endpoint.spoofing {
            self.firewall.set_spoofing(&endpoint.host_ifname, true);
        }
        self.fib.up(endpoint)
    }

    fn down(&self, endpoint: &Endpoint) {
        self.firewall.set_spoofing(&endpoint.host_ifname, false);
        self.fib.down(endpoint);
    }

    fn synced(&self, endpoints: Vec<Endpoint>) {
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.spoofing) {
            self.firewall.set_spoofing(&endpoint.host_ifname, true);
        }
        self.fib.synced(endpoints);
    }
}

impl Agent {
    /// Everything that is wrong: with the configuration, and with pods that it leaves without a route.
    #[must_use]
    pub fn problems(&self) -> Vec<api::Problem> {
        let state = self.state.borrow();
        let mut problems = state.config.problems.clone();
        if let Some(plan) = &state.plan {
            let stray = stray(&self.pods.endpoints(), &plan.pod_cidrs);
            problems.extend(stray.into_iter().map(server::convert::problem));
        }
        problems
    }
}

/// Pods with an address that the node doesn't announce: their block is another node's now, or their pod CIDR was changed.
fn stray(endpoints: &[Endpoint], ranges: &[IpNet]) -> Vec<Problem> {
    let outside = |address: &&IpAddr| !ranges.iter().any(|range| range.contains(*address));
    let addresses = endpoints.iter().flat_map(|endpoint| {
        let outside = endpoint.addresses.iter().filter(outside);
        outside.map(move |address| (endpoint, address))
    });
    let problem = |(endpoint, address): (&Endpoint, &IpAddr)| {
        let who = match &endpoint.pod {
            Some((namespace, name)) => format!("pod {namespace}/{name}"),
            None => format!("container {}", endpoint.container_id),
        };
        Problem {
            source: String::new(),
            line: None,
            object: None,
            field: String::new(),
            severity: Severity::Error,
            message: format!(
                "{address} of {who} is in none of this node's pod CIDRs and blocks, so that nobody announces it: delete the pod"
            ),
        }
    };
    addresses.map(problem).collect()
}

#[expect(clippy::disallowed_methods, reason = "an edge: the agent's clocks")]
fn clocks() -> (Instant, SystemTime) {
    (Instant::now(), SystemTime::now())
}

/// Two agents would take each other's routes for leftovers. The name is an abstract socket's: there is one in a network
/// namespace, as there is one kernel table, and the kernel frees it however the agent ends.
pub(crate) fn alone() -> anyhow::Result<UnixListener> {
    let name = SocketAddr::from_abstract_name("margayd")?;
    UnixListener::bind_addr(&name)
        .context("another margayd runs in this network namespace; a node has one")
}

/// Runs the agent until it is asked to stop by SIGTERM or SIGINT.
///
/// Stopping is silent: the kernel keeps our routes, and peers that help by graceful restart keep theirs, so that an
/// upgrade loses nothing.
///
/// # Errors
/// What it can't do without: its sockets, the kernel's state.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let (started_at, started) = clocks();
    info!(
        node = cli.node_name,
        version = env!("CARGO_PKG_VERSION"),
        "margayd starts"
    );
    let _alone = alone()?;
    std::fs::create_dir_all(&cli.run_dir)
        .with_context(|| format!("can't make {}", cli.run_dir.display()))?;
    parameters::forward_ipv4(&cli);

    let origin = Origin::new(&cli).await?;
    parameters::multipath(&cli);
    let (fib, inherited, fib_thread) = fib::spawn(cli.group_kind())?;
    if inherited.routes > 0 {
        info!(
            routes = inherited.routes,
            "adopting the routes of an earlier margayd"
        );
    }
    let firewall = Firewall::spawn()?;
    let pods = start_pods(&cli, &fib, &firewall).await?;
    let (blocks, block_state) = start_blocks(&cli, &origin, &pods).await?;
    let (publish, state) = watch::channel(State::default());
    let agent = Agent {
        node: cli.node_name.clone(),
        started,
        started_at,
        fib,
        firewall,
        pods,
        blocks,
        state,
        gate: Arc::new(Gate::new(Duration::from_secs(cli.ready_timeout))),
    };
    tokio::spawn(server::serve(cli.run_dir.join("api.sock"), agent.clone())?);
    if let Some(address) = cli.metrics {
        tokio::spawn(metrics::serve(address, agent.clone()).await?);
    }
    if let Some(address) = cli.health {
        tokio::spawn(health::serve(address, agent.clone()).await?);
    }

    if let Some((reporter, own)) = origin.reporter() {
        tokio::spawn(report::run(agent.clone(), reporter, own));
    }

    let (memory, keeper) = memory::open(&cli);
    let mut control = Control {
        origin,
        memory,
        keeper,
        configuration: Configuration::new(cli.node_name),
        sysctls: cli.sysctl_dir,
        restarting: inherited.routes > 0,
        facts: agent.fib.facts(),
        blocks: block_state,
        agent,
        publish,
        speaker: None,
        listen_error: None,
        handover: Handover::default(),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            () = control.step() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("margayd stops; routes stay in the kernel");
    control.agent.fib.stop().await;
    let ended = tokio::task::spawn_blocking(move || fib_thread.join());
    if tokio::time::timeout(PATIENCE, ended).await.is_err() {
        warn!("the dataplane thread is busy; not waiting for it any longer");
    }
    Ok(())
}

/// Starts the pods' threads. It waits for the dataplane thread, as they do later: not on the runtime.
async fn start_pods(cli: &Cli, fib: &Fib, firewall: &Firewall) -> anyhow::Result<PodsHandle> {
    let config = PodsConfig {
        cooldown: Duration::from_secs(cli.address_cooldown),
        ..PodsConfig::new(cli.run_dir.join("cni.sock"))
    };
    let sink = Arc::new(Endpoints {
        fib: fib.clone(),
        firewall: firewall.clone(),
    });
    tokio::task::spawn_blocking(move || pods::spawn(&config, sink)).await?
}

/// Starts the thread that keeps the node's blocks, and waits for what it finds: without, there is no plan. Where the store
/// is slow, the rest of the agent starts, and says so.
async fn start_blocks(
    cli: &Cli,
    origin: &Origin,
    pods: &PodsHandle,
) -> std::io::Result<(Blocks, watch::Receiver<blocks::State>)> {
    let mut followed = None;
    let store: Box<dyn BlockStore> = match (&cli.ipam_dir, origin) {
        (Some(folder), _) => Box::new(DirectoryStore::new(folder.clone(), &cli.node_name)),
        (None, Origin::Directory(directory)) => {
            let beside = directory.path().join("ipam");
            Box::new(DirectoryStore::new(beside, &cli.node_name))
        }
        (None, Origin::Cluster(source)) => {
            followed = Some(source.blocks());
            let runtime = tokio::runtime::Handle::current();
            Box::new(KubernetesStore::new(source.blocks(), runtime))
        }
    };
    // Nobody but the API server can say for certain that there is no such Node.
    let orphans = Duration::from_secs(cli.block_orphan_grace);
    let blocks = blocks::spawn(
        cli.node_name.clone(),
        store,
        Arc::new(pods.clone()),
        Duration::from_secs(cli.block_grace),
        (followed.is_some() && !orphans.is_zero()).then_some(orphans),
    )?;
    if let Some(followed) = followed {
        let blocks = blocks.clone();
        tokio::spawn(followed.follow(move || blocks.changed()));
    }
    pods.set_blocks(blocks.clone());
    let mut state = blocks.state();
    tokio::time::timeout(PATIENCE, state.changed()).await.ok();
    Ok((blocks, state))
}

struct Control {
    origin: Origin,
    /// What the API server said to an earlier agent, until that is of use or no more.
    memory: Option<Memory>,
    /// Keeps what it says to this one.
    keeper: Option<Keeper>,
    configuration: Configuration,
    /// Where kernel parameters can be written.
    sysctls: PathBuf,
    /// An earlier agent's routes were found: peers are told that we restart (RFC 4724).
    restarting: bool,
    agent: Agent,
    publish: watch::Sender<State>,
    facts: watch::Receiver<fib::Facts>,
    blocks: watch::Receiver<blocks::State>,
    /// The speaker, and where it listens.
    speaker: Option<(bgp_net::Handle, bgp_net::Listen)>,
    /// Why there is no speaker.
    listen_error: Option<String>,
    /// Sessions that are kept until others are up.
    handover: Handover,
}

impl Control {
    /// Waits for a change and brings it into force. Cancel safe up to the change itself.
    async fn step(&mut self) {
        let again = match self.listen_error {
            Some(_) => LISTEN_RETRY,
            None if self.handover.is_under_way() => HANDOVER_LOOK,
            None => Duration::MAX,
        };
        let recall = match self.memory {
            Some(_) => RECALL.saturating_sub(self.agent.started_at.elapsed()),
            None => Duration::MAX,
        };
        let again = match &self.keeper {
            Some(keeper) => again.min(keeper.wait()).min(recall),
            None => again,
        };
        tokio::select! {
            news = self.origin.changed() => match news {
                News::Files(Ok(snapshot)) => self.configuration.replace(&snapshot),
                News::Files(Err(error)) => {
                    self.configuration.unreadable(&self.origin.to_string(), &error);
                }
                News::Cluster(changes) => {
                    self.configuration.receive(changes);
                    let (outstanding, faults) = self.origin.settle(&self.configuration.wanted());
                    // Nothing to say yet: the first lists are on their way.
                    let on_its_way = !outstanding.is_empty() && faults.is_empty();
                    self.configuration.set_reading(outstanding, faults);
                    if on_its_way {
                        return;
                    }
                }
            },
            Ok(()) = self.facts.changed() => {
                let plan = self.publish.borrow().plan.clone();
                if let Some(plan) = plan {
                    self.set_firewall(&plan);
                    self.set_addressing(&plan);
                }
                return;
            }
            Ok(()) = self.blocks.changed() => {}
            () = stopped(self.speaker.as_ref()) => {
                error!("the BGP speaker has ended; starting it anew in {} s", LISTEN_RETRY.as_secs());
                self.speaker = None;
                self.restarting = true;
                self.listen_error = Some("the speaker has ended: see the log".to_owned());
                return;
            }
            () = tokio::time::sleep(again) => {}
        }
        self.apply().await;
    }

    /// What the API server said to an earlier agent has its time: from when this one has waited, until it has told all.
    fn recall(&mut self) {
        if self.configuration.is_told() {
            self.memory = None;
        } else if self.agent.started_at.elapsed() >= RECALL
            && let Some(memory) = self.memory.take()
        {
            self.configuration.recall(memory);
        }
    }

    async fn apply(&mut self) {
        self.recall();
        let held = self.blocks.borrow_and_update().clone();
        let mut planned = self.configuration.plan(&held.blocks);
        if let Ok(plan) = &mut planned {
            let whole = self.whole().await;
            self.handover
                .merge(plan, |peer| whole.contains(&peer), clocks().0);
        }
        let in_force = self.publish.borrow().plan.clone();
        // Without a plan (our Node object is gone, or not there yet) what was in force stays.
        let plan = match &planned {
            Ok(plan) if in_force.as_deref() == Some(plan) => in_force,
            Ok(plan) => {
                let plan = Arc::new(plan.clone());
                self.announce(&plan);
                parameters::forward_ipv6(&plan, &self.sysctls);
                self.set_firewall(&plan);
                self.agent.fib.set_plan(Arc::clone(&plan)).await;
                self.agent.blocks.set_plan(&plan.addressing);
                self.set_addressing(&plan);
                Some(plan)
            }
            Err(_) => in_force,
        };
        if let Some(plan) = &plan {
            self.steer_speaker(plan).await;
            if self.keep(&held, planned.is_ok()).await {
                self.agent.blocks.in_force(&plan.pod_cidrs);
            }
        }
        let mut problems = self.configuration.problems(&planned);
        problems.extend(self.listen_error.clone().map(listen_problem));
        problems.extend(held.problems);
        self.configuration.log(&problems);
        let files = self.configuration.files().iter();
        let config = ConfigStatus {
            source: self.origin.to_string(),
            files: files
                .map(|(name, objects)| ConfigFile {
                    name: name.clone(),
                    objects: *objects,
                })
                .collect(),
            problems: problems.into_iter().map(server::convert::problem).collect(),
        };
        let bgp = self.speaker.as_ref().map(|(handle, _)| handle.clone());
        self.publish.send_replace(State {
            config,
            plan,
            bgp,
            speaker_error: self.listen_error.clone(),
        });
    }

    /// Keeps what the plan was made of, where the API server has said it. Whether blocks that are not in the plan may go
    /// back: the file must not have them then.
    async fn keep(&mut self, held: &blocks::State, planned: bool) -> bool {
        let Some(keeper) = &mut self.keeper else {
            return true;
        };
        let told = self.configuration.is_told();
        if let (Ok(blocks), true) = (&held.blocks, told && planned) {
            let (objects, changed) = self.configuration.objects();
            if changed {
                keeper.changed();
            }
            keeper.keep(objects, blocks).await;
        }
        told
    }

    /// Peers whose sessions are up and have told all their routes; asked for only while that matters.
    async fn whole(&self) -> BTreeSet<IpAddr> {
        let speaker = self.speaker.as_ref();
        let Some((handle, _)) = speaker.filter(|_| self.handover.is_under_way()) else {
            return BTreeSet::new();
        };
        let peers = handle.peers().await.unwrap_or_default().into_iter();
        peers
            .filter(|peer| peer.state == bgp::session::State::Established && peer.synced)
            .map(|peer| peer.address)
            .collect()
    }

    fn announce(&self, plan: &NodePlan) {
        let pod_cidrs: Vec<String> = plan.pod_cidrs.iter().map(IpNet::to_string).collect();
        info!(
            asn = plan.speaker.asn,
            router_id = %plan.speaker.router_id,
            pod_cidrs = pod_cidrs.join(","),
            peers = plan.speaker.peers.len(),
            "configuration in force"
        );
    }

    /// As long as a tunnel device is there, wanted or not, only nodes may send to it.
    fn set_firewall(&self, plan: &NodePlan) {
        let mut firewall = dataplane::Firewall {
            pod_interfaces: api::cni::HOST_IFNAME_PREFIX.to_owned(),
            ..plan.firewall.clone()
        };
        if firewall.tunnel_peers.is_none() && self.facts.borrow().tunnels {
            firewall.tunnel_peers = Some(plan.tunnels.nodes.keys().copied().collect());
        }
        self.agent.firewall.set(firewall);
    }

    fn set_addressing(&self, plan: &NodePlan) {
        let mtu = self.facts.borrow().mtu.unwrap_or(DEFAULT_MTU);
        let pod_cidrs = &plan.pod_cidrs;
        let blocks = pod_cidrs
            .get(plan.addressing.cidrs.len()..)
            .unwrap_or_default();
        self.agent
            .pods
            .set_addressing(&plan.addressing, blocks, mtu);
    }

    /// Starts the speaker, or tells it what it is to be. Another port or address needs another speaker: the old one goes silently, as
    /// in a restart, so that peers keep our routes until the new one is there.
    async fn steer_speaker(&mut self, plan: &NodePlan) {
        let listen = listen(plan);
        if let Some((handle, before)) = &self.speaker {
            if *before == listen {
                handle.configure(plan.speaker.clone());
                return;
            }
            info!(
                from = ?before.addresses,
                to = ?listen.addresses,
                "to listen elsewhere: starting the speaker anew"
            );
            // Stopped already is as good.
            drop(handle.abandon().await);
            self.speaker = None;
            self.restarting = true;
        }
        match bgp_net::spawn_tracking(plan.speaker.clone(), &listen, self.restarting) {
            Ok((handle, routes)) => {
                self.agent.fib.set_paths(handle.clone(), routes).await;
                self.speaker = Some((handle, listen));
                self.listen_error = None;
            }
            Err(error) => self.listen_error = Some(error.to_string()),
        }
    }
}

/// Where the speaker is to listen.
fn listen(plan: &NodePlan) -> bgp_net::Listen {
    let port = plan.listen_port;
    match plan.bind.is_empty() {
        true => bgp_net::Listen::port(port),
        false => bgp_net::Listen {
            addresses: plan.bind.iter().map(|ip| (*ip, port).into()).collect(),
        },
    }
}

/// Waits for a speaker that there is to end.
async fn stopped(speaker: Option<&(bgp_net::Handle, bgp_net::Listen)>) {
    match speaker {
        Some((handle, _)) => handle.stopped().await,
        None => std::future::pending().await,
    }
}

fn listen_problem(error: String) -> Problem {
    Problem {
        source: String::new(),
        line: None,
        object: None,
        field: "spec.listenPort".to_owned(),
        severity: Severity::Error,
        message: format!(
            "{error}: there is no BGP speaker until this is mended; is there another one on this node? Trying again every {} s",
            LISTEN_RETRY.as_secs()
        ),
    }
}

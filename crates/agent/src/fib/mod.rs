//! The dataplane thread: the one writer of our routes.
//!
//! | task | owner | ends |
//! | --- | --- | --- |
//! | thread `margay-fib` with a current-thread runtime | the state, the netlink [`Driver`](netlink::Driver) | when every [`Fib`] handle is gone, or on [`Fib::stop`] |
//!
//! It drains what it has been told, then what the kernel says, then writes a bounded number of changes, and only then
//! looks again: neither a full table nor a storm of events keeps a pod's route waiting for long. Its channel is bounded: whoever
//! tells it faster than the kernel takes it waits. Netlink calls block this thread, which does nothing else.
//! Stopping leaves the kernel as it is: what we installed goes on forwarding.

mod next_hops;
mod state;
mod thread;
mod tunnels;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use dataplane::{GroupKind, LinkIndex};
use node::NodePlan;
use tokio::sync::{mpsc, oneshot, watch};

use crate::pods::{Endpoint, EndpointSink};

pub use state::{Numbers, View, Way};
pub use tunnels::DeviceStatus;
use tunnels::Tunnels;

/// Changes written to the kernel before anything else gets a look.
const TURN: usize = 2048;
/// How many messages may wait for the thread.
const QUEUE: usize = 256;
/// How long an ADD waits for its route.
const ADD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the thread is told.
pub(crate) enum Command {
    Plan(Arc<NodePlan>),
    Paths(bgp_net::Handle, bgp_net::Routes),
    EndpointUp(Endpoint, SyncSender<Result<(), String>>),
    EndpointDown(Endpoint),
    Endpoints(Vec<Endpoint>),
    View(oneshot::Sender<View>),
    Numbers(oneshot::Sender<Numbers>),
    Ways(oneshot::Sender<Ways>),
    Unreachable(oneshot::Sender<BTreeMap<IpAddr, String>>),
    Stop,
}

/// What an earlier agent left in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// Routes of ours.
    pub routes: usize,
}

/// How packets travel to each next hop.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// The tunnel devices.
    pub devices: Vec<DeviceStatus>,
    /// By next hop and pool.
    pub ways: Vec<Way>,
    /// Names of links.
    pub links: BTreeMap<LinkIndex, String>,
}

/// What others follow without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The MTU that a pod's packets fit through on their way out of this node, in octets; `None` while it is unknown.
    pub mtu: Option<u32>,
    /// A tunnel device of ours is there, wanted or not.
    pub tunnels: bool,
}

/// Speaks to the thread.
#[derive(Debug, Clone)]
pub struct Fib {
    commands: mpsc::Sender<Command>,
    facts: watch::Receiver<Facts>,
}

/// Starts the thread in the caller's network namespace, and waits until it has read the kernel's state. Learned routes are to
/// point at nexthop groups of this kind, where the kernel knows them.
///
/// # Errors
/// The kernel's state can't be read.
pub fn spawn(
    groups: Option<GroupKind>,
) -> anyhow::Result<(Fib, Inherited, std::thread::JoinHandle<()>)> {
    let (commands, inbox) = mpsc::channel(QUEUE);
    let (publish, facts) = watch::channel(Facts::default());
    let (ready, started) = sync_channel(1);
    let thread = std::thread::Builder::new()
        .name("margay-fib".to_owned())
        .spawn(move || thread::run(groups, inbox, publish, &ready))
        .context("can't start the dataplane thread")?;
    let inherited = started.recv().context("the dataplane thread ended")??;
    Ok((Fib { commands, facts }, inherited, thread))
}

impl Fib {
    /// What this node is to do.
    pub async fn set_plan(&self, plan: Arc<NodePlan>) {
        self.tell(Command::Plan(plan)).await;
    }

    /// Where best paths come from, and who is told which next hops can be reached.
    pub async fn set_paths(&self, speaker: bgp_net::Handle, routes: bgp_net::Routes) {
        self.tell(Command::Paths(speaker, routes)).await;
    }

    /// The next hops that can't be reached, with the reason; `None` when the thread is gone.
    pub async fn unreachable(&self) -> Option<BTreeMap<IpAddr, String>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Unreachable(reply)).await;
        answer.await.ok()
    }

    /// What others follow without asking.
    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Facts> {
        self.facts.clone()
    }

    /// How packets travel to each next hop; `None` when the thread is gone.
    pub async fn ways(&self) -> Option<Ways> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Ways(reply)).await;
        answer.await.ok()
    }

    /// Routes, desired beside actual; `None` when the thread is gone.
    pub async fn view(&self) -> Option<View> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::View(reply)).await;
        answer.await.ok()
    }

    /// The same in numbers.
    pub async fn numbers(&self) -> Option<Numbers> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Numbers(reply)).await;
        answer.await.ok()
    }

    /// Ends the thread. The kernel's routes stay.
    pub async fn stop(&self) {
        self.tell(Command::Stop).await;
    }

    async fn tell(&self, command: Command) {
        // The thread ends only when the process does; nobody is left to tell then.
        drop(self.commands.send(command).await);
    }
}

impl EndpointSink for Fib {
    fn up(&self, endpoint: Endpoint) -> Result<(), String> {
        let gone = || "the agent is stopping: try again in a moment".to_owned();
        let (reply, answer) = sync_channel(1);
        let addresses = endpoint.addresses.clone();
        self.commands
            .blocking_send(Command::EndpointUp(endpoint, reply))
            .map_err(|_| gone())?;
        answer
            .recv_timeout(ADD_TIMEOUT)
            .unwrap_or_else(|error| match error {
                RecvTimeoutError::Timeout => Err(late(&addresses)),
                RecvTimeoutError::Disconnected => Err(gone()),
            })
    }

    fn down(&self, endpoint: &Endpoint) {
        drop(
            self.commands
                .blocking_send(Command::EndpointDown(endpoint.clone())),
        );
    }

    fn synced(&self, endpoints: Vec<Endpoint>) {
        drop(self.commands.blocking_send(Command::Endpoints(endpoints)));
    }
}

fn late(addresses: &[IpAddr]) -> String {
    format!(
        "the route to {} isn't in the kernel after {} s: see `margayctl routes`",
        addresses
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        ADD_TIMEOUT.as_secs()
    )
}

//! The node's blocks of pools: taken when pods need addresses, announced while they are here, given back when unused.
//!
//! One thread, `margay-blocks`, talks to the store; nobody else waits for it but an ADD that finds no free address. What the
//! node has is published, and the main loop plans with it: only when that plan is in force are addresses given from a new
//! block, and only when one without it is, the block goes back.

mod directory;
mod holder;
mod kubernetes;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::{Socket, kernel};
use node::AddressPlan;
use resources::Problem;
use tokio::sync::watch;

pub use directory::DirectoryStore;
pub(crate) use holder::Holder;
pub use holder::{Addresses, Answer, PoolUsage, Routed, Want};
pub use kubernetes::KubernetesStore;
pub use store::{BlockStore, CreateError, Listed, StoreError, Stored, Unreadable};

/// How long a node has to be gone until its blocks come back, unless told otherwise.
pub const DEFAULT_ORPHAN_GRACE: Duration = Duration::from_secs(900);
/// How long a store rests that has failed; each time twice as long, give or take half.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How long a block without a pod stays, unless told otherwise.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(300);

/// What is known of the node's blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The blocks that the node announces, or why that is not known yet.
    pub blocks: Result<Vec<IpNet>, String>,
    /// How many blocks the pools have that give addresses on this node.
    pub pools: Vec<PoolUsage>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

enum Command {
    Plan(Arc<AddressPlan>),
    InForce(Vec<IpNet>),
    /// Until the time when nobody waits for the answer any more.
    Want(Want, Instant, SyncSender<Answer>),
    Changed,
}

/// Steers the thread; clones steer the same one. It ends with the last of them.
#[derive(Debug, Clone)]
pub struct Blocks {
    commands: Sender<Command>,
    state: watch::Receiver<State>,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Command")
    }
}

/// Starts the thread. Blocks without a used address are given back after `grace`, those of nodes that are no more after
/// `orphans`, if that is given.
///
/// # Errors
/// When there can be no thread.
pub fn spawn(
    node: String,
    store: Box<dyn BlockStore>,
    addresses: Arc<dyn Addresses>,
    grace: Duration,
    orphans: Option<Duration>,
) -> std::io::Result<Blocks> {
    // Not bounded: the main loop sends one at each of its turns, and each of a few ADDs waits for its answer.
    let (commands, receiver) = channel();
    let unknown = State {
        blocks: Err("not read yet".to_owned()),
        pools: Vec::new(),
        problems: Vec::new(),
    };
    let (publish, state) = watch::channel(unknown);
    let now = clock();
    let mut holder = Holder::new(node, store, addresses, Box::new(routed), grace);
    if let Some(orphans) = orphans {
        holder.set_reclaim(orphans);
    }
    let keeper = Keeper {
        holder,
        publish,
        refresh: now,
        changed: false,
        failures: 0,
        resting: now,
        // Often enough for a block to go soon after its time is over.
        tick: (grace / 8).clamp(Duration::from_millis(50), Duration::from_secs(10)),
    };
    std::thread::Builder::new()
        .name("margay-blocks".to_owned())
        .spawn(move || keeper.run(&receiver))?;
    Ok(Blocks { commands, state })
}

impl Blocks {
    /// What is known of the node's blocks, and when that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Where addresses come from now.
    pub fn set_plan(&self, plan: &AddressPlan) {
        // The thread lives as long as this; if it panicked, blocks stay as they are.
        self.commands
            .send(Command::Plan(Arc::new(plan.clone())))
            .ok();
    }

    /// A plan with these ranges is in force: what is not among them is not announced any more.
    pub fn in_force(&self, ranges: &[IpNet]) {
        self.commands.send(Command::InForce(ranges.to_vec())).ok();
    }

    /// This node's blocks may be others now.
    pub fn changed(&self) {
        self.commands.send(Command::Changed).ok();
    }

    /// Gets a block. Waits `patience` for it; work that has begun goes on where that is not enough.
    #[must_use]
    pub fn want(&self, want: &Want, patience: Duration) -> Answer {
        let (reply, outcome) = sync_channel(1);
        let command = Command::Want(want.clone(), clock() + patience, reply);
        let sent = self.commands.send(command);
        let outcome = sent.ok().and_then(|()| outcome.recv_timeout(patience).ok());
        outcome.unwrap_or_else(|| {
            Answer::Unavailable(format!(
                "no answer after {patience:?} about a block of IPPool {}",
                want.pools.join(", ")
            ))
        })
    }
}

struct Keeper {
    holder: Holder,
    publish: watch::Sender<State>,
    tick: Duration,
    /// When the store is to be read as a whole.
    refresh: Instant,
    /// This node's blocks are to be read.
    changed: bool,
    /// How often in a row the store has failed, and until when it rests.
    failures: u32,
    resting: Instant,
}

impl Keeper {
    fn run(mut self, commands: &Receiver<Command>) {
        loop {
            self.look(clock());
            self.publish();
            let wait = match self.holder.is_busy() {
                true => self.tick.min(Duration::from_secs(1)),
                false => self.tick,
            };
            match commands.recv_timeout(wait.min(self.until_next(clock()))) {
                Ok(command) => self.obey(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self, now: Instant) {
        self.holder.rest(now < self.resting);
        if now >= self.resting {
            if now >= self.refresh {
                self.holder.refresh();
                self.refresh = now + jittered(self.holder.pace());
                self.changed = false;
            } else if std::mem::take(&mut self.changed) {
                self.holder.refresh_own();
            }
        }
        self.holder.look(now);
        self.note_failure();
    }

    fn until_next(&self, now: Instant) -> Duration {
        let next = match self.changed {
            true => self.resting,
            false => self.refresh.max(self.resting),
        };
        next.saturating_duration_since(now)
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Plan(plan) => {
                self.holder.set_plan(plan);
                // Other pools, or another number of nodes.
                let soon = clock() + jittered(self.holder.pace());
                self.refresh = self.refresh.min(soon);
            }
            Command::InForce(ranges) => self.holder.in_force(&ranges, clock()),
            // Those that a store without an answer has kept waiting.
            Command::Want(_, until, _) if clock() >= until => {}
            Command::Want(want, _, reply) => {
                self.holder.rest(clock() < self.resting);
                let outcome = self.holder.want(&want);
                self.note_failure();
                self.publish();
                // Who asked may have given up.
                reply.try_send(outcome).ok();
            }
            Command::Changed => self.changed = true,
        }
    }

    /// A store that fails is not asked again at once, and not by all nodes at the same time.
    fn note_failure(&mut self) {
        let now = clock();
        if !self.holder.has_failed() {
            self.failures = 0;
            return;
        }
        if now < self.resting {
            return;
        }
        let rest = FIRST_REST.saturating_mul(1 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        self.resting = now + jittered(rest.min(LONGEST_REST));
        self.refresh = self.resting;
    }

    fn publish(&self) {
        let state = State {
            blocks: self.holder.announced(),
            pools: self.holder.pools(),
            problems: self.holder.problems(),
        };
        self.publish.send_if_modified(|published| {
            let news = *published != state;
            if news {
                *published = state;
            }
            news
        });
    }
}

/// What the kernel has of our routes.
fn routed() -> Option<Vec<IpNet>> {
    let routes = Socket::open()
        .and_then(|mut socket| kernel::dump_routes(&mut socket, dataplane::ROUTE_PROTOCOL));
    match routes {
        Ok(routes) => Some(routes.into_iter().map(|(key, _)| key.prefix).collect()),
        Err(error) => {
            tracing::warn!(%error, "the routes can't be read: no block is given or taken back");
            None
        }
    }
}

/// Give or take half.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.5 + fastrand::f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: the thread's clock is real"
)]
fn clock() -> Instant {
    Instant::now()
}

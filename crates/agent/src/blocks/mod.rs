//! The node's blocks of pools: taken when pods need addresses, announced while they are here, given back when unused.
//!
//! One thread, `margay-blocks`, talks to the store; nobody else waits for it but an ADD that finds no free address. What the
//! node has is published, and the main loop plans with it: only when that plan is in force are addresses given from a new
//! block, and only when one without it is, the block goes back.

mod directory;
mod holder;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use node::AddressPlan;
use resources::Problem;
use tokio::sync::watch;

pub use directory::DirectoryStore;
pub(crate) use holder::Holder;
pub use holder::{Addresses, Answer, PoolUsage, Want};
pub use store::{BlockStore, CreateError, Listed, NoStore, StoreError, Stored, Unreadable};

/// How often the store is read although nobody asks.
const REFRESH: Duration = Duration::from_secs(30);
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
    Want(Want, SyncSender<Answer>),
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

/// Starts the thread. Blocks without a used address are given back after `grace`.
///
/// # Errors
/// When there can be no thread.
pub fn spawn(
    node: String,
    store: Box<dyn BlockStore>,
    addresses: Arc<dyn Addresses>,
    grace: Duration,
) -> std::io::Result<Blocks> {
    // Not bounded: the main loop sends one at each of its turns, and each of a few ADDs waits for its answer.
    let (commands, receiver) = channel();
    let unknown = State {
        blocks: Err("not read yet".to_owned()),
        pools: Vec::new(),
        problems: Vec::new(),
    };
    let (publish, state) = watch::channel(unknown);
    let keeper = Keeper {
        holder: Holder::new(node, store, addresses, grace),
        publish,
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

    /// Gets a block. Waits `patience` for it; the work goes on where that is not enough.
    #[must_use]
    pub fn want(&self, want: &Want, patience: Duration) -> Answer {
        let (reply, outcome) = sync_channel(1);
        let sent = self.commands.send(Command::Want(want.clone(), reply));
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
}

impl Keeper {
    fn run(mut self, commands: &Receiver<Command>) {
        let mut refresh = clock();
        loop {
            let now = clock();
            if now >= refresh {
                self.holder.refresh();
                refresh = now + REFRESH;
            }
            self.holder.look(now);
            self.publish();
            let wait = match self.holder.is_busy() {
                true => self.tick.min(Duration::from_secs(1)),
                false => self.tick,
            };
            match commands.recv_timeout(wait) {
                Ok(Command::Plan(plan)) => self.holder.set_plan(plan),
                Ok(Command::InForce(ranges)) => self.holder.in_force(&ranges, clock()),
                Ok(Command::Want(want, reply)) => {
                    let outcome = self.holder.want(&want);
                    self.publish();
                    // Who asked may have given up.
                    reply.try_send(outcome).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
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

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: the thread's clock is real"
)]
fn clock() -> Instant {
    Instant::now()
}

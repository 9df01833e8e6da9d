//! The loop.

use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use dataplane::{Op, RouteKey};
use netlink::Events;
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::kernel::Kernel;
use super::state::{Progress, State, Then};
use super::{Command, Inherited, Numbers, TURN};

/// How long a change that the kernel didn't tell us about can go unnoticed.
const RESYNC: Duration = Duration::from_secs(60);

/// An ADD that waits for its routes.
struct Waiting {
    keys: Vec<RouteKey>,
    reply: SyncSender<Result<(), String>>,
}

struct Thread {
    state: State,
    kernel: Kernel,
    inbox: mpsc::Receiver<Command>,
    paths: Option<bgp_net::Routes>,
    waiting: Vec<Waiting>,
    resync_at: Instant,
    reload: bool,
    last_error: Option<(Instant, String)>,
    mtu: watch::Sender<Option<u32>>,
}

/// Runs until it is told to stop. Says on `ready` how the start went.
pub(super) fn run(
    inbox: mpsc::Receiver<Command>,
    mtu: watch::Sender<Option<u32>>,
    ready: &SyncSender<anyhow::Result<Inherited>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error.into()))),
    };
    runtime.block_on(async {
        match Thread::start(inbox, mtu) {
            Ok((mut thread, inherited)) => {
                drop(ready.send(Ok(inherited)));
                thread.serve().await;
            }
            Err(error) => drop(ready.send(Err(error))),
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "an edge: this thread's clock")]
fn now() -> Instant {
    Instant::now()
}

impl Thread {
    fn start(
        inbox: mpsc::Receiver<Command>,
        mtu: watch::Sender<Option<u32>>,
    ) -> anyhow::Result<(Self, Inherited)> {
        let mut kernel = Kernel::open()?;
        let mut state = State::new(u64::from(std::process::id()));
        let routes = kernel.dump_into(&mut state)?;
        let thread = Self {
            state,
            kernel,
            inbox,
            paths: None,
            waiting: Vec::new(),
            resync_at: now() + RESYNC,
            reload: false,
            last_error: None,
            mtu,
        };
        Ok((thread, Inherited { routes }))
    }

    async fn serve(&mut self) {
        loop {
            let timeout = self
                .state
                .poll_timeout()
                .map_or(self.resync_at, |at| at.min(self.resync_at));
            let busy = self.state.has_work();
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.obey(command),
                },
                () = self.kernel.heard() => self.listen(),
                feed = next(&mut self.paths) => self.learn(feed),
                // Nothing to wait for while there's work: the branches above had their chance.
                () = std::future::ready(()), if busy => {}
                () = tokio::time::sleep_until(timeout.into()) => {}
            }
            self.turn();
        }
    }

    /// Brings the kernel a bounded step closer to what it should be.
    fn turn(&mut self) {
        let now = now();
        if std::mem::take(&mut self.reload) || now >= self.resync_at {
            self.resync_at = now + RESYNC;
            if let Err(error) = self.kernel.dump_into(&mut self.state) {
                error!("{error:#}; trying again in {} s", RESYNC.as_secs());
            }
        }
        let ops = self.state.plan(TURN, now);
        if !ops.is_empty() {
            let results = self.kernel.apply(&ops);
            for (op, result) in ops.iter().zip(results) {
                let failure = result.as_ref().err().map(ToString::to_string);
                if self.state.applied(op, result, now)
                    && let Some(failure) = failure
                {
                    let message = format!("{}: {failure}", describe(op));
                    warn!("kernel: {message}");
                    self.last_error = Some((now, message));
                }
            }
            debug!(changes = ops.len(), "kernel changed");
        }
        self.answer();
        let mtu = self.state.pod_mtu();
        self.mtu
            .send_if_modified(|before| std::mem::replace(before, mtu) != mtu);
    }

    fn answer(&mut self) {
        let state = &self.state;
        self.waiting.retain(|waiting| {
            let outcome = waiting
                .keys
                .iter()
                .find_map(|key| match state.progress(*key) {
                    Progress::Installed => None,
                    Progress::Refused(reason) => {
                        Some(Err(format!("route {}: {reason}", key.prefix)))
                    }
                    Progress::Pending => Some(Ok(())),
                });
            let outcome = match outcome {
                Some(Ok(())) => return true,
                Some(Err(reason)) => Err(reason),
                None => Ok(()),
            };
            // Who asked may have given up; then nobody is told.
            drop(waiting.reply.try_send(outcome));
            false
        });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Plan(plan) => self.state.set_plan(plan),
            Command::Paths(paths) => {
                self.state.new_paths();
                self.paths = Some(paths);
            }
            Command::EndpointUp(endpoint, reply) => {
                let keys = self.state.endpoint_up(endpoint);
                self.waiting.push(Waiting { keys, reply });
            }
            Command::EndpointDown(endpoint) => self.state.endpoint_down(endpoint.link),
            Command::Endpoints(endpoints) => self.state.set_endpoints(endpoints),
            // Who asked may be gone.
            Command::View(reply) => drop(reply.send(self.state.view())),
            Command::Numbers(reply) => drop(reply.send(self.numbers())),
            Command::Stop => {}
        }
    }

    fn numbers(&self) -> Numbers {
        let last_error = self.last_error.as_ref();
        Numbers {
            last_error: last_error.map(|(at, message)| (at.elapsed(), message.clone())),
            ..self.state.numbers()
        }
    }

    fn listen(&mut self) {
        match self.kernel.read() {
            Ok(Events::Changes(events)) => {
                for event in &events {
                    if self.state.handle(event) == Then::Reload {
                        self.reload = true;
                    }
                }
            }
            Ok(Events::Overrun) => {
                info!(
                    "the kernel's events came faster than we read them: reading everything again"
                );
                self.reload = true;
            }
            Err(error) => {
                error!("{error:#}: reading everything again");
                self.reload = true;
            }
        }
    }

    fn learn(&mut self, feed: Option<bgp_net::RouteFeed>) {
        match feed {
            Some(bgp_net::RouteFeed::Changes(changes)) => self.state.set_paths(changes),
            Some(bgp_net::RouteFeed::Synced) => {
                info!("all peers have sent their routes: sweeping what nobody wants any more");
                self.state.paths_synced();
            }
            // The speaker ended with the process; what it said last stays.
            None => self.paths = None,
        }
    }
}

async fn next(paths: &mut Option<bgp_net::Routes>) -> Option<bgp_net::RouteFeed> {
    match paths {
        Some(paths) => paths.recv().await,
        None => std::future::pending().await,
    }
}

fn describe(op: &Op) -> String {
    match op {
        Op::AddRoute(key, _) => format!("add route {}", key.prefix),
        Op::ReplaceRoute(key, _) => format!("replace route {}", key.prefix),
        Op::DeleteRoute(key, _) => format!("delete route {}", key.prefix),
        Op::SetNeighbour(key, _) => format!("set neighbour {}", key.address),
        Op::DeleteNeighbour(key) => format!("delete neighbour {}", key.address),
    }
}

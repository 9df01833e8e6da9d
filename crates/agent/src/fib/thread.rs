//! The loop.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dataplane::{
    GroupKind, LinkIndex, Links, Object, Op, RouteKey, RouteStatus, TunnelKind, TunnelOp,
};
use netlink::Driver;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::state::State;
use super::tunnels::{Situation, Tunnels};
use super::{Command, Facts, Inherited, Numbers, TURN, Ways};

/// How long a change that the kernel didn't tell us about can go unnoticed.
const RESYNC: Duration = Duration::from_secs(60);
/// How long until the kernel is asked again when it could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// An ADD that waits for its routes.
struct Waiting {
    keys: Vec<RouteKey>,
    reply: SyncSender<Result<(), String>>,
}

struct Thread {
    state: State,
    driver: Driver,
    /// The driver's descriptor once more, for the runtime to wait on.
    kernel: AsyncFd<OwnedFd>,
    inbox: mpsc::Receiver<Command>,
    paths: Option<bgp_net::Routes>,
    /// Who chooses the best paths, as long as `paths` is there.
    speaker: Option<bgp_net::Handle>,
    waiting: Vec<Waiting>,
    resync_at: Instant,
    last_error: Option<(Instant, String)>,
    tunnels: Tunnels,
    facts: watch::Sender<Facts>,
}

/// Runs until it is told to stop. Says on `ready` how the start went.
pub(super) fn run(
    groups: Option<GroupKind>,
    inbox: mpsc::Receiver<Command>,
    facts: watch::Sender<Facts>,
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
        match Thread::start(groups, inbox, facts) {
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
        groups: Option<GroupKind>,
        inbox: mpsc::Receiver<Command>,
        facts: watch::Sender<Facts>,
    ) -> anyhow::Result<(Self, Inherited)> {
        let mut driver = Driver::open(u64::from(std::process::id()))
            .context("can't listen to the kernel's events")?;
        if let Some(kind) = groups {
            use_groups(&mut driver, kind).context("can't ask the kernel for nexthop groups")?;
        }
        driver.read().context("can't read the kernel's state")?;
        let inherited = Inherited {
            routes: driver.reconciler.summary().leftover,
        };
        let descriptor = driver.as_fd().try_clone_to_owned();
        let kernel = descriptor.and_then(crate::sys::watch);
        let thread = Self {
            state: State::default(),
            kernel: kernel.context("can't wait for the kernel's events")?,
            driver,
            inbox,
            paths: None,
            speaker: None,
            waiting: Vec::new(),
            resync_at: now() + RESYNC,
            last_error: None,
            tunnels: Tunnels::default(),
            facts,
        };
        Ok((thread, inherited))
    }

    async fn serve(&mut self) {
        loop {
            let retry = self.driver.poll_timeout().map(|(at, _)| at);
            let due = [retry, self.tunnels.poll_timeout()].into_iter().flatten();
            let timeout = due.fold(self.resync_at, Instant::min);
            let busy = self.driver.has_work();
            let untold = self.state.next_hops_untold();
            let tells = !untold.is_empty() && self.speaker.is_some();
            tokio::select! {
                biased;
                command = self.inbox.recv() => match command {
                    None | Some(Command::Stop) => return,
                    Some(command) => self.obey(command),
                },
                told = tell(self.speaker.as_ref(), untold), if tells => self.told(told),
                () = readable(&self.kernel) => {}
                feed = next(&mut self.paths) => self.learn(feed),
                // Nothing to wait for while there's work: the branches above had their chance.
                () = std::future::ready(()), if busy => {}
                () = tokio::time::sleep_until(timeout.into()) => {}
            }
            self.turn();
        }
    }

    /// Takes in what the kernel says, and brings it a bounded step closer to what it should be.
    fn turn(&mut self) {
        let now = now();
        if now >= self.resync_at {
            self.resync_at = now + RESYNC;
            self.driver.resync();
        }
        match self.driver.read() {
            Ok(seen) if seen.links_changed => self.state.links_changed(),
            Ok(_) => {}
            Err(error) => {
                error!("can't read the kernel's state: {error}; trying again in a moment");
                // Events that were read before it failed may have said so.
                self.state.links_changed();
                self.resync_at = now + RETRY;
            }
        }
        self.keep_tunnels(now);
        let (links, reconciler) = self.driver.parts();
        self.state.set_devices(self.tunnels.devices(links));
        self.state.settle(links, reconciler);
        for (op, error) in self.driver.write(TURN, now) {
            let message = format!("{}: {error}", describe(&op));
            warn!("kernel: {message}");
            self.last_error = Some((now, message));
        }
        self.answer();
        let facts = Facts {
            mtu: self.state.pod_mtu(self.driver.links()),
            tunnels: Tunnels::any_present(self.driver.links()),
        };
        self.facts
            .send_if_modified(|before| std::mem::replace(before, facts) != facts);
    }

    /// Has tunnel devices as they should be. What the kernel refuses is tried again, and nothing else waits for it.
    fn keep_tunnels(&mut self, now: Instant) {
        let Some(tunnels) = self.state.tunnels() else {
            return;
        };
        let reconciler = &self.driver.reconciler;
        let situation = Situation {
            now,
            tunnels,
            links: self.driver.links(),
            established: &|| self.state.is_established(reconciler),
        };
        let ops = self
            .tunnels
            .turn(&situation, |link| reconciler.uses_link(link));
        for (kind, op) in ops {
            let result = self.driver.change_tunnel(&op);
            match (&result, op) {
                (Ok(()), TunnelOp::Create(_)) => info!("tunnel device {} is there", kind.device()),
                (Ok(()), TunnelOp::Delete(_)) => info!("tunnel device {} is gone", kind.device()),
                (Ok(()), _) => {}
                // What we believe of the kernel may be wrong.
                (Err(_), _) => self.driver.resync(),
            }
            let result = result.map_err(|error| refusal(kind, &error));
            let words = result.clone().err();
            if self.tunnels.applied(kind, result, now) {
                warn!("{}", words.unwrap_or_default());
            }
        }
    }

    /// Answers the ADDs whose routes are there, or are refused.
    fn answer(&mut self) {
        let reconciler = &self.driver.reconciler;
        self.waiting.retain(|waiting| {
            let mut outcome = Ok(());
            for key in &waiting.keys {
                match reconciler.route(*key) {
                    Some(RouteStatus { state, .. }) if state.is_installed() => {}
                    Some(RouteStatus {
                        reason: Some(reason),
                        ..
                    }) => {
                        outcome = Err(format!("route {}: {reason}", key.prefix));
                    }
                    Some(_) => return true,
                    // Nobody wants it any more.
                    None => outcome = Err(format!("route {}: the pod's link is gone", key.prefix)),
                }
            }
            // Who asked may have given up; then nobody is told.
            drop(waiting.reply.try_send(outcome));
            false
        });
    }

    fn obey(&mut self, command: Command) {
        let (links, reconciler) = self.driver.parts();
        match command {
            Command::Plan(plan) => {
                self.state.set_plan(plan, reconciler);
                self.driver.watch(self.state.watched());
            }
            Command::Paths(speaker, paths) => {
                self.state.new_paths();
                self.paths = Some(paths);
                self.speaker = Some(speaker);
            }
            Command::EndpointUp(endpoint, reply) => {
                let keys = self.state.endpoint_up(endpoint, reconciler);
                self.waiting.push(Waiting { keys, reply });
            }
            Command::EndpointDown(endpoint) => {
                self.state.endpoint_down(endpoint.link, reconciler);
            }
            Command::Endpoints(endpoints) => self.state.set_endpoints(endpoints, reconciler),
            // Who asked may be gone.
            Command::View(reply) => drop(reply.send(self.state.view(links, reconciler))),
            Command::Numbers(reply) => drop(reply.send(self.numbers())),
            Command::Ways(reply) => drop(reply.send(Ways {
                devices: self.tunnels.status(links),
                ways: self.state.ways(links, &self.tunnels),
                links: names(links),
            })),
            Command::Unreachable(reply) => drop(reply.send(self.state.unreachable())),
            Command::Stop => {}
        }
    }

    fn told(&mut self, told: Result<(), bgp_net::Error>) {
        match told {
            Ok(()) => self.state.next_hops_sent(),
            // Its feed ends too, in a moment.
            Err(_) => self.speaker = None,
        }
    }

    fn numbers(&self) -> Numbers {
        let last_error = self.last_error.as_ref();
        Numbers {
            tunnels: self.tunnels.status(self.driver.links()),
            last_error: last_error.map(|(at, message)| (at.elapsed(), message.clone())),
            ..self.state.numbers(&self.driver.reconciler)
        }
    }

    fn learn(&mut self, feed: Option<bgp_net::RouteFeed>) {
        let (links, reconciler) = self.driver.parts();
        match feed {
            Some(bgp_net::RouteFeed::Changes(changes)) => {
                self.state.set_paths(changes, links, reconciler);
            }
            Some(bgp_net::RouteFeed::Synced) => {
                info!(
                    "the speaker knows all it can: what an earlier margayd left and nobody wants goes"
                );
                self.state.paths_synced(reconciler);
            }
            Some(bgp_net::RouteFeed::NextHops(news)) => {
                self.state.next_hop_news(news);
                self.driver.watch(self.state.watched());
            }
            Some(bgp_net::RouteFeed::NextHopsTaken(times)) => {
                self.state.next_hops_taken(times, reconciler);
            }
            // The speaker ended; what it said last stays.
            None => {
                self.paths = None;
                self.speaker = None;
                self.state.paths_ended(reconciler);
            }
        }
    }
}

/// The plainer kind will do where the kernel does not know the other, and none where it knows neither.
fn use_groups(driver: &mut Driver, kind: GroupKind) -> Result<(), netlink::Error> {
    if driver.use_groups(kind)? {
        return Ok(());
    }
    if kind != GroupKind::HashThreshold && driver.use_groups(GroupKind::HashThreshold)? {
        warn!("this kernel has no resilient nexthop groups (Linux 5.13 has): using plain ones");
        return Ok(());
    }
    info!(
        "this kernel has no nexthop groups (Linux 5.3 has): each route has its next hops in itself"
    );
    Ok(())
}

/// Waits until the kernel has something to say. Cancel safe.
async fn readable(kernel: &AsyncFd<OwnedFd>) {
    // Readiness is told once for each arrival, and a read has a bound: only a descriptor that is empty is waited on.
    while let Ok(mut guard) = kernel.readable().await {
        let mut descriptor = [PollFd::new(guard.get_inner(), PollFlags::IN)];
        if rustix::event::poll(&mut descriptor, Some(&Timespec::default())) != Ok(0) {
            return;
        }
        guard.clear_ready();
    }
}

/// Tells the speaker what it wants to know of next hops. Cancel safe.
async fn tell(
    speaker: Option<&bgp_net::Handle>,
    costs: Vec<(std::net::IpAddr, Option<u32>)>,
) -> Result<(), bgp_net::Error> {
    match speaker {
        Some(speaker) => speaker.set_next_hops(costs).await,
        None => std::future::pending().await,
    }
}

async fn next(paths: &mut Option<bgp_net::Routes>) -> Option<bgp_net::RouteFeed> {
    match paths {
        Some(paths) => paths.recv().await,
        None => std::future::pending().await,
    }
}

/// Why there is no tunnel, and what would help.
fn refusal(kind: TunnelKind, error: &netlink::Error) -> String {
    let device = kind.device();
    if netlink::tunnel::is_unsupported(error) {
        let module = match kind {
            TunnelKind::Ipip => "ipip",
            TunnelKind::Ip6ip6 => "ip6_tunnel",
        };
        return format!(
            "{device}: this kernel has no driver for it, not even as a module ({module}): install the module, or write ipipMode: Never"
        );
    }
    format!("{device}: {error}")
}

fn names(links: &Links) -> BTreeMap<LinkIndex, String> {
    let named = links.links.values();
    named.map(|link| (link.index, link.name.clone())).collect()
}

fn describe(op: &Op) -> String {
    match op {
        Op::AddRoute(key, _) => format!("add route {}", key.prefix),
        Op::ReplaceRoute(key, _) => format!("replace route {}", key.prefix),
        Op::DeleteRoute(key, _) => format!("delete route {}", key.prefix),
        Op::SetNeighbour(key, _) => format!("set neighbour {}", key.address),
        Op::DeleteNeighbour(key) => format!("delete neighbour {}", key.address),
        Op::AddObject(id, object) => format!("add {} {id}", describe_object(object)),
        Op::ReplaceObject(id, object) => format!("replace {} {id}", describe_object(object)),
        Op::DeleteObject(id) => format!("delete nexthop {id}"),
    }
}

fn describe_object(object: &Object) -> String {
    match object {
        Object::Hop(hop) => match hop.via {
            Some(via) => format!("nexthop {via} (link {})", hop.link),
            None => format!("nexthop on link {}", hop.link),
        },
        Object::Group(group) => {
            let members: Vec<_> = group.members.iter().map(ToString::to_string).collect();
            format!("nexthop group {}", members.join("/"))
        }
    }
}

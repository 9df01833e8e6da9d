//! Tells the API server how the node is: its NodeStatus, the taint and the condition that keep pods away until it serves,
//! and events when sessions come and go.
//!
//! Nothing waits for this, and an API server that can't be reached costs nothing but the report.

mod tunnels;
mod view;

use std::time::Duration;

use api::SessionState;
use cluster::error::Fault;
use cluster::pace::{Difference, Pace};
use cluster::{OwnNode, Reporter};
use jiff::Timestamp;
use resources::node_status::TunnelStatus;
use resources::{Kind, NodeStatusStatus};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::control::Agent;
use crate::readiness::Readiness;
use crate::server;

/// How often the agent looks at itself.
const LOOK: Duration = Duration::from_secs(1);
/// How often it looks at tunnels: that is a walk over all learned prefixes.
const TUNNELS: Duration = Duration::from_secs(10);
/// Events in one look. More than that is one thing that happened, and NodeStatus shows it.
const EVENTS: usize = 5;

/// The task. It ends with the runtime.
pub(crate) async fn run(agent: Agent, reporter: Reporter, own: watch::Receiver<Option<OwnNode>>) {
    let mut task = Task {
        agent,
        reporter,
        own,
        written: None,
        owner: None,
        pace: Pace::new(Instant::now(), fastrand::f64),
        readiness: Readiness::default(),
        tunnels: None,
        tunnels_due: Instant::now(),
        sessions: None,
        fault: None,
    };
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        task.look().await;
    }
}

struct Task {
    agent: Agent,
    reporter: Reporter,
    own: watch::Receiver<Option<OwnNode>>,
    written: Option<NodeStatusStatus>,
    /// The Node that the NodeStatus was made for.
    owner: Option<String>,
    pace: Pace,
    readiness: Readiness,
    tunnels: Option<TunnelStatus>,
    /// When to look at them again.
    tunnels_due: Instant,
    /// Peers with a session, at the last look.
    sessions: Option<Vec<(api::Peer, bool)>>,
    /// What was wrong with the last report: said once.
    fault: Option<Fault>,
}

impl Task {
    async fn look(&mut self) {
        let Some((status, peers)) = server::snapshot(&self.agent).await else {
            return;
        };
        self.readiness = self.agent.readiness(&status, &peers);
        let own = self.own.borrow().clone();
        let mut outcomes = Vec::new();
        if let Some(own) = &own {
            outcomes.extend(self.let_pods_in(own).await);
            outcomes.extend(self.tell_of_sessions(own, peers.clone()).await);
        }
        let usage = self.agent.pods.usage();
        let now = Timestamp::now();
        let mut new = view::status(&status, &peers, &usage, &self.readiness, now);
        self.look_at_tunnels(&status).await;
        new.summary.tunnels = self.tunnels.as_ref().map(tunnels::summary);
        new.tunnels.clone_from(&self.tunnels);
        if let Some(written) = &self.written {
            view::keep_times(&mut new, written);
        }
        outcomes.extend(self.write(&status, new, own.as_ref()).await);
        self.complain(outcomes);
    }

    async fn look_at_tunnels(&mut self, status: &api::Status) {
        if status.tunnels.is_empty() {
            self.tunnels = None;
        } else if self.tunnels_due <= Instant::now() {
            self.tunnels_due = Instant::now() + TUNNELS;
            let seen = server::wanted_tunnels(&self.agent).await;
            self.tunnels = seen.as_ref().and_then(tunnels::status);
        }
    }

    async fn write(
        &mut self,
        status: &api::Status,
        new: NodeStatusStatus,
        own: Option<&OwnNode>,
    ) -> Option<Result<(), Fault>> {
        let owner = own.map(|own| own.uid.as_str());
        let difference = match &self.written {
            Some(_) if self.owner.as_deref() != owner => Difference::State,
            Some(written) => view::difference(&new, written),
            None => Difference::State,
        };
        let node = Kind::Node.name();
        let mut files = status.config.files.iter();
        let nodes = files
            .find(|file| file.name == node)
            .map_or(1, |file| file.objects);
        let nodes = usize::try_from(nodes).unwrap_or(usize::MAX);
        if !self.pace.is_due(difference, nodes, Instant::now()) {
            return None;
        }
        // The object itself is written for another Node only, or for the first time.
        let owner = owner.filter(|owner| self.owner.as_deref() != Some(owner));
        let outcome = self.reporter.status(&new, owner).await;
        self.pace.written(Instant::now());
        if outcome.is_ok() {
            self.written = Some(new);
            self.owner = owner.map(ToOwned::to_owned).or_else(|| self.owner.take());
        }
        Some(outcome)
    }

    /// Opens the node to pods, as long as it says that it is closed.
    async fn let_pods_in(&self, own: &OwnNode) -> Vec<Result<(), Fault>> {
        let message = match &self.readiness {
            Readiness::Served => "Routes to and from this node's pods are there".to_owned(),
            Readiness::TimedOut { reason, .. } => {
                let limit = self.agent.gate.limit().as_secs();
                format!("Not waiting any longer than {limit} s: {reason}")
            }
            Readiness::Waiting(_) | Readiness::Unknown => return Vec::new(),
        };
        let mut outcomes = Vec::new();
        if own.network_unavailable.as_deref() != Some("False") {
            let now = Timestamp::now();
            outcomes.push(
                self.reporter
                    .network_available(&message, &view::moment(now))
                    .await,
            );
            info!("the node's network is available: {message}");
        }
        if own.tainted {
            outcomes.push(self.reporter.remove_taint().await);
            info!("took the taint {} away: {message}", cluster::TAINT);
        }
        outcomes
    }

    /// Has events for sessions with peers that somebody configured. Those of a mesh are too many: one node's end would be
    /// an event on every other.
    async fn tell_of_sessions(
        &mut self,
        own: &OwnNode,
        peers: Vec<api::Peer>,
    ) -> Vec<Result<(), Fault>> {
        let up = |peer: &api::Peer| peer.state == SessionState::Established;
        let configured = peers
            .into_iter()
            .filter(|peer| peer.origin.starts_with("BGPPeer/"));
        let new: Vec<_> = configured.map(|peer| (peer.clone(), up(&peer))).collect();
        let mut outcomes = Vec::new();
        for (old, was_up) in self.sessions.take().unwrap_or_default() {
            let Some((peer, is_up)) = new.iter().find(|(peer, _)| peer.address == old.address)
            else {
                continue;
            };
            if *is_up == was_up || outcomes.len() >= EVENTS {
                continue;
            }
            let (reason, note) = view::event(peer, *is_up);
            outcomes.push(self.reporter.event(own, *is_up, reason, note).await);
        }
        self.sessions = Some(new);
        outcomes
    }

    fn complain(&mut self, outcomes: Vec<Result<(), Fault>>) {
        for outcome in outcomes {
            match outcome {
                Ok(()) if self.fault.take().is_some() => {
                    info!("the API server takes reports again")
                }
                Ok(()) => {}
                Err(fault) if self.fault.as_ref() == Some(&fault) => {}
                Err(fault) => {
                    let (Fault::Unreachable(message) | Fault::Refused { message, .. }) = &fault;
                    warn!("the API server doesn't take a report on this node: {message}");
                    self.fault = Some(fault);
                }
            }
        }
    }
}

//! Whether the node serves, and whom it waits for: the probe's answer, NodeStatus and the Node's condition say the same.
//!
//! It serves once the routes of all peers were in the kernel, with a session if there are peers; that counts for good. The
//! wait has a limit: after that a node with some routes is better than one without pods.

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use api::{Direction, SessionState};

/// Peers that a line names.
const NAMED: usize = 3;

/// Whether pods may come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not yet, for this reason.
    Waiting(String),
    /// The routes are there.
    Served,
    /// They are not, and the time for that is over.
    TimedOut {
        /// What is missing.
        reason: String,
        /// No session is up, and there are peers.
        alone: bool,
    },
    /// Nothing is known yet.
    #[default]
    Unknown,
}

/// Looks at the node, and remembers that it served, or since when that is waited for.
#[derive(Debug)]
pub(crate) struct Gate {
    limit: Duration,
    past: Mutex<Past>,
}

#[derive(Debug, Default)]
struct Past {
    served: bool,
    /// Since when there is a speaker.
    since: Option<Instant>,
}

impl Gate {
    /// Waits for `limit` at most.
    pub(crate) fn new(limit: Duration) -> Self {
        let past = Mutex::default();
        Self { limit, past }
    }

    /// For how long routes are waited for.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether pods may come. `gives`: an IPPool gives addresses on this node; it has a block with the first pod only.
    pub(crate) fn look(
        &self,
        status: &api::Status,
        peers: &[api::Peer],
        gives: bool,
        now: Instant,
    ) -> Readiness {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.served {
            return Readiness::Served;
        }
        let Some(bgp) = &status.bgp else {
            let why = status.speaker_error.as_ref();
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            return Readiness::Waiting(format!("there is no BGP speaker{why}"));
        };
        if status.pod_cidrs.is_empty() && !gives {
            let reason = "this node has no pod CIDR, and no IPPool gives addresses on it";
            return Readiness::Waiting(reason.to_owned());
        }
        let alone = bgp.peers > 0 && bgp.established == 0;
        if !alone && bgp.synced && status.kernel.synced {
            past.served = true;
            return Readiness::Served;
        }
        let since = *past.since.get_or_insert(now);
        let reason = match alone || !bgp.synced {
            true => missing_routes(peers, alone),
            false => missing_from_kernel(&status.kernel),
        };
        match now.saturating_duration_since(since) < self.limit {
            true => Readiness::Waiting(reason),
            false => Readiness::TimedOut { reason, alone },
        }
    }
}

fn missing_from_kernel(kernel: &api::KernelStatus) -> String {
    let there = kernel.ok + kernel.shadowed;
    let outstanding = kernel.desired - there.min(kernel.desired);
    let why = kernel.last_error.as_ref();
    let why = why.map_or_else(String::new, |error| format!(": {}", error.message));
    format!("{outstanding} routes wait for the kernel{why}")
}

/// Whose routes are missing, and why.
fn missing_routes(peers: &[api::Peer], alone: bool) -> String {
    let mut missing: Vec<_> = peers.iter().filter(|peer| !has_told(peer)).collect();
    missing.sort_by_key(|peer| (is_up(peer), peer.address));
    if missing.is_empty() {
        return "the routes of all peers are there, but others may be missing: an object has an error, or not all is \
                known of the configuration"
            .to_owned();
    }
    let count = missing.len();
    let what = match alone {
        true => "no session is up: ".to_owned(),
        false => format!(
            "the routes of {count} of {} peers are missing: ",
            peers.len()
        ),
    };
    let (named, rest) = missing.split_at(count.min(NAMED));
    let named: Vec<String> = named.iter().map(|peer| peer_text(peer)).collect();
    let rest = match rest.len() {
        0 => String::new(),
        rest => format!("; and {rest} more"),
    };
    format!("{what}{}{rest}", named.join("; "))
}

fn has_told(peer: &api::Peer) -> bool {
    is_up(peer) && peer.synced
}

/// Whether there is a session with it.
pub(crate) fn is_up(peer: &api::Peer) -> bool {
    peer.state == SessionState::Established
}

/// `192.0.2.1 (BGPPeer/tor-a) is Active, Connection refused`.
fn peer_text(peer: &api::Peer) -> String {
    let why = match (is_up(peer), &peer.halted) {
        (true, _) => Some("but has not sent End-of-RIB".to_owned()),
        (false, Some(halted)) => Some(halted.clone()),
        (false, None) => error(peer).map(fault_text),
    };
    let why = why.map_or_else(String::new, |why| format!(", {why}"));
    format!("{} ({}) is {}{why}", peer.address, peer.origin, peer.state)
}

/// Why a session is down, or went down last.
pub(crate) fn error(peer: &api::Peer) -> Option<&api::SessionError> {
    peer.last_attempt.as_ref().or(peer.last_error.as_ref())
}

/// An error with its direction.
pub(crate) fn fault_text(error: &api::SessionError) -> String {
    match error.direction {
        Direction::Sent => format!("sent {}", error.message),
        Direction::Received => format!("received {}", error.message),
        Direction::Connection => error.message.clone(),
    }
}

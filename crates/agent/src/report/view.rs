//! What the agent knows of itself, as the API server is told.

#[cfg(test)]
mod tests;

use api::{SessionState, Severity};
use cluster::pace::Difference;
use jiff::Timestamp;
use resources::NodeStatusStatus;
use resources::node_status::{
    RangeStatus, RouteStatus, SessionFault, SessionStatus, StatusCondition, Summary,
};

use crate::readiness::{Readiness, error, fault_text, is_up};

/// Sessions that are listed. Beyond that the object would grow too large for what is written so often: those that are down
/// come first.
const SESSIONS: usize = 200;
/// Problems that are listed.
const PROBLEMS: usize = 16;
/// Peers that a line names.
const NAMED: usize = 3;
/// Times that differ by less are one: each is counted back from the present.
const SAME: i64 = 2;

/// A moment, RFC 3339 with whole seconds.
pub(super) fn moment(time: Timestamp) -> String {
    let rounded = Timestamp::from_second(time.as_second()).unwrap_or(time);
    rounded.to_string()
}

/// The node's status at this moment.
pub(super) fn status(
    status: &api::Status,
    peers: &[api::Peer],
    usage: &[ipam::Usage],
    readiness: &Readiness,
    now: Timestamp,
) -> NodeStatusStatus {
    let bgp = status.bgp.as_ref();
    let kernel = &status.kernel;
    let mut sorted: Vec<&api::Peer> = peers.iter().collect();
    sorted.sort_by_key(|peer| (is_up(peer), peer.address));
    let worst = sorted.iter().find(|peer| !is_up(peer));
    let problems = status.config.problems.iter();
    let established = bgp.map_or(0, |bgp| bgp.established);
    let configured = bgp.map_or(0, |bgp| bgp.peers);
    NodeStatusStatus {
        version: status.version.clone(),
        as_number: bgp.map(|bgp| bgp.asn),
        router_id: bgp.map(|bgp| bgp.router_id.to_string()),
        pods: status.endpoints,
        summary: Summary {
            sessions: format!("{established}/{configured}"),
            routes: format!("{}/{}", kernel.ok, kernel.desired),
            tunnels: None,
            down: down(peers),
            last_error: worst.and_then(|peer| Some(fault_text(error(peer)?))),
        },
        sessions: sorted.into_iter().take(SESSIONS).map(session).collect(),
        ranges: usage.iter().map(range).collect(),
        routes: RouteStatus {
            desired: kernel.desired,
            installed: kernel.ok,
            shadowed: kernel.shadowed,
            unresolved: kernel.unresolved,
        },
        tunnels: None,
        problems: problems.take(PROBLEMS).map(problem).collect(),
        conditions: conditions(status, peers, readiness, &moment(now)),
    }
}

/// The peers whose session is down.
fn down(peers: &[api::Peer]) -> Option<String> {
    let down: Vec<String> = peers
        .iter()
        .filter(|peer| !is_up(peer))
        .map(|peer| peer.address.to_string())
        .collect();
    let (named, rest) = down.split_at(down.len().min(NAMED));
    match (named, rest.len()) {
        ([], _) => None,
        (named, 0) => Some(named.join(", ")),
        (named, rest) => Some(format!("{} and {rest} more", named.join(", "))),
    }
}

fn session(peer: &api::Peer) -> SessionStatus {
    SessionStatus {
        peer: peer.address.to_string(),
        as_number: peer.asn,
        origin: peer.origin.clone(),
        state: peer.state.to_string(),
        since: peer.since.clone(),
        received: peer.prefixes.received,
        accepted: peer.prefixes.accepted,
        advertised: peer.prefixes.advertised,
        last_error: error(peer).map(|error| SessionFault {
            message: error.message.clone(),
            direction: format!("{:?}", error.direction),
            time: error.time.clone(),
        }),
    }
}

fn range(usage: &ipam::Usage) -> RangeStatus {
    RangeStatus {
        cidr: usage.cidr.to_string(),
        used: u64::try_from(usage.used).unwrap_or(u64::MAX),
        // More than JSON's numbers hold is without number for every purpose.
        size: u64::try_from(usage.total)
            .ok()
            .filter(|size| *size < 1 << 53),
    }
}

fn problem(problem: &api::Problem) -> String {
    let object = problem.object.as_ref().map(|object| format!("{object}: "));
    let field = problem.field.as_ref().map(|field| format!("{field}: "));
    [object.as_deref(), field.as_deref(), Some(&problem.message)]
        .into_iter()
        .flatten()
        .collect()
}

fn conditions(
    status: &api::Status,
    peers: &[api::Peer],
    readiness: &Readiness,
    now: &str,
) -> Vec<StatusCondition> {
    let condition = |kind: &str, good: bool, reason: &str, message: String| StatusCondition {
        kind: kind.to_owned(),
        status: if good { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.chars().take(1000).collect(),
        last_transition_time: now.to_owned(),
    };
    let (ready, reason, message) = match readiness {
        Readiness::Served => (true, "Served", String::new()),
        Readiness::TimedOut { reason: why, .. } => (true, "TimedOut", why.clone()),
        Readiness::Waiting(why) => (false, "Waiting", why.clone()),
        Readiness::Unknown => (false, "Starting", String::new()),
    };
    let down = down(peers);
    let kernel = &status.kernel;
    let mut errors = status.config.problems.iter();
    let fault = errors.find(|problem| problem.severity == Severity::Error);
    let there = kernel.ok + kernel.shadowed;
    let outstanding = kernel.desired - there.min(kernel.desired);
    vec![
        condition("Ready", ready, reason, message),
        condition(
            "SessionsEstablished",
            down.is_none(),
            if down.is_none() { "AllUp" } else { "SomeDown" },
            down.map(|down| format!("down: {down}")).unwrap_or_default(),
        ),
        condition(
            "RoutesInstalled",
            outstanding == 0 && kernel.shadowed == 0,
            match (outstanding, kernel.shadowed) {
                (0, 0) => "AllInstalled",
                (0, _) => "SomeShadowed",
                _ => "SomeMissing",
            },
            match (&kernel.last_error, outstanding, kernel.shadowed) {
                (_, 0, 0) => String::new(),
                (_, 0, shadowed) => format!(
                    "packets of {shadowed} routes take another program's of a lower metric: `margayctl routes` names them"
                ),
                (error, ..) => error
                    .as_ref()
                    .map_or_else(String::new, |it| it.message.clone()),
            },
        ),
        condition(
            "ConfigurationAccepted",
            fault.is_none(),
            if fault.is_none() {
                "Accepted"
            } else {
                "Faulty"
            },
            fault.map(problem).unwrap_or_default(),
        ),
    ]
}

/// Takes times over from what was written, where nothing has happened since.
pub(super) fn keep_times(new: &mut NodeStatusStatus, written: &NodeStatusStatus) {
    for session in &mut new.sessions {
        let Some(old) = written.sessions.iter().find(|old| old.peer == session.peer) else {
            continue;
        };
        if same_time(session.since.as_deref(), old.since.as_deref()) {
            session.since.clone_from(&old.since);
        }
        if let (Some(new), Some(old)) = (&mut session.last_error, &old.last_error)
            && same_time(new.time.as_deref(), old.time.as_deref())
        {
            new.time.clone_from(&old.time);
        }
    }
    for condition in &mut new.conditions {
        let mut old = written.conditions.iter();
        if let Some(old) =
            old.find(|old| old.kind == condition.kind && old.status == condition.status)
        {
            condition
                .last_transition_time
                .clone_from(&old.last_transition_time);
        }
    }
}

fn same_time(a: Option<&str>, b: Option<&str>) -> bool {
    let parse = |text: Option<&str>| text?.parse::<Timestamp>().ok();
    let (Some(a), Some(b)) = (parse(a), parse(b)) else {
        return false;
    };
    (a.as_second() - b.as_second()).abs() <= SAME
}

/// What a new status has that the one written last had not.
pub(super) fn difference(new: &NodeStatusStatus, written: &NodeStatusStatus) -> Difference {
    if new == written {
        return Difference::None;
    }
    match without_counts(new) == without_counts(written) {
        true => Difference::Counts,
        false => Difference::State,
    }
}

fn without_counts(status: &NodeStatusStatus) -> NodeStatusStatus {
    let mut status = status.clone();
    (status.pods, status.routes) = (0, RouteStatus::default());
    status.summary.routes.clear();
    // One more that is tunnelled is as good as a count, on every node of the cluster; one that fails is not.
    status.summary.tunnels = None;
    if let Some(tunnels) = &mut status.tunnels {
        tunnels.tunnelled = 0;
        tunnels.next_hops.retain(|hop| !hop.tunnelled);
    }
    status.tunnels = status.tunnels.filter(|tunnels| tunnels.failed > 0);
    status.ranges.iter_mut().for_each(|range| range.used = 0);
    // It says where the sessions stand that are waited for.
    for condition in &mut status.conditions {
        if condition.kind == "Ready" {
            condition.message.clear();
        }
    }
    for session in &mut status.sessions {
        (session.received, session.accepted, session.advertised) = (0, 0, 0);
        // A peer that is away is tried again and again, and passes through the states of RFC 4271 on the way.
        if session.state != SessionState::Established.to_string() {
            session.state.clear();
            session.since = None;
            if let Some(error) = &mut session.last_error {
                error.time = None;
            }
        }
    }
    status
}

/// The reason and the note of an event.
pub(super) fn event(peer: &api::Peer, is_up: bool) -> (&'static str, String) {
    let who = format!("{} (AS {}, {})", peer.address, peer.asn, peer.origin);
    if is_up {
        return (
            "SessionEstablished",
            format!("BGP session with {who} is up"),
        );
    }
    let why = peer.last_error.as_ref().map(fault_text);
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    (
        "SessionLost",
        format!("BGP session with {who} is lost{why}"),
    )
}

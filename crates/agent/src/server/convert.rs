//! Inner values to those of the API.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{
    Direction, GracefulRestart, Hop, KernelRoute, KernelRouteKind, KernelRouteState, MessageCounts,
    Messages, PeerKind, PodName, PrefixCounts, SessionError, SessionState, Target, Timers,
};
use bgp::rib::Memory;
use bgp::session;
use bgp::view::{LastError, PeerStatus};
use bgp_net::Md5Drops;
use bgp_wire::Capability;
use dataplane::{LinkIndex, Route, RouteKind, RouteState, RouteStatus};
use ipnet::IpNet;
use jiff::Timestamp;
use node::NodePlan;

use crate::control::Agent;
use crate::fib::{Numbers, View};
use crate::pods::Endpoint;

/// A moment some time ago, RFC 3339 with whole seconds.
fn moment(ago: Duration) -> String {
    let seconds = Timestamp::now().as_second() - i64::try_from(ago.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |moment| moment.to_string())
}

/// A problem of the configuration.
#[must_use]
pub fn problem(problem: resources::Problem) -> api::Problem {
    api::Problem {
        severity: match problem.severity {
            resources::Severity::Error => api::Severity::Error,
            resources::Severity::Warning => api::Severity::Warning,
        },
        source: problem.source,
        line: problem.line,
        object: problem.object.map(|object| object.to_string()),
        field: Some(problem.field).filter(|field| !field.is_empty()),
        message: problem.message,
    }
}

/// Our nftables table.
fn firewall(status: crate::firewall::Status) -> api::FirewallStatus {
    api::FirewallStatus {
        rules: status.rules,
        healed: status.healed,
        error: status.error,
    }
}

/// How the agent is.
#[must_use]
pub fn status(
    agent: &Agent,
    speaker: Option<&(Vec<PeerStatus>, Memory)>,
    numbers: &Numbers,
) -> api::Status {
    let state = agent.state.borrow();
    let uptime = agent.started_at.elapsed();
    let kernel = numbers.summary;
    api::Status {
        node: agent.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: moment(uptime),
        uptime_seconds: uptime.as_secs(),
        config: api::ConfigStatus {
            problems: agent.problems(),
            ..state.config.clone()
        },
        bgp: state
            .plan
            .as_ref()
            .zip(speaker)
            .map(|(plan, (peers, memory))| {
                let up = |peer: &&PeerStatus| peer.state == session::State::Established;
                api::BgpStatus {
                    asn: plan.speaker.asn,
                    router_id: plan.speaker.router_id,
                    listen_port: plan.listen_port,
                    peers: peers.len() as u64,
                    established: peers.iter().filter(up).count() as u64,
                    synced: numbers.paths_synced,
                    prefixes: memory.nets as u64,
                    paths: memory.paths as u64,
                    originated: plan.speaker.originated.len() as u64,
                }
            }),
        speaker_error: state.speaker_error.clone(),
        pod_cidrs: state
            .plan
            .as_ref()
            .map(|plan| plan.pod_cidrs.clone())
            .unwrap_or_default(),
        kernel: api::KernelStatus {
            synced: numbers.idle,
            desired: (kernel.ok + kernel.shadowed + kernel.missing + kernel.wrong + kernel.foreign)
                as u64,
            ok: kernel.ok as u64,
            shadowed: kernel.shadowed as u64,
            missing: kernel.missing as u64,
            wrong: kernel.wrong as u64,
            foreign: kernel.foreign as u64,
            leftover: kernel.leftover as u64,
            unresolved: numbers.unresolved as u64,
            last_error: numbers
                .last_error
                .as_ref()
                .map(|(age, message)| api::KernelError {
                    message: message.clone(),
                    seconds_ago: age.as_secs(),
                }),
        },
        firewall: firewall(agent.firewall.status()),
        tunnels: numbers.tunnels.iter().map(super::tunnels::device).collect(),
        endpoints: agent.pods.endpoints().len() as u64,
    }
}

/// A peer and its session.
#[must_use]
pub fn peer(status: &PeerStatus, plan: &NodePlan, drops: Option<Md5Drops>) -> api::Peer {
    let config = plan.speaker.peers.get(&status.address);
    let negotiated = status.negotiated.as_ref();
    let whole = |duration: Duration| u16::try_from(duration.as_secs()).unwrap_or(u16::MAX);
    let hold = negotiated.map(|negotiated| whole(negotiated.hold_time));
    let sum = |count: fn(&bgp::view::FamilyStatus) -> usize| {
        status.families.iter().map(count).sum::<usize>() as u64
    };
    let stale = status
        .families
        .iter()
        .filter(|family| family.stale)
        .map(|family| family.received);
    let stale = stale.sum::<usize>() as u64;
    api::Peer {
        address: status.address,
        port: config.map_or(node::plan::DEFAULT_PORT, |config| config.port),
        asn: status.asn,
        local_asn: status.local_asn,
        kind: if status.asn == status.local_asn {
            PeerKind::Internal
        } else {
            PeerKind::External
        },
        origin: status.origin.clone(),
        passive: status.passive,
        range: status.dynamic,
        authentication: status.password.then(|| authentication(status, drops)),
        halted: status.halt.as_ref().map(ToString::to_string),
        state: session_state(status.state),
        since: Some(moment(status.state_age)),
        state_seconds: status.state_age.as_secs(),
        local_address: status.connection.map(|connection| connection.local.ip()),
        local_router_id: plan.speaker.router_id,
        router_id: negotiated.map(|negotiated| negotiated.router_id),
        timers: Timers {
            configured_hold_seconds: config.map_or(0, |config| whole(config.hold_time)),
            hold_seconds: hold,
            keepalive_seconds: negotiated.map(|negotiated| whole(negotiated.keepalive)),
        },
        graceful_restart: config
            .and_then(|config| config.graceful_restart)
            .map(|ours| {
                let theirs = negotiated.and_then(|negotiated| negotiated.graceful_restart);
                GracefulRestart {
                    our_seconds: whole(ours),
                    peer_seconds: theirs.map(whole),
                    helping: stale > 0 && status.state != session::State::Established,
                    stale,
                }
            }),
        families: status
            .families
            .iter()
            .map(|family| family.family.to_string())
            .collect(),
        capabilities: negotiated.map_or_else(Vec::new, |negotiated| {
            negotiated
                .peer_capabilities
                .iter()
                .map(capability)
                .collect()
        }),
        prefixes: PrefixCounts {
            received: sum(|family| family.received),
            accepted: sum(|family| family.accepted),
            advertised: sum(|family| family.advertised),
            limit: status.families.iter().find_map(|family| family.limit),
        },
        messages: messages(&status.counters),
        flaps: u64::from(status.flaps),
        synced: status.synced,
        last_error: status.last_error.as_ref().map(session_error),
        last_attempt: status.last_attempt.as_ref().map(session_error),
        next_retry_seconds: status.next_attempt.map(|wait| wait.as_secs()),
    }
}

/// The kernel doesn't say whose segments it drops, but while a session with a password is down they may well be its own.
fn authentication(status: &PeerStatus, drops: Option<Md5Drops>) -> String {
    match drops.filter(|drops| !drops.is_empty()) {
        Some(drops) if status.state != session::State::Established => {
            format!("TCP-MD5; the kernel has dropped, of all peers, {drops}")
        }
        _ => "TCP-MD5".to_owned(),
    }
}

fn messages(counters: &session::Counters) -> MessageCounts {
    MessageCounts {
        received: Messages {
            total: counters.messages_in,
            updates: counters.updates_in,
            notifications: counters.notifications_in,
        },
        sent: Messages {
            total: counters.messages_out,
            updates: counters.updates_out,
            notifications: counters.notifications_out,
        },
        malformed_updates: counters.update_faults_in,
    }
}

/// What happened, without whose doing it was.
fn what(ended: &session::Ended) -> String {
    match (&ended.notification, ended.detail.as_str()) {
        (Some(notification), "") => notification.to_string(),
        (Some(notification), detail) => format!("{notification} ({detail})"),
        (None, detail) => detail.to_owned(),
    }
}

fn session_error(error: &LastError) -> SessionError {
    SessionError {
        message: what(&error.ended),
        direction: match error.ended.direction {
            session::Direction::Sent => Direction::Sent,
            session::Direction::Received => Direction::Received,
            session::Direction::Local => Direction::Connection,
        },
        code: error
            .ended
            .notification
            .as_ref()
            .map(|message| (message.code, message.subcode)),
        time: Some(moment(error.age)),
        seconds_ago: error.age.as_secs(),
    }
}

/// The API's name of a state.
pub(crate) fn session_state(state: session::State) -> SessionState {
    match state {
        session::State::Idle => SessionState::Idle,
        session::State::Connect => SessionState::Connect,
        session::State::Active => SessionState::Active,
        session::State::OpenSent => SessionState::OpenSent,
        session::State::OpenConfirm => SessionState::OpenConfirm,
        session::State::Established => SessionState::Established,
    }
}

fn capability(capability: &Capability) -> String {
    match capability {
        Capability::Multiprotocol(family) => format!("multiprotocol {family}"),
        Capability::RouteRefresh => "route refresh".to_owned(),
        Capability::ExtendedNextHop(_) => "extended next hop".to_owned(),
        Capability::ExtendedMessage => "extended message".to_owned(),
        Capability::GracefulRestart(restart) => {
            format!("graceful restart {} s", restart.restart_time)
        }
        Capability::FourOctetAs(_) => "four-octet AS".to_owned(),
        Capability::EnhancedRouteRefresh => "enhanced route refresh".to_owned(),
        Capability::Unknown { code, .. } => UNUSED_CAPABILITIES
            .iter()
            .find(|(known, _)| known == code)
            .map_or_else(|| format!("code {code}"), |(_, name)| (*name).to_owned()),
    }
}

/// IANA's names of capabilities that peers announce and we make no use of.
const UNUSED_CAPABILITIES: [(u8, &str); 13] = [
    (3, "outbound route filtering"),
    (5, "extended next hop"),
    (6, "extended message"),
    (9, "BGP role"),
    (64, "graceful restart"),
    (65, "four-octet AS"),
    (67, "dynamic capability"),
    (69, "ADD-PATH"),
    (70, "enhanced route refresh"),
    (71, "long-lived graceful restart"),
    (73, "FQDN"),
    (75, "software version"),
    (128, "route refresh (Cisco)"),
];

/// Our kernel routes, and what there should be, by prefix.
#[must_use]
pub fn kernel_routes(view: &View) -> Vec<KernelRoute> {
    let pods: BTreeMap<IpNet, &Endpoint> = view
        .endpoints
        .values()
        .flat_map(|endpoint| {
            endpoint
                .addresses
                .iter()
                .map(move |address| (IpNet::from(*address), endpoint))
        })
        .collect();
    let mut routes: Vec<KernelRoute> = view
        .routes
        .iter()
        .map(|status| kernel_route(status, view, &pods))
        .collect();
    routes.extend(view.unresolved.iter().map(|(prefix, reason)| KernelRoute {
        prefix: *prefix,
        metric: node::learned_key(*prefix).priority,
        kind: KernelRouteKind::Learned,
        desired: None,
        kernel: None,
        state: KernelRouteState::Unresolved,
        error: Some(reason.clone()),
        pod: None,
    }));
    routes.sort_by_key(|route| (route.prefix, route.metric));
    routes
}

fn kernel_route(
    status: &RouteStatus,
    view: &View,
    pods: &BTreeMap<IpNet, &Endpoint>,
) -> KernelRoute {
    let pod = pods.get(&status.key.prefix);
    let kind = if status.desired.is_none() {
        KernelRouteKind::Unknown
    } else if view.static_keys.contains(&status.key) {
        KernelRouteKind::Blackhole
    } else if pod.is_some() {
        KernelRouteKind::Pod
    } else {
        KernelRouteKind::Learned
    };
    KernelRoute {
        prefix: status.key.prefix,
        metric: status.key.priority,
        kind,
        desired: status
            .desired
            .as_ref()
            .map(|route| target(route, &view.links)),
        kernel: status.actual.as_ref().map(|route| Target {
            group: status.object,
            ..target(route, &view.links)
        }),
        state: match status.state {
            RouteState::Ok => KernelRouteState::Ok,
            RouteState::Shadowed => KernelRouteState::Shadowed,
            RouteState::Missing => KernelRouteState::Missing,
            RouteState::Wrong => KernelRouteState::Wrong,
            RouteState::Foreign => KernelRouteState::Foreign,
            RouteState::Leftover => KernelRouteState::Leftover,
        },
        error: reason(status, &view.links),
        pod: pod.and_then(|endpoint| pod_name(endpoint)),
    }
}

/// Why a route is not as it should be, and whose stands before it or in its place.
fn reason(status: &RouteStatus, links: &BTreeMap<LinkIndex, String>) -> Option<String> {
    let rival = status.rival.as_ref();
    let rival = rival.map(|rival| rival.describe(|link| link_name(link, links)));
    match (rival, status.state) {
        (Some(rival), RouteState::Shadowed) => Some(format!("packets take {rival}")),
        (Some(rival), _) => Some(format!("{rival}, has this place")),
        (None, _) => status.reason.clone(),
    }
}

fn link_name(link: LinkIndex, links: &BTreeMap<LinkIndex, String>) -> String {
    let name = links.get(&link);
    name.map_or_else(|| format!("if{link}"), String::clone)
}

fn target(route: &Route, links: &BTreeMap<LinkIndex, String>) -> Target {
    let hops = route.next_hops.iter().map(|hop| Hop {
        via: hop.via,
        dev: Some(link_name(hop.link, links)),
    });
    Target {
        blackhole: route.kind == RouteKind::Blackhole,
        next_hops: hops.collect(),
        group: None,
    }
}

fn pod_name(endpoint: &Endpoint) -> Option<PodName> {
    let (namespace, name) = endpoint.pod.clone()?;
    Some(PodName { namespace, name })
}

/// A pod's attachment.
#[must_use]
pub fn endpoint(endpoint: Endpoint) -> api::Endpoint {
    let mac: Vec<String> = endpoint
        .mac
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    api::Endpoint {
        pod: pod_name(&endpoint),
        container_id: endpoint.container_id,
        ifname: endpoint.ifname,
        host_ifname: endpoint.host_ifname,
        addresses: endpoint.addresses,
        mac: mac.join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_go_by_their_names() {
        let unknown = |code| {
            capability(&Capability::Unknown {
                code,
                value: Vec::new(),
            })
        };
        assert_eq!(unknown(71), "long-lived graceful restart");
        assert_eq!(unknown(73), "FQDN");
        assert_eq!(unknown(128), "route refresh (Cisco)");
        assert_eq!(unknown(250), "code 250");
        assert_eq!(capability(&Capability::RouteRefresh), "route refresh");
    }
}

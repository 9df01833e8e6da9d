//! `status`: the node at a glance, then what needs attention, worst first.

use api::{BgpStatus, Peers, Problem, Severity, Status, TunnelState};

use super::{Page, peers};
use crate::run::{Answer, Style};
use crate::table::{Tone, paint};
use crate::text::{count, count_is, duration};

/// What the kernel refuses is tried again at most 30 seconds apart: what was refused longer ago than this many seconds
/// has gone well since, or is no longer wanted.
const RETRIED: u64 = 60;

/// Whether nothing needs attention, as far as the status alone says.
pub(crate) fn is_well(status: &Status) -> bool {
    let sessions = status
        .bgp
        .as_ref()
        .is_some_and(|bgp| bgp.established >= bgp.peers);
    let plain = Style {
        wide: false,
        colour: false,
    };
    sessions && of_this_node(status, plain).is_empty()
}

pub(crate) fn show(status: &Status, peers: &Peers, style: Style) -> Answer {
    let mut page = Page::default();
    match &status.bgp {
        Some(bgp) => {
            page.line("Sessions", sessions(bgp, style));
            page.line(
                "Speaker",
                format!(
                    "AS {}, router id {}, port {}",
                    bgp.asn, bgp.router_id, bgp.listen_port
                ),
            );
            page.line("Routes", routes(bgp));
        }
        None => page.line(
            "Sessions",
            paint("none: the speaker is not running", Tone::Bad, style.colour),
        ),
    }
    page.line("Kernel", kernel(status, style));
    page.line("Tunnels", tunnels(status, style));
    let waiting = waiting(status, peers);
    page.line("Waiting", waiting.clone());
    page.line("Pods", pods(status));
    page.line("Config", config(status, style));
    let up = duration(status.uptime_seconds);
    let mut text = format!(
        "Node {}: margayd {}, up {up}\n{}",
        status.node,
        status.version,
        page.render()
    );
    let attention = attention(status, peers, style);
    match (attention.is_empty(), waiting.is_empty()) {
        (true, true) => text += "\nNothing needs attention.\n",
        (true, false) => text += "\nNothing needs attention, but not all is done: see Waiting.\n",
        (false, _) => text += "\nNeeds attention:\n",
    }
    for line in &attention {
        text += &format!("  - {line}\n");
    }
    Answer {
        text,
        well: attention.is_empty(),
    }
}

/// What has to happen before an earlier agent's routes can go.
fn waiting(status: &Status, peers: &Peers) -> String {
    let left = match status.kernel.leftover {
        0 => String::new(),
        1 => "; until then 1 left-over route stays".to_owned(),
        left => format!("; until then {left} left-over routes stay"),
    };
    let Some(bgp) = &status.bgp else {
        return match status.kernel.leftover {
            0 => String::new(),
            _ => format!("for a speaker{left}"),
        };
    };
    if bgp.synced {
        return String::new();
    }
    let late = peers.peers.iter().filter(|peer| !peer.synced);
    let late: Vec<String> = late.map(|peer| peer.address.to_string()).collect();
    let late = match late.is_empty() {
        true => "the peers".to_owned(),
        false => late.join(", "),
    };
    format!("for all routes of {late}{left}")
}

fn sessions(bgp: &BgpStatus, style: Style) -> String {
    match (bgp.peers, bgp.peers - bgp.established.min(bgp.peers)) {
        (0, _) => "no peers are configured".to_owned(),
        (all, 0) => paint(
            &match all {
                1 => "established".to_owned(),
                all => format!("all {all} established"),
            },
            Tone::Good,
            style.colour,
        ),
        (all, down) => paint(
            &format!("{} of {all} established, {down} down", bgp.established),
            Tone::Bad,
            style.colour,
        ),
    }
}

fn routes(bgp: &BgpStatus) -> String {
    format!(
        "{} in {}, {} of them our own",
        count(bgp.prefixes, "prefix"),
        count(bgp.paths, "path"),
        bgp.originated
    )
}

fn kernel(status: &Status, style: Style) -> String {
    let kernel = &status.kernel;
    let mut parts = vec![match kernel.desired {
        0 => "no routes wanted".to_owned(),
        1 if kernel.ok == 1 => paint("the one route in place", Tone::Good, style.colour),
        desired if desired == kernel.ok => paint(
            &format!("all {desired} routes in place"),
            Tone::Good,
            style.colour,
        ),
        desired => paint(
            &format!("{} of {} in place", kernel.ok, count(desired, "route")),
            Tone::Bad,
            style.colour,
        ),
    }];
    for (number, what) in [
        (kernel.shadowed, "shadowed"),
        (kernel.missing, "missing"),
        (kernel.wrong, "wrong"),
        (kernel.foreign, "foreign"),
        (kernel.leftover, "left over"),
        (kernel.unresolved, "without a way to their next hop"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    // Before that it can't be in step: what it waits for has a line of its own.
    let told_all = status.bgp.as_ref().is_some_and(|bgp| bgp.synced);
    if told_all && !kernel.synced {
        parts.push("still writing".to_owned());
    }
    parts.join(", ")
}

fn tunnels(status: &Status, style: Style) -> String {
    let devices = status.tunnels.iter().map(|device| {
        let (word, tone) = match device.state {
            TunnelState::Up => ("up", Tone::Good),
            TunnelState::Opening => ("opening", Tone::Uneasy),
            TunnelState::Missing => ("missing", Tone::Bad),
            TunnelState::Leaving => ("leaving", Tone::Uneasy),
        };
        format!("{} {}", device.name, paint(word, tone, style.colour))
    });
    devices.collect::<Vec<_>>().join(", ")
}

fn pods(status: &Status) -> String {
    let ranges: Vec<String> = status.pod_cidrs.iter().map(ToString::to_string).collect();
    let ranges = if ranges.is_empty() {
        "no range of its own".to_owned()
    } else {
        ranges.join(", ")
    };
    format!("{} attached, from {ranges}", status.endpoints)
}

fn config(status: &Status, style: Style) -> String {
    let config = &status.config;
    let objects = config.files.iter().map(|file| file.objects).sum();
    let files = count(config.files.len() as u64, "file");
    let errors = config
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count() as u64;
    let mut line = format!(
        "{}: {} from {files}",
        config.source,
        count(objects, "object")
    );
    if errors > 0 {
        line += &format!(
            ", {}",
            paint(&count(errors, "error"), Tone::Bad, style.colour)
        );
    }
    line
}

/// What somebody should look at, worst first.
fn attention(status: &Status, peers: &Peers, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    for peer in peers.peers.iter().filter(|peer| !peers::is_up(peer)) {
        let state = paint(&peer.state.to_string(), Tone::Bad, style.colour);
        lines.push(format!(
            "peer {} ({}) is {state}: {}",
            peer.address,
            peer.origin,
            peers::why(peer)
        ));
    }
    // Asked for later than the status, the sessions have the last word, unless there was no answer.
    if let Some(bgp) = &status.bgp
        && peers.peers.is_empty()
        && bgp.established < bgp.peers
    {
        let down = count_is(bgp.peers - bgp.established, "session");
        lines.push(format!("{down} down; why: margayctl bgp peers"));
    }
    lines.extend(of_this_node(status, style));
    lines
}

/// The same without the sessions.
fn of_this_node(status: &Status, style: Style) -> Vec<String> {
    let mut lines = Vec::new();
    if status.bgp.is_none() {
        let none = paint("no speaker", Tone::Bad, style.colour);
        let why = match &status.speaker_error {
            Some(error) => format!("it can't start: {error}"),
            None => "the configuration has too little about this node, see below".to_owned(),
        };
        lines.push(format!("{none}: {why}"));
    }
    let kernel = &status.kernel;
    let astray =
        kernel.shadowed + kernel.missing + kernel.wrong + kernel.foreign + kernel.unresolved;
    if astray > 0 {
        let astray = count_is(astray, "route");
        lines.push(format!(
            "{astray} not in use; which, and why: margayctl routes"
        ));
    }
    if let Some(error) = &kernel.last_error
        && error.seconds_ago <= RETRIED
    {
        lines.push(format!(
            "the kernel refused {}, {} ago",
            error.message,
            duration(error.seconds_ago)
        ));
    }
    lines.extend(status.firewall.error.clone());
    let devices = status.tunnels.iter();
    lines.extend(
        devices
            .filter_map(|device| device.error.as_ref())
            .map(|error| format!("no tunnel: {error}; what goes without: margayctl tunnels")),
    );
    let mut problems: Vec<&Problem> = status.config.problems.iter().collect();
    problems.sort_by_key(|problem| problem.severity != Severity::Error);
    lines.extend(
        problems
            .into_iter()
            .map(|problem| self::problem(problem, style)),
    );
    lines
}

fn problem(problem: &Problem, style: Style) -> String {
    let (word, tone) = match problem.severity {
        Severity::Error => ("error", Tone::Bad),
        Severity::Warning => ("warning", Tone::Uneasy),
    };
    let line = problem
        .line
        .map(|line| format!(":{line}"))
        .unwrap_or_default();
    let place = Some(format!("{}{line}", problem.source)).filter(|place| !place.is_empty());
    let parts = [
        place,
        problem.object.clone(),
        problem.field.clone(),
        Some(problem.message.clone()),
    ];
    let text: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}: {}", paint(word, tone, style.colour), text.join(": "))
}

//! `status`: the node at a glance, then what needs attention, worst first.

use api::{BgpStatus, KernelStatus, Peers, Problem, Severity, Status};

use super::{Page, peers};
use crate::run::{Answer, Style};
use crate::table::{Tone, paint};
use crate::text::{count, duration};

/// Whether nothing needs attention, as far as the status alone says.
pub(crate) fn is_well(status: &Status) -> bool {
    let sessions = status
        .bgp
        .as_ref()
        .is_some_and(|bgp| bgp.established == bgp.peers);
    let errors = status
        .config
        .problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    let kernel = &status.kernel;
    sessions && !errors && kernel.missing + kernel.wrong == 0
}

pub(crate) fn show(status: &Status, peers: &Peers, style: Style) -> Answer {
    let well = is_well(status);
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
    page.line("Kernel", kernel(&status.kernel, style));
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
    if attention.is_empty() {
        text += "\nNothing needs attention.\n";
    } else {
        text += "\nNeeds attention:\n";
        for line in attention {
            text += &format!("  - {line}\n");
        }
    }
    Answer { text, well }
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
    let sync = if bgp.synced {
        ""
    } else {
        "; still waiting for all peers' routes, so nothing old is removed yet"
    };
    format!(
        "{} prefixes in {} paths, {} of them our own{sync}",
        bgp.prefixes, bgp.paths, bgp.originated
    )
}

fn kernel(kernel: &KernelStatus, style: Style) -> String {
    let mut parts = vec![match kernel.desired {
        0 => "no routes wanted".to_owned(),
        desired if desired == kernel.ok => paint(
            &format!("all {desired} routes in place"),
            Tone::Good,
            style.colour,
        ),
        desired => paint(
            &format!("{} of {desired} routes in place", kernel.ok),
            Tone::Bad,
            style.colour,
        ),
    }];
    for (number, what) in [
        (kernel.missing, "missing"),
        (kernel.wrong, "wrong"),
        (kernel.leftover, "left over"),
        (kernel.unresolved, "without a way to their next hop"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    if !kernel.synced {
        parts.push("still writing".to_owned());
    }
    parts.join(", ")
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
    if status.bgp.is_none() {
        let none = paint("no speaker", Tone::Bad, style.colour);
        lines.push(format!(
            "{none}: the configuration has too little about this node, see below"
        ));
    }
    for peer in peers.peers.iter().filter(|peer| !peers::is_up(peer)) {
        let state = paint(&peer.state.to_string(), Tone::Bad, style.colour);
        lines.push(format!(
            "peer {} ({}) is {state}: {}",
            peer.address,
            peer.origin,
            peers::why(peer)
        ));
    }
    let kernel = &status.kernel;
    if kernel.missing + kernel.wrong + kernel.unresolved > 0 {
        lines.push("routes are not in place; which, and why: margayctl routes".to_owned());
    }
    if let Some(error) = &kernel.last_error {
        lines.push(format!(
            "the kernel refused {}, {} ago",
            error.message,
            duration(error.seconds_ago)
        ));
    }
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

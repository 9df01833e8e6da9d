//! `bgp peers` and `bgp peer`.

use api::{Direction, MessageCounts, Peer, PeerKind, Peers, SessionError, SessionState};

use super::Page;
use crate::run::Style;
use crate::table::{Cell, Table, Tone, paint, row};
use crate::text::{count, count_is, duration, optional};

pub(crate) fn is_well(peers: &Peers) -> bool {
    peers.peers.iter().all(is_up)
}

pub(crate) fn is_up(peer: &Peer) -> bool {
    peer.state == SessionState::Established
}

pub(crate) fn table(peers: &Peers, style: Style) -> String {
    if peers.peers.is_empty() {
        return format!("No peers are configured for node {}.\n", peers.node);
    }
    // A column that is empty while all is well would only make the table wide.
    let why_column = !style.wide && !is_well(peers);
    let mut header = vec![
        "PEER",
        "ASN",
        "TYPE",
        "STATE",
        "UPTIME",
        "RECEIVED",
        "ACCEPTED",
        "ADVERTISED",
    ];
    if style.wide {
        header.extend(["LOCAL", "HOLD", "GR", "FLAPS", "LAST-ERROR", "ORIGIN"]);
    } else if why_column {
        header.push("WHY");
    }
    let mut table = Table::new(&header);
    for peer in &peers.peers {
        let up = is_up(peer);
        let uptime = if up {
            duration(peer.state_seconds)
        } else {
            String::new()
        };
        let mut row = row![
            peer.address,
            peer.asn,
            kind(peer.kind),
            Cell::toned(peer.state.to_string(), tone(peer)),
            uptime,
            peer.prefixes.received,
            peer.prefixes.accepted,
            peer.prefixes.advertised,
        ];
        if style.wide {
            let error = if up { what_went_wrong(peer) } else { why(peer) };
            let hold = peer.timers.hold_seconds.map(|hold| format!("{hold}s"));
            row.extend(row![
                optional(peer.local_address),
                optional(hold),
                graceful_restart(peer),
                peer.flaps,
                error,
                &peer.origin
            ]);
        } else if why_column {
            row.push(if up { String::new() } else { why(peer) }.into());
        }
        table.push(row);
    }
    table.render(style.colour)
}

pub(crate) fn page(peer: &Peer, style: Style) -> String {
    let age = duration(peer.state_seconds);
    let state = paint(&peer.state.to_string(), tone(peer), style.colour);
    let mut title = format!("Peer {} is {state} for {age}", peer.address);
    if let Some(since) = &peer.since {
        title += &format!(", since {since}");
    }
    let mut page = Page::default();
    if !is_up(peer) {
        page.line("Why", why(peer));
    }
    let relation = match peer.kind {
        PeerKind::Internal => "internal: the same as ours".to_owned(),
        PeerKind::External => format!("external: ours is {}", peer.local_asn),
    };
    page.line("AS", format!("{} ({relation})", peer.asn));
    page.line("Asked for by", peer.origin.clone());
    page.line("From the range", optional(peer.range));
    page.line(
        "Authentication",
        peer.authentication.clone().unwrap_or_default(),
    );
    let dialling = if peer.passive {
        ", we only wait for it"
    } else {
        ""
    };
    let local = peer
        .local_address
        .map(|local| format!("from {local} "))
        .unwrap_or_default();
    page.line(
        "Connection",
        format!("{local}to {} port {}{dialling}", peer.address, peer.port),
    );
    let theirs = peer
        .router_id
        .map(|id| format!(", its {id}"))
        .unwrap_or_default();
    page.line(
        "Router ids",
        format!("ours {}{theirs}", peer.local_router_id),
    );
    page.line("Hold time", hold_time(peer));
    page.line("Graceful restart", restart(peer));
    page.line("Families", peer.families.join(", "));
    page.line("Capabilities", peer.capabilities.join(", "));
    let prefixes = &peer.prefixes;
    page.line(
        "Prefixes",
        format!(
            "{} received{}, {} accepted, {} advertised",
            prefixes.received,
            prefixes
                .limit
                .map(|limit| format!(" of {limit} allowed"))
                .unwrap_or_default(),
            prefixes.accepted,
            prefixes.advertised
        ),
    );
    messages(&mut page, &peer.messages);
    page.line("Sessions lost", peer.flaps.to_string());
    page.line("Last error", error(peer.last_error.as_ref()));
    page.line("Last attempt", error(peer.last_attempt.as_ref()));
    let mut text = format!("{title}\n{}", page.render());
    let refused = prefixes.received.saturating_sub(prefixes.accepted);
    if refused > 0 {
        text += &format!(
            "\n{} refused; why: margayctl bgp routes --from {}\n",
            count_is(refused, "prefix"),
            peer.address
        );
    }
    text
}

fn messages(page: &mut Page, messages: &MessageCounts) {
    for (what, counts) in [("Received", messages.received), ("Sent", messages.sent)] {
        let notifications = count(counts.notifications, "NOTIFICATION");
        page.line(
            what,
            format!(
                "{}: {}, {notifications}",
                count(counts.total, "message"),
                count(counts.updates, "UPDATE")
            ),
        );
    }
    if messages.malformed_updates > 0 {
        page.line(
            "Malformed",
            format!(
                "{}, handled by RFC 7606",
                count(messages.malformed_updates, "UPDATE")
            ),
        );
    }
}

/// Why a session is not up, and what happens next.
pub(crate) fn why(peer: &Peer) -> String {
    if let Some(halted) = &peer.halted {
        return halted.clone();
    }
    let mut why = what_went_wrong(peer);
    if why.is_empty() {
        why = match peer.state {
            SessionState::Idle => "not tried yet".to_owned(),
            SessionState::Connect => "connecting, no answer so far".to_owned(),
            SessionState::Active => "no connection so far".to_owned(),
            SessionState::OpenSent | SessionState::OpenConfirm => {
                "connected, agreeing on the session".to_owned()
            }
            SessionState::Established => String::new(),
        };
    }
    match (peer.next_retry_seconds, peer.passive) {
        (_, true)
            if matches!(
                peer.state,
                SessionState::Idle | SessionState::Connect | SessionState::Active
            ) =>
        {
            why += "; waiting for it to connect (passive)";
        }
        (Some(0), _) => why += "; next try now",
        (Some(seconds), _) => why += &format!("; next try in {}", duration(seconds)),
        _ => {}
    }
    why
}

/// The last attempt says how it is now; a NOTIFICATION before it, which says more, is not forgotten.
fn what_went_wrong(peer: &Peer) -> String {
    let last_error = peer.last_error.as_ref();
    match (&peer.last_attempt, last_error) {
        (None, _) => error(last_error),
        (Some(attempt), Some(before)) if before.direction != Direction::Connection => {
            format!(
                "{}; before that, {}",
                error(Some(attempt)),
                error(last_error)
            )
        }
        (attempt, _) => error(attempt.as_ref()),
    }
}

fn error(error: Option<&SessionError>) -> String {
    let Some(error) = error else {
        return String::new();
    };
    let who = match error.direction {
        Direction::Sent => "we ended it: ",
        Direction::Received => "it said: ",
        Direction::Connection => "",
    };
    format!(
        "{who}{}, {} ago",
        error.message,
        duration(error.seconds_ago)
    )
}

fn tone(peer: &Peer) -> Tone {
    match peer.state {
        SessionState::Established => Tone::Good,
        SessionState::OpenSent | SessionState::OpenConfirm => Tone::Uneasy,
        SessionState::Idle | SessionState::Connect | SessionState::Active => Tone::Bad,
    }
}

fn kind(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Internal => "iBGP",
        PeerKind::External => "eBGP",
    }
}

/// The GR column: whether routes survive a restart, of whom.
fn graceful_restart(peer: &Peer) -> String {
    match peer.graceful_restart {
        None => "off".to_owned(),
        Some(gr) if gr.helping => format!("helping ({} stale)", gr.stale),
        Some(gr) if gr.peer_seconds.is_some() => "both".to_owned(),
        // What it offers stands in its OPEN.
        Some(_) if peer.router_id.is_none() => String::new(),
        Some(_) => "ours".to_owned(),
    }
}

fn hold_time(peer: &Peer) -> String {
    let timers = &peer.timers;
    let proposal = format!("we propose {}s", timers.configured_hold_seconds);
    match (timers.hold_seconds, timers.keepalive_seconds) {
        (Some(0), _) => format!("none, so a silent peer is never given up ({proposal})"),
        (Some(hold), Some(keepalive)) => {
            format!("{hold}s in force, a KEEPALIVE every {keepalive}s ({proposal})")
        }
        (Some(hold), None) => format!("{hold}s in force ({proposal})"),
        (None, _) => proposal,
    }
}

fn restart(peer: &Peer) -> String {
    let Some(gr) = peer.graceful_restart else {
        return "off: a restart of ours withdraws our routes".to_owned();
    };
    let theirs = match gr.peer_seconds {
        _ if gr.helping => format!("we keep its {} while it restarts", count(gr.stale, "route")),
        Some(seconds) if gr.stale > 0 => format!(
            "we keep its routes for {seconds}s; {} still of before its restart",
            count_is(gr.stale, "route")
        ),
        Some(seconds) => format!("we keep its routes for {seconds}s"),
        None if peer.router_id.is_none() => "its own offer comes with the session".to_owned(),
        None => "it offers none".to_owned(),
    };
    format!("it shall keep our routes for {}s; {theirs}", gr.our_seconds)
}

//! `bgp routes`.

use api::{BgpPath, BgpRoutes, PathState};

use crate::cli::Routes;
use crate::run::Style;
use crate::table::{Cell, Table, Tone, row};
use crate::text::optional;

pub(crate) fn table(answer: &BgpRoutes, asked: &Routes, style: Style) -> String {
    if answer.routes.is_empty() {
        return nothing(answer, asked);
    }
    let verdict = match (asked.from, asked.to) {
        (Some(_), _) => "IMPORT",
        (_, Some(_)) => "SENT",
        (None, None) => "BEST",
    };
    // What a peer gets comes from us: who sent it to us is the Loc-RIB's to say.
    let with_from = asked.to.is_none();
    let mut header = vec!["PREFIX", "NEXT-HOP"];
    header.extend(with_from.then_some("FROM"));
    header.extend(["AS-PATH", "PREF", "MED", verdict, "REASON"]);
    if style.wide {
        header.extend(["ORIGIN", "COMMUNITIES", "POLICY"]);
    }
    let mut table = Table::new(&header);
    for route in &answer.routes {
        for path in &route.paths {
            let (word, tone) = state(path.state, asked);
            let mut row = row![route.prefix, optional(path.next_hop)];
            let from = path
                .from
                .map_or_else(|| "local".to_owned(), |from| from.to_string());
            row.extend(with_from.then_some(Cell::from(from)));
            row.extend(row![
                &path.as_path,
                optional(path.local_pref),
                optional(path.med),
                Cell::toned(word, tone),
                reason(path),
            ]);
            if style.wide {
                row.extend(row![&path.origin, path.communities.join(","), &path.policy]);
            }
            table.push(row);
        }
    }
    table.render(style.colour)
}

/// What became of a path, in the words of the question.
fn state(state: PathState, asked: &Routes) -> (&'static str, Tone) {
    let import = asked.from.is_some();
    match state {
        PathState::Best if import => ("accepted, best", Tone::Good),
        PathState::Multipath if import => ("accepted, multipath", Tone::Good),
        PathState::Candidate if import => ("accepted", Tone::Plain),
        PathState::Best => ("yes", Tone::Good),
        PathState::Multipath => ("multipath", Tone::Good),
        PathState::Candidate => ("no", Tone::Plain),
        PathState::Rejected => ("rejected", Tone::Bad),
        PathState::Advertised => ("yes", Tone::Good),
        PathState::NotAdvertised => ("no", Tone::Uneasy),
    }
}

fn reason(path: &BgpPath) -> String {
    match (path.stale, path.reason.as_str()) {
        (false, reason) => reason.to_owned(),
        (true, "") => "stale: its peer is restarting".to_owned(),
        (true, reason) => format!("{reason} (stale: its peer is restarting)"),
    }
}

fn nothing(answer: &BgpRoutes, asked: &Routes) -> String {
    let prefix = asked
        .prefix
        .as_ref()
        .map(|prefix| format!(" for {}", prefix.0))
        .unwrap_or_default();
    match (asked.from, asked.to) {
        (Some(peer), _) => format!("Peer {peer} sent no routes{prefix}.\n"),
        (_, Some(peer)) => format!("There are no routes{prefix} that peer {peer} could get.\n"),
        (None, None) => format!("Node {} has no BGP routes{prefix}.\n", answer.node),
    }
}

//! `routes`.

use api::{KernelRoute, KernelRouteKind, KernelRouteState, KernelRoutes, Target};

use crate::run::Style;
use crate::table::{Cell, Table, Tone, row};
use crate::text::optional;

/// Whether everything is there that should be.
pub(crate) fn is_well(routes: &KernelRoutes) -> bool {
    use KernelRouteState::{Foreign, Leftover, Missing, Ok, Shadowed, Unresolved, Wrong};
    routes.routes.iter().all(|route| match route.state {
        Ok | Leftover => true,
        Shadowed | Missing | Wrong | Foreign | Unresolved => false,
    })
}

pub(crate) fn table(routes: &KernelRoutes, style: Style) -> String {
    if routes.routes.is_empty() {
        return format!(
            "Node {} has no routes of Margay's, and should have none.\n",
            routes.node
        );
    }
    let reasons = routes
        .routes
        .iter()
        .any(|route| route.state != KernelRouteState::Ok);
    let mut header = vec!["PREFIX", "KIND", "DESIRED", "KERNEL", "STATE"];
    if style.wide {
        header.extend(["METRIC", "GROUP", "POD"]);
    }
    if reasons {
        header.push("REASON");
    }
    let mut table = Table::new(&header);
    for route in &routes.routes {
        let (word, tone) = state(route.state);
        let mut row = row![
            route.prefix,
            kind(route.kind),
            target(route.desired.as_ref()),
            target(route.kernel.as_ref()),
            Cell::toned(word, tone),
        ];
        if style.wide {
            let group = route.kernel.as_ref().and_then(|kernel| kernel.group);
            row.extend(row![
                route.metric,
                optional(group),
                optional(route.pod.as_ref())
            ]);
        }
        if reasons {
            row.push(reason(route).into());
        }
        table.push(row);
    }
    table.render(style.colour)
}

fn kind(kind: KernelRouteKind) -> &'static str {
    match kind {
        KernelRouteKind::Pod => "pod",
        KernelRouteKind::Learned => "learned",
        KernelRouteKind::Blackhole => "blackhole",
        KernelRouteKind::Unknown => "unknown",
    }
}

fn state(state: KernelRouteState) -> (&'static str, Tone) {
    match state {
        KernelRouteState::Ok => ("ok", Tone::Good),
        KernelRouteState::Shadowed => ("shadowed", Tone::Bad),
        KernelRouteState::Missing => ("missing", Tone::Bad),
        KernelRouteState::Wrong => ("wrong", Tone::Bad),
        KernelRouteState::Foreign => ("foreign", Tone::Uneasy),
        KernelRouteState::Leftover => ("leftover", Tone::Uneasy),
        KernelRouteState::Unresolved => ("unresolved", Tone::Bad),
    }
}

/// As `ip route` writes it, several next hops joined by `+`.
fn target(target: Option<&Target>) -> String {
    let Some(target) = target else {
        return String::new();
    };
    if target.blackhole {
        return "blackhole".to_owned();
    }
    let hops = target.next_hops.iter().map(|hop| {
        let via = hop.via.map(|via| format!("via {via}"));
        let dev = hop.dev.as_ref().map(|dev| format!("dev {dev}"));
        [via, dev]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    });
    hops.collect::<Vec<_>>().join(" + ")
}

fn reason(route: &KernelRoute) -> String {
    match (&route.error, route.state) {
        (Some(error), _) => error.clone(),
        (None, KernelRouteState::Foreign) => "somebody else's route stands in its place".to_owned(),
        (None, KernelRouteState::Shadowed) => {
            "packets take somebody else's route of a lower metric".to_owned()
        }
        (None, KernelRouteState::Leftover) => {
            "ours, from before; goes once all peers have sent their routes".to_owned()
        }
        (None, KernelRouteState::Missing | KernelRouteState::Wrong) => {
            "about to be written".to_owned()
        }
        (None, KernelRouteState::Ok | KernelRouteState::Unresolved) => String::new(),
    }
}

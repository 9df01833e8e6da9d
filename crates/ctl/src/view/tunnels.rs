//! `tunnels`.

use api::{Hop, TunnelDevice, TunnelNextHop, TunnelState, Tunnels};

use crate::run::Style;
use crate::table::{Cell, Table, Tone, row};
use crate::text::{count, optional};

/// Whether every packet travels as its pool wants.
pub(crate) fn is_well(tunnels: &Tunnels) -> bool {
    let works = |device: &TunnelDevice| device.error.is_none();
    let carried = |next_hop: &TunnelNextHop| next_hop.tunnelled.is_some() && !next_hop.degraded;
    // One that opens in a moment is no reason to look.
    let opening = |device: &TunnelDevice| device.state == TunnelState::Opening;
    tunnels.devices.iter().all(works)
        && (tunnels.next_hops.iter().all(carried) || tunnels.devices.iter().any(opening))
}

pub(crate) fn page(tunnels: &Tunnels, style: Style) -> String {
    let mut text = match tunnels.devices.is_empty() {
        true => format!("Node {}: no IPPool wants tunnels.\n", tunnels.node),
        false => devices(tunnels, style),
    };
    if tunnels.next_hops.is_empty() {
        return text + "\nNo prefix is learned, so there are no next hops.\n";
    }
    text += "\n";
    text + &next_hops(tunnels, style)
}

fn devices(tunnels: &Tunnels, style: Style) -> String {
    let errors = tunnels.devices.iter().any(|device| device.error.is_some());
    let mut header = vec!["DEVICE", "KIND", "LOCAL", "MTU", "STATE"];
    if errors {
        header.push("REASON");
    }
    let mut table = Table::new(&header);
    for device in &tunnels.devices {
        let (word, tone) = match device.state {
            TunnelState::Up => ("up", Tone::Good),
            TunnelState::Opening => ("opening", Tone::Uneasy),
            TunnelState::Missing => ("missing", Tone::Bad),
            TunnelState::Leaving => ("leaving", Tone::Uneasy),
        };
        let mut row = row![
            device.name.clone(),
            device.kind.clone(),
            optional(device.local),
            optional(device.mtu),
            Cell::toned(word, tone),
        ];
        if errors {
            row.push(optional(device.error.as_ref()).into());
        }
        table.push(row);
    }
    table.render(style.colour)
}

fn next_hops(tunnels: &Tunnels, style: Style) -> String {
    let mut header = vec!["NEXT HOP", "NODE", "TUNNEL", "FOR"];
    if style.wide {
        header.push("KERNEL");
    }
    header.push("REASON");
    let mut table = Table::new(&header);
    for next_hop in &tunnels.next_hops {
        let (word, tone) = match (next_hop.tunnelled, next_hop.degraded) {
            (Some(true), _) => ("yes", Tone::Good),
            (Some(false), false) => ("no", Tone::Good),
            (Some(false), true) => ("no", Tone::Bad),
            (None, _) => ("unreachable", Tone::Bad),
        };
        let mut row = row![
            next_hop.address,
            optional(next_hop.node.as_ref()),
            Cell::toned(word, tone),
            count(next_hop.prefixes, "prefix"),
        ];
        if style.wide {
            row.push(via(&next_hop.via).into());
        }
        row.push(next_hop.reason.clone().into());
        table.push(row);
    }
    table.render(style.colour)
}

/// As `ip route` writes it, several joined by `+`.
fn via(hops: &[Hop]) -> String {
    let hops = hops.iter().map(|hop| {
        let via = hop.via.map(|via| format!("via {via}"));
        let dev = hop.dev.as_ref().map(|dev| format!("dev {dev}"));
        let words: Vec<String> = [via, dev].into_iter().flatten().collect();
        words.join(" ")
    });
    hops.collect::<Vec<_>>().join(" + ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnels() -> Tunnels {
        Tunnels {
            node: "n1".into(),
            devices: vec![TunnelDevice {
                name: "margay-ipip".into(),
                kind: "ipip".into(),
                local: "192.0.2.1".parse().ok(),
                mtu: Some(1480),
                state: TunnelState::Up,
                error: None,
            }],
            next_hops: vec![TunnelNextHop {
                address: std::net::Ipv4Addr::new(198, 51, 100, 1).into(),
                node: Some("n2".into()),
                pool: Some("pods".into()),
                prefixes: 2,
                tunnelled: Some(true),
                degraded: false,
                reason: "ipipMode Always of IPPool pods".into(),
                via: Vec::new(),
            }],
        }
    }

    const STYLE: Style = Style {
        wide: false,
        colour: false,
    };

    #[test]
    fn devices_come_before_next_hops() {
        let text = page(&tunnels(), STYLE);
        let expected = "\
DEVICE       KIND  LOCAL      MTU   STATE
margay-ipip  ipip  192.0.2.1  1480  up

NEXT HOP      NODE  TUNNEL  FOR         REASON
198.51.100.1  n2    yes     2 prefixes  ipipMode Always of IPPool pods
";
        assert_eq!(text, expected);
        assert!(is_well(&tunnels()));
    }

    #[test]
    fn a_tunnel_that_is_not_there_needs_attention() {
        let mut tunnels = tunnels();
        tunnels.devices[0].state = TunnelState::Missing;
        tunnels.devices[0].error = Some("margay-ipip: no driver".into());
        tunnels.next_hops[0].tunnelled = Some(false);
        tunnels.next_hops[0].degraded = true;
        assert!(!is_well(&tunnels));
        let text = page(&tunnels, STYLE);
        assert!(text.contains("missing  margay-ipip: no driver"), "{text}");
        let none = Tunnels {
            node: "n1".into(),
            ..Tunnels::default()
        };
        assert!(is_well(&none));
        assert!(page(&none, STYLE).starts_with("Node n1: no IPPool wants tunnels.\n"));
    }
}

//! `GET /v1/tunnels`.

use std::collections::BTreeMap;

use api::{Hop, TunnelDevice, TunnelNextHop, TunnelState};
use dataplane::LinkIndex;

use crate::fib::{DeviceStatus, Way, Ways};

/// Devices, and how packets travel to each next hop.
pub(super) fn tunnels(node: String, ways: Ways) -> api::Tunnels {
    let links = ways.links;
    api::Tunnels {
        node,
        devices: ways.devices.iter().map(device).collect(),
        next_hops: ways
            .ways
            .into_iter()
            .map(|way| next_hop(way, &links))
            .collect(),
    }
}

/// A device.
pub(super) fn device(status: &DeviceStatus) -> TunnelDevice {
    let state = match (status.present, status.open, status.wanted) {
        (true, true, _) => TunnelState::Up,
        (true, false, Some(_)) if status.trouble.is_none() => TunnelState::Opening,
        (true, false, None) if status.trouble.is_none() => TunnelState::Leaving,
        (true | false, _, _) => TunnelState::Missing,
    };
    TunnelDevice {
        name: status.kind.device().to_owned(),
        kind: status.kind.link_kind().to_owned(),
        local: status.wanted.map(|wanted| wanted.local),
        mtu: status.wanted.map(|wanted| wanted.mtu),
        state,
        error: status.trouble.clone(),
    }
}

fn next_hop(way: Way, links: &BTreeMap<LinkIndex, String>) -> TunnelNextHop {
    let (tunnelled, degraded, reason) = match way.decision {
        Ok(decision) => (Some(decision.tunnelled), decision.degraded, decision.reason),
        Err(reason) => (None, false, reason),
    };
    let hops = way.next_hops.into_iter().flatten().map(|hop| Hop {
        via: hop.via,
        dev: links.get(&hop.link).cloned(),
    });
    TunnelNextHop {
        address: way.address,
        node: way.node,
        pool: way.pool,
        prefixes: way.prefixes,
        tunnelled,
        degraded,
        reason,
        via: hops.collect(),
    }
}

#[cfg(test)]
mod tests {
    use dataplane::TunnelKind;

    use super::*;

    #[test]
    fn a_device_has_one_state() {
        let status = |present, open, trouble: Option<&str>| {
            let status = DeviceStatus {
                kind: TunnelKind::Ipip,
                wanted: Some(dataplane::Tunnel {
                    kind: TunnelKind::Ipip,
                    local: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
                    mtu: 1480,
                }),
                present,
                open,
                trouble: trouble.map(ToOwned::to_owned),
            };
            (
                device(&status).state,
                device(&DeviceStatus {
                    wanted: None,
                    ..status
                })
                .state,
            )
        };
        use TunnelState::{Leaving, Missing, Opening, Up};
        assert_eq!(status(true, true, None), (Up, Up));
        assert_eq!(status(true, false, None), (Opening, Leaving));
        assert_eq!(status(false, false, Some("no driver")), (Missing, Missing));
        assert_eq!(status(true, false, Some("down")), (Missing, Missing));
    }
}

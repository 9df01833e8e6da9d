//! The tunnels in NodeStatus.

use api::{TunnelNextHop, Tunnels};
use resources::node_status::{TunnelNextHop as Reported, TunnelStatus};

/// Next hops that are listed.
const LISTED: usize = 50;

/// Next hops that are tunnelled or can't be; `None` where there are neither.
pub(super) fn status(tunnels: &Tunnels) -> Option<TunnelStatus> {
    let hops = tunnels.next_hops.iter();
    let (tunnelled, others): (Vec<_>, Vec<_>) = hops.partition(|hop| hop.tunnelled == Some(true));
    // The rest is near enough to need none.
    let failed = others
        .into_iter()
        .filter(|hop| hop.degraded || hop.tunnelled.is_none());
    let failed: Vec<_> = failed.collect();
    let counts = (tunnelled.len() as u64, failed.len() as u64);
    let listed = failed.into_iter().chain(tunnelled).take(LISTED);
    (counts != (0, 0)).then(|| TunnelStatus {
        tunnelled: counts.0,
        failed: counts.1,
        next_hops: listed.map(next_hop).collect(),
    })
}

/// `3/4`: those that are tunnelled of all that should be.
pub(super) fn summary(status: &TunnelStatus) -> String {
    let all = status.tunnelled + status.failed;
    format!("{}/{all}", status.tunnelled)
}

fn next_hop(hop: &TunnelNextHop) -> Reported {
    Reported {
        address: hop.address.to_string(),
        node: hop.node.clone(),
        pool: hop.pool.clone(),
        device: hop.via.first().and_then(|via| via.dev.clone()),
        tunnelled: hop.tunnelled == Some(true),
        reason: hop.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn hop(host: u8, tunnelled: Option<bool>, degraded: bool) -> TunnelNextHop {
        TunnelNextHop {
            address: Ipv4Addr::new(192, 0, 2, host).into(),
            node: Some(format!("b{host}")),
            pool: Some("pods".to_owned()),
            prefixes: 1,
            tunnelled,
            degraded,
            reason: format!("because of {host}"),
            via: vec![api::Hop {
                via: None,
                dev: Some("tunl0".to_owned()),
            }],
        }
    }

    fn tunnels(next_hops: Vec<TunnelNextHop>) -> Tunnels {
        Tunnels {
            node: "a1".to_owned(),
            devices: Vec::new(),
            next_hops,
        }
    }

    #[test]
    fn those_that_fail_come_first_and_those_near_enough_not_at_all() {
        let hops = vec![
            hop(1, Some(true), false),
            hop(2, Some(false), false),
            hop(3, Some(false), true),
            hop(4, None, false),
        ];
        let status = status(&tunnels(hops)).unwrap();
        assert_eq!((status.tunnelled, status.failed), (1, 2));
        assert_eq!(summary(&status), "1/3");
        let listed = status.next_hops.iter();
        let listed: Vec<_> = listed
            .map(|hop| (hop.address.as_str(), hop.tunnelled, hop.reason.as_str()))
            .collect();
        let expected = [
            ("192.0.2.3", false, "because of 3"),
            ("192.0.2.4", false, "because of 4"),
            ("192.0.2.1", true, "because of 1"),
        ];
        assert_eq!(listed, expected);
        assert_eq!(status.next_hops[2].device.as_deref(), Some("tunl0"));
    }

    #[test]
    fn the_list_is_short_and_the_count_whole() {
        let all = (1..=200).map(|host| hop(host, Some(true), false)).collect();
        let many = status(&tunnels(all)).unwrap();
        assert_eq!((many.tunnelled, many.next_hops.len()), (200, LISTED));
        assert_eq!(status(&tunnels(vec![hop(1, Some(false), false)])), None);
    }
}

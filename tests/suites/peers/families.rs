//! IPv6, over either transport, and IPv4 with an IPv6 next hop.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use bgp::config::SpeakerConfig;
use bgp_wire::{Attributes, Family as WireFamily};
use lab::peer::{Announcement, Config, Family, Kind, Neighbour};
use tests::{oracle, same};

use crate::bench::{
    Bench, OUR_ASN, OURS, OURS6, THEIR_ASN, THEIRS, THEIRS6, originate, ours, their_end,
};

const OUR_ROUTE: &str = "10.244.1.0/24";
const THEIR_ROUTE: &str = "10.245.1.0/24";
const OUR_ROUTE6: &str = "fd00:244:1::/48";
const THEIR_ROUTE6: &str = "fd00:245:1::/48";

/// Both configurations for a session between two addresses that speaks these families.
pub(crate) fn session(
    bench: &Bench,
    (here, there): (IpAddr, IpAddr),
    families: &[Family],
) -> Result<(SpeakerConfig, Config)> {
    let mut config = ours();
    config.peers.clear();
    let mut peer = their_end(THEIR_ASN);
    peer.families = families
        .iter()
        .map(|family| match family {
            Family::Ipv4 => WireFamily::IPV4_UNICAST,
            Family::Ipv6 => WireFamily::IPV6_UNICAST,
        })
        .collect();
    config.peers.insert(there, peer);
    let mut theirs = bench.theirs();
    theirs.neighbours = vec![Neighbour {
        families: families.to_vec(),
        ..Neighbour::new(here, OUR_ASN, there)
    }];
    for (family, route, next_hop) in [
        (Family::Ipv4, THEIR_ROUTE, THEIRS),
        (Family::Ipv6, THEIR_ROUTE6, THEIRS6),
    ] {
        if families.contains(&family) {
            theirs.routes.push(Announcement {
                next_hop: Some(next_hop),
                ..Announcement::new(route.parse()?)
            });
        }
    }
    for (family, route) in [(Family::Ipv4, OUR_ROUTE), (Family::Ipv6, OUR_ROUTE6)] {
        if families.contains(&family) {
            originate(&mut config, route, Attributes::originated())?;
        }
    }
    Ok((config, theirs))
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => address.is_unicast_link_local(),
        IpAddr::V4(_) => false,
    }
}

/// Theirs has the route with this next hop; ours theirs with that one.
fn both_learn(bench: &mut Bench, routes: (&str, &str), hops: (IpAddr, IpAddr)) -> Result<()> {
    let kind = bench.kind;
    bench.they_learn(routes.0, |route| {
        let hop = route.next_hop;
        // ExaBGP shows the link-local address that comes with the other (RFC 2545 §3).
        let shown = hop == Some(hops.0) || (kind == Kind::Exabgp && hop.is_some_and(is_local));
        ensure!(shown, "next hop {hop:?}");
        Ok(())
    })?;
    bench.we_learn(routes.1, |route| {
        let next_hop = route.next_hop.map(|it| it.address());
        same("next hop", &next_hop, &Some(hops.1))
    })
}

pub(crate) fn ipv6_over_ipv6(bench: &mut Bench) -> Result<()> {
    let (config, theirs) = session(bench, (OURS6, THEIRS6), &[Family::Ipv6])?;
    bench.start_peer(&theirs)?;
    bench.speak(config.clone(), false)?;
    bench.wait_up_with(OURS6)?;
    both_learn(bench, (OUR_ROUTE6, THEIR_ROUTE6), (OURS6, THEIRS6))?;
    let mut without = config;
    without.originated.clear();
    bench.speaker()?.configure(without);
    bench.they_lose(OUR_ROUTE6)?;
    bench.peer()?.withdraw(THEIR_ROUTE6.parse()?)?;
    bench.we_lose(THEIR_ROUTE6)
}

pub(crate) fn both_over_ipv4(bench: &mut Bench) -> Result<()> {
    let families = [Family::Ipv4, Family::Ipv6];
    let (config, theirs) = session(bench, (OURS, THEIRS), &families)?;
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    bench.wait_up_with(OURS)?;
    both_learn(bench, (OUR_ROUTE, THEIR_ROUTE), (OURS, THEIRS))?;
    both_learn(bench, (OUR_ROUTE6, THEIR_ROUTE6), (OURS6, THEIRS6))
}

pub(crate) fn both_over_ipv6(bench: &mut Bench) -> Result<()> {
    let families = [Family::Ipv4, Family::Ipv6];
    let (config, theirs) = session(bench, (OURS6, THEIRS6), &families)?;
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    bench.wait_up_with(OURS6)?;
    both_learn(bench, (OUR_ROUTE6, THEIR_ROUTE6), (OURS6, THEIRS6))?;
    both_learn(bench, (OUR_ROUTE, THEIR_ROUTE), (OURS, THEIRS))
}

pub(crate) fn extended_next_hop(bench: &mut Bench) -> Result<()> {
    let (mut config, mut theirs) = session(bench, (OURS6, THEIRS6), &[Family::Ipv4])?;
    for peer in config.peers.values_mut() {
        peer.extended_next_hop = true;
    }
    theirs.neighbours[0].extended_next_hop = true;
    theirs.routes[0].next_hop = Some(THEIRS6);
    // With an IPv4 address at hand there would be no need for the other.
    for namespace in [&bench.us, &bench.them] {
        oracle::ip(namespace, &["-4", "address", "flush", "dev", "cable"])?;
    }
    bench.start_peer(&theirs)?;
    bench.speak(config, false)?;
    bench.wait_up_with(OURS6)?;
    both_learn(bench, (OUR_ROUTE, THEIR_ROUTE), (OURS6, THEIRS6))
}

//! Nodes with a link to each of two ToRs: a next hop that can't be reached is not used, at once.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node};
use lab::probe::{Pinger, Stream};
use lab::{net, wait};
use serde_json::Value;
use tests::{SESSION, oracle, same};

use super::{MILLISECOND, SOON, first_pod};

/// What a failover may cost at most, of packets sent every millisecond: a machine full of tests has its own pauses.
pub(super) const MOST_LOST: usize = 100;

/// The gateways of a node's kernel route to the other node's pods, by `ip`.
fn gateways(dc: &DataCentre) -> Result<BTreeSet<String>> {
    let (from, to) = ends(dc)?;
    let text = oracle::ip(
        &from.namespace,
        &[
            "-j",
            "route",
            "show",
            &to.pod_cidr.to_string(),
            "proto",
            "77",
        ],
    )?;
    let routes: Value = serde_json::from_str(&text)?;
    let route = routes.get(0).context("a route")?;
    let hops = route["nexthops"].as_array().cloned();
    let hops = hops.unwrap_or_else(|| vec![route.clone()]);
    let gateway = |hop: &Value| Some(hop["gateway"].as_str()?.to_owned());
    Ok(hops.iter().filter_map(gateway).collect())
}

fn ends(dc: &DataCentre) -> Result<(&Node, &Node)> {
    match dc.racks.first().map(|rack| rack.nodes.as_slice()) {
        Some([from, to, ..]) => Ok((from, to)),
        _ => bail!("a rack of two"),
    }
}

fn wait_gateways(dc: &DataCentre, expected: &[&str], limit: Duration) -> Result<()> {
    let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
    wait::until("the way to the other node", limit, || {
        same("gateways", &gateways(dc)?, &expected)
    })
}

/// What `margayctl bgp routes` says of the paths to the other node's pods: next hop, state and reason.
fn paths(dc: &DataCentre) -> Result<Vec<(String, String, String)>> {
    let (from, to) = ends(dc)?;
    let answer: api::BgpRoutes =
        serde_json::from_value(from.ctl_json(&["bgp", "routes", &to.pod_cidr.to_string()])?)?;
    let route = answer.routes.into_iter().next().context("a prefix")?;
    let paths = route.paths.into_iter().map(|path| {
        let next_hop = path.next_hop.map(|it| it.to_string()).unwrap_or_default();
        (next_hop, format!("{:?}", path.state), path.reason)
    });
    Ok(paths.collect())
}

fn up(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    wait_gateways(dc, &["172.20.1.12", "172.21.1.12"], SESSION)
}

/// The first ToR loses its power: both nodes lose the carrier towards it.
pub(super) fn no_power(dc: &mut DataCentre) -> Result<()> {
    up(dc)?;
    let (from, _) = first_pod(dc, 0)?;
    let from = from.pods.first().context("a pod")?.namespace.clone();
    let (_, to) = ends(dc)?;
    let target = to.pods.first().context("a pod")?.address;
    Pinger::open(&from)?.wait_answer(target, SESSION)?;
    let stream = Stream::start(&from, target, MILLISECOND)?;
    wait::measure_for(100 * MILLISECOND);
    let tor = &dc.racks.first().context("a rack")?.tor;
    for port in ["to-a1", "to-a2"] {
        net::set_down(&tor.namespace, port)?;
    }
    wait_gateways(dc, &["172.21.1.12"], SOON)?;
    wait::measure_for(200 * MILLISECOND);
    let loss = stream.finish()?;
    if loss.lost.len() > MOST_LOST {
        bail!("{} of {} lost: {:?}", loss.lost.len(), loss.sent, loss.lost);
    }
    let why = paths(dc)?;
    let reason = why.iter().find(|(next_hop, ..)| next_hop == "172.20.1.12");
    let (_, state, reason) = reason.context("the path by the first ToR")?;
    same("state", &state.as_str(), &"Candidate")?;
    let expected = "next hop 172.20.1.12 can't be reached: eth0 has no carrier";
    same("reason", &reason.as_str(), &expected)?;
    // And back, without a packet lost: nothing is taken away before there is something better.
    let stream = Stream::start(&from, target, MILLISECOND)?;
    let tor = &dc.racks.first().context("a rack")?.tor;
    for port in ["to-a1", "to-a2"] {
        net::set_up(&tor.namespace, port)?;
    }
    wait_gateways(dc, &["172.20.1.12", "172.21.1.12"], SESSION)?;
    stream.finish().map(drop)
}

/// A next hop behind a gateway is further away than one on a link; where it is the only one left it is used, and where its
/// route goes it is not.
pub(super) fn longer_way(dc: &mut DataCentre) -> Result<()> {
    up(dc)?;
    let (from, _) = ends(dc)?;
    let namespace = from.namespace.clone();
    let detour = [
        "route",
        "add",
        "172.21.1.12",
        "via",
        "172.21.1.1",
        "metric",
        "50",
    ];
    oracle::ip(&namespace, &detour)?;
    wait_gateways(dc, &["172.20.1.12"], SOON)?;
    let why = paths(dc)?;
    let lost = (
        "172.21.1.12".to_owned(),
        "Candidate".to_owned(),
        "farther next hop (IGP cost)".to_owned(),
    );
    if !why.contains(&lost) {
        bail!("{why:?} lacks {lost:?}");
    }
    // The best path's next hop goes, and must not hide the other.
    oracle::ip(&namespace, &["link", "set", "eth0", "down"])?;
    wait_gateways(dc, &["172.21.1.1"], SOON)?;
    oracle::ip(&namespace, &["link", "set", "eth0", "up"])?;
    wait_gateways(dc, &["172.20.1.12"], SESSION)?;
    oracle::ip(&namespace, &["route", "del", "172.21.1.12"])?;
    wait_gateways(dc, &["172.20.1.12", "172.21.1.12"], SESSION)
}

pub(super) fn link_goes(dc: &mut DataCentre) -> Result<()> {
    up(dc)?;
    let (from, _) = ends(dc)?;
    let namespace = from.namespace.clone();
    let address = ["172.21.1.11/24", "dev", "eth1"];
    oracle::ip(&namespace, &[&["address", "del"], &address[..]].concat())?;
    // The default route leads to it now, through the first ToR: a way that is longer, and not used.
    wait_gateways(dc, &["172.20.1.12"], SOON)?;
    oracle::ip(&namespace, &[&["address", "add"], &address[..]].concat())?;
    wait_gateways(dc, &["172.20.1.12", "172.21.1.12"], SESSION)?;
    oracle::ip(&namespace, &["route", "del", "default"])?;
    oracle::ip(&namespace, &["link", "del", "eth1"])?;
    wait_gateways(dc, &["172.20.1.12"], SOON)?;
    let why = paths(dc)?;
    let expected = "no route to next hop 172.21.1.12";
    if !why.iter().any(|(_, _, reason)| reason == expected) {
        bail!("{why:?} lacks \"{expected}\"");
    }
    Ok(())
}

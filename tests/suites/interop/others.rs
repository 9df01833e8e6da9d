//! BIRD, FRR and GoBGP: what they say of our session and our routes, and what we say of theirs.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Router, Shape};
use lab::tor::Kind;
use lab::{process, wait};
use tests::{Case, SESSION, oracle, peer, same, wait_session};

const OTHERS: [Kind; 3] = [Kind::Bird, Kind::Frr, Kind::Gobgp];

/// The shortest hold time with keepalives that everybody takes.
const SHORT: Duration = Duration::from_secs(6);

pub(crate) fn cases() -> Vec<Case> {
    let rack = Shape {
        racks: 1,
        nodes: 2,
        pods: 0,
        ..Shape::default()
    };
    let impatient = Shape {
        hold_time: SHORT,
        ..rack.clone()
    };
    let mut cases = Case::each(&OTHERS, "routes_both_ways_and_withdrawal", &rack, routes);
    cases.extend(Case::each(
        &OTHERS,
        "session_loss_is_seen_and_mended",
        &rack,
        loss,
    ));
    cases.extend(Case::each(
        &OTHERS,
        "hold_timer_ends_a_silent_session",
        &impatient,
        silence,
    ));
    cases.extend(Case::each(
        &OTHERS,
        "both_dial_one_session_stays",
        &rack,
        collision,
    ));
    cases.into_iter().map(|case| case.with("ip")).collect()
}

fn tor(dc: &mut DataCentre) -> Result<&mut Router> {
    dc.racks
        .first_mut()
        .map(|rack| &mut rack.tor)
        .context("a rack")
}

/// What the ToR itself says of a prefix: its next hop.
fn tor_has(dc: &DataCentre, prefix: Ipv4Net) -> Result<Option<IpAddr>> {
    let rack = dc.racks.first().context("a rack")?;
    let speaker = rack.tor.speaker.as_ref().context("a speaker")?;
    Ok(speaker
        .learned()?
        .get(&prefix)
        .and_then(|hops| hops.first().copied()))
}

fn routes(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    dc.wait_routes(SESSION)?;
    for node in dc.nodes() {
        let next_hop = Some(IpAddr::V4(node.address));
        same("at the ToR", &tor_has(dc, node.pod_cidr)?, &next_hop)?;
        let peer = peer(node)?;
        same("its hold time", &peer.timers.hold_seconds, &Some(90))?;
        same("prefixes advertised", &peer.prefixes.advertised, &1)?;
    }

    // Another range for node-a1: the old one is withdrawn everywhere, the new one announced.
    let old = dc.node("node-a1")?.pod_cidr;
    let new: Ipv4Net = "10.244.77.0/24".parse()?;
    for node in dc.nodes() {
        let file = node.config_folder().join("nodes.yaml");
        let text = std::fs::read_to_string(file)?;
        node.write_config(
            "nodes.yaml",
            &text.replace(&old.to_string(), &new.to_string()),
        )?;
    }
    wait::until("the withdrawal", SESSION, || {
        same("the old range at the ToR", &tor_has(dc, old)?, &None)?;
        let node = dc.nodes().nth(1).context("node-a2")?;
        let routes = oracle::margay_routes(&node.namespace)?;
        match (routes.contains_key(&old), routes.contains_key(&new)) {
            (false, true) => Ok(()),
            _ => bail!("node-a2 has {routes:?}"),
        }
    })
}

fn loss(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    tor(dc)?.speaker.as_mut().context("a speaker")?.kill()?;
    for node in dc.nodes() {
        let peer = wait_session(node, false, Duration::from_secs(5))?;
        let error = peer.last_error.context("a reason")?;
        same(
            "who ended it",
            &error.direction,
            &api::Direction::Connection,
        )?;
        let status = node.ctl_output(&["bgp", "peers"])?.status;
        same("exit status", &status.code(), &Some(1))?;
    }
    tor(dc)?.speaker.as_mut().context("a speaker")?.restart()?;
    dc.wait_sessions(SESSION)?;
    dc.wait_routes(SESSION)
}

/// SIGSTOP: connection and kernel are there, the speaker is not (RFC 4271 §6.5).
fn silence(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    let held = peer(dc.nodes().next().context("a node")?)?
        .timers
        .hold_seconds;
    same("negotiated", &held.map(u64::from), &Some(SHORT.as_secs()))?;

    let speaker = tor(dc)?.speaker.as_mut().context("a speaker")?;
    speaker.processes().iter().try_for_each(|it| it.freeze())?;
    let frozen = wait::now();
    for node in dc.nodes() {
        let peer = wait_session(node, false, SHORT + Duration::from_secs(3))?;
        let error = peer.last_error.context("a reason")?;
        same("NOTIFICATION", &error.code, &Some((4, 0)))?;
        same("who sent it", &error.direction, &api::Direction::Sent)?;
    }
    // Its last message came at most a keepalive interval before it froze.
    let earliest = SHORT - SHORT / 3 - Duration::from_secs(1);
    if frozen.elapsed() < earliest {
        bail!("ended after {:?}, before {earliest:?}", frozen.elapsed());
    }
    let speaker = tor(dc)?.speaker.as_mut().context("a speaker")?;
    speaker.processes().iter().try_for_each(|it| it.thaw())?;
    dc.wait_sessions(SESSION)
}

/// Both sides dial at once, again and again: there is one session, and one connection (RFC 4271 §6.8).
fn collision(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    for _ in 0..3 {
        let speaker = tor(dc)?.speaker.as_mut().context("a speaker")?;
        speaker.kill()?;
        for node in dc.nodes_mut() {
            node.agent()?.kill()?;
        }
        tor(dc)?.speaker.as_mut().context("a speaker")?.restart()?;
        dc.start_agents()?;
        dc.wait_sessions(SESSION)?;
        for node in dc.nodes() {
            wait::until("one connection", Duration::from_secs(5), || {
                same(
                    "connections",
                    &oracle::bgp_connections(&node.namespace)?,
                    &1,
                )
            })?;
            same(
                "still up",
                &peer(node)?.state,
                &api::SessionState::Established,
            )?;
        }
    }
    let ends = dc.logs();
    if ends.contains("panicked") {
        bail!("an agent panicked");
    }
    // Nobody is left in a half-open state on the other side either.
    let rack = dc.racks.first().context("a rack")?;
    let speaker = rack.tor.speaker.as_ref().context("a speaker")?;
    same("sessions", &speaker.established()?.len(), &2).map_err(|error| {
        let logs: Vec<String> = dc.nodes().map(|it| process::tail(&it.log(), 5)).collect();
        error.context(logs.join("\n"))
    })
}

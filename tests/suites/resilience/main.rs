//! Failures are ordinary states: what an agent, a router, a kernel or a person takes away comes back, and packets do
//! not notice what they need not.

mod agent;
mod dead_tor;
mod many;
mod pods;
mod sessions;
mod two_tors;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node, Shape};
use lab::probe::{Pinger, Stream};
use lab::tor::Kind;
use lab::{net, wait};
use tests::{Case, SESSION, oracle, same, status, suite, wait_session};

const MILLISECOND: Duration = Duration::from_millis(1);

/// What one change may take until the kernel shows it.
const SOON: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let racks = Shape {
        tor: Some(Kind::best()),
        nodes: 1,
        pods: 1,
        ..Shape::default()
    };
    let rack = Shape {
        racks: 1,
        nodes: 2,
        ..racks.clone()
    };
    let every = [Kind::Bird, Kind::Frr, Kind::Gobgp, Kind::Margay];
    let mut cases = Case::each(&every, "kill_9_loses_no_packet", &racks, kill);
    cases.extend([
        Case::new("a_lost_packet_is_counted", racks.clone(), probe),
        Case::new("sigterm_keeps_routes", racks.clone(), terminate),
        Case::new("deleted_routes_come_back", rack.clone(), deleted).with("ip"),
        Case::new("a_tor_dies_and_returns", racks, tor_dies),
        Case::new("a_broken_file_is_reported", rack.clone(), broken_file),
        Case::new("exit_statuses_of_margayctl", rack.clone(), exit_statuses),
    ]);
    let ours = [
        Case::new(
            "a_restart_with_a_broken_file_loses_nothing",
            rack.clone(),
            agent::restart_with_broken_file,
        ),
        Case::new(
            "a_second_agent_is_refused",
            rack.clone(),
            agent::second_agent,
        ),
        Case::new(
            "routes_changed_behind_a_stopped_agent",
            rack.clone(),
            agent::changed_while_stopped,
        ),
        Case::new(
            "a_route_before_ours_is_named",
            rack.clone(),
            agent::shadowed,
        ),
        Case::new("metrics", rack.clone(), agent::metrics),
        Case::new(
            "both_ends_dead_agent_first",
            rack.clone(),
            sessions::both_dead,
        ),
        Case::new("kill_9_amid_a_burst_of_pods", rack.clone(), pods::burst),
        many::case(&rack),
    ];
    let rack_of_two = rack.clone();
    let impatient = Shape {
        graceful_restart: false,
        // An agent that starts takes such a router's first KEEPALIVE as the end of what it has to tell.
        hold_time: Duration::from_secs(6),
        ..rack
    };
    // GoBGP's patience between two attempts would make this the longest case.
    let quick = [Kind::Bird, Kind::Frr, Kind::Margay];
    let loss = Case::each(
        &quick,
        "without_graceful_restart_routes_go_with_the_session",
        &impatient,
        sessions::without_graceful_restart,
    );
    let loss = loss.into_iter().chain(two_tor_cases(&rack_of_two));
    cases.extend(ours.into_iter().chain(loss).map(|case| case.with("ip")));
    suite(cases)
}

/// Nodes with a link to each of two ToRs.
fn two_tor_cases(rack: &Shape) -> Vec<Case> {
    let two_tors = Shape {
        two_tors: true,
        ..rack.clone()
    };
    let mut cases = Case::each(
        &[Kind::Bird, Kind::Margay],
        "a_tor_without_power_costs_milliseconds",
        &two_tors,
        two_tors::no_power,
    );
    cases.extend([
        Case::new(
            "a_way_that_is_longer_is_second",
            two_tors.clone(),
            two_tors::longer_way,
        ),
        Case::new("a_link_or_its_address_goes", two_tors, two_tors::link_goes),
    ]);
    cases.extend(dead_tor::cases(rack));
    cases
}

/// A node and the address of its first pod.
fn first_pod(dc: &DataCentre, rack: usize) -> Result<(&Node, Ipv4Addr)> {
    let rack = dc.racks.get(rack).context("the rack")?;
    let node = rack.nodes.first().context("a node")?;
    Ok((node, node.pods.first().context("a pod")?.address))
}

/// Starts pings from a pod in rack a to a pod in rack b and runs `disturb` meanwhile; none may be lost.
fn undisturbed(
    dc: &mut DataCentre,
    disturb: impl FnOnce(&mut DataCentre) -> Result<()>,
) -> Result<()> {
    let (from, _) = first_pod(dc, 0)?;
    let (_, target) = first_pod(dc, 1)?;
    let from = from.pods.first().context("a pod")?.namespace.clone();
    Pinger::open(&from)?.wait_answer(target, SESSION)?;
    let stream = Stream::start(&from, target, MILLISECOND)?;
    let result = disturb(dc);
    let loss = stream.finish()?;
    result?;
    match loss.lost.as_slice() {
        [] => Ok(()),
        lost => bail!("{} of {} lost: {lost:?}", lost.len(), loss.sent),
    }
}

fn kill(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    undisturbed(dc, |dc| {
        for name in ["node-b1", "node-a1"] {
            let node = dc.node(name)?;
            node.agent()?.kill()?;
            node.start()?;
            node.wait_ready(SESSION)?;
            wait_session(node, true, SESSION)?;
            // Nothing is taken away once it trusts what it has learned, either.
            wait::until("its routes to be in step", SESSION, || {
                let status = status(node)?;
                let bgp = status.bgp.context("a speaker")?;
                same("synced", &(bgp.synced, status.kernel.synced), &(true, true))
            })?;
        }
        Ok(())
    })?;
    dc.wait_routes(SESSION)
}

/// The probe itself: without this, "none was lost" says little.
fn probe(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let result = undisturbed(dc, |dc| {
        let (node, _) = first_pod(dc, 1)?;
        net::set_down(&node.namespace, "eth0")?;
        wait::measure_for(20 * MILLISECOND);
        net::set_up(&node.namespace, "eth0")
    });
    match result {
        Err(error) if error.to_string().contains("lost") => Ok(()),
        other => bail!("a link was down, and the probe says {other:?}"),
    }
}

fn terminate(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    undisturbed(dc, |dc| {
        let node = dc.node("node-b1")?;
        let before = node.kernel()?;
        let status = node.agent()?.terminate(SOON)?;
        same("exit status", &status.code(), &Some(0))?;
        same("routes", &node.kernel()?, &before)?;
        node.start()?;
        node.wait_ready(SESSION)?;
        wait_session(node, true, SESSION).map(drop)
    })
}

fn deleted(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let other = dc.node("node-a2")?.pod_cidr;
    let node = dc.node("node-a1")?;
    let before = oracle::margay_routes(&node.namespace)?;
    let pod = Ipv4Net::new(node.pods.first().context("a pod")?.address, 32)?;
    let own = node.pod_cidr;
    for prefix in [
        other.to_string(),
        pod.to_string(),
        format!("blackhole {own}"),
    ] {
        let mut line = vec!["route", "del"];
        line.extend(prefix.split(' '));
        oracle::ip(&node.namespace, &line)?;
    }
    healed(node, &before)?;
    // Learned routes go with their groups; pods' have none.
    oracle::ip(&node.namespace, &["nexthop", "flush", "proto", "77"])?;
    healed(node, &before)?;
    let pods = ["route", "flush", "proto", "77", "scope", "link"];
    oracle::ip(&node.namespace, &pods)?;
    healed(node, &before)?;
    // A route of somebody else is none of our business.
    let foreign = ["route", "add", "198.51.100.0/24", "via", "172.20.1.1"];
    oracle::ip(&node.namespace, &foreign)?;
    // Link down and up: the kernel takes the routes away, and gives none back.
    oracle::ip(&node.namespace, &["link", "set", "eth0", "down"])?;
    oracle::ip(&node.namespace, &["link", "set", "eth0", "up"])?;
    oracle::ip(
        &node.namespace,
        &["route", "add", "default", "via", "172.20.1.1"],
    )?;
    wait::until("routes after the link is up", SESSION, || {
        same("routes", &oracle::margay_routes(&node.namespace)?, &before)
    })
}

fn healed(node: &Node, before: &std::collections::BTreeMap<Ipv4Net, Option<String>>) -> Result<()> {
    wait::until("the routes to be back", SOON, || {
        same("routes", &oracle::margay_routes(&node.namespace)?, before)
    })
}

fn tor_dies(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let tor = &mut dc.racks.get_mut(1).context("rack b")?.tor;
    tor.speaker.as_mut().context("a speaker")?.kill()?;
    let node = dc.node("node-b1")?;
    wait_session(node, false, SESSION)?;
    let tor = &mut dc.racks.get_mut(1).context("rack b")?.tor;
    tor.speaker.as_mut().context("a speaker")?.restart()?;
    dc.wait_sessions(SESSION)?;
    dc.wait_routes(SESSION)?;
    let (from, _) = first_pod(dc, 0)?;
    let (_, target) = first_pod(dc, 1)?;
    let from = &from.pods.first().context("a pod")?.namespace;
    Pinger::open(from)?.wait_answer(target, SESSION).map(drop)
}

fn broken_file(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let node = dc.node("node-a1")?;
    let before = node.kernel()?;
    let file = node.config_folder().join("bgp.yaml");
    let good = std::fs::read_to_string(&file)?;
    let broken = good.replace("asNumber:", "asNumbr:");
    let line = broken
        .lines()
        .position(|line| line.contains("asNumbr"))
        .context("the broken line")?;
    node.write_config("bgp.yaml", &broken)?;
    let problem = wait::until("the report", SOON, || {
        let problems = status(node)?.config.problems;
        problems
            .into_iter()
            .next()
            .context("no problem is reported")
    })?;
    if !problem.source.ends_with("bgp.yaml") {
        bail!("{problem:?} names another file");
    }
    same("line", &problem.line, &Some(u32::try_from(line + 1)?))?;
    if !format!("{:?}{}", problem.field, problem.message).contains("asNumbr") {
        bail!("{problem:?} does not name the field");
    }
    // The last good state stays: session and routes.
    wait_session(node, true, SOON)?;
    same("routes", &node.kernel()?, &before)?;
    node.write_config("bgp.yaml", &good)?;
    wait::until("the repair", SOON, || {
        same("problems", &status(node)?.config.problems, &Vec::new())
    })
}

fn exit_statuses(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    let code = |node: &Node, arguments: &[&str]| -> Result<Option<i32>> {
        Ok(node.ctl_output(arguments)?.status.code())
    };
    let node = dc.node("node-a1")?;
    for arguments in [
        ["bgp", "peers"].as_slice(),
        &["status"],
        &["routes"],
        &["endpoints"],
    ] {
        same(&arguments.join(" "), &code(node, arguments)?, &Some(0))?;
    }
    same("usage", &code(node, &["nonsense"])?, &Some(2))?;
    let tor = &mut dc.racks.first_mut().context("a rack")?.tor;
    tor.speaker.as_mut().context("a speaker")?.kill()?;
    let node = dc.node("node-a1")?;
    wait_session(node, false, SESSION)?;
    same("a peer is down", &code(node, &["bgp", "peers"])?, &Some(1))?;
    same("a peer is down", &code(node, &["status"])?, &Some(1))?;
    node.agent()?.kill()?;
    same("no agent", &code(node, &["status"])?, &Some(3))
}

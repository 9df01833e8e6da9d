//! What follows from what nodes there are: route reflectors that are chosen and changed under load, and nodes that change
//! or go while everybody else runs.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node, Shape};
use lab::probe::{Pinger, Stream};
use lab::wait;
use tests::{Case, SESSION, oracle, peers, same, suite};

/// What a changeover may take: old sessions stay for half a minute after new ones are up.
const CHANGEOVER: Duration = Duration::from_secs(90);

fn main() -> ExitCode {
    let rack = Shape {
        tor: None,
        racks: 1,
        nodes: 4,
        pods: 1,
        ..Shape::default()
    };
    let cases = vec![Case::new(
        "reflectors_are_chosen_and_changed_without_a_lost_packet",
        rack,
        changeover,
    )];
    suite(cases.into_iter().map(|case| case.with("ip")).collect())
}

/// Changes a file of every node's configuration, of one node after the other: each sees the change a moment later.
fn edit(dc: &DataCentre, file: &str, change: impl Fn(&str) -> String) -> Result<()> {
    for node in dc.nodes() {
        let text = std::fs::read_to_string(node.config_folder().join(file))?;
        let log = || -> Result<usize> {
            let text = std::fs::read_to_string(node.log())?;
            Ok(text.matches("configuration in force").count())
        };
        let before = log()?;
        node.write_config(file, &change(&text))?;
        wait::until("the new plan", SESSION, || match log()? > before {
            true => Ok(()),
            false => bail!("not yet"),
        })?;
    }
    Ok(())
}

/// The names of the nodes that a node has sessions with.
fn joined(dc: &DataCentre, node: &Node) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for peer in peers(node)? {
        let other = dc.nodes().find(|other| peer.address == other.address);
        names.insert(other.context("a node")?.name.clone());
    }
    Ok(names)
}

/// Waits until all nodes have sessions with one of them alone, which has them with all, and gives its name.
fn wait_star(dc: &DataCentre) -> Result<String> {
    let all: BTreeSet<String> = dc.nodes().map(|node| node.name.clone()).collect();
    wait::until("one reflector", CHANGEOVER, || {
        let mut centre = None;
        for node in dc.nodes() {
            let others = joined(dc, node)?;
            match others.len() {
                1 => {}
                count if count + 1 == all.len() && centre.is_none() => centre = Some(node),
                count => bail!("{} has {count} peers", node.name),
            }
        }
        let centre = centre.context("no reflector")?;
        for node in dc.nodes().filter(|node| node.name != centre.name) {
            same("peers", &joined(dc, node)?, &[centre.name.clone()].into())?;
            let connections = oracle::bgp_connections(&node.namespace)?;
            same("connections", &connections, &1)?;
        }
        Ok(centre.name.clone())
    })
}

fn changeover(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    // Every pod to the next one, all the time.
    let pods: Vec<_> = dc.pods().collect();
    let mut streams = Vec::new();
    for (index, from) in pods.iter().enumerate() {
        let to = pods[(index + 1) % pods.len()].address;
        Pinger::open(&from.namespace)?.wait_answer(to, SESSION)?;
        streams.push(Stream::start(
            &from.namespace,
            to,
            Duration::from_millis(5),
        )?);
    }
    let change = || -> Result<()> {
        edit(dc, "bgp.yaml", |text| {
            text.replace(
                "nodeToNodeMeshEnabled: true",
                "routeReflectors: {auto: {count: 1}}",
            )
        })?;
        let first = wait_star(dc)?;
        // It is about to go; then it is back, and the choice is the same as before.
        edit(dc, "nodes.yaml", |text| {
            let name = format!("name: {first}\n");
            let (before, after) = text.split_once(&name).unwrap_or((text, ""));
            let after = after.replacen("spec:\n", "spec:\n  unschedulable: true\n", 1);
            format!("{before}{name}{after}")
        })?;
        let second = wait_star(dc)?;
        if first == second {
            bail!("{first} is still the reflector");
        }
        edit(dc, "nodes.yaml", |text| {
            text.replace("  unschedulable: true\n", "")
        })?;
        same("the reflector", &wait_star(dc)?, &first)?;
        dc.wait_routes(SESSION)
    };
    let changed = change();
    for (stream, pod) in streams.into_iter().zip(&pods) {
        let loss = stream.finish()?;
        if loss.sent < 1000 || !loss.lost.is_empty() {
            bail!(
                "from {}: {} sent, lost {:?}",
                pod.name,
                loss.sent,
                loss.lost
            );
        }
    }
    changed
}

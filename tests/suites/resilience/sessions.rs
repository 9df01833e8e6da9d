//! Sessions that end: what stays, and what must not.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::datacentre::{DataCentre, Router};
use lab::wait;
use tests::{SESSION, oracle, same};

/// Longer than it takes a router to be found missing; much shorter than the restart time that it offered.
const AN_OUTAGE: Duration = Duration::from_secs(20);

fn tor(dc: &mut DataCentre) -> Result<&mut Router> {
    let rack = dc.racks.first_mut().context("a rack")?;
    Ok(&mut rack.tor)
}

/// Nobody asked for patience: routes go with their session, on both sides.
pub(crate) fn without_graceful_restart(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    dc.wait_routes(SESSION)?;
    let lost = dc.node("node-a2")?.pod_cidr;
    dc.node("node-a2")?.agent()?.kill()?;
    wait::until("the routes of node-a2 to go", SESSION, || {
        let learned = tor(dc)?.speaker.as_ref().context("a speaker")?.learned()?;
        same("at the ToR", &learned.contains_key(&lost), &false)?;
        let routes = oracle::margay_routes(&dc.node("node-a1")?.namespace)?;
        same("at node-a1", &routes.contains_key(&lost), &false)
    })?;
    dc.node("node-a2")?.start()?;
    dc.wait_sessions(SESSION)?;
    dc.wait_routes(SESSION)?;

    tor(dc)?.speaker.as_mut().context("a speaker")?.kill()?;
    for node in dc.nodes() {
        let own = vec![node.pod_cidr];
        wait::until("learned routes to go", SESSION, || {
            let routes = oracle::margay_routes(&node.namespace)?;
            same(&node.name, &routes.into_keys().collect(), &own)
        })?;
    }
    Ok(())
}

/// The agent comes back before the router does: what the kernel still has stays until the router could have told more.
pub(crate) fn both_dead(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    dc.wait_routes(SESSION)?;
    let before = oracle::margay_routes(&dc.node("node-a1")?.namespace)?;
    tor(dc)?.speaker.as_mut().context("a speaker")?.kill()?;
    for node in dc.nodes_mut() {
        node.agent()?.kill()?;
    }
    let node = dc.node("node-a1")?;
    node.start()?;
    node.wait_ready(SESSION)?;
    wait::holds("the routes stay", AN_OUTAGE, || {
        same("routes", &oracle::margay_routes(&node.namespace)?, &before)
    })?;

    // The router knows nothing of node-a2, whose agent is still dead.
    tor(dc)?.speaker.as_mut().context("a speaker")?.restart()?;
    let lost = dc.node("node-a2")?.pod_cidr;
    let node = dc.node("node-a1")?;
    node.wait_in_step(SESSION)?;
    wait::until("the stale route to go", SESSION, || {
        let routes = oracle::margay_routes(&node.namespace)?;
        same("route", &routes.contains_key(&lost), &false)
    })?;
    dc.node("node-a2")?.start()?;
    dc.wait_sessions(SESSION)?;
    wait::until("all routes", SESSION, || {
        let routes = oracle::margay_routes(&dc.node("node-a1")?.namespace)?;
        same("routes", &routes, &before)
    })
}

//! The agent itself: started with a broken file, twice, stopped for a while, asked for its metrics.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context, Result, bail};
use lab::datacentre::{DataCentre, METRICS, Node};
use lab::process::{self, Process};
use lab::wait;
use tests::{SESSION, oracle, same, status, wait_session};

use crate::{SOON, healed};

/// For how long nothing may happen.
const A_WHILE: std::time::Duration = std::time::Duration::from_secs(3);

/// A file that was good when the agent started last is broken when it starts again: nothing that it may have asked for
/// is given up, and once it is mended all is in step.
pub(crate) fn restart_with_broken_file(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let node = dc.node("node-a1")?;
    let before = oracle::margay_routes(&node.namespace)?;
    let file = node.config_folder().join("bgp.yaml");
    let good = std::fs::read_to_string(file)?;
    node.write_config("bgp.yaml", &good.replace("asNumber:", "asNumbr:"))?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(SESSION)?;
    wait::until("the report", SOON, || {
        let problems = status(node)?.config.problems;
        let named = problems.iter().any(|it| it.source.ends_with("bgp.yaml"));
        same("reported", &named, &true)
    })?;
    wait::holds("the routes stay", A_WHILE, || {
        same("routes", &oracle::margay_routes(&node.namespace)?, &before)
    })?;
    node.write_config("bgp.yaml", &good)?;
    wait_session(node, true, SESSION)?;
    node.wait_in_step(SESSION)?;
    same("routes", &oracle::margay_routes(&node.namespace)?, &before)?;
    same("problems", &status(node)?.config.problems, &Vec::new())
}

/// The second one says what is wrong and ends; the first notices nothing.
pub(crate) fn second_agent(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let node = dc.node("node-a1")?;
    let before = oracle::margay_routes(&node.namespace)?;
    let log = node.log().with_file_name("second.log");
    let program = node.margayd()?;
    let mut second = Process::spawn("a second margayd", &node.namespace, program, log.clone())?;
    let status = second.ended(SOON)?;
    let said = process::tail(&log, 5);
    if status.success() || !said.contains("another margayd") {
        bail!("{status}: {said}");
    }
    wait::holds("the first one serves on", A_WHILE / 3, || {
        wait_session(node, true, SOON)?;
        same("routes", &oracle::margay_routes(&node.namespace)?, &before)
    })?;
    node.agent()?.check()?;
    // Pods too.
    node.attach()?;
    node.detach()
}

/// Whatever happened to its routes while it could not look is mended as soon as it can.
pub(crate) fn changed_while_stopped(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let other = dc.node("node-a2")?.pod_cidr.to_string();
    let node = dc.node("node-a1")?;
    let before = oracle::margay_routes(&node.namespace)?;
    let pod = node.pods.first().context("a pod")?.address.to_string();
    node.agent()?.freeze()?;
    let route = |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        oracle::ip(&node.namespace, &arguments).map(drop)
    };
    let result = route(&format!("route del {pod}")).and_then(|()| {
        route(&format!(
            "route replace {other} via 172.20.1.250 proto 77 onlink dev eth0"
        ))
    });
    // Enough of other people's business that not every event fits into a socket's buffer.
    let flood = (0..4000).fold(String::new(), |lines, number| {
        let prefix = format!("198.18.{}.{}/32", number / 250, number % 250);
        lines + &format!("route add {prefix} dev eth0\nroute del {prefix}\n")
    });
    let batch = node.log().with_file_name("flood");
    std::fs::write(&batch, flood)?;
    let batch = batch.to_str().context("a path")?;
    let flooded = oracle::ip(&node.namespace, &["-batch", batch]);
    node.agent()?.thaw()?;
    result?;
    flooded?;
    healed(node, &before)
}

/// What a Prometheus on the node would see.
pub(crate) fn metrics(dc: &mut DataCentre) -> Result<()> {
    dc.start_agents()?;
    dc.wait_sessions(SESSION)?;
    let node = dc.node("node-a1")?;
    let page = scrape(node)?;
    let (head, body) = page.split_once("\r\n\r\n").context("a head and a body")?;
    if !head.starts_with("HTTP/1.1 200") || !head.to_lowercase().contains("text/plain") {
        bail!("{head}");
    }
    let sessions: Vec<&str> = body
        .lines()
        .filter(|line| line.starts_with("margay_bgp_session_up{"))
        .collect();
    let peer = "peer=\"172.20.1.1\"";
    match sessions.as_slice() {
        [line] if line.contains(peer) && line.ends_with(" 1") => Ok(()),
        other => bail!("{other:?}"),
    }
}

fn scrape(node: &Node) -> Result<String> {
    node.namespace.run(|| {
        let mut stream = TcpStream::connect_timeout(&METRICS.into(), SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    })
}

/// Somebody's route of a lower metric takes the packets of one of ours: whose it is, is said, also by an agent that comes
/// later; and no more once it is gone.
pub(crate) fn shadowed(dc: &mut DataCentre) -> Result<()> {
    const PREFIX: &str = "10.244.12.0/24";
    const GATEWAY: &str = "172.20.1.1";
    dc.start()?;
    dc.wait_routes(SESSION)?;
    let node = dc.node("node-a1")?;
    let route = [
        "route", "add", PREFIX, "via", GATEWAY, "metric", "7", "proto", "static",
    ];
    oracle::ip(&node.namespace, &route)?;
    let taken = oracle::ip(&node.namespace, &["route", "get", "10.244.12.1"])?;
    same(&taken, &taken.contains(GATEWAY), &true)?;
    let said = "a route of protocol static, metric 7, via 172.20.1.1 dev eth0";
    let is_named = |node: &Node| {
        wait::until("the other's route to be named", SESSION, || {
            let routes = node.ctl_json(&["routes"])?;
            let mut routes = routes["routes"].as_array().into_iter().flatten();
            let route = routes.find(|route| route["prefix"] == PREFIX);
            let route = route.context(PREFIX)?;
            same("state", &route["state"].as_str(), &Some("shadowed"))?;
            let error = route["error"].as_str().unwrap_or_default();
            same(error, &error.contains(said), &true)
        })
    };
    is_named(node)?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(SESSION)?;
    is_named(node)?;
    oracle::ip(&node.namespace, &["route", "del", PREFIX, "metric", "7"])?;
    wait::until("all to be well", SESSION, || {
        let kernel = &node.ctl_json(&["status"])?["kernel"];
        same("shadowed", &kernel["shadowed"].as_u64(), &Some(0))?;
        same("in place", &kernel["ok"], &kernel["desired"])
    })
}

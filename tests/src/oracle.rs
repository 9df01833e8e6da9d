//! The kernel's truth as other programs tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use lab::Namespace;
use lab::process::{self, Program};
use serde_json::Value;

/// Runs `ip` in a namespace.
///
/// # Errors
/// When it fails.
pub fn ip(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    Program::new(process::find("ip").context("ip")?)
        .args(arguments)
        .stdout(namespace)
}

/// `ip -j route show proto 77`: destination to gateway; `None` for a blackhole, the route's link for a pod.
///
/// # Errors
/// When `ip` fails.
pub fn margay_routes(namespace: &Namespace) -> Result<BTreeMap<Ipv4Net, Option<String>>> {
    let text = ip(namespace, &["-j", "route", "show", "proto", "77"])?;
    let routes: Value = serde_json::from_str(&text)?;
    let mut found = BTreeMap::new();
    for route in routes.as_array().into_iter().flatten() {
        let destination = route["dst"].as_str().context("dst")?;
        let prefix = match destination.parse::<Ipv4Addr>() {
            Ok(host) => Ipv4Net::new(host, 32)?,
            Err(_) => destination.parse()?,
        };
        let target = route["gateway"].as_str().or_else(|| {
            let plain = route["type"] != "blackhole";
            plain.then(|| route["dev"].as_str()).flatten()
        });
        found.insert(prefix, target.map(ToOwned::to_owned));
    }
    Ok(found)
}

/// The gateways of the route to a prefix, by `ip`.
///
/// # Errors
/// When `ip` fails.
pub fn gateways(namespace: &Namespace, prefix: &str) -> Result<BTreeSet<String>> {
    let text = ip(namespace, &["-j", "route", "show", prefix])?;
    let routes: Value = serde_json::from_str(&text)?;
    let mut found = BTreeSet::new();
    for route in routes.as_array().into_iter().flatten() {
        let hops = route["nexthops"].as_array().cloned();
        let hops = hops.unwrap_or_else(|| vec![route.clone()]);
        let gateway = |hop: &Value| hop["gateway"].as_str().map(ToOwned::to_owned);
        found.extend(hops.iter().filter_map(gateway));
    }
    Ok(found)
}

/// Connections of BGP that are established in a namespace, as the kernel lists them.
///
/// # Errors
/// When the list can't be read.
pub fn bgp_connections(namespace: &Namespace) -> Result<usize> {
    bgp_sockets(namespace, "01")
}

/// Sockets that listen for BGP over IPv4 in a namespace, as the kernel lists them.
///
/// # Errors
/// When the list can't be read.
pub fn bgp_listeners(namespace: &Namespace) -> Result<usize> {
    bgp_sockets(namespace, "0A")
}

/// Those of port 179 in a state (`include/net/tcp_states.h`).
fn bgp_sockets(namespace: &Namespace, state: &str) -> Result<usize> {
    // /proc/net/tcp: `sl local_address rem_address st …`; port 179 is 00B3.
    let table = namespace.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/tcp")?))?;
    let sockets = table.lines().filter(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        let remote = words.next().unwrap_or_default();
        (local.ends_with(":00B3") || remote.ends_with(":00B3")) && words.next() == Some(state)
    });
    Ok(sockets.count())
}

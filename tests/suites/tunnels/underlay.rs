//! The network between the nodes, and what is asked of the nodes' kernels.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node};
use lab::wait;
use serde_json::Value;
use tests::{SESSION, oracle};

/// An emulated processor takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Static routes to the racks, and to nothing else: routers know no pods.
pub(crate) fn connect(dc: &DataCentre) -> Result<()> {
    let spine = dc.spine.as_ref().context("a spine")?;
    for (number, rack) in dc.racks.iter().enumerate() {
        let tor = &rack.tor.namespace;
        let (here, there) = (
            format!("172.20.255.{}", 2 * number),
            format!("172.20.255.{}", 2 * number + 1),
        );
        oracle::ip(tor, &["route", "add", "default", "via", &here])?;
        let subnet = rack.subnet.to_string();
        oracle::ip(&spine.namespace, &["route", "add", &subnet, "via", &there])?;
        if !dc.shape.dual_stack {
            continue;
        }
        for router in [tor, &spine.namespace] {
            router.sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        let port = format!("to-{}", rack.name);
        let (gateway, here, there) = (
            format!("fd20:0:0:{}::1", number + 1),
            format!("fd20:0:0:ff:{number}::0"),
            format!("fd20:0:0:ff:{number}::1"),
        );
        let add = |namespace, address: &str, length: &str, link| {
            let address = format!("{address}/{length}");
            oracle::ip(namespace, &["addr", "add", &address, "dev", link, "nodad"])
        };
        add(tor, &gateway, "64", "rack")?;
        add(tor, &there, "127", "uplink")?;
        add(&spine.namespace, &here, "127", &port)?;
        oracle::ip(tor, &["route", "add", "default", "via", &here])?;
        let subnet = format!("fd20:0:0:{}::/64", number + 1);
        oracle::ip(&spine.namespace, &["route", "add", &subnet, "via", &there])?;
        for node in &rack.nodes {
            oracle::ip(
                &node.namespace,
                &["route", "add", "default", "via", &gateway],
            )?;
        }
    }
    Ok(())
}

/// Has all nodes' pools travel like this.
pub(crate) fn set_mode(dc: &DataCentre, mode: &str) -> Result<()> {
    dc.nodes().try_for_each(|node| write_mode(node, mode))
}

pub(crate) fn write_mode(node: &Node, mode: &str) -> Result<()> {
    let pool = |name: &str, cidr: &str| {
        format!(
            "---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: {name}\nspec:\n  cidr: {cidr}\n  \
             ipipMode: {mode}\n"
        )
    };
    let text = pool("pods", "10.244.0.0/16") + &pool("pods-6", "fd44::/16");
    node.write_config("pool.yaml", &text)
}

/// `ip route show` for one destination: gateway and device of our route.
pub(crate) fn route(node: &Node, prefix: &str) -> Result<(String, String)> {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    let text = oracle::ip(
        &node.namespace,
        &[family, "-j", "route", "show", prefix, "proto", "77"],
    )?;
    let routes: Value = serde_json::from_str(&text)?;
    // With a group of nexthop objects `ip -6` lists its members, were there but one.
    let route = &routes[0];
    let hop = route["nexthops"].get(0).unwrap_or(route);
    let word = |key: &str| Some(hop[key].as_str()?.to_owned());
    let gateway = word("gateway").with_context(|| format!("{prefix}: {routes}"))?;
    Ok((gateway, word("dev").context("dev")?))
}

/// Waits until a node's route to another one's pods is this.
pub(crate) fn wait_route(node: &Node, to: &Node, gateway: &str, device: &str) -> Result<()> {
    let what = format!("{} to reach {}", node.name, to.name);
    wait::until(&what, PATIENCE, || {
        let seen = route(node, &to.pod_cidr.to_string())?;
        if (seen.0.as_str(), seen.1.as_str()) != (gateway, device) {
            bail!("{seen:?}, not {gateway} on {device}");
        }
        Ok(())
    })
}

/// What an agent says of its tunnels.
pub(crate) fn tunnels(node: &Node) -> Result<api::Tunnels> {
    Ok(serde_json::from_value(node.ctl_json(&["tunnels"])?)?)
}

/// A device of ours, by `ip`; `None` when it isn't there.
pub(crate) fn device(node: &Node, name: &str) -> Result<Option<Value>> {
    let links: Value = serde_json::from_str(&oracle::ip(&node.namespace, &["-d", "-j", "link"])?)?;
    let mut links = links.as_array().into_iter().flatten();
    Ok(links.find(|link| link["ifname"] == name).cloned())
}

/// Waits for sessions and routes with a slow processor's patience.
pub(crate) fn start(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    dc.wait_routes(SESSION.max(PATIENCE))
}

//! One of two ToRs dies while a node has a thousand routes through both: the kernel's messages are few.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node, Shape};
use lab::probe::{Pinger, Stream};
use lab::speaker::RawSpeaker;
use lab::{Namespace, net, speaker, wait};
use serde_json::Value;
use tests::{Case, SESSION, oracle, same, status};

use super::many::{self, ASN, FEEDER, ROUTES, TARGET};
use super::two_tors::MOST_LOST;
use super::{MILLISECOND, SOON};

const SECOND: Ipv4Addr = Ipv4Addr::new(172, 21, 1, 1);

/// What `ip monitor` may hear of ours, in messages: a group and its members, some more than once; by no means each route.
const MOST_HEARD: usize = 20;

/// Told of after the failover, so that all before it has been heard when it is.
const MARK: &str = "198.51.100.98";

pub(crate) fn cases(rack: &Shape) -> [Case; 2] {
    let alone = Shape {
        tor: None,
        nodes: 1,
        pods: 0,
        two_tors: true,
        ..rack.clone()
    };
    let power = "a_tor_without_power_and_a_thousand_routes_move_as_one";
    let session = "a_tor_without_session_and_a_thousand_routes_move_as_one";
    [
        Case::new(power, alone.clone(), |dc| dies(dc, Death::Power)),
        Case::new(session, alone, |dc| dies(dc, Death::Session)),
    ]
}

/// How a ToR dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// The node's link loses its carrier. The kernel drops what leads there by itself, and tells nobody.
    Power,
    /// Its speaker is gone, so the agent changes the group, which is told.
    Session,
}

/// The routers are speakers that say what they are told, each with a way to the target.
fn dies(dc: &mut DataCentre, death: Death) -> Result<()> {
    let rack = dc.racks.first_mut().context("a rack")?;
    let first = rack.tor.namespace.clone();
    let second = rack.second_tor.as_ref().context("a second ToR")?;
    let second = second.namespace.clone();
    let listeners = [(&first, FEEDER), (&second, SECOND)]
        .map(|(namespace, address)| speaker::listen(namespace, address));
    let node = rack.nodes.first_mut().context("a node")?;
    // Otherwise the kernel tells of each route that a group's change moves.
    node.namespace.sysctl("ipv4/nexthop_compat_mode", "0")?;
    node.write_config("feeder.yaml", &(many::config() + &second_peer()))?;
    node.start()?;
    node.wait_ready(SESSION)?;
    let mut feeders = Vec::new();
    for (listener, address) in listeners.into_iter().zip([FEEDER, SECOND]) {
        let mut feeder = RawSpeaker::accept(&listener?, SESSION)?;
        feeder.establish(&speaker::open(ASN, address, 90), SESSION)?;
        feeder.say(&many::updates(address)?)?;
        feeders.push(feeder);
    }
    in_step(node, 2)?;
    let pod = node.attach()?.address;
    let from = node.pods.first().context("a pod")?.namespace.clone();
    ways_back(&first, node, Ipv4Addr::new(172, 20, 1, 11))?;
    ways_back(&second, node, Ipv4Addr::new(172, 21, 1, 11))?;
    Pinger::open(&from)?.wait_answer(TARGET, SESSION)?;

    let used = gateway(node, pod)?;
    let (number, dying, other) = if used == FEEDER {
        (0, &first, SECOND)
    } else {
        (1, &second, FEEDER)
    };
    let mut listening = many::listen(node)?;
    let before = std::fs::read_to_string(listening.log())?.lines().count();
    let stream = Stream::start(&from, TARGET, MILLISECOND)?;
    wait::measure_for(100 * MILLISECOND);
    match death {
        Death::Power => net::set_down(dying, "to-a1")?,
        Death::Session => drop(feeders.remove(number)),
    }
    let moved = in_step(node, 1);
    wait::measure_for(200 * MILLISECOND);
    let loss = stream.finish()?;
    moved?;
    same("gateway", &gateway(node, pod)?, &other)?;
    if loss.lost.len() > MOST_LOST {
        bail!("{} of {} lost: {:?}", loss.lost.len(), loss.sent, loss.lost);
    }
    oracle::ip(&node.namespace, &["route", "add", "blackhole", MARK])?;
    let heard = wait::until("ip monitor to hear all", SOON, || {
        let text = std::fs::read_to_string(listening.log())?;
        same("heard", &text.contains(MARK), &true)?;
        Ok(text)
    })?;
    listening.kill()?;
    let ours = |line: &&str| line.contains("proto 77") || line.contains("id 77");
    let ours: Vec<_> = heard.lines().skip(before).filter(ours).collect();
    let least = usize::from(death == Death::Session);
    if !(least..=MOST_HEARD).contains(&ours.len()) {
        bail!("{} messages were heard: {ours:?}", ours.len());
    }
    Ok(())
}

/// Waits until `ip` shows a group of so many members, and the agent all routes.
fn in_step(node: &Node, members: usize) -> Result<()> {
    wait::until("the routes and their group", SESSION, || {
        let text = oracle::ip(&node.namespace, &["-j", "nexthop", "show", "proto", "77"])?;
        let objects: Value = serde_json::from_str(&text)?;
        let objects = objects.as_array().into_iter().flatten();
        let groups = objects.filter_map(|object| Some(object["group"].as_array()?.len()));
        same("groups", &groups.collect(), &vec![members])?;
        let kernel = status(node)?.kernel;
        if kernel.ok < u64::from(ROUTES) || kernel.desired != kernel.ok {
            bail!("{} of {} routes", kernel.ok, kernel.desired);
        }
        Ok(())
    })
}

/// The router answers for the target, and knows the way to the node's pods.
fn ways_back(router: &Namespace, node: &Node, via: Ipv4Addr) -> Result<()> {
    net::address(router, "lo", Ipv4Net::new(TARGET, 32)?)?;
    let range = node.pod_cidr.to_string();
    let back = ["route", "add", &range, "via", &via.to_string()];
    oracle::ip(router, &back).map(drop)
}

/// Which router the kernel sends the pod's packets for the target to.
fn gateway(node: &Node, pod: Ipv4Addr) -> Result<Ipv4Addr> {
    let show = ["-j", "route", "show", &pod.to_string()];
    let text = oracle::ip(&node.namespace, &show)?;
    let route: Value = serde_json::from_str(&text)?;
    let link = route[0]["dev"].as_str().context("the pod's link")?;
    let (target, pod) = (TARGET.to_string(), pod.to_string());
    let get = ["-j", "route", "get", &target, "from", &pod, "iif", link];
    let route: Value = serde_json::from_str(&oracle::ip(&node.namespace, &get)?)?;
    let gateway = route[0]["gateway"].as_str();
    Ok(gateway.context("a gateway")?.parse()?)
}

fn second_peer() -> String {
    format!(
        "---\napiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: second\nspec:\n  peerIP: {SECOND}\n  \
         asNumber: {ASN}\n  sourceAddress: None\n"
    )
}

//! A node with two hundred pods and a thousand learned routes: restarts that nobody notices, by an independent listener's
//! account neither.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, bail};
use bgp_wire::{AsPath, Attributes, Context, Family, NextHop, UpdateBuilder, update};
use ipnet::{IpNet, Ipv4Net};
use lab::datacentre::{DataCentre, Node, Shape};
use lab::probe::{Pinger, Stream};
use lab::process::{self, Process, Program};
use lab::speaker::{self, RawSpeaker};
use lab::{Namespace, net, wait};
use tests::{Case, SESSION, oracle, same, status};

use super::{MILLISECOND, SOON};

const PODS: usize = 200;
pub(super) const ROUTES: u32 = 1000;
/// Of the router that tells of the routes.
pub(super) const ASN: u32 = 4_200_001_001;
pub(super) const FEEDER: Ipv4Addr = Ipv4Addr::new(172, 20, 1, 1);
/// An address within one of the routes.
pub(super) const TARGET: Ipv4Addr = Ipv4Addr::new(10, 128, 7, 1);

pub(crate) fn case(rack: &Shape) -> Case {
    let alone = Shape {
        tor: None,
        nodes: 1,
        pods: 0,
        ..rack.clone()
    };
    let name = "restarts_with_many_pods_and_routes_touch_nothing";
    Case::new(name, alone, restarts)
}

/// kill -9, and what an upgrade in place does: SIGTERM, then another process. Not a packet is lost, not a route or nexthop
/// object goes, and none is written anew.
fn restarts(dc: &mut DataCentre) -> Result<()> {
    let rack = dc.racks.first_mut().context("a rack")?;
    let router = rack.tor.namespace.clone();
    let listener = speaker::listen(&router, FEEDER)?;
    let node = rack.nodes.first_mut().context("a node")?;
    node.write_config("feeder.yaml", &config())?;
    node.start()?;
    node.wait_ready(SESSION)?;
    let mut feeder = feed(&listener, node)?;
    for _ in 0..PODS {
        node.attach()?;
    }
    answer(&router, node)?;
    let pods = [0, PODS / 2, PODS - 1].map(|number| node.pods[number].namespace.clone());
    Pinger::open(&pods[0])?.wait_answer(TARGET, SESSION)?;

    let listening = listen(node)?;
    let before = snapshot(node)?;
    let streams: Vec<Stream> = pods
        .iter()
        .map(|pod| Stream::start(pod, TARGET, MILLISECOND))
        .collect::<Result<_>>()?;
    let result: Result<()> = (|| {
        for kill in [true, false] {
            if kill {
                node.agent()?.kill()?;
            } else {
                node.agent()?.terminate(SOON)?;
            }
            drop(std::mem::replace(&mut feeder, again(&listener, node)?));
            same("the kernel", &snapshot(node)?, &before)?;
        }
        Ok(())
    })();
    let losses: Vec<_> = streams
        .into_iter()
        .map(Stream::finish)
        .collect::<Result<_>>()?;
    result?;
    for loss in losses {
        if !loss.lost.is_empty() {
            bail!("{} of {} lost: {:?}", loss.lost.len(), loss.sent, loss.lost);
        }
    }
    heard_nothing(listening)
}

/// The listener heard of nothing that is ours.
fn heard_nothing(mut listening: Process) -> Result<()> {
    listening.kill()?;
    let heard = std::fs::read_to_string(listening.log())?;
    let ours = |line: &&str| line.contains("proto 77") || line.contains("id 77");
    match heard.lines().filter(ours).collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        lines => bail!("{} changes were heard: {:?}", lines.len(), lines.first()),
    }
}

/// Somebody behind the router answers, and the router knows the way back.
fn answer(router: &Namespace, node: &Node) -> Result<()> {
    net::address(router, "lo", Ipv4Net::new(TARGET, 32)?)?;
    let own = node.pod_cidr.to_string();
    let eth0 = oracle::ip(&node.namespace, &["-j", "-4", "address", "show", "eth0"])?;
    let eth0: serde_json::Value = serde_json::from_str(&eth0)?;
    let address = eth0[0]["addr_info"][0]["local"].as_str();
    let back = ["route", "add", &own, "via", address.context("an address")?];
    oracle::ip(router, &back).map(drop)
}

fn again(listener: &TcpListener, node: &mut Node) -> Result<RawSpeaker> {
    node.start()?;
    node.wait_ready(SESSION)?;
    feed(listener, node)
}

/// Tells the node's agent of all routes, and waits until it has them and trusts what it has.
fn feed(listener: &TcpListener, node: &Node) -> Result<RawSpeaker> {
    let mut feeder = RawSpeaker::accept(listener, SESSION)?;
    feeder.establish(&speaker::open(ASN, FEEDER, 90), SESSION)?;
    feeder.say(&updates(FEEDER)?)?;
    wait::until("the routes", SESSION, || {
        let status = status(node)?;
        let bgp = status.bgp.context("a speaker")?;
        let kernel = &status.kernel;
        same("synced", &(bgp.synced, kernel.synced), &(true, true))?;
        if kernel.ok < u64::from(ROUTES) || kernel.desired != kernel.ok {
            bail!("{} of {} routes", kernel.ok, kernel.desired);
        }
        Ok(())
    })?;
    Ok(feeder)
}

/// What `ip` says of all that is ours.
fn snapshot(node: &Node) -> Result<[String; 2]> {
    let show = |line: &[&str]| {
        let text = oracle::ip(&node.namespace, line)?;
        let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
        lines.sort_unstable();
        Ok::<_, anyhow::Error>(lines.join("\n"))
    };
    let routes = show(&["route", "show", "proto", "77"])?;
    if routes.lines().count() < usize::try_from(ROUTES)? + PODS {
        bail!("{} routes", routes.lines().count());
    }
    Ok([routes, show(&["nexthop", "show", "proto", "77"])?])
}

/// `ip monitor` in the node's namespace. It hears something of ours before it is trusted to hear.
pub(super) fn listen(node: &Node) -> Result<Process> {
    let log = node.log().with_file_name("monitor");
    let program = Program::new(process::find("ip").context("ip")?);
    let program = program.args(["monitor", "route", "nexthop"]);
    let listening = Process::spawn("ip monitor", &node.namespace, program, log)?;
    wait::until("ip monitor to hear", SOON, || {
        let line = ["route", "add", "blackhole", "198.51.100.99"];
        oracle::ip(&node.namespace, &line)?;
        oracle::ip(&node.namespace, &["route", "del", "198.51.100.99"])?;
        let heard = std::fs::read_to_string(listening.log())?;
        same("heard", &heard.contains("198.51.100.99"), &true)
    })?;
    Ok(listening)
}

pub(super) fn config() -> String {
    format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: feeder\nspec:\n  peerIP: {FEEDER}\n  \
         asNumber: {ASN}\n---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: pods\nspec:\n  \
         cidr: 10.128.0.0/9\n---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: nodes\nspec:\n  \
         cidr: 10.240.0.0/12\n"
    )
}

/// All routes through `gateway` as UPDATEs, with End-of-RIB at the end.
pub(super) fn updates(gateway: Ipv4Addr) -> Result<Vec<u8>> {
    let context = Context {
        four_octet_as: true,
        ..Context::default()
    };
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0));
    let all: Vec<Ipv4Net> = (0..ROUTES)
        .map(|number| Ipv4Net::new(Ipv4Addr::from(first + (number << 8)), 24))
        .collect::<Result<_, _>>()?;
    let attributes = Attributes {
        as_path: AsPath::sequence(vec![ASN, 4_200_010_000]),
        ..Attributes::originated()
    };
    let mut section = Vec::new();
    attributes.encode(&context, &mut section);
    let mut octets = Vec::new();
    for portion in all.chunks(100) {
        let gateway = NextHop::V4(gateway);
        let family = Family::IPV4_UNICAST;
        let mut message = UpdateBuilder::announce(&mut octets, &context, &section, gateway, family);
        for prefix in portion {
            message.push(IpNet::V4(*prefix))?;
        }
        message.finish();
    }
    update::encode_end_of_rib(Family::IPV4_UNICAST, &mut octets);
    Ok(octets)
}

//! Services towards the fabric: what routers of other people's learn of them, and where packets go. A few nft rules play
//! kube-proxy.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::Ipv4Net;
use lab::datacentre::{DataCentre, Node, Shape};
use lab::probe::capture::Frame;
use lab::probe::{Capture, Echo, Pinger};
use lab::process::{self, Program};
use lab::tor::Kind;
use lab::{Namespace, net, wait};
use serde_json::Value;
use tests::{Case, SESSION, oracle, same, status, suite};

const RANGE: &str = "203.0.113.0/24";
const ADDRESS: &str = "203.0.113.5/32";
/// Of the range, and no Service's.
const UNASSIGNED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
const SINGLE: &str = "198.51.100.7/32";
const CLUSTER: &str = "10.96.0.0/12";

/// How long a packet may take that must not arrive.
const SHORT: Duration = Duration::from_millis(300);

fn main() -> ExitCode {
    let rack = Shape {
        racks: 1,
        nodes: 2,
        pods: 1,
        ..Shape::default()
    };
    let kinds = [Kind::Bird, Kind::Frr];
    let mut cases = Case::each(&kinds, "announced_as_endpoints_are", &rack, announced);
    let rack = Shape {
        tor: Some(Kind::best()),
        ..rack
    };
    cases.push(Case::new("packets_reach_services_and_nothing_loops", rack, no_loop).with("nft"));
    suite(cases.into_iter().map(|case| case.with("ip")).collect())
}

fn configure(dc: &DataCentre, more: &str) -> Result<()> {
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec:\n  \
         nodeToNodeMeshEnabled: false\n  serviceLoadBalancerIPs: [{{cidr: {RANGE}}}]\n  \
         serviceExternalIPs: [{{cidr: {SINGLE}}}]\n  serviceClusterIPs: [{{cidr: {CLUSTER}}}]\n  {more}\n---\n"
    );
    for node in dc.nodes() {
        let file = node.config_folder().join("bgp.yaml");
        let all = std::fs::read_to_string(file)?;
        let (_, peers) = all.split_once("---\n").context("peers")?;
        node.write_config("bgp.yaml", &(text.clone() + peers))?;
    }
    Ok(())
}

/// Everywhere, a Service with these endpoints: node and conditions.
fn service(dc: &DataCentre, policy: &str, endpoints: &[(&str, &str)]) -> Result<()> {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec:\n  type: LoadBalancer\n  \
         clusterIP: 10.96.0.10\n  externalIPs: [198.51.100.7]\n  externalTrafficPolicy: {policy}\n\
         status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.5}}]}}}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-1\n  namespace: shop\n  \
         labels: {{kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints:\n"
    );
    for (node, conditions) in endpoints {
        text += &format!(
            "- {{addresses: [10.244.0.1], nodeName: {node}, conditions: {{{conditions}}}}}\n"
        );
    }
    for node in dc.nodes() {
        node.write_config("services.yaml", &text)?;
    }
    Ok(())
}

/// Waits until the ToR knows these prefixes by exactly these nodes, in its own table and in its kernel's.
fn expect(dc: &DataCentre, wanted: &[(&str, &[&str])]) -> Result<()> {
    let tor = &dc.racks[0].tor;
    let speaker = tor.speaker.as_ref().context("a speaker")?;
    let address = |name: &&str| -> Result<String> {
        let node = dc.nodes().find(|node| node.name == *name);
        Ok(node.context("a node")?.address.to_string())
    };
    for (prefix, nodes) in wanted {
        let nodes: BTreeSet<String> = nodes.iter().map(address).collect::<Result<_>>()?;
        wait::until(&format!("{prefix} by {nodes:?}"), SESSION, || {
            let learned = speaker.learned()?;
            let best = learned.get(&prefix.parse::<Ipv4Net>()?);
            same("learned", &best.is_some(), &!nodes.is_empty())?;
            // BIRD keeps its equal paths together in the kernel alone.
            let named: BTreeSet<String> =
                best.into_iter().flatten().map(IpAddr::to_string).collect();
            same("best", &named.is_subset(&nodes), &true)?;
            same(
                "gateways",
                &oracle::gateways(&tor.namespace, prefix)?,
                &nodes,
            )
        })?;
    }
    Ok(())
}

fn announced(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    let (a1, a2, both) = (
        &["node-a1"][..],
        &["node-a2"][..],
        &["node-a1", "node-a2"][..],
    );
    // Nothing by itself.
    service(dc, "Local", &[("node-a1", ""), ("node-a2", "")])?;
    expect(dc, &[(RANGE, &[]), (ADDRESS, &[]), (CLUSTER, &[])])?;
    configure(dc, "")?;
    expect(
        dc,
        &[
            (RANGE, both),
            (CLUSTER, both),
            (ADDRESS, both),
            (SINGLE, both),
            ("10.96.0.10/32", both),
        ],
    )?;
    // A pod ends, then another isn't ready, then it is.
    let ending = ("node-a2", "ready: false, serving: true, terminating: true");
    service(dc, "Local", &[("node-a1", "ready: true"), ending])?;
    expect(dc, &[(ADDRESS, a1), (SINGLE, a1), (RANGE, both)])?;
    service(dc, "Local", &[("node-a1", "ready: false"), ending])?;
    expect(dc, &[(ADDRESS, &[]), (SINGLE, &[]), (RANGE, both)])?;
    service(dc, "Local", &[("node-a2", "ready: true")])?;
    expect(dc, &[(ADDRESS, a2), (SINGLE, a2), (RANGE, both)])?;
    // Whoever gets the packet may pass it on: the range will do, where there is one.
    service(dc, "Cluster", &[("node-a2", "ready: true")])?;
    expect(dc, &[(ADDRESS, &[]), (SINGLE, both), (RANGE, both)])?;
    configure(dc, "serviceLoadBalancerAggregation: Disabled")?;
    expect(dc, &[(ADDRESS, both), (RANGE, &[]), (CLUSTER, both)])?;
    // A node that is to have no part in it.
    for node in dc.nodes() {
        let text = std::fs::read_to_string(node.config_folder().join("nodes.yaml"))?;
        let (first, second) = text.split_once("name: node-a2").context("node-a2")?;
        let label = "labels:\n    node.kubernetes.io/exclude-from-external-load-balancers: \"\"";
        let second = second.replacen("labels:", label, 1);
        node.write_config("nodes.yaml", &format!("{first}name: node-a2{second}"))?;
    }
    expect(dc, &[(ADDRESS, a1), (SINGLE, a1), (CLUSTER, a1)])?;
    // Its pods are still there.
    expect(dc, &[("10.244.12.0/24", a2)])?;
    for node in dc.nodes() {
        std::fs::remove_file(node.config_folder().join("services.yaml"))?;
    }
    expect(dc, &[(ADDRESS, &[]), (SINGLE, &[]), (CLUSTER, a1)])
}

/// How often frames of a ping to `to` came into a node, and how often they left it again.
fn passes(node: &Node, pinger: &mut Pinger, to: Ipv4Addr) -> Result<(usize, usize)> {
    let shown = oracle::ip(&node.namespace, &["-j", "link", "show", "eth0"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    let text = shown[0]["address"].as_str().context("a MAC")?;
    let own: Vec<u8> = text
        .split(':')
        .map(|part| Ok(u8::from_str_radix(part, 16)?))
        .collect::<Result<_>>()?;
    let capture = Capture::start(&node.namespace)?;
    for _ in 0..3 {
        pinger.ping(to, Echo::default(), SHORT)?;
    }
    let frames = capture.finish()?;
    let concerned = |frame: &&Frame| frame.plain_ipv4().is_some_and(|(_, it, _)| it == to);
    let (left, came): (Vec<_>, Vec<_>) = frames
        .iter()
        .filter(concerned)
        .partition(|frame| frame.0.get(6..12) == Some(&own[..]));
    Ok((came.len(), left.len()))
}

/// Waits until the agents' tables say this of addresses without a Service.
fn wait_guard(dc: &DataCentre, there: bool) -> Result<()> {
    for node in dc.nodes() {
        wait::until("the table", SESSION, || {
            let rules = status(node)?.firewall.rules;
            let guarded = rules.iter().any(|rule| rule.contains("no Service has"));
            same("guarded", &guarded, &there)
        })?;
    }
    Ok(())
}

/// A host behind the ToR.
fn outside(dc: &DataCentre) -> Result<(Namespace, Ipv4Addr)> {
    let tor = &dc.racks[0].tor.namespace;
    let (gateway, own) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let client = Namespace::create(&format!("{}client", dc.shape.prefix))?;
    net::cable((&client, "eth0"), (tor, "client"))?;
    net::address(tor, "client", Ipv4Net::new(gateway, 24)?)?;
    net::address(&client, "eth0", Ipv4Net::new(own, 24)?)?;
    net::default_route(&client, gateway, "eth0")?;
    Ok((client, own))
}

fn no_loop(dc: &mut DataCentre) -> Result<()> {
    dc.start()?;
    service(dc, "Local", &[("node-a1", "ready: true")])?;
    configure(dc, "serviceLoopPrevention: Disabled")?;
    expect(
        dc,
        &[(ADDRESS, &["node-a1"]), (RANGE, &["node-a1", "node-a2"])],
    )?;
    wait_guard(dc, false)?;
    let (client, address) = outside(dc)?;
    let mut pinger = Pinger::open(&client)?;
    let count = |pinger: &mut Pinger| -> Result<(usize, usize)> {
        let mut sum = (0, 0);
        for node in dc.nodes() {
            let (came, left) = passes(node, pinger, UNASSIGNED)?;
            sum = (sum.0 + came, sum.1 + left);
        }
        Ok(sum)
    };
    // What the guard is for: without it packets go back and forth until their TTL is used up.
    let (came, left) = count(&mut pinger)?;
    if came < 10 || left < 10 {
        bail!("no loop without the guard: {came} came, {left} left");
    }
    configure(dc, "")?;
    wait_guard(dc, true)?;
    let (came, left) = count(&mut pinger)?;
    same("came and left", &(came > 0, left), &(true, 0))?;

    // Services themselves work as before: from outside, from a pod, and from the node's own processes.
    let node = dc.racks[0].nodes.first().context("a node")?;
    let other = dc.racks[0].nodes.get(1).context("a node")?;
    let (pod, far) = (
        node.pods.first().context("a pod")?,
        other.pods.first().context("a pod")?,
    );
    for node in dc.nodes() {
        let rules = format!(
            "table ip proxy {{ chain pre {{ type nat hook prerouting priority -100; ip daddr {{ 203.0.113.5, 10.96.0.10 }} dnat to {0}; }}; \
             chain out {{ type nat hook output priority -100; ip daddr {{ 203.0.113.5, 10.96.0.10 }} dnat to {0}; }}; }}",
            pod.address
        );
        let nft = Program::new(process::find("nft").context("nft")?);
        nft.arg(rules).stdout(&node.namespace)?;
    }
    let server = pod
        .namespace
        .run(|| Ok(UdpSocket::bind((pod.address, 0))?))?;
    server.set_read_timeout(Some(SESSION))?;
    let port = server.local_addr()?.port();
    let ask = |from: &Namespace, address: Ipv4Addr, to: &str| -> Result<()> {
        let client = from.run(|| Ok(UdpSocket::bind((address, 0))?))?;
        client.set_read_timeout(Some(SESSION))?;
        client.connect((to, port))?;
        client.send(b"?")?;
        let (_, back) = server.recv_from(&mut [0; 8])?;
        same("source", &back.ip(), &IpAddr::V4(address))?;
        server.send_to(b"!", back)?;
        client.recv(&mut [0; 8]).map(drop)?;
        Ok(())
    };
    ask(&client, address, "203.0.113.5")?;
    for to in ["203.0.113.5", "10.96.0.10"] {
        ask(&far.namespace, far.address, to)?;
        ask(&node.namespace, node.address, to)?;
        ask(&other.namespace, other.address, to)?;
    }
    Ok(())
}

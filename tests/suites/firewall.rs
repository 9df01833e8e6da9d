//! What routing can't say: the agent's nftables table, with real packets. `nft` and `iptables` play those who interfere.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use lab::datacentre::{DataCentre, Node, Pod, Shape};
use lab::probe::{EchoServer, Pinger, advertise};
use lab::process::{Program, find};
use lab::tor::Kind;
use lab::{Namespace, net, wait};
use netlink::setup;
use serde_json::{Value, json};
use tests::{Case, SESSION, same, status, suite};

const LIMIT: Duration = Duration::from_secs(5);
/// How long a packet may take that must not arrive.
const SHORT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let rack = Shape {
        tor: Some(Kind::Margay),
        racks: 1,
        nodes: 2,
        pods: 1,
        ..Shape::default()
    };
    let case = |name: &str, body| Case::new(name, rack.clone(), body).with("nft");
    suite(vec![
        case("pods_take_the_nodes_address_outside", masquerade),
        case("pods_send_from_their_own_addresses", spoofing),
        case("a_pod_with_leave_sends_from_any_address", allowed),
        case("a_pod_is_no_router_and_follows_none", routers).with("ip"),
        case("a_forward_policy_of_drop_lets_pods_through", forward).with("iptables-nft"),
        case("who_flushes_the_ruleset_gets_it_back", flushed),
    ])
}

/// With a pool of all pods, where the demo's data centre has none.
fn start(dc: &mut DataCentre, nat_outgoing: bool) -> Result<()> {
    for node in dc.nodes() {
        pool(node, nat_outgoing)?;
    }
    dc.start()?;
    dc.wait_routes(SESSION)
}

fn pool(node: &Node, nat_outgoing: bool) -> Result<()> {
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: pods\nspec:\n  cidr: 10.244.0.0/16\n  \
         natOutgoing: {nat_outgoing}\n"
    );
    node.write_config("pool.yaml", &text)
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<String> {
    let program = find(program).with_context(|| format!("{program} not installed"))?;
    Program::new(program).args(arguments).stdout(namespace)
}

/// The table is written a moment after the plan is in force.
fn wait_rules(node: &Node, word: &str) -> Result<()> {
    wait::until("the table", SESSION, || {
        let rules = status(node)?.firewall.rules;
        match rules.iter().any(|rule| rule.contains(word)) {
            true => Ok(()),
            false => bail!("{word} not in {rules:?}"),
        }
    })
}

fn masquerade(dc: &mut DataCentre) -> Result<()> {
    start(dc, true)?;
    let (a, b) = (dc.node("node-a1")?.address, dc.node("node-a2")?.address);
    let [first, second] = [&dc.racks[0].nodes[0], &dc.racks[0].nodes[1]];
    for node in [first, second] {
        wait_rules(node, "masqueraded")?;
    }
    let tor = &dc.racks[0].tor;
    let pod = &first.pods[0];
    let seen_at = |namespace, address| -> Result<[IpAddr; 2]> {
        let echo = EchoServer::start(namespace, address)?;
        Ok([echo.ask_udp(&pod.namespace)?, echo.ask_tcp(&pod.namespace)?])
    };
    same(
        "outside",
        &seen_at(&tor.namespace, tor.address)?,
        &[a.into(); 2],
    )?;
    let own = [IpAddr::V4(pod.address); 2];
    let other = &second.pods[0];
    same("at a pod", &seen_at(&other.namespace, other.address)?, &own)?;
    same("at a node", &seen_at(&second.namespace, b)?, &own)?;

    // Live, and without an agent as well.
    pool(first, false)?;
    wait::until("the end of it", SESSION, || {
        same("outside", &seen_at(&tor.namespace, tor.address)?, &own)
    })?;
    pool(first, true)?;
    wait_rules(first, "masqueraded")?;
    dc.node("node-a1")?.agent()?.kill()?;
    let pod = &dc.racks[0].nodes[0].pods[0];
    let tor = &dc.racks[0].tor;
    let echo = EchoServer::start(&tor.namespace, tor.address)?;
    same("no agent", &echo.ask_udp(&pod.namespace)?, &a.into())
}

/// Only the pod that asks for it where the network allows that, and also under the next agent.
fn allowed(dc: &mut DataCentre) -> Result<()> {
    start(dc, false)?;
    let prefix = dc.shape.prefix.clone();
    let [first, second] = [&dc.racks[0].nodes[0], &dc.racks[0].nodes[1]];
    wait_rules(first, "isn't routed to that interface")?;
    let asks = |allowed: bool| {
        let annotations = json!({ "margay.dev/allow-source-spoofing": "true" });
        json!({
            "allowSourceSpoofing": allowed,
            "runtimeConfig": { "io.kubernetes.cri.pod-annotations": annotations },
        })
    };
    let attach = |name: &str, further: &Value| {
        let namespace = Namespace::create(&format!("{prefix}{name}"))?;
        let (host, socket) = (&first.namespace, first.cni_socket());
        Pod::attach_with(name.to_owned(), namespace, host, &socket, further)
    };
    let refused = attach("refused", &asks(false)).err().context("refused")?;
    same("code", &refused.to_string().contains("\"code\":7"), &true)?;
    let (router, plain) = (
        attach("router", &asks(true))?,
        attach("plain", &Value::Null)?,
    );
    let target = &second.pods[0];
    let server = target
        .namespace
        .run(|| Ok(UdpSocket::bind((target.address, 0))?))?;
    server.set_read_timeout(Some(SHORT))?;
    let to = server.local_addr()?;
    let foreign: IpAddr = "198.51.100.7".parse().unwrap();
    for pod in [&router, &plain] {
        let mut socket = net::socket(&pod.namespace)?;
        let eth0 = setup::link_index(&mut socket, "eth0")?;
        setup::add_address(&mut socket, eth0, foreign.into())?;
    }
    let arrives = |pod: &Pod| -> Result<bool> {
        let client = pod.namespace.run(|| Ok(UdpSocket::bind((foreign, 0))?))?;
        client.send_to(b"?", to)?;
        Ok(server
            .recv_from(&mut [0; 8])
            .is_ok_and(|(_, from)| from.ip() == foreign))
    };
    let only_the_router = |node: &Node| {
        wait_rules(node, &format!("not looked at: {}", host_ifname(&router)))?;
        same("the router's", &arrives(&router)?, &true)?;
        same("the other one's", &arrives(&plain)?, &false)
    };
    only_the_router(first)?;
    let node = dc.node("node-a1")?;
    node.agent()?.kill()?;
    node.start()?;
    node.wait_ready(SESSION)?;
    dc.wait_routes(SESSION)?;
    let first = &dc.racks[0].nodes[0];
    only_the_router(first)?;
    router.detach(&first.namespace, &first.cni_socket())?;
    wait::until("the table without it", SESSION, || {
        let rules = status(first)?.firewall.rules;
        let told = rules.iter().any(|rule| rule.contains("not looked at"));
        same("told", &told, &false)
    })
}

/// Router advertisements, real ones, both ways over a pod's link. That they would be taken is seen each time as well: a host
/// without our table takes a pod's, and a pod with the kernel's own default takes the host's.
fn routers(dc: &mut DataCentre) -> Result<()> {
    start(dc, false)?;
    let node = &dc.racks[0].nodes[0];
    wait_rules(node, "router advertisements")?;
    let (pod, host) = (&node.pods[0], &node.namespace);
    let veth = host_ifname(pod);
    let link_local = |namespace: &Namespace, address: &str, ifname: &str| {
        let text = ["-6", "addr", "add", address, "dev", ifname, "nodad"];
        run(namespace, "ip", &text).map(drop)
    };
    link_local(host, "fe80::1/64", &veth)?;
    // A pod without IPv6 has none.
    link_local(&pod.namespace, "fe80::2/64", "eth0")?;
    let prefix = "2001:db8:66::/64".parse()?;
    let takes = |namespace: &Namespace| -> Result<bool> {
        let addresses = run(namespace, "ip", &["-6", "addr"])?;
        let routes = run(namespace, "ip", &["-6", "route"])?;
        Ok(addresses.contains("2001:db8:66:") || routes.contains("proto ra"))
    };
    let sysctl = |namespace: &Namespace, ifname: &str, name: &str| -> Result<String> {
        let path = format!("/proc/sys/net/ipv6/conf/{ifname}/{name}");
        namespace.run(|| Ok(std::fs::read_to_string(&path)?.trim().to_owned()))
    };
    same(
        "accept_ra",
        &sysctl(&pod.namespace, "eth0", "accept_ra")?,
        &"0".to_owned(),
    )?;

    advertise(host, &veth, prefix)?;
    advertise(&pod.namespace, "eth0", prefix)?;
    // Whoever would take one does so at once, as it comes: seen below. This is the time for what comes after it.
    let quiet = || -> Result<()> {
        for (who, namespace) in [("pod", &pod.namespace), ("host", host)] {
            if takes(namespace)? {
                bail!("the {who} follows a router that there is not");
            }
        }
        Ok(())
    };
    for _ in 0..10 {
        quiet()?;
        Pinger::open(&pod.namespace)?.wait_answer(node.address, LIMIT)?;
    }

    // The kernel's default in the pod.
    pod.namespace.sysctl("ipv6/conf/eth0/accept_ra", "1")?;
    wait::until("the pod to follow", LIMIT, || {
        advertise(host, &veth, prefix)?;
        same("follows", &takes(&pod.namespace)?, &true)
    })?;
    same("the host", &takes(host)?, &false)?;
    // A host without the table.
    let node = dc.node("node-a1")?;
    node.agent()?.kill()?;
    run(
        &node.namespace,
        "nft",
        &["delete", "table", "inet", "margay"],
    )?;
    let node = &dc.racks[0].nodes[0];
    wait::until("the host to follow", LIMIT, || {
        advertise(&node.pods[0].namespace, "eth0", prefix)?;
        same("follows", &takes(&node.namespace)?, &true)
    })
}

fn host_ifname(pod: &Pod) -> String {
    let interfaces = pod.result["interfaces"].as_array();
    let host = interfaces.and_then(|interfaces| {
        interfaces
            .iter()
            .find(|interface| interface.get("sandbox").is_none_or(|it| it == ""))
    });
    host.and_then(|host| host["name"].as_str())
        .unwrap_or_default()
        .to_owned()
}

fn spoofing(dc: &mut DataCentre) -> Result<()> {
    start(dc, false)?;
    let [first, second] = [&dc.racks[0].nodes[0], &dc.racks[0].nodes[1]];
    wait_rules(first, "isn't routed to that interface")?;
    let (pod, address) = (first.pods[0].namespace.clone(), first.pods[0].address);
    let target = &second.pods[0];
    // An address of the other node's range, and one of nobody's.
    let stolen = ["10.244.12.200", "198.51.100.7"].map(|text| text.parse::<IpAddr>().unwrap());
    let mut socket = net::socket(&pod)?;
    let eth0 = setup::link_index(&mut socket, "eth0")?;
    for address in stolen {
        setup::add_address(&mut socket, eth0, address.into())?;
    }
    let server = target
        .namespace
        .run(|| Ok(UdpSocket::bind((target.address, 0))?))?;
    server.set_read_timeout(Some(SHORT))?;
    let to = server.local_addr()?;
    let send = |from: IpAddr| -> Result<Option<IpAddr>> {
        let client = pod.run(|| Ok(UdpSocket::bind((from, 0))?))?;
        client.send_to(b"?", to)?;
        loop {
            match server.recv_from(&mut [0; 8]) {
                Ok((_, from)) => return Ok(Some(from.ip())),
                // Where there is a limit, the kernel does not begin anew after a signal.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    };
    let own = IpAddr::V4(address);
    same("its own address", &send(own)?, &Some(own))?;
    for address in stolen {
        same("somebody else's", &send(address)?, &None)?;
    }
    same("its own address still", &send(own)?, &Some(own))?;
    // Without the table the probe does arrive: what was seen is the table's doing.
    let node = dc.node("node-a1")?;
    node.agent()?.kill()?;
    run(
        &node.namespace,
        "nft",
        &["delete", "table", "inet", "margay"],
    )?;
    for link in net::links(&node.namespace)?.into_values() {
        // Strict for IPv4, as on every pod's link: it looks at the same thing.
        let key = format!("ipv4/conf/{link}/rp_filter");
        node.namespace.sysctl(&key, "0")?;
    }
    node.namespace.sysctl("ipv4/conf/all/rp_filter", "0")?;
    same("without the table", &send(stolen[1])?, &Some(stolen[1]))
}

fn forward(dc: &mut DataCentre) -> Result<()> {
    start(dc, false)?;
    let [first, second] = [&dc.racks[0].nodes[0], &dc.racks[0].nodes[1]];
    let mut pinger = Pinger::open(&first.pods[0].namespace)?;
    let target = second.pods[0].address;
    pinger.wait_answer(target, LIMIT)?;
    for node in [first, second] {
        let drop = ["-P", "FORWARD", "DROP"];
        run(&node.namespace, "iptables-nft", &drop)?;
        wait_rules(node, "iptables' FORWARD chain drops")?;
    }
    pinger.wait_answer(target, LIMIT)?;
    let shown = run(&first.namespace, "iptables-nft", &["-S", "FORWARD"])?;
    same("jumps", &shown.matches("MARGAY-FORWARD").count(), &1)?;
    let text = first.ctl(&["firewall"])?;
    if !text.contains("MARGAY-FORWARD") {
        bail!("margayctl firewall says {text}");
    }
    // Somebody begins anew with that chain; then it accepts, and nothing of ours stays.
    run(&first.namespace, "iptables-nft", &["-F", "FORWARD"])?;
    pinger.wait_answer(target, LIMIT)?;
    run(
        &first.namespace,
        "iptables-nft",
        &["-P", "FORWARD", "ACCEPT"],
    )?;
    wait::until("our chain to go", SESSION, || {
        let shown = run(&first.namespace, "iptables-nft", &["-S"])?;
        same("chains", &shown.contains("MARGAY"), &false)
    })
}

fn flushed(dc: &mut DataCentre) -> Result<()> {
    start(dc, true)?;
    let node = &dc.racks[0].nodes[0];
    wait_rules(node, "masqueraded")?;
    let shown = || run(&node.namespace, "nft", &["list", "table", "inet", "margay"]);
    let whole = shown()?;
    for disturbance in [
        &["flush", "ruleset"][..],
        &["delete", "table", "inet", "margay"],
        &["flush", "chain", "inet", "margay", "outgoing"],
    ] {
        run(&node.namespace, "nft", disturbance)?;
        wait::until("the table to be back", SESSION, || {
            // Counters begin anew.
            let lines = |text: &str| text.lines().count();
            same("lines", &lines(&shown()?), &lines(&whole))
        })?;
    }
    let healed = status(node)?.firewall.healed;
    if healed < 3 {
        bail!("{healed} of 3 disturbances were counted");
    }
    Ok(())
}

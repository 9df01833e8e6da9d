//! `cargo xtask bench routes`: learned routes on their way into the kernel, beside a bare loop that only writes them. For
//! `cargo xtask bench dataplane`, what an agent uses that has learned some and has nothing to do. And, as part of
//! `cargo xtask bench add`, pods' first packets.
#![expect(
    clippy::print_stdout,
    reason = "a program for a terminal: what it prints is what it is for"
)]

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bgp_wire::{AsPath, Attributes, Context, Family, NextHop as Gateway, UpdateBuilder, update};
use ipnet::{IpNet, Ipv4Net};
use lab::datacentre::{DataCentre, Shape};
use lab::probe::{Echo, Pinger, Reply};
use lab::speaker::{self, RawSpeaker};
use lab::{Namespace, meter, net, wait};
use netlink::Request;
use netlink::packet::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink::packet::{AddressFamily, RouteNetlinkMessage};

/// How many routes.
const ROUTES: u32 = 100_000;

/// How many of them share a set of attributes: as many pods as a busy node has.
const PER_SET: u32 = 100;

/// How often each side is measured; the median counts.
const RUNS: usize = 3;

/// What the agent must reach of the bare loop's rate.
const GOAL: f64 = 0.5;

/// Of the peer that feeds the agent.
const ASN: u32 = 4_200_001_001;

/// Where the feeder is, and the routes lead.
const FEEDER: Ipv4Addr = Ipv4Addr::new(172, 20, 1, 1);

/// How many routes an agent has that is left in peace.
const STEADY_ROUTES: u32 = 10_000;

/// How long it is watched.
const STEADY: Duration = Duration::from_secs(30);

/// What it may use of a core, in percent, and of memory, in MiB.
const STEADY_GOALS: (f64, f64) = (0.1, 25.0);

/// Longer than any machine takes.
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let bench = match std::env::args().nth(1).as_deref() {
        Some("routes") => routes,
        Some("steady") => steady,
        Some("first-packets") => first_packets,
        _ => || bail!("which? routes, steady or first-packets"),
    };
    match lab::enter().map(drop).and_then(|()| bench()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A thousand pods, one after the other; each pings a pod of another node as soon as its ADD has returned, once.
fn first_packets() -> Result<bool> {
    const PODS: u32 = 1000;
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut dc = DataCentre::fabric(Shape {
        tor: None,
        racks: 1,
        nodes: 2,
        pods: 0,
        ..Shape::default()
    })?;
    for node in dc.nodes_mut() {
        // The range would be used up: an address rests for a minute.
        node.arguments = ["--address-cooldown", "1"].map(str::to_owned).into();
    }
    dc.start_agents()?;
    dc.wait_sessions(LIMIT)?;
    dc.wait_routes(LIMIT)?;
    let target = dc.node("node-a2")?.attach()?.address;
    let node = dc.node("node-a1")?;
    // The way between the nodes itself asks by ARP once.
    Pinger::open(&node.namespace)?.wait_answer(target, LIMIT)?;
    let mut times = Vec::new();
    for _ in 0..PODS {
        let pod = node.attach()?.namespace.clone();
        if let Reply::Answer { rtt, .. } =
            Pinger::open(&pod)?.ping(target, Echo::default(), PATIENCE)?
        {
            times.push(rtt);
        }
        node.detach()?;
    }
    let answered = times.len();
    println!(
        "first packets of {PODS} new pods to a pod of another node: {answered} answered, {:.2} ms at the median",
        median(times).as_secs_f64() * 1e3
    );
    Ok(answered == PODS as usize)
}

fn routes() -> Result<bool> {
    let updates = updates(ROUTES)?;
    let (mut bare, mut agent) = (Vec::new(), Vec::new());
    for run in 1..=RUNS {
        bare.push(bare_loop(run)?);
        agent.push(whole_agent(run, &updates)?);
    }
    let (bare, agent) = (median(bare), median(agent));
    let rate = |took: Duration| f64::from(ROUTES) / took.as_secs_f64();
    println!("{ROUTES} routes, medians of {RUNS}:");
    for (name, took) in [
        ("bare batched netlink loop", bare),
        ("whole agent, from BGP", agent),
    ] {
        println!(
            "  {name:<26} {:>7.0} ms  {:>9.0} routes/s",
            took.as_secs_f64() * 1e3,
            rate(took)
        );
    }
    let ratio = rate(agent) / rate(bare);
    println!("  ratio {ratio:.2} (at least {GOAL})");
    Ok(ratio >= GOAL)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn prefixes(count: u32) -> impl Iterator<Item = Ipv4Net> {
    let first = u32::from(Ipv4Addr::new(10, 128, 0, 0));
    (0..count).map(move |number| Ipv4Net::new_assert((first + number).into(), 32))
}

/// A node and the feeder's namespace beside it; the agent's does not run yet.
fn place(name: &str, run: usize) -> Result<DataCentre> {
    DataCentre::fabric(Shape {
        prefix: format!("{name}{run}-"),
        tor: None,
        racks: 1,
        nodes: 1,
        pods: 0,
        ..Shape::default()
    })
}

/// How long the kernel takes for the same routes when nobody has to learn them or to look after them: requests made
/// beforehand, hundreds with one system call.
fn bare_loop(run: usize) -> Result<Duration> {
    let dc = place("bare", run)?;
    let namespace = &dc.nodes().next().context("a node")?.namespace;
    let mut socket = net::socket(namespace)?;
    let link = netlink::setup::link_index(&mut socket, "eth0")?;
    let requests: Vec<Request> = prefixes(ROUTES)
        .map(|prefix| request(prefix, link))
        .collect();
    let start = wait::now();
    for result in socket.request_batch(requests) {
        result.context("the bare loop")?;
    }
    let took = start.elapsed();
    let count = installed(namespace)?;
    if count < ROUTES {
        bail!("only {count} routes are there");
    }
    Ok(took)
}

fn request(prefix: Ipv4Net, link: u32) -> Request {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: prefix.prefix_len(),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(dataplane::ROUTE_PROTOCOL),
        scope: RouteScope::Universe,
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Destination(prefix.addr().into()),
        RouteAttribute::Oif(link),
        RouteAttribute::Gateway(FEEDER.into()),
    ];
    Request::create(RouteNetlinkMessage::NewRoute(route))
}

/// CPU time and memory of an agent that has its routes, and hears of no change.
fn steady() -> Result<bool> {
    let mut dc = place("steady", 1)?;
    let (_feeder, _) = learn(&mut dc, STEADY_ROUTES, &updates(STEADY_ROUTES)?)?;
    let node = dc.nodes_mut().next().context("a node")?;
    node.wait_in_step(LIMIT)?;
    let pid = node.agent()?.pid();
    let before = meter::usage(pid)?;
    let start = wait::now();
    wait::measure_for(STEADY);
    let (after, took) = (meter::usage(pid)?, start.elapsed());
    let percent = (after.cpu - before.cpu).as_secs_f64() / took.as_secs_f64() * 100.0;
    let mib = |octets| octets as f64 / f64::from(1 << 20);
    let (most_percent, most_mib) = STEADY_GOALS;
    println!(
        "margayd with {STEADY_ROUTES} learned routes and no change, over {:.0} s:\n  CPU {percent:.3} % of a core (goal: under \
         {most_percent} %)\n  resident {:.1} MiB, at most {:.1} MiB (goal: under {most_mib} MiB)",
        took.as_secs_f64(),
        mib(after.resident),
        mib(after.peak)
    );
    Ok(percent < most_percent && mib(after.peak) < most_mib)
}

/// From the first octet of the first UPDATE to the last route in the kernel.
fn whole_agent(run: usize, updates: &[u8]) -> Result<Duration> {
    let mut dc = place("agent", run)?;
    learn(&mut dc, ROUTES, updates).map(|(_, took)| took)
}

/// Starts the agent and feeds it: who did, and how long it took until the kernel had all.
fn learn(dc: &mut DataCentre, routes: u32, updates: &[u8]) -> Result<(RawSpeaker, Duration)> {
    let rack = dc.racks.first_mut().context("a rack")?;
    let listener = speaker::listen(&rack.tor.namespace, FEEDER)?;
    let node = rack.nodes.first_mut().context("a node")?;
    let text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata:\n  name: feeder\nspec:\n  peerIP: {FEEDER}\n  \
         asNumber: {ASN}\n---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: pods\nspec:\n  \
         cidr: 10.128.0.0/9\n---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata:\n  name: nodes\nspec:\n  \
         cidr: 10.0.0.0/9\n"
    );
    node.write_config("feeder.yaml", &text)?;
    node.start()?;
    node.wait_ready(LIMIT)?;
    let mut feeder = RawSpeaker::accept(&listener, LIMIT)?;
    feeder.establish(&speaker::open(ASN, FEEDER, 90), LIMIT)?;
    let before = installed(&node.namespace)?;
    let start = wait::now();
    feeder.say(updates)?;
    wait::until("the routes", LIMIT, || {
        let count = installed(&node.namespace)? - before;
        if count < routes {
            bail!("{count} of {routes}");
        }
        Ok(())
    })?;
    Ok((feeder, start.elapsed()))
}

/// All routes as UPDATEs, with End-of-RIB at the end.
fn updates(count: u32) -> Result<Vec<u8>> {
    let context = Context {
        four_octet_as: true,
        ..Context::default()
    };
    let mut octets = Vec::new();
    let all: Vec<Ipv4Net> = prefixes(count).collect();
    for (set, number) in all.chunks(usize::try_from(PER_SET)?).zip(1u32..) {
        let attributes = Attributes {
            as_path: AsPath::sequence(vec![ASN, 4_200_010_000 + number]),
            ..Attributes::originated()
        };
        let mut section = Vec::new();
        attributes.encode(&context, &mut section);
        let gateway = Gateway::V4(FEEDER);
        let family = Family::IPV4_UNICAST;
        let mut message = UpdateBuilder::announce(&mut octets, &context, &section, gateway, family);
        for prefix in set {
            message.push(IpNet::V4(*prefix))?;
        }
        message.finish();
    }
    update::encode_end_of_rib(Family::IPV4_UNICAST, &mut octets);
    Ok(octets)
}

/// How many prefixes the namespace's tables hold: the kernel's own count, which costs neither side a netlink message.
fn installed(namespace: &Namespace) -> Result<u32> {
    let text = namespace.run(|| {
        std::fs::read_to_string("/proc/thread-self/net/fib_triestat").context("fib_triestat")
    })?;
    let counts = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Prefixes:"));
    let counts = counts.map(|count| Ok(count.trim().parse::<u32>()?));
    counts.sum()
}

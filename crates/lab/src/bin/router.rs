//! A router with Margay's own speaker: it accepts everything, announces everything and its own networks, helps its
//! peers to restart gracefully, and puts what it learns into the kernel, unless it is to be measured by itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bgp::config::{Client, Decision, PeerConfig, Reach, Rules, SpeakerConfig};
use bgp::policy::Policy;
use bgp::session::State as SessionState;
use bgp_net::{Handle, Listen, RouteFeed, Routes};
use bgp_wire::Attributes;
use clap::Parser;
use dataplane::{Links, NextHop, Op, Route, RouteKey};
use ipnet::{IpNet, Ipv4Net};
use lab::router::State;
use lab::speaker;
use netlink::{Socket, kernel};

/// Margay's speaker as a router.
#[derive(Debug, Parser)]
#[command(name = "lab-router")]
struct Arguments {
    /// Its AS.
    #[arg(long)]
    asn: u32,
    /// Its BGP identifier.
    #[arg(long)]
    router_id: Ipv4Addr,
    /// Hold time to propose, in seconds.
    #[arg(long, default_value_t = 90)]
    hold_time: u64,
    /// Neither help peers to restart gracefully nor ask for their help.
    #[arg(long)]
    no_graceful_restart: bool,
    /// A network that starts here.
    #[arg(long)]
    network: Vec<Ipv4Net>,
    /// A peer: ADDRESS=AS.
    #[arg(long, value_parser = parse_peer)]
    peer: Vec<(IpAddr, u32)>,
    /// An internal peer that is a client of ours, its route reflector: ADDRESS=AS.
    #[arg(long, value_parser = parse_peer)]
    client: Vec<(IpAddr, u32)>,
    /// Wait for the peers to dial.
    #[arg(long)]
    passive: bool,
    /// Leave the kernel's routes alone.
    #[arg(long)]
    no_kernel: bool,
    /// The address to dial from.
    #[arg(long)]
    address: Option<IpAddr>,
    /// The port to listen on: another one beside a second speaker in one namespace.
    #[arg(long, default_value_t = speaker::PORT)]
    listen_port: u16,
    /// Where its state is told to whoever connects.
    #[arg(long)]
    socket: PathBuf,
}

/// What is in the kernel: told to others, changed by the one loop below.
type Learned = Arc<Mutex<BTreeMap<Ipv4Net, Vec<IpAddr>>>>;

fn parse_peer(text: &str) -> Result<(IpAddr, u32)> {
    let (address, asn) = text.split_once('=').context("ADDRESS=AS")?;
    Ok((address.parse()?, asn.parse()?))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let listener = UnixListener::bind(&arguments.socket).or_else(|_| {
        // Left by a predecessor that was killed.
        std::fs::remove_file(&arguments.socket)?;
        UnixListener::bind(&arguments.socket)
    })?;
    let listen = Listen {
        addresses: vec![SocketAddr::from((
            Ipv4Addr::UNSPECIFIED,
            arguments.listen_port,
        ))],
    };
    let configuration = configuration(&arguments, subnets()?);
    let (handle, routes) = bgp_net::spawn(configuration, &listen, false)?;
    let learned = Learned::default();
    let told = Arc::clone(&learned);
    let speaker = handle.clone();
    std::thread::spawn(move || tell(&listener, &handle, &told));
    if arguments.no_kernel {
        // Without a reader the speaker makes no routes for the kernel.
        drop(routes);
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        runtime.block_on(speaker.stopped());
        return Ok(());
    }
    drop(speaker);
    install(routes, &learned)
}

/// Where this router's interfaces are: two nodes of one rack reach each other without it.
fn subnets() -> Result<Vec<IpNet>> {
    let links = kernel::dump_links(&mut Socket::open()?)?.links;
    let addresses = links.values().flat_map(|link| link.addresses.iter());
    Ok(addresses.map(IpNet::trunc).collect())
}

fn configuration(arguments: &Arguments, subnets: Vec<IpNet>) -> SpeakerConfig {
    let networks = arguments.network.iter();
    SpeakerConfig {
        peers: arguments
            .peer
            .iter()
            .map(|it| (it, false))
            .chain(arguments.client.iter().map(|it| (it, true)))
            .map(|((address, asn), client)| (*address, peer(arguments, *asn, client)))
            .collect(),
        originated: networks
            .map(|network| (IpNet::V4(*network), Attributes::originated()))
            .collect(),
        subnets,
        decision: if arguments.no_kernel {
            Decision::default()
        } else {
            Decision::multipath(8)
        },
        selection_deferral: Duration::from_secs(30),
        ..SpeakerConfig::new(arguments.asn, arguments.router_id)
    }
}

fn peer(arguments: &Arguments, asn: u32, client: bool) -> PeerConfig {
    PeerConfig {
        port: speaker::PORT,
        local_address: arguments.address,
        passive: arguments.passive,
        hold_time: Duration::from_secs(arguments.hold_time),
        connect_retry: Duration::from_secs(2),
        reach: Reach::Hops(64),
        rules: Rules {
            client: client.then_some(Client {
                cluster_id: arguments.router_id,
                meshed: false,
            }),
            ..Rules::default()
        },
        graceful_restart: (!arguments.no_graceful_restart).then_some(Duration::from_secs(120)),
        import: Policy::accept_all(),
        export: Policy::accept_all(),
        origin: "lab".to_owned(),
        ..PeerConfig::new(asn)
    }
}

/// Puts routes into the kernel as they come, until the speaker ends.
fn install(mut routes: Routes, learned: &Learned) -> Result<()> {
    let mut socket = Socket::open()?;
    while let Some(feed) = routes.blocking_recv() {
        let RouteFeed::Changes(changes) = feed else {
            continue;
        };
        let links = kernel::dump_links(&mut socket)?;
        let mut installed = learned
            .lock()
            .map_err(|_| anyhow!("a thread panicked before"))?;
        let mut ops = Vec::new();
        for change in changes {
            let IpNet::V4(prefix) = change.prefix else {
                continue;
            };
            let hops: Vec<IpAddr> = change.next_hops.iter().map(|it| it.address()).collect();
            let route = Route::unicast(hops.iter().filter_map(|hop| next_hop(*hop, &links)));
            let key = RouteKey::main(change.prefix, 0);
            let known = installed.contains_key(&prefix);
            if route.next_hops.is_empty() {
                installed.remove(&prefix);
                ops.extend(known.then_some(Op::DeleteRoute(key, None)));
            } else {
                installed.insert(prefix, hops);
                ops.push(match known {
                    true => Op::ReplaceRoute(key, route.into()),
                    false => Op::AddRoute(key, route.into()),
                });
            }
        }
        drop(installed);
        for (op, result) in ops.iter().zip(kernel::apply(&mut socket, &ops)) {
            result.with_context(|| format!("{op:?}"))?;
        }
    }
    Ok(())
}

/// The neighbour itself, or the way to it: every next hop of a lab is on a link, or behind a route learned before.
fn next_hop(address: IpAddr, links: &Links) -> Option<NextHop> {
    let direct = links.links.values().find(|link| {
        let mut subnets = link.addresses.iter();
        subnets.any(|subnet| subnet.contains(&address))
    })?;
    Some(NextHop {
        via: Some(address),
        link: direct.index,
        onlink: false,
    })
}

fn tell(listener: &UnixListener, handle: &Handle, learned: &Learned) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let peers = runtime.block_on(handle.peers())?;
        let up = peers
            .iter()
            .filter(|peer| peer.state == SessionState::Established);
        let learned = learned
            .lock()
            .map_err(|_| anyhow!("a thread panicked before"))?;
        let routes = learned.iter();
        let state = State {
            established: up.map(|peer| peer.address).collect(),
            learned: routes
                .map(|(prefix, hops)| (*prefix, hops.iter().copied().collect()))
                .collect(),
        };
        // Who asks may be gone already.
        drop(stream.write_all(serde_json::to_string(&state)?.as_bytes()));
    }
}

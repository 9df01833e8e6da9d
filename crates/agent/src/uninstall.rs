//! `margayd uninstall`: takes from this network namespace's kernel what is Margay's, and nothing else.
//!
//! `PARTS` lists what there may be, in the order in which it goes: nothing goes before what needs it. It works without
//! a configuration and without an agent, and refuses while one runs, which would put all of it back.

use anyhow::Context as _;
use clap::Parser;
use dataplane::{Op, ROUTE_PROTOCOL, TunnelKind, nexthop};
use netlink::{Nft, Socket, kernel, pod};

use crate::control;

/// Removes all that Margay has put into this node's kernel, and nothing else: routes and nexthop objects, neighbour entries,
/// tunnel devices, the nftables table, and the jump in iptables' FORWARD chains. Kernel parameters stay as they are.
#[derive(Debug, Clone, Parser)]
#[command(name = "margayd uninstall", version)]
pub struct Uninstall {
    /// Detach pods that are still attached, too: their interfaces go.
    #[arg(long)]
    pub pods: bool,

    /// Go on although pods are still attached, and leave their interfaces: they are without a way from then on.
    #[arg(long, conflicts_with = "pods")]
    pub force: bool,

    /// Go on although margayd runs here, which puts back what it needs.
    #[arg(long)]
    pub while_running: bool,

    /// Say what would go, and leave it.
    #[arg(long)]
    pub dry_run: bool,
}

/// One kind of thing that may be Margay's.
struct Part {
    /// What it is called, in the plural.
    name: &'static str,
    /// Counts those there are, and removes them unless this is only to be counted.
    remove: fn(&mut Socket, bool) -> anyhow::Result<usize>,
}

/// All kinds of things that may be Margay's, in the order in which they go.
const PARTS: [Part; 5] = [
    Part {
        name: "routes",
        remove: routes,
    },
    Part {
        name: "nexthop objects",
        remove: objects,
    },
    Part {
        name: "neighbour entries",
        remove: neighbours,
    },
    Part {
        name: "tunnel devices",
        remove: tunnels,
    },
    Part {
        name: "nftables tables",
        remove: firewall,
    },
];

/// Does it, and says what went, a line for each kind.
///
/// # Errors
/// While an agent runs, while pods are attached, and what the kernel refuses.
pub fn run(wanted: &Uninstall) -> anyhow::Result<Vec<String>> {
    let _alone = match control::alone() {
        Ok(alone) => Some(alone),
        Err(_) if wanted.while_running || wanted.dry_run => None,
        Err(_) => anyhow::bail!(
            "margayd runs in this network namespace and would put all of it back: stop it first, or say --while-running"
        ),
    };
    let mut socket = Socket::open().context("can't speak to the kernel")?;
    let pods = pod::list(&mut socket, api::cni::HOST_IFNAME_PREFIX)?;
    let mut told = Vec::new();
    if !pods.is_empty() {
        if !(wanted.pods || wanted.force || wanted.dry_run) {
            anyhow::bail!(
                "{} pods are still attached; drain the node first, or say --pods to detach them, or --force to leave their interfaces:\n{}",
                pods.len(),
                pods.iter().map(describe).collect::<Vec<_>>().join("\n")
            );
        }
        // Their routes go with them.
        if wanted.pods || wanted.dry_run {
            told.push(line(pods.len(), "pods' interfaces", wanted.dry_run));
        }
        if wanted.pods && !wanted.dry_run {
            let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
            pod::detach(&mut socket, &names).context("can't remove pods' interfaces")?;
        }
    }
    for part in PARTS {
        let count = (part.remove)(&mut socket, wanted.dry_run)
            .with_context(|| format!("can't remove {}", part.name))?;
        told.push(line(count, part.name, wanted.dry_run));
    }
    Ok(told)
}

fn line(count: usize, what: &str, only_counted: bool) -> String {
    match only_counted {
        true => format!("{what}: {count} would go"),
        false => format!("{what}: {count} removed"),
    }
}

fn describe(link: &pod::PodLink) -> String {
    let Some(record) = &link.record else {
        return format!("  {}: left by a crash, nobody's", link.name);
    };
    let pod = match &record.pod {
        Some((namespace, name)) => format!("{namespace}/{name}"),
        None => format!("container {}", record.container_id),
    };
    let addresses: Vec<_> = record.addresses.iter().map(ToString::to_string).collect();
    format!("  {}: {} ({pod})", link.name, addresses.join(", "))
}

fn routes(socket: &mut Socket, only_count: bool) -> anyhow::Result<usize> {
    let routes = kernel::dump_routes(socket, ROUTE_PROTOCOL)?;
    let ops = routes
        .into_iter()
        .map(|(key, route)| Op::DeleteRoute(key, route.map(|route| route.kind())));
    apply(socket, ops.collect(), only_count)
}

fn objects(socket: &mut Socket, only_count: bool) -> anyhow::Result<usize> {
    let mut ours: Vec<_> = kernel::dump_objects(socket)?
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, protocol, _)| *protocol == ROUTE_PROTOCOL)
        .map(|(id, ..)| id)
        .collect();
    // Groups before their members, which would take them along.
    ours.sort_unstable_by_key(|id| (!nexthop::GROUP_IDS.contains(id), *id));
    let ops = ours.into_iter().map(Op::DeleteObject);
    apply(socket, ops.collect(), only_count)
}

fn neighbours(socket: &mut Socket, only_count: bool) -> anyhow::Result<usize> {
    let ours = kernel::dump_neighbours(socket)?;
    let ops = ours.into_iter().map(|(key, _)| Op::DeleteNeighbour(key));
    apply(socket, ops.collect(), only_count)
}

/// Carries out deletions. One that fails does not keep the others from going.
fn apply(socket: &mut Socket, ops: Vec<Op>, only_count: bool) -> anyhow::Result<usize> {
    if only_count {
        return Ok(ops.len());
    }
    let results = kernel::apply(socket, &ops);
    let failed = results.iter().filter_map(|result| result.as_ref().err());
    if let Some(error) = failed.clone().next() {
        anyhow::bail!("{} of {}: {error}", failed.count(), ops.len());
    }
    Ok(ops.len())
}

/// By name and kind: a link of another kind with such a name is somebody else's.
fn tunnels(socket: &mut Socket, only_count: bool) -> anyhow::Result<usize> {
    let links = kernel::dump_links(socket)?;
    let ours = TunnelKind::ALL.map(|kind| dataplane::tunnel::plan(kind, None, &links));
    let ops: Vec<_> = ours.into_iter().flatten().flatten().collect();
    for op in ops.iter().filter(|_| !only_count) {
        netlink::tunnel::apply(socket, op)?;
    }
    Ok(ops.len())
}

/// The table, and the chain and the jump in iptables' tables, which are not counted.
fn firewall(_: &mut Socket, only_count: bool) -> anyhow::Result<usize> {
    // A kernel without nftables has none of ours.
    let Ok(mut nft) = Nft::open() else {
        return Ok(0);
    };
    let there = nft.is_there()?;
    if !only_count {
        nft.remove()?;
    }
    Ok(usize::from(there))
}

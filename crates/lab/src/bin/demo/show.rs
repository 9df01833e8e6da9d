//! The demo, scene by scene. Each prints what it sees and counts what is not as it should be.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use dataplane::RouteKind;
use lab::datacentre::{DataCentre, Node};
use lab::probe::{Pinger, Stream, tcp, trace};
use lab::tor::Kind;
use lab::wait;
use lab::{Namespace, net};

use crate::paint::Paint;

/// How long a ping of the matrix may take to be answered, retries included.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// How long the pings go on before the agent dies, and after it is back.
const BESIDE: Duration = Duration::from_millis(1500);

/// How long each throughput measurement sends.
const SENDING: Duration = Duration::from_millis(300);

/// What was shown so far.
pub(crate) struct Stage {
    paint: Paint,
    tor: Kind,
    failures: u32,
}

impl Stage {
    pub(crate) fn new(paint: Paint, tor: Kind) -> Self {
        Self {
            paint,
            tor,
            failures: 0,
        }
    }

    /// How many checks failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    fn section(&self, title: &str, explanation: &str) {
        println!("\n{}", self.paint.title(title));
        println!("{}", self.paint.faint(explanation));
    }

    /// Prints a check's line, with what is wrong where it is.
    fn check(&mut self, holds: bool, line: &str) {
        if holds {
            println!("  {} {line}", self.paint.good("✓"));
        } else {
            self.failures += 1;
            println!("  {} {line}", self.paint.bad("✗"));
        }
    }

    pub(crate) fn introduction(&self) {
        let tor = match self.tor {
            Kind::Bird => "BIRD",
            Kind::Frr => "FRR",
            Kind::Gobgp => "GoBGP",
            Kind::Margay => "Margay's own speaker",
        };
        println!(
            "A data centre in network namespaces of this machine. ToRs and spine run {tor};\n\
             each node runs margayd, each pod was attached by margay-cni.\n\n\
             \x20                        spine\n\
             \x20              ┌───────────┴───────────┐\n\
             \x20            tor-a                   tor-b\n\
             \x20      172.20.1.0/24           172.20.2.0/24\n\
             \x20      ┌───────┴──────┐        ┌───────┴──────┐\n\
             \x20   node-a1        node-a2  node-b1        node-b2\n\
             \x20   3 pods         3 pods   3 pods         3 pods"
        );
    }

    /// Every node's sessions, in `margayctl`'s words.
    pub(crate) fn sessions(&mut self, dc: &DataCentre) -> Result<()> {
        self.section(
            "Sessions",
            "Each node peers with its ToR by eBGP: margayctl bgp peers",
        );
        for node in dc.nodes() {
            let output = node.ctl_output(&["bgp", "peers"])?;
            println!("\n  {}", node.name);
            self.quote(&output.stdout);
            if !output.status.success() {
                self.check(false, &format!("{}: a session is down", node.name));
            }
        }
        Ok(())
    }

    /// One node's routes in `margayctl`'s words, and in the kernel's.
    pub(crate) fn routes(&mut self, dc: &DataCentre) -> Result<()> {
        self.section(
            "Routes",
            "What node-a1 wants beside what its kernel has: margayctl routes, and a dump of protocol 77",
        );
        let node = dc.nodes().next().context("a node")?;
        let output = node.ctl_output(&["routes"])?;
        println!();
        self.quote(&output.stdout);
        println!();
        let kernel = node.kernel()?;
        let links = net::links(&node.namespace)?;
        for (prefix, route) in &kernel {
            let hops: Vec<String> = route
                .next_hops
                .iter()
                .map(|hop| {
                    let link = links.get(&hop.link).map_or("?", String::as_str);
                    let via = hop.via.map(|via| format!("via {via} "));
                    format!("{}dev {link}", via.unwrap_or_default())
                })
                .collect();
            let line = match route.kind {
                RouteKind::Unicast => hops.join(", "),
                RouteKind::Blackhole => "blackhole".to_owned(),
            };
            println!("    {:<18} {line}", prefix.to_string());
        }
        let remote: BTreeSet<_> = dc.nodes().map(|other| other.pod_cidr).collect();
        let missing = remote
            .iter()
            .filter(|cidr| !kernel.contains_key(cidr))
            .count();
        let line = format!("a route to every node's pods, {missing} missing");
        self.check(output.status.success() && missing == 0, &line);
        Ok(())
    }

    fn quote(&self, output: &[u8]) {
        for line in String::from_utf8_lossy(output).lines() {
            println!("    {line}");
        }
    }

    /// Everybody pings every pod.
    pub(crate) fn matrix(&mut self, dc: &DataCentre) -> Result<()> {
        self.section(
            "Who reaches whom",
            "Every pod (row) and node pings every pod (column). The figure is the TTL of the answer: 64 less a router each",
        );
        let groups = dc.nodes().map(|node| {
            let width = 4 * node.pods.len();
            format!("{:^width$}", node.name)
        });
        println!("\n  {:<11} {}", "", groups.collect::<Vec<_>>().join(" "));
        let mut wrong = Vec::new();
        for node in dc.nodes() {
            let rows = node
                .pods
                .iter()
                .map(|pod| (pod.name.as_str(), &pod.namespace, false));
            let own = std::iter::once((node.name.as_str(), &node.namespace, true));
            for (name, namespace, is_node) in own.chain(rows) {
                let row = self.row(dc, node, namespace, is_node, &mut wrong)?;
                println!("  {name:<11} {row}");
            }
        }
        let line = format!(
            "{} pods, each reached by all: {} failed",
            dc.pods().count(),
            wrong.len()
        );
        self.check(wrong.is_empty(), &line);
        for line in wrong {
            println!("      {line}");
        }
        Ok(())
    }

    /// One row of the matrix: `from` stands on `node`.
    fn row(
        &self,
        dc: &DataCentre,
        node: &Node,
        from: &Namespace,
        is_node: bool,
        wrong: &mut Vec<String>,
    ) -> Result<String> {
        let mut pinger = Pinger::open(from)?;
        let mut cells = Vec::new();
        for other in dc.nodes() {
            let mut group = String::new();
            for pod in &other.pods {
                let itself = from.name() == pod.namespace.name();
                let routers = if itself {
                    0
                } else {
                    dc.routers_back(node, !is_node, other)
                };
                let expected = 64 - routers;
                let what = format!("{} to {}", from.name(), pod.name);
                group += &match pinger
                    .wait_answer(pod.address, PING_LIMIT)
                    .map(|it| it.ttl())
                {
                    Ok(Some(ttl)) if ttl == expected => self.paint.good(format!("{ttl:>4}")),
                    Ok(Some(ttl)) => {
                        wrong.push(format!("{what}: TTL {ttl}, expected {expected}"));
                        self.paint.bad(format!("{ttl:>4}"))
                    }
                    Ok(None) | Err(_) => {
                        wrong.push(format!("{what}: no answer"));
                        self.paint.bad("   ✗")
                    }
                };
            }
            cells.push(group);
        }
        Ok(cells.join(" "))
    }

    /// Traceroute and path MTU between racks.
    pub(crate) fn way(&mut self, dc: &DataCentre) -> Result<()> {
        let (from, to) = ends(dc)?;
        self.section(
            "The way of a packet",
            "From a pod in rack a to a pod in rack b: plain routed hops, nothing is wrapped, nothing is translated",
        );
        let mut pinger = Pinger::open(&from.pods[0].namespace)?;
        let target = to.pods[0].address;
        let hops = trace::traceroute(&mut pinger, target)?;
        println!();
        for ((address, rtt), number) in hops.iter().zip(1..) {
            let name = name_of(dc, *address);
            println!(
                "  {number:>3}  {address:<16} {name:<12} {:>7.3} ms",
                rtt.as_secs_f64() * 1e3
            );
        }
        let routers = usize::from(dc.routers_between(from, to)) + 3;
        self.check(hops.len() == routers, &format!("{} hops", hops.len()));
        let pods = trace::path_mtu(&mut pinger, target)?;
        let nodes = trace::path_mtu(&mut Pinger::open(&from.namespace)?, to.address)?;
        let line =
            format!("packets of {pods} octets fit end to end; between the bare nodes {nodes}");
        self.check(pods == nodes, &line);
        Ok(())
    }

    /// TCP between racks, from pod to pod and from node to node.
    pub(crate) fn throughput(&mut self, dc: &DataCentre) -> Result<()> {
        let (from, to) = ends(dc)?;
        self.section(
            "Throughput",
            "One TCP connection from rack a to rack b, between pods and between the nodes themselves",
        );
        let giga = |bits: f64| format!("{:.1} Gbit/s", bits / 1e9);
        let (source, sink) = (&from.pods[0], &to.pods[0]);
        let (mut nodes, mut pods) = (0f64, 0f64);
        // Turn and turn about, and the best of each: the machine has more to do.
        for _ in 0..3 {
            let bare = tcp::throughput(&from.namespace, &to.namespace, to.address, SENDING)?;
            nodes = nodes.max(bare);
            let routed =
                tcp::throughput(&source.namespace, &sink.namespace, sink.address, SENDING)?;
            pods = pods.max(routed);
        }
        self.check(true, &format!("node to node {}", giga(nodes)));
        let line = format!(
            "pod to pod   {}, {:.0} % of it",
            giga(pods),
            100.0 * pods / nodes
        );
        self.check(pods > 0.0, &line);
        Ok(())
    }

    /// `kill -9` of an agent while packets pass its node.
    pub(crate) fn kill(&mut self, dc: &mut DataCentre) -> Result<()> {
        self.section(
            "kill -9",
            "margayd of node-b1 dies and starts again while a pod of rack a pings one of its pods 1,000 times a second",
        );
        let (from, to) = ends(dc)?;
        let (name, target) = (to.name.clone(), to.pods[0].address);
        let stream = Stream::start(&from.pods[0].namespace, target, Duration::from_millis(1))?;
        let limit = Duration::from_secs(30);
        wait::measure_for(BESIDE);
        let node = dc.node(&name)?;
        node.agent()?.kill()?;
        let died = wait::now();
        node.start()?;
        node.wait_ready(limit)?;
        let back = died.elapsed();
        node.wait_in_step(limit)?;
        let again = died.elapsed();
        wait::measure_for(BESIDE);
        let loss = stream.finish()?;
        println!(
            "\n  serving again after {:.0} ms; session up, routes learned and in the kernel after {:.0} ms",
            millis(back),
            millis(again)
        );
        let line = format!("{} pings sent, {} lost", loss.sent, loss.lost.len());
        self.check(loss.lost.is_empty(), &line);
        Ok(())
    }

    /// How to look around in a data centre that stays.
    pub(crate) fn keep(&self, dc: &DataCentre, pid: u32) {
        let Some(node) = dc.nodes().next() else {
            return;
        };
        // A user namespace is entered as whom one is there already: it allows no change of groups.
        let user = if in_user_namespace() {
            " -U --preserve-credentials"
        } else {
            ""
        };
        let enter = format!("nsenter -t {pid}{user} -m -p");
        let folder = node.run_folder();
        let bin = std::env::current_exe().unwrap_or_default();
        let bin = bin.parent().unwrap_or(&bin).display();
        println!(
            "\nThe data centre stays. To look around:\n\n  \
             {enter} ls /run/netns\n  \
             {enter} nsenter --net=/run/netns/{0} bash\n  \
             {enter} {bin}/margayctl --socket {1}/api.sock status\n  \
             {enter} nsenter --net=/run/netns/{0} ip route show proto 77\n  \
             {enter} tail -f {2}\n\n\
             To remove it, with all that is in it: kill -9 {pid}",
            node.name,
            folder.display(),
            node.log().display()
        );
    }
}

/// A node of the first rack and one of the last.
fn ends(dc: &DataCentre) -> Result<(&Node, &Node)> {
    let first = dc.racks.first().and_then(|rack| rack.nodes.first());
    let last = dc.racks.last().and_then(|rack| rack.nodes.first());
    first.zip(last).context("two racks with nodes")
}

/// Who has an address.
fn name_of(dc: &DataCentre, address: Ipv4Addr) -> String {
    let nodes = dc.nodes().map(|node| (node.address, node.name.clone()));
    let pods = dc.pods().map(|pod| (pod.address, pod.name.clone()));
    let tors = dc
        .racks
        .iter()
        .map(|rack| (rack.tor.address, rack.tor.name.clone()));
    let uplinks = dc.spine.iter().flat_map(|spine| {
        dc.racks
            .iter()
            .zip(&spine.peers)
            .flat_map(|(rack, theirs)| {
                let ours = rack.tor.peers.last().copied();
                let ours = ours.map(|address| (address, spine.name.clone()));
                [Some((*theirs, rack.tor.name.clone())), ours]
                    .into_iter()
                    .flatten()
            })
    });
    let found = nodes
        .chain(pods)
        .chain(tors)
        .chain(uplinks)
        .find(|(known, _)| *known == address);
    found.map(|(_, name)| name).unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Whether root here is somebody else outside.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().nth(2) == Some("1")
}

//! One subject in a namespace of its own, beside the one where its peers are.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use ipnet::Ipv4Net;
use lab::process::{self, Process};
use lab::speaker::PORT;
use lab::{Namespace, net, wait};
use netlink::Request;
use netlink::packet::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink::packet::{AddressFamily, RouteNetlinkMessage};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::subject::{self, Subject, Topology};
use crate::swarm::Swarm;
use lab::meter::{self, Usage};

/// Where the subject is.
pub(crate) const SUBJECT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Its neighbour, where its internal peers are behind.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Internal peers: thousands of addresses behind one neighbour, for the kernel's neighbour table is not for so many.
const FAR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 16);

/// As long as it stays at rest for this long a subject has done its work.
const REST: Duration = Duration::from_millis(150);
/// CPU time within [`REST`] that is no work.
const IDLE: Duration = Duration::from_millis(3);

/// The address of an external peer, on the link.
pub(crate) fn near(peer: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(GATEWAY) + u32::from(peer))
}

/// The address of an internal peer.
pub(crate) fn far(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(FAR.addr()) + 256 + peer)
}

/// One measurement of one subject.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) name: String,
    pub(crate) subject: Subject,
}

/// The subject as it runs.
#[derive(Debug)]
pub(crate) struct Running {
    daemon: Process,
}

impl Trial {
    /// Starts the subject, and runs `measure` in the namespace of its peers.
    pub(crate) fn run<T: Send>(
        &self,
        topology: &Topology,
        measure: impl FnOnce(&mut Running, Swarm) -> Result<T> + Send,
    ) -> Result<T> {
        let (subject, peers) = self.wire()?;
        let folder = PathBuf::from("/run/lab").join(&self.name);
        std::fs::create_dir_all(&folder)?;
        let cpus = Cpus::divide()?;
        // Which the daemon inherits.
        keep_to(&cpus.subject)?;
        let daemon = subject::start(self.subject, &subject, &folder, topology)?;
        let mut running = Running { daemon };
        peers.run(|| {
            keep_to(&cpus.peers)?;
            let swarm = Swarm::new(SocketAddr::from((SUBJECT, PORT)))?;
            measure(&mut running, swarm.raw(self.subject == Subject::Copy)).map_err(|error| {
                // What it says of it itself, if anything.
                match process::tail(running.daemon.log(), 3) {
                    said if said.is_empty() => error,
                    said => anyhow!("{error:#}; it says: {said}"),
                }
            })
        })
    }

    /// Two namespaces and a cable.
    fn wire(&self) -> Result<(Namespace, Namespace)> {
        let subject = Namespace::create(&format!("{}-s", self.name))?;
        let peers = Namespace::create(&format!("{}-p", self.name))?;
        net::cable((&subject, "peers"), (&peers, "subject"))?;
        let on_link = |address| Ipv4Net::new_assert(address, 24);
        net::address(&subject, "peers", on_link(SUBJECT))?;
        for peer in 0..16 {
            net::address(&peers, "subject", on_link(near(peer)))?;
        }
        net::default_route(&subject, GATEWAY, "peers")?;
        net::default_route(&peers, SUBJECT, "subject")?;
        local(&peers, FAR)?;
        Ok((subject, peers))
    }
}

/// Who may use which CPUs. The peers have one to themselves, where there are two: a scheduler that now and then puts both
/// on one doubles every latency.
#[derive(Debug)]
struct Cpus {
    subject: CpuSet,
    peers: CpuSet,
}

impl Cpus {
    fn divide() -> Result<Self> {
        // Asked once, before any thread is narrowed.
        static ALL: OnceLock<CpuSet> = OnceLock::new();
        let all = match ALL.get() {
            Some(all) => all,
            None => {
                let all = sched_getaffinity(None)?;
                ALL.get_or_init(|| all)
            }
        };
        let (mut subject, mut peers) = (*all, *all);
        if let Some(last) = (0..CpuSet::MAX_CPU).rfind(|cpu| all.is_set(*cpu))
            && all.count() > 1
        {
            subject.unset(last);
            peers.clear();
            peers.set(last);
        }
        Ok(Self { subject, peers })
    }
}

/// The calling thread runs there from now on, and what it starts.
fn keep_to(cpus: &CpuSet) -> Result<()> {
    Ok(sched_setaffinity(None, cpus)?)
}

/// Makes all addresses of a network the namespace's own.
fn local(namespace: &Namespace, network: Ipv4Net) -> Result<()> {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: network.prefix_len(),
        table: LOCAL_TABLE,
        protocol: RouteProtocol::Static,
        scope: RouteScope::Host,
        kind: RouteType::Local,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Destination(network.addr().into()),
        RouteAttribute::Oif(netlink::setup::LOOPBACK),
    ];
    let request = Request::create(RouteNetlinkMessage::NewRoute(route));
    net::socket(namespace)?
        .request(request)
        .with_context(|| format!("make {network} local"))
}

/// `RT_TABLE_LOCAL` (linux/rtnetlink.h).
const LOCAL_TABLE: u8 = 255;

impl Running {
    /// What it has used so far.
    pub(crate) fn usage(&mut self) -> Result<Usage> {
        self.daemon.check()?;
        meter::usage(self.daemon.pid())
    }

    /// Serves the peers until the subject rests, and gives what it has used by then.
    pub(crate) fn at_rest(&mut self, swarm: &mut Swarm, limit: Duration) -> Result<Usage> {
        let start = wait::now();
        let mut before = self.usage()?;
        loop {
            swarm.run(REST, |_| false)?;
            let usage = self.usage()?;
            if usage.cpu - before.cpu < IDLE || start.elapsed() > limit {
                return Ok(usage);
            }
            before = usage;
        }
    }

    /// Waits until it answers at BGP's port. Call it in the namespace of its peers.
    pub(crate) fn listening(&mut self, limit: Duration) -> Result<()> {
        wait::until("the subject to listen", limit, || {
            self.daemon.check()?;
            // Nobody that it knows: it hangs up.
            Ok(TcpStream::connect((SUBJECT, PORT)).map(drop)?)
        })
    }

    /// An error with the log's end, should it have ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.daemon.check()
    }
}

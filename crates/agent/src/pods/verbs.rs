//! What the agent does for each verb of the shim.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use api::cni::{Add, Attached, AttachmentId, Check, Failure, Gc, Mac, Response, Verb, code};
use ipam::AllocateError;
use netlink::pod::{self, AttachError, Record, Wiring};
use netlink::{Socket, setup};

use super::connection::{Call, Connection, failure};
use super::metrics::Outcome;
use super::reaper::Condemned;
use super::registry::Shortage;
use super::{Claim, Endpoint, Shared, clock};
use crate::blocks::Answer;

/// How long a request waits for another one about the same attachment: a runtime sends none, but a shim that was killed
/// may have left one under way.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a request waits for another block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// The smallest MTU that IPv6 works with, in octets (RFC 8200 §5).
const IPV6_MTU: u32 = 1280;

/// One thread's means of serving requests.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) shared: Arc<Shared>,
    pub(crate) host: Socket,
    pub(crate) reaper: SyncSender<Condemned>,
}

/// Why a request was not served.
enum Refusal {
    /// Ask again in a moment.
    Later(String),
    /// It can't be done.
    Failed(Failure),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Later(reason) => Self::Later(reason),
            Refusal::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl Server {
    /// Serves one connection.
    pub(crate) fn serve(&mut self, connection: Connection, buffer: &mut Vec<u8>) {
        let started = clock();
        let Call { verb, descriptors } = match connection.receive(buffer) {
            Ok(call) => call,
            Err(failure) => {
                tracing::warn!(error = failure.message, "CNI request refused");
                return answer(&connection, &Response::Failed(failure));
            }
        };
        match verb {
            Verb::Add(add) => self.add(&connection, &add, descriptors, started),
            Verb::Del(del) => self.del(connection, &del.id, started),
            Verb::Check(check) => answer(&connection, &done(self.check(&check, descriptors))),
            Verb::Gc(gc) => answer(&connection, &done(self.gc(&gc))),
            Verb::Status => answer(&connection, &done(self.status())),
        }
    }

    fn add(
        &mut self,
        connection: &Connection,
        add: &Add,
        descriptors: Vec<OwnedFd>,
        started: Instant,
    ) {
        let (container, ifname) = (&add.id.container_id, &add.id.ifname);
        let pod = add
            .pod
            .as_ref()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name));
        let result = self.attach(add, descriptors);
        let duration = started.elapsed();
        let outcome = match result {
            Ok((endpoint, attached, claim)) => {
                let addresses = &attached.addresses;
                tracing::info!(container, ifname, pod, ?addresses, ?duration, "ADD");
                if let Err(error) = connection.reply(&Response::Attached(attached)) {
                    // Nobody will use it, and nobody may ever ask for its end.
                    tracing::warn!(container, ifname, %error, "the shim went away before its ADD was done: undone");
                    self.remove(&endpoint);
                }
                drop(claim);
                Outcome::Succeeded
            }
            Err(refusal) => {
                let outcome = match &refusal {
                    Refusal::Later(reason) => {
                        tracing::debug!(container, ifname, pod, reason, "ADD put off");
                        Outcome::Deferred
                    }
                    Refusal::Failed(failure) => {
                        tracing::warn!(
                            container,
                            ifname,
                            pod,
                            error = failure.message,
                            ?duration,
                            "ADD failed"
                        );
                        Outcome::Failed
                    }
                };
                answer(connection, &refusal.into());
                outcome
            }
        };
        self.shared.metrics.add.record(outcome, duration);
    }

    /// Wires the pod, and has its routes installed. The claim is held until the shim knows.
    fn attach(
        &mut self,
        add: &Add,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(Endpoint, Attached, Claim), Refusal> {
        let [netns, netlink] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| {
            failure(
                code::PROTOCOL,
                "ADD needs two descriptors: network namespace and netlink socket".into(),
            )
        })?;
        let mut pod =
            Socket::from_fd(netlink).map_err(|error| failure(code::PROTOCOL, error.to_string()))?;
        let claim = self.claim(&add.id)?;
        self.make_way(add)?;
        let addresses = self.addresses(add)?;
        let (mtu, first) = {
            let registry = self.shared.registry();
            let mtu = add.mtu.unwrap_or_else(|| registry.mtu());
            (mtu, !registry.has_other(&add.id))
        };
        if mtu < IPV6_MTU && addresses.iter().any(IpAddr::is_ipv6) {
            self.shared.registry().give_back(&addresses);
            let message = format!("mtu {mtu} is less than {IPV6_MTU}, which IPv6 needs");
            return Err(failure(code::INVALID_CONFIG, message).into());
        }
        let default_route = add.default_route.unwrap_or(first);
        let mut endpoint = new_endpoint(add, addresses);
        if let Err(failure) = self.wire(add, &mut endpoint, mtu, default_route, netns, &mut pod) {
            self.shared.registry().give_back(&endpoint.addresses);
            return Err(failure.into());
        }
        self.shared.registry().insert(endpoint.clone());
        let up = self.shared.sink.up(endpoint.clone());
        if let Err(error) = up.and_then(|()| self.verify(&endpoint)) {
            self.remove(&endpoint);
            return Err(failure(code::KERNEL, error).into());
        }
        let gateways = endpoint
            .addresses
            .iter()
            .map(|address| pod::gateway(*address))
            .filter(|_| default_route);
        let attached = Attached {
            host_ifname: endpoint.host_ifname.clone(),
            host_mac: Mac(endpoint.host_mac),
            mac: Mac(endpoint.mac),
            mtu,
            addresses: endpoint.addresses.clone(),
            gateways: gateways.collect(),
        };
        Ok((endpoint, attached, claim))
    }

    /// The attachment's addresses. Waits for another block where those that the node has are full, but not for long: a
    /// thread that waits serves nobody, and the shim asks again.
    fn addresses(&self, add: &Add) -> Result<Vec<IpAddr>, Refusal> {
        let deadline = clock() + BLOCK_TIMEOUT;
        let namespace = add.pod.as_ref().map(|pod| pod.namespace.as_str());
        loop {
            let mut registry = self.shared.registry();
            let allocated = registry.allocate(&add.addresses, namespace, clock());
            drop(registry);
            let (want, reason) = match allocated {
                Ok(addresses) => return Ok(addresses),
                Err(Shortage::Block { want, reason }) => (want, reason),
                Err(shortage) => return Err(no_address(&shortage)),
            };
            let left = || deadline.saturating_duration_since(clock());
            let Some(blocks) = self.shared.blocks.get().filter(|_| !left().is_zero()) else {
                return Err(Refusal::Later(reason));
            };
            match blocks.want(&want, left()) {
                Answer::Claimed(block) if self.shared.wait_for_block(block, left()) => {}
                Answer::Claimed(block) => {
                    return Err(Refusal::Later(format!("{block} is not in force yet")));
                }
                Answer::Unavailable(why) => {
                    return Err(Refusal::Later(format!("{reason}; {why}")));
                }
                Answer::Full(why) => {
                    return Err(no_address(&Shortage::Full(format!("{reason}; {why}"))));
                }
            }
        }
    }

    /// Makes sure that the attachment does not exist yet.
    fn make_way(&mut self, add: &Add) -> Result<(), Refusal> {
        let Some(present) = self.shared.registry().get(&add.id).cloned() else {
            if add.again {
                // What an agent before this one may have left half-made.
                let name = add.id.identity().host_ifname;
                pod::detach(&mut self.host, &[&name])
                    .map_err(|error| failure(code::KERNEL, error.to_string()))?;
            }
            return Ok(());
        };
        if add.again {
            return self.undo(&present).map_err(Refusal::from);
        }
        // The registry may lag behind the kernel by an event.
        if self.verify(&present).is_err() {
            self.remove(&present);
            return Ok(());
        }
        let message = format!(
            "container {} is attached by {} already",
            add.id.container_id, add.id.ifname
        );
        let details = format!(
            "its addresses are {:?}; DEL comes before another ADD",
            present.addresses
        );
        Err(Failure {
            code: code::INTERFACE_EXISTS,
            message,
            details,
        }
        .into())
    }

    /// Has the kernel make the endpoint.
    fn wire(
        &mut self,
        add: &Add,
        endpoint: &mut Endpoint,
        mtu: u32,
        default_route: bool,
        netns: OwnedFd,
        pod: &mut Socket,
    ) -> Result<(), Failure> {
        let record = Record {
            container_id: endpoint.container_id.clone(),
            ifname: endpoint.ifname.clone(),
            network: endpoint.network.clone(),
            addresses: endpoint.addresses.clone(),
            mac: add.mac.map(|mac| mac.0),
            spoofing: endpoint.spoofing,
            pod: endpoint.pod.clone(),
            netns: Some(endpoint.netns.clone()),
        };
        let alias = record
            .encode()
            .map_err(|error| failure(code::INVALID_CONFIG, error.to_string()))?;
        let wiring = Wiring {
            host_ifname: &endpoint.host_ifname,
            host_mac: endpoint.host_mac,
            ifname: &endpoint.ifname,
            mac: endpoint.mac,
            mtu,
            addresses: &endpoint.addresses,
            default_route,
            spoofing: endpoint.spoofing,
            alias: &alias,
            netns: netns.as_fd(),
        };
        let wired = pod::attach(&mut self.host, pod, &wiring).map_err(|error| {
            let code = match error {
                AttachError::InterfaceExists(_) | AttachError::HostLinkExists(_) => {
                    code::INTERFACE_EXISTS
                }
                AttachError::NoCarrier(_)
                | AttachError::NotUsable(_)
                | AttachError::Kernel { .. } => code::KERNEL,
            };
            failure(code, error.to_string())
        })?;
        endpoint.link = wired.host;
        Ok(())
    }

    /// Whether the endpoint's link still is there. Asked after the endpoint has been registered: a link that went
    /// before that was nobody's when its event came.
    fn verify(&mut self, endpoint: &Endpoint) -> Result<(), String> {
        let index = setup::link_index(&mut self.host, &endpoint.host_ifname)
            .map_err(|error| error.to_string())?;
        if index == endpoint.link && self.shared.registry().has_link(index) {
            return Ok(());
        }
        Err(format!(
            "{} went away while it was being made",
            endpoint.host_ifname
        ))
    }

    /// Takes an endpoint down on this thread. For what is rare; DEL has the reaper.
    fn remove(&mut self, endpoint: &Endpoint) {
        self.shared.sink.down(endpoint);
        if let Err(error) = pod::detach(&mut self.host, &[&endpoint.host_ifname]) {
            tracing::warn!(link = endpoint.host_ifname, %error, "link not deleted");
            return;
        }
        self.shared.registry().remove_link(endpoint.link, clock());
    }

    /// Takes down an endpoint that its pod never knew of: its addresses need no rest.
    fn undo(&mut self, endpoint: &Endpoint) -> Result<(), Failure> {
        self.shared.sink.down(endpoint);
        // Out of the registry first: the link's end is an event, and who follows those would let the addresses rest.
        if self.shared.registry().take_link(endpoint.link).is_none() {
            return Ok(());
        }
        if let Err(error) = pod::detach(&mut self.host, &[&endpoint.host_ifname]) {
            self.shared.registry().insert(endpoint.clone());
            return Err(failure(code::KERNEL, error.to_string()));
        }
        self.shared.registry().give_back(&endpoint.addresses);
        Ok(())
    }

    fn del(&self, connection: Connection, id: &AttachmentId, started: Instant) {
        let claim = match self.claim(id) {
            Ok(claim) => claim,
            Err(refusal) => {
                self.shared
                    .metrics
                    .del
                    .record(Outcome::Deferred, started.elapsed());
                return answer(&connection, &refusal.into());
            }
        };
        let endpoint = self.shared.registry().get(id).cloned();
        if let Some(endpoint) = &endpoint {
            // The route goes at once, the link in its time.
            self.shared.sink.down(endpoint);
        }
        let link = endpoint.map(|endpoint| endpoint.link);
        let condemned = Condemned {
            claim,
            link,
            connection: Some(connection),
            started,
        };
        if self.reaper.send(condemned).is_err() {
            // Only after the reaper panicked. The shim deletes the link itself when its connection ends.
            tracing::error!(
                container = id.container_id,
                "no reaper: DEL is left to the shim"
            );
        }
    }

    fn check(&mut self, check: &Check, descriptors: Vec<OwnedFd>) -> Result<(), Refusal> {
        let [_netns, netlink] = <[OwnedFd; 2]>::try_from(descriptors).map_err(|_| {
            failure(
                code::PROTOCOL,
                "CHECK needs two descriptors: network namespace and netlink socket".into(),
            )
        })?;
        let mut pod =
            Socket::from_fd(netlink).map_err(|error| failure(code::PROTOCOL, error.to_string()))?;
        let Some(endpoint) = self.shared.registry().get(&check.id).cloned() else {
            let message = format!(
                "container {} is not attached by {}",
                check.id.container_id, check.id.ifname
            );
            return Err(failure(code::UNKNOWN_CONTAINER, message).into());
        };
        let wrong = |message: String| Refusal::from(failure(code::CHECK_FAILED, message));
        if let Some(lost) = check
            .addresses
            .iter()
            .find(|address| !endpoint.addresses.contains(address))
        {
            return Err(wrong(format!(
                "{lost} is not an address of this container: it has {:?}",
                endpoint.addresses
            )));
        }
        pod::check(
            &mut self.host,
            &mut pod,
            &endpoint.host_ifname,
            &endpoint.ifname,
            &endpoint.addresses,
            &check.gateways,
        )
        .map_err(|error| wrong(error.to_string()))
    }

    fn gc(&mut self, gc: &Gc) -> Result<(), Refusal> {
        let stale: Vec<Endpoint> = {
            let registry = self.shared.registry();
            let stale = registry.endpoints().filter(|endpoint| {
                endpoint.network == gc.network && !gc.valid.contains(&endpoint.id())
            });
            stale.cloned().collect()
        };
        let mut errors = Vec::new();
        let mut claimed = Vec::new();
        for endpoint in stale {
            match Claim::wait(&self.shared, &endpoint.id(), BUSY_TIMEOUT) {
                // Somebody else was faster.
                Some(_) if !self.shared.registry().has_link(endpoint.link) => {}
                Some(claim) => claimed.push((claim, endpoint)),
                None => errors.push(format!(
                    "{}: another request is under way",
                    endpoint.host_ifname
                )),
            }
        }
        for (_, endpoint) in &claimed {
            self.shared.sink.down(endpoint);
            tracing::info!(container = endpoint.container_id, ifname = endpoint.ifname, addresses = ?endpoint.addresses, "GC");
        }
        let names: Vec<&str> = claimed
            .iter()
            .map(|(_, endpoint)| endpoint.host_ifname.as_str())
            .collect();
        let together = pod::detach(&mut self.host, &names);
        for (claim, endpoint) in claimed {
            // One that is refused must not keep the others.
            let result = match &together {
                Ok(()) => Ok(()),
                Err(_) => pod::detach(&mut self.host, &[&endpoint.host_ifname]),
            };
            match result {
                Ok(()) => {
                    let mut registry = self.shared.registry();
                    registry.remove_link(endpoint.link, clock());
                }
                Err(error) => errors.push(format!("{}: {error}", endpoint.host_ifname)),
            }
            drop(claim);
        }
        if errors.is_empty() {
            return Ok(());
        }
        Err(failure(code::KERNEL, errors.join("; ")).into())
    }

    fn status(&self) -> Result<(), Refusal> {
        let registry = self.shared.registry();
        registry
            .check_addresses(clock())
            .map_err(|shortage| match no_address(&shortage) {
                Refusal::Failed(failure) => Refusal::Failed(Failure {
                    code: code::UNAVAILABLE,
                    ..failure
                }),
                later => later,
            })
    }

    fn claim(&self, id: &AttachmentId) -> Result<Claim, Refusal> {
        let claim = Claim::wait(&self.shared, id, BUSY_TIMEOUT);
        claim.ok_or_else(|| {
            Refusal::Later("another request about this container is under way".into())
        })
    }
}

fn new_endpoint(add: &Add, addresses: Vec<IpAddr>) -> Endpoint {
    let identity = add.id.identity();
    Endpoint {
        container_id: add.id.container_id.clone(),
        ifname: add.id.ifname.clone(),
        network: add.network.clone(),
        netns: add.netns.clone(),
        link: 0,
        host_ifname: identity.host_ifname,
        mac: add.mac.unwrap_or(identity.pod_mac).0,
        host_mac: identity.host_mac.0,
        addresses,
        spoofing: add.spoofing,
        pod: add
            .pod
            .as_ref()
            .map(|pod| (pod.namespace.clone(), pod.name.clone())),
    }
}

fn no_address(shortage: &Shortage) -> Refusal {
    let details = match shortage {
        Shortage::Nowhere | Shortage::Block { .. } => return Refusal::Later(shortage.to_string()),
        Shortage::NotSelected(_) => {
            "let the namespaceSelector of an IPPool select it, or add an IPPool without one"
        }
        Shortage::Full(_) => "free some pods, make the IPPool larger, or add another one",
        Shortage::Ipam(AllocateError::NoCidr(_) | AllocateError::Exhausted { .. }) => {
            "free some pods, or give this node a larger or another pod CIDR"
        }
        Shortage::Ipam(AllocateError::NotOurs(_)) => {
            "`margayctl status` shows the node's pod CIDRs and blocks"
        }
        Shortage::Ipam(AllocateError::InUse(_)) => {
            "`margayctl endpoints` shows who has which address"
        }
    };
    let failure = Failure {
        code: code::NO_ADDRESS,
        message: shortage.to_string(),
        details: details.into(),
    };
    failure.into()
}

fn done(result: Result<(), Refusal>) -> Response {
    result.map_or_else(Response::from, |()| Response::Done)
}

fn answer(connection: &Connection, response: &Response) {
    if let Err(error) = connection.reply(response) {
        tracing::debug!(%error, "nobody waits for the answer");
    }
}

//! What all tests of the RIB share: peers that speak the wire's octets on both sides.

mod decision;
mod export;
mod groups;
mod import;
mod oracle;
mod order;
mod random;
mod restart;
mod rules;
mod walk;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::header::{decode, frame_len};
use bgp_wire::{AsPath, Attributes, Context, Family, Message, NextHop, UpdateBuilder};
use ipnet::IpNet;

use super::{DownKind, Generation, PeerIndex, PeerSession, Rib, RouteChange};
use crate::config::{Client, Decision, NextHopMode, Rules};
use crate::policy::Policy;

pub(super) const ASN: u32 = 64512;
pub(super) const ROUTER_ID: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn context(ibgp: bool) -> Context {
    Context {
        four_octet_as: true,
        extended_message: false,
        ibgp,
    }
}

/// An external peer of this AS at 192.0.2.`host`.
pub(super) fn external(host: u8, asn: u32) -> PeerSession {
    PeerSession {
        ibgp: false,
        peer_asn: asn,
        local_asn: ASN,
        peer_router_id: Ipv4Addr::new(10, 0, 0, host),
        peer_address: Ipv4Addr::new(192, 0, 2, host).into(),
        local_address: Ipv4Addr::new(192, 0, 2, 254).into(),
        other_local_address: Some("2001:db8::fe".parse().unwrap()),
        link_local: None,
        shared_subnet: None,
        next_hop: NextHopMode::Auto,
        extended_next_hop: false,
        enhanced_refresh: false,
        context: context(false),
        families: vec![Family::IPV4_UNICAST, Family::IPV6_UNICAST],
        retained: Vec::new(),
        restarted: false,
        rules: Rules::default(),
        import: Policy::accept_all(),
        export: Policy::accept_all(),
    }
}

/// An internal peer at 192.0.2.`host`.
pub(super) fn internal(host: u8) -> PeerSession {
    PeerSession {
        ibgp: true,
        peer_asn: ASN,
        context: context(true),
        ..external(host, ASN)
    }
}

/// An internal peer that is our client in this cluster.
pub(super) fn client(host: u8, cluster_id: Ipv4Addr) -> PeerSession {
    let client = Client {
        cluster_id,
        meshed: false,
    };
    PeerSession {
        rules: Rules {
            client: Some(client),
            ..Rules::default()
        },
        ..internal(host)
    }
}

/// Attributes with this path and next hop 192.0.2.`host`.
pub(super) fn via(host: u8, path: &[u32]) -> Attributes {
    Attributes {
        as_path: AsPath::sequence(path),
        next_hop: Some(NextHop::V4(Ipv4Addr::new(192, 0, 2, host))),
        ..Attributes::originated()
    }
}

/// What one peer has been told.
#[derive(Debug, Default, Clone)]
pub(super) struct Listener {
    pub(super) routes: BTreeMap<IpNet, Attributes>,
    pub(super) ends: Vec<Family>,
    /// Messages, End-of-RIB among them.
    pub(super) updates: usize,
    pub(super) announced: usize,
    pub(super) withdrawn: usize,
    /// Withdrawals of what was not there.
    pub(super) spurious: usize,
}

/// A RIB, its peers' ends, and its kernel.
#[derive(Debug)]
pub(super) struct Bed {
    pub(super) rib: Rib,
    pub(super) listeners: BTreeMap<u32, Listener>,
    pub(super) sessions: BTreeMap<u32, PeerSession>,
    pub(super) generations: BTreeMap<u32, u32>,
    /// Without next hops: what goes there is discarded.
    pub(super) kernel: BTreeMap<IpNet, Vec<NextHop>>,
    /// What concerns all routes is done only when the test says so.
    pub(super) slow: bool,
}

impl Bed {
    pub(super) fn new() -> Self {
        Self {
            rib: Rib::new(ASN, ROUTER_ID, Decision::default()),
            listeners: BTreeMap::new(),
            sessions: BTreeMap::new(),
            generations: BTreeMap::new(),
            kernel: BTreeMap::new(),
            slow: false,
        }
    }

    /// Does all that the RIB has to do.
    pub(super) fn settle(&mut self) {
        while self.rib.has_work() {
            self.rib.work();
        }
    }

    fn settle_unless_slow(&mut self) {
        if !self.slow {
            self.settle();
        }
    }

    pub(super) fn generation(&self, peer: u32) -> Generation {
        Generation(self.generations.get(&peer).copied().unwrap_or(0))
    }

    pub(super) fn up(&mut self, peer: u32, session: PeerSession) {
        *self.generations.entry(peer).or_insert(0) += 1;
        self.sessions.insert(peer, session.clone());
        self.listeners.insert(peer, Listener::default());
        self.rib
            .peer_up(PeerIndex(peer), self.generation(peer), session);
        self.settle_unless_slow();
    }

    pub(super) fn down(&mut self, peer: u32, kind: DownKind) {
        self.listeners.remove(&peer);
        self.rib
            .peer_down(PeerIndex(peer), self.generation(peer), kind);
        self.settle_unless_slow();
    }

    pub(super) fn announce(&mut self, peer: u32, attributes: &Attributes, prefixes: &[&str]) {
        let prefixes: Vec<IpNet> = prefixes.iter().map(|prefix| net(prefix)).collect();
        self.announce_nets(peer, attributes, &prefixes);
    }

    pub(super) fn announce_nets(&mut self, peer: u32, attributes: &Attributes, prefixes: &[IpNet]) {
        let context = self.sessions[&peer].context;
        let mut attributes = attributes.clone();
        if context.ibgp {
            // Mandatory there.
            attributes.local_pref.get_or_insert(100);
        }
        let mut section = Vec::new();
        attributes.encode(&context, &mut section);
        for &prefix in prefixes {
            let mut message = Vec::new();
            let next_hop = attributes.next_hop.unwrap();
            let mut builder = UpdateBuilder::announce(
                &mut message,
                &context,
                &section,
                next_hop,
                Family::of(prefix),
            );
            builder.push(prefix).unwrap();
            builder.finish();
            self.receive(peer, &message);
        }
    }

    pub(super) fn withdraw(&mut self, peer: u32, prefixes: &[&str]) {
        for prefix in prefixes {
            self.withdraw_net(peer, net(prefix));
        }
    }

    pub(super) fn withdraw_net(&mut self, peer: u32, prefix: IpNet) {
        let mut message = Vec::new();
        let context = self.sessions[&peer].context;
        let mut builder = UpdateBuilder::withdraw(&mut message, &context, Family::of(prefix));
        builder.push(prefix).unwrap();
        builder.finish();
        self.receive(peer, &message);
    }

    pub(super) fn receive(&mut self, peer: u32, message: &[u8]) {
        let Ok(Message::Update(update)) = decode(message, &self.sessions[&peer].context) else {
            panic!("not an UPDATE: {message:?}");
        };
        self.rib
            .update(PeerIndex(peer), self.generation(peer), &update);
    }

    /// One step of sending to a peer; whether there was anything.
    pub(super) fn step(&mut self, peer: u32) -> bool {
        self.settle_unless_slow();
        let Some(bytes) = self.rib.poll_transmit(PeerIndex(peer)) else {
            return false;
        };
        let context = self.sessions[&peer].context;
        let listener = self.listeners.get_mut(&peer).unwrap();
        let mut rest: &[u8] = &bytes;
        assert!(!rest.is_empty());
        while !rest.is_empty() {
            let len = frame_len(rest, &context).unwrap().unwrap();
            let (message, next) = rest.split_at(len);
            rest = next;
            listener.hear(message, &context);
        }
        true
    }

    pub(super) fn drain(&mut self, peer: u32) -> &Listener {
        while self.step(peer) || self.rib.has_news(PeerIndex(peer)) {}
        &self.listeners[&peer]
    }

    pub(super) fn drain_all(&mut self) {
        let peers: Vec<u32> = self.listeners.keys().copied().collect();
        for peer in peers {
            self.drain(peer);
        }
        while self.poll_routes(100) > 0 {}
    }

    pub(super) fn poll_routes(&mut self, max: usize) -> usize {
        self.settle_unless_slow();
        let changes = self.rib.poll_routes(max);
        for RouteChange {
            prefix,
            next_hops,
            blackhole,
        } in &changes
        {
            assert!(!blackhole || next_hops.is_empty());
            if next_hops.is_empty() && !blackhole {
                assert!(
                    self.kernel.remove(prefix).is_some(),
                    "{prefix} was not in the kernel"
                );
            } else {
                self.kernel.insert(*prefix, next_hops.to_vec());
            }
        }
        changes.len()
    }

    /// The prefixes that a peer has been told of.
    pub(super) fn told(&mut self, peer: u32) -> Vec<String> {
        self.drain(peer)
            .routes
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn told_attributes(&mut self, peer: u32, prefix: &str) -> Attributes {
        self.drain(peer).routes[&net(prefix)].clone()
    }
}

impl Listener {
    fn hear(&mut self, message: &[u8], context: &Context) {
        let Ok(Message::Update(update)) = decode(message, context) else {
            panic!("not an UPDATE: {message:?}")
        };
        assert_eq!(update.faults, [], "we sent a faulty message");
        self.updates += 1;
        if let Some(family) = update.end_of_rib() {
            self.ends.push(family);
            return;
        }
        for prefix in update.unreachable.iter().flat_map(|run| run.iter()) {
            self.withdrawn += 1;
            if self.routes.remove(&prefix).is_none() {
                self.spurious += 1;
            }
        }
        for (next_hop, run) in &update.reachable {
            let attributes = Attributes {
                next_hop: Some(*next_hop),
                ..update.attributes.clone().unwrap()
            };
            for prefix in run {
                self.announced += 1;
                self.routes.insert(prefix, attributes.clone());
            }
        }
    }
}

pub(super) fn address(host: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, host).into()
}

//! What the fuzz target does with its input. The ordinary tests do the same with the corpus: `tests/fuzz_corpus.rs`.

mod config;
mod route;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp::rib::Selection;
use bgp::session::ConnId;
use bgp::speaker::{Event, Interface, Speaker};
use bgp_wire::capability::GracefulRestart;
use bgp_wire::{
    Capability, Context, Family, NextHop, Notification, Open, RouteRefresh, UpdateBuilder, header,
};
use config::{config, family};
use ipnet::IpNet;
use route::attributes;

/// More steps than that say nothing new.
const MAX_STEPS: usize = 400;
/// No output has more items than that after one input.
const MAX_OUTPUTS: usize = 10_000;
/// Of the speaker's work on all routes, with as few as there are here.
const TURNS: usize = 16;
/// The speaker's word for it.
const WALK: &str = "walk through all routes";
/// Our own AS.
const ASN: u32 = 64512;
/// AS and last octet of the address of each peer; the second is an internal one, the third has a four-octet AS.
const PEERS: [(u32, u8); 3] = [(64513, 2), (ASN, 3), (4_200_000_001, 4)];
const NEXT_HOP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const FAMILIES: [Family; 2] = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];

/// The input, taken octet by octet; zeros behind its end.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    fn below(&mut self, count: usize) -> usize {
        usize::from(self.u8()) % count
    }

    fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// A speaker and what a driver knows of it.
struct Driver {
    speaker: Speaker,
    now: Instant,
    /// Dials asked for and not answered.
    dials: Vec<(ConnId, SocketAddr)>,
    open: Vec<(ConnId, IpAddr)>,
    /// A few that are over: what still comes from them must not matter.
    over: Vec<(ConnId, IpAddr)>,
    routes: BTreeSet<IpNet>,
    /// Next hops that the speaker wants to know about, where it asks.
    next_hops: BTreeSet<IpAddr>,
}

/// Runs a script.
pub(crate) fn speaker(data: &[u8]) {
    let mut script = Script(data);
    let flags = script.u8();
    let config = config(&mut script);
    #[expect(
        clippy::disallowed_methods,
        reason = "any instant does as the start of virtual time"
    )]
    let now = Instant::now();
    let mut driver = Driver {
        speaker: Speaker::new(config, flags & 1 != 0, u64::from(flags), now),
        now,
        dials: Vec::new(),
        open: Vec::new(),
        over: Vec::new(),
        routes: BTreeSet::new(),
        next_hops: BTreeSet::new(),
    };
    if flags & 2 != 0 {
        driver.speaker.track_next_hops();
    }
    driver.events();
    for _ in 0..MAX_STEPS {
        if script.0.is_empty() {
            break;
        }
        driver.step(&mut script);
        driver.events();
    }
    driver.end();
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn prefix(n: u8, len: u8) -> IpNet {
    if len > 32 {
        let bits = 0x2001_0db8_u128 << 96 | u128::from(n) << 80;
        return IpNet::new_assert(Ipv6Addr::from_bits(bits).into(), len.min(128)).trunc();
    }
    IpNet::new_assert(Ipv4Addr::new(172, 16, n, 0).into(), len).trunc()
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::new(address(1).into(), port)
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 16];
    let len = u16::try_from(header::LEN + body.len()).unwrap_or(u16::MAX);
    frame.extend_from_slice(&len.to_be_bytes());
    frame.push(kind);
    frame.extend_from_slice(body);
    frame
}

impl Driver {
    fn step(&mut self, script: &mut Script<'_>) {
        match script.u8() % 20 {
            0 => self.pass(Duration::from_millis(u64::from(script.u8()) * 20)),
            1 => self.pass(Duration::from_secs(script.u8().into())),
            2 => self.wake(),
            3 => self.connected(script),
            4 => self.incoming(script),
            5 | 6 => self.send_open(script),
            7 => self.data(script, &frame(header::kind::KEEPALIVE, &[])),
            8 | 9 => self.send_update(script),
            10 => {
                let kind = script.u8();
                let len = script.u8();
                let body = script.bytes(len.into());
                self.data(script, &frame(kind, body));
            }
            11 => {
                let len = script.u8();
                let bytes = script.bytes(len.into());
                self.data(script, bytes);
            }
            12 => self.closed(script),
            13 => self.transmit(usize::from(script.u8())),
            14 => self.transmit(MAX_OUTPUTS),
            15 => self.speaker.set_config(config(script), self.now),
            16 => {
                let max = 1 + usize::from(script.u8());
                self.poll_routes(max);
            }
            17 => {
                let cost = Some(u32::from(script.u8())).filter(|cost| *cost < 128);
                let next_hop = match script.u8() % 9 {
                    8 => NEXT_HOP_V6.into(),
                    n => address(n).into(),
                };
                self.speaker.set_next_hop(next_hop, cost, self.now);
            }
            18 => self.views(),
            _ => self.send_other(script),
        }
    }

    /// End-of-RIB, ROUTE-REFRESH of every subtype, a NOTIFICATION; or something about ourselves.
    fn send_other(&mut self, script: &mut Script<'_>) {
        let mut bytes = Vec::new();
        let choice = script.u8();
        match choice % 8 {
            0 if choice & 8 == 0 => return self.speaker.shutdown("the end", self.now),
            0 => {
                let peer = address(2 + script.u8() % 4).into();
                match choice >> 4 & 3 {
                    0 => self.speaker.reset_peer(peer, "anew", self.now),
                    1 => self.speaker.shut_down_peer(peer, "down", self.now),
                    _ => self.speaker.refresh_peer(peer).is_some(),
                };
                return;
            }
            1..=3 => bgp_wire::update::encode_end_of_rib(family(script.u8()), &mut bytes),
            4 | 5 => {
                let choice = script.u8();
                RouteRefresh {
                    family: family(choice),
                    subtype: choice >> 1 & 3,
                }
                .encode(&mut bytes);
            }
            6 => Notification::new(script.u8() % 9, script.u8() % 12, [script.u8()])
                .encode(&mut bytes),
            _ => {
                let last = script.u8();
                let own = [
                    address(1).into(),
                    Ipv6Addr::LOCALHOST.into(),
                    NEXT_HOP_V6.into(),
                ];
                let addresses = own[..usize::from(last % 4)]
                    .iter()
                    .map(|own: &IpAddr| IpNet::from(*own));
                let interface = Interface {
                    addresses: addresses.collect(),
                };
                return self.speaker.set_interfaces(vec![interface]);
            }
        }
        self.data(script, &bytes);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.timeout();
    }

    /// Sleeps until the next deadline.
    fn wake(&mut self) {
        if let Some((at, reason)) = self.speaker.poll_timeout() {
            assert!(!reason.is_empty());
            self.now = self.now.max(at);
            self.timeout();
        }
    }

    fn timeout(&mut self) {
        let mut next = None;
        // What concerns all routes is done in turns, with everything else in between. So few routes don't take many.
        for _ in 0..TURNS {
            self.speaker.handle_timeout(self.now);
            next = self.speaker.poll_timeout();
            if next.is_none_or(|(_, reason)| reason != WALK) {
                break;
            }
        }
        assert!(
            next.is_none_or(|(at, _)| at > self.now),
            "due at once again: {next:?}"
        );
    }

    fn connected(&mut self, script: &mut Script<'_>) {
        if self.dials.is_empty() {
            return;
        }
        let (conn, remote) = self.dials.remove(script.below(self.dials.len()));
        if script.u8() & 1 == 0 {
            self.open.push((conn, remote.ip()));
            self.speaker
                .handle_connected(conn, local(40000), remote, self.now);
        } else {
            self.speaker.handle_closed(conn, "refused".into(), self.now);
            self.over.push((conn, remote.ip()));
        }
    }

    fn incoming(&mut self, script: &mut Script<'_>) {
        let last = 2 + script.u8() % 4;
        let remote = SocketAddr::new(address(last).into(), 50000);
        if let Some(conn) = self.speaker.handle_incoming(local(179), remote, self.now) {
            assert!(
                !self.open.iter().any(|(open, _)| *open == conn),
                "a name used twice"
            );
            assert!(
                !self.over.iter().any(|(over, _)| *over == conn),
                "a name used twice"
            );
            self.open.push((conn, remote.ip()));
        }
    }

    /// Of a connection that is open, or now and then of one that is over.
    fn choose(&self, script: &mut Script<'_>) -> Option<(ConnId, IpAddr)> {
        let choice = script.u8();
        let from = if choice >= 0xf0 {
            &self.over
        } else {
            &self.open
        };
        if from.is_empty() {
            None
        } else {
            Some(from[usize::from(choice) % from.len()])
        }
    }

    fn data(&mut self, script: &mut Script<'_>, bytes: &[u8]) {
        if let Some((conn, _)) = self.choose(script) {
            self.speaker.handle_data(conn, bytes, self.now);
        }
    }

    /// An OPEN that may well be accepted.
    fn send_open(&mut self, script: &mut Script<'_>) {
        let Some((conn, peer)) = self.choose(script) else {
            return;
        };
        let flags = script.u8();
        let asn = PEERS
            .iter()
            .find(|(_, last)| IpAddr::V4(address(*last)) == peer)
            .map_or(1, |(asn, _)| *asn);
        let IpAddr::V4(router_id) = peer else { return };
        let mut capabilities = vec![
            Capability::Multiprotocol(Family::IPV4_UNICAST),
            Capability::RouteRefresh,
            Capability::EnhancedRouteRefresh,
        ];
        if flags & 1 == 0 || asn > u32::from(u16::MAX) {
            capabilities.push(Capability::FourOctetAs(asn));
        }
        if flags & 2 == 0 {
            capabilities.push(Capability::Multiprotocol(Family::IPV6_UNICAST));
        }
        if flags & 4 == 0 {
            capabilities.push(Capability::GracefulRestart(GracefulRestart {
                restart_time: u16::from(flags) * 8,
                families: FAMILIES.map(|family| (family, flags & 8 == 0)).to_vec(),
                ..GracefulRestart::default()
            }));
        }
        if flags & 16 != 0 {
            capabilities.push(Capability::ExtendedMessage);
        }
        let hold_time = [90, 3, 0, 65535][usize::from(flags >> 5 & 3)];
        let router_id = if flags & 0x80 != 0 {
            address(0)
        } else {
            router_id
        };
        let mut bytes = Vec::new();
        Open {
            asn,
            hold_time,
            router_id,
            capabilities,
        }
        .encode(&mut bytes);
        self.speaker.handle_data(conn, &bytes, self.now);
    }

    /// An UPDATE that is mostly well-formed: the session's context is guessed.
    fn send_update(&mut self, script: &mut Script<'_>) {
        let Some((conn, peer)) = self.choose(script) else {
            return;
        };
        let flags = script.u8();
        let asn = PEERS
            .iter()
            .find(|(_, last)| IpAddr::V4(address(*last)) == peer)
            .map_or(1, |(asn, _)| *asn);
        let context = Context {
            four_octet_as: flags & 1 == 0,
            ..Context::default()
        };
        let v6 = flags & 2 != 0;
        let family = FAMILIES[usize::from(v6)];
        let prefixes: Vec<_> = (0..1 + script.u8() % 32)
            .map(|_| (script.u8(), if v6 { 64 } else { 16 + script.u8() % 17 }))
            .map(|(n, len)| prefix(n, len))
            .collect();
        let mut bytes = Vec::new();
        if flags & 4 != 0 {
            let mut builder = UpdateBuilder::withdraw(&mut bytes, &context, family);
            assert!(prefixes.iter().all(|prefix| builder.push(*prefix).is_ok()));
            builder.finish();
        } else {
            let attributes = attributes(script, flags, asn);
            let mut section = Vec::new();
            attributes.encode(&context, &mut section);
            let next_hop = if v6 || flags & 0xc0 == 0xc0 {
                NextHop::V6(NEXT_HOP_V6)
            } else if flags & 0x40 != 0 {
                NextHop::V4(address(script.u8() % 8))
            } else {
                NextHop::from(peer)
            };
            let mut builder =
                UpdateBuilder::announce(&mut bytes, &context, &section, next_hop, family);
            // All of them, unless the attributes leave no room.
            let mut left = prefixes.iter();
            while left
                .next()
                .is_some_and(|prefix| builder.push(*prefix).is_ok())
            {}
            builder.finish();
        }
        self.speaker.handle_data(conn, &bytes, self.now);
    }

    fn closed(&mut self, script: &mut Script<'_>) {
        let Some((conn, _)) = self.choose(script) else {
            return;
        };
        self.forget(conn);
        self.speaker
            .handle_closed(conn, "closed by peer".into(), self.now);
    }

    fn forget(&mut self, conn: ConnId) {
        self.dials.retain(|(other, _)| *other != conn);
        if let Some(at) = self.open.iter().position(|(other, _)| *other == conn) {
            self.over.push(self.open.remove(at));
        }
    }

    /// Takes the events, which must come to an end.
    fn events(&mut self) {
        for _ in 0..MAX_OUTPUTS {
            match self.speaker.poll_event() {
                None => return,
                Some(Event::Connect { conn, remote, .. }) => {
                    let names = || {
                        self.dials
                            .iter()
                            .map(|(conn, _)| conn)
                            .chain(self.open.iter().map(|(conn, _)| conn))
                    };
                    assert!(names().all(|name| *name != conn), "a name used twice");
                    self.dials.push((conn, remote));
                }
                Some(Event::Close { conn, last }) => {
                    check_messages(&last);
                    self.forget(conn);
                }
                Some(
                    Event::SessionUp { .. }
                    | Event::SessionDown { .. }
                    | Event::AttemptFailed { .. }
                    | Event::SetKey { .. }
                    | Event::ManyPrefixes { .. }
                    | Event::Synced,
                ) => {}
            }
        }
        panic!("events without end");
    }

    /// Writes up to `max` chunks a connection, which must come to an end.
    fn transmit(&mut self, max: usize) {
        for _ in 0..MAX_OUTPUTS {
            let Some(conn) = self.speaker.poll_ready() else {
                return;
            };
            let mut chunks = 0;
            while chunks < max {
                let Some(bytes) = self.speaker.poll_transmit(conn) else {
                    break;
                };
                assert!(!bytes.is_empty());
                check_messages(&bytes);
                chunks += 1;
            }
            assert!(chunks < MAX_OUTPUTS, "messages without end");
        }
        panic!("connections without end");
    }

    fn poll_routes(&mut self, max: usize) -> usize {
        for (next_hop, used) in self.speaker.poll_next_hops() {
            if used {
                self.next_hops.insert(next_hop);
            } else {
                self.next_hops.remove(&next_hop);
            }
        }
        let changes = self.speaker.poll_routes(max);
        assert!(changes.len() <= max);
        for change in &changes {
            if change.next_hops.is_empty() && !change.blackhole {
                self.routes.remove(&change.prefix);
            } else {
                self.routes.insert(change.prefix);
            }
        }
        changes.len()
    }

    fn views(&self) {
        let mut learned: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for peer in self.speaker.peers(self.now) {
            let received = peer.families.iter().map(|family| family.received).sum();
            learned.insert(peer.address, received);
        }
        drop(self.speaker.routes(&Selection::All));
        for (peer, received) in learned {
            let from = self
                .speaker
                .routes_from(peer, &Selection::All)
                .map_or(0, |routes| routes.len());
            assert_eq!(from, received, "routes and counters of {peer}");
            drop(self.speaker.routes_to(peer, &Selection::All));
        }
    }

    /// All sessions end for good, and every timer has its time: nothing learned may be left.
    fn end(mut self) {
        self.transmit(MAX_OUTPUTS);
        self.views();
        self.poll_routes(MAX_OUTPUTS);
        self.speaker.shutdown("the end", self.now);
        self.events();
        self.pass(Duration::from_secs(24 * 3600));
        self.events();
        for _ in 0..MAX_OUTPUTS {
            if self.poll_routes(1000) == 0 {
                break;
            }
        }
        assert!(self.routes.is_empty(), "left behind: {:?}", self.routes);
        let next_hops = &self.next_hops;
        assert!(next_hops.is_empty(), "left behind: {next_hops:?}");
        // What is left is ours, and one of each is enough.
        let memory = self.speaker.memory();
        assert!(memory.paths <= 256, "{memory:?}");
        assert!(memory.attribute_sets <= 1, "{memory:?}");
        assert!(
            self.dials.is_empty() && self.open.is_empty(),
            "connections left behind"
        );
    }
}

/// Whole messages, none too long.
fn check_messages(mut bytes: &[u8]) {
    let context = Context {
        extended_message: true,
        ..Context::default()
    };
    while !bytes.is_empty() {
        match header::frame_len(bytes, &context) {
            Ok(Some(len)) if len <= bytes.len() => bytes = &bytes[len..],
            other => panic!("not whole messages: {other:?}"),
        }
    }
}

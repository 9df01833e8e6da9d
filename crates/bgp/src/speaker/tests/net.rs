//! Speakers, a network between them, and a clock that jumps to whatever happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_wire::Attributes;
use bytes::Bytes;
use ipnet::IpNet;

use crate::config::{PeerConfig, SpeakerConfig};
use crate::policy::Policy;
use crate::rib::RouteChange;
use crate::session::{ConnId, State};
use crate::speaker::{Event, Interface, Speaker};
use crate::view::PeerStatus;

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Address and router id of a node.
pub(super) fn address(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap()).into()
}

/// The other address of a node, of the other family.
pub(super) fn address6(node: usize) -> IpAddr {
    let host = u16::try_from(node + 1).unwrap();
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host).into()
}

pub(super) fn prefix(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub(super) fn peer(asn: u32) -> PeerConfig {
    PeerConfig {
        import: Policy::accept_all(),
        export: Policy::accept_all(),
        origin: "test".into(),
        ..PeerConfig::new(asn)
    }
}

/// Node `index` in AS `asn` with these peers.
pub(super) fn speaker(index: usize, asn: u32, peers: &[(usize, PeerConfig)]) -> SpeakerConfig {
    let IpAddr::V4(router_id) = address(index) else {
        unreachable!()
    };
    let mut config = SpeakerConfig::new(asn, router_id);
    config.peers = peers
        .iter()
        .map(|(node, peer)| (address(*node), peer.clone()))
        .collect();
    config.selection_deferral = secs(60);
    config
}

pub(super) fn originating(mut config: SpeakerConfig, prefixes: &[&str]) -> SpeakerConfig {
    config.originated = prefixes
        .iter()
        .map(|text| (prefix(text), Attributes::originated()))
        .collect();
    config
}

/// What happens at a certain time.
#[derive(Debug)]
enum Arrival {
    Syn {
        from: usize,
        conn: ConnId,
        remote: SocketAddr,
    },
    Accepted {
        conn: ConnId,
        local: SocketAddr,
        remote: SocketAddr,
    },
    Data {
        conn: ConnId,
        end: End,
        bytes: Bytes,
    },
    /// `end` is `None` where the connection never came to be.
    Closed {
        conn: ConnId,
        end: Option<End>,
        reason: &'static str,
    },
}

/// The other end of a connection: the node, and the node's name for it.
type End = (usize, ConnId);

pub(super) struct Node {
    speaker: Option<Speaker>,
    config: SpeakerConfig,
    interfaces: Vec<Interface>,
    ends: BTreeMap<ConnId, End>,
    /// Dials given up before they got anywhere.
    aborted: BTreeSet<ConnId>,
    pub(super) events: Vec<Event>,
    pub(super) routes: BTreeMap<IpNet, RouteChange>,
    /// How many prefixes were withdrawn from `routes`.
    pub(super) withdrawn: usize,
}

/// See the module.
pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Instant,
    arrivals: BTreeMap<(Instant, u64), (usize, Arrival)>,
    serial: u64,
    pub(super) latency: Duration,
    /// Data arrives in pieces of at most so many bytes.
    pub(super) piece: usize,
    /// Pairs between which every packet is lost.
    lost: BTreeSet<(usize, usize)>,
}

impl Net {
    pub(super) fn new(configs: impl IntoIterator<Item = SpeakerConfig>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "any instant does as the start of virtual time"
        )]
        let now = Instant::now();
        let mut net = Self::idle(configs, now);
        for node in 0..net.nodes.len() {
            net.boot(node, false);
        }
        net
    }

    fn idle(configs: impl IntoIterator<Item = SpeakerConfig>, now: Instant) -> Self {
        let nodes = configs
            .into_iter()
            .map(|config| Node {
                speaker: None,
                config,
                interfaces: Vec::new(),
                ends: BTreeMap::new(),
                aborted: BTreeSet::new(),
                events: Vec::new(),
                routes: BTreeMap::new(),
                withdrawn: 0,
            })
            .collect();
        Self {
            nodes,
            now,
            arrivals: BTreeMap::new(),
            serial: 0,
            latency: Duration::from_millis(1),
            piece: usize::MAX,
            lost: BTreeSet::new(),
        }
    }

    /// Starts a node's speaker.
    pub(super) fn boot(&mut self, node: usize, restarting: bool) {
        let seed = 42 + node as u64;
        let config = self.nodes[node].config.clone();
        self.nodes[node].routes.clear();
        let mut speaker = Speaker::new(config, restarting, seed, self.now);
        speaker.set_interfaces(self.nodes[node].interfaces.clone());
        self.nodes[node].speaker = Some(speaker);
    }

    /// Gives a node a link with these addresses.
    pub(super) fn attach(&mut self, node: usize, addresses: &[&str]) {
        let addresses = addresses.iter().map(|text| prefix(text)).collect();
        self.nodes[node].interfaces.push(Interface { addresses });
        let interfaces = self.nodes[node].interfaces.clone();
        self.speaker(node).set_interfaces(interfaces);
    }

    /// Ends a node's speaker as `kill -9` does: its sockets close.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        for (end, (other, conn)) in std::mem::take(&mut self.nodes[node].ends) {
            self.arrive(
                node,
                other,
                Arrival::Closed {
                    conn,
                    end: Some((node, end)),
                    reason: "reset by peer",
                },
            );
        }
        self.arrivals.retain(|_, (to, _)| *to != node);
    }

    /// Ends a node as a power cut does: nobody is told.
    pub(super) fn power_off(&mut self, node: usize) {
        self.nodes[node].speaker = None;
        self.nodes[node].ends.clear();
        self.arrivals.retain(|_, (to, _)| *to != node);
    }

    pub(super) fn configure(&mut self, node: usize, config: SpeakerConfig) {
        self.nodes[node].config = config.clone();
        let now = self.now;
        self.speaker(node).set_config(config, now);
    }

    /// Changes what a node will be when it boots.
    pub(super) fn set(&mut self, node: usize, config: SpeakerConfig) {
        self.nodes[node].config = config;
    }

    pub(super) fn config(&self, node: usize) -> SpeakerConfig {
        self.nodes[node].config.clone()
    }

    pub(super) fn speaker(&mut self, node: usize) -> &mut Speaker {
        self.nodes[node].speaker.as_mut().expect("the node runs")
    }

    /// Loses every packet between two nodes from now on, or no longer.
    pub(super) fn lose(&mut self, a: usize, b: usize, lost: bool) {
        for pair in [(a, b), (b, a)] {
            if lost {
                self.lost.insert(pair);
            } else {
                self.lost.remove(&pair);
            }
        }
    }

    /// Cuts all connections between two nodes, which both notice.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let ends = self.nodes[a]
            .ends
            .iter()
            .filter(|(_, (node, _))| *node == b);
        let ends: Vec<_> = ends.map(|(conn, end)| (*conn, *end)).collect();
        for (conn, (_, other)) in ends {
            self.arrive(
                b,
                a,
                Arrival::Closed {
                    conn,
                    end: Some((b, other)),
                    reason: "connection reset",
                },
            );
            self.arrive(
                a,
                b,
                Arrival::Closed {
                    conn: other,
                    end: Some((a, conn)),
                    reason: "connection reset",
                },
            );
        }
    }

    pub(super) fn status(&self, node: usize, of: usize) -> PeerStatus {
        self.find_status(node, of).expect("the peer is configured")
    }

    /// The same where the peer may not be there, by either of its addresses.
    pub(super) fn find_status(&self, node: usize, of: usize) -> Option<PeerStatus> {
        let speaker = self.nodes[node].speaker.as_ref().expect("the node runs");
        let peers = speaker.peers(self.now);
        peers
            .into_iter()
            .find(|peer| [address(of), address6(of)].contains(&peer.address))
    }

    pub(super) fn state(&self, node: usize, of: usize) -> State {
        self.status(node, of).state
    }

    pub(super) fn up(&self, a: usize, b: usize) -> bool {
        self.state(a, b) == State::Established && self.state(b, a) == State::Established
    }

    /// How often any of a node's sessions ended.
    pub(super) fn flaps(&self, node: usize) -> u32 {
        let speaker = self.nodes[node].speaker.as_ref().expect("the node runs");
        speaker.peers(self.now).iter().map(|peer| peer.flaps).sum()
    }

    /// Sends a message in the name of `from` on its connection with `to`.
    pub(super) fn inject(&mut self, from: usize, to: usize, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        let (conn, end) = self.nodes[from]
            .ends
            .iter()
            .find(|(_, end)| end.0 == to)
            .map(|(c, e)| (*c, *e))
            .unwrap();
        self.send((from, conn), end, &bytes.into());
    }

    /// Connections between two nodes.
    pub(super) fn connections(&self, a: usize, b: usize) -> usize {
        self.nodes[a]
            .ends
            .values()
            .filter(|(node, _)| *node == b)
            .count()
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until `done`, and says after how long.
    #[track_caller]
    pub(super) fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        let end = start + limit;
        while !done(self) {
            assert!(self.step(end), "not done after {limit:?}");
        }
        self.now - start
    }

    /// Lets the next thing happen that is due before `end`.
    fn step(&mut self, end: Instant) -> bool {
        self.drain();
        let timeout = (0..self.nodes.len())
            .filter_map(|node| Some((self.nodes[node].speaker.as_ref()?.poll_timeout()?.0, node)))
            .min();
        let arrival = self.arrivals.first_key_value().map(|((at, _), _)| *at);
        let next = timeout.map(|(at, _)| at).into_iter().chain(arrival).min();
        let Some(at) = next.filter(|at| *at <= end) else {
            return false;
        };
        self.now = self.now.max(at);
        if arrival.is_some_and(|arrival| arrival <= at)
            && let Some((_, (node, arrival))) = self.arrivals.pop_first()
        {
            if self.nodes[node].speaker.is_some() {
                self.happen(node, arrival);
            }
        } else if let Some((_, node)) = timeout {
            let now = self.now;
            self.speaker(node).handle_timeout(now);
        }
        self.drain();
        true
    }

    fn happen(&mut self, node: usize, arrival: Arrival) {
        let now = self.now;
        match arrival {
            Arrival::Syn { from, conn, remote } => {
                let to = node;
                if self.nodes[from].speaker.is_none() || self.nodes[from].aborted.remove(&conn) {
                    return;
                }
                let from_address = if remote.is_ipv6() { address6 } else { address };
                let (local, remote) = (remote, SocketAddr::new(from_address(from), 40_000));
                let accepted = self.nodes[to]
                    .speaker
                    .as_mut()
                    .map(|s| s.handle_incoming(local, remote, now));
                let Some(Some(accepted)) = accepted else {
                    return self.arrive(
                        to,
                        from,
                        Arrival::Closed {
                            conn,
                            end: None,
                            reason: "connection refused",
                        },
                    );
                };
                self.nodes[to].ends.insert(accepted, (from, conn));
                self.nodes[from].ends.insert(conn, (to, accepted));
                self.arrive(
                    to,
                    from,
                    Arrival::Accepted {
                        conn,
                        local: remote,
                        remote: local,
                    },
                );
            }
            Arrival::Accepted {
                conn,
                local,
                remote,
            } => {
                self.speaker(node)
                    .handle_connected(conn, local, remote, now);
            }
            Arrival::Data { conn, end, bytes } => {
                if self.nodes[node].ends.get(&conn) == Some(&end) {
                    self.speaker(node).handle_data(conn, &bytes, now);
                } else if self.nodes[node].speaker.is_some() {
                    let (other, theirs) = end;
                    let reset = Arrival::Closed {
                        conn: theirs,
                        end: Some((node, conn)),
                        reason: "connection reset",
                    };
                    self.arrive(node, other, reset);
                }
            }
            Arrival::Closed { conn, end, reason } => {
                if end.is_some() && self.nodes[node].ends.remove(&conn) != end {
                    return;
                }
                if let Some(speaker) = &mut self.nodes[node].speaker {
                    speaker.handle_closed(conn, reason.into(), now);
                }
            }
        }
    }

    /// Takes every output of every node.
    fn drain(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(mut speaker) = self.nodes[node].speaker.take() else {
                continue;
            };
            while let Some(event) = speaker.poll_event() {
                self.output(node, &event);
                self.nodes[node].events.push(event);
            }
            while let Some(conn) = speaker.poll_ready() {
                let Some(end) = self.nodes[node].ends.get(&conn).copied() else {
                    continue;
                };
                while let Some(bytes) = speaker.poll_transmit(conn) {
                    self.send((node, conn), end, &bytes);
                }
            }
            for change in speaker.poll_routes(usize::MAX) {
                if change.next_hops.is_empty() {
                    self.nodes[node].withdrawn +=
                        usize::from(self.nodes[node].routes.remove(&change.prefix).is_some());
                } else {
                    self.nodes[node].routes.insert(change.prefix, change);
                }
            }
            self.nodes[node].speaker = Some(speaker);
        }
    }

    fn output(&mut self, node: usize, event: &Event) {
        match event {
            Event::Connect { conn, remote, .. } => {
                let to = (0..self.nodes.len())
                    .find(|to| [address(*to), address6(*to)].contains(&remote.ip()));
                if let Some(to) = to {
                    self.arrive(
                        node,
                        to,
                        Arrival::Syn {
                            from: node,
                            conn: *conn,
                            remote: *remote,
                        },
                    );
                }
            }
            Event::Close { conn, last } => match self.nodes[node].ends.remove(conn) {
                Some(end) => {
                    self.send((node, *conn), end, last);
                    let closed = Arrival::Closed {
                        conn: end.1,
                        end: Some((node, *conn)),
                        reason: "closed by peer",
                    };
                    self.arrive(node, end.0, closed);
                }
                None => {
                    self.nodes[node].aborted.insert(*conn);
                }
            },
            Event::SessionUp { .. }
            | Event::SessionDown { .. }
            | Event::AttemptFailed { .. }
            | Event::SetKey { .. }
            | Event::ManyPrefixes { .. }
            | Event::Synced => {}
        }
    }

    fn send(&mut self, from: End, to: End, bytes: &Bytes) {
        for piece in bytes.chunks(self.piece) {
            let bytes = Bytes::copy_from_slice(piece);
            self.arrive(
                from.0,
                to.0,
                Arrival::Data {
                    conn: to.1,
                    end: from,
                    bytes,
                },
            );
        }
    }

    fn arrive(&mut self, from: usize, to: usize, arrival: Arrival) {
        if self.lost.contains(&(from, to)) {
            return;
        }
        self.serial += 1;
        self.arrivals
            .insert((self.now + self.latency, self.serial), (to, arrival));
    }
}

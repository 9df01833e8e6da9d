//! Random histories against the oracle: after everything is read, all agree.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bgp_wire::{Attributes, Community, Family, NextHop, Origin};
use ipnet::IpNet;
use proptest::prelude::*;

use super::oracle::{Oracle, OraclePeer};
use super::{ASN, Bed, ROUTER_ID, address, client, external, internal, net, via};
use crate::config::{Client, Decision, LocalAs, NextHopMode, PrivateAs, Rules};
use crate::policy::{
    Change, Match, NextHopChange, Policy, PrefixMatch, PrefixOperator, PrefixSet, SourceKind,
    Statement, Verdict,
};
use crate::rib::{DownKind, PeerIndex, PeerSession, Selection};

const PEERS: u32 = 7;
const PREFIXES: usize = 18;

const OTHER_CLUSTER: Ipv4Addr = Ipv4Addr::new(9, 9, 9, 9);

/// Our AS towards one of the peers.
const LOCAL_ASN: u32 = 64999;

/// The session of each peer: two groups of external ones, clients and an ordinary internal one.
fn session(peer: u32) -> PeerSession {
    let shared = Some(net("192.0.2.0/24"));
    match peer {
        0 => PeerSession {
            shared_subnet: shared,
            ..external(1, 65001)
        },
        1 => PeerSession {
            shared_subnet: shared,
            ..external(2, 65002)
        },
        2 => PeerSession {
            shared_subnet: shared,
            ..external(3, 65001)
        },
        3 => PeerSession {
            next_hop: NextHopMode::Keep,
            local_asn: LOCAL_ASN,
            ..external(4, 65004)
        },
        4 => client(5, ROUTER_ID),
        5 => client(6, ROUTER_ID),
        _ => internal(7),
    }
}

/// A subnet without a next-hop check on import: what is tested here is export.
fn prefix(index: usize) -> IpNet {
    if index < 14 {
        net(&format!("10.0.{index}.0/24"))
    } else {
        net(&format!("2001:db8:{index}::/48"))
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn policy(variant: u8) -> Policy {
    let statement = |name: &str, matches, changes, verdict| Statement {
        name: name.into(),
        matches,
        changes,
        verdict,
    };
    let low = Match::Inside(PrefixSet::new([net("10.0.0.0/21"), net("2001:db8:f::/48")]));
    let one = Match::Prefix(PrefixMatch {
        prefix: prefix(3),
        operator: PrefixOperator::Equal,
        length: None,
    });
    let tagged = Match::Community(Community(7).into());
    let accept = |statements| Policy::new(statements, Verdict::Accept, "default");
    match variant {
        0 => Policy::accept_all(),
        1 => Policy::reject_all("all"),
        2 => accept(vec![statement("low", vec![low], vec![], Verdict::Reject)]),
        3 => accept(vec![statement(
            "tagged",
            vec![tagged],
            vec![Change::LocalPref(200)],
            Verdict::Accept,
        )]),
        4 => accept(vec![
            statement(
                "low",
                vec![low],
                vec![
                    Change::Med(Some(5)),
                    Change::AddCommunity(Community(9).into()),
                ],
                Verdict::Next,
            ),
            statement("one", vec![one], vec![Change::Prepend(2)], Verdict::Next),
        ]),
        5 => accept(vec![statement(
            "tagged",
            vec![tagged],
            vec![],
            Verdict::Reject,
        )]),
        6 => accept(vec![
            statement(
                "from one peer",
                vec![Match::From(address(2))],
                vec![Change::NextHop(NextHopChange::Own), Change::RaiseMed(2)],
                Verdict::Next,
            ),
            statement(
                "from outside",
                vec![Match::Source(SourceKind::External)],
                vec![Change::NextHop(NextHopChange::Address(address(3)))],
                Verdict::Accept,
            ),
        ]),
        7 => accept(vec![statement(
            "towards or from inside",
            vec![Match::InternalSession(true), Match::Learned],
            vec![
                Change::SetCommunities(vec![Community(7).into(), Community::NO_EXPORT.into()]),
                Change::NextHop(NextHopChange::Peer),
                Change::Origin(Origin::Incomplete),
            ],
            Verdict::Next,
        )]),
        8 => accept(vec![
            statement(
                "path",
                vec![Match::AsPath(".* [65002 65009]".parse().unwrap())],
                vec![Change::PrependAsns(vec![65002, 1]), Change::LowerMed(1)],
                Verdict::Next,
            ),
            statement(
                "clean",
                vec![],
                vec![Change::RemoveCommunities("65535:*".parse().unwrap())],
                Verdict::Accept,
            ),
        ]),
        _ => accept(vec![statement(
            "list",
            vec![Match::PrefixList(vec![
                PrefixMatch {
                    prefix: net("10.0.0.0/20"),
                    operator: PrefixOperator::In,
                    length: Some((24, 24)),
                },
                PrefixMatch {
                    prefix: prefix(15),
                    operator: PrefixOperator::Equal,
                    length: None,
                },
            ])],
            vec![Change::AddCommunity(Community::GRACEFUL_SHUTDOWN.into())],
            Verdict::Accept,
        )]),
    }
}

#[derive(Debug, Clone)]
struct Route {
    path: u8,
    med: Option<u32>,
    local_pref: u8,
    origin: bool,
    community: u8,
    reflected: u8,
    foreign_next_hop: bool,
}

impl Route {
    fn attributes(&self, peer: u32, v4: bool) -> Attributes {
        let session = session(peer);
        let first = session.peer_asn;
        let path: Vec<u32> = match (self.path, session.ibgp) {
            (0, true) => vec![],
            (1, true) => vec![65001, 65009],
            (_, true) => vec![65002],
            (0 | 1, false) => vec![first],
            (2, false) => vec![first, 65009],
            (3, false) => vec![first, ASN],
            (4, false) => vec![first, LOCAL_ASN, 3000],
            (5, false) => vec![first, 65002, 65001, 3000],
            (_, false) => vec![65077, first],
        };
        let host = u8::try_from(peer).unwrap() + if self.foreign_next_hop { 100 } else { 1 };
        let v6 = Ipv4Addr::new(192, 0, 2, host).to_ipv6_mapped();
        let ibgp = session.ibgp;
        Attributes {
            next_hop: Some(if v4 {
                NextHop::from(address(host))
            } else {
                NextHop::V6(v6)
            }),
            med: self.med,
            local_pref: ibgp.then_some([90, 100, 110][usize::from(self.local_pref)]),
            origin: if self.origin {
                Origin::Igp
            } else {
                Origin::Egp
            },
            communities: match self.community {
                0 => vec![Community::NO_EXPORT],
                1 => vec![Community::NO_ADVERTISE],
                2 => vec![Community(7)],
                3 => vec![Community::GRACEFUL_SHUTDOWN],
                4 => vec![Community::BLACKHOLE],
                5 => vec![Community::NOPEER],
                6 => vec![Community::NO_EXPORT_SUBCONFED],
                _ => vec![],
            },
            originator_id: (ibgp && self.reflected > 0).then_some(match self.reflected {
                1 => ROUTER_ID,
                reflected => Ipv4Addr::new(10, 0, 0, reflected),
            }),
            cluster_list: match self.reflected {
                3 if ibgp => vec![ROUTER_ID],
                2 if ibgp => vec![OTHER_CLUSTER],
                _ => vec![],
            },
            ..via(1, &path)
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Up {
        peer: u32,
        retained: bool,
    },
    Down {
        peer: u32,
        keep: bool,
    },
    Announce {
        peer: u32,
        route: Route,
        prefixes: Vec<usize>,
    },
    Withdraw {
        peer: u32,
        prefixes: Vec<usize>,
    },
    /// News of the session before the present one.
    Ghost {
        peer: u32,
        route: Route,
        prefix: usize,
    },
    EndOfRib {
        peer: u32,
    },
    Expired {
        peer: u32,
    },
    Refresh {
        peer: u32,
    },
    Policies {
        peer: u32,
        import: u8,
        export: u8,
    },
    Originate {
        prefixes: Vec<usize>,
        med: Option<u32>,
    },
    Cost {
        host: u8,
        cost: Option<u32>,
    },
    Decision(Decision),
    Rules {
        peer: u32,
        next_hop: NextHopMode,
        rules: Rules,
    },
    Clusters(Vec<Ipv4Addr>),
    Send {
        peer: u32,
        steps: u8,
    },
    Kernel {
        max: usize,
    },
    /// The peer sends everything again, or has sent it.
    OwnRefresh {
        peer: u32,
        begin: bool,
    },
    /// Some of what concerns all routes is done.
    Work {
        looks: u32,
    },
}

fn route() -> impl Strategy<Value = Route> {
    (
        0..7_u8,
        prop::option::weighted(0.3, 0..3_u32),
        0..3_u8,
        prop::bool::weighted(0.8),
        0..24_u8,
        prop_oneof![8 => Just(0_u8), 2 => 1..5_u8],
        prop::bool::weighted(0.2),
    )
        .prop_map(
            |(path, med, local_pref, origin, community, reflected, foreign_next_hop)| Route {
                path,
                med,
                local_pref,
                origin,
                community,
                reflected,
                foreign_next_hop,
            },
        )
}

fn decision() -> impl Strategy<Value = Decision> {
    (1..4_u8, 1..4_u8, any::<[bool; 3]>()).prop_map(
        |(max_external_paths, max_internal_paths, [relax, always, worst])| Decision {
            max_external_paths,
            max_internal_paths,
            multipath_relax: relax,
            always_compare_med: always,
            missing_med_worst: worst,
        },
    )
}

fn next_hop_mode() -> impl Strategy<Value = NextHopMode> {
    prop::sample::select(vec![NextHopMode::Auto, NextHopMode::Own, NextHopMode::Keep])
}

fn rules() -> impl Strategy<Value = Rules> {
    let client = prop::option::of((any::<bool>(), any::<bool>())).prop_map(|client| {
        client.map(|(other, meshed)| Client {
            cluster_id: if other { OTHER_CLUSTER } else { ROUTER_ID },
            meshed,
        })
    });
    let local_as = vec![LocalAs::Prepend, LocalAs::NoPrepend, LocalAs::Replace];
    let private_as = vec![PrivateAs::Keep, PrivateAs::Remove, PrivateAs::Replace];
    (
        client,
        prop::sample::select(local_as),
        0..3_u8,
        prop::sample::select(private_as),
        any::<[bool; 5]>(),
    )
        .prop_map(|(client, local_as, allowed_own_as, private_as, flags)| {
            let [override_as, bilateral, graceful_shutdown, blackhole, drain] = flags;
            Rules {
                client,
                local_as,
                allowed_own_as,
                private_as,
                override_as,
                bilateral,
                graceful_shutdown,
                blackhole,
                drain,
            }
        })
}

fn op() -> impl Strategy<Value = Op> {
    let peer = || 0..PEERS;
    let prefixes = || prop::collection::vec(0..PREFIXES, 1..8);
    prop_oneof![
        4 => (peer(), any::<bool>()).prop_map(|(peer, retained)| Op::Up { peer, retained }),
        2 => (peer(), any::<bool>()).prop_map(|(peer, keep)| Op::Down { peer, keep }),
        16 => (peer(), route(), prefixes())
            .prop_map(|(peer, route, prefixes)| Op::Announce { peer, route, prefixes }),
        8 => (peer(), prefixes()).prop_map(|(peer, prefixes)| Op::Withdraw { peer, prefixes }),
        1 => (peer(), route(), 0..PREFIXES).prop_map(|(peer, route, prefix)| Op::Ghost { peer, route, prefix }),
        2 => peer().prop_map(|peer| Op::EndOfRib { peer }),
        1 => peer().prop_map(|peer| Op::Expired { peer }),
        2 => peer().prop_map(|peer| Op::Refresh { peer }),
        3 => (peer(), 0..10_u8, 0..10_u8)
            .prop_map(|(peer, import, export)| Op::Policies { peer, import, export }),
        2 => (prop::collection::vec(0..PREFIXES, 0..4), prop::option::of(0..2_u32))
            .prop_map(|(prefixes, med)| Op::Originate { prefixes, med }),
        2 => (prop_oneof![1..8_u8, 100..107_u8], prop::option::weighted(0.7, 0..3_u32))
            .prop_map(|(host, cost)| Op::Cost { host, cost }),
        1 => decision().prop_map(Op::Decision),
        3 => (peer(), next_hop_mode(), rules())
            .prop_map(|(peer, next_hop, rules)| Op::Rules { peer, next_hop, rules }),
        1 => prop::sample::subsequence(vec![ROUTER_ID, OTHER_CLUSTER], 1..3).prop_map(Op::Clusters),
        16 => (peer(), 1..5_u8).prop_map(|(peer, steps)| Op::Send { peer, steps }),
        5 => (1..9_usize).prop_map(|max| Op::Kernel { max }),
        2 => (peer(), any::<bool>()).prop_map(|(peer, begin)| Op::OwnRefresh { peer, begin }),
        12 => (1..8_u32).prop_map(|looks| Op::Work { looks }),
    ]
}

/// The engine and the oracle side by side.
#[derive(Debug)]
struct Pair {
    bed: Bed,
    oracle: Oracle,
}

impl Pair {
    fn new(version: u32) -> Self {
        let mut bed = Bed::new();
        for table in &mut bed.rib.tables {
            table.set_version(version);
        }
        Self {
            bed,
            oracle: Oracle {
                peers: BTreeMap::new(),
                originated: BTreeMap::new(),
                costs: BTreeMap::new(),
                decision: Decision::default(),
                clusters: vec![ROUTER_ID],
            },
        }
    }

    fn is_up(&self, peer: u32) -> bool {
        self.oracle.peers.get(&peer).is_some_and(|peer| peer.up)
    }

    fn down(&mut self, peer: u32, keep: bool) {
        if !self.is_up(peer) {
            return;
        }
        self.bed.down(
            peer,
            if keep {
                DownKind::KeepStale
            } else {
                DownKind::Drop
            },
        );
        let state = self.oracle.peers.get_mut(&peer).unwrap();
        state.up = false;
        // A refresh that is not over makes nothing worse.
        let refreshing = std::mem::take(&mut state.refreshing);
        state
            .routes
            .retain(|_, (_, stale)| keep && (refreshing || !*stale));
        for (_, stale) in state.routes.values_mut() {
            *stale = true;
        }
        if state.routes.is_empty() {
            self.oracle.peers.remove(&peer);
        }
    }

    fn up(&mut self, peer: u32, retained: bool) {
        self.down(peer, true);
        let mut session = session(peer);
        // The policies outlive the session, as the configuration's do.
        let old = self.oracle.peers.remove(&peer);
        if let Some(old) = &old {
            session.import = old.session.import.clone();
            session.export = old.session.export.clone();
            session.rules = old.session.rules;
            session.next_hop = old.session.next_hop;
        }
        session.retained = if retained {
            session.families.clone()
        } else {
            vec![]
        };
        let routes = old
            .filter(|_| retained)
            .map(|old| old.routes)
            .unwrap_or_default();
        self.bed.up(peer, session.clone());
        self.oracle.peers.insert(
            peer,
            OraclePeer {
                session,
                up: true,
                refreshing: false,
                routes,
            },
        );
    }

    #[expect(clippy::too_many_lines, reason = "a flat match")]
    fn apply(&mut self, op: &Op) {
        match op {
            Op::Up { peer, retained } => self.up(*peer, *retained),
            Op::Down { peer, keep } => self.down(*peer, *keep),
            Op::Announce {
                peer,
                route,
                prefixes,
            } if self.is_up(*peer) => {
                for &index in prefixes {
                    let prefix = prefix(index);
                    let attributes = route.attributes(*peer, prefix.addr().is_ipv4());
                    self.bed.announce_nets(*peer, &attributes, &[prefix]);
                    let state = self.oracle.peers.get_mut(peer).unwrap();
                    state.routes.insert(prefix, (attributes, false));
                }
            }
            Op::Withdraw { peer, prefixes } if self.is_up(*peer) => {
                for &index in prefixes {
                    self.bed.withdraw_net(*peer, prefix(index));
                    self.oracle
                        .peers
                        .get_mut(peer)
                        .unwrap()
                        .routes
                        .remove(&prefix(index));
                }
            }
            Op::Ghost {
                peer,
                route,
                prefix: index,
            } if self.is_up(*peer) => {
                let prefix = prefix(*index);
                *self.bed.generations.get_mut(peer).unwrap() -= 1;
                self.bed.announce_nets(
                    *peer,
                    &route.attributes(*peer, prefix.addr().is_ipv4()),
                    &[prefix],
                );
                self.bed.rib.peer_down(
                    PeerIndex(*peer),
                    self.bed.generation(*peer),
                    DownKind::Drop,
                );
                *self.bed.generations.get_mut(peer).unwrap() += 1;
            }
            Op::EndOfRib { peer } if self.is_up(*peer) => {
                let generation = self.bed.generation(*peer);
                for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                    self.bed
                        .rib
                        .end_of_rib(PeerIndex(*peer), generation, family);
                }
                self.oracle.end_of_rib(*peer);
            }
            Op::Expired { peer } => {
                self.bed
                    .rib
                    .stale_expired(PeerIndex(*peer), self.bed.generation(*peer));
                self.oracle.end_of_rib(*peer);
                self.oracle
                    .peers
                    .retain(|_, peer| peer.up || !peer.routes.is_empty());
            }
            Op::Refresh { peer } => {
                let generation = self.bed.generation(*peer);
                self.bed
                    .rib
                    .refresh(PeerIndex(*peer), generation, Family::IPV4_UNICAST);
                self.bed
                    .rib
                    .refresh(PeerIndex(*peer), generation, Family::IPV6_UNICAST);
            }
            Op::Policies {
                peer,
                import,
                export,
            } => {
                self.bed
                    .rib
                    .set_policies(PeerIndex(*peer), policy(*import), policy(*export));
                if let Some(state) = self.oracle.peers.get_mut(peer) {
                    state.session.import = policy(*import);
                    state.session.export = policy(*export);
                }
            }
            Op::Originate { prefixes, med } => {
                let attributes = Attributes {
                    med: *med,
                    ..Attributes::originated()
                };
                let originated: BTreeMap<IpNet, Attributes> = prefixes
                    .iter()
                    .map(|&index| (prefix(index), attributes.clone()))
                    .collect();
                self.bed.rib.set_originated(originated.clone());
                self.oracle.originated = originated;
            }
            Op::Cost { host, cost } => {
                self.bed.rib.set_next_hop(address(*host), *cost);
                self.oracle.costs.insert(address(*host), *cost);
            }
            Op::Decision(decision) => {
                self.bed.rib.set_decision(*decision);
                self.oracle.decision = *decision;
            }
            Op::Rules {
                peer,
                next_hop,
                rules,
            } => {
                self.bed.rib.set_rules(PeerIndex(*peer), *next_hop, *rules);
                if let Some(state) = self.oracle.peers.get_mut(peer) {
                    state.session.next_hop = *next_hop;
                    state.session.rules = *rules;
                }
            }
            Op::Clusters(clusters) => {
                self.bed.rib.set_clusters(clusters.clone());
                self.oracle.clusters.clone_from(clusters);
            }
            Op::Send { peer, steps } if self.is_up(*peer) => {
                for _ in 0..*steps {
                    self.bed.step(*peer);
                }
            }
            Op::Kernel { max } => {
                self.bed.poll_routes(*max);
            }
            Op::Work { looks } => {
                self.bed.rib.set_turn(*looks);
                self.bed.rib.work();
                self.check_views();
            }
            Op::OwnRefresh { peer, begin } if self.is_up(*peer) => {
                let (index, generation) = (PeerIndex(*peer), self.bed.generation(*peer));
                let state = self.oracle.peers.get_mut(peer).unwrap();
                let stale = state.routes.values().any(|(_, stale)| *stale);
                for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                    if *begin && (state.refreshing || !stale) {
                        self.bed.rib.begin_refresh(index, generation, family);
                    } else if !*begin {
                        self.bed.rib.end_refresh(index, generation, family);
                    }
                }
                if *begin && !stale && !state.refreshing {
                    state.refreshing = true;
                    state
                        .routes
                        .values_mut()
                        .for_each(|(_, stale)| *stale = true);
                } else if !*begin && std::mem::take(&mut state.refreshing) {
                    state.routes.retain(|_, (_, stale)| !*stale);
                }
            }
            // To a peer that is down.
            Op::Announce { .. }
            | Op::Withdraw { .. }
            | Op::Ghost { .. }
            | Op::EndOfRib { .. }
            | Op::OwnRefresh { .. }
            | Op::Send { .. } => {}
        }
    }

    /// Whatever has yet to be done: paths that don't count are not shown, and those that do are shown as they count.
    fn check_views(&self) {
        for (peer, state) in &self.oracle.peers {
            let index = PeerIndex(*peer);
            let shown = self.bed.rib.routes_from(index, &Selection::All);
            let shown: BTreeMap<IpNet, bool> = shown
                .iter()
                .map(|route| (route.prefix, route.paths[0].stale))
                .collect();
            let expected: BTreeMap<IpNet, bool> = state
                .routes
                .iter()
                .map(|(prefix, (_, stale))| (*prefix, *stale))
                .collect();
            assert_eq!(shown, expected, "what is shown from peer {peer}");
            let counted = [Family::IPV4_UNICAST, Family::IPV6_UNICAST]
                .map(|family| self.bed.rib.counts(index, family).received);
            assert_eq!(counted[0] + counted[1], expected.len());
        }
    }

    fn check(&mut self) {
        self.bed.settle();
        self.bed.drain_all();
        self.check_views();
        assert_eq!(self.bed.kernel, self.oracle.kernel(), "the kernel's routes");
        let up: Vec<u32> = self
            .oracle
            .peers
            .iter()
            .filter(|(_, peer)| peer.up)
            .map(|(index, _)| *index)
            .collect();
        assert_eq!(up, self.bed.listeners.keys().copied().collect::<Vec<_>>());
        for peer in up {
            let expected = self.oracle.told(peer);
            let listener = &self.bed.listeners[&peer];
            assert_eq!(listener.routes, expected, "what peer {peer} was told");
            assert_eq!(listener.ends.len(), 2, "one End-of-RIB a family");
            let shown: BTreeMap<IpNet, Attributes> = self
                .bed
                .rib
                .routes_to(PeerIndex(peer), &Selection::All)
                .into_iter()
                .inspect(|view| assert!(!view.pending))
                .filter_map(|view| Some((view.prefix, view.result.ok()?)))
                .collect();
            assert_eq!(shown, expected, "what is shown of peer {peer}");
            let state = &self.oracle.peers[&peer];
            let mut counted = (0, 0, 0);
            for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
                let counts = self.bed.rib.counts(PeerIndex(peer), family);
                counted.0 += counts.received;
                counted.1 += counts.accepted;
                counted.2 += counts.advertised;
            }
            let accepted = state
                .routes
                .keys()
                .filter(|prefix| self.oracle.accepted(state, **prefix).is_some())
                .count();
            assert_eq!(
                counted,
                (state.routes.len(), accepted, expected.len()),
                "counts of peer {peer}"
            );
        }
        assert_eq!(
            self.bed.rib.memory().nets,
            self.oracle.prefixes().len(),
            "all that is gone is forgotten"
        );
    }
}

proptest! {
    #[test]
    fn everyone_agrees_with_the_oracle(
        ops in prop::collection::vec(op(), 1..120),
        near_the_end in any::<bool>(),
        slow in any::<bool>(),
    ) {
        let mut pair = Pair::new(if near_the_end { u32::MAX - 30 } else { 0 });
        pair.bed.slow = slow;
        for (index, op) in ops.iter().enumerate() {
            pair.apply(op);
            if index % 40 == 39 {
                pair.check();
            }
        }
        pair.check();
        for peer in 0..PEERS {
            pair.down(peer, false);
            pair.bed.rib.stale_expired(PeerIndex(peer), pair.bed.generation(peer));
        }
        pair.oracle.peers.clear();
        pair.bed.rib.set_originated(BTreeMap::new());
        pair.oracle.originated.clear();
        pair.check();
        prop_assert_eq!(pair.bed.rib.attrs.total_refs(), 0);
    }
}

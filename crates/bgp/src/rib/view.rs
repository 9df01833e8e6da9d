//! What the operator sees of routes: plain values, made on request.

use std::net::IpAddr;

use bgp_wire::{Attributes, Family};
use ipnet::IpNet;

use super::decision::{Facts, Key, Why, equal, explain, select};
use super::export::{Exporter, Withheld};
use super::import::Rejected;
use super::path::Path;
use super::peer::PeerIndex;
use super::table::Table;
use super::{Rib, encode, slot, slot_of};
use crate::policy::{Candidate, Explanation, Outcome};

/// Which prefixes to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// This one.
    Exact(IpNet),
    /// This one and those inside it.
    Within(IpNet),
    /// Those that an address, or a whole prefix, lies in.
    Covering(IpNet),
}

/// A prefix and all paths to it, the best one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// The prefix.
    pub prefix: IpNet,
    /// Its paths; those that may not be used are among them.
    pub paths: Vec<PathView>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathView {
    /// The peer that it comes from; `None` for a route of our own.
    pub peer: Option<PeerIndex>,
    /// That peer's address.
    pub peer_address: Option<IpAddr>,
    /// Its attributes: as import policy left them, or as received if it is rejected.
    pub attributes: Attributes,
    /// What became of it.
    pub state: PathState,
    /// The statement of import policy, or its default, that accepted or rejected it; `None` for a route of our own and for
    /// one that was rejected before policy was asked.
    pub decided_by: Option<String>,
    /// The statements of import policy that changed its attributes.
    pub changed_by: Vec<String>,
    /// Traffic may be split between this one and the best one.
    pub multipath: bool,
    /// The peer is restarting and has not sent it again yet.
    pub stale: bool,
}

/// What became of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    /// It is the best one, at last by this step.
    Best(Why),
    /// It lost to the best one at this step.
    Lost(Why),
    /// Its next hop is not reachable.
    Unreachable,
    /// Nobody has said yet whether its next hop is reachable.
    Unresolved,
    /// It may not be used.
    Rejected(Rejected),
}

/// A prefix towards a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportView {
    /// The prefix.
    pub prefix: IpNet,
    /// What the peer is told, or why it is not.
    pub result: Result<Attributes, Withheld>,
    /// The statement of export policy, or its default, that decided; `None` where policy was not asked.
    pub decided_by: Option<String>,
    /// The statements of export policy that changed its attributes.
    pub changed_by: Vec<String>,
    /// The peer has not read as far yet: what it was told last may differ.
    pub pending: bool,
}

/// Prefixes of one family and one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// That the peer announces, those rejected included.
    pub received: usize,
    /// Those of them that may be used.
    pub accepted: usize,
    /// That we announce to it, once it has read everything.
    pub advertised: usize,
}

/// How much there is and what it takes, without the allocator's own overhead.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Prefixes.
    pub nets: usize,
    /// Paths.
    pub paths: usize,
    /// Attribute sets.
    pub attribute_sets: usize,
    /// Octets for all of it, with indices and what update groups keep.
    pub octets: usize,
}

impl Rib {
    /// The Loc-RIB and what competed for it, by prefix.
    #[must_use]
    pub fn routes(&self, selection: &Selection) -> Vec<RouteView> {
        self.selected(selection)
            .filter_map(|(table, net)| {
                let paths = self.paths(table, net);
                (!paths.is_empty()).then(|| RouteView {
                    prefix: table.prefix(net),
                    paths,
                })
            })
            .collect()
    }

    /// What a peer has announced, by prefix: its Adj-RIB-In, rejected paths with the reason.
    #[must_use]
    pub fn routes_from(&self, peer: PeerIndex, selection: &Selection) -> Vec<RouteView> {
        self.selected(selection)
            .filter(|(table, net)| table.chain(*net).any(|path| path.peer() == peer))
            .filter_map(|(table, net)| {
                let mut paths = self.paths(table, net);
                paths.retain(|path| path.peer == Some(peer));
                (!paths.is_empty()).then(|| RouteView {
                    prefix: table.prefix(net),
                    paths,
                })
            })
            .collect()
    }

    /// What a peer is told, by prefix: its Adj-RIB-Out, and for what is missing there the reason.
    #[must_use]
    pub fn routes_to(&self, peer: PeerIndex, selection: &Selection) -> Vec<ExportView> {
        self.selected(selection)
            .filter(|(table, net)| !self.chain(table, *net).0.is_empty())
            .map(|(table, net)| {
                let reader = table.reader(peer);
                let (result, explanation) = self.export(table, net, peer);
                let (decided_by, changed_by) = in_words(explanation);
                ExportView {
                    prefix: table.prefix(net),
                    result,
                    decided_by,
                    changed_by,
                    pending: reader.is_some_and(|reader| {
                        let seen = table.nets[reader.place.node()].version;
                        reader.chunk.is_some()
                            || seen < table.nets[net].version
                            || table.walk.is_under_way()
                            || self.deferred
                    }),
                }
            })
            .collect()
    }

    /// How many prefixes of a family a peer announces and is told. Where not everything is announced to it, that takes
    /// time in proportion to what is.
    #[must_use]
    pub fn counts(&self, peer: PeerIndex, family: Family) -> Counts {
        let Some((slot, state)) = slot(family).zip(self.peers.get(peer)) else {
            return Counts::default();
        };
        let paths = state.paths[slot];
        Counts {
            received: paths.all() as usize,
            accepted: (paths.all() - paths.rejected()) as usize,
            advertised: self.tables[slot].advertised(peer, paths.best),
        }
    }

    /// How many messages with routes a peer's present session was given.
    #[must_use]
    pub fn messages_sent(&self, peer: PeerIndex) -> u64 {
        self.peers.get(peer).map_or(0, |peer| peer.messages_sent)
    }

    /// How much there is and what it takes.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            nets: self.tables.iter().map(Table::len).sum(),
            paths: self
                .tables
                .iter()
                .map(|table| table.paths.len() as usize)
                .sum(),
            attribute_sets: self.attrs.len(),
            octets: self.attrs.bytes() + self.tables.iter().map(Table::bytes).sum::<usize>(),
        }
    }

    fn facts(&self, slot: usize) -> Facts<'_> {
        Facts {
            attrs: &self.attrs,
            peers: &self.peers,
            decision: self.decision,
            slot,
        }
    }

    /// The paths of a net that count, the best one first if there is one: under the rules as they are, whether or not the walk
    /// has come by since they changed.
    fn chain<'a>(&'a self, table: &'a Table, net: u32) -> (Vec<&'a Path>, Vec<Option<Key>>, bool) {
        let facts = self.facts(table.slot);
        let alive = |path: &&Path| !self.peers.is_dead(path, table.slot);
        let mut paths: Vec<&Path> = table.chain(net).filter(alive).collect();
        let mut keys: Vec<Option<Key>> = paths.iter().map(|path| facts.key(path)).collect();
        let best = select(&keys);
        if let Some(best) = best {
            paths[..=best].rotate_right(1);
            keys[..=best].rotate_right(1);
        }
        (paths, keys, best.is_some())
    }

    /// The nets of a selection, by prefix.
    fn selected(&self, selection: &Selection) -> impl Iterator<Item = (&Table, u32)> + '_ {
        let mut nets: Vec<(IpNet, &Table, u32)> = Vec::new();
        let mut find = |prefix: IpNet| {
            nets.extend(
                self.tables
                    .iter()
                    .filter_map(|table| Some((prefix, table, table.find(&prefix)?))),
            );
        };
        match *selection {
            Selection::Exact(prefix) => find(prefix.trunc()),
            Selection::Covering(prefix) => {
                for len in 0..=prefix.prefix_len() {
                    if let Ok(shorter) = IpNet::new(prefix.addr(), len) {
                        find(shorter.trunc());
                    }
                }
            }
            Selection::All | Selection::Within(_) => {
                let within = |prefix: &IpNet| match selection {
                    Selection::Within(outer) => outer.contains(prefix),
                    Selection::All | Selection::Exact(_) | Selection::Covering(_) => true,
                };
                for table in &self.tables {
                    nets.extend(
                        table
                            .all_nets()
                            .map(|net| (table.prefix(net), table, net))
                            .filter(|(prefix, ..)| within(prefix)),
                    );
                }
            }
        }
        nets.sort_unstable_by_key(|(prefix, ..)| *prefix);
        nets.into_iter().map(|(_, table, net)| (table, net))
    }

    fn paths(&self, table: &Table, net: u32) -> Vec<PathView> {
        let (paths, keys, chosen) = self.chain(table, net);
        let best = chosen.then_some(0);
        let reasons = best.map(|best| explain(&keys, best));
        let shares = best
            .and_then(|best| keys[best])
            .is_some_and(|key| key.max_paths(&self.decision) > 1);
        let equal: Vec<usize> = match best.filter(|_| shares) {
            Some(best) => equal(&keys, best).collect(),
            None => Vec::new(),
        };
        paths
            .into_iter()
            .enumerate()
            .map(|(index, path)| {
                let why = reasons.as_ref().and_then(|reasons| reasons[index]);
                PathView {
                    multipath: equal.contains(&index),
                    ..self.path(
                        table.prefix(net),
                        path,
                        match why {
                            Some(why) if best == Some(index) => PathState::Best(why),
                            Some(why) => PathState::Lost(why),
                            None => self.unreachable(path),
                        },
                    )
                }
            })
            .collect()
    }

    fn unreachable(&self, path: &Path) -> PathState {
        match path.accepted() {
            Some(id) if self.attrs.is_unanswered(id) => PathState::Unresolved,
            _ => PathState::Unreachable,
        }
    }

    fn path(&self, prefix: IpNet, path: &Path, state: PathState) -> PathView {
        let peer = self.peers.get(path.peer());
        let refused = matches!(
            path.rejected().zip(peer).map(|(reason, peer)| reason.explain(&peer.session.import)),
            Some(reason) if !matches!(reason, Rejected::Policy(_))
        );
        let explanation = peer.filter(|_| !refused).map(|peer| {
            let session = &peer.session;
            session.import.explain(&Candidate {
                prefix,
                attributes: &self.attrs.decode(path.received()),
                source: self.peers.source(path.peer()),
                from: Some(session.peer_address),
                internal: session.ibgp,
            })
        });
        let (decided_by, changed_by) = in_words(explanation);
        let state = match (path.rejected(), peer) {
            (Some(reason), Some(peer)) => PathState::Rejected(reason.explain(&peer.session.import)),
            _ => state,
        };
        PathView {
            peer: (path.peer() != PeerIndex::LOCAL).then_some(path.peer()),
            peer_address: peer.map(|peer| peer.session.peer_address),
            attributes: self
                .attrs
                .decode(path.accepted().unwrap_or_else(|| path.received())),
            state,
            decided_by,
            changed_by,
            multipath: false,
            stale: peer.is_some_and(|peer| peer.paths[slot_of(&prefix)].is_stale(path.label())),
        }
    }

    /// What a peer is told of a net: by the same rules that encode it.
    fn export(
        &self,
        table: &Table,
        net: u32,
        peer: PeerIndex,
    ) -> (Result<Attributes, Withheld>, Option<Explanation>) {
        let mut explanation = None;
        let result = self.export_explained(table, net, peer, &mut explanation);
        (result, explanation)
    }

    fn export_explained(
        &self,
        table: &Table,
        net: u32,
        peer: PeerIndex,
        explanation: &mut Option<Explanation>,
    ) -> Result<Attributes, Withheld> {
        let group = table
            .reader(peer)
            .and_then(|reader| self.groups.groups.get(reader.group));
        let Some((key, _)) = group else {
            return Err(Withheld::FamilyNotNegotiated);
        };
        let (paths, _, chosen) = self.chain(table, net);
        let best = paths.first().filter(|_| chosen);
        let id = best
            .and_then(|path| path.accepted())
            .ok_or(Withheld::NoUsablePath)?;
        let source = best.map_or(PeerIndex::LOCAL, |path| path.peer());
        if source == peer {
            return Err(Withheld::FromThisPeer);
        }
        let exporter = Exporter {
            key,
            peers: &self.peers,
            family: table.family,
            own_only: false,
        };
        let mut attributes = self.attrs.decode(id);
        exporter.gate(&attributes, source)?;
        let candidate = exporter.candidate(table.prefix(net), &attributes, source);
        *explanation = Some(key.policy.explain(&candidate));
        let applied = match exporter.policy(table.prefix(net), &attributes, source) {
            Outcome::Accept(applied) => applied,
            Outcome::Reject(statement) => {
                return Err(Withheld::Policy(key.policy.name_of(statement).to_owned()));
            }
        };
        exporter.rewrite(&mut attributes, &applied, source)?;
        let next_hop = attributes.next_hop.ok_or(Withheld::NoNextHop)?;
        let mut section = Vec::new();
        attributes.encode(&key.context, &mut section);
        if !encode::fits(&key.context, table.family, next_hop, &section) {
            return Err(Withheld::TooLong);
        }
        Ok(attributes)
    }
}

/// Who decided, and who changed the attributes.
fn in_words(explanation: Option<Explanation>) -> (Option<String>, Vec<String>) {
    explanation.map_or_else(Default::default, |it| (Some(it.decided_by), it.changed_by))
}

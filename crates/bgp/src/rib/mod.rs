//! Adj-RIB-In, Loc-RIB and Adj-RIB-Out of all peers: what was learned, what is best, and who is to be told.
//!
//! Each route is stored once. A net (a prefix of a family) has a chain of paths, one from each peer that announces it,
//! the best one first; a path is 16 octets and names its attribute set, of which there is one for the whole speaker.
//! Paths that import policy rejects stay, with the reason. What a peer has been told is stored nowhere: it follows from
//! the rules of its update group and from how far it has read the change list. See the modules for how each
//! part works.
//!
//! Inputs are the methods named after what happened; they may come in any order and none fails. What follows from one for any
//! number of routes is left to [`work`](Rib::work), a bounded piece at a time. Outputs are
//! [`poll_transmit`](Rib::poll_transmit), to be asked whenever a peer's socket can take more, and
//! [`poll_routes`](Rib::poll_routes) for the kernel's routes. Nothing queues up: what is asked for late is
//! the state as it is then.

mod attrs;
mod choose;
mod chunk;
mod decision;
mod encode;
mod export;
mod fib;
mod group;
mod import;
mod label;
mod list;
mod pages;
mod path;
mod peer;
mod refresh;
mod table;
#[cfg(test)]
mod tests;
mod view;
mod walk;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::{Asn, Attributes, Family, Update};
use bytes::Bytes;
use hashbrown::HashMap;
use ipnet::IpNet;

use crate::config::{Decision, NextHopMode, Rules};
use crate::policy::Policy;
use attrs::AttrStore;
use choose::World;
use decision::Facts;
use export::{Exporter, GroupKey};
use label::Paths;
use path::Offer;
use peer::{JUDGE, Peer, Peers, RETELL, SWEEP};
use table::Table;
use walk::What;

pub use decision::Why;
pub use export::Withheld;
pub use fib::RouteChange;
pub use import::Rejected;
pub use peer::{DownKind, Generation, PeerIndex, PeerSession};
pub use view::{Counts, ExportView, Memory, PathState, PathView, RouteView, Selection};

/// All routes of a speaker. See the [module](self).
#[derive(Debug)]
pub struct Rib {
    asn: Asn,
    router_id: Ipv4Addr,
    clusters: Vec<Ipv4Addr>,
    decision: Decision,
    deferred: bool,
    /// How much is done in a turn of the [walk].
    turn: u32,
    attrs: AttrStore,
    peers: Peers,
    tables: [Table; 2],
    groups: Groups,
    originated: BTreeMap<IpNet, Attributes>,
}

/// The update groups that there are, for both families.
#[derive(Debug, Default)]
struct Groups {
    by_key: HashMap<GroupKey, usize, foldhash::fast::FixedState>,
    groups: slab::Slab<(GroupKey, u32)>,
}

impl Rib {
    /// An empty RIB of a speaker of this AS and BGP identifier, which is its cluster id as a route reflector too unless
    /// [`set_clusters`](Self::set_clusters) says otherwise.
    #[must_use]
    pub fn new(asn: Asn, router_id: Ipv4Addr, decision: Decision) -> Self {
        Self::with_seed(asn, router_id, decision, 0)
    }

    /// The same; the seed keeps peers from choosing prefixes and attributes that collide in our hash tables.
    #[must_use]
    pub fn with_seed(asn: Asn, router_id: Ipv4Addr, decision: Decision, seed: u64) -> Self {
        Self {
            asn,
            router_id,
            clusters: vec![router_id],
            decision,
            deferred: false,
            turn: walk::TURN,
            attrs: AttrStore::new(seed),
            peers: Peers::default(),
            tables: [
                Table::new(Family::IPV4_UNICAST, seed),
                Table::new(Family::IPV6_UNICAST, seed),
            ],
            groups: Groups::default(),
            originated: BTreeMap::new(),
        }
    }

    /// Another AS or BGP identifier; applies to what is learned and announced from now on, so sessions have to start
    /// anew as well.
    pub fn set_identity(&mut self, asn: Asn, router_id: Ipv4Addr) {
        self.asn = asn;
        self.router_id = router_id;
    }

    /// How paths are compared from now on; all are, anew.
    pub fn set_decision(&mut self, decision: Decision) {
        if std::mem::replace(&mut self.decision, decision) == decision {
            return;
        }
        self.walk_all(What::Decide);
    }

    /// The clusters that we reflect for: a route that came through one of them before is a loop (RFC 4456 §8). What
    /// internal peers have sent is judged anew.
    pub fn set_clusters(&mut self, clusters: Vec<Ipv4Addr>) {
        if self.clusters == clusters {
            return;
        }
        self.clusters = clusters;
        for peer in self.peers.internal() {
            self.judge_again(peer);
        }
    }

    /// A session came up. Routes that an earlier session of the peer left stay stale where the peer retained them
    /// ([`PeerSession::retained`]), and go otherwise.
    pub fn peer_up(&mut self, peer: PeerIndex, generation: Generation, mut session: PeerSession) {
        session.restarted &= self.deferred;
        if self.peers.get(peer).is_some_and(|peer| peer.up) {
            // Its end got lost; without news of it nothing says that the routes may stay.
            self.end(peer, DownKind::Drop);
        }
        for (slot, family) in FAMILIES.into_iter().enumerate() {
            if !session.retained.contains(&family) || !session.families.contains(&family) {
                self.kill_stale(peer, slot);
            }
        }
        let group = self.groups.enter(GroupKey::new(&session, self.asn));
        let (paths, elsewhere, changed_kind) =
            self.peers.get(peer).map_or_else(Default::default, |old| {
                let other_kind = old.session.ibgp != session.ibgp
                    || old.session.rules.blackhole != session.rules.blackhole;
                (
                    old.paths,
                    old.group != group,
                    other_kind || old.changed_kind,
                )
            });
        let families = session.families.clone();
        let some = paths.iter().any(|paths| !paths.is_empty());
        let state = Peer {
            generation,
            session,
            up: true,
            refreshing: [false; 2],
            paths,
            changed_kind: changed_kind && some,
            group,
            messages_sent: 0,
        };
        self.peers.set(peer, Some(state));
        for table in &mut self.tables {
            if families.contains(&table.family) {
                table.join(peer, group, elsewhere);
            }
        }
    }

    /// A session is over.
    pub fn peer_down(&mut self, peer: PeerIndex, generation: Generation, kind: DownKind) {
        if self.live(peer, generation).is_some() {
            self.end(peer, kind);
        }
    }

    fn end(&mut self, peer: PeerIndex, kind: DownKind) {
        for table in &mut self.tables {
            table.leave(peer);
        }
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        state.up = false;
        // A session may end in the midst of a refresh: what has not come again yet is as good as the rest.
        let refreshing = std::mem::take(&mut state.refreshing);
        let group = state.group;
        self.groups.leave(group);
        for (slot, refreshing) in refreshing.into_iter().enumerate() {
            if !refreshing || kind == DownKind::Drop || self.is_out_of_labels(peer, slot) {
                // What is still stale from an earlier restart has had its time (RFC 4724 §4.2).
                self.kill_stale(peer, slot);
            }
            self.free_label(peer, slot);
            if let Some(state) = self.peers.get_mut(peer) {
                state.paths[slot].age();
            }
            if kind == DownKind::Drop {
                self.kill_stale(peer, slot);
            }
        }
        self.forget_if_empty(peer);
    }

    /// The peer's routes were kept stale for long enough (RFC 4724 §4.2): what it has not sent again goes.
    pub fn stale_expired(&mut self, peer: PeerIndex, generation: Generation) {
        if self
            .peers
            .get(peer)
            .is_some_and(|peer| peer.generation == generation)
        {
            for slot in 0..FAMILIES.len() {
                self.kill_stale(peer, slot);
            }
        }
    }

    /// The peer's stale routes of one family go: one for which it never promised to keep forwarding (RFC 4724 §4.2).
    pub fn forget_stale(&mut self, peer: PeerIndex, generation: Generation, family: Family) {
        if self
            .peers
            .get(peer)
            .is_some_and(|peer| peer.generation == generation)
            && let Some(slot) = slot(family)
        {
            self.kill_stale(peer, slot);
        }
    }

    /// The peer has sent all its routes of a family: what is stale among them goes.
    pub fn end_of_rib(&mut self, peer: PeerIndex, generation: Generation, family: Family) {
        if self.live(peer, generation).is_some()
            && let Some(slot) = slot(family)
        {
            self.kill_stale(peer, slot);
        }
    }

    /// What is stale of a peer's paths in a family does not count any more, and leaves the table as the walk comes by.
    fn kill_stale(&mut self, peer: PeerIndex, slot: usize) {
        let killed = |peer: &mut Peer| peer.paths[slot].kill_stale();
        if self.peers.get_mut(peer).is_some_and(killed) {
            self.walk_peer(peer, slot, SWEEP);
        }
        self.forget_if_empty(peer);
    }

    /// Has import policy asked again about all that a peer has sent.
    fn judge_again(&mut self, peer: PeerIndex) {
        for slot in 0..FAMILIES.len() {
            self.walk_peer(peer, slot, JUDGE);
        }
    }

    fn forget_if_empty(&mut self, peer: PeerIndex) {
        let empty = |state: &Peer| !state.up && state.paths.iter().all(Paths::is_empty);
        if self.peers.get(peer).is_some_and(empty) {
            self.peers.set(peer, None);
        }
    }

    /// A session's UPDATE. Faulty attributes are the codec's business: announcements without attributes withdraw
    /// (RFC 7606 §2).
    pub fn update(&mut self, peer: PeerIndex, generation: Generation, update: &Update<'_>) {
        if self.live(peer, generation).is_some() {
            import::update(self, peer, update);
        }
    }

    /// The routes that start here, all of them: a route of ours wins over any that is learned. A next hop of `None`
    /// becomes our address on each session.
    pub fn set_originated(&mut self, originated: BTreeMap<IpNet, Attributes>) {
        let originated: BTreeMap<_, _> = originated
            .into_iter()
            .map(|(prefix, attributes)| (prefix.trunc(), attributes))
            .collect();
        let old = std::mem::replace(&mut self.originated, originated.clone());
        for prefix in old.keys().filter(|prefix| !originated.contains_key(prefix)) {
            let (table, mut world) = self.table(slot_of(prefix));
            table.withdraw(&mut world, prefix, PeerIndex::LOCAL);
        }
        for (prefix, attributes) in originated
            .iter()
            .filter(|(prefix, attributes)| old.get(prefix) != Some(attributes))
        {
            let id = self.attrs.intern(attributes);
            let (table, mut world) = self.table(slot_of(prefix));
            let offer = Offer {
                received: id,
                verdict: Ok(id),
            };
            table.offer(&mut world, prefix, PeerIndex::LOCAL, offer);
            self.attrs.release(id);
        }
    }

    /// New policies for a peer. What it has sent is judged anew, and what it is told follows; the session goes on.
    pub fn set_policies(&mut self, peer: PeerIndex, import: Policy, export: Policy) {
        self.change_session(peer, |session| {
            session.import = import;
            session.export = export;
        });
    }

    /// New rules for a peer; as with policies, the session goes on.
    pub fn set_rules(&mut self, peer: PeerIndex, next_hop: NextHopMode, rules: Rules) {
        self.change_session(peer, |session| {
            session.next_hop = next_hop;
            session.rules = rules;
        });
    }

    /// Changes what may change while a session is up, and makes all that follows from it true.
    fn change_session(&mut self, peer: PeerIndex, change: impl FnOnce(&mut PeerSession)) {
        let Some(state) = self.peers.get_mut(peer) else {
            return;
        };
        let old_rules = state.session.rules;
        let old_import = state.session.import.clone();
        change(&mut state.session);
        let session = &state.session;
        let as_source = session.rules.client != old_rules.client
            || session.rules.blackhole != old_rules.blackhole;
        let import_changed = session.import != old_import || session.rules != old_rules;
        let (old_group, up) = (state.group, state.up);
        if up {
            let key = GroupKey::new(session, self.asn);
            let group = self.groups.enter(key);
            if let Some(state) = self.peers.get_mut(peer) {
                state.group = group;
            }
            for table in &mut self.tables {
                table.regroup(peer, group);
            }
            self.groups.leave(old_group);
        }
        if import_changed {
            self.judge_again(peer);
        }
        if as_source {
            // Whom its routes are reflected to, and what the kernel does with them, is written nowhere in the routes.
            for slot in 0..FAMILIES.len() {
                self.walk_peer(peer, slot, RETELL);
            }
        }
    }

    /// From now on somebody finds out about next hops: no path is used before [`set_next_hop`](Self::set_next_hop) has said
    /// that its next hop can be reached. To be called before any route is known.
    pub fn track_next_hops(&mut self) {
        self.attrs.track_next_hops();
    }

    /// The next hops that came into use (true) or went out of it since the last call, where they are tracked.
    pub fn poll_next_hops(&mut self) -> Vec<(IpAddr, bool)> {
        self.attrs.poll_next_hops()
    }

    /// Whether next hops are tracked and nobody has said anything of some yet.
    #[must_use]
    pub fn awaits_next_hops(&self) -> bool {
        self.attrs.awaits_next_hops()
    }

    /// What the IGP says of an address that is a next hop: its cost, or `None` for not reachable. Of addresses that
    /// nobody spoke of it is assumed that they are reachable and cost nothing, unless next hops are
    /// [tracked](Self::track_next_hops).
    pub fn set_next_hop(&mut self, address: IpAddr, cost: Option<u32>) {
        self.set_next_hops([(address, cost)]);
    }

    /// The same of many addresses at once: takes one walk through all routes, however many they are.
    pub fn set_next_hops(&mut self, costs: impl IntoIterator<Item = (IpAddr, Option<u32>)>) {
        let mut changed = false;
        for (address, cost) in costs {
            changed |= self.attrs.set_cost(address, cost);
        }
        if changed {
            self.walk_all(What::Reconsider);
        }
    }

    /// Selection deferral (RFC 4724 §4.1): while set, peers are told our own routes, which need no selection, and nothing
    /// else, and the kernel is given nothing. Peers that [have restarted](PeerSession::restarted) as well, and hold nothing
    /// of ours that something worse could replace, are told all that is known: they may know others that wait for it. End-of-RIB is [held](Self::hold_end_of_rib) meanwhile.
    pub fn defer(&mut self, deferred: bool) {
        if std::mem::replace(&mut self.deferred, deferred) && !deferred {
            for peer in self.peers.restarted() {
                self.change_session(peer, |session| session.restarted = false);
            }
            for table in &mut self.tables {
                table.begin_anew();
            }
        }
        self.hold_end_of_rib(deferred);
    }

    /// While set, nobody is told End-of-RIB: what is known is not all yet (RFC 4724 §4.1).
    pub fn hold_end_of_rib(&mut self, hold: bool) {
        for table in &mut self.tables {
            if std::mem::replace(&mut table.holds_end_of_rib, hold) && !hold {
                table.postpone_end_of_rib();
            }
        }
    }

    /// The next octets for a peer: one or more whole messages. `None` when it has been told everything, or when more was looked
    /// at than one turn allows: then there is [`work`](Self::work), after which it is to be asked again.
    ///
    /// Readers of one update group share what is returned, so it is cheap to keep until it is written.
    pub fn poll_transmit(&mut self, peer: PeerIndex) -> Option<Bytes> {
        let group = self.peers.get(peer).filter(|peer| peer.up)?.group;
        let Self {
            attrs,
            peers,
            tables,
            groups,
            decision,
            deferred,
            ..
        } = self;
        let (key, _) = groups.groups.get(group)?;
        let own_only = *deferred && !key.early;
        let (bytes, messages) = tables.iter_mut().find_map(|table| {
            let exporter = Exporter {
                key,
                peers,
                family: table.family,
                own_only,
            };
            let facts = Facts {
                attrs,
                peers,
                decision: *decision,
                slot: table.slot,
            };
            table.poll(facts, &exporter, peer)
        })?;
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.messages_sent += u64::from(messages);
        }
        Some(bytes)
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) may have something for the peer.
    #[must_use]
    pub fn has_news(&self, peer: PeerIndex) -> bool {
        self.tables.iter().any(|table| table.is_behind(peer))
    }

    /// Nobody asks [`poll_routes`](Self::poll_routes) any more: nothing is kept for whoever would. Who asks again is told
    /// everything again.
    pub fn close_routes(&mut self) {
        for table in &mut self.tables {
            if let Some(place) = table.fib.take() {
                table.list.leave(&mut table.nets, place);
                table.collect();
            }
        }
    }

    /// Up to `max` changes of the routes that the kernel is to have. Repeats itself rather than leave one out.
    pub fn poll_routes(&mut self, max: usize) -> Vec<RouteChange> {
        if self.deferred {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for slot in 0..self.tables.len() {
            let (table, world) = self.table(slot);
            fib::poll(table, world.facts(), max, &mut changes);
        }
        changes
    }

    /// The peer, if this is the session of it that is up.
    fn live(&self, peer: PeerIndex, generation: Generation) -> Option<&Peer> {
        self.peers
            .get(peer)
            .filter(|peer| peer.up && peer.generation == generation)
    }

    fn table(&mut self, slot: usize) -> (&mut Table, World<'_>) {
        let Self {
            tables,
            attrs,
            peers,
            decision,
            ..
        } = self;
        (
            &mut tables[slot],
            World {
                attrs,
                peers,
                decision: *decision,
                slot,
            },
        )
    }
}

impl Groups {
    /// The group of this key, with one member more.
    fn enter(&mut self, key: GroupKey) -> usize {
        let Self { by_key, groups } = self;
        let group = *by_key
            .entry(key)
            .or_insert_with_key(|key| groups.insert((key.clone(), 0)));
        groups[group].1 += 1;
        group
    }

    /// One member less.
    fn leave(&mut self, group: usize) {
        let (_, members) = &mut self.groups[group];
        *members -= 1;
        if *members == 0 {
            let (key, _) = self.groups.remove(group);
            self.by_key.remove(&key);
        }
    }
}

/// The families that there are tables for, in the tables' order.
const FAMILIES: [Family; 2] = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];

/// Which table a family has.
fn slot(family: Family) -> Option<usize> {
    match family {
        Family::IPV4_UNICAST => Some(0),
        Family::IPV6_UNICAST => Some(1),
        _ => None,
    }
}

fn slot_of(prefix: &IpNet) -> usize {
    match prefix {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

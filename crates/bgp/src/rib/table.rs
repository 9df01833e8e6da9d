//! One family's nets and paths.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;

use bgp_wire::Family;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use smallvec::SmallVec;

use super::attrs::{AttrId, AttrStore};
use super::decision::{Facts, Key, select};
use super::group::{GroupOut, Reader};
use super::list::{BEST, CHANGED, ChangeList, FIB, MAX_PATHS, MED, MOVED, Net, Place};
use super::pages::{NONE, Pages, Record, Slab};
use super::peer::{PeerIndex, Peers};

/// One route to a net from one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Path {
    next: u32,
    /// As the peer sent it, so that import policy can be asked again.
    received: AttrId,
    /// As import policy made it; a [`Reason`] if it is rejected.
    verdict: u32,
    /// The peer's index in the lower 24 bits, flags above.
    who: u32,
}

impl Record for Path {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
    }
}

const REJECTED: u32 = 1 << 24;
const EPOCH: u32 = 1 << 25;

impl Path {
    pub(super) fn peer(&self) -> PeerIndex {
        PeerIndex(self.who & 0x00ff_ffff)
    }

    pub(super) fn received(&self) -> AttrId {
        self.received
    }

    /// The attributes it competes with, unless it is rejected.
    pub(super) fn accepted(&self) -> Option<AttrId> {
        (self.who & REJECTED == 0).then_some(AttrId(self.verdict))
    }

    pub(super) fn rejected(&self) -> Option<Reason> {
        (self.who & REJECTED != 0).then_some(Reason(self.verdict))
    }

    pub(super) fn epoch(&self) -> bool {
        self.who & EPOCH != 0
    }
}

/// Why import rejected a path, in four octets: see [`import`](super::import).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason(pub(super) u32);

/// What a peer offers for a net.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) received: AttrId,
    pub(super) verdict: Result<AttrId, Reason>,
}

/// The prefixes of nets by the same index: a column of its own, for they are of 5 or of 17 octets.
#[derive(Debug)]
enum Prefixes {
    V4(Pages<Ipv4Net>),
    V6(Pages<Ipv6Net>),
}

/// What the table needs from around it.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) attrs: &'a mut AttrStore,
    pub(super) peers: &'a mut Peers,
    pub(super) max_paths: u8,
}

impl World<'_> {
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            attrs: self.attrs,
            peers: self.peers,
        }
    }
}

/// One family.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: Family,
    /// 0 for IPv4, 1 for IPv6.
    pub(super) slot: usize,
    pub(super) nets: Slab<Net>,
    prefixes: Prefixes,
    index: HashTable<u32>,
    hasher: FixedState,
    pub(super) paths: Slab<Path>,
    pub(super) list: ChangeList,
    /// Nets without a path, kept until every reader knows: with their versions, in the list's order.
    tombstones: VecDeque<(u32, u32)>,
    /// The highest version of a tombstone that was freed.
    pub(super) last_freed: u32,
    /// How often a net that was in the list already changed.
    pub(super) moves: u64,
    /// How many nets have a best path.
    pub(super) bests: u32,
    /// Where the FIB's reader is, once there is one.
    pub(super) fib: Option<Place>,
    /// By group.
    pub(super) groups: Vec<Option<GroupOut>>,
    /// By peer: those that are up and have the family.
    pub(super) readers: Vec<Option<Reader>>,
}

impl Table {
    pub(super) fn new(family: Family, seed: u64) -> Self {
        let v4 = family == Family::IPV4_UNICAST;
        Self {
            family,
            slot: usize::from(!v4),
            nets: Slab::new(),
            prefixes: if v4 {
                Prefixes::V4(Pages::new())
            } else {
                Prefixes::V6(Pages::new())
            },
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            paths: Slab::new(),
            list: ChangeList::new(),
            tombstones: VecDeque::new(),
            last_freed: 0,
            moves: 0,
            bests: 0,
            fib: None,
            groups: Vec::new(),
            readers: Vec::new(),
        }
    }

    pub(super) fn prefix(&self, net: u32) -> IpNet {
        match &self.prefixes {
            Prefixes::V4(prefixes) => prefixes[net].into(),
            Prefixes::V6(prefixes) => prefixes[net].into(),
        }
    }

    /// Every net, in no order.
    pub(super) fn all_nets(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.nets.end()).filter(|&net| self.nets[net].is_net())
    }

    /// How many nets there are, those waiting to be forgotten included.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let prefixes = match &self.prefixes {
            Prefixes::V4(prefixes) => prefixes.bytes(),
            Prefixes::V6(prefixes) => prefixes.bytes(),
        };
        let groups: usize = self.groups.iter().flatten().map(GroupOut::bytes).sum();
        self.nets.bytes()
            + prefixes
            + self.index.allocation_size()
            + self.paths.bytes()
            + self.tombstones.capacity() * size_of::<(u32, u32)>()
            + groups
    }

    /// The net of this prefix.
    pub(super) fn find(&self, prefix: &IpNet) -> Option<u32> {
        match (&self.prefixes, prefix) {
            (Prefixes::V4(prefixes), IpNet::V4(prefix)) => self
                .index
                .find(hash_v4(&self.hasher, prefix), |&net| {
                    prefixes[net] == *prefix
                })
                .copied(),
            (Prefixes::V6(prefixes), IpNet::V6(prefix)) => self
                .index
                .find(hash_v6(&self.hasher, prefix), |&net| {
                    prefixes[net] == *prefix
                })
                .copied(),
            _ => None,
        }
    }

    fn find_or_insert(&mut self, prefix: &IpNet) -> Option<u32> {
        let Self {
            prefixes,
            index,
            hasher,
            nets,
            ..
        } = self;
        match (prefixes, prefix) {
            (Prefixes::V4(prefixes), IpNet::V4(prefix)) => {
                let slot = index.entry(
                    hash_v4(hasher, prefix),
                    |&net| prefixes[net] == *prefix,
                    |&net| hash_v4(hasher, &prefixes[net]),
                );
                Some(
                    *slot
                        .or_insert_with(|| insert(nets, prefixes, *prefix))
                        .get(),
                )
            }
            (Prefixes::V6(prefixes), IpNet::V6(prefix)) => {
                let slot = index.entry(
                    hash_v6(hasher, prefix),
                    |&net| prefixes[net] == *prefix,
                    |&net| hash_v6(hasher, &prefixes[net]),
                );
                Some(
                    *slot
                        .or_insert_with(|| insert(nets, prefixes, *prefix))
                        .get(),
                )
            }
            _ => None,
        }
    }

    fn forget(&mut self, net: u32) {
        for group in self.groups.iter_mut().flatten() {
            group.forget(net);
        }
        let hash = match &self.prefixes {
            Prefixes::V4(prefixes) => hash_v4(&self.hasher, &prefixes[net]),
            Prefixes::V6(prefixes) => hash_v6(&self.hasher, &prefixes[net]),
        };
        if let Ok(slot) = self.index.find_entry(hash, |&other| other == net) {
            slot.remove();
        }
        if self.nets[net].version != 0 {
            self.last_freed = self.last_freed.max(self.nets[net].version);
            self.list.unlink(&mut self.nets, net);
        }
        self.nets.remove(net);
        if self.index.is_empty() {
            self.index = HashTable::new();
            self.tombstones = VecDeque::new();
            if self.nets.len() == 0 {
                match &mut self.prefixes {
                    Prefixes::V4(prefixes) => prefixes.clear(),
                    Prefixes::V6(prefixes) => prefixes.clear(),
                }
            }
        }
    }

    /// The best path: its attributes and its peer.
    pub(super) fn best(&self, net: u32) -> Option<(AttrId, PeerIndex)> {
        let record = &self.nets[net];
        if !record.has(BEST) {
            return None;
        }
        let path = &self.paths[record.head()];
        Some((path.accepted()?, path.peer()))
    }

    /// The paths of a net, the best one first if there is one.
    pub(super) fn chain(&self, net: u32) -> impl Iterator<Item = &Path> + '_ {
        let mut at = self.nets[net].head();
        std::iter::from_fn(move || {
            let path = (at != NONE).then(|| &self.paths[at])?;
            at = path.next;
            Some(path)
        })
    }

    /// The path from a peer and the one before it in the chain.
    fn locate(&self, net: u32, peer: PeerIndex) -> (u32, u32) {
        let (mut before, mut at) = (NONE, self.nets[net].head());
        while at != NONE && self.paths[at].peer() != peer {
            before = at;
            at = self.paths[at].next;
        }
        (before, at)
    }

    /// A peer announces a prefix, or import policy was asked again. The offer's attribute sets are counted here.
    pub(super) fn offer(
        &mut self,
        world: &mut World<'_>,
        prefix: &IpNet,
        peer: PeerIndex,
        offer: Offer,
    ) {
        if self.paths.len() >= MAX_PATHS {
            return self.withdraw(world, prefix, peer);
        }
        if let Some(net) = self.find_or_insert(prefix) {
            let epoch = world.peers.get(peer).is_some_and(|peer| peer.epoch);
            self.offer_net(world, net, peer, offer, epoch);
        }
    }

    /// A path gets another verdict; it is not announced anew, so what is stale stays so.
    pub(super) fn judged(
        &mut self,
        world: &mut World<'_>,
        net: u32,
        peer: PeerIndex,
        offer: Offer,
    ) {
        let (_, at) = self.locate(net, peer);
        if at != NONE {
            let epoch = self.paths[at].epoch();
            self.offer_net(world, net, peer, offer, epoch);
        }
    }

    fn offer_net(
        &mut self,
        world: &mut World<'_>,
        net: u32,
        peer: PeerIndex,
        offer: Offer,
        epoch: bool,
    ) {
        let (_, at) = self.locate(net, peer);
        let who = peer.0 | if epoch { EPOCH } else { 0 };
        let (verdict, who) = match offer.verdict {
            Ok(id) => (id.0, who),
            Err(reason) => (reason.0, who | REJECTED),
        };
        let mut path = Path {
            next: NONE,
            received: offer.received,
            verdict,
            who,
        };
        if at == NONE {
            retain(world, &path);
            count(world, self.slot, &path, 1);
            let before = self.best(net);
            let at = self.insert_path(net, path);
            return self.decide(world, net, before, Some(at), false);
        }
        let old = self.paths[at];
        path.next = old.next;
        if path.who & !EPOCH == old.who & !EPOCH
            && path.received == old.received
            && path.verdict == old.verdict
        {
            // The same again: no longer stale, if it was.
            self.paths[at].who = path.who;
            return;
        }
        let before = self.best(net);
        let shared = world.max_paths > 1 && self.shares(world, net, at);
        retain(world, &path);
        count(world, self.slot, &path, 1);
        self.paths[at] = path;
        release(world, &old);
        count(world, self.slot, &old, -1);
        self.decide(world, net, before, Some(at), shared);
    }

    /// A peer withdraws a prefix.
    pub(super) fn withdraw(&mut self, world: &mut World<'_>, prefix: &IpNet, peer: PeerIndex) {
        if let Some(net) = self.find(prefix) {
            self.withdraw_net(world, net, peer);
        }
    }

    pub(super) fn withdraw_net(&mut self, world: &mut World<'_>, net: u32, peer: PeerIndex) {
        let (previous, at) = self.locate(net, peer);
        if at == NONE {
            return;
        }
        let before = self.best(net);
        let shared = world.max_paths > 1 && self.shares(world, net, at);
        let old = self.paths[at];
        if previous == NONE {
            self.nets[net].set_head(old.next);
            self.nets[net].set(BEST, false);
        } else {
            self.paths[previous].next = old.next;
        }
        self.paths.remove(at);
        release(world, &old);
        count(world, self.slot, &old, -1);
        self.decide(world, net, before, None, shared);
    }

    /// Puts a path into the chain, behind the best one.
    fn insert_path(&mut self, net: u32, mut path: Path) -> u32 {
        let head = self.nets[net].head();
        if head == NONE {
            let at = self.paths.insert(path);
            self.nets[net].set_head(at);
            return at;
        }
        path.next = self.paths[head].next;
        let at = self.paths.insert(path);
        self.paths[head].next = at;
        at
    }

    /// Whether traffic may be split between this path and the best one.
    fn shares(&self, world: &World<'_>, net: u32, at: u32) -> bool {
        if !self.nets[net].has(BEST) {
            return false;
        }
        let facts = world.facts();
        let best = facts.key(&self.paths[self.nets[net].head()]);
        let key = facts.key(&self.paths[at]);
        key.zip(best)
            .is_some_and(|(key, best)| key.may_share_with(&best))
    }

    /// Decides anew after one path changed (`at`) or went (`None`). `before` is the best path until then, `shared`
    /// whether the path was one of those that traffic was split between.
    fn decide(
        &mut self,
        world: &mut World<'_>,
        net: u32,
        before: Option<(AttrId, PeerIndex)>,
        at: Option<u32>,
        shared: bool,
    ) {
        let facts = world.facts();
        if at
            .and_then(|at| self.paths[at].accepted())
            .is_some_and(|id| facts.attrs.summary(id).med != 0)
        {
            self.nets[net].set(MED, true);
        }
        // With MEDs about, any path may decide which others count as equal.
        let shared = shared || self.nets[net].has(MED);
        let head = self.nets[net].head();
        if !self.nets[net].has(BEST) || self.nets[net].has(MED) || at == Some(head) {
            self.reselect(facts, net);
        } else if let Some(at) = at {
            let better = match (facts.key(&self.paths[at]), facts.key(&self.paths[head])) {
                (Some(key), Some(best)) => key.beats_without_med(&best),
                (key, _) => key.is_some(),
            };
            if better {
                self.move_to_front(net, at);
            }
        }
        let after = self.best(net);
        if before != after {
            self.best_changed(world.peers, net, before, after);
        } else if world.max_paths > 1
            && (shared || at.is_some_and(|at| self.shares(world, net, at)))
        {
            self.changed(net, false, false);
        }
        if self.nets[net].head() == NONE {
            self.bury(net);
        }
    }

    /// The whole decision process over the chain.
    fn reselect(&mut self, facts: Facts<'_>, net: u32) {
        let mut places: SmallVec<[u32; 8]> = SmallVec::new();
        let mut keys: SmallVec<[Option<Key>; 8]> = SmallVec::new();
        let mut at = self.nets[net].head();
        let mut med = false;
        while at != NONE {
            let path = &self.paths[at];
            med |= path
                .accepted()
                .is_some_and(|id| facts.attrs.summary(id).med != 0);
            places.push(at);
            keys.push(facts.key(path));
            at = path.next;
        }
        self.nets[net].set(MED, med);
        match select(&keys) {
            Some(best) => self.move_to_front(net, places[best]),
            None => self.nets[net].set(BEST, false),
        }
    }

    fn move_to_front(&mut self, net: u32, at: u32) {
        let head = self.nets[net].head();
        if head != at {
            let mut before = head;
            while self.paths[before].next != at {
                before = self.paths[before].next;
            }
            self.paths[before].next = self.paths[at].next;
            self.paths[at].next = head;
            self.nets[net].set_head(at);
        }
        self.nets[net].set(BEST, true);
    }

    /// Decides anew for every net that has a path via a next hop whose cost changed.
    pub(super) fn reconsider(&mut self, world: &mut World<'_>, address: IpAddr) {
        for net in 0..self.nets.end() {
            if !self.nets[net].is_net() {
                continue;
            }
            let via = |path: &Path| {
                let next_hop = path.accepted().and_then(|id| world.attrs.next_hop(id));
                next_hop.is_some_and(|next_hop| next_hop.address() == address)
            };
            if self.chain(net).any(via) {
                let before = self.best(net);
                self.reselect(world.facts(), net);
                let after = self.best(net);
                if before != after {
                    self.best_changed(world.peers, net, before, after);
                } else if world.max_paths > 1 && after.is_some() {
                    self.changed(net, false, false);
                }
            }
        }
    }

    fn best_changed(
        &mut self,
        peers: &mut Peers,
        net: u32,
        before: Option<(AttrId, PeerIndex)>,
        after: Option<(AttrId, PeerIndex)>,
    ) {
        let (old, new) = (before.map(|best| best.1), after.map(|best| best.1));
        if old != new {
            for (source, by) in [(old, -1), (new, 1)] {
                let Some(source) = source else { continue };
                self.bests = self.bests.saturating_add_signed(by);
                if let Some(peer) = peers.get_mut(source) {
                    let best = &mut peer.paths[self.slot].best;
                    *best = best.saturating_add_signed(by);
                }
            }
        }
        self.changed(net, true, old != new);
    }

    /// Moves a net to the end of the change list.
    pub(super) fn changed(&mut self, net: u32, best: bool, source: bool) {
        if self.list.is_full() {
            self.renumber();
        }
        let old = self.nets[net].version;
        // A reader that had not come by yet will find the net only in its new place.
        let missed = !(best && source) && (old == 0 || !self.list.all_passed(&self.nets, old));
        let record = &mut self.nets[net];
        record.set(CHANGED, best || missed);
        record.set(MOVED, source || missed);
        self.list.touch(&mut self.nets, net, old == 0);
        if old != 0 {
            self.moves += 1;
        }
    }

    /// A net lost its last path: it goes at once if nobody was told of it, else when every reader knows.
    fn bury(&mut self, net: u32) {
        let told = self.nets[net].has(FIB)
            || self
                .groups
                .iter()
                .flatten()
                .any(|group| group.may_have(net));
        if self.nets[net].version == 0 || !told {
            self.forget(net);
        } else {
            self.tombstones.push_back((net, self.nets[net].version));
        }
    }

    /// Frees nets without paths that every reader has walked past.
    pub(super) fn collect(&mut self) {
        if self.tombstones.is_empty() {
            return;
        }
        let seen = self.list.seen_by_all(&self.nets);
        while let Some(&(net, version)) = self.tombstones.front() {
            let record = &self.nets[net];
            let dead = record.is_net() && record.version == version && record.head() == NONE;
            if dead && seen.is_some_and(|seen| seen < version) {
                break;
            }
            self.tombstones.pop_front();
            if dead {
                self.forget(net);
            }
        }
    }

    /// Numbers all versions anew: see [`ChangeList::renumber`].
    fn renumber(&mut self) {
        self.drop_caches();
        let map = self.list.renumber(&mut self.nets);
        for (_, version) in &mut self.tombstones {
            *version = map(*version);
        }
        for reader in self.readers.iter_mut().flatten() {
            reader.renumber(&map);
        }
        self.last_freed = 0;
        for group in self.groups.iter_mut().flatten() {
            group.untold = 0;
        }
    }

    /// Starts the numbers near their end: for tests.
    #[cfg(test)]
    pub(super) fn set_version(&mut self, version: u32) {
        self.list.set_version(version);
    }
}

fn insert<P: Copy + Default + std::fmt::Debug>(
    nets: &mut Slab<Net>,
    prefixes: &mut Pages<P>,
    prefix: P,
) -> u32 {
    let net = nets.insert(Net::new());
    prefixes.reserve(net);
    prefixes[net] = prefix;
    net
}

fn hash_v4(hasher: &FixedState, prefix: &Ipv4Net) -> u64 {
    hasher.hash_one((u64::from(u32::from(prefix.addr())) << 8) | u64::from(prefix.prefix_len()))
}

fn hash_v6(hasher: &FixedState, prefix: &Ipv6Net) -> u64 {
    hasher.hash_one((u128::from(prefix.addr()), prefix.prefix_len()))
}

fn retain(world: &mut World<'_>, path: &Path) {
    world.attrs.retain(path.received);
    if let Some(id) = path.accepted() {
        world.attrs.retain(id);
    }
}

fn release(world: &mut World<'_>, path: &Path) {
    world.attrs.release(path.received);
    if let Some(id) = path.accepted() {
        world.attrs.release(id);
    }
}

fn count(world: &mut World<'_>, slot: usize, path: &Path, by: i32) {
    if let Some(peer) = world.peers.get_mut(path.peer()) {
        let paths = &mut peer.paths[slot];
        paths.all = paths.all.saturating_add_signed(by);
        if path.rejected().is_some() {
            paths.rejected = paths.rejected.saturating_add_signed(by);
        }
    }
}

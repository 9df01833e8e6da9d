//! One family's nets and paths.

use std::collections::VecDeque;
use std::hash::BuildHasher;

use bgp_wire::Family;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::attrs::AttrId;
use super::group::{GroupOut, Reader};
use super::list::{BEST, CHANGED, ChangeList, FIB, MOVED, Net, Nodes, Place};
use super::pages::{NONE, Pages, Slab};
use super::path::Path;
use super::peer::PeerIndex;
use super::walk::Walk;

/// How many nets are freed at once.
const COLLECT: usize = if cfg!(test) { 1 << 8 } else { 1 << 14 };

/// The prefixes of nets by the same index: a column of its own, for they are of 5 or of 17 octets.
#[derive(Debug)]
enum Prefixes {
    V4(Pages<Ipv4Net>),
    V6(Pages<Ipv6Net>),
}

/// One family.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: Family,
    /// 0 for IPv4, 1 for IPv6.
    pub(super) slot: usize,
    pub(super) nets: Nodes,
    prefixes: Prefixes,
    index: HashTable<u32>,
    hasher: FixedState,
    pub(super) paths: Slab<Path>,
    pub(super) list: ChangeList,
    /// Nets without a path, kept until every reader knows: with their versions, in the list's order.
    tombstones: VecDeque<(u32, u32)>,
    /// There may be more of them to be freed.
    pub(super) uncollected: bool,
    /// Nobody is told End-of-RIB yet.
    pub(super) holds_end_of_rib: bool,
    /// A reader had more to look at than one turn allows.
    pub(super) cut_short: bool,
    /// What has all nets looked at.
    pub(super) walk: Walk,
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
            nets: Nodes::new(),
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
            uncollected: false,
            holds_end_of_rib: false,
            cut_short: false,
            walk: Walk::default(),
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

    pub(super) fn find_or_insert(&mut self, prefix: &IpNet) -> Option<u32> {
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

    /// Forgets nets without paths. One kind of work after the other: what each waits for memory then overlaps.
    fn forget(&mut self, nets: &[u32]) {
        let Self {
            prefixes,
            index,
            hasher,
            ..
        } = self;
        for &net in nets {
            let hash = match prefixes {
                Prefixes::V4(prefixes) => hash_v4(hasher, &prefixes[net]),
                Prefixes::V6(prefixes) => hash_v6(hasher, &prefixes[net]),
            };
            if let Ok(slot) = index.find_entry(hash, |&other| other == net) {
                slot.remove();
            }
        }
        for group in self.groups.iter_mut().flatten() {
            for &net in nets {
                group.forget(net);
            }
        }
        for &net in nets {
            // Twice in the list: it died, came back with nothing to use, and died again before anybody looked.
            if self.nets.len() == 0 || !self.nets[net].is_net() {
                continue;
            }
            if self.nets[net].version != 0 {
                self.last_freed = self.last_freed.max(self.nets[net].version);
                self.list.unlink(&mut self.nets, net);
            }
            self.nets.remove(net);
        }
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
    pub(super) fn locate(&self, net: u32, peer: PeerIndex) -> (u32, u32) {
        let (mut before, mut at) = (NONE, self.nets[net].head());
        while at != NONE && self.paths[at].peer() != peer {
            before = at;
            at = self.paths[at].next;
        }
        (before, at)
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
    pub(super) fn bury(&mut self, net: u32) {
        let told = self.nets[net].has(FIB)
            || self
                .groups
                .iter()
                .flatten()
                .any(|group| group.may_have(net));
        if self.nets[net].version == 0 || !told {
            self.forget(&[net]);
        } else {
            self.tombstones.push_back((net, self.nets[net].version));
        }
    }

    /// Frees nets without paths that every reader has walked past: some of them, and the [walk](super::walk) frees the rest.
    pub(super) fn collect(&mut self) {
        self.uncollected = false;
        if self.tombstones.is_empty() {
            return;
        }
        let seen = self.list.seen_by_all(&self.nets);
        let mut forgotten = Vec::new();
        for _ in 0..COLLECT {
            let Some(&(net, version)) = self.tombstones.front() else {
                break;
            };
            let record = &self.nets[net];
            let dead = record.is_net() && record.version == version && record.head() == NONE;
            if dead && seen.is_some_and(|seen| seen < version) {
                return self.forget(&forgotten);
            }
            self.tombstones.pop_front();
            if dead {
                forgotten.push(net);
            }
        }
        self.uncollected = !self.tombstones.is_empty();
        self.forget(&forgotten);
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
    nets: &mut Nodes,
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

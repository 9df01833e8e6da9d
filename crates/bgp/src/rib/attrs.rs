//! Attribute sets: each kept once for the whole speaker, named by four octets and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

use bgp_wire::{Attributes, Community, NextHop, Origin};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::policy::DEFAULT_LOCAL_PREF;

/// Names an attribute set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct AttrId(pub(super) u32);

/// What decisions ask of an attribute set, without decoding it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summary {
    pub(super) local_pref: u32,
    /// 0 when absent.
    med: u32,
    /// The neighbouring AS: first of the path; 0 for a path that is empty or starts with a set.
    pub(super) neighbour_as: u32,
    /// ORIGINATOR_ID, 0 when absent.
    pub(super) originator_id: u32,
    next_hop: u32,
    pub(super) path_len: u16,
    pub(super) cluster_len: u16,
    pub(super) origin: Origin,
    has_med: bool,
    /// It has the community BLACKHOLE.
    pub(super) blackhole: bool,
}

impl Summary {
    /// MULTI_EXIT_DISC; where there is none the highest if that is to be the worst, else 0.
    pub(super) fn med(&self, missing_is_worst: bool) -> u32 {
        if missing_is_worst && !self.has_med {
            u32::MAX
        } else {
            self.med
        }
    }
}

#[derive(Debug)]
struct Entry {
    bytes: Box<[u8]>,
    summary: Summary,
    refs: u32,
}

#[derive(Debug)]
struct KnownNextHop {
    next_hop: NextHop,
    refs: u32,
    /// `None`: not reachable.
    cost: Option<u32>,
    /// The cost changed, and paths have yet to be compared anew.
    reconsidered: bool,
}

/// All attribute sets, and the next hops in them.
#[derive(Debug)]
pub(super) struct AttrStore {
    entries: slab::Slab<Entry>,
    index: HashTable<u32>,
    hasher: FixedState,
    next_hops: slab::Slab<KnownNextHop>,
    next_hop_index: BTreeMap<NextHop, u32>,
    /// What the caller said of addresses: whether or not a path uses them now, unless next hops are tracked.
    costs: BTreeMap<IpAddr, Option<u32>>,
    /// Somebody finds out about next hops: one that nothing was said of is not reachable yet.
    tracked: bool,
    /// Next hops in use that nobody has said anything of yet.
    unanswered: BTreeSet<IpAddr>,
    /// Addresses that came into use or went out of it since they were last asked for.
    next_hop_news: BTreeSet<IpAddr>,
    /// Next hops whose cost changed a moment ago.
    unsettled: Vec<u32>,
    scratch: Vec<u8>,
    heap: usize,
}

/// No next hop: on a route of our own.
const NO_NEXT_HOP: u32 = u32::MAX;

impl AttrStore {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            entries: slab::Slab::new(),
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            next_hops: slab::Slab::new(),
            next_hop_index: BTreeMap::new(),
            costs: BTreeMap::new(),
            tracked: false,
            unanswered: BTreeSet::new(),
            next_hop_news: BTreeSet::new(),
            unsettled: Vec::new(),
            scratch: Vec::new(),
            heap: 0,
        }
    }

    /// The name of these attributes; the caller holds one reference to it.
    pub(super) fn intern(&mut self, attributes: &Attributes) -> AttrId {
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        attributes.encode_canonical(&mut bytes);
        let hash = self.hasher.hash_one(bytes.as_slice());
        let found = self
            .index
            .find(hash, |&id| *self.entries[id as usize].bytes == *bytes)
            .copied();
        let id = found.unwrap_or_else(|| self.insert(attributes, &bytes, hash));
        self.entries[id as usize].refs += 1;
        self.scratch = bytes;
        AttrId(id)
    }

    fn insert(&mut self, attributes: &Attributes, bytes: &[u8], hash: u64) -> u32 {
        let next_hop = attributes
            .next_hop
            .map_or(NO_NEXT_HOP, |next_hop| self.use_next_hop(next_hop));
        let summary = Summary {
            local_pref: attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
            med: attributes.med.unwrap_or(0),
            neighbour_as: attributes.as_path.neighbor().unwrap_or(0),
            originator_id: attributes.originator_id.map_or(0, u32::from),
            next_hop,
            path_len: u16::try_from(attributes.as_path.len()).unwrap_or(u16::MAX),
            cluster_len: u16::try_from(attributes.cluster_list.len()).unwrap_or(u16::MAX),
            origin: attributes.origin,
            has_med: attributes.med.is_some(),
            blackhole: attributes.communities.contains(&Community::BLACKHOLE),
        };
        self.heap += bytes.len();
        let id = self.entries.insert(Entry {
            bytes: bytes.into(),
            summary,
            refs: 0,
        });
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        let Self {
            index,
            entries,
            hasher,
            ..
        } = self;
        index.insert_unique(hash, id, |&id| {
            hasher.hash_one(&*entries[id as usize].bytes)
        });
        id
    }

    fn use_next_hop(&mut self, next_hop: NextHop) -> u32 {
        let id = *self.next_hop_index.entry(next_hop).or_insert_with(|| {
            let address = next_hop.address();
            let cost = self.costs.get(&address).copied().unwrap_or_else(|| {
                if !self.tracked {
                    return Some(0);
                }
                self.unanswered.insert(address);
                self.next_hop_news.insert(address);
                None
            });
            let id = self.next_hops.insert(KnownNextHop {
                next_hop,
                refs: 0,
                cost,
                reconsidered: false,
            });
            u32::try_from(id).unwrap_or(NO_NEXT_HOP)
        });
        self.next_hops[id as usize].refs += 1;
        id
    }

    /// Another reference.
    pub(super) fn retain(&mut self, id: AttrId) {
        self.entries[id.0 as usize].refs += 1;
    }

    /// One reference less; the last takes the set with it.
    pub(super) fn release(&mut self, id: AttrId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.refs -= 1;
        if entry.refs > 0 {
            return;
        }
        let entry = self.entries.remove(id.0 as usize);
        let hash = self.hasher.hash_one(&*entry.bytes);
        if let Ok(slot) = self.index.find_entry(hash, |&other| other == id.0) {
            slot.remove();
        }
        self.heap -= entry.bytes.len();
        let next_hop = entry.summary.next_hop;
        if next_hop != NO_NEXT_HOP {
            let known = &mut self.next_hops[next_hop as usize];
            known.refs -= 1;
            if known.refs == 0 {
                let known = self.next_hops.remove(next_hop as usize);
                self.next_hop_index.remove(&known.next_hop);
                self.disused(known.next_hop.address());
            }
        }
        if self.entries.is_empty() {
            self.entries = slab::Slab::new();
            self.index = HashTable::new();
        }
    }

    pub(super) fn summary(&self, id: AttrId) -> &Summary {
        &self.entries[id.0 as usize].summary
    }

    /// The attributes themselves.
    pub(super) fn decode(&self, id: AttrId) -> Attributes {
        // Never `None`: `encode_canonical` wrote the bytes.
        Attributes::decode_canonical(&self.entries[id.0 as usize].bytes)
            .unwrap_or_else(Attributes::originated)
    }

    pub(super) fn next_hop(&self, id: AttrId) -> Option<NextHop> {
        let next_hop = self.summary(id).next_hop;
        (next_hop != NO_NEXT_HOP).then(|| self.next_hops[next_hop as usize].next_hop)
    }

    /// The IGP's cost to the next hop; 0 unless told otherwise, `None` if told that it is not reachable.
    pub(super) fn cost(&self, id: AttrId) -> Option<u32> {
        match self.summary(id).next_hop {
            NO_NEXT_HOP => Some(0),
            next_hop => self.next_hops[next_hop as usize].cost,
        }
    }

    /// A next hop is gone; another one may have the same address.
    fn disused(&mut self, address: IpAddr) {
        if self.tracked && !self.uses(address) {
            self.costs.remove(&address);
            self.unanswered.remove(&address);
            self.next_hop_news.insert(address);
        }
    }

    /// Whether an attribute set has this address as its next hop.
    fn uses(&self, address: IpAddr) -> bool {
        !self.named(address).is_empty()
    }

    /// The next hops in use that have this address, with or without a link-local one.
    fn named(&self, address: IpAddr) -> SmallVec<[u32; 2]> {
        let known = &self.next_hop_index;
        let one = known.get(&NextHop::from(address)).copied();
        let mut all: SmallVec<[u32; 2]> = one.into_iter().collect();
        if let IpAddr::V6(address) = address {
            let [first, last] = [0, u128::MAX].map(Ipv6Addr::from_bits);
            let both =
                NextHop::V6WithLinkLocal(address, first)..=NextHop::V6WithLinkLocal(address, last);
            all.extend(known.range(both).map(|(_, id)| *id));
        }
        all
    }

    /// From now on, no next hop is reachable before somebody says so, and [`poll_next_hops`](Self::poll_next_hops) tells
    /// which there are. To be called while there are none.
    pub(super) fn track_next_hops(&mut self) {
        self.tracked = true;
    }

    /// The next hops that came into use (true) or went out of it since the last call.
    pub(super) fn poll_next_hops(&mut self) -> Vec<(IpAddr, bool)> {
        let news = std::mem::take(&mut self.next_hop_news);
        news.into_iter()
            .map(|address| (address, self.uses(address)))
            .collect()
    }

    /// Whether there is a next hop that nobody has said anything about yet.
    pub(super) fn awaits_next_hops(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Notes the cost to an address; says whether that changes anything for a set in use. The next hops for which it
    /// does are [`reconsidered`](Self::is_reconsidered) until that is [settled](Self::settle_costs).
    pub(super) fn set_cost(&mut self, address: IpAddr, cost: Option<u32>) -> bool {
        // An answer about a next hop that has gone meanwhile is out of date when it comes back.
        if self.tracked && !self.uses(address) {
            return false;
        }
        self.unanswered.remove(&address);
        self.costs.insert(address, cost);
        let mut changed = false;
        for id in self.named(address) {
            let known = &mut self.next_hops[id as usize];
            if known.cost != cost {
                known.cost = cost;
                if !std::mem::replace(&mut known.reconsidered, true) {
                    self.unsettled.push(id);
                }
                changed = true;
            }
        }
        changed
    }

    /// Whether the cost to the set's next hop changed, and paths have yet to be compared anew.
    pub(super) fn is_reconsidered(&self, id: AttrId) -> bool {
        match self.summary(id).next_hop {
            NO_NEXT_HOP => false,
            next_hop => self.next_hops[next_hop as usize].reconsidered,
        }
    }

    /// All paths were compared anew.
    pub(super) fn settle_costs(&mut self) {
        for id in std::mem::take(&mut self.unsettled) {
            if let Some(known) = self.next_hops.get_mut(id as usize) {
                known.reconsidered = false;
            }
        }
    }

    /// Nobody has said yet whether the set's next hop can be reached.
    pub(super) fn is_unanswered(&self, id: AttrId) -> bool {
        self.next_hop(id)
            .is_some_and(|next_hop| self.unanswered.contains(&next_hop.address()))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Octets of heap in use, without the allocator's own.
    pub(super) fn bytes(&self) -> usize {
        self.heap + self.entries.capacity() * size_of::<Entry>() + self.index.allocation_size()
    }

    /// Whether any set is still referenced: for tests.
    #[cfg(test)]
    pub(super) fn total_refs(&self) -> usize {
        self.entries
            .iter()
            .map(|(_, entry)| entry.refs as usize)
            .sum()
    }
}

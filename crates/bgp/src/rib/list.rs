//! The change list: every net of a family once, in the order of its last change, and readers' places between them.
//!
//! A reader that wants to know what changed walks on from its place. A net that changes moves to the end, so a slow
//! reader finds it there once however often it changed: being slow is a place in this list, never a queue.
//!
//! Versions count changes. They say which of two places comes first, and which changes a reader has walked past; when
//! the four octets are used up, everything is numbered anew.

use std::ops::{Index, IndexMut};

use super::pages::{NONE, Record, Slab};

/// A net, or a reader's place, in the change list. Links are indices of [`Nodes`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Net {
    prev: u32,
    next: u32,
    /// When it last changed; for a place: the change that its readers have seen last.
    pub(super) version: u32,
    /// First path (or the place's [`Marker`]) in the lower bits, flags above.
    word: u32,
}

impl Record for Net {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
        self.word = FREE;
    }
}

const FLAG_BITS: u32 = 7;
const HEAD_MASK: u32 = u32::MAX >> FLAG_BITS;
/// Not in use.
const FREE: u32 = 1 << 31;
/// A reader's place and no net.
const PLACE: u32 = 1 << 30;
/// The first path is the best one.
pub(super) const BEST: u32 = 1 << 29;
/// The FIB was given next hops for it.
pub(super) const FIB: u32 = 1 << 28;
/// One of its paths has a MED, which makes the order of paths depend on which others there are.
pub(super) const MED: u32 = 1 << 27;
/// Some reader may not have seen the best path yet.
pub(super) const CHANGED: u32 = 1 << 26;
/// Some reader may not have seen yet which peer the best path comes from.
pub(super) const MOVED: u32 = 1 << 25;

/// The most paths that a family can hold.
pub(super) const MAX_PATHS: u32 = HEAD_MASK;

impl Net {
    pub(super) fn new() -> Self {
        Self {
            prev: NONE,
            next: NONE,
            version: 0,
            word: HEAD_MASK,
        }
    }

    /// The first path of its chain; the best one if it has [`BEST`].
    pub(super) fn head(&self) -> u32 {
        let head = self.word & HEAD_MASK;
        if head == HEAD_MASK { NONE } else { head }
    }

    pub(super) fn set_head(&mut self, head: u32) {
        self.word = (self.word & !HEAD_MASK) | (head & HEAD_MASK);
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.word & flag != 0
    }

    pub(super) fn set(&mut self, flag: u32, on: bool) {
        self.word = if on {
            self.word | flag
        } else {
            self.word & !flag
        };
    }

    /// Whether this is a net: neither free nor a reader's place.
    pub(super) fn is_net(&self) -> bool {
        self.word & (FREE | PLACE) == 0
    }
}

/// The nodes of a list: nets and places by one kind of index, yet each in a slab of its own, so that readers' places
/// do not keep the memory of a table that has become empty.
#[derive(Debug)]
pub(super) struct Nodes {
    nets: Slab<Net>,
    places: Slab<Net>,
    /// How often any was looked at: what a turn costs, by a count that the code has no say in.
    #[cfg(test)]
    pub(super) touched: std::cell::Cell<u64>,
}

/// In an index: it is a place's.
const PLACE_INDEX: u32 = 1 << 31;

impl Nodes {
    pub(super) fn new() -> Self {
        Self {
            nets: Slab::new(),
            places: Slab::new(),
            #[cfg(test)]
            touched: std::cell::Cell::new(0),
        }
    }

    pub(super) fn insert(&mut self, net: Net) -> u32 {
        self.nets.insert(net)
    }

    fn insert_place(&mut self, place: Net) -> u32 {
        self.places.insert(place) | PLACE_INDEX
    }

    pub(super) fn remove(&mut self, index: u32) {
        match index & PLACE_INDEX {
            0 => self.nets.remove(index),
            _ => self.places.remove(index & !PLACE_INDEX),
        }
    }

    /// How many nets there are.
    pub(super) fn len(&self) -> u32 {
        self.nets.len()
    }

    /// One above the highest index of a net.
    pub(super) fn end(&self) -> u32 {
        self.nets.end()
    }

    pub(super) fn bytes(&self) -> usize {
        self.nets.bytes() + self.places.bytes()
    }
}

impl Index<u32> for Nodes {
    type Output = Net;

    fn index(&self, index: u32) -> &Net {
        #[cfg(test)]
        self.touched.update(|touched| touched + 1);
        match index & PLACE_INDEX {
            0 => &self.nets[index],
            _ => &self.places[index & !PLACE_INDEX],
        }
    }
}

impl IndexMut<u32> for Nodes {
    fn index_mut(&mut self, index: u32) -> &mut Net {
        #[cfg(test)]
        self.touched.update(|touched| touched + 1);
        match index & PLACE_INDEX {
            0 => &mut self.nets[index],
            _ => &mut self.places[index & !PLACE_INDEX],
        }
    }
}

/// A place in the list that any number of readers share. Copies are names, not owners: each reader enters and leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// The index of its node.
    pub(super) fn node(self) -> u32 {
        self.0
    }
}

#[derive(Debug)]
struct Marker {
    node: u32,
    /// Readers that are here.
    readers: u32,
    /// Others that need the place to stay, and hold nothing up.
    holders: u32,
}

/// Order and numbers; the family keeps the nodes.
#[derive(Debug)]
pub(super) struct ChangeList {
    first: u32,
    last: u32,
    version: u32,
    markers: slab::Slab<Marker>,
}

/// From how many distinct places on it is too dear to ask which is first.
const MANY_PLACES: usize = 32;

impl ChangeList {
    pub(super) fn new() -> Self {
        Self {
            first: NONE,
            last: NONE,
            version: 0,
            markers: slab::Slab::new(),
        }
    }

    /// The number of the last change.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    #[cfg(test)]
    pub(super) fn set_version(&mut self, version: u32) {
        self.version = version;
    }

    /// Whether the next change needs [`renumber`](Self::renumber) first.
    pub(super) fn is_full(&self) -> bool {
        self.version == u32::MAX
    }

    /// Moves a net to the end, with a new version. `fresh`: it is not in the list yet.
    pub(super) fn touch(&mut self, nets: &mut Nodes, net: u32, fresh: bool) {
        if !fresh {
            self.unlink(nets, net);
        }
        self.version += 1;
        nets[net].version = self.version;
        self.link_after(nets, net, self.last);
    }

    pub(super) fn unlink(&mut self, nets: &mut Nodes, node: u32) {
        let Net { prev, next, .. } = nets[node];
        match prev {
            NONE => self.first = next,
            prev => nets[prev].next = next,
        }
        match next {
            NONE => self.last = prev,
            next => nets[next].prev = prev,
        }
    }

    fn link_after(&mut self, nets: &mut Nodes, node: u32, prev: u32) {
        let next = match prev {
            NONE => std::mem::replace(&mut self.first, node),
            prev => std::mem::replace(&mut nets[prev].next, node),
        };
        match next {
            NONE => self.last = node,
            next => nets[next].prev = node,
        }
        nets[node].prev = prev;
        nets[node].next = next;
    }

    /// The first net after a node, places skipped.
    pub(super) fn next_net(&self, nets: &Nodes, node: u32) -> Option<u32> {
        let mut node = nets[node].next;
        while node != NONE {
            if nets[node].is_net() {
                return Some(node);
            }
            node = nets[node].next;
        }
        None
    }

    /// Enters a reader before everything.
    pub(super) fn enter_first(&mut self, nets: &mut Nodes) -> Place {
        match self.first {
            first if first != NONE && !nets[first].is_net() && nets[first].version == 0 => {
                let place = Place(first);
                self.enter(nets, place);
                place
            }
            _ => self.make_place(nets, NONE, 0),
        }
    }

    /// Enters a reader right after a net that it has walked to.
    pub(super) fn enter_after(&mut self, nets: &mut Nodes, net: u32) -> Place {
        let Net { next, version, .. } = nets[net];
        // Only a place of the very same version stands for the same knowledge: nets that stood between may have moved.
        if next != NONE && !nets[next].is_net() && nets[next].version == version {
            let place = Place(next);
            self.enter(nets, place);
            return place;
        }
        self.make_place(nets, net, version)
    }

    fn make_place(&mut self, nets: &mut Nodes, after: u32, version: u32) -> Place {
        let node = nets.insert_place(Net::new());
        let marker = self.markers.insert(Marker {
            node,
            readers: 1,
            holders: 0,
        });
        nets[node].version = version;
        nets[node].set(PLACE, true);
        nets[node].set_head(u32::try_from(marker).unwrap_or(NONE));
        self.link_after(nets, node, after);
        Place(node)
    }

    fn marker(&mut self, nets: &Nodes, place: Place) -> &mut Marker {
        &mut self.markers[nets[place.0].head() as usize]
    }

    /// Enters another reader.
    pub(super) fn enter(&mut self, nets: &Nodes, place: Place) {
        self.marker(nets, place).readers += 1;
    }

    /// A reader leaves.
    pub(super) fn leave(&mut self, nets: &mut Nodes, place: Place) {
        self.marker(nets, place).readers -= 1;
        self.forget_unused(nets, place);
    }

    /// Keeps the place without being a reader.
    pub(super) fn hold(&mut self, nets: &Nodes, place: Place) {
        self.marker(nets, place).holders += 1;
    }

    /// Undoes [`hold`](Self::hold).
    pub(super) fn release(&mut self, nets: &mut Nodes, place: Place) {
        self.marker(nets, place).holders -= 1;
        self.forget_unused(nets, place);
    }

    fn forget_unused(&mut self, nets: &mut Nodes, place: Place) {
        let marker = nets[place.0].head() as usize;
        if self.markers[marker].readers == 0 && self.markers[marker].holders == 0 {
            self.markers.remove(marker);
            self.unlink(nets, place.0);
            nets.remove(place.0);
        }
    }

    /// The lowest version among the readers' places: what everyone has seen. `None` without readers.
    pub(super) fn seen_by_all(&self, nets: &Nodes) -> Option<u32> {
        self.markers
            .iter()
            .filter(|(_, marker)| marker.readers > 0)
            .map(|(_, marker)| nets[marker.node].version)
            .min()
    }

    /// Whether all readers have walked past this version; may say no when asking is too dear.
    pub(super) fn all_passed(&self, nets: &Nodes, version: u32) -> bool {
        self.markers.len() <= MANY_PLACES
            && self.seen_by_all(nets).is_none_or(|seen| seen >= version)
    }

    /// Numbers everything anew from 1, in the order of the list. Returns a map from old to new versions; those that
    /// lie between two nodes' take the number of the later one.
    pub(super) fn renumber(&mut self, nets: &mut Nodes) -> impl Fn(u32) -> u32 + use<> {
        let mut old = Vec::new();
        let mut node = self.first;
        while node != NONE {
            let version = nets[node].version;
            if version != 0 && old.last() != Some(&version) {
                old.push(version);
            }
            let rank = u32::try_from(old.len()).unwrap_or(NONE);
            nets[node].version = if version == 0 { 0 } else { rank };
            node = nets[node].next;
        }
        self.version = u32::try_from(old.len()).unwrap_or(NONE) + 1;
        move |version| {
            let below = old.partition_point(|&other| other < version);
            u32::try_from(below).unwrap_or(NONE) + u32::from(version != 0)
        }
    }
}

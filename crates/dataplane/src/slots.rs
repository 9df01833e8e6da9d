//! A map whose entries have a place, so that who knows the place need not search.
//!
//! Entries made one after the other lie one after the other: work on a hundred thousand of them in that order runs through
//! memory, where a search for each would wait for it.

use std::hash::{BuildHasher, Hash};
use std::ops::{Index, IndexMut};

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;

/// The place of an entry, for as long as it is not removed.
pub(crate) type Slot = usize;

/// See the module.
#[derive(Debug)]
pub(crate) struct Slots<K, T> {
    entries: Slab<(K, T)>,
    index: HashTable<Slot>,
    hash: FixedState,
}

impl<K: Copy + Eq + Hash, T> Slots<K, T> {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            entries: Slab::new(),
            index: HashTable::new(),
            hash: FixedState::with_seed(seed),
        }
    }

    pub(crate) fn find(&self, key: &K) -> Option<Slot> {
        let hash = self.hash.hash_one(key);
        self.index
            .find(hash, |slot| self.entries[*slot].0 == *key)
            .copied()
    }

    pub(crate) fn find_or_insert(&mut self, key: K, value: impl FnOnce() -> T) -> Slot {
        let Self {
            entries,
            index,
            hash,
        } = self;
        let rehash = |slot: &Slot| hash.hash_one(entries[*slot].0);
        match index.entry(hash.hash_one(key), |slot| entries[*slot].0 == key, rehash) {
            Entry::Occupied(slot) => *slot.get(),
            Entry::Vacant(vacant) => {
                let slot = entries.vacant_key();
                vacant.insert(slot);
                entries.insert((key, value()))
            }
        }
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let (key, _) = self.entries.remove(slot);
        if let Ok(entry) = self
            .index
            .find_entry(self.hash.hash_one(key), |other| *other == slot)
        {
            entry.remove();
        }
    }

    pub(crate) fn key(&self, slot: Slot) -> K {
        self.entries[slot].0
    }

    /// A number that depends on the key and on `salt`, always the same.
    pub(crate) fn dice(&self, slot: Slot, salt: u32) -> u64 {
        self.hash.hash_one((self.key(slot), salt))
    }

    /// In the order of places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, &K, &T)> {
        self.entries
            .iter()
            .map(|(slot, (key, value))| (slot, key, value))
    }

    /// In the order of places.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().map(|(_, (_, value))| value)
    }
}

impl<K, T> Index<Slot> for Slots<K, T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        &self.entries[slot].1
    }
}

impl<K, T> IndexMut<Slot> for Slots<K, T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        &mut self.entries[slot].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_hold_while_others_come_and_go() {
        let mut slots = Slots::new(1);
        let place: Vec<_> = (0..1000u32)
            .map(|n| slots.find_or_insert(n, || n * 2))
            .collect();
        assert!(place.is_sorted());
        for (_, place) in (0..1000).zip(&place).filter(|(n, _)| n % 3 != 0) {
            slots.remove(*place);
        }
        for n in 1000..1500 {
            slots.find_or_insert(n, || n * 2);
        }
        for n in 0..1500 {
            let expected = (n >= 1000 || n % 3 == 0).then_some(n * 2);
            assert_eq!(slots.find(&n).map(|slot| slots[slot]), expected);
        }
        assert_eq!(slots.find_or_insert(3, || 0), place[3]);
        assert_eq!(slots.iter().count(), 334 + 500);
    }
}

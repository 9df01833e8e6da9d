//! Which offsets of a CIDR are taken, as disjoint ranges.
//!
//! Ranges instead of a bitmap: an IPv6 /64 costs nothing, and "the next free one from here" is two tree look-ups
//! however full a /16 is.

use std::collections::BTreeMap;

/// A set of offsets. Ranges never touch each other: neighbours are merged.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// First to last offset of each range, both inclusive.
    ranges: BTreeMap<u128, u128>,
    len: u128,
}

impl Taken {
    pub(crate) fn len(&self) -> u128 {
        self.len
    }

    pub(crate) fn contains(&self, offset: u128) -> bool {
        self.range_at(offset).is_some()
    }

    /// Adds `offset`; false when it was in already.
    pub(crate) fn insert(&mut self, offset: u128) -> bool {
        if self.contains(offset) {
            return false;
        }
        self.insert_range(offset, offset);
        true
    }

    /// Adds `first..=last`, in whole or in part new.
    pub(crate) fn insert_range(&mut self, mut first: u128, mut last: u128) {
        // Whatever overlaps or touches the range becomes one with it.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back()
            && end >= first.saturating_sub(1)
        {
            self.ranges.remove(&start);
            self.len -= end - start + 1;
            first = first.min(start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
        self.len += last - first + 1;
    }

    /// Takes `offset` out; false when it was not in.
    pub(crate) fn remove(&mut self, offset: u128) -> bool {
        let Some((first, last)) = self.range_at(offset) else {
            return false;
        };
        self.ranges.remove(&first);
        if first < offset {
            self.ranges.insert(first, offset - 1);
        }
        if offset < last {
            self.ranges.insert(offset + 1, last);
        }
        self.len -= 1;
        true
    }

    /// The lowest offset in `from..=to` that is not taken.
    pub(crate) fn next_free(&self, from: u128, to: u128) -> Option<u128> {
        let free = match self.range_at(from) {
            // Ranges don't touch, so what follows one is free.
            Some((_, last)) => last.checked_add(1)?,
            None => from,
        };
        (free <= to).then_some(free)
    }

    fn range_at(&self, offset: u128) -> Option<(u128, u128)> {
        let (&first, &last) = self.ranges.range(..=offset).next_back()?;
        (offset <= last).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_offsets(steps in prop::collection::vec((0..5, 0u128..40, 0u128..6), 0..200)) {
            let mut taken = Taken::default();
            let mut model = BTreeSet::new();
            for (step, offset, length) in steps {
                match step {
                    0 | 1 => prop_assert_eq!(taken.insert(offset), model.insert(offset)),
                    2 => {
                        taken.insert_range(offset, offset + length);
                        model.extend(offset..=offset + length);
                    }
                    _ => prop_assert_eq!(taken.remove(offset), model.remove(&offset)),
                }
                prop_assert_eq!(taken.len(), model.len() as u128);
                for from in 0..48 {
                    let expected = (from..=46).find(|offset| !model.contains(offset));
                    prop_assert_eq!(taken.next_free(from, 46), expected);
                }
                let ranges: Vec<_> = taken.ranges.iter().map(|(a, b)| (*a, *b)).collect();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?} not merged", ranges);
            }
        }
    }

    #[test]
    fn the_last_offset_of_all_has_no_successor() {
        let mut taken = Taken::default();
        taken.insert_range(u128::MAX - 1, u128::MAX);
        assert_eq!(taken.next_free(u128::MAX, u128::MAX), None);
        assert!(taken.remove(u128::MAX));
        assert_eq!(taken.next_free(u128::MAX, u128::MAX), Some(u128::MAX));
    }
}

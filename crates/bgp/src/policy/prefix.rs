//! Conditions on a route's prefix.

use std::cmp::Ordering;
use std::sync::Arc;

use ipnet::IpNet;

/// A route's prefix against one other. Prefixes of another family never match, whatever the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrefixMatch {
    /// The prefix to compare with.
    pub prefix: IpNet,
    /// How.
    pub operator: PrefixOperator,
    /// Shortest and longest prefix length that [`PrefixOperator::In`] and [`PrefixOperator::NotIn`] take as inside;
    /// `None` is any.
    pub length: Option<(u8, u8)>,
}

/// How a route's prefix compares with a statement's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PrefixOperator {
    /// The same prefix.
    Equal,
    /// Another prefix.
    NotEqual,
    /// The same or inside, its length in the range.
    In,
    /// Not [`In`](Self::In).
    NotIn,
}

impl PrefixMatch {
    pub(super) fn holds(&self, prefix: &IpNet) -> bool {
        if self.prefix.addr().is_ipv4() != prefix.addr().is_ipv4() {
            return false;
        }
        let inside = || {
            let (min, max) = self.length.unwrap_or((0, u8::MAX));
            self.prefix.contains(prefix) && (min..=max).contains(&prefix.prefix_len())
        };
        match self.operator {
            PrefixOperator::Equal => self.prefix == *prefix,
            PrefixOperator::NotEqual => self.prefix != *prefix,
            PrefixOperator::In => inside(),
            PrefixOperator::NotIn => !inside(),
        }
    }
}

/// A set of prefixes that a route is looked up in by bisection: thousands of pod CIDRs cost as little as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrefixSet {
    /// Sorted, and none inside another.
    prefixes: Arc<[IpNet]>,
}

impl PrefixSet {
    /// A set of these prefixes, host bits cleared; what lies inside another one is dropped.
    #[must_use]
    pub fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut all: Vec<IpNet> = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        // A prefix sorts before those inside it.
        all.sort_unstable_by_key(|prefix| (prefix.addr(), prefix.prefix_len()));
        all.dedup_by(|inner, outer| outer.contains(&*inner));
        Self {
            prefixes: all.into(),
        }
    }

    /// Whether the prefix is one of the set's or inside one.
    #[must_use]
    pub fn covers(&self, prefix: &IpNet) -> bool {
        // Only the last that starts at or before the prefix can hold it, since none overlap.
        let after = self
            .prefixes
            .partition_point(|other| other.addr().cmp(&prefix.addr()) != Ordering::Greater);
        after
            .checked_sub(1)
            .is_some_and(|last| self.prefixes[last].contains(prefix))
    }
}

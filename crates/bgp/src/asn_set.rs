//! Autonomous systems as a set.

use std::fmt;
use std::ops::RangeInclusive;

use bgp_wire::Asn;

/// Which ASes a peer may be of: one, some, or any.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsnSet {
    ranges: Vec<RangeInclusive<Asn>>,
}

impl AsnSet {
    /// Every AS that there can be; 0 is none (RFC 7607).
    #[must_use]
    pub fn any() -> Self {
        Self::from_iter([1..=Asn::MAX])
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn contains(&self, asn: Asn) -> bool {
        self.ranges.iter().any(|range| range.contains(&asn))
    }
}

impl From<Asn> for AsnSet {
    fn from(asn: Asn) -> Self {
        Self::from_iter([asn..=asn])
    }
}

impl FromIterator<RangeInclusive<Asn>> for AsnSet {
    fn from_iter<T: IntoIterator<Item = RangeInclusive<Asn>>>(ranges: T) -> Self {
        Self {
            ranges: ranges.into_iter().collect(),
        }
    }
}

impl fmt::Display for AsnSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::any() {
            return f.write_str("any");
        }
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            range.start().fmt(f)?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_and_shows_what_it_was_given() {
        let set = AsnSet::from_iter([64512..=64600, 65001..=65001]);
        assert!(set.contains(64512) && set.contains(64600) && set.contains(65001));
        assert!(!set.contains(64601) && !set.contains(65000));
        assert_eq!(set.to_string(), "64512-64600, 65001");
        assert_eq!(AsnSet::from(7).to_string(), "7");
        assert_eq!(AsnSet::any().to_string(), "any");
        assert!(!AsnSet::any().contains(0));
    }
}

//! Patterns over AS paths and communities, as operators write them in filters. Matching takes time in proportion to what
//! is looked at, whatever the pattern.
//!
//! ```
//! use bgp_wire::{AsPath, Attributes, Community};
//! use bgp_wire::pattern::{AsPathPattern, CommunityPattern};
//!
//! # fn main() -> Result<(), bgp_wire::pattern::PatternError> {
//! let path = AsPath::sequence([64512, 64513, 65001]);
//! assert!("64512 .* 65001".parse::<AsPathPattern>()?.matches(&path));
//! assert!(!"64512 65001".parse::<AsPathPattern>()?.matches(&path));
//!
//! let attributes = Attributes {
//!     communities: vec![Community::new(65000, 120)],
//!     ..Attributes::originated()
//! };
//! assert!("65000:100-199".parse::<CommunityPattern>()?.matches(&attributes));
//! # Ok(())
//! # }
//! ```

mod as_path;
mod community;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

pub use as_path::AsPathPattern;
pub use community::{AnyCommunity, CommunityPattern};

/// A text that is no pattern: which part of it is wrong, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PatternError(pub(crate) String);

/// Numbers from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Span<T> {
    first: T,
    last: T,
}

impl<T: Copy + Ord> Span<T> {
    fn holds(&self, value: T) -> bool {
        (self.first..=self.last).contains(&value)
    }
}

impl<T: Copy + Ord + FromStr> Span<T> {
    /// One number, or two with a hyphen between.
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self { first, last })
    }

    /// The same, or `*` for any.
    fn parse_or_any(text: &str, any: RangeInclusive<T>) -> Option<Self> {
        if text == "*" {
            let (first, last) = any.into_inner();
            return Some(Self { first, last });
        }
        Self::parse(text)
    }
}

impl<T: fmt::Display + PartialEq> fmt::Display for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A decimal number without sign, which `FromStr` of the integers would let pass.
fn number<T: FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') {
        None
    } else {
        text.parse().ok()
    }
}

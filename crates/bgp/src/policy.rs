//! Filters on import and export.

/// An ordered list of statements; being written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Policy {}

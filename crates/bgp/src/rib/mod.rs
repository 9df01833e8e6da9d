//! The RIB: being written.

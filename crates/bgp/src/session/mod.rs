//! The session machine: being written.

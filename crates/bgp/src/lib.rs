//! The BGP speaker as a pure state machine: deterministic, and without sockets, clocks, threads or logs. Time is an
//! argument, bytes go in and come out, and every decision can be replayed.
#![forbid(unsafe_code)]

pub mod config;
pub mod policy;
pub mod rib;
pub mod session;

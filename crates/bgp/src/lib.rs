//! The BGP speaker as a pure state machine: deterministic, and without sockets, clocks, threads or logs. Time is an
//! argument, bytes go in and come out, and every decision can be replayed.
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | what a speaker is told to be |
//! | [`speaker`] | the whole: every peer's session and the RIB behind one set of inputs and outputs |
//! | [`session`] | one peer's session: FSM, collisions, timers, negotiation (RFC 4271 §6, §8) |
//! | [`rib`] | Adj-RIB-In, Loc-RIB, Adj-RIB-Out (RFC 4271 §3.2, §9) |
//! | [`policy`] | filters on import and export |
//! | [`view`] | what the operator sees |
#![forbid(unsafe_code)]

pub mod config;
pub mod policy;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod view;

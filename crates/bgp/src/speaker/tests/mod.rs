//! Whole speakers in virtual time.

mod collision;
mod net;
mod restart;
mod routes;
mod session;

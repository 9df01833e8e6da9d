//! Whole speakers in virtual time.

mod collision;
mod families;
mod net;
mod restart;
mod routes;
mod session;

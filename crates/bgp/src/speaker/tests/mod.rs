//! Whole speakers in virtual time.

mod admin;
mod collision;
mod dynamic;
mod families;
mod limit;
mod net;
mod refresh;
mod restart;
mod routes;
mod session;
mod work;

//! The Kubernetes API: where the cluster's objects come from, and who is told how a node is.
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@connect`] | a client from a kubeconfig, or from what a pod is given |
//! | [`kinds`] | which resource of the API each kind is, and how its objects become [`resources::Object`]s |
//! | [`source`] | [`Source`]: all watches together, and what has changed since one last asked |
//! | `watch` | one watch: list, follow, begin again |
//! | [`blocks`] | [`Blocks`]: which node has which block of a pool |
//! | [`report`] | [`Reporter`]: the node's status, condition and taint, and events |
//! | [`pace`] | how often a status is written |
//! | [`error`] | what went wrong, in words |
//!
//! An API server that can't be reached changes nothing: what was read stays, and each watch tries again with growing,
//! random waits.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod connect;
pub mod error;
pub mod kinds;
pub mod pace;
pub mod report;
pub mod source;
mod watch;

pub use blocks::Blocks;
pub use connect::{Access, connect};
pub use kinds::{OwnNode, TAINT};
pub use kube::Client;
pub use report::Reporter;
pub use source::{Change, Source};

//! `margayd`, the node agent: wiring between the pure crates, the kernel, the peers, the CNI plugin and the operator.
//!
//! | module | what |
//! | --- | --- |
//! | [`cli`], [`logging`] | command line and log lines |
//! | [`origin`] | where objects come from: a directory or the Kubernetes API |
//! | [`source`] | the directory of YAML files |
//! | [`config`] | what they say, what is wrong with them, and the plan that follows |
//! | [`memory`] | what the API server said last, for an agent that starts without it |
//! | [`blocks`] | the thread that takes blocks of pools and gives them back |
//! | [`control`] | the main loop: new plans go to the speaker, to the dataplane and to the pods |
//! | `parameters` | kernel parameters |
//! | [`fib`] | the dataplane thread, the one writer of our routes |
//! | [`firewall`] | the thread that keeps our nftables table |
//! | [`pods`] | the threads that answer the CNI plugin |
//! | [`server`] | the local API for `margayctl` |
//! | `readiness` | whether the node serves, and whom it waits for |
//! | `report` | the node's status, for the API server |
//! | [`metrics`] | the same for Prometheus |
//! | [`health`] | whether the agent lives and serves, for the kubelet's probes |
//! | [`uninstall`] | `margayd uninstall`: takes all of it away again |
//!
//! Threads: `main` runs [`control`], [`server`] and [`metrics`] on a current-thread runtime; `margay-fib` and `margay-bgp`
//! have one each, so that a full table or a slow kernel call delays no keepalive and no answer; the pods' threads are plain
//! ones. They meet in bounded channels only.

pub mod blocks;
pub mod cli;
pub mod config;
pub mod control;
pub mod fib;
pub mod firewall;
pub mod health;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod origin;
mod parameters;
pub mod pods;
mod readiness;
mod report;
pub mod server;
pub mod source;
mod sys;
pub mod uninstall;

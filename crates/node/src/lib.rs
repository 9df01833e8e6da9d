//! Where the cluster's objects, the RIB, the endpoints and the kernel's links meet: deterministic, and without files,
//! sockets or clocks.
//!
//! | module | what |
//! | --- | --- |
//! | [`mod@plan`] | [`ClusterState`](resources::ClusterState) to [`NodePlan`]: what one node's speaker and kernel are to do |
//! | [`peers`], `targets` | which peers this node has |
//! | [`topology`], `reflectors` | those of them that follow from what nodes there are: the mesh, or route reflectors |
//! | [`handover`] | another topology before the old one goes |
//! | `services` | which addresses of Services it announces |
//! | [`pools`] | where its pods' addresses come from: pod CIDRs, or pools |
//! | [`filter`], `rule` | which routes they may send us, and which they get |
//! | [`route`] | best paths and endpoints to kernel routes |
//! | [`tunnel`] | which next hops are reached through a tunnel |
#![forbid(unsafe_code)]

pub mod filter;
pub mod handover;
pub mod peers;
pub mod plan;
pub mod pools;
mod reflectors;
pub mod route;
mod rule;
mod services;
mod targets;
pub mod topology;
pub mod tunnel;

pub use handover::Handover;
pub use plan::{NodePlan, PlanError, plan, plan_with_blocks};
pub use pools::{AddressPlan, Pool};
pub use route::{
    Reach, Unresolved, desired_route, discard, endpoint_neighbours, endpoint_routes,
    gateway_routes, learned_key, reach, refusal, resolve, static_routes,
};
pub use tunnel::{Devices, Tunnels};

//! What `lab-router` says about itself on its socket.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

/// A snapshot, as JSON to whoever connects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Peers with a session in state Established.
    pub established: BTreeSet<IpAddr>,
    /// What was learned by BGP and is in the kernel, with its next hops.
    pub learned: BTreeMap<Ipv4Net, BTreeSet<IpAddr>>,
}

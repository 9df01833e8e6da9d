//! Permanent neighbour entries (`RTM_NEWNEIGH`, `NUD_PERMANENT`): no ARP on the pod path.

use std::net::IpAddr;

use crate::LinkIndex;

/// What makes two entries the same one to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighbourKey {
    /// The link.
    pub link: LinkIndex,
    /// The neighbour's address.
    pub address: IpAddr,
}

/// An entry's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Neighbour {
    /// Its MAC address.
    pub mac: [u8; 6],
}

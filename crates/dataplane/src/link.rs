//! Links and what stands on them, as dumped from the kernel and kept current by its events.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// A kernel interface index (`ifi_index`).
pub type LinkIndex = u32;

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// `IFLA_IFALIAS`, where set. An endpoint's veth carries its record here.
    pub alias: Option<String>,
    /// `IFLA_INFO_KIND`: `veth`, `bridge`, …; `None` for a physical device.
    pub kind: Option<String>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The loopback device (`IFF_LOOPBACK`).
    pub loopback: bool,
    /// MTU in octets.
    pub mtu: u32,
    /// MAC address, empty where the link has none.
    pub mac: Vec<u8>,
    /// Its addresses with the length of their subnet.
    pub addresses: Vec<IpNet>,
}

/// A unicast route that somebody else installed in the main table: what a next hop of ours may resolve through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Gateways with the links they are reached through; no gateway means directly connected.
    pub next_hops: Vec<(Option<IpAddr>, LinkIndex)>,
    /// Metric: the lowest wins.
    pub priority: u32,
}

/// All links of a network namespace, and the routes of others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// By index.
    pub links: BTreeMap<LinkIndex, Link>,
    /// The main table's unicast routes that are not ours.
    pub underlay: Vec<UnderlayRoute>,
}

//! Our own addresses by link: where next hops come from that the connection itself does not show.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// A link of this machine, as the addresses that it has there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// Each with its prefix length; the ones to prefer as next hops come first.
    pub addresses: Vec<IpNet>,
}

impl Interface {
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.addr() == address)
    }

    /// The first address of the other family that hosts elsewhere can be told of.
    pub(super) fn global(&self, of_ipv6: bool) -> Option<IpAddr> {
        self.addresses
            .iter()
            .map(IpNet::addr)
            .find(|own| own.is_ipv6() == of_ipv6 && !own.is_loopback() && !is_link_local(*own))
    }

    /// Its link-local IPv6 address.
    pub(super) fn link_local(&self) -> Option<Ipv6Addr> {
        self.addresses.iter().find_map(|own| match own.addr() {
            IpAddr::V6(own) if own.is_unicast_link_local() => Some(own),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
    }

    /// Whether an address is on this link: a host there sees our link-local address.
    pub(super) fn reaches(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| {
            own.prefix_len() < own.max_prefix_len()
                && !own.addr().is_loopback()
                && own.contains(&address)
        })
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

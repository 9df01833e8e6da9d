//! Tunnel devices as values, and the operations that make them as they should be.
//!
//! There is at most one of each kind. It has no remote end: a packet goes to the gateway of the route that led it to the
//! device, so that one device serves all nodes. Whose name and kind are ours is ours; another link of that name is left alone.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Link, LinkIndex, Links};

/// What is wrapped in what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// IPv4 in IPv4 (RFC 2003).
    Ipip,
    /// IPv6 in IPv6 (RFC 2473).
    Ip6ip6,
}

impl TunnelKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ipip, Self::Ip6ip6];

    /// The one that carries packets to a next hop of this family.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::Ipip
        } else {
            Self::Ip6ip6
        }
    }

    /// The name of our device. Not the kernel's own `tunl0` and `ip6tnl0`, which others may use, and nothing that begins like a
    /// pod's link.
    #[must_use]
    pub fn device(self) -> &'static str {
        match self {
            Self::Ipip => "margay-ipip",
            Self::Ip6ip6 => "margay-ip6ip6",
        }
    }

    /// `IFLA_INFO_KIND`.
    #[must_use]
    pub fn link_kind(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Ip6ip6 => "ip6tnl",
        }
    }

    /// What a packet grows by, in octets: one more header, without options.
    #[must_use]
    pub fn overhead(self) -> u32 {
        match self {
            Self::Ipip => 20,
            Self::Ip6ip6 => 40,
        }
    }

    /// The least MTU that the inner protocol can do with, in octets (RFC 791, RFC 8200 §5).
    fn least_mtu(self) -> u32 {
        match self {
            Self::Ipip => 68,
            Self::Ip6ip6 => 1280,
        }
    }

    fn belongs(self, address: IpAddr) -> bool {
        Self::of(address) == self
    }
}

/// A tunnel device as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// What is wrapped in what.
    pub kind: TunnelKind,
    /// The node's address: the source of what it sends, and the destination of what it takes.
    pub local: IpAddr,
    /// MTU in octets: what is left of the uplink's.
    pub mtu: u32,
}

/// What a tunnel's link says of itself (`IFLA_INFO_DATA`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelParameters {
    /// The outer source.
    pub local: Option<IpAddr>,
    /// The outer destination; `None` for the gateway of the route.
    pub remote: Option<IpAddr>,
    /// Outer TTL or hop limit; 0 for the inner one.
    pub ttl: u8,
    /// Traffic class and flow label (IPv6) or TOS (IPv4) are the inner ones.
    pub inherits_class: bool,
    /// Outer packets are never fragmented though inner ones may be (IPv4); they carry an option that costs eight octets
    /// (IPv6).
    pub strict: bool,
}

impl Tunnel {
    /// The one of this kind on a node with this address, where `links` say what the uplink's MTU is.
    #[must_use]
    pub fn on(local: IpAddr, links: &Links) -> Self {
        let kind = TunnelKind::of(local);
        let holds = |link: &&Link| {
            link.tunnel.is_none() && link.addresses.iter().any(|net| net.addr() == local)
        };
        let uplink = links
            .links
            .values()
            .filter(holds)
            .map(|link| link.mtu)
            .min();
        // Ethernet's, until the address is there.
        let mtu = uplink.unwrap_or(1500).saturating_sub(kind.overhead());
        Self {
            kind,
            local,
            mtu: mtu.max(kind.least_mtu()),
        }
    }

    /// What its link says of itself when it is right.
    #[must_use]
    pub fn parameters(&self) -> TunnelParameters {
        TunnelParameters {
            local: Some(self.local),
            remote: None,
            ttl: 0,
            inherits_class: true,
            strict: false,
        }
    }

    /// The address on the device, so that the node's own packets to pods leave from the node's address.
    #[must_use]
    pub fn address(&self) -> IpNet {
        IpNet::from(self.local)
    }
}

/// One change of a tunnel device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelOp {
    /// Makes the device and sets it up, address included.
    Create(Tunnel),
    /// Has it as it should be, whatever it is like, and up.
    Change(LinkIndex, Tunnel),
    /// Gives it an address.
    AddAddress(LinkIndex, IpNet),
    /// Takes an address away from it.
    RemoveAddress(LinkIndex, IpNet),
    /// Removes it.
    Delete(LinkIndex),
}

/// Our device of this kind, if it is there; an error when another link has its name.
///
/// # Errors
/// What is there instead.
pub fn device(kind: TunnelKind, links: &Links) -> Result<Option<&Link>, String> {
    let named = links.links.values().find(|link| link.name == kind.device());
    match named {
        Some(link) if link.kind.as_deref() != Some(kind.link_kind()) => Err(format!(
            "a link {} of kind {} is there already: remove or rename it",
            link.name,
            link.kind.as_deref().unwrap_or("unknown")
        )),
        named => Ok(named),
    }
}

/// What turns the device of a kind into the desired one, `None` for none. Empty when it is so already.
///
/// # Errors
/// As [`device`].
pub fn plan(
    kind: TunnelKind,
    desired: Option<Tunnel>,
    links: &Links,
) -> Result<Vec<TunnelOp>, String> {
    let actual = match device(kind, links) {
        Ok(actual) => actual,
        // Who wants none has nothing to say to another's.
        Err(_) if desired.is_none() => None,
        Err(error) => return Err(error),
    };
    let (desired, actual) = match (desired, actual) {
        (None, None) => return Ok(Vec::new()),
        (Some(desired), None) => return Ok(vec![TunnelOp::Create(desired)]),
        (None, Some(actual)) => return Ok(vec![TunnelOp::Delete(actual.index)]),
        (Some(desired), Some(actual)) => (desired, actual),
    };
    let mut ops = Vec::new();
    if actual.tunnel != Some(desired.parameters()) || actual.mtu != desired.mtu || !actual.up {
        ops.push(TunnelOp::Change(actual.index, desired));
    }
    if !actual.addresses.contains(&desired.address()) {
        ops.push(TunnelOp::AddAddress(actual.index, desired.address()));
    }
    // A link-local address is the kernel's own doing, and harmless.
    let ours = |net: &&IpNet| kind.belongs(net.addr()) && !is_link_local(net.addr());
    let stale = actual.addresses.iter().filter(ours);
    let stale = stale.filter(|net| **net != desired.address());
    ops.extend(stale.map(|net| TunnelOp::RemoveAddress(actual.index, *net)));
    Ok(ops)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

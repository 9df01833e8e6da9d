//! rtnetlink messages to our values.
//!
//! Read by hand: it takes a fraction of the time that building the whole message with `netlink-packet-route` does, and one
//! attribute that a newer kernel shapes otherwise can't hide the link that carries it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::{
    FibRoute, Link, LinkIndex, Neighbour, NeighbourKey, NextHop, NexthopId, Route, RouteKey,
    RouteKind, TunnelParameters,
};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::frame;

/// `RTA_VIA`, which `libc` lacks.
const RTA_VIA: u16 = 18;
/// `RTA_NH_ID`, which `libc` lacks.
const RTA_NH_ID: u16 = 30;
/// `RTNH_F_ONLINK`.
const RTNH_F_ONLINK: u8 = 4;
/// `NDA_PROTOCOL`: who made a neighbour entry.
const NDA_PROTOCOL: u16 = 12;
/// `IFLA_INFO_KIND`.
const IFLA_INFO_KIND: u16 = 1;
/// `IFLA_INFO_DATA`.
const IFLA_INFO_DATA: u16 = 2;
/// `IFLA_IPTUN_*` (linux/if_tunnel.h).
mod iptun {
    pub(super) const LOCAL: u16 = 2;
    pub(super) const REMOTE: u16 = 3;
    pub(super) const TTL: u16 = 4;
    pub(super) const TOS: u16 = 5;
    pub(super) const FLAGS: u16 = 8;
    pub(super) const PMTUDISC: u16 = 10;
}
/// `IP6_TNL_F_*`: no encapsulation limit; traffic class and flow label of the inner packet.
const IGNORES_LIMIT: u32 = 1;
const INHERITS_CLASS: u32 = 6;
/// `IFLA_IFALIAS`.
const IFLA_IFALIAS: u16 = 20;

/// The attributes of a message whose family header is `header` octets long; a broken tail is ignored.
pub(crate) fn attributes(payload: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    frame::attributes(payload.get(header..).unwrap_or_default())
}

pub(crate) fn u32_of(octets: &[u8]) -> Option<u32> {
    octets
        .first_chunk()
        .map(|octets| u32::from_ne_bytes(*octets))
}

fn string(octets: &[u8]) -> String {
    let end = octets
        .iter()
        .position(|octet| *octet == 0)
        .unwrap_or(octets.len());
    String::from_utf8_lossy(&octets[..end]).into_owned()
}

pub(crate) fn address_of(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets
            .first_chunk()
            .map(|octets: &[u8; 4]| Ipv4Addr::from(*octets).into()),
        16 => octets
            .first_chunk()
            .map(|octets: &[u8; 16]| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

/// `RTM_NEWLINK` and `RTM_DELLINK` (`struct ifinfomsg`); addresses are not part of it.
pub(crate) fn link(payload: &[u8]) -> Option<Link> {
    let header: &[u8; 16] = payload.first_chunk()?;
    let flags = u32_of(&header[8..])?;
    let has = |flag: libc::c_int| flags & flag.unsigned_abs() != 0;
    let mut link = Link {
        index: u32_of(&header[4..])?,
        up: has(libc::IFF_UP),
        carrier: has(libc::IFF_LOWER_UP),
        loopback: has(libc::IFF_LOOPBACK),
        ..Link::default()
    };
    for (kind, value) in attributes(payload, 16) {
        match kind {
            libc::IFLA_IFNAME => link.name = string(value),
            libc::IFLA_MTU => link.mtu = u32_of(value)?,
            libc::IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_IFALIAS => link.alias = Some(string(value)),
            libc::IFLA_LINKINFO => {
                let find = |wanted| attributes(value, 0).find(|(kind, _)| *kind == wanted);
                link.kind = find(IFLA_INFO_KIND).map(|(_, value)| string(value));
                let data = find(IFLA_INFO_DATA).map(|(_, value)| value);
                link.tunnel = match (link.kind.as_deref(), data) {
                    (Some("ipip"), Some(data)) => Some(tunnel(data, false)),
                    (Some("ip6tnl"), Some(data)) => Some(tunnel(data, true)),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some(link)
}

/// The parameters of a tunnel over IPv4, or over IPv6.
fn tunnel(data: &[u8], ipv6: bool) -> TunnelParameters {
    let mut tunnel = TunnelParameters {
        local: None,
        remote: None,
        ttl: 0,
        inherits_class: false,
        strict: ipv6,
    };
    let address = |value| address_of(value).filter(|address| !address.is_unspecified());
    for (kind, value) in attributes(data, 0) {
        match kind {
            iptun::LOCAL => tunnel.local = address(value),
            iptun::REMOTE => tunnel.remote = address(value),
            iptun::TTL => tunnel.ttl = value.first().copied().unwrap_or_default(),
            iptun::TOS if !ipv6 => tunnel.inherits_class = value.first() == Some(&1),
            iptun::PMTUDISC if !ipv6 => tunnel.strict = value.first() != Some(&0),
            iptun::FLAGS if ipv6 => {
                let flags = u32_of(value).unwrap_or_default();
                tunnel.inherits_class = flags & INHERITS_CLASS == INHERITS_CLASS;
                tunnel.strict = flags & IGNORES_LIMIT == 0;
            }
            _ => {}
        }
    }
    tunnel
}

/// `RTM_NEWADDR` and `RTM_DELADDR` (`struct ifaddrmsg`): the link's own address with the length of its subnet.
pub(crate) fn address(payload: &[u8]) -> Option<(LinkIndex, IpNet)> {
    let header: &[u8; 8] = payload.first_chunk()?;
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(payload, 8) {
        match kind {
            libc::IFA_LOCAL => local = address_of(value),
            // On a point-to-point link the peer's; else, and always for IPv6, the link's own.
            libc::IFA_ADDRESS => other = address_of(value),
            _ => {}
        }
    }
    let address = IpNet::new(local.or(other)?, header[1]).ok()?;
    Some((u32_of(&header[4..])?, address))
}

/// A route as the kernel tells it, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) key: RouteKey,
    /// `rtm_protocol`.
    pub(crate) protocol: u8,
    /// The nexthop object that it points at. Then the route below has what the object says only where
    /// `net.ipv4.nexthop_compat_mode` is on.
    pub(crate) object: Option<NexthopId>,
    /// `None` for a kind that we have no word for: local, broadcast, unreachable, …
    pub(crate) route: Option<Route>,
}

impl KernelRoute {
    /// The route as one of ours would stand there.
    pub(crate) fn fib(self) -> Option<FibRoute> {
        let route = self.route?;
        match self.object {
            Some(id) if route.source.is_none() => Some(FibRoute::Object(id)),
            // None of ours has both.
            Some(_) => None,
            None => Some(FibRoute::Inline(route)),
        }
    }
}

/// The protocol of a route message, without reading the rest.
pub(crate) fn route_protocol(payload: &[u8]) -> Option<u8> {
    payload.get(5).copied()
}

/// The destination of a route message, without reading the rest.
pub(crate) fn destination(payload: &[u8]) -> Option<IpNet> {
    let header: &[u8; 12] = payload.first_chunk()?;
    let destination = attributes(payload, 12).find(|(kind, _)| *kind == libc::RTA_DST);
    let address = match (destination, libc::c_int::from(header[0])) {
        (Some((_, value)), _) => address_of(value)?,
        (None, libc::AF_INET) => Ipv4Addr::UNSPECIFIED.into(),
        (None, _) => Ipv6Addr::UNSPECIFIED.into(),
    };
    IpNet::new(address, header[1]).ok()
}

/// `RTM_NEWROUTE` and `RTM_DELROUTE` (`struct rtmsg`). `None` for what can't share a key with a route of ours: cached clones,
/// and routes with a TOS or a source prefix.
pub(crate) fn route(payload: &[u8]) -> Option<KernelRoute> {
    let header: &[u8; 12] = payload.first_chunk()?;
    let [
        family,
        length,
        source_length,
        tos,
        table,
        protocol,
        _scope,
        kind,
        ..,
    ] = *header;
    let flags = u32_of(&header[8..])?;
    if source_length != 0 || tos != 0 || flags & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let any = match libc::c_int::from(family) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut destination, mut priority, mut table) = (any, 0, u32::from(table));
    let (mut source, mut multipath, mut object) = (None, None, None);
    let mut hop = NextHop {
        via: None,
        link: 0,
        onlink: flags & u32::from(RTNH_F_ONLINK) != 0,
    };
    for (kind, value) in attributes(payload, 12) {
        match kind {
            libc::RTA_DST => destination = address_of(value)?,
            libc::RTA_PRIORITY => priority = u32_of(value)?,
            libc::RTA_TABLE => table = u32_of(value)?,
            libc::RTA_PREFSRC => source = address_of(value),
            RTA_NH_ID => object = u32_of(value),
            libc::RTA_OIF => hop.link = u32_of(value)?,
            libc::RTA_MULTIPATH => multipath = Some(next_hops(value)),
            kind => hop.via = gateway(kind, value).or(hop.via),
        }
    }
    let kind = match kind {
        libc::RTN_UNICAST => Some(RouteKind::Unicast),
        libc::RTN_BLACKHOLE => Some(RouteKind::Blackhole),
        _ => None,
    };
    let route = kind.map(|kind| {
        let next_hops = match (kind, multipath) {
            // IPv6 says that a blackhole is on the loopback device.
            (RouteKind::Blackhole, _) => SmallVec::new(),
            (RouteKind::Unicast, Some(hops)) => hops,
            // The object says all, and is not written out.
            (RouteKind::Unicast, None) if object.is_some() && hop.link == 0 => SmallVec::new(),
            (RouteKind::Unicast, None) => SmallVec::from_buf([hop]),
        };
        Route {
            kind,
            next_hops,
            source,
        }
    });
    let key = RouteKey {
        prefix: IpNet::new(destination, length).ok()?,
        priority,
        table,
    };
    Some(KernelRoute {
        key,
        protocol,
        object,
        route,
    })
}

/// `RTA_MULTIPATH` (`struct rtnexthop`), in order: the kernel keeps the order in which it was told.
fn next_hops(mut octets: &[u8]) -> SmallVec<[NextHop; 1]> {
    let mut hops = SmallVec::new();
    while let Some(header) = octets.first_chunk::<8>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let (Some(hop), Some(link)) = (octets.get(..length), u32_of(&header[4..])) else {
            break;
        };
        let via = attributes(hop, 8).find_map(|(kind, value)| gateway(kind, value));
        hops.push(NextHop {
            via,
            link,
            onlink: header[2] & RTNH_F_ONLINK != 0,
        });
        octets = octets
            .get(length.next_multiple_of(4).max(8)..)
            .unwrap_or_default();
    }
    hops.sort_unstable();
    hops
}

/// `RTA_GATEWAY`, or `RTA_VIA` (`struct rtvia`: a family, then the address).
fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        libc::RTA_GATEWAY => address_of(value),
        RTA_VIA => address_of(value.get(2..)?),
        _ => None,
    }
}

/// A neighbour entry as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelNeighbour {
    pub(crate) key: NeighbourKey,
    /// `NDA_PROTOCOL`, 0 for the kernel's own.
    pub(crate) protocol: u8,
    /// The entry, when it is permanent.
    pub(crate) permanent: Option<Neighbour>,
}

/// `RTM_NEWNEIGH` and `RTM_DELNEIGH` (`struct ndmsg`).
pub(crate) fn neighbour(payload: &[u8]) -> Option<KernelNeighbour> {
    let header: &[u8; 12] = payload.first_chunk()?;
    let permanent = u16::from_ne_bytes([header[8], header[9]]) & libc::NUD_PERMANENT != 0;
    let (mut address, mut mac, mut protocol) = (None, None, 0);
    for (kind, value) in attributes(payload, 12) {
        match kind {
            libc::NDA_DST => address = address_of(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            NDA_PROTOCOL => protocol = *value.first()?,
            _ => {}
        }
    }
    let key = NeighbourKey {
        link: u32_of(&header[4..])?,
        address: address?,
    };
    Some(KernelNeighbour {
        key,
        protocol,
        permanent: mac.filter(|_| permanent).map(|mac| Neighbour { mac }),
    })
}

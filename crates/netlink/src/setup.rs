//! Links, addresses and routes made by hand, for laboratories and tests: what one would type with `ip`.
//!
//! Each function acts in the network namespace that its socket was opened in.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use dataplane::{LinkIndex, NextHop, Route, RouteKey, RouteKind};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkMessage};
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth};
use rustix::io::Errno;

use crate::{Error, Request, Socket, encode};

/// The loopback device of every network namespace.
pub const LOOPBACK: LinkIndex = 1;
/// `RTPROT_STATIC`: a route that the administrator made.
const STATIC: u8 = 4;
/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// One end of a veth pair.
#[derive(Debug, Clone, Copy)]
pub struct VethEnd<'a> {
    /// Its name, at most 15 octets.
    pub name: &'a str,
    /// The network namespace to make it in; `None` for the socket's. Made there at once: moving it later takes the kernel a
    /// hundred times as long.
    pub netns: Option<BorrowedFd<'a>>,
    /// Its MAC address; `None` for a random one.
    pub mac: Option<[u8; 6]>,
    /// Its MTU in octets; `None` for 1500.
    pub mtu: Option<u32>,
}

impl<'a> VethEnd<'a> {
    /// An end in the socket's own namespace.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            netns: None,
            mac: None,
            mtu: None,
        }
    }

    /// The same in another namespace.
    #[must_use]
    pub fn in_netns(self, netns: BorrowedFd<'a>) -> Self {
        Self {
            netns: Some(netns),
            ..self
        }
    }

    fn describe<T>(self, mut link: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        if let Some(netns) = self.netns {
            link = link.setns_by_fd(netns.as_raw_fd());
        }
        if let Some(mac) = self.mac {
            link = link.address(mac.to_vec());
        }
        if let Some(mtu) = self.mtu {
            link = link.mtu(mtu);
        }
        link
    }
}

/// Makes a veth pair; both ends are down.
///
/// # Errors
/// `EEXIST` when one of the names is taken in its namespace, `EPERM`.
pub fn create_veth(socket: &mut Socket, end: VethEnd<'_>, peer: VethEnd<'_>) -> Result<(), Error> {
    let peer_message = peer.describe(LinkUnspec::new_with_name(peer.name)).build();
    let link = end
        .describe(LinkVeth::new(end.name, peer.name))
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message)));
    socket.request(Request::create(RouteNetlinkMessage::NewLink(link.build())))
}

/// Makes a bridge, down, without spanning tree.
///
/// # Errors
/// `EEXIST` when the name is taken, `EPERM`.
pub fn create_bridge(socket: &mut Socket, name: &str) -> Result<(), Error> {
    socket.request(Request::create(RouteNetlinkMessage::NewLink(
        LinkBridge::new(name).build(),
    )))
}

/// The index of a link.
///
/// # Errors
/// [`Error::NoLink`] where there is none of this name.
pub fn link_index(socket: &mut Socket, name: &str) -> Result<LinkIndex, Error> {
    let query = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build());
    let answers = socket
        .query(Request::new(query))
        .map_err(|error| no_link(error, name))?;
    match answers.first() {
        Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
        _ => Err(Error::NoLink(name.into())),
    }
}

/// All links with their names, in order of index.
///
/// # Errors
/// As [`Socket::dump`].
pub fn list_links(socket: &mut Socket) -> Result<Vec<(LinkIndex, String)>, Error> {
    socket.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |links: &mut Vec<_>, reply| {
            if let Some(link) = crate::decode::link(reply.payload) {
                links.push((link.index, link.name));
            }
        },
    )
}

/// Deletes a link; the other end of a veth pair goes with it.
///
/// # Errors
/// `ENODEV` when it is gone already.
pub fn delete_link(socket: &mut Socket, link: LinkIndex) -> Result<(), Error> {
    socket.request(Request::new(RouteNetlinkMessage::DelLink(
        LinkUnspec::new_with_index(link).build(),
    )))
}

/// Sets a link up.
///
/// # Errors
/// `ENODEV`.
pub fn set_up(socket: &mut Socket, link: LinkIndex) -> Result<(), Error> {
    change(socket, LinkUnspec::new_with_index(link).up())
}

/// Sets a link down; the kernel flushes its routes.
///
/// # Errors
/// `ENODEV`.
pub fn set_down(socket: &mut Socket, link: LinkIndex) -> Result<(), Error> {
    change(socket, LinkUnspec::new_with_index(link).down())
}

/// Gives a link another name.
///
/// # Errors
/// `ENODEV`, `EEXIST`, and `EBUSY` on kernels before 6.2 while it is up.
pub fn rename(socket: &mut Socket, link: LinkIndex, name: &str) -> Result<(), Error> {
    change(socket, LinkUnspec::new_with_index(link).name(name))
}

/// Sets the MTU in octets.
///
/// # Errors
/// `ENODEV`, `EINVAL` outside what the device can.
pub fn set_mtu(socket: &mut Socket, link: LinkIndex, mtu: u32) -> Result<(), Error> {
    change(socket, LinkUnspec::new_with_index(link).mtu(mtu))
}

/// Makes a link a port of a bridge.
///
/// # Errors
/// `ENODEV`, `EOPNOTSUPP` when the second link is no bridge.
pub fn enslave(socket: &mut Socket, link: LinkIndex, bridge: LinkIndex) -> Result<(), Error> {
    change(socket, LinkUnspec::new_with_index(link).controller(bridge))
}

/// Sets the alias (`ip link set … alias`), at most 255 octets.
///
/// # Errors
/// `ENODEV`, `EINVAL` when it is too long.
pub fn set_alias(socket: &mut Socket, link: LinkIndex, alias: &str) -> Result<(), Error> {
    change(socket, LinkUnspec::new_with_index(link).alias(alias))
}

/// Adds an address with its subnet. IPv6: without duplicate address detection, so that it can be used at once.
///
/// # Errors
/// `EEXIST`, `ENODEV`.
pub fn add_address(socket: &mut Socket, link: LinkIndex, address: IpNet) -> Result<(), Error> {
    let mut message = self::address(link, address);
    match address {
        IpNet::V4(v4) if v4.prefix_len() < 31 => message
            .attributes
            .push(AddressAttribute::Broadcast(v4.broadcast())),
        IpNet::V4(_) => {}
        IpNet::V6(_) => message.header.flags |= AddressHeaderFlags::Nodad,
    }
    socket.request(Request::create(RouteNetlinkMessage::NewAddress(message)))
}

/// Removes an address.
///
/// # Errors
/// `EADDRNOTAVAIL` when the link has no such address.
pub fn delete_address(socket: &mut Socket, link: LinkIndex, address: IpNet) -> Result<(), Error> {
    socket.request(Request::new(RouteNetlinkMessage::DelAddress(
        self::address(link, address),
    )))
}

fn address(link: LinkIndex, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = encode::family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = link;
    message
        .attributes
        .push(AddressAttribute::Local(address.addr()));
    message
        .attributes
        .push(AddressAttribute::Address(address.addr()));
    message
}

/// Adds or replaces a static route in the main table with the metric that the kernel takes by default.
///
/// # Errors
/// `ENETUNREACH` when a gateway is not on its link, `ENETDOWN` while the link is down.
pub fn set_route(socket: &mut Socket, prefix: IpNet, next_hops: &[NextHop]) -> Result<(), Error> {
    let mut route = Route {
        kind: RouteKind::Unicast,
        next_hops: next_hops.into(),
        source: None,
    };
    if next_hops.is_empty() {
        route.kind = RouteKind::Blackhole;
    }
    let key = RouteKey {
        prefix: prefix.trunc(),
        priority: 0,
        table: MAIN,
    };
    socket.request(Request::set(RouteNetlinkMessage::NewRoute(encode::route(
        &key, &route, STATIC,
    ))))
}

/// Adds or replaces the IPv4 or IPv6 default route (as the gateway is) via a gateway on a link.
///
/// # Errors
/// As [`set_route`].
pub fn set_default_route(socket: &mut Socket, via: IpAddr, link: LinkIndex) -> Result<(), Error> {
    let any = match via {
        IpAddr::V4(_) => IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    set_route(
        socket,
        any,
        &[NextHop {
            via: Some(via),
            link,
            onlink: false,
        }],
    )
}

/// Removes a static route of the main table.
///
/// # Errors
/// `ESRCH` when there is none.
pub fn delete_route(socket: &mut Socket, prefix: IpNet) -> Result<(), Error> {
    let key = RouteKey {
        prefix: prefix.trunc(),
        priority: 0,
        table: MAIN,
    };
    socket.request(Request::new(encode::delete_route(&key, None, STATIC)))
}

fn change(socket: &mut Socket, link: LinkMessageBuilder<LinkUnspec>) -> Result<(), Error> {
    socket.request(Request::new(RouteNetlinkMessage::SetLink(link.build())))
}

/// `ENODEV` with the name of what was asked for.
fn no_link(error: Error, name: &str) -> Error {
    if error.kernel_errno() == Some(Errno::NODEV) {
        Error::NoLink(name.into())
    } else {
        error
    }
}

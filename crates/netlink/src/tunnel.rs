//! Tunnel devices: [`dataplane::TunnelOp`] carried to the kernel.
//!
//! A kernel that has the driver as a module loads it when the first device is asked for (`rtnl-link-ipip`, `rtnl-link-ip6tnl`);
//! that takes CAP_NET_ADMIN and nothing else of ours. The driver's own device (`tunl0`, `ip6tnl0`) appears with it, down, and is not
//! touched.

use dataplane::{LinkIndex, Tunnel, TunnelKind, TunnelOp};
use netlink_packet_core::{DefaultNla, NLA_F_NESTED};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoIpTunnel, InfoKind,
    Ip6TunnelFlags, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;

use crate::{Error, Request, Socket, setup};

/// `IFLA_INET_CONF` and settings in it (linux/ip.h).
const IFLA_INET_CONF: u16 = 1;
const FORWARDING: u16 = 1;
const RP_FILTER: u16 = 8;
/// Any interface will do for the way back: while one node tunnels already and another one not yet, packets come by the one and go
/// by the other.
const LOOSE: u32 = 2;

/// Carries one operation out.
///
/// # Errors
/// `EOPNOTSUPP` where the kernel has no such driver, not even as a module; `EEXIST` when the name is taken; `EPERM`.
pub fn apply(socket: &mut Socket, op: &TunnelOp) -> Result<(), Error> {
    match *op {
        TunnelOp::Create(tunnel) => {
            let mut link = described(&tunnel);
            let name = tunnel.kind.device();
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            socket.request(Request::create(RouteNetlinkMessage::NewLink(link)))?;
            let index = setup::link_index(socket, name)?;
            configure(socket, index, tunnel.kind)?;
            setup::add_address(socket, index, tunnel.address())
        }
        TunnelOp::Change(index, tunnel) => {
            let mut link = described(&tunnel);
            link.header.index = index;
            socket.request(Request::new(RouteNetlinkMessage::NewLink(link)))?;
            configure(socket, index, tunnel.kind)
        }
        TunnelOp::AddAddress(index, address) => {
            done_already(setup::add_address(socket, index, address), Errno::EXIST)
        }
        TunnelOp::RemoveAddress(index, address) => done_already(
            setup::delete_address(socket, index, address),
            Errno::ADDRNOTAVAIL,
        ),
        TunnelOp::Delete(index) => done_already(setup::delete_link(socket, index), Errno::NODEV),
    }
}

/// Whether this error says that the kernel has no such driver.
#[must_use]
pub fn is_unsupported(error: &Error) -> bool {
    error.kernel_errno() == Some(Errno::OPNOTSUPP)
}

fn done_already(result: Result<(), Error>, errno: Errno) -> Result<(), Error> {
    match result {
        Err(error) if error.kernel_errno() == Some(errno) => Ok(()),
        result => result,
    }
}

/// What a device should be like, but for its name.
fn described(tunnel: &Tunnel) -> LinkMessage {
    let mut data = vec![
        InfoIpTunnel::Local(tunnel.local),
        // The inner packet's, so that its hops count on, as they would on the bare path.
        InfoIpTunnel::Ttl(0),
    ];
    let kind = match tunnel.kind {
        TunnelKind::Ipip => {
            data.extend([
                // The inner TOS.
                InfoIpTunnel::Tos(1),
                inner_protocol(4),
                // Don't Fragment as in the inner packet: what must not be fragmented is not, and path MTU discovery goes on
                // inside; what may be need not be lost.
                InfoIpTunnel::PMtuDisc(false),
            ]);
            InfoKind::IpIp
        }
        TunnelKind::Ip6ip6 => {
            data.extend([
                inner_protocol(41),
                // Without the option that counts how deeply packets are wrapped (RFC 2473 §4.1.1): eight octets of each packet.
                InfoIpTunnel::Ipv6Flags(
                    Ip6TunnelFlags::IgnEncapLimit
                        | Ip6TunnelFlags::UseOrigTclass
                        | Ip6TunnelFlags::UseOrigFlowlabel,
                ),
            ]);
            InfoKind::Ip6Tnl
        }
    };
    let mut link = LinkMessage::default();
    link.attributes = vec![
        LinkAttribute::Mtu(tunnel.mtu),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(kind),
            LinkInfo::Data(InfoData::IpTunnel(data)),
        ]),
    ];
    link
}

/// `IFLA_IPTUN_PROTO`: the only protocol that is wrapped and unwrapped (`IPPROTO_IPIP`, `IPPROTO_IPV6`).
fn inner_protocol(number: u8) -> InfoIpTunnel {
    const IFLA_IPTUN_PROTO: u16 = 9;
    InfoIpTunnel::Other(DefaultNla::new(IFLA_IPTUN_PROTO, vec![number]))
}

/// Settings that are no part of the device, and up.
fn configure(socket: &mut Socket, index: LinkIndex, kind: TunnelKind) -> Result<(), Error> {
    // A packet has but one address to come from here; the kernel need not make up another. Fails where IPv6 is off.
    let no_address = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
    let mut results = socket.request_batch([
        set(index, no_address),
        set(index, AfSpecUnspec::Inet(vec![ipv4_settings()])),
        up(index),
    ]);
    if kind == TunnelKind::Ipip && !results.is_empty() {
        results.remove(0).ok();
    }
    results.into_iter().collect()
}

fn ipv4_settings() -> AfSpecInet {
    let mut nested = Vec::new();
    for (setting, value) in [(FORWARDING, 1), (RP_FILTER, LOOSE)] {
        nested.extend(8u16.to_ne_bytes());
        nested.extend(setting.to_ne_bytes());
        nested.extend(value.to_ne_bytes());
    }
    AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, nested))
}

fn set(index: LinkIndex, settings: AfSpecUnspec) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes
        .push(LinkAttribute::AfSpecUnspec(vec![settings]));
    Request::new(RouteNetlinkMessage::SetLink(link))
}

fn up(index: LinkIndex) -> Request {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    Request::new(RouteNetlinkMessage::SetLink(link))
}

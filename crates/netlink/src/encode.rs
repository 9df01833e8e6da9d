//! Our values to rtnetlink messages.

use std::net::IpAddr;

use dataplane::{FibRoute, Neighbour, NeighbourKey, NextHop, Route, RouteKey, RouteKind};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::socket::Message;

/// `RT_TABLE_COMPAT`: the header's table where the number does not fit it.
const RT_TABLE_COMPAT: u8 = 252;

/// The address family of an address.
pub(crate) fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

/// `RTA_NH_ID`, which `libc` lacks.
const RTA_NH_ID: u16 = 30;

/// A route as `RTM_NEWROUTE` wants it, as it is to stand in the kernel.
pub(crate) fn fib_route(key: &RouteKey, standing: &FibRoute, protocol: u8) -> Message {
    match standing {
        FibRoute::Inline(inline) => {
            RouteNetlinkMessage::NewRoute(route(key, inline, protocol)).into()
        }
        FibRoute::Object(id) => {
            let (scope, kind) = (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
            let mut payload = keyed_octets(key, protocol, scope, kind);
            attribute(&mut payload, RTA_NH_ID, &id.to_ne_bytes());
            Message::Raw {
                kind: libc::RTM_NEWROUTE,
                payload,
            }
        }
    }
}

/// What two out of three of our messages are, straight to octets: there may be a hundred thousand of them.
fn keyed_octets(key: &RouteKey, protocol: u8, scope: u8, kind: u8) -> Vec<u8> {
    let family = if key.prefix.addr().is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let mut payload = Vec::with_capacity(56);
    payload.extend([
        u8::try_from(family).unwrap_or_default(),
        key.prefix.prefix_len(),
        0,
        0,
        u8::try_from(key.table).unwrap_or(RT_TABLE_COMPAT),
        protocol,
        scope,
        kind,
    ]);
    payload.extend([0; 4]);
    match key.prefix.network() {
        IpAddr::V4(net) => attribute(&mut payload, libc::RTA_DST, &net.octets()),
        IpAddr::V6(net) => attribute(&mut payload, libc::RTA_DST, &net.octets()),
    }
    if key.table > u32::from(u8::MAX) {
        attribute(&mut payload, libc::RTA_TABLE, &key.table.to_ne_bytes());
    }
    if key.priority != 0 {
        attribute(
            &mut payload,
            libc::RTA_PRIORITY,
            &key.priority.to_ne_bytes(),
        );
    }
    payload
}

/// Appends an attribute (`struct nlattr`), padded to four octets.
pub(crate) fn attribute(payload: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    payload.extend(length.to_ne_bytes());
    payload.extend(kind.to_ne_bytes());
    payload.extend(value);
    payload.resize(payload.len().next_multiple_of(4), 0);
}

/// A route as `RTM_NEWROUTE` wants it, with its next hops in itself.
pub(crate) fn route(key: &RouteKey, route: &Route, protocol: u8) -> RouteMessage {
    let mut message = keyed(key, protocol);
    message.header.kind = kind(route.kind);
    // What needs no gateway is on the link (`ip-route(8)`, scope). IPv6 ignores the scope.
    let direct = route.next_hops.first().is_some_and(|hop| hop.via.is_none());
    message.header.scope = if direct {
        RouteScope::Link
    } else {
        RouteScope::Universe
    };
    let attributes = &mut message.attributes;
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    match &route.next_hops[..] {
        [] => {}
        [hop] => {
            attributes.push(RouteAttribute::Oif(hop.link));
            attributes.extend(gateway(key, hop));
            if hop.onlink {
                message.header.flags |= RouteFlags::Onlink;
            }
        }
        hops => attributes.push(RouteAttribute::MultiPath(
            hops.iter().map(|hop| next_hop(key, hop)).collect(),
        )),
    }
    message
}

/// A route as `RTM_DELROUTE` wants it: by its key, its protocol, so that no other program's goes, and its kind where known.
pub(crate) fn delete_route(key: &RouteKey, route_kind: Option<RouteKind>, protocol: u8) -> Message {
    let kind = match route_kind {
        Some(RouteKind::Unicast) => libc::RTN_UNICAST,
        Some(RouteKind::Blackhole) => libc::RTN_BLACKHOLE,
        None => libc::RTN_UNSPEC,
    };
    Message::Raw {
        kind: libc::RTM_DELROUTE,
        payload: keyed_octets(key, protocol, libc::RT_SCOPE_NOWHERE, kind),
    }
}

/// What all additions share.
fn keyed(key: &RouteKey, protocol: u8) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(key.prefix.addr()),
        destination_prefix_length: key.prefix.prefix_len(),
        table: u8::try_from(key.table).unwrap_or(RT_TABLE_COMPAT),
        protocol: RouteProtocol::from(protocol),
        ..RouteHeader::default()
    };
    message.attributes = Vec::with_capacity(5);
    message
        .attributes
        .push(RouteAttribute::Destination(key.prefix.network().into()));
    if key.table > u32::from(u8::MAX) {
        message.attributes.push(RouteAttribute::Table(key.table));
    }
    if key.priority != 0 {
        message
            .attributes
            .push(RouteAttribute::Priority(key.priority));
    }
    message
}

fn kind(kind: RouteKind) -> RouteType {
    match kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Blackhole => RouteType::BlackHole,
    }
}

/// The gateway: `RTA_VIA` where its family is not the destination's (RFC 5549).
fn gateway(key: &RouteKey, hop: &NextHop) -> Option<RouteAttribute> {
    let via = hop.via?;
    Some(if via.is_ipv4() == key.prefix.addr().is_ipv4() {
        RouteAttribute::Gateway(via.into())
    } else {
        RouteAttribute::Via(via.into())
    })
}

fn next_hop(key: &RouteKey, hop: &NextHop) -> RouteNextHop {
    let mut message = RouteNextHop::default();
    message.interface_index = hop.link;
    if hop.onlink {
        message.flags = RouteNextHopFlags::Onlink;
    }
    message.attributes.extend(gateway(key, hop));
    message
}

/// A permanent neighbour entry with our protocol number on it (`NDA_PROTOCOL`), by which it is known as ours.
pub(crate) fn neighbour(key: &NeighbourKey, neighbour: Option<&Neighbour>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(key.address);
    message.header.ifindex = key.link;
    message
        .attributes
        .push(NeighbourAttribute::Destination(key.address.into()));
    if let Some(Neighbour { mac }) = neighbour {
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        message
            .attributes
            .push(NeighbourAttribute::Protocol(RouteProtocol::from(
                dataplane::ROUTE_PROTOCOL,
            )));
    }
    message
}

/// A dump request for the routes of one family, filtered by the kernel. Only the header may be set (strict checking).
pub(crate) fn route_dump(family: AddressFamily, table: u8, protocol: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.table = table;
    message.header.protocol = RouteProtocol::from(protocol);
    RouteNetlinkMessage::GetRoute(message)
}

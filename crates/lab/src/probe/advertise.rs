//! Playing router towards a link (RFC 4861 §4.2).

use std::net::{Ipv6Addr, SocketAddrV6};

use anyhow::Result;
use ipnet::Ipv6Net;
use netlink::setup;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Namespace, net};

/// All nodes of a link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Tells everybody on a link to make themselves an address of `prefix`, and to take us for their default router. The
/// interface must have a link-local address.
///
/// # Errors
/// When it can't be sent.
pub fn advertise(from: &Namespace, ifname: &str, prefix: Ipv6Net) -> Result<()> {
    let index = setup::link_index(&mut net::socket(from)?, ifname)?;
    // Router advertisement; hop limit 64; a router for half an hour.
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800u16.to_be_bytes());
    message.extend([0; 8]);
    // Prefix information (§4.6.2): on this link, and for addresses of everybody's own.
    message.extend([3, 4, prefix.prefix_len(), 0b1100_0000]);
    message.extend(3600u32.to_be_bytes());
    message.extend(1800u32.to_be_bytes());
    message.extend([0; 4]);
    message.extend(prefix.network().octets());
    from.run(|| {
        // The kernel fills in the checksum of ICMPv6.
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // What has come through a router is no neighbour's word.
        socket.set_multicast_hops_v6(255)?;
        let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
        socket.send_to(&message, &to.into())?;
        Ok(())
    })
}

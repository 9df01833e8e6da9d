//! Is a pod still wired as it was?

use std::net::IpAddr;

use dataplane::{Link, LinkIndex};
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};

use crate::{Error, Request, Socket, decode, encode};

/// What is not as it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No such link, or it is down.
    #[error("{place} has no interface {name} that is up")]
    Link {
        /// "the host" or "the container".
        place: &'static str,
        /// The interface's name.
        name: String,
    },
    /// The pod's end has lost an address.
    #[error("{name} has lost its address {address}")]
    Address {
        /// The interface's name.
        name: String,
        /// The address.
        address: IpAddr,
    },
    /// The host has no route to the pod, or another one.
    #[error("the host does not route {address} to {name}")]
    Route {
        /// The host veth's name.
        name: String,
        /// The pod's address.
        address: IpAddr,
    },
    /// The pod has lost a default route, or it goes elsewhere.
    #[error("the container has no default route via {gateway} on {name}")]
    DefaultRoute {
        /// The interface's name.
        name: String,
        /// Where the route should go.
        gateway: IpAddr,
    },
    /// The kernel could not be asked.
    #[error("{0}")]
    Kernel(#[from] Error),
}

/// Checks both ends of a pod, its addresses, the host's routes to them, and its default routes via `gateways`. What others may have changed or added since
/// (MTU, MAC address, further routes) is their business.
///
/// # Errors
/// The first thing that is missing.
pub fn check(
    host: &mut Socket,
    pod: &mut Socket,
    host_ifname: &str,
    ifname: &str,
    addresses: &[IpAddr],
    gateways: &[IpAddr],
) -> Result<(), CheckError> {
    let host_index = link_up(host, "the host", host_ifname)?;
    let pod_index = link_up(pod, "the container", ifname)?;
    let present = pod.dump(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        |present: &mut Vec<IpAddr>, reply| {
            present.extend(
                decode::address(reply.payload)
                    .filter(|(link, _)| *link == pod_index)
                    .map(|(_, address)| address.addr()),
            );
        },
    )?;
    for &address in addresses {
        if !present.contains(&address) {
            return Err(CheckError::Address {
                name: ifname.to_owned(),
                address,
            });
        }
        if route_link(host, address)? != Some(host_index) {
            return Err(CheckError::Route {
                name: host_ifname.to_owned(),
                address,
            });
        }
    }
    let present = default_gateways(pod, pod_index)?;
    match gateways.iter().find(|gateway| !present.contains(gateway)) {
        Some(gateway) => Err(CheckError::DefaultRoute {
            name: ifname.to_owned(),
            gateway: *gateway,
        }),
        None => Ok(()),
    }
}

/// The gateways of all default routes through a link.
fn default_gateways(socket: &mut Socket, link: LinkIndex) -> Result<Vec<IpAddr>, Error> {
    socket.dump(
        RouteNetlinkMessage::GetRoute(RouteMessage::default()),
        |gateways: &mut Vec<IpAddr>, reply| {
            let Some(found) = decode::route(reply.payload) else {
                return;
            };
            let hops = found.route.into_iter().flat_map(|route| route.next_hops);
            let ours = hops.filter(|hop| found.key.prefix.prefix_len() == 0 && hop.link == link);
            gateways.extend(ours.filter_map(|hop| hop.via));
        },
    )
}

/// The index of a link that is up.
fn link_up(socket: &mut Socket, place: &'static str, name: &str) -> Result<LinkIndex, CheckError> {
    let links = socket.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |links: &mut Vec<Link>, reply| {
            links.extend(decode::link(reply.payload).filter(|link| link.name == name && link.up));
        },
    )?;
    links
        .first()
        .map(|link| link.index)
        .ok_or_else(|| CheckError::Link {
            place,
            name: name.to_owned(),
        })
}

/// The link that the kernel's best route to an address goes through.
fn route_link(socket: &mut Socket, address: IpAddr) -> Result<Option<LinkIndex>, Error> {
    let mut message = RouteMessage::default();
    message.header.address_family = encode::family(address);
    message.header.destination_prefix_length = IpNet::from(address).prefix_len();
    message
        .attributes
        .push(RouteAttribute::Destination(address.into()));
    let answers = match socket.query(Request::new(RouteNetlinkMessage::GetRoute(message))) {
        Ok(answers) => answers,
        // No route at all (ENETUNREACH, ESRCH), or a blackhole (EINVAL): the kernel answers with the packet's fate.
        Err(Error::Kernel { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(answers.iter().find_map(|answer| {
        let RouteNetlinkMessage::NewRoute(route) = answer else {
            return None;
        };
        let link = |attribute: &RouteAttribute| {
            if let RouteAttribute::Oif(index) = attribute {
                Some(*index)
            } else {
                None
            }
        };
        route.attributes.iter().find_map(link)
    }))
}

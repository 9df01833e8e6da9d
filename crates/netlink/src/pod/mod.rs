//! Wiring a pod: a veth pair, one end on the host and one in the pod's network namespace.
//!
//! The pod's end has its address alone (/32, /128) and a default route via a gateway that no host has ([`gateway`]). Both
//! ends know each other's MAC address by a permanent neighbour entry, so nothing is ever asked by ARP or neighbour
//! discovery, and nothing can be answered wrongly. The host's entry and its /32 route are not made here: they are the
//! dataplane's, which keeps them as they should be and must be their one writer.
//!
//! IPv6 needs no waiting either. Addresses skip duplicate address detection, for nobody else is on the link; the pod's
//! link-local address is made here as well, since the kernel would detect duplicates of its own.
//!
//! Three `sendmsg` wire a pod. The pair is born with its peer in the pod's namespace (moving it there later takes the
//! kernel a hundred times as long); then the host's end is configured, then the pod's through a socket that was opened
//! inside its namespace. The kernel frees veth, addresses and routes together, so taking a pod down is deleting one link.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use dataplane::{
    LinkIndex, Neighbour, NeighbourKey, NextHop, ROUTE_PROTOCOL, Route, RouteKey, RouteKind,
};
use ipnet::IpNet;
use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_ECHO};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::NeighbourMessage;
use rustix::io::Errno;

use crate::{Error, Request, Socket, decode, encode, setup};

mod check;
mod ready;
mod record;
#[cfg(test)]
mod tests;
mod watch;

pub use check::{CheckError, check};
pub use record::{Record, RecordError};
pub use watch::{Gone, Watch};

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;
/// The link group that condemned veths are put into, to be deleted with one request ("mgyd").
const CONDEMNED: u32 = 0x6d67_7964;

/// What a pod's end and the host's end are to be like.
#[derive(Debug, Clone, Copy)]
pub struct Wiring<'a> {
    /// Name of the host's end.
    pub host_ifname: &'a str,
    /// MAC address of the host's end.
    pub host_mac: [u8; 6],
    /// Name of the pod's end.
    pub ifname: &'a str,
    /// MAC address of the pod's end.
    pub mac: [u8; 6],
    /// MTU of both in octets.
    pub mtu: u32,
    /// The pod's addresses.
    pub addresses: &'a [IpAddr],
    /// Whether the pod's default routes go here.
    pub default_route: bool,
    /// Whether the pod may send from addresses that are not its own.
    pub spoofing: bool,
    /// Alias of the host's end: a [`Record`].
    pub alias: &'a str,
    /// The pod's network namespace.
    pub netns: BorrowedFd<'a>,
}

/// A pod that is wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wired {
    /// Index of the host's end.
    pub host: LinkIndex,
    /// Index of the pod's end, in its namespace.
    pub pod: LinkIndex,
}

/// Why a pod was not wired. Nothing is left of the attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The pod has an interface of this name already.
    #[error("the container has an interface {0} already")]
    InterfaceExists(String),
    /// The host has a link of this name already.
    #[error("the host has a link {0} already")]
    HostLinkExists(String),
    /// An end does not come up.
    #[error("{0} is up, and the kernel does not let it carry packets")]
    NoCarrier(String),
    /// An IPv6 address stays tentative.
    #[error("{0} is not usable: the kernel keeps it tentative")]
    NotUsable(Ipv6Addr),
    /// The kernel refused.
    #[error("{step}: {error}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// Its answer.
        error: Error,
    },
}

/// A host veth of ours, as found in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Its index.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// What its alias says; `None` for what a crash left between making and naming it.
    pub record: Option<Record>,
}

/// The gateway that a pod's default route goes to. Nobody has the address; the host's MAC address answers for it.
#[must_use]
pub fn gateway(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => Ipv4Addr::new(169, 254, 1, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(),
    }
}

/// Wires a pod. `host` is a socket of the host's namespace, `pod` one of the pod's.
///
/// # Errors
/// When a name is taken or the kernel refuses; what was done until then is undone.
pub fn attach(
    host: &mut Socket,
    pod: &mut Socket,
    wiring: &Wiring<'_>,
) -> Result<Wired, AttachError> {
    let wired = create(host, wiring)?;
    let done = configure_host(host, wired.host, wiring)
        .and_then(|()| configure_pod(pod, wired.pod, wiring))
        .and_then(|()| become_ready(host, pod, wired, wiring));
    if let Err(error) = done {
        // That this may fail too changes nothing for the caller: the link is gone with its namespace then, or is found
        // by its alias at the next start.
        setup::delete_link(host, wired.host).ok();
        return Err(error);
    }
    Ok(wired)
}

/// Deletes host veths by their names, with all that hangs on them. Links that are not there are fine.
///
/// The kernel takes some 20 ms for one and not much more for a hundred: they go by one request.
///
/// # Errors
/// The kernel's refusal.
pub fn detach(host: &mut Socket, names: &[&str]) -> Result<(), Error> {
    let by_name = |name: &&str| {
        let mut link = LinkMessage::default();
        link.attributes
            .push(LinkAttribute::IfName((*name).to_owned()));
        link
    };
    let requests: Vec<Request> = match names {
        [] => return Ok(()),
        [name] => vec![Request::new(RouteNetlinkMessage::DelLink(by_name(name)))],
        names => {
            let condemn = names.iter().map(|name| {
                let mut link = by_name(name);
                link.attributes.push(LinkAttribute::Group(CONDEMNED));
                Request::new(RouteNetlinkMessage::SetLink(link))
            });
            let mut group = LinkMessage::default();
            group.attributes.push(LinkAttribute::Group(CONDEMNED));
            condemn
                .chain([Request::new(RouteNetlinkMessage::DelLink(group))])
                .collect()
        }
    };
    let gone = |result: &Result<(), Error>| !matches!(result, Err(error) if error.kernel_errno() != Some(Errno::NODEV));
    host.request_batch(requests)
        .into_iter()
        .find(|result| !gone(result))
        .unwrap_or(Ok(()))
}

/// All host veths whose name starts with `prefix`, in order of index: oldest first.
///
/// # Errors
/// As [`Socket::dump`].
pub fn list(host: &mut Socket, prefix: &str) -> Result<Vec<PodLink>, Error> {
    let mut links = host.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |links: &mut Vec<PodLink>, reply| {
            links.extend(decode::link(reply.payload).and_then(|link| pod_link(link, prefix)));
        },
    )?;
    links.sort_by_key(|link| link.index);
    Ok(links)
}

fn pod_link(link: dataplane::Link, prefix: &str) -> Option<PodLink> {
    if !link.name.starts_with(prefix) || link.kind.as_deref() != Some("veth") {
        return None;
    }
    let record = link.alias.as_deref().and_then(Record::decode);
    Some(PodLink {
        index: link.index,
        mac: link.mac.try_into().ok()?,
        name: link.name,
        record,
    })
}

/// Makes the pair, both ends down, and says their indices.
fn create(host: &mut Socket, wiring: &Wiring<'_>) -> Result<Wired, AttachError> {
    let end = |name: &str, mac: [u8; 6]| {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(wiring.mtu),
            LinkAttribute::Address(mac.to_vec()),
        ];
        link
    };
    let mut peer = end(wiring.ifname, wiring.mac);
    peer.attributes
        .push(LinkAttribute::NetNsFd(wiring.netns.as_raw_fd()));
    let mut link = end(wiring.host_ifname, wiring.host_mac);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut request = Request::create(RouteNetlinkMessage::NewLink(link));
    request.flags |= NLM_F_ECHO;
    let answers = match host.query(request) {
        Ok(answers) => answers,
        Err(error) if error.kernel_errno() == Some(Errno::EXIST) => {
            return Err(name_taken(host, wiring));
        }
        Err(error) => return Err(refused("create the veth pair")(error)),
    };
    let ends = answers.iter().find_map(ends);
    // Linux before 6.2 does not echo new links.
    ends.map_or_else(|| find_ends(host, wiring.host_ifname), Ok)
}

fn find_ends(host: &mut Socket, name: &str) -> Result<Wired, AttachError> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let answers = host.query(Request::new(RouteNetlinkMessage::GetLink(link)));
    let answers = answers.map_err(refused("find the veth pair"))?;
    answers
        .iter()
        .find_map(ends)
        .ok_or_else(|| refused("find the veth pair")(Error::NoLink(name.to_owned())))
}

/// Both ends' indices from what the kernel tells about the host's. It leaves out the other one's where they are equal.
fn ends(message: &RouteNetlinkMessage) -> Option<Wired> {
    let RouteNetlinkMessage::NewLink(link) = message else {
        return None;
    };
    let host = link.header.index;
    let peer = |attribute: &LinkAttribute| {
        if let LinkAttribute::Link(index) = attribute {
            Some(*index)
        } else {
            None
        }
    };
    let peer = link.attributes.iter().find_map(peer);
    Some(Wired {
        host,
        pod: peer.unwrap_or(host),
    })
}

/// `EEXIST` does not say which of the two names it means.
fn name_taken(host: &mut Socket, wiring: &Wiring<'_>) -> AttachError {
    match setup::link_index(host, wiring.host_ifname) {
        Ok(_) => AttachError::HostLinkExists(wiring.host_ifname.to_owned()),
        Err(_) => AttachError::InterfaceExists(wiring.ifname.to_owned()),
    }
}

fn configure_host(
    host: &mut Socket,
    index: LinkIndex,
    wiring: &Wiring<'_>,
) -> Result<(), AttachError> {
    let mut settings = by_index(index);
    settings
        .attributes
        .push(LinkAttribute::IfAlias(wiring.alias.to_owned()));
    settings
        .attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
            ipv4_settings(wiring.spoofing),
        ])]));
    // In a message of its own: a kernel without IPv6 refuses it, and that is fine where no pod has an IPv6 address.
    let mut ipv6 = by_index(index);
    let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    ipv6.attributes
        .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![no_address],
        )]));
    let settings =
        [settings, ipv6, up(index)].map(|link| Request::new(RouteNetlinkMessage::SetLink(link)));
    let mut results = host.request_batch(settings);
    if results.len() > 1 && !wiring.addresses.iter().any(IpAddr::is_ipv6) {
        results.swap_remove(1).ok();
    }
    results
        .into_iter()
        .collect::<Result<(), Error>>()
        .map_err(refused("configure the host's end"))
}

fn configure_pod(
    pod: &mut Socket,
    index: LinkIndex,
    wiring: &Wiring<'_>,
) -> Result<(), AttachError> {
    let links =
        [setup::LOOPBACK, index].map(|index| Request::new(RouteNetlinkMessage::SetLink(up(index))));
    let ipv6 = wiring.addresses.iter().any(IpAddr::is_ipv6);
    // Before it is up, or else the kernel has made a link-local address, and is not done with it.
    let own_link_local = ipv6.then(|| {
        let mut link = by_index(index);
        let by_hand = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        link.attributes
            .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                vec![by_hand],
            )]));
        Request::new(RouteNetlinkMessage::SetLink(link))
    });
    let links = own_link_local.into_iter().chain(links);
    let link_local = ipv6.then(|| own_address(index, link_local(wiring.mac).into(), 64));
    let addresses = wiring
        .addresses
        .iter()
        .map(|address| own_address(index, *address, IpNet::from(*address).prefix_len()));
    let addresses = link_local
        .into_iter()
        .chain(addresses)
        .map(|address| Request::create(RouteNetlinkMessage::NewAddress(address)));
    let routed = wiring.addresses.iter().filter(|_| wiring.default_route);
    let routes = routed.flat_map(|address| {
        let gateway = gateway(*address);
        let any = IpNet::new(
            if gateway.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            },
            0,
        );
        // An IPv6 gateway is link-local, and so on the link without being told.
        let on_link = gateway
            .is_ipv4()
            .then(|| route(index, gateway.into(), None));
        let default = any.ok().map(|any| route(index, any, Some(gateway)));
        let neighbour = Request::set(RouteNetlinkMessage::NewNeighbour(neighbour(
            index,
            gateway,
            wiring.host_mac,
        )));
        [Some(neighbour), on_link, default].into_iter().flatten()
    });
    let results = pod.request_batch(links.into_iter().chain(addresses).chain(routes));
    results
        .into_iter()
        .collect::<Result<(), Error>>()
        .map_err(refused("configure the pod's end"))
}

/// `IPV4_DEVCONF_*` of the host's end (linux/ip.h): the pod speaks for its own address only and is spoken to through its
/// routes, whatever the host's defaults are.
fn ipv4_settings(spoofing: bool) -> AfSpecInet {
    const IFLA_INET_CONF: u16 = 1;
    const FORWARDING: u16 = 1;
    const PROXY_ARP: u16 = 3;
    const ACCEPT_REDIRECTS: u16 = 4;
    const SEND_REDIRECTS: u16 = 6;
    const RP_FILTER: u16 = 8;
    const ROUTE_LOCALNET: u16 = 26;
    let settings: [(u16, u32); 6] = [
        (FORWARDING, 1),
        (PROXY_ARP, 0),
        (ACCEPT_REDIRECTS, 0),
        (SEND_REDIRECTS, 0),
        (RP_FILTER, u32::from(!spoofing)),
        (ROUTE_LOCALNET, 0),
    ];
    // By hand: the library leaves out settings whose value is 0.
    let mut nested = Vec::with_capacity(settings.len() * 8);
    for (setting, value) in settings {
        nested.extend(8u16.to_ne_bytes());
        nested.extend(setting.to_ne_bytes());
        nested.extend(value.to_ne_bytes());
    }
    AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NLA_F_NESTED, nested))
}

fn by_index(index: LinkIndex) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

fn up(index: LinkIndex) -> LinkMessage {
    let mut link = by_index(index);
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

/// Waits until both ends carry packets, and the pod has all its addresses.
fn become_ready(
    host: &mut Socket,
    pod: &mut Socket,
    wired: Wired,
    wiring: &Wiring<'_>,
) -> Result<(), AttachError> {
    let refused = refused("wait for the link");
    for (socket, index, name) in [
        (&mut *pod, wired.pod, wiring.ifname),
        (host, wired.host, wiring.host_ifname),
    ] {
        if !ready::carrier(socket, index).map_err(&refused)? {
            return Err(AttachError::NoCarrier(name.to_owned()));
        }
    }
    for address in ipv6_addresses(wiring) {
        if !ready::address(pod, wired.pod, address).map_err(&refused)? {
            return Err(AttachError::NotUsable(address));
        }
    }
    Ok(())
}

/// All IPv6 addresses that the pod is to have; none where it has no other than a link-local one.
fn ipv6_addresses(wiring: &Wiring<'_>) -> impl Iterator<Item = Ipv6Addr> {
    let global = wiring.addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(*address),
    });
    let any = wiring.addresses.iter().any(IpAddr::is_ipv6);
    any.then(|| link_local(wiring.mac))
        .into_iter()
        .chain(global)
}

/// The link-local address that follows from a MAC address (RFC 4291, appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let octets = [
        0xfe,
        0x80,
        0,
        0,
        0,
        0,
        0,
        0,
        a ^ 2,
        b,
        c,
        0xff,
        0xfe,
        d,
        e,
        f,
    ];
    Ipv6Addr::from(octets)
}

fn own_address(index: LinkIndex, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = encode::family(address);
    message.header.prefix_len = prefix_len;
    message.header.index = index;
    if address.is_ipv6() {
        // Nobody else can have it, and a tentative address can't be used for a second.
        message.header.flags = AddressHeaderFlags::Nodad;
    }
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    message
}

fn neighbour(index: LinkIndex, address: IpAddr, mac: [u8; 6]) -> NeighbourMessage {
    encode::neighbour(
        &NeighbourKey {
            link: index,
            address,
        },
        Some(&Neighbour { mac }),
    )
}

fn route(index: LinkIndex, prefix: IpNet, via: Option<IpAddr>) -> Request {
    let key = RouteKey {
        prefix,
        priority: 0,
        table: MAIN,
    };
    let next_hops = [NextHop {
        via,
        link: index,
        onlink: false,
    }]
    .into_iter()
    .collect();
    let route = Route {
        kind: RouteKind::Unicast,
        next_hops,
        source: None,
    };
    Request::create(RouteNetlinkMessage::NewRoute(encode::route(
        &key,
        &route,
        ROUTE_PROTOCOL,
    )))
}

fn refused(step: &'static str) -> impl Fn(Error) -> AttachError {
    move |error| AttachError::Kernel { step, error }
}

//! Links, segments, addresses and routes in namespaces.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;

use anyhow::{Context, Result};
use dataplane::LinkIndex;
use ipnet::IpNet;
use netlink::Socket;
use netlink::setup::{self, VethEnd};

use crate::Namespace;

/// A netlink socket of a namespace.
///
/// # Errors
/// When the kernel refuses.
pub fn socket(namespace: &Namespace) -> Result<Socket> {
    namespace.run(|| Ok(Socket::open()?))
}

/// Loopback up.
///
/// # Errors
/// When the kernel refuses.
pub fn loopback_up(namespace: &Namespace) -> Result<()> {
    Ok(setup::set_up(&mut socket(namespace)?, setup::LOOPBACK)?)
}

/// A veth pair between two namespaces, each end up, with its name.
///
/// # Errors
/// When a name is taken.
pub fn cable(a: (&Namespace, &str), b: (&Namespace, &str)) -> Result<()> {
    let peer = VethEnd::new(b.1).in_netns(b.0.as_fd());
    setup::create_veth(&mut socket(a.0)?, VethEnd::new(a.1), peer)
        .with_context(|| format!("a cable from {a:?} to {b:?}"))?;
    for (namespace, link) in [a, b] {
        set_up(namespace, link)?;
    }
    Ok(())
}

/// A bridge, up: an L2 segment.
///
/// # Errors
/// When the name is taken.
pub fn segment(namespace: &Namespace, name: &str) -> Result<()> {
    setup::create_bridge(&mut socket(namespace)?, name)?;
    set_up(namespace, name)
}

/// Plugs a link into a segment of its namespace.
///
/// # Errors
/// When there is no such link or segment.
pub fn plug(namespace: &Namespace, link: &str, segment: &str) -> Result<()> {
    let mut socket = socket(namespace)?;
    let link = setup::link_index(&mut socket, link)?;
    let segment = setup::link_index(&mut socket, segment)?;
    Ok(setup::enslave(&mut socket, link, segment)?)
}

/// Sets a link up.
///
/// # Errors
/// When there is none.
pub fn set_up(namespace: &Namespace, link: &str) -> Result<()> {
    let mut socket = socket(namespace)?;
    let link = setup::link_index(&mut socket, link)?;
    Ok(setup::set_up(&mut socket, link)?)
}

/// Sets a link down: whoever is at its other end loses the carrier.
///
/// # Errors
/// When there is none.
pub fn set_down(namespace: &Namespace, link: &str) -> Result<()> {
    let mut socket = socket(namespace)?;
    let link = setup::link_index(&mut socket, link)?;
    Ok(setup::set_down(&mut socket, link)?)
}

/// Gives a link an address.
///
/// # Errors
/// When it has it already.
pub fn address(namespace: &Namespace, link: &str, address: impl Into<IpNet>) -> Result<()> {
    let mut socket = socket(namespace)?;
    let link = setup::link_index(&mut socket, link)?;
    Ok(setup::add_address(&mut socket, link, address.into())?)
}

/// A default route via a neighbour on a link.
///
/// # Errors
/// When the neighbour isn't on the link.
pub fn default_route(namespace: &Namespace, via: Ipv4Addr, link: &str) -> Result<()> {
    let mut socket = socket(namespace)?;
    let link = setup::link_index(&mut socket, link)?;
    Ok(setup::set_default_route(&mut socket, via.into(), link)?)
}

/// Names of all links of a namespace, by index.
///
/// # Errors
/// When the kernel can't be asked.
pub fn links(namespace: &Namespace) -> Result<BTreeMap<LinkIndex, String>> {
    let links = setup::list_links(&mut socket(namespace)?)?;
    Ok(links.into_iter().collect())
}

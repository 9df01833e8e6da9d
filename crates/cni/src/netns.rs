//! The pod's network namespace: opened, and entered just to open a netlink socket in it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use api::cni::code;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::environment::Container;
use crate::error::CniError;

/// A pod's namespace, which this process has entered and does not leave: nothing that follows cares. Unix sockets with
/// a path, by which the agent is reached, belong to no network namespace.
#[derive(Debug)]
pub(crate) struct PodNetns {
    netns: File,
    socket: OwnedFd,
}

impl PodNetns {
    /// Enters `CNI_NETNS`. The process must be single-threaded: namespaces are a thread's own.
    pub(crate) fn enter(container: &Container) -> Result<Self, CniError> {
        let path = &container.netns;
        let invalid = |error| {
            CniError::new(
                code::INVALID_NETNS,
                format_args!("CNI_NETNS {path}: {error}"),
            )
        };
        let netns = File::open(path).map_err(|error| invalid(error.to_string()))?;
        if !container.own_netns && is_own(&netns) {
            let hint = "set CNI_NETNS_OVERRIDE=1 where that is meant";
            return Err(
                invalid("is the network namespace of the plugin itself".into()).details(hint),
            );
        }
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).map_err(
            |errno| match errno {
                rustix::io::Errno::INVAL => invalid("is not a network namespace".into()),
                errno => invalid(errno.to_string()).details("a CNI plugin runs with CAP_SYS_ADMIN"),
            },
        )?;
        let socket = route_socket()
            .map_err(|errno| CniError::new(code::IO, format_args!("netlink socket: {errno}")))?;
        Ok(Self { netns, socket })
    }

    /// Takes another netlink socket, for another agent: the old one may hold replies to requests of the agent before.
    pub(crate) fn renew(&mut self) -> Result<(), CniError> {
        self.socket = route_socket()
            .map_err(|errno| CniError::new(code::IO, format_args!("netlink socket: {errno}")))?;
        Ok(())
    }

    /// What the agent gets: the namespace, and the socket in it.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.netns.as_fd(), self.socket.as_fd()]
    }
}

/// Has the interface in the namespace that this thread is in take no word from routers on its link: a pod's routes are
/// ours to make. The interface has just been made, and no kernel without IPv6 has anything to set.
pub(crate) fn ignore_routers(ifname: &str) {
    for setting in ["accept_ra", "accept_redirects"] {
        let path = format!("/proc/sys/net/ipv6/conf/{ifname}/{setting}");
        match std::fs::write(&path, "0") {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                // The pod works without, and only the host's end could speak to it. Who reads the log shall know.
                writeln!(
                    std::io::stderr(),
                    "margay-cni: {path} can't be set: {error}"
                )
                .ok();
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A `NETLINK_ROUTE` socket in the namespace that this thread is in.
pub(crate) fn route_socket() -> rustix::io::Result<OwnedFd> {
    // NETLINK_ROUTE is protocol 0, for which rustix has `None`.
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None,
    )
}

/// Whether the namespace is the one that this process was started in. Unknown without /proc, and then no error.
fn is_own(netns: &File) -> bool {
    let own = std::fs::metadata("/proc/self/ns/net");
    let (Ok(own), Ok(other)) = (own, netns.metadata()) else {
        return false;
    };
    (own.dev(), own.ino()) == (other.dev(), other.ino())
}

//! Deleting a host veth without the agent. That is all there is to a DEL then: the kernel takes the pod's end, addresses
//! and routes away with it.

use api::cni::{AttachmentId, code};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags};

use crate::error::CniError;
use crate::netns::route_socket;

/// Deletes the attachment's host veth in this process's network namespace; fine when there is none.
pub(crate) fn delete(id: &AttachmentId) -> Result<(), CniError> {
    let name = id.identity().host_ifname;
    request(&delete_request(&name))
        .map_err(|errno| CniError::new(code::KERNEL, format_args!("delete link {name}: {errno}")))
}

/// Sends a request and reads its acknowledgement. A missing link (`ENODEV`) is success.
fn request(message: &[u8]) -> Result<(), Errno> {
    let socket = route_socket()?;
    rustix::net::sendto(
        &socket,
        message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    // The acknowledgement is there when `sendto` returns: struct nlmsghdr, then the negated error number.
    let mut reply = [0; 512];
    let (_, length) = rustix::net::recv(&socket, &mut reply, RecvFlags::empty())?;
    let error = reply
        .get(16..20)
        .filter(|_| length >= 20)
        .and_then(|error| error.first_chunk());
    match error.map(|error| i32::from_ne_bytes(*error)) {
        Some(0) => Ok(()),
        Some(error) if error < 0 => match Errno::from_raw_os_error(-error) {
            Errno::NODEV => Ok(()),
            errno => Err(errno),
        },
        _ => Err(Errno::PROTO),
    }
}

/// `RTM_DELLINK` by name: struct nlmsghdr, struct ifinfomsg (all zero), `IFLA_IFNAME` (linux/rtnetlink.h).
fn delete_request(name: &str) -> Vec<u8> {
    const RTM_DELLINK: u16 = 17;
    const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
    const IFLA_IFNAME: u16 = 3;
    let mut message = vec![0; 32];
    message[4..6].copy_from_slice(&RTM_DELLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message[8..12].copy_from_slice(&1u32.to_ne_bytes());
    // Length and type of the attribute, then the name with its NUL. A host veth's name has 15 octets.
    let length = u16::try_from(4 + name.len() + 1).unwrap_or(u16::MAX);
    message.extend(length.to_ne_bytes());
    message.extend(IFLA_IFNAME.to_ne_bytes());
    message.extend(name.as_bytes());
    message.push(0);
    message.resize(message.len().next_multiple_of(4), 0);
    let total = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&total.to_ne_bytes());
    message
}

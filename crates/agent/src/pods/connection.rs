//! The socket that the shim talks to: who may, one request in, one answer out.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use api::cni::{Failure, MAX_MESSAGE, PROTOCOL, Request, Response, Verb, code};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Deserialize;

/// How long a connected shim may take to say what it wants, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 256;

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`, which only root can connect to, and takes the place of a socket that is there.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        fs::remove_file(&temporary).or_else(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        let fd = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(&temporary)?)?;
        // It gets its mode before anybody can connect, and its name when it listens.
        rustix::fs::chmod(&temporary, Mode::RUSR | Mode::WUSR)?;
        rustix::net::listen(&fd, BACKLOG)?;
        fs::rename(&temporary, path)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Waits for the next connection; any number of threads may. `None` after [`Listener::close`].
    pub(crate) fn accept(&self) -> io::Result<Option<Connection>> {
        let fd = loop {
            match rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Ok(fd) => break fd,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // What the kernel says of a listening socket that was shut down.
                Err(Errno::INVAL) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        set_socket_timeout(&fd, Timeout::Send, Some(PATIENCE))?;
        Ok(Some(Connection { fd }))
    }

    /// Ends every [`Listener::accept`], now and later, and takes the socket out of the file system.
    pub(crate) fn close(&self) {
        fs::remove_file(&self.path).ok();
        rustix::net::shutdown(&self.fd, Shutdown::Both).ok();
    }
}

/// What a shim asks, with the descriptors that it passed.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// A shim that is connected.
#[derive(Debug)]
pub(crate) struct Connection {
    fd: OwnedFd,
}

impl Connection {
    /// Reads the request. What is wrong with it is to be answered.
    pub(crate) fn receive(&self, buffer: &mut Vec<u8>) -> Result<Call, Failure> {
        // Not by rustix: in a PID namespace of our own the shim's PID is 0, which its type can't hold.
        let user = getsockopt(&self.fd, PeerCredentials)
            .map_err(|errno| failure(code::PROTOCOL, format!("peer unknown: {errno}")))?
            .uid();
        // The file's mode says the same; this holds whatever becomes of the file.
        if user != 0 && user != rustix::process::geteuid().as_raw() {
            return Err(failure(
                code::PROTOCOL,
                format!("user {user} may not ask this"),
            ));
        }
        buffer.resize(MAX_MESSAGE, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match rustix::net::recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::INTR) => {}
                Err(errno) => {
                    return Err(failure(
                        code::PROTOCOL,
                        format!("request not received: {errno}"),
                    ));
                }
                Ok(received) => break received,
            }
        };
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(failure(
                code::PROTOCOL,
                format!("a request may have {MAX_MESSAGE} octets and four descriptors"),
            ));
        }
        Ok(Call {
            verb: parse(&buffer[..received.bytes])?,
            descriptors,
        })
    }

    /// Answers.
    pub(crate) fn reply(&self, response: &Response) -> io::Result<()> {
        let text = serde_json::to_vec(response)?;
        rustix::net::sendmsg(
            &self.fd,
            &[IoSlice::new(&text)],
            &mut SendAncillaryBuffer::default(),
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

fn parse(text: &[u8]) -> Result<Verb, Failure> {
    #[derive(Deserialize)]
    struct Version {
        protocol: u32,
    }
    // Another version's request may be unreadable but for this.
    let unreadable =
        |error: serde_json::Error| failure(code::PROTOCOL, format!("unreadable request: {error}"));
    let Version { protocol } = serde_json::from_slice(text).map_err(unreadable)?;
    if protocol != PROTOCOL {
        let message = format!("margay-cni speaks protocol {protocol}, this margayd {PROTOCOL}");
        return Err(Failure {
            details: "install the margay-cni of this margayd's version".into(),
            ..failure(code::PROTOCOL, message)
        });
    }
    Ok(serde_json::from_slice::<Request>(text)
        .map_err(unreadable)?
        .verb)
}

pub(crate) fn failure(code: u32, message: String) -> Failure {
    Failure {
        code,
        message,
        details: String::new(),
    }
}

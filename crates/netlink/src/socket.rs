//! A blocking `NETLINK_ROUTE` socket that speaks in batches.
//!
//! The kernel handles an rtnetlink request inside `sendmsg`, one message after the other, and answers a refused one even
//! where no acknowledgement was asked for. So a batch asks for it on its last message only: when that reply is read, every
//! earlier message without an error has succeeded.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST,
    NetlinkMessage,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::time::Timespec;

use crate::frame::{self, Frame};
use crate::{Error, sys};

/// Messages per `sendmsg`: speed is flat from 128 to 512, and a whole batch of refusals must fit the receive buffer.
const BATCH_MESSAGES: usize = 512;
/// Octets per `sendmsg`; a datagram must fit `SO_SNDBUF`, by default 208 KiB.
const BATCH_OCTETS: usize = 64 * 1024;
/// What a reply costs of the receive buffer, header and allocation included.
const REPLY_COST: usize = 2048;
/// Receive buffer that holds a whole batch of refusals.
const RECEIVE_BUFFER: usize = BATCH_MESSAGES * REPLY_COST;
/// Kernel dumps come in datagrams of at most 32 KiB, unless a single message is longer.
const DATAGRAM: usize = 64 * 1024;
/// How long a reply may take. It is there when `sendmsg` returns, so only a broken kernel lets us wait.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often an interrupted dump is redone.
const DUMP_ATTEMPTS: u32 = 10;

/// What a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// In the words of `netlink-packet-route`.
    Route(RouteNetlinkMessage),
    /// A kind that it has no word for.
    Raw {
        /// `RTM_*`.
        kind: u16,
        /// What follows the netlink header.
        payload: Vec<u8>,
    },
}

impl From<RouteNetlinkMessage> for Message {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self::Route(message)
    }
}

/// One request: a message with its flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub message: Message,
    /// `NLM_F_*` beside `NLM_F_REQUEST` and `NLM_F_ACK`, which the socket sets.
    pub flags: u16,
}

impl Request {
    /// A request with no flags of its own: changes, deletions.
    pub fn new(message: impl Into<Message>) -> Self {
        Self {
            message: message.into(),
            flags: 0,
        }
    }

    /// A request that makes something which must not exist yet (`NLM_F_CREATE | NLM_F_EXCL`).
    pub fn create(message: impl Into<Message>) -> Self {
        Self {
            message: message.into(),
            flags: NLM_F_CREATE | NLM_F_EXCL,
        }
    }

    /// A request that makes something or takes the place of what is there (`NLM_F_CREATE | NLM_F_REPLACE`).
    pub fn set(message: impl Into<Message>) -> Self {
        Self {
            message: message.into(),
            flags: NLM_F_CREATE | NLM_F_REPLACE,
        }
    }

    /// A request that takes the place of what must be there (`NLM_F_REPLACE`).
    pub fn replace(message: impl Into<Message>) -> Self {
        Self {
            message: message.into(),
            flags: NLM_F_REPLACE,
        }
    }
}

/// One message of a dump, not decoded yet.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// `RTM_*`.
    pub kind: u16,
    /// The message after its netlink header: the family's header, then attributes.
    pub payload: &'a [u8],
    pub(crate) frame: Frame<'a>,
}

impl Reply<'_> {
    /// The whole message as `netlink-packet-route` knows it.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what that crate can't read, which includes attributes of newer kernels.
    pub fn parse(&self) -> Result<RouteNetlinkMessage, Error> {
        use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
        let mut header = NetlinkHeader::default();
        header.message_type = self.kind;
        header.flags = self.frame.flags;
        RouteNetlinkMessage::deserialize(&header, self.payload)
            .map_err(|_| Error::Malformed("undecodable message"))
    }
}

/// A blocking `NETLINK_ROUTE` socket. It acts in the network namespace in which it was opened, whoever holds it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    batch: usize,
    /// The next datagram.
    send: Vec<u8>,
    /// Where its last message starts.
    last: usize,
    receive: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        Self::from_fd(open(SocketFlags::CLOEXEC)?)
    }

    /// Takes over a `NETLINK_ROUTE` socket that was opened elsewhere, maybe in another network namespace and by another
    /// process. Nobody else may read from it.
    ///
    /// # Errors
    /// [`Error::NotNetlink`] for any other descriptor, [`Error::Socket`].
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let domain = sockopt::socket_domain(&fd).map_err(|_| Error::NotNetlink)?;
        let protocol = sockopt::socket_protocol(&fd).map_err(|_| Error::NotNetlink)?;
        // NETLINK_ROUTE is protocol 0, for which rustix has `None`.
        if domain != AddressFamily::NETLINK || protocol.is_some() {
            return Err(Error::NotNetlink);
        }
        for option in [
            libc::NETLINK_CAP_ACK,
            libc::NETLINK_EXT_ACK,
            libc::NETLINK_GET_STRICT_CHK,
        ] {
            sys::enable_netlink_option(fd.as_fd(), option)
                .map_err(|errno| socket_error("setsockopt", errno))?;
        }
        grow_receive_buffer(&fd, RECEIVE_BUFFER);
        let room = sockopt::socket_recv_buffer_size(&fd)
            .map_err(|errno| socket_error("getsockopt", errno))?;
        let port = local_port(&fd)?;
        let batch = (room / REPLY_COST).clamp(16, BATCH_MESSAGES);
        Ok(Self {
            fd,
            port,
            sequence: 0,
            batch,
            send: Vec::new(),
            last: 0,
            receive: vec![0; DATAGRAM],
        })
    }

    /// The socket's port id (`nl_pid`): events that its requests cause carry it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's refusal, or the socket's failure.
    pub fn request(&mut self, request: Request) -> Result<(), Error> {
        self.query(request).map(drop)
    }

    /// Sends one request and gathers what the kernel says before it acknowledges: the answer to `RTM_GET*`, or the echo
    /// of a change where the flags hold `NLM_F_ECHO`.
    ///
    /// # Errors
    /// The kernel's refusal, the socket's failure, or [`Error::Malformed`].
    pub fn query(&mut self, request: Request) -> Result<Vec<RouteNetlinkMessage>, Error> {
        let answers = self.answers(request, |reply| reply.parse())?;
        answers.into_iter().collect()
    }

    /// Sends one request and gathers what `each` makes of what the kernel says before it acknowledges.
    ///
    /// # Errors
    /// The kernel's refusal, or the socket's failure.
    pub fn answers<T>(
        &mut self,
        request: Request,
        mut each: impl FnMut(Reply<'_>) -> T,
    ) -> Result<Vec<T>, Error> {
        let sequence = self.push(request.message, request.flags | NLM_F_ACK);
        self.flush()?;
        let mut answers = Vec::new();
        loop {
            let length = self.receive()?;
            for frame in
                frame::frames(&self.receive[..length]).filter(|frame| frame.sequence == sequence)
            {
                if frame.kind == frame::NLMSG_ERROR {
                    frame::acknowledgement(&frame)?;
                    return Ok(answers);
                }
                answers.push(each(Reply {
                    kind: frame.kind,
                    payload: frame.payload,
                    frame,
                }));
            }
        }
    }

    /// Sends any number of requests, hundreds with one system call, and says for each in order what came of it. A refused
    /// request does not keep the kernel from the next.
    pub fn request_batch(
        &mut self,
        requests: impl IntoIterator<Item = Request>,
    ) -> Vec<Result<(), Error>> {
        let requests = requests.into_iter();
        let mut results = Vec::with_capacity(requests.size_hint().0);
        let (mut first, mut pending) = (0, 0);
        for request in requests {
            let sequence = self.push(request.message, request.flags);
            if pending == 0 {
                first = sequence;
            }
            pending += 1;
            if pending == self.batch || self.send.len() >= BATCH_OCTETS {
                self.finish_batch(first, pending, &mut results);
                pending = 0;
            }
        }
        if pending > 0 {
            self.finish_batch(first, pending, &mut results);
        }
        results
    }

    /// Sends what was pushed, which starts with sequence number `first`, and appends one result for each of the
    /// `pending` messages.
    fn finish_batch(&mut self, first: u32, pending: usize, results: &mut Vec<Result<(), Error>>) {
        let start = results.len();
        results.resize(start + pending, Ok(()));
        self.acknowledge_last();
        let outcome = match self.flush() {
            Ok(()) => self.read_acknowledgements(first, &mut results[start..]),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            // What was refused stays refused; whether the rest was done is unknown.
            results[start..]
                .iter_mut()
                .filter(|result| result.is_ok())
                .for_each(|result| *result = Err(error.clone()));
        }
    }

    /// Reads replies until that of the last message. `results` are those of `first` and the following sequence numbers.
    fn read_acknowledgements(
        &mut self,
        first: u32,
        results: &mut [Result<(), Error>],
    ) -> Result<(), Error> {
        loop {
            let length = self.receive()?;
            for frame in frame::frames(&self.receive[..length]) {
                // Late replies to a request that was given up have sequence numbers before the first.
                let index = frame.sequence.wrapping_sub(first) as usize;
                let last = index + 1 == results.len();
                let (frame::NLMSG_ERROR, Some(result)) = (frame.kind, results.get_mut(index))
                else {
                    continue;
                };
                *result = frame::acknowledgement(&frame);
                if last {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for a whole table, with the filter that the message holds (strict checking is on: the kernel filters, and
    /// refuses a filter that it does not know). Each message goes to `each` with a state of the caller's. The state starts
    /// anew from its default when the kernel says that the table changed under the dump (`NLM_F_DUMP_INTR`), and the last is returned.
    /// Memory stays flat however long the table is.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the table never holds still, the kernel's refusal, or the socket's failure.
    pub fn dump<S: Default>(
        &mut self,
        message: impl Into<Message>,
        mut each: impl FnMut(&mut S, Reply<'_>),
    ) -> Result<S, Error> {
        let message = message.into();
        for _ in 0..DUMP_ATTEMPTS {
            let mut state = S::default();
            if self.dump_once(message.clone(), |reply| each(&mut state, reply))? {
                return Ok(state);
            }
        }
        Err(Error::Interrupted(DUMP_ATTEMPTS))
    }

    /// One dump; false when it was interrupted.
    fn dump_once(
        &mut self,
        message: Message,
        mut each: impl FnMut(Reply<'_>),
    ) -> Result<bool, Error> {
        let sequence = self.push(message, NLM_F_DUMP);
        self.flush()?;
        let mut consistent = true;
        loop {
            let length = self.receive()?;
            // A message longer than the buffer was cut: the next attempt has a buffer that holds it.
            consistent &= length <= self.receive.len();
            if length > self.receive.len() {
                self.receive.resize(length.next_power_of_two(), 0);
                continue;
            }
            for frame in
                frame::frames(&self.receive[..length]).filter(|frame| frame.sequence == sequence)
            {
                consistent &= frame.flags & NLM_F_DUMP_INTR == 0;
                match frame.kind {
                    frame::NLMSG_ERROR => {
                        return frame::acknowledgement(&frame).map(|()| consistent);
                    }
                    frame::NLMSG_DONE => {
                        return match frame
                            .payload
                            .first_chunk()
                            .map(|code| libc::c_int::from_ne_bytes(*code))
                        {
                            Some(code) if code < 0 => Err(Error::Kernel {
                                errno: frame::errno(code),
                                message: None,
                            }),
                            _ => Ok(consistent),
                        };
                    }
                    kind => each(Reply {
                        kind,
                        payload: frame.payload,
                        frame,
                    }),
                }
            }
        }
    }

    /// Appends a message to the next datagram, and returns its sequence number.
    fn push(&mut self, message: Message, flags: u16) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = match message {
            Message::Route(message) => NetlinkMessage::from(message),
            Message::Raw { kind, payload } => {
                self.push_raw(kind, &payload, flags | NLM_F_REQUEST);
                return self.sequence;
            }
        };
        message.header.flags = flags | NLM_F_REQUEST;
        message.header.sequence_number = self.sequence;
        message.finalize();
        let start = self.send.len();
        self.last = start;
        // `next_multiple_of`: messages of a datagram start at multiples of four octets (NLMSG_ALIGNTO).
        self.send
            .resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.send[start..]);
        self.sequence
    }

    /// Appends a message that is octets already.
    fn push_raw(&mut self, kind: u16, payload: &[u8], flags: u16) {
        self.last = self.send.len();
        let length = u32::try_from(frame::HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
        self.send.extend(length.to_ne_bytes());
        self.send.extend(kind.to_ne_bytes());
        self.send.extend(flags.to_ne_bytes());
        self.send.extend(self.sequence.to_ne_bytes());
        // `nlmsg_pid`: the kernel knows who we are.
        self.send.extend([0; 4]);
        self.send.extend(payload);
        self.send.resize(self.send.len().next_multiple_of(4), 0);
    }

    /// Sets `NLM_F_ACK` on the last message pushed.
    fn acknowledge_last(&mut self) {
        let at = self.last + frame::FLAGS_OFFSET;
        let flags = u16::from_ne_bytes([self.send[at], self.send[at + 1]]) | NLM_F_ACK;
        self.send[at..at + 2].copy_from_slice(&flags.to_ne_bytes());
    }

    /// Sends the datagram and forgets it, whether or not that worked.
    fn flush(&mut self) -> Result<(), Error> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent = loop {
            match rustix::net::sendto(&self.fd, &self.send, SendFlags::empty(), &kernel) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.fd, PollFlags::OUT)?,
                result => break result,
            }
        };
        self.send.clear();
        sent.map(drop).map_err(|errno| socket_error("send", errno))
    }

    /// Receives one datagram of the kernel's and returns its length, which exceeds the buffer's where it was cut.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
            match rustix::net::recvfrom(&self.fd, &mut *self.receive, flags) {
                // Anybody with CAP_NET_ADMIN can send to our port; only port 0 is the kernel.
                Ok((_, length, Some(from))) if from_kernel(&from) => return Ok(length),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => wait(&self.fd, PollFlags::IN)?,
                Err(Errno::NOBUFS) => return Err(Error::LostReply),
                Err(errno) => return Err(socket_error("receive", errno)),
            }
        }
    }
}

/// A new `NETLINK_ROUTE` socket.
pub(crate) fn open(flags: SocketFlags) -> Result<OwnedFd, Error> {
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)
        .map_err(|errno| socket_error("socket", errno))
}

/// Sets the receive buffer past the system's limit where we may, else up to it.
pub(crate) fn grow_receive_buffer(fd: &OwnedFd, octets: usize) {
    // The kernel doubles what it is told, to account for its own overhead.
    if sockopt::set_socket_recv_buffer_size_force(fd, octets / 2).is_err() {
        sockopt::set_socket_recv_buffer_size(fd, octets / 2).ok();
    }
}

/// Binds the socket to a port of the kernel's choice, unless it is bound, and says which.
pub(crate) fn local_port(fd: &OwnedFd) -> Result<u32, Error> {
    for _ in 0..2 {
        let address =
            rustix::net::getsockname(fd).map_err(|errno| socket_error("getsockname", errno))?;
        match SocketAddrNetlink::try_from(address)
            .map_err(|_| Error::NotNetlink)?
            .pid()
        {
            0 => rustix::net::bind(fd, &SocketAddrNetlink::new(0, 0))
                .map_err(|errno| socket_error("bind", errno))?,
            port => return Ok(port),
        }
    }
    Err(Error::NotNetlink)
}

/// Whether a datagram came from the kernel itself.
pub(crate) fn from_kernel(from: &rustix::net::SocketAddrAny) -> bool {
    SocketAddrNetlink::try_from(from.clone()).is_ok_and(|address| address.pid() == 0)
}

/// Waits until the socket is ready, at most [`REPLY_TIMEOUT`].
pub(crate) fn wait(fd: &OwnedFd, flags: PollFlags) -> Result<(), Error> {
    let timeout = Timespec::try_from(REPLY_TIMEOUT).map_err(|_| Error::Timeout)?;
    match poll(&mut [PollFd::new(fd, flags)], Some(&timeout)) {
        Ok(0) => Err(Error::Timeout),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(socket_error("poll", errno)),
    }
}

/// Names the call that failed.
pub(crate) fn socket_error(call: &'static str, errno: Errno) -> Error {
    Error::Socket { call, errno }
}

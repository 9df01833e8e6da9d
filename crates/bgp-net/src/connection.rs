//! A connection's socket and what waits to be written to it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use socket2::Socket;

use crate::poller::Wait;

/// How much may wait outside the kernel; beyond it nothing is asked of the RIB.
const OUT_LIMIT: usize = 64 * 1024;
/// How many messages go into one system call.
const GATHER: usize = 64;

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// SYN sent.
    Connecting,
    /// In use.
    Open,
    /// The speaker has let go of it; what it said last is on its way, until the peer has closed too, or this time.
    Closing(Instant),
}

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: Socket,
    pub(crate) remote: IpAddr,
    pub(crate) phase: Phase,
    /// What the poller waits for.
    pub(crate) wait: Wait,
    out: VecDeque<Bytes>,
    out_len: usize,
}

/// How far writing got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing is left.
    All,
    /// The socket is full.
    Full,
}

impl Connection {
    pub(crate) fn new(socket: Socket, remote: IpAddr, phase: Phase) -> Self {
        let wait = if phase == Phase::Connecting {
            Wait::Write
        } else {
            Wait::Read
        };
        Self {
            socket,
            remote,
            phase,
            wait,
            out: VecDeque::new(),
            out_len: 0,
        }
    }

    /// Whether more may be [`push`](Self::push)ed.
    pub(crate) fn has_room(&self) -> bool {
        self.out_len < OUT_LIMIT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out_len == 0
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.out_len += bytes.len();
        self.out.push_back(bytes);
    }

    /// Writes what waits, as far as the socket takes it.
    pub(crate) fn write(&mut self) -> io::Result<Written> {
        while self.out_len > 0 {
            match self.write_once() {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Written::Full);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }

    fn write_once(&self) -> io::Result<usize> {
        // The rule where there is little to say to many, and the kernel has less to look at.
        if let ([only], []) = self.out.as_slices() {
            return (&self.socket).write(only);
        }
        let slices: Vec<_> = self
            .out
            .iter()
            .take(GATHER)
            .map(|bytes| IoSlice::new(bytes))
            .collect();
        (&self.socket).write_vectored(&slices)
    }

    fn advance(&mut self, mut written: usize) {
        self.out_len -= written;
        while let Some(first) = self.out.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.out.pop_front();
        }
    }

    /// Reads once; `None` when there is nothing to read. Zero octets are the end.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.socket).read(buffer) {
                Ok(len) => return Ok(Some(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says the last words and closes our half. A full close now could throw them away: with unread bytes in the
    /// socket it sends RST, and the peer would drop what it has not read yet.
    pub(crate) fn finish(&mut self, last: Bytes, until: Instant) -> io::Result<Written> {
        self.push(last);
        self.phase = Phase::Closing(until);
        self.write_last()
    }

    /// Writes what is left of the last words.
    pub(crate) fn write_last(&mut self) -> io::Result<Written> {
        let written = self.write()?;
        if written == Written::All {
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(written)
    }
}

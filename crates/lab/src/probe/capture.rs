//! Frames as they pass through a namespace.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;

/// `ETH_P_ALL` in network order, as `socket(2)` wants it (`packet(7)`).
const EVERYTHING: u16 = 3u16.to_be();

/// `ETH_P_IP`.
const IPV4: [u8; 2] = [0x08, 0x00];

/// Records every frame on every link of a namespace until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Frame>>,
}

/// A frame with its Ethernet header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Capture {
    /// Starts.
    ///
    /// # Errors
    /// When the kernel refuses packet sockets.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| {
            Socket::new(
                Domain::PACKET,
                Type::RAW,
                Some(Protocol::from(i32::from(EVERYTHING))),
            )
            .context("open a packet socket")
        })?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || record(&socket, &stopped));
        Ok(Self { stop, thread })
    }

    /// Stops and gives what was seen, also what still waits to be read.
    ///
    /// # Errors
    /// When the recording thread panicked.
    pub fn finish(self) -> Result<Vec<Frame>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the capturing thread panicked"))
    }
}

impl Frame {
    /// Source, destination and protocol, where this is plain IPv4 right after the Ethernet header.
    #[must_use]
    pub fn plain_ipv4(&self) -> Option<(Ipv4Addr, Ipv4Addr, u8)> {
        let address = |at: usize| {
            let octets: [u8; 4] = self.0.get(at..at + 4)?.try_into().ok()?;
            Some(Ipv4Addr::from(octets))
        };
        if self.0.get(12..14)? != IPV4 {
            return None;
        }
        Some((address(26)?, address(30)?, *self.0.get(23)?))
    }

    /// The two addresses stand somewhere in it as an IPv4 header has them: plain, or inside any wrapping.
    #[must_use]
    pub fn carries(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let mut wanted = [0; 8];
        wanted[..4].copy_from_slice(&source.octets());
        wanted[4..].copy_from_slice(&destination.octets());
        self.0.windows(8).any(|window| window == wanted)
    }
}

fn record(socket: &Socket, stop: &AtomicBool) -> Vec<Frame> {
    let mut frames = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match (&mut &*socket).read(&mut buffer) {
            Ok(length) => frames.push(Frame(buffer[..length].to_vec())),
            Err(_) if stop.load(Ordering::Relaxed) => return frames,
            Err(_) => {}
        }
    }
}

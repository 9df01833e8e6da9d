//! A steady stream of numbered pings, and what of it was lost.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};

use super::icmp::{Echo, Pinger};
use super::packet::Kind;
use crate::{Namespace, wait};

/// How long the last answers may take after the last request.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// Pings that go on until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Stream {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Loss>>,
}

/// What became of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Requests sent.
    pub sent: u32,
    /// Numbers of the requests that were never answered, first 0.
    pub lost: Vec<u32>,
    /// The longest time between two requests of ours: it is long when this machine had no time for the probe itself.
    pub longest_gap: Duration,
}

impl Stream {
    /// Pings `to` from `namespace` once every `interval`.
    ///
    /// # Errors
    /// When the kernel refuses raw sockets.
    pub fn start(namespace: &Namespace, to: Ipv4Addr, interval: Duration) -> Result<Self> {
        let pinger = Pinger::open(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || run(&pinger, to, interval, &stopped));
        Ok(Self { stop, thread })
    }

    /// Stops sending, waits for the last answers and counts.
    ///
    /// # Errors
    /// When a socket failed in a way that says nothing about the network.
    pub fn finish(self) -> Result<Loss> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the pinging thread panicked"))?
    }
}

fn run(pinger: &Pinger, to: Ipv4Addr, interval: Duration, stop: &AtomicBool) -> Result<Loss> {
    let mut answered: Vec<bool> = Vec::new();
    let mut longest_gap = Duration::ZERO;
    let mut last = wait::now();
    let mut due = last;
    while !stop.load(Ordering::Relaxed) {
        let now = wait::now();
        if now < due {
            note(pinger, due, &mut answered)?;
            continue;
        }
        longest_gap = longest_gap.max(now - last);
        last = now;
        // A refusal by our own kernel is a loss like any other.
        pinger.send(to, sequence(answered.len()), Echo::default())?;
        answered.push(false);
        due += interval;
        // Who is behind with sending must not be behind with reading as well: the kernel keeps so many answers and no more.
        while note(pinger, now, &mut answered)? {}
    }
    let deadline = wait::now() + STRAGGLERS;
    while answered.contains(&false) && note(pinger, deadline, &mut answered)? {}
    let numbers = 0u32..;
    Ok(Loss {
        sent: u32::try_from(answered.len())?,
        lost: numbers
            .zip(&answered)
            .filter_map(|(number, answered)| (!answered).then_some(number))
            .collect(),
        longest_gap,
    })
}

/// Takes in one packet; `false` when none came by `deadline`.
fn note(pinger: &Pinger, deadline: std::time::Instant, answered: &mut [bool]) -> Result<bool> {
    let Some(incoming) = pinger.receive(deadline)? else {
        return Ok(false);
    };
    if incoming.kind == Kind::EchoReply {
        // The newest request with that number: streams are long, numbers have 16 bits, answers come soon.
        let found = (0..answered.len())
            .rev()
            .take(usize::from(u16::MAX))
            .find(|at| sequence(*at) == incoming.sequence);
        if let Some(seen) = found.and_then(|at| answered.get_mut(at)) {
            *seen = true;
        }
    }
    Ok(true)
}

fn sequence(number: usize) -> u16 {
    let bytes = number.to_le_bytes();
    u16::from_le_bytes([bytes[0], bytes[1]])
}

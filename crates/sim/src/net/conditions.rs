//! How good or bad the network is.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::address::NodeId;

/// Latency, loss, windows, the size of reads, and who can't reach whom.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// From the nearest node to the farthest one. Each pair has its own latency between them, and every packet up to a
    /// quarter more.
    pub latency: [Duration; 2],
    /// Share of packets that are lost and sent again, in 1/1024.
    pub loss: u16,
    /// How many octets fit between a writer and a reader that doesn't read.
    pub window: usize,
    /// How many octets one read gives at most; each read draws anew. Several segments may come in one read.
    pub read_sizes: [usize; 2],
    /// How long a process takes to get its turn.
    pub turn: [Duration; 2],
    /// How many routes and paths a speaker looks at in a turn, where something concerns all.
    pub looks: u32,
    cuts: BTreeSet<(NodeId, NodeId)>,
}

impl Default for Conditions {
    /// A data centre on a good day.
    fn default() -> Self {
        Self {
            latency: [Duration::from_micros(50), Duration::from_micros(500)],
            loss: 0,
            window: 256 * 1024,
            read_sizes: [64 * 1024; 2],
            turn: [Duration::from_micros(20), Duration::from_micros(100)],
            looks: 1 << 16,
            cuts: BTreeSet::new(),
        }
    }
}

/// How long it takes until something that was lost is sent again (RFC 6298: at least a second, in practice 200 ms).
const RESENT: Duration = Duration::from_millis(200);

impl Conditions {
    /// Loses every packet from one node to another from now on, or no longer.
    pub fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
    }

    /// Nothing is cut any more.
    pub fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Whether packets from one node to another get lost.
    #[must_use]
    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        !self.cuts.is_empty() && self.cuts.contains(&(from, to))
    }

    pub(super) fn latency(&self, from: NodeId, to: NodeId, random: &mut fastrand::Rng) -> Duration {
        let [near, far] = self.latency;
        // The same in both directions, and for every packet.
        let pair = u64::from(from.0.min(to.0)) << 32 | u64::from(from.0.max(to.0));
        let share = pair.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
        let base = near + (far - near) / 1024 * u32::try_from(share).unwrap_or(0);
        let mut latency = base + base / 1024 * random.u32(0..256);
        while self.loss > 0 && random.u16(0..1024) < self.loss {
            latency += RESENT;
        }
        latency
    }

    pub(super) fn read_size(&self, random: &mut fastrand::Rng) -> usize {
        let [least, most] = self.read_sizes;
        if least == most {
            return most;
        }
        random.usize(least..=most)
    }

    pub(super) fn turn(&self, random: &mut fastrand::Rng) -> Duration {
        let [least, most] = self.turn;
        least + (most - least) / 1024 * random.u32(0..1024)
    }
}

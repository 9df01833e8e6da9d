//! What happens when: a heap ordered by time, and for the same time by the order in which things were scheduled.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use super::tcp::{Side, TcpId};
use crate::address::NodeId;

/// What happens at a certain time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// A SYN gets to the host that is dialled.
    Syn { tcp: TcpId, attempt: u8 },
    /// Its answer gets back.
    SynAck { tcp: TcpId },
    /// A RST gets to an end.
    Reset { tcp: TcpId, side: Side },
    /// What an end has sent gets to the other.
    Arrival { tcp: TcpId, side: Side },
    /// A full pipe has room again.
    Window { tcp: TcpId, side: Side },
    /// A reader that was deaf reads again.
    Listens { tcp: TcpId, side: Side },
    /// A process has its turn: everything that came in until now.
    Turn { node: NodeId },
    /// The earliest of a speaker's deadlines, as it was when this was scheduled.
    Timer { node: NodeId },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    serial: u64,
}

impl Queue {
    pub(crate) fn push(&mut self, at: Instant, happening: Happening) {
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, happening)));
    }

    /// When the next thing happens.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<(Instant, Happening)> {
        self.heap
            .pop()
            .map(|Reverse((at, _, happening))| (at, happening))
    }
}

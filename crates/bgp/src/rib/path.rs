//! A path: one route to a net from one peer.

use super::attrs::AttrId;
use super::pages::Record;
use super::peer::PeerIndex;

/// One route to a net from one peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) next: u32,
    /// As the peer sent it, so that import policy can be asked again.
    pub(super) received: AttrId,
    /// As import policy made it; a [`Reason`] if it is rejected.
    pub(super) verdict: u32,
    /// The peer's index in the lower 24 bits, flags above.
    pub(super) who: u32,
}

impl Record for Path {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
    }
}

pub(super) const REJECTED: u32 = 1 << 24;
pub(super) const EPOCH: u32 = 1 << 25;

impl Path {
    pub(super) fn peer(&self) -> PeerIndex {
        PeerIndex(self.who & 0x00ff_ffff)
    }

    pub(super) fn received(&self) -> AttrId {
        self.received
    }

    /// The attributes it competes with, unless it is rejected.
    pub(super) fn accepted(&self) -> Option<AttrId> {
        (self.who & REJECTED == 0).then_some(AttrId(self.verdict))
    }

    pub(super) fn rejected(&self) -> Option<Reason> {
        (self.who & REJECTED != 0).then_some(Reason(self.verdict))
    }

    pub(super) fn epoch(&self) -> bool {
        self.who & EPOCH != 0
    }
}

/// Why import rejected a path, in four octets: see [`import`](super::import).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reason(pub(super) u32);

/// What a peer offers for a net.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) received: AttrId,
    pub(super) verdict: Result<AttrId, Reason>,
}

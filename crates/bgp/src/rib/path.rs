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
    verdict: u32,
    /// The peer's index in the lower 24 bits, flags above.
    who: u32,
}

impl Record for Path {
    fn link(&self) -> u32 {
        self.next
    }

    fn set_link(&mut self, next: u32) {
        self.next = next;
    }
}

const REJECTED: u32 = 1 << 24;
const LABEL_SHIFT: u32 = 25;
const LABEL_MASK: u32 = 0x3f << LABEL_SHIFT;

impl Path {
    /// A path that is in no chain yet. `label`: see [`label`](super::label).
    pub(super) fn new(peer: PeerIndex, label: u8, offer: Offer) -> Self {
        let path = Self {
            next: super::pages::NONE,
            received: offer.received,
            verdict: 0,
            who: peer.0 | u32::from(label) << LABEL_SHIFT & LABEL_MASK,
        };
        path.judged(offer.verdict)
    }

    /// The same with this verdict.
    pub(super) fn judged(self, verdict: Result<AttrId, Reason>) -> Self {
        let who = self.who & !REJECTED;
        let (verdict, who) = match verdict {
            Ok(id) => (id.0, who),
            Err(reason) => (reason.0, who | REJECTED),
        };
        Self {
            verdict,
            who,
            ..self
        }
    }

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

    pub(super) fn label(&self) -> u8 {
        u8::try_from((self.who & LABEL_MASK) >> LABEL_SHIFT).unwrap_or(0)
    }

    /// Whether the two are the same but for their labels and places.
    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.who & !LABEL_MASK == other.who & !LABEL_MASK
            && self.received == other.received
            && self.verdict == other.verdict
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

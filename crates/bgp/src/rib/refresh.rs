//! Everything of a family once more, either way, while the session goes on (RFC 2918, RFC 7313).

use bgp_wire::Family;

use super::peer::{Generation, PeerIndex};
use super::{Rib, slot};

impl Rib {
    /// The peer asked for all our routes of a family again (RFC 2918). Where both sides know enhanced route refresh, a BoRR
    /// goes before them and an EoRR after them (RFC 7313 §4).
    pub fn refresh(&mut self, peer: PeerIndex, generation: Generation, family: Family) {
        if let Some(enhanced) = self
            .live(peer, generation)
            .map(|peer| peer.session.enhanced_refresh)
            && let Some(slot) = slot(family)
        {
            self.tables[slot].refresh(peer, enhanced);
        }
    }

    /// The peer begins to send all its routes of a family again: those that it has sent before are stale from now on, and in
    /// use until [`end_refresh`](Self::end_refresh) (BoRR, RFC 7313 §4). Routes must not be stale for another reason.
    pub fn begin_refresh(&mut self, peer: PeerIndex, generation: Generation, family: Family) {
        if self.live(peer, generation).is_some()
            && let Some(slot) = slot(family)
            && let Some(state) = self.peers.get_mut(peer)
            && !state.refreshing[slot]
            // Dozens of refreshes while the walk after the first has not come round: what is old may stay for this once.
            && !state.paths[slot].is_out_of_labels()
        {
            state.refreshing[slot] = true;
            state.paths[slot].age();
        }
    }

    /// The peer has sent them, or has had the time to: what has not come again goes (EoRR, RFC 7313 §4).
    pub fn end_refresh(&mut self, peer: PeerIndex, generation: Generation, family: Family) {
        if self.live(peer, generation).is_some()
            && let Some(slot) = slot(family)
            && let Some(state) = self.peers.get_mut(peer)
            && std::mem::take(&mut state.refreshing[slot])
        {
            self.kill_stale(peer, slot);
        }
    }

    /// How many prefixes of a family the peer has announced, rejected ones among them.
    #[must_use]
    pub fn received(&self, peer: PeerIndex, family: Family) -> u32 {
        slot(family)
            .zip(self.peers.get(peer))
            .map_or(0, |(slot, state)| state.paths[slot].all())
    }
}

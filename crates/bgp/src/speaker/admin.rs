//! What the operator may do to one peer.

use std::net::IpAddr;
use std::time::Instant;

use super::Speaker;

impl Speaker {
    /// Ends a peer's session and starts it anew, whatever kept it down: Cease/Administrative Reset with a text for the
    /// peer's operator (RFC 9003). False where there is no such peer.
    pub fn reset_peer(&mut self, peer: IpAddr, text: &str, now: Instant) -> bool {
        let index = self.by_address.get(&peer).copied();
        let reset = index.filter(|_| !self.stopped).and_then(|index| {
            self.with_session(index, |session, routes| session.restart(text, now, routes))
        });
        if let Some(index) = index {
            self.retire(index, now);
        }
        self.begin_work(now);
        reset.is_some()
    }

    /// Ends a peer's session and keeps it down until [`reset_peer`](Self::reset_peer): Cease/Administrative Shutdown with a
    /// text for the peer's operator (RFC 9003). False where there is no such peer.
    pub fn shut_down_peer(&mut self, peer: IpAddr, text: &str, now: Instant) -> bool {
        let index = self.by_address.get(&peer).copied();
        let stopped = index.and_then(|index| {
            self.with_session(index, |session, routes| {
                session.shut_down(text, now, routes)
            })
        });
        self.begin_work(now);
        stopped.is_some()
    }

    /// Asks an established peer for all its routes again, and sends it all of ours: nothing of the session changes. Whether
    /// the peer can be asked (RFC 2918); `None` where there is no such peer, or no session with it.
    pub fn refresh_peer(&mut self, peer: IpAddr) -> Option<bool> {
        let index = self.by_address.get(&peer).copied()?;
        self.peers.get(index as usize)?.session.established()?;
        self.with_session(index, |session, routes| {
            session.resend(routes);
            session.request_refresh()
        })
    }
}

//! What a driver is asked to do, and what it may want to log.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bgp_wire::Asn;
use bytes::Bytes;
use ipnet::IpNet;

use crate::config::{Password, PeerConfig, PrefixLimit, Reach};
use crate::session::{ConnId, Ended};

/// What a driver has to do, or may want to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Open a TCP connection; answer with [`Speaker::handle_connected`](super::Speaker::handle_connected) or [`Speaker::handle_closed`](super::Speaker::handle_closed).
    Connect {
        /// The connection's name from now on.
        conn: ConnId,
        /// Where to.
        remote: SocketAddr,
        /// How.
        transport: Transport,
    },
    /// Segments from and to these addresses are signed with this password from now on (RFC 2385), or with none: on
    /// the listening sockets, and on these connections.
    SetKey {
        /// Whose.
        peers: IpNet,
        /// The password; `None`: whatever was there goes.
        password: Option<Password>,
        /// Those that there are, made or being made.
        connections: Vec<ConnId>,
    },
    /// Close a connection, made or not, after these bytes as far as the socket takes them; it is forgotten already.
    Close {
        /// Which.
        conn: ConnId,
        /// Whole messages: mostly a NOTIFICATION.
        last: Bytes,
    },
    /// A session is up.
    SessionUp {
        /// With whom.
        peer: IpAddr,
        /// The peer's AS.
        asn: Asn,
        /// The hold time agreed on.
        hold_time: Duration,
    },
    /// A session is down.
    SessionDown {
        /// With whom.
        peer: IpAddr,
        /// Why.
        ended: Ended,
    },
    /// An attempt at a session failed.
    AttemptFailed {
        /// With whom.
        peer: IpAddr,
        /// Why.
        ended: Ended,
        /// How many in a row, to log them less and less often.
        failures: u32,
    },
    /// A peer has announced many prefixes of a family: more than the share of its limit from which on that is said.
    ManyPrefixes {
        /// Which peer.
        peer: IpAddr,
        /// Its limit.
        limit: PrefixLimit,
        /// How many there are.
        received: u32,
    },
    /// Every peer's routes are known as far as they will be: see [`Speaker::is_synced`](super::Speaker::is_synced).
    Synced,
}

/// How to set up the socket of a peer's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Our address, where it is configured.
    pub local_address: Option<IpAddr>,
    /// What segments are signed with (RFC 2385).
    pub password: Option<Password>,
    /// TTL of what we send and least TTL of what we take.
    pub reach: Reach,
    /// How long TCP may try to get something through (TCP_USER_TIMEOUT, `tcp(7)`): longer than the session waits for a peer
    /// that lives, sends, and keeps its window shut, which the kernel counts as silence. Zero leaves it to the kernel.
    pub user_timeout: Duration,
}

impl From<&PeerConfig> for Transport {
    fn from(config: &PeerConfig) -> Self {
        Self {
            local_address: config.local_address,
            password: config.password.clone(),
            reach: config.reach,
            user_timeout: user_timeout(config),
        }
    }
}

/// Past the send hold timer, which starts with the first KEEPALIVE that finds no room.
fn user_timeout(config: &PeerConfig) -> Duration {
    match config.hold_time {
        Duration::ZERO => Duration::ZERO,
        hold_time => config.send_hold.max(hold_time * 2) + hold_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel counts a shut window as silence: were its patience the shorter, RFC 9687's timer would never run out.
    #[test]
    fn tcp_is_more_patient_than_the_session() {
        for (hold_time, send_hold) in [(3, 4), (90, 480), (300, 480), (65_535, 480)] {
            let config = PeerConfig {
                hold_time: Duration::from_secs(hold_time),
                send_hold: Duration::from_secs(send_hold),
                ..PeerConfig::new(65001)
            };
            let patience = Transport::from(&config).user_timeout.as_secs();
            assert!(patience > send_hold && patience > 2 * hold_time);
        }
        let config = PeerConfig {
            hold_time: Duration::ZERO,
            ..PeerConfig::new(65001)
        };
        assert_eq!(Transport::from(&config).user_timeout, Duration::ZERO);
    }
}

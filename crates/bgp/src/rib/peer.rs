//! What the RIB knows of a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_wire::{Asn, Context, Family};
use ipnet::IpNet;

use crate::config::{Client, NextHopMode, Rules};
use crate::policy::{Policy, SourceKind};

/// Names a peer: a position in a table, so give small numbers and use them again. At most 16,777,214.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u32);

impl PeerIndex {
    /// In the place of a peer's name for routes of our own.
    pub(super) const LOCAL: Self = Self(0x00ff_ffff);
}

/// Which of a peer's sessions: a new number for each that comes up. Whatever arrives under another number than that of
/// the session that is up is ignored, so a dead session's news can't touch its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u32);

/// A session that came up, as far as routes depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSession {
    /// The peer is in our own AS.
    pub ibgp: bool,
    /// Its AS.
    pub peer_asn: Asn,
    /// Our AS towards it.
    pub local_asn: Asn,
    /// Its BGP identifier.
    pub peer_router_id: Ipv4Addr,
    /// Its address.
    pub peer_address: IpAddr,
    /// Our address on the session: the next hop of what we announce as ours.
    pub local_address: IpAddr,
    /// Our address of the other family on the same link, where there is one: the next hop for prefixes of that family.
    pub other_local_address: Option<IpAddr>,
    /// Our link-local address where the peer is on the same link: stands beside a global IPv6 next hop that is ours
    /// (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
    /// The subnet that the peer and we are both on: a next hop inside it need not be replaced (RFC 4271 §5.1.3).
    pub shared_subnet: Option<IpNet>,
    /// How the next hop is set towards it.
    pub next_hop: NextHopMode,
    /// IPv4 prefixes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Both sides mark beginning and end when all routes of a family are sent again (RFC 7313).
    pub enhanced_refresh: bool,
    /// How messages to it are written.
    pub context: Context,
    /// The families that both sides want.
    pub families: Vec<Family>,
    /// The families whose stale routes from before a restart stay until the peer's End-of-RIB: those for which it
    /// said that it kept forwarding (RFC 4724 §4.2).
    pub retained: Vec<Family>,
    /// What is done with its routes beside policy.
    pub rules: Rules,
    /// Applied to what it sends.
    pub import: Policy,
    /// Applied to what we send it, before the attributes are rewritten for it.
    pub export: Policy,
}

impl PeerSession {
    /// The cluster of ours that it is a client in.
    pub(super) fn client(&self) -> Option<Client> {
        self.rules.client.filter(|_| self.ibgp)
    }
}

/// What becomes of the routes of a session that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownKind {
    /// They go.
    Drop,
    /// They stay, stale, until the peer is back and has sent them again, or [`stale_expired`](super::Rib::stale_expired)
    /// (RFC 4724 §4.2).
    KeepStale,
}

/// A peer, up or gone with stale routes left.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) generation: Generation,
    pub(super) session: PeerSession,
    pub(super) up: bool,
    /// Paths that carry the other value are stale: a restart marks all of them at once.
    /// By family.
    pub(super) epoch: [bool; 2],
    /// The peer is sending all of a family again: what is stale is what has not come again yet.
    pub(super) refreshing: [bool; 2],
    /// How many paths there are of it, by family.
    pub(super) paths: [PathCount; 2],
    /// The update group that it is in while up.
    pub(super) group: usize,
    pub(super) messages_sent: u64,
}

/// Paths from a peer in one family.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PathCount {
    pub(super) all: u32,
    pub(super) rejected: u32,
    /// Those that are the best of their net.
    pub(super) best: u32,
}

/// All peers by index.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
}

impl Peers {
    pub(super) fn get(&self, peer: PeerIndex) -> Option<&Peer> {
        self.slots.get(peer.0 as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, peer: PeerIndex) -> Option<&mut Peer> {
        self.slots.get_mut(peer.0 as usize)?.as_mut()
    }

    pub(super) fn set(&mut self, index: PeerIndex, peer: Option<Peer>) {
        let index = index.0 as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = peer;
    }

    /// Those of our own AS.
    pub(super) fn internal(&self) -> Vec<PeerIndex> {
        (0..)
            .zip(&self.slots)
            .filter(|(_, peer)| peer.as_ref().is_some_and(|peer| peer.session.ibgp))
            .map(|(index, _)| PeerIndex(index))
            .collect()
    }

    /// Where a path of this peer comes from.
    pub(super) fn source(&self, peer: PeerIndex) -> SourceKind {
        match self.get(peer) {
            None => SourceKind::Local,
            Some(peer) if peer.session.ibgp => SourceKind::Internal,
            Some(_) => SourceKind::External,
        }
    }
}

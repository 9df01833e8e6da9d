//! What the RIB knows of a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_wire::{Asn, Context, Family};
use ipnet::IpNet;

use super::label::Paths;
use super::path::Path;
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
    /// It said that it has restarted, and still waits for routes (RFC 4724 §3): while we do so too, it is told all that we know.
    pub restarted: bool,
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
    /// The peer is sending all of a family again: what is stale is what has not come again yet.
    pub(super) refreshing: [bool; 2],
    /// What there is of it in the table, by family.
    pub(super) paths: [Paths; 2],
    /// Dead paths of it may be from a session of another kind: how they compared with others is not known any more.
    pub(super) changed_kind: bool,
    /// The update group that it is in while up.
    pub(super) group: usize,
    pub(super) messages_sent: u64,
}

/// Dead paths of the peer are to go.
pub(super) const SWEEP: u8 = 1;
/// Import policy is to be asked again about the peer's paths.
pub(super) const JUDGE: u8 = 2;
/// Everybody is to look again at the routes that are best from the peer.
pub(super) const RETELL: u8 = 4;

/// All peers by index.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Vec<Option<Peer>>,
    /// By peer and family: what the [walk](super::walk) is to do with its paths. Beside the peers, for it is looked at for
    /// each path that the walk comes by.
    due: Vec<[u8; 2]>,
    /// Some peer's last dead path is gone, and the walk may have no more to do.
    pub(super) relieved: bool,
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
            self.due.resize(index + 1, [0; 2]);
        }
        self.slots[index] = peer;
    }

    /// What is due for the peer's paths in a family.
    pub(super) fn due(&self, peer: PeerIndex, slot: usize) -> u8 {
        self.due.get(peer.0 as usize).map_or(0, |due| due[slot])
    }

    pub(super) fn set_due(&mut self, peer: PeerIndex, slot: usize, what: u8, on: bool) {
        if let Some(due) = self.due.get_mut(peer.0 as usize) {
            due[slot] = if on {
                due[slot] | what
            } else {
                due[slot] & !what
            };
        }
    }

    /// The path is of a session that is over, or was not sent again in time: it does not count any more.
    pub(super) fn is_dead(&self, path: &Path, slot: usize) -> bool {
        self.get(path.peer())
            .is_some_and(|peer| peer.paths[slot].is_dead(path.label()))
    }

    /// A path comes (1) or goes (-1).
    pub(super) fn count(&mut self, path: &Path, slot: usize, by: i32) {
        let Some(peer) = self.get_mut(path.peer()) else {
            return;
        };
        if peer.paths[slot].count(path.label(), path.rejected().is_some(), by) {
            self.relieved = true;
            self.set_due(path.peer(), slot, SWEEP, false);
        }
    }

    /// The label of what the peer announces now.
    pub(super) fn label(&self, peer: PeerIndex, slot: usize) -> u8 {
        self.get(peer).map_or(0, |peer| peer.paths[slot].label())
    }

    /// Those of our own AS.
    pub(super) fn internal(&self) -> Vec<PeerIndex> {
        self.those(|session| session.ibgp)
    }

    /// Those that had restarted as we had.
    pub(super) fn restarted(&self) -> Vec<PeerIndex> {
        self.those(|session| session.restarted)
    }

    fn those(&self, which: impl Fn(&PeerSession) -> bool) -> Vec<PeerIndex> {
        (0..)
            .zip(&self.slots)
            .filter(|(_, peer)| peer.as_ref().is_some_and(|peer| which(&peer.session)))
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

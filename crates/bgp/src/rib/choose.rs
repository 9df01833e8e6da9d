//! What peers offer, and which of it is best: paths come and go, and each time the decision process runs as far as it
//! has to.

use ipnet::IpNet;
use smallvec::SmallVec;

use super::attrs::{AttrId, AttrStore};
use super::decision::{Facts, Key, select};
use super::list::{BEST, MAX_PATHS, MED};
use super::pages::NONE;
use super::path::{Offer, Path};
use super::peer::{PeerIndex, Peers};
use super::table::Table;
use crate::config::Decision;

/// What the table needs from around it.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) attrs: &'a mut AttrStore,
    pub(super) peers: &'a mut Peers,
    pub(super) decision: Decision,
    /// Which family.
    pub(super) slot: usize,
}

impl World<'_> {
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            attrs: self.attrs,
            peers: self.peers,
            decision: self.decision,
            slot: self.slot,
        }
    }
}

impl Table {
    /// A peer announces a prefix. The offer's attribute sets are counted here.
    pub(super) fn offer(
        &mut self,
        world: &mut World<'_>,
        prefix: &IpNet,
        peer: PeerIndex,
        offer: Offer,
    ) {
        if self.paths.len() >= MAX_PATHS {
            return self.withdraw(world, prefix, peer);
        }
        if let Some(net) = self.find_or_insert(prefix) {
            let label = world.peers.label(peer, self.slot);
            self.offer_net(world, net, Path::new(peer, label, offer));
        }
    }

    fn offer_net(&mut self, world: &mut World<'_>, net: u32, mut path: Path) {
        let (_, at) = self.locate(net, path.peer());
        if at == NONE {
            retain(world, &path);
            world.peers.count(&path, self.slot, 1);
            let before = self.best(net);
            let at = self.insert_path(net, path);
            return self.decide(world, net, before, Some(at), false);
        }
        let old = self.paths[at];
        path.next = old.next;
        let dead = world.peers.is_dead(&old, self.slot);
        if path.says_the_same(&old) && !dead {
            // The same again: no longer stale, if it was.
            if path != old {
                self.paths[at] = path;
                world.peers.count(&path, self.slot, 1);
                world.peers.count(&old, self.slot, -1);
            }
            return;
        }
        let before = self.best(net);
        let shared = world.decision.is_multipath() && self.shares(world, net, at);
        retain(world, &path);
        world.peers.count(&path, self.slot, 1);
        self.paths[at] = path;
        release(world, &old);
        world.peers.count(&old, self.slot, -1);
        self.decide(world, net, before, Some(at), shared);
    }

    /// A peer withdraws a prefix.
    pub(super) fn withdraw(&mut self, world: &mut World<'_>, prefix: &IpNet, peer: PeerIndex) {
        if let Some(net) = self.find(prefix) {
            self.withdraw_net(world, net, peer);
        }
    }

    pub(super) fn withdraw_net(&mut self, world: &mut World<'_>, net: u32, peer: PeerIndex) {
        let (previous, at) = self.locate(net, peer);
        if at == NONE {
            return;
        }
        let before = self.best(net);
        let shared = world.decision.is_multipath() && self.shares(world, net, at);
        let old = self.paths[at];
        self.unchain(net, previous, at);
        release(world, &old);
        world.peers.count(&old, self.slot, -1);
        self.decide(world, net, before, None, shared);
    }

    /// Puts a path into the chain, behind the best one.
    fn insert_path(&mut self, net: u32, mut path: Path) -> u32 {
        let head = self.nets[net].head();
        if head == NONE {
            let at = self.paths.insert(path);
            self.nets[net].set_head(at);
            return at;
        }
        path.next = self.paths[head].next;
        let at = self.paths.insert(path);
        self.paths[head].next = at;
        at
    }

    /// Whether traffic may be split between this path and the best one.
    fn shares(&self, world: &World<'_>, net: u32, at: u32) -> bool {
        if !self.nets[net].has(BEST) {
            return false;
        }
        let best = &self.paths[self.nets[net].head()];
        let best = world.facts().key_dead_or_alive(best);
        best.is_some_and(|best| may_share(world, &self.paths[at], &best))
    }

    /// Decides anew after one path changed (`at`) or went (`None`). `before` is the best path until then, `shared`
    /// whether the path was one of those that traffic was split between.
    fn decide(
        &mut self,
        world: &mut World<'_>,
        net: u32,
        before: Option<(AttrId, PeerIndex)>,
        at: Option<u32>,
        shared: bool,
    ) {
        let facts = world.facts();
        if at.is_some_and(|at| facts.med(&self.paths[at]) != 0) {
            self.nets[net].set(MED, true);
        }
        // With MEDs about, any path may decide which others count as equal.
        let shared = shared || self.nets[net].has(MED);
        let head = self.nets[net].head();
        if !self.nets[net].has(BEST) || self.nets[net].has(MED) || at == Some(head) {
            self.reselect(facts, net);
        } else if let Some(at) = at {
            match (facts.key(&self.paths[at]), facts.key(&self.paths[head])) {
                (Some(key), Some(best)) if key.beats_without_med(&best) => {
                    self.move_to_front(net, at);
                }
                (_, Some(_)) => {}
                // The best one no longer counts, and the walk has yet to come by: any other may be the best now. It may
                // also be gone by then, and the walk see nothing to do.
                (_, None) => self.reselect(facts, net),
            }
        }
        let after = self.best(net);
        if before != after {
            self.best_changed(world.peers, net, before, after);
        } else if world.decision.is_multipath()
            && (shared || at.is_some_and(|at| self.shares(world, net, at)))
        {
            self.changed(net, false, false);
        }
        if self.nets[net].head() == NONE {
            self.bury(net);
            if before == after {
                // No news in it that makes anybody walk past.
                self.collect();
            }
        }
    }

    /// The whole decision process over the chain.
    pub(super) fn reselect(&mut self, facts: Facts<'_>, net: u32) {
        let mut places: SmallVec<[u32; 8]> = SmallVec::new();
        let mut keys: SmallVec<[Option<Key>; 8]> = SmallVec::new();
        let mut at = self.nets[net].head();
        let mut med = false;
        while at != NONE {
            let path = &self.paths[at];
            med |= facts.med(path) != 0;
            places.push(at);
            keys.push(facts.key(path));
            at = path.next;
        }
        self.nets[net].set(MED, med);
        match select(&keys) {
            Some(best) => self.move_to_front(net, places[best]),
            None => self.nets[net].set(BEST, false),
        }
    }

    fn move_to_front(&mut self, net: u32, at: u32) {
        let head = self.nets[net].head();
        if head != at {
            let mut before = head;
            while self.paths[before].next != at {
                before = self.paths[before].next;
            }
            self.paths[before].next = self.paths[at].next;
            self.paths[at].next = head;
            self.nets[net].set_head(at);
        }
        self.nets[net].set(BEST, true);
    }

    pub(super) fn best_changed(
        &mut self,
        peers: &mut Peers,
        net: u32,
        before: Option<(AttrId, PeerIndex)>,
        after: Option<(AttrId, PeerIndex)>,
    ) {
        let (old, new) = (before.map(|best| best.1), after.map(|best| best.1));
        if old != new {
            for (source, by) in [(old, -1), (new, 1)] {
                let Some(source) = source else { continue };
                self.bests = self.bests.saturating_add_signed(by);
                if let Some(peer) = peers.get_mut(source) {
                    let best = &mut peer.paths[self.slot].best;
                    *best = best.saturating_add_signed(by);
                }
            }
        }
        self.changed(net, true, old != new);
    }
}

/// Whether traffic may be split between a path and the best one, or may have been before it died.
pub(super) fn may_share(world: &World<'_>, path: &Path, best: &Key) -> bool {
    let peer = world.peers.get(path.peer());
    let unknown =
        peer.is_some_and(|peer| peer.changed_kind) && world.peers.is_dead(path, world.slot);
    let key = world.facts().key_dead_or_alive(path);
    unknown || key.is_some_and(|key| key.may_share_with(best))
}

pub(super) fn retain(world: &mut World<'_>, path: &Path) {
    world.attrs.retain(path.received());
    if let Some(id) = path.accepted() {
        world.attrs.retain(id);
    }
}

pub(super) fn release(world: &mut World<'_>, path: &Path) {
    world.attrs.release(path.received());
    if let Some(id) = path.accepted() {
        world.attrs.release(id);
    }
}

//! What peers offer, and which of it is best: paths come and go, and each time the decision process runs as far as it
//! has to.

use ipnet::IpNet;
use smallvec::SmallVec;

use super::attrs::{AttrId, AttrStore};
use super::decision::{Facts, Key, select};
use super::list::{BEST, MAX_PATHS, MED};
use super::pages::NONE;
use super::path::{EPOCH, Offer, Path, REJECTED};
use super::peer::{PeerIndex, Peers};
use super::table::Table;
use crate::config::Decision;

/// What the table needs from around it.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) attrs: &'a mut AttrStore,
    pub(super) peers: &'a mut Peers,
    pub(super) decision: Decision,
}

impl World<'_> {
    pub(super) fn facts(&self) -> Facts<'_> {
        Facts {
            attrs: self.attrs,
            peers: self.peers,
            decision: self.decision,
        }
    }
}

impl Table {
    /// A peer announces a prefix, or import policy was asked again. The offer's attribute sets are counted here.
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
            let epoch = world
                .peers
                .get(peer)
                .is_some_and(|peer| peer.epoch[self.slot]);
            self.offer_net(world, net, peer, offer, epoch);
        }
    }

    /// A path gets another verdict; it is not announced anew, so what is stale stays so.
    pub(super) fn judged(
        &mut self,
        world: &mut World<'_>,
        net: u32,
        peer: PeerIndex,
        offer: Offer,
    ) {
        let (_, at) = self.locate(net, peer);
        if at != NONE {
            let epoch = self.paths[at].epoch();
            self.offer_net(world, net, peer, offer, epoch);
        }
    }

    fn offer_net(
        &mut self,
        world: &mut World<'_>,
        net: u32,
        peer: PeerIndex,
        offer: Offer,
        epoch: bool,
    ) {
        let (_, at) = self.locate(net, peer);
        let who = peer.0 | if epoch { EPOCH } else { 0 };
        let (verdict, who) = match offer.verdict {
            Ok(id) => (id.0, who),
            Err(reason) => (reason.0, who | REJECTED),
        };
        let mut path = Path {
            next: NONE,
            received: offer.received,
            verdict,
            who,
        };
        if at == NONE {
            retain(world, &path);
            count(world, self.slot, &path, 1);
            let before = self.best(net);
            let at = self.insert_path(net, path);
            return self.decide(world, net, before, Some(at), false);
        }
        let old = self.paths[at];
        path.next = old.next;
        if path.who & !EPOCH == old.who & !EPOCH
            && path.received == old.received
            && path.verdict == old.verdict
        {
            // The same again: no longer stale, if it was.
            self.paths[at].who = path.who;
            return;
        }
        let before = self.best(net);
        let shared = world.decision.is_multipath() && self.shares(world, net, at);
        retain(world, &path);
        count(world, self.slot, &path, 1);
        self.paths[at] = path;
        release(world, &old);
        count(world, self.slot, &old, -1);
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
        if previous == NONE {
            self.nets[net].set_head(old.next);
            self.nets[net].set(BEST, false);
        } else {
            self.paths[previous].next = old.next;
        }
        self.paths.remove(at);
        release(world, &old);
        count(world, self.slot, &old, -1);
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
        let facts = world.facts();
        let best = facts.key(&self.paths[self.nets[net].head()]);
        let key = facts.key(&self.paths[at]);
        key.zip(best)
            .is_some_and(|(key, best)| key.may_share_with(&best))
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
            let better = match (facts.key(&self.paths[at]), facts.key(&self.paths[head])) {
                (Some(key), Some(best)) => key.beats_without_med(&best),
                (key, _) => key.is_some(),
            };
            if better {
                self.move_to_front(net, at);
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
    fn reselect(&mut self, facts: Facts<'_>, net: u32) {
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

    /// Decides anew for every net.
    pub(super) fn decide_again(&mut self, world: &mut World<'_>) {
        for net in 0..self.nets.end() {
            if self.nets[net].is_net() {
                // Limits may have changed as well.
                self.reselect_net(world, net, true);
            }
        }
    }

    /// Decides anew for every net that has a path via a next hop whose cost changed.
    pub(super) fn reconsider(&mut self, world: &mut World<'_>) {
        for net in 0..self.nets.end() {
            if !self.nets[net].is_net() {
                continue;
            }
            let concerned = self.chain(net).any(|path| {
                path.accepted()
                    .is_some_and(|id| world.attrs.is_reconsidered(id))
            });
            if concerned {
                self.reselect_net(world, net, world.decision.is_multipath());
            }
        }
    }

    /// Decides anew for one net; `shared`: traffic may be split otherwise than before though the best path is the same.
    fn reselect_net(&mut self, world: &mut World<'_>, net: u32, shared: bool) {
        let before = self.best(net);
        self.reselect(world.facts(), net);
        let after = self.best(net);
        if before != after {
            self.best_changed(world.peers, net, before, after);
        } else if shared && after.is_some() {
            self.changed(net, false, false);
        }
    }

    /// What a peer is to us changed: everybody has to look again at the routes that are best from it.
    pub(super) fn source_changed(&mut self, peer: PeerIndex) {
        for net in 0..self.nets.end() {
            if self.nets[net].is_net() && self.best(net).is_some_and(|(_, source)| source == peer) {
                self.changed(net, true, false);
            }
        }
    }

    fn best_changed(
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

fn retain(world: &mut World<'_>, path: &Path) {
    world.attrs.retain(path.received);
    if let Some(id) = path.accepted() {
        world.attrs.retain(id);
    }
}

fn release(world: &mut World<'_>, path: &Path) {
    world.attrs.release(path.received);
    if let Some(id) = path.accepted() {
        world.attrs.release(id);
    }
}

fn count(world: &mut World<'_>, slot: usize, path: &Path, by: i32) {
    if let Some(peer) = world.peers.get_mut(path.peer()) {
        let paths = &mut peer.paths[slot];
        paths.all = paths.all.saturating_add_signed(by);
        if path.rejected().is_some() {
            paths.rejected = paths.rejected.saturating_add_signed(by);
        }
    }
}

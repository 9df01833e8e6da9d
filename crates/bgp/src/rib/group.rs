//! Update groups: who shares what is encoded, and where each reader is.
//!
//! Peers with the same [`GroupKey`](super::export::GroupKey) are told the same, save that nobody hears its own routes
//! back. So a stretch of the change list becomes one [`Chunk`] of messages for all of the group's readers that are at
//! its start. A reader that is slow is behind in the list and later gets a chunk of its own; it keeps at most one.

use std::collections::VecDeque;
use std::sync::Arc;

use bgp_wire::RouteRefresh;
use bgp_wire::update::encode_end_of_rib;
use bytes::Bytes;

use super::chunk::{self, Chunk};
use super::decision::Facts;
use super::export::Exporter;
use super::list::Place;
use super::peer::PeerIndex;
use super::table::Table;

/// A set of nets.
#[derive(Debug, Default)]
pub(super) struct BitSet {
    words: Vec<u64>,
    count: u32,
}

impl BitSet {
    pub(super) fn has(&self, net: u32) -> bool {
        self.words
            .get(net as usize / 64)
            .is_some_and(|word| word >> (net % 64) & 1 == 1)
    }

    pub(super) fn set(&mut self, net: u32, on: bool) {
        let at = net as usize / 64;
        if self.words.len() <= at {
            if !on {
                return;
            }
            self.words.resize(at + 1, 0);
        }
        let bit = 1 << (net % 64);
        let word = &mut self.words[at];
        if (*word & bit != 0) == on {
            return;
        }
        *word ^= bit;
        self.count = self.count.saturating_add_signed(if on { 1 } else { -1 });
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.words).flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(at * 64 + bit)
            })
        })
    }

    fn add_all(&mut self, other: &Self) {
        if self.words.len() < other.words.len() {
            self.words.resize(other.words.len(), 0);
        }
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            self.count += (other & !*word).count_ones();
            *word |= other;
        }
    }
}

/// One group in one family.
#[derive(Debug, Default)]
pub(super) struct GroupOut {
    pub(super) members: Vec<PeerIndex>,
    /// Nets that some member may have been told of and not yet untold.
    pub(super) may: BitSet,
    /// Nets that were announced when the group last came by.
    pub(super) last: BitSet,
    /// The highest version of a net that left `may` because every member was told: who is given an older chunk
    /// would not be.
    pub(super) untold: u32,
    /// Chunks that others may want yet; big ones for peers that come up later.
    cache: VecDeque<Arc<Chunk>>,
}

/// How many chunks are made before one that says anything to a peer, in one turn.
const BUILDS: usize = 16;

/// Bounds on the chunks that a group keeps for others.
const CACHED_CHUNKS: usize = 64;
const CACHED_OCTETS: usize = 2 << 20;

impl GroupOut {
    pub(super) fn may_have(&self, net: u32) -> bool {
        self.may.has(net)
    }

    pub(super) fn forget(&mut self, net: u32) {
        self.may.set(net, false);
        self.last.set(net, false);
    }

    pub(super) fn bytes(&self) -> usize {
        (self.may.words.capacity() + self.last.words.capacity()) * 8
            + self.cache.iter().map(|chunk| chunk.bytes()).sum::<usize>()
    }
}

/// Where a peer is in a family's change list.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) group: usize,
    /// All before is sent, or in `chunk`.
    pub(super) place: Place,
    /// What is being sent, and how many of its pieces are.
    pub(super) chunk: Option<(Arc<Chunk>, u8)>,
    /// Up to this version everything is sent, whether or not it changed since: the reader starts anew.
    pub(super) fresh_until: u32,
    /// End-of-RIB is due when the reader has come to this version.
    pub(super) end_of_rib: Option<u32>,
    /// The peer wants everything again, between a BoRR and an EoRR.
    pub(super) refresh_wanted: bool,
    /// BoRR is sent; EoRR is due when the reader has come to this version.
    pub(super) end_of_refresh: Option<u32>,
}

impl Reader {
    pub(super) fn renumber(&mut self, map: impl Fn(u32) -> u32) {
        self.fresh_until = map(self.fresh_until);
        self.end_of_rib = self.end_of_rib.map(&map);
        self.end_of_refresh = self.end_of_refresh.map(&map);
    }
}

impl Table {
    /// Enters a peer into a group: it is sent everything, then End-of-RIB. `elsewhere`: there are paths of it from when it
    /// was in another group.
    pub(super) fn join(&mut self, peer: PeerIndex, group: usize, elsewhere: bool) {
        if elsewhere {
            // What is kept was made without regard to what this peer would have to forget.
            self.drop_cache(group);
        }
        let version = self.list.version();
        let place = self.list.enter_first(&mut self.nets);
        let reader = Reader {
            group,
            place,
            chunk: None,
            fresh_until: version,
            end_of_rib: Some(version),
            refresh_wanted: false,
            end_of_refresh: None,
        };
        let index = peer.0 as usize;
        if self.readers.len() <= index {
            self.readers.resize_with(index + 1, || None);
        }
        self.readers[index] = Some(reader);
        self.group_mut(group).members.push(peer);
    }

    fn group_mut(&mut self, group: usize) -> &mut GroupOut {
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, || None);
        }
        self.groups[group].get_or_insert_with(GroupOut::default)
    }

    /// Takes a peer out of everything.
    pub(super) fn leave(&mut self, peer: PeerIndex) {
        let Some(reader) = self.readers.get_mut(peer.0 as usize).and_then(Option::take) else {
            return;
        };
        self.list.leave(&mut self.nets, reader.place);
        self.leave_group(peer, reader.group);
        self.collect();
    }

    fn leave_group(&mut self, peer: PeerIndex, group: usize) {
        let Some(out) = self.groups.get_mut(group).and_then(Option::as_mut) else {
            return;
        };
        out.members.retain(|&member| member != peer);
        if out.members.is_empty() {
            self.drop_cache(group);
            self.groups[group] = None;
        }
    }

    /// Moves a peer to another group: it is sent everything under the new rules, and what those do not allow any more
    /// is withdrawn.
    pub(super) fn regroup(&mut self, peer: PeerIndex, group: usize) {
        let Some(old) = self.reader(peer).map(|reader| reader.group) else {
            return;
        };
        if old == group {
            return;
        }
        let may = self
            .groups
            .get_mut(old)
            .and_then(Option::as_mut)
            .map(|out| std::mem::take(&mut out.may));
        let may = may.unwrap_or_default();
        // Made for those who were told nothing of what the new rules forbid.
        self.drop_cache(group);
        let out = self.group_mut(group);
        out.may.add_all(&may);
        out.members.push(peer);
        if let Some(Some(out)) = self.groups.get_mut(old) {
            out.may = may;
        }
        if let Some(reader) = self.readers[peer.0 as usize].as_mut() {
            reader.group = group;
        }
        self.leave_group(peer, old);
        self.restart(peer);
    }

    /// Starts a reader anew (RFC 2918 §4). What it is being sent right now is sent to its end: the group counts on it.
    pub(super) fn restart(&mut self, peer: PeerIndex) {
        let version = self.list.version();
        let Some(Some(reader)) = self.readers.get_mut(peer.0 as usize) else {
            return;
        };
        let first = self.list.enter_first(&mut self.nets);
        let old = std::mem::replace(&mut reader.place, first);
        reader.fresh_until = version;
        self.list.leave(&mut self.nets, old);
    }

    /// The peer asked for everything again. With the marks of RFC 7313 it waits for its turn: not before the first
    /// End-of-RIB, for until then the peer ignores a BoRR, and not before the end of the refresh that goes on.
    pub(super) fn refresh(&mut self, peer: PeerIndex, enhanced: bool) {
        if !enhanced {
            return self.restart(peer);
        }
        if let Some(reader) = self.reader_mut(peer) {
            reader.refresh_wanted = true;
        }
    }

    /// Every reader starts anew: what it was told was not all of it.
    pub(super) fn begin_anew(&mut self) {
        self.drop_caches();
        for peer in (0..).take(self.readers.len()).map(PeerIndex) {
            self.restart(peer);
        }
        self.postpone_end_of_rib();
    }

    /// End-of-RIB follows all that there is now, not only what there was when the reader came.
    pub(super) fn postpone_end_of_rib(&mut self) {
        let version = self.list.version();
        for reader in self.readers.iter_mut().flatten() {
            reader.end_of_rib = reader.end_of_rib.map(|_| version);
        }
    }

    pub(super) fn reader(&self, peer: PeerIndex) -> Option<&Reader> {
        self.readers.get(peer.0 as usize)?.as_ref()
    }

    fn reader_mut(&mut self, peer: PeerIndex) -> Option<&mut Reader> {
        self.readers.get_mut(peer.0 as usize)?.as_mut()
    }

    /// Whether there is something that the peer was not offered yet.
    pub(super) fn is_behind(&self, peer: PeerIndex) -> bool {
        self.reader(peer).is_some_and(|reader| {
            reader.chunk.is_some()
                || (reader.end_of_rib.is_some() && !self.holds_end_of_rib)
                || reader.refresh_wanted
                || reader.end_of_refresh.is_some()
                || self
                    .list
                    .next_net(&self.nets, reader.place.node())
                    .is_some()
        })
    }

    /// The next octets for a peer: whole messages, and how many they are.
    pub(super) fn poll(
        &mut self,
        facts: Facts<'_>,
        exporter: &Exporter<'_>,
        peer: PeerIndex,
    ) -> Option<(Bytes, u32)> {
        for _ in 0..BUILDS {
            let reader = self.reader_mut(peer)?;
            if let Some((chunk, stage)) = reader.chunk.as_mut() {
                if let Some(piece) = chunk.piece(peer, stage) {
                    return Some(piece);
                }
                reader.chunk = None;
            }
            let (place, fresh_until) = (reader.place, reader.fresh_until);
            let at = self.nets[place.node()].version;
            let more = self.list.next_net(&self.nets, place.node()).is_some();
            if let Some(mark) = self.mark(peer, at, more) {
                return Some((mark, 1));
            }
            if !more {
                return None;
            }
            let fresh = at < fresh_until;
            let group = self.reader(peer)?.group;
            match self.cached(group, place, fresh) {
                Some(chunk) => self.take(peer, chunk),
                None => self.build(facts, exporter, group, place, fresh),
            }
            self.collect();
        }
        // So much that says nothing to this peer.
        self.cut_short = true;
        None
    }

    /// The End-of-RIB, BoRR or EoRR that is due now that a reader has come to version `at`.
    fn mark(&mut self, peer: PeerIndex, at: u32, more: bool) -> Option<Bytes> {
        let family = self.family;
        let due = |due: u32| !more || at >= due;
        let holds = self.holds_end_of_rib;
        let reader = self.reader_mut(peer)?;
        let mut message = Vec::new();
        if holds {
            // Nor is there a refresh before it.
            return None;
        }
        if reader.end_of_rib.is_some_and(due) {
            reader.end_of_rib = None;
            encode_end_of_rib(family, &mut message);
        } else if reader.end_of_refresh.is_some_and(due) {
            reader.end_of_refresh = None;
            let subtype = RouteRefresh::END;
            RouteRefresh { family, subtype }.encode(&mut message);
        } else if reader.refresh_wanted
            && reader.end_of_rib.is_none()
            && reader.end_of_refresh.is_none()
        {
            reader.refresh_wanted = false;
            self.restart(peer);
            let reader = self.reader_mut(peer)?;
            reader.end_of_refresh = Some(reader.fresh_until);
            let subtype = RouteRefresh::BEGIN;
            RouteRefresh { family, subtype }.encode(&mut message);
        } else {
            return None;
        }
        Some(message.into())
    }

    /// A chunk that starts where a reader is, if one is kept and is still worth sending.
    fn cached(&self, group: usize, place: Place, fresh: bool) -> Option<Arc<Chunk>> {
        let out = self.groups.get(group)?.as_ref()?;
        let chunk = out
            .cache
            .iter()
            .find(|chunk| chunk.start == place && chunk.fresh == fresh)?;
        // What changed since comes again later in the list, but a withdrawal that all who needed it have got does not.
        let complete = chunk.made_at >= self.last_freed.max(out.untold);
        // Nor is it worth it when much would be sent twice. Not so in tests, for them to see that nothing depends on it.
        let current =
            complete && (cfg!(test) || self.moves - chunk.moves <= u64::from(chunk.nets / 2));
        current.then(|| Arc::clone(chunk))
    }

    fn take(&mut self, peer: PeerIndex, chunk: Arc<Chunk>) {
        let Some(Some(reader)) = self.readers.get_mut(peer.0 as usize) else {
            return;
        };
        self.list.enter(&self.nets, chunk.end);
        let old = std::mem::replace(&mut reader.place, chunk.end);
        // Nothing in it: then the peer need not be asked again.
        reader.chunk = (!chunk.is_empty()).then_some((chunk, 0));
        self.list.leave(&mut self.nets, old);
    }

    /// Encodes the stretch after a place, for every reader that is there and has nothing in hand.
    fn build(
        &mut self,
        facts: Facts<'_>,
        exporter: &Exporter<'_>,
        group: usize,
        start: Place,
        fresh: bool,
    ) {
        let version = self.nets[start.node()].version;
        let mut takers = Vec::new();
        // What every other member has walked past.
        let mut passed = u32::MAX;
        for &member in self.groups[group].iter().flat_map(|out| &out.members) {
            let Some(reader) = self.reader(member) else {
                continue;
            };
            if reader.place == start
                && reader.chunk.is_none()
                && (version < reader.fresh_until) == fresh
            {
                takers.push(member);
            } else {
                passed = passed.min(self.nets[reader.place.node()].version);
            }
        }
        let Some(chunk) = chunk::build(self, facts, exporter, group, start, fresh, passed) else {
            return;
        };
        let chunk = Arc::new(chunk);
        // First, for the place where it starts goes with the last reader that leaves it.
        self.keep(group, &chunk);
        for member in takers {
            self.take(member, Arc::clone(&chunk));
        }
        // The builder's own entry.
        self.list.leave(&mut self.nets, chunk.end);
    }

    fn keep(&mut self, group: usize, chunk: &Arc<Chunk>) {
        let Some(Some(out)) = self.groups.get_mut(group) else {
            return;
        };
        if out.members.len() < 2 || chunk.is_empty() {
            return;
        }
        self.list.hold(&self.nets, chunk.start);
        self.list.hold(&self.nets, chunk.end);
        out.cache.push_back(Arc::clone(chunk));
        loop {
            let Some(Some(out)) = self.groups.get_mut(group) else {
                return;
            };
            let octets: usize = out.cache.iter().map(|chunk| chunk.bytes()).sum();
            if out.cache.len() <= CACHED_CHUNKS && octets <= CACHED_OCTETS {
                return;
            }
            // Small ones were for readers in step, and most of those are past them.
            let small = out
                .cache
                .iter()
                .position(|chunk| !chunk.full)
                .filter(|&at| at + 1 < out.cache.len());
            let Some(dropped) = out.cache.remove(small.unwrap_or(0)) else {
                return;
            };
            self.list.release(&mut self.nets, dropped.start);
            self.list.release(&mut self.nets, dropped.end);
        }
    }

    fn drop_cache(&mut self, group: usize) {
        let Some(Some(out)) = self.groups.get_mut(group) else {
            return;
        };
        for chunk in std::mem::take(&mut out.cache) {
            self.list.release(&mut self.nets, chunk.start);
            self.list.release(&mut self.nets, chunk.end);
        }
    }

    pub(super) fn drop_caches(&mut self) {
        for group in 0..self.groups.len() {
            self.drop_cache(group);
        }
    }

    /// How many nets a peer is told of, once it has caught up: what its group was told, less what is its own.
    pub(super) fn advertised(&self, peer: PeerIndex, own: u32) -> usize {
        let Some(reader) = self.reader(peer) else {
            return 0;
        };
        let Some(out) = self.groups.get(reader.group).and_then(Option::as_ref) else {
            return 0;
        };
        let caught_up = self
            .list
            .next_net(&self.nets, reader.place.node())
            .is_none();
        if caught_up && out.last.count == self.bests {
            // Everything is announced: no need to look at each net.
            return (out.last.count - own) as usize;
        }
        out.last
            .iter()
            .filter(|&net| self.best(net).is_some_and(|(_, source)| source != peer))
            .count()
    }
}

//! A stretch of the change list as messages for a group.

use bgp_wire::{Attributes, NextHop};
use bytes::Bytes;
use hashbrown::HashTable;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::attrs::AttrId;
use super::decision::Facts;
use super::encode;
use super::export::Exporter;
use super::list::{CHANGED, MOVED, Place};
use super::peer::{PeerIndex, RETELL};
use super::table::Table;
use crate::policy::{Applied, Outcome};

/// Nets in one chunk at most: also how much work one step may be.
const MAX_NETS: usize = if cfg!(test) { 4 } else { 1024 };
/// Octets of attributes in one chunk at most, one set more or less.
const MAX_ATTRIBUTE_OCTETS: usize = 64 << 10;

/// Messages for every reader of a group between two places.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) start: Place,
    pub(super) end: Place,
    /// For readers that start anew.
    pub(super) fresh: bool,
    /// As many nets as fit: worth keeping for others.
    pub(super) full: bool,
    pub(super) nets: u32,
    /// The version of the last change when it was made, and how many nets had moved.
    pub(super) made_at: u32,
    pub(super) moves: u64,
    /// Withdrawals, then announcements by source.
    body: Bytes,
    messages: u32,
    /// What differs for those that something here comes from, by peer.
    sources: Vec<Source>,
}

/// What a peer gets in the place of its own routes.
#[derive(Debug)]
struct Source {
    peer: PeerIndex,
    /// Its routes' messages, in the body.
    start: usize,
    end: usize,
    messages: u32,
    /// Withdrawals of what it was told of before its own routes became the best.
    instead: Bytes,
    instead_messages: u32,
}

impl Chunk {
    /// The next piece for a peer: octets, and how many messages they are. `stage` counts on.
    pub(super) fn piece(&self, peer: PeerIndex, stage: &mut u8) -> Option<(Bytes, u32)> {
        let Ok(at) = self
            .sources
            .binary_search_by_key(&peer, |source| source.peer)
        else {
            let whole = *stage == 0 && !self.body.is_empty();
            *stage = 1;
            return whole.then(|| (self.body.clone(), self.messages));
        };
        let source = &self.sources[at];
        loop {
            *stage += 1;
            let (piece, messages) = match *stage {
                // The messages around its own are counted with the first piece.
                1 => (
                    self.body.slice(..source.start),
                    self.messages - source.messages,
                ),
                2 => (source.instead.clone(), source.instead_messages),
                3 => (
                    self.body.slice(source.end..),
                    if source.start == 0 {
                        self.messages - source.messages
                    } else {
                        0
                    },
                ),
                _ => return None,
            };
            if !piece.is_empty() {
                return Some((piece, messages));
            }
        }
    }

    /// Nobody is told anything by it.
    pub(super) fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
            + self
                .sources
                .iter()
                .map(|source| source.instead.len() + size_of::<Source>())
                .sum::<usize>()
    }
}

/// Announcements that share all attributes and their source.
#[derive(Debug)]
struct Bucket {
    source: PeerIndex,
    next_hop: NextHop,
    /// Encoded attributes, in the builder's buffer.
    attributes: (usize, usize),
    nets: u32,
}

/// One attribute set from one source under the group's rules.
#[derive(Debug)]
struct Memo {
    id: AttrId,
    source: PeerIndex,
    /// What policy sees; `None` if the route is withheld before policy is asked.
    attributes: Option<Attributes>,
    /// The bucket, or `None` for withheld, where the prefix has no say.
    fixed: Option<Option<u32>>,
    /// By what policy applies, where the prefix has.
    variants: SmallVec<[(Applied, Option<u32>); 1]>,
}

#[derive(Debug)]
struct Builder<'a> {
    exporter: &'a Exporter<'a>,
    facts: Facts<'a>,
    memos: Vec<Memo>,
    index: HashTable<u32>,
    latest: usize,
    buckets: Vec<Bucket>,
    attributes: Vec<u8>,
    /// Bucket and net, in the order of the list.
    announced: Vec<(u32, u32)>,
    withdrawn: Vec<u32>,
    /// Who has to forget a net because its own route is now the best.
    instead: Vec<(PeerIndex, u32)>,
}

/// Encodes the stretch after `start`; the caller gets one entry to the place where it ends. `passed`: the version up to
/// which those members have read that will not get this chunk. `None` if nothing follows.
pub(super) fn build(
    table: &mut Table,
    facts: Facts<'_>,
    exporter: &Exporter<'_>,
    group: usize,
    start: Place,
    fresh: bool,
    passed: u32,
) -> Option<Chunk> {
    let mut builder = Builder {
        exporter,
        facts,
        memos: Vec::new(),
        index: HashTable::new(),
        latest: 0,
        buckets: Vec::new(),
        attributes: Vec::new(),
        announced: Vec::new(),
        withdrawn: Vec::new(),
        instead: Vec::new(),
    };
    let mut out = table.groups.get_mut(group)?.take()?;
    let (mut at, mut walked) = (start.node(), 0);
    while walked < MAX_NETS && builder.attributes.len() < MAX_ATTRIBUTE_OCTETS {
        let Some(net) = table.list.next_net(&table.nets, at) else {
            break;
        };
        at = net;
        walked += 1;
        let record = &table.nets[net];
        if !fresh && !record.has(CHANGED) {
            continue;
        }
        let best = table
            .best(net)
            .filter(|(_, source)| exporter.tells(*source));
        let bucket = best.and_then(|(id, source)| builder.bucket(id, source, table.prefix(net)));
        let told = out.may.has(net);
        if let (Some(bucket), Some((_, source))) = (bucket, best) {
            builder.announced.push((bucket, net));
            if told && (fresh || record.has(MOVED)) && source != PeerIndex::LOCAL {
                builder.instead.push((source, net));
            }
            out.may.set(net, true);
        } else if told {
            builder.withdrawn.push(net);
            // Who has read past it knows already, unless it is withheld by rules that the walk has yet to bring here.
            let news = table
                .best(net)
                .is_some_and(|(_, source)| facts.peers.due(source, facts.slot) & RETELL != 0);
            if record.version <= passed && !news {
                out.may.set(net, false);
                out.untold = out.untold.max(record.version);
            }
        }
        out.last.set(net, bucket.is_some());
    }
    // Who is not there may be given this later, from the cache, with its routes from before its restart still the best.
    let readers = &table.readers;
    let reads = |source: PeerIndex| readers.get(source.0 as usize)?.as_ref();
    builder
        .instead
        .retain(|(source, _)| reads(*source).is_none_or(|reader| reader.group == group));
    table.groups[group] = Some(out);
    if walked == 0 {
        return None;
    }
    let end = table.list.enter_after(&mut table.nets, at);
    let mut chunk = builder.finish(table, start, end);
    chunk.fresh = fresh;
    chunk.full = walked == MAX_NETS;
    chunk.nets = u32::try_from(walked).unwrap_or(u32::MAX);
    Some(chunk)
}

impl Builder<'_> {
    /// Where a route goes; `None` if it is withheld.
    fn bucket(&mut self, id: AttrId, source: PeerIndex, prefix: IpNet) -> Option<u32> {
        let memo = self.memo(id, source, prefix);
        if let Some(fixed) = self.memos[memo].fixed {
            return fixed;
        }
        let attributes = self.memos[memo].attributes.as_ref()?;
        let Outcome::Accept(applied) = self.exporter.policy(prefix, attributes, source) else {
            return None;
        };
        if let Some((_, bucket)) = self.memos[memo]
            .variants
            .iter()
            .find(|(other, _)| *other == applied)
        {
            return *bucket;
        }
        let attributes = attributes.clone();
        let bucket = self.open(attributes, &applied, source);
        self.memos[memo].variants.push((applied, bucket));
        bucket
    }

    fn memo(&mut self, id: AttrId, source: PeerIndex, prefix: IpNet) -> usize {
        let is = |memo: &Memo| memo.id == id && memo.source == source;
        if self.memos.get(self.latest).is_some_and(is) {
            return self.latest;
        }
        let hash = hash(id, source);
        if let Some(&found) = self.index.find(hash, |&at| is(&self.memos[at as usize])) {
            self.latest = found as usize;
            return self.latest;
        }
        let attributes = self.facts.attrs.decode(id);
        let mut memo = Memo {
            id,
            source,
            attributes: None,
            fixed: None,
            variants: SmallVec::new(),
        };
        if self.exporter.gate(&attributes, source).is_err() {
            memo.fixed = Some(None);
        } else if self.exporter.key.policy.depends_on_prefix() {
            memo.attributes = Some(attributes);
        } else {
            memo.fixed = Some(match self.exporter.policy(prefix, &attributes, source) {
                Outcome::Accept(applied) => self.open(attributes, &applied, source),
                Outcome::Reject(_) => None,
            });
        }
        self.latest = self.memos.len();
        let at = u32::try_from(self.latest).unwrap_or(u32::MAX);
        self.memos.push(memo);
        let memos = &self.memos;
        self.index.insert_unique(hash, at, |&at| {
            let memo = &memos[at as usize];
            self::hash(memo.id, memo.source)
        });
        self.latest
    }

    /// Opens a bucket for what becomes of these attributes.
    fn open(
        &mut self,
        mut attributes: Attributes,
        applied: &[u16],
        source: PeerIndex,
    ) -> Option<u32> {
        let context = &self.exporter.key.context;
        self.exporter
            .rewrite(&mut attributes, applied, source)
            .ok()?;
        let next_hop = attributes.next_hop?;
        let start = self.attributes.len();
        attributes.encode(context, &mut self.attributes);
        let end = self.attributes.len();
        if !encode::fits(
            context,
            self.exporter.family,
            next_hop,
            &self.attributes[start..],
        ) {
            self.attributes.truncate(start);
            return None;
        }
        let bucket = u32::try_from(self.buckets.len()).ok();
        self.buckets.push(Bucket {
            source,
            next_hop,
            attributes: (start, end),
            nets: 0,
        });
        bucket
    }

    /// Writes the messages: withdrawals, then bucket after bucket, those of one source together.
    fn finish(mut self, table: &Table, start: Place, end: Place) -> Chunk {
        let context = self.exporter.key.context;
        let family = self.exporter.family;
        let mut body = Vec::with_capacity(self.attributes.len() + self.announced.len() * 5 + 64);
        let prefixes = |nets: &[u32]| {
            nets.iter()
                .map(|&net| table.prefix(net))
                .collect::<Vec<_>>()
        };
        let mut messages = encode::withdraw(&mut body, &context, family, prefixes(&self.withdrawn));

        let (sorted, starts) = self.sort();
        self.instead.sort_unstable();
        let mut order: Vec<usize> = (0..self.buckets.len())
            .filter(|&at| self.buckets[at].nets > 0)
            .collect();
        order.sort_by_key(|&at| self.buckets[at].source);
        let mut sources: Vec<Source> = Vec::new();
        for at in order {
            let bucket = &self.buckets[at];
            let from = body.len();
            let nets = &sorted[starts[at] as usize..][..bucket.nets as usize];
            let attributes = &self.attributes[bucket.attributes.0..bucket.attributes.1];
            let nets = nets.iter().map(|&net| table.prefix(net));
            let count = encode::announce(
                &mut body,
                &context,
                family,
                bucket.next_hop,
                attributes,
                nets,
            );
            messages += count;
            match sources.last_mut().filter(|last| last.peer == bucket.source) {
                Some(last) => {
                    last.end = body.len();
                    last.messages += count;
                }
                None if bucket.source == PeerIndex::LOCAL => {}
                None => {
                    let nets: Vec<u32> = self.instead_of(bucket.source);
                    let mut instead = Vec::new();
                    let instead_messages =
                        encode::withdraw(&mut instead, &context, family, prefixes(&nets));
                    sources.push(Source {
                        peer: bucket.source,
                        start: from,
                        end: body.len(),
                        messages: count,
                        instead: instead.into(),
                        instead_messages,
                    });
                }
            }
        }
        body.shrink_to_fit();
        Chunk {
            start,
            end,
            fresh: false,
            full: false,
            nets: 0,
            made_at: table.list.version(),
            moves: table.moves,
            body: body.into(),
            messages,
            sources,
        }
    }

    /// The announced nets by bucket, and where each bucket's begin: a counting sort.
    fn sort(&mut self) -> (Vec<u32>, Vec<u32>) {
        for &(bucket, _) in &self.announced {
            self.buckets[bucket as usize].nets += 1;
        }
        let mut starts = Vec::with_capacity(self.buckets.len());
        let mut sum = 0;
        for bucket in &self.buckets {
            starts.push(sum);
            sum += bucket.nets;
        }
        let mut sorted = vec![0; self.announced.len()];
        let mut next: Vec<u32> = starts.clone();
        for &(bucket, net) in &self.announced {
            let at = &mut next[bucket as usize];
            sorted[*at as usize] = net;
            *at += 1;
        }
        (sorted, starts)
    }

    /// Nets that a peer has to forget; the list is sorted.
    fn instead_of(&self, peer: PeerIndex) -> Vec<u32> {
        let from = self.instead.partition_point(|(other, _)| *other < peer);
        self.instead[from..]
            .iter()
            .take_while(|(other, _)| *other == peer)
            .map(|(_, net)| *net)
            .collect()
    }
}

fn hash(id: AttrId, source: PeerIndex) -> u64 {
    // Two small numbers: spread them with the golden ratio's bits.
    ((u64::from(id.0) << 32) | u64::from(source.0))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(31)
}

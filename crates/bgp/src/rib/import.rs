//! What a peer sends: checks, import policy, and into the table. Rejected paths are kept with the reason.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use bgp_wire::{Asn, Attributes, Community, NextHop, Nlri, SegmentKind, Update};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use smallvec::SmallVec;

use super::attrs::{AttrId, AttrStore};
use super::choose::World;
use super::path::{Offer, Path, Reason};
use super::peer::{PeerIndex, PeerSession};
use super::{Rib, slot};
use crate::config::LocalAs;
use crate::policy::{Applied, Candidate, Effects, NextHopChange, Outcome, Policy, SourceKind, add};

/// Why a path from a peer may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejected {
    /// Our own AS is in the AS_PATH (RFC 4271 §9.1.2).
    AsLoop,
    /// The AS_PATH does not start with the external peer's AS (RFC 4271 §6.3).
    FirstAs,
    /// The next hop is our own address (RFC 4271 §5.1.3).
    OwnNextHop,
    /// The next hop is not on the subnet that we share with the external peer (RFC 4271 §6.3).
    ForeignNextHop,
    /// The ORIGINATOR_ID is ours (RFC 4456 §8).
    OriginatorLoop,
    /// A cluster id of ours is in the CLUSTER_LIST (RFC 4456 §8).
    ClusterLoop,
    /// The AS_PATH has a confederation segment, and we are in no confederation (RFC 5065 §5).
    Confederation,
    /// Import policy: by this statement.
    Policy(String),
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AsLoop => "our AS is in its AS path",
            Self::FirstAs => "its AS path does not start with the peer's AS",
            Self::OwnNextHop => "its next hop is our own address",
            Self::ForeignNextHop => "its next hop is not on the subnet shared with the peer",
            Self::OriginatorLoop => "it originates from our own router id",
            Self::ClusterLoop => "our cluster id is in its cluster list",
            Self::Confederation => "its AS path has a confederation segment",
            Self::Policy(name) => return write!(f, "rejected by {name}"),
        })
    }
}

const AS_LOOP: u32 = 1 << 16;
const FIRST_AS: u32 = 2 << 16;
const OWN_NEXT_HOP: u32 = 3 << 16;
const FOREIGN_NEXT_HOP: u32 = 4 << 16;
const ORIGINATOR_LOOP: u32 = 5 << 16;
const CLUSTER_LOOP: u32 = 6 << 16;
const CONFEDERATION: u32 = 8 << 16;
/// The lower half is the statement's position, all ones for the default.
const POLICY: u32 = 7 << 16;

impl Reason {
    fn policy(statement: Option<u16>) -> Self {
        Self(POLICY | u32::from(statement.unwrap_or(u16::MAX)))
    }

    /// In words; `policy` is the peer's import policy as it is now.
    pub(super) fn explain(self, policy: &Policy) -> Rejected {
        match self.0 & 0xffff_0000 {
            AS_LOOP => Rejected::AsLoop,
            FIRST_AS => Rejected::FirstAs,
            OWN_NEXT_HOP => Rejected::OwnNextHop,
            FOREIGN_NEXT_HOP => Rejected::ForeignNextHop,
            ORIGINATOR_LOOP => Rejected::OriginatorLoop,
            CLUSTER_LOOP => Rejected::ClusterLoop,
            CONFEDERATION => Rejected::Confederation,
            _ => {
                let statement = u16::try_from(self.0 & 0xffff)
                    .ok()
                    .filter(|&statement| statement != u16::MAX);
                Rejected::Policy(policy.name_of(statement).to_owned())
            }
        }
    }
}

/// Takes in an UPDATE of a session that is up.
pub(super) fn update(rib: &mut Rib, peer: PeerIndex, update: &Update<'_>) {
    for run in &update.unreachable {
        withdraw(rib, peer, run);
    }
    for (next_hop, run) in &update.reachable {
        let Some(attributes) = &update.attributes else {
            withdraw(rib, peer, run);
            continue;
        };
        let attributes = if attributes.next_hop == Some(*next_hop) {
            Cow::Borrowed(attributes)
        } else {
            Cow::Owned(Attributes {
                next_hop: Some(*next_hop),
                ..attributes.clone()
            })
        };
        announce(rib, peer, attributes, run);
    }
}

fn withdraw(rib: &mut Rib, peer: PeerIndex, run: &Nlri<'_>) {
    let Some(slot) = slot(run.family()) else {
        return;
    };
    let (table, mut world) = rib.table(slot);
    for prefix in run {
        table.withdraw(&mut world, &prefix, peer);
    }
}

fn announce(rib: &mut Rib, peer: PeerIndex, attributes: Cow<'_, Attributes>, run: &Nlri<'_>) {
    let Some(slot) = slot(run.family()) else {
        return;
    };
    let Some(session) = rib.peers.get(peer).map(|peer| &peer.session) else {
        return;
    };
    if !session.families.contains(&run.family()) {
        return;
    }
    let received = rib.attrs.intern(&attributes);
    let identity = Identity {
        asn: rib.asn,
        router_id: rib.router_id,
        clusters: &rib.clusters,
    };
    let mut judge = Judge::new(session, identity, received, attributes);
    let (table, mut world) = rib.table(slot);
    for prefix in run {
        let verdict = judge.verdict(world.attrs, prefix);
        table.offer(&mut world, &prefix, peer, Offer { received, verdict });
    }
    judge.finish(&mut rib.attrs);
}

/// Verdicts asked for again in one turn of the [walk](super::walk): by peer the last one, for neighbouring prefixes mostly
/// have the same attributes.
#[derive(Debug)]
pub(super) struct Judges<'a> {
    identity: Identity<'a>,
    latest: HashMap<PeerIndex, Judge<'static>, FixedState>,
}

impl<'a> Judges<'a> {
    pub(super) fn new(identity: Identity<'a>) -> Self {
        Self {
            identity,
            latest: HashMap::default(),
        }
    }

    /// What import policy says now of a path; as it was where the peer is not known.
    pub(super) fn judge(&mut self, world: &mut World<'_>, path: Path, prefix: IpNet) -> Path {
        let received = path.received();
        let Some(peer) = world.peers.get(path.peer()) else {
            return path;
        };
        let known = self.latest.get(&path.peer());
        if known.is_none_or(|judge| judge.received != received) {
            world.attrs.retain(received);
            let attributes = Cow::Owned(world.attrs.decode(received));
            let judge = Judge::new(&peer.session, self.identity, received, attributes);
            if let Some(old) = self.latest.insert(path.peer(), judge) {
                old.finish(world.attrs);
            }
        }
        match self.latest.get_mut(&path.peer()) {
            Some(judge) => path.judged(judge.verdict(world.attrs, prefix)),
            None => path,
        }
    }

    /// Lets go of the attribute sets.
    pub(super) fn finish(self, attrs: &mut AttrStore) {
        for judge in self.latest.into_values() {
            judge.finish(attrs);
        }
    }
}

/// Who we are: what makes a route that comes back a loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) asn: Asn,
    pub(super) router_id: Ipv4Addr,
    pub(super) clusters: &'a [Ipv4Addr],
}

/// The verdict over one attribute set from one peer. Holds one reference to each set that it names.
#[derive(Debug)]
struct Judge<'a> {
    received: AttrId,
    attributes: Cow<'a, Attributes>,
    policy: Policy,
    source: SourceKind,
    local_asn: Asn,
    peer_address: IpAddr,
    duties: Duties,
    /// The verdict where the prefix has no say.
    fixed: Option<Result<AttrId, Reason>>,
    /// By what policy applies: the changed set.
    variants: SmallVec<[(Applied, AttrId); 1]>,
}

impl<'a> Judge<'a> {
    fn new(
        session: &PeerSession,
        identity: Identity<'_>,
        received: AttrId,
        attributes: Cow<'a, Attributes>,
    ) -> Self {
        Self {
            received,
            fixed: check(session, identity, &attributes).map(Err),
            duties: Duties::new(session, identity.asn, &attributes),
            attributes,
            policy: session.import.clone(),
            source: if session.ibgp {
                SourceKind::Internal
            } else {
                SourceKind::External
            },
            local_asn: session.local_asn,
            peer_address: session.peer_address,
            variants: SmallVec::new(),
        }
    }

    fn verdict(&mut self, attrs: &mut AttrStore, prefix: IpNet) -> Result<AttrId, Reason> {
        if let Some(fixed) = self.fixed {
            return fixed;
        }
        let candidate = Candidate {
            prefix,
            attributes: &self.attributes,
            source: self.source,
            from: Some(self.peer_address),
            internal: self.source == SourceKind::Internal,
        };
        let verdict = match self.policy.evaluate(&candidate) {
            Outcome::Reject(statement) => Err(Reason::policy(statement)),
            Outcome::Accept(applied) => Ok(self.variant(attrs, applied)),
        };
        if !self.policy.depends_on_prefix() {
            self.fixed = Some(verdict);
        }
        verdict
    }

    fn variant(&mut self, attrs: &mut AttrStore, applied: Applied) -> AttrId {
        if applied.is_empty() && self.duties.is_none() {
            return self.received;
        }
        if let Some((_, id)) = self.variants.iter().find(|(other, _)| *other == applied) {
            return *id;
        }
        let mut attributes = self.attributes.clone().into_owned();
        let effects = self.policy.apply(&applied, &mut attributes, self.local_asn);
        self.move_next_hop(effects, &mut attributes);
        self.duties.discharge(&mut attributes);
        let id = attrs.intern(&attributes);
        self.variants.push((applied, id));
        id
    }

    /// Policy says where packets are to go. An address of the other family than the route's own would not suit it.
    fn move_next_hop(&self, effects: Effects, attributes: &mut Attributes) {
        let wanted = match effects.next_hop {
            None | Some(NextHopChange::Own) => return,
            Some(NextHopChange::Peer) => self.peer_address,
            Some(NextHopChange::Address(address)) => address,
        };
        let suits = |now: NextHop| now.address().is_ipv4() == wanted.is_ipv4();
        if attributes.next_hop.is_none_or(suits) {
            attributes.next_hop = Some(wanted.into());
        }
    }

    fn finish(self, attrs: &mut AttrStore) {
        for (_, id) in self.variants {
            attrs.release(id);
        }
        attrs.release(self.received);
    }
}

/// What the peer's rules do to a route that policy has accepted, whatever policy says.
#[derive(Debug, Clone, Copy)]
struct Duties {
    /// This AS goes in front of the path.
    prepend: Option<Asn>,
    /// The path is about to go (RFC 8326 §4.2).
    shutdown: bool,
    /// A discard route, for us alone (RFC 7999 §3.2).
    blackhole: bool,
}

impl Duties {
    fn new(session: &PeerSession, asn: Asn, attributes: &Attributes) -> Self {
        let rules = &session.rules;
        let has = |community| attributes.communities.contains(&community);
        let stands_between = !session.ibgp && rules.local_as == LocalAs::Prepend;
        Self {
            prepend: (stands_between && session.local_asn != asn).then_some(session.local_asn),
            shutdown: !session.ibgp && rules.graceful_shutdown && has(Community::GRACEFUL_SHUTDOWN),
            blackhole: rules.blackhole && has(Community::BLACKHOLE),
        }
    }

    fn is_none(self) -> bool {
        self.prepend.is_none() && !self.shutdown && !self.blackhole
    }

    fn discharge(self, attributes: &mut Attributes) {
        if let Some(asn) = self.prepend {
            attributes.as_path.prepend(asn, 1);
        }
        if self.shutdown {
            attributes.local_pref = Some(0);
        }
        if self.blackhole {
            // Policy may have taken the first away.
            add(&mut attributes.communities, Community::BLACKHOLE);
            add(&mut attributes.communities, Community::NO_ADVERTISE);
        }
    }
}

/// What makes a route unusable whatever policy says.
fn check(session: &PeerSession, identity: Identity<'_>, attributes: &Attributes) -> Option<Reason> {
    let path = &attributes.as_path;
    let own = |asn: &Asn| *asn == session.local_asn || *asn == identity.asn;
    if path.asns().filter(own).count() > usize::from(session.rules.allowed_own_as) {
        return Some(Reason(AS_LOOP));
    }
    let mut kinds = path.segments.iter().map(|segment| segment.kind);
    if kinds.any(SegmentKind::is_confederation) {
        return Some(Reason(CONFEDERATION));
    }
    if !session.ibgp && path.neighbor() != Some(session.peer_asn) {
        return Some(Reason(FIRST_AS));
    }
    if let Some(next_hop) = attributes.next_hop.map(|next_hop| next_hop.address()) {
        if next_hop == session.local_address || session.other_local_address == Some(next_hop) {
            return Some(Reason(OWN_NEXT_HOP));
        }
        let foreign = session.shared_subnet.is_some_and(|subnet| {
            subnet.addr().is_ipv4() == next_hop.is_ipv4() && !subnet.contains(&next_hop)
        });
        if !session.ibgp && foreign && next_hop != session.peer_address {
            return Some(Reason(FOREIGN_NEXT_HOP));
        }
    }
    if attributes.originator_id == Some(identity.router_id) {
        return Some(Reason(ORIGINATOR_LOOP));
    }
    let came_through = |cluster| attributes.cluster_list.contains(cluster);
    if identity.clusters.iter().any(came_through) {
        return Some(Reason(CLUSTER_LOOP));
    }
    None
}

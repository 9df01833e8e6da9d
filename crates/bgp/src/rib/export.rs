//! What may be announced to whom, and with which attributes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp_wire::{Asn, Attributes, Community, Context, Family, NextHop};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::peer::{PeerIndex, PeerSession, Peers};
use crate::config::{Client, LocalAs, NextHopMode, PrivateAs};
use crate::policy::{
    Candidate, DEFAULT_LOCAL_PREF, NextHopChange, Outcome, Policy, SourceKind, add,
};

/// Why a route is not announced to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Withheld {
    /// No path to the prefix may be used.
    NoUsablePath,
    /// The best path comes from this very peer.
    FromThisPeer,
    /// Learned inside our AS, and neither side is a client of our route reflector (RFC 4271 §9.2, RFC 4456 §6).
    InternalToInternal,
    /// Learned from a client of the same cluster, whose clients tell each other (RFC 4456 §9).
    ClientToClient,
    /// NO_ADVERTISE (RFC 1997).
    NoAdvertise,
    /// NO_EXPORT or NO_EXPORT_SUBCONFED (RFC 1997).
    NoExport,
    /// NOPEER, and the peer is a bilateral one (RFC 3765).
    NoPeer,
    /// Export policy rejects it: by this statement.
    Policy(String),
    /// We have no next hop for its family that the peer would understand.
    NoNextHop,
    /// Its attributes leave no room for a prefix in a message (RFC 8654 §5).
    TooLong,
    /// The session does not carry its family, or is not up.
    FamilyNotNegotiated,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUsablePath => f.write_str("no usable path"),
            Self::FromThisPeer => f.write_str("the best path comes from this peer"),
            Self::InternalToInternal => {
                f.write_str("learned from an internal peer, and not reflected")
            }
            Self::ClientToClient => {
                f.write_str("learned from a client of the same cluster, whose clients are meshed")
            }
            Self::NoAdvertise => f.write_str("community no-advertise"),
            Self::NoExport => f.write_str("community no-export"),
            Self::NoPeer => f.write_str("community no-peer"),
            Self::Policy(name) => write!(f, "rejected by {name}"),
            Self::NoNextHop => f.write_str("no next hop of a kind that the peer understands"),
            Self::TooLong => f.write_str("attributes too long for a message"),
            Self::FamilyNotNegotiated => f.write_str("the session does not carry the family"),
        }
    }
}

/// All that changes what a peer is told: peers that agree in it are told the same, in the same octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    ibgp: bool,
    client: Option<Client>,
    /// What goes in front of AS paths, outermost first.
    prepended: SmallVec<[Asn; 2]>,
    local_asn: Asn,
    private_as: PrivateAs,
    override_as: bool,
    /// The peer's AS, where it has a say.
    peer_asn: Option<Asn>,
    bilateral: bool,
    drain: bool,
    next_hop: NextHopMode,
    own_v4: Option<Ipv4Addr>,
    own_v6: Option<Ipv6Addr>,
    own_link_local: Option<Ipv6Addr>,
    shared_subnet: Option<IpNet>,
    extended_next_hop: bool,
    pub(super) context: Context,
    pub(super) policy: Policy,
    /// Both sides wait for routes: what is known is told before it is all.
    pub(super) early: bool,
}

impl GroupKey {
    /// The group of a session; `asn` is the speaker's AS.
    pub(super) fn new(session: &PeerSession, asn: Asn) -> Self {
        let rules = &session.rules;
        // Where they have no say they must not keep peers apart.
        let private_as = match session.ibgp {
            true => PrivateAs::Keep,
            false => rules.private_as,
        };
        let override_as = rules.override_as && !session.ibgp;
        let mut prepended = SmallVec::new();
        if !session.ibgp {
            prepended.push(session.local_asn);
            if session.local_asn != asn && rules.local_as != LocalAs::Replace {
                prepended.push(asn);
            }
        }
        let own = || {
            [Some(session.local_address), session.other_local_address]
                .into_iter()
                .flatten()
        };
        Self {
            ibgp: session.ibgp,
            client: session.client(),
            prepended,
            local_asn: session.local_asn,
            private_as,
            override_as,
            peer_asn: (override_as || private_as != PrivateAs::Keep).then_some(session.peer_asn),
            bilateral: rules.bilateral,
            drain: rules.drain,
            next_hop: session.next_hop,
            own_v4: own().find_map(|address| match address {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }),
            own_v6: own().find_map(|address| match address {
                IpAddr::V6(address) => Some(address),
                IpAddr::V4(_) => None,
            }),
            own_link_local: session.link_local,
            // Where it has no say it must not keep peers apart.
            shared_subnet: session
                .shared_subnet
                .filter(|_| !session.ibgp && session.next_hop == NextHopMode::Auto),
            extended_next_hop: session.extended_next_hop,
            context: session.context,
            policy: session.export.clone(),
            early: session.restarted,
        }
    }
}

/// The rules of export to one group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exporter<'a> {
    pub(super) key: &'a GroupKey,
    pub(super) peers: &'a Peers,
    pub(super) family: Family,
    /// Routes are not chosen yet, and our own need no choice.
    pub(super) own_only: bool,
}

impl Exporter<'_> {
    /// Whether anybody is told yet what comes from there.
    pub(super) fn tells(&self, source: PeerIndex) -> bool {
        !self.own_only || source == PeerIndex::LOCAL
    }

    /// What comes before policy: where the route is from, and the well-known communities.
    pub(super) fn gate(&self, attributes: &Attributes, source: PeerIndex) -> Result<(), Withheld> {
        let has = |community| attributes.communities.contains(&community);
        if has(Community::NO_ADVERTISE) {
            return Err(Withheld::NoAdvertise);
        }
        if !self.key.ibgp && (has(Community::NO_EXPORT) || has(Community::NO_EXPORT_SUBCONFED)) {
            return Err(Withheld::NoExport);
        }
        if self.key.bilateral && has(Community::NOPEER) {
            return Err(Withheld::NoPeer);
        }
        if self.key.ibgp && self.internal(source) {
            return match (self.client(source), self.key.client) {
                (None, None) => Err(Withheld::InternalToInternal),
                (Some(from), Some(to)) if from.cluster_id == to.cluster_id && to.meshed => {
                    Err(Withheld::ClientToClient)
                }
                _ => Ok(()),
            };
        }
        Ok(())
    }

    fn internal(&self, source: PeerIndex) -> bool {
        self.peers.source(source) == SourceKind::Internal
    }

    fn client(&self, source: PeerIndex) -> Option<Client> {
        self.peers
            .get(source)
            .and_then(|peer| peer.session.client())
    }

    /// What policy says.
    pub(super) fn policy(
        &self,
        prefix: IpNet,
        attributes: &Attributes,
        source: PeerIndex,
    ) -> Outcome {
        self.key
            .policy
            .evaluate(&self.candidate(prefix, attributes, source))
    }

    /// The route as policy sees it.
    pub(super) fn candidate<'a>(
        &self,
        prefix: IpNet,
        attributes: &'a Attributes,
        source: PeerIndex,
    ) -> Candidate<'a> {
        let from = self.peers.get(source);
        Candidate {
            prefix,
            attributes,
            source: self.peers.source(source),
            from: from.map(|peer| peer.session.peer_address),
            internal: self.key.ibgp,
        }
    }

    /// Makes a route's attributes what the group is told: policy's changes, then the protocol's own (RFC 4271 §5.1,
    /// RFC 4456 §8). The next hop is set.
    pub(super) fn rewrite(
        &self,
        attributes: &mut Attributes,
        applied: &[u16],
        source: PeerIndex,
    ) -> Result<(), Withheld> {
        let key = self.key;
        self.replace_asns(attributes);
        if !key.ibgp && source != PeerIndex::LOCAL {
            // A neighbour's MED is not for other neighbours (RFC 4271 §5.1.4).
            attributes.med = None;
            // What must not leave the AS: ours are what policy adds (RFC 4360 §6, RFC 5701 §2).
            attributes
                .extended_communities
                .retain(|community| community.is_transitive());
            attributes
                .ipv6_extended_communities
                .retain(|community| community.is_transitive());
        }
        let effects = key.policy.apply(applied, attributes, key.local_asn);
        let next_hop = self.next_hop(effects.next_hop, attributes.next_hop, source)?;
        attributes.next_hop = Some(next_hop);
        if key.drain {
            add(&mut attributes.communities, Community::GRACEFUL_SHUTDOWN);
        }
        if key.ibgp {
            let local_pref = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
            attributes.local_pref = Some(if key.drain { 0 } else { local_pref });
            if self.internal(source) {
                self.reflect(attributes, source);
            }
        } else {
            for &asn in key.prepended.iter().rev() {
                attributes.as_path.prepend(asn, 1);
            }
            attributes.local_pref = None;
            attributes.originator_id = None;
            attributes.cluster_list.clear();
        }
        Ok(())
    }

    /// Says where a reflected route came from, and through which cluster (RFC 4456 §8): that of the client which it
    /// comes from, else of the one that it goes to.
    fn reflect(&self, attributes: &mut Attributes, source: PeerIndex) {
        if let Some(peer) = self.peers.get(source) {
            attributes
                .originator_id
                .get_or_insert(peer.session.peer_router_id);
        }
        if let Some(client) = self.client(source).or(self.key.client) {
            attributes.cluster_list.insert(0, client.cluster_id);
        }
    }

    /// AS numbers that the peer must not see as they are, before ours go in front.
    fn replace_asns(&self, attributes: &mut Attributes) {
        let key = self.key;
        let Some(peer_asn) = key.peer_asn else { return };
        for segment in &mut attributes.as_path.segments {
            let hidden = |asn: Asn| is_private(asn) && asn != peer_asn;
            if key.private_as == PrivateAs::Remove {
                segment.asns.retain(|&asn| !hidden(asn));
            }
            for asn in &mut segment.asns {
                if (key.private_as == PrivateAs::Replace && hidden(*asn))
                    || (key.override_as && *asn == peer_asn)
                {
                    *asn = key.local_asn;
                }
            }
        }
        attributes
            .as_path
            .segments
            .retain(|segment| !segment.asns.is_empty());
    }

    fn next_hop(
        &self,
        wanted: Option<NextHopChange>,
        route: Option<NextHop>,
        source: PeerIndex,
    ) -> Result<NextHop, Withheld> {
        let mode = match wanted {
            Some(NextHopChange::Own) => NextHopMode::Own,
            Some(NextHopChange::Address(_)) => NextHopMode::Keep,
            Some(NextHopChange::Peer) | None => self.key.next_hop,
        };
        let route = match wanted {
            Some(NextHopChange::Address(address)) => Some(address.into()),
            Some(NextHopChange::Own | NextHopChange::Peer) | None => route,
        };
        let keep = match (mode, route) {
            (NextHopMode::Own, _) | (_, None) => None,
            (NextHopMode::Keep, Some(next_hop)) => Some(next_hop),
            (NextHopMode::Auto, Some(_)) if source == PeerIndex::LOCAL => None,
            (NextHopMode::Auto, Some(next_hop)) if self.key.ibgp => Some(next_hop),
            (NextHopMode::Auto, Some(next_hop)) => {
                self.third_party(next_hop, source).then_some(next_hop)
            }
        };
        let next_hop = match keep {
            Some(next_hop) => self.without_link_local(next_hop),
            None => self.own_next_hop().ok_or(Withheld::NoNextHop)?,
        };
        match (self.family, next_hop) {
            (Family::IPV4_UNICAST, NextHop::V4(_))
            | (Family::IPV6_UNICAST, NextHop::V6(_) | NextHop::V6WithLinkLocal(..)) => Ok(next_hop),
            (Family::IPV4_UNICAST, _) if self.key.extended_next_hop => Ok(next_hop),
            _ => Err(Withheld::NoNextHop),
        }
    }

    fn own_next_hop(&self) -> Option<NextHop> {
        let v4 = self
            .key
            .own_v4
            .filter(|_| self.family == Family::IPV4_UNICAST)
            .map(NextHop::V4);
        v4.or_else(|| {
            let address = self.key.own_v6?;
            Some(match self.key.own_link_local {
                Some(own) if own != address => NextHop::V6WithLinkLocal(address, own),
                _ => NextHop::V6(address),
            })
        })
    }

    /// A link-local address says something only to hosts on the link that it is of (RFC 2545 §3): the one that we share,
    /// as far as it is known.
    fn without_link_local(&self, next_hop: NextHop) -> NextHop {
        let shares = |address: Ipv6Addr| {
            self.key
                .shared_subnet
                .is_some_and(|subnet| subnet.contains(&IpAddr::V6(address)))
        };
        if let NextHop::V6WithLinkLocal(address, _) = next_hop
            && !shares(address)
        {
            return NextHop::V6(address);
        }
        next_hop
    }

    /// Whether an external peer can be told the route's own next hop: the address of the peer that it came from, on the
    /// subnet that we share (RFC 4271 §5.1.3). Any other address there might be that of a peer in this very group, and
    /// nobody may be told to send to itself.
    fn third_party(&self, next_hop: NextHop, source: PeerIndex) -> bool {
        let address = next_hop.address();
        self.key
            .shared_subnet
            .is_some_and(|subnet| subnet.contains(&address))
            && self
                .peers
                .get(source)
                .is_some_and(|peer| peer.session.peer_address == address)
    }
}

/// Whether the number is for private use (RFC 6996 §5).
fn is_private(asn: Asn) -> bool {
    matches!(asn, 64512..=65534 | 4_200_000_000..=4_294_967_294)
}

//! Conditions on a route.

use std::net::IpAddr;

use bgp_wire::pattern::{AsPathPattern, CommunityPattern};
use bgp_wire::{Asn, Family, Origin};
use ipnet::IpNet;

use super::{Candidate, DEFAULT_LOCAL_PREF, PrefixMatch, PrefixSet};

/// A condition on a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    /// Its family.
    Family(Family),
    /// Its prefix, against one other.
    Prefix(PrefixMatch),
    /// Its prefix, against a list: one of them is enough.
    PrefixList(Vec<PrefixMatch>),
    /// Its prefix is one of the set or lies inside one.
    Inside(PrefixSet),
    /// Where it came from.
    Source(SourceKind),
    /// It came from some peer.
    Learned,
    /// It came from the peer of this address.
    From(IpAddr),
    /// The session that it comes or goes over is one with an internal peer, or is not.
    InternalSession(bool),
    /// Its next hop's address lies in this prefix.
    NextHop(IpNet),
    /// Its ORIGIN.
    Origin(Origin),
    /// The AS is somewhere in its AS_PATH.
    AsPathContains(Asn),
    /// Its AS_PATH starts with these, most recent first.
    AsPathStartsWith(Vec<Asn>),
    /// The AS is the last in its AS_PATH: the one that originated it.
    AsPathOrigin(Asn),
    /// Its AS_PATH's length, as the decision process counts, lies between the two.
    AsPathLength(usize, usize),
    /// Its whole AS_PATH.
    AsPath(AsPathPattern),
    /// It carries such a community, of whichever kind.
    Community(CommunityPattern),
    /// Its LOCAL_PREF lies between the two; absent is 100.
    LocalPref(u32, u32),
    /// Its MULTI_EXIT_DISC lies between the two; absent is 0.
    Med(u32, u32),
}

/// Where a route came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// It starts here.
    Local,
    /// A peer of our own AS.
    Internal,
    /// A peer of another AS.
    External,
}

impl Match {
    /// Whether two routes that differ in their prefix alone may fare differently.
    pub(super) fn asks_prefix(&self) -> bool {
        matches!(
            self,
            Self::Family(_) | Self::Prefix(_) | Self::PrefixList(_) | Self::Inside(_)
        )
    }

    pub(super) fn holds(&self, route: &Candidate<'_>) -> bool {
        let attributes = route.attributes;
        match self {
            Self::Family(family) => *family == Family::of(route.prefix),
            Self::Prefix(prefix) => prefix.holds(&route.prefix),
            Self::PrefixList(list) => list.iter().any(|prefix| prefix.holds(&route.prefix)),
            Self::Inside(set) => set.covers(&route.prefix),
            Self::Source(kind) => *kind == route.source,
            Self::Learned => route.source != SourceKind::Local,
            Self::From(peer) => route.from == Some(*peer),
            Self::InternalSession(internal) => *internal == route.internal,
            Self::NextHop(net) => attributes
                .next_hop
                .is_some_and(|next_hop| net.contains(&next_hop.address())),
            Self::Origin(origin) => *origin == attributes.origin,
            Self::AsPathContains(asn) => attributes.as_path.contains(*asn),
            Self::AsPathStartsWith(asns) => {
                let mut path = attributes.as_path.asns();
                asns.iter().all(|asn| path.next() == Some(*asn))
            }
            Self::AsPathOrigin(asn) => attributes.as_path.origin() == Some(*asn),
            Self::AsPathLength(min, max) => (*min..=*max).contains(&attributes.as_path.len()),
            Self::AsPath(pattern) => pattern.matches(&attributes.as_path),
            Self::Community(pattern) => pattern.matches(attributes),
            Self::LocalPref(min, max) => {
                (*min..=*max).contains(&attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
            }
            Self::Med(min, max) => (*min..=*max).contains(&attributes.med.unwrap_or(0)),
        }
    }
}

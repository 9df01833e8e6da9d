//! Changes to a route's attributes.

use std::net::IpAddr;

use bgp_wire::pattern::{AnyCommunity, CommunityPattern};
use bgp_wire::{Asn, Attributes, Origin};

use super::Effects;

/// A change to a route's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// Sets LOCAL_PREF. An external peer is not told of it.
    LocalPref(u32),
    /// Sets or removes MULTI_EXIT_DISC. On export to an external peer a neighbour's MED is gone before.
    Med(Option<u32>),
    /// Raises MULTI_EXIT_DISC, to the highest at most; from 0 where there is none.
    RaiseMed(u32),
    /// Lowers MULTI_EXIT_DISC, to 0 at least.
    LowerMed(u32),
    /// Adds a community, once.
    AddCommunity(AnyCommunity),
    /// Removes such communities.
    RemoveCommunities(CommunityPattern),
    /// Replaces all communities, of all kinds.
    SetCommunities(Vec<AnyCommunity>),
    /// Sets the next hop.
    NextHop(NextHopChange),
    /// Sets ORIGIN.
    Origin(Origin),
    /// Prepends our own AS this many times, on top of what export to an external peer does anyway.
    Prepend(u8),
    /// Prepends these, so that the first is the most recent. Export to an external peer puts ours in front of them.
    PrependAsns(Vec<Asn>),
}

/// Where a policy wants the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHopChange {
    /// On export: our own address on the session. Without effect on import, where it would be a loop.
    Own,
    /// On import: the address of the peer. Without effect on export, where it would be a loop.
    Peer,
    /// This address. A route whose family it does not suit is as good as without it: on import it stays as it was, on
    /// export it is withheld.
    Address(IpAddr),
}

impl Change {
    pub(super) fn make(&self, attributes: &mut Attributes, local_asn: Asn, effects: &mut Effects) {
        match self {
            Self::LocalPref(value) => attributes.local_pref = Some(*value),
            Self::Med(value) => attributes.med = *value,
            Self::RaiseMed(by) => {
                attributes.med = Some(attributes.med.unwrap_or(0).saturating_add(*by));
            }
            Self::LowerMed(by) => {
                attributes.med = Some(attributes.med.unwrap_or(0).saturating_sub(*by));
            }
            Self::AddCommunity(community) => tag(attributes, *community),
            Self::RemoveCommunities(pattern) => pattern.remove_from(attributes),
            Self::SetCommunities(communities) => {
                attributes.communities.clear();
                attributes.extended_communities.clear();
                attributes.ipv6_extended_communities.clear();
                attributes.large_communities.clear();
                for community in communities {
                    tag(attributes, *community);
                }
            }
            Self::NextHop(change) => effects.next_hop = Some(*change),
            Self::Origin(origin) => attributes.origin = *origin,
            Self::Prepend(times) => attributes.as_path.prepend(local_asn, usize::from(*times)),
            Self::PrependAsns(asns) => {
                for asn in asns.iter().rev() {
                    attributes.as_path.prepend(*asn, 1);
                }
            }
        }
    }
}

/// Adds a community, once.
pub fn tag(attributes: &mut Attributes, community: AnyCommunity) {
    match community {
        AnyCommunity::Standard(community) => add(&mut attributes.communities, community),
        AnyCommunity::Extended(community) => add(&mut attributes.extended_communities, community),
        AnyCommunity::Large(community) => add(&mut attributes.large_communities, community),
    }
}

/// Adds a value once.
pub(crate) fn add<T: Ord>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) {
        list.push(value);
        // Sorted, so that the order in which rules added them does not make two attribute sets of one.
        list.sort_unstable();
    }
}

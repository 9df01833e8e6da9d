//! Filters on import and export.
//!
//! A [`Policy`] is an ordered list of [`Statement`]s. The first whose matches all hold and whose verdict is
//! [`Verdict::Accept`] or [`Verdict::Reject`] decides; one with [`Verdict::Next`] changes the attributes and lets the
//! following ones decide. Matches see the attributes as they came, never as an earlier statement changed them.

mod prefix;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bgp_wire::{Asn, Attributes, Community, ExtendedCommunity, Family, LargeCommunity, Origin};
use ipnet::IpNet;
use smallvec::SmallVec;

pub use prefix::{PrefixMatch, PrefixOperator, PrefixSet};

/// An ordered list of statements and what holds when none decides. Cheap to clone; equal when its content is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    inner: Arc<Inner>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Inner {
    statements: Vec<Statement>,
    default: Verdict,
    default_name: Arc<str>,
    per_prefix: bool,
}

/// Changes and a verdict for the routes that match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Statement {
    /// What the operator knows it by: `BGPFilter/x rule 2`. Shown with every route that it rejects.
    pub name: Arc<str>,
    /// All must hold; none at all matches every route.
    pub matches: Vec<Match>,
    /// Made to the attributes when the route is accepted in the end.
    pub changes: Vec<Change>,
    /// What follows.
    pub verdict: Verdict,
}

/// What a matching statement says of the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Take it.
    Accept,
    /// Leave it.
    Reject,
    /// The next statement decides. As a policy's default it accepts.
    Next,
}

/// A condition on a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    /// Its family.
    Family(Family),
    /// Its prefix, against one other.
    Prefix(PrefixMatch),
    /// Its prefix is one of the set or lies inside one.
    Inside(PrefixSet),
    /// Where it came from.
    Source(SourceKind),
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
    /// It carries the community (RFC 1997).
    Community(Community),
    /// It carries the extended community (RFC 4360).
    ExtendedCommunity(ExtendedCommunity),
    /// It carries the large community (RFC 8092).
    LargeCommunity(LargeCommunity),
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

/// A change to a route's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// Sets LOCAL_PREF.
    LocalPref(u32),
    /// Sets or removes MULTI_EXIT_DISC. On export it survives the removal of a neighbour's MED.
    Med(Option<u32>),
    /// Adds a community, once.
    AddCommunity(Community),
    /// Removes a community.
    RemoveCommunity(Community),
    /// Replaces all communities.
    Communities(Vec<Community>),
    /// Adds a large community, once.
    AddLargeCommunity(LargeCommunity),
    /// Removes a large community.
    RemoveLargeCommunity(LargeCommunity),
    /// Prepends our own AS this many times, on top of what export to an external peer does anyway.
    Prepend(u8),
}

/// A route as policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its attributes.
    pub attributes: &'a Attributes,
    /// Where it came from.
    pub source: SourceKind,
}

/// What a policy says of one route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Accepted, with the changes of these statements, in this order.
    Accept(Applied),
    /// Rejected by this statement, or by the default.
    Reject(Option<u16>),
}

/// The statements, by position, whose changes an accepted route gets.
pub type Applied = SmallVec<[u16; 4]>;

impl Default for Policy {
    fn default() -> Self {
        Self::accept_all()
    }
}

impl Policy {
    /// A policy of these statements; `default` decides what none of them does, and is known by `default_name`. Only
    /// the first 65,535 statements count.
    #[must_use]
    pub fn new(
        mut statements: Vec<Statement>,
        default: Verdict,
        default_name: impl Into<Arc<str>>,
    ) -> Self {
        statements.truncate(usize::from(u16::MAX));
        let per_prefix = statements
            .iter()
            .flat_map(|statement| &statement.matches)
            .any(|condition| {
                matches!(
                    condition,
                    Match::Family(_) | Match::Prefix(_) | Match::Inside(_)
                )
            });
        Self {
            inner: Arc::new(Inner {
                statements,
                default,
                default_name: default_name.into(),
                per_prefix,
            }),
        }
    }

    /// Accepts everything, unchanged.
    #[must_use]
    pub fn accept_all() -> Self {
        Self::new(Vec::new(), Verdict::Accept, "default")
    }

    /// Rejects everything; `name` is shown with each route.
    #[must_use]
    pub fn reject_all(name: impl Into<Arc<str>>) -> Self {
        Self::new(Vec::new(), Verdict::Reject, name)
    }

    /// Its statements, in order.
    #[must_use]
    pub fn statements(&self) -> &[Statement] {
        &self.inner.statements
    }

    /// Whether two routes that differ in their prefix alone may fare differently.
    #[must_use]
    pub fn depends_on_prefix(&self) -> bool {
        self.inner.per_prefix
    }

    /// What the operator knows the statement by that [`Outcome::Reject`] gave.
    #[must_use]
    pub fn name_of(&self, statement: Option<u16>) -> &str {
        statement
            .and_then(|index| self.inner.statements.get(usize::from(index)))
            .map_or(&*self.inner.default_name, |statement| &*statement.name)
    }

    /// Decides about one route; changes nothing.
    #[must_use]
    pub fn evaluate(&self, route: &Candidate<'_>) -> Outcome {
        let mut applied = Applied::new();
        for (index, statement) in (0_u16..).zip(&self.inner.statements) {
            if !statement
                .matches
                .iter()
                .all(|condition| condition.holds(route))
            {
                continue;
            }
            if statement.verdict == Verdict::Reject {
                return Outcome::Reject(Some(index));
            }
            if !statement.changes.is_empty() {
                applied.push(index);
            }
            if statement.verdict == Verdict::Accept {
                return Outcome::Accept(applied);
            }
        }
        match self.inner.default {
            Verdict::Reject => Outcome::Reject(None),
            Verdict::Accept | Verdict::Next => Outcome::Accept(applied),
        }
    }

    /// Makes the changes of an accepted route. `local_asn` is what [`Change::Prepend`] prepends. Says whether one of
    /// them set the MED.
    pub fn apply(&self, applied: &[u16], attributes: &mut Attributes, local_asn: Asn) -> bool {
        let mut sets_med = false;
        for statement in applied
            .iter()
            .filter_map(|&index| self.inner.statements.get(usize::from(index)))
        {
            for change in &statement.changes {
                sets_med |= matches!(change, Change::Med(_));
                change.make(attributes, local_asn);
            }
        }
        sets_med
    }
}

impl Match {
    fn holds(&self, route: &Candidate<'_>) -> bool {
        let attributes = route.attributes;
        match self {
            Self::Family(family) => *family == Family::of(route.prefix),
            Self::Prefix(prefix) => prefix.holds(&route.prefix),
            Self::Inside(set) => set.covers(&route.prefix),
            Self::Source(kind) => *kind == route.source,
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
            Self::Community(community) => attributes.communities.contains(community),
            Self::ExtendedCommunity(community) => {
                attributes.extended_communities.contains(community)
            }
            Self::LargeCommunity(community) => attributes.large_communities.contains(community),
            Self::LocalPref(min, max) => {
                (*min..=*max).contains(&attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
            }
            Self::Med(min, max) => (*min..=*max).contains(&attributes.med.unwrap_or(0)),
        }
    }
}

/// The LOCAL_PREF of a route that has none: what every implementation takes by default.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

impl Change {
    fn make(&self, attributes: &mut Attributes, local_asn: Asn) {
        match self {
            Self::LocalPref(value) => attributes.local_pref = Some(*value),
            Self::Med(value) => attributes.med = *value,
            Self::AddCommunity(community) => add(&mut attributes.communities, *community),
            Self::RemoveCommunity(community) => {
                attributes.communities.retain(|other| other != community)
            }
            Self::Communities(communities) => attributes.communities.clone_from(communities),
            Self::AddLargeCommunity(community) => {
                add(&mut attributes.large_communities, *community)
            }
            Self::RemoveLargeCommunity(community) => attributes
                .large_communities
                .retain(|other| other != community),
            Self::Prepend(times) => attributes.as_path.prepend(local_asn, usize::from(*times)),
        }
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

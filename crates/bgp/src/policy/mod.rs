//! Filters on import and export.
//!
//! A [`Policy`] is an ordered list of [`Statement`]s. The first whose matches all hold and whose verdict is
//! [`Verdict::Accept`] or [`Verdict::Reject`] decides; one with [`Verdict::Next`] changes the attributes and lets the
//! following ones decide. Matches see the attributes as they came, never as an earlier statement changed them.

mod change;
mod condition;
mod prefix;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use bgp_wire::{Asn, Attributes};
use ipnet::IpNet;
use smallvec::SmallVec;

pub(crate) use change::add;
pub use change::{Change, NextHopChange, tag};
pub use condition::{Match, SourceKind};
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

/// A route as policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Its prefix.
    pub prefix: IpNet,
    /// Its attributes.
    pub attributes: &'a Attributes,
    /// Where it came from.
    pub source: SourceKind,
    /// The address of the peer that it came from; `None` for a route of our own.
    pub from: Option<IpAddr>,
    /// The session that policy is asked for, on import or export, is one with an internal peer.
    pub internal: bool,
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

/// What changes ask for that the attributes alone don't say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects {
    /// Where the next hop is to be.
    pub next_hop: Option<NextHopChange>,
}

/// What a policy decides about a route, for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// It passes.
    pub accepted: bool,
    /// The statement that decided, or the default.
    pub decided_by: String,
    /// The statements that changed its attributes, in their order.
    pub changed_by: Vec<String>,
}

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
            .any(|condition| condition.asks_prefix());
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
        match self.decide(route) {
            (Verdict::Reject, statement, _) => Outcome::Reject(statement),
            (Verdict::Accept | Verdict::Next, _, applied) => Outcome::Accept(applied),
        }
    }

    /// What it decides about a route, in the words that the operator knows its statements by.
    #[must_use]
    pub fn explain(&self, route: &Candidate<'_>) -> Explanation {
        let (verdict, statement, applied) = self.decide(route);
        Explanation {
            accepted: verdict != Verdict::Reject,
            decided_by: self.name_of(statement).to_owned(),
            changed_by: applied
                .iter()
                .map(|&index| self.name_of(Some(index)).to_owned())
                .collect(),
        }
    }

    /// The verdict, the statement that it is by (`None`: the default), and those whose changes apply.
    fn decide(&self, route: &Candidate<'_>) -> (Verdict, Option<u16>, Applied) {
        let mut applied = Applied::new();
        for (index, statement) in (0_u16..).zip(&self.inner.statements) {
            let holds = |condition: &Match| condition.holds(route);
            if !statement.matches.iter().all(holds) {
                continue;
            }
            if statement.verdict == Verdict::Reject {
                return (Verdict::Reject, Some(index), Applied::new());
            }
            if !statement.changes.is_empty() {
                applied.push(index);
            }
            if statement.verdict == Verdict::Accept {
                return (Verdict::Accept, Some(index), applied);
            }
        }
        match self.inner.default {
            Verdict::Reject => (Verdict::Reject, None, Applied::new()),
            default @ (Verdict::Accept | Verdict::Next) => (default, None, applied),
        }
    }

    /// Makes the changes of an accepted route. `local_asn` is what [`Change::Prepend`] prepends. What they say beyond
    /// the attributes is returned.
    pub fn apply(&self, applied: &[u16], attributes: &mut Attributes, local_asn: Asn) -> Effects {
        let mut effects = Effects::default();
        for change in applied
            .iter()
            .filter_map(|&index| self.inner.statements.get(usize::from(index)))
            .flat_map(|statement| &statement.changes)
        {
            change.make(attributes, local_asn, &mut effects);
        }
        effects
    }
}

/// The LOCAL_PREF of a route that has none: what every implementation takes by default.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

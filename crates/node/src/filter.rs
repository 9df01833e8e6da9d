//! Which routes peers may send us, and which they get.
//!
//! Without a filter nothing is accepted from a peer but prefixes inside the cluster's pod ranges, and nothing sent but
//! our own: the default that RFC 8212 asks for is met by a policy that is always there. A filter's rules come before
//! it, and it decides what they leave open. No filter opens the node's own pod ranges to others.

use std::sync::Arc;

use bgp::policy::{
    Match, Policy, PrefixMatch, PrefixOperator, PrefixSet, SourceKind, Statement, Verdict,
};
use ipnet::IpNet;
use resources::{Action, ClusterState, FilterRule, MatchOperator};

use crate::plan::ipv4_pod_cidrs;

/// The cluster's pod ranges and this node's own, as sets that all of its policies share.
#[derive(Debug, Clone)]
pub struct Ranges {
    own: Option<PrefixSet>,
    cluster: Option<PrefixSet>,
}

/// A rule's place, and the rule: `BGPFilter/x importV4[0]`.
type Named<'a> = (String, &'a FilterRule);

impl Ranges {
    /// The ranges of all IPPools, or where there is none, the pod CIDRs of all Nodes.
    #[must_use]
    pub fn new(cluster: &ClusterState, own: &[IpNet]) -> Self {
        let pools: Vec<IpNet> = cluster.pools.values().map(|pool| pool.cidr).collect();
        let ranges = match pools.is_empty() {
            true => cluster.nodes.values().flat_map(ipv4_pod_cidrs).collect(),
            false => pools,
        };
        Self {
            own: set(own.to_vec()),
            cluster: set(ranges),
        }
    }

    /// Whether nothing says where the cluster's pods are.
    #[must_use]
    pub fn are_unknown(&self) -> bool {
        self.cluster.is_none()
    }

    /// The policy for what a peer sends us.
    #[must_use]
    pub fn import<'a>(&self, rules: impl Iterator<Item = Named<'a>>) -> Policy {
        let mut statements = Vec::new();
        if let Some(own) = &self.own {
            // Even a filter that accepts everything must not let a neighbour take a pod's address over.
            let matches = vec![Match::Inside(own.clone())];
            statements.push(statement(
                "this node's own pod range",
                matches,
                Verdict::Reject,
            ));
        }
        statements.extend(rules.map(|(name, rule)| rule_statement(&name, rule)));
        if let Some(cluster) = &self.cluster {
            let matches = vec![Match::Inside(cluster.clone())];
            statements.push(statement(
                "default: inside the pod ranges",
                matches,
                Verdict::Accept,
            ));
        }
        Policy::new(
            statements,
            Verdict::Reject,
            "default: outside the pod ranges",
        )
    }
}

/// The policy for what we send a peer.
#[must_use]
pub fn export<'a>(rules: impl Iterator<Item = Named<'a>>) -> Policy {
    let mut statements: Vec<Statement> = rules
        .map(|(name, rule)| rule_statement(&name, rule))
        .collect();
    let matches = vec![Match::Source(SourceKind::Local)];
    statements.push(statement(
        "default: this node's own route",
        matches,
        Verdict::Accept,
    ));
    Policy::new(
        statements,
        Verdict::Reject,
        "default: not this node's own route",
    )
}

/// `None` where a set would be empty.
fn set(prefixes: Vec<IpNet>) -> Option<PrefixSet> {
    (!prefixes.is_empty()).then(|| PrefixSet::new(prefixes))
}

fn rule_statement(name: &str, rule: &FilterRule) -> Statement {
    let verdict = match rule.action {
        Action::Accept => Verdict::Accept,
        Action::Reject => Verdict::Reject,
    };
    statement(
        name,
        prefix_match(rule).map(Match::Prefix).into_iter().collect(),
        verdict,
    )
}

fn prefix_match(rule: &FilterRule) -> Option<PrefixMatch> {
    let (prefix, operator) = (rule.cidr?, rule.match_operator?);
    let length = rule.prefix_length.map(|length| {
        let min = length.min.unwrap_or_else(|| prefix.prefix_len());
        (min, length.max.unwrap_or_else(|| prefix.max_prefix_len()))
    });
    let operator = match operator {
        MatchOperator::Equal => PrefixOperator::Equal,
        MatchOperator::NotEqual => PrefixOperator::NotEqual,
        MatchOperator::In => PrefixOperator::In,
        MatchOperator::NotIn => PrefixOperator::NotIn,
    };
    Some(PrefixMatch {
        prefix,
        operator,
        length,
    })
}

fn statement(name: &str, matches: Vec<Match>, verdict: Verdict) -> Statement {
    Statement {
        name: Arc::from(name),
        matches,
        changes: Vec::new(),
        verdict,
    }
}

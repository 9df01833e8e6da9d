//! Which routes peers may send us, and which they get.
//!
//! Without a filter nothing is accepted from a peer but prefixes inside the cluster's pod ranges, and nothing sent but
//! our own: the default that RFC 8212 asks for is met by a policy that is always there. A filter's rules come before
//! it, and it decides what they leave open. No filter opens the node's own pod ranges to others.

use std::sync::Arc;

use bgp::policy::{Match, Policy, PrefixSet, SourceKind, Statement, Verdict};
use ipnet::IpNet;
use resources::{ClusterState, Node};

use crate::rule::Named;
use crate::services;

/// The cluster's pod ranges and this node's own, as sets that all of its policies share.
#[derive(Debug, Clone)]
pub struct Ranges {
    own: Option<PrefixSet>,
    /// Pools that are announced to nobody by themselves.
    hidden: Option<PrefixSet>,
    cluster: Option<PrefixSet>,
    /// Services' ranges that nodes announce.
    services: Option<PrefixSet>,
    has_ipv6: bool,
}

impl Ranges {
    /// The ranges of all IPPools, or where there is none, the pod CIDRs of all Nodes.
    #[must_use]
    pub fn new(cluster: &ClusterState, own: &[IpNet]) -> Self {
        let pools: Vec<IpNet> = cluster.pools.values().map(|pool| pool.cidr).collect();
        let ranges = match pools.is_empty() {
            true => cluster.nodes.values().flat_map(Node::pod_cidrs).collect(),
            false => pools,
        };
        let hidden = cluster
            .pools
            .values()
            .filter(|pool| pool.disable_bgp_export);
        let services: Vec<IpNet> = services::ranges(cluster).collect();
        let all = own.iter().chain(&ranges).chain(&services);
        Self {
            has_ipv6: all.clone().any(|it| it.addr().is_ipv6()),
            services: set(services.clone()),
            hidden: set(hidden.map(|pool| pool.cidr).collect()),
            own: set(own.to_vec()),
            cluster: set(ranges),
        }
    }

    /// Whether pods or Services have IPv6 addresses somewhere.
    #[must_use]
    pub fn have_ipv6(&self) -> bool {
        self.has_ipv6
    }

    /// Whether nothing says where the cluster's pods are.
    #[must_use]
    pub fn are_unknown(&self) -> bool {
        self.cluster.is_none()
    }

    /// The policy for what we send a peer. `reflects`: it is an internal peer, and this node a route reflector.
    #[must_use]
    pub(crate) fn export<'a>(
        &self,
        rules: impl Iterator<Item = Named<'a>>,
        reflects: bool,
    ) -> Policy {
        let mut statements: Vec<Statement> = rules.map(|rule| rule.statement()).collect();
        if let Some(hidden) = &self.hidden {
            // Behind the filters, as in Calico: whoever names a route in one wants it to pass.
            statements.push(statement(
                "IPPool with disableBGPExport",
                vec![Match::Inside(hidden.clone())],
                Verdict::Reject,
            ));
        }
        statements.push(statement(
            "default: this node's own route",
            vec![Match::Source(SourceKind::Local)],
            Verdict::Accept,
        ));
        let reflected = [
            ("default: reflected, inside the pod ranges", &self.cluster),
            (
                "default: reflected, inside the Services' ranges",
                &self.services,
            ),
        ];
        for (name, ranges) in reflected.into_iter().filter(|_| reflects) {
            statements.extend(ranges.clone().map(|ranges| {
                let matches = vec![Match::Source(SourceKind::Internal), Match::Inside(ranges)];
                statement(name, matches, Verdict::Accept)
            }));
        }
        Policy::new(
            statements,
            Verdict::Reject,
            "default: not this node's own route",
        )
    }

    /// The policy for what a peer sends us. `reflects`: as for [`export`](Self::export); what is reflected has to be taken.
    #[must_use]
    pub(crate) fn import<'a>(
        &self,
        rules: impl Iterator<Item = Named<'a>>,
        reflects: bool,
    ) -> Policy {
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
        statements.extend(rules.map(|rule| rule.statement()));
        if let Some(cluster) = &self.cluster {
            let matches = vec![Match::Inside(cluster.clone())];
            statements.push(statement(
                "default: inside the pod ranges",
                matches,
                Verdict::Accept,
            ));
        }
        statements.extend(self.services.clone().filter(|_| reflects).map(|services| {
            statement(
                "default: to be reflected, inside the Services' ranges",
                vec![Match::Inside(services)],
                Verdict::Accept,
            )
        }));
        Policy::new(
            statements,
            Verdict::Reject,
            "default: outside the pod ranges",
        )
    }
}

/// `None` where a set would be empty.
fn set(prefixes: Vec<IpNet>) -> Option<PrefixSet> {
    (!prefixes.is_empty()).then(|| PrefixSet::new(prefixes))
}

fn statement(name: &str, matches: Vec<Match>, verdict: Verdict) -> Statement {
    Statement {
        name: Arc::from(name),
        matches,
        changes: Vec::new(),
        verdict,
    }
}

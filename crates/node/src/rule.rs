//! A BGPFilter's rule as a statement of the speaker's policy.

use bgp::policy::{
    Change, Match, NextHopChange, PrefixMatch, PrefixOperator, SourceKind, Statement, Verdict,
};
use bgp_wire::{Asn, Family};
use resources::filter_rule::{
    self, Action, Bounds, FilterRule, HIGHEST_PRIORITY, MatchOperator, Operation, Origin, PeerType,
    PrefixLength, Source,
};
use resources::{AsNumber, BgpFilterSpec};

/// A rule and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Named<'a> {
    name: String,
    family: Family,
    rule: &'a FilterRule,
}

/// A filter's rules for what a peer sends us.
pub(crate) fn import<'a>(
    filter: &'a str,
    spec: &'a BgpFilterSpec,
) -> impl Iterator<Item = Named<'a>> {
    named(
        filter,
        ["importV4", "importV6"],
        [&spec.import_v4, &spec.import_v6],
    )
}

/// A filter's rules for what we send a peer.
pub(crate) fn export<'a>(
    filter: &'a str,
    spec: &'a BgpFilterSpec,
) -> impl Iterator<Item = Named<'a>> {
    named(
        filter,
        ["exportV4", "exportV6"],
        [&spec.export_v4, &spec.export_v6],
    )
}

fn named<'a>(
    filter: &'a str,
    fields: [&'static str; 2],
    rules: [&'a [FilterRule]; 2],
) -> impl Iterator<Item = Named<'a>> {
    let families = [Family::IPV4_UNICAST, Family::IPV6_UNICAST];
    fields
        .into_iter()
        .zip(families)
        .zip(rules)
        .flat_map(move |((field, family), rules)| {
            rules.iter().enumerate().map(move |(index, rule)| Named {
                name: format!("BGPFilter/{filter} {field}[{index}]"),
                family,
                rule,
            })
        })
}

impl Named<'_> {
    pub(crate) fn statement(&self) -> Statement {
        Statement {
            name: self.name.as_str().into(),
            matches: matches(self.rule, self.family),
            changes: self.rule.operations.iter().filter_map(change).collect(),
            verdict: match self.rule.action {
                Action::Accept => Verdict::Accept,
                Action::Reject => Verdict::Reject,
                Action::Next => Verdict::Next,
            },
        }
    }
}

fn matches(rule: &FilterRule, family: Family) -> Vec<Match> {
    let mut all = Vec::new();
    match prefix_match(rule) {
        // No prefix of another family ever matches.
        Some(prefix) => all.push(Match::Prefix(prefix)),
        None if rule.prefixes.is_empty() => all.push(Match::Family(family)),
        None => {}
    }
    if !rule.prefixes.is_empty() {
        let list = rule.prefixes.iter().map(|range| {
            let own = Some(range.cidr.prefix_len());
            let only = PrefixLength { min: own, max: own };
            let length = range.prefix_length.unwrap_or(only);
            PrefixMatch {
                prefix: range.cidr,
                operator: PrefixOperator::In,
                length: Some(bounds_of(length, range.cidr)),
            }
        });
        all.push(Match::PrefixList(list.collect()));
    }
    all.extend(rule.source.map(|source| match source {
        Source::RemotePeers => Match::Learned,
        Source::InternalPeers => Match::Source(SourceKind::Internal),
        Source::ExternalPeers => Match::Source(SourceKind::External),
        Source::Local => Match::Source(SourceKind::Local),
    }));
    all.extend(rule.learned_from.map(|peer| Match::From(peer.0)));
    all.extend(
        rule.peer_type
            .map(|kind| Match::InternalSession(kind == PeerType::Ibgp)),
    );
    let communities = rule.communities.iter().flat_map(|it| &it.values);
    all.extend(communities.map(|pattern| Match::Community(pattern.0)));
    if !rule.as_path_prefix.is_empty() {
        all.push(Match::AsPathStartsWith(numbers(&rule.as_path_prefix)));
    }
    all.extend(rule.as_path.iter().map(|it| Match::AsPath(it.0.clone())));
    all.extend(rule.as_path_length.map(|bounds| {
        let (min, max) = between(bounds);
        Match::AsPathLength(min as usize, max as usize)
    }));
    all.extend(rule.next_hop.map(Match::NextHop));
    all.extend(rule.origin.map(|it| Match::Origin(origin(it))));
    let spans = [
        rule.med.map(between).map(|(min, max)| Match::Med(min, max)),
        rule.local_pref
            .map(between)
            .map(|(min, max)| Match::LocalPref(min, max)),
        rule.priority
            .map(local_pref)
            .map(|it| Match::LocalPref(it, it)),
    ];
    all.extend(spans.into_iter().flatten());
    all
}

fn prefix_match(rule: &FilterRule) -> Option<PrefixMatch> {
    let (prefix, operator) = (rule.cidr?, rule.match_operator?);
    let length = rule.prefix_length.map(|length| bounds_of(length, prefix));
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

fn bounds_of(length: PrefixLength, prefix: ipnet::IpNet) -> (u8, u8) {
    (
        length.min.unwrap_or_else(|| prefix.prefix_len()),
        length.max.unwrap_or_else(|| prefix.max_prefix_len()),
    )
}

fn between(bounds: Bounds) -> (u32, u32) {
    (bounds.min.unwrap_or(0), bounds.max.unwrap_or(u32::MAX))
}

/// Calico's priorities are metrics, the lower the better; LOCAL_PREF is the higher the better.
fn local_pref(priority: u32) -> u32 {
    HIGHEST_PRIORITY.saturating_sub(priority)
}

fn origin(origin: Origin) -> bgp_wire::Origin {
    match origin {
        Origin::Igp => bgp_wire::Origin::Igp,
        Origin::Egp => bgp_wire::Origin::Egp,
        Origin::Incomplete => bgp_wire::Origin::Incomplete,
    }
}

fn numbers(numbers: &[AsNumber]) -> Vec<Asn> {
    numbers.iter().map(|number| number.get()).collect()
}

/// `None` for one without a field, which validation refuses.
fn change(operation: &Operation) -> Option<Change> {
    let Operation {
        add_community,
        remove_community,
        set_communities,
        prepend_as_path,
        prepend_own_as,
        set_priority,
        set_local_pref,
        set_med,
        raise_med,
        lower_med,
        set_next_hop,
        set_origin,
    } = operation;
    let changes = [
        add_community
            .as_ref()
            .map(|it| Change::AddCommunity(it.value.0)),
        remove_community
            .as_ref()
            .map(|it| Change::RemoveCommunities(it.value.0)),
        set_communities
            .as_ref()
            .map(|it| Change::SetCommunities(it.values.iter().map(|value| value.0).collect())),
        prepend_as_path
            .as_ref()
            .map(|it| Change::PrependAsns(numbers(&it.prefix))),
        prepend_own_as.as_ref().map(|it| Change::Prepend(it.value)),
        set_priority
            .as_ref()
            .map(|it| Change::LocalPref(local_pref(it.value))),
        set_local_pref
            .as_ref()
            .map(|it| Change::LocalPref(it.value)),
        set_med.as_ref().map(|it| Change::Med(Some(it.value))),
        raise_med.as_ref().map(|it| Change::RaiseMed(it.value)),
        lower_med.as_ref().map(|it| Change::LowerMed(it.value)),
        set_next_hop.as_ref().map(|it| {
            Change::NextHop(match it.value.0 {
                filter_rule::NextHop::Own => NextHopChange::Own,
                filter_rule::NextHop::Peer => NextHopChange::Peer,
                filter_rule::NextHop::Address(address) => NextHopChange::Address(address),
            })
        }),
        set_origin
            .as_ref()
            .map(|it| Change::Origin(origin(it.value))),
    ];
    changes.into_iter().flatten().next()
}

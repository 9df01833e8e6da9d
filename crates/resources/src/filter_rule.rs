//! A rule of a [`BGPFilter`](crate::bgp_filter): what it asks of a route, what becomes of it, and what is changed.

use std::net::IpAddr;

use bgp_wire::pattern::{AnyCommunity, AsPathPattern, CommunityPattern};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::schema;
use crate::values::{cidr, optional_cidr};
use crate::{AsNumber, Written};

/// A rule: it matches where all that it asks holds, so one that asks nothing matches every route of its family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRule {
    /// The prefix to compare with.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_cidr::deserialize"
    )]
    #[schemars(with = "Option<schema::Cidr>")]
    pub cidr: Option<IpNet>,
    /// How to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Lengths that a route inside `cidr` may have; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// The route is inside one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<PrefixRange>,
    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The address of the peer that the route was learned from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned_from: Option<Written<IpAddr>>,
    /// The peer that the filter is used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<PeerType>,
    /// Communities that the route carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,
    /// AS numbers that the AS path starts with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub as_path_prefix: Vec<AsNumber>,
    /// A pattern over the whole AS path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path: Option<Written<AsPathPattern>>,
    /// How long the AS path is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path_length: Option<Bounds>,
    /// A range that the next hop is in.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_cidr::deserialize"
    )]
    #[schemars(with = "Option<schema::Cidr>")]
    pub next_hop: Option<IpNet>,
    /// ORIGIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// MULTI_EXIT_DISC; absent is 0.
    #[serde(default, rename = "med", skip_serializing_if = "Option::is_none")]
    pub med: Option<Bounds>,
    /// LOCAL_PREF; absent is 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<Bounds>,
    /// The priority that [`Operation::set_priority`] gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// What becomes of a route that matches.
    pub action: Action,
    /// What is changed in a route that matches, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<Operation>,
}

/// How a route's prefix is compared with `cidr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOperator {
    /// It is the same.
    Equal,
    /// It is another.
    NotEqual,
    /// It is the same or inside, and of an allowed length.
    In,
    /// The opposite of [`Self::In`].
    NotIn,
}

/// Lengths of prefixes, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixLength {
    /// The shortest; that of `cidr` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u8>,
    /// The longest; 32 by default, or 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u8>,
}

/// A prefix and the lengths of those inside it that are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixRange {
    /// The prefix.
    #[serde(deserialize_with = "cidr::deserialize")]
    #[schemars(with = "schema::Cidr")]
    pub cidr: IpNet,
    /// Lengths that a route inside it may have; its own alone when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
}

/// Where a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Source {
    /// From any peer.
    RemotePeers,
    /// From a peer of our own AS.
    InternalPeers,
    /// From a peer of another AS.
    ExternalPeers,
    /// It starts on this node.
    Local,
}

/// What kind of peer the filter is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PeerType {
    /// One of another AS.
    #[serde(rename = "eBGP")]
    Ebgp,
    /// One of our own.
    #[serde(rename = "iBGP")]
    Ibgp,
}

/// Communities that a route carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommunityMatch {
    /// Each of them must be there.
    pub values: Vec<Written<CommunityPattern>>,
}

/// Numbers from one to another, both included; open where one is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bounds {
    /// The least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// The most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// ORIGIN (RFC 4271 §5.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Origin {
    /// IGP.
    #[serde(rename = "IGP")]
    Igp,
    /// EGP.
    #[serde(rename = "EGP")]
    Egp,
    /// INCOMPLETE.
    Incomplete,
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// It passes.
    Accept,
    /// It is refused.
    Reject,
    /// It is changed, and the rules that follow decide.
    Next,
}

/// One change to a route: exactly one field is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Adds a community.
    #[serde(
        default,
        rename = "addCommunity",
        skip_serializing_if = "Option::is_none"
    )]
    pub add_community: Option<Value<Written<AnyCommunity>>>,
    /// Takes communities away.
    #[serde(
        default,
        rename = "removeCommunity",
        skip_serializing_if = "Option::is_none"
    )]
    pub remove_community: Option<Value<Written<CommunityPattern>>>,
    /// Replaces all communities.
    #[serde(
        default,
        rename = "setCommunities",
        skip_serializing_if = "Option::is_none"
    )]
    pub set_communities: Option<Communities>,
    /// Puts AS numbers in front of the AS path.
    #[serde(
        default,
        rename = "prependASPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_as_path: Option<AsPathPrefix>,
    /// Puts our own AS in front of the AS path, so many times more.
    #[serde(
        default,
        rename = "prependOwnAS",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_own_as: Option<Value<u8>>,
    /// Sets LOCAL_PREF to 2147483647 less this.
    #[serde(
        default,
        rename = "setPriority",
        skip_serializing_if = "Option::is_none"
    )]
    pub set_priority: Option<Value<u32>>,
    /// Sets LOCAL_PREF.
    #[serde(
        default,
        rename = "setLocalPref",
        skip_serializing_if = "Option::is_none"
    )]
    pub set_local_pref: Option<Value<u32>>,
    /// Sets MULTI_EXIT_DISC.
    #[serde(default, rename = "setMED", skip_serializing_if = "Option::is_none")]
    pub set_med: Option<Value<u32>>,
    /// Raises MULTI_EXIT_DISC.
    #[serde(default, rename = "raiseMED", skip_serializing_if = "Option::is_none")]
    pub raise_med: Option<Value<u32>>,
    /// Lowers MULTI_EXIT_DISC.
    #[serde(default, rename = "lowerMED", skip_serializing_if = "Option::is_none")]
    pub lower_med: Option<Value<u32>>,
    /// Sets the next hop.
    #[serde(
        default,
        rename = "setNextHop",
        skip_serializing_if = "Option::is_none"
    )]
    pub set_next_hop: Option<Value<Written<NextHop>>>,
    /// Sets ORIGIN.
    #[serde(default, rename = "setOrigin", skip_serializing_if = "Option::is_none")]
    pub set_origin: Option<Value<Origin>>,
}

/// What an operation works with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Value<T> {
    /// It.
    pub value: T,
}

/// Communities to set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Communities {
    /// They.
    pub values: Vec<Written<AnyCommunity>>,
}

/// AS numbers to put in front.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AsPathPrefix {
    /// They, the most recent first.
    pub prefix: Vec<AsNumber>,
}

/// Where a next hop is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextHop {
    /// Our own address on the session: on export.
    Own,
    /// The peer's address: on import.
    Peer,
    /// This one.
    Address(IpAddr),
}

impl std::str::FromStr for NextHop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Self" => Ok(Self::Own),
            "Peer" => Ok(Self::Peer),
            _ => text.parse().map(Self::Address).map_err(|_| {
                format!("`{text}` is not a next hop: write `Self`, `Peer` or an address")
            }),
        }
    }
}

impl std::fmt::Display for NextHop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("Self"),
            Self::Peer => f.write_str("Peer"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Calico's priorities: LOCAL_PREF is what they lack to this.
pub const HIGHEST_PRIORITY: u32 = 2_147_483_647;

/// Most operations that a rule may have.
const MAX_OPERATIONS: usize = 10;

/// Where a rule stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) path: &'a str,
    pub(crate) import: bool,
    pub(crate) ipv4: bool,
}

impl Place<'_> {
    fn max_len(self) -> u8 {
        if self.ipv4 { 32 } else { 128 }
    }

    fn family(self) -> &'static str {
        if self.ipv4 { "IPv4" } else { "IPv6" }
    }
}

type Report<'a> = dyn FnMut(&str, String) + 'a;

impl FilterRule {
    pub(crate) fn validate(&self, place: &Place<'_>, faults: &mut Vec<Fault>) {
        let path = place.path;
        let report: &mut Report<'_> = &mut |field: &str, message: String| {
            faults.push(Fault::at(&format!("{path}.{field}"), message));
        };
        self.validate_prefix(*place, report);
        if place.import && matches!(self.source, Some(Source::Local)) {
            report(
                "source",
                "`Local` never comes from a peer: write it in an export rule".to_owned(),
            );
        }
        if self
            .communities
            .as_ref()
            .is_some_and(|it| it.values.is_empty())
        {
            report(
                "communities.values",
                "is empty: write at least one".to_owned(),
            );
        }
        let bounds = [
            ("asPathLength", self.as_path_length),
            ("med", self.med),
            ("localPref", self.local_pref),
        ];
        for (field, bounds) in bounds {
            if let Some(Bounds {
                min: Some(min),
                max: Some(max),
            }) = bounds
                && min > max
            {
                let message = format!("`min: {min}` is above `max: {max}`: no route would match");
                report(field, message);
            }
        }
        validate_priority("priority", self.priority, report);
        if self.action == Action::Reject && !self.operations.is_empty() {
            report(
                "operations",
                "go with `action: Accept` or `Next`".to_owned(),
            );
        }
        if self.operations.len() > MAX_OPERATIONS {
            report("operations", format!("are {MAX_OPERATIONS} at most"));
        }
        for (index, operation) in self.operations.iter().enumerate() {
            operation.validate(&format!("operations[{index}]"), *place, report);
        }
    }

    fn validate_prefix(&self, place: Place<'_>, report: &mut Report<'_>) {
        match (self.cidr, self.match_operator) {
            (Some(cidr), _) if cidr.addr().is_ipv4() != place.ipv4 => {
                report("cidr", foreign(cidr, place));
            }
            (Some(_), None) => report(
                "cidr",
                "needs `matchOperator`: Equal, NotEqual, In or NotIn".to_owned(),
            ),
            (None, Some(_)) => report("matchOperator", "needs a `cidr` to compare with".to_owned()),
            _ => {}
        }
        if self.prefix_length.is_some()
            && !matches!(
                (self.cidr, self.match_operator),
                (Some(_), Some(MatchOperator::In | MatchOperator::NotIn))
            )
        {
            report(
                "prefixLength",
                "goes with a `cidr` and `matchOperator: In` or `NotIn`".to_owned(),
            );
        }
        validate_length("prefixLength", self.prefix_length, place, report);
        for (index, range) in self.prefixes.iter().enumerate() {
            let field = format!("prefixes[{index}]");
            if range.cidr.addr().is_ipv4() != place.ipv4 {
                report(&format!("{field}.cidr"), foreign(range.cidr, place));
            }
            validate_length(
                &format!("{field}.prefixLength"),
                range.prefix_length,
                place,
                report,
            );
        }
    }
}

fn foreign(cidr: IpNet, place: Place<'_>) -> String {
    let family = place.family();
    format!("`{cidr}` is not {family}: an {family} rule would never match it")
}

fn validate_length(
    field: &str,
    length: Option<PrefixLength>,
    place: Place<'_>,
    report: &mut Report<'_>,
) {
    let Some(PrefixLength { min, max }) = length else {
        return;
    };
    let longest = place.max_len();
    if min.is_some_and(|min| min > longest) || max.is_some_and(|max| max > longest) {
        let family = place.family();
        report(
            field,
            format!("an {family} prefix length is 0 to {longest}"),
        );
    } else if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        report(
            field,
            format!("`min: {min}` is above `max: {max}`: no route would match"),
        );
    }
}

fn validate_priority(field: &str, priority: Option<u32>, report: &mut Report<'_>) {
    if priority.is_some_and(|priority| !(1..HIGHEST_PRIORITY).contains(&priority)) {
        report(
            field,
            format!("a priority is 1 to {}", HIGHEST_PRIORITY - 1),
        );
    }
}

impl Operation {
    fn validate(&self, field: &str, place: Place<'_>, report: &mut Report<'_>) {
        let set = [
            self.add_community.is_some(),
            self.remove_community.is_some(),
            self.set_communities.is_some(),
            self.prepend_as_path.is_some(),
            self.prepend_own_as.is_some(),
            self.set_priority.is_some(),
            self.set_local_pref.is_some(),
            self.set_med.is_some(),
            self.raise_med.is_some(),
            self.lower_med.is_some(),
            self.set_next_hop.is_some(),
            self.set_origin.is_some(),
        ];
        if set.iter().filter(|set| **set).count() != 1 {
            report(field, "an operation has exactly one field".to_owned());
        }
        if self
            .prepend_as_path
            .as_ref()
            .is_some_and(|it| it.prefix.is_empty())
        {
            report(
                &format!("{field}.prependASPath.prefix"),
                "is empty: write at least one AS number".to_owned(),
            );
        }
        let priority = self.set_priority.as_ref().map(|it| it.value);
        validate_priority(&format!("{field}.setPriority.value"), priority, report);
        let wrong = match self.set_next_hop.as_ref().map(|it| *it.value) {
            Some(NextHop::Own) if place.import => {
                "`Self` on import would be a loop: write `Peer` or an address".to_owned()
            }
            Some(NextHop::Peer) if !place.import => {
                "`Peer` on export would be a loop: write `Self` or an address".to_owned()
            }
            Some(NextHop::Address(address)) if address.is_ipv4() != place.ipv4 => {
                format!("`{address}` is not {}", place.family())
            }
            _ => return,
        };
        report(&format!("{field}.setNextHop.value"), wrong);
    }
}

//! `BGPFilter`: which routes a peer may send us, and which it gets.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::values::optional_cidr;

/// Rules for each direction. The first rule that matches decides; a route that none matches falls to the default:
/// accepted on import when it is inside the cluster's pod ranges, on export when it is our own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFilterSpec {
    /// For IPv4 routes that a peer sends us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<FilterRule>,
    /// For IPv4 routes that we send a peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<FilterRule>,
}

/// A rule. Without `cidr` it matches every route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRule {
    /// The prefix to compare with.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_cidr::deserialize"
    )]
    pub cidr: Option<IpNet>,
    /// How to compare.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,
    /// Lengths that a route inside `cidr` may have; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLength>,
    /// What becomes of a route that matches.
    pub action: Action,
}

/// How a route's prefix is compared with `cidr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrefixLength {
    /// The shortest; that of `cidr` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u8>,
    /// The longest; 32 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u8>,
}

/// What becomes of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It passes.
    Accept,
    /// It is refused.
    Reject,
}

impl BgpFilterSpec {
    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        for (field, rules) in [("importV4", &self.import_v4), ("exportV4", &self.export_v4)] {
            for (index, rule) in rules.iter().enumerate() {
                rule.validate(&format!("spec.{field}[{index}]"), faults);
            }
        }
    }
}

impl FilterRule {
    fn validate(&self, path: &str, faults: &mut Vec<Fault>) {
        let mut fault = |field: &str, message: String| {
            faults.push(Fault::at(&format!("{path}.{field}"), message))
        };
        match (self.cidr, self.match_operator) {
            (Some(cidr), _) if !matches!(cidr, IpNet::V4(_)) => {
                fault(
                    "cidr",
                    format!("`{cidr}` is not IPv4: an IPv4 rule would never match it"),
                );
            }
            (Some(_), None) => fault(
                "cidr",
                "needs `matchOperator`: Equal, NotEqual, In or NotIn".to_owned(),
            ),
            (None, Some(_)) => fault("matchOperator", "needs a `cidr` to compare with".to_owned()),
            _ => {}
        }
        let Some(PrefixLength { min, max }) = self.prefix_length else {
            return;
        };
        if !matches!(
            (self.cidr, self.match_operator),
            (Some(_), Some(MatchOperator::In | MatchOperator::NotIn))
        ) {
            fault(
                "prefixLength",
                "goes with a `cidr` and `matchOperator: In` or `NotIn`".to_owned(),
            );
        }
        if min.is_some_and(|min| min > 32) || max.is_some_and(|max| max > 32) {
            fault(
                "prefixLength",
                "an IPv4 prefix length is 0 to 32".to_owned(),
            );
        } else if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            fault(
                "prefixLength",
                format!("`min: {min}` is above `max: {max}`: no route would match"),
            );
        }
    }
}

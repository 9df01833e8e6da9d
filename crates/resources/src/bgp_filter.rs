//! `BGPFilter`: which routes a peer may send us, and which it gets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::filter_rule::{FilterRule, Place};

/// Rules for each direction and family. The first rule that matches decides; a route that none matches falls to the
/// default: accepted on import when it is inside the cluster's pod ranges, on export when it is our own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpFilterSpec {
    /// For IPv4 routes that a peer sends us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import_v4: Vec<FilterRule>,
    /// For IPv4 routes that we send a peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_v4: Vec<FilterRule>,
    /// For IPv6 routes that a peer sends us.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import_v6: Vec<FilterRule>,
    /// For IPv6 routes that we send a peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export_v6: Vec<FilterRule>,
}

impl BgpFilterSpec {
    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        let lists = [
            ("importV4", &self.import_v4),
            ("exportV4", &self.export_v4),
            ("importV6", &self.import_v6),
            ("exportV6", &self.export_v6),
        ];
        for (field, rules) in lists {
            for (index, rule) in rules.iter().enumerate() {
                let place = Place {
                    path: &format!("spec.{field}[{index}]"),
                    import: field.starts_with("import"),
                    ipv4: field.ends_with('4'),
                };
                rule.validate(&place, faults);
            }
        }
    }
}

//! `IPReservation`: addresses that no pod gets.

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::schema;
use crate::values::parse_cidr;

/// Ranges inside pools and pod CIDRs that are given to no pod, not even to one that asks for such an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IpReservationSpec {
    /// The ranges. A single address is written with its prefix length: `10.244.0.10/32`.
    #[serde(rename = "reservedCIDRs")]
    #[schemars(with = "Vec<schema::Cidr>")]
    pub reserved_cidrs: Vec<String>,
}

impl IpReservationSpec {
    /// The ranges.
    pub fn ranges(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.reserved_cidrs
            .iter()
            .filter_map(|text| parse_cidr(text).ok())
    }

    pub(crate) fn validate(&self, faults: &mut Vec<Fault>) {
        for (index, text) in self.reserved_cidrs.iter().enumerate() {
            if let Err(message) = parse_cidr(text) {
                faults.push(Fault::at(&format!("spec.reservedCIDRs[{index}]"), message));
            }
        }
    }
}

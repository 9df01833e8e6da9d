//! Address families (RFC 4760 §5; IANA "Address Family Numbers", "SAFI").

use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

/// An address family and a subsequent address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// AFI: 1 is IPv4, 2 is IPv6.
    pub afi: u16,
    /// SAFI: 1 is unicast.
    pub safi: u8,
}

impl Family {
    /// IPv4 unicast.
    pub const IPV4_UNICAST: Self = Self { afi: 1, safi: 1 };
    /// IPv6 unicast.
    pub const IPV6_UNICAST: Self = Self { afi: 2, safi: 1 };

    /// The unicast family that a prefix is of.
    #[must_use]
    pub fn of(prefix: IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::IPV4_UNICAST,
            IpNet::V6(_) => Self::IPV6_UNICAST,
        }
    }
}

/// A text that is no family with a name here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address family: expected ipv4-unicast or ipv6-unicast")]
pub struct ParseFamilyError;

impl FromStr for Family {
    type Err = ParseFamilyError;

    fn from_str(text: &str) -> Result<Self, ParseFamilyError> {
        match text {
            "ipv4-unicast" => Ok(Self::IPV4_UNICAST),
            "ipv6-unicast" => Ok(Self::IPV6_UNICAST),
            _ => Err(ParseFamilyError),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IPV4_UNICAST => f.write_str("ipv4-unicast"),
            Self::IPV6_UNICAST => f.write_str("ipv6-unicast"),
            Self { afi, safi } => write!(f, "afi {afi} safi {safi}"),
        }
    }
}

//! Communities of all three kinds, and patterns over them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::{PatternError, Span};
use crate::{Attributes, Community, ExtendedCommunity, LargeCommunity};

/// A community of any kind: `65000:1` or a well-known name, `65000:1:2`, or `rt:65000:1` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyCommunity {
    /// RFC 1997.
    Standard(Community),
    /// RFC 4360.
    Extended(ExtendedCommunity),
    /// RFC 8092.
    Large(LargeCommunity),
}

impl From<Community> for AnyCommunity {
    fn from(community: Community) -> Self {
        Self::Standard(community)
    }
}

impl From<ExtendedCommunity> for AnyCommunity {
    fn from(community: ExtendedCommunity) -> Self {
        Self::Extended(community)
    }
}

impl From<LargeCommunity> for AnyCommunity {
    fn from(community: LargeCommunity) -> Self {
        Self::Large(community)
    }
}

impl FromStr for AnyCommunity {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let standard = || text.parse().ok().map(Self::Standard);
        let large = || text.parse().ok().map(Self::Large);
        let extended = || text.parse().ok().map(Self::Extended);
        standard().or_else(large).or_else(extended).ok_or_else(|| {
            PatternError(format!(
                "`{text}` is not a community: write `65000:1`, `65000:1:2`, `rt:65000:1`, or a well-known name as `no-export`"
            ))
        })
    }
}

impl fmt::Display for AnyCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(community) => community.fmt(f),
            Self::Extended(community) => community.fmt(f),
            Self::Large(community) => community.fmt(f),
        }
    }
}

/// A pattern over communities: as a community is written, where each number may be a range (`100-199`) or `*`, and
/// each administrator of an extended one `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CommunityPattern(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Standard([Span<u16>; 2]),
    Large([Span<u32>; 3]),
    Extended {
        /// 2 for a route target, 3 for a site of origin (RFC 4360 §4, §5).
        subtype: u8,
        administrator: Administrator,
        value: Span<u32>,
    },
    /// That one extended community, whatever it means.
    Exactly(ExtendedCommunity),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Administrator {
    Any,
    Asn(Span<u32>),
    Address(Ipv4Addr),
}

impl CommunityPattern {
    /// Whether a route with these attributes has such a community.
    #[must_use]
    pub fn matches(&self, attributes: &Attributes) -> bool {
        let Attributes {
            communities,
            extended_communities,
            large_communities,
            ..
        } = attributes;
        match self.0 {
            Kind::Standard(_) => communities.iter().any(|it| self.standard(*it)),
            Kind::Large(_) => large_communities.iter().any(|it| self.large(*it)),
            Kind::Extended { .. } | Kind::Exactly(_) => {
                extended_communities.iter().any(|it| self.extended(*it))
            }
        }
    }

    /// Takes every such community away.
    pub fn remove_from(&self, attributes: &mut Attributes) {
        match self.0 {
            Kind::Standard(_) => attributes.communities.retain(|it| !self.standard(*it)),
            Kind::Large(_) => attributes.large_communities.retain(|it| !self.large(*it)),
            Kind::Extended { .. } | Kind::Exactly(_) => {
                attributes
                    .extended_communities
                    .retain(|it| !self.extended(*it));
            }
        }
    }

    fn standard(&self, it: Community) -> bool {
        matches!(self.0, Kind::Standard([asn, value])
            if asn.holds(it.asn()) && value.holds(it.value()))
    }

    fn large(&self, it: LargeCommunity) -> bool {
        matches!(self.0, Kind::Large([global, local1, local2])
            if global.holds(it.global) && local1.holds(it.local1) && local2.holds(it.local2))
    }

    fn extended(&self, it: ExtendedCommunity) -> bool {
        match self.0 {
            Kind::Exactly(community) => community == it,
            Kind::Extended {
                subtype,
                administrator,
                value,
            } => {
                let [kind, found, a, b, c, d, e, g] = it.0;
                let (asn, number) = match kind {
                    0 => (
                        u16::from_be_bytes([a, b]).into(),
                        u32::from_be_bytes([c, d, e, g]),
                    ),
                    1 | 2 => (
                        u32::from_be_bytes([a, b, c, d]),
                        u16::from_be_bytes([e, g]).into(),
                    ),
                    _ => return false,
                };
                let administered = match administrator {
                    Administrator::Any => true,
                    Administrator::Asn(span) => kind != 1 && span.holds(asn),
                    Administrator::Address(address) => kind == 1 && u32::from(address) == asn,
                };
                found == subtype && administered && value.holds(number)
            }
            Kind::Standard(_) | Kind::Large(_) => false,
        }
    }
}

impl From<AnyCommunity> for CommunityPattern {
    fn from(community: AnyCommunity) -> Self {
        let one = |number| Span {
            first: number,
            last: number,
        };
        Self(match community {
            AnyCommunity::Standard(it) => {
                Kind::Standard([it.asn(), it.value()].map(|number| Span {
                    first: number,
                    last: number,
                }))
            }
            AnyCommunity::Extended(it) => Kind::Exactly(it),
            AnyCommunity::Large(it) => Kind::Large([it.global, it.local1, it.local2].map(one)),
        })
    }
}

impl From<Community> for CommunityPattern {
    fn from(community: Community) -> Self {
        AnyCommunity::from(community).into()
    }
}

impl FromStr for CommunityPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        // A name, or one of those that are written in hexadecimal.
        if let Ok(community) = text.parse::<AnyCommunity>() {
            return Ok(community.into());
        }
        pattern(text).map(Self).ok_or_else(|| {
            PatternError(format!(
                "`{text}` is not a pattern over communities: write a community, with ranges or `*` for numbers, as in `65000:100-199`, `65000:*:1` or `rt:*:7`"
            ))
        })
    }
}

fn pattern(text: &str) -> Option<Kind> {
    let standard = |part| Span::parse_or_any(part, 0..=u16::MAX);
    let large = |part| Span::parse_or_any(part, 0..=u32::MAX);
    match *text.split(':').collect::<Vec<_>>() {
        [asn, value] => Some(Kind::Standard([standard(asn)?, standard(value)?])),
        [name @ ("rt" | "soo"), administrator, value] => Some(Kind::Extended {
            subtype: if name == "rt" { 2 } else { 3 },
            administrator: match administrator.parse() {
                _ if administrator == "*" => Administrator::Any,
                Ok(address) => Administrator::Address(address),
                Err(_) => Administrator::Asn(Span::parse(administrator)?),
            },
            value: large(value)?,
        }),
        [global, local1, local2] => Some(Kind::Large([
            large(global)?,
            large(local1)?,
            large(local2)?,
        ])),
        _ => None,
    }
}

impl fmt::Display for CommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |span: Span<u32>, max: u32| match (span.first, span.last) {
            (0, last) if last == max => "*".to_owned(),
            _ => span.to_string(),
        };
        match self.0 {
            Kind::Standard(spans) => {
                let [asn, value] = spans.map(|span| Span {
                    first: u32::from(span.first),
                    last: u32::from(span.last),
                });
                let max = u32::from(u16::MAX);
                write!(f, "{}:{}", any(asn, max), any(value, max))
            }
            Kind::Large(spans) => {
                let [global, local1, local2] = spans.map(|span| any(span, u32::MAX));
                write!(f, "{global}:{local1}:{local2}")
            }
            Kind::Extended {
                subtype,
                administrator,
                value,
            } => {
                let name = if subtype == 2 { "rt" } else { "soo" };
                let administrator = match administrator {
                    Administrator::Any => "*".to_owned(),
                    Administrator::Asn(span) => span.to_string(),
                    Administrator::Address(address) => address.to_string(),
                };
                write!(f, "{name}:{administrator}:{}", any(value, u32::MAX))
            }
            Kind::Exactly(community) => community.fmt(f),
        }
    }
}

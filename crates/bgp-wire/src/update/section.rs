//! The attribute section: one pass, one table, and for each fault the reaction that its attribute's RFC names.
//!
//! What an attribute is decides how a fault in it is handled, never the flag bits that came with it (RFC 7606 §3 c).

use std::net::Ipv4Addr;

use super::{Fault, Reaction};
use crate::as_path::Accept;
use crate::attribute::{code as attr, flag};
use crate::cursor::{Cursor, exact};
use crate::notification::{code, update_error};
use crate::{
    Aggregator, AsPath, Attributes, Community, Context, ExtendedCommunity, Family, LargeCommunity,
    MessageError, NextHop, Nlri, Origin, UnknownAttribute,
};

/// How strictly to read, and for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    four_octet_as: bool,
    external: bool,
    /// The message has prefixes in its own NLRI field, so NEXT_HOP means something.
    has_nlri: bool,
    /// The section is our own: nothing is discarded or changed that we put in.
    own: bool,
}

impl Mode {
    pub(super) fn received(context: &Context, has_nlri: bool) -> Self {
        Self {
            four_octet_as: context.four_octet_as,
            external: !context.ibgp,
            has_nlri,
            own: false,
        }
    }

    pub(super) fn own() -> Self {
        Self {
            four_octet_as: true,
            external: false,
            has_nlri: false,
            own: true,
        }
    }

    fn accept(self) -> Accept {
        Accept {
            sets: self.own,
            confederations: !self.external,
            zero: self.own,
        }
    }
}

/// What an attribute is: the flags it must have, who may send it, how long it is, and what a malformed one leads to.
struct Rule {
    /// OPTIONAL and TRANSITIVE as specified.
    flags: u8,
    length: Length,
    /// Reaction to a wrong length or value.
    malformed: Reaction,
    /// The subcode that RFC 4271 §6.3 has for a wrong value.
    subcode: u8,
    /// Dropped unread when it comes from an external peer.
    internal_only: bool,
}

/// Which lengths an attribute may have.
enum Length {
    Exactly(usize),
    /// At least one item of so many octets, and only whole ones.
    Items(usize),
    /// The value's own decoder knows.
    Any,
}

const WELL_KNOWN: u8 = flag::TRANSITIVE;
const NON_TRANSITIVE: u8 = flag::OPTIONAL;
const TRANSITIVE: u8 = flag::OPTIONAL | flag::TRANSITIVE;

/// The table. Attributes that are not in it are unknown.
fn rule(code: u8) -> Option<Rule> {
    use Length::{Any, Exactly, Items};
    use Reaction::{Discard, TreatAsWithdraw as Withdraw};
    use update_error::{
        ATTRIBUTE_LENGTH_ERROR as LENGTH, INVALID_NEXT_HOP, INVALID_ORIGIN, MALFORMED_AS_PATH,
        OPTIONAL_ATTRIBUTE_ERROR as OPTIONAL,
    };
    let (flags, length, malformed, subcode, internal_only) = match code {
        attr::ORIGIN => (WELL_KNOWN, Exactly(1), Withdraw, INVALID_ORIGIN, false), // RFC 7606 §7.1
        attr::AS_PATH => (WELL_KNOWN, Any, Withdraw, MALFORMED_AS_PATH, false),    // §7.2
        attr::NEXT_HOP => (WELL_KNOWN, Exactly(4), Withdraw, INVALID_NEXT_HOP, false), // §7.3
        attr::MULTI_EXIT_DISC => (NON_TRANSITIVE, Exactly(4), Withdraw, OPTIONAL, false), // §7.4
        attr::LOCAL_PREF => (WELL_KNOWN, Exactly(4), Withdraw, LENGTH, true),      // §7.5
        attr::ATOMIC_AGGREGATE => (WELL_KNOWN, Exactly(0), Discard, LENGTH, false), // §7.6
        attr::AGGREGATOR => (TRANSITIVE, Any, Discard, OPTIONAL, false),           // §7.7
        attr::COMMUNITIES => (TRANSITIVE, Items(4), Withdraw, OPTIONAL, false),    // §7.8
        attr::ORIGINATOR_ID => (NON_TRANSITIVE, Exactly(4), Withdraw, OPTIONAL, true), // §7.9
        attr::CLUSTER_LIST => (NON_TRANSITIVE, Items(4), Withdraw, OPTIONAL, true), // §7.10
        // Malformed ones reset the session: §7.11, §7.12.
        attr::MP_REACH_NLRI | attr::MP_UNREACH_NLRI => {
            (NON_TRANSITIVE, Any, Withdraw, OPTIONAL, false)
        }
        attr::EXTENDED_COMMUNITIES => (TRANSITIVE, Items(8), Withdraw, OPTIONAL, false), // §7.14
        attr::AS4_PATH => (TRANSITIVE, Any, Discard, OPTIONAL, false), // RFC 6793 §6
        attr::AS4_AGGREGATOR => (TRANSITIVE, Any, Discard, OPTIONAL, false), // RFC 6793 §6
        attr::LARGE_COMMUNITY => (TRANSITIVE, Items(12), Withdraw, OPTIONAL, false), // RFC 8092 §6
        _ => return None,
    };
    Some(Rule {
        flags,
        length,
        malformed,
        subcode,
        internal_only,
    })
}

/// Which mandatory attributes were not there at all. A malformed one has its own fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing {
    pub(super) origin: bool,
    pub(super) as_path: bool,
    pub(super) next_hop: bool,
    pub(super) local_pref: bool,
}

/// MP_UNREACH_NLRI: its run where we know the family.
#[derive(Debug, Clone, Copy)]
pub(super) struct MpUnreach<'a> {
    pub(super) family: Family,
    pub(super) run: Option<Nlri<'a>>,
    pub(super) empty: bool,
}

/// What a section came to.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    /// Holds NEXT_HOP only where the message has prefixes for it.
    pub(super) attributes: Attributes,
    pub(super) faults: Vec<Fault>,
    pub(super) mp_reach: Option<(NextHop, Nlri<'a>)>,
    pub(super) mp_unreach: Option<MpUnreach<'a>>,
    /// The error that the first treat-as-withdraw fault becomes, should there be nothing to withdraw.
    pub(super) reset: Option<MessageError>,
    /// There was no attribute but MP_UNREACH_NLRI.
    pub(super) only_mp_unreach: bool,
    /// There was an MP_REACH_NLRI of a family that we do not speak.
    pub(super) has_other_family: bool,
    pub(super) missing: Missing,
}

/// One attribute as it stands in the section.
#[derive(Clone, Copy)]
struct Raw<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
    /// All of it, as error data wants it: type, length, value.
    whole: &'a [u8],
}

/// A value that its attribute's RFC does not allow: what is wrong, and which subcode and reaction that has.
struct Malformed {
    reason: &'static str,
    subcode: u8,
    reaction: Reaction,
}

/// A section being read.
pub(super) struct Section<'a> {
    mode: Mode,
    seen: [u64; 4],
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    parsed: Parsed<'a>,
}

impl<'a> Section<'a> {
    /// Reads all attributes. The error ends the session.
    pub(super) fn parse(bytes: &'a [u8], mode: Mode) -> Result<Parsed<'a>, MessageError> {
        let mut section = Self {
            mode,
            seen: [0; 4],
            as4_path: None,
            as4_aggregator: None,
            parsed: Parsed {
                attributes: Attributes::originated(),
                faults: Vec::new(),
                mp_reach: None,
                mp_unreach: None,
                reset: None,
                only_mp_unreach: true,
                has_other_family: false,
                missing: Missing {
                    origin: false,
                    as_path: false,
                    next_hop: false,
                    local_pref: false,
                },
            },
        };
        let mut cursor = Cursor::new(bytes);
        while !cursor.is_empty() {
            let start = cursor.rest();
            let Some(raw) = split(&mut cursor) else {
                // RFC 7606 §4: where the prefixes are is known nonetheless, from Total Path Attribute Length.
                let code = start.get(1).copied().unwrap_or(0);
                let reason = "attribute overruns the attribute section";
                let subcode = update_error::MALFORMED_ATTRIBUTE_LIST;
                let reaction = Reaction::TreatAsWithdraw;
                section.parsed.only_mp_unreach = false;
                section.fault(
                    code,
                    &Malformed {
                        reason,
                        subcode,
                        reaction,
                    },
                    &[],
                );
                break;
            };
            section.attribute(raw)?;
        }
        Ok(section.finish())
    }

    fn attribute(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        self.parsed.only_mp_unreach &= raw.code == attr::MP_UNREACH_NLRI;
        if self.saw(raw.code) {
            return self.duplicate(raw);
        }
        self.seen[usize::from(raw.code >> 6)] |= 1 << (raw.code & 63);
        let Some(rule) = rule(raw.code) else {
            return self.unknown(raw);
        };
        // RFC 7606 §3 c, and RFC 4271 §4.3 for Partial, which only optional transitive attributes may have.
        let conflict = (raw.flags ^ rule.flags) & TRANSITIVE != 0
            || (raw.flags & flag::PARTIAL != 0 && rule.flags != TRANSITIVE);
        if conflict {
            let reason = "flags conflict with the type";
            let subcode = update_error::ATTRIBUTE_FLAGS_ERROR;
            self.fault(
                raw.code,
                &Malformed {
                    reason,
                    subcode,
                    reaction: Reaction::TreatAsWithdraw,
                },
                raw.whole,
            );
            return Ok(());
        }
        if rule.internal_only && self.mode.external {
            let reason = "not allowed from an external peer";
            self.discard(raw.code, reason);
            return Ok(());
        }
        match raw.code {
            attr::MP_REACH_NLRI => return self.mp_reach(raw),
            attr::MP_UNREACH_NLRI => return self.mp_unreach(raw),
            // To be ignored beside MP_REACH_NLRI alone (RFC 4760 §3).
            attr::NEXT_HOP if !self.mode.has_nlri => return Ok(()),
            _ => {}
        }
        let fits = match rule.length {
            Length::Exactly(len) => raw.value.len() == len,
            Length::Items(size) => !raw.value.is_empty() && raw.value.len().is_multiple_of(size),
            Length::Any => true,
        };
        let malformed = if fits {
            self.value(raw).err().map(|reason| Malformed {
                reason,
                subcode: rule.subcode,
                reaction: rule.malformed,
            })
        } else {
            let subcode = update_error::ATTRIBUTE_LENGTH_ERROR;
            Some(Malformed {
                reason: "wrong length",
                subcode,
                reaction: rule.malformed,
            })
        };
        if let Some(malformed) = malformed {
            self.fault(raw.code, &malformed, raw.whole);
        }
        Ok(())
    }

    /// Reads a value whose length fits. The error says what is wrong with it.
    fn value(&mut self, raw: Raw<'a>) -> Result<(), &'static str> {
        const WRONG_LENGTH: &str = "wrong length";
        let value = raw.value;
        let partial = raw.flags & flag::PARTIAL != 0;
        let attributes = &mut self.parsed.attributes;
        match raw.code {
            attr::ORIGIN => {
                let [value] = exact(value).ok_or(WRONG_LENGTH)?;
                attributes.origin = Origin::from_value(value).ok_or("undefined value")?;
            }
            attr::AS_PATH => {
                let width = if self.mode.four_octet_as { 4 } else { 2 };
                attributes.as_path = AsPath::decode(value, width, self.mode.accept())?;
            }
            attr::NEXT_HOP => {
                let address = Ipv4Addr::from(exact::<4>(value).ok_or(WRONG_LENGTH)?);
                attributes.next_hop = Some(NextHop::V4(address));
                if !is_host_v4(address) {
                    return Err("not an address of a host");
                }
            }
            attr::MULTI_EXIT_DISC => {
                attributes.med = Some(u32::from_be_bytes(exact(value).ok_or(WRONG_LENGTH)?));
            }
            attr::LOCAL_PREF => {
                attributes.local_pref = Some(u32::from_be_bytes(exact(value).ok_or(WRONG_LENGTH)?));
            }
            attr::ATOMIC_AGGREGATE => attributes.atomic_aggregate = true,
            attr::AGGREGATOR => {
                attributes.aggregator = Some(aggregator(value, self.mode)?);
                attributes.partial.aggregator = partial;
            }
            attr::COMMUNITIES => {
                let items = value.as_chunks().0;
                attributes.communities = items
                    .iter()
                    .map(|item| Community(u32::from_be_bytes(*item)))
                    .collect();
                attributes.partial.communities = partial;
            }
            attr::ORIGINATOR_ID => {
                attributes.originator_id = Some(exact::<4>(value).ok_or(WRONG_LENGTH)?.into());
            }
            attr::CLUSTER_LIST => {
                attributes.cluster_list = value
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|item| Ipv4Addr::from(*item))
                    .collect();
            }
            attr::EXTENDED_COMMUNITIES => {
                attributes.extended_communities = value
                    .as_chunks()
                    .0
                    .iter()
                    .map(|item| ExtendedCommunity(*item))
                    .collect();
                attributes.partial.extended_communities = partial;
            }
            attr::LARGE_COMMUNITY => {
                let items = value.as_chunks().0;
                attributes.large_communities = items
                    .iter()
                    .map(|item| LargeCommunity::from_bytes(*item))
                    .collect();
                if !self.mode.own {
                    LargeCommunity::dedup(&mut attributes.large_communities);
                }
                attributes.partial.large_communities = partial;
            }
            attr::AS4_PATH | attr::AS4_AGGREGATOR if self.mode.four_octet_as => {
                return Err("not allowed from a peer with four-octet AS numbers (RFC 6793)");
            }
            attr::AS4_PATH => return self.as4_path(value),
            attr::AS4_AGGREGATOR => {
                self.as4_aggregator = Some(aggregator(
                    value,
                    Mode {
                        four_octet_as: true,
                        ..self.mode
                    },
                )?)
            }
            _ => {}
        }
        Ok(())
    }

    fn as4_path(&mut self, value: &[u8]) -> Result<(), &'static str> {
        if value.is_empty() {
            return Err("wrong length");
        }
        // Confederation segments are to be taken out, not refused (RFC 6793 §6).
        let path = AsPath::decode(
            value,
            4,
            Accept {
                sets: true,
                confederations: true,
                zero: false,
            },
        )?;
        let path = path.without_confederations();
        if path.segments.iter().any(|segment| segment.kind.is_set()) {
            let malformed = Malformed {
                reason: "has an AS_SET (RFC 9774)",
                subcode: update_error::OPTIONAL_ATTRIBUTE_ERROR,
                reaction: Reaction::TreatAsWithdraw,
            };
            self.fault(attr::AS4_PATH, &malformed, &[]);
        }
        self.as4_path = Some(path);
        Ok(())
    }

    /// RFC 4760 §3. Whatever is wrong in here, the prefixes can't be found: RFC 7606 §5.3, §7.11.
    fn mp_reach(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let mut cursor = Cursor::new(raw.value);
        let malformed = |reason| error(reason, update_error::OPTIONAL_ATTRIBUTE_ERROR, raw.whole);
        let (Some(afi), Some(safi), Some(len)) = (cursor.u16(), cursor.u8(), cursor.u8()) else {
            return Err(malformed("MP_REACH_NLRI: truncated"));
        };
        let (Some(next_hop_bytes), Some(_reserved)) = (cursor.take(len.into()), cursor.u8()) else {
            return Err(malformed("MP_REACH_NLRI: next hop overruns the attribute"));
        };
        let family = Family { afi, safi };
        let allowed = match family {
            Family::IPV4_UNICAST => matches!(len, 4 | 16 | 32),
            Family::IPV6_UNICAST => matches!(len, 16 | 32),
            _ => {
                self.parsed.has_other_family = true;
                self.discard(raw.code, "family is not supported");
                return Ok(());
            }
        };
        let next_hop = next_hop(next_hop_bytes)
            .filter(|_| allowed)
            .ok_or_else(|| malformed("MP_REACH_NLRI: next hop length does not fit the family"))?;
        let run = Nlri::check(family, cursor.rest())
            .map_err(|_| malformed("MP_REACH_NLRI: malformed prefix"))?;
        let next_hop = usable(next_hop);
        if !is_host(next_hop) {
            let reason = "next hop is not an address of a host";
            let subcode = update_error::OPTIONAL_ATTRIBUTE_ERROR;
            self.fault(
                raw.code,
                &Malformed {
                    reason,
                    subcode,
                    reaction: Reaction::TreatAsWithdraw,
                },
                raw.whole,
            );
        }
        self.parsed.mp_reach = Some((next_hop, run));
        Ok(())
    }

    /// RFC 4760 §4.
    fn mp_unreach(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let mut cursor = Cursor::new(raw.value);
        let malformed = |reason| error(reason, update_error::OPTIONAL_ATTRIBUTE_ERROR, raw.whole);
        let (Some(afi), Some(safi)) = (cursor.u16(), cursor.u8()) else {
            return Err(malformed("MP_UNREACH_NLRI: truncated"));
        };
        let family = Family { afi, safi };
        let empty = cursor.is_empty();
        let run = match family {
            Family::IPV4_UNICAST | Family::IPV6_UNICAST => Some(
                Nlri::check(family, cursor.rest())
                    .map_err(|_| malformed("MP_UNREACH_NLRI: malformed prefix"))?,
            ),
            _ => None,
        };
        if run.is_none() && !empty {
            self.discard(raw.code, "family is not supported");
        }
        self.parsed.mp_unreach = Some(MpUnreach { family, run, empty });
        Ok(())
    }

    /// RFC 7606 §3 g.
    fn duplicate(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        match raw.code {
            attr::MP_REACH_NLRI => Err(error(
                "MP_REACH_NLRI: appears twice",
                update_error::MALFORMED_ATTRIBUTE_LIST,
                &[],
            )),
            attr::MP_UNREACH_NLRI => Err(error(
                "MP_UNREACH_NLRI: appears twice",
                update_error::MALFORMED_ATTRIBUTE_LIST,
                &[],
            )),
            _ => {
                self.discard(raw.code, "appears again, the first one counts");
                Ok(())
            }
        }
    }

    /// RFC 4271 §5, §6.3.
    fn unknown(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        if raw.flags & flag::OPTIONAL == 0 {
            let subcode = update_error::UNRECOGNIZED_WELL_KNOWN_ATTRIBUTE;
            return Err(error(
                "UPDATE: unknown well-known attribute",
                subcode,
                raw.whole,
            ));
        }
        if raw.flags & flag::TRANSITIVE == 0 {
            return Ok(());
        }
        let extended = if raw.value.len() > usize::from(u8::MAX) {
            flag::EXTENDED_LENGTH
        } else {
            0
        };
        let partial = if self.mode.own {
            raw.flags & flag::PARTIAL
        } else {
            flag::PARTIAL
        };
        let flags = TRANSITIVE | partial | extended;
        let unknown = &mut self.parsed.attributes.unknown;
        let at = unknown.partition_point(|other| other.code < raw.code);
        unknown.insert(
            at,
            UnknownAttribute {
                code: raw.code,
                flags,
                value: raw.value.to_vec(),
            },
        );
        Ok(())
    }

    fn saw(&self, code: u8) -> bool {
        self.seen[usize::from(code >> 6)] & 1 << (code & 63) != 0
    }

    fn discard(&mut self, code: u8, reason: &'static str) {
        self.parsed.faults.push(Fault {
            code,
            reason,
            reaction: Reaction::Discard,
        });
    }

    fn fault(&mut self, code: u8, malformed: &Malformed, data: &[u8]) {
        let &Malformed {
            reason,
            subcode,
            reaction,
        } = malformed;
        if reaction == Reaction::TreatAsWithdraw && self.parsed.reset.is_none() {
            self.parsed.reset = Some(error(reason, subcode, data));
        }
        self.parsed.faults.push(Fault {
            code,
            reason,
            reaction,
        });
    }

    fn finish(mut self) -> Parsed<'a> {
        self.parsed.missing = Missing {
            origin: !self.saw(attr::ORIGIN),
            as_path: !self.saw(attr::AS_PATH),
            next_hop: !self.saw(attr::NEXT_HOP),
            local_pref: !self.saw(attr::LOCAL_PREF),
        };
        // RFC 6793 §4.2.3.
        let attributes = &mut self.parsed.attributes;
        let mut merge_path = true;
        if let (Some(aggregator), Some(as4_aggregator)) =
            (&mut attributes.aggregator, self.as4_aggregator)
        {
            if aggregator.asn == u32::from(crate::AS_TRANS) {
                *aggregator = as4_aggregator;
            } else {
                merge_path = false;
            }
        }
        if let Some(as4_path) = self.as4_path.filter(|_| merge_path) {
            attributes.as_path = std::mem::take(&mut attributes.as_path).merge(as4_path);
        }
        self.parsed
    }
}

/// Cuts off one attribute; `None` where it is truncated.
fn split<'a>(cursor: &mut Cursor<'a>) -> Option<Raw<'a>> {
    let start = cursor.rest();
    let [flags, code] = cursor.array()?;
    // The flag is believed even where the length would have fitted into one octet (RFC 4271 §4.3).
    let len = if flags & flag::EXTENDED_LENGTH == 0 {
        cursor.u8()?.into()
    } else {
        cursor.u16()?.into()
    };
    let value = cursor.take(len)?;
    let whole = &start[..start.len() - cursor.rest().len()];
    Some(Raw {
        flags,
        code,
        value,
        whole,
    })
}

/// RFC 4271 §4.3 g, with two or four octets of AS number (RFC 6793 §4.1); AS 0 is malformed (RFC 7607 §2).
fn aggregator(value: &[u8], mode: Mode) -> Result<Aggregator, &'static str> {
    let mut cursor = Cursor::new(value);
    let asn = if mode.four_octet_as {
        cursor.u32()
    } else {
        cursor.u16().map(u32::from)
    };
    match (asn, cursor.ipv4(), cursor.is_empty()) {
        (Some(0), Some(_), true) if !mode.own => Err("has AS 0 (RFC 7607)"),
        (Some(asn), Some(router_id), true) => Ok(Aggregator { asn, router_id }),
        _ => Err("wrong length"),
    }
}

/// A next hop by its length: 4, 16 or 32 octets.
pub(crate) fn next_hop(bytes: &[u8]) -> Option<NextHop> {
    let mut cursor = Cursor::new(bytes);
    Some(match bytes.len() {
        4 => NextHop::V4(cursor.ipv4()?),
        16 => NextHop::V6(cursor.ipv6()?),
        32 => NextHop::V6WithLinkLocal(cursor.ipv6()?, cursor.ipv6()?),
        _ => return None,
    })
}

/// Straightens what speakers in the field put into 32 octets (RFC 2545 §3 wants a global and a link-local address):
/// a second address that is no link-local one goes, and where there is no global one the link-local one stands alone.
fn usable(next_hop: NextHop) -> NextHop {
    match next_hop {
        NextHop::V6WithLinkLocal(address, second) if !second.is_unicast_link_local() => {
            NextHop::V6(address)
        }
        NextHop::V6WithLinkLocal(address, second)
            if address.is_unspecified() || address == second =>
        {
            NextHop::V6(second)
        }
        _ => next_hop,
    }
}

/// Whether the address can be a host's (RFC 4271 §6.3).
fn is_host(next_hop: NextHop) -> bool {
    match next_hop {
        NextHop::V4(address) => is_host_v4(address),
        NextHop::V6(address) | NextHop::V6WithLinkLocal(address, _) => {
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
        }
    }
}

/// Neither 0/8 nor 127/8 nor class D or E.
fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

fn error(reason: &'static str, subcode: u8, data: &[u8]) -> MessageError {
    MessageError::new(reason, code::UPDATE, subcode, data)
}

//! The attribute section in one pass. Where an attribute ends is known whatever its value says, so
//! that reading goes on behind a malformed one; what it leads to is in the [table](super::table).

use super::table::{Rule, TRANSITIVE};
use super::{Fault, Reaction};
use crate::attribute::{code as attr, flag};
use crate::cursor::Cursor;
use crate::notification::{code, update_error};
use crate::{
    AS_TRANS, Aggregator, AsPath, Attributes, Context, Family, MessageError, NextHop, Nlri,
    UnknownAttribute,
};

/// For whom, and how strictly, a section is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    pub(super) four_octet_as: bool,
    pub(super) external: bool,
    /// The message has prefixes in its own NLRI field, so NEXT_HOP means something.
    pub(super) has_nlri: bool,
    /// The section is our own: nothing that we put in is refused or changed.
    pub(super) own: bool,
}

impl Mode {
    pub(super) fn received(context: &Context, has_nlri: bool) -> Self {
        let &Context {
            four_octet_as,
            ibgp,
            ..
        } = context;
        Self {
            four_octet_as,
            external: !ibgp,
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
}

/// MP_UNREACH_NLRI: its run where we know the family.
#[derive(Debug, Clone, Copy)]
pub(super) struct MpUnreach<'a> {
    pub(super) family: Family,
    pub(super) run: Option<Nlri<'a>>,
    /// It ends behind the family.
    pub(super) empty: bool,
}

/// What a section came to.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    /// With a next hop only where NEXT_HOP counts, see [`Mode::has_nlri`].
    pub(super) attributes: Attributes,
    pub(super) faults: Vec<Fault>,
    pub(super) mp_reach: Option<(NextHop, Nlri<'a>)>,
    pub(super) mp_unreach: Option<MpUnreach<'a>>,
    /// What the first treat-as-withdraw fault becomes, should there be no prefix to withdraw.
    pub(super) reset: Option<MessageError>,
    /// There was an MP_REACH_NLRI of a family that we do not speak.
    pub(super) has_other_family: bool,
    /// The last attribute overran the section: what is missing may have been behind it.
    pub(super) truncated: bool,
    pub(super) seen: Seen,
}

/// Which attributes there were, by type code.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen([u64; 4]);

impl Seen {
    pub(super) fn has(&self, code: u8) -> bool {
        self.0[usize::from(code >> 6)] & (1 << (code & 63)) != 0
    }

    pub(super) fn only(&self, code: u8) -> bool {
        let mut only = Self::default();
        only.insert(code);
        self.0 == only.0
    }

    fn insert(&mut self, code: u8) {
        self.0[usize::from(code >> 6)] |= 1 << (code & 63);
    }
}

/// One attribute as it stands in the section.
#[derive(Clone, Copy)]
pub(super) struct Raw<'a> {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) value: &'a [u8],
    /// Type, length and value: what a NOTIFICATION has as data (RFC 4271 §6.3).
    pub(super) whole: &'a [u8],
}

/// A section being read.
pub(super) struct Section<'a> {
    pub(super) mode: Mode,
    pub(super) as4_path: Option<AsPath>,
    pub(super) as4_aggregator: Option<Aggregator>,
    pub(super) parsed: Parsed<'a>,
}

impl<'a> Section<'a> {
    /// Reads all attributes. The error ends the session.
    pub(super) fn parse(bytes: &'a [u8], mode: Mode) -> Result<Parsed<'a>, MessageError> {
        let parsed = Parsed {
            attributes: Attributes::originated(),
            faults: Vec::new(),
            mp_reach: None,
            mp_unreach: None,
            reset: None,
            has_other_family: false,
            truncated: false,
            seen: Seen::default(),
        };
        let mut section = Self {
            mode,
            as4_path: None,
            as4_aggregator: None,
            parsed,
        };
        let mut cursor = Cursor::new(bytes);
        while !cursor.is_empty() {
            let start = cursor.rest();
            let Some(raw) = split(&mut cursor) else {
                section.truncated(start)?;
                break;
            };
            section.attribute(raw)?;
        }
        section.merge_as4();
        section.check_path_len();
        Ok(section.parsed)
    }

    /// RFC 7606 §4: Total Path Attribute Length is trusted, so the prefixes behind the section are found nonetheless. Those
    /// in what is truncated are not, and nothing weaker than a reset will do (§3 j).
    fn truncated(&mut self, start: &[u8]) -> Result<(), MessageError> {
        let code = start.get(1).copied().unwrap_or(0);
        if matches!(code, attr::MP_REACH_NLRI | attr::MP_UNREACH_NLRI) {
            return Err(error(
                "UPDATE: MP_REACH_NLRI or MP_UNREACH_NLRI overruns the attribute section",
                update_error::OPTIONAL_ATTRIBUTE_ERROR,
                start,
            ));
        }
        self.parsed.truncated = true;
        self.withdraw(
            code,
            "attribute overruns the attribute section",
            update_error::MALFORMED_ATTRIBUTE_LIST,
            &[],
        );
        Ok(())
    }

    fn attribute(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        if self.parsed.seen.has(raw.code) {
            return self.duplicate(raw);
        }
        self.parsed.seen.insert(raw.code);
        let Some(rule) = Rule::of(raw.code) else {
            return self.unknown(raw);
        };
        let conflicts = rule.conflicts(raw.flags);
        if conflicts {
            self.withdraw(
                raw.code,
                "flags conflict with the type",
                update_error::ATTRIBUTE_FLAGS_ERROR,
                raw.whole,
            );
        }
        match raw.code {
            // Read in any case: it has prefixes that are to be withdrawn.
            attr::MP_REACH_NLRI => self.mp_reach(raw),
            attr::MP_UNREACH_NLRI => self.mp_unreach(raw),
            _ if conflicts => Ok(()),
            _ if rule.internal_only && self.mode.external => {
                self.discard(raw.code, "not allowed from an external peer");
                Ok(())
            }
            // To be ignored beside MP_REACH_NLRI alone (RFC 4760 §3).
            attr::NEXT_HOP if !self.mode.has_nlri => Ok(()),
            _ => {
                self.checked_value(raw, rule);
                Ok(())
            }
        }
    }

    fn checked_value(&mut self, raw: Raw<'a>, rule: Rule) {
        let (reason, subcode) = if rule.length.fits(raw.value.len()) {
            match self.value(raw) {
                Ok(()) => return,
                Err(reason) => (reason, rule.subcode),
            }
        } else {
            ("wrong length", update_error::ATTRIBUTE_LENGTH_ERROR)
        };
        match rule.malformed {
            Reaction::Discard => self.discard(raw.code, reason),
            Reaction::TreatAsWithdraw => {
                // The only one of these errors that RFC 4271 §6.3 has no data for.
                let data = if subcode == update_error::MALFORMED_AS_PATH {
                    &[]
                } else {
                    raw.whole
                };
                self.withdraw(raw.code, reason, subcode, data);
            }
        }
    }

    /// RFC 7606 §3 g.
    fn duplicate(&mut self, raw: Raw<'a>) -> Result<(), MessageError> {
        let reason = match raw.code {
            attr::MP_REACH_NLRI => "MP_REACH_NLRI: appears twice",
            attr::MP_UNREACH_NLRI => "MP_UNREACH_NLRI: appears twice",
            _ => {
                self.discard(raw.code, "appears again, the first one counts");
                return Ok(());
            }
        };
        Err(error(reason, update_error::MALFORMED_ATTRIBUTE_LIST, &[]))
    }

    /// RFC 4271 §5 and §6.3.
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
        let mut flags = TRANSITIVE | (raw.flags & flag::PARTIAL);
        if !self.mode.own {
            flags |= flag::PARTIAL;
        }
        if raw.value.len() > usize::from(u8::MAX) {
            flags |= flag::EXTENDED_LENGTH;
        }
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

    pub(super) fn discard(&mut self, code: u8, reason: &'static str) {
        self.parsed.faults.push(Fault {
            code,
            reason,
            reaction: Reaction::Discard,
        });
    }

    /// Notes a fault that withdraws; `subcode` and `data` are for the reset that it may become.
    pub(super) fn withdraw(&mut self, code: u8, reason: &'static str, subcode: u8, data: &[u8]) {
        self.parsed.faults.push(Fault {
            code,
            reason,
            reaction: Reaction::TreatAsWithdraw,
        });
        self.parsed
            .reset
            .get_or_insert_with(|| error(reason, subcode, data));
    }

    /// What a speaker with two-octet numbers passed on for one with four (RFC 6793 §4.2.3).
    fn merge_as4(&mut self) {
        let attributes = &mut self.parsed.attributes;
        let as4_aggregator = self.as4_aggregator.take();
        if let (Some(aggregator), Some(as4)) = (&mut attributes.aggregator, as4_aggregator) {
            // Somebody who knows no AS4 attributes has aggregated since: they say nothing any more.
            if aggregator.asn != u32::from(AS_TRANS) {
                return;
            }
            *aggregator = as4;
        }
        if let Some(as4_path) = self.as4_path.take() {
            attributes.as_path = std::mem::take(&mut attributes.as_path).merge(as4_path);
        }
    }
}

impl Section<'_> {
    /// An extended message has room for more two-octet numbers than an attribute has for four-octet ones: such a path
    /// could be neither kept in canonical form nor passed on.
    fn check_path_len(&mut self) {
        if !self.mode.four_octet_as
            && self.parsed.attributes.as_path.encoded_len(4) > usize::from(u16::MAX)
        {
            self.withdraw(
                attr::AS_PATH,
                "too long with four octets a number",
                update_error::MALFORMED_AS_PATH,
                &[],
            );
        }
    }
}

/// Cuts off one attribute; `None` where it is truncated.
fn split<'a>(cursor: &mut Cursor<'a>) -> Option<Raw<'a>> {
    let start = cursor.rest();
    let [flags, code] = cursor.array()?;
    // Extended Length is believed even where one octet would have done (RFC 4271 §4.3).
    let len = match flags & flag::EXTENDED_LENGTH {
        0 => usize::from(cursor.u8()?),
        _ => usize::from(cursor.u16()?),
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

pub(super) fn error(reason: &'static str, subcode: u8, data: &[u8]) -> MessageError {
    MessageError::new(reason, code::UPDATE, subcode, data)
}

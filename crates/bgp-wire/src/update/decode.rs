//! From an UPDATE's body to its runs of prefixes and its attributes.

use smallvec::SmallVec;

use super::section::{Mode, Parsed, Section};
use super::{Fault, Reaction, Update};
use crate::attribute::code as attr;
use crate::cursor::Cursor;
use crate::notification::{code, update_error};
use crate::{Attributes, Context, Family, MessageError, NextHop, Nlri};

/// Reads an UPDATE's body.
pub(crate) fn decode<'a>(body: &'a [u8], context: &Context) -> Result<Update<'a>, MessageError> {
    let mut cursor = Cursor::new(body);
    // Lengths are compared as usize, so that no sum of them can wrap.
    let withdrawn = field(&mut cursor).ok_or_else(|| {
        error(
            "UPDATE: Withdrawn Routes Length overruns the message",
            update_error::MALFORMED_ATTRIBUTE_LIST,
        )
    })?;
    let attributes = field(&mut cursor).ok_or_else(|| {
        error(
            "UPDATE: Total Path Attribute Length overruns the message",
            update_error::MALFORMED_ATTRIBUTE_LIST,
        )
    })?;
    let withdrawn = Nlri::check(Family::IPV4_UNICAST, withdrawn).map_err(|_| {
        error(
            "UPDATE: malformed prefix in Withdrawn Routes",
            update_error::INVALID_NETWORK_FIELD,
        )
    })?;
    let announced = Nlri::check(Family::IPV4_UNICAST, cursor.rest()).map_err(|_| {
        error(
            "UPDATE: malformed prefix in NLRI",
            update_error::INVALID_NETWORK_FIELD,
        )
    })?;

    if attributes.is_empty() && announced.is_empty() {
        let end_of_rib = withdrawn.is_empty().then_some(Family::IPV4_UNICAST);
        return Ok(Update {
            unreachable: if withdrawn.is_empty() {
                SmallVec::new()
            } else {
                SmallVec::from_buf([withdrawn])
            },
            reachable: SmallVec::new(),
            attributes: None,
            faults: Vec::new(),
            end_of_rib,
        });
    }
    let parsed = Section::parse(attributes, Mode::received(context, !announced.is_empty()))?;
    assemble(withdrawn, announced, parsed, context)
}

/// Puts the two ways to carry prefixes together, and applies the strongest reaction that a fault asked for.
fn assemble<'a>(
    withdrawn: Nlri<'a>,
    announced: Nlri<'a>,
    parsed: Parsed<'a>,
    context: &Context,
) -> Result<Update<'a>, MessageError> {
    let Parsed {
        mut attributes,
        mut faults,
        mp_reach,
        mp_unreach,
        reset,
        only_mp_unreach,
        has_other_family,
        missing,
    } = parsed;
    let end_of_rib = mp_unreach
        .filter(|unreach| {
            only_mp_unreach && unreach.empty && withdrawn.is_empty() && announced.is_empty()
        })
        .map(|unreach| unreach.family);
    let mut unreachable = SmallVec::new();
    unreachable.extend(Some(withdrawn).filter(|run| !run.is_empty()));
    unreachable.extend(
        mp_unreach
            .and_then(|unreach| unreach.run)
            .filter(|run| !run.is_empty()),
    );

    let mp_reach = mp_reach.filter(|(_, run)| !run.is_empty());
    if announced.is_empty() && mp_reach.is_none() {
        // RFC 7606 §5.2: attributes, but no prefix that an error could be taken out on. It must have been somewhere.
        return match reset {
            Some(reset) if !has_other_family => Err(reset),
            _ => Ok(Update {
                unreachable,
                reachable: SmallVec::new(),
                attributes: None,
                faults,
                end_of_rib,
            }),
        };
    }

    let mut missing_mandatory = |code, reason| {
        faults.push(Fault {
            code,
            reason,
            reaction: Reaction::TreatAsWithdraw,
        });
    };
    if missing.origin {
        missing_mandatory(attr::ORIGIN, "mandatory attribute is missing");
    }
    if missing.as_path {
        missing_mandatory(attr::AS_PATH, "mandatory attribute is missing");
    }
    if missing.next_hop && !announced.is_empty() {
        missing_mandatory(attr::NEXT_HOP, "mandatory attribute is missing");
    }
    if missing.local_pref && context.ibgp {
        missing_mandatory(
            attr::LOCAL_PREF,
            "missing from an internal peer (RFC 4271 §5.1.5)",
        );
    }
    if faults
        .iter()
        .any(|fault| fault.reaction == Reaction::TreatAsWithdraw)
    {
        unreachable.extend(Some(announced).filter(|run| !run.is_empty()));
        unreachable.extend(mp_reach.map(|(_, run)| run));
        return Ok(Update {
            unreachable,
            reachable: SmallVec::new(),
            attributes: None,
            faults,
            end_of_rib,
        });
    }

    let mut reachable: SmallVec<[(NextHop, Nlri<'a>); 1]> = SmallVec::new();
    if let Some(next_hop) = attributes.next_hop.filter(|_| !announced.is_empty()) {
        reachable.push((next_hop, announced));
    }
    reachable.extend(mp_reach);
    attributes.next_hop = reachable.first().map(|(next_hop, _)| *next_hop);
    Ok(Update {
        unreachable,
        reachable,
        attributes: Some(attributes),
        faults,
        end_of_rib,
    })
}

/// Reads the attribute section of canonical bytes, which hold what we chose to intern: rules for what a peer may
/// send are not applied. `None` for anything malformed.
pub(crate) fn decode_own_section(section: &[u8]) -> Option<Attributes> {
    let parsed = Section::parse(section, Mode::own()).ok()?;
    let missing = parsed.missing.origin || parsed.missing.as_path;
    (parsed.faults.is_empty() && !missing).then_some(parsed.attributes)
}

/// A field with its length in two octets before it.
fn field<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let len = cursor.u16()?;
    cursor.take(len.into())
}

fn error(reason: &'static str, subcode: u8) -> MessageError {
    MessageError::new(reason, code::UPDATE, subcode, [])
}

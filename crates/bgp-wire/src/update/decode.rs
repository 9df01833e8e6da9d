//! From an UPDATE's body to its runs of prefixes and its attributes.

use smallvec::SmallVec;

use super::section::{Mode, Parsed, Section};
use super::{Fault, Reaction, Update};
use crate::attribute::code as attr;
use crate::cursor::Cursor;
use crate::notification::update_error;
use crate::{Attributes, Context, Family, MessageError, NextHop, Nlri};

/// Reads an UPDATE's body.
pub(crate) fn decode<'a>(body: &'a [u8], context: &Context) -> Result<Update<'a>, MessageError> {
    let mut cursor = Cursor::new(body);
    // Each length is compared with what is left, so no sum of them is ever made that could wrap.
    let withdrawn = field(&mut cursor)
        .ok_or_else(|| bad_list("UPDATE: Withdrawn Routes Length overruns the message"))?;
    let section = field(&mut cursor)
        .ok_or_else(|| bad_list("UPDATE: Total Path Attribute Length overruns the message"))?;
    let withdrawn = Nlri::check(Family::IPV4_UNICAST, withdrawn)
        .map_err(|_| bad_network("UPDATE: malformed prefix in Withdrawn Routes"))?;
    let announced = Nlri::check(Family::IPV4_UNICAST, cursor.rest())
        .map_err(|_| bad_network("UPDATE: malformed prefix in NLRI"))?;

    if section.is_empty() && announced.is_empty() {
        let end_of_rib = withdrawn.is_empty().then_some(Family::IPV4_UNICAST);
        let mut update = Update::empty(end_of_rib);
        update.unreachable.extend(non_empty(withdrawn));
        return Ok(update);
    }
    let parsed = Section::parse(section, Mode::received(context, !announced.is_empty()))?;
    assemble(withdrawn, announced, parsed, context)
}

/// Puts the two ways to carry prefixes together, and applies the strongest reaction that any fault
/// asks for (RFC 7606 §3 h).
fn assemble<'a>(
    withdrawn: Nlri<'a>,
    announced: Nlri<'a>,
    mut parsed: Parsed<'a>,
    context: &Context,
) -> Result<Update<'a>, MessageError> {
    let mp_reach = parsed.mp_reach.filter(|(_, run)| !run.is_empty());
    let announces = !announced.is_empty() || mp_reach.is_some();
    if announces {
        mandatory(&mut parsed, !announced.is_empty(), context);
    } else if let Some(reset) = parsed.reset.take()
        && !parsed.has_other_family
        && (parsed.truncated || !parsed.seen.only(attr::MP_UNREACH_NLRI))
    {
        // RFC 7606 §5.2: there must have been a prefix somewhere, and it can't be withdrawn.
        return Err(reset);
    }
    let withdraw = parsed
        .faults
        .iter()
        .any(|it| it.reaction == Reaction::TreatAsWithdraw);

    let mut update = Update::empty(end_of_rib(withdrawn, announced, &parsed));
    update.faults = parsed.faults;
    update.unreachable.extend(non_empty(withdrawn));
    let mp_unreach = parsed.mp_unreach.and_then(|it| it.run);
    update.unreachable.extend(mp_unreach.and_then(non_empty));
    if withdraw {
        update.unreachable.extend(non_empty(announced));
        update.unreachable.extend(mp_reach.map(|(_, run)| run));
    } else if announces {
        let mut attributes = parsed.attributes;
        let own = attributes.next_hop.zip(non_empty(announced));
        update.reachable.extend(own);
        update.reachable.extend(mp_reach);
        attributes.next_hop = update.reachable.first().map(|(next_hop, _)| *next_hop);
        update.attributes = Some(attributes);
    }
    Ok(update)
}

/// Notes what an announcement must have and has not (RFC 7606 §3 d). A malformed attribute is there.
fn mandatory(parsed: &mut Parsed<'_>, needs_next_hop: bool, context: &Context) {
    const MISSING: &str = "mandatory attribute is missing";
    let mandatory = [
        (attr::ORIGIN, true, MISSING),
        (attr::AS_PATH, true, MISSING),
        (attr::NEXT_HOP, needs_next_hop, MISSING),
        (
            attr::LOCAL_PREF,
            context.ibgp,
            "missing from an internal peer (RFC 4271 §5.1.5)",
        ),
    ];
    for (code, needed, reason) in mandatory {
        if needed && !parsed.seen.has(code) && !parsed.truncated {
            parsed.faults.push(Fault {
                code,
                reason,
                reaction: Reaction::TreatAsWithdraw,
            });
        }
    }
}

/// The family that the message ends: nothing but an MP_UNREACH_NLRI without prefixes.
fn end_of_rib(withdrawn: Nlri<'_>, announced: Nlri<'_>, parsed: &Parsed<'_>) -> Option<Family> {
    let alone = withdrawn.is_empty()
        && announced.is_empty()
        && parsed.seen.only(attr::MP_UNREACH_NLRI)
        && parsed.faults.is_empty();
    parsed
        .mp_unreach
        .filter(|it| alone && it.empty)
        .map(|it| it.family)
}

/// Reads the attribute section of canonical bytes, which hold what we chose to intern: rules for what
/// a peer may send are not applied. `None` for anything malformed.
pub(crate) fn decode_own_section(section: &[u8]) -> Option<Attributes> {
    let parsed = Section::parse(section, Mode::own()).ok()?;
    let complete = parsed.seen.has(attr::ORIGIN) && parsed.seen.has(attr::AS_PATH);
    (complete && parsed.faults.is_empty()).then_some(parsed.attributes)
}

impl Update<'_> {
    fn empty(end_of_rib: Option<Family>) -> Self {
        Self {
            unreachable: SmallVec::new(),
            reachable: SmallVec::<[(NextHop, Nlri<'_>); 1]>::new(),
            attributes: None,
            faults: Vec::new(),
            end_of_rib,
        }
    }
}

/// A field with its length in two octets before it.
fn field<'a>(cursor: &mut Cursor<'a>) -> Option<&'a [u8]> {
    let len = cursor.u16()?;
    cursor.take(len.into())
}

fn non_empty(run: Nlri<'_>) -> Option<Nlri<'_>> {
    Some(run).filter(|run| !run.is_empty())
}

fn bad_list(reason: &'static str) -> MessageError {
    super::section::error(reason, update_error::MALFORMED_ATTRIBUTE_LIST, &[])
}

fn bad_network(reason: &'static str) -> MessageError {
    super::section::error(reason, update_error::INVALID_NETWORK_FIELD, &[])
}

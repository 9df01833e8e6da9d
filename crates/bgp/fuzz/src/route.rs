//! What peers say of routes.

use std::net::Ipv4Addr;

use bgp_wire::{AsPath, Attributes, Community, UnknownAttribute};

use super::{ASN, Script, address};

/// What a peer of this AS may say of a route; much of it where the flags say so.
pub(crate) fn attributes(script: &mut Script<'_>, flags: u8, asn: u32) -> Attributes {
    let internal = asn == ASN;
    let tail: Vec<u32> = script
        .bytes(usize::from(flags >> 4 & 3))
        .iter()
        .map(|n| 64500 + u32::from(*n))
        .collect();
    let mut attributes = Attributes {
        as_path: if internal {
            AsPath::sequence(tail)
        } else {
            AsPath::sequence([&[asn], &tail[..]].concat())
        },
        local_pref: internal.then_some(100 + u32::from(flags >> 6)),
        med: (flags & 8 != 0).then(|| script.u8().into()),
        ..Attributes::originated()
    };
    if flags & 0x80 != 0 {
        let choice = script.u8();
        let known = [
            Community::NO_EXPORT,
            Community::NO_ADVERTISE,
            Community::GRACEFUL_SHUTDOWN,
            Community::BLACKHOLE,
            Community::NOPEER,
        ];
        let chosen = known
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| choice & 1 << bit != 0);
        attributes.communities = chosen.map(|(_, community)| community).collect();
        if choice & 0x20 != 0 {
            attributes.originator_id = Some(address(choice & 7));
            attributes.cluster_list = vec![Ipv4Addr::new(9, 9, 9, 7 + (choice & 3))];
        }
        if choice & 0x40 != 0 {
            // Little room is left for prefixes, and none once policy has put in more.
            attributes.unknown.push(UnknownAttribute {
                code: 200,
                flags: 0xf0,
                value: vec![0; 15 * usize::from(script.u8())],
            });
        }
    }
    attributes
}

//! Nexthop objects to and from rtnetlink messages (`linux/nexthop.h`), which `netlink-packet-route` has no word for.

use std::net::IpAddr;

use dataplane::{Group, GroupKind, NextHop, NexthopId, Object, ROUTE_PROTOCOL};
use smallvec::SmallVec;

use crate::decode::{address_of, attributes, u32_of};
use crate::encode::attribute;
use crate::socket::Message;

/// `RTM_NEWNEXTHOP`.
pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
/// `RTM_DELNEXTHOP`.
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
/// `RTM_GETNEXTHOP`.
pub(crate) const RTM_GETNEXTHOP: u16 = 106;
/// Length of `struct nhmsg`: family, scope, protocol, reserved, then 32 bits of flags.
const HEADER: usize = 8;
/// `RTNH_F_ONLINK`.
const ONLINK: u32 = 4;
/// `NHA_ID`.
const ID: u16 = 1;
/// `NHA_GROUP`: an array of `struct nexthop_grp`.
const GROUP: u16 = 2;
/// `NHA_GROUP_TYPE`.
const GROUP_TYPE: u16 = 3;
/// `NHA_BLACKHOLE`.
const BLACKHOLE: u16 = 4;
/// `NHA_OIF`.
const OIF: u16 = 5;
/// `NHA_GATEWAY`.
const GATEWAY: u16 = 6;
/// `NHA_ENCAP_TYPE`.
const ENCAP_TYPE: u16 = 7;
/// `NHA_ENCAP`.
const ENCAP: u16 = 8;
/// `NHA_FDB`.
const FDB: u16 = 11;
/// `NHA_RES_GROUP`, which nests the three that follow.
const RES_GROUP: u16 = 12;
/// `NHA_RES_GROUP_BUCKETS`.
const BUCKETS: u16 = 1;
/// `NHA_RES_GROUP_IDLE_TIMER`.
const IDLE_TIMER: u16 = 2;
/// `NHA_RES_GROUP_UNBALANCED_TIMER`.
const UNBALANCED_TIMER: u16 = 3;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `NEXTHOP_GRP_TYPE_RES`.
const RESILIENT: u16 = 1;
/// Length of `struct nexthop_grp`: identifier, weight less one, reserved.
const ENTRY: usize = 8;

/// An object as `RTM_NEWNEXTHOP` wants it.
pub(crate) fn set(id: NexthopId, object: &Object) -> Message {
    let mut payload = Vec::with_capacity(64);
    match object {
        Object::Hop(hop) => {
            let flags = if hop.onlink { ONLINK } else { 0 };
            let family = match hop.via {
                Some(IpAddr::V6(_)) => libc::AF_INET6,
                Some(IpAddr::V4(_)) | None => libc::AF_INET,
            };
            header(&mut payload, family, ROUTE_PROTOCOL, flags);
            attribute(&mut payload, ID, &id.to_ne_bytes());
            attribute(&mut payload, OIF, &hop.link.to_ne_bytes());
            match hop.via {
                Some(IpAddr::V4(via)) => attribute(&mut payload, GATEWAY, &via.octets()),
                Some(IpAddr::V6(via)) => attribute(&mut payload, GATEWAY, &via.octets()),
                None => {}
            }
        }
        Object::Group(group) => {
            header(&mut payload, libc::AF_UNSPEC, ROUTE_PROTOCOL, 0);
            attribute(&mut payload, ID, &id.to_ne_bytes());
            group_attributes(&mut payload, group);
        }
    }
    Message::Raw {
        kind: RTM_NEWNEXTHOP,
        payload,
    }
}

fn group_attributes(payload: &mut Vec<u8>, group: &Group) {
    let mut entries = Vec::with_capacity(group.members.len() * ENTRY);
    for id in &group.members {
        entries.extend(id.to_ne_bytes());
        // All of weight one.
        entries.extend([0; 4]);
    }
    attribute(payload, GROUP, &entries);
    let GroupKind::Resilient {
        buckets,
        idle,
        unbalanced,
    } = group.kind
    else {
        return;
    };
    attribute(payload, GROUP_TYPE, &RESILIENT.to_ne_bytes());
    let mut nested = Vec::with_capacity(24);
    attribute(&mut nested, BUCKETS, &buckets.to_ne_bytes());
    attribute(&mut nested, IDLE_TIMER, &idle.to_ne_bytes());
    attribute(&mut nested, UNBALANCED_TIMER, &unbalanced.to_ne_bytes());
    attribute(payload, RES_GROUP | NESTED, &nested);
}

/// A next hop that discards, for trying out what the kernel knows: it needs no link.
pub(crate) fn blackhole(id: NexthopId) -> Message {
    let mut payload = Vec::new();
    header(&mut payload, libc::AF_INET, ROUTE_PROTOCOL, 0);
    attribute(&mut payload, ID, &id.to_ne_bytes());
    attribute(&mut payload, BLACKHOLE, &[]);
    Message::Raw {
        kind: RTM_NEWNEXTHOP,
        payload,
    }
}

/// The removal of an object. The header must be empty.
pub(crate) fn delete(id: NexthopId) -> Message {
    by_id(RTM_DELNEXTHOP, id)
}

/// The question for one object.
pub(crate) fn get(id: NexthopId) -> Message {
    by_id(RTM_GETNEXTHOP, id)
}

fn by_id(kind: u16, id: NexthopId) -> Message {
    let mut payload = Vec::with_capacity(16);
    header(&mut payload, libc::AF_UNSPEC, 0, 0);
    attribute(&mut payload, ID, &id.to_ne_bytes());
    Message::Raw { kind, payload }
}

/// The question for all objects: the kernel does not filter by protocol.
pub(crate) fn dump() -> Message {
    let mut payload = Vec::new();
    header(&mut payload, libc::AF_UNSPEC, 0, 0);
    Message::Raw {
        kind: RTM_GETNEXTHOP,
        payload,
    }
}

fn header(payload: &mut Vec<u8>, family: libc::c_int, protocol: u8, flags: u32) {
    payload.extend([u8::try_from(family).unwrap_or_default(), 0, protocol, 0]);
    payload.extend(flags.to_ne_bytes());
}

/// A nexthop object as the kernel tells it, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelObject {
    pub(crate) id: NexthopId,
    /// `nh_protocol`.
    pub(crate) protocol: u8,
    /// `None` for a kind that we have no word for: a blackhole, one with a tunnel of its own or without gateway, unequal
    /// weights, …
    pub(crate) object: Option<Object>,
}

/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP` (`struct nhmsg`).
pub(crate) fn object(payload: &[u8]) -> Option<KernelObject> {
    let head: &[u8; HEADER] = payload.first_chunk()?;
    let flags = u32_of(&head[4..])?;
    let (mut id, mut link, mut via, mut members) = (None, None, None, None);
    let mut kind = Some(GroupKind::HashThreshold);
    let mut plain = true;
    for (kind_of, value) in attributes(payload, HEADER) {
        match kind_of {
            ID => id = u32_of(value),
            OIF => link = u32_of(value),
            GATEWAY => via = address_of(value),
            GROUP => members = Some(entries(value)),
            // Without its numbers it is none.
            GROUP_TYPE if value.first_chunk() == Some(&RESILIENT.to_ne_bytes()) => kind = None,
            RES_GROUP => kind = resilient(value),
            // What a newer kernel adds to the answer (operation flags, statistics) says nothing about where packets go.
            BLACKHOLE | ENCAP_TYPE | ENCAP | FDB => plain = false,
            _ => {}
        }
    }
    let object = match (members, link) {
        (Some(members), _) => kind
            .zip(members)
            .map(|(kind, members)| Object::Group(Group::new(kind, members))),
        (None, Some(link)) if plain && via.is_some() => Some(Object::Hop(NextHop {
            via,
            link,
            onlink: flags & ONLINK != 0,
        })),
        (None, _) => None,
    };
    Some(KernelObject {
        id: id?,
        protocol: head[2],
        object,
    })
}

/// The members of a group; `None` when their weights differ from one.
fn entries(value: &[u8]) -> Option<SmallVec<[NexthopId; 2]>> {
    value
        .chunks_exact(ENTRY)
        .map(|entry| u32_of(entry).filter(|_| entry[4..6] == [0, 0]))
        .collect()
}

fn resilient(value: &[u8]) -> Option<GroupKind> {
    let (mut buckets, mut idle, mut unbalanced) = (None, None, None);
    for (kind, value) in attributes(value, 0) {
        match kind {
            BUCKETS => buckets = value.first_chunk().map(|it| u16::from_ne_bytes(*it)),
            IDLE_TIMER => idle = u32_of(value),
            UNBALANCED_TIMER => unbalanced = u32_of(value),
            _ => {}
        }
    }
    Some(GroupKind::Resilient {
        buckets: buckets?,
        idle: idle?,
        unbalanced: unbalanced?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(object: &Object) -> Option<Object> {
        let Message::Raw { payload, .. } = set(7, object) else {
            panic!("not raw")
        };
        let told = super::object(&payload)?;
        assert_eq!((told.id, told.protocol), (7, ROUTE_PROTOCOL));
        told.object
    }

    #[test]
    fn what_is_written_is_read() {
        let hop = |via: &str, onlink| {
            Object::Hop(NextHop {
                via: Some(via.parse().unwrap()),
                link: 3,
                onlink,
            })
        };
        let resilient = GroupKind::Resilient {
            buckets: 64,
            idle: 1000,
            unbalanced: 0,
        };
        let objects = [
            hop("192.0.2.1", false),
            hop("2001:db8::1", true),
            Object::Group(Group::new(GroupKind::HashThreshold, [3, 1, 2])),
            Object::Group(Group::new(resilient, [9])),
        ];
        for object in objects {
            assert_eq!(round_trip(&object).as_ref(), Some(&object));
        }
    }

    #[test]
    fn unequal_weights_are_no_group_of_ours() {
        let mut payload = Vec::new();
        header(&mut payload, libc::AF_UNSPEC, ROUTE_PROTOCOL, 0);
        attribute(&mut payload, ID, &7u32.to_ne_bytes());
        attribute(&mut payload, GROUP, &[1, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(object(&payload).unwrap().object, None);
        for cut in 0..payload.len() {
            object(&payload[..cut]);
        }
    }
}

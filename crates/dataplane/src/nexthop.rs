//! Nexthop objects as values (`RTM_NEWNEXTHOP`, `linux/nexthop.h`): many routes point at one object, and a change of the
//! object is a change of all of them.
//!
//! Ours are the objects that carry our protocol number and an identifier of [`HOP_IDS`] or [`GROUP_IDS`]: whatever else
//! there is, also under our protocol, is somebody else's.

use std::ops::RangeInclusive;

use smallvec::SmallVec;

use crate::NextHop;

/// Identifies a nexthop object of the kernel (`NHA_ID`).
pub type NexthopId = u32;

/// Identifiers of our single next hops.
pub const HOP_IDS: RangeInclusive<NexthopId> = 770_000_000..=774_999_999;
/// Identifiers of our groups: what routes point at.
pub const GROUP_IDS: RangeInclusive<NexthopId> = 775_000_000..=779_999_999;

/// A nexthop object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Object {
    /// One next hop, always with a gateway.
    Hop(NextHop),
    /// A set of next hops, by their objects.
    Group(Group),
}

/// A nexthop group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Group {
    /// How it chooses among its members.
    pub kind: GroupKind,
    /// Its members, sorted, all of the same weight.
    pub members: SmallVec<[NexthopId; 2]>,
}

/// How a nexthop group chooses a member for a flow (`NHA_GROUP_TYPE`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// By regions of the flow's hash (`NEXTHOP_GRP_TYPE_MPATH`). When a member comes or goes, flows of other members move too.
    #[default]
    HashThreshold,
    /// By a table of buckets (`NEXTHOP_GRP_TYPE_RES`, Linux 5.13): when a member goes, only its flows move, and when one
    /// comes, it is given buckets that lie idle.
    Resilient {
        /// How many buckets (`NHA_RES_GROUP_BUCKETS`), 1 to 65535.
        buckets: u16,
        /// How long a bucket must be without packets to count as idle, in hundredths of a second
        /// (`NHA_RES_GROUP_IDLE_TIMER`, in `clock_t`).
        idle: u32,
        /// How long the group may be out of balance before buckets move though they are not idle, in hundredths of a second;
        /// 0 for ever (`NHA_RES_GROUP_UNBALANCED_TIMER`).
        unbalanced: u32,
    },
}

impl Group {
    /// A group of these members, in whatever order.
    pub fn new(kind: GroupKind, members: impl IntoIterator<Item = NexthopId>) -> Self {
        let mut members: SmallVec<[NexthopId; 2]> = members.into_iter().collect();
        members.sort_unstable();
        members.dedup();
        Self { kind, members }
    }
}

/// Whether an object of our protocol with this identifier is ours.
pub fn is_our_id(id: NexthopId) -> bool {
    HOP_IDS.contains(&id) || GROUP_IDS.contains(&id)
}

//! The UPDATEs that everybody reads and writes: what an ordinary external route has, and with it one, some, and as
//! many prefixes as fit.

use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_wire::{AsPath, Attributes, Community, Context, Family, NextHop, UpdateBuilder};
use ipnet::IpNet;

/// Of everything that a message says: two readers with the same sum have read the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(pub u64);

pub const CONTEXT: Context = Context {
    four_octet_as: true,
    extended_message: false,
    ibgp: false,
};

pub struct Case {
    pub v6: bool,
    pub prefixes: usize,
    pub bytes: Vec<u8>,
}

pub fn all() -> Vec<Case> {
    let (v4, v6) = (Family::IPV4_UNICAST, Family::IPV6_UNICAST);
    [(v4, 1), (v4, 16), (v4, 700), (v6, 1), (v6, 16), (v6, 500)]
        .into_iter()
        .map(|(family, count)| case(family, count))
        .collect()
}

fn case(family: Family, count: u32) -> Case {
    let attributes = Attributes {
        as_path: AsPath::sequence([64512, 3356, 174, 4_200_000_001]),
        med: Some(100),
        communities: vec![
            Community::new(64512, 1),
            Community::new(64512, 2),
            Community::NO_EXPORT,
        ],
        ..Attributes::originated()
    };
    let v6 = family == Family::IPV6_UNICAST;
    let next_hop = if v6 {
        NextHop::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))
    } else {
        NextHop::V4(Ipv4Addr::new(192, 0, 2, 1))
    };
    let mut section = Vec::new();
    attributes.encode(&CONTEXT, &mut section);
    let mut bytes = Vec::new();
    let mut builder = UpdateBuilder::announce(&mut bytes, &CONTEXT, &section, next_hop, family);
    for n in 0..count {
        builder.push(nth(v6, n)).expect("it fits");
    }
    builder.finish();
    Case {
        v6,
        prefixes: count as usize,
        bytes,
    }
}

fn nth(v6: bool, n: u32) -> IpNet {
    if v6 {
        let bits = 0x2001_0db8 << 96 | u128::from(n) << 80;
        IpNet::new_assert(Ipv6Addr::from_bits(bits).into(), 48)
    } else {
        IpNet::new_assert(Ipv4Addr::from_bits(0x0a00_0000 | n << 8).into(), 24)
    }
}

//! bgpkit-parser.

use bgpkit_parser::models::{
    AsPathSegment, AsnLength, AttributeValue, BgpMessage, Community, NetworkPrefix, NextHopAddress,
};
use bgpkit_parser::parser::bgp::parse_bgp_message;
use bytes::Bytes;
use ipnet::IpNet;
use std::net::IpAddr;

use crate::messages::Sum;
use crate::{number, prefix};

fn parse(bytes: &Bytes) -> BgpMessage {
    // Another handle on the same bytes: they are not copied.
    parse_bgp_message(&mut bytes.clone(), false, &AsnLength::Bits32).expect("an UPDATE")
}

fn address(sum: &mut Sum, address: IpAddr) {
    match address {
        IpAddr::V4(address) => number(sum, address.to_bits()),
        IpAddr::V6(address) => number(sum, (address.to_bits() >> 96) as u32),
    }
}

fn prefixes(sum: &mut Sum, prefixes: &[NetworkPrefix]) {
    for net in prefixes {
        match net.prefix {
            IpNet::V4(net) => prefix(sum, net.addr().to_bits().into(), net.prefix_len()),
            IpNet::V6(net) => prefix(sum, (net.addr().to_bits() >> 64) as u64, net.prefix_len()),
        }
    }
}

pub fn decode(bytes: &Bytes) -> Sum {
    let BgpMessage::Update(update) = parse(bytes) else {
        panic!("not an UPDATE")
    };
    let mut sum = Sum::default();
    prefixes(&mut sum, &update.announced_prefixes);
    for value in update.attributes.iter() {
        match value {
            AttributeValue::Origin(origin) => number(&mut sum, *origin as u32),
            AttributeValue::AsPath(path) => {
                for segment in path.iter_segments() {
                    if let AsPathSegment::AsSequence(asns) = segment {
                        asns.iter().for_each(|asn| number(&mut sum, asn.to_u32()));
                    }
                }
            }
            AttributeValue::NextHop(next_hop) => address(&mut sum, *next_hop),
            AttributeValue::MpReachNlri(reach) => {
                match reach.next_hop {
                    Some(NextHopAddress::Ipv4(next_hop)) => address(&mut sum, next_hop.into()),
                    Some(NextHopAddress::Ipv6(next_hop)) => address(&mut sum, next_hop.into()),
                    _ => {}
                }
                prefixes(&mut sum, &reach.prefixes);
            }
            AttributeValue::Communities(list) => {
                list.iter()
                    .for_each(|community| number(&mut sum, community_value(*community)));
            }
            AttributeValue::MultiExitDiscriminator(med) => number(&mut sum, *med),
            _ => {}
        }
    }
    sum
}

fn community_value(community: Community) -> u32 {
    match community {
        Community::NoExport => 0xffff_ff01,
        Community::NoAdvertise => 0xffff_ff02,
        Community::NoExportSubConfed => 0xffff_ff03,
        Community::Custom(asn, value) => asn.to_u32() << 16 | u32::from(value),
    }
}

pub struct Encoder(BgpMessage);

impl Encoder {
    pub fn new(bytes: &[u8]) -> Self {
        Self(parse(&Bytes::copy_from_slice(bytes)))
    }

    pub fn encode(&self) -> Bytes {
        self.0.encode(AsnLength::Bits32).expect("an UPDATE")
    }
}

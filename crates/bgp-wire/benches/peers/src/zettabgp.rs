//! zettabgp.

use std::net::{IpAddr, Ipv4Addr};

use zettabgp::message::update::BgpUpdateMessage;
use zettabgp::prelude::*;

use crate::messages::Sum;
use crate::{number, prefix};

const HEADER: usize = 19;

pub fn session(v6: bool) -> BgpSessionParams {
    let mode = if v6 {
        BgpTransportMode::IPv6
    } else {
        BgpTransportMode::IPv4
    };
    let mut session =
        BgpSessionParams::new(64512, 180, mode, Ipv4Addr::new(192, 0, 2, 1), Vec::new());
    // Otherwise it looks through the prefixes first for a hint of ADD-PATH, which was not negotiated.
    session.fuzzy_pathid = false;
    session
}

fn parse(bytes: &[u8], session: &BgpSessionParams) -> BgpUpdateMessage {
    let (kind, len) = session.decode_message_head(bytes).expect("a header");
    assert!(kind == BgpMessageType::Update);
    let mut update = BgpUpdateMessage::new();
    update
        .decode_from(session, &bytes[HEADER..HEADER + len])
        .expect("an UPDATE");
    update
}

fn prefixes(sum: &mut Sum, addresses: &BgpAddrs) {
    match addresses {
        BgpAddrs::IPV4U(nets) => {
            nets.iter()
                .for_each(|net| prefix(sum, net.addr.to_bits().into(), net.prefixlen));
        }
        BgpAddrs::IPV6U(nets) => {
            nets.iter()
                .for_each(|net| prefix(sum, (net.addr.to_bits() >> 64) as u64, net.prefixlen));
        }
        _ => {}
    }
}

pub fn decode(bytes: &[u8], session: &BgpSessionParams) -> Sum {
    let update = parse(bytes, session);
    let mut sum = Sum::default();
    prefixes(&mut sum, &update.updates);
    for attribute in &update.attrs {
        match attribute {
            BgpAttrItem::Origin(origin) => number(
                &mut sum,
                match origin.value {
                    BgpAttrOrigin::Igp => 0,
                    BgpAttrOrigin::Egp => 1,
                    BgpAttrOrigin::Incomplete => 2,
                },
            ),
            BgpAttrItem::ASPath(path) => {
                for item in &path.value {
                    if let BgpASitem::Seq(sequence) = item {
                        sequence
                            .value
                            .iter()
                            .for_each(|asn| number(&mut sum, asn.value));
                    }
                }
            }
            BgpAttrItem::NextHop(next_hop) => match next_hop.value {
                IpAddr::V4(address) => number(&mut sum, address.to_bits()),
                IpAddr::V6(address) => number(&mut sum, (address.to_bits() >> 96) as u32),
            },
            BgpAttrItem::MPUpdates(updates) => {
                if let BgpAddr::V6(address) = updates.nexthop {
                    number(&mut sum, (address.to_bits() >> 96) as u32);
                }
                prefixes(&mut sum, &updates.addrs);
            }
            BgpAttrItem::CommunityList(list) => {
                list.value
                    .iter()
                    .for_each(|community| number(&mut sum, community.value));
            }
            BgpAttrItem::MED(med) => number(&mut sum, med.value),
            _ => {}
        }
    }
    sum
}

pub struct Encoder {
    session: BgpSessionParams,
    update: BgpUpdateMessage,
    out: Vec<u8>,
}

impl Encoder {
    pub fn new(bytes: &[u8], v6: bool) -> Self {
        let session = session(v6);
        let update = parse(bytes, &session);
        Self {
            session,
            update,
            out: vec![0; 65536],
        }
    }

    pub fn encode(&mut self) -> &[u8] {
        let Self {
            session,
            update,
            out,
        } = self;
        let len = update
            .encode_to(session, &mut out[HEADER..])
            .expect("an UPDATE");
        let len = session
            .prepare_message_buf(out, BgpMessageType::Update, len)
            .expect("a header");
        &out[..len]
    }
}

//! bgp-wire.

use bgp_wire::{Attributes, Family, Message, NextHop, Update, UpdateBuilder, header};
use ipnet::IpNet;

use crate::messages::{CONTEXT, Sum};
use crate::{number, prefix};

fn update(bytes: &[u8]) -> Update<'_> {
    match header::decode(bytes, &CONTEXT) {
        Ok(Message::Update(update)) => update,
        other => panic!("{other:?}"),
    }
}

pub fn decode(bytes: &[u8]) -> Sum {
    let update = update(bytes);
    let mut sum = Sum::default();
    for (next_hop, run) in &update.reachable {
        match next_hop {
            NextHop::V4(address) => number(&mut sum, address.to_bits()),
            NextHop::V6(address) | NextHop::V6WithLinkLocal(address, _) => {
                number(&mut sum, (address.to_bits() >> 96) as u32);
            }
        }
        for net in run.iter() {
            match net {
                IpNet::V4(net) => prefix(&mut sum, net.addr().to_bits().into(), net.prefix_len()),
                IpNet::V6(net) => prefix(
                    &mut sum,
                    (net.addr().to_bits() >> 64) as u64,
                    net.prefix_len(),
                ),
            }
        }
    }
    if let Some(attributes) = &update.attributes {
        number(&mut sum, attributes.origin.value().into());
        attributes
            .as_path
            .asns()
            .for_each(|asn| number(&mut sum, asn));
        attributes
            .communities
            .iter()
            .for_each(|community| number(&mut sum, community.0));
        number(&mut sum, attributes.med.unwrap_or(0));
    }
    sum
}

pub struct Encoder {
    attributes: Attributes,
    family: Family,
    next_hop: NextHop,
    prefixes: Vec<IpNet>,
    section: Vec<u8>,
    out: Vec<u8>,
}

impl Encoder {
    pub fn new(bytes: &[u8]) -> Self {
        let update = update(bytes);
        let (next_hop, run) = update.reachable[0];
        let mut section = Vec::new();
        let attributes = update.attributes.expect("an announcement");
        attributes.encode(&CONTEXT, &mut section);
        Self {
            attributes,
            family: run.family(),
            next_hop,
            prefixes: run.iter().collect(),
            section,
            out: Vec::with_capacity(header::MAX_LEN),
        }
    }

    /// From values to bytes, nothing kept from the message before.
    pub fn encode(&mut self) -> &[u8] {
        self.section.clear();
        self.attributes.encode(&CONTEXT, &mut self.section);
        self.encode_shared()
    }

    /// The attributes as they were encoded once: what a speaker does.
    pub fn encode_shared(&mut self) -> &[u8] {
        self.out.clear();
        let mut builder = UpdateBuilder::announce(
            &mut self.out,
            &CONTEXT,
            &self.section,
            self.next_hop,
            self.family,
        );
        for prefix in &self.prefixes {
            builder.push(*prefix).expect("it fits");
        }
        builder.finish();
        &self.out
    }
}

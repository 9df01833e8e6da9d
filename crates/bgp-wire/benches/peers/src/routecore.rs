//! routecore: views of bytes, or values made from them.

use std::net::IpAddr;

use routecore::bgp::aspath::Hop;
use routecore::bgp::message::update_builder::UpdateBuilder;
use routecore::bgp::message::{SessionConfig, UpdateMessage};
use routecore::bgp::nlri::afisafi::{Ipv6UnicastNlri, IsPrefix, Nlri};
use routecore::bgp::path_attributes::{PaMap, PathAttribute};
use routecore::bgp::types::NextHop;

use crate::messages::Sum;
use crate::{number, prefix};

pub fn session() -> SessionConfig {
    SessionConfig::modern()
}

fn prefixes(sum: &mut Sum, update: &UpdateMessage<&[u8]>) {
    for nlri in update.announcements().expect("announcements") {
        let net = match nlri.expect("a prefix") {
            Nlri::Ipv4Unicast(nlri) => nlri.prefix(),
            Nlri::Ipv6Unicast(nlri) => nlri.prefix(),
            _ => continue,
        };
        let high = match net.addr() {
            IpAddr::V4(address) => address.to_bits().into(),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        };
        prefix(sum, high, net.len());
    }
}

fn address(sum: &mut Sum, address: IpAddr) {
    match address {
        IpAddr::V4(address) => number(sum, address.to_bits()),
        IpAddr::V6(address) => number(sum, (address.to_bits() >> 96) as u32),
    }
}

/// By the accessors of the message, which read what they are asked for.
pub fn views(bytes: &[u8], session: &SessionConfig) -> Sum {
    let update = UpdateMessage::from_octets(bytes, session).expect("an UPDATE");
    let mut sum = Sum::default();
    prefixes(&mut sum, &update);
    if let Some(origin) = update.origin().expect("ORIGIN") {
        number(&mut sum, u8::from(origin).into());
    }
    if let Some(path) = update.aspath().expect("AS_PATH") {
        for hop in path.hops() {
            if let Hop::Asn(asn) = hop {
                number(&mut sum, asn.into_u32());
            }
        }
    }
    if let Some(next_hop) = update.conventional_next_hop().expect("NEXT_HOP") {
        if let NextHop::Unicast(next_hop) = next_hop {
            address(&mut sum, next_hop);
        }
    } else if let Some(NextHop::Unicast(next_hop)) = update.mp_next_hop().expect("MP_REACH_NLRI") {
        address(&mut sum, next_hop);
    }
    if let Some(communities) = update.communities().expect("COMMUNITIES") {
        communities.for_each(|community| number(&mut sum, community.to_u32()));
    }
    if let Some(med) = update.multi_exit_disc().expect("MULTI_EXIT_DISC") {
        number(&mut sum, med.0);
    }
    sum
}

/// All attributes as values, which a speaker needs to keep them.
pub fn values(bytes: &[u8], session: &SessionConfig) -> Sum {
    let update = UpdateMessage::from_octets(bytes, session).expect("an UPDATE");
    let mut sum = Sum::default();
    prefixes(&mut sum, &update);
    for attribute in update.path_attributes().expect("attributes") {
        match attribute
            .expect("an attribute")
            .to_owned()
            .expect("a value")
        {
            PathAttribute::Origin(origin) => number(&mut sum, u8::from(origin.0).into()),
            PathAttribute::AsPath(path) => {
                for hop in path.iter() {
                    if let Hop::Asn(asn) = hop {
                        number(&mut sum, asn.into_u32());
                    }
                }
            }
            PathAttribute::ConventionalNextHop(next_hop) => address(&mut sum, next_hop.0.into()),
            // Its value has no accessor.
            PathAttribute::MpReachNlri(_) => {
                if let Some(NextHop::Unicast(next_hop)) = update.mp_next_hop().expect("a next hop")
                {
                    address(&mut sum, next_hop);
                }
            }
            PathAttribute::StandardCommunities(list) => {
                list.communities()
                    .iter()
                    .for_each(|community| number(&mut sum, community.to_u32()));
            }
            PathAttribute::MultiExitDisc(med) => number(&mut sum, med.0),
            _ => {}
        }
    }
    sum
}

pub struct Encoder {
    session: SessionConfig,
    attributes: PaMap,
    next_hop: NextHop,
    prefixes: Vec<Ipv6UnicastNlri>,
}

impl Encoder {
    pub fn new(bytes: &[u8]) -> Self {
        let session = session();
        let update = UpdateMessage::from_octets(bytes, &session).expect("an UPDATE");
        let attributes = PaMap::from_update_pdu(&update).expect("attributes");
        let next_hop = update
            .mp_next_hop()
            .ok()
            .flatten()
            .unwrap_or(NextHop::Empty);
        let prefixes = update
            .announcements()
            .expect("announcements")
            .filter_map(|nlri| match nlri {
                Ok(Nlri::Ipv6Unicast(nlri)) => Some(nlri),
                _ => None,
            })
            .collect();
        Self {
            session,
            attributes,
            next_hop,
            prefixes,
        }
    }

    /// The builder takes its attributes, so there is a copy of them for each message.
    pub fn encode(&self) -> Vec<u8> {
        let mut builder: UpdateBuilder<Vec<u8>, _> =
            UpdateBuilder::from_attributes_builder(self.attributes.clone());
        builder
            .set_mp_nexthop(self.next_hop.clone())
            .expect("a next hop");
        builder
            .announcements_from_iter(self.prefixes.iter().cloned())
            .expect("prefixes");
        builder
            .into_message(&self.session)
            .expect("a message")
            .into_octets()
    }
}

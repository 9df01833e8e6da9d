//! What is written is read back the same, and no bytes at all make reading fail otherwise than by an error.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use bgp_wire::attribute::Partial;
use bgp_wire::capability::GracefulRestart;
use bgp_wire::{
    Aggregator, AsPath, Attributes, Capability, Community, Context, ExtendedCommunity, Family,
    Ipv6ExtendedCommunity, LargeCommunity, Message, NextHop, Notification, Open, Origin, Segment,
    SegmentKind, UnknownAttribute, UpdateBuilder, header,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::{decode_update, frame};

fn context() -> impl Strategy<Value = Context> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(four_octet_as, extended_message, ibgp)| Context {
            four_octet_as,
            extended_message,
            ibgp,
        },
    )
}

fn as_path(kinds: &'static [SegmentKind]) -> impl Strategy<Value = AsPath> {
    let asn = prop_oneof![1..=u32::from(u16::MAX), 1..=u32::MAX];
    let segment = (prop::sample::select(kinds), vec(asn, 1..=8))
        .prop_map(|(kind, asns)| Segment { kind, asns });
    vec(segment, 0..4).prop_map(|segments| AsPath { segments })
}

fn next_hop() -> impl Strategy<Value = NextHop> {
    let v6 = || any::<u128>().prop_map(Ipv6Addr::from_bits);
    prop_oneof![
        any::<u32>().prop_map(|bits| NextHop::V4(Ipv4Addr::from_bits(bits))),
        v6().prop_map(NextHop::V6),
        (v6(), v6()).prop_map(|(global, local)| NextHop::V6WithLinkLocal(global, local)),
    ]
}

fn unknown() -> impl Strategy<Value = Vec<UnknownAttribute>> {
    let code = prop_oneof![11..=13u8, 19..=24u8, 26..=31u8, 33..=255u8];
    btree_map(code, vec(any::<u8>(), 0..300), 0..4).prop_map(|attributes| {
        let attribute = |(code, value): (u8, Vec<u8>)| {
            let flags = if value.len() > 255 { 0xf0 } else { 0xe0 };
            UnknownAttribute { code, flags, value }
        };
        attributes.into_iter().map(attribute).collect()
    })
}

/// Attributes as their type allows them; those that depend on others being there are consistent.
fn attributes(kinds: &'static [SegmentKind]) -> impl Strategy<Value = Attributes> {
    let origin = prop::sample::select(vec![Origin::Igp, Origin::Egp, Origin::Incomplete]);
    let aggregator = (1..=u32::MAX, any::<u32>()).prop_map(|(asn, router_id)| {
        (
            Aggregator {
                asn,
                router_id: Ipv4Addr::from_bits(router_id),
            },
            true,
        )
    });
    let large = any::<[u32; 3]>().prop_map(|[global, local1, local2]| LargeCommunity {
        global,
        local1,
        local2,
    });
    let base = (
        origin,
        as_path(kinds),
        option::of(next_hop()),
        any::<Option<u32>>(),
        any::<Option<u32>>(),
    );
    let aggregate = (
        any::<bool>(),
        option::of(aggregator),
        any::<[bool; 5]>(),
        unknown(),
    );
    let lists = (
        vec(any::<u32>().prop_map(Community), 0..100),
        any::<Option<u32>>(),
        vec(any::<u32>().prop_map(Ipv4Addr::from_bits), 0..5),
        vec(any::<[u8; 8]>().prop_map(ExtendedCommunity), 0..40),
        vec(any::<[u8; 20]>().prop_map(Ipv6ExtendedCommunity), 0..5),
        prop::collection::btree_set(large, 0..30),
    );
    (base, aggregate, lists).prop_map(|(base, aggregate, lists)| {
        let (origin, as_path, next_hop, med, local_pref) = base;
        let (atomic_aggregate, aggregator, partial, unknown) = aggregate;
        let (communities, originator_id, cluster_list, extended_communities, ipv6, large) = lists;
        let partial = Partial {
            aggregator: partial[0] && aggregator.is_some(),
            communities: partial[1] && !communities.is_empty(),
            extended_communities: partial[2] && !extended_communities.is_empty(),
            large_communities: partial[3] && !large.is_empty(),
            ipv6_extended_communities: partial[4] && !ipv6.is_empty(),
        };
        Attributes {
            origin,
            as_path,
            next_hop,
            med,
            local_pref,
            atomic_aggregate,
            aggregator: aggregator.map(|(aggregator, _)| aggregator),
            communities,
            originator_id: originator_id.map(Ipv4Addr::from_bits),
            cluster_list,
            extended_communities,
            ipv6_extended_communities: ipv6,
            large_communities: large.into_iter().collect(),
            unknown,
            partial,
        }
    })
}

const SEQUENCE: &[SegmentKind] = &[SegmentKind::Sequence];
const ALL: &[SegmentKind] = &[
    SegmentKind::Set,
    SegmentKind::Sequence,
    SegmentKind::ConfedSequence,
    SegmentKind::ConfedSet,
];

fn v4_prefix() -> impl Strategy<Value = IpNet> {
    (any::<u32>(), 0..=32u8).prop_map(|(bits, len)| {
        Ipv4Net::new(Ipv4Addr::from_bits(bits), len)
            .unwrap()
            .trunc()
            .into()
    })
}

fn v6_prefix() -> impl Strategy<Value = IpNet> {
    (any::<u128>(), 0..=128u8).prop_map(|(bits, len)| {
        Ipv6Net::new(Ipv6Addr::from_bits(bits), len)
            .unwrap()
            .trunc()
            .into()
    })
}

fn capability() -> impl Strategy<Value = Capability> {
    let family = || (any::<u16>(), any::<u8>()).prop_map(|(afi, safi)| Family { afi, safi });
    let restart = (
        any::<bool>(),
        any::<bool>(),
        0..4096u16,
        vec((family(), any::<bool>()), 0..4),
    )
        .prop_map(
            |(restarted, notification, restart_time, families)| GracefulRestart {
                restarted,
                notification,
                restart_time,
                families,
            },
        );
    prop_oneof![
        family().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec((family(), any::<u16>()), 0..4).prop_map(Capability::ExtendedNextHop),
        Just(Capability::ExtendedMessage),
        restart.prop_map(Capability::GracefulRestart),
        Just(Capability::EnhancedRouteRefresh),
        (128..=255u8, vec(any::<u8>(), 0..=255))
            .prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

proptest! {
    #[test]
    fn canonical_bytes_give_the_attributes_back(attributes in attributes(ALL)) {
        let mut bytes = Vec::new();
        attributes.encode_canonical(&mut bytes);
        let next_hop = attributes.next_hop;
        prop_assert_eq!(Attributes::split_canonical(&bytes).unwrap().0, next_hop);
        prop_assert_eq!(Attributes::decode_canonical(&bytes), Some(attributes));
    }

    #[test]
    fn announcements_are_read_back(
        attributes in attributes(SEQUENCE),
        context in context(),
        v4 in vec(v4_prefix(), 1..20),
        v6 in vec(v6_prefix(), 1..20),
    ) {
        // What a peer may send in this context, and what two octets leave of a path.
        let mut attributes = attributes;
        attributes.local_pref = context.ibgp.then_some(100);
        if !context.ibgp {
            attributes.originator_id = None;
            attributes.cluster_list.clear();
        }
        let mut section = Vec::new();
        attributes.encode(&context, &mut section);
        let hops = [
            (Family::IPV4_UNICAST, NextHop::V4([192, 0, 2, 1].into()), &v4),
            (Family::IPV4_UNICAST, NextHop::V6("2001:db8::1".parse().unwrap()), &v4),
            (Family::IPV6_UNICAST, NextHop::V6("2001:db8::1".parse().unwrap()), &v6),
        ];
        for (family, next_hop, prefixes) in hops {
            attributes.next_hop = Some(next_hop);
            let mut out = Vec::new();
            let mut builder = UpdateBuilder::announce(&mut out, &context, &section, next_hop, family);
            for prefix in prefixes {
                builder.push(*prefix).unwrap();
            }
            builder.finish();
            let update = decode_update(&out, &context).unwrap();
            prop_assert_eq!(&update.faults, &[]);
            prop_assert_eq!(update.reachable.len(), 1);
            prop_assert_eq!(update.reachable[0].0, next_hop);
            prop_assert_eq!(&update.reachable[0].1.iter().collect::<Vec<_>>(), prefixes);
            let decoded = update.attributes.unwrap();
            if context.four_octet_as {
                prop_assert_eq!(&decoded, &attributes);
            } else {
                // AS4_PATH may join neighbouring sequences: the same path, in fewer segments.
                prop_assert!(decoded.as_path.asns().eq(attributes.as_path.asns()));
                let as_path = attributes.as_path.clone();
                let aggregator = decoded.aggregator;
                prop_assert_eq!(Attributes { as_path, ..decoded }, attributes.clone());
                prop_assert_eq!(aggregator, attributes.aggregator);
            }
        }
    }

    #[test]
    fn opens_are_read_back(
        asn in 1..=u32::MAX,
        hold_time in prop_oneof![Just(0u16), 3..=u16::MAX],
        router_id in 1..=u32::MAX,
        mut capabilities in vec(capability(), 0..10),
    ) {
        capabilities.push(Capability::FourOctetAs(asn));
        let open = Open { asn, hold_time, router_id: Ipv4Addr::from_bits(router_id), capabilities };
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        prop_assert_eq!(header::decode(&bytes, &Context::default()), Ok(Message::Open(open)));
    }

    #[test]
    fn notifications_are_read_back_and_shown(code: u8, subcode: u8, data in vec(any::<u8>(), 0..300)) {
        let notification = Notification::new(code, subcode, data);
        let mut bytes = Vec::new();
        notification.encode(&mut bytes);
        prop_assert!(!notification.to_string().is_empty());
        prop_assert_eq!(
            header::decode(&bytes, &Context::default()),
            Ok(Message::Notification(notification))
        );
    }

    #[test]
    fn communities_are_read_back_from_text(
        community: u32,
        extended: [u8; 8],
        kind in prop::sample::select(vec![0u8, 1, 2, 0x40]),
        subtype in 0..5u8,
        large: [u32; 3],
    ) {
        let community = Community(community);
        prop_assert_eq!(community.to_string().parse(), Ok(community));
        let mut typed = extended;
        typed[..2].copy_from_slice(&[kind, subtype]);
        for extended in [ExtendedCommunity(extended), ExtendedCommunity(typed)] {
            prop_assert_eq!(extended.to_string().parse(), Ok(extended));
        }
        let [global, local1, local2] = large;
        let large = LargeCommunity { global, local1, local2 };
        prop_assert_eq!(large.to_string().parse(), Ok(large));
    }

    #[test]
    fn any_text_is_a_community_or_none(text in ".{0,24}") {
        black_box(text.parse::<Community>().ok());
        black_box(text.parse::<ExtendedCommunity>().ok());
        black_box(text.parse::<LargeCommunity>().ok());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..100), context in context()) {
        drop(header::frame_len(&bytes, &context));
        drop(header::decode(&bytes, &context));
        drop(Attributes::decode_canonical(&bytes));
    }

    #[test]
    fn any_body_is_read_without_a_panic(
        kind in 1..=5u8,
        body in vec(any::<u8>(), 0..200),
        context in context(),
    ) {
        read_all(&frame(kind, &body), &context);
    }

    /// Bytes that are nearly an UPDATE get further in than random ones.
    #[test]
    fn any_change_of_an_update_is_read_without_a_panic(
        attributes in attributes(ALL),
        context in context(),
        prefixes in vec(v4_prefix(), 0..5),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut section = Vec::new();
        attributes.encode(&context, &mut section);
        let mut nlri = Vec::new();
        let next_hop = NextHop::V4([192, 0, 2, 1].into());
        let mut builder =
            UpdateBuilder::announce(&mut nlri, &context, &section, next_hop, Family::IPV4_UNICAST);
        for prefix in prefixes {
            builder.push(prefix).unwrap();
        }
        builder.finish();
        if let Some(mut body) = nlri.get(header::LEN..).map(<[u8]>::to_vec) {
            for (index, value) in changes {
                let at = index.index(body.len());
                body[at] = value;
            }
            read_all(&frame(header::kind::UPDATE, &body), &context);
        }
    }
}

/// Reads a message to its last prefix, and holds what was promised about it to be true.
fn read_all(bytes: &[u8], context: &Context) {
    if let Ok(Message::Update(update)) = header::decode(bytes, context) {
        for run in update
            .unreachable
            .iter()
            .chain(update.reachable.iter().map(|(_, run)| run))
        {
            assert!(!run.is_empty());
            assert_eq!(run.iter().count(), run.len());
            assert!(run.iter().all(|prefix| prefix == prefix.trunc()));
        }
        assert_eq!(update.attributes.is_some(), !update.reachable.is_empty());
        if let Some(attributes) = &update.attributes {
            let mut canonical = Vec::new();
            attributes.encode_canonical(&mut canonical);
            assert_eq!(
                Attributes::decode_canonical(&canonical).as_ref(),
                Some(attributes)
            );
        }
        for fault in &update.faults {
            assert!(!fault.to_string().is_empty());
        }
    }
}

//! Packing: what a message holds, and where it ends.

use bgp_wire::update::PushError;
use bgp_wire::{AsPath, Attributes, Community, Context, Family, NextHop, UpdateBuilder, header};
use ipnet::IpNet;

use crate::{EXTERNAL, announced, decode_update, hex, withdrawn};

const V4: NextHop = NextHop::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const V6: NextHop = NextHop::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

fn section(context: &Context, next_hop: Option<NextHop>) -> Vec<u8> {
    let as_path = AsPath::sequence([64512]);
    let attributes = Attributes {
        as_path,
        next_hop,
        med: Some(5),
        ..Attributes::originated()
    };
    let mut section = Vec::new();
    attributes.encode(context, &mut section);
    section
}

fn prefixes(family: Family) -> impl Iterator<Item = IpNet> {
    (0u32..).map(move |n| match family {
        Family::IPV4_UNICAST => IpNet::new_assert(std::net::Ipv4Addr::from_bits(n << 8).into(), 24),
        _ => IpNet::new_assert(
            std::net::Ipv6Addr::from_bits(u128::from(n) << 64).into(),
            64,
        ),
    })
}

/// Pushes until the message is full; gives how many prefixes it took.
fn fill(mut builder: UpdateBuilder<'_>, family: Family) -> usize {
    for prefix in prefixes(family) {
        match builder.push(prefix) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error, PushError::Full);
                break;
            }
        }
    }
    let len = builder.len();
    builder.finish();
    len
}

#[test]
fn the_next_hop_is_put_in_replaced_or_left_out() {
    let bare = section(&EXTERNAL, None);
    let with = section(&EXTERNAL, Some(NextHop::V4([198, 51, 100, 1].into())));
    assert_ne!(bare, with);
    let fields = hex("40010100 400206 0201 0000fc00 400304 c0000201 800404 00000005");
    let reach = hex("800e1a 000201 10 20010db8000000000000000000000001 00 2020010db8");
    for section in [bare, with] {
        let mut out = Vec::new();
        let mut builder =
            UpdateBuilder::announce(&mut out, &EXTERNAL, &section, V4, Family::IPV4_UNICAST);
        builder.push("10.0.0.0/8".parse().unwrap()).unwrap();
        assert_eq!(builder.finish(), 0..out.len());
        assert_eq!(out, crate::update_frame(&[], &fields, &[8, 10]));

        let mut out = Vec::new();
        let mut builder =
            UpdateBuilder::announce(&mut out, &EXTERNAL, &section, V6, Family::IPV6_UNICAST);
        builder.push("2001:db8::/32".parse().unwrap()).unwrap();
        builder.finish();
        let expected = [&reach[..], &fields[..13], &fields[20..]].concat();
        assert_eq!(out, crate::update_frame(&[], &expected, &[]));
    }
}

/// Every kind of message is filled to within one prefix of its limit, never over it, and reads back whole.
#[test]
fn messages_are_filled_to_their_limit() {
    let extended = Context {
        extended_message: true,
        ..EXTERNAL
    };
    let link_local =
        NextHop::V6WithLinkLocal("2001:db8::1".parse().unwrap(), "fe80::1".parse().unwrap());
    for context in [EXTERNAL, extended] {
        let section = section(&context, None);
        for (family, next_hop) in [
            (Family::IPV4_UNICAST, V4),
            (Family::IPV4_UNICAST, V6),
            (Family::IPV6_UNICAST, V6),
            (Family::IPV6_UNICAST, link_local),
            (Family::IPV6_UNICAST, V4),
        ] {
            let mut out = vec![0xee];
            let count = fill(
                UpdateBuilder::announce(&mut out, &context, &section, next_hop, family),
                family,
            );
            let frame = &out[1..];
            assert!(
                (context.max_message_len() - 9..=context.max_message_len()).contains(&frame.len())
            );
            let update = decode_update(frame, &context).unwrap();
            assert_eq!(update.faults, []);
            let expected: Vec<String> = prefixes(family)
                .take(count)
                .map(|prefix| prefix.to_string())
                .collect();
            assert_eq!(announced(&update), expected);
        }
        for family in [Family::IPV4_UNICAST, Family::IPV6_UNICAST] {
            for multiprotocol in [false, true] {
                let mut out = vec![0xee];
                let builder = if multiprotocol {
                    UpdateBuilder::withdraw_multiprotocol(&mut out, &context, family)
                } else {
                    UpdateBuilder::withdraw(&mut out, &context, family)
                };
                let count = fill(builder, family);
                let frame = &out[1..];
                assert!(
                    (context.max_message_len() - 9..=context.max_message_len())
                        .contains(&frame.len())
                );
                assert_eq!(
                    withdrawn(&decode_update(frame, &context).unwrap()).len(),
                    count
                );
            }
        }
    }
}

#[test]
fn nothing_is_written_without_a_prefix() {
    let section = section(&EXTERNAL, None);
    let mut out = vec![1, 2, 3];
    let builder = UpdateBuilder::announce(&mut out, &EXTERNAL, &section, V4, Family::IPV4_UNICAST);
    assert_eq!(builder.finish(), 3..3);
    let mut builder = UpdateBuilder::withdraw(&mut out, &EXTERNAL, Family::IPV6_UNICAST);
    assert_eq!(
        builder.push("10.0.0.0/8".parse().unwrap()),
        Err(PushError::Family)
    );
    builder.push("2001:db8::/32".parse().unwrap()).unwrap();
    drop(builder);
    assert_eq!(out, [1, 2, 3]);
}

/// RFC 8654 §4: attributes that leave no room for one prefix.
#[test]
fn attributes_that_are_too_long_take_no_prefix() {
    for communities in [1013, 1014, 20_000] {
        let attributes = Attributes {
            communities: vec![Community::NO_EXPORT; communities],
            ..Attributes::originated()
        };
        let mut section = Vec::new();
        attributes.encode(&EXTERNAL, &mut section);
        for (family, next_hop) in [(Family::IPV4_UNICAST, V4), (Family::IPV4_UNICAST, V6)] {
            let mut out = Vec::new();
            let mut builder =
                UpdateBuilder::announce(&mut out, &EXTERNAL, &section, next_hop, family);
            assert_eq!(
                builder.push("10.0.0.0/24".parse().unwrap()),
                Err(PushError::Full)
            );
            builder.finish();
            assert!(out.is_empty());
        }
    }
}

#[test]
fn end_of_rib_is_short() {
    let mut out = Vec::new();
    bgp_wire::update::encode_end_of_rib(Family::IPV4_UNICAST, &mut out);
    assert_eq!(out.len(), header::LEN + 4);
}

//! UPDATEs as wholes: lengths, both ways to carry prefixes, what becomes of them under faults.

use bgp_wire::{
    Aggregator, AsPath, Context, Family, Nlri, Notification, Reaction, UnknownAttribute,
};

use crate::{
    EXTERNAL, INTERNAL, OLD, announced, attribute, decode_update, frame, hex, update_frame,
    withdrawn,
};

/// ORIGIN, AS_PATH and NEXT_HOP from an external peer.
const BASE: &str = "40010100 400206 0201 0000fc01 400304 c0000201";
/// MP_REACH_NLRI of 2001:db8::/32.
const REACH: &str = "800e1a 000201 10 20010db8000000000000000000000001 00 2020010db8";

fn error(bytes: &[u8], context: &Context) -> (u8, u8, Vec<u8>) {
    let Notification {
        code,
        subcode,
        data,
    } = decode_update(bytes, context)
        .unwrap_err()
        .notification
        .unwrap();
    (code, subcode, data)
}

fn update_error(body: &str) -> (u8, u8, Vec<u8>) {
    error(&frame(2, &hex(body)), &EXTERNAL)
}

#[test]
fn field_lengths_that_overrun_reset() {
    for body in [
        "0001 0000",
        "ffff 0000",
        "0000 0001",
        "0000 ffff",
        "0002 ffff",
        "fffe 0002",
    ] {
        assert_eq!(update_error(body), (3, 1, vec![]), "{body}");
    }
}

#[test]
fn malformed_prefixes_reset() {
    // Of 33 bits, and with fewer octets than said: withdrawn, then announced.
    for body in ["0006 210a00000000 0000", "0003 180a00 0000"] {
        assert_eq!(update_error(body), (3, 10, vec![]), "{body}");
    }
    for nlri in ["210a00000000", "180a00", "08"] {
        let bytes = update_frame(&[], &hex(BASE), &hex(nlri));
        assert_eq!(error(&bytes, &EXTERNAL), (3, 10, vec![]), "{nlri}");
    }
}

#[test]
fn host_bits_are_masked() {
    let bytes = update_frame(&hex("000dffff"), &hex(BASE), &hex("0a0aff 200a000001"));
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(withdrawn(&update), ["0.0.0.0/0", "255.248.0.0/13"]);
    assert_eq!(announced(&update), ["10.192.0.0/10", "10.0.0.1/32"]);
    let run: &Nlri<'_> = &update.reachable[0].1;
    assert_eq!(
        (run.len(), run.iter().len(), run.family()),
        (2, 2, Family::IPV4_UNICAST)
    );
}

#[test]
fn both_ways_to_carry_prefixes_at_once() {
    let section = hex(&format!("{REACH} {BASE} 800f08 000201 2020010db9"));
    let bytes = update_frame(&hex("080b"), &section, &hex("080a"));
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(withdrawn(&update), ["11.0.0.0/8", "2001:db9::/32"]);
    assert_eq!(announced(&update), ["10.0.0.0/8", "2001:db8::/32"]);
    let next_hops: Vec<String> = update
        .reachable
        .iter()
        .map(|(next_hop, _)| next_hop.to_string())
        .collect();
    assert_eq!(next_hops, ["192.0.2.1", "2001:db8::1"]);
    // A fault withdraws all of it.
    let section = hex(&format!("{REACH} {BASE} 800403 000000"));
    let bytes = update_frame(&hex("080b"), &section, &hex("080a"));
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(
        withdrawn(&update),
        ["11.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"]
    );
    assert_eq!(announced(&update), [""; 0]);
}

#[test]
fn a_truncated_attribute_withdraws_and_prefixes_are_found_behind_it() {
    // What is left: an octet, two, a length that overruns, an extended length cut in two.
    for rest in [
        "80",
        "8004",
        "800404",
        "800404000000",
        "900400",
        "90040004 000000",
    ] {
        let bytes = update_frame(&[], &hex(&format!("{BASE} {rest}")), &hex("080a"));
        let update = decode_update(&bytes, &EXTERNAL).unwrap();
        assert_eq!(withdrawn(&update), ["10.0.0.0/8"], "{rest}");
        assert_eq!(update.faults.len(), 1);
        assert_eq!(update.faults[0].reaction, Reaction::TreatAsWithdraw);
    }
}

/// RFC 7606 §3 j: the prefixes in it can't be found.
#[test]
fn a_truncated_mp_attribute_resets() {
    for rest in ["800e", "800e40 000201", "900f", "800f04 000201", "c00fff"] {
        let bytes = update_frame(&[], &hex(&format!("{BASE} {rest}")), &hex("080a"));
        assert_eq!(error(&bytes, &EXTERNAL), (3, 9, hex(rest)), "{rest}");
    }
}

#[test]
fn wrong_flags_on_mp_reach_still_withdraw_its_prefixes() {
    let section = hex(&format!("{BASE} c0{}", &REACH[2..]));
    let bytes = update_frame(&[], &section, &[]);
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(withdrawn(&update), ["2001:db8::/32"]);
}

/// RFC 7606 §5.2.
#[test]
fn a_fault_without_any_prefix_resets() {
    let cases = [
        ("400101 03", (3, 6, hex("40010103"))),
        ("400102 0000", (3, 5, hex("4001020000"))),
        ("c00101 00", (3, 4, hex("c0010100"))),
        ("400206 0501 0000fc01", (3, 11, vec![])),
        ("800403 000000", (3, 5, hex("800403000000"))),
        ("400101", (3, 1, vec![])),
    ];
    for (section, expected) in cases {
        let bytes = update_frame(&hex("080b"), &hex(section), &[]);
        assert_eq!(error(&bytes, &EXTERNAL), expected, "{section}");
    }
    // What is only discarded, or withdraws what is withdrawn anyway, does not.
    for section in ["400601 00", "400101 00", "c00f08 000201 2020010db9"] {
        let bytes = update_frame(&hex("080b"), &hex(section), &[]);
        let update = decode_update(&bytes, &EXTERNAL).unwrap();
        assert_eq!(withdrawn(&update)[0], "11.0.0.0/8");
        assert_eq!(update.attributes, None);
    }
    // Nor does one beside prefixes of a family that is ignored.
    let bytes = update_frame(&[], &hex("400101 03 800e05 400448 00 00"), &[]);
    assert!(decode_update(&bytes, &EXTERNAL).is_ok());
}

#[test]
fn next_hop_beside_mp_reach_is_ignored() {
    let section = hex(&format!("{REACH} 40010100 400200 400304 00000000"));
    let bytes = update_frame(&[], &section, &[]);
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(update.faults, []);
    assert_eq!(update.reachable[0].0.to_string(), "2001:db8::1");
    assert_eq!(
        update.attributes.unwrap().next_hop,
        Some(update.reachable[0].0)
    );
}

#[test]
fn next_hops_of_both_lengths_are_straightened() {
    let global = "20010db8000000000000000000000001";
    let link_local = "fe800000000000000000000000000001";
    let none = "00000000000000000000000000000000";
    let loopback = "00000000000000000000000000000001";
    let multicast = "ff020000000000000000000000000001";
    let cases = [
        (vec![global], Some("2001:db8::1")),
        (vec![link_local], Some("fe80::1")),
        (vec![global, link_local], Some("2001:db8::1 (fe80::1)")),
        (vec![global, none], Some("2001:db8::1")),
        (vec![global, global], Some("2001:db8::1")),
        (vec![none, link_local], Some("fe80::1")),
        (vec![link_local, link_local], Some("fe80::1")),
        (vec![none], None),
        (vec![loopback], None),
        (vec![multicast, link_local], None),
    ];
    for (next_hop, expected) in cases {
        let next_hop = hex(&next_hop.concat());
        let mut value = hex("000101");
        value.push(u8::try_from(next_hop.len()).unwrap());
        value.extend(next_hop);
        value.extend(hex("00 080a"));
        let mut section = attribute(0x80, 14, &value);
        section.extend(hex("40010100 400200"));
        let bytes = update_frame(&[], &section, &[]);
        let update = decode_update(&bytes, &EXTERNAL).unwrap();
        match expected {
            Some(expected) => assert_eq!(update.reachable[0].0.to_string(), expected),
            None => assert_eq!(withdrawn(&update), ["10.0.0.0/8"]),
        }
    }
}

#[test]
fn end_of_rib_is_nothing_else() {
    let family = |body: &str| {
        decode_update(&frame(2, &hex(body)), &EXTERNAL)
            .unwrap()
            .end_of_rib()
    };
    assert_eq!(family("0000 0000"), Some(Family::IPV4_UNICAST));
    assert_eq!(
        family("0000 0006 800f03 000101"),
        Some(Family::IPV4_UNICAST)
    );
    assert_eq!(
        family("0000 0006 800f03 400448"),
        Some(Family {
            afi: 0x4004,
            safi: 0x48
        })
    );
    assert_eq!(family("0002 080a 0000"), None);
    assert_eq!(family("0000 0008 800f05 000201 0800"), None);
    assert_eq!(family("0000 000a 800f03 000201 40010100"), None);
    assert_eq!(family("0002 080a 0006 800f03 000201"), None);
    assert_eq!(family("0000 0004 40010100"), None);
}

#[test]
fn unknown_attributes_are_kept_with_partial_in_order() {
    let section = hex(&format!("{BASE} c0c80101 e0640102 d0280001ff 80650103"));
    let bytes = update_frame(&[], &section, &hex("080a"));
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    assert_eq!(update.faults, []);
    let unknown = |code, value| UnknownAttribute {
        code,
        flags: 0xe0,
        value: vec![value],
    };
    let attributes = update.attributes.unwrap();
    assert_eq!(
        attributes.unknown,
        [unknown(40, 0xff), unknown(100, 2), unknown(200, 1)]
    );
    let mut written = Vec::new();
    attributes.encode(&EXTERNAL, &mut written);
    assert_eq!(written, hex(&format!("{BASE} e02801ff e0640102 e0c80101")));
}

/// RFC 4271 §5: once set it stays.
#[test]
fn partial_stays_on_known_attributes() {
    let section = format!(
        "{BASE} e00708 0000fc02 c0000203 e00804 fde80001 e01008 0002fc0000000064
         e01914 000220010db8000000000000000000000001002a e0200c 0000fc000000000100000002"
    );
    let bytes = update_frame(&[], &hex(&section), &hex("080a"));
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    let mut written = Vec::new();
    update.attributes.unwrap().encode(&EXTERNAL, &mut written);
    assert_eq!(written, hex(&section));
}

#[test]
fn repeated_large_communities_are_dropped() {
    let value = "0000fc000000000100000002";
    let other = "0000fc000000000100000003";
    let section = format!("{BASE} c02030 {value} {other} {value} {other}");
    let bytes = update_frame(&[], &hex(&section), &hex("080a"));
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    let communities = update.attributes.unwrap().large_communities;
    assert_eq!(
        communities
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["64512:1:2", "64512:1:3"]
    );
}

/// RFC 6793 §4.2.3.
#[test]
fn as4_attributes_are_merged() {
    let merged = |as_path: &str, rest: &str| {
        let mut section = hex("40010100 400304 c0000201");
        section.extend(attribute(0x40, 2, &hex(as_path)));
        section.extend(hex(rest));
        let bytes = update_frame(&[], &section, &hex("080a"));
        let update = decode_update(&bytes, &OLD).unwrap();
        assert_eq!(update.faults, []);
        let attributes = update.attributes.unwrap();
        (attributes.as_path.to_string(), attributes.aggregator)
    };
    let path = |as_path, rest| merged(as_path, rest).0;
    let as4 = "c01106 0201 00011170";
    assert_eq!(path("0203 0001 0002 5ba0", as4), "1 2 70000");
    assert_eq!(path("0201 5ba0", as4), "70000");
    // Longer than AS_PATH: somebody shortened that, so it says nothing.
    assert_eq!(path("", as4), "");
    assert_eq!(path("0201 0001", "c0110a 0202 00011170 00000002"), "1");
    // One segment if it fits into one, two if it was two.
    assert_eq!(
        path("0201 0001 0202 5ba0 5ba0", "c0110a 0202 00011170 00011171"),
        "1 70000 70001"
    );

    let aggregator = |asn| {
        Some(Aggregator {
            asn,
            router_id: [192, 0, 2, 9].into(),
        })
    };
    let as4_aggregator = format!("{as4} c01208 00011171 c0000209");
    let aggregated = |asn: &str| format!("c00706 {asn} c0000209 {as4_aggregator}");
    assert_eq!(
        merged("0201 5ba0", &aggregated("5ba0")),
        ("70000".into(), aggregator(70001))
    );
    // Aggregated since by a speaker that knows no AS4 attributes.
    assert_eq!(
        merged("0201 5ba0", &aggregated("0007")),
        ("23456".into(), aggregator(7))
    );
    // Without AGGREGATOR an AS4_AGGREGATOR says nothing.
    assert_eq!(merged("0201 5ba0", &as4_aggregator), ("70000".into(), None));
}

#[test]
fn a_path_with_four_octet_numbers_survives_a_peer_without_them() {
    let mut attributes = bgp_wire::Attributes::originated();
    attributes.as_path = AsPath::sequence([1, 70000, 3]);
    attributes.aggregator = Some(Aggregator {
        asn: 70000,
        router_id: [192, 0, 2, 9].into(),
    });
    let mut section = Vec::new();
    attributes.encode(&OLD, &mut section);
    let as_path = "400208 0203 0001 5ba0 0003";
    let rest = "c0110e 0203 00000001 00011170 00000003 c01208 00011170 c0000209";
    assert_eq!(
        section,
        hex(&format!("40010100 {as_path} c00706 5ba0 c0000209 {rest}"))
    );
    section.extend(hex("400304 c0000201"));
    let bytes = update_frame(&[], &section, &hex("080a"));
    let decoded = decode_update(&bytes, &OLD).unwrap().attributes.unwrap();
    assert_eq!(
        (decoded.as_path, decoded.aggregator),
        (attributes.as_path, attributes.aggregator)
    );
}

#[test]
fn faults_read_well() {
    let bytes = update_frame(
        &[],
        &hex(&format!("{BASE} 800403 000000 400504 00000064")),
        &hex("080a"),
    );
    let update = decode_update(&bytes, &EXTERNAL).unwrap();
    let texts: Vec<String> = update.faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "MULTI_EXIT_DISC: wrong length (treated as withdrawn)",
            "LOCAL_PREF: not allowed from an external peer (attribute discarded)",
        ]
    );
    assert!(
        decode_update(&update_frame(&[], &hex(BASE), &hex("080a")), &INTERNAL)
            .unwrap()
            .attributes
            .is_none()
    );
}

/// 16,400 numbers take 33 kB with two octets each, and more than an attribute can hold with four.
#[test]
fn path_too_long_with_four_octets_is_withdrawn() {
    let context = Context {
        extended_message: true,
        ..OLD
    };
    let mut path = Vec::new();
    for _ in 0..82 {
        path.extend_from_slice(&[2, 200]);
        path.extend_from_slice(&[0xfc; 400]);
    }
    let mut section = attribute(0x40, 1, &[0]);
    section.extend_from_slice(&[0x50, 2]);
    section.extend_from_slice(&u16::try_from(path.len()).unwrap().to_be_bytes());
    section.extend_from_slice(&path);
    section.extend_from_slice(&attribute(0x40, 3, &[192, 0, 2, 1]));
    let frame = update_frame(&[], &section, &[8, 10]);
    let update = decode_update(&frame, &context).unwrap();
    assert_eq!(withdrawn(&update), ["10.0.0.0/8"]);
    assert_eq!(update.attributes, None);
}

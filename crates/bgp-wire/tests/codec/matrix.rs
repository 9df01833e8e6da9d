//! Each attribute with each fault, and exactly the reaction that its RFC names: RFC 7606 as a table.
//!
//! Every row is one UPDATE with 10.0.0.0/8 in its NLRI field and valid ORIGIN, AS_PATH, NEXT_HOP and, from an internal
//! peer, LOCAL_PREF; the row's attributes take the place of those with the same code.

use bgp_wire::{Attributes, Context, Notification, Reaction};

use crate::{
    EXTERNAL, INTERNAL, OLD, announced, attribute, decode_update, hex, update_frame, withdrawn,
};

/// What must come of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// Nothing is wrong.
    Keep,
    /// The route is kept as if the row's attribute were not there.
    Discard,
    /// The route is kept as if the row's attribute were there only once.
    Once,
    /// The prefix is withdrawn.
    Withdraw,
    /// The session ends with this subcode of UPDATE Message Error, and the row's attribute as data or none.
    Reset(u8, bool),
}

use Outcome::{Discard, Keep, Once, Reset, Withdraw};

const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0xc0;

/// The attribute section of a row.
fn section(row: &[u8], context: &Context) -> Vec<u8> {
    let as_path = if context.four_octet_as {
        hex("0201 0000fc01")
    } else {
        hex("0201 fc01")
    };
    let mut section = Vec::new();
    let base = [
        (1, vec![0]),
        (2, as_path),
        (3, vec![192, 0, 2, 1]),
        (5, vec![0, 0, 0, 100]),
    ];
    for (code, value) in base {
        let replaced = row.get(1) == Some(&code);
        if !replaced && (code != 5 || context.ibgp) {
            section.extend(attribute(WELL_KNOWN, code, &value));
        }
    }
    section.extend_from_slice(row);
    section
}

fn base_attributes(context: &Context) -> Attributes {
    let frame = update_frame(&[], &section(&[], context), &[8, 10]);
    let update = decode_update(&frame, context).unwrap();
    assert_eq!(update.faults, []);
    update.attributes.unwrap()
}

fn outcome(row: &[u8], context: &Context) -> Outcome {
    let frame = update_frame(&[], &section(row, context), &[8, 10]);
    let update = match decode_update(&frame, context) {
        Ok(update) => update,
        Err(error) => {
            let Notification {
                code: 3,
                subcode,
                data,
            } = error.notification.unwrap()
            else {
                panic!("not an UPDATE Message Error");
            };
            assert!(
                data.is_empty() || data == row,
                "data is not the attribute: {data:02x?}"
            );
            return Reset(subcode, !data.is_empty());
        }
    };
    let worst = update.faults.iter().map(|fault| fault.reaction).max();
    match worst {
        None => {
            assert_eq!(announced(&update), ["10.0.0.0/8"]);
            Keep
        }
        Some(Reaction::Discard) => {
            assert_eq!(announced(&update), ["10.0.0.0/8"]);
            assert!(withdrawn(&update).is_empty());
            let (half, rest) = row.split_at(row.len() / 2);
            if half == rest && outcome(half, context) == Keep {
                let frame = update_frame(&[], &section(half, context), &[8, 10]);
                let once = decode_update(&frame, context).unwrap();
                assert_eq!(update.attributes, once.attributes, "not the first one");
                return Once;
            }
            assert_eq!(
                update.attributes,
                Some(base_attributes(context)),
                "left a trace"
            );
            Discard
        }
        Some(Reaction::TreatAsWithdraw) => {
            assert!(update.reachable.is_empty() && update.attributes.is_none());
            assert_eq!(withdrawn(&update), ["10.0.0.0/8"]);
            assert_eq!(Some(update.faults[0].code), row.get(1).copied());
            Withdraw
        }
    }
}

/// Checks a row against peers outside and inside.
fn check(name: &str, row: &[u8], external: Outcome, internal: Outcome) {
    assert_eq!(
        outcome(row, &EXTERNAL),
        external,
        "{name}, from an external peer"
    );
    assert_eq!(
        outcome(row, &INTERNAL),
        internal,
        "{name}, from an internal peer"
    );
}

/// A row that means the same from everyone.
fn both(name: &str, flags: u8, code: u8, value: &str, expected: &Outcome) {
    check(
        name,
        &attribute(flags, code, &hex(value)),
        expected.clone(),
        expected.clone(),
    );
}

/// Every attribute of a route that is known from anybody: code, flags, a value that is valid for an internal peer, whether
/// only such a peer may send it.
const KNOWN: [(u8, u8, &str, bool); 13] = [
    (1, WELL_KNOWN, "01", false),
    (2, WELL_KNOWN, "0201 0000fc02", false),
    (3, WELL_KNOWN, "c0000202", false),
    (4, OPTIONAL, "0000000a", false),
    (5, WELL_KNOWN, "00000065", true),
    (6, WELL_KNOWN, "", false),
    (7, TRANSITIVE, "0000fc02 c0000203", false),
    (8, TRANSITIVE, "fde80001", false),
    (9, OPTIONAL, "c0000204", true),
    (10, OPTIONAL, "c0000205", true),
    (16, TRANSITIVE, "0002fc0000000064", false),
    (
        25,
        TRANSITIVE,
        "000220010db8000000000000000000000001002a",
        false,
    ),
    (32, TRANSITIVE, "0000fc00 00000001 00000002", false),
];

/// The others: those that name prefixes, and those that only a peer with two-octet numbers may send.
const OTHERS: [(u8, u8, &str); 4] = [
    (
        14,
        OPTIONAL,
        "000201 10 20010db8000000000000000000000001 00",
    ),
    (15, OPTIONAL, "000201"),
    (17, TRANSITIVE, "0201 0000fc01"),
    (18, TRANSITIVE, "0000fc02 c0000203"),
];

/// What is done to a valid attribute, in the order of the columns of [`MATRIX`].
const FAULTS: [&str; 9] = [
    "nothing",
    "Optional wrong",
    "Transitive wrong",
    "Partial set",
    "empty value",
    "an octet short",
    "an octet over",
    "there twice",
    "overruns the section",
];

/// An attribute with the fault of this column; nothing where it can't have it.
fn faulty(column: usize, flags: u8, code: u8, value: &[u8]) -> Option<Vec<u8>> {
    let longer = [value, &[0xff]].concat();
    Some(match FAULTS[column] {
        "Optional wrong" => attribute(flags ^ OPTIONAL, code, value),
        "Transitive wrong" => attribute(flags ^ WELL_KNOWN, code, value),
        "Partial set" => attribute(flags | 0x20, code, value),
        "empty value" => attribute(flags, code, &[]),
        "an octet short" => attribute(flags, code, value.split_last()?.1),
        "an octet over" => attribute(flags, code, &longer),
        "there twice" => attribute(flags, code, value).repeat(2),
        "overruns the section" => {
            let mut row = attribute(flags, code, &longer);
            row.pop();
            row
        }
        _ => attribute(flags, code, value),
    })
}

/// Attribute, sender (E external, I internal, O external with two-octet numbers), and what each fault of [`FAULTS`] leads
/// to: K keep, D attribute discard, W treat-as-withdraw, 1 and 9 a session reset with that subcode, - not possible.
const MATRIX: [(u8, char, &str); 29] = [
    (1, 'E', "K W W W W W W D W"),
    (1, 'I', "K W W W W W W D W"),
    (2, 'E', "K W W W K W W D W"),
    (2, 'I', "K W W W K W W D W"),
    (3, 'E', "K W W W W W W D W"),
    (3, 'I', "K W W W W W W D W"),
    (4, 'E', "K W W W W W W D W"),
    (4, 'I', "K W W W W W W D W"),
    (5, 'E', "D W W W D D D D W"),
    (5, 'I', "K W W W W W W D W"),
    (6, 'E', "K W W W K - D D W"),
    (6, 'I', "K W W W K - D D W"),
    (7, 'E', "K W W K D D D D W"),
    (7, 'I', "K W W K D D D D W"),
    (8, 'E', "K W W K W W W D W"),
    (8, 'I', "K W W K W W W D W"),
    (9, 'E', "D W W W D D D D W"),
    (9, 'I', "K W W W W W W D W"),
    (10, 'E', "D W W W D D D D W"),
    (10, 'I', "K W W W W W W D W"),
    (14, 'E', "K W W W 9 9 9 1 9"),
    (15, 'E', "K W W W 9 9 9 1 9"),
    (16, 'E', "K W W K W W W D W"),
    (17, 'E', "D W W D D D D D W"),
    (17, 'O', "K W W K D D D D W"),
    (18, 'E', "D W W D D D D D W"),
    (18, 'O', "K W W K D D D D W"),
    (25, 'E', "K W W K W W W D W"),
    (32, 'E', "K W W K W W W D W"),
];

/// RFC 7606 §3 c, d, g, §4, §7.1 to §7.15; RFC 6793 §6; RFC 8092 §6.
#[test]
fn every_attribute_with_every_fault() {
    let all: Vec<_> = KNOWN
        .into_iter()
        .map(|(code, flags, value, _)| (code, flags, value))
        .chain(OTHERS)
        .collect();
    for code in 0..=u8::MAX {
        let named = bgp_wire::attribute::name(code).is_some();
        assert_eq!(all.iter().any(|it| it.0 == code), named, "{code}");
        assert_eq!(MATRIX.iter().any(|it| it.0 == code), named, "{code}");
    }
    for (code, sender, reactions) in MATRIX {
        let (_, flags, value) = *all.iter().find(|it| it.0 == code).unwrap();
        let context = match sender {
            'E' => &EXTERNAL,
            'I' => &INTERNAL,
            _ => &OLD,
        };
        let reactions: Vec<&str> = reactions.split(' ').collect();
        assert_eq!(reactions.len(), FAULTS.len());
        for (column, expected) in reactions.into_iter().enumerate() {
            let Some(row) = faulty(column, flags, code, &hex(value)) else {
                assert_eq!(expected, "-");
                continue;
            };
            let is = match outcome(&row, context) {
                Keep => "K",
                Discard | Once => "D",
                Withdraw => "W",
                Reset(1, false) => "1",
                Reset(9, true) => "9",
                other => panic!("{other:?}"),
            };
            let name = bgp_wire::attribute::name(code).unwrap();
            assert_eq!(is, expected, "{name} from {sender}: {}", FAULTS[column]);
        }
    }
}

/// RFC 4271 §5.1.5, RFC 7606 §7.5, §7.9, §7.10.
#[test]
fn valid_values() {
    for (code, flags, value, internal_only) in KNOWN {
        let external = if internal_only { Discard } else { Keep };
        check(
            "valid",
            &attribute(flags, code, &hex(value)),
            external,
            Keep,
        );
    }
}

/// RFC 7606 §3 c: classed by what the attribute is. Also where an external peer may not send it.
#[test]
fn flags() {
    for (code, flags, value, _) in KNOWN {
        let row = |flags| attribute(flags, code, &hex(value));
        for wrong in [flags ^ 0x80, flags ^ 0x40, flags ^ 0xc0] {
            check(
                "Optional or Transitive wrong",
                &row(wrong),
                Withdraw,
                Withdraw,
            );
        }
        // RFC 4271 §4.3: Partial is for optional transitive attributes. The low bits are to be ignored.
        if flags != TRANSITIVE {
            check("Partial", &row(flags | 0x20), Withdraw, Withdraw);
        }
    }
    both("low bits", WELL_KNOWN | 0x0f, 1, "00", &Keep);
}

/// An extended length is believed on a value that does not need it (RFC 4271 §4.3).
#[test]
fn extended_length() {
    for (code, flags, value, internal_only) in KNOWN {
        let mut row = attribute(flags | 0x10, code, &hex(value));
        row.insert(2, 0);
        let external = if internal_only { Discard } else { Keep };
        check("extended length", &row, external, Keep);
    }
}

/// RFC 7606 §7.1 to §7.14, RFC 8092 §6: every length that is not the attribute's.
#[test]
fn lengths() {
    for (code, flags, value, internal_only) in KNOWN {
        let (item, repeats) = match code {
            2 => continue,
            8 | 10 => (4, true),
            16 => (8, true),
            25 => (20, true),
            32 => (12, true),
            _ => (hex(value).len(), false),
        };
        for len in 0..=25 {
            let fits = if repeats {
                len > 0 && len % item == 0
            } else {
                len == item
            };
            if fits {
                continue;
            }
            let malformed = if matches!(code, 6 | 7) {
                Discard
            } else {
                Withdraw
            };
            let external = if internal_only {
                Discard
            } else {
                malformed.clone()
            };
            let row = attribute(flags, code, &vec![1; len]);
            check(
                &format!("attribute {code} of {len} octets"),
                &row,
                external,
                malformed,
            );
        }
    }
}

/// RFC 7606 §7.1.
#[test]
fn origin_values() {
    for (value, expected) in [
        ("00", Keep),
        ("02", Keep),
        ("03", Withdraw),
        ("ff", Withdraw),
    ] {
        both("ORIGIN", WELL_KNOWN, 1, value, &expected);
    }
}

/// RFC 7606 §7.2, RFC 7607, RFC 9774, RFC 5065 §5.
#[test]
fn as_path_values() {
    let cases = [
        ("", Keep),
        ("0202 0000fc01 0000fc02", Keep),
        ("0201 0000fc01 0201 0000fc02", Keep),
        ("0001 0000fc01", Withdraw),               // type 0
        ("0501 0000fc01", Withdraw),               // type 5
        ("0200", Withdraw),                        // segment of length 0
        ("0201 0000fc01 0200", Withdraw),          // the same behind a good one
        ("0202 0000fc01", Withdraw),               // segment overruns
        ("02ff 0000fc01", Withdraw),               // segment overruns
        ("0201 0000fc01 02", Withdraw),            // one octet left over
        ("0201 00fc01", Withdraw),                 // a part of a number
        ("0201 00000000", Withdraw),               // AS 0
        ("0202 0000fc01 00000000", Withdraw),      // AS 0
        ("0101 0000fc01", Withdraw),               // AS_SET
        ("0201 0000fc01 0101 0000fc02", Withdraw), // AS_SET
        ("0401 0000fc01", Withdraw),               // AS_CONFED_SET
    ];
    for (value, expected) in cases {
        both(&format!("AS_PATH {value}"), WELL_KNOWN, 2, value, &expected);
    }
    let confederation = attribute(WELL_KNOWN, 2, &hex("0301 0000fc01 0201 0000fc02"));
    check("AS_CONFED_SEQUENCE", &confederation, Withdraw, Keep);
}

/// RFC 4271 §6.3.
#[test]
fn next_hop_values() {
    let hosts = ["01000001", "7e000001", "80000001", "dfffffff", "a9fe0101"];
    let others = [
        "00000000", "00000001", "7f000001", "e0000001", "efffffff", "f0000001", "ffffffff",
    ];
    for value in hosts {
        both("NEXT_HOP of a host", WELL_KNOWN, 3, value, &Keep);
    }
    for value in others {
        both("NEXT_HOP of no host", WELL_KNOWN, 3, value, &Withdraw);
    }
}

/// RFC 7607 §2; a length that fits the other width of numbers.
#[test]
fn aggregator_values() {
    both(
        "AGGREGATOR of AS 0",
        TRANSITIVE,
        7,
        "00000000 c0000203",
        &Discard,
    );
    both(
        "AGGREGATOR of two octets",
        TRANSITIVE,
        7,
        "fc02 c0000203",
        &Discard,
    );
    assert_eq!(
        outcome(&attribute(TRANSITIVE, 7, &hex("fc02 c0000203")), &OLD),
        Keep
    );
    assert_eq!(
        outcome(&attribute(TRANSITIVE, 7, &hex("0000 c0000203")), &OLD),
        Discard
    );
    assert_eq!(
        outcome(&attribute(TRANSITIVE, 7, &hex("0000fc02 c0000203")), &OLD),
        Discard
    );
}

/// RFC 6793 §4.1, §6: never from a peer with four-octet numbers, and malformed ones go.
#[test]
fn as4_attributes() {
    for (code, value) in [
        (17, "0201 0000fc01"),
        (17, "00ff"),
        (18, "0000fc02 c0000203"),
        (18, ""),
    ] {
        both(
            "AS4 attribute from a new speaker",
            TRANSITIVE,
            code,
            value,
            &Discard,
        );
        both(
            "AS4 attribute with wrong flags",
            OPTIONAL,
            code,
            value,
            &Withdraw,
        );
    }
    let cases = [
        (17, "", Discard),
        (17, "0200", Discard),
        (17, "0201 fc01", Discard),
        (17, "0201 0000fc01 02", Discard),
        (17, "0501 0000fc01", Discard),
        (17, "0201 00000000", Discard),
        (17, "0101 0000fc01", Withdraw), // RFC 9774
        (17, "0201 0000fc01", Keep),
        (17, "0301 0000fc01 0201 0000fc01", Keep),
        (18, "fc02 c0000203", Discard),
        (18, "0000fc02 c0000203 00", Discard),
        (18, "00000000 c0000203", Discard),
        (18, "0000fc02 c0000203", Keep),
    ];
    for (code, value, expected) in cases {
        let row = attribute(TRANSITIVE, code, &hex(value));
        assert_eq!(outcome(&row, &OLD), expected, "attribute {code}: {value}");
    }
}

/// 2001:db8::1 in MP_REACH_NLRI.
const V6: &str = "20010db8000000000000000000000001";

/// RFC 7606 §5.3, §7.11, §7.12; RFC 4760 §7 for the subcode.
#[test]
fn malformed_multiprotocol_attributes() {
    let reach = [
        ("family cut short", "00"),
        ("no next hop length", "000201"),
        ("no reserved octet", "000201 10 V6"),
        ("next hop overruns", "000201 40 2001"),
        ("next hop of 9", "000201 09 200100000000000000 00"),
        ("IPv6 with next hop of 4", "000201 04 c0000201 00"),
        ("next hop of 0", "000101 00 00"),
        ("prefix of 129", "000201 10 V6 00 81 V6 00"),
        ("prefix overruns", "000201 10 V6 00 40 20010db8"),
        ("next hop of another family overruns", "000180 0c 00 00"),
    ];
    for (name, value) in reach {
        both(
            name,
            OPTIONAL,
            14,
            &value.replace("V6", V6),
            &Reset(9, true),
        );
    }
    let unreach = [
        ("family cut short", "0002"),
        ("prefix overruns", "000201 40 20010db8"),
        ("prefix of 33", "000101 21 0a00000000"),
    ];
    for (name, value) in unreach {
        both(name, OPTIONAL, 15, value, &Reset(9, true));
    }
}

/// RFC 4760 §7 leaves families alone that were not agreed on.
#[test]
fn multiprotocol_attributes_of_other_families() {
    both("MP_REACH_NLRI", OPTIONAL, 14, "400448 00 00 1234", &Discard);
    both("MP_UNREACH_NLRI", OPTIONAL, 15, "400448 1234", &Discard);
}

/// RFC 7606 §3 g.
#[test]
fn multiprotocol_attributes_twice() {
    for (code, value) in [
        (14, format!("000201 10 {V6} 00")),
        (15, "000201".to_owned()),
    ] {
        let twice = attribute(OPTIONAL, code, &hex(&value)).repeat(2);
        check("twice", &twice, Reset(1, false), Reset(1, false));
    }
}

/// RFC 7606 §3 g: the first one counts.
#[test]
fn duplicates() {
    for (code, flags, value, _) in KNOWN {
        let first = attribute(flags, code, &hex(value));
        let mut twice = first.clone();
        twice.extend(attribute(flags, code, &[0xee]));
        let frame = update_frame(&[], &section(&twice, &INTERNAL), &[8, 10]);
        let update = decode_update(&frame, &INTERNAL).unwrap();
        assert_eq!(update.faults.len(), 1);
        assert_eq!(
            (update.faults[0].code, update.faults[0].reaction),
            (code, Reaction::Discard)
        );
        let frame = update_frame(&[], &section(&first, &INTERNAL), &[8, 10]);
        assert_eq!(
            update.attributes,
            decode_update(&frame, &INTERNAL).unwrap().attributes
        );
    }
}

/// RFC 7606 §3 d, RFC 4271 §5.1.5.
#[test]
fn mandatory_attributes() {
    for (missing, external) in [(1, Withdraw), (2, Withdraw), (3, Withdraw), (5, Keep)] {
        for (context, expected) in [(&EXTERNAL, external), (&INTERNAL, Withdraw)] {
            let mut section = Vec::new();
            for (code, flags, value, _) in KNOWN.into_iter().filter(|(code, ..)| *code <= 5) {
                if code != missing && code != 4 && (code != 5 || context.ibgp) {
                    section.extend(attribute(flags, code, &hex(value)));
                }
            }
            let frame = update_frame(&[], &section, &[8, 10]);
            let update = decode_update(&frame, context).unwrap();
            let faults: Vec<u8> = update.faults.iter().map(|fault| fault.code).collect();
            if expected == Withdraw {
                assert_eq!(faults, [missing]);
                assert_eq!(withdrawn(&update), ["10.0.0.0/8"]);
            } else {
                assert_eq!(announced(&update), ["10.0.0.0/8"]);
            }
        }
    }
}

/// RFC 4271 §5, §6.3.
#[test]
fn unknown_attributes() {
    both("well-known", WELL_KNOWN, 99, "0102", &Reset(2, true));
    both("well-known of type 0", WELL_KNOWN, 0, "", &Reset(2, true));
    both(
        "neither optional nor transitive",
        0,
        99,
        "01",
        &Reset(2, true),
    );
    both("optional non-transitive", OPTIONAL, 99, "0102", &Keep);
    both("optional transitive", TRANSITIVE, 99, "0102", &Keep);
}

/// Attributes that routers of other kinds use, deprecated ones, reserved ones: whatever is in them is none of our business,
/// and has reset sessions of others half the Internet away. They are passed on with Partial set, octet for octet.
#[test]
fn attributes_of_others_are_never_looked_into() {
    for code in [
        11, 12, 13, 19, 20, 22, 23, 26, 28, 29, 33, 35, 40, 128, 129, 255,
    ] {
        for value in ["", "00", "0100ff000000", "ffffffffffffffffffff"] {
            both("somebody else's", TRANSITIVE, code, value, &Keep);
            let row = attribute(TRANSITIVE, code, &hex(value));
            let frame = update_frame(&[], &section(&row, &EXTERNAL), &[8, 10]);
            let attributes = decode_update(&frame, &EXTERNAL)
                .unwrap()
                .attributes
                .unwrap();
            let mut written = Vec::new();
            attributes.encode(&EXTERNAL, &mut written);
            assert!(written.ends_with(&attribute(TRANSITIVE | 0x20, code, &hex(value))));
            // Nor is one that is not transitive: it goes no further.
            let row = attribute(OPTIONAL, code, &hex(value));
            let frame = update_frame(&[], &section(&row, &EXTERNAL), &[8, 10]);
            let update = decode_update(&frame, &EXTERNAL).unwrap();
            assert_eq!(update.attributes, Some(base_attributes(&EXTERNAL)));
        }
    }
}

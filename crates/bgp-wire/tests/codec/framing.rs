//! Headers and OPENs: what is refused, and with which NOTIFICATION.

use bgp_wire::header::kind;
use bgp_wire::{Capability, Context, Family, Message, Notification, Open, RouteRefresh, header};

use crate::{EXTERNAL, frame, hex};

const EXTENDED: Context = Context {
    extended_message: true,
    ..EXTERNAL
};

/// What a frame's 19 octets are answered with; `Ok` with its length.
fn check(marker: u8, len: u16, kind: u8, context: &Context) -> Result<usize, Option<Notification>> {
    let mut buf = vec![marker; 16];
    buf.extend_from_slice(&len.to_be_bytes());
    assert_eq!(header::frame_len(&buf, context), Ok(None));
    buf.push(kind);
    header::frame_len(&buf, context)
        .map(Option::unwrap)
        .map_err(|error| error.notification)
}

fn bad_length(len: u16) -> Result<usize, Option<Notification>> {
    Err(Some(Notification::new(1, 2, len.to_be_bytes())))
}

#[test]
fn marker_comes_first_then_length_then_type() {
    assert_eq!(
        check(0xfe, 0, 99, &EXTERNAL),
        Err(Some(Notification::new(1, 1, [])))
    );
    assert_eq!(check(0xff, 18, 99, &EXTERNAL), bad_length(18));
    assert_eq!(
        check(0xff, 19, 99, &EXTERNAL),
        Err(Some(Notification::new(1, 3, [99])))
    );
    assert_eq!(
        check(0xff, 19, 0, &EXTERNAL),
        Err(Some(Notification::new(1, 3, [0])))
    );
}

#[test]
fn lengths_fit_the_type() {
    let limits = [
        (kind::OPEN, 29, 4096, 4096),
        (kind::UPDATE, 23, 4096, 65535),
        (kind::KEEPALIVE, 19, 19, 19),
        (kind::ROUTE_REFRESH, 23, 4096, 65535),
    ];
    for (kind, min, max, max_extended) in limits {
        for (context, max) in [(&EXTERNAL, max), (&EXTENDED, max_extended)] {
            assert_eq!(check(0xff, min, kind, context), Ok(min.into()));
            assert_eq!(check(0xff, max, kind, context), Ok(max.into()));
            assert_eq!(check(0xff, min - 1, kind, context), bad_length(min - 1));
            if max < u16::MAX {
                assert_eq!(check(0xff, max + 1, kind, context), bad_length(max + 1));
            }
        }
    }
}

#[test]
fn a_notification_is_never_answered() {
    assert_eq!(check(0xff, 21, kind::NOTIFICATION, &EXTERNAL), Ok(21));
    assert_eq!(check(0xff, 20, kind::NOTIFICATION, &EXTERNAL), Err(None));
    assert_eq!(check(0xff, 4097, kind::NOTIFICATION, &EXTERNAL), Err(None));
}

#[test]
fn a_frame_must_be_as_long_as_it_says() {
    let mut bytes = frame(kind::KEEPALIVE, &[]);
    assert_eq!(header::decode(&bytes, &EXTERNAL), Ok(Message::Keepalive));
    bytes.push(0);
    assert!(header::decode(&bytes, &EXTERNAL).is_err());
    assert!(header::decode(&bytes[..18], &EXTERNAL).is_err());
}

/// OPEN with these optional parameters, and their length octet.
fn open(parameters: &str) -> Result<Open, Notification> {
    decode_open(&format!("04 fc00 005a c0000201 {parameters}"))
}

fn decode_open(body: &str) -> Result<Open, Notification> {
    match header::decode(&frame(kind::OPEN, &hex(body)), &EXTERNAL) {
        Ok(Message::Open(open)) => Ok(open),
        Ok(other) => panic!("not an OPEN: {other:?}"),
        Err(error) => Err(error.notification.unwrap()),
    }
}

#[test]
fn open_fields() {
    let cases = [
        ("03 fc00 005a c0000201 00", 1, vec![0, 4]),
        ("05 fc00 005a c0000201 00", 1, vec![0, 4]),
        ("04 0000 005a c0000201 00", 2, vec![]),
        ("04 5ba0 005a c0000201 08 0206 4104 00000000", 2, vec![]),
        ("04 fc00 005a 00000000 00", 3, vec![]),
        ("04 fc00 0001 c0000201 00", 6, vec![]),
        ("04 fc00 0002 c0000201 00", 6, vec![]),
    ];
    for (body, subcode, data) in cases {
        assert_eq!(
            decode_open(body),
            Err(Notification::new(2, subcode, data)),
            "{body}"
        );
    }
    for (hold_time, body) in [
        (0, "04 fc00 0000 00000001 00"),
        (3, "04 fc00 0003 ffffffff 00"),
    ] {
        assert_eq!(decode_open(body).unwrap().hold_time, hold_time);
    }
    // Without capabilities a speaker means IPv4 unicast.
    assert_eq!(open("00").unwrap().families(), [Family::IPV4_UNICAST]);
}

#[test]
fn open_parameters_stay_in_their_bounds() {
    let malformed = [
        "01",                       // said, but not there
        "02 0206",                  // parameter overruns the parameters
        "01 02",                    // parameter without length
        "00 0202 0200",             // there, but not said
        "04 0202 0201",             // capability overruns its parameter
        "03 0201 02",               // capability without length
        "06 0204 0102 0001",        // multiprotocol of 2 octets
        "09 0207 0105 0001000100",  // multiprotocol of 5 octets
        "07 0205 4103 00fc00",      // AS number of 3 octets
        "05 0203 4001 00",          // graceful restart of 1 octet
        "09 0207 4005 00780001 01", // graceful restart with a part of a family
        "09 0207 0505 0001000100",  // extended next hop with a part of an item
        "ff ff",                    // extended parameters without length
        "ff ff 0004 02 0002",       // extended parameters shorter than said
        "ff ff 0003 02 0001",       // extended parameter overruns the parameters
    ];
    for parameters in malformed {
        assert_eq!(
            open(parameters),
            Err(Notification::new(2, 0, [])),
            "{parameters}"
        );
    }
    assert_eq!(open("02 0100"), Err(Notification::new(2, 4, [])));
    assert_eq!(open("ff ff 0003 01 0000"), Err(Notification::new(2, 4, [])));
}

/// RFC 5492 §4: one parameter with several capabilities, several with one, an empty one; unknown capabilities are none of
/// our business.
#[test]
fn capabilities_in_one_or_several_parameters() {
    let expected = [
        Capability::Multiprotocol(Family::IPV6_UNICAST),
        Capability::Unknown {
            code: 199,
            value: vec![1, 2, 3],
        },
        Capability::RouteRefresh,
    ];
    for parameters in [
        "0f 020d 0104 00020001 c703 010203 0200",
        "13 0206 0104 00020001 0205 c703 010203 0202 0200",
        "13 0200 0206 0104 00020001 0207 c703 010203 0200",
        "ff ff 0016 02 0006 0104 00020001 02 0000 02 0007 c703 010203 0200",
    ] {
        assert_eq!(
            open(parameters).unwrap().capabilities,
            expected,
            "{parameters}"
        );
    }
}

/// RFC 9072 §2: 255 means the extended form in the first place only.
#[test]
fn type_255_elsewhere_is_an_unknown_parameter() {
    for parameters in ["07 0202 0200 ff01 00", "ff ff 0008 02 0002 0200 ff 0000"] {
        assert_eq!(
            open(parameters),
            Err(Notification::new(2, 4, [])),
            "{parameters}"
        );
    }
    // Nor does it mean anything where there are no parameters.
    assert_eq!(open("00 ff"), Err(Notification::new(2, 0, [])));
}

#[test]
fn open_in_extended_form() {
    // RFC 9072 §2: the length octet is 255, or anything but 0.
    for parameters in ["ff ff 0005 02 0002 0200", "01 ff 0005 02 0002 0200"] {
        assert_eq!(
            open(parameters).unwrap().capabilities,
            [Capability::RouteRefresh]
        );
    }
    // Written where 255 octets are too few, and read back.
    let unknown = |len| Capability::Unknown {
        code: 200,
        value: vec![7; len],
    };
    for (capabilities, len) in [
        (vec![unknown(251)], 29 + 255),
        (vec![unknown(252)], 29 + 3 + 3 + 254),
        (vec![unknown(255); 15], 29 + 6 + 15 * 257),
    ] {
        let open = Open {
            asn: 1,
            hold_time: 90,
            router_id: [1, 1, 1, 1].into(),
            capabilities,
        };
        let mut bytes = Vec::new();
        open.encode(&mut bytes);
        assert_eq!(bytes.len(), len);
        assert_eq!(header::decode(&bytes, &EXTERNAL), Ok(Message::Open(open)));
    }
}

#[test]
fn open_never_outgrows_a_message() {
    let value = |len| Capability::Unknown {
        code: 200,
        value: vec![0; len],
    };
    let capabilities = vec![value(255); 20];
    let mut open = Open {
        asn: 70000,
        hold_time: 0,
        router_id: [1, 1, 1, 1].into(),
        capabilities,
    };
    let mut bytes = Vec::new();
    open.encode(&mut bytes);
    assert!(bytes.len() <= header::MAX_LEN);
    // A value that no length octet can say is left out, and nothing else.
    open.capabilities = vec![value(256), Capability::RouteRefresh];
    bytes.clear();
    open.encode(&mut bytes);
    let Message::Open(decoded) = header::decode(&bytes, &EXTERNAL).unwrap() else {
        unreachable!()
    };
    assert_eq!(decoded.capabilities, [Capability::RouteRefresh]);
    assert_eq!(decoded.asn, u32::from(bgp_wire::AS_TRANS));
}

#[test]
fn repeated_capabilities_are_kept_and_the_last_counts() {
    let restarting = open("0a 0208 4002 0078 4002 805a").unwrap();
    let restart = restarting.graceful_restart().unwrap();
    assert!(
        restart.restarted && restart.restart_time == 90,
        "RFC 4724 §3"
    );
    let open = open("12 0206 4104 0000fc01 0208 4104 0000fc02 0200").unwrap();
    assert_eq!(open.asn, 64514);
    assert_eq!(open.capabilities.len(), 3);
}

#[test]
fn contexts_are_negotiated() {
    let with = |asn, capabilities| Open {
        asn,
        hold_time: 90,
        router_id: [1, 1, 1, 1].into(),
        capabilities,
    };
    let all = with(
        1,
        vec![Capability::FourOctetAs(1), Capability::ExtendedMessage],
    );
    let four = with(2, vec![Capability::FourOctetAs(2)]);
    assert_eq!(Context::negotiated(&all, &four), EXTERNAL);
    let both = Context {
        four_octet_as: true,
        extended_message: true,
        ibgp: true,
    };
    assert_eq!(Context::negotiated(&all, &all), both);
    assert_eq!(
        Context::negotiated(&with(1, vec![]), &four),
        Context::default()
    );
}

#[test]
fn route_refresh() {
    let request = RouteRefresh::request(Family::IPV6_UNICAST);
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    assert_eq!(bytes, frame(kind::ROUTE_REFRESH, &hex("0002 00 01")));
    assert_eq!(
        header::decode(&bytes, &EXTERNAL),
        Ok(Message::RouteRefresh(request))
    );
    // With ORF entries, which we never asked for.
    let with_orf = frame(kind::ROUTE_REFRESH, &hex("0002 00 01 01 40 0000"));
    assert_eq!(
        header::decode(&with_orf, &EXTERNAL),
        Ok(Message::RouteRefresh(request))
    );
    // RFC 7313 §5: a subtype that is not known goes up as it is, to be ignored.
    let unknown = RouteRefresh {
        subtype: 3,
        ..request
    };
    let bytes = frame(kind::ROUTE_REFRESH, &hex("0002 03 01"));
    assert_eq!(
        header::decode(&bytes, &EXTERNAL),
        Ok(Message::RouteRefresh(unknown))
    );
    // RFC 7313 §5: BoRR and EoRR have a length, and the error has the message as data.
    for subtype in [RouteRefresh::BEGIN, RouteRefresh::END] {
        let refresh = RouteRefresh { subtype, ..request };
        let mut bytes = Vec::new();
        refresh.encode(&mut bytes);
        assert_eq!(
            header::decode(&bytes, &EXTERNAL),
            Ok(Message::RouteRefresh(refresh))
        );
    }
    let bytes = frame(kind::ROUTE_REFRESH, &hex("0002 01 01 00"));
    let error = header::decode(&bytes, &EXTERNAL).unwrap_err();
    assert_eq!(error.notification, Some(Notification::new(7, 1, bytes)));
}

//! NOTIFICATIONs as people read them.

use bgp_wire::{Family, Notification};

#[test]
fn display() {
    let cases = [
        (Notification::new(4, 0, []), "Hold Timer Expired"),
        (Notification::new(8, 0, []), "Send Hold Timer Expired"),
        (
            Notification::new(2, 1, [0, 4]),
            "OPEN Message Error/Unsupported Version Number (data 0004)",
        ),
        (
            Notification::new(5, 3, [1]),
            "Finite State Machine Error/Unexpected Message in Established (data 01)",
        ),
        (Notification::new(6, 99, []), "Cease/subcode 99"),
        (Notification::new(77, 1, []), "code 77/subcode 1"),
        (
            Notification::cease(7),
            "Cease/Connection Collision Resolution",
        ),
        (
            Notification::shutdown("maintenance"),
            "Cease/Administrative Shutdown: maintenance",
        ),
        (
            Notification::reset(""),
            "Cease/Administrative Reset (data 00)",
        ),
        (
            Notification::maximum_prefixes(Family::IPV4_UNICAST, 100),
            "Cease/Maximum Number of Prefixes Reached: 100 of ipv4-unicast",
        ),
        (
            Notification::hard_reset(&Notification::shutdown("bye")),
            "Cease/Hard Reset (Cease/Administrative Shutdown: bye)",
        ),
    ];
    for (notification, text) in cases {
        assert_eq!(notification.to_string(), text);
    }
}

#[test]
fn a_communication_cannot_play_tricks_on_a_terminal() {
    let notification = Notification::shutdown("a\x1b[2Jb\u{202e}c\n");
    assert_eq!(
        notification.to_string(),
        r"Cease/Administrative Shutdown: a\u{1b}[2Jb\u{202e}c\n"
    );
    assert_eq!(notification.communication(), Some("a\x1b[2Jb\u{202e}c\n"));
}

#[test]
fn a_malformed_communication_is_shown_as_bytes() {
    // Longer than what is there, no UTF-8, a character cut in two, empty.
    let overlong = [&[255][..], &[b'a'; 254]].concat();
    for data in [
        vec![5, b'a'],
        vec![1, 0xff],
        vec![1, 0xc3, 0xa4],
        vec![0],
        overlong,
    ] {
        let notification = Notification::new(6, 2, data);
        assert_eq!(notification.communication(), None);
        assert!(
            notification
                .to_string()
                .starts_with("Cease/Administrative Shutdown (data ")
        );
    }
}

#[test]
fn a_long_communication_is_cut_between_characters() {
    let notification = Notification::shutdown(&"ä".repeat(200));
    assert_eq!(notification.communication(), Some("ä".repeat(127).as_str()));
    assert_eq!(notification.data.len(), 255);
}

#[test]
fn hard_reset_says_what_it_stands_for() {
    let inner = Notification::cease(3);
    assert_eq!(
        Notification::hard_reset(&inner).encapsulated(),
        Some(inner.clone())
    );
    assert_eq!(inner.encapsulated(), None);
    let twice = Notification::hard_reset(&Notification::hard_reset(&inner));
    assert_eq!(twice.to_string(), "Cease/Hard Reset (data 06090603)");
}

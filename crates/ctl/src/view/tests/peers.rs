use api::{
    Direction, GracefulRestart, MessageCounts, Messages, Peer, PeerKind, Peers, PrefixCounts,
    SessionError, SessionState, Timers,
};
use expect_test::expect;

use super::super::peers;
use super::{NARROW, WIDE};
use crate::run::Style;

const COLOUR: Style = Style {
    wide: false,
    colour: true,
};

pub(super) fn established() -> Peer {
    Peer {
        address: "192.0.2.1".parse().unwrap(),
        port: 179,
        asn: 65001,
        local_asn: 64512,
        kind: PeerKind::External,
        origin: "BGPPeer/tor-a".to_owned(),
        passive: false,
        range: None,
        authentication: None,
        halted: None,
        state: SessionState::Established,
        since: Some("2026-01-02T03:04:05Z".to_owned()),
        state_seconds: 10_920,
        local_address: Some("192.0.2.10".parse().unwrap()),
        local_router_id: "192.0.2.10".parse().unwrap(),
        router_id: Some("192.0.2.1".parse().unwrap()),
        timers: Timers {
            configured_hold_seconds: 90,
            hold_seconds: Some(9),
            keepalive_seconds: Some(3),
        },
        graceful_restart: Some(GracefulRestart {
            our_seconds: 120,
            peer_seconds: Some(60),
            helping: false,
            stale: 0,
        }),
        families: vec!["ipv4-unicast".to_owned()],
        capabilities: vec!["four-octet AS".to_owned(), "route refresh".to_owned()],
        prefixes: PrefixCounts {
            received: 12,
            accepted: 11,
            advertised: 1,
            limit: None,
        },
        messages: MessageCounts {
            received: Messages {
                total: 120,
                updates: 12,
                notifications: 0,
            },
            sent: Messages {
                total: 118,
                updates: 1,
                notifications: 1,
            },
            malformed_updates: 2,
        },
        flaps: 1,
        last_error: Some(SessionError {
            message: "Hold Timer Expired".to_owned(),
            direction: Direction::Sent,
            code: Some((4, 0)),
            time: None,
            seconds_ago: 10_950,
        }),
        synced: true,
        last_attempt: None,
        next_retry_seconds: None,
    }
}

fn down(
    address: &str,
    state: SessionState,
    error: Option<(Direction, &str)>,
    retry: Option<u64>,
) -> Peer {
    Peer {
        address: address.parse().unwrap(),
        asn: 64512,
        kind: PeerKind::Internal,
        origin: "mesh/n2".to_owned(),
        state,
        since: None,
        state_seconds: 12,
        local_address: None,
        router_id: None,
        timers: Timers {
            configured_hold_seconds: 90,
            ..Timers::default()
        },
        graceful_restart: None,
        families: Vec::new(),
        capabilities: Vec::new(),
        prefixes: PrefixCounts::default(),
        messages: MessageCounts::default(),
        last_error: error.map(|(direction, message)| SessionError {
            message: message.to_owned(),
            direction,
            code: None,
            time: None,
            seconds_ago: 12,
        }),
        next_retry_seconds: retry,
        ..established()
    }
}

pub(super) fn some_down() -> Peers {
    let mut passive = down("192.0.2.5", SessionState::Active, None, None);
    passive.passive = true;
    Peers {
        node: "n1".to_owned(),
        peers: vec![
            established(),
            down(
                "192.0.2.2",
                SessionState::Active,
                Some((Direction::Connection, "Connection refused")),
                Some(3),
            ),
            down(
                "192.0.2.3",
                SessionState::Idle,
                Some((
                    Direction::Received,
                    "Cease/Administrative Shutdown: \"rack move\"",
                )),
                Some(130),
            ),
            down("192.0.2.4", SessionState::OpenSent, None, None),
            passive,
        ],
    }
}

#[test]
fn peers_all_up() {
    let all = Peers {
        node: "n1".to_owned(),
        peers: vec![established()],
    };
    assert!(peers::is_well(&all));
    expect![[r#"
        PEER       ASN    TYPE  STATE        UPTIME  RECEIVED  ACCEPTED  ADVERTISED
        192.0.2.1  65001  eBGP  Established  3h2m    12        11        1
    "#]]
    .assert_eq(&peers::table(&all, NARROW));
    expect![[r#"
        PEER       ASN    TYPE  STATE        UPTIME  RECEIVED  ACCEPTED  ADVERTISED
        192.0.2.1  65001  eBGP  ESC[32mEstablishedESC[0m  3h2m    12        11        1
    "#]]
    .assert_eq(&peers::table(&all, COLOUR).replace('\u{1b}', "ESC"));
    expect![[r#"
        No peers are configured for node n1.
    "#]]
    .assert_eq(&peers::table(
        &Peers {
            node: "n1".to_owned(),
            peers: vec![],
        },
        NARROW,
    ));
}

#[test]
fn peers_that_are_down_say_why() {
    assert!(!peers::is_well(&some_down()));
    expect![[r#"
        PEER       ASN    TYPE  STATE        UPTIME  RECEIVED  ACCEPTED  ADVERTISED  WHY
        192.0.2.1  65001  eBGP  Established  3h2m    12        11        1           -
        192.0.2.2  64512  iBGP  Active       -       0         0         0           Connection refused, 12s ago; next try in 3s
        192.0.2.3  64512  iBGP  Idle         -       0         0         0           it said: Cease/Administrative Shutdown: "rack move", 12s ago; next try in 2m10s
        192.0.2.4  64512  iBGP  OpenSent     -       0         0         0           connected, agreeing on the session
        192.0.2.5  64512  iBGP  Active       -       0         0         0           no connection so far; waiting for it to connect (passive)
    "#]].assert_eq(&peers::table(&some_down(), NARROW));
    expect![[r#"
        PEER       ASN    TYPE  STATE        UPTIME  RECEIVED  ACCEPTED  ADVERTISED  LOCAL       HOLD  GR    FLAPS  LAST-ERROR                                                                       ORIGIN
        192.0.2.1  65001  eBGP  Established  3h2m    12        11        1           192.0.2.10  9s    both  1      we ended it: Hold Timer Expired, 3h2m ago                                        BGPPeer/tor-a
        192.0.2.2  64512  iBGP  Active       -       0         0         0           -           -     off   1      Connection refused, 12s ago; next try in 3s                                      mesh/n2
        192.0.2.3  64512  iBGP  Idle         -       0         0         0           -           -     off   1      it said: Cease/Administrative Shutdown: "rack move", 12s ago; next try in 2m10s  mesh/n2
        192.0.2.4  64512  iBGP  OpenSent     -       0         0         0           -           -     off   1      connected, agreeing on the session                                               mesh/n2
        192.0.2.5  64512  iBGP  Active       -       0         0         0           -           -     off   1      no connection so far; waiting for it to connect (passive)                        mesh/n2
    "#]].assert_eq(&peers::table(&some_down(), WIDE));
}

#[test]
fn one_peer_is_a_page() {
    expect![[r#"
        Peer 192.0.2.1 is Established for 3h2m, since 2026-01-02T03:04:05Z
          AS                65001 (external: ours is 64512)
          Asked for by      BGPPeer/tor-a
          Connection        from 192.0.2.10 to 192.0.2.1 port 179
          Router ids        ours 192.0.2.10, its 192.0.2.1
          Hold time         9s in force, a KEEPALIVE every 3s (we propose 90s)
          Graceful restart  it shall keep our routes for 120s; we keep its routes for 60s
          Families          ipv4-unicast
          Capabilities      four-octet AS, route refresh
          Prefixes          12 received, 11 accepted, 1 advertised
          Received          120 messages: 12 UPDATEs, 0 NOTIFICATIONs
          Sent              118 messages: 1 UPDATE, 1 NOTIFICATION
          Malformed         2 UPDATEs, handled by RFC 7606
          Sessions lost     1
          Last error        we ended it: Hold Timer Expired, 3h2m ago

        1 prefix is refused; why: margayctl bgp routes --from 192.0.2.1
    "#]]
    .assert_eq(&peers::page(&established(), NARROW));
    expect![[r#"
        Peer 192.0.2.2 is Active for 12s
          Why               Connection refused, 12s ago; next try in 3s
          AS                64512 (internal: the same as ours)
          Asked for by      mesh/n2
          Connection        to 192.0.2.2 port 179
          Router ids        ours 192.0.2.10
          Hold time         we propose 90s
          Graceful restart  off: a restart of ours withdraws our routes
          Prefixes          0 received, 0 accepted, 0 advertised
          Received          0 messages: 0 UPDATEs, 0 NOTIFICATIONs
          Sent              0 messages: 0 UPDATEs, 0 NOTIFICATIONs
          Sessions lost     1
          Last error        Connection refused, 12s ago
    "#]]
    .assert_eq(&peers::page(&some_down().peers[1], NARROW));
    let mut helping = down("192.0.2.2", SessionState::Connect, None, None);
    helping.graceful_restart = Some(GracefulRestart {
        our_seconds: 120,
        peer_seconds: None,
        helping: true,
        stale: 12,
    });
    expect![[r#"
        Peer 192.0.2.2 is Connect for 12s
          Why               connecting, no answer so far
          AS                64512 (internal: the same as ours)
          Asked for by      mesh/n2
          Connection        to 192.0.2.2 port 179
          Router ids        ours 192.0.2.10
          Hold time         we propose 90s
          Graceful restart  it shall keep our routes for 120s; we keep its 12 routes while it restarts
          Prefixes          0 received, 0 accepted, 0 advertised
          Received          0 messages: 0 UPDATEs, 0 NOTIFICATIONs
          Sent              0 messages: 0 UPDATEs, 0 NOTIFICATIONs
          Sessions lost     1
    "#]].assert_eq(&peers::page(&helping, NARROW));
}

#[test]
fn what_graceful_restart_does() {
    let page = |peer: &Peer| {
        let page = peers::page(peer, NARROW);
        let line = page.lines().find(|line| line.contains("Graceful restart"));
        line.unwrap()[20..].to_owned()
    };
    let mut peer = established();
    let gr = peer.graceful_restart.as_mut().unwrap();
    gr.stale = 1;
    assert_eq!(
        page(&peer),
        "it shall keep our routes for 120s; we keep its routes for 60s; 1 route is still of before its restart"
    );
    peer.graceful_restart = Some(GracefulRestart {
        our_seconds: 120,
        ..GracefulRestart::default()
    });
    assert_eq!(
        page(&peer),
        "it shall keep our routes for 120s; it offers none"
    );
    peer.router_id = None;
    assert_eq!(
        page(&peer),
        "it shall keep our routes for 120s; its own offer comes with the session"
    );
}

#[test]
fn the_last_attempt_is_the_news() {
    let attempt = || {
        Some(SessionError {
            message: "Connection refused".to_owned(),
            direction: Direction::Connection,
            code: None,
            time: None,
            seconds_ago: 2,
        })
    };
    let mut peer = down("192.0.2.2", SessionState::Active, None, Some(3));
    peer.last_attempt = attempt();
    assert_eq!(
        peers::why(&peer),
        "Connection refused, 2s ago; next try in 3s"
    );
    let lost = Some((Direction::Connection, "closed by peer"));
    let mut peer = down("192.0.2.2", SessionState::Active, lost, Some(3));
    peer.last_attempt = attempt();
    assert_eq!(
        peers::why(&peer),
        "Connection refused, 2s ago; next try in 3s"
    );
    let told = Some((Direction::Received, "Cease/Administrative Shutdown"));
    let mut peer = down("192.0.2.2", SessionState::Active, told, Some(3));
    peer.last_attempt = attempt();
    assert_eq!(
        peers::why(&peer),
        "Connection refused, 2s ago; before that, it said: Cease/Administrative Shutdown, 12s ago; next try in 3s"
    );
    let page = peers::page(&peer, NARROW);
    assert!(
        page.contains("Last attempt      Connection refused, 2s ago\n"),
        "{page}"
    );
}

mod status;

use api::{
    BgpPath, BgpRoute, BgpRoutes, Direction, Endpoint, Endpoints, GracefulRestart, Hop,
    KernelRoute, KernelRouteKind, KernelRouteState, KernelRoutes, MessageCounts, Messages,
    PathState, Peer, PeerKind, Peers, PodName, PrefixCounts, SessionError, SessionState, Target,
    Timers,
};
use expect_test::expect;

use super::{bgp_routes, endpoints, peers, routes};
use crate::cli::{Prefix, Routes};
use crate::run::Style;

const NARROW: Style = Style {
    wide: false,
    colour: false,
};
const WIDE: Style = Style {
    wide: true,
    colour: false,
};
const COLOUR: Style = Style {
    wide: false,
    colour: true,
};

fn established() -> Peer {
    Peer {
        address: "192.0.2.1".parse().unwrap(),
        port: 179,
        asn: 65001,
        local_asn: 64512,
        kind: PeerKind::External,
        origin: "BGPPeer/tor-a".to_owned(),
        passive: false,
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

fn some_down() -> Peers {
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

fn path(state: PathState, reason: &str, from: Option<&str>, next_hop: Option<&str>) -> BgpPath {
    BgpPath {
        state,
        reason: reason.to_owned(),
        from: from.map(|from| from.parse().unwrap()),
        next_hop: next_hop.map(|next_hop| next_hop.parse().unwrap()),
        as_path: if from.is_some() {
            "65001 65002".to_owned()
        } else {
            String::new()
        },
        origin: "igp".to_owned(),
        local_pref: from.map(|_| 100),
        med: None,
        communities: vec!["64512:100".to_owned(), "no-export".to_owned()],
        originator_id: None,
        cluster_list: Vec::new(),
        stale: false,
    }
}

fn asked(from: Option<&str>, to: Option<&str>) -> Routes {
    Routes {
        prefix: None,
        from: from.map(|peer| peer.parse().unwrap()),
        to: to.map(|peer| peer.parse().unwrap()),
    }
}

#[test]
fn bgp_routes_say_which_path_won_and_why() {
    let tor = Some("192.0.2.1");
    let mut stale = path(
        PathState::Multipath,
        "equal to the best",
        Some("192.0.2.2"),
        Some("192.0.2.2"),
    );
    stale.stale = true;
    let rib = BgpRoutes {
        node: "n1".to_owned(),
        routes: vec![
            BgpRoute {
                prefix: "10.244.1.0/24".parse().unwrap(),
                paths: vec![path(PathState::Best, "only path", None, None)],
            },
            BgpRoute {
                prefix: "10.244.2.0/24".parse().unwrap(),
                paths: vec![
                    path(PathState::Best, "lowest router id", tor, tor),
                    stale,
                    path(
                        PathState::Candidate,
                        "longer AS path",
                        Some("192.0.2.3"),
                        Some("192.0.2.3"),
                    ),
                ],
            },
        ],
    };
    expect![[r#"
        PREFIX         NEXT-HOP   FROM       AS-PATH      PREF  MED  BEST       REASON
        10.244.1.0/24  -          local      -            -     -    yes        only path
        10.244.2.0/24  192.0.2.1  192.0.2.1  65001 65002  100   -    yes        lowest router id
        10.244.2.0/24  192.0.2.2  192.0.2.2  65001 65002  100   -    multipath  equal to the best (stale: its peer is restarting)
        10.244.2.0/24  192.0.2.3  192.0.2.3  65001 65002  100   -    no         longer AS path
    "#]].assert_eq(&bgp_routes::table(&rib, &asked(None, None), NARROW));
    expect![[r#"
        PREFIX         NEXT-HOP   FROM       AS-PATH      PREF  MED  BEST       REASON                                             ORIGIN  COMMUNITIES
        10.244.1.0/24  -          local      -            -     -    yes        only path                                          igp     64512:100,no-export
        10.244.2.0/24  192.0.2.1  192.0.2.1  65001 65002  100   -    yes        lowest router id                                   igp     64512:100,no-export
        10.244.2.0/24  192.0.2.2  192.0.2.2  65001 65002  100   -    multipath  equal to the best (stale: its peer is restarting)  igp     64512:100,no-export
        10.244.2.0/24  192.0.2.3  192.0.2.3  65001 65002  100   -    no         longer AS path                                     igp     64512:100,no-export
    "#]].assert_eq(&bgp_routes::table(&rib, &asked(None, None), WIDE));
}

#[test]
fn bgp_routes_of_one_peer_say_what_passes() {
    let tor = Some("192.0.2.1");
    let from = BgpRoutes {
        node: "n1".to_owned(),
        routes: vec![
            BgpRoute {
                prefix: "10.244.2.0/24".parse().unwrap(),
                paths: vec![path(PathState::Best, "", tor, tor)],
            },
            BgpRoute {
                prefix: "0.0.0.0/0".parse().unwrap(),
                paths: vec![path(
                    PathState::Rejected,
                    "default: outside the pod ranges",
                    tor,
                    tor,
                )],
            },
        ],
    };
    expect![[r#"
        PREFIX         NEXT-HOP   FROM       AS-PATH      PREF  MED  IMPORT          REASON
        10.244.2.0/24  192.0.2.1  192.0.2.1  65001 65002  100   -    accepted, best  -
        0.0.0.0/0      192.0.2.1  192.0.2.1  65001 65002  100   -    rejected        default: outside the pod ranges
    "#]].assert_eq(&bgp_routes::table(&from, &asked(tor, None), NARROW));
    let to = BgpRoutes {
        node: "n1".to_owned(),
        routes: vec![
            BgpRoute {
                prefix: "10.244.1.0/24".parse().unwrap(),
                paths: vec![path(PathState::Advertised, "", None, Some("192.0.2.10"))],
            },
            BgpRoute {
                prefix: "10.244.2.0/24".parse().unwrap(),
                paths: vec![path(
                    PathState::NotAdvertised,
                    "default: not this node's own route",
                    tor,
                    tor,
                )],
            },
        ],
    };
    expect![[r#"
        PREFIX         NEXT-HOP    AS-PATH      PREF  MED  SENT  REASON
        10.244.1.0/24  192.0.2.10  -            -     -    yes   -
        10.244.2.0/24  192.0.2.1   65001 65002  100   -    no    default: not this node's own route
    "#]]
    .assert_eq(&bgp_routes::table(&to, &asked(None, tor), NARROW));
    let none = BgpRoutes {
        node: "n1".to_owned(),
        routes: vec![],
    };
    let one = Routes {
        prefix: Some(Prefix("10.9.0.0/16".to_owned())),
        ..asked(None, None)
    };
    expect![[r#"
        Node n1 has no BGP routes for 10.9.0.0/16.
    "#]]
    .assert_eq(&bgp_routes::table(&none, &one, NARROW));
    expect![[r#"
        Peer 192.0.2.1 sent no routes.
    "#]]
    .assert_eq(&bgp_routes::table(&none, &asked(tor, None), NARROW));
}

fn target(hops: &[(Option<&str>, &str)]) -> Target {
    let hop = |(via, dev): &(Option<&str>, &str)| Hop {
        via: via.map(|via| via.parse().unwrap()),
        dev: Some((*dev).to_owned()),
    };
    Target {
        blackhole: false,
        next_hops: hops.iter().map(hop).collect(),
    }
}

fn kernel_route(
    prefix: &str,
    kind: KernelRouteKind,
    state: KernelRouteState,
    desired: Option<Target>,
    kernel: Option<Target>,
) -> KernelRoute {
    KernelRoute {
        prefix: prefix.parse().unwrap(),
        metric: 1024,
        kind,
        desired,
        kernel,
        state,
        error: None,
        pod: None,
    }
}

#[test]
fn kernel_routes_beside_the_desired_ones() {
    use KernelRouteKind::{Blackhole, Learned, Pod, Unknown};
    use KernelRouteState::{Foreign, Leftover, Missing, Ok, Unresolved, Wrong};
    let veth = || Some(target(&[(None, "mgy0123456789ab")]));
    let tor = || Some(target(&[(Some("192.0.2.1"), "eth0")]));
    let both = || {
        Some(target(&[
            (Some("192.0.2.1"), "eth0"),
            (Some("198.51.100.1"), "eth1"),
        ]))
    };
    let hole = || {
        Some(Target {
            blackhole: true,
            next_hops: vec![],
        })
    };
    let mut pod = kernel_route("10.244.1.7/32", Pod, Ok, veth(), veth());
    pod.pod = Some(PodName {
        namespace: "default".to_owned(),
        name: "web-0".to_owned(),
    });
    let mut well = KernelRoutes {
        node: "n1".to_owned(),
        routes: vec![
            kernel_route("10.244.1.0/24", Blackhole, Ok, hole(), hole()),
            pod,
            kernel_route("10.244.2.0/24", Learned, Ok, both(), both()),
        ],
    };
    expect![[r#"
        PREFIX         KIND       DESIRED                                             KERNEL                                              STATE
        10.244.1.0/24  blackhole  blackhole                                           blackhole                                           ok
        10.244.1.7/32  pod        dev mgy0123456789ab                                 dev mgy0123456789ab                                 ok
        10.244.2.0/24  learned    via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  ok
    "#]].assert_eq(&routes::table(&well, NARROW));
    expect![[r#"
        PREFIX         KIND       DESIRED                                             KERNEL                                              STATE  METRIC  POD
        10.244.1.0/24  blackhole  blackhole                                           blackhole                                           ok     1024    -
        10.244.1.7/32  pod        dev mgy0123456789ab                                 dev mgy0123456789ab                                 ok     1024    default/web-0
        10.244.2.0/24  learned    via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  ok     1024    -
    "#]].assert_eq(&routes::table(&well, WIDE));
    assert!(routes::is_well(&well));
    for (state, expected) in [
        (Ok, true),
        (Leftover, true),
        (Missing, false),
        (Wrong, false),
        (Foreign, false),
        (Unresolved, false),
    ] {
        let one = KernelRoutes {
            node: "n1".to_owned(),
            routes: vec![kernel_route("10.244.3.0/24", Learned, state, tor(), None)],
        };
        assert_eq!(routes::is_well(&one), expected, "{state:?}");
    }
    let mut unresolved = kernel_route("10.244.6.0/24", Learned, Unresolved, None, None);
    unresolved.error = Some("no route to next hop 203.0.113.9".to_owned());
    let foreign = kernel_route("10.244.5.0/24", Learned, Foreign, tor(), None);
    well.routes.extend([
        kernel_route("10.244.3.0/24", Learned, Missing, tor(), None),
        kernel_route("10.244.4.0/24", Learned, Wrong, both(), tor()),
        foreign,
        unresolved,
        kernel_route("10.244.7.0/24", Unknown, Leftover, None, tor()),
    ]);
    expect![[r#"
        PREFIX         KIND       DESIRED                                             KERNEL                                              STATE       REASON
        10.244.1.0/24  blackhole  blackhole                                           blackhole                                           ok          -
        10.244.1.7/32  pod        dev mgy0123456789ab                                 dev mgy0123456789ab                                 ok          -
        10.244.2.0/24  learned    via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  ok          -
        10.244.3.0/24  learned    via 192.0.2.1 dev eth0                              -                                                   missing     about to be written
        10.244.4.0/24  learned    via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  via 192.0.2.1 dev eth0                              wrong       about to be written
        10.244.5.0/24  learned    via 192.0.2.1 dev eth0                              -                                                   foreign     somebody else's route stands in its place
        10.244.6.0/24  learned    -                                                   -                                                   unresolved  no route to next hop 203.0.113.9
        10.244.7.0/24  unknown    -                                                   via 192.0.2.1 dev eth0                              leftover    ours, from before; goes once all peers have sent their routes
    "#]].assert_eq(&routes::table(&well, NARROW));
}

#[test]
fn endpoints_by_pod() {
    let all = Endpoints {
        node: "n1".to_owned(),
        endpoints: vec![
            Endpoint {
                container_id: "0123456789abcdef0123456789abcdef".to_owned(),
                pod: Some(PodName {
                    namespace: "default".to_owned(),
                    name: "web-0".to_owned(),
                }),
                ifname: "eth0".to_owned(),
                host_ifname: "mgy0123456789ab".to_owned(),
                addresses: vec!["10.244.1.7".parse().unwrap()],
                mac: "0a:58:0a:f4:01:07".to_owned(),
            },
            Endpoint {
                container_id: "abc".to_owned(),
                pod: None,
                ifname: "eth0".to_owned(),
                host_ifname: "mgyab0123456789".to_owned(),
                addresses: vec!["10.244.1.8".parse().unwrap()],
                mac: "0a:58:0a:f4:01:08".to_owned(),
            },
        ],
    };
    expect![[r#"
        NAMESPACE  POD    ADDRESS     INTERFACE        CONTAINER
        default    web-0  10.244.1.7  mgy0123456789ab  0123456789abc
        -          -      10.244.1.8  mgyab0123456789  abc
    "#]]
    .assert_eq(&endpoints::table(&all, NARROW));
    expect![[r#"
        NAMESPACE  POD    ADDRESS     INTERFACE        CONTAINER                         POD-INTERFACE  MAC
        default    web-0  10.244.1.7  mgy0123456789ab  0123456789abcdef0123456789abcdef  eth0           0a:58:0a:f4:01:07
        -          -      10.244.1.8  mgyab0123456789  abc                               eth0           0a:58:0a:f4:01:08
    "#]].assert_eq(&endpoints::table(&all, WIDE));
    expect![[r#"
        No pods are attached to node n1.
    "#]]
    .assert_eq(&endpoints::table(
        &Endpoints {
            node: "n1".to_owned(),
            endpoints: vec![],
        },
        NARROW,
    ));
}

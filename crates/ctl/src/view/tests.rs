mod peers;
mod status;

use api::{
    BgpPath, BgpRoute, BgpRoutes, Endpoint, Endpoints, Hop, KernelRoute, KernelRouteKind,
    KernelRouteState, KernelRoutes, PathState, PodName, Target,
};
use expect_test::expect;

use super::{bgp_routes, endpoints, routes};
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
        policy: "decided by default".to_owned(),
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
        PREFIX         NEXT-HOP   FROM       AS-PATH      PREF  MED  BEST       REASON                                             ORIGIN  COMMUNITIES          POLICY
        10.244.1.0/24  -          local      -            -     -    yes        only path                                          igp     64512:100,no-export  decided by default
        10.244.2.0/24  192.0.2.1  192.0.2.1  65001 65002  100   -    yes        lowest router id                                   igp     64512:100,no-export  decided by default
        10.244.2.0/24  192.0.2.2  192.0.2.2  65001 65002  100   -    multipath  equal to the best (stale: its peer is restarting)  igp     64512:100,no-export  decided by default
        10.244.2.0/24  192.0.2.3  192.0.2.3  65001 65002  100   -    no         longer AS path                                     igp     64512:100,no-export  decided by default
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
        group: None,
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
            group: None,
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
        PREFIX         KIND       DESIRED                                             KERNEL                                              STATE  METRIC  GROUP  POD
        10.244.1.0/24  blackhole  blackhole                                           blackhole                                           ok     1024    -      -
        10.244.1.7/32  pod        dev mgy0123456789ab                                 dev mgy0123456789ab                                 ok     1024    -      default/web-0
        10.244.2.0/24  learned    via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  via 192.0.2.1 dev eth0 + via 198.51.100.1 dev eth1  ok     1024    -      -
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

use std::net::IpAddr;
use std::time::Duration;

use bgp::config::{Decision, LocalAs, NextHopMode, PeerConfig, PrivateAs, Rules};
use bgp::policy::{Candidate, NextHopChange, Outcome, Policy, SourceKind};
use bgp_wire::Attributes;
use bgp_wire::Family;
use expect_test::{Expect, expect};
use resources::{ClusterState, Index, Severity};

use super::plan;

/// Three nodes; `rack=a` is n1 and n2, and n3 has an AS of its own.
const NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {rack: a}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {rack: a}}
spec: {podCIDR: 10.244.2.0/24}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3, labels: {rack: b}, annotations: {margay.dev/as-number: "64600"}}
spec: {podCIDR: 10.244.3.0/24}
status: {addresses: [{type: InternalIP, address: 198.51.100.3}]}
---
"#;

fn object(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: margay.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn cluster(text: &str) -> ClusterState {
    let mut index = Index::default();
    let parsed = resources::yaml::parse("a.yaml", text);
    assert_eq!(parsed.problems, []);
    index.replace("a.yaml", parsed);
    index.state().clone()
}

fn describe(peer: &PeerConfig) -> String {
    let PeerConfig {
        asn,
        port,
        local_address,
        passive,
        hold_time,
        reach,
        next_hop,
        graceful_restart,
        origin,
        rules,
        ..
    } = peer;
    let source = local_address.map_or_else(|| "any".to_owned(), |address| address.to_string());
    let restart = graceful_restart.map_or(0, |time| time.as_secs());
    let passive = if *passive { " passive" } else { "" };
    let client = rules.client.map_or_else(String::new, |client| {
        format!(" client of {}", client.cluster_id)
    });
    format!(
        "AS {asn} port {port} from {source} hold {} gr {restart} {reach:?} {next_hop:?}{passive}{client}: {origin}",
        hold_time.as_secs()
    )
}

#[track_caller]
fn check(node: &str, objects: &str, expected: &Expect) {
    let shown = match plan(&cluster(&(NODES.to_owned() + objects)), node) {
        Err(error) => format!("{error}\n"),
        Ok(plan) => {
            let speaker = &plan.speaker;
            let originated: Vec<String> =
                speaker.originated.keys().map(ToString::to_string).collect();
            let mut shown = format!(
                "AS {} id {} port {} originates {}\n",
                speaker.asn,
                speaker.router_id,
                plan.listen_port,
                originated.join(" ")
            );
            for (address, peer) in &speaker.peers {
                shown += &format!("{address} {}\n", describe(peer));
            }
            for problem in &plan.problems {
                shown += &format!("{:?}: {problem}\n", problem.severity);
            }
            shown
        }
    };
    expected.assert_eq(&shown);
}

fn no_mesh() -> String {
    object(
        "BGPConfiguration",
        "default",
        "nodeToNodeMeshEnabled: false",
    )
}

#[test]
fn a_full_mesh_out_of_the_box() {
    check(
        "n1",
        "",
        &expect![[r#"
            AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24 fd00:1::/64
            192.0.2.2 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: mesh/n2
            198.51.100.3 AS 64600 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: mesh/n3
        "#]],
    );
    check(
        "n3",
        "",
        &expect![[r#"
        AS 64600 id 198.51.100.3 port 179 originates 10.244.3.0/24
        192.0.2.1 AS 64512 port 179 from 198.51.100.3 hold 90 gr 120 Hops(255) Auto: mesh/n1
        192.0.2.2 AS 64512 port 179 from 198.51.100.3 hold 90 gr 120 Hops(255) Auto: mesh/n2
    "#]],
    );
    check(
        "n4",
        "",
        &expect![[r#"
        there is no Node named `n4`: --node-name must be the name of a Node object
    "#]],
    );
}

#[test]
fn settings_of_all_nodes_and_of_one() {
    let objects = object(
        "BGPConfiguration",
        "default",
        "asNumber: 65000, listenPort: 1179, holdTime: 9s, nodeMeshMaxRestartTime: 30s",
    ) + &object(
        "BGPConfiguration",
        "node.n2",
        "asNumber: 65002, listenPort: 2179, gracefulRestart: false",
    );
    check(
        "n1",
        &objects,
        &expect![[r#"
            AS 65000 id 192.0.2.1 port 1179 originates 10.244.1.0/24 fd00:1::/64
            192.0.2.2 AS 65002 port 2179 from 192.0.2.1 hold 9 gr 30 Hops(255) Auto: mesh/n2
            198.51.100.3 AS 64600 port 1179 from 192.0.2.1 hold 9 gr 30 Hops(255) Auto: mesh/n3
        "#]],
    );
    check(
        "n2",
        &objects,
        &expect![[r#"
        AS 65002 id 192.0.2.2 port 2179 originates 10.244.2.0/24
        192.0.2.1 AS 65000 port 1179 from 192.0.2.2 hold 9 gr 0 Hops(255) Auto: mesh/n1
        198.51.100.3 AS 64600 port 1179 from 192.0.2.2 hold 9 gr 0 Hops(255) Auto: mesh/n3
    "#]],
    );
}

/// Two racks of two ToRs, in two objects.
const RACKS: &str = "asNumberByLabel: {label: rack, values: {a: 65001, b: 65002}}";
const TORS: &str = r#"peersByLabel: {label: rack, values: {
  a: [{peerIP: 192.0.2.250, asNumber: 65101}, {peerIP: "192.0.2.251:1179", asNumber: 65101}],
  b: [{peerIP: 198.51.100.250, asNumber: 65102}]}}"#;

#[test]
fn racks_are_rows_of_a_table() {
    let objects = object(
        "BGPConfiguration",
        "default",
        &format!("nodeToNodeMeshEnabled: false, asNumber: 65000, {RACKS}"),
    ) + &object("BGPPeer", "tors", TORS);
    check(
        "n1",
        &objects,
        &expect![[r#"
        AS 65001 id 192.0.2.1 port 179 originates 10.244.1.0/24 fd00:1::/64
        192.0.2.250 AS 65101 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/tors
        192.0.2.251 AS 65101 port 1179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/tors
    "#]],
    );
    // The annotation wins.
    check(
        "n3",
        &objects,
        &expect![[r#"
        AS 64600 id 198.51.100.3 port 179 originates 10.244.3.0/24
        198.51.100.250 AS 65102 port 179 from 198.51.100.3 hold 90 gr 120 Hops(255) Auto: BGPPeer/tors
    "#]],
    );
    let labelled = NODES.replace(
        "labels: {rack: a}",
        "labels: {rack: c, margay.dev/as-number: \"65009\"}",
    );
    let plan = plan(&cluster(&(labelled + &objects)), "n2").unwrap();
    assert_eq!((plan.speaker.asn, plan.speaker.peers.len()), (65009, 0));
    let shown: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    expect!["BGPPeer/tors: spec.peersByLabel: Node n2 has `rack: c`, for which there is no row: it has no peer by this"].assert_eq(&shown.join("\n"));
    let own = object("BGPConfiguration", "node.n1", "asNumber: 65008");
    check(
        "n1",
        &(objects + &own),
        &expect![[r#"
        AS 65008 id 192.0.2.1 port 179 originates 10.244.1.0/24 fd00:1::/64
        192.0.2.250 AS 65101 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/tors
        192.0.2.251 AS 65101 port 1179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/tors
    "#]],
    );
}

#[test]
fn peers_are_selected_by_name_and_label() {
    let objects = no_mesh()
        + &object("BGPPeer", "all", "peerIP: 203.0.113.1, asNumber: 65001")
        + &object(
            "BGPPeer",
            "only-n1",
            "node: n1, peerIP: 203.0.113.2, asNumber: 64512, passive: true, sourceAddress: None",
        )
        + &object(
            "BGPPeer",
            "rack-a",
            "nodeSelector: rack=a, peerIP: '203.0.113.3:1179', asNumber: 65003, ttlSecurity: 1, holdTime: 3s, nextHopMode: Keep, maxRestartTime: 10s",
        )
        + &object(
            "BGPPeer",
            "rack-b",
            "nodeSelector: rack == 'b', peerIP: 203.0.113.4, asNumber: 65004, gracefulRestart: false, nextHopMode: Self",
        );
    check(
        "n1",
        &objects,
        &expect![[r#"
            AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24 fd00:1::/64
            203.0.113.1 AS 65001 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/all
            203.0.113.2 AS 64512 port 179 from any hold 90 gr 120 Hops(255) Auto passive: BGPPeer/only-n1
            203.0.113.3 AS 65003 port 1179 from 192.0.2.1 hold 3 gr 10 Gtsm(1) Keep: BGPPeer/rack-a
        "#]],
    );
    check(
        "n3",
        &objects,
        &expect![[r#"
        AS 64600 id 198.51.100.3 port 179 originates 10.244.3.0/24
        203.0.113.1 AS 65001 port 179 from 198.51.100.3 hold 90 gr 120 Hops(255) Auto: BGPPeer/all
        203.0.113.4 AS 65004 port 179 from 198.51.100.3 hold 90 gr 0 Hops(255) Own: BGPPeer/rack-b
    "#]],
    );
}

#[test]
fn one_address_has_one_session() {
    let objects = object(
        "BGPPeer",
        "a",
        "node: n1, peerIP: 203.0.113.1, asNumber: 65001",
    ) + &object(
        "BGPPeer",
        "b",
        "peerIP: '203.0.113.1:1179', asNumber: 65002",
    ) + &object(
        "BGPPeer",
        "own",
        "peerIP: '192.0.2.1:1179', asNumber: 64512",
    ) + &object(
        "BGPPeer",
        "node",
        "node: n1, peerIP: 192.0.2.2, asNumber: 64512, passive: true",
    );
    check(
        "n1",
        &objects,
        &expect![[r#"
            AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24 fd00:1::/64
            192.0.2.2 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto passive: BGPPeer/node (instead of mesh/n2)
            198.51.100.3 AS 64600 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: mesh/n3
            203.0.113.1 AS 65002 port 1179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/b
            Warning: BGPPeer/a: spec.peerIP: 203.0.113.1 is a peer already by BGPPeer/b: this one has no effect here
        "#]],
    );
}

#[test]
fn what_looks_wrong_is_said() {
    let twin = "apiVersion: v1\nkind: Node\nmetadata: {name: n9}\nspec: {podCIDR: 10.244.0.0/20}\nstatus: {addresses: [{type: InternalIP, address: 192.0.2.1}]}\n---\n";
    let homeless = "apiVersion: v1\nkind: Node\nmetadata: {name: n8}\n---\n";
    let objects = object(
        "BGPPeer",
        "a",
        "node: n7, peerIP: 203.0.113.1, asNumber: 65001",
    ) + &object(
        "BGPPeer",
        "b",
        "nodeSelector: rack=z, peerIP: 203.0.113.1, asNumber: 65001",
    ) + &object(
        "BGPPeer",
        "c",
        "peerIP: 192.0.2.2, asNumber: 65001, filters: [missing]",
    ) + twin
        + homeless;
    check(
        "n1",
        &objects,
        &expect![[r#"
            AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24 fd00:1::/64
            192.0.2.2 AS 65001 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/c (instead of mesh/n2)
            198.51.100.3 AS 64600 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: mesh/n3
            Warning: BGPPeer/a: spec.node: there is no Node named `n7`
            Warning: BGPPeer/b: spec.nodeSelector: no Node has labels that match `rack=z`
            Warning: BGPPeer/c: spec.asNumber: 192.0.2.2 is Node n2 of AS 64512, not 65001: the session will be refused
            Error: BGPPeer/c: spec.filters[0]: there is no BGPFilter named `missing`: until there is, no route passes in either direction
            Error: Node/n1: spec.podCIDRs: 10.244.1.0/24 overlaps 10.244.0.0/20 of Node n9: give each node a range of its own
            Error: Node/n1: status.addresses: InternalIP 192.0.2.1 is also that of Node n9: each node needs its own
            Warning: Node/n8: status.addresses: no InternalIP of a family that Node n1 has one of: there is no session between the two
        "#]],
    );
    check(
        "n8",
        homeless,
        &expect![[r#"
        Node `n8` has neither an IPv4 InternalIP nor the annotation margay.dev/router-id: one of them must be there to be its router id
    "#]],
    );
}

/// Who decides about each prefix.
#[track_caller]
fn check_policy(policy: &Policy, source: SourceKind, prefixes: &[&str], expected: &Expect) {
    let attributes = Attributes::originated();
    let mut shown = String::new();
    for prefix in prefixes {
        let candidate = Candidate {
            prefix: prefix.parse().unwrap(),
            attributes: &attributes,
            source,
            from: None,
            internal: source == SourceKind::Internal,
        };
        let outcome = match policy.evaluate(&candidate) {
            Outcome::Accept(_) => "accepted".to_owned(),
            Outcome::Reject(statement) => format!("rejected: {}", policy.name_of(statement)),
        };
        shown += &format!("{prefix} {outcome}\n");
    }
    expected.assert_eq(&shown);
}

const LEARNED: [&str; 8] = [
    "10.244.1.0/24",
    "10.244.1.7/32",
    "10.244.2.0/24",
    "10.244.2.9/32",
    "10.244.0.0/16",
    "10.245.0.0/24",
    "192.0.2.0/24",
    "0.0.0.0/0",
];

fn tor(objects: &str) -> PeerConfig {
    let objects = NODES.to_owned() + &no_mesh() + objects;
    let plan = plan(&cluster(&objects), "n1").unwrap();
    plan.speaker.peers.values().next().unwrap().clone()
}

#[test]
fn without_a_filter_only_pod_ranges_come_in_and_only_own_routes_go_out() {
    let peer = object("BGPPeer", "tor", "peerIP: 203.0.113.1, asNumber: 65001");
    let nodes_only = tor(&peer);
    check_policy(
        &nodes_only.import,
        SourceKind::External,
        &LEARNED,
        &expect![[r#"
            10.244.1.0/24 rejected: this node's own pod range
            10.244.1.7/32 rejected: this node's own pod range
            10.244.2.0/24 accepted
            10.244.2.9/32 accepted
            10.244.0.0/16 rejected: default: outside the pod ranges
            10.245.0.0/24 rejected: default: outside the pod ranges
            192.0.2.0/24 rejected: default: outside the pod ranges
            0.0.0.0/0 rejected: default: outside the pod ranges
        "#]],
    );
    let pools = tor(&(peer
        + &object("IPPool", "a", "cidr: 10.244.0.0/16")
        + &object("IPPool", "b", "cidr: 10.245.0.0/16")));
    check_policy(
        &pools.import,
        SourceKind::External,
        &LEARNED,
        &expect![[r#"
        10.244.1.0/24 rejected: this node's own pod range
        10.244.1.7/32 rejected: this node's own pod range
        10.244.2.0/24 accepted
        10.244.2.9/32 accepted
        10.244.0.0/16 accepted
        10.245.0.0/24 accepted
        192.0.2.0/24 rejected: default: outside the pod ranges
        0.0.0.0/0 rejected: default: outside the pod ranges
    "#]],
    );
    check_policy(
        &pools.export,
        SourceKind::Local,
        &["10.244.1.0/24"],
        &expect![[r#"
            10.244.1.0/24 accepted
        "#]],
    );
    check_policy(
        &pools.export,
        SourceKind::Internal,
        &["10.244.2.0/24"],
        &expect![[r#"
            10.244.2.0/24 rejected: default: not this node's own route
        "#]],
    );
}

/// A peer with these filters out of three: one closed, one open, one that takes something out.
fn filtered(filters: &str) -> PeerConfig {
    let peer = object(
        "BGPPeer",
        "tor",
        &format!("peerIP: 203.0.113.1, asNumber: 65001, filters: [{filters}]"),
    );
    let strict = object(
        "BGPFilter",
        "strict",
        "importV4: [{cidr: 10.244.0.0/16, matchOperator: In, prefixLength: {min: 24, max: 24}, action: Accept}, {action: Reject}]",
    );
    let open = object(
        "BGPFilter",
        "open",
        "importV4: [{action: Accept}], exportV4: [{cidr: 10.244.2.0/24, matchOperator: Equal, action: Accept}]",
    );
    let block = object(
        "BGPFilter",
        "block",
        "importV4: [{cidr: 10.244.2.0/24, matchOperator: In, prefixLength: {min: 25}, action: Reject}]",
    );
    tor(&(peer + &strict + &open + &block))
}

#[test]
fn import_rules_come_before_the_default() {
    check_policy(
        &filtered("strict").import,
        SourceKind::External,
        &LEARNED,
        &expect![[r#"
            10.244.1.0/24 rejected: this node's own pod range
            10.244.1.7/32 rejected: this node's own pod range
            10.244.2.0/24 accepted
            10.244.2.9/32 rejected: BGPFilter/strict importV4[1]
            10.244.0.0/16 rejected: BGPFilter/strict importV4[1]
            10.245.0.0/24 rejected: BGPFilter/strict importV4[1]
            192.0.2.0/24 rejected: BGPFilter/strict importV4[1]
            0.0.0.0/0 rejected: BGPFilter/strict importV4[1]
        "#]],
    );
    check_policy(
        &filtered("block, open").import,
        SourceKind::External,
        &LEARNED,
        &expect![[r#"
            10.244.1.0/24 rejected: this node's own pod range
            10.244.1.7/32 rejected: this node's own pod range
            10.244.2.0/24 accepted
            10.244.2.9/32 rejected: BGPFilter/block importV4[0]
            10.244.0.0/16 accepted
            10.245.0.0/24 accepted
            192.0.2.0/24 accepted
            0.0.0.0/0 accepted
        "#]],
    );
    check_policy(
        &filtered("block").import,
        SourceKind::External,
        &LEARNED,
        &expect![[r#"
            10.244.1.0/24 rejected: this node's own pod range
            10.244.1.7/32 rejected: this node's own pod range
            10.244.2.0/24 accepted
            10.244.2.9/32 rejected: BGPFilter/block importV4[0]
            10.244.0.0/16 rejected: default: outside the pod ranges
            10.245.0.0/24 rejected: default: outside the pod ranges
            192.0.2.0/24 rejected: default: outside the pod ranges
            0.0.0.0/0 rejected: default: outside the pod ranges
        "#]],
    );
}

#[test]
fn export_rules_come_before_the_default() {
    let exported = ["10.244.2.0/24", "10.244.3.0/24"];
    check_policy(
        &filtered("open").export,
        SourceKind::External,
        &exported,
        &expect![[r#"
            10.244.2.0/24 accepted
            10.244.3.0/24 rejected: default: not this node's own route
        "#]],
    );
    check_policy(
        &filtered("missing").import,
        SourceKind::External,
        &exported,
        &expect![[r#"
            10.244.2.0/24 rejected: BGPFilter/missing is missing
            10.244.3.0/24 rejected: BGPFilter/missing is missing
        "#]],
    );
}

/// n1 and n2 are reflectors, of one cluster or of two; all nodes peer with them by label.
fn reflectors(first: &str, second: &str) -> String {
    let node = |name: &str, host: u8, cluster: &str| {
        let annotations = match cluster {
            "" => String::new(),
            cluster => format!(
                ", labels: {{rr: yes}}, annotations: {{margay.dev/route-reflector-cluster-id: {cluster}}}"
            ),
        };
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}{annotations}}}\nspec: {{podCIDR: 10.244.{host}.0/24}}\nstatus: {{addresses: [{{type: InternalIP, address: 192.0.2.{host}}}]}}\n---\n"
        )
    };
    node("n1", 1, first)
        + &node("n2", 2, second)
        + &node("n3", 3, "")
        + &node("n4", 4, "")
        + &object(
            "BGPPeer",
            "rr",
            "nodeSelector: all(), peerSelector: has(rr)",
        )
}

#[track_caller]
fn check_peers(objects: &str, node: &str, expected: &Expect) {
    let plan = plan(&cluster(objects), node).unwrap();
    let mut shown = format!("cluster id {:?}\n", plan.speaker.cluster_id);
    for (address, peer) in &plan.speaker.peers {
        shown += &format!("{address} {}\n", describe(peer));
    }
    for problem in &plan.problems {
        shown += &format!("{:?}: {problem}\n", problem.severity);
    }
    expected.assert_eq(&shown);
}

#[test]
fn route_reflectors_leave_the_mesh_and_have_clients() {
    let one = reflectors("9.9.9.1", "9.9.9.1");
    check_peers(
        &one,
        "n1",
        &expect![[r#"
        cluster id Some(9.9.9.1)
        192.0.2.2 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/rr
        192.0.2.3 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
        192.0.2.4 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
    "#]],
    );
    check_peers(
        &one,
        "n3",
        &expect![[r#"
        cluster id None
        192.0.2.1 AS 64512 port 179 from 192.0.2.3 hold 90 gr 120 Hops(255) Auto: BGPPeer/rr
        192.0.2.2 AS 64512 port 179 from 192.0.2.3 hold 90 gr 120 Hops(255) Auto: BGPPeer/rr
        192.0.2.4 AS 64512 port 179 from 192.0.2.3 hold 90 gr 120 Hops(255) Auto: mesh/n4
    "#]],
    );
    let two = reflectors("9.9.9.1", "9.9.9.2");
    check_peers(
        &two,
        "n1",
        &expect![[r#"
        cluster id Some(9.9.9.1)
        192.0.2.2 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
        192.0.2.3 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
        192.0.2.4 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
    "#]],
    );
    let manual = one.replace(
        "peerSelector: has(rr)",
        "peerSelector: has(rr), reversePeering: Manual",
    );
    check_peers(
        &manual,
        "n2",
        &expect![[r#"
        cluster id Some(9.9.9.1)
        192.0.2.1 AS 64512 port 179 from 192.0.2.2 hold 90 gr 120 Hops(255) Auto: BGPPeer/rr
    "#]],
    );
    let only_leaves = one.replace("nodeSelector: all()", "nodeSelector: '!has(rr)'");
    check_peers(
        &only_leaves,
        "n1",
        &expect![[r#"
        cluster id Some(9.9.9.1)
        192.0.2.3 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
        192.0.2.4 AS 64512 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto client of 9.9.9.1: BGPPeer/rr
    "#]],
    );
    check_peers(
        &(one + &no_mesh()),
        "n4",
        &expect![[r#"
        cluster id None
        192.0.2.1 AS 64512 port 179 from 192.0.2.4 hold 90 gr 120 Hops(255) Auto: BGPPeer/rr
        192.0.2.2 AS 64512 port 179 from 192.0.2.4 hold 90 gr 120 Hops(255) Auto: BGPPeer/rr
    "#]],
    );
}

#[test]
fn a_reflector_reflects_pod_routes_to_internal_peers() {
    let objects = reflectors("9.9.9.1", "9.9.9.1")
        + &object(
            "BGPPeer",
            "tor",
            "node: n1, peerIP: 203.0.113.1, asNumber: 65001",
        );
    let plan = plan(&cluster(&objects), "n1").unwrap();
    let export = |peer: [u8; 4]| plan.speaker.peers[&peer.into()].export.clone();
    let prefixes = ["10.244.3.0/24", "198.51.100.0/24"];
    check_policy(
        &export([192, 0, 2, 3]),
        SourceKind::Internal,
        &prefixes,
        &expect![[r#"
            10.244.3.0/24 accepted
            198.51.100.0/24 rejected: default: not this node's own route
        "#]],
    );
    check_policy(
        &export([192, 0, 2, 3]),
        SourceKind::External,
        &prefixes,
        &expect![[r#"
            10.244.3.0/24 rejected: default: not this node's own route
            198.51.100.0/24 rejected: default: not this node's own route
        "#]],
    );
    check_policy(
        &export([203, 0, 113, 1]),
        SourceKind::Internal,
        &prefixes,
        &expect![[r#"
            10.244.3.0/24 rejected: default: not this node's own route
            198.51.100.0/24 rejected: default: not this node's own route
        "#]],
    );
}

#[test]
fn a_peers_rules_are_those_of_its_bgp_peer() {
    let peer = tor(&object(
        "BGPPeer",
        "tor",
        "peerIP: 203.0.113.1, asNumber: 65001, localASNumber: 64999, numAllowedLocalASNumbers: 2, privateASNumbers: Remove, overrideASNumber: true, bilateral: true, gracefulShutdown: false, blackhole: true, keepOriginalNextHop: true",
    ));
    assert_eq!(peer.local_asn, Some(64999));
    assert_eq!(peer.next_hop, NextHopMode::Keep);
    assert_eq!(
        peer.rules,
        Rules {
            client: None,
            local_as: LocalAs::Replace,
            allowed_own_as: 2,
            private_as: PrivateAs::Remove,
            override_as: true,
            bilateral: true,
            graceful_shutdown: false,
            blackhole: true,
            drain: false,
        }
    );
    // An internal peer keeps its next hops by itself; the old field is for external ones.
    let internal = tor(&object(
        "BGPPeer",
        "tor",
        "peerIP: 203.0.113.1, asNumber: 64999, localASNumber: 64999, keepOriginalNextHop: true",
    ));
    assert_eq!(internal.next_hop, NextHopMode::Auto);
    let drained = NODES.replace(
        "{name: n1, labels: {rack: a}}",
        "{name: n1, annotations: {margay.dev/drain: 'true'}}",
    );
    let plan = plan(&cluster(&drained), "n1").unwrap();
    assert!(plan.speaker.peers.values().all(|peer| peer.rules.drain));
}

#[test]
fn hidden_pools_are_announced_where_a_filter_says_so_alone() {
    let objects = object("IPPool", "a", "cidr: 10.244.0.0/16, disableBGPExport: true")
        + &object(
            "BGPPeer",
            "tor",
            "peerIP: 203.0.113.1, asNumber: 65001, filters: [f]",
        );
    let filter = |rule: &str| object("BGPFilter", "f", &format!("exportV4: [{rule}]"));
    let own = ["10.244.1.0/24"];
    let closed = tor(&(objects.clone() + &filter("{peerType: iBGP, action: Accept}")));
    check_policy(
        &closed.export,
        SourceKind::Local,
        &own,
        &expect![[r#"
        10.244.1.0/24 rejected: IPPool with disableBGPExport
    "#]],
    );
    let open = tor(&(objects + &filter("{source: Local, action: Accept}")));
    check_policy(
        &open.export,
        SourceKind::Local,
        &own,
        &expect![[r#"
        10.244.1.0/24 accepted
    "#]],
    );
}

/// Every field of a rule, against routes that have what it asks for and routes that don't.
#[test]
fn what_a_rule_asks() {
    let matching = Attributes {
        origin: bgp_wire::Origin::Egp,
        as_path: bgp_wire::AsPath::sequence([65001, 65002]),
        next_hop: Some(bgp_wire::NextHop::V4([192, 0, 2, 9].into())),
        med: Some(5),
        local_pref: Some(2_147_483_147),
        communities: vec![bgp_wire::Community::new(65000, 150)],
        ..Attributes::originated()
    };
    let rules = [
        (
            "prefixes: [{cidr: 10.0.0.0/8, prefixLength: {min: 24}}]",
            true,
        ),
        ("prefixes: [{cidr: 10.0.0.0/8}]", false),
        ("source: RemotePeers", true),
        ("source: ExternalPeers", true),
        ("source: InternalPeers", false),
        ("learnedFrom: 203.0.113.1", true),
        ("learnedFrom: 203.0.113.2", false),
        ("peerType: eBGP", true),
        ("peerType: iBGP", false),
        ("communities: {values: ['65000:100-199']}", true),
        (
            "communities: {values: ['65000:100-199', 'no-export']}",
            false,
        ),
        ("asPathPrefix: [65001]", true),
        ("asPathPrefix: [65002]", false),
        ("asPath: '65001 .*'", true),
        ("asPath: '65001'", false),
        ("asPathLength: {max: 2}", true),
        ("asPathLength: {min: 3}", false),
        ("nextHop: 192.0.2.0/24", true),
        ("nextHop: 198.51.100.0/24", false),
        ("origin: EGP", true),
        ("origin: Incomplete", false),
        ("med: {min: 5, max: 5}", true),
        ("med: {min: 6}", false),
        ("localPref: {min: 101}", true),
        ("localPref: {max: 100}", false),
        ("priority: 500", true),
        ("priority: 501", false),
    ];
    for (rule, expected) in rules {
        let objects = object(
            "BGPPeer",
            "tor",
            "peerIP: 203.0.113.1, asNumber: 65001, filters: [f]",
        ) + &object(
            "BGPFilter",
            "f",
            &format!("importV4: [{{{rule}, action: Accept}}]"),
        );
        let import = tor(&objects).import;
        let candidate = |prefix: &str| Candidate {
            prefix: prefix.parse().unwrap(),
            attributes: &matching,
            source: SourceKind::External,
            from: Some([203, 0, 113, 1].into()),
            internal: false,
        };
        let accepted = import.explain(&candidate("10.9.0.0/24")).accepted;
        assert_eq!(accepted, expected, "{rule}");
        let other_family = import.explain(&candidate("2001:db8::/32")).accepted;
        assert!(!other_family, "{rule} is for IPv4");
    }
}

#[test]
fn operations_change_what_passes() {
    let operations = "{addCommunity: {value: 65000:1}}, {addCommunity: {value: '65000:1:2'}}, {removeCommunity: {value: '*:7'}}, {prependASPath: {prefix: [65009, 65008]}}, {setPriority: {value: 500}}, {raiseMED: {value: 3}}, {setNextHop: {value: '2001:db8::77'}}, {setOrigin: {value: Incomplete}}";
    let objects = object(
        "BGPPeer",
        "tor",
        "peerIP: 203.0.113.1, asNumber: 65001, filters: [f]",
    ) + &object(
        "BGPFilter",
        "f",
        &format!("importV6: [{{action: Next, operations: [{operations}]}}, {{action: Accept}}]"),
    );
    let import = tor(&objects).import;
    let mut attributes = Attributes {
        med: Some(4),
        communities: vec![bgp_wire::Community::new(1, 7)],
        ..Attributes::originated()
    };
    let outcome = import.evaluate(&Candidate {
        prefix: "2001:db8::/32".parse().unwrap(),
        attributes: &attributes,
        source: SourceKind::External,
        from: None,
        internal: false,
    });
    let Outcome::Accept(applied) = outcome else {
        panic!("rejected")
    };
    let effects = import.apply(&applied, &mut attributes, 64512);
    let expected = Attributes {
        origin: bgp_wire::Origin::Incomplete,
        as_path: bgp_wire::AsPath::sequence([65009, 65008]),
        med: Some(7),
        local_pref: Some(2_147_483_147),
        communities: vec![bgp_wire::Community::new(65000, 1)],
        large_communities: vec!["65000:1:2".parse().unwrap()],
        ..Attributes::originated()
    };
    assert_eq!(attributes, expected);
    let address = NextHopChange::Address("2001:db8::77".parse().unwrap());
    assert_eq!(effects.next_hop, Some(address));
}

/// Three nodes: n1 has addresses of both families, n2 of IPv6 alone, n3 of IPv4 alone.
const DUAL: &str = r#"
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDRs: [10.244.1.0/24, "fd00:1::/64"]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, annotations: {margay.dev/router-id: 192.0.2.2}}
spec: {podCIDRs: [10.244.2.0/24, "fd00:2::/64"]}
status: {addresses: [{type: InternalIP, address: "2001:db8::2"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n3}
spec: {podCIDR: 10.244.3.0/24}
status: {addresses: [{type: InternalIP, address: 192.0.2.3}]}
---
apiVersion: margay.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {node: n1, peerIP: "2001:db8::ff", asNumber: 65001}
"#;

#[test]
fn sessions_are_over_the_family_that_both_ends_have_and_carry_both() {
    let plan = |node| plan(&cluster(DUAL), node).unwrap();
    let sessions = |node| -> Vec<String> {
        let peers = plan(node).speaker.peers;
        let shown = peers.iter().map(|(address, peer)| {
            let own = peer.local_address.map(|it| it.to_string());
            let other = peer.other_local_address.map(|it| it.to_string());
            assert_eq!(peer.families, [Family::IPV4_UNICAST, Family::IPV6_UNICAST]);
            // IPv4 routes over an IPv6 session may need an IPv6 next hop (RFC 8950).
            assert_eq!(peer.extended_next_hop, address.is_ipv6());
            let (own, other) = (own.unwrap_or_default(), other.unwrap_or_default());
            format!("{address} from {own} or {other}: {}", peer.origin)
        });
        shown.collect()
    };
    let n1 = [
        "192.0.2.3 from 192.0.2.1 or 2001:db8::1: mesh/n3",
        "2001:db8::2 from 2001:db8::1 or 192.0.2.1: mesh/n2",
        "2001:db8::ff from 2001:db8::1 or 192.0.2.1: BGPPeer/tor",
    ];
    assert_eq!(sessions("n1"), n1);
    assert_eq!(
        sessions("n2"),
        ["2001:db8::1 from 2001:db8::2 or : mesh/n1"]
    );
    let problems: Vec<String> = plan("n2")
        .problems
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        problems,
        [
            "Node/n3: status.addresses: no InternalIP of a family that Node n2 has one of: there is no session between the two"
        ]
    );
}

#[test]
fn a_cluster_of_ipv4_alone_offers_nothing_else() {
    let objects = NODES.replace(", \"fd00:1::/64\"", "");
    let speaker = plan(&cluster(&objects), "n1").unwrap().speaker;
    assert!(!speaker.peers.is_empty());
    for peer in speaker.peers.values() {
        assert_eq!(peer.families, [Family::IPV4_UNICAST]);
    }
}

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {tor: one, none: ''}\n---\n";

/// A peer's password, or why it stays down, and what the plan says is wrong.
fn signed(objects: &str) -> (Option<String>, Option<String>, Vec<String>) {
    let objects = NODES.to_owned() + objects;
    let plan = plan(&cluster(&objects), "n1").unwrap();
    let peer = plan.speaker.peers.values().next().unwrap();
    let password = peer
        .password
        .as_ref()
        .map(|password| String::from_utf8(password.octets().to_vec()).unwrap());
    let problems = plan.problems.iter();
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    (
        password,
        peer.shutdown.clone(),
        errors.map(|problem| problem.field.clone()).collect(),
    )
}

#[test]
fn a_peer_without_its_password_stays_down() {
    let peer = |key: &str| {
        let reference = format!("password: {{secretKeyRef: {{name: s, key: {key}}}}}");
        let spec = format!("peerIP: 203.0.113.1, asNumber: 65001, {reference}");
        no_mesh() + &object("BGPPeer", "tor", &spec)
    };
    assert_eq!(
        signed(&(SECRET.to_owned() + &peer("tor"))),
        (Some("one".to_owned()), None, vec![])
    );
    for (objects, reason) in [
        (peer("tor"), "there is no Secret named `s`"),
        (
            SECRET.to_owned() + &peer("other"),
            "Secret `s` has no key `other`",
        ),
        (
            SECRET.to_owned() + &peer("none"),
            "Secret `s`, key `none`: the password is empty",
        ),
    ] {
        let field = "spec.password.secretKeyRef".to_owned();
        assert_eq!(
            signed(&objects),
            (None, Some(reason.to_owned()), vec![field])
        );
    }
}

#[test]
fn the_mesh_has_one_password_or_stays_down() {
    let mesh = object(
        "BGPConfiguration",
        "default",
        "nodeMeshPassword: {secretKeyRef: {name: s, key: tor}}",
    );
    assert_eq!(
        signed(&(SECRET.to_owned() + &mesh)),
        (Some("one".to_owned()), None, vec![])
    );
    let (password, shutdown, errors) = signed(&mesh);
    assert_eq!(password, None);
    assert!(shutdown.is_some());
    assert_eq!(errors, ["spec.nodeMeshPassword.secretKeyRef"]);
}

#[test]
fn limits_and_keepalives_reach_the_speaker() {
    let tor = tor(&object(
        "BGPPeer",
        "tor",
        "peerIP: 203.0.113.1, asNumber: 65001, keepaliveTime: 5s, maxPrefixes: {limit: 100, action: Restart, restartAfter: 1m}",
    ));
    assert_eq!(tor.keepalive, Some(Duration::from_secs(5)));
    let limits: Vec<_> = tor
        .prefix_limits
        .iter()
        .map(|it| (it.family, it.limit))
        .collect();
    assert_eq!(
        limits,
        [(Family::IPV4_UNICAST, 100), (Family::IPV6_UNICAST, 100)]
    );
    assert_eq!(
        tor.prefix_limits[0].action,
        bgp::config::LimitAction::Restart(Duration::from_secs(60))
    );
}

#[test]
fn peers_of_a_range_are_of_its_ases() {
    let range = |spec: &str| object("BGPPeer", "range", spec) + &no_mesh();
    let spec = "nodeSelector: rack=a, peerRange: {cidr: 192.0.2.128/25, asNumbers: [64512, 65001], limit: 7}, holdTime: 30s";
    let cluster = cluster(&(NODES.to_owned() + &range(spec)));
    assert!(plan(&cluster, "n3").unwrap().speaker.dynamic.is_empty());
    let planned = plan(&cluster, "n1").unwrap();
    assert_eq!(planned.problems, []);
    assert!(planned.speaker.peers.is_empty());
    let dynamic = &planned.speaker.dynamic[&"192.0.2.128/25".parse().unwrap()];
    assert_eq!(
        (dynamic.asns.to_string().as_str(), dynamic.limit),
        ("64512, 65001", 7)
    );
    assert_eq!(dynamic.template.hold_time, Duration::from_secs(30));
    assert_eq!(dynamic.template.local_address, Some([192, 0, 2, 1].into()));
}

#[test]
fn a_nodes_way_to_listen_and_to_decide() {
    let planned = |spec: &str| {
        let objects = NODES.to_owned() + &object("BGPConfiguration", "default", spec);
        plan(&cluster(&objects), "n1").unwrap()
    };
    let usual = planned("nodeToNodeMeshEnabled: true");
    assert!(usual.bind.is_empty());
    assert_eq!(usual.speaker.decision, Decision::multipath(16));
    let own = planned(
        "bindMode: NodeIP, bestPath: {maximumPaths: 4, multipathRelax: false, alwaysCompareMED: true, missingMEDIsWorst: true}",
    );
    assert_eq!(own.bind, [IpAddr::from([192, 0, 2, 1])]);
    let expected = Decision {
        max_external_paths: 4,
        max_internal_paths: 4,
        multipath_relax: false,
        always_compare_med: true,
        missing_med_worst: true,
    };
    assert_eq!(own.speaker.decision, expected);
    let some = planned("bestPath: {alwaysCompareMED: true}")
        .speaker
        .decision;
    assert!(some.multipath_relax && some.max_external_paths == 16);
}

#[test]
fn ipv6_next_hops_of_ipv4_routes_are_offered_as_asked() {
    let objects = |more: &str| {
        object(
            "BGPPeer",
            "tor",
            &format!("peerIP: 203.0.113.1, asNumber: 65001{more}"),
        )
    };
    assert!(!tor(&objects("")).extended_next_hop);
    assert!(tor(&objects(", extendedNextHop: true")).extended_next_hop);
}

use bgp::config::PeerConfig;
use bgp::policy::{Candidate, Outcome, Policy, SourceKind};
use bgp_wire::Attributes;
use expect_test::{Expect, expect};
use resources::{ClusterState, Index};

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
        ..
    } = peer;
    let source = local_address.map_or_else(|| "any".to_owned(), |address| address.to_string());
    let restart = graceful_restart.map_or(0, |time| time.as_secs());
    let passive = if *passive { " passive" } else { "" };
    format!(
        "AS {asn} port {port} from {source} hold {} gr {restart} {reach:?} {next_hop:?}{passive}: {origin}",
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
        AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24
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
        AS 65000 id 192.0.2.1 port 1179 originates 10.244.1.0/24
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
        AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24
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
        AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24
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
        AS 64512 id 192.0.2.1 port 179 originates 10.244.1.0/24
        192.0.2.2 AS 65001 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: BGPPeer/c (instead of mesh/n2)
        198.51.100.3 AS 64600 port 179 from 192.0.2.1 hold 90 gr 120 Hops(255) Auto: mesh/n3
        Warning: BGPPeer/a: spec.node: there is no Node named `n7`
        Warning: BGPPeer/b: spec.nodeSelector: no Node has labels that match `rack=z`
        Warning: BGPPeer/c: spec.asNumber: 192.0.2.2 is Node n2 of AS 64512, not 65001: the session will be refused
        Error: BGPPeer/c: spec.filters[0]: there is no BGPFilter named `missing`: until there is, no route passes in either direction
        Error: Node/n1: spec.podCIDRs: 10.244.1.0/24 overlaps 10.244.0.0/20 of Node n9: give each node a range of its own
        Error: Node/n1: status.addresses: InternalIP 192.0.2.1 is also that of Node n9: each node needs its own
        Warning: Node/n8: status.addresses: no IPv4 InternalIP: the node is left out of the mesh
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

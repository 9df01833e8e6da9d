use expect_test::{Expect, expect};

use proptest::prelude::*;

use super::parse;

/// What loads, then what is wrong.
#[track_caller]
fn check(text: &str, expected: &Expect) {
    let parsed = parse("a.yaml", text);
    let mut shown = String::new();
    for (line, object) in &parsed.objects {
        shown += &format!("{line}: {}\n", object.reference());
    }
    for problem in &parsed.problems {
        shown += &format!("{problem}\n");
    }
    expected.assert_eq(&shown);
}

const PEER: &str = "apiVersion: margay.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: tor}\n";

#[track_caller]
fn check_peer(spec: &str, expected: &Expect) {
    check(&format!("{PEER}spec:\n{spec}"), expected);
}

#[test]
fn every_kind_loads() {
    check(
        r#"# A cluster.
apiVersion: margay.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: "1.10", listenPort: 1179, nodeToNodeMeshEnabled: false, holdTime: 9s, nodeMeshMaxRestartTime: 2m}
---
apiVersion: margay.dev/v1alpha1
kind: BGPPeer
metadata:
  name: tor
  uid: 0d9f
spec:
  peerIP: 192.0.2.1:1179
  asNumber: 65001
  nodeSelector: rack == 'a' && !spot
  sourceAddress: None
  nextHopMode: Self
  passive: true
  ttlSecurity: 1
  filters: [pods]
status: {}
---
# Nothing here.
---
apiVersion: margay.dev/v1alpha1
kind: BGPFilter
metadata: {name: pods}
spec:
  importV4:
  - {cidr: 10.0.0.0/8, matchOperator: In, prefixLength: {min: 16, max: 24}, action: Accept}
  exportV4:
  - action: Reject
---
apiVersion: margay.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.244.0.0/16}
---
apiVersion: v1
kind: Node
metadata:
  name: n1
  labels: {rack: a}
  annotations: {margay.dev/as-number: "64600"}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24], providerID: x}
status:
  addresses: [{type: InternalIP, address: 192.0.2.10}, {type: Hostname, address: n1}]
  capacity: {cpu: 8}
"#,
        &expect![[r#"
            2: BGPConfiguration/default
            7: BGPPeer/tor
            25: BGPFilter/pods
            34: IPPool/pods
            39: Node/n1
        "#]],
    );
}

#[test]
fn a_json_list_loads() {
    check(
        r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
  {"apiVersion": "margay.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "p"}, "spec": {"cidr": "10.0.0.1/8"}}
]}"#,
        &expect![[r#"
            2: Node/n1
            a.yaml:3: IPPool/p: spec.cidr: `10.0.0.1/8` has bits set beyond its prefix length: did you mean `10.0.0.0/8`?
        "#]],
    );
}

#[test]
fn a_fault_leaves_the_other_documents_alone() {
    check(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\napiVersion: v1\nkind: Node\nmetadata:\n  name: n2\nspec: {podCIDR: [\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n3}\n",
        &expect![[r#"
            1: Node/n1
            11: Node/n3
            a.yaml:9: Node/n2: not YAML: unclosed bracket '['
        "#]],
    );
}

#[test]
fn documents_that_are_no_objects() {
    check(
        "just text\n",
        &expect![[r#"
        a.yaml:1: an object is expected: `apiVersion`, `kind`, `metadata`, `spec`
    "#]],
    );
    check(
        "kind: Nod\n",
        &expect![[r#"
        a.yaml:1: kind: `Nod` is not a kind that Margay reads; did you mean `Node`?
    "#]],
    );
    check(
        "a: 1\na: 2\n",
        &expect![[r#"
            a.yaml:2: not YAML: duplicate mapping key: a
        "#]],
    );
    check(
        "apiVersion: v1\nkind: BGPPeer\nmetadata: {name: x}\n",
        &expect![[r#"
            a.yaml:1: BGPPeer/x: apiVersion: `v1` is not a version of BGPPeer: write `margay.dev/v1alpha1`
        "#]],
    );
    check(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: x}\n",
        &expect![[r#"
            a.yaml:1: IPPool/x: apiVersion: `projectcalico.org/v3` is not a version of IPPool: write `margay.dev/v1alpha1`
        "#]],
    );
    check(
        "kind: Node\n",
        &expect![[r#"
        a.yaml:1: Node/: apiVersion: missing: write `v1`
    "#]],
    );
    check("", &expect![""]);
    check(
        "apiVersion: v1\nkind: Node\n",
        &expect![[r#"
        a.yaml:1: Node/: `metadata` is missing
    "#]],
    );
    check(
        "apiVersion: v1\nkind: Node\nmetadata: {name: N_1}\n",
        &expect![[r#"
            a.yaml:3: Node/N_1: metadata.name: `N_1` is not a name: use lower-case letters, digits, `-` and `.`, as in `rack-a.tor-1`
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1, lables: {a: b}}\n",
        &expect![[r#"
            a.yaml:3: Node/n1: metadata.lables: no such field; did you mean `labels`?
        "#]],
    );
    check(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {rack: 1, spot: yes}}\n",
        &expect![[r#"
            a.yaml:3: Node/n1: metadata.labels.rack: `1` must be text here: put it in quotes
        "#]],
    );
}

#[test]
fn fields_that_are_unknown_or_missing() {
    check_peer(
        "  asNumber: 65001\n",
        &expect![[r#"
            a.yaml:4: BGPPeer/tor: spec: `peerIP` is missing, or else `peerSelector`, `peersByLabel` or `peerRange`
        "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n",
        &expect![[r#"
            a.yaml:4: BGPPeer/tor: spec: `asNumber` is missing, or else `peerSelector`, `peersByLabel` or `peerRange`
        "#]],
    );
    check_peer(
        "  peerIp: 192.0.2.1\n  asNumber: 65001\n",
        &expect![[r#"
        a.yaml:5: BGPPeer/tor: spec.peerIp: no such field; did you mean `peerIP`?
    "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 65001\n  password: {}\n",
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.password: not where a password is: write `secretKeyRef: {name: …, key: …}`
        "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 65001\n  localWorkloadSelector: all()\n",
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.localWorkloadSelector: Calico's `localWorkloadSelector` has no effect in Margay: remove it
        "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 65001\n  colour: red\n",
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.colour: no such field; it may be `node`, `nodeSelector`, `peerIP`, `peerSelector`, `peersByLabel`, `peerRange`, `reversePeering`, `asNumber`, `localASNumber`, `numAllowedLocalASNumbers`, `privateASNumbers`, `overrideASNumber`, `bilateral`, `gracefulShutdown`, `blackhole`, `sourceAddress`, `passive`, `reachableBy`, `nextHopMode`, `keepOriginalNextHop`, `extendedNextHop`, `holdTime`, `keepaliveTime`, `password`, `maxPrefixes`, `gracefulRestart`, `maxRestartTime`, `ttlSecurity`, `filters`
        "#]],
    );
    check(
        "apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {name: p}\nspce: {cidr: 10.0.0.0/8}\n",
        &expect![[r#"
            a.yaml:4: IPPool/p: spce: no such field; did you mean `spec`?
        "#]],
    );
}

#[test]
fn values_that_cannot_be() {
    check_peer(
        "  peerIP: tor-a.example\n  asNumber: 65001\n",
        &expect![[r#"
        a.yaml:5: BGPPeer/tor: spec.peerIP: `tor-a.example` is not an address: write `192.0.2.1`, `192.0.2.1:1179` or `[2001:db8::1]:1179`
    "#]],
    );
    check_peer(
        "  peerIP: ff02::1\n  asNumber: 65001\n",
        &expect![[r#"
        a.yaml:5: BGPPeer/tor: spec.peerIP: `ff02::1` can't be a peer's address
    "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 0\n",
        &expect![[r#"
        a.yaml:6: BGPPeer/tor: spec.asNumber: AS 0 is reserved (RFC 7607): write 1 to 4294967294
    "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 1.10\n",
        &expect![[r#"
        a.yaml:6: BGPPeer/tor: spec.asNumber: a dotted AS number must be in quotes, as in "1.10"
    "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: [65001]\n",
        &expect![[r#"
        a.yaml:6: BGPPeer/tor: spec.asNumber: a list is not an AS number (1 to 4294967294)
    "#]],
    );
}

#[test]
fn settings_that_cannot_be() {
    let peer = "  peerIP: 192.0.2.1\n  asNumber: 65001\n";
    check_peer(
        &format!("{peer}  holdTime: 2s\n"),
        &expect![[r#"
        a.yaml:7: BGPPeer/tor: spec.holdTime: a hold time of 2s can't be: write `3s` to `65535s`, or `0s` for none (RFC 4271 §4.2)
    "#]],
    );
    check_peer(
        &format!("{peer}  holdTime: 90\n"),
        &expect![[r#"
        a.yaml:7: BGPPeer/tor: spec.holdTime: a duration needs its unit: write `90s`
    "#]],
    );
    check_peer(
        &format!("{peer}  holdTime: 1.5s\n"),
        &expect![[r#"
        a.yaml:7: BGPPeer/tor: spec.holdTime: `1.5s` is not a duration of whole seconds: write it as in `90s`, `1m30s` or `2h`
    "#]],
    );
    check_peer(
        &format!("{peer}  maxRestartTime: 2h\n"),
        &expect![[r#"
        a.yaml:7: BGPPeer/tor: spec.maxRestartTime: a restart time of 7200s can't be: write `1s` to `4095s` (RFC 4724 §3)
    "#]],
    );
    check_peer(
        &format!("{peer}  gracefulRestart: false\n  maxRestartTime: 60s\n"),
        &expect![[r#"
            a.yaml:8: BGPPeer/tor: spec.maxRestartTime: has no effect with `gracefulRestart: false`: remove one of them
        "#]],
    );
    check_peer(
        &format!("{peer}  passive: yes\n"),
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.passive: `yes` is not `true` or `false`
        "#]],
    );
    check_peer(
        &format!("{peer}  nextHopMode: self\n"),
        &expect![[r#"
        a.yaml:7: BGPPeer/tor: spec.nextHopMode: `self` is unknown; did you mean `Self`?
    "#]],
    );
    check_peer(
        &format!("{peer}  ttlSecurity: 256\n"),
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.ttlSecurity: `256` is not a number from 0 to 255
        "#]],
    );
    check_peer(
        &format!("{peer}  nodeSelector: rack == (a)\n"),
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.nodeSelector: `rack == (a)`: expected a value at column 9
        "#]],
    );
    check_peer(
        &format!("{peer}  node: n1\n  nodeSelector: rack == 'a'\n"),
        &expect![[r#"
            a.yaml:8: BGPPeer/tor: spec.nodeSelector: a peer has either `node` or `nodeSelector`: remove one of them
        "#]],
    );
    check_peer(
        &format!("{peer}  filters: pods\n"),
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.filters: `pods` is not a list
        "#]],
    );
}

#[test]
fn filters_that_cannot_be() {
    check(
        r"apiVersion: margay.dev/v1alpha1
kind: BGPFilter
metadata: {name: f}
spec:
  importV4:
  - action: Accept
    cidr: 10.0.0.0/8
  - matchOperator: In
    action: Reject
  - {cidr: 2001:db8::/32, matchOperator: In, action: Reject}
  exportV4:
  - cidr: 10.0.0.0/8
    matchOperator: Equal
    prefixLength: {min: 8}
    action: Accept
  - cidr: 10.0.0.0/8
    matchOperator: In
    action: Accept
    prefixLength:
      min: 25
      max: 24
",
        &expect![[r#"
            a.yaml:7: BGPFilter/f: spec.importV4[0].cidr: needs `matchOperator`: Equal, NotEqual, In or NotIn
            a.yaml:8: BGPFilter/f: spec.importV4[1].matchOperator: needs a `cidr` to compare with
            a.yaml:10: BGPFilter/f: spec.importV4[2].cidr: `2001:db8::/32` is not IPv4: an IPv4 rule would never match it
            a.yaml:14: BGPFilter/f: spec.exportV4[0].prefixLength: goes with a `cidr` and `matchOperator: In` or `NotIn`
            a.yaml:19: BGPFilter/f: spec.exportV4[1].prefixLength: `min: 25` is above `max: 24`: no route would match
        "#]],
    );
    check(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPFilter\nmetadata: {name: f}\nspec:\n  importV4:\n  - cidr: 10.0.0.0/8\n    matchOperator: Within\n    action: Accept\n",
        &expect![[r#"
            a.yaml:7: BGPFilter/f: spec.importV4[0].matchOperator: `Within` is unknown; it may be `Equal`, `NotEqual`, `In`, `NotIn`
        "#]],
    );
    check(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPFilter\nmetadata: {name: f}\nspec:\n  importV4:\n  - cidr: 10.0.0.0/8\n    action: accept\n",
        &expect![[r#"
            a.yaml:7: BGPFilter/f: spec.importV4[0].action: `accept` is unknown; did you mean `Accept`?
        "#]],
    );
}

#[test]
fn configurations_that_cannot_be() {
    let head = "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\n";
    check(
        &format!("{head}metadata: {{name: defautl}}\nspec: {{}}\n"),
        &expect![[r#"
            a.yaml:3: BGPConfiguration/defautl: metadata.name: a BGPConfiguration named `defautl` has no effect: it is `default`, or `node.` and a node's name
        "#]],
    );
    check(
        &format!("{head}metadata: {{name: node.n1}}\nspec:\n  nodeToNodeMeshEnabled: true\n"),
        &expect![[r#"
            a.yaml:5: BGPConfiguration/node.n1: spec.nodeToNodeMeshEnabled: the mesh is on or off for all nodes: set this in `default`
        "#]],
    );
    check(
        &format!("{head}metadata: {{name: default}}\nspec:\n  listenPort: 0\n"),
        &expect![[r#"
            a.yaml:5: BGPConfiguration/default: spec.listenPort: a port is 1 to 65535; 179 is BGP's
        "#]],
    );
    check(
        &format!("{head}metadata: {{name: default}}\nspec:\n  listenPort: 99999\n"),
        &expect![[r#"
            a.yaml:5: BGPConfiguration/default: spec.listenPort: `99999` is not a number from 0 to 65535
        "#]],
    );
    check(
        &format!("{head}metadata: {{name: default}}\nspec:\n"),
        &expect![[r#"
            a.yaml:4: BGPConfiguration/default: spec: an empty value is not a mapping of fields
        "#]],
    );
}

#[test]
fn aliases_that_blow_up_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..20 {
        let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
        text += &format!("a{n}: &a{n} [{aliases}]\n");
    }
    assert_eq!(parse("a.yaml", &text).problems.len(), 1);
}

proptest! {
    #[test]
    fn any_text_gives_objects_or_problems(text in "(---\n|apiVersion: v1\n|kind: Node\n|metadata: |name: |  |\\{|\\[|\n|: |- |&a |\\*a |.){0,30}") {
        let parsed = parse("a.yaml", &text);
        for problem in &parsed.problems {
            prop_assert!(problem.line.is_none_or(|line| line as usize <= text.lines().count() + 1), "{problem}");
        }
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn rules_and_operations_that_cannot_be() {
    check(
        "apiVersion: margay.dev/v1alpha1
kind: BGPFilter
metadata: {name: f}
spec:
  importV6:
  - {cidr: 10.0.0.0/8, matchOperator: In, action: Accept}
  - {prefixes: [{cidr: '2001:db8::/32', prefixLength: {min: 129}}], action: Accept}
  - {source: Local, action: Accept}
  - {communities: {values: []}, action: Accept}
  - {communities: {values: ['65000:x']}, action: Accept}
",
        &expect![[r#"
            a.yaml:10: BGPFilter/f: spec.importV6[4].communities.values[0]: `65000:x` is not a pattern over communities: write a community, with ranges or `*` for numbers, as in `65000:100-199`, `65000:*:1` or `rt:*:7`
        "#]],
    );
    check(
        "apiVersion: margay.dev/v1alpha1
kind: BGPFilter
metadata: {name: f}
spec:
  importV6:
  - {cidr: 10.0.0.0/8, matchOperator: In, action: Accept}
  - {prefixes: [{cidr: '2001:db8::/32', prefixLength: {min: 129}}], action: Accept}
  - {source: Local, action: Accept}
  - {communities: {values: []}, action: Accept}
  - {asPathLength: {min: 3, max: 2}, action: Accept}
  - {priority: 0, action: Accept}
  - {action: Reject, operations: [{setMED: {value: 1}}]}
  - action: Accept
    operations:
    - {}
    - {setMED: {value: 1}, addCommunity: {value: no-export}}
    - {prependASPath: {prefix: []}}
    - {setNextHop: {value: Self}}
    - {setNextHop: {value: 192.0.2.1}}
    - {setPriority: {value: 2147483647}}
  exportV4:
  - {action: Next, operations: [{setNextHop: {value: Peer}}]}
",
        &expect![[r#"
            a.yaml:22: BGPFilter/f: spec.exportV4[0].operations[0].setNextHop.value: `Peer` on export would be a loop: write `Self` or an address
            a.yaml:6: BGPFilter/f: spec.importV6[0].cidr: `10.0.0.0/8` is not IPv6: an IPv6 rule would never match it
            a.yaml:7: BGPFilter/f: spec.importV6[1].prefixes[0].prefixLength: an IPv6 prefix length is 0 to 128
            a.yaml:8: BGPFilter/f: spec.importV6[2].source: `Local` never comes from a peer: write it in an export rule
            a.yaml:9: BGPFilter/f: spec.importV6[3].communities.values: is empty: write at least one
            a.yaml:10: BGPFilter/f: spec.importV6[4].asPathLength: `min: 3` is above `max: 2`: no route would match
            a.yaml:11: BGPFilter/f: spec.importV6[5].priority: a priority is 1 to 2147483646
            a.yaml:12: BGPFilter/f: spec.importV6[6].operations: go with `action: Accept` or `Next`
            a.yaml:15: BGPFilter/f: spec.importV6[7].operations[0]: an operation has exactly one field
            a.yaml:16: BGPFilter/f: spec.importV6[7].operations[1]: an operation has exactly one field
            a.yaml:17: BGPFilter/f: spec.importV6[7].operations[2].prependASPath.prefix: is empty: write at least one AS number
            a.yaml:18: BGPFilter/f: spec.importV6[7].operations[3].setNextHop.value: `Self` on import would be a loop: write `Peer` or an address
            a.yaml:19: BGPFilter/f: spec.importV6[7].operations[4].setNextHop.value: `192.0.2.1` is not IPv6
            a.yaml:20: BGPFilter/f: spec.importV6[7].operations[5].setPriority.value: a priority is 1 to 2147483646
        "#]],
    );
    for (rule, expected) in [
        (
            "asPath: '64512 (1)'",
            expect![[r#"
                a.yaml:6: BGPFilter/f: spec.importV4[0].asPath: `64512 (1)`: `(1)` is not a term: write AS numbers with spaces between, as in `64512 64513-64520 .* [65001 65002]+`; the pattern is over the whole path
            "#]],
        ),
        (
            "interface: cali*",
            expect![[r#"
            a.yaml:6: BGPFilter/f: spec.importV4[0].interface: Calico's `interface` has no effect in Margay, which reads no routes from interfaces: write `source`, `cidr` or `nextHop`
        "#]],
        ),
        (
            "nextHop: 192.0.2.1",
            expect![[r#"
            a.yaml:6: BGPFilter/f: spec.importV4[0].nextHop: `192.0.2.1` lacks its prefix length: write `192.0.2.1/32`
        "#]],
        ),
        (
            "operations: [{addCommunity: {value: '65536:1'}}]",
            expect![[r#"
                a.yaml:6: BGPFilter/f: spec.importV4[0].operations[0].addCommunity.value: `65536:1` is not a community: write `65000:1`, `65000:1:2`, `rt:65000:1`, or a well-known name as `no-export`
            "#]],
        ),
        (
            "operations: [{setNextHop: {value: us}}]",
            expect![[r#"
            a.yaml:6: BGPFilter/f: spec.importV4[0].operations[0].setNextHop.value: `us` is not a next hop: write `Self`, `Peer` or an address
        "#]],
        ),
        (
            "operations: [{setWeight: {value: 1}}]",
            expect![[r#"
            a.yaml:6: BGPFilter/f: spec.importV4[0].operations[0].setWeight: no such field; it may be `addCommunity`, `removeCommunity`, `setCommunities`, `prependASPath`, `prependOwnAS`, `setPriority`, `setLocalPref`, `setMED`, `raiseMED`, `lowerMED`, `setNextHop`, `setOrigin`
        "#]],
        ),
        (
            "learnedFrom: tor-a",
            expect![[r#"
                a.yaml:6: BGPFilter/f: spec.importV4[0].learnedFrom: `tor-a`: invalid IP address syntax
            "#]],
        ),
    ] {
        let text = format!(
            "apiVersion: margay.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: f}}\nspec:\n  importV4:\n  - {rule}\n    action: Accept\n"
        );
        check(&text, &expected);
    }
}

#[test]
fn peers_by_label_and_their_as_numbers() {
    for (spec, expected) in [
        (
            "peerSelector: rr, peerIP: 192.0.2.1, asNumber: 65001",
            expect![[r#"
                a.yaml:4: BGPPeer/tor: spec.peerIP: goes without `peerSelector`, which says it: remove one of them
                a.yaml:4: BGPPeer/tor: spec.asNumber: goes without `peerSelector`, which says it: remove one of them
            "#]],
        ),
        (
            "peerIP: 192.0.2.1, asNumber: 65001, reversePeering: Manual",
            expect![[r#"
                a.yaml:4: BGPPeer/tor: spec.reversePeering: goes with `peerSelector`
            "#]],
        ),
        (
            "peerIP: 192.0.2.1, asNumber: 65001, keepOriginalNextHop: true, nextHopMode: Keep",
            expect![[r#"
                a.yaml:4: BGPPeer/tor: spec.keepOriginalNextHop: is the old name of `nextHopMode: Keep`: remove one of them
            "#]],
        ),
        (
            "peerIP: 192.0.2.1, asNumber: 65001, localASNumber: 0",
            expect![[r#"
                a.yaml:4: BGPPeer/tor: spec.localASNumber: AS 0 is reserved (RFC 7607): write 1 to 4294967294
            "#]],
        ),
        (
            "peerIP: 192.0.2.1, asNumber: 65001, privateASNumbers: All",
            expect![[r#"
                a.yaml:4: BGPPeer/tor: spec.privateASNumbers: `All` is unknown; it may be `Keep`, `Remove`, `Replace`
            "#]],
        ),
        (
            "peerSelector: rr, reversePeering: Manual, localASNumber: 65002, numAllowedLocalASNumbers: 2",
            expect![[r#"
                1: BGPPeer/tor
            "#]],
        ),
    ] {
        check(&format!("{PEER}spec: {{{spec}}}\n"), &expected);
    }
    let node = |annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: n1\n  annotations:\n    {annotation}\n"
        )
    };
    check(
        &node("margay.dev/route-reflector-cluster-id: 0.0.0.0"),
        &expect![[r#"
            a.yaml:6: Node/n1: metadata.annotations.margay.dev/route-reflector-cluster-id: `0.0.0.0` is not a cluster id: write an IPv4 address other than 0.0.0.0
        "#]],
    );
    check(
        &node("margay.dev/drain: 'yes'"),
        &expect![[r#"
        a.yaml:6: Node/n1: metadata.annotations.margay.dev/drain: `yes` is neither `true` nor `false`, in quotes
    "#]],
    );
}

#[test]
fn limits_passwords_and_keepalives_that_cannot_be() {
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 65001\n  keepaliveTime: 0s\n  password: {secretKeyRef: {name: '', key: x}}\n  maxPrefixes: {limit: 0, warnPercent: 101, action: StayDown, restartAfter: 1m}\n",
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.keepaliveTime: write `1s` or more; `holdTime: 0s` switches KEEPALIVEs off
            a.yaml:8: BGPPeer/tor: spec.password.secretKeyRef.name: empty: write the Secret's name
            a.yaml:9: BGPPeer/tor: spec.maxPrefixes.limit: a limit of 0 lets no prefix pass: write 1 or more
            a.yaml:9: BGPPeer/tor: spec.maxPrefixes.warnPercent: a share of the limit is 1 to 100
            a.yaml:9: BGPPeer/tor: spec.maxPrefixes.restartAfter: has a meaning with `action: Restart` only: remove one of them
        "#]],
    );
    check_peer(
        "  peerIP: 192.0.2.1\n  asNumber: 65001\n  password: hunter2\n",
        &expect![[r#"
            a.yaml:7: BGPPeer/tor: spec.password: not where a password is: write `secretKeyRef: {name: …, key: …}`
        "#]],
    );
}

#[test]
fn a_secret_shows_nothing_of_its_values() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: x}\ntype: Opaque\ndata: {a: aHVudGVyMg==, b: hunter2}\nstringData: {c: hunter3}\n";
    check(
        text,
        &expect![[r#"
        a.yaml:5: Secret/s: data.b: not base64: values as they are go into `stringData`
    "#]],
    );
    let parsed = parse("a.yaml", &text.replace(", b: hunter2", ""));
    let [(_, object)] = &parsed.objects[..] else {
        panic!("{:?}", parsed.problems);
    };
    assert!(!format!("{object:?}").contains("unter"), "{object:?}");
    let crate::Object::Secret(secret) = object else {
        panic!("a Secret");
    };
    assert_eq!(secret.value("a"), Some(b"hunter2".to_vec()));
    assert_eq!(secret.value("c"), Some(b"hunter3".to_vec()));
    assert_eq!(secret.value("b"), None);
}

#[test]
fn what_calico_writes_into_pools_is_taken_where_it_is_what_we_do() {
    let pool = |fields: &str| {
        format!(
            "apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: p}}\nspec:\n  cidr: 10.244.0.0/16\n{fields}"
        )
    };
    for fields in [
        "  vxlanMode: Never\n  ipipMode: Never\n  assignmentMode: Automatic\n",
        "  allowedUses: [Workload]\n",
        "  allowedUses: [Tunnel, Workload]\n",
    ] {
        let parsed = parse("a.yaml", &pool(fields));
        assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
        assert_eq!(parsed.objects.len(), 1, "{fields}");
    }
    for (fields, expected) in [
        (
            "  vxlanMode: Always\n",
            expect![[r#"
            a.yaml:6: IPPool/p: spec.vxlanMode: `Always` can't be had; there is no VXLAN here: write `Never`, and `ipipMode` for tunnels, or remove the field
        "#]],
        ),
        (
            "  vxlanMode: Sometimes\n",
            expect![[r#"
            a.yaml:6: IPPool/p: spec.vxlanMode: `Sometimes` is unknown; it may be `Never`
        "#]],
        ),
        (
            "  allowedUses: [Tunnel]\n",
            expect![[r#"
            a.yaml:6: IPPool/p: spec.allowedUses: a pool is for pods: write `Workload` too, or remove the pool
        "#]],
        ),
        (
            "  allowedUses: []\n",
            expect![[r#"
            a.yaml:6: IPPool/p: spec.allowedUses: a pool is for pods: write `Workload` too, or remove the pool
        "#]],
        ),
        (
            "  allowedUses: [Workload, LoadBalancer]\n",
            expect![[r#"
            a.yaml:6: IPPool/p: spec.allowedUses[1]: `LoadBalancer` can't be had; Services have their addresses from elsewhere: write `Workload`
        "#]],
        ),
    ] {
        check(&pool(fields), &expected);
    }
}

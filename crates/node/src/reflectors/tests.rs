use std::collections::{BTreeMap, BTreeSet};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use resources::node::{EXCLUDE_REFLECTOR, ZONE};
use resources::{ClusterState, Index, Metadata, Node};

use super::{Reflectors, choose, weight};
use crate::plan;

fn node(name: &str, zone: &str) -> Node {
    Node {
        metadata: Metadata {
            name: name.to_owned(),
            labels: [(ZONE.to_owned(), zone.to_owned())].into(),
            ..Metadata::default()
        },
        ..Node::default()
    }
}

/// A cluster: names to zones.
fn nodes() -> impl Strategy<Value = BTreeMap<String, String>> {
    let name = "(node|worker|ip-10-0-0)-[0-9]{1,3}";
    proptest::collection::btree_map(name, "[abcd]", 1..40)
}

fn chosen(nodes: &BTreeMap<String, Node>, count: usize, per_zone: bool) -> BTreeSet<String> {
    let names = choose(nodes.values(), count, per_zone);
    names.into_iter().map(str::to_owned).collect()
}

fn build(zones: &BTreeMap<String, String>) -> BTreeMap<String, Node> {
    let nodes = zones
        .iter()
        .map(|(name, zone)| (name.clone(), node(name, zone)));
    nodes.collect()
}

proptest! {
    /// Who sees one node less still has all reflectors in common, but for one; and who goes without having been chosen
    /// changes nothing.
    #[test]
    fn a_node_that_goes_or_comes_changes_one_reflector_at_most(
        zones in nodes(), count in 1_usize..6, per_zone: bool, which: prop::sample::Index
    ) {
        let all = build(&zones);
        let before = chosen(&all, count, per_zone);
        let name = zones.keys().nth(which.index(zones.len())).unwrap();
        let mut without = all.clone();
        without.remove(name);
        let after = chosen(&without, count, per_zone);
        let gone: Vec<_> = before.difference(&after).collect();
        let come: Vec<_> = after.difference(&before).collect();
        if before.contains(name) {
            prop_assert_eq!(gone, vec![name]);
            prop_assert!(come.len() <= 1);
        } else {
            prop_assert!(gone.is_empty() && come.is_empty());
        }
        // A cordon is no different, as long as there is somebody else.
        let mut cordoned = all.clone();
        cordoned.get_mut(name).unwrap().spec.unschedulable = true;
        let kept = chosen(&cordoned, count, per_zone);
        prop_assert!(before.difference(&kept).all(|gone| gone == name));
    }

    #[test]
    fn reflectors_are_spread_over_zones(zones in nodes(), count in 1_usize..6) {
        let all = build(&zones);
        let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
        for zone in zones.values() {
            *sizes.entry(zone).or_default() += 1;
        }
        let in_zone = |names: &BTreeSet<String>, zone: &str| {
            names.iter().filter(|name| zones[*name] == zone).count()
        };
        let total = chosen(&all, count, false);
        prop_assert_eq!(total.len(), count.min(zones.len()));
        let most = sizes.keys().map(|zone| in_zone(&total, zone)).max().unwrap();
        for (zone, size) in &sizes {
            // One zone has one more than another only because that one has no more nodes.
            prop_assert!(in_zone(&total, zone) + 1 >= most.min(*size));
        }
        let each = chosen(&all, count, true);
        for (zone, size) in &sizes {
            prop_assert_eq!(in_zone(&each, zone), count.min(*size));
        }
    }
}

#[test]
fn what_agents_of_all_versions_agree_on() {
    // Computed by other means.
    assert_eq!(weight("n1"), 17_708_300_346_417_107_204);
    assert_eq!(weight("n2"), 402_811_653_832_539_157);
}

#[test]
fn doubtful_nodes_are_taken_where_there_are_no_others() {
    let mut all = build(
        &["n1", "n2", "n3"]
            .map(|name| (name.to_owned(), "a".to_owned()))
            .into(),
    );
    let first = chosen(&all, 1, false).pop_first().unwrap();
    let mut two = chosen(&all, 2, false);
    two.remove(&first);
    let second = two.pop_first().unwrap();
    let condition = |status: &str| resources::node::NodeCondition {
        kind: "Ready".to_owned(),
        status: status.to_owned(),
    };
    all.get_mut(&first).unwrap().status.conditions = vec![condition("Unknown")];
    assert_eq!(chosen(&all, 1, false), [second].into());
    for node in all.values_mut() {
        node.status.conditions = vec![condition("False")];
    }
    // All of them: as if nobody had said anything.
    assert_eq!(chosen(&all, 1, false), [first.clone()].into());
    let labels = &mut all.get_mut(&first).unwrap().metadata.labels;
    labels.insert(EXCLUDE_REFLECTOR.to_owned(), String::new());
    assert!(!chosen(&all, 3, false).contains(&first));
}

/// Six nodes in two zones.
fn cluster(spec: &str) -> ClusterState {
    let mut text = format!(
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: default}}\nspec: {{{spec}}}\n"
    );
    for number in 1..=6 {
        let zone = if number <= 3 { "a" } else { "b" };
        text += &format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}, labels: {{{ZONE}: {zone}, number: \"{number}\"}}}}\n\
             spec: {{podCIDR: 10.244.{number}.0/24}}\nstatus: {{addresses: [{{type: InternalIP, address: 192.0.2.{number}}}]}}\n"
        );
    }
    let parsed = resources::yaml::parse("a.yaml", &text);
    assert_eq!(parsed.problems, []);
    let mut index = Index::default();
    index.replace("a.yaml", parsed);
    index.state().clone()
}

/// Each node's peers.
#[track_caller]
fn check(spec: &str, expected: &Expect) {
    let cluster = cluster(spec);
    let mut shown = String::new();
    for name in cluster.nodes.keys() {
        let plan = plan(&cluster, name).unwrap();
        let peers = plan.speaker.peers.values().map(|peer| {
            let client = peer
                .rules
                .client
                .map(|client| format!(" of {}", client.cluster_id));
            format!("{}{}", peer.origin, client.unwrap_or_default())
        });
        let peers: Vec<String> = peers.collect();
        shown += &format!("{name} {:?}: {}\n", plan.topology.role, peers.join(", "));
        for problem in plan.problems {
            shown += &format!("{:?}: {problem}\n", problem.severity);
        }
    }
    expected.assert_eq(&shown);
}

#[test]
fn clients_peer_with_reflectors_and_reflectors_with_all() {
    check(
        "routeReflectors: {auto: {count: 2}}",
        &expect![[r#"
        n1 Reflector: client/n2 of 192.0.2.1, client/n3 of 192.0.2.1, client/n4 of 192.0.2.1, client/n5 of 192.0.2.1, reflector/n6
        n2 Client: reflector/n1, reflector/n6
        n3 Client: reflector/n1, reflector/n6
        n4 Client: reflector/n1, reflector/n6
        n5 Client: reflector/n1, reflector/n6
        n6 Reflector: reflector/n1, client/n2 of 192.0.2.6, client/n3 of 192.0.2.6, client/n4 of 192.0.2.6, client/n5 of 192.0.2.6
    "#]],
    );
    check(
        "routeReflectors: {auto: {count: 1, perZone: true}}",
        &expect![[r#"
            n1 Reflector: client/n2 of 192.0.2.1, client/n3 of 192.0.2.1, reflector/n6
            n2 Client: reflector/n1
            n3 Client: reflector/n1
            n4 Client: reflector/n6
            n5 Client: reflector/n6
            n6 Reflector: reflector/n1, client/n4 of 192.0.2.6, client/n5 of 192.0.2.6
        "#]],
    );
    check(
        "routeReflectors: {nodeSelector: \"number in (2, 5)\"}",
        &expect![[r#"
            n1 Client: reflector/n2, reflector/n5
            n2 Reflector: client/n1 of 192.0.2.2, client/n3 of 192.0.2.2, client/n4 of 192.0.2.2, reflector/n5, client/n6 of 192.0.2.2
            n3 Client: reflector/n2, reflector/n5
            n4 Client: reflector/n2, reflector/n5
            n5 Reflector: client/n1 of 192.0.2.5, reflector/n2, client/n3 of 192.0.2.5, client/n4 of 192.0.2.5, client/n6 of 192.0.2.5
            n6 Client: reflector/n2, reflector/n5
        "#]],
    );
    check(
        "routeReflectors: {nodeSelector: \"number = 2\", auto: {count: 3}}",
        &expect![[r#"
            n1 Client: reflector/n2
            n2 Reflector: client/n1 of 192.0.2.2, client/n3 of 192.0.2.2, client/n4 of 192.0.2.2, client/n5 of 192.0.2.2, client/n6 of 192.0.2.2
            n3 Client: reflector/n2
            n4 Client: reflector/n2
            n5 Client: reflector/n2
            n6 Client: reflector/n2
        "#]],
    );
    check(
        "routeReflectors: {nodeSelector: nobody}",
        &expect![[r#"
            n1 Meshed: mesh/n2, mesh/n3, mesh/n4, mesh/n5, mesh/n6
            Error: BGPConfiguration/default: spec.routeReflectors: no Node may be a route reflector: the nodes form a full mesh until there is one
            n2 Meshed: mesh/n1, mesh/n3, mesh/n4, mesh/n5, mesh/n6
            Error: BGPConfiguration/default: spec.routeReflectors: no Node may be a route reflector: the nodes form a full mesh until there is one
            n3 Meshed: mesh/n1, mesh/n2, mesh/n4, mesh/n5, mesh/n6
            Error: BGPConfiguration/default: spec.routeReflectors: no Node may be a route reflector: the nodes form a full mesh until there is one
            n4 Meshed: mesh/n1, mesh/n2, mesh/n3, mesh/n5, mesh/n6
            Error: BGPConfiguration/default: spec.routeReflectors: no Node may be a route reflector: the nodes form a full mesh until there is one
            n5 Meshed: mesh/n1, mesh/n2, mesh/n3, mesh/n4, mesh/n6
            Error: BGPConfiguration/default: spec.routeReflectors: no Node may be a route reflector: the nodes form a full mesh until there is one
            n6 Meshed: mesh/n1, mesh/n2, mesh/n3, mesh/n4, mesh/n5
            Error: BGPConfiguration/default: spec.routeReflectors: no Node may be a route reflector: the nodes form a full mesh until there is one
        "#]],
    );
}

#[test]
fn agents_choose_alike() {
    let cluster = cluster("routeReflectors: {auto: {count: 3}}");
    let reflectors = Reflectors::new(&cluster).unwrap();
    for (name, node) in &cluster.nodes {
        let plan = plan(&cluster, name).unwrap();
        for (other_name, other) in cluster.nodes.iter().filter(|(other, _)| *other != name) {
            // What one end has, the other has too.
            let address = other.internal_ips().next().unwrap();
            let there = plan.speaker.peers.contains_key(&address);
            assert_eq!(there, reflectors.joins(node, other), "{name} {other_name}");
        }
    }
}

#[test]
fn a_large_mesh_is_said() {
    let mut cluster = cluster("nodeToNodeMeshEnabled: true");
    let problems = |cluster: &ClusterState| plan(cluster, "n1").unwrap().problems;
    assert_eq!(problems(&cluster), []);
    for number in 7..=100 {
        let mut other = node(&format!("n{number}"), "a");
        other.status.addresses = vec![resources::node::NodeAddress {
            kind: "InternalIP".to_owned(),
            address: format!("192.0.2.{number}"),
        }];
        cluster.nodes.insert(other.metadata.name.clone(), other);
    }
    assert_eq!(problems(&cluster), []);
    let mut one_more = node("n101", "a");
    one_more.status.addresses = vec![resources::node::NodeAddress {
        kind: "InternalIP".to_owned(),
        address: "192.0.2.101".to_owned(),
    }];
    cluster.nodes.insert("n101".to_owned(), one_more);
    let [problem] = &problems(&cluster)[..] else {
        panic!("one");
    };
    assert!(
        problem.message.contains("the full mesh has 101 nodes"),
        "{problem}"
    );
}

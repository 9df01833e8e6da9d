use expect_test::{Expect, expect};
use resources::{Index, yaml};

use super::*;

const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: own, labels: {disk: ssd}}
spec: {podCIDRs: [10.244.1.0/24, 'fd00:1::/64']}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: bare, labels: {disk: hdd}}
status: {addresses: [{type: InternalIP, address: 192.0.2.2}]}
";

fn pool(name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}"
    )
}

fn cluster(objects: &str) -> ClusterState {
    let parsed = yaml::parse("x.yaml", &(NODES.to_owned() + objects));
    assert_eq!(parsed.problems, []);
    let mut index = Index::default();
    index.replace("x.yaml", parsed);
    index.state().clone()
}

fn check(objects: &str, node: &str, expected: &Expect) {
    let cluster = cluster(objects);
    let mut problems = Vec::new();
    let plan = addressing(&cluster, &cluster.nodes[node], &mut problems);
    let mut shown = format!("cidrs {:?}\n", plan.cidrs);
    for pool in &plan.pools {
        let how = if pool.automatic {
            "automatic"
        } else {
            "manual"
        };
        shown += &format!("{} {} in /{} {how}\n", pool.name, pool.cidr, pool.block_len);
    }
    for problem in problems {
        shown += &format!("{problem}\n");
    }
    expected.assert_eq(&shown);
}

#[test]
fn a_pool_that_says_nothing_is_for_nodes_without_a_pod_cidr() {
    let objects = pool("a", "cidr: 10.0.0.0/16");
    check(
        &objects,
        "own",
        &expect![[r#"
        cidrs [10.244.1.0/24, fd00:1::/64]
    "#]],
    );
    check(
        &objects,
        "bare",
        &expect![[r#"
        cidrs []
        a 10.0.0.0/16 in /26 automatic
    "#]],
    );
}

#[test]
fn an_automatic_pool_takes_its_family_over() {
    let objects = pool(
        "a",
        "cidr: 10.0.0.0/16, assignmentMode: Automatic, blockSize: 28",
    ) + &pool("b", "cidr: 10.1.0.0/16")
        + &pool(
            "c",
            "cidr: 'fd00:2::/112', nodeSelector: disk == 'hdd', assignmentMode: Automatic",
        );
    check(
        &objects,
        "own",
        &expect![[r#"
        cidrs [fd00:1::/64]
        a 10.0.0.0/16 in /28 automatic
        b 10.1.0.0/16 in /26 automatic
    "#]],
    );
    check(
        &objects,
        "bare",
        &expect![[r#"
        cidrs []
        a 10.0.0.0/16 in /28 automatic
        b 10.1.0.0/16 in /26 automatic
        c fd00:2::/112 in /122 automatic
    "#]],
    );
}

/// Whoever disables the pool of a node doesn't mean that its pods go back to the pod CIDR.
#[test]
fn a_disabled_pool_gives_nothing_and_keeps_what_it_took_over() {
    let objects = pool(
        "a",
        "cidr: 10.0.0.0/16, assignmentMode: Automatic, disabled: true",
    ) + &pool("m", "cidr: 10.2.0.0/24, assignmentMode: Manual");
    check(
        &objects,
        "own",
        &expect![[r#"
        cidrs [fd00:1::/64]
        m 10.2.0.0/24 in /26 manual
    "#]],
    );
}

#[test]
fn what_is_odd_is_said() {
    let objects = pool("a", "cidr: 10.0.0.0/28") + &pool("b", "cidr: 10.0.0.0/16");
    check(
        &objects,
        "bare",
        &expect![[r#"
        cidrs []
        a 10.0.0.0/28 in /28 automatic
        b 10.0.0.0/16 in /26 automatic
        IPPool/a: spec.cidr: 10.0.0.0/28 is smaller than a block of the usual size, /26: it is one block, for one node. Write blockSize
        IPPool/b: spec.cidr: 10.0.0.0/16 overlaps 10.0.0.0/28 of IPPool a: give each pool a range of its own
    "#]],
    );
}

#[test]
fn namespaces_are_selected_by_their_labels() {
    let objects = pool("a", "cidr: 10.0.0.0/16, namespaceSelector: team == 'x'")
        + &pool(
            "b",
            "cidr: 10.1.0.0/16, namespaceSelector: \"kubernetes.io/metadata.name == 'late'\"",
        )
        + &pool("c", "cidr: 10.2.0.0/16")
        + "\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: one, labels: {team: x}}\n";
    let cluster = cluster(&objects);
    let plan = addressing(&cluster, &cluster.nodes["bare"], &mut Vec::new());
    let selected = |namespace| -> Vec<&str> {
        let pools = plan.pools.iter();
        pools
            .filter(|pool| plan.selects(pool, namespace))
            .map(|pool| pool.name.as_str())
            .collect()
    };
    assert_eq!(selected(Some("one")), ["a", "c"]);
    // Not in the configuration: its name is known all the same.
    assert_eq!(selected(Some("late")), ["b", "c"]);
    assert_eq!(selected(None), ["c"]);
}

#[test]
fn blocks_stay_out_of_pod_cidrs_that_count() {
    let objects = pool("a", "cidr: 10.244.0.0/16");
    let bare = |objects: &str| {
        let cluster = cluster(objects);
        addressing(&cluster, &cluster.nodes["bare"], &mut Vec::new()).foreign
    };
    assert_eq!(
        bare(&objects),
        ["10.244.1.0/24", "fd00:1::/64"].map(|cidr| cidr.parse().unwrap())
    );
    let objects = pool("a", "cidr: 10.244.0.0/16, assignmentMode: Automatic");
    assert_eq!(bare(&objects), ["fd00:1::/64".parse::<IpNet>().unwrap()]);
}

use expect_test::{Expect, expect};

use super::Index;
use crate::yaml::parse;
use crate::{Kind, Object};

fn pool(name: &str, cidr: &str) -> String {
    format!(
        "apiVersion: margay.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: {name}}}\nspec:\n  cidr: {cidr}\n---\n"
    )
}

fn replace(index: &mut Index, file: &str, text: &str) -> bool {
    index.replace(file, parse(file, text))
}

#[track_caller]
fn check(index: &Index, expected: &Expect) {
    let mut shown = String::new();
    for (name, pool) in &index.state().pools {
        shown += &format!("{name} {}\n", pool.cidr);
    }
    for problem in index.problems() {
        shown += &format!("{problem}\n");
    }
    expected.assert_eq(&shown);
}

#[test]
fn the_last_good_version_stays_in_force() {
    let mut index = Index::default();
    assert!(replace(
        &mut index,
        "a.yaml",
        &(pool("p", "10.1.0.0/16") + &pool("q", "10.2.0.0/16"))
    ));
    assert!(!replace(
        &mut index,
        "a.yaml",
        &(pool("p", "10.1.0.1/16") + &pool("q", "10.2.0.0/16"))
    ));
    check(
        &index,
        &expect![[r#"
        p 10.1.0.0/16
        q 10.2.0.0/16
        a.yaml:5: IPPool/p: spec.cidr: `10.1.0.1/16` has bits set beyond its prefix length: did you mean `10.1.0.0/16`? (the last good version stays in force)
    "#]],
    );
    assert!(replace(
        &mut index,
        "a.yaml",
        &(pool("p", "10.1.0.1/16") + &pool("q", "10.3.0.0/16"))
    ));
    check(
        &index,
        &expect![[r#"
        p 10.1.0.0/16
        q 10.3.0.0/16
        a.yaml:5: IPPool/p: spec.cidr: `10.1.0.1/16` has bits set beyond its prefix length: did you mean `10.1.0.0/16`? (the last good version stays in force)
    "#]],
    );
    assert!(replace(&mut index, "a.yaml", &pool("q", "10.3.0.0/16")));
    check(
        &index,
        &expect![[r#"
        q 10.3.0.0/16
    "#]],
    );
}

#[test]
fn what_is_no_yaml_keeps_what_it_was() {
    let mut index = Index::default();
    replace(
        &mut index,
        "a.yaml",
        &(pool("p", "10.1.0.0/16") + &pool("q", "10.2.0.0/16") + &pool("r", "10.4.0.0/16")),
    );
    // Named: only that object stays.
    replace(
        &mut index,
        "a.yaml",
        &(pool("p", "[") + &pool("q", "10.2.0.0/16")),
    );
    check(
        &index,
        &expect![[r#"
            p 10.1.0.0/16
            q 10.2.0.0/16
            a.yaml:5: IPPool/p: not YAML: unclosed bracket '[' (the last good version stays in force)
        "#]],
    );
    // Nameless: it may have been any of those that are missing.
    replace(&mut index, "a.yaml", "{{{");
    check(
        &index,
        &expect![[r#"
            p 10.1.0.0/16
            q 10.2.0.0/16
            a.yaml:1: not YAML: unclosed bracket '{' (objects that the file had before stay in force)
        "#]],
    );
    assert!(replace(&mut index, "a.yaml", ""));
    check(&index, &expect![""]);
}

#[test]
fn the_first_of_two_sources_wins() {
    let mut index = Index::default();
    assert!(replace(&mut index, "b.yaml", &pool("p", "10.2.0.0/16")));
    assert!(replace(
        &mut index,
        "a.yaml",
        &(pool("p", "10.1.0.0/16") + &pool("p", "10.3.0.0/16"))
    ));
    check(
        &index,
        &expect![[r#"
        p 10.1.0.0/16
        a.yaml:7: IPPool/p: defined twice: the one from line 1 counts; remove this one
        b.yaml:1: IPPool/p: defined twice: the one from a.yaml counts; remove this one
    "#]],
    );
    assert_eq!(index.origin(Kind::IpPool, "p"), Some(("a.yaml", Some(1))));
    assert!(index.retain_sources(|source| source != "a.yaml"));
    check(
        &index,
        &expect![[r#"
        p 10.2.0.0/16
    "#]],
    );
    assert!(index.retain_sources(|_| false));
    check(&index, &expect![""]);
}

#[test]
fn objects_come_and_go_one_by_one() {
    let object = |cidr: &str| -> Object {
        let mut object = parse("x", &pool("p", "10.1.0.0/16")).objects.remove(0).1;
        if let Object::IpPool(pool) = &mut object {
            pool.spec.cidr = cidr.parse().unwrap();
        }
        object
    };
    let mut index = Index::default();
    assert!(index.apply(object("10.1.0.0/16")));
    assert!(!index.apply(object("10.1.0.0/16")));
    assert!(!index.apply(object("0.0.0.0/0")));
    check(
        &index,
        &expect![[r#"
        p 10.1.0.0/16
        kubernetes: IPPool/p: spec.cidr: a pool of all addresses would let a peer take the default route: write your pods' own range (the last good version stays in force)
    "#]],
    );
    assert!(index.apply(object("10.2.0.0/16")));
    check(
        &index,
        &expect![[r#"
        p 10.2.0.0/16
    "#]],
    );
    assert!(index.delete(Kind::IpPool, "p"));
    assert!(!index.delete(Kind::IpPool, "p"));
    check(&index, &expect![""]);
}

/// What comes over the API is judged as what stands in a file is, and has no line.
#[test]
fn what_the_api_sends_is_judged_too() {
    let mut index = Index::default();
    let pool = |cidr: &str| serde_json::json!({"apiVersion": "margay.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "p"}, "spec": {"cidr": cidr}});
    assert!(index.receive(Kind::IpPool, &pool("10.1.0.0/16")));
    assert!(!index.receive(Kind::IpPool, &pool("10.1.0.1/16")));
    check(
        &index,
        &expect![[r#"
        p 10.1.0.0/16
        kubernetes: IPPool/p: spec.cidr: `10.1.0.1/16` has bits set beyond its prefix length: did you mean `10.1.0.0/16`? (the last good version stays in force)
    "#]],
    );
    assert!(index.receive(Kind::IpPool, &pool("10.2.0.0/16")));
    check(
        &index,
        &expect![[r#"
        p 10.2.0.0/16
    "#]],
    );
    let peer = serde_json::json!({
        "apiVersion": "margay.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {"peerIP": "192.0.2.1", "asNumber": 64500, "password": {"secretKeyRef": {"name": "bgp", "key": "k"}}},
    });
    assert!(index.receive(Kind::BgpPeer, &peer));
    assert_eq!(index.state().secret_names(), ["bgp".to_owned()].into());
    assert!(index.delete(Kind::BgpPeer, "tor"));
    assert!(index.state().secret_names().is_empty());
}

#[test]
fn a_kind_that_is_forgotten_leaves_the_others() {
    let mut index = Index::default();
    let receive = |index: &mut Index, text: &str| {
        for (_, object) in parse("x.yaml", text).objects {
            index.apply(object);
        }
    };
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {team: a}}\n";
    receive(&mut index, namespace);
    receive(&mut index, &pool("p", "10.1.0.0/16"));
    assert!(index.state().further_kinds().is_empty());
    let selector = pool("q", "10.2.0.0/16\n  namespaceSelector: team == 'a'");
    receive(&mut index, &selector);
    assert_eq!(index.state().further_kinds(), [Kind::Namespace].into());
    receive(
        &mut index,
        "apiVersion: margay.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: default}\nspec: {serviceClusterIPs: [{cidr: 10.96.0.0/12}]}\n",
    );
    let all = [Kind::EndpointSlice, Kind::Namespace, Kind::Service];
    assert_eq!(index.state().further_kinds(), all.into());
    assert!(index.forget(Kind::Namespace) && !index.forget(Kind::Namespace));
    let state = index.state();
    assert_eq!((state.namespaces.len(), state.pools.len()), (0, 2));
}

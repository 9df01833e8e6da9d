//! GC.

use serde_json::{Value, json};

use super::delegation::Delegates;
use crate::support::{Node, Pod};

/// Three pods of the network, and what a GC of it leaves.
fn gc(valid: Option<Value>) -> String {
    let node = Node::new("10.244.1.0/24");
    let pods = ["a", "b", "c"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let mut config = node.config("1.1.0");
    if let Some(valid) = valid {
        config["cni.dev/valid-attachments"] = valid;
    }
    let outcome = node.cni("GC", &pods[0], &config);
    assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    let left = containers(&node);
    assert_eq!(node.veths().len(), left.split_whitespace().count());
    left
}

fn containers(node: &Node) -> String {
    let endpoints = node.agent().endpoints();
    let ids: Vec<String> = endpoints
        .into_iter()
        .map(|endpoint| endpoint.container_id)
        .collect();
    ids.join(" ")
}

#[test]
fn point_37_gc_reads_valid_attachments() {
    let valid =
        json!([{ "containerID": "b", "ifname": "eth0" }, { "containerID": "c", "ifname": "eth1" }]);
    assert_eq!(gc(Some(valid)), "b");
    let node = Node::new("10.244.1.0/24");
    let (code, text) = node
        .cni("GC", &Pod::new("a"), &node.config("1.0.0"))
        .error();
    assert!(code == 1 && text.contains("GC"), "{code} {text}");
    let mut config = node.config("1.1.0");
    config["cni.dev/valid-attachments"] = json!([{ "containerID": 7 }]);
    assert_eq!(node.cni("GC", &Pod::new("a"), &config).error().0, 7);
}

#[test]
fn point_38_gc_frees_what_its_own_network_has_too_much() {
    let node = Node::new("10.244.1.0/24");
    let pods = ["a", "b"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let mut elsewhere = node.config("1.1.0");
    elsewhere["name"] = json!("elsewhere");
    let other = Pod::new("d");
    node.cni("ADD", &other, &elsewhere).success();
    // A namespace that nobody can open any more, and yet is not dead: something holds it.
    let mut gone = Pod::new("gone");
    node.add(&gone);
    gone.path = "/run/netns/gone".into();
    let mut config = node.config("1.1.0");
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
    config["cni.dev/attachments"] = config["cni.dev/valid-attachments"].clone();
    assert!(node.cni("GC", &gone, &config).ok);
    assert_eq!(containers(&node), "b d");
    let routes = node.run("ip -o route");
    assert_eq!(routes.lines().count(), 2, "{routes}");
    let usage = &node.agent().usage()[0];
    assert_eq!((usage.used, usage.cooling), (2, 2));
}

#[test]
fn point_39_absent_attachments_are_not_no_attachments() {
    assert_eq!(gc(None), "a b c");
    assert_eq!(gc(Some(Value::Null)), "");
    assert_eq!(gc(Some(json!([]))), "");
}

#[test]
fn point_40_gc_goes_on_and_prints_nothing() {
    let node = Node::new("10.244.1.0/24");
    let pods: Vec<Pod> = (0..30)
        .map(|number| Pod::new(&format!("pod-{number}")))
        .collect();
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let mut config = node.config("1.1.0");
    config["cni.dev/valid-attachments"] = json!([]);
    // Links go while they are collected: deleted by hand, by a DEL, and by two GCs at once.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deleted = node.veths().into_iter().step_by(3);
            deleted.for_each(|veth| drop(node.try_run(&format!("ip link del {veth}"))));
        });
        scope.spawn(|| pods.iter().step_by(4).for_each(|pod| node.del(pod)));
        for _ in 0..2 {
            scope.spawn(|| {
                let outcome = node.cni("GC", &pods[0], &config);
                assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
            });
        }
    });
    assert!(node.cni("GC", &pods[0], &config).ok);
    assert_eq!(node.veths(), Vec::<String>::new());
    crate::support::eventually("no endpoint is left", || {
        node.agent().endpoints().is_empty() && node.agent().usage()[0].used == 0
    });
    assert_eq!(node.run("ip route"), "");
}

#[test]
fn point_41_gc_has_no_delegate_to_tell() {
    let node = Node::new("10.244.1.0/24");
    let delegates = Delegates::new(&node);
    let mut config = node.config("1.1.0");
    config["cni.dev/valid-attachments"] = json!([]);
    assert!(delegates.run("GC", &Pod::new("a"), &config).ok);
    assert_eq!(delegates.calls(), "");
}

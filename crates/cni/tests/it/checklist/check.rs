//! CHECK.

use serde_json::{Value, json};

use crate::support::{Node, Pod};

/// A pod that is attached, and the configuration of a CHECK.
fn attached(node: &Node) -> (Pod, Value) {
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.1.0");
    config["prevResult"] = node.add(&pod);
    (pod, config)
}

#[test]
fn point_29_check_needs_0_4_0_and_prev_result() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    node.add(&pod);
    let (code, text) = node.cni("CHECK", &pod, &node.config("0.3.1")).error();
    assert!(code == 1 && text.contains("CHECK"), "{code} {text}");
    let (code, text) = node.cni("CHECK", &pod, &node.config("0.4.0")).error();
    assert!(code == 7 && text.contains("prevResult"), "{code} {text}");
    let mut config = node.config("1.0.0");
    config["prevResult"] = json!({ "ips": [] });
    let (code, text) = node.cni("CHECK", &pod, &config).error();
    assert!(code == 7 && text.contains("eth0"), "{code} {text}");
}

#[test]
fn point_30_check_sees_what_is_lost() {
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    let wrong = |pod: &Pod, config: &Value, wanted: &str| {
        let (code, text) = node.cni("CHECK", pod, config).error();
        assert!(code == 104 && text.contains(wanted), "{code} {text}");
        node.del(pod);
    };
    for (lost, wanted) in [
        (
            "ip addr del fd00:10:244:1::1/128 dev eth0",
            "fd00:10:244:1::1",
        ),
        ("ip addr flush dev eth0 scope global", "lost its address"),
        ("ip route del default", "has no default route"),
        ("ip -6 route del default", "has no default route"),
        ("ip link set eth0 down", "eth0 that is up"),
    ] {
        let (pod, config) = attached(&node);
        let address = config["prevResult"]["ips"][1]["address"].as_str().unwrap();
        pod.run(&lost.replace("fd00:10:244:1::1/128", address));
        let wanted = wanted.replace("fd00:10:244:1::1", address.trim_end_matches("/128"));
        wrong(&pod, &config, &wanted);
    }
    let (pod, mut config) = attached(&node);
    config["prevResult"]["ips"][0]["address"] = json!("10.244.1.250/32");
    wrong(&pod, &config, "10.244.1.250");
}

#[test]
fn point_31_check_tolerates_what_later_plugins_changed() {
    let node = Node::new("10.244.1.0/24");
    let (pod, mut config) = attached(&node);
    pod.run("ip link set eth0 mtu 1380 address 02:00:00:00:00:09");
    pod.run("ip route add 198.51.100.0/24 dev eth0");
    let extra = json!({ "name": "ifb0", "mac": "02:00:00:00:00:0a" });
    let interfaces = config["prevResult"]["interfaces"].as_array_mut().unwrap();
    interfaces.push(extra);
    assert!(node.cni("CHECK", &pod, &config).ok);
}

#[test]
fn point_32_check_sees_what_no_result_tells() {
    let mut node = Node::new("10.244.1.0/24");
    let (pod, config) = attached(&node);
    node.run("ip route del 10.244.1.1");
    let (code, text) = node.cni("CHECK", &pod, &config).error();
    assert!(
        code == 104 && text.contains("does not route 10.244.1.1"),
        "{code} {text}"
    );
    let other = Pod::new("decaf");
    let mut of_other = config.clone();
    of_other["prevResult"]["interfaces"][1]["sandbox"] = json!(other.path);
    let (code, text) = node.cni("CHECK", &other, &of_other).error();
    assert!(code == 3 && text.contains("decaf"), "{code} {text}");
    node.stop_agent();
    let (code, text) = node.cni("CHECK", &pod, &config).error();
    assert!(code == 11 && text.contains("margayd"), "{code} {text}");
}

#[test]
fn point_33_check_right_after_add() {
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::new(&format!("pod-{version}"));
        let mut config = node.config(version);
        config["prevResult"] = node.cni("ADD", &pod, &config).success();
        let outcome = node.cni("CHECK", &pod, &config);
        assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    }
    // An attachment without a default route isn't asked for one.
    let pod = Pod::new("second");
    let mut config = node.config("1.1.0");
    config["isDefaultGateway"] = json!(false);
    config["prevResult"] = node.cni("ADD", &pod, &config).success();
    assert!(node.cni("CHECK", &pod, &config).ok);
}

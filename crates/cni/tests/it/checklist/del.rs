//! DEL.

use serde_json::json;

use crate::support::{Node, Pod};

#[test]
fn point_23_del_repeats() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    node.del(&pod);
    node.add(&pod);
    (0..3).for_each(|_| node.del(&pod));
    node.add(&pod);
    // What was made may be gone already, in part or as a whole.
    pod.run("ip link del eth0");
    node.del(&pod);
    assert_eq!(node.veths(), Vec::<String>::new());
}

#[test]
fn point_24_del_without_a_namespace() {
    let node = Node::new("10.244.1.0/24");
    let mut pod = Pod::new("c0ffee");
    for path in ["", "/run/netns/gone", "/dev/null"] {
        let own = std::mem::replace(&mut pod.path, path.into());
        node.del(&pod);
        assert_eq!(node.veths(), Vec::<String>::new(), "{path}");
        pod.path = own;
        node.add(&pod);
    }
}

#[test]
fn point_25_del_without_prev_result() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.1.0");
    config["prevResult"] = node.add(&pod);
    for config in [node.config("1.1.0"), config] {
        assert!(node.cni("DEL", &pod, &config).ok);
        assert_eq!(node.veths(), Vec::<String>::new());
        node.add(&pod);
    }
}

#[test]
fn point_26_del_frees_address_and_host_state_without_a_namespace() {
    let node = Node::new("10.244.1.0/24");
    let mut pod = Pod::new("c0ffee");
    node.add(&pod);
    assert_eq!(node.agent().usage()[0].used, 1);
    pod.path = String::new();
    node.del(&pod);
    assert_eq!(node.agent().usage()[0].used, 0);
    assert_eq!(node.run("ip route") + &node.run("ip neigh"), "");
    assert_eq!(node.veths(), Vec::<String>::new());
}

#[test]
fn point_27_del_takes_nothing_of_others_in_prev_result() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut result = node.add(&pod);
    node.run("ip link add others type veth peer name others-peer");
    let interfaces = result["interfaces"].as_array_mut().unwrap();
    interfaces.push(json!({ "name": "others", "mac": "02:00:00:00:00:09" }));
    let mut config = node.config("1.1.0");
    config["prevResult"] = result;
    assert!(node.cni("DEL", &pod, &config).ok);
    assert_eq!(node.veths(), Vec::<String>::new());
    node.run("ip link show dev others");
}

#[test]
fn point_28_del_of_a_container_that_the_agent_does_not_know() {
    let mut node = Node::new("10.244.1.0/24");
    node.del(&Pod::new("stranger"));
    // Nor need the agent know of a link that is there: it may have been made behind its back.
    let pod = Pod::new("c0ffee");
    let veth = node.add(&pod)["interfaces"][0]["name"].clone();
    node.del(&pod);
    let make = format!(
        "ip link add {} type veth peer name x",
        veth.as_str().unwrap()
    );
    node.run(&make);
    node.del(&pod);
    assert_eq!(node.veths(), Vec::<String>::new());
    node.stop_agent();
    node.run(&make);
    node.del(&pod);
    assert_eq!(node.veths(), Vec::<String>::new());
}

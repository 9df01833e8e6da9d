//! A pod from one end to the other; what the kernel holds is asked of `ip`.

use agent::pods::Endpoint;
use serde_json::{Value, json};

use crate::support::{Node, Pod};

#[test]
fn a_pod_gets_address_route_and_neighbours() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let result = node.add(&pod);
    let expected = json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": "mgy6ad2516ced2a", "mac": "6a:10:30:61:60:13", "mtu": 1400 },
            { "name": "eth0", "mac": "e2:1d:64:a0:c3:60", "mtu": 1400, "sandbox": pod.path },
        ],
        "ips": [{ "address": "10.244.1.1/32", "gateway": "169.254.1.1", "interface": 1 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
    });
    assert_eq!(result, expected);

    let link: Value = serde_json::from_str(&pod.run("ip -j addr show dev eth0")).unwrap();
    assert_eq!(link[0]["mtu"], 1400);
    assert_eq!(
        (
            &link[0]["addr_info"][0]["local"],
            &link[0]["addr_info"][0]["prefixlen"]
        ),
        (&json!("10.244.1.1"), &json!(32))
    );
    let routes = pod.run("ip route");
    assert!(
        routes.contains("default via 169.254.1.1 dev eth0"),
        "{routes}"
    );
    for neighbours in [pod.run("ip -j neigh"), node.run("ip -j neigh")] {
        let neighbours: Value = serde_json::from_str(&neighbours).unwrap();
        assert_eq!(neighbours[0]["state"], json!(["PERMANENT"]));
    }
    let alias: Value =
        serde_json::from_str(&node.run("ip -j link show dev mgy6ad2516ced2a")).unwrap();
    assert!(
        alias[0]["ifalias"]
            .as_str()
            .unwrap()
            .contains("c=c0ffee i=eth0 n=margay a=10.244.1.1 p=default/web-0")
    );
    // The very first packet, both ways.
    node.run("ping -c1 -W1 10.244.1.1");
    pod.run("ping -c1 -W1 192.0.2.1");

    let endpoints = node.agent().endpoints();
    let [
        Endpoint {
            pod: Some((namespace, name)),
            netns,
            ..
        },
    ] = &endpoints[..]
    else {
        panic!("{endpoints:?}")
    };
    assert_eq!(
        (namespace.as_str(), name.as_str(), netns),
        ("default", "web-0", &pod.path)
    );

    node.del(&pod);
    assert_eq!(node.veths(), Vec::<String>::new());
    assert!(!pod.run("ip link").contains("eth0"));
    assert_eq!(node.run("ip route"), "");
    assert!(node.agent().endpoints().is_empty() && node.routes.live.lock().unwrap().is_empty());
}

#[test]
fn both_families_at_once() {
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    let pod = Pod::new("c0ffee");
    let result = node.add(&pod);
    let ips: Vec<_> = result["ips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ip| {
            (
                ip["address"].as_str().unwrap(),
                ip["gateway"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        ips,
        [
            ("10.244.1.1/32", "169.254.1.1"),
            ("fd00:10:244:1::1/128", "fe80::1")
        ]
    );
    node.run("ip addr add 2001:db8::1/128 dev lo nodad");
    node.run("ping -6 -c1 -W1 -I 2001:db8::1 fd00:10:244:1::1");
    pod.run("ping -6 -c1 -W1 2001:db8::1");
}

#[test]
fn capabilities_and_settings_take_effect() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.1.0");
    config["mtu"] = json!(1300);
    config["isDefaultGateway"] = json!(false);
    config["runtimeConfig"] = json!({ "mac": "02:00:5e:00:00:07", "ips": ["10.244.1.77/24"] });
    let result = node.cni("ADD", &pod, &config).success();
    assert_eq!(
        (
            &result["interfaces"][1]["mac"],
            &result["interfaces"][1]["mtu"]
        ),
        (&json!("02:00:5e:00:00:07"), &json!(1300))
    );
    assert_eq!(
        (
            &result["ips"][0]["address"],
            result["ips"][0].get("gateway"),
            &result["routes"]
        ),
        (&json!("10.244.1.77/32"), None, &json!([]))
    );
    let link = pod.run("ip -o addr show dev eth0") + &pod.run("ip -o link show dev eth0");
    assert!(
        link.contains("10.244.1.77/32")
            && link.contains("mtu 1300")
            && link.contains("02:00:5e:00:00:07"),
        "{link}"
    );
    assert_eq!(pod.run("ip route"), "");
    let (code, text) = node.cni("ADD", &Pod::new("decaf"), &config).error();
    assert!(
        code == 101 && text.contains("10.244.1.77 is in use"),
        "{code} {text}"
    );
    // A pod made anew, as a StatefulSet's: nothing rests that is asked for.
    node.del(&pod);
    let result = node.cni("ADD", &Pod::new("decaf"), &config).success();
    assert_eq!(result["ips"][0]["address"], "10.244.1.77/32");
}

#[test]
fn a_full_node_says_how_full_it_is() {
    let node = Node::new("10.244.1.0/30");
    let pods = ["a", "b"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    assert_eq!(
        node.cni("STATUS", &pods[0], &node.config("1.1.0"))
            .error()
            .0,
        50
    );
    let (code, text) = node
        .cni("ADD", &Pod::new("c"), &node.config("1.0.0"))
        .error();
    assert!(
        code == 101 && text.contains("2 of 2 in use and 0 resting") && text.contains("larger"),
        "{code} {text}"
    );
    node.del(&pods[0]);
    let (_, text) = node
        .cni("ADD", &Pod::new("c"), &node.config("1.0.0"))
        .error();
    assert!(text.contains("1 of 2 in use and 1 resting"), "{text}");
    assert_eq!(node.veths().len(), 1);
}

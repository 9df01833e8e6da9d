//! ADD, CHECK, GC and STATUS with an agent; what the kernel holds afterwards is asked of `ip`.

use std::collections::BTreeSet;

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
fn results_are_in_the_version_that_was_asked_for() {
    let node = Node::new("10.244.1.0/24");
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let pod = Pod::new(&format!("pod-{version}"));
        let mut config = node.config(version);
        config["dns"] = json!({ "nameservers": ["10.96.0.10"] });
        let result = node.cni("ADD", &pod, &config).success();
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["dns"], config["dns"]);
        if version < "0.3.0" {
            assert!(
                result["ip4"]["ip"]
                    .as_str()
                    .unwrap()
                    .starts_with("10.244.1."),
                "{result}"
            );
            assert_eq!(
                result["ip4"]["routes"],
                json!([{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }])
            );
            assert!(result.get("ips").is_none() && result.get("interfaces").is_none());
            continue;
        }
        let ip = &result["ips"][0];
        assert_eq!(
            ip.get("version"),
            (version < "1.0.0").then(|| json!("4")).as_ref(),
            "{version}"
        );
        assert_eq!(
            result["interfaces"][1].get("mtu").is_some(),
            version == "1.1.0"
        );
        assert_eq!(result["interfaces"][1]["sandbox"], json!(pod.path));
    }
}

#[test]
fn what_plugins_before_us_made_stays_in_the_result() {
    let node = Node::new("10.244.1.0/24");
    let mut config = node.config("1.0.0");
    config["prevResult"] = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "lo", "sandbox": "/x" }],
        "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
        "dns": { "search": ["example.org"] },
        "others": 1,
    });
    let result = node.cni("ADD", &Pod::new("c0ffee"), &config).success();
    assert_eq!(result["interfaces"][0]["name"], "lo");
    assert_eq!(
        (
            &result["interfaces"][2]["name"],
            &result["ips"][1]["interface"]
        ),
        (&json!("eth0"), &json!(2))
    );
    assert_eq!(
        (
            &result["ips"][0]["interface"],
            &result["dns"]["search"][0],
            &result["others"]
        ),
        (&json!(0), &json!("example.org"), &json!(1))
    );
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
fn an_interface_that_exists_is_an_error() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    pod.run("ip link add eth0 type veth peer name other");
    let (code, text) = node.cni("ADD", &pod, &node.config("1.0.0")).error();
    assert!(code == 102 && text.contains("eth0"), "{code} {text}");
    assert_eq!(node.veths(), Vec::<String>::new());
    pod.run("ip link del eth0");
    node.add(&pod);
    // A second ADD must not touch the pod that lives.
    let (code, text) = node.cni("ADD", &pod, &node.config("1.0.0")).error();
    assert!(
        code == 102 && text.contains("10.244.1.") && text.contains("DEL"),
        "{code} {text}"
    );
    node.run(&format!(
        "ping -c1 -W1 {}",
        node.agent().endpoints()[0].addresses[0]
    ));
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

#[test]
fn a_sink_that_refuses_leaves_nothing() {
    let node = Node::new("10.244.1.0/24");
    *node.routes.refuse.lock().unwrap() = Some("no route today".into());
    let (code, text) = node
        .cni("ADD", &Pod::new("a"), &node.config("1.0.0"))
        .error();
    assert!(
        code == 103 && text.contains("no route today"),
        "{code} {text}"
    );
    assert_eq!(node.veths(), Vec::<String>::new());
    assert!(node.agent().endpoints().is_empty());
}

#[test]
fn fifty_pods_at_once_have_fifty_addresses() {
    let node = Node::new("10.244.1.0/24");
    let pods: Vec<Pod> = (0..50)
        .map(|number| Pod::new(&format!("pod-{number}")))
        .collect();
    let results: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| node.add(pod)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let addresses: BTreeSet<&str> = results
        .iter()
        .map(|result| result["ips"][0]["address"].as_str().unwrap())
        .collect();
    assert_eq!(addresses.len(), 50);
    assert_eq!(node.veths().len(), 50);
    assert_eq!(node.run("ip -o route").lines().count(), 50);
    std::thread::scope(|scope| {
        pods.iter()
            .for_each(|pod| drop(scope.spawn(|| node.del(pod))))
    });
    assert_eq!(node.veths(), Vec::<String>::new());
    assert_eq!(
        node.agent()
            .metrics()
            .del
            .succeeded
            .load(std::sync::atomic::Ordering::Relaxed),
        50
    );
    let usage = node.agent().usage();
    assert_eq!((usage[0].used, usage[0].cooling), (0, 50));
}

#[test]
fn check_sees_what_is_lost() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.1.0");
    assert_eq!(
        node.cni("CHECK", &pod, &config).error().0,
        7,
        "no prevResult"
    );
    config["prevResult"] = node.add(&pod);
    let outcome = node.cni("CHECK", &pod, &config);
    assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    // A later plugin's doing is no fault.
    pod.run("ip link set eth0 mtu 1280 address 02:00:00:00:00:09");
    assert!(node.cni("CHECK", &pod, &config).ok);
    node.run("ip route del 10.244.1.1");
    let (code, text) = node.cni("CHECK", &pod, &config).error();
    assert!(
        code == 104 && text.contains("does not route 10.244.1.1"),
        "{code} {text}"
    );
    pod.run("ip addr del 10.244.1.1/32 dev eth0");
    let (code, text) = node.cni("CHECK", &pod, &config).error();
    assert!(
        code == 104 && text.contains("lost its address"),
        "{code} {text}"
    );
    let other = Pod::new("decaf");
    let mut config = config.clone();
    config["prevResult"]["interfaces"][1]["sandbox"] = json!(other.path);
    assert_eq!(node.cni("CHECK", &other, &config).error().0, 3);
}

#[test]
fn gc_takes_what_is_not_listed_of_its_own_network() {
    let node = Node::new("10.244.1.0/24");
    let pods = ["a", "b", "c"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let other = Pod::new("d");
    let mut elsewhere = node.config("1.1.0");
    elsewhere["name"] = json!("elsewhere");
    node.cni("ADD", &other, &elsewhere).success();
    let mut config = node.config("1.1.0");
    assert!(node.cni("GC", &other, &config).ok);
    assert_eq!(
        node.veths().len(),
        4,
        "nothing was said about what is valid"
    );
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "b", "ifname": "eth0" }]);
    let outcome = node.cni("GC", &other, &config);
    assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    let left: Vec<String> = node
        .agent()
        .endpoints()
        .into_iter()
        .map(|endpoint| endpoint.container_id)
        .collect();
    assert_eq!((left.join(" ").as_str(), node.veths().len()), ("b d", 2));
}

#[test]
fn status_is_well() {
    let node = Node::new("10.244.1.0/24");
    let outcome = node.cni("STATUS", &Pod::new("a"), &node.config("1.1.0"));
    assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
}

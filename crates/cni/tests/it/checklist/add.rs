//! ADD; what the kernel holds afterwards is asked of `ip`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Node, Pod};

#[test]
fn point_13_the_interface_is_made_in_the_namespace() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let named = |name| [("CNI_IFNAME", name)];
    node.cni_with("ADD", &pod, &node.config("1.1.0"), &named("net-7"))
        .success();
    let link: Value = serde_json::from_str(&pod.run("ip -j link show dev net-7")).unwrap();
    assert_eq!(link[0]["operstate"], "UP");
    // A name that only the kernel knows to be unusable: one of its settings has it.
    let config = node.config("1.1.0");
    let (code, text) = node
        .cni_with("ADD", &Pod::new("decaf"), &config, &named("all"))
        .error();
    assert!(code == 103 && text.contains("veth"), "{code} {text}");
    assert_eq!(node.veths().len(), 1);
}

#[test]
fn point_14_an_interface_that_exists_is_an_error() {
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
fn point_15_interfaces_of_host_and_container() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let result = node.add(&pod);
    let [host, container] = [&result["interfaces"][0], &result["interfaces"][1]];
    assert_eq!(host.get("sandbox"), None);
    assert_eq!(container["sandbox"], json!(pod.path));
    let host_link = format!("ip -j link show dev {}", host["name"].as_str().unwrap());
    for (interface, link) in [
        (host, node.run(&host_link)),
        (container, pod.run("ip -j link show dev eth0")),
    ] {
        let link: Value = serde_json::from_str(&link).unwrap();
        assert_eq!(interface["name"], link[0]["ifname"]);
        assert_eq!(interface["mac"], link[0]["address"]);
        assert_eq!(interface["mtu"], link[0]["mtu"]);
    }
}

#[test]
fn point_16_addresses_with_gateway_and_interface() {
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    let pod = Pod::new("c0ffee");
    let result = node.add(&pod);
    assert_eq!(
        result["ips"],
        json!([
            { "interface": 1, "address": "10.244.1.1/32", "gateway": "169.254.1.1" },
            { "interface": 1, "address": "fd00:10:244:1::1/128", "gateway": "fe80::1" },
        ])
    );
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    let shown = pod.run("ip -o addr show dev eth0 scope global");
    for ip in result["ips"].as_array().unwrap() {
        assert!(shown.contains(ip["address"].as_str().unwrap()), "{shown}");
    }
}

#[test]
fn point_17_routes() {
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    let pod = Pod::new("c0ffee");
    let result = node.add(&pod);
    assert_eq!(
        result["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }, { "dst": "::/0", "gw": "fe80::1" }])
    );
    for (command, gateway) in [
        ("ip -j route show default", "169.254.1.1"),
        ("ip -j -6 route show default", "fe80::1"),
    ] {
        let routes: Value = serde_json::from_str(&pod.run(command)).unwrap();
        assert_eq!(routes[0]["gateway"], gateway);
    }
    // The second attachment of a container has no default route, unless it is asked for.
    let second = [("CNI_IFNAME", "net1")];
    let mut config = node.config("1.1.0");
    let result = node.cni_with("ADD", &pod, &config, &second).success();
    assert_eq!(result["routes"], json!([]));
    assert_eq!(result["ips"][0].get("gateway"), None);
    config["isDefaultGateway"] = json!(true);
    let other = Pod::new("decaf");
    node.cni_with("ADD", &other, &config, &second).success();
    assert!(
        other
            .run("ip route")
            .contains("default via 169.254.1.1 dev net1")
    );
}

#[test]
fn point_18_dns_is_passed_on() {
    let node = Node::new("10.244.1.0/24");
    let mut config = node.config("1.1.0");
    for (dns, wanted) in [
        (json!({}), None),
        (
            json!({ "nameservers": ["10.96.0.10"], "domain": "x.y", "search": ["x.y"], "options": ["ndots:5"] }),
            Some(()),
        ),
    ] {
        config["dns"] = dns.clone();
        let pod = Pod::new("c0ffee");
        let result = node.cni("ADD", &pod, &config).success();
        assert_eq!(result.get("dns"), wanted.map(|()| &dns));
        node.del(&pod);
    }
}

#[test]
fn point_19_prev_result_is_passed_on_with_our_own_added() {
    let node = Node::new("10.244.1.0/24");
    let mut config = node.config("1.0.0");
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "lo", "sandbox": "/x" }],
        "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
        "routes": [{ "dst": "198.51.100.0/24" }],
        "dns": { "search": ["example.org"] },
        "others": 1,
    });
    config["prevResult"] = previous.clone();
    let mut result = node.cni("ADD", &Pod::new("c0ffee"), &config).success();
    assert_eq!(
        (
            &result["interfaces"][2]["name"],
            &result["ips"][1]["interface"]
        ),
        (&json!("eth0"), &json!(2))
    );
    for (list, ours) in [("interfaces", 2), ("ips", 1), ("routes", 1)] {
        let values = result[list].as_array_mut().unwrap();
        assert_eq!(values.len(), 1 + ours, "{list}");
        values.truncate(1);
    }
    assert_eq!(result, previous);
}

#[test]
fn point_20_a_failure_leaves_nothing() {
    let node = Node::new("10.244.1.0/24");
    *node.routes.refuse.lock().unwrap() = Some("no route today".into());
    let pod = Pod::new("c0ffee");
    let (code, text) = node.cni("ADD", &pod, &node.config("1.0.0")).error();
    assert!(
        code == 103 && text.contains("no route today"),
        "{code} {text}"
    );
    assert_eq!(node.veths(), Vec::<String>::new());
    assert!(node.agent().endpoints().is_empty());
    assert_eq!(pod.run("ip -o link").lines().count(), 1, "only lo");
    node.del(&pod);
    // What a wrong MTU lets fail is not even begun, and its address not lost.
    *node.routes.refuse.lock().unwrap() = None;
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    let mut config = node.config("1.0.0");
    config["mtu"] = json!(1279);
    let (code, text) = node.cni("ADD", &pod, &config).error();
    assert!(code == 7 && text.contains("1280"), "{code} {text}");
    assert_eq!(node.agent().usage()[0].used, 0);
}

#[test]
fn point_21_fifty_pods_at_once() {
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
    let metrics = node.agent().metrics();
    let deleted = &metrics.del.succeeded;
    assert_eq!(deleted.load(std::sync::atomic::Ordering::Relaxed), 50);
    let usage = node.agent().usage();
    assert_eq!((usage[0].used, usage[0].cooling), (0, 50));
}

#[test]
fn point_22_capabilities() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.1.0");
    config["runtimeConfig"] = json!({
        "mac": "02:00:5e:00:00:07",
        "io.kubernetes.cri.pod-annotations": { "margay.dev/ip-addresses": "10.244.1.77", "other": "x" },
        "dns": { "servers": ["10.96.0.10"] },
        // Of plugins behind us.
        "portMappings": [{ "hostPort": 80, "containerPort": 80, "protocol": "tcp" }],
        "bandwidth": { "ingressRate": 1000 },
    });
    let result = node.cni("ADD", &pod, &config).success();
    assert_eq!(result["interfaces"][1]["mac"], "02:00:5e:00:00:07");
    assert_eq!(result["ips"][0]["address"], "10.244.1.77/32");
    assert_eq!(result["dns"]["nameservers"], json!(["10.96.0.10"]));
    assert!(
        pod.run("ip link show dev eth0")
            .contains("02:00:5e:00:00:07")
    );
    let (code, text) = node.cni("ADD", &Pod::new("decaf"), &config).error();
    assert!(
        code == 101 && text.contains("10.244.1.77 is in use"),
        "{code} {text}"
    );
    // A pod made anew, as a StatefulSet's: nothing rests that is asked for.
    node.del(&pod);
    config["runtimeConfig"] = json!({ "ips": ["10.244.1.77/24"] });
    let result = node.cni("ADD", &Pod::new("decaf"), &config).success();
    assert_eq!(result["ips"][0]["address"], "10.244.1.77/32");
    node.del(&Pod::new("decaf"));
    // As containerd has it for a pod without annotations.
    config["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": null, "ips": null });
    node.cni("ADD", &pod, &config).success();
    for malformed in [
        json!({ "mac": "02:00" }),
        json!({ "mac": 7 }),
        json!({ "ips": "10.244.1.78" }),
        json!({ "ips": ["10.244.1.300"] }),
        json!({ "ips": ["10.244.1.78", "10.244.1.79"] }),
        json!({ "dns": { "servers": 7 } }),
        json!({ "io.kubernetes.cri.pod-annotations": { "margay.dev/ip-addresses": "ten" } }),
    ] {
        config["runtimeConfig"] = malformed.clone();
        let (code, text) = node.cni("ADD", &Pod::new("third"), &config).error();
        assert_eq!(code, 7, "{malformed}: {text}");
    }
}

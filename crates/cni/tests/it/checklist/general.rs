//! Exit status, errors, environment, configuration: what needs no agent.

use serde_json::{Value, json};

use crate::support::{Node, Outcome, Pod, shim, shim_with};

pub(super) const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c0ffee"),
    ("CNI_NETNS", "/nowhere"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
];

const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"margay"}"#;

/// [`ADD`] with one variable set to another value.
pub(super) fn add_with(name: &'static str, value: &str, stdin: &str) -> Outcome {
    let others = ADD.into_iter().filter(|(key, _)| *key != name);
    shim(&others.chain([(name, value)]).collect::<Vec<_>>(), stdin)
}

#[test]
fn point_01_exit_status() {
    assert_eq!(shim(&[("CNI_COMMAND", "VERSION")], "{}").status, Some(0));
    assert_eq!(shim(&ADD, CONFIG).status, Some(1));
}

#[test]
fn point_02_errors_are_json_on_stdout() {
    let outcome = shim(&ADD, CONFIG);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&error["cniVersion"], &error["code"]),
        (&json!("1.0.0"), &json!(8))
    );
    assert!(error["msg"].is_string(), "{error}");
    let mut known = error.as_object().unwrap().keys();
    assert!(known.all(|key| ["cniVersion", "code", "msg", "details"].contains(&key.as_str())));
    assert_eq!(outcome.stderr, "");
}

#[test]
fn point_03_error_codes() {
    let mut node = Node::new("10.244.1.0/30");
    let pod = Pod::new("c0ffee");
    let code = |outcome: Outcome| outcome.error();
    let with = |key: &str, value: Value| {
        let mut config = node.config("1.1.0");
        config[key] = value;
        config
    };
    assert_eq!(
        code(node.cni("ADD", &pod, &with("cniVersion", json!("7.0.0")))).0,
        1
    );
    for (key, value) in [("ipMasq", json!(true)), ("ipam", json!({ "type": "dhcp" }))] {
        let (code, text) = code(node.cni("ADD", &pod, &with(key, value.clone())));
        assert_eq!(code, 2);
        assert!(
            text.contains(key) && text.contains(&value.to_string()),
            "{text}"
        );
    }
    let of_nobody = json!({ "interfaces": [{ "name": "eth0", "sandbox": pod.path }],
        "ips": [{ "address": "10.244.1.1/32", "interface": 0 }] });
    let unknown = node.cni("CHECK", &pod, &with("prevResult", of_nobody));
    assert_eq!(code(unknown).0, 3);
    let (four, text) = code(shim(&ADD[..2], CONFIG));
    assert!(
        four == 4 && text.contains("CNI_NETNS, CNI_IFNAME, CNI_PATH"),
        "{text}"
    );
    let directory = std::fs::File::open("/").unwrap();
    assert_eq!(code(shim_with(&ADD, directory.into(), "")).0, 5);
    assert_eq!(code(shim(&ADD, "{")).0, 6);
    assert_eq!(code(node.cni("ADD", &pod, &with("mtu", json!(1)))).0, 7);
    assert_eq!(code(add_with("CNI_NETNS", "/dev/null", CONFIG)).0, 8);
    let pods = ["a", "b"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let full = node.cni("ADD", &pod, &node.config("1.1.0"));
    assert_eq!(code(full).0, 101);
    assert_eq!(code(node.cni("STATUS", &pod, &node.config("1.1.0"))).0, 50);
    let mut config = node.config("1.1.0");
    node.stop_agent();
    config["agentTimeoutSeconds"] = json!(0);
    assert_eq!(node.cni("ADD", &pod, &config).error().0, 11);
}

#[test]
fn point_04_required_environment() {
    let variables = |command| {
        ADD.into_iter().map(move |(name, value)| {
            (
                name,
                if name == "CNI_COMMAND" {
                    command
                } else {
                    value
                },
            )
        })
    };
    for (command, required) in [
        ("ADD", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"),
        ("CHECK", "CNI_CONTAINERID CNI_NETNS CNI_IFNAME CNI_PATH"),
        ("DEL", "CNI_CONTAINERID CNI_IFNAME CNI_PATH"),
        ("GC", "CNI_PATH"),
        ("STATUS", "CNI_PATH"),
        ("VERSION", ""),
    ] {
        for missing in ADD.map(|(name, _)| name).into_iter().skip(1) {
            let given: Vec<_> = variables(command)
                .filter(|(name, _)| *name != missing)
                .collect();
            let outcome = shim(&given, r#"{"cniVersion":"1.1.0","name":"margay"}"#);
            let complains = !outcome.ok && {
                let (code, text) = outcome.error();
                code == 4 && text.contains(missing)
            };
            let needed = required.split(' ').any(|name| name == missing);
            assert_eq!(complains, needed, "{command} without {missing}");
        }
    }
}

#[test]
fn point_05_names_of_container_network_and_interface() {
    for (name, wrong) in [
        ("CNI_CONTAINERID", "-a"),
        ("CNI_CONTAINERID", "a/b"),
        ("CNI_CONTAINERID", "ä"),
        ("CNI_IFNAME", "sixteen-octets-x"),
        ("CNI_IFNAME", "."),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_IFNAME", "a:b"),
        ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "eth%d"),
    ] {
        let (code, text) = add_with(name, wrong, CONFIG).error();
        assert!(
            code == 4 && text.contains(name) && text.contains(wrong),
            "{text}"
        );
    }
    for (name, right) in [
        ("CNI_CONTAINERID", "0_a.b-C"),
        ("CNI_IFNAME", "fifteen-octets-"),
    ] {
        // The next thing that is looked at.
        assert_eq!(add_with(name, right, CONFIG).error().0, 8, "{right}");
    }
    for wrong in ["-x", "", "a b", "ü"] {
        let config = json!({ "cniVersion": "1.0.0", "name": wrong }).to_string();
        let (code, text) = shim(&ADD, &config).error();
        assert!(code == 7 && text.contains(wrong), "{code} {text}");
    }
}

#[test]
fn point_06_unknown_command_and_none() {
    let (code, text) = shim(&[("CNI_COMMAND", "FROBNICATE")], "{}").error();
    assert!(code == 4 && text.contains("FROBNICATE"), "{code} {text}");
    let outcome = shim(&[], "");
    assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    assert!(
        outcome.stderr.contains("margay-cni") && outcome.stderr.contains("1.1.0"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn point_07_stdin_not_json() {
    for (stdin, wanted) in [
        ("{", 6),
        ("", 6),
        (r#"{"cniVersion":"1.0.0"}"#, 7),
        (r#"{"cniVersion":"1.0.0","name":"-"}"#, 7),
        (r#"{"cniVersion":"1.0.0","name":"margay","mtu":"big"}"#, 7),
    ] {
        assert_eq!(shim(&ADD, stdin).error().0, wanted, "{stdin}");
    }
}

#[test]
fn point_08_the_plugins_own_namespace() {
    let node = Node::without_agent("10.244.1.0/24");
    let mut pod = Pod::new("c0ffee");
    pod.path = "/proc/self/ns/net".into();
    let mut config = node.config("1.0.0");
    config["agentTimeoutSeconds"] = json!(0);
    let (code, text) = node.cni("ADD", &pod, &config).error();
    assert!(
        code == 8 && text.contains("the plugin itself"),
        "{code} {text}"
    );
    let meant = [("CNI_NETNS_OVERRIDE", "1")];
    let (code, text) = node.cni_with("ADD", &pod, &config, &meant).error();
    assert_eq!(code, 11, "on to the agent, which isn't there: {text}");
}

#[test]
fn point_09_what_is_not_understood_is_left_alone() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.1.0");
    config["args"] = json!({ "cni": { "labels": 7 } });
    config["cni.dev/future"] = json!([1]);
    config["unheardOf"] = json!(true);
    config["ipMasq"] = json!(false);
    config["ipam"] = json!({});
    let arguments = [("CNI_ARGS", "IgnoreUnknown=1;odd;=;A=B;K8S_POD_UID=1")];
    node.cni_with("ADD", &pod, &config, &arguments).success();
    assert_eq!(node.agent().endpoints()[0].pod, None);
}

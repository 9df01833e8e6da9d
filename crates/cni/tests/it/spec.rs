//! The plugin's side of the specification that needs no agent.

use serde_json::{Value, json};

use crate::support::{Node, Pod, shim};

const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c0ffee"),
    ("CNI_NETNS", "/nowhere"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin"),
];

#[test]
fn version_lists_what_is_spoken() {
    for (stdin, version) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        ("", "1.1.0"),
        (r#"{"cniVersion":""}"#, "1.1.0"),
    ] {
        let outcome = shim(&[("CNI_COMMAND", "VERSION")], stdin);
        let versions = [
            "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
        ];
        assert_eq!(
            outcome.success(),
            json!({ "cniVersion": version, "supportedVersions": versions })
        );
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn started_by_hand_it_says_what_it_is() {
    let outcome = shim(&[], "");
    assert!(outcome.ok && outcome.stdout.is_empty());
    assert!(
        outcome.stderr.contains("margay-cni") && outcome.stderr.contains("1.1.0"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn wrong_environments_are_code_4() {
    let (code, text) = shim(&ADD[..2], "{}").error();
    assert_eq!(code, 4);
    assert!(text.contains("CNI_NETNS, CNI_IFNAME, CNI_PATH"), "{text}");
    let (code, text) = shim(&[("CNI_COMMAND", "FROBNICATE")], "{}").error();
    assert!(code == 4 && text.contains("FROBNICATE"), "{code} {text}");
}

#[test]
fn wrong_configurations_have_their_codes() {
    for (stdin, wanted) in [
        ("{", 6),
        ("", 6),
        (r#"{"cniVersion":"2.0.0","name":"margay"}"#, 1),
        (r#"{"cniVersion":"1.0.0"}"#, 7),
        (r#"{"cniVersion":"1.0.0","name":"margay","mtu":"big"}"#, 7),
        (
            r#"{"cniVersion":"1.0.0","name":"margay","ipam":{"type":"dhcp"}}"#,
            2,
        ),
    ] {
        assert_eq!(shim(&ADD, stdin).error().0, wanted, "{stdin}");
    }
    // The answer is in the version that was asked in.
    let outcome = shim(&ADD, r#"{"cniVersion":"0.4.0","name":"-"}"#);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(error["cniVersion"], "0.4.0");
    let outcome = shim(&ADD, r#"{"cniVersion":"","name":"-"}"#);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(error["cniVersion"], "1.1.0", "{error}");
}

#[test]
fn a_namespace_that_is_none_is_code_8() {
    let config = r#"{"cniVersion":"1.0.0","name":"margay"}"#;
    let (code, text) = shim(&ADD, config).error();
    assert!(code == 8 && text.contains("/nowhere"), "{code} {text}");
    let with_netns = |path| {
        let mut variables = ADD;
        variables[2] = ("CNI_NETNS", path);
        shim(&variables, config).error()
    };
    let (code, text) = with_netns("/dev/null");
    assert!(
        code == 8 && text.contains("not a network namespace"),
        "{code} {text}"
    );
    let (code, text) = with_netns("/proc/self/ns/net");
    assert!(
        code == 8 && text.contains("the plugin itself"),
        "{code} {text}"
    );
}

#[test]
fn verbs_that_came_later_need_their_version() {
    let node = Node::without_agent("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    for (command, version) in [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")] {
        let (code, text) = node.cni(command, &pod, &node.config(version)).error();
        assert!(code == 1 && text.contains(command), "{code} {text}");
    }
}

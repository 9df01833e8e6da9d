//! VERSION, and versions of configurations and results.

use serde_json::{Value, json};

use super::general::ADD;
use crate::support::{Node, Pod, shim};

const VERSIONS: [&str; 7] = [
    "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
];

#[test]
fn point_10_version_lists_what_is_spoken() {
    for (stdin, version) in [
        (r#"{"cniVersion":"0.4.0"}"#, "0.4.0"),
        ("", "1.1.0"),
        (r#"{"cniVersion":""}"#, "1.1.0"),
    ] {
        let outcome = shim(&[("CNI_COMMAND", "VERSION")], stdin);
        assert_eq!(
            outcome.success(),
            json!({ "cniVersion": version, "supportedVersions": VERSIONS })
        );
        assert_eq!(outcome.stderr, "");
    }
}

#[test]
fn point_11_results_are_in_the_version_that_was_asked_for() {
    let node = Node::new("10.244.1.0/24 fd00:10:244:1::/64");
    for version in VERSIONS {
        let pod = Pod::new(&format!("pod-{version}"));
        let result = node.cni("ADD", &pod, &node.config(version)).success();
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            let (ip4, ip6) = (&result["ip4"], &result["ip6"]);
            assert!(ip4["ip"].as_str().unwrap().starts_with("10.244.1."));
            assert!(ip6["ip"].as_str().unwrap().starts_with("fd00:10:244:1::"));
            let default = |gateway| json!([{ "dst": "0.0.0.0/0", "gw": gateway }]);
            assert_eq!(ip4["routes"], default("169.254.1.1"));
            assert!(result.get("ips").is_none() && result.get("interfaces").is_none());
            continue;
        }
        for (ip, family) in [(&result["ips"][0], "4"), (&result["ips"][1], "6")] {
            let wanted = (version < "1.0.0").then(|| json!(family));
            assert_eq!(ip.get("version"), wanted.as_ref(), "{version}");
        }
        let interface = &result["interfaces"][1];
        assert_eq!(interface.get("mtu").is_some(), version == "1.1.0");
        assert!(interface.get("socketPath").is_none() && interface.get("pciID").is_none());
    }
}

#[test]
fn point_12_versions_that_are_not_spoken() {
    let error = |stdin: &str| {
        let outcome = shim(&ADD, stdin);
        let error: Value = serde_json::from_str(&outcome.stdout).unwrap();
        (error["code"].clone(), error["cniVersion"].clone())
    };
    for wrong in ["2.0.0", "1.2.0", "0.9", "x"] {
        let config = json!({ "cniVersion": wrong, "name": "margay" });
        assert_eq!(error(&config.to_string()).0, 1, "{wrong}");
    }
    // The answer is in the version that was asked in.
    assert_eq!(error(r#"{"cniVersion":"0.4.0","name":"-"}"#).1, "0.4.0");
    assert_eq!(error(r#"{"cniVersion":"","name":"-"}"#).1, "1.1.0");
    let node = Node::new("10.244.1.0/24");
    let mut config = node.config("0.1.0");
    config.as_object_mut().unwrap().remove("cniVersion");
    let result = node.cni("ADD", &Pod::new("c0ffee"), &config).success();
    assert_eq!(result["cniVersion"], "0.1.0", "its absence means 0.1.0");
}

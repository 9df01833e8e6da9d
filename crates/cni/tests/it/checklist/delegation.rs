//! Delegation: we have no delegate. The agent chooses addresses itself, so that no other plugin has to be found, run, and
//! undone; points 36 and 41 to 43 hold by there being nobody to forward to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Node, Outcome, Pod};

/// A `CNI_PATH` with plugins that write down that somebody ran them.
pub(super) struct Delegates<'a> {
    node: &'a Node,
    folder: PathBuf,
}

impl<'a> Delegates<'a> {
    pub(super) fn new(node: &'a Node) -> Self {
        let folder = node.directory.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for name in ["host-local", "dhcp", "static", "margay", "loopback"] {
            let script = format!("#!/bin/sh\necho {name} >> {}/calls\n", folder.display());
            let path = folder.join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self { node, folder }
    }

    pub(super) fn run(&self, command: &str, pod: &Pod, config: &Value) -> Outcome {
        let path = [("CNI_PATH", self.folder.to_str().unwrap())];
        self.node.cni_with(command, pod, config, &path)
    }

    /// Who was run, a line each.
    pub(super) fn calls(&self) -> String {
        fs::read_to_string(self.folder.join("calls")).unwrap_or_default()
    }
}

#[test]
fn point_42_nobody_is_looked_for_in_cni_path() {
    let node = Node::new("10.244.1.0/24");
    let (delegates, pod) = (Delegates::new(&node), Pod::new("c0ffee"));
    let mut config = node.config("1.1.0");
    let result = delegates.run("ADD", &pod, &config).success();
    config["prevResult"] = result;
    assert!(delegates.run("CHECK", &pod, &config).ok);
    assert!(delegates.run("DEL", &pod, &config).ok);
    config["ipam"] = json!({ "type": "host-local" });
    let (code, text) = delegates.run("ADD", &pod, &config).error();
    assert!(code == 2 && text.contains("host-local"), "{code} {text}");
    assert_eq!(delegates.calls(), "");
}

#[test]
fn point_43_nobody_has_to_be_undone() {
    let node = Node::new("10.244.1.0/24");
    let (delegates, pod) = (Delegates::new(&node), Pod::new("c0ffee"));
    *node.routes.refuse.lock().unwrap() = Some("no route today".into());
    let mut config = node.config("1.1.0");
    assert!(!delegates.run("ADD", &pod, &config).ok);
    // A conflist that once named one doesn't keep a pod from ending.
    config["ipam"] = json!({ "type": "host-local" });
    assert!(delegates.run("DEL", &pod, &config).ok);
    assert_eq!(delegates.calls(), "");
    assert_eq!(node.agent().usage()[0].used, 0);
}

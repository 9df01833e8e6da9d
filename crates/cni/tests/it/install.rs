//! `margay-cni install` and `uninstall`, as a chart or a person runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::inotify;
use serde_json::{Value, json};

use crate::support::{Node, Outcome, Pod, eventually, set_cidrs, shim_path};

/// Folders of a runtime.
struct Runtime {
    bin: PathBuf,
    conf: PathBuf,
}

impl Runtime {
    fn new(node: &Node) -> Self {
        let folder = |name| {
            let folder = node.directory.path().join(name);
            fs::create_dir(&folder).unwrap();
            folder
        };
        Self {
            bin: folder("bin"),
            conf: folder("net.d"),
        }
    }

    fn plugin(&self) -> PathBuf {
        self.bin.join("margay")
    }

    fn conflist(&self) -> PathBuf {
        self.conf.join("10-margay.conflist")
    }

    fn run(&self, node: &Node, arguments: &str) -> Outcome {
        let socket = node.socket();
        let output = Command::new(shim_path())
            .env_clear()
            .args(arguments.split(' '))
            .args([Path::new("--bin-dir"), &self.bin])
            .args([Path::new("--conf-dir"), &self.conf])
            .args([Path::new("--socket"), &socket])
            .output()
            .unwrap();
        Outcome {
            ok: output.status.success(),
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[test]
fn the_conflist_comes_after_plugin_and_agent() {
    let mut node = Node::without_agent("10.244.1.0/24");
    let runtime = Runtime::new(&node);
    let outcome = runtime.run(&node, "install --wait 0");
    assert_eq!(outcome.status, Some(1));
    for word in [
        "cni.sock",
        "does not serve",
        "margayctl status",
        "as it was",
    ] {
        assert!(outcome.stderr.contains(word), "{}", outcome.stderr);
    }
    assert!(runtime.plugin().exists() && !runtime.conflist().exists());
    let agent = node.start_agent_without_cidr();
    std::thread::scope(|scope| {
        let (node, runtime) = (&node, &runtime);
        let install = scope.spawn(|| runtime.run(node, "install --wait 20"));
        let status = || node.cni("STATUS", &Pod::new("a"), &node.config("1.1.0"));
        eventually("the agent is asked", || !status().ok);
        assert!(!runtime.conflist().exists(), "no pod could be attached yet");
        set_cidrs(&agent, "10.244.1.0/24");
        let outcome = install.join().unwrap();
        assert!(outcome.ok, "{outcome:?}");
    });
    // And what is installed works.
    let conflist: Value =
        serde_json::from_str(&fs::read_to_string(runtime.conflist()).unwrap()).unwrap();
    assert_eq!(conflist["cniVersion"], "1.0.0");
    assert_eq!(conflist["cniVersions"], json!(["1.0.0", "1.1.0"]));
    let mut config = conflist["plugins"][0].clone();
    config["name"] = conflist["name"].clone();
    config["cniVersion"] = json!("1.1.0");
    node.cni("ADD", &Pod::new("c0ffee"), &config).success();
}

#[test]
fn installing_again_touches_nothing_and_an_agent_that_stops_neither() {
    let mut node = Node::new("10.244.1.0/24");
    let runtime = Runtime::new(&node);
    assert!(runtime.run(&node, "install").ok);
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let changes = inotify::WatchFlags::MODIFY
        | inotify::WatchFlags::ATTRIB
        | inotify::WatchFlags::MOVE
        | inotify::WatchFlags::CREATE
        | inotify::WatchFlags::DELETE;
    for folder in [&runtime.bin, &runtime.conf] {
        inotify::add_watch(&watch, folder, changes).unwrap();
    }
    let outcome = runtime.run(&node, "install");
    assert!(
        outcome.ok && outcome.stdout.matches("up to date").count() == 2,
        "{outcome:?}"
    );
    node.stop_agent();
    let outcome = runtime.run(&node, "install --wait 0");
    assert_eq!(outcome.status, Some(1), "{outcome:?}");
    assert!(runtime.conflist().exists());
    let events = rustix::io::read(&watch, &mut [0; 4096]);
    assert_eq!(
        events,
        Err(rustix::io::Errno::AGAIN),
        "something was written"
    );
}

#[test]
fn the_conflist_appears_by_a_rename_in_its_folder() {
    let node = Node::new("10.244.1.0/24");
    let runtime = Runtime::new(&node);
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, &runtime.conf, inotify::WatchFlags::ALL_EVENTS).unwrap();
    assert!(runtime.run(&node, "install").ok);
    // What containerd's watcher acts upon is a MOVED_FROM: a file that is moved in from elsewhere has none.
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    let mut seen = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        seen.push((event.events(), name.unwrap_or_default()));
    }
    let at = |flag, name: &str| {
        let found = seen
            .iter()
            .position(|(flags, file)| flags.contains(flag) && file.starts_with(name));
        found.unwrap_or_else(|| panic!("{name}: {seen:?}"))
    };
    let from = at(inotify::ReadFlags::MOVED_FROM, ".10-margay.conflist.");
    let to = at(inotify::ReadFlags::MOVED_TO, "10-margay.conflist");
    assert_eq!(to, from + 1);
    let visible = |(_, file): &&(inotify::ReadFlags, String)| file.starts_with("10-");
    assert_eq!(seen[..to].iter().filter(visible).count(), 0, "{seen:?}");
}

#[test]
fn portmap_is_chained_and_what_comes_first_is_told() {
    let node = Node::new("10.244.1.0/24");
    let runtime = Runtime::new(&node);
    let versions = r#"{"cniVersion":"1.0.0","supportedVersions":["0.4.0","1.0.0"]}"#;
    let portmap = runtime.bin.join("portmap");
    fs::write(&portmap, format!("#!/bin/sh\necho '{versions}'\n")).unwrap();
    rustix::fs::chmod(&portmap, rustix::fs::Mode::RWXU).unwrap();
    fs::write(runtime.conf.join("05-other.conflist"), "{}").unwrap();
    let outcome = runtime.run(&node, "install --mtu 1400 --network pods");
    assert!(outcome.ok, "{outcome:?}");
    assert!(
        outcome.stdout.contains("05-other.conflist comes before")
            && outcome.stdout.contains("does not speak CNI 1.1.0"),
        "{outcome:?}"
    );
    let conflist: Value =
        serde_json::from_str(&fs::read_to_string(runtime.conflist()).unwrap()).unwrap();
    assert_eq!(conflist["cniVersions"], json!(["1.0.0"]));
    assert_eq!(conflist["name"], "pods");
    assert_eq!(conflist["plugins"][0]["mtu"], 1400);
    assert_eq!(
        conflist["plugins"][1]["capabilities"],
        json!({ "portMappings": true })
    );
}

/// As the chart's container: it waits for an agent that comes late, stays, and ends when it is asked to.
#[test]
fn one_that_stays_waits_and_ends_by_sigterm() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut node = Node::without_agent("10.244.1.0/24");
    let runtime = Runtime::new(&node);
    let mut child = Command::new(shim_path())
        .env_clear()
        .args(["install", "--stay", "--wait", "0", "--bin-dir"])
        .arg(&runtime.bin)
        .arg("--conf-dir")
        .arg(&runtime.conf)
        .arg("--socket")
        .arg(node.socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the plugin is there", || runtime.plugin().exists());
    let agent = node.start_agent_without_cidr();
    set_cidrs(&agent, "10.244.1.0/24");
    eventually("the conflist is there", || runtime.conflist().exists());
    assert_eq!(child.try_wait().unwrap(), None, "it stays");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert!(said.contains("waiting on"), "{said}");
    assert!(
        runtime.conflist().exists(),
        "pods that are there need it, to be detached"
    );
}

#[test]
fn uninstall_takes_both_away_and_repeats() {
    let node = Node::new("10.244.1.0/24");
    let runtime = Runtime::new(&node);
    assert!(runtime.run(&node, "install").ok);
    let outcome = runtime.run(&node, "uninstall");
    let removed: Vec<&str> = outcome.stdout.lines().collect();
    assert!(
        removed[0].ends_with("10-margay.conflist") && removed[1].ends_with("bin/margay"),
        "a runtime must not know a plugin that is gone: {removed:?}"
    );
    assert!(!runtime.plugin().exists() && !runtime.conflist().exists());
    let outcome = runtime.run(&node, "uninstall");
    assert!(outcome.ok && outcome.stdout.matches("is not there").count() == 2);
}

#[test]
fn what_is_wrong_is_told_with_its_path() {
    let node = Node::new("10.244.1.0/24");
    let mut runtime = Runtime::new(&node);
    let outcome = runtime.run(&node, "install --only conflist");
    assert!(
        outcome.status == Some(1) && outcome.stderr.contains("bin/margay: is not there"),
        "{outcome:?}"
    );
    let outcome = runtime.run(&node, "install --frobnicate x");
    assert_eq!(outcome.status, Some(2));
    assert!(outcome.stderr.contains("--frobnicate") && outcome.stderr.contains("usage"));
    runtime.bin = "/nowhere/bin".into();
    let outcome = runtime.run(&node, "install");
    assert!(
        outcome.stderr.contains("/nowhere/bin/margay") && outcome.stderr.contains("--bin-dir"),
        "{outcome:?}"
    );
}

#[test]
fn pods_live_on_without_the_plugin_and_leave_nothing() {
    let mut node = Node::new("10.244.1.0/24 fd44::/64");
    let runtime = Runtime::new(&node);
    assert!(runtime.run(&node, "install").ok);
    let pods = ["a", "b"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    assert!(runtime.run(&node, "uninstall").ok);
    assert!(!runtime.plugin().exists() && !runtime.conflist().exists());
    let [first, second] = pods;
    for pod in [&first, &second] {
        pod.run("ping -n -c 1 -W 2 192.0.2.1");
    }
    // No DEL can come. The namespace's end takes the pod away, and the agent sees it.
    drop(first);
    eventually("the agent has seen it", || {
        node.agent().endpoints().len() == 1
    });
    second.run("ping -n -c 1 -W 2 192.0.2.1");
    // Without an agent as well the kernel does it.
    node.stop_agent();
    drop(second);
    eventually("the kernel has done it", || node.veths().is_empty());
    for family in ["-4", "-6"] {
        let routes = node.run(&format!("ip {family} route"));
        assert!(!routes.contains("mgy"), "{routes}");
    }
    assert_eq!(node.run("ip neigh show nud permanent"), "");
    node.start_agent();
    assert_eq!(node.agent().usage()[0].used, 0);
}

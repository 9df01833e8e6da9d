//! The shim, killed before each of its system calls in turn (by `strace`). What counts is what is left after the next DEL, or
//! the next installation: nothing.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use netlink::netns;

use crate::support::{Node, Pod, eventually, shim_path};

/// Far more than the shim makes.
const LIMIT: u32 = 2000;

/// Runs the shim, killed before its system call number `when`. Whether it got to its end before.
fn killed(
    node: &Node,
    variables: &[(&str, &str)],
    arguments: &[&str],
    stdin: &str,
    when: u32,
) -> bool {
    let start = || {
        let mut child = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", "trace=all", "-e"])
            .arg(format!("inject=all:signal=KILL:when={when}"))
            .arg(shim_path())
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs strace");
        if let Some(mut pipe) = child.stdin.take() {
            // It may end without reading.
            pipe.write_all(stdin.as_bytes()).ok();
        }
        child.wait()
    };
    netns::in_netns(&node.netns, start).unwrap().success()
}

fn attach(node: &Node, command: &str, pod: &Pod, when: u32) -> bool {
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", &pod.container_id),
        ("CNI_NETNS", &pod.path),
        ("CNI_IFNAME", "eth0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    killed(
        node,
        &variables,
        &[],
        &node.config("1.1.0").to_string(),
        when,
    )
}

/// Nothing in the kernel, nothing in the agent; and the sockets' folder is as it was.
fn empty(node: &Node, files: usize) {
    node_is_empty(node);
    assert_eq!(
        std::fs::read_dir(node.directory.path()).unwrap().count(),
        files
    );
}

fn node_is_empty(node: &Node) {
    assert_eq!(node.veths(), Vec::<String>::new());
    assert_eq!(node.run("ip route"), "");
    assert_eq!(node.run("ip neigh show nud permanent"), "");
    assert!(node.agent().endpoints().is_empty() && node.routes.live.lock().unwrap().is_empty());
    assert_eq!(node.agent().usage()[0].used, 0);
}

#[test]
fn the_shim_killed_at_each_call_leaves_nothing_that_del_does_not_clean() {
    let node = Node::new("10.244.0.0/16");
    let files = std::fs::read_dir(node.directory.path()).unwrap().count();
    let mut ends = Vec::new();
    for command in ["ADD", "DEL"] {
        let end = (1..LIMIT).find(|when| {
            let pod = Pod::new(&format!("{command}-{when}").to_lowercase());
            if command == "DEL" {
                node.add(&pod);
            }
            let done = attach(&node, command, &pod, *when);
            // As a runtime does it, more than once.
            node.del(&pod);
            node.del(&pod);
            eventually("the agent has seen it", || {
                node.agent().endpoints().is_empty()
            });
            empty(&node, files);
            assert!(!pod.run("ip link").contains("eth0"), "{command} {when}");
            done
        });
        ends.push(end.expect("it ends"));
    }
    // Otherwise it was killed nowhere.
    assert!(ends.iter().all(|end| *end > 20), "{ends:?}");
}

#[test]
fn the_installer_killed_at_each_call_leaves_nothing_that_the_next_does_not_clean() {
    let node = Node::new("10.244.1.0/24");
    let folders = ["bin", "net.d"].map(|name| node.directory.path().join(name));
    let [bin, conf] = &folders;
    let socket = node.socket();
    let arguments: Vec<&str> = vec![
        "install",
        "--wait",
        "5",
        "--socket",
        socket.to_str().unwrap(),
        "--bin-dir",
        bin.to_str().unwrap(),
        "--conf-dir",
        conf.to_str().unwrap(),
    ];
    let names = |folder: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let mut whole = None;
    for when in 1..LIMIT {
        folders.iter().for_each(|folder| {
            std::fs::remove_dir_all(folder).ok();
            std::fs::create_dir(folder).unwrap();
        });
        let done = killed(&node, &[], &arguments, "", when);
        // What a runtime reads is whole or not there.
        for file in names(conf).iter().filter(|name| !name.starts_with('.')) {
            let text = std::fs::read_to_string(conf.join(file)).unwrap();
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
        let next = netns::in_netns(&node.netns, || {
            Command::new(shim_path()).args(&arguments).output()
        })
        .unwrap();
        assert!(next.status.success(), "{next:?}");
        let found = (names(bin), names(conf));
        assert_eq!(
            whole.get_or_insert_with(|| found.clone()),
            &found,
            "killed at {when}"
        );
        if done {
            assert!(when > 20, "{when}");
            return;
        }
    }
    panic!("it never ended");
}

//! What happens when something is not there: the agent, the namespace, the attachment.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SocketAddrUnix, SocketType};
use serde_json::json;

use crate::support::{Node, Pod, eventually, set_cidrs, shim, shim_path};

#[expect(clippy::disallowed_methods, reason = "tests measure what is real")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn del_without_an_agent() {
    let mut node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    node.add(&pod);
    node.stop_agent();
    let started = now();
    (0..2).for_each(|_| node.del(&pod));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(node.veths(), Vec::<String>::new());
    // A socket that nobody listens at is no better than none.
    let listener = std::os::unix::net::UnixListener::bind(node.socket()).unwrap();
    drop(listener);
    node.del(&pod);
}

#[test]
fn a_namespace_that_dies_takes_its_endpoint_along() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    node.add(&pod);
    drop(pod);
    eventually("the endpoint is gone", || {
        node.agent().endpoints().is_empty()
    });
    eventually("the sink knows", || {
        node.routes.live.lock().unwrap().is_empty()
    });
    let usage = node.agent().usage();
    assert_eq!((usage[0].used, usage[0].cooling), (0, 1));
    eventually("it is counted", || {
        node.agent()
            .metrics()
            .vanished
            .load(std::sync::atomic::Ordering::Relaxed)
            == 1
    });
    let mut again = Pod::new("c0ffee");
    again.path = String::new();
    node.del(&again);
}

#[test]
fn a_restarted_agent_knows_its_endpoints() {
    let mut node = Node::new("10.244.1.0/24");
    let pods: Vec<Pod> = (0..5)
        .map(|number| Pod::new(&format!("pod-{number}")))
        .collect();
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let before = node.agent().endpoints();
    node.stop_agent();
    node.run("ip link add mgy000000000001 type veth peer name halfmade");
    node.run("ip link add mgyuplink type veth peer name foreign");
    node.start_agent();
    assert_eq!(node.agent().endpoints(), before);
    assert_eq!(*node.routes.found.lock().unwrap(), before);
    let veths = node.veths();
    assert!(
        !veths.contains(&"mgy000000000001".into()) && veths.contains(&"mgyuplink".into()),
        "{veths:?}"
    );
    // The sink asserts that no address gets a second owner.
    let late = Pod::new("late");
    assert_eq!(
        node.add(&late)["ips"][0]["address"],
        "10.244.1.6/32",
        "the round goes on"
    );
    pods.iter().for_each(|pod| node.del(pod));
    assert_eq!(node.agent().endpoints().len(), 1);
}

#[test]
fn add_waits_for_an_agent_that_starts() {
    let mut node = Node::without_agent("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.0.0");
    config["agentTimeoutSeconds"] = json!(0);
    let (code, text) = node.cni("ADD", &pod, &config).error();
    assert_eq!(code, 11);
    assert!(
        text.contains("margayd is not ready at")
            && text.contains("no socket is there")
            && text.contains("margayctl status"),
        "{text}"
    );
    assert_eq!(
        node.cni("STATUS", &pod, &node.config("1.1.0")).error().0,
        50
    );

    let agent = node.start_agent_without_cidr();
    let (code, text) = node.cni("ADD", &pod, &config).error();
    assert!(
        code == 11 && text.contains("no pod CIDR yet"),
        "{code} {text}"
    );
    let deferred = || {
        agent
            .metrics()
            .add
            .deferred
            .load(std::sync::atomic::Ordering::Relaxed)
    };
    let before = deferred();
    std::thread::scope(|scope| {
        let add = scope.spawn(|| node.add(&pod));
        eventually("the shim asks in vain", || deferred() > before);
        set_cidrs(&agent, "10.244.1.0/24");
        assert_eq!(add.join().unwrap()["ips"][0]["address"], "10.244.1.1/32");
    });
}

#[test]
fn adds_survive_a_restart_in_their_midst() {
    let mut node = Node::new("10.244.1.0/24");
    let pods: Vec<Pod> = (0..30)
        .map(|number| Pod::new(&format!("pod-{number}")))
        .collect();
    for half in pods.chunks(15) {
        let first = node.agent().clone();
        let addresses: BTreeSet<String> = std::thread::scope(|scope| {
            let (node, threads) = (&node, &mut Vec::new());
            threads.extend(
                half.iter()
                    .map(|pod| scope.spawn(|| node.add(pod)["ips"][0]["address"].to_string())),
            );
            eventually("some are attached", || !first.endpoints().is_empty());
            // No more connections; what is under way is finished, the others wait for the next agent.
            first.stop();
            let config = agent::pods::PodsConfig::new(node.socket());
            let sink = std::sync::Arc::clone(&node.routes);
            let second = netlink::netns::in_netns(&node.netns, || {
                Ok(agent::pods::spawn(&config, sink).unwrap())
            })
            .unwrap();
            set_cidrs(&second, "10.244.1.0/24");
            let addresses = threads
                .drain(..)
                .map(|thread| thread.join().unwrap())
                .collect();
            second.stop();
            addresses
        });
        assert_eq!(addresses.len(), 15);
        node.start_agent();
    }
    assert_eq!(node.agent().endpoints().len(), 30);
    assert_eq!(node.veths().len(), 30);
}

/// Somebody listens at the node's socket who is no agent.
fn impostor(node: &Node) -> std::os::fd::OwnedFd {
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(node.socket()).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    listener
}

#[test]
fn an_add_whose_agent_died_is_done_anew() {
    // Round robin: the next address is another one, though the first is free.
    add_whose_agent_died(None, "10.244.1.2/32");
}

#[test]
fn an_add_with_a_fixed_address_whose_agent_died_gets_it() {
    add_whose_agent_died(Some("10.244.1.77/24"), "10.244.1.77/32");
}

fn add_whose_agent_died(fixed: Option<&str>, wanted: &str) {
    let mut node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let mut config = node.config("1.0.0");
    if let Some(fixed) = fixed {
        config["runtimeConfig"] = json!({ "ips": [fixed] });
    }
    // What the dead agent had made, and never told.
    node.cni("ADD", &pod, &config).success();
    node.stop_agent();
    let dying = impostor(&node);
    let socket = node.socket();
    let (result, usage) = std::thread::scope(|scope| {
        let (netns, path, id) = (&node.netns, &pod.path, &pod.container_id);
        let variables = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", id),
            ("CNI_NETNS", path),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/"),
        ];
        let add = scope.spawn(move || {
            netlink::netns::in_netns(netns, || Ok(shim(&variables, &config.to_string()))).unwrap()
        });
        // It takes the request with it; before it had that, the shim would know that nobody has begun.
        let connection = rustix::net::accept(&dying).unwrap();
        rustix::net::recv(&connection, &mut [0; 4096][..], RecvFlags::empty()).unwrap();
        drop((connection, dying));
        std::fs::remove_file(&socket).unwrap();
        let agent_config = agent::pods::PodsConfig::new(socket);
        let sink = std::sync::Arc::clone(&node.routes);
        let agent = netlink::netns::in_netns(netns, || {
            Ok(agent::pods::spawn(&agent_config, sink).unwrap())
        })
        .unwrap();
        set_cidrs(&agent, "10.244.1.0/24");
        let outcome = add.join().unwrap();
        agent.stop();
        (outcome.success(), agent.usage())
    });
    assert_eq!(result["ips"][0]["address"], wanted);
    assert_eq!((usage[0].used, usage[0].cooling), (1, 0));
    assert_eq!(node.veths().len(), 1);
    assert!(pod.run("ip -o addr show dev eth0").contains(wanted));
}

#[test]
fn a_shim_that_is_killed_leaves_nothing() {
    let node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    let config = node.config("1.0.0");
    // While this is held, the agent is in the midst of the ADD.
    let held = node.routes.refuse.lock().unwrap();
    let start = || {
        let mut child = std::process::Command::new(shim_path())
            .envs([
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", &pod.container_id),
                ("CNI_NETNS", &pod.path),
            ])
            .envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", "/")])
            .stdin(std::process::Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes())?;
        Ok(child)
    };
    let mut child = netlink::netns::in_netns(&node.netns, start).unwrap();
    eventually("the pod is wired", || node.agent().endpoints().len() == 1);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(held);
    eventually("it is undone", || {
        node.agent().endpoints().is_empty() && node.veths().is_empty()
    });
    assert!(node.routes.live.lock().unwrap().is_empty());
}

#[test]
fn an_agent_that_hangs_stops_nobody() {
    let mut node = Node::new("10.244.1.0/24");
    let pod = Pod::new("c0ffee");
    node.add(&pod);
    node.stop_agent();
    // It listens and never accepts.
    let _hanging = impostor(&node);
    let config = node.config("1.1.0");
    let timed = |command: &str| {
        let started = now();
        let outcome = node.cni(command, &pod, &config);
        (outcome, started.elapsed())
    };
    std::thread::scope(|scope| {
        // More than the backlog holds: some wait for the connection, some for the answer.
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| timed("STATUS"))).collect();
        let deleted = scope.spawn(|| timed("DEL"));
        for status in asked {
            let (outcome, taken) = status.join().unwrap();
            assert_eq!(outcome.error().0, 50);
            assert!(taken < Duration::from_secs(2), "{taken:?}");
        }
        let (outcome, taken) = deleted.join().unwrap();
        assert!(
            outcome.ok && taken < Duration::from_secs(8),
            "{outcome:?} {taken:?}"
        );
    });
    assert_eq!(node.veths(), Vec::<String>::new());
}

#[test]
fn a_del_is_not_in_the_way_of_an_add() {
    let node = Node::new("10.244.1.0/24");
    let pods: Vec<Pod> = (0..20)
        .map(|number| Pod::new(&format!("pod-{number}")))
        .collect();
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let late = Pod::new("late");
    std::thread::scope(|scope| {
        pods.iter()
            .for_each(|pod| drop(scope.spawn(|| node.del(pod))));
        node.add(&late);
    });
    assert_eq!(node.veths().len(), 1);
}

#[test]
fn an_attachment_whose_container_is_gone_is_collected() {
    let mut node = Node::without_agent("10.244.1.0/24");
    node.collect_after = Duration::from_millis(300);
    node.start_agent();
    let (mut gone, mut stays) = (Pod::new("gone"), Pod::new("stays"));
    for pod in [&mut gone, &mut stays] {
        // The file that a runtime makes: here a name for the descriptor, which keeps the namespace alive without it.
        let file = node.directory.path().join(&pod.container_id);
        std::os::unix::fs::symlink(&pod.path, &file).unwrap();
        pod.path = file.to_str().unwrap().into();
        node.add(pod);
    }
    // Some looks later both are there.
    let before = node.agent().metrics();
    eventually("the agent has looked", || {
        node.agent().endpoints().len() == 2
    });
    std::fs::remove_file(&gone.path).unwrap();
    eventually("it is collected", || node.veths().len() == 1);
    assert_eq!(node.agent().endpoints()[0].container_id, "stays");
    assert_eq!(
        before.collected.load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    let usage = node.agent().usage();
    assert_eq!((usage[0].used, usage[0].cooling), (1, 1));
    assert!(
        !gone.run("ip link").contains("eth0"),
        "its namespace lives on"
    );
    // A DEL that comes late has nothing to do.
    node.del(&gone);
    stays.run("ping -c1 -W1 192.0.2.1");
}

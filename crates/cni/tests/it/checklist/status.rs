//! STATUS.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::json;

use super::delegation::Delegates;
use crate::support::{Node, Pod};

#[test]
fn point_34_status_says_whether_an_add_could_be_served() {
    let mut node = Node::new("10.244.1.0/30");
    let pods = ["a", "b"].map(Pod::new);
    let (code, text) = node.cni("STATUS", &pods[0], &node.config("1.0.0")).error();
    assert!(code == 1 && text.contains("STATUS"), "{code} {text}");
    let config = node.config("1.1.0");
    let outcome = node.cni("STATUS", &pods[0], &config);
    assert!(outcome.ok && outcome.stdout.is_empty(), "{outcome:?}");
    pods.iter().for_each(|pod| drop(node.add(pod)));
    let (code, text) = node.cni("STATUS", &pods[0], &config).error();
    assert!(
        code == 50 && text.contains("2 of 2 in use") && text.contains("larger"),
        "{code} {text}"
    );
    node.stop_agent();
    let (code, text) = node.cni("STATUS", &pods[0], &config).error();
    assert!(code == 50 && text.contains("margayd"), "{code} {text}");
    let _without_cidr = node.start_agent_without_cidr();
    let (code, text) = node.cni("STATUS", &pods[0], &config).error();
    assert!(code == 50 && text.contains("no pod CIDR"), "{code} {text}");
}

#[test]
fn point_35_nothing_waits_for_a_good_status() {
    let node = Node::new("10.244.1.0/30");
    let pods = ["a", "b"].map(Pod::new);
    pods.iter().for_each(|pod| drop(node.add(pod)));
    node.del(&pods[0]);
    // One address is in use and one rests: no ADD could choose one.
    let mut config = node.config("1.1.0");
    assert_eq!(node.cni("STATUS", &pods[0], &config).error().0, 50);
    config["runtimeConfig"] = json!({ "ips": ["10.244.1.1"] });
    node.cni("ADD", &pods[0], &config).success();
    pods.iter().for_each(|pod| node.del(pod));
}

#[test]
fn point_36_status_has_no_delegate_to_ask() {
    let node = Node::new("10.244.1.0/24");
    let delegates = Delegates::new(&node);
    let config = node.config("1.1.0");
    assert!(delegates.run("STATUS", &Pod::new("a"), &config).ok);
    assert_eq!(delegates.calls(), "");
}

/// A socket of the agent's kind.
fn socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}

/// A stopped agent is a socket on which nobody accepts: the kernel lets some connect, and further ones wait.
#[test]
fn status_answers_within_two_seconds_when_the_agent_hangs() {
    let node = Node::without_agent("10.244.1.0/24");
    let pod = Pod::new("a");
    let config = node.config("1.1.0");
    let address = SocketAddrUnix::new(node.socket()).unwrap();
    let listener = socket();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 4).unwrap();
    let answers = |what: &str| {
        let in_time = || {
            let started = now();
            let (code, text) = node.cni("STATUS", &pod, &config).error();
            assert!(code == 50 && text.contains(what), "{code} {text}");
            started.elapsed() < Duration::from_secs(2)
        };
        // A machine that is busy may lose half a second by itself, but not each time.
        assert!((0..5).any(|_| in_time()), "{what}");
    };
    // Whoever asked before has gone, and waits in the backlog no less for that.
    let mut waiting = Vec::new();
    let connect = || {
        let client = socket();
        rustix::net::connect(&client, &address).map(|()| client)
    };
    waiting.push(connect().unwrap());
    answers("did not answer in time");
    let full = loop {
        match connect() {
            Ok(client) => waiting.push(client),
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, Errno::AGAIN);
    answers("Resource temporarily unavailable");
}

#[expect(clippy::disallowed_methods, reason = "a deadline that is real")]
fn now() -> Instant {
    Instant::now()
}

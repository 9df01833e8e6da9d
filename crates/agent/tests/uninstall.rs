//! `margayd uninstall` in a network namespace with things of ours and of others.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Output};

use dataplane::{Neighbour, NeighbourKey, Op};
use netlink::{Nft, Socket, kernel, netns, setup};

struct Netns(OwnedFd);

impl Netns {
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::in_netns(&self.0, || Ok(work())).unwrap()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Output {
        self.run(|| Command::new(program).args(arguments).output().unwrap())
    }

    /// Runs a line of words, and gives what it says.
    fn sh(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.command(words[0], &words[1..]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{line}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn uninstall(&self, arguments: &[&str]) -> (bool, String) {
        let all = [&["uninstall"], arguments].concat();
        let output = self.command(env!("CARGO_BIN_EXE_margayd"), &all);
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// Everything that others have, as their tools show it.
    fn others(&self) -> Vec<String> {
        [
            "ip route show table all proto static",
            "ip -6 route show table all proto static",
            "ip nexthop show proto 4",
            "ip nexthop show id 12",
            "nft list table inet theirs",
            "ip neigh show 192.0.2.9",
            "ip -o link show type veth",
        ]
        .map(|line| self.sh(line))
        .into()
    }
}

/// With a link, and things of others beside it.
fn others() -> Netns {
    let ns = Netns(netns::create().expect("network namespaces need root, or `unshare -Urnm`"));
    for line in [
        "ip link set lo up",
        // The name of our tunnel device, but no tunnel.
        "ip link add margay-ipip type veth peer name other0",
        "ip link add up0 type veth peer name up1",
        "ip link set up0 up",
        "ip link set up1 up",
        "ip address add 192.0.2.1/24 dev up0",
        "ip address add 2001:db8::1/64 dev up0 nodad",
        "ip route add 10.1.0.0/16 via 192.0.2.2 proto static",
        "ip route add blackhole 10.1.1.0/24 proto static table 77",
        "ip -6 route add 2001:db8:1::/48 via 2001:db8::2 proto static",
        "ip nexthop add id 5 via 192.0.2.3 dev up0 proto static",
        "ip nexthop add id 770000009 via 192.0.2.3 dev up0 proto static",
        // Under our protocol, and yet not ours: its identifier isn't.
        "ip nexthop add id 12 via 192.0.2.4 dev up0 proto 77",
        "ip route add 10.2.0.0/16 nhid 770000009 proto static",
        "ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev up0",
        "nft add table inet theirs",
    ] {
        ns.sh(line);
    }
    ns
}

/// What an agent leaves.
fn leave_ours(ns: &Netns) {
    for line in [
        "ip nexthop add id 770000000 via 192.0.2.7 dev up0 proto 77",
        "ip nexthop add id 775000000 group 770000000 proto 77",
        "ip route add 10.3.0.0/16 nhid 775000000 proto 77 metric 1024",
        "ip route add 10.4.0.0/16 via 192.0.2.7 proto 77",
        "ip route add blackhole 10.5.0.0/16 proto 77 metric 1024",
        "ip route add 10.6.0.0/16 dev up0 proto 77 table 9",
        "ip -6 route add 2001:db8:5::/48 via 2001:db8::7 proto 77",
        "ip -6 route add blackhole 2001:db8:6::/48 proto 77",
    ] {
        ns.sh(line);
    }
    ns.run(|| {
        let mut socket = Socket::open().unwrap();
        let key = NeighbourKey {
            link: setup::link_index(&mut socket, "up0").unwrap(),
            address: [10, 3, 0, 1].into(),
        };
        let mac = [2, 0, 0, 0, 0, 3];
        let op = Op::SetNeighbour(key, Neighbour { mac });
        assert_eq!(kernel::apply(&mut socket, &[op]), [Ok(())]);
        let table = dataplane::Firewall {
            pod_interfaces: "mgy".into(),
            ..dataplane::Firewall::default()
        };
        Nft::open().unwrap().apply(&table).unwrap();
    });
}

const ALL: &str = "routes: 6 removed\nnexthop objects: 2 removed\nneighbour entries: 1 removed\ntunnel devices: 0 removed\nnftables tables: 1 removed\n";
const NONE: &str = "routes: 0 removed\nnexthop objects: 0 removed\nneighbour entries: 0 removed\ntunnel devices: 0 removed\nnftables tables: 0 removed\n";

fn is_clean(ns: &Netns) {
    assert_eq!(ns.sh("ip route show table all proto 77"), "");
    assert_eq!(ns.sh("ip -6 route show table all proto 77"), "");
    assert_eq!(ns.sh("ip nexthop show proto 77").lines().count(), 1);
    assert!(!ns.sh("nft list tables").contains("margay"));
    assert_eq!(ns.sh("ip neigh show 10.3.0.1"), "");
}

#[test]
fn what_is_ours_goes_and_nothing_else() {
    let ns = others();
    let before = ns.others();
    leave_ours(&ns);
    let (ok, would) = ns.uninstall(&["--dry-run"]);
    assert!(ok && would.contains("routes: 6 would go"), "{would}");
    assert_eq!(ns.sh("ip route show table all proto 77").lines().count(), 6);
    assert_eq!(ns.uninstall(&[]), (true, ALL.into()));
    is_clean(&ns);
    assert_eq!(ns.others(), before);
    assert_eq!(ns.uninstall(&[]), (true, NONE.into()), "again does nothing");
}

#[test]
fn a_running_agent_is_in_the_way() {
    let ns = others();
    leave_ours(&ns);
    let name = SocketAddr::from_abstract_name("margayd").unwrap();
    let agent = ns.run(|| UnixListener::bind_addr(&name).unwrap());
    let (ok, why) = ns.uninstall(&[]);
    assert!(!ok && why.contains("stop it first"), "{why}");
    assert_eq!(ns.sh("ip route show table all proto 77").lines().count(), 6);
    assert_eq!(ns.uninstall(&["--while-running"]), (true, ALL.into()));
    drop(agent);
    is_clean(&ns);
}

#[test]
fn pods_are_detached_only_when_asked_for() {
    let ns = others();
    ns.sh("ip link add mgy0123456789ab type veth peer name pod0");
    let output = ns.command(
        "ip",
        &[
            "link",
            "set",
            "mgy0123456789ab",
            "alias",
            "margay1 c=c1 i=eth0 n=margay a=10.3.0.1 p=default/web-0",
        ],
    );
    assert!(output.status.success());
    leave_ours(&ns);
    let (ok, why) = ns.uninstall(&[]);
    assert!(!ok, "{why}");
    let pod = "  mgy0123456789ab: 10.3.0.1 (default/web-0)";
    assert!(
        why.contains("1 pods are still attached") && why.contains(pod),
        "{why}"
    );
    assert_eq!(ns.uninstall(&["--force"]), (true, ALL.into()));
    is_clean(&ns);
    assert!(ns.sh("ip -o link show").contains("mgy0123456789ab"));
    let (ok, told) = ns.uninstall(&["--pods"]);
    assert!(
        ok && told.starts_with("pods' interfaces: 1 removed\n"),
        "{told}"
    );
    assert!(!ns.sh("ip -o link show").contains("mgy"));
}

//! A network namespace for one test, with iproute2 as the witness.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses its part")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;

use dataplane::LinkIndex;
use netlink::setup::{self, VethEnd};
use netlink::{Socket, netns};

/// A fresh network namespace, which is gone with the value.
pub(crate) struct Netns(OwnedFd);

impl Netns {
    /// Needs CAP_SYS_ADMIN; says so where it is missing, rather than pass without having tested.
    pub(crate) fn new() -> Self {
        Self(netns::create().expect("a network namespace: run as root or within `unshare -Urnm`"))
    }

    /// With `up0` (192.0.2.1/24, 2001:db8::1/64) up, its peer `up1` up in the same namespace, and the loopback device up.
    pub(crate) fn with_uplink() -> Self {
        let ns = Self::new();
        let mut socket = ns.socket();
        setup::create_veth(&mut socket, VethEnd::new("up0"), VethEnd::new("up1")).unwrap();
        for name in ["up0", "up1", "lo"] {
            setup::set_up(&mut socket, ns.link(name)).unwrap();
        }
        for address in ["192.0.2.1/24", "2001:db8::1/64"] {
            setup::add_address(&mut socket, ns.uplink(), address.parse().unwrap()).unwrap();
        }
        ns
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A new socket inside.
    pub(crate) fn socket(&self) -> Socket {
        self.run(|| Socket::open().unwrap())
    }

    /// Runs `work` inside.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::in_netns(&self.0, || Ok(work())).unwrap()
    }

    pub(crate) fn link(&self, name: &str) -> LinkIndex {
        setup::link_index(&mut self.socket(), name).unwrap()
    }

    pub(crate) fn uplink(&self) -> LinkIndex {
        self.link("up0")
    }

    /// What `ip -j` says, as JSON; `null` for no output.
    pub(crate) fn ip(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(|| {
            Command::new("ip")
                .arg("-j")
                .args(arguments)
                .output()
                .unwrap()
        });
        assert!(
            output.status.success(),
            "ip {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        // What it flushes it counts in words.
        if output.stdout.is_empty() || arguments.contains(&"flush") {
            return serde_json::Value::Null;
        }
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// How many routes `ip route show` lists.
    pub(crate) fn count_routes(&self, arguments: &[&str]) -> usize {
        self.ip(&[&["route", "show"], arguments].concat())
            .as_array()
            .unwrap()
            .len()
    }
}

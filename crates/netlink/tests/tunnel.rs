//! Tunnel devices against the kernel, with iproute2 as the witness. Where the kernel has no driver, what it says is tested.
#![expect(
    clippy::unwrap_used,
    reason = "tests; the lint's own exception does not reach helpers"
)]

mod common;

use common::Netns;
use dataplane::{Links, Tunnel, TunnelKind, TunnelOp, tunnel};
use netlink::kernel::dump_links;
use serde_json::Value;

fn links(ns: &Netns) -> Links {
    dump_links(&mut ns.socket()).unwrap()
}

/// Does what is to be done until nothing is left, and says how much it was; `None` where the kernel has no such tunnels.
fn settle(ns: &Netns, kind: TunnelKind, desired: Option<Tunnel>) -> Option<usize> {
    let mut done = 0;
    loop {
        let ops = tunnel::plan(kind, desired, &links(ns)).unwrap();
        if ops.is_empty() {
            return Some(done);
        }
        for op in ops {
            match netlink::tunnel::apply(&mut ns.socket(), &op) {
                Ok(()) => done += 1,
                Err(error) if netlink::tunnel::is_unsupported(&error) => {
                    assert_eq!(done, 0, "{op:?}");
                    assert_lacking(ns, kind);
                    return None;
                }
                Err(error) => panic!("{op:?}: {error}"),
            }
        }
        assert!(done < 10, "it never ends");
    }
}

/// `ip` can't make one either.
fn assert_lacking(ns: &Netns, kind: TunnelKind) {
    // On the second kernel everything is there.
    assert_ne!(std::env::var("MARGAY_TESTS").unwrap_or_default(), "kernel");
    let made = ns.run(|| {
        let arguments = ["link", "add", "x", "type", kind.link_kind()];
        std::process::Command::new("ip").args(arguments).output()
    });
    let made = made.unwrap();
    assert!(!made.status.success(), "`ip` makes what we can't");
}

fn shown(ns: &Netns, kind: TunnelKind) -> Value {
    ns.ip(&["-d", "addr", "show", "dev", kind.device()])[0].clone()
}

#[test]
fn a_device_is_made_mended_moved_and_removed() {
    for (kind, local, other) in [
        (TunnelKind::Ipip, "192.0.2.1", "192.0.2.2"),
        (TunnelKind::Ip6ip6, "2001:db8::1", "2001:db8::2"),
    ] {
        let ns = Netns::with_uplink();
        let desired = |local: &str| Some(Tunnel::on(local.parse().unwrap(), &links(&ns)));
        let Some(done) = settle(&ns, kind, desired(local)) else {
            continue;
        };
        assert_eq!(done, 1, "made right at once");
        let seen = shown(&ns, kind);
        let data = &seen["linkinfo"]["info_data"];
        assert_eq!(seen["mtu"], 1500 - kind.overhead());
        assert_eq!(data["local"], local);
        assert_eq!(data["remote"], "any");
        let flags = seen["flags"].as_array().unwrap();
        assert!(flags.contains(&"UP".into()), "{flags:?}");
        // The node's address and no other.
        let addresses = seen["addr_info"].as_array().unwrap();
        assert_eq!(
            (addresses.len(), &addresses[0]["local"]),
            (1, &local.into())
        );
        let text = ns.run(|| {
            let arguments = ["-d", "link", "show", "dev", kind.device()];
            let output = std::process::Command::new("ip").args(arguments).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        });
        let words: &[&str] = match kind {
            TunnelKind::Ipip => &["ttl inherit", "tos inherit", "nopmtudisc"],
            TunnelKind::Ip6ip6 => &[
                "ip6ip6",
                "encaplimit none",
                "tclass inherit",
                "flowlabel inherit",
            ],
        };
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
        let filter = |name: &str| {
            ns.run(|| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")))
        };
        assert_eq!(filter(kind.device()).unwrap().trim(), "2");

        // Other hands.
        ns.ip(&["link", "set", kind.device(), "mtu", "1300"]);
        ns.ip(&["addr", "flush", "dev", kind.device()]);
        ns.ip(&["link", "set", kind.device(), "down"]);
        assert!(settle(&ns, kind, desired(local)).unwrap() >= 2);
        assert_eq!(shown(&ns, kind)["mtu"], 1500 - kind.overhead());

        // Another uplink MTU, another address: the same device, in place.
        let index = ns.link(kind.device());
        ns.ip(&["link", "set", "up0", "mtu", "1400"]);
        ns.ip(&["addr", "add", &format!("{other}/24"), "dev", "up0"]);
        settle(&ns, kind, desired(other)).unwrap();
        let seen = shown(&ns, kind);
        assert_eq!(seen["mtu"], 1400 - kind.overhead());
        assert_eq!(seen["linkinfo"]["info_data"]["local"], other);
        assert_eq!(seen["addr_info"][0]["local"], other);
        assert_eq!(ns.link(kind.device()), index);

        assert_eq!(settle(&ns, kind, None), Some(1));
        assert!(
            links(&ns)
                .links
                .values()
                .all(|link| link.name != kind.device())
        );
    }
}

#[test]
fn the_kernels_own_device_is_left_alone() {
    let ns = Netns::with_uplink();
    let desired = Some(Tunnel::on("192.0.2.1".parse().unwrap(), &links(&ns)));
    if settle(&ns, TunnelKind::Ipip, desired).is_none() {
        return;
    }
    // Another CNI's, in use beside ours.
    ns.ip(&["link", "set", "tunl0", "up"]);
    ns.ip(&["addr", "add", "10.244.9.1/32", "dev", "tunl0"]);
    let before = ns.ip(&["-d", "addr", "show", "dev", "tunl0"]);
    settle(&ns, TunnelKind::Ipip, desired).unwrap();
    settle(&ns, TunnelKind::Ipip, None).unwrap();
    assert_eq!(ns.ip(&["-d", "addr", "show", "dev", "tunl0"]), before);
    assert_eq!(
        netlink::tunnel::apply(&mut ns.socket(), &TunnelOp::Delete(4_000_000)),
        Ok(()),
        "what is gone is gone"
    );
}

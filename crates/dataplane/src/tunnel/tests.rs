use super::*;

fn link(index: LinkIndex, name: &str, mtu: u32, addresses: &[&str]) -> Link {
    Link {
        index,
        name: name.into(),
        up: true,
        carrier: true,
        mtu,
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        ..Link::default()
    }
}

fn links(all: impl IntoIterator<Item = Link>) -> Links {
    Links {
        links: all.into_iter().map(|link| (link.index, link)).collect(),
        ..Links::default()
    }
}

fn uplink() -> Link {
    link(2, "eth0", 1500, &["192.0.2.11/24", "2001:db8::11/64"])
}

/// The device as it is when the operations for `tunnel` were carried out.
fn made(tunnel: Tunnel) -> Link {
    Link {
        kind: Some(tunnel.kind.link_kind().into()),
        tunnel: Some(tunnel.parameters()),
        addresses: vec![tunnel.address()],
        ..link(7, tunnel.kind.device(), tunnel.mtu, &[])
    }
}

fn tunnel(local: &str, links: &Links) -> Tunnel {
    Tunnel::on(local.parse().unwrap(), links)
}

#[test]
fn the_mtu_is_what_the_uplink_leaves() {
    let mut all = links([uplink()]);
    assert_eq!(tunnel("192.0.2.11", &all).mtu, 1480);
    assert_eq!(tunnel("2001:db8::11", &all).mtu, 1460);
    // The same address on the tunnel itself does not make it an uplink.
    let own = made(tunnel("192.0.2.11", &all));
    all.links.insert(own.index, own);
    assert_eq!(tunnel("192.0.2.11", &all).mtu, 1480);
    all.links.get_mut(&2).unwrap().mtu = 9000;
    assert_eq!(tunnel("192.0.2.11", &all).mtu, 8980);
    // Less than IPv6 can do with would be refused.
    all.links.get_mut(&2).unwrap().mtu = 1300;
    assert_eq!(tunnel("2001:db8::11", &all).mtu, 1280);
    // An address that is nowhere yet.
    assert_eq!(tunnel("198.51.100.1", &all).mtu, 1480);
}

#[test]
fn a_device_is_made_kept_mended_and_removed() {
    for local in ["192.0.2.11", "2001:db8::11"] {
        let bare = links([uplink()]);
        let desired = tunnel(local, &bare);
        let kind = desired.kind;
        let ops = |desired, links: &Links| plan(kind, desired, links).unwrap();
        assert_eq!(ops(None, &bare), []);
        assert_eq!(ops(Some(desired), &bare), [TunnelOp::Create(desired)]);

        let right = links([uplink(), made(desired)]);
        assert_eq!(ops(Some(desired), &right), []);
        assert_eq!(ops(None, &right), [TunnelOp::Delete(7)]);

        let change = [TunnelOp::Change(7, desired)];
        let changed = |alter: fn(&mut Link)| {
            let mut device = made(desired);
            alter(&mut device);
            links([uplink(), device])
        };
        let wrongs: [fn(&mut Link); 5] = [
            |device| device.up = false,
            |device| device.mtu = 1400,
            |device| device.tunnel.as_mut().unwrap().ttl = 64,
            |device| device.tunnel.as_mut().unwrap().remote = Some("192.0.2.9".parse().unwrap()),
            |device| device.tunnel = None,
        ];
        for wrong in wrongs {
            assert_eq!(ops(Some(desired), &changed(wrong)), change);
        }
        let bare = changed(|device| device.addresses.clear());
        let address = desired.address();
        assert_eq!(
            ops(Some(desired), &bare),
            [TunnelOp::AddAddress(7, address)]
        );
    }
}

#[test]
fn another_node_address_moves_the_device() {
    let before = tunnel("192.0.2.11", &links([uplink()]));
    let moved = link(2, "eth0", 1500, &["192.0.2.12/24"]);
    let now = links([moved, made(before)]);
    let desired = tunnel("192.0.2.12", &now);
    let expected = [
        TunnelOp::Change(7, desired),
        TunnelOp::AddAddress(7, "192.0.2.12/32".parse().unwrap()),
        TunnelOp::RemoveAddress(7, "192.0.2.11/32".parse().unwrap()),
    ];
    assert_eq!(
        plan(TunnelKind::Ipip, Some(desired), &now).unwrap(),
        expected
    );
}

#[test]
fn what_is_not_ours_is_left_alone() {
    // A kernel that made a link-local address of its own is not fought with.
    let kind = TunnelKind::Ip6ip6;
    let desired = tunnel("2001:db8::11", &links([uplink()]));
    let mut device = made(desired);
    device.addresses.push("fe80::1/64".parse().unwrap());
    assert_eq!(
        plan(kind, Some(desired), &links([uplink(), device])),
        Ok(vec![])
    );

    let mut other = link(9, "margay-ipip", 1500, &[]);
    other.kind = Some("dummy".into());
    let now = links([uplink(), other, link(3, "tunl0", 1480, &[])]);
    let desired = tunnel("192.0.2.11", &now);
    let error = plan(TunnelKind::Ipip, Some(desired), &now).unwrap_err();
    assert_eq!(
        error,
        "a link margay-ipip of kind dummy is there already: remove or rename it"
    );
    assert_eq!(plan(TunnelKind::Ipip, None, &now), Ok(vec![]));
}

#[test]
fn names_fit_the_kernel_and_are_no_pods() {
    for kind in TunnelKind::ALL {
        // IFNAMSIZ, with its NUL.
        assert!(kind.device().len() < 16);
        assert!(!kind.device().starts_with("mgy"));
    }
}

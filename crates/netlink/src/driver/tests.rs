//! What only the driver's inside can bring about: a dump that fails, and a change that no event tells of.

use std::os::fd::OwnedFd;

use dataplane::{Route, RouteKey, RouteState};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{SocketFlags, sockopt};

use super::*;
use crate::{netns, setup, socket};

fn key() -> RouteKey {
    RouteKey::main("10.1.0.0/16".parse().unwrap(), 0)
}

/// Runs a test in a fresh network namespace, on a thread inside.
fn inside(test: impl FnOnce(&OwnedFd) + Send) {
    let netns = netns::create().expect("these tests need root (CAP_SYS_ADMIN)");
    netns::in_netns(&netns, || {
        test(&netns);
        Ok(())
    })
    .unwrap();
}

/// A driver that has made a blackhole route, and has nothing left to do.
fn settled() -> Driver {
    let mut driver = Driver::open(1).unwrap();
    assert!(driver.read().unwrap().resynced);
    driver.reconciler.set_route(key(), Some(Route::blackhole()));
    assert_eq!(driver.write(10, now()), []);
    assert!(!driver.has_work());
    driver
}

fn in_kernel(driver: &mut Driver) -> bool {
    let routes = kernel::dump_routes(&mut driver.socket, ROUTE_PROTOCOL).unwrap();
    routes.into_iter().any(|(found, _)| found == key())
}

/// A socket whose next reply is lost: it hears of links, and has room for none of that.
fn deaf_socket() -> Socket {
    let fd = socket::open(SocketFlags::CLOEXEC).unwrap();
    rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 1)).unwrap();
    let deaf = Socket::from_fd(fd.try_clone().unwrap()).unwrap();
    sockopt::set_socket_recv_buffer_size(&fd, 1).unwrap();
    let mut other = Socket::open().unwrap();
    for _ in 0..20 {
        setup::set_up(&mut other, setup::LOOPBACK).unwrap();
        setup::set_down(&mut other, setup::LOOPBACK).unwrap();
    }
    deaf
}

#[test]
fn a_dump_that_fails_is_tried_again_after_a_pause() {
    inside(|_| {
        let mut driver = settled();
        driver.read().unwrap();
        driver.socket = deaf_socket();
        let before = now();
        driver.resync();
        assert_eq!(driver.read().unwrap_err(), Error::LostReply);
        let (at, why) = driver.poll_timeout().unwrap();
        assert!(at >= before + RETRY && at <= now() + RETRY);
        assert_eq!(why, "another attempt to read the kernel's state");
        // Asking for it does not hurry it, nor do events.
        driver.resync();
        assert!(!driver.has_work());
        assert!(!driver.read().unwrap().resynced);

        driver.not_before = Some(now());
        assert!(driver.has_work());
        assert!(driver.read().unwrap().resynced);
        assert!(!driver.has_work());
        assert_eq!(driver.poll_timeout(), None);
    });
}

#[test]
fn a_change_that_no_event_tells_of_is_found_by_a_resync() {
    inside(|_| {
        let mut driver = settled();
        // The monitor leaves out what our own sockets do.
        let mut other = Socket::open().unwrap();
        driver
            .monitor
            .set_own(&[driver.socket.port(), other.port()]);
        let gone = [Op::DeleteRoute(key(), None)];
        assert_eq!(kernel::apply(&mut other, &gone), [Ok(())]);
        assert_eq!(driver.read().unwrap().events, []);
        assert!(!driver.has_work() && driver.poll_timeout().is_none());
        assert_eq!(driver.write(10, now()), []);
        assert!(driver.reconciler.is_installed(key()), "so it believes");
        assert!(!in_kernel(&mut driver));

        driver.resync();
        assert!(driver.has_work());
        assert!(driver.read().unwrap().resynced);
        let status = driver.reconciler.route(key()).unwrap();
        assert_eq!(status.state, RouteState::Missing);
        assert_eq!(driver.reconciler.counters().lost, 1);
        assert_eq!(driver.write(10, now()), []);
        assert!(in_kernel(&mut driver) && !driver.has_work());
    });
}

//! The socket against the real kernel, in network namespaces of the tests' own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::Ipv4Addr;

use netlink::packet::RouteNetlinkMessage;
use netlink::packet::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink::packet::{AddressFamily, link::LinkMessage};
use netlink::{Error, Request, Socket};

/// A socket in a fresh network namespace, which it keeps alive.
fn socket() -> Socket {
    common::Netns::new().socket()
}

fn blackhole(last: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: AddressFamily::Inet,
        destination_prefix_length: 32,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Other(77),
        scope: RouteScope::Universe,
        kind: RouteType::BlackHole,
        ..RouteHeader::default()
    };
    let destination = Ipv4Addr::from(0x0a00_0000 + last);
    route.attributes = vec![RouteAttribute::Destination(destination.into())];
    route
}

fn routes(socket: &mut Socket) -> usize {
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    query.header.protocol = RouteProtocol::Other(77);
    socket
        .dump(
            RouteNetlinkMessage::GetRoute(query),
            |count: &mut usize, _| *count += 1,
        )
        .unwrap()
}

#[test]
fn a_batch_says_for_each_request_what_came_of_it() {
    let mut socket = socket();
    let count = 3000u32;
    let add = |n| Request::create(RouteNetlinkMessage::NewRoute(blackhole(n)));
    let results = socket.request_batch((0..count).filter(|n| n % 3 == 0).map(add));
    assert_eq!(results.len(), 1000);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let results = socket.request_batch((0..count).map(add));
    for (n, result) in (0u32..).zip(&results) {
        let errno = result.as_ref().err().and_then(Error::kernel_errno);
        assert_eq!(
            errno,
            (n % 3 == 0).then_some(rustix::io::Errno::EXIST),
            "{n}"
        );
    }
    assert_eq!(routes(&mut socket), 3000);
    let results = socket.request_batch(
        (0..count).map(|n| Request::new(RouteNetlinkMessage::DelRoute(blackhole(n)))),
    );
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(routes(&mut socket), 0);
}

#[test]
fn a_whole_batch_of_refusals_is_read() {
    let mut socket = socket();
    let results = socket.request_batch(
        (0..2000).map(|n| Request::new(RouteNetlinkMessage::DelRoute(blackhole(n)))),
    );
    assert_eq!(results.len(), 2000);
    for result in results {
        assert_eq!(
            result.unwrap_err().kernel_errno(),
            Some(rustix::io::Errno::SRCH)
        );
    }
}

#[test]
fn the_kernels_own_words_are_in_the_error() {
    let mut socket = socket();
    let mut route = blackhole(1);
    route.header.kind = RouteType::Unicast;
    route
        .attributes
        .push(RouteAttribute::Gateway(Ipv4Addr::new(192, 0, 2, 1).into()));
    let error = socket
        .request(Request::create(RouteNetlinkMessage::NewRoute(route)))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Network is unreachable (Nexthop has invalid gateway)"
    );
}

#[test]
fn a_query_gives_the_answer() {
    let mut socket = socket();
    let mut link = LinkMessage::default();
    link.header.index = 1;
    let answers = socket
        .query(Request::new(RouteNetlinkMessage::GetLink(link)))
        .unwrap();
    let [RouteNetlinkMessage::NewLink(lo)] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert_eq!(lo.header.index, 1);
}

#[test]
fn only_a_netlink_socket_will_do() {
    let pipe = rustix::pipe::pipe().unwrap().0;
    assert_eq!(Socket::from_fd(pipe).err(), Some(Error::NotNetlink));
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(Socket::from_fd(udp.into()).err(), Some(Error::NotNetlink));
}

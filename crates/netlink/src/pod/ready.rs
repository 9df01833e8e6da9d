//! Waiting until what was made works, which is a moment after the kernel has acknowledged it.
//!
//! A link: when both ends of a veth are up, the kernel marks them running at once, but lets them transmit only after a
//! worker of its own (`net/core/link_watch.c`) has come round. An IPv6 address: even one that skips duplicate address
//! detection is finished by a worker (`addrconf_dad_work`); until then it is nobody's source, and what is sent to it
//! finds no local route. What is sent meanwhile is lost without a trace. On a busy machine that moment is long.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use dataplane::LinkIndex;
use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, State};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};

use super::by_index;
use crate::{Error, Request, Socket, encode};

/// How long the kernel may take. Its workers run within milliseconds, the one for links at most a second apart.
const LIMIT: Duration = Duration::from_secs(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// Waits until the link's operational state is up. False when it doesn't become so.
///
/// Since Linux 6.8 the question itself makes the kernel do the worker's part, and the first look is the last.
///
/// # Errors
/// The kernel's refusal, as when the link is gone.
pub(super) fn carrier(socket: &mut Socket, link: LinkIndex) -> Result<bool, Error> {
    wait(|| {
        let question = RouteNetlinkMessage::GetLink(by_index(link));
        let answers = socket.query(Request::new(question))?;
        Ok(answers.iter().any(|answer| {
            matches!(answer, RouteNetlinkMessage::NewLink(link) if link
                .attributes
                .contains(&LinkAttribute::OperState(State::Up)))
        }))
    })
}

/// Waits until packets to the address are the link's own namespace's. False when they never are.
///
/// # Errors
/// When the kernel can't be asked.
pub(super) fn address(
    socket: &mut Socket,
    link: LinkIndex,
    address: Ipv6Addr,
) -> Result<bool, Error> {
    let address = IpAddr::from(address);
    let mut question = RouteMessage::default();
    question.header.address_family = encode::family(address);
    question.header.destination_prefix_length = IpNet::from(address).prefix_len();
    // A link-local address is one on each link.
    question.attributes = vec![
        RouteAttribute::Destination(address.into()),
        RouteAttribute::Oif(link),
    ];
    wait(|| {
        let question = RouteNetlinkMessage::GetRoute(question.clone());
        match socket.query(Request::new(question)) {
            Ok(answers) => Ok(answers.iter().any(|answer| {
                matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
            })),
            // No way there at all, yet.
            Err(Error::Kernel { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    })
}

fn wait(mut look: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    let started = clock();
    loop {
        if look()? {
            return Ok(true);
        }
        if started.elapsed() >= LIMIT {
            return Ok(false);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the pause between two looks, under a deadline"
        )]
        std::thread::sleep(PAUSE);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: the kernel's workers run in real time"
)]
fn clock() -> Instant {
    Instant::now()
}

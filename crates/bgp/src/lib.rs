//! The BGP speaker as a pure state machine: deterministic, and without sockets, clocks, threads or logs. Time is an
//! argument, bytes go in and come out, and every decision can be replayed.
//!
//! A driver gives a [`Speaker`](speaker::Speaker) what it reads from sockets and the time, and does what the speaker asks
//! for. This one has two speakers in one process, no sockets, and no need to wait:
//!
//! ```
//! use std::net::{IpAddr, Ipv4Addr, SocketAddr};
//! use std::time::{Duration, Instant};
//!
//! use bgp::config::{PeerConfig, SpeakerConfig};
//! use bgp::policy::Policy;
//! use bgp::speaker::{Event, Speaker};
//! use bgp_wire::Attributes;
//!
//! fn config(asn: u32, address: Ipv4Addr, peer_asn: u32, peer: Ipv4Addr) -> SpeakerConfig {
//!     let mut config = SpeakerConfig::new(asn, address);
//!     let mut peer_config = PeerConfig::new(peer_asn);
//!     // Without these nothing is exchanged with an external peer (RFC 8212).
//!     peer_config.import = Policy::accept_all();
//!     peer_config.export = Policy::accept_all();
//!     config.peers.insert(peer.into(), peer_config);
//!     config
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (left_address, right_address) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
//! let mut left_config = config(64512, left_address, 64513, right_address);
//! left_config.originated.insert("10.1.0.0/24".parse()?, Attributes::originated());
//! let mut right_config = config(64513, right_address, 64512, left_address);
//! if let Some(peer) = right_config.peers.get_mut(&IpAddr::from(left_address)) {
//!     peer.passive = true; // so that there is one connection, and no collision to tell of here
//! }
//!
//! let start = Instant::now();
//! let mut now = start;
//! let mut left = Speaker::new(left_config, false, 1, now);
//! let mut right = Speaker::new(right_config, false, 2, now);
//! let mut connection = None;
//! let route = loop {
//!     while let Some(event) = left.poll_event() {
//!         if let Event::Connect { conn, remote, .. } = event {
//!             let local = SocketAddr::new(left_address.into(), 40000);
//!             left.handle_connected(conn, local, remote, now);
//!             connection = right.handle_incoming(remote, local, now).map(|other| (conn, other));
//!         }
//!     }
//!     while right.poll_event().is_some() {}
//!     if let Some((at_left, at_right)) = connection {
//!         let mut idle = false;
//!         while !idle {
//!             idle = true;
//!             while let Some(bytes) = left.poll_transmit(at_left) {
//!                 right.handle_data(at_right, &bytes, now);
//!                 idle = false;
//!             }
//!             while let Some(bytes) = right.poll_transmit(at_right) {
//!                 left.handle_data(at_left, &bytes, now);
//!                 idle = false;
//!             }
//!         }
//!     }
//!     if let Some(route) = right.poll_routes(1).pop() {
//!         break route;
//!     }
//!     // Nothing happens before the next timer, so it may as well be then.
//!     let (next, _reason) = left.poll_timeout().into_iter().chain(right.poll_timeout()).min().ok_or("no timer")?;
//!     now = next;
//!     left.handle_timeout(now);
//!     right.handle_timeout(now);
//! };
//! assert_eq!(route.prefix, "10.1.0.0/24".parse()?);
//! assert_eq!(route.next_hops[0].address(), IpAddr::from(left_address));
//! assert!(now - start < Duration::from_secs(10));
//! # Ok(())
//! # }
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`config`] | what a speaker is told to be |
//! | [`speaker`] | the whole: every peer's session and the RIB behind one set of inputs and outputs |
//! | [`session`] | one peer's session: FSM, collisions, timers, negotiation (RFC 4271 §6, §8) |
//! | [`rib`] | Adj-RIB-In, Loc-RIB, Adj-RIB-Out (RFC 4271 §3.2, §9) |
//! | [`policy`] | filters on import and export |
//! | [`view`] | what the operator sees |
#![forbid(unsafe_code)]

mod asn_set;
pub mod config;
mod password;
pub mod policy;
pub mod rib;
pub mod session;
pub mod speaker;
pub mod view;

//! Traceroute and path MTU.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail};

use super::icmp::{Echo, Pinger, Reply};

/// How long a hop may think. It is a namespace of this machine, but the machine may be busy.
const HOP_LIMIT: Duration = Duration::from_millis(1500);

/// The longest way that is followed.
const MAX_HOPS: u8 = 16;

/// Follows the way to `to`: every router on it, and `to` itself last.
///
/// # Errors
/// When the way ends before `to`; the error holds the way so far.
pub fn traceroute(pinger: &mut Pinger, to: Ipv4Addr) -> Result<Vec<(Ipv4Addr, Duration)>> {
    let mut hops = Vec::new();
    for ttl in 1..=MAX_HOPS {
        let echo = Echo {
            ttl,
            ..Echo::default()
        };
        let sent = crate::wait::now();
        match pinger.ping(to, echo, HOP_LIMIT)? {
            Reply::TimeExceeded { from } => hops.push((from, sent.elapsed())),
            Reply::Answer { from, rtt, .. } => {
                hops.push((from, rtt));
                return Ok(hops);
            }
            other @ (Reply::TooBig { .. } | Reply::Unreachable { .. } | Reply::Nothing) => {
                bail!("the way to {to} ends after {hops:?}: {other:?}")
            }
        }
    }
    bail!("the way to {to} has more than {MAX_HOPS} hops: {hops:?}")
}

/// The largest packet that reaches `to` and comes back in one piece (with "don't fragment" set), in octets.
///
/// # Errors
/// When even the smallest does not.
pub fn path_mtu(pinger: &mut Pinger, to: Ipv4Addr) -> Result<u16> {
    // What every IPv4 link carries (RFC 791), and more than any of the lab's does.
    let (mut fits, mut too_big) = (68, 9217);
    if !fits_whole(pinger, to, fits)? {
        bail!("not even a packet of {fits} octets reaches {to}");
    }
    while too_big - fits > 1 {
        let length = fits + (too_big - fits) / 2;
        if fits_whole(pinger, to, length)? {
            fits = length;
        } else {
            too_big = length;
        }
    }
    Ok(fits)
}

fn fits_whole(pinger: &mut Pinger, to: Ipv4Addr, length: u16) -> Result<bool> {
    let echo = Echo {
        length,
        dont_fragment: true,
        ..Echo::default()
    };
    Ok(match pinger.ping(to, echo, Duration::from_millis(300))? {
        Reply::Answer { .. } => true,
        Reply::TooBig { .. } | Reply::Nothing => false,
        other @ (Reply::TimeExceeded { .. } | Reply::Unreachable { .. }) => {
            bail!("{length} octets to {to}: {other:?}")
        }
    })
}

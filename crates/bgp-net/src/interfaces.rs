//! Which addresses this machine has on which link.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use bgp::speaker::Interface;
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;
use tracing::warn;

/// For so long what was read counts as it is: a thousand peers may come up at once.
const FRESH: Duration = Duration::from_secs(1);

/// When they were read last.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    read: Option<Instant>,
}

impl Interfaces {
    /// All of this network namespace, if it is time to read them again.
    pub(crate) fn refresh(&mut self, now: Instant) -> Option<Vec<Interface>> {
        if self.read.is_some_and(|read| now < read + FRESH) {
            return None;
        }
        self.read = Some(now);
        match read() {
            Ok(interfaces) => Some(interfaces),
            Err(error) => {
                warn!(%error, "cannot read our own addresses");
                None
            }
        }
    }
}

fn read() -> io::Result<Vec<Interface>> {
    let mut by_name: BTreeMap<String, Interface> = BTreeMap::new();
    for entry in getifaddrs()? {
        if !entry.flags.contains(InterfaceFlags::IFF_UP) {
            continue;
        }
        if let (Some(address), Some(mask)) = (ip(entry.address), ip(entry.netmask))
            && let Ok(len) = ipnet::ip_mask_to_prefix(mask)
            && let Ok(address) = IpNet::new(address, len)
        {
            let interface = by_name.entry(entry.interface_name).or_default();
            interface.addresses.push(address);
        }
    }
    Ok(by_name.into_values().collect())
}

fn ip(address: Option<SockaddrStorage>) -> Option<IpAddr> {
    let address = address?;
    let v4 = address
        .as_sockaddr_in()
        .map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|address| IpAddr::V6(address.ip()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_there() {
        let interfaces = read().expect("the addresses can be read");
        let loopback: IpNet = "127.0.0.1/8".parse().expect("a prefix");
        assert!(
            interfaces
                .iter()
                .any(|interface| interface.addresses.contains(&loopback)),
            "{interfaces:?}"
        );
    }

    #[test]
    fn is_not_read_for_each_of_many() {
        #[expect(clippy::disallowed_methods, reason = "any instant does")]
        let now = Instant::now();
        let mut interfaces = Interfaces::default();
        assert!(interfaces.refresh(now).is_some());
        assert!(interfaces.refresh(now + FRESH / 2).is_none());
        assert!(interfaces.refresh(now + FRESH).is_some());
    }
}

//! The record on a host veth: what `IFLA_IFALIAS` says about the endpoint behind it. It is all that is stored about it.

use std::fmt::Write as _;
use std::net::IpAddr;

/// The longest alias that the kernel takes: `IFALIASZ` less its NUL.
const ALIAS_MAX: usize = 255;
/// First word of every record; a record of another shape will have another one.
const MAGIC: &str = "margay1";

/// What a host veth's alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The container's ID.
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
    /// The network configuration's name.
    pub network: String,
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// MAC address of the pod's end, where it is not the one that follows from container and interface.
    pub mac: Option<[u8; 6]>,
    /// The pod may send from addresses that are not its own.
    pub spoofing: bool,
    /// Namespace and name of the pod. Not kept where there is no room.
    pub pod: Option<(String, String)>,
    /// The path of the pod's network namespace. Not kept where there is no room.
    pub netns: Option<String>,
}

/// A record can't be written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// What must be kept is longer than an alias may be.
    #[error("the record of this attachment has {0} octets, and the kernel keeps 255")]
    TooLong(usize),
    /// A value holds a character that separates values.
    #[error("{0:?} holds a space")]
    Space(String),
}

impl Record {
    /// As words of `key=value`, within the kernel's 255 octets.
    ///
    /// # Errors
    /// When a name holds a space, or what must be kept is too long.
    pub fn encode(&self) -> Result<String, RecordError> {
        let mut alias = String::with_capacity(ALIAS_MAX);
        alias.push_str(MAGIC);
        for (key, value) in [
            ("c", &self.container_id),
            ("i", &self.ifname),
            ("n", &self.network),
        ] {
            if value.contains(char::is_whitespace) {
                return Err(RecordError::Space(value.clone()));
            }
            push(&mut alias, key, value);
        }
        if !self.addresses.is_empty() {
            let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
            push(&mut alias, "a", &addresses.join(","));
        }
        if let Some(mac) = self.mac {
            let mut text = String::with_capacity(12);
            for octet in mac {
                write!(text, "{octet:02x}").ok();
            }
            push(&mut alias, "m", &text);
        }
        if self.spoofing {
            push(&mut alias, "f", "spoofing");
        }
        if alias.len() > ALIAS_MAX {
            return Err(RecordError::TooLong(alias.len()));
        }
        // Good to have, not needed: as many as there is room for.
        let pod = self
            .pod
            .as_ref()
            .map(|(namespace, name)| ("p", format!("{namespace}/{name}")));
        let netns = self.netns.as_ref().map(|netns| ("s", netns.clone()));
        for (key, value) in pod.into_iter().chain(netns) {
            if alias.len() + 2 + key.len() + value.len() <= ALIAS_MAX
                && !value.contains(char::is_whitespace)
            {
                push(&mut alias, key, &value);
            }
        }
        Ok(alias)
    }

    /// Reads an alias; `None` for one that is not ours. Keys that a later version may have added are stepped over.
    pub fn decode(alias: &str) -> Option<Self> {
        let mut words = alias.split(' ');
        if words.next() != Some(MAGIC) {
            return None;
        }
        let (mut container_id, mut ifname, mut network) = (None, None, None);
        let (mut addresses, mut mac, mut pod, mut netns) = (Vec::new(), None, None, None);
        let mut spoofing = false;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "c" => container_id = Some(value.to_owned()),
                "i" => ifname = Some(value.to_owned()),
                "n" => network = Some(value.to_owned()),
                "a" => {
                    addresses = value
                        .split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>()
                        .ok()?
                }
                "m" => mac = Some(parse_mac(value)?),
                "p" => {
                    pod = value
                        .split_once('/')
                        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
                }
                "f" => spoofing = value.split(',').any(|flag| flag == "spoofing"),
                "s" => netns = Some(value.to_owned()),
                _ => {}
            }
        }
        let (container_id, ifname, network) = (container_id?, ifname?, network?);
        Some(Self {
            container_id,
            ifname,
            network,
            addresses,
            mac,
            spoofing,
            pod,
            netns,
        })
    }
}

fn push(alias: &mut String, key: &str, value: &str) {
    alias.push(' ');
    alias.push_str(key);
    alias.push('=');
    alias.push_str(value);
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let number = u64::from_str_radix(text, 16)
        .ok()
        .filter(|_| text.len() == 12)?;
    let [_, _, mac @ ..] = number.to_be_bytes();
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            container_id: "c".repeat(64),
            ifname: "eth0".into(),
            network: "margay".into(),
            addresses: vec![
                "10.244.1.7".parse().unwrap(),
                "fd00:10:244:1::7".parse().unwrap(),
            ],
            mac: Some([2, 0, 0x5e, 0, 0, 1]),
            spoofing: false,
            pod: Some(("default".into(), "web-0".into())),
            netns: Some("/var/run/netns/cni-5e1b0c2a-0000-1111-2222-333344445555".into()),
        }
    }

    #[test]
    fn everything_of_a_common_pod_fits() {
        let alias = record().encode().unwrap();
        assert!(alias.len() <= 255, "{}", alias.len());
        assert_eq!(Record::decode(&alias), Some(record()));
        let spoofing = Record {
            spoofing: true,
            netns: None,
            ..record()
        };
        assert_eq!(Record::decode(&spoofing.encode().unwrap()), Some(spoofing));
    }

    #[test]
    fn what_must_be_kept_fits_at_its_longest() {
        let long = Record {
            ifname: "i".repeat(15),
            network: "n".repeat(63),
            addresses: vec![
                "255.255.255.255".parse().unwrap(),
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap(),
            ],
            spoofing: true,
            pod: Some(("n".repeat(63), "p".repeat(253))),
            ..record()
        };
        let alias = long.encode().unwrap();
        let kept = Record::decode(&alias).unwrap();
        assert_eq!(
            kept,
            Record {
                pod: None,
                netns: None,
                ..long
            }
        );
    }

    #[test]
    fn others_and_later_aliases() {
        assert_eq!(Record::decode("uplink to rack 7"), None);
        assert_eq!(Record::decode("margay1 c=a i=eth0"), None, "no network");
        assert_eq!(Record::decode("margay1 c=a i=eth0 n=x a=10.0.0.300"), None);
        let later = Record::decode("margay1 c=a i=eth0 n=x zz=1 odd").unwrap();
        assert_eq!(
            (later.container_id.as_str(), later.addresses.len()),
            ("a", 0)
        );
        let spaced = Record {
            network: "a b".into(),
            ..record()
        };
        assert_eq!(spaced.encode(), Err(RecordError::Space("a b".into())));
        let long = Record {
            network: "n".repeat(200),
            ..record()
        };
        assert!(matches!(long.encode(), Err(RecordError::TooLong(_))));
    }
}

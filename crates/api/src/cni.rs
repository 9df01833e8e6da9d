//! What `margay-cni` and the agent say to each other: one `SOCK_SEQPACKET` message each way, in JSON.
//!
//! An [`Add`] and a [`Check`] carry two descriptors beside their text (`SCM_RIGHTS`): the pod's network namespace, and a
//! `NETLINK_ROUTE` socket that was opened inside it. The agent needs no privilege to enter the namespace then.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Where the agent listens, unless the conflist says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/margay/cni.sock";

/// The version of what is said here. An agent refuses another one, in words that name both.
pub const PROTOCOL: u32 = 1;

/// The longest message, in octets.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// What every host veth's name starts with.
pub const HOST_IFNAME_PREFIX: &str = "mgy";

/// Where pods' default routes go, a family each. Nobody has these addresses; the host's end of the veth answers for them.
pub const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

/// Error codes of ours beside those of the CNI specification ("Error"), which leaves 100 and up to plugins.
pub mod code {
    /// CNI: incompatible version.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// CNI: unsupported field in the network configuration.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// CNI: the container is unknown, or does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// CNI: an environment variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// CNI: input or output failed.
    pub const IO: u32 = 5;
    /// CNI: the network configuration is not what JSON looks like.
    pub const DECODE: u32 = 6;
    /// CNI: invalid network configuration.
    pub const INVALID_CONFIG: u32 = 7;
    /// The reference library's: `CNI_NETNS` is no network namespace, or is the plugin's own.
    pub const INVALID_NETNS: u32 = 8;
    /// CNI: try again later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// CNI: the plugin is not available and can't serve ADD.
    pub const UNAVAILABLE: u32 = 50;
    /// No address is left, or the one that was asked for is not to be had.
    pub const NO_ADDRESS: u32 = 101;
    /// The interface exists in the container, or the container is attached already.
    pub const INTERFACE_EXISTS: u32 = 102;
    /// The kernel refused.
    pub const KERNEL: u32 = 103;
    /// An attachment is not as it was made (CHECK).
    pub const CHECK_FAILED: u32 = 104;
    /// Shim and agent don't understand each other.
    pub const PROTOCOL: u32 = 105;
}

/// A question to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`PROTOCOL`] of who asks.
    pub protocol: u32,
    /// What is asked.
    pub verb: Verb,
}

impl Request {
    /// With this version's [`PROTOCOL`].
    #[must_use]
    pub fn new(verb: Verb) -> Self {
        Self {
            protocol: PROTOCOL,
            verb,
        }
    }
}

/// What is asked of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Attach a container. Carries the two descriptors.
    Add(Add),
    /// Is the attachment as it was made? Carries the two descriptors.
    Check(Check),
    /// Detach a container.
    Del(Del),
    /// Detach every container of a network but these.
    Gc(Gc),
    /// Could an ADD be served now?
    Status,
}

/// Names an attachment: the specification's (container ID, interface name).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentId {
    /// `CNI_CONTAINERID`.
    #[serde(alias = "containerID")]
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub ifname: String,
}

impl AttachmentId {
    /// The host veth's name and both ends' MAC addresses: the same for the same attachment, whoever works them out.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let mut hash = Sha256::new();
        hash.update(&self.container_id);
        hash.update("/");
        hash.update(&self.ifname);
        let hash = hash.finalize();
        let mac = |at: usize| {
            // Locally administered, and an individual's: IEEE 802, the two lowest bits of the first octet.
            let mut octets = [0; 6];
            octets.copy_from_slice(&hash[at..at + 6]);
            octets[0] = octets[0] & !0b01 | 0b10;
            Mac(octets)
        };
        let mut host_ifname = HOST_IFNAME_PREFIX.to_owned();
        for octet in &hash[..6] {
            for nibble in [octet >> 4, octet & 0xf] {
                host_ifname.extend(char::from_digit(nibble.into(), 16));
            }
        }
        Identity {
            host_ifname,
            host_mac: mac(6),
            pod_mac: mac(12),
        }
    }
}

/// What follows from an [`AttachmentId`] alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the veth's end on the host: [`HOST_IFNAME_PREFIX`] and 12 hex digits of a hash.
    pub host_ifname: String,
    /// MAC address of that end.
    pub host_mac: Mac,
    /// MAC address of the pod's end, where nobody asks for another.
    pub pod_mac: Mac,
}

/// Which pod a container is, told by the runtime in `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
}

/// Attach a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Which attachment.
    pub id: AttachmentId,
    /// `CNI_NETNS`, as given: the agent can't open it and only passes it on.
    pub netns: String,
    /// The network configuration's `name`.
    pub network: String,
    /// The pod, where it is one.
    pub pod: Option<Pod>,
    /// MTU in octets, where the configuration has one.
    pub mtu: Option<u32>,
    /// MAC address for the pod's end, where one was asked for.
    pub mac: Option<Mac>,
    /// Addresses that were asked for; the agent chooses where there are none.
    pub addresses: Vec<IpAddr>,
    /// Whether the default route goes here. Undecided, it does for a container's first attachment.
    pub default_route: Option<bool>,
    /// Whether the pod may send from addresses that are not its own.
    #[serde(default)]
    pub spoofing: bool,
    /// This process asked before and got no answer, because the agent went away: what that left may be taken down.
    pub again: bool,
}

/// Is the attachment as it was made?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Which attachment.
    pub id: AttachmentId,
    /// Addresses that the container got, by `prevResult`.
    pub addresses: Vec<IpAddr>,
    /// Gateways of the default routes that it got, by `prevResult`.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
}

/// Detach a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Del {
    /// Which attachment.
    pub id: AttachmentId,
}

/// Detach every container of a network but these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gc {
    /// The network configuration's `name`.
    pub network: String,
    /// What stays.
    pub valid: Vec<AttachmentId>,
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Response {
    /// To [`Verb::Add`]: it is attached, and the host's routes are in the kernel.
    Attached(Attached),
    /// To any other verb: done, or all is well.
    Done,
    /// The agent is starting: ask again in a moment.
    Later(String),
    /// It can't be done.
    Failed(Failure),
}

/// Why something can't be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One of [`code`].
    pub code: u32,
    /// What is wrong, in a line.
    pub message: String,
    /// What to look at; may be empty.
    pub details: String,
}

/// What an ADD made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attached {
    /// Name of the veth's end on the host.
    pub host_ifname: String,
    /// Its MAC address.
    pub host_mac: Mac,
    /// MAC address of the pod's end.
    pub mac: Mac,
    /// MTU of both in octets.
    pub mtu: u32,
    /// The pod's addresses, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// Gateways of the default routes in the pod, a family each; empty where there is no default route.
    pub gateways: Vec<IpAddr>,
}

/// A MAC address; `02:00:5e:10:00:00` in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// The text is no MAC address of six octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAMac;

impl fmt::Display for NotAMac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not a MAC address such as 02:00:5e:10:00:00")
    }
}

impl std::error::Error for NotAMac {}

impl FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let digits = |part: &&str| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            };
            let part = parts.next().filter(digits).ok_or(NotAMac)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| NotAMac)?;
        }
        if parts.next().is_some() {
            Err(NotAMac)
        } else {
            Ok(Self(octets))
        }
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container_id: &str, ifname: &str) -> AttachmentId {
        AttachmentId {
            container_id: container_id.into(),
            ifname: ifname.into(),
        }
    }

    #[test]
    fn an_identity_never_changes() {
        // Agents and shims of different versions meet on one node: these values are for ever.
        let identity = id("c0ffee", "eth0").identity();
        assert_eq!(identity.host_ifname, "mgy6ad2516ced2a");
        assert_eq!(identity.host_mac.to_string(), "6a:10:30:61:60:13");
        assert_eq!(identity.pod_mac.to_string(), "e2:1d:64:a0:c3:60");
        assert!(identity.host_ifname.len() <= 15, "IFNAMSIZ");
        assert_ne!(identity, id("c0ffee", "eth1").identity());
    }

    #[test]
    fn mac_addresses() {
        assert_eq!(
            "02-00-5E-10-00-0f".parse(),
            Ok(Mac([2, 0, 0x5e, 0x10, 0, 0xf]))
        );
        assert_eq!(
            Mac([2, 0, 0x5e, 0x10, 0, 0xf]).to_string(),
            "02:00:5e:10:00:0f"
        );
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:0f:00",
            "2:0:5e:10:0:f",
            "02:00:5e:10:00:0g",
            "+2:00:5e:10:00:00",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(NotAMac), "{wrong}");
        }
    }

    #[test]
    fn messages_survive_the_socket() {
        let add = Verb::Add(Add {
            id: id("c0ffee", "eth0"),
            netns: "/run/netns/x".into(),
            network: "margay".into(),
            pod: Some(Pod {
                namespace: "default".into(),
                name: "web-0".into(),
            }),
            mtu: Some(1400),
            mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            default_route: None,
            spoofing: false,
            again: false,
        });
        let valid = vec![id("a", "eth0")];
        for verb in [
            add,
            Verb::Status,
            Verb::Gc(Gc {
                network: "margay".into(),
                valid,
            }),
        ] {
            let request = Request::new(verb);
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        let response = Response::Failed(Failure {
            code: code::NO_ADDRESS,
            message: "none".into(),
            details: String::new(),
        });
        let text = serde_json::to_string(&response).unwrap();
        assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), response);
    }
}

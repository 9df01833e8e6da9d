//! The network configuration on stdin (CNI specification 1.1, section 1, "Plugin configuration objects").

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::cni::{AttachmentId, DEFAULT_SOCKET, Mac, code};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::environment::is_identifier;
use crate::error::CniError;
use crate::version::SpecVersion;

/// The annotation by which a pod asks for addresses, separated by commas.
const ADDRESSES_ANNOTATION: &str = "margay.dev/ip-addresses";

/// How long an ADD waits for an agent that is starting: well under a kubelet's two minutes.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);

/// A network configuration that has been checked.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) version: SpecVersion,
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) agent_timeout: Duration,
    pub(crate) mtu: Option<u32>,
    pub(crate) mac: Option<Mac>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) default_route: Option<bool>,
    /// `dns`, for the result.
    pub(crate) dns: Option<Value>,
    pub(crate) prev_result: Option<Value>,
    /// `cni.dev/valid-attachments`. `None` when the key isn't there, which says nothing about what is valid.
    pub(crate) valid_attachments: Option<Vec<AttachmentId>>,
}

/// The JSON as written. Keys that we don't know are others' business.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    cni_version: Option<String>,
    name: Option<String>,
    socket: Option<PathBuf>,
    agent_timeout_seconds: Option<u64>,
    mtu: Option<u32>,
    is_default_gateway: Option<bool>,
    ip_masq: Option<bool>,
    ipam: Option<Value>,
    dns: Option<Value>,
    prev_result: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    runtime_config: RuntimeConfig,
    #[serde(
        default,
        rename = "cni.dev/valid-attachments",
        deserialize_with = "attachments"
    )]
    valid_attachments: Option<Vec<AttachmentId>>,
}

/// What a runtime adds where the conflist declares the capability (`CONVENTIONS.md`, "Dynamic Plugin specific fields").
#[derive(Default, Deserialize)]
struct RuntimeConfig {
    mac: Option<String>,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default, rename = "io.kubernetes.cri.pod-annotations")]
    annotations: BTreeMap<String, String>,
}

/// `null` is as good as absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The key with `null` means that there is no valid attachment, its absence means nothing.
fn attachments<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<AttachmentId>>, D::Error> {
    Ok(Some(present(deserializer)?))
}

/// The version that an answer to this input should be in, whatever else is wrong with it.
pub(crate) fn claimed_version(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        cni_version: String,
    }
    let version = serde_json::from_str::<Version>(text).ok()?.cni_version;
    Some(version).filter(|version| !version.is_empty())
}

impl Config {
    pub(crate) fn parse(text: &str) -> Result<Self, CniError> {
        let raw: Raw = serde_json::from_str(text).map_err(|error| {
            let code = if error.is_data() {
                code::INVALID_CONFIG
            } else {
                code::DECODE
            };
            CniError::new(
                code,
                format_args!("the network configuration on stdin: {error}"),
            )
        })?;
        let version = SpecVersion::of_config(raw.cni_version.as_deref())?;
        let name = raw.name.unwrap_or_default();
        if !is_identifier(&name) {
            return Err(invalid(format_args!("name {name:?} is no network's name")));
        }
        if raw.ip_masq == Some(true) {
            return Err(unsupported(
                "ipMasq",
                "true",
                "pods keep their own addresses",
            ));
        }
        if let Some(ipam) = raw.ipam.filter(|ipam| ipam.get("type").is_some()) {
            return Err(unsupported(
                "ipam",
                &ipam.to_string(),
                "the agent chooses addresses from the node's pod CIDRs",
            ));
        }
        // IPv6 needs 1280 octets (RFC 8200 §5), IPv4 68 (RFC 791); the kernel's veth stops at 65535.
        if let Some(mtu) = raw.mtu.filter(|mtu| !(68..=65_535).contains(mtu)) {
            return Err(invalid(format_args!(
                "mtu {mtu} is not within 68 and 65535"
            )));
        }
        let RuntimeConfig {
            mac,
            ips,
            annotations,
        } = raw.runtime_config;
        let mac = mac.map(|mac| {
            mac.parse()
                .map_err(|error| invalid(format_args!("runtimeConfig.mac {mac:?} is {error}")))
        });
        let annotated = annotations
            .get(ADDRESSES_ANNOTATION)
            .map_or("", String::as_str);
        let wanted = ips
            .iter()
            .map(String::as_str)
            .chain(annotated.split(','))
            .map(str::trim);
        let addresses = wanted
            .filter(|text| !text.is_empty())
            .map(parse_address)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            version,
            name,
            socket: raw.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            agent_timeout: raw
                .agent_timeout_seconds
                .map_or(AGENT_TIMEOUT, Duration::from_secs),
            mtu: raw.mtu,
            mac: mac.transpose()?,
            addresses,
            default_route: raw.is_default_gateway,
            dns: raw
                .dns
                .filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty())),
            prev_result: raw.prev_result,
            valid_attachments: raw.valid_attachments,
        })
    }
}

/// An address that somebody asks for. A prefix length is allowed and means nothing: a pod's address stands alone.
fn parse_address(text: &str) -> Result<IpAddr, CniError> {
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    address.parse().map_err(|_| {
        invalid(format_args!(
            "{text:?} is no IP address that a pod could ask for"
        ))
    })
}

fn invalid(message: impl std::fmt::Display) -> CniError {
    CniError::new(code::INVALID_CONFIG, message)
}

fn unsupported(key: &str, value: &str, why: &str) -> CniError {
    CniError::new(
        code::UNSUPPORTED_FIELD,
        format_args!("{key}: {value} is not supported"),
    )
    .details(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(extra: &str) -> Result<Config, CniError> {
        Config::parse(&format!(
            r#"{{"cniVersion":"1.1.0","name":"margay","type":"margay"{extra}}}"#
        ))
    }

    #[test]
    fn the_smallest_configuration_has_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/margay/cni.sock"));
        assert_eq!(config.agent_timeout, Duration::from_secs(30));
        assert_eq!(config.version.text(), "1.1.0");
        assert_eq!(config.valid_attachments, None);
    }

    #[test]
    fn what_is_wrong_has_the_right_code() {
        assert_eq!(Config::parse("not JSON").unwrap_err().code, 6);
        assert_eq!(Config::parse("").unwrap_err().code, 6);
        assert_eq!(
            Config::parse(r#"{"cniVersion":"9.9.9","name":"x"}"#)
                .unwrap_err()
                .code,
            1
        );
        assert_eq!(
            Config::parse(r#"{"cniVersion":"1.0.0"}"#).unwrap_err().code,
            7
        );
        assert_eq!(
            Config::parse(r#"{"cniVersion":"1.0.0","name":"-x"}"#)
                .unwrap_err()
                .code,
            7
        );
        assert_eq!(
            Config::parse(r#"{"name":"margay"}"#)
                .unwrap()
                .version
                .text(),
            "0.1.0"
        );
        for (extra, code) in [
            (r#","mtu":1"#, 7),
            (r#","mtu":"1500""#, 7),
            (r#","ipMasq":true"#, 2),
            (r#","ipam":{"type":"host-local"}"#, 2),
            (r#","runtimeConfig":{"mac":"1"}"#, 7),
            (r#","runtimeConfig":{"ips":["10.0.0.300"]}"#, 7),
        ] {
            assert_eq!(parse(extra).unwrap_err().code, code, "{extra}");
        }
        assert!(
            parse(r#","ipMasq":true"#)
                .unwrap_err()
                .message
                .contains("ipMasq: true")
        );
        assert!(
            parse(
                r#","ipMasq":false,"ipam":{},"args":{"cni":{}},"cni.dev/x":1,"runtimeConfig":null"#
            )
            .is_ok()
        );
    }

    #[test]
    fn capabilities_are_read() {
        let config = parse(
            r#","capabilities":{"ips":true},"runtimeConfig":{"mac":"02:00:00:00:00:07","ips":["10.0.0.9/24"],
            "io.kubernetes.cri.pod-annotations":{"margay.dev/ip-addresses":"fd00::9, 10.0.0.8"}}"#,
        )
        .unwrap();
        assert_eq!(config.mac, Some(Mac([2, 0, 0, 0, 0, 7])));
        let addresses =
            ["10.0.0.9", "fd00::9", "10.0.0.8"].map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(config.addresses, addresses);
    }

    #[test]
    fn absent_attachments_are_not_no_attachments() {
        let valid = |extra| parse(extra).unwrap().valid_attachments;
        assert_eq!(valid(""), None);
        assert_eq!(valid(r#","cni.dev/valid-attachments":null"#), Some(vec![]));
        assert_eq!(valid(r#","cni.dev/valid-attachments":[]"#), Some(vec![]));
        let one = AttachmentId {
            container_id: "a".into(),
            ifname: "eth0".into(),
        };
        assert_eq!(
            valid(r#","cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]"#),
            Some(vec![one])
        );
    }
}

//! The network configuration on stdin (CNI specification 1.1, section 1, "Plugin configuration objects").

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use api::cni::{AttachmentId, DEFAULT_SOCKET, Mac, code};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::environment::is_identifier;
use crate::error::CniError;
use crate::version::SpecVersion;

/// The annotation by which a pod asks for addresses, separated by commas.
const ADDRESSES_ANNOTATION: &str = "margay.dev/ip-addresses";

/// The annotation by which a pod asks to send from addresses that are not its own.
const SPOOFING_ANNOTATION: &str = "margay.dev/allow-source-spoofing";

/// How long an ADD waits for an agent that is starting: well under a kubelet's two minutes.
const AGENT_TIMEOUT: Duration = Duration::from_secs(30);
/// The most that may be asked for, in seconds: with what the ADD itself may take still under those two minutes, or the
/// runtime kills the plugin before it can say what it waited for.
const AGENT_TIMEOUT_MAX: u64 = 90;

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
    /// The pod asks to send from addresses that are not its own, and may.
    pub(crate) spoofing: bool,
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
    /// Whether pods may lift the check of their source addresses.
    allow_source_spoofing: Option<bool>,
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
    dns: Option<RuntimeDns>,
    #[serde(default, deserialize_with = "present")]
    ips: Vec<String>,
    // `null` is what containerd makes of a pod that has none.
    #[serde(
        default,
        rename = "io.kubernetes.cri.pod-annotations",
        deserialize_with = "present"
    )]
    annotations: BTreeMap<String, String>,
}

/// The capability `dns`, which has other names than a configuration's `dns`.
#[derive(Deserialize)]
struct RuntimeDns {
    #[serde(default, deserialize_with = "present")]
    servers: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    searches: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    options: Vec<String>,
}

impl RuntimeDns {
    /// As results and configurations have it.
    fn into_dns(self) -> Value {
        let mut dns = Map::new();
        for (key, values) in [
            ("nameservers", self.servers),
            ("search", self.searches),
            ("options", self.options),
        ] {
            if !values.is_empty() {
                dns.insert(key.into(), values.into());
            }
        }
        dns.into()
    }
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
        let raw: Raw = decode(text)?;
        let version = SpecVersion::of_config(raw.cni_version.as_deref())?;
        let name = raw.name.unwrap_or_default();
        check_name(&name)?;
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
        if let Some(seconds) = raw.agent_timeout_seconds
            && seconds > AGENT_TIMEOUT_MAX
        {
            return Err(invalid(format_args!(
                "agentTimeoutSeconds {seconds} is more than {AGENT_TIMEOUT_MAX}: runtimes give up after two minutes"
            )));
        }
        let RuntimeConfig {
            mac,
            dns,
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
            .collect::<Result<Vec<_>, _>>()?;
        one_a_family(&addresses)?;
        let spoofing = spoofing(&annotations, raw.allow_source_spoofing == Some(true))?;
        let dns = dns.map(RuntimeDns::into_dns).or(raw.dns);
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
            spoofing,
            dns: dns.filter(|dns| dns.as_object().is_some_and(|dns| !dns.is_empty())),
            prev_result: raw.prev_result,
            valid_attachments: raw.valid_attachments,
        })
    }
}

/// The agent's socket, which is all that a DEL needs. The rest of the configuration may have become wrong since the ADD,
/// and must not keep a pod from ending.
pub(crate) fn socket_for_del(text: &str) -> Result<PathBuf, CniError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Lenient {
        cni_version: Option<String>,
        name: Option<String>,
        socket: Option<Value>,
    }
    let Lenient {
        cni_version,
        name,
        socket,
    } = decode(text)?;
    SpecVersion::of_config(cni_version.as_deref())?;
    check_name(&name.unwrap_or_default())?;
    let socket = socket.as_ref().and_then(Value::as_str);
    Ok(socket.unwrap_or(DEFAULT_SOCKET).into())
}

fn decode<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, CniError> {
    serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() {
            code::INVALID_CONFIG
        } else {
            code::DECODE
        };
        CniError::new(
            code,
            format_args!("the network configuration on stdin: {error}"),
        )
    })
}

fn check_name(name: &str) -> Result<(), CniError> {
    if is_identifier(name) {
        return Ok(());
    }
    Err(invalid(format_args!("name {name:?} is no network's name")))
}

/// Whether the pod is to send from addresses that are not its own. Who writes a pod does not decide that alone: whoever
/// runs the node does, and a wish that is not granted is no pod that silently doesn't work.
fn spoofing(annotations: &BTreeMap<String, String>, allowed: bool) -> Result<bool, CniError> {
    match annotations.get(SPOOFING_ANNOTATION).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") if allowed => Ok(true),
        Some("true") => Err(invalid(format_args!(
            "the pod's annotation {SPOOFING_ANNOTATION} has no effect here: the network configuration does not say `\"allowSourceSpoofing\": true`"
        ))),
        Some(other) => Err(invalid(format_args!(
            "the pod's annotation {SPOOFING_ANNOTATION} is {other:?}, neither \"true\" nor \"false\""
        ))),
    }
}

fn one_a_family(addresses: &[IpAddr]) -> Result<(), CniError> {
    for (index, address) in addresses.iter().enumerate() {
        let same = |other: &&IpAddr| other.is_ipv4() == address.is_ipv4();
        if let Some(before) = addresses[..index].iter().find(same) {
            return Err(invalid(format_args!(
                "{before} and {address} are asked for, and a pod has one address a family"
            )));
        }
    }
    Ok(())
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
    use serde_json::json;

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
    fn spoofing_is_asked_for_by_the_pod_and_allowed_by_the_node() {
        let with = |value: &str, allowed: &str| {
            let annotations = r#""io.kubernetes.cri.pod-annotations""#;
            let annotation = format!(r#"{{"margay.dev/allow-source-spoofing":"{value}"}}"#);
            parse(&format!(
                r#"{allowed},"runtimeConfig":{{{annotations}:{annotation}}}"#
            ))
        };
        let allowed = r#","allowSourceSpoofing":true"#;
        assert!(!parse(allowed).unwrap().spoofing);
        assert!(with("true", allowed).unwrap().spoofing);
        assert!(!with("false", allowed).unwrap().spoofing);
        assert!(!with("false", "").unwrap().spoofing);
        for (value, allowed) in [
            ("true", ""),
            ("true", r#","allowSourceSpoofing":false"#),
            ("yes", allowed),
        ] {
            assert_eq!(
                with(value, allowed).unwrap_err().code,
                7,
                "{value} {allowed}"
            );
        }
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
            (r#","runtimeConfig":{"ips":["10.0.0.3","10.0.0.4"]}"#, 7),
            (r#","agentTimeoutSeconds":91"#, 7),
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
            "io.kubernetes.cri.pod-annotations":{"margay.dev/ip-addresses":"fd00::9, "}}"#,
        )
        .unwrap();
        assert_eq!(config.mac, Some(Mac([2, 0, 0, 0, 0, 7])));
        let addresses = ["10.0.0.9", "fd00::9"].map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(config.addresses, addresses);
    }

    #[test]
    fn a_capability_may_be_null() {
        let config = parse(
            r#","runtimeConfig":{"mac":null,"ips":null,"dns":{"servers":null},"io.kubernetes.cri.pod-annotations":null}"#,
        )
        .unwrap();
        assert_eq!(
            (config.mac, config.addresses, config.dns),
            (None, vec![], None)
        );
    }

    #[test]
    fn dns_of_the_runtime_comes_before_the_configurations() {
        let dns = |extra| parse(extra).unwrap().dns;
        assert_eq!(dns(r#","dns":{}"#), None);
        let of_config = r#","dns":{"nameservers":["10.96.0.10"]}"#;
        assert_eq!(
            dns(of_config),
            Some(json!({ "nameservers": ["10.96.0.10"] }))
        );
        let both = format!(
            r#"{of_config},"runtimeConfig":{{"dns":{{"servers":["10.96.0.11"],"searches":["x.y"]}}}}"#
        );
        assert_eq!(
            dns(&both),
            Some(json!({ "nameservers": ["10.96.0.11"], "search": ["x.y"] }))
        );
    }

    #[test]
    fn a_del_needs_little() {
        let socket = |extra: &str| {
            socket_for_del(&format!(
                r#"{{"cniVersion":"1.0.0","name":"margay"{extra}}}"#
            ))
        };
        let default = PathBuf::from("/run/margay/cni.sock");
        for wrong in [
            "",
            r#","mtu":"big","ipMasq":true,"ipam":{"type":"x"}"#,
            r#","socket":7"#,
            r#","runtimeConfig":{"ips":["x"]},"prevResult":7"#,
        ] {
            assert_eq!(socket(wrong).as_ref(), Ok(&default), "{wrong}");
        }
        assert_eq!(socket(r#","socket":"/x""#), Ok("/x".into()));
        assert_eq!(socket_for_del("{").unwrap_err().code, 6);
        assert_eq!(socket_for_del(r#"{"name":"-"}"#).unwrap_err().code, 7);
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

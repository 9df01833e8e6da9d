//! The result of an ADD in the words of each specification version (CNI specification 1.1, section 5, "ADD Success").

use std::net::IpAddr;

use api::cni::Attached;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::environment::Container;
use crate::version::SpecVersion;

/// The result, with what plugins before us made where there were some.
pub(crate) fn render(config: &Config, container: &Container, attached: &Attached) -> Value {
    let mut result = if config.version < SpecVersion::V0_3_0 {
        by_family(attached)
    } else {
        let mut result = match &config.prev_result {
            Some(Value::Object(previous)) => previous.clone(),
            _ => Map::new(),
        };
        append(&mut result, config.version, container, attached);
        result
    };
    result.insert("cniVersion".into(), config.version.text().into());
    if let Some(dns) = &config.dns {
        result.insert("dns".into(), dns.clone());
    }
    Value::Object(result)
}

/// The addresses that `prevResult` gives to the container's interface: what CHECK is about.
pub(crate) fn addresses(result: &Value, container: &Container) -> Vec<IpAddr> {
    let interfaces = result["interfaces"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let ours = |index: &Value| {
        let interface = index
            .as_u64()
            .and_then(|index| interfaces.get(usize::try_from(index).ok()?));
        interface.is_some_and(|interface| {
            interface["name"] == *container.id.ifname
                && interface["sandbox"]
                    .as_str()
                    .is_some_and(|sandbox| !sandbox.is_empty())
        })
    };
    let ips = result["ips"].as_array().map_or(&[][..], Vec::as_slice);
    let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
    ips.iter()
        .filter(|ip| ours(&ip["interface"]))
        .filter_map(address)
        .collect()
}

/// The gateways of `prevResult`'s default routes that are ours, as an address that no other plugin gives tells.
pub(crate) fn gateways(result: &Value) -> Vec<IpAddr> {
    let routes = result["routes"].as_array().map_or(&[][..], Vec::as_slice);
    routes
        .iter()
        .filter(|route| matches!(route["dst"].as_str(), Some("0.0.0.0/0" | "::/0")))
        .filter_map(|route| route["gw"].as_str()?.parse().ok())
        .filter(|gateway| api::cni::GATEWAYS.contains(gateway))
        .collect()
}

/// 0.3.0 and later: lists, to which each plugin of a chain adds its own.
fn append(
    result: &mut Map<String, Value>,
    version: SpecVersion,
    container: &Container,
    attached: &Attached,
) {
    let mut interfaces = take_list(result, "interfaces");
    let pod_index = interfaces.len() + 1;
    interfaces.push(json!({ "name": attached.host_ifname, "mac": attached.host_mac }));
    interfaces.push(
        json!({ "name": container.id.ifname, "mac": attached.mac, "sandbox": container.netns }),
    );
    if version >= SpecVersion::V1_1_0 {
        for interface in interfaces.iter_mut().skip(pod_index - 1) {
            interface["mtu"] = attached.mtu.into();
        }
    }
    result.insert("interfaces".into(), interfaces.into());
    let mut ips = take_list(result, "ips");
    for address in &attached.addresses {
        let mut ip = json!({ "interface": pod_index, "address": host_prefix(*address) });
        if let Some(gateway) = gateway(attached, *address) {
            ip["gateway"] = gateway.to_string().into();
        }
        if version < SpecVersion::V1_0_0 {
            ip["version"] = if address.is_ipv4() { "4" } else { "6" }.into();
        }
        ips.push(ip);
    }
    result.insert("ips".into(), ips.into());
    let mut routes = take_list(result, "routes");
    routes.extend(
        attached
            .gateways
            .iter()
            .map(|gateway| default_route(*gateway)),
    );
    result.insert("routes".into(), routes.into());
}

/// 0.1.0 and 0.2.0: one address a family, and no interfaces.
fn by_family(attached: &Attached) -> Map<String, Value> {
    let mut result = Map::new();
    for address in &attached.addresses {
        let mut ip = json!({ "ip": host_prefix(*address) });
        if let Some(gateway) = gateway(attached, *address) {
            ip["gateway"] = gateway.to_string().into();
            ip["routes"] = json!([default_route(gateway)]);
        }
        result.insert(if address.is_ipv4() { "ip4" } else { "ip6" }.into(), ip);
    }
    result
}

/// Takes a list out of the result, to be put back with what is added.
fn take_list(result: &mut Map<String, Value>, key: &str) -> Vec<Value> {
    match result.remove(key) {
        Some(Value::Array(values)) => values,
        Some(_) | None => Vec::new(),
    }
}

fn host_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

fn gateway(attached: &Attached, address: IpAddr) -> Option<IpAddr> {
    attached
        .gateways
        .iter()
        .copied()
        .find(|gateway| gateway.is_ipv4() == address.is_ipv4())
}

fn default_route(gateway: IpAddr) -> Value {
    json!({ "dst": if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": gateway.to_string() })
}

//! A pod: a namespace that the real plugin attaches, called as a container runtime calls it.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::Namespace;
use crate::process::{self, Program};

/// A pod.
#[derive(Debug)]
pub struct Pod {
    /// Its name, without the data centre's prefix.
    pub name: String,
    /// Its namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    /// What the plugin printed.
    pub result: Value,
}

impl Pod {
    /// CNI ADD in `host`, as a container runtime does it.
    ///
    /// # Errors
    /// The plugin's own words.
    pub fn attach(
        name: String,
        namespace: Namespace,
        host: &Namespace,
        socket: &Path,
    ) -> Result<Self> {
        Self::attach_with(name, namespace, host, socket, &Value::Null)
    }

    /// The same with further keys in the network configuration.
    ///
    /// # Errors
    /// The plugin's own words.
    pub fn attach_with(
        name: String,
        namespace: Namespace,
        host: &Namespace,
        socket: &Path,
        further: &Value,
    ) -> Result<Self> {
        let text = call("ADD", &name, &namespace, host, socket, further)?;
        let result: Value = serde_json::from_str(&text).context("the plugin's result")?;
        let address = result["ips"][0]["address"]
            .as_str()
            .with_context(|| format!("no address in {result}"))?;
        let address: Ipv4Net = address.parse()?;
        Ok(Self {
            name,
            namespace,
            address: address.addr(),
            result,
        })
    }

    /// CNI DEL.
    ///
    /// # Errors
    /// The plugin's own words.
    pub fn detach(&self, host: &Namespace, socket: &Path) -> Result<()> {
        Self::detach_named(&self.name, &self.namespace, host, socket)
    }

    /// CNI DEL of a pod whose ADD may have failed.
    ///
    /// # Errors
    /// The plugin's own words.
    pub fn detach_named(
        name: &str,
        namespace: &Namespace,
        host: &Namespace,
        socket: &Path,
    ) -> Result<()> {
        call("DEL", name, namespace, host, socket, &Value::Null).map(drop)
    }
}

fn call(
    command: &str,
    name: &str,
    namespace: &Namespace,
    host: &Namespace,
    socket: &Path,
    further: &Value,
) -> Result<String> {
    let plugin = process::ours("margay-cni")?;
    let folder = plugin.parent().context("the plugin's folder")?.to_owned();
    let mut network = json!({
        "cniVersion": "1.0.0", "name": "margay", "type": "margay", "socket": socket, "logLevel": "info",
    });
    for (key, value) in further.as_object().into_iter().flatten() {
        network[key] = value.clone();
    }
    let output = Program::new(&plugin)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", namespace.name())
        .env("CNI_NETNS", namespace.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", folder)
        .env(
            "CNI_ARGS",
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"),
        )
        .output_with(host, network.to_string().as_bytes())?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        bail!(
            "{command} of {name}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

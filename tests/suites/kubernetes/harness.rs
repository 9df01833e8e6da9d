//! The control plane itself: without this, what the others see says little.

use anyhow::{Context as _, Result};
use lab::Namespace;
use lab::kubernetes::ControlPlane;
use lab::net;
use tests::same;

/// The API server stores what it is told, and refuses whom no rule lets in.
pub(crate) fn rbac(prefix: &str) -> Result<()> {
    let namespace = Namespace::create(&format!("{prefix}plane"))?;
    net::segment(&namespace, "lan")?;
    let address = "172.20.1.1".parse()?;
    net::address(&namespace, "lan", ipnet::Ipv4Net::new(address, 24)?)?;
    let plane = ControlPlane::start(
        &namespace,
        address,
        format!("/run/lab/{prefix}plane").into(),
    )?;
    plane.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node-a}\nspec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}\n")?;
    let node = plane.get(&["node", "node-a"])?;
    same(
        "podCIDR",
        &node["spec"]["podCIDR"].as_str(),
        &Some("10.244.1.0/24"),
    )?;
    plane.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: nobody, namespace: default}\n",
    )?;
    let kubeconfig = plane.service_account("default", "nobody")?;
    let kubectl = plane.client(&kubeconfig).args(["get", "nodes"]);
    let output = kubectl.output(&namespace)?;
    let said = String::from_utf8(output.stderr)?;
    let refusal = "system:serviceaccount:default:nobody\" cannot list resource \"nodes\"";
    said.contains(refusal)
        .then_some(())
        .with_context(|| format!("not refused: {said}"))?;
    Ok(())
}

//! The chart as Helm installs it into a real API server: one command, an upgrade, and what stays.

use anyhow::{Context as _, Result, bail};
use lab::Namespace;
use lab::kubernetes::ControlPlane;
use lab::net;
use lab::process::{self, Program};
use tests::{chart, same};

/// Every example goes in with one command, is upgraded with the definitions, and leaves these and the objects behind.
pub(crate) fn lifecycle(prefix: &str) -> Result<()> {
    let namespace = Namespace::create(&format!("{prefix}plane"))?;
    net::segment(&namespace, "lan")?;
    let address = "172.20.1.1".parse()?;
    net::address(&namespace, "lan", ipnet::Ipv4Net::new(address, 24)?)?;
    let folder = format!("/run/lab/{prefix}plane");
    let plane = ControlPlane::start(&namespace, address, folder.into())?;
    let release = Release {
        plane: &plane,
        namespace: &namespace,
    };
    let chart = chart::folder("charts/margay").display().to_string();
    for example in chart::examples()? {
        let values = example.display().to_string();
        release
            .helm(&["install", "margay", &chart, "--values", &values])
            .with_context(|| values.clone())?;
        release.stands().with_context(|| values.clone())?;
        let peers = release.peers()?;

        // Somebody's older definition: the upgrade is to mend it, and to leave the objects what they are.
        let old = r#"{"spec": {"names": {"shortNames": ["old"]}}}"#;
        plane.kubectl(&[
            "patch",
            "crd",
            "bgppeers.margay.dev",
            "--type=merge",
            "-p",
            old,
        ])?;
        release
            .helm(&["upgrade", "margay", &chart, "--values", &values])
            .with_context(|| values.clone())?;
        let definition = plane.get(&["crd", "bgppeers.margay.dev"])?;
        let short = &definition["spec"]["names"]["shortNames"];
        same("short names", &short.to_string().as_str(), &"[\"bgpp\"]")?;
        same("BGPPeers after the upgrade", &release.peers()?, &peers)?;

        release.helm(&["uninstall", "margay", "--no-hooks"])?;
        let crds = plane.kubectl(&["get", "crd", "-o", "name"])?;
        same("definitions that stay", &crds.lines().count(), &DEFINITIONS)?;
        let left = plane.kubectl(&["get", "daemonset,clusterrole", "-A", "-o", "name"])?;
        if left.lines().any(|line| line.ends_with("/margay")) {
            bail!("still there after helm uninstall: {left}");
        }
        plane.kubectl(&[
            "delete",
            "bgppeers,bgpconfigurations,ippools,bgpfilters",
            "--all",
        ])?;
    }
    Ok(())
}

/// As many as there are kinds in `charts/margay/crds`.
const DEFINITIONS: usize = 7;

struct Release<'a> {
    plane: &'a ControlPlane,
    namespace: &'a Namespace,
}

impl Release<'_> {
    fn helm(&self, arguments: &[&str]) -> Result<()> {
        let program = Program::new(process::find("helm").context("helm")?)
            .args(arguments)
            .args(["--namespace", chart::NAMESPACE, "--kubeconfig"])
            .arg(self.plane.admin())
            .env("HOME", "/run/lab");
        let output = program.output(self.namespace)?;
        if !output.status.success() {
            bail!(
                "helm {}: {}",
                arguments[0],
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// The DaemonSet is there with what it needs, as the API server has it.
    fn stands(&self) -> Result<()> {
        let daemons = self
            .plane
            .get(&["-n", chart::NAMESPACE, "daemonset", "margay"])?;
        let spec = &daemons["spec"]["template"]["spec"];
        same("hostNetwork", &spec["hostNetwork"].as_bool(), &Some(true))?;
        let class = spec["priorityClassName"].as_str();
        same("priority", &class, &Some("system-node-critical"))?;
        self.plane
            .get(&["bgpconfiguration", "default"])
            .context("the values' BGPConfiguration")?;
        Ok(())
    }

    /// Names and identities: an object that was made anew has another UID.
    fn peers(&self) -> Result<String> {
        let columns = "-o=custom-columns=:.metadata.name,:.metadata.uid";
        self.plane.kubectl(&["get", "bgppeers", columns])
    }
}

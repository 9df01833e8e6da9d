//! Debian packages that the tests measure Margay against.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::run::{Session, cache};

/// A program that the suites or benchmarks use, and the package that has it.
const WANTED: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("bird", "bird2"),
    ("zebra", "frr"),
    ("gobgpd", "gobgpd"),
    ("bgpctl", "openbgpd"),
    ("exabgp", "exabgp"),
    ("tcpdump", "tcpdump"),
    ("nft", "nftables"),
    ("strace", "strace"),
    ("iptables-nft", "iptables"),
    ("ptp", "containernetworking-plugins"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("buildah", "buildah"),
    ("musl-gcc", "musl-tools"),
];

/// Programs that no package has, built by Go: name, module, and what the linker is told. cnitool drives `libcni`, the library by
/// which runtimes call plugins. Helm learns there which release of Kubernetes it renders for.
const BUILT: [(&str, &str, &str); 2] = [
    (
        "cnitool",
        "github.com/containernetworking/cni/cnitool@v1.3.0",
        "",
    ),
    (
        "helm",
        "helm.sh/helm/v3/cmd/helm@v3.22.0",
        "-s -w -X helm.sh/helm/v3/internal/version.version=v3.22.0 \
         -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
    ),
];

/// Installs what is missing when we may; otherwise prints the command.
pub(crate) fn provide(session: &mut Session, install: bool) -> Result<()> {
    debian(session, install)?;
    BUILT
        .iter()
        .try_for_each(|program| built(session, install, program))
}

/// Builds one of [`BUILT`] into our cache, where there is a Go to do it.
fn built(
    session: &mut Session,
    install: bool,
    (name, module, linker): &(&str, &str, &str),
) -> Result<()> {
    let Some(folder) = cache().map(|folder| folder.join("bin")) else {
        return Ok(());
    };
    if folder.join(name).is_file() {
        return Ok(());
    }
    let go = Command::new("go").arg("version").output();
    if !install || !go.is_ok_and(|output| output.status.success()) {
        let wish = format!(
            "it wants Go: GOBIN={} go install {module}",
            folder.display()
        );
        session.skip(name, wish);
        return Ok(());
    }
    let mut command = Command::new("go");
    command
        .args(["install", "-trimpath", "-ldflags", linker, module])
        .env("CGO_ENABLED", "0")
        .env("GOBIN", folder);
    session.step(&format!("build {name} (once)"), &mut command)?;
    Ok(())
}

fn debian(session: &mut Session, install: bool) -> Result<()> {
    let missing: Vec<&str> = WANTED
        .iter()
        .filter(|(program, _)| !present(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let line = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if !install || !root() || !present("apt-get") {
        session.skip(
            "packages",
            format!("install them as root for the tests against others: {line}"),
        );
        return Ok(());
    }
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("apt-get update -q && {line}")])
        .env("DEBIAN_FRONTEND", "noninteractive");
    session.step("packages", &mut command)?;
    Ok(())
}

fn present(program: &str) -> bool {
    [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/lib/frr",
        "/usr/lib/cni",
    ]
    .iter()
    .any(|folder| Path::new(folder).join(program).is_file())
}

/// Whether we are root.
pub(crate) fn root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

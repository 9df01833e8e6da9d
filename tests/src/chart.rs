//! The Helm chart, rendered by Helm itself, and the image, built by buildah from static programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use lab::process;
use serde_json::Value;

/// A release of Kubernetes to render for: without an API server Helm has to be told.
const KUBERNETES: &str = "1.34.0";

/// The namespace that the chart is installed in.
pub const NAMESPACE: &str = "kube-system";

/// The image's name as the chart has it, and as a runtime completes it.
pub const IMAGE: &str = "docker.io/library/margay:0.1.0";

/// A folder of ours under the repository's root.
#[must_use]
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// The files of values that the chart comes with.
///
/// # Errors
/// When they can't be listed.
pub fn examples() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder("charts/margay/examples"))? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}

/// `helm template` with what follows the chart's name.
///
/// # Errors
/// When there is no Helm. What it has to say is in its output.
pub fn helm(verb: &[&str], arguments: &[&str]) -> Result<Output> {
    Command::new(process::find("helm").context("helm")?)
        .args(verb)
        .arg(folder("charts/margay"))
        .args(["--kube-version", KUBERNETES, "--namespace", NAMESPACE])
        .args(arguments)
        .output()
        .context("run helm")
}

/// The chart's objects as a release called `margay` has them.
///
/// # Errors
/// Helm's own words.
pub fn render(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = helm(&["template", "margay"], arguments)?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    Ok(objects.into_iter().filter(|it| !it.is_null()).collect())
}

/// The object of this kind and name.
///
/// # Errors
/// When there is none.
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .with_context(|| format!("the chart has no {kind} {name}"))
}

/// The image as a `docker save` archive.
///
/// # Errors
/// When the static programs are not built, or buildah refuses.
pub fn image() -> Result<PathBuf> {
    static DONE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let done = DONE.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    done.clone().map_err(anyhow::Error::msg)
}

/// Where cargo puts our programs for the target without a C library.
///
/// # Errors
/// When ours can't be found at all.
pub fn static_programs() -> Result<PathBuf> {
    let ours = process::ours("margayd")?;
    let profile = ours.parent().context("a folder")?;
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let name = profile.file_name().context("a name")?;
    Ok(profile.with_file_name(target).join(name))
}

fn build() -> Result<PathBuf> {
    let programs = static_programs()?;
    let folder = Path::new("/run/lab/image");
    let (context, storage) = (folder.join("context"), folder.join("storage"));
    fs::create_dir_all(&context)?;
    for program in ["margayd", "margayctl", "margay-cni"] {
        let from = programs.join(program);
        fs::copy(&from, context.join(program)).with_context(|| {
            format!(
                "{} is not built: cargo xtask test builds it",
                from.display()
            )
        })?;
    }
    let archive = folder.join("margay.tar");
    let build = buildah(&storage)?
        .args(["build", "--isolation", "chroot", "--tag", IMAGE])
        .args(["--build-arg", "BINARIES=prebuilt", "--file"])
        .arg(self::folder("charts/image/Dockerfile"))
        .arg(&context)
        .output()?;
    let target = format!("docker-archive:{}:{IMAGE}", archive.display());
    let push = buildah(&storage)?.args(["push", IMAGE, &target]).output()?;
    for output in [build, push] {
        if !output.status.success() {
            bail!("buildah: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(archive)
}

fn buildah(storage: &Path) -> Result<Command> {
    let mut command = Command::new(process::find("buildah").context("buildah")?);
    command.arg("--root").arg(storage.join("root"));
    command.arg("--runroot").arg(storage.join("run"));
    command.args(["--storage-driver", "vfs"]);
    Ok(command)
}

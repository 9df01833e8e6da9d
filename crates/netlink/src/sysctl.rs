//! Kernel parameters of the calling thread's network namespace, under `/proc/sys/net`.

use std::io;
use std::path::{Path, PathBuf};

/// A parameter that has the wrong value and can't be set.
#[derive(Debug, thiserror::Error)]
#[error("{name} is {found} and cannot be set to {wanted}: {}", hint(source))]
pub struct SysctlError {
    /// The parameter, as `sysctl(8)` names it.
    pub name: String,
    /// Its value, as far as it can be read.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// Why not.
    pub source: io::Error,
}

/// What an operator can do about it.
fn hint(error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::ReadOnlyFilesystem {
        "/proc/sys is read-only here; set it on the host".into()
    } else if kind == io::ErrorKind::PermissionDenied {
        "no permission; set it on the host, or grant CAP_NET_ADMIN".into()
    } else if kind == io::ErrorKind::NotFound {
        "this kernel has no such parameter".into()
    } else {
        error.to_string()
    }
}

/// Where the kernel shows its parameters.
pub const ROOT: &str = "/proc/sys";

/// Lets the kernel forward IPv4 packets between links. True when it had to be switched on. `root` is [`ROOT`], or where that is
/// mounted writable.
///
/// # Errors
/// [`SysctlError`].
pub fn enable_ipv4_forwarding(root: &Path) -> Result<bool, SysctlError> {
    set_in(root, "net.ipv4.ip_forward", "1")
}

/// Lets the kernel forward IPv6 packets between links. It then ignores router advertisements on links whose `accept_ra` is not
/// 2: those that have listened to them so far, pods' excepted, go on doing so. True when it had to be switched on; false also
/// where the kernel has no IPv6. `root` is [`ROOT`], or where that is mounted writable.
///
/// # Errors
/// [`SysctlError`].
pub fn enable_ipv6_forwarding(root: &Path) -> Result<bool, SysctlError> {
    const FORWARDING: &str = "net.ipv6.conf.all.forwarding";
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    if read(path(root, FORWARDING)).trim() == "1" {
        return Ok(false);
    }
    let links = std::fs::read_dir(root.join("net/ipv6/conf"));
    for link in links.into_iter().flatten().flatten() {
        let name = link.file_name();
        let name = name.to_string_lossy();
        let listens = read(link.path().join("accept_ra")).trim() == "1";
        if listens && !matches!(&*name, "all" | "default") && !name.starts_with(POD_LINK) {
            let link = name.replace('.', "/");
            set_in(root, &format!("net.ipv6.conf.{link}.accept_ra"), "2")?;
        }
    }
    match set_in(root, FORWARDING, "1") {
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result,
    }
}

/// What the names of pods' host links begin with.
const POD_LINK: &str = "mgy";

/// Sets a parameter under `net.`, named with dots as by `sysctl(8)`, with `/` for a dot inside a link's name. Written only where
/// the value differs, so that it works without permission where there is nothing to do. True when it was written.
///
/// # Errors
/// [`SysctlError`].
pub fn set(name: &str, value: &str) -> Result<bool, SysctlError> {
    set_in(Path::new(ROOT), name, value)
}

/// The same, where the parameters are under another directory than `/proc/sys`.
///
/// # Errors
/// [`SysctlError`].
pub fn set_in(root: &Path, name: &str, value: &str) -> Result<bool, SysctlError> {
    let path = path(root, name);
    let found = std::fs::read_to_string(&path).map(|text| text.trim().to_owned());
    if found.as_ref().is_ok_and(|found| found == value) {
        return Ok(false);
    }
    std::fs::write(&path, value)
        .map(|()| true)
        .map_err(|source| SysctlError {
            name: name.into(),
            found: found.unwrap_or_else(|_| "unreadable".into()),
            wanted: value.into(),
            source,
        })
}

/// `net.ipv4.conf.eth0/100.rp_filter` is `net/ipv4/conf/eth0.100/rp_filter`.
fn path(root: &Path, name: &str) -> PathBuf {
    root.join(
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect::<String>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes_change_places() {
        let path = path(Path::new("/proc/sys"), "net.ipv4.conf.eth0/100.rp_filter");
        assert_eq!(
            path,
            Path::new("/proc/sys/net/ipv4/conf/eth0.100/rp_filter")
        );
    }

    #[test]
    fn who_listens_to_router_advertisements_goes_on_as_a_router() {
        let root = std::env::temp_dir().join(format!("margay-sysctl-{}", std::process::id()));
        let conf = root.join("net/ipv6/conf");
        let files = [
            ("all/forwarding", "0\n", "1"),
            ("all/accept_ra", "1\n", "1"),
            ("default/accept_ra", "1\n", "1"),
            ("eth0/accept_ra", "1\n", "2"),
            ("eth1/accept_ra", "0\n", "0"),
            ("eth0.100/accept_ra", "1\n", "2"),
            ("mgy0123456789ab/accept_ra", "1\n", "1"),
        ];
        for (file, before, _) in files {
            let path = conf.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, before).unwrap();
        }
        assert!(enable_ipv6_forwarding(&root).unwrap());
        for (file, _, after) in files {
            let found = std::fs::read_to_string(conf.join(file)).unwrap();
            assert_eq!(found.trim(), after, "{file}");
        }
        assert!(!enable_ipv6_forwarding(&root).unwrap());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_error_says_what_to_do() {
        let error = SysctlError {
            name: "net.ipv4.ip_forward".into(),
            found: "0".into(),
            wanted: "1".into(),
            source: io::ErrorKind::ReadOnlyFilesystem.into(),
        };
        let text = "net.ipv4.ip_forward is 0 and cannot be set to 1: /proc/sys is read-only here; set it on the host";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let unwritable = Path::new("/proc/self");
        // A file that nobody can write, not even root.
        let value = std::fs::read_to_string("/proc/self/wchan").unwrap();
        assert!(!set_in(unwritable, "wchan", value.trim()).unwrap());
        assert!(set_in(unwritable, "wchan", "other").is_err());
    }
}

//! Debian's kernel: its package, fetched once and kept in our cache, and the initramfs that starts it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::starts;
use crate::run::cache;

/// The package that depends on the newest kernel of the release.
const META: &str = "linux-image-amd64";
/// What the machine needs before it has this machine's root, from which it loads all others.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// Programs that it takes.
const PROGRAMS: [&str; 5] = [
    "qemu-system-x86_64",
    "busybox",
    "cpio",
    "depmod",
    "dpkg-deb",
];

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` will say.
    pub(crate) version: String,
    folder: PathBuf,
}

/// Why there can be no second kernel here; `None` when there can.
pub(crate) fn missing() -> Option<String> {
    if std::env::consts::ARCH != "x86_64" {
        return Some(format!(
            "Debian's kernel is tried on x86_64 only, this is {}",
            std::env::consts::ARCH
        ));
    }
    let program = PROGRAMS.into_iter().find(|program| !starts(program))?;
    Some(format!("{program} is not installed"))
}

/// The kernel in our cache; fetched and unpacked first where it isn't there.
///
/// # Errors
/// When there is none and none can be fetched.
pub(crate) fn unpack() -> Result<Kernel> {
    let cache = cache()
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("kernel");
    fs::create_dir_all(&cache)?;
    if let Some(kernel) = newest(&cache)? {
        return Ok(kernel);
    }
    let package = package()?;
    let scratch = cache.join(format!("new-{}", std::process::id()));
    let root = scratch.join("root");
    fs::create_dir_all(&root)?;
    let version = package.trim_start_matches("linux-image-").to_owned();
    let result = fetch(&package, &scratch).and_then(|archive| {
        run(Command::new("dpkg-deb")
            .arg("--extract")
            .arg(archive)
            .arg(&root))?;
        run(Command::new("depmod").arg("-b").arg(&root).arg(&version))?;
        // Last, and at once: a folder of this name is a whole kernel.
        Ok(fs::rename(&root, cache.join(&version))?)
    });
    drop(fs::remove_dir_all(&scratch));
    result?;
    newest(&cache)?.context("the package holds no kernel")
}

fn newest(cache: &Path) -> Result<Option<Kernel>> {
    let mut kernels = Vec::new();
    for entry in fs::read_dir(cache)? {
        let folder = entry?.path();
        let version = folder
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let version = version.unwrap_or_default();
        let kernel = Kernel { version, folder };
        if kernel.image().is_file() {
            kernels.push(kernel);
        }
    }
    kernels.sort_by(|a, b| a.version.cmp(&b.version));
    Ok(kernels.pop())
}

/// The name of the newest kernel's package.
fn package() -> Result<String> {
    let output = Command::new("apt-cache")
        .args(["depends", META])
        .output()
        .context("apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let depends = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = depends.filter(|package| package.starts_with("linux-image-"));
    Ok(package
        .with_context(|| format!("apt knows no {META}: apt-get update"))?
        .to_owned())
}

fn fetch(package: &str, folder: &Path) -> Result<PathBuf> {
    run(Command::new("apt-get")
        .args(["download", "-q", package])
        .current_dir(folder))?;
    let mut files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    files
        .find(|file| file.extension().is_some_and(|it| it == "deb"))
        .with_context(|| format!("apt-get download {package} left no package"))
}

impl Kernel {
    /// Its image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder
            .join("boot")
            .join(format!("vmlinuz-{}", self.version))
    }

    /// Writes an initramfs that runs a script of a shell's in this machine's root, and says how that ended.
    ///
    /// # Errors
    /// When it can't be made.
    pub(super) fn initramfs(&self, scratch: &Path, job: &str, target: &Path) -> Result<()> {
        let tree = scratch.join("tree");
        for folder in ["bin", "dev", "host", "own", "mnt", "modules"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .map(Path::new)
            .into_iter()
            .find(|it| it.is_file());
        fs::copy(
            busybox.context("busybox is not installed")?,
            tree.join("bin/busybox"),
        )?;
        let modules = self.modules()?;
        for (number, module) in modules.iter().enumerate() {
            fs::copy(module, tree.join(format!("modules/{number:02}.ko")))?;
        }
        executable(&tree.join("init"), &self.init())?;
        executable(&tree.join("main"), MAIN)?;
        fs::write(tree.join("job"), job)?;
        let archive = fs::File::create(target)?;
        let mut list = Command::new("sh");
        list.args(["-c", "find . | cpio --quiet -o -H newc"])
            .current_dir(tree);
        run(list.stdout(archive))
    }

    /// The first program: mounts this machine's root, over it a layer that takes what is written and goes with the machine, and
    /// makes that the root, with the kernel's own modules where `modprobe(8)` looks for them.
    fn init(&self) -> String {
        let Self { version, folder } = self;
        format!(
            r#"#!/bin/busybox sh
b=/bin/busybox
for module in /modules/*; do $b insmod $module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose host /host
$b mount -t tmpfs tmpfs /own
$b mkdir /own/upper /own/work
$b mount -t overlay -o lowerdir=/host,upperdir=/own/upper,workdir=/own/work overlay /mnt
$b mount -t proc proc /mnt/proc
$b mount -t sysfs sysfs /mnt/sys
$b mount -t devtmpfs dev /mnt/dev
$b mount -t tmpfs tmpfs /mnt/run
$b mkdir -p /mnt/run/lock /mnt/run/netns /mnt/run/vm /mnt/lib/modules
$b ln -s '{folder}/lib/modules/{version}' /mnt/lib/modules/{version}
$b cp /job /main /bin/busybox /mnt/run/vm
$b ip link set lo up
exec $b switch_root /mnt /run/vm/main
"#,
            folder = folder.display()
        )
    }

    /// The files of [`MODULES`] and of all that they need, in an order in which they can be loaded.
    fn modules(&self) -> Result<Vec<PathBuf>> {
        let folder = self.folder.join("lib/modules").join(&self.version);
        let index = fs::read_to_string(folder.join("modules.dep"))?;
        let mut order: Vec<PathBuf> = Vec::new();
        for module in MODULES {
            let end = format!("/{module}.ko");
            let line = index.lines().find_map(|line| {
                let (file, needs) = line.split_once(':')?;
                file.ends_with(&end).then_some((file, needs))
            });
            let (file, needs) =
                line.with_context(|| format!("the kernel has no module {module}"))?;
            // What is needed first stands last.
            let mut files: Vec<&str> = std::iter::once(file)
                .chain(needs.split_whitespace())
                .collect();
            files.reverse();
            for path in files.into_iter().map(|file| folder.join(file)) {
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        }
        Ok(order)
    }
}

/// The first program once the root is there: the job, then the end.
const MAIN: &str = r#"#!/bin/sh
echo "margay-vm: begins"
/bin/sh /run/vm/job </dev/null 2>&1
echo "margay-vm: exit status $?"
exec /run/vm/busybox poweroff -f
"#;

fn executable(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// Runs a command that must succeed; says what it said where it does not.
fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output);
    let output = output.with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

//! containerd with runc, on a node of the lab.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::datacentre::Node;
use lab::process::{self, Process, Program};
use lab::wait;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

use crate::archive;

/// How long it may take to come up.
const LIMIT: Duration = Duration::from_secs(30);

/// Where `ctr` looks for plugins and configurations, whatever it is told.
pub const BIN: &str = "/opt/cni/bin";
/// The other of the two.
pub const CONF: &str = "/etc/cni/net.d";

/// A containerd that runs on a node.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    folder: PathBuf,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What is in them still runs after a failure.
        let ours = self.containers();
        self.process.kill().ok();
        for (namespace, container) in &ours {
            for folder in cgroups(namespace) {
                remove_cgroup(&folder.join(container));
            }
        }
        // Those of the namespaces are everybody's, and stay while others use them: the kernel refuses.
        for namespace in NAMESPACES {
            for folder in cgroups(namespace) {
                fs::remove_dir(folder).ok();
            }
        }
    }
}

/// containerd's namespaces, which are also the names of the cgroups that its containers' are in.
const NAMESPACES: [&str; 2] = ["default", "k8s.io"];

/// The cgroup of one of containerd's namespaces in each hierarchy (version 1 has several, version 2 one).
fn cgroups(namespace: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    let roots = hierarchies.map(|it| it.path()).chain([root.to_owned()]);
    roots
        .map(|root| root.join(namespace))
        .filter(|folder| folder.is_dir())
        .collect()
}

/// Kills what is in a container's cgroup and removes it with those inside it.
fn remove_cgroup(folder: &Path) {
    if !folder.is_dir() {
        return;
    }
    let inside = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in inside.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_cgroup(&entry.path());
    }
    // Nobody is left who could be told that it stays.
    wait::until("an empty cgroup", LIMIT, || {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // 0 is a process outside our PID namespace, which isn't ours.
        let processes = processes.lines().filter_map(|line| line.parse().ok());
        for process in processes.filter_map(Pid::from_raw) {
            kill_process(process, Signal::KILL).ok();
        }
        fs::remove_dir(folder).with_context(|| folder.display().to_string())
    })
    .ok();
}

impl Containerd {
    /// Starts one in a node's namespace and gives it our busybox and these images' archives.
    ///
    /// # Errors
    /// When it does not come up, or takes no image.
    pub fn start(node: &Node, images: &[&Path]) -> Result<Self> {
        let folder = node.run_folder().join("containerd");
        fs::create_dir_all(&folder)?;
        let config = folder.join("config.toml");
        fs::write(&config, configuration(&folder))?;
        let program = Program::new(process::find("containerd").context("containerd")?)
            .arg("--config")
            .arg(&config);
        let log = folder.join("containerd.log");
        let process = Process::spawn("containerd", &node.namespace, program, log)?;
        let mut containerd = Self { process, folder };
        containerd.wait_ready(node)?;
        let busybox = containerd.folder.join("busybox.tar");
        archive::write(&busybox)?;
        for archive in images.iter().copied().chain([busybox.as_path()]) {
            for namespace in NAMESPACES {
                containerd
                    .ctr()?
                    .args(["-n", namespace, "images", "import"])
                    .arg(archive)
                    .stdout(&node.namespace)?;
            }
        }
        Ok(containerd)
    }

    /// Kills it and starts it again.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self, node: &Node) -> Result<()> {
        self.process.kill()?;
        self.process.restart()?;
        self.wait_ready(node)
    }

    /// The containers that it still has, each with its namespace: what it has removed has no cgroup any more.
    fn containers(&self) -> Vec<(&'static str, OsString)> {
        let tasks = self.folder.join("state/io.containerd.runtime.v2.task");
        let of = |namespace| {
            let tasks = fs::read_dir(tasks.join(namespace)).into_iter().flatten();
            tasks.flatten().map(move |it| (namespace, it.file_name()))
        };
        NAMESPACES.into_iter().flat_map(of).collect()
    }

    /// The end of its log.
    #[must_use]
    pub fn log(&self) -> String {
        process::tail(self.process.log(), 15)
    }

    fn wait_ready(&mut self, node: &Node) -> Result<()> {
        wait::until("containerd", LIMIT, || {
            self.process.check()?;
            self.ctr()?.arg("version").stdout(&node.namespace)
        })
        .map(drop)
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// Its own command line.
    ///
    /// # Errors
    /// When there is none.
    pub fn ctr(&self) -> Result<Program> {
        Ok(Program::new(process::find("ctr").context("ctr")?)
            .arg("--address")
            .arg(self.socket()))
    }
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    let image = archive::NAME;
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/containerd.sock"
[ttrpc]
address = "{folder}/containerd.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{BIN}"
conf_dir = "{CONF}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#
    )
}

/// Lets runtimes write where they always write, without the host's file system noticing: their folders are on tmpfs.
///
/// # Errors
/// When the kernel has no overlay file system.
pub fn private_root() -> Result<()> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let overlay = |folder: &str| -> Result<()> {
        let parts = ["upper", "work"].map(|part| format!("/run/lab/root/{folder}/{part}"));
        parts.iter().try_for_each(fs::create_dir_all)?;
        let [upper, work] = &parts;
        let options = format!("lowerdir=/{folder},upperdir={upper},workdir={work}");
        let options = std::ffi::CString::new(options)?;
        let target = format!("/{folder}");
        let flags = MountFlags::empty();
        mount(
            "overlay",
            &target,
            "overlay",
            flags,
            Some(options.as_c_str()),
        )
        .with_context(|| format!("overlay {target}"))
    };
    let done = DONE.get_or_init(|| {
        let mut folders = ["etc", "opt", "var"].into_iter();
        folders
            .try_for_each(overlay)
            .map_err(|error| format!("{error:#}"))
    });
    done.clone().map_err(anyhow::Error::msg)
}

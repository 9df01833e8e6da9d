//! A lab that cannot leak: the program runs itself again as the first process of new mount, network and PID namespaces.
//! When that process ends, for whatever reason, the kernel kills every process in it and removes every namespace,
//! link, mount and file. It ends with its parent (`PR_SET_PDEATHSIG`), so a `kill -9` or Ctrl-C out there is enough.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{Signal, getegid, geteuid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

/// Tells the second run of the program that it is inside.
const INSIDE: &str = "MARGAY_LAB_INSIDE";

/// The word by which the inside asks the outside to let it live on.
const KEEP: &str = "keep";

/// The inside of the namespaces, as long as the program runs.
#[derive(Debug)]
pub struct Lab {
    outer_pid: u32,
}

/// Goes into new namespaces. Call it first thing in `main`, before there are threads. Outside it does not return but
/// exits as the inside did; inside it returns.
///
/// # Errors
/// What is missing, when the kernel allows none of it.
pub fn enter() -> Result<Lab> {
    if std::env::var_os(INSIDE).is_some() {
        inside()
    } else {
        let status = outside()?;
        leave(status)
    }
}

impl Lab {
    /// The PID of the lab's first process, as seen from outside: the one to enter by `nsenter`, or to kill.
    #[must_use]
    pub fn outer_pid(&self) -> u32 {
        self.outer_pid
    }

    /// Lets the lab live on without the program that started it, until somebody kills [`outer_pid`](Self::outer_pid).
    /// Does not return.
    ///
    /// # Errors
    /// When the outside is gone already.
    pub fn keep(self) -> Result<std::convert::Infallible> {
        set_parent_process_death_signal(None)?;
        // A Ctrl-C at the terminal is no longer meant for us.
        rustix::process::setsid()?;
        let stdin = std::io::stdin();
        // Nor is the terminal, or the pipe whose reader waits for its end.
        let nowhere = fs::File::options().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&nowhere)?;
        rustix::stdio::dup2_stderr(&nowhere)?;
        rustix::io::write(stdin.as_fd(), format!("{KEEP}\n").as_bytes())?;
        loop {
            // First process of the namespace: orphans are ours to reap.
            if rustix::process::wait(rustix::process::WaitOptions::empty()).is_err() {
                std::thread::park();
            }
        }
    }
}

fn outside() -> Result<ExitStatus> {
    unshare_all()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .context("start the lab's first process")?;
    writeln!(&ours, "{}", child.id())?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(attend(&mut child, ours))
}

/// Waits for the inside to end or to ask to be kept; a signal ends it.
async fn attend(child: &mut Child, control: UnixStream) -> Result<ExitStatus> {
    control.set_nonblocking(true)?;
    let control = tokio::net::UnixStream::from_std(control)?;
    let mut ended = signal(SignalKind::child())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::select! {
            _ = ended.recv() => {}
            Ok(()) = control.readable() => {
                let mut word = [0; 16];
                match control.try_read(&mut word) {
                    Ok(n) if word.get(..n).is_some_and(|word| word.starts_with(KEEP.as_bytes())) => {
                        return Ok(ExitStatus::default());
                    }
                    // It closed its end, so it is about to end.
                    Ok(_) => { ended.recv().await; }
                    Err(_) => {}
                }
            }
            _ = interrupt.recv() => return end(child),
            _ = terminate.recv() => return end(child),
            _ = hangup.recv() => return end(child),
        }
    }
}

/// Kills the first process and, through it, everything. The wait is over when the last one is gone.
fn end(child: &mut Child) -> Result<ExitStatus> {
    child.kill()?;
    Ok(child.wait()?)
}

/// The namespaces for our child: as we are, or else as root of a new user namespace.
fn unshare_all() -> Result<()> {
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() && nix::sched::unshare(flags).is_ok() {
        return Ok(());
    }
    nix::sched::unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(|error| {
        anyhow!(
            "cannot make network namespaces: neither root (CAP_SYS_ADMIN) nor user namespaces are at hand ({error}).\n\
             Run this as root, or allow user namespaces:\n    \
             sysctl -w user.max_user_namespaces=10000\n    \
             sysctl -w kernel.unprivileged_userns_clone=1            (Debian, where it exists)\n    \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0   (Ubuntu, where it exists)"
        )
    })?;
    let map = |file, line: String| {
        fs::write(file, line).with_context(|| format!("write {file} of the new user namespace"))
    };
    map("/proc/self/setgroups", "deny".to_owned())?;
    map("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    map("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

fn inside() -> Result<Lab> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Whoever is dead before the line above cannot write to us; the read below then ends at once.
    let mut line = String::new();
    BufReader::new(std::io::stdin().lock()).read_line(&mut line)?;
    let Ok(outer_pid) = line.trim().parse() else {
        bail!("the lab's parent is gone");
    };
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("make the mounts private")?;
    remount_proc()?;
    mount(
        "tmpfs",
        "/run",
        "tmpfs",
        MountFlags::NOSUID,
        Some(c"mode=755"),
    )
    .context("mount an empty /run")?;
    for folder in ["/run/netns", "/run/lab", "/run/lock"] {
        fs::create_dir_all(folder)?;
    }
    Ok(Lab { outer_pid })
}

/// A `/proc` that shows the lab's processes only, and whose `/proc/sys/net` can be written.
fn remount_proc() -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None::<&std::ffi::CStr>).map_err(|error| {
        anyhow!(
            "cannot mount /proc in a new PID namespace ({error}): inside a container this needs an unmasked /proc \
             (`--privileged`, or `--security-opt systempaths=unconfined` with CAP_SYS_ADMIN)"
        )
    })
}

#[expect(
    clippy::exit,
    reason = "the outside is only the inside's shadow: it ends as that did"
)]
fn leave(status: ExitStatus) -> ! {
    use std::os::unix::process::ExitStatusExt as _;
    std::process::exit(
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
    )
}

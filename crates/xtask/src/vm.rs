//! A second kernel: Debian's, under qemu, with this machine's root as its own, read-only.
//!
//! What the kernel that we run on lacks (IPIP, often) is there, and what was built and tested here runs there as it is. Without KVM a
//! processor is emulated, about twenty times slower than the real one: build outside, run inside.
//!
//! The console is the machine's only way to speak: what the command prints comes out of it line by line, and its exit status in
//! a line of our own. A machine that ends without that line has failed, whatever it printed.

mod kernel;
mod suites;

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

pub(crate) use kernel::{Kernel, unpack};
pub(crate) use suites::run as suites;

/// Begins the lines of our own on the console.
const MARK: &str = "margay-vm:";
/// How long until the command has begun. An emulated processor needs ten seconds.
const BOOT: Duration = Duration::from_secs(120);
/// How long the machine may be silent. A test that hangs says nothing.
const SILENCE: Duration = Duration::from_secs(300);
/// How the processor is run: emulated, unless this says `kvm`.
const ACCELERATOR: &str = "MARGAY_VM_ACCEL";

/// Runs a shell command in the machine, from the folder that we are in, and prints what it prints. Gives its exit status.
///
/// # Errors
/// Anything but an exit status of the command's own: there is no kernel, it does not boot, it hangs, it dies.
pub(crate) fn run(kernel: &Kernel, job: &str, mut print: impl FnMut(&str)) -> Result<u8> {
    let scratch = Scratch::new()?;
    let initramfs = scratch.0.join("initramfs");
    kernel.initramfs(&scratch.0, &script(job)?, &initramfs)?;
    let accelerator = std::env::var(ACCELERATOR).unwrap_or_else(|_| "tcg,thread=multi".to_owned());
    let mut machine = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            &accelerator,
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            "2048",
        ])
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-no-reboot",
        ])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(&initramfs)
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start qemu-system-x86_64")?;
    let console = machine.stdout.take().context("a pipe")?;
    let (lines, inbox) = channel();
    let reader = std::thread::spawn(move || {
        // Bytes: a machine that dies does not finish its characters.
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    let (mut began, mut status) = (false, None);
    let outcome = loop {
        match inbox.recv_timeout(if began { SILENCE } else { BOOT }) {
            Ok(line) => {
                let line = String::from_utf8_lossy(&line);
                let line = line.trim_end_matches('\r');
                match line.split_once(MARK).map(|(_, rest)| rest.trim()) {
                    Some("begins") => began = true,
                    Some(rest) => {
                        status = rest
                            .strip_prefix("exit status ")
                            .and_then(|it| it.parse().ok())
                    }
                    None => print(line),
                }
            }
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
            Err(RecvTimeoutError::Timeout) if began => {
                break Err(format!("said nothing for {} s", SILENCE.as_secs()));
            }
            Err(RecvTimeoutError::Timeout) => {
                break Err(format!("did not boot within {} s", BOOT.as_secs()));
            }
        }
    };
    // It has ended by itself, or else it is time.
    drop(machine.kill());
    let ended = machine.wait()?;
    drop(reader.join());
    match (outcome, status) {
        (Ok(()), Some(status)) => Ok(status),
        (Ok(()), None) => {
            bail!("the machine ended ({ended}) without an exit status of the command")
        }
        (Err(reason), _) => bail!("the machine {reason}"),
    }
}

/// What is run inside: the command in our folder, with our environment as far as it matters.
fn script(job: &str) -> Result<String> {
    let folder = std::env::current_dir()?;
    let mut script = format!("cd {}\n", quote(&folder.to_string_lossy()));
    for (name, value) in std::env::vars() {
        if name.starts_with("MARGAY_")
            || ["PATH", "HOME", "RUST_BACKTRACE"].contains(&name.as_str())
        {
            script += &format!("export {name}={}\n", quote(&value));
        }
    }
    Ok(script + job + "\n")
}

/// A word for a shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A folder that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let name = format!("margay-vm-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Whether a program can be started.
fn starts(program: &str) -> bool {
    let found = |folder: &str| Path::new(folder).join(program).is_file();
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .into_iter()
        .any(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_words_as_they_were() {
        let word = "it's \"$HOME\"; `x`";
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {}", quote(word)))
            .output();
        assert_eq!(output.unwrap().stdout, word.as_bytes());
    }
}

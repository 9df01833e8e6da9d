//! Programs in a namespace: their output goes to a file, and a test may stop, kill and restart them as it likes.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::{Namespace, wait};

/// How a program is started, so that it can be started again.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// The program at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args<I: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = I>) -> Self {
        let arguments = arguments.into_iter().map(|it| it.as_ref().to_owned());
        self.arguments.extend(arguments);
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        let variable = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.environment.push(variable);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end in `namespace` and gives what it said.
    ///
    /// # Errors
    /// When it cannot be started. A failure of its own is for the caller to see in the output.
    pub fn output(&self, namespace: &Namespace) -> Result<Output> {
        namespace.run(|| {
            self.command()
                .output()
                .with_context(|| format!("run {}", self.path.display()))
        })
    }

    /// [`output`](Self::output), with `input` on standard input.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn output_with(&self, namespace: &Namespace, input: &[u8]) -> Result<Output> {
        namespace.run(|| {
            let mut child = self
                .command()
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("run {}", self.path.display()))?;
            if let Some(mut stdin) = child.stdin.take() {
                // It may end without reading all.
                drop(stdin.write_all(input));
            }
            Ok(child.wait_with_output()?)
        })
    }

    /// [`output`](Self::output), of which only standard output matters.
    ///
    /// # Errors
    /// Also when the program fails: then with what it wrote to standard error.
    pub fn stdout(&self, namespace: &Namespace) -> Result<String> {
        let output = self.output(namespace)?;
        if !output.status.success() {
            bail!(
                "{} {}: {}{}",
                self.path.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// The error of a [`Process`] that should run but has ended, with its log's end.
#[derive(Debug)]
pub struct Ended(String);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Ended {}

/// A program that keeps running. It is killed when this value goes.
#[derive(Debug)]
pub struct Process {
    name: String,
    program: Program,
    namespace: Namespace,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts `program` in `namespace`; standard output and error are appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        name: &str,
        namespace: &Namespace,
        program: Program,
        log: PathBuf,
    ) -> Result<Self> {
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let child = start(name, namespace, &program, &log)?;
        Ok(Self {
            name: name.to_owned(),
            program,
            namespace: namespace.clone(),
            log,
            child,
        })
    }

    /// Its name, for a person.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Its PID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Still running.
    ///
    /// # Errors
    /// When the kernel will not say.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// An error with the log's end, should it have ended.
    ///
    /// # Errors
    /// When it is not running.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(Ended(format!(
                "{} ended ({status}):\n{}",
                self.name,
                tail(&self.log, 20)
            )));
        }
        Ok(())
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// When it is not ours to kill.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP: it is there, its sockets too, but nothing moves.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT, after [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for it to end by itself.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.ended(limit)
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it has not ended after `limit`.
    pub fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait::until(&what, limit, || {
            self.child.try_wait()?.context("still running")
        })
    }

    /// Starts it again as it was started first. It must have ended.
    ///
    /// # Errors
    /// When it still runs or cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        if self.alive()? {
            bail!("{} still runs", self.name);
        }
        self.child = start(&self.name, &self.namespace, &self.program, &self.log)?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a PID is positive")?, signal)
            .with_context(|| format!("send {signal:?} to {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start(name: &str, namespace: &Namespace, program: &Program, log: &Path) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    namespace.run(|| {
        program
            .command()
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {name} ({})", program.path.display()))
    })
}

/// The last `lines` lines of a log.
#[must_use]
pub fn tail(log: &Path, lines: usize) -> String {
    let text = File::open(log)
        .and_then(std::io::read_to_string)
        .unwrap_or_else(|error| format!("({}: {error})", log.display()));
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}

/// Finds a program as a shell would, also in the folders that hold daemons.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/frr", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// One of our own programs: beside this one, where cargo puts them, or in `MARGAY_BIN_DIR`.
///
/// # Errors
/// When it has not been built.
pub fn ours(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("MARGAY_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let mut folder = std::env::current_exe()?;
            folder.pop();
            if folder.ends_with("deps") {
                folder.pop();
            }
            folder
        }
    };
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "{} is not built: cargo xtask demo builds it",
            path.display()
        );
    }
    Ok(path)
}

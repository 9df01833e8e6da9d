//! Steps that run one after the other, each with its time, and a closing line like cargo's.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped(String),
}

/// Steps done so far.
#[derive(Debug)]
pub(crate) struct Session {
    start: Instant,
    steps: Vec<(String, Duration, Outcome)>,
    tests: Tests,
}

/// Counts out of the closing lines of test programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tests {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            start: now(),
            steps: Vec::new(),
            tests: Tests::default(),
        }
    }

    /// Runs a step. Its failure is counted and the session goes on: one run shows all that is wrong.
    pub(crate) fn step(&mut self, name: &str, command: &mut Command) -> Result<bool> {
        println!("\n=== {name}");
        let (start, failed_before) = (now(), self.tests.failed);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name}: {command:?}"))?;
        for line in BufReader::new(child.stdout.take().context("a pipe")?).lines() {
            let line = line?;
            self.tests.add(&line);
            println!("{line}");
        }
        let passed = child.wait()?.success();
        if !passed && self.tests.failed == failed_before {
            // A step that is no test program, or one that could not even start.
            self.tests.failed += 1;
        }
        self.note(
            name,
            start,
            if passed {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
        );
        Ok(passed)
    }

    /// A step that can't run here.
    pub(crate) fn skip(&mut self, name: &str, reason: impl Into<String>) {
        let reason = reason.into();
        println!("\n=== {name}\nskipped: {reason}");
        self.note(name, now(), Outcome::Skipped(reason));
    }

    /// A step that had to run and could not.
    pub(crate) fn fail(&mut self, name: &str, reason: &str) {
        println!("\n=== {name}\nerror: {reason}");
        self.tests.failed += 1;
        self.note(name, now(), Outcome::Failed);
    }

    fn note(&mut self, name: &str, start: Instant, outcome: Outcome) {
        self.steps.push((name.to_owned(), start.elapsed(), outcome));
    }

    /// Prints how long each step took and the closing line; `true` when none failed.
    pub(crate) fn close(self) -> bool {
        println!("\n=== summary");
        for (name, took, outcome) in &self.steps {
            let outcome = match outcome {
                Outcome::Passed => "ok".to_owned(),
                Outcome::Failed => "FAILED".to_owned(),
                Outcome::Skipped(reason) => format!("skipped: {reason}"),
            };
            println!("{name:<28} {:>7.1} s  {outcome}", took.as_secs_f64());
        }
        let failed = self.tests.failed > 0;
        println!(
            "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s",
            if failed { "FAILED" } else { "ok" },
            self.tests.passed,
            self.tests.failed,
            self.tests.ignored,
            self.start.elapsed().as_secs_f64()
        );
        !failed
    }
}

impl Tests {
    /// Takes in `test result: ok. 3 passed; 0 failed; 1 ignored; …`; other lines are nothing to it.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let mut number = 0;
        for word in counts.split([' ', ';']) {
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => number = word.parse().unwrap_or(0),
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long a step took is real time"
)]
fn now() -> Instant {
    Instant::now()
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// `$XDG_CACHE_HOME/margay`: tools survive a `cargo clean` there.
pub(crate) fn cache() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    Some(cache.or_else(home)?.join("margay"))
}

/// The target that this compiler makes programs for.
pub(crate) fn host() -> Result<String> {
    let version = Command::new("rustc").arg("-vV").output()?;
    let version = String::from_utf8(version.stdout)?;
    let mut lines = version.lines();
    let host = lines.find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// The same with musl, for static programs, where it is installed.
pub(crate) fn musl() -> Result<Option<String>> {
    let target = host()?.replace("-gnu", "-musl");
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", &target])
        .output()?;
    let libraries = PathBuf::from(String::from_utf8(libraries.stdout)?.trim());
    Ok(libraries.is_dir().then_some(target))
}

/// Where the profile `lab` puts its programs.
pub(crate) fn lab_folder() -> Result<PathBuf> {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()?;
    Ok(metadata.target_directory.join("lab").into())
}

/// What the demo, the suites and the benchmarks need. They all select the same packages: cargo unifies features over the
/// selection, and builds everything once more for another one.
pub(crate) const LAB: [&str; 12] = [
    "--profile",
    "lab",
    "-p",
    "agent",
    "-p",
    "cni",
    "-p",
    "ctl",
    "-p",
    "lab",
    "-p",
    "tests",
];

/// Builds our programs as the demo, the suites and the benchmarks run them.
pub(crate) fn build_lab() -> Result<()> {
    let status = cargo().args(["build", "--bins"]).args(LAB).status()?;
    if !status.success() {
        bail!("the build failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_add_up() {
        let mut tests = Tests::default();
        tests.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        tests.add("test something ... ok");
        tests.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        let expected = Tests {
            passed: 4,
            failed: 2,
            ignored: 1,
        };
        assert_eq!(tests, expected);
    }
}

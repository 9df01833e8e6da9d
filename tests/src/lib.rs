//! Shared by the suites: cases that each build a data centre of their own, and views of it through other people's eyes.
//!
//! A case that can't run here (no root and no user namespaces, a program missing) is reported as ignored, with its
//! reason; or as failed, where `MARGAY_TESTS` says that it should be able to: `namespaces` of all that the kernel must
//! allow, `all` of programs too, `kernel` of everything, the kernel's drivers among it. A case that fails prints the ends of the logs.

pub mod archive;
pub mod blocks;
pub mod chart;
pub mod containerd;
pub mod cri;
pub mod kubelet;
pub mod oracle;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dataplane::{Links, Tunnel, TunnelOp};
use lab::datacentre::{DataCentre, Node, Shape};
use lab::tor::Kind;
use lab::{Namespace, net, process, wait};
use libtest_mimic::{Arguments, Completion, Conclusion, Failed, Trial};
use netlink::tunnel;

/// The machine has few cores, and a data centre has a dozen processes.
const THREADS: usize = 2;

/// How long a session may take to come up, kernel routes included.
pub const SESSION: Duration = Duration::from_secs(30);

/// A test.
#[derive(Debug)]
pub struct Case {
    name: String,
    programs: Vec<&'static str>,
    /// Programs that can't be had everywhere.
    wanted: Vec<&'static str>,
    /// Whether the kernel must have tunnels, or must not.
    tunnels: Option<bool>,
    shape: Shape,
    body: fn(&mut DataCentre) -> Result<()>,
}

impl Case {
    /// A test in a data centre of `shape`, of which only the fabric is up when `body` starts.
    pub fn new(name: &str, shape: Shape, body: fn(&mut DataCentre) -> Result<()>) -> Self {
        Self {
            name: name.to_owned(),
            programs: Vec::new(),
            wanted: Vec::new(),
            tunnels: None,
            shape,
            body,
        }
    }

    /// The same, for each of `kinds`, with the kind before its name.
    pub fn each(
        kinds: &[Kind],
        name: &str,
        shape: &Shape,
        body: fn(&mut DataCentre) -> Result<()>,
    ) -> Vec<Self> {
        let cases = kinds.iter().map(|kind| {
            let shape = Shape {
                tor: Some(*kind),
                ..shape.clone()
            };
            Self::new(&format!("{kind}::{name}"), shape, body)
        });
        cases.collect()
    }

    /// It needs this program beside the speakers of its shape.
    #[must_use]
    pub fn with(mut self, program: &'static str) -> Self {
        self.programs.push(program);
        self
    }

    /// It needs this program, which no package of Debian's has: without it, it is ignored whatever `MARGAY_TESTS` says.
    #[must_use]
    pub fn wants(mut self, program: &'static str) -> Self {
        self.wanted.push(program);
        self
    }

    /// It is about a kernel that has drivers for tunnels, or about one that has none. On the other kind it is ignored, for there is
    /// a second kernel to run it on; there everything must be had.
    #[must_use]
    pub fn with_tunnels(mut self, there: bool) -> Self {
        self.tunnels = Some(there);
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it does, for [`run`].
    #[must_use]
    pub fn body(self) -> Body {
        Box::new(move || self.run())
    }

    fn missing(&self) -> Option<String> {
        let program = self.programs.iter().find(|it| process::find(it).is_none());
        let tor = self.shape.tor.and_then(Kind::missing);
        tor.or_else(|| program.map(|program| format!("{program} not installed")))
    }

    fn run(self) -> Result<Completion, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if let Some(missing) = self.missing() {
            return cannot_run(missing, &["all"]);
        }
        if let Some(wanted) = self.wanted.iter().find(|it| process::find(it).is_none()) {
            return cannot_run(format!("{wanted} not built"), &[]);
        }
        match (self.tunnels, has_tunnels()?) {
            (Some(true), false) => return cannot_run("this kernel has no IPIP".to_owned(), &[]),
            (Some(false), true) => {
                return Ok(Completion::ignored_with("this kernel has IPIP"));
            }
            (Some(true), true) | (Some(false), false) | (None, _) => {}
        }
        let shape = Shape {
            prefix: format!("t{}-", NEXT.fetch_add(1, Ordering::Relaxed)),
            ..self.shape
        };
        let attempt = || -> Result<()> {
            let mut dc = DataCentre::fabric(shape)?;
            let result = (self.body)(&mut dc);
            result.map_err(|error| error.context(dc.logs()))
        };
        match attempt() {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => {
                let mut chain = error.chain();
                let logs = chain.next().map(ToString::to_string).unwrap_or_default();
                let causes: Vec<String> = chain.map(|cause| format!("  {cause}")).collect();
                Err(Failed::from(format!("{logs}\n{}", causes.join("\n"))))
            }
        }
    }
}

/// Whether the kernel makes tunnels.
fn has_tunnels() -> Result<bool> {
    let namespace = Namespace::create(&format!("probe-{:?}", std::thread::current().id()))?;
    let tunnel = Tunnel::on(Ipv4Addr::LOCALHOST.into(), &Links::default());
    let made = tunnel::apply(&mut net::socket(&namespace)?, &TunnelOp::Create(tunnel));
    match made {
        Ok(()) => Ok(true),
        Err(error) if tunnel::is_unsupported(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Fails where `MARGAY_TESTS` is one of `required`, or `kernel`; otherwise the case is ignored.
///
/// # Errors
/// As said.
pub fn cannot_run(reason: String, required: &[&str]) -> Result<Completion, Failed> {
    let asked = std::env::var("MARGAY_TESTS").unwrap_or_default();
    if asked == "kernel" || required.contains(&asked.as_str()) {
        return Err(Failed::from(format!("can't run here: {reason}")));
    }
    Ok(Completion::ignored_with(reason))
}

/// Runs a suite: to be called first thing in `main`.
#[must_use]
pub fn suite(cases: Vec<Case>) -> ExitCode {
    let bodies = cases
        .into_iter()
        .map(|case| (case.name.clone(), case.body()));
    run(bodies.collect(), Vec::new(), THREADS).exit_code()
}

/// What a test does inside the lab.
pub type Body = Box<dyn FnOnce() -> Result<Completion, Failed> + Send>;

/// Runs tests by name inside the lab, `threads` at a time where nobody asks for another number, and `others` that need
/// none: to be called first thing in `main`.
pub fn run(bodies: Vec<(String, Body)>, others: Vec<Trial>, threads: usize) -> Conclusion {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(threads));
    let inside = if arguments.list {
        Ok(())
    } else {
        lab::enter().map(drop).map_err(|error| format!("{error:#}"))
    };
    let trials = bodies.into_iter().map(|(name, body)| {
        let inside = inside.clone();
        Trial::ignorable_test(name, move || match inside {
            Ok(()) => body(),
            Err(reason) => cannot_run(reason, &["all", "namespaces"]),
        })
    });
    libtest_mimic::run(&arguments, trials.chain(others).collect())
}

/// Tells a person what is wrong beside the tests.
#[expect(clippy::print_stderr, reason = "that is what it is for")]
pub fn complain(text: &str) {
    eprintln!("{text}");
}

/// Fails with what is wrong.
///
/// # Errors
/// When the two differ.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, actual: &T, expected: &T) -> Result<()> {
    if actual != expected {
        bail!("{what}: {actual:?}, expected {expected:?}");
    }
    Ok(())
}

/// What an agent says about its peers.
///
/// # Errors
/// When it doesn't answer.
pub fn peers(node: &Node) -> Result<Vec<api::Peer>> {
    let answer: api::Peers = serde_json::from_value(node.ctl_json(&["bgp", "peers"])?)?;
    Ok(answer.peers)
}

/// What an agent says about its only peer.
///
/// # Errors
/// When it doesn't answer, or has none.
pub fn peer(node: &Node) -> Result<api::Peer> {
    peers(node)?.pop().context("a peer")
}

/// What an agent says about itself.
///
/// # Errors
/// When it doesn't answer.
pub fn status(node: &Node) -> Result<api::Status> {
    Ok(serde_json::from_value(node.ctl_json(&["status"])?)?)
}

/// Waits until an agent's only session is up, or is down.
///
/// # Errors
/// When that has not happened after `limit`.
pub fn wait_session(node: &Node, up: bool, limit: Duration) -> Result<api::Peer> {
    let what = if up { "the session" } else { "its loss" };
    wait::until(what, limit, || {
        let peer = peer(node)?;
        let is_up = peer.state == api::SessionState::Established;
        if is_up != up {
            bail!("{:?}, last error {:?}", peer.state, peer.last_error);
        }
        Ok(peer)
    })
}

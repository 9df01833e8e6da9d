//! What goes over the wire when a session ends: nothing, where routes are to be kept; a Hard Reset, where they are not.

use anyhow::{Context, Result, ensure};
use bgp::session::Direction;
use lab::process::{self, Process, Program};
use lab::wait;
use tests::same;

use crate::bench::{Bench, LIMIT, OURS, THEIRS};
use crate::restart::{OUR_ROUTE, RESTART_TIME, THEIR_ROUTE, begin, fresh, kept, restarting};

/// How tcpdump shows a NOTIFICATION.
const NOTIFICATION: &str = "Notification Message";

/// tcpdump on their end of the cable: what it has seen is its log.
fn watch(bench: &Bench) -> Result<Process> {
    let program = Program::new(process::find("tcpdump").context("tcpdump")?)
        .args(["-l", "-n", "-v", "--immediate-mode", "-i", "cable"])
        .arg("tcp port 179");
    let log = bench.folder().join("tcpdump.log");
    let tcpdump = Process::spawn("tcpdump", &bench.them, program, log)?;
    seen(&tcpdump, "listening on cable")?;
    Ok(tcpdump)
}

/// Waits until tcpdump says this.
fn seen(tcpdump: &Process, words: &str) -> Result<String> {
    wait::until(words, LIMIT, || {
        let text = std::fs::read_to_string(tcpdump.log())?;
        ensure!(text.contains(words), "tcpdump says {text}");
        Ok(text)
    })
}

/// The end of our process, the restart and the new session: no NOTIFICATION in either direction. At the end one is sent, so
/// that it's known that one would have been seen.
pub(crate) fn no_cease(bench: &mut Bench) -> Result<()> {
    let tcpdump = watch(bench)?;
    let mut witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    for _ in 0..2 {
        bench.abandon()?;
        kept(bench)?;
        bench.speak(restarting(&[OUR_ROUTE], |_| ())?, true)?;
        bench.wait_up()?;
        fresh(bench)?;
    }
    same("withdrawn meanwhile", &witness.heard()?.1, &0)?;
    let text = seen(&tcpdump, "Open Message")?;
    ensure!(
        !text.contains(NOTIFICATION),
        "a NOTIFICATION on the wire: {text}"
    );
    bench.shut_down("now for good")?;
    seen(&tcpdump, NOTIFICATION).map(drop)
}

/// A shutdown between two sides with N is a Hard Reset, and their table forgets us at once.
pub(crate) fn our_hard_reset(bench: &mut Bench) -> Result<()> {
    let tcpdump = watch(bench)?;
    let _witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    bench.shut_down_peer("rack 7 is moved")?;
    bench.they_lose(OUR_ROUTE)?;
    ensure!(!bench.session()?.established, "still up");
    let text = seen(&tcpdump, NOTIFICATION)?;
    let line = text.lines().find(|line| line.contains(NOTIFICATION));
    let line = line.unwrap_or_default();
    // tcpdump knows the number, not the name.
    ensure!(line.contains("Cease (6)") && line.contains("(9)"), "{line}");
    Ok(())
}

/// Their shutdown between two sides with N is one too, and their routes go at once.
pub(crate) fn their_hard_reset(bench: &mut Bench) -> Result<()> {
    let _witness = begin(bench, &[OUR_ROUTE], RESTART_TIME)?;
    bench.peer()?.shut_down(OURS, "back at noon")?;
    let error = bench.wait_down()?.last_error.context("a reason")?.ended;
    let notification = error.notification.context("a NOTIFICATION")?;
    let actual = (error.direction, notification.code, notification.subcode);
    same("NOTIFICATION", &actual, &(Direction::Received, 6, 9))?;
    let inner = notification.encapsulated().context("what it stands for")?;
    same("it stands for", &(inner.code, inner.subcode), &(6, 2))?;
    bench.we_lose(THEIR_ROUTE)?;
    bench.we_stop_using(THEIR_ROUTE)?;
    same("peer", &bench.status()?.address, &THEIRS)
}

//! The program as a script sees it: exit codes, streams, the request on the wire, against a socket of our own.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use tempfile::TempDir;

/// Answers as many requests as there are answers, and gives back their first lines.
struct Agent {
    directory: TempDir,
    thread: JoinHandle<Vec<String>>,
}

impl Agent {
    fn new(answers: &[(u16, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = UnixListener::bind(directory.path().join("api.sock")).expect("a socket");
        let answers: Vec<(u16, String)> = answers
            .iter()
            .map(|(status, body)| (*status, (*body).to_owned()))
            .collect();
        let thread = std::thread::spawn(move || {
            answers
                .iter()
                .map(|(status, body)| serve(&listener, *status, body))
                .collect()
        });
        Self { directory, thread }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Runs the command against this agent: its output, and what it asked for.
    fn run(self, arguments: &[&str]) -> (Output, Vec<String>) {
        self.run_to(arguments, Stdio::piped())
    }

    /// The same, with something else for its stdout.
    fn run_to(self, arguments: &[&str], stdout: Stdio) -> (Output, Vec<String>) {
        let output = margayctl()
            .stdout(stdout)
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .output()
            .expect("margayctl runs");
        (output, self.thread.join().expect("the agent's thread"))
    }
}

fn serve(listener: &UnixListener, status: u16, body: &str) -> String {
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut request = Vec::new();
    // Octet by octet: a body may follow.
    let mut buffer = [0; 1];
    while !request.ends_with(b"\r\n\r\n") {
        let count = stream.read(&mut buffer).expect("a request");
        assert_ne!(count, 0, "the request breaks off");
        request.extend_from_slice(&buffer[..count]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let mut first = request.lines().next().unwrap_or_default().to_owned();
    let length = request
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    if let Some(length) = length {
        let mut body = vec![0; length.parse().expect("a length")];
        stream.read_exact(&mut body).expect("a body");
        first = format!("{first} {}", String::from_utf8_lossy(&body));
    }
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("an answer");
    first
}

fn margayctl() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_margayctl"));
    command.env_remove("MARGAY_SOCKET");
    command
}

const PEER: &str = r#"{"address":"192.0.2.1","port":179,"asn":65001,"localAsn":64512,"kind":"external",
 "origin":"BGPPeer/tor","passive":false,"state":"Established","stateSeconds":60,"localRouterId":"192.0.2.10",
 "timers":{"configuredHoldSeconds":90},"families":["ipv4-unicast"],"flaps":0,"someNewField":true,
 "prefixes":{"received":1,"accepted":1,"advertised":1}}"#;

fn peers(state: &str) -> String {
    format!(
        r#"{{"node":"n1","peers":[{}]}}"#,
        PEER.replace("Established", state)
    )
}

#[track_caller]
fn check(output: &Output, code: i32, stdout: &str, stderr: &str) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    assert!(out.contains(stdout), "{out}");
    assert!(err.contains(stderr), "{err}");
}

#[test]
fn a_peer_that_is_down_fails_the_command() {
    let (output, asked) = Agent::new(&[(200, &peers("Established"))]).run(&["bgp", "peers"]);
    check(&output, 0, "Established", "");
    assert_eq!(asked, ["GET /v1/bgp/peers HTTP/1.1"]);
    let (output, _) = Agent::new(&[(200, &peers("Active"))]).run(&["bgp", "peers", "-o", "json"]);
    check(&output, 1, "\"state\": \"Active\"", "");
    let (output, asked) =
        Agent::new(&[(200, PEER)]).run(&["bgp", "peer", "192.0.2.1", "-o", "yaml"]);
    check(&output, 0, "state: Established", "");
    assert_eq!(asked, ["GET /v1/bgp/peers/192.0.2.1 HTTP/1.1"]);
}

#[test]
fn status_asks_for_the_sessions_too() {
    let status = r#"{"node":"n1","version":"0","started":"","uptimeSeconds":1,"podCidrs":[],"endpoints":0,
      "config":{"source":"/etc/margay","files":[],"problems":[]},
      "bgp":{"asn":64512,"routerId":"192.0.2.10","listenPort":179,"peers":1,"established":0,"synced":true,"prefixes":0,"paths":0,"originated":0},
      "kernel":{"synced":true,"desired":0,"ok":0,"missing":0,"wrong":0,"leftover":0,"unresolved":0}}"#;
    let (output, asked) = Agent::new(&[(200, status), (200, &peers("Idle"))]).run(&["status"]);
    check(&output, 1, "peer 192.0.2.1 (BGPPeer/tor) is Idle", "");
    assert_eq!(asked.len(), 2);
    let (output, _) = Agent::new(&[(
        200,
        &status.replace(r#""established":0"#, r#""established":1"#),
    )])
    .run(&["status", "-o", "json"]);
    check(&output, 0, "\"established\": 1", "");
}

#[test]
fn routes_are_asked_for_by_prefix_and_peer() {
    let empty = r#"{"node":"n1","routes":[]}"#;
    let (output, asked) =
        Agent::new(&[(200, empty)]).run(&["bgp", "routes", "10.0.0.0/8", "--to", "192.0.2.1"]);
    check(&output, 0, "no routes for 10.0.0.0/8", "");
    assert_eq!(
        asked,
        ["GET /v1/bgp/routes?prefix=10.0.0.0/8&to=192.0.2.1 HTTP/1.1"]
    );
    let (output, asked) = Agent::new(&[(200, empty)]).run(&["routes"]);
    check(&output, 0, "no routes", "");
    assert_eq!(asked, ["GET /v1/routes HTTP/1.1"]);
    let foreign = r#"{"node":"n1","routes":[{"prefix":"10.0.0.0/8","metric":1024,"kind":"learned","state":"foreign"}]}"#;
    let (output, _) = Agent::new(&[(200, foreign)]).run(&["routes", "-o", "yaml"]);
    check(&output, 1, "state: foreign", "");
}

#[test]
fn what_the_agent_refuses_is_said() {
    let (output, _) = Agent::new(&[(404, r#"{"error":"192.0.2.9 is no peer of node n1"}"#)])
        .run(&["bgp", "peer", "192.0.2.9"]);
    check(&output, 1, "", "192.0.2.9 is no peer of node n1");
    let (output, _) = Agent::new(&[(200, "[]")]).run(&["endpoints"]);
    check(&output, 1, "", "makes no sense");
}

#[test]
fn an_agent_that_is_away_has_its_own_exit_code() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let socket = directory.path().join("api.sock");
    let output = margayctl()
        .arg("status")
        .env("MARGAY_SOCKET", &socket)
        .output()
        .expect("margayctl runs");
    check(&output, 3, "", "no such socket");
    drop(UnixListener::bind(&socket).expect("a socket"));
    let output = margayctl()
        .arg("status")
        .env("MARGAY_SOCKET", &socket)
        .output()
        .expect("margayctl runs");
    check(&output, 3, "", "margayd is not running");
}

fn full() -> Stdio {
    let device = std::fs::File::options().write(true).open("/dev/full");
    device.expect("/dev/full").into()
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    let up = peers("Established");
    let (output, _) = Agent::new(&[(200, &up)]).run_to(&["bgp", "peers"], full());
    check(&output, 1, "", "margayctl: write the answer: No space left");
    let output = margayctl()
        .args(["completion", "bash"])
        .stdout(full())
        .output()
        .expect("margayctl runs");
    check(&output, 1, "", "margayctl: write the answer: No space left");
}

#[test]
fn a_reader_that_has_gone_does_not_change_the_exit_code() {
    for (state, code) in [("Established", 0), ("Active", 1)] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (output, _) =
            Agent::new(&[(200, &peers(state))]).run_to(&["bgp", "peers"], writer.into());
        check(&output, code, "", "");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn usage_is_checked_before_the_agent_is_asked() {
    for arguments in [
        &["bgp", "routes", "tor-a"][..],
        &["bgp", "peer", "x"],
        &["nonsense"],
        &["-o", "xml", "routes"],
        &[],
    ] {
        let output = margayctl()
            .args(arguments)
            .output()
            .expect("margayctl runs");
        check(&output, 2, "", "");
    }
    let output = margayctl()
        .args(["completion", "bash"])
        .output()
        .expect("margayctl runs");
    check(&output, 0, "_margayctl()", "");
}

#[test]
fn as_a_plugin_of_kubectl_it_goes_by_that_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let plugin = directory.path().join("kubectl-margay");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_margayctl"), &plugin).expect("a link");
    let output = Command::new(&plugin)
        .args(["bgp", "--help"])
        .output()
        .expect("the plugin runs");
    check(&output, 0, "Usage: kubectl margay bgp", "");
}

#[test]
fn orders_to_a_peer_are_posted() {
    for (arguments, body) in [
        (
            &["bgp", "reset", "192.0.2.1", "-m", "new card"][..],
            r#"{"action":"reset","text":"new card"}"#,
        ),
        (
            &["bgp", "reset", "192.0.2.1", "--soft"],
            r#"{"action":"softReset","text":""}"#,
        ),
        (
            &["bgp", "shutdown", "2001:db8::1"],
            r#"{"action":"shutdown","text":""}"#,
        ),
    ] {
        let agent = Agent::new(&[(200, r#"{"message":"as you wish"}"#)]);
        let (output, requests) = agent.run(arguments);
        check(&output, 0, "as you wish\n", "");
        let target = format!("POST /v1/bgp/peers/{} HTTP/1.1 {body}", arguments[2]);
        assert_eq!(requests, [target]);
    }
}

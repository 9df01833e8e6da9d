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

/// Two agents, and a program in the place of kubectl: it knows their pods, runs what it is told to run in one of them here, and
/// writes down what it was called with.
struct Pods {
    directory: TempDir,
    agents: Vec<Agent>,
}

impl Pods {
    fn new(agents: Vec<Agent>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| directory.path().join(name);
        let pod = |(number, node): (usize, &str)| {
            format!(
                r#"{{"metadata":{{"name":"margay-{number}"}},"spec":{{"nodeName":"{node}"}},"status":{{"phase":"{}"}}}}"#,
                if node == "c" { "Pending" } else { "Running" }
            )
        };
        let nodes = ["a", "b", "c"].into_iter().enumerate();
        let list: Vec<String> = nodes.map(pod).collect();
        std::fs::write(path("pods"), format!(r#"{{"items":[{}]}}"#, list.join(",")))
            .expect("a file");
        for (number, agent) in agents.iter().enumerate() {
            std::fs::write(
                path(&format!("margay-{number}")),
                agent.socket().display().to_string(),
            )
            .expect("a file");
        }
        let script = format!(
            r#"#!/bin/sh
cd {folder}
echo "$*" >> calls
case "$*" in
  *" get pods "*) cat pods; exit ;;
esac
while [ "$1" != exec ]; do shift; done
pod=$2
while [ "$1" != -- ]; do shift; done
shift 2
MARGAY_SOCKET=$(cat "$pod") exec {program} "$@"
"#,
            folder = directory.path().display(),
            program = env!("CARGO_BIN_EXE_margayctl"),
        );
        std::fs::write(path("kubectl"), script).expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(path("kubectl"), mode).expect("a mode");
        Self { directory, agents }
    }

    /// The output, how kubectl was called, and what each agent was asked for.
    fn run(self, arguments: &[&str]) -> (Output, String, Vec<Vec<String>>) {
        let output = margayctl()
            .args(arguments)
            .arg("--kubectl")
            .arg(self.directory.path().join("kubectl"))
            .output()
            .expect("margayctl runs");
        let calls = std::fs::read_to_string(self.directory.path().join("calls"));
        let asked = self.agents.into_iter();
        let asked = asked.map(|agent| agent.thread.join().expect("the agent's thread"));
        (output, calls.unwrap_or_default(), asked.collect())
    }
}

#[test]
fn a_node_of_a_cluster_is_asked_in_its_pod() {
    let pods = Pods::new(vec![
        Agent::new(&[]),
        Agent::new(&[(200, &peers("Established"))]),
    ]);
    let (output, calls, asked) = pods.run(&[
        "--context",
        "prod",
        "--namespace",
        "net",
        "--node",
        "b",
        "bgp",
        "peers",
    ]);
    check(&output, 0, "192.0.2.1", "");
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(
        calls,
        [
            "--context prod --namespace net get pods --output=json --selector \
             app.kubernetes.io/name=margay,app.kubernetes.io/component=agent --request-timeout=30s \
             --field-selector=spec.nodeName=b",
            "--context prod --namespace net exec margay-1 --container margayd --quiet -- \
             /margayctl raw GET /v1/bgp/peers",
        ]
    );
    assert_eq!(
        asked,
        [vec![], vec!["GET /v1/bgp/peers HTTP/1.1".to_owned()]]
    );
}

#[test]
fn an_order_goes_to_the_pod_as_an_argument() {
    let done = r#"{"message":"the session with 192.0.2.1 starts anew"}"#;
    let pods = Pods::new(vec![Agent::new(&[(200, done)])]);
    let (output, calls, asked) = pods.run(&[
        "--node",
        "a",
        "bgp",
        "reset",
        "192.0.2.1",
        "-m",
        "a 'new' card",
    ]);
    check(&output, 0, "starts anew", "");
    assert!(
        calls.contains(
            r#"raw POST /v1/bgp/peers/192.0.2.1 {"action":"reset","text":"a 'new' card"}"#
        ),
        "{calls}"
    );
    assert!(
        asked[0][0].contains(r#""text":"a 'new' card""#),
        "{asked:?}"
    );
}

#[test]
fn all_nodes_answer_under_their_names() {
    let agents = || {
        vec![
            Agent::new(&[(200, &peers("Established"))]),
            Agent::new(&[(200, &peers("Active"))]),
        ]
    };
    let (output, _, _) = Pods::new(agents()).run(&["--all-nodes", "bgp", "peers"]);
    check(&output, 1, "=== a\n", "");
    check(&output, 1, "=== b\n", "");
    check(
        &output,
        1,
        "=== c\nthe agent's pod margay-2 is Pending\n",
        "",
    );
    for format in ["json", "yaml"] {
        let pods = Pods::new(agents());
        let (output, _, _) = pods.run(&["--all-nodes", "bgp", "peers", "-o", format]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).expect("text");
        let value: serde_json::Value = match format {
            "json" => serde_json::from_str(&text).expect("JSON"),
            _ => serde_saphyr::from_str(&text).expect("YAML"),
        };
        assert_eq!(value[0]["node"], "a");
        assert_eq!(value[0]["answer"]["peers"][0]["address"], "192.0.2.1");
        assert_eq!(value[1]["answer"]["peers"][0]["state"], "Active");
        assert!(
            value[2]["error"]
                .as_str()
                .expect("an error")
                .contains("Pending")
        );
    }
}

#[test]
fn what_is_in_the_way_to_a_cluster_is_told() {
    let missing = Pods::new(vec![]);
    let (output, _, _) = missing.run(&["--node", "z", "status"]);
    check(&output, 3, "", "there is no agent on node z");
    let refuses = Pods::new(vec![Agent::new(&[(
        404,
        r#"{"error":"not a configured peer"}"#,
    )])]);
    let (output, _, _) = refuses.run(&["--node", "a", "bgp", "peer", "192.0.2.9"]);
    check(&output, 1, "", "not a configured peer");
    let gone = Pods::new(vec![]);
    std::fs::write(gone.directory.path().join("margay-0"), "/nowhere/api.sock").expect("a file");
    let (output, _, _) = gone.run(&["--node", "a", "status"]);
    check(
        &output,
        3,
        "",
        "kubectl: margayctl: can't reach the agent at /nowhere/api.sock",
    );
    let output = margayctl()
        .args(["--all-nodes", "--kubectl", "/nowhere/kubectl", "status"])
        .output()
        .expect("margayctl runs");
    check(&output, 3, "", "/nowhere/kubectl can't be run");
}

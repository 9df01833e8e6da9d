use api::{
    BgpStatus, ConfigFile, ConfigStatus, KernelError, KernelStatus, Peers, Problem, Severity,
    Status,
};
use expect_test::expect;

use super::super::status;
use super::NARROW;
use super::peers::{established, some_down};

fn healthy() -> Status {
    Status {
        node: "n1".to_owned(),
        version: "0.1.0".to_owned(),
        started: "2026-01-02T03:04:05Z".to_owned(),
        uptime_seconds: 10_920,
        config: ConfigStatus {
            source: "/etc/margay".to_owned(),
            files: vec![
                ConfigFile {
                    name: "a.yaml".to_owned(),
                    objects: 7,
                },
                ConfigFile {
                    name: "b.yaml".to_owned(),
                    objects: 1,
                },
            ],
            problems: vec![],
        },
        bgp: Some(BgpStatus {
            asn: 64512,
            router_id: "192.0.2.10".parse().unwrap(),
            listen_port: 179,
            peers: 1,
            established: 1,
            synced: true,
            prefixes: 12,
            paths: 24,
            originated: 1,
        }),
        speaker_error: None,
        pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
        kernel: KernelStatus {
            synced: true,
            desired: 15,
            ok: 15,
            ..KernelStatus::default()
        },
        tunnels: Vec::new(),
        firewall: api::FirewallStatus {
            rules: vec!["packets of strangers: dropped".to_owned()],
            healed: 0,
            error: None,
        },
        endpoints: 3,
    }
}

#[test]
fn status_of_a_healthy_node() {
    let answer = status::show(
        &healthy(),
        &Peers {
            node: "n1".to_owned(),
            peers: vec![established()],
        },
        NARROW,
    );
    assert!(answer.well);
    expect![[r#"
        Node n1: margayd 0.1.0, up 3h2m
          Sessions  established
          Speaker   AS 64512, router id 192.0.2.10, port 179
          Routes    12 prefixes in 24 paths, 1 of them our own
          Kernel    all 15 routes in place
          Pods      3 attached, from 10.244.1.0/24
          Config    /etc/margay: 8 objects from 2 files

        Nothing needs attention.
    "#]]
    .assert_eq(&answer.text);
}

#[test]
fn status_names_what_needs_attention() {
    let answer = status::show(&sick(), &some_down(), NARROW);
    assert!(!answer.well);
    expect![[r#"
        Node n1: margayd 0.1.0, up 3h2m
          Sessions  1 of 5 established, 4 down
          Speaker   AS 64512, router id 192.0.2.10, port 179
          Routes    12 prefixes in 24 paths, 1 of them our own
          Kernel    11 of 16 routes in place, 1 shadowed, 2 missing, 1 wrong, 1 foreign, 4 left over, 1 without a way to their next hop
          Waiting   for all routes of the peers; until then 4 left-over routes stay
          Pods      3 attached, from 10.244.1.0/24
          Config    /etc/margay: 8 objects from 2 files, 2 errors

        Needs attention:
          - peer 192.0.2.2 (mesh/n2) is Active: Connection refused, 12s ago; next try in 3s
          - peer 192.0.2.3 (mesh/n2) is Idle: it said: Cease/Administrative Shutdown: "rack move", 12s ago; next try in 2m10s
          - peer 192.0.2.4 (mesh/n2) is OpenSent: connected, agreeing on the session
          - peer 192.0.2.5 (mesh/n2) is Active: no connection so far; waiting for it to connect (passive)
          - 6 routes are not in use; which, and why: margayctl routes
          - the kernel refused 10.244.3.0/24: network is unreachable, 3s ago
          - error: b.yaml:12: BGPPeer/tor-b: spec.asNumber: AS 0 is reserved
          - error: b.yaml:1: not YAML: unclosed bracket '['
          - warning: b.yaml:3: BGPPeer/x: spec.node: there is no Node named `n9`
    "#]].assert_eq(&answer.text);
    let mut bare = healthy();
    (bare.bgp, bare.pod_cidrs, bare.kernel) = (
        None,
        vec![],
        KernelStatus {
            synced: true,
            ..KernelStatus::default()
        },
    );
    expect![[r#"
        Node n1: margayd 0.1.0, up 3h2m
          Sessions  none: the speaker is not running
          Kernel    no routes wanted
          Pods      3 attached, from no range of its own
          Config    /etc/margay: 8 objects from 2 files

        Needs attention:
          - no speaker: the configuration has too little about this node, see below
    "#]]
    .assert_eq(&status::show(&bare, &Peers::default(), NARROW).text);
}

#[test]
fn a_speaker_that_cannot_start_says_why() {
    let mut taken = healthy();
    taken.bgp = None;
    taken.kernel.leftover = 1;
    taken.speaker_error = Some("cannot listen on 0.0.0.0:179: Address already in use".to_owned());
    let answer = status::show(&taken, &Peers::default(), NARROW);
    assert!(!answer.well);
    expect![[r#"
        Node n1: margayd 0.1.0, up 3h2m
          Sessions  none: the speaker is not running
          Kernel    all 15 routes in place, 1 left over
          Waiting   for a speaker; until then 1 left-over route stays
          Pods      3 attached, from 10.244.1.0/24
          Config    /etc/margay: 8 objects from 2 files

        Needs attention:
          - no speaker: it can't start: cannot listen on 0.0.0.0:179: Address already in use
    "#]]
    .assert_eq(&answer.text);
}

#[test]
fn status_says_what_it_waits_for() {
    let mut early = healthy();
    early.bgp.as_mut().unwrap().synced = false;
    early.kernel.synced = false;
    early.kernel.leftover = 4;
    let mut late = established();
    late.synced = false;
    let peers = Peers {
        node: "n1".to_owned(),
        peers: vec![late, established()],
    };
    let answer = status::show(&early, &peers, NARROW);
    assert!(answer.well);
    expect![[r#"
        Node n1: margayd 0.1.0, up 3h2m
          Sessions  established
          Speaker   AS 64512, router id 192.0.2.10, port 179
          Routes    12 prefixes in 24 paths, 1 of them our own
          Kernel    all 15 routes in place, 4 left over
          Waiting   for all routes of 192.0.2.1; until then 4 left-over routes stay
          Pods      3 attached, from 10.244.1.0/24
          Config    /etc/margay: 8 objects from 2 files

        Nothing needs attention, but not all is done: see Waiting.
    "#]]
    .assert_eq(&answer.text);
}

#[test]
fn it_is_well_only_when_nothing_needs_attention() {
    type Spoil = fn(&mut Status);
    let spoilers: [Spoil; 7] = [
        |status| status.bgp = None,
        |status| status.bgp.as_mut().unwrap().established = 0,
        |status| status.kernel.missing = 1,
        |status| status.kernel.wrong = 1,
        |status| status.kernel.foreign = 1,
        |status| status.kernel.unresolved = 1,
        |status| status.config.problems = sick().config.problems[..1].to_vec(),
    ];
    assert!(status::is_well(&healthy()));
    for (index, spoil) in spoilers.into_iter().enumerate() {
        let mut status = healthy();
        spoil(&mut status);
        let answer = status::show(&status, &Peers::default(), NARROW);
        assert!(!answer.well && !status::is_well(&status), "{index}");
        assert!(answer.text.contains("Needs attention:"), "{index}");
    }
    let mut old = healthy();
    old.kernel.last_error = Some(KernelError {
        message: "add route 10.244.3.0/24: network is unreachable".to_owned(),
        seconds_ago: 3600,
    });
    assert!(status::is_well(&old));
}

fn sick() -> Status {
    let mut sick = healthy();
    let bgp = sick.bgp.as_mut().unwrap();
    (bgp.peers, bgp.synced) = (5, false);
    sick.kernel = KernelStatus {
        synced: false,
        desired: 16,
        ok: 11,
        shadowed: 1,
        missing: 2,
        wrong: 1,
        foreign: 1,
        leftover: 4,
        unresolved: 1,
        last_error: Some(KernelError {
            message: "10.244.3.0/24: network is unreachable".to_owned(),
            seconds_ago: 3,
        }),
    };
    let problem =
        |severity, line, object: Option<&str>, field: Option<&str>, message: &str| Problem {
            severity,
            source: "b.yaml".to_owned(),
            line,
            object: object.map(str::to_owned),
            field: field.map(str::to_owned),
            message: message.to_owned(),
        };
    sick.config.problems = vec![
        problem(
            Severity::Warning,
            Some(3),
            Some("BGPPeer/x"),
            Some("spec.node"),
            "there is no Node named `n9`",
        ),
        problem(
            Severity::Error,
            Some(12),
            Some("BGPPeer/tor-b"),
            Some("spec.asNumber"),
            "AS 0 is reserved",
        ),
        problem(
            Severity::Error,
            Some(1),
            None,
            None,
            "not YAML: unclosed bracket '['",
        ),
    ];
    sick
}

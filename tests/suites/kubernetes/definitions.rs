//! The API server's own judgement of objects, by the chart's definitions.

use anyhow::{Context as _, Result, bail};
use lab::Namespace;
use lab::kubernetes::ControlPlane;
use lab::net;
use resources::yaml;

use crate::cluster::define;

const MANUALS: [&str; 2] = [
    include_str!("../../../docs/configuration.md"),
    include_str!("../../../docs/operations.md"),
];

/// A kind, a name, a spec, and what the refusal must hold: the field, and what would be right.
type Wrong = (&'static str, &'static str, &'static str, [&'static str; 2]);

const WRONG: [Wrong; 27] = [
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1/24, asNumber: 64500}",
        ["spec.peerIP", "write `192.0.2.1`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: '192.0.2.1:70000', asNumber: 64500}",
        ["spec.peerIP", "write `192.0.2.1`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 127.0.0.1, asNumber: 64500}",
        ["spec.peerIP", "can't be a peer's address"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 0}",
        ["spec.asNumber", "1 to 4294967294"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 65535}",
        ["spec.asNumber", "RFC 7300"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: AS1}",
        ["spec.asNumber", "1 to 4294967294"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1}",
        ["spec", "`asNumber` is missing"],
    ),
    (
        "BGPPeer",
        "a",
        "{asNumber: 64500}",
        ["spec", "`peerIP` is missing"],
    ),
    (
        "BGPPeer",
        "a",
        "{node: node-a, nodeSelector: 'a == ''b''', peerIP: 192.0.2.1, asNumber: 64500}",
        ["spec.nodeSelector", "either `node` or `nodeSelector`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerSelector: all(), asNumber: 64500}",
        ["spec.asNumber", "goes without `peerSelector`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, holdTime: 1s}",
        ["spec.holdTime", "`3s` to `65535s`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, holdTime: 10ms}",
        ["spec.holdTime", "as in `90s`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, nextHopMode: Selfish}",
        ["spec.nextHopMode", "\"Keep\""],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, maxPrefixes: {limit: 0}}",
        ["spec.maxPrefixes.limit", "write 1 or more"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, maxPrefixes: {limit: 9, action: Warn, restartAfter: 9s}}",
        ["spec.maxPrefixes.restartAfter", "`action: Restart`"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, password: {secretKeyRef: {name: bgp, key: ''}}}",
        ["spec.password.secretKeyRef.key", "write the Secret's key"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumber: 64500, ttlSecurity: 0}",
        ["spec.ttlSecurity", "1 is directly connected"],
    ),
    (
        "BGPPeer",
        "a",
        "{peerIP: 192.0.2.1, asNumbr: 64500, asNumber: 64500}",
        ["asNumbr", "not declared"],
    ),
    (
        "IPPool",
        "a",
        "{cidr: 10.0.0.1/8}",
        ["spec.cidr", "first address of the range"],
    ),
    (
        "IPPool",
        "a",
        "{cidr: 10.0.0.0}",
        ["spec.cidr", "`10.244.0.0/16`"],
    ),
    (
        "IPPool",
        "a",
        "{cidr: 0.0.0.0/0}",
        ["spec.cidr", "your pods' own range"],
    ),
    (
        "BGPConfiguration",
        "other",
        "{}",
        ["BGPConfiguration", "is `default`, or `node.`"],
    ),
    (
        "BGPConfiguration",
        "node.a",
        "{nodeToNodeMeshEnabled: true}",
        ["spec.nodeToNodeMeshEnabled", "set this in `default`"],
    ),
    (
        "BGPConfiguration",
        "default",
        "{listenPort: 0}",
        ["spec.listenPort", "1 to 65535"],
    ),
    (
        "BGPFilter",
        "a",
        "{importV4: [{cidr: '2001:db8::/32', matchOperator: In, action: Accept}]}",
        ["spec.importV4[0].cidr", "is not IPv4"],
    ),
    (
        "BGPFilter",
        "a",
        "{exportV4: [{cidr: 10.0.0.0/8, action: Accept}]}",
        ["spec.exportV4[0].cidr", "Equal, NotEqual, In or NotIn"],
    ),
    (
        "BGPFilter",
        "a",
        "{exportV4: [{action: Perhaps}]}",
        ["spec.exportV4[0].action", "\"Next\""],
    ),
];

/// What the manual shows is accepted; what can't work is refused with words that help, by the API server and by the parser of
/// files alike.
pub(crate) fn judgement(prefix: &str) -> Result<()> {
    let namespace = Namespace::create(&format!("{prefix}plane"))?;
    net::segment(&namespace, "lan")?;
    let address = "172.20.1.1".parse()?;
    net::address(&namespace, "lan", ipnet::Ipv4Net::new(address, 24)?)?;
    let plane = ControlPlane::start(
        &namespace,
        address,
        format!("/run/lab/{prefix}plane").into(),
    )?;
    define(&plane)?;
    // Of a Service in the manual.
    plane.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")?;
    let judge = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    let mut examples = 0;
    for text in MANUALS {
        for block in text
            .split("```yaml\n")
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
        {
            if block.starts_with("apiVersion:") {
                let judged = plane.feed(&judge, block);
                judged.with_context(|| format!("refused:\n{block}"))?;
                examples += 1;
            }
        }
    }
    if examples < 3 {
        bail!("only {examples} examples were found");
    }
    for (kind, name, spec, words) in WRONG {
        let object = format!(
            "apiVersion: margay.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        let Err(refusal) = plane.feed(&judge, &object) else {
            bail!("accepted: {object}");
        };
        let refusal = refusal.to_string();
        for word in words {
            if !refusal.contains(word) {
                bail!("{kind} {spec}: no {word:?} in: {refusal}");
            }
        }
        if yaml::parse("x.yaml", &object).problems.is_empty() {
            bail!("the parser of files accepts: {object}");
        }
    }
    Ok(())
}

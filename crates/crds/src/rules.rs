//! Rules over several fields. They say no to what the agents would refuse, before it is stored.

use serde_json::{Value, json};

/// Where a rule is: names of fields, and `[]` for each of a list's.
type Path = &'static str;
/// A rule in CEL, what is wrong with an object that breaks it, and the field that is to blame.
type Rule = (&'static str, &'static str, &'static str);

/// Of a BGPPeer's and a BGPConfiguration's.
const HOLD_TIME: Rule = (
    "!has(self.holdTime) || !self.holdTime.matches('^([0-9]{1,9}[hms])+$') || duration(self.holdTime) == duration('0s') || (duration(self.holdTime) >= duration('3s') && duration(self.holdTime) <= duration('65535s'))",
    "a hold time is `3s` to `65535s`, or `0s` for none (RFC 4271 §4.2)",
    ".holdTime",
);

const CONFIGURATION: [Rule; 3] = [
    HOLD_TIME,
    (
        "!has(self.nodeMeshMaxRestartTime) || !self.nodeMeshMaxRestartTime.matches('^([0-9]{1,9}[hms])+$') || (duration(self.nodeMeshMaxRestartTime) >= duration('1s') && duration(self.nodeMeshMaxRestartTime) <= duration('4095s'))",
        "a restart time is `1s` to `4095s` (RFC 4724 §3)",
        ".nodeMeshMaxRestartTime",
    ),
    (
        "!has(self.listenPort) || (self.listenPort > 0 && self.listenPort < 65536)",
        "a port is 1 to 65535; 179 is BGP's",
        ".listenPort",
    ),
];

const PEER: [Rule; 13] = [
    HOLD_TIME,
    (
        "!has(self.node) || !has(self.nodeSelector)",
        "a peer has either `node` or `nodeSelector`: remove one of them",
        ".nodeSelector",
    ),
    (
        "!has(self.node) || size(self.node) > 0",
        "empty: write a node's name, or remove the field for a peer of all nodes",
        ".node",
    ),
    (
        "has(self.peerIP) || has(self.peerSelector) || has(self.peersByLabel) || has(self.peerRange)",
        "`peerIP` is missing, or else `peerSelector`, `peersByLabel` or `peerRange`",
        "",
    ),
    (
        "has(self.asNumber) || has(self.peerSelector) || has(self.peersByLabel) || has(self.peerRange)",
        "`asNumber` is missing, or else `peerSelector`, `peersByLabel` or `peerRange`",
        "",
    ),
    (
        "!(has(self.peerSelector) || has(self.peersByLabel) || has(self.peerRange)) || !has(self.peerIP)",
        "goes without `peerSelector`, `peersByLabel` or `peerRange`, which say it: remove one of them",
        ".peerIP",
    ),
    (
        "!(has(self.peerSelector) || has(self.peersByLabel) || has(self.peerRange)) || !has(self.asNumber)",
        "goes without `peerSelector`, `peersByLabel` or `peerRange`, which say it: remove one of them",
        ".asNumber",
    ),
    (
        "has(self.peerSelector) || !has(self.reversePeering)",
        "goes with `peerSelector`",
        ".reversePeering",
    ),
    (
        "!has(self.keepOriginalNextHop) || !has(self.nextHopMode)",
        "is the old name of `nextHopMode: Keep`: remove one of them",
        ".keepOriginalNextHop",
    ),
    (
        "!has(self.gracefulRestart) || self.gracefulRestart || !has(self.maxRestartTime)",
        "has no effect with `gracefulRestart: false`: remove one of them",
        ".maxRestartTime",
    ),
    (
        "!has(self.maxRestartTime) || !self.maxRestartTime.matches('^([0-9]{1,9}[hms])+$') || (duration(self.maxRestartTime) >= duration('1s') && duration(self.maxRestartTime) <= duration('4095s'))",
        "a restart time is `1s` to `4095s` (RFC 4724 §3)",
        ".maxRestartTime",
    ),
    (
        "!has(self.ttlSecurity) || self.ttlSecurity > 0",
        "counts hops: 1 is directly connected, 255 the most",
        ".ttlSecurity",
    ),
    (
        "!has(self.keepaliveTime) || !self.keepaliveTime.matches('^([0-9]{1,9}[hms])+$') || duration(self.keepaliveTime) > duration('0s')",
        "write `1s` or more; `holdTime: 0s` switches KEEPALIVEs off",
        ".keepaliveTime",
    ),
];

const LIMITS: [Rule; 3] = [
    (
        "self.limit > 0",
        "a limit of 0 lets no prefix pass: write 1 or more",
        ".limit",
    ),
    (
        "!has(self.warnPercent) || (self.warnPercent > 0 && self.warnPercent <= 100)",
        "a share of the limit is 1 to 100",
        ".warnPercent",
    ),
    (
        "!has(self.restartAfter) || !has(self.action) || self.action == 'Restart'",
        "has a meaning with `action: Restart` only: remove one of them",
        ".restartAfter",
    ),
];

const SECRET: [Rule; 2] = [
    (
        "size(self.name) > 0",
        "empty: write the Secret's name",
        ".name",
    ),
    (
        "size(self.key) > 0",
        "empty: write the Secret's key",
        ".key",
    ),
];

const POOL: [Rule; 2] = [
    (
        "!isCIDR(self.cidr) || cidr(self.cidr).prefixLength() > 0",
        "a pool of all addresses would let a peer take the default route: write your pods' own range",
        ".cidr",
    ),
    (
        "!has(self.allowedUses) || self.allowedUses.exists(it, it == 'Workload')",
        "a pool is for pods: write `Workload` too, or remove the pool",
        ".allowedUses",
    ),
];

const BLOCK: [Rule; 2] = [
    (
        "self == oldSelf",
        "a block is its node's until that gives it back: nothing in it can be changed. To take it away, drain the node and delete the object",
        "",
    ),
    (
        "size(self.node) > 0",
        "empty: write the name of the node that has it",
        ".node",
    ),
];

/// Of each rule of a filter.
const FILTER: [Rule; 3] = [
    (
        "!has(self.cidr) || has(self.matchOperator)",
        "needs `matchOperator`: Equal, NotEqual, In or NotIn",
        ".cidr",
    ),
    (
        "has(self.cidr) || !has(self.matchOperator)",
        "needs a `cidr` to compare with",
        ".matchOperator",
    ),
    (
        "!has(self.prefixLength) || (has(self.cidr) && has(self.matchOperator) && self.matchOperator in ['In', 'NotIn'])",
        "goes with a `cidr` and `matchOperator: In` or `NotIn`",
        ".prefixLength",
    ),
];

const IPV4: Rule = (
    "!has(self.cidr) || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 4",
    "is not IPv4: an IPv4 rule would never match it",
    ".cidr",
);
const IPV6: Rule = (
    "!has(self.cidr) || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() == 6",
    "is not IPv6: an IPv6 rule would never match it",
    ".cidr",
);

/// The rules of each place.
const PLACES: [(&str, Path, &[Rule]); 15] = [
    ("BGPConfiguration", "", &CONFIGURATION),
    ("BGPConfiguration", "nodeMeshPassword.secretKeyRef", &SECRET),
    ("BGPPeer", "", &PEER),
    ("BGPPeer", "maxPrefixes", &LIMITS),
    ("BGPPeer", "password.secretKeyRef", &SECRET),
    ("IPAMBlock", "", &BLOCK),
    ("IPPool", "", &POOL),
    ("BGPFilter", "importV4.[]", &FILTER),
    ("BGPFilter", "exportV4.[]", &FILTER),
    ("BGPFilter", "importV6.[]", &FILTER),
    ("BGPFilter", "exportV6.[]", &FILTER),
    ("BGPFilter", "importV4.[]", &[IPV4]),
    ("BGPFilter", "exportV4.[]", &[IPV4]),
    ("BGPFilter", "importV6.[]", &[IPV6]),
    ("BGPFilter", "exportV6.[]", &[IPV6]),
];

/// How long the lists of a filter may be. Rules in CEL have a price for each entry that there could be.
const RULES: u32 = 200;
/// The same for the lists inside a rule.
const INSIDE: [(&str, u32); 5] = [
    ("prefixes", 50),
    ("asPathPrefix", 10),
    ("operations", 10),
    ("communities.values", 20),
    ("operations.[].prependASPath.prefix", 10),
];

/// Adds the rules of a kind to its schema.
///
/// # Panics
/// When a rule is of a field that there is not: a test makes every schema.
pub fn add(kind: &str, schema: &mut Value) {
    for (_, path, rules) in PLACES.iter().filter(|(of, ..)| *of == kind) {
        let place = at(schema, path);
        let list = &mut place["x-kubernetes-validations"];
        if list.is_null() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut() {
            list.extend(rules.iter().map(rule));
        }
    }
    if kind == "BGPPeer" {
        // A row's peers: a node has two ToRs, rarely four.
        at(schema, "peersByLabel.values")["additionalProperties"]["maxItems"] = json!(16);
    }
    for list in ["importV4", "exportV4", "importV6", "exportV6"] {
        if kind != "BGPFilter" {
            break;
        }
        at(schema, list)["maxItems"] = json!(RULES);
        for (inside, length) in INSIDE {
            at(schema, &format!("{list}.[].{inside}"))["maxItems"] = json!(length);
        }
        let operation = at(schema, &format!("{list}.[].operations.[]"));
        operation["minProperties"] = json!(1);
        operation["maxProperties"] = json!(1);
    }
}

/// The rules over an object as a whole.
#[must_use]
pub fn whole(kind: &str) -> Option<Value> {
    let rules: &[Rule] = match kind {
        "BGPConfiguration" => &[
            (
                "self.metadata.name == 'default' || self.metadata.name.matches('^node[.].+')",
                "this name has no effect: a BGPConfiguration is `default`, or `node.` and a node's name",
                "",
            ),
            (
                "self.metadata.name == 'default' || !has(self.spec.nodeToNodeMeshEnabled)",
                "the mesh is on or off for all nodes: set this in `default`",
                ".spec.nodeToNodeMeshEnabled",
            ),
            (
                "self.metadata.name == 'default' || !has(self.spec.nodeMeshPassword)",
                "both ends of a session need the same password: set this in `default`",
                ".spec.nodeMeshPassword",
            ),
        ],
        // The name is what two agents can't both create.
        "IPAMBlock" => &[
            (
                "!isCIDR(self.spec.cidr) || cidr(self.spec.cidr).ip().family() != 4 || self.metadata.name.replace('-', '.', 3).replace('-', '/') == self.spec.cidr",
                "the name follows from the block: that of 10.244.1.64/26 is `10-244-1-64-26`",
                "",
            ),
            (
                "!isCIDR(self.spec.cidr) || cidr(self.spec.cidr).ip().family() != 6 || (!self.metadata.name.matches('(^|-)0[0-9a-f]') && isCIDR(self.metadata.name.replace('-', ':', 7).replace('-', '/')) && cidr(self.metadata.name.replace('-', ':', 7).replace('-', '/')) == cidr(self.spec.cidr))",
                "the name follows from the block: that of fd00:10::40/122 is `fd00-10-0-0-0-0-0-40-122`",
                "",
            ),
        ],
        _ => return None,
    };
    Some(rules.iter().map(rule).collect())
}

fn rule((cel, message, field): &Rule) -> Value {
    match *field {
        "" => json!({"rule": cel, "message": message}),
        field => json!({"rule": cel, "message": message, "fieldPath": field}),
    }
}

fn at<'a>(schema: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.')
        .filter(|step| !step.is_empty())
        .fold(schema, |schema, step| {
            let next = match step {
                "[]" => &mut schema["items"],
                field => &mut schema["properties"][field],
            };
            assert!(!next.is_null(), "no such field: {path}");
            next
        })
}

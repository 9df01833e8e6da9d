use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use bgp::view::FamilyStatus;
use bgp_wire::Family;
use dataplane::Summary;

use super::*;
use crate::fib::DeviceStatus;

fn peer() -> PeerStatus {
    PeerStatus {
        address: "192.0.2.1".parse().unwrap(),
        origin: "BGPPeer/tor".to_owned(),
        asn: 65001,
        local_asn: 64512,
        passive: false,
        state: session::State::Established,
        state_age: Duration::from_secs(60),
        connection: None,
        negotiated: None,
        dynamic: None,
        halt: None,
        password: false,
        families: vec![FamilyStatus {
            limit: Some(1000),
            family: Family::IPV4_UNICAST,
            received: 5,
            accepted: 3,
            advertised: 1,
            stale: false,
        }],
        counters: session::Counters::default(),
        flaps: 0,
        failures: 0,
        last_error: None,
        last_attempt: None,
        next_attempt: None,
        synced: true,
    }
}

/// One of everything.
fn scraped() -> Scraped {
    let requests = Metrics::default();
    requests.vanished.store(2, Ordering::Relaxed);
    for bucket in &requests.add.buckets {
        bucket.store(1, Ordering::Relaxed);
    }
    Scraped {
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        problems: vec![api::Problem {
            severity: api::Severity::Warning,
            source: String::new(),
            line: None,
            object: None,
            field: None,
            message: String::new(),
        }],
        peers: vec![peer()],
        numbers: Numbers {
            paths_synced: true,
            idle: true,
            tunnels: vec![DeviceStatus {
                kind: dataplane::TunnelKind::Ipip,
                wanted: None,
                present: true,
                open: true,
                trouble: None,
            }],
            ..Numbers::default()
        },
        endpoints: 3,
        usage: vec![ipam::Usage {
            cidr: "10.244.1.0/24".parse().unwrap(),
            total: 253,
            used: 3,
            cooling: 1,
        }],
        pools: vec![PoolUsage {
            pool: "pods".to_owned(),
            total: 1024,
            taken: 5,
            own: 2,
        }],
        requests: Arc::new(requests),
    }
}

/// A metric as an operator finds it: its type, its labels, and the values of those that have a fixed set.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    kind: String,
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// What stands between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The table of the manual: name, type, labels. After a label's colon stand its values.
fn documented() -> BTreeMap<String, Shape> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.md");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `margay_"));
    rows.map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let mut labels = BTreeMap::new();
        for group in cells[2].split(';') {
            let (names, values) = group.split_once(':').unwrap_or((group, ""));
            for name in quoted(names) {
                labels.insert(name, BTreeSet::new());
            }
            if let Some(last) = quoted(names).last() {
                labels.insert(last, quoted(values).collect());
            }
        }
        let kind = cells[1].to_owned();
        (quoted(cells[0]).next().unwrap(), Shape { kind, labels })
    })
    .collect()
}

/// What a page holds.
fn printed(page: &str) -> BTreeMap<String, Shape> {
    let mut shapes = BTreeMap::<String, Shape>::new();
    for line in page.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (name, kind) = declared.split_once(' ').unwrap();
            shapes.entry(name.to_owned()).or_default().kind = kind.to_owned();
        } else if let Some((name, labels)) = line.split_once('{') {
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            let labels = labels.split_once('}').unwrap().0;
            for label in labels.split(',') {
                let (label, value) = label.split_once('=').unwrap();
                let shape = shapes.get_mut(family).unwrap();
                if label != "le" {
                    let values = shape.labels.entry(label.to_owned()).or_default();
                    values.insert(value.trim_matches('"').to_owned());
                }
            }
        }
    }
    shapes
}

#[test]
fn the_manual_names_every_metric_and_no_other() {
    let documented = documented();
    let mut printed = printed(&page(&scraped()).unwrap());
    // Where the manual names no values, they come from outside: addresses, versions.
    for (name, shape) in &mut printed {
        for (label, values) in &mut shape.labels {
            let described = documented.get(name).and_then(|row| row.labels.get(label));
            if described.is_some_and(BTreeSet::is_empty) {
                values.clear();
            }
        }
    }
    assert_eq!(documented, printed);
}

#[test]
fn values_stand_in_the_text_form() {
    let page = page(&scraped()).unwrap();
    for line in [
        "margay_start_time_seconds 1700000000",
        "margay_config_problems{severity=\"error\"} 0",
        "margay_config_problems{severity=\"warning\"} 1",
        "margay_endpoints_vanished_total 2",
        "margay_synced 1",
        "margay_bgp_prefix_limit{family=\"ipv4-unicast\",peer=\"192.0.2.1\"} 1000",
        "margay_tunnel_up{device=\"margay-ipip\"} 1",
        "margay_cni_request_seconds_bucket{command=\"ADD\",le=\"1\"} 10",
        "margay_cni_request_seconds_bucket{command=\"ADD\",le=\"+Inf\"} 11",
        "margay_cni_request_seconds_count{command=\"ADD\"} 11",
    ] {
        assert!(page.lines().any(|it| it == line), "{line}\n{page}");
    }
    assert!(!page.contains("\"inf\""), "{page}");
}

#[test]
fn in_step_is_more_than_idle() {
    let well = scraped().numbers;
    assert!(in_step(&well));
    for spoilt in [
        Numbers {
            paths_synced: false,
            ..well.clone()
        },
        Numbers {
            idle: false,
            ..well.clone()
        },
        Numbers {
            summary: Summary {
                foreign: 1,
                ..Summary::default()
            },
            ..well.clone()
        },
    ] {
        assert!(!in_step(&spoilt), "{spoilt:?}");
    }
}

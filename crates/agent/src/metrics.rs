//! The agent's state for Prometheus. Everything is read when it is scraped: nothing is counted twice.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use bgp::session;
use bgp::view::PeerStatus;
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use prometheus::{GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::blocks::PoolUsage;
use crate::control::Agent;
use crate::fib::Numbers;
use crate::pods::{BUCKETS, Metrics, Operation};

/// Listens at `address`. The future serves `/metrics` for ever.
///
/// # Errors
/// The address can't be listened at.
pub async fn serve(
    address: SocketAddr,
    agent: Agent,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("--metrics: can't listen at {address}"))?;
    let routes = axum::Router::new()
        .route("/metrics", get(scrape))
        .with_state(agent);
    info!(%address, "metrics");
    Ok(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            error!("metrics ended: {error}");
        }
    })
}

async fn scrape(State(agent): State<Agent>) -> impl IntoResponse {
    let speaker = agent.state.borrow().bgp.clone();
    let peers = match &speaker {
        Some(speaker) => speaker.peers().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let numbers = agent.fib.numbers().await.unwrap_or_default();
    let scraped = Scraped {
        started: agent.started,
        problems: agent.problems(),
        peers,
        numbers,
        endpoints: agent.pods.endpoints().len(),
        usage: agent.pods.usage(),
        pools: agent.blocks.state().borrow().pools.clone(),
        requests: agent.pods.metrics(),
    };
    match page(&scraped) {
        Ok(page) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)],
            page,
        ),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

/// Everything that a page says.
#[derive(Debug)]
struct Scraped {
    started: SystemTime,
    problems: Vec<api::Problem>,
    peers: Vec<PeerStatus>,
    numbers: Numbers,
    endpoints: usize,
    usage: Vec<ipam::Usage>,
    pools: Vec<PoolUsage>,
    requests: Arc<Metrics>,
}

fn page(scraped: &Scraped) -> prometheus::Result<String> {
    let page = Page {
        registry: Registry::new(),
    };
    process(&page, scraped)?;
    sessions(&page, &scraped.peers)?;
    dataplane(&page, &scraped.numbers)?;
    pods(&page, scraped)?;
    let mut families = page.registry.gather();
    families.push(durations(&scraped.requests));
    TextEncoder::new().encode_to_string(&families)
}

/// Fills a registry for one scrape.
struct Page {
    registry: Registry,
}

impl Page {
    fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        values: [(Vec<&str>, f64); N],
    ) -> prometheus::Result<()> {
        let gauges = self.gauge(name, help, labels)?;
        for (labels, value) in values {
            gauges.with_label_values(&labels).set(value);
        }
        Ok(())
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(gauges.clone()))?;
        Ok(gauges)
    }

    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(counters.clone()))?;
        Ok(counters)
    }
}

fn process(page: &Page, scraped: &Scraped) -> prometheus::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    page.gauges(
        "margay_build_info",
        "Constant 1.",
        &["version"],
        [(vec![version], 1.0)],
    )?;
    // A clock that stood before 1970 is set later; there's no telling then.
    let started = scraped.started.duration_since(SystemTime::UNIX_EPOCH);
    page.gauges(
        "margay_start_time_seconds",
        "When the agent started, in seconds since 1970-01-01 UTC.",
        &[],
        [(vec![], started.unwrap_or_default().as_secs_f64())],
    )?;
    let problems = |severity| {
        let problems = scraped.problems.iter();
        problems
            .filter(|problem| problem.severity == severity)
            .count() as f64
    };
    page.gauges(
        "margay_config_problems",
        "What is wrong with the configuration; see margayctl status.",
        &["severity"],
        [
            (vec!["error"], problems(api::Severity::Error)),
            (vec!["warning"], problems(api::Severity::Warning)),
        ],
    )
}

fn sessions(page: &Page, peers: &[PeerStatus]) -> prometheus::Result<()> {
    let up = page.gauge(
        "margay_bgp_session_up",
        "1 while the session with a configured peer is established.",
        &["peer", "asn", "origin"],
    )?;
    let prefixes = page.gauge(
        "margay_bgp_prefixes",
        "Prefixes by peer and family: received from it, accepted of those, advertised to it.",
        &["peer", "family", "direction"],
    )?;
    let limits = page.gauge(
        "margay_bgp_prefix_limit",
        "How many prefixes of a family a peer may announce.",
        &["peer", "family"],
    )?;
    let flaps = page.counter(
        "margay_bgp_session_flaps_total",
        "How often an established session was lost.",
        &["peer"],
    )?;
    let messages = page.counter(
        "margay_bgp_messages_total",
        "BGP messages by peer, type and direction.",
        &["peer", "type", "direction"],
    )?;
    for status in peers {
        let peer = status.address.to_string();
        let established = f64::from(u8::from(status.state == session::State::Established));
        let asn = status.asn.to_string();
        up.with_label_values(&[&peer, &asn, &status.origin])
            .set(established);
        flaps
            .with_label_values(&[&peer])
            .inc_by(u64::from(status.flaps));
        for family in &status.families {
            let name = family.family.to_string();
            for (direction, count) in [
                ("received", family.received),
                ("accepted", family.accepted),
                ("advertised", family.advertised),
            ] {
                prefixes
                    .with_label_values(&[&peer, &name, direction])
                    .set(count as f64);
            }
            if let Some(limit) = family.limit {
                limits
                    .with_label_values(&[&peer, &name])
                    .set(f64::from(limit));
            }
        }
        let counters = &status.counters;
        for (kind, direction, count) in [
            ("update", "in", counters.updates_in),
            ("update", "out", counters.updates_out),
            ("notification", "in", counters.notifications_in),
            ("notification", "out", counters.notifications_out),
            ("any", "in", counters.messages_in),
            ("any", "out", counters.messages_out),
        ] {
            messages
                .with_label_values(&[peer.as_str(), kind, direction])
                .inc_by(count);
        }
    }
    Ok(())
}

fn dataplane(page: &Page, numbers: &Numbers) -> prometheus::Result<()> {
    let summary = numbers.summary;
    page.gauges(
        "margay_routes",
        "Kernel routes of ours by state: ok, shadowed (packets take somebody else's of a lower metric), missing, wrong, foreign (somebody else's in the way), leftover, unresolved.",
        &["state"],
        [
            (vec!["ok"], summary.ok as f64),
            (vec!["shadowed"], summary.shadowed as f64),
            (vec!["missing"], summary.missing as f64),
            (vec!["wrong"], summary.wrong as f64),
            (vec!["foreign"], summary.foreign as f64),
            (vec!["leftover"], summary.leftover as f64),
            (vec!["unresolved"], numbers.unresolved as f64),
        ],
    )?;
    let (reachable, unreachable) = numbers.next_hops;
    page.gauges(
        "margay_bgp_next_hops",
        "Next hops of BGP paths, by whether the kernel has a way to them.",
        &["state"],
        [
            (vec!["reachable"], reachable as f64),
            (vec!["unreachable"], unreachable as f64),
        ],
    )?;
    let tunnels = page.gauge(
        "margay_tunnel_up",
        "1 while packets may be sent through the tunnel device; 0 also while it opens or leaves.",
        &["device"],
    )?;
    for tunnel in &numbers.tunnels {
        tunnels
            .with_label_values(&[tunnel.kind.device()])
            .set(f64::from(u8::from(tunnel.open)));
    }
    let operations = page.counter(
        "margay_netlink_operations_total",
        "Changes to the kernel's routes, neighbours and (`group_*`) nexthop objects by outcome; `lost` counts what others took away.",
        &["outcome"],
    )?;
    page.gauges(
        "margay_synced",
        "1 when all peers have sent their routes, and the kernel holds what it should.",
        &[],
        [(vec![], f64::from(u8::from(in_step(numbers))))],
    )?;
    let counters = numbers.counters;
    for (outcome, count) in [
        ("set", counters.set),
        ("deleted", counters.deleted),
        ("failed", counters.failed),
        ("lost", counters.lost),
        ("group_set", counters.objects_set),
        ("group_deleted", counters.objects_deleted),
    ] {
        operations.with_label_values(&[outcome]).inc_by(count);
    }
    let moved = page.counter(
        "margay_routes_moved_total",
        "Routes that went elsewhere by a change of their nexthop group, and not each by itself.",
        &[],
    )?;
    moved.with_label_values::<&str>(&[]).inc_by(counters.moved);
    Ok(())
}

/// Whether all peers' routes are known, and the kernel holds every route that it should and none that nobody wants.
fn in_step(numbers: &Numbers) -> bool {
    let summary = numbers.summary;
    let astray = summary.missing + summary.wrong + summary.foreign + summary.leftover;
    numbers.paths_synced && numbers.idle && astray == 0
}

fn pods(page: &Page, scraped: &Scraped) -> prometheus::Result<()> {
    page.gauges(
        "margay_endpoints",
        "Attached pods.",
        &[],
        [(vec![], scraped.endpoints as f64)],
    )?;
    let vanished = page.counter(
        "margay_endpoints_vanished_total",
        "Pods whose interface went without a DEL: its namespace died, or somebody deleted it.",
        &[],
    )?;
    vanished
        .with_label_values::<&str>(&[])
        .inc_by(load(&scraped.requests.vanished));
    let collected = page.counter(
        "margay_endpoints_collected_total",
        "Pods that were detached since their container was gone without a DEL, while something held its namespace.",
        &[],
    )?;
    collected
        .with_label_values::<&str>(&[])
        .inc_by(load(&scraped.requests.collected));
    let addresses = page.gauge(
        "margay_ipam_addresses",
        "Pod addresses by range: total, used, cooling (resting after use).",
        &["cidr", "state"],
    )?;
    for usage in &scraped.usage {
        let cidr = usage.cidr.to_string();
        for (state, count) in [
            ("total", usage.total),
            ("used", usage.used),
            ("cooling", usage.cooling),
        ] {
            addresses
                .with_label_values(&[cidr.as_str(), state])
                .set(count as f64);
        }
    }
    let blocks = page.gauge(
        "margay_ipam_blocks",
        "Blocks of the IPPools that give addresses on this node: total, taken (by any node, or reserved), own.",
        &["pool", "state"],
    )?;
    for usage in &scraped.pools {
        for (state, count) in [
            ("total", usage.total as f64),
            ("taken", usage.taken as f64),
            ("own", usage.own as f64),
        ] {
            blocks
                .with_label_values(&[usage.pool.as_str(), state])
                .set(count);
        }
    }
    let requests = page.counter(
        "margay_cni_requests_total",
        "What the CNI plugin asked, by outcome; deferred: try again later.",
        &["command", "outcome"],
    )?;
    for (command, operation) in operations(&scraped.requests) {
        for (outcome, count) in [
            ("succeeded", &operation.succeeded),
            ("failed", &operation.failed),
            ("deferred", &operation.deferred),
        ] {
            requests
                .with_label_values(&[command, outcome])
                .inc_by(load(count));
        }
    }
    Ok(())
}

fn operations(metrics: &Metrics) -> [(&'static str, &Operation); 2] {
    [("ADD", &metrics.add), ("DEL", &metrics.del)]
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// How long the CNI plugin's requests took: counted in buckets where they are served.
fn durations(metrics: &Metrics) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name("margay_cni_request_seconds".to_owned());
    family.set_help("How long the agent took for the CNI plugin's requests.".to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    let mut lines = Vec::new();
    for (command, operation) in operations(metrics) {
        let mut histogram = Histogram::default();
        let mut total = 0;
        let mut buckets = Vec::new();
        for (bound, count) in BUCKETS.into_iter().zip(&operation.buckets) {
            total += load(count);
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(total);
            bucket.set_upper_bound(bound);
            buckets.push(bucket);
        }
        // What took longer than all bounds counts in the last bucket, `+Inf`, which the encoder adds.
        total += operation.buckets.last().map_or(0, load);
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(load(&operation.nanoseconds) as f64 / 1e9);
        let mut label = prometheus::proto::LabelPair::default();
        label.set_name("command".to_owned());
        label.set_value(command.to_owned());
        let mut metric = Metric::from_label(vec![label]);
        metric.set_histogram(histogram);
        lines.push(metric);
    }
    family.set_metric(lines);
    family
}

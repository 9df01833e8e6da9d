//! bgp-wire beside the Rust crates that read and write the same messages: routecore, bgpkit-parser, zettabgp.
//!
//! `cargo run --release --manifest-path crates/bgp-wire/benches/peers/Cargo.toml`, with `-- --json` for a program to
//! read. A run takes about fifteen seconds.
//!
//! Everybody gets the same bytes, and reads all of it: every prefix and every attribute goes into a sum, which must
//! come out the same for all. Everybody writes what it has read before, from its own types. Times are the thread's
//! CPU time, the median of rounds in which the crates take turns, so that what disturbs one disturbs all; where the
//! median of the others is divided by ours, more than 1 means that we are faster.
#![forbid(unsafe_code)]

mod bgpkit;
mod messages;
mod ours;
mod routecore;
mod zettabgp;

use std::hint::black_box;
use std::time::Duration;

use messages::Sum;
use rustix::time::{ClockId, clock_gettime};

/// Rounds: an odd number, for a median.
const ROUNDS: usize = 41;
/// How long one crate works in a round.
const TURN: Duration = Duration::from_millis(2);

/// Somebody's way to do one thing, ready to be timed.
struct Entry<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Entry<'a> {
    fn new<T>(name: &'static str, mut run: impl FnMut() -> T + 'a) -> Self {
        let run = Box::new(move || {
            black_box(run());
        });
        Self { name, run }
    }
}

/// One thing to do, and how long each takes for it.
struct Row {
    what: &'static str,
    prefixes: usize,
    /// Name and nanoseconds; ours first.
    medians: Vec<(&'static str, f64)>,
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let mut rows = Vec::new();
    for message in messages::all() {
        rows.push(decode(&message));
        rows.push(encode(&message));
    }
    if json {
        print_json(&rows);
    } else {
        print_table(&rows);
    }
}

fn decode(message: &messages::Case) -> Row {
    let bytes = &message.bytes;
    let expected = ours::decode(bytes);
    let shared = bytes::Bytes::copy_from_slice(bytes);
    let (routecore, zettabgp) = (routecore::session(), zettabgp::session(message.v6));
    let sums = [
        routecore::views(bytes, &routecore),
        routecore::values(bytes, &routecore),
        bgpkit::decode(&shared),
        zettabgp::decode(bytes, &zettabgp),
    ];
    assert_eq!(sums, [expected; 4], "all read the same");

    let entries = vec![
        Entry::new("bgp-wire", || ours::decode(black_box(bytes))),
        Entry::new("routecore, views", || {
            routecore::views(black_box(bytes), &routecore)
        }),
        Entry::new("routecore, values", || {
            routecore::values(black_box(bytes), &routecore)
        }),
        Entry::new("bgpkit-parser", || bgpkit::decode(black_box(&shared))),
        Entry::new("zettabgp", || zettabgp::decode(black_box(bytes), &zettabgp)),
    ];
    Row {
        what: if message.v6 {
            "decode IPv6"
        } else {
            "decode IPv4"
        },
        prefixes: message.prefixes,
        medians: medians(entries),
    }
}

fn encode(message: &messages::Case) -> Row {
    let bytes = &message.bytes;
    let expected = ours::decode(bytes);
    let check = |name: &str, bytes: &[u8]| assert_eq!(ours::decode(bytes), expected, "{name}");

    let mut ours = ours::Encoder::new(bytes);
    let mut shared = ours::Encoder::new(bytes);
    let routecore = routecore::Encoder::new(bytes);
    let bgpkit = bgpkit::Encoder::new(bytes);
    let mut zettabgp = zettabgp::Encoder::new(bytes, message.v6);
    check("bgp-wire", ours.encode());
    check("bgp-wire, shared", shared.encode_shared());
    check("bgpkit-parser", &bgpkit.encode());
    // It writes attribute flags that RFC 7606 has us treat as a withdrawal, and an AS_PATH that it does not read back
    // itself: it is timed all the same, as long as it writes as much.
    assert!(
        zettabgp.encode().len() >= bytes.len(),
        "zettabgp: {} octets",
        zettabgp.encode().len()
    );
    let mut entries = vec![
        Entry::new("bgp-wire", move || ours.encode().len()),
        Entry::new("bgp-wire, shared section", move || {
            shared.encode_shared().len()
        }),
        Entry::new("bgpkit-parser", move || bgpkit.encode()),
        Entry::new("zettabgp", move || zettabgp.encode().len()),
    ];
    // It always writes MP_REACH_NLRI, so that IPv4 would not be the same message.
    if message.v6 {
        check("routecore", &routecore.encode());
        entries.push(Entry::new("routecore", move || routecore.encode()));
    }
    Row {
        what: if message.v6 {
            "encode IPv6"
        } else {
            "encode IPv4"
        },
        prefixes: message.prefixes,
        medians: medians(entries),
    }
}

fn medians(mut entries: Vec<Entry<'_>>) -> Vec<(&'static str, f64)> {
    let batches: Vec<u32> = entries.iter_mut().map(|entry| batch(entry)).collect();
    let mut samples = vec![Vec::with_capacity(ROUNDS); entries.len()];
    for _ in 0..ROUNDS {
        for ((entry, &batch), samples) in entries.iter_mut().zip(&batches).zip(&mut samples) {
            samples.push(time(entry, batch).as_nanos() as f64 / f64::from(batch));
        }
    }
    let median = |mut samples: Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[ROUNDS / 2]
    };
    entries
        .iter()
        .map(|entry| entry.name)
        .zip(samples.into_iter().map(median))
        .collect()
}

/// How often an entry is run in a turn.
fn batch(entry: &mut Entry<'_>) -> u32 {
    let mut batch = 1;
    while time(entry, batch) < TURN {
        batch *= 2;
    }
    batch
}

fn time(entry: &mut Entry<'_>, batch: u32) -> Duration {
    let start = cpu_time();
    for _ in 0..batch {
        (entry.run)();
    }
    cpu_time() - start
}

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<22}{:<26}{:>10}{:>10}{:>8}",
        "", "", "ns", "ns/prefix", "ratio"
    );
    for row in rows {
        let what = format!("{} x {}", row.what, row.prefixes);
        for (index, (name, ns)) in row.medians.iter().enumerate() {
            let what = if index == 0 { &what } else { "" };
            let ratio = ns / row.medians[0].1;
            let each = ns / row.prefixes as f64;
            println!("{what:<22}{name:<26}{ns:>10.0}{each:>10.1}{ratio:>8.2}");
        }
    }
}

fn print_json(rows: &[Row]) {
    let rows: Vec<String> = rows
        .iter()
        .flat_map(|row| row.medians.iter().map(move |(name, ns)| (row, name, ns)))
        .map(|(row, name, ns)| {
            let Row { what, prefixes, medians } = row;
            let ratio = ns / medians[0].1;
            format!(
                r#"  {{"what": "{what}", "prefixes": {prefixes}, "crate": "{name}", "ns": {ns:.1}, "ratio": {ratio:.3}}}"#
            )
        })
        .collect();
    println!("[\n{}\n]", rows.join(",\n"));
}

/// What a prefix adds to a [`Sum`]: its first octets and its length.
fn prefix(sum: &mut Sum, high: u64, len: u8) {
    sum.0 = sum.0.wrapping_add(high ^ u64::from(len));
}

fn number(sum: &mut Sum, number: u32) {
    sum.0 = sum.0.wrapping_add(u64::from(number) << 8);
}
